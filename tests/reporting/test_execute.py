"""Parameters are checked before a kernel starts; an executed notebook has its name only if every cell ran."""

import ast
import functools
import json
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nbformat
import pytest

from wakd_kit.names import UnknownName
from wakd_kit.reporting import execute as notebook
from wakd_kit.reporting.execute import NotebookFailed, execute, recorded_parameters
from wakd_kit.reporting.parameters import ParameterError, make, notebook_parameters, parameters
from wakd_kit.study.run import NOTEBOOKS


@notebook_parameters("toy")
@dataclass(frozen=True)
class Toy:
    seed: int = 0
    rate: float = 0.1
    name: str = "last"
    quick: bool = False
    limit: int | None = None
    mode: Literal["mean", "end"] = "mean"
    sizes: tuple[int, ...] = (1, 2)
    objectives: list = field(default_factory=lambda: [{"name": "ce"}])
    settings: dict = field(default_factory=dict)


DECLARED = """seed = 0  # of everything
rate = 0.1
name = "last"
quick = False
limit = None
mode = "mean"
sizes = (1, 2)
objectives = [{"name": "ce"}]
settings = {}"""


@pytest.fixture
def toy(tmp_path):
    """Writes toy.ipynb with these code cells after its parameters, and returns its path."""

    def write(*cells: str, declared: str = DECLARED, tags: tuple = ("parameters",), kernelspec: str = "") -> Path:
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Does a toy work?")])
        book.cells.append(nbformat.v4.new_code_cell(declared, metadata={"tags": list(tags)}))
        book.cells += map(nbformat.v4.new_code_cell, cells)
        if kernelspec:
            book.metadata.kernelspec = {"name": kernelspec, "display_name": "?", "language": "python"}
        nbformat.write(book, tmp_path / "toy.ipynb")
        return tmp_path / "toy.ipynb"

    return write


@pytest.fixture
def temp(monkeypatch):
    """A folder for temporary files of this test alone; its name is short enough for a socket's address."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def no_kernel(monkeypatch):
    def start(*_, **__):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(notebook.papermill, "execute_notebook", start)


@pytest.mark.parametrize(
    "given, sentence",
    [
        (
            {"sead": 1},
            "Unknown parameter 'sead'. Did you mean 'seed'? Known: limit, mode, name, objectives, quick, rate",
        ),
        ({"seed": "abc"}, "seed='abc': expected int, got str."),
        ({"seed": True}, "seed=True: expected int, got bool."),
        ({"seed": 1.0}, "seed=1.0: expected int, got float."),
        ({"rate": "1e-3"}, "rate='1e-3': expected float, got str."),
        ({"quick": 1}, "quick=1: expected bool, got int."),
        ({"limit": "none"}, "limit='none': expected int or None, got str."),
        ({"mode": "median"}, "mode='median': choose one of 'mean', 'end'."),
        ({"sizes": [1, "2"]}, "sizes[1]='2': expected int, got str."),
        ({"objectives": "ce"}, "objectives='ce': expected list, got str."),
        ({"seed": "a", "rate": "b"}, "rate='b': expected float, got str. seed='a': expected int, got str."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_a_sentence_before_a_kernel_starts(toy, tmp_path, no_kernel, given, sentence):
    with pytest.raises(ParameterError) as error:
        make(Toy, given)
    assert str(error.value).startswith(sentence)
    with pytest.raises(ParameterError):
        execute(toy(), tmp_path / "out.ipynb", given)
    if "sead" not in given:  # other names of a running notebook are its own business
        with pytest.raises(ParameterError):
            parameters("toy", {**given, "unrelated": object()})


def test_what_fits_is_widened_and_nothing_else():
    made = make(Toy, {"rate": 1, "sizes": [3], "limit": 5})
    assert (made.rate, type(made.rate), made.sizes, made.limit) == (1.0, float, (3,), 5)
    assert parameters(Toy, {"seed": 4, "np": sys}) == Toy(seed=4)


def test_a_missing_value_and_an_unknown_notebook_are_named():
    @dataclass
    class Needs:
        steps: int

    with pytest.raises(ParameterError, match=r"Needs needs steps\."):
        make(Needs, {})
    with pytest.raises(UnknownName, match=r"Unknown notebook 'tow'\. Did you mean 'toy'"):
        notebook.describe("tow")
    with pytest.raises(FileNotFoundError, match="No notebook at"):
        execute("nowhere/toy.ipynb", "out.ipynb")


@pytest.mark.parametrize(
    "declared, sentence",
    [
        (DECLARED.replace("seed = 0", "seed = False"), "seed=False: expected int, got bool."),
        (DECLARED + "\nsead = 1", "toy.ipynb never reads 'sead'. Unknown parameter 'sead'. Did you mean 'seed'?"),
        (DECLARED + "\nimport os", "the parameters cell takes 'name = literal' lines, not 'import os'."),
        (DECLARED.replace("seed = 0", "seed = len([])"), "not 'seed = len([])'."),
        (
            DECLARED.replace("rate = 0.1", "rate = "),
            "toy.ipynb: its parameters cell is no Python: 'rate =', invalid syntax.",
        ),
        (DECLARED.replace("seed = 0", "rate = seed = False"), "seed=False: expected int, got bool."),
    ],
)
def test_what_a_notebook_declares_is_checked_as_what_it_is_given(toy, tmp_path, no_kernel, declared, sentence):
    with pytest.raises(ParameterError) as error:
        execute(toy(declared=declared), tmp_path / "out.ipynb")
    assert sentence in str(error.value)


def test_a_copy_is_described_by_the_name_in_its_second_cell(toy, tmp_path, no_kernel, monkeypatch):
    """Its own values count, it may declare more, and what it is called does not matter."""
    started = []

    def start(*_, parameters, **__):
        started.append(parameters)
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(notebook.papermill, "execute_notebook", start)
    check = 'from wakd_kit.reporting.parameters import parameters\np = parameters("toy", globals())'
    declared = DECLARED.replace("seed = 0", "seed = 3") + "\nmine = 1"
    copy = toy(check, "print(mine)", declared=declared).rename(tmp_path / "my copy.ipynb")
    assert notebook.described_by(copy) is Toy
    with pytest.raises(NotebookFailed, match="a kernel was started"):
        execute(copy, tmp_path / "out.ipynb", {"rate": 1, "mine": 2})
    assert started == [{**notebook.plain(Toy(seed=3, rate=1.0)), "mine": 2}]
    with pytest.raises(ParameterError, match=r"Unknown parameter 'sead'\. Did you mean 'seed'"):
        execute(copy, tmp_path / "out.ipynb", {"sead": 1})
    other = toy('p = parameters("toi", globals())').rename(tmp_path / "other.ipynb")
    with pytest.raises(UnknownName, match=r"Unknown notebook 'toi'\. Did you mean 'toy'"):
        execute(other, tmp_path / "out.ipynb")


def test_what_papermill_alone_was_given_is_known_or_refused(toy, tmp_path):
    """Plain papermill, which only warns; a copy may declare more, and a second pass replaces what the first one set."""
    check = 'from wakd_kit.reporting.parameters import parameters\np = parameters("10_explore_averaging", globals())'
    copy = toy(check, "assert (p.window_map_grid, mine) == (3, 2)", declared="window_map_grid = 20\nmine = 1")
    out, run = (
        tmp_path / "out.ipynb",
        functools.partial(notebook.papermill.execute_notebook, kernel_name="python3", language="python"),
    )
    run(copy, out, {"window_map_grid": 3, "mine": 2, "PAPERMILL_INPUT_PATH": "toy.ipynb"})
    with pytest.raises(notebook.PapermillExecutionError, match=r"Unknown parameter 'hiden'\. Did you mean 'hidden'"):
        run(out, tmp_path / "second.ipynb", {"hiden": True, "mine": 2})


@pytest.mark.parametrize(
    "cells",
    [
        ["", "import numpy", "# Parameters\nmine = 1", "p = ..."],  # a cell that somebody wrote
        ["", DECLARED, "p = ...", "raet = 1", DECLARED, "p = ..."],  # executed once more
        ["", DECLARED, "# Parameters\nraet = 1", "p = ...", "# Parameters\nrate = 1", "p = ..."],  # mended
        ["", "%%broken(", "# Parameters\n(", "p = ..."],
    ],
)
def test_a_session_may_have_any_variables(cells):
    left = {"raet": 1, "mine": 1, "rat": [1], "rate": 1, "exit": None, "In": cells}
    assert parameters(Toy, left) == parameters(Toy, {"rate": 1}) == Toy(rate=1.0)


def test_any_other_notebook_runs_without_a_description_and_says_so(toy, tmp_path, caplog):
    other = toy("assert (limit, seed) == (7, 0)").rename(tmp_path / "other.ipynb")
    with pytest.warns(UserWarning, match=r"other\.ipynb names no description.* its parameters are not checked"):
        out = execute(other, tmp_path / "out.ipynb", {"limit": 7, "steps": 8})
    assert recorded_parameters(out) == {"limit": 7, "steps": 8}
    assert "Passed unknown parameter: steps" in caplog.messages, "though another notebook has it"


def test_names_with_dots_keep_all_they_are_called(toy, tmp_path):
    outs = [execute(toy("pass"), tmp_path / name) for name in ("lr0.01", "lr0.02", "lr0.03.ipynb")]
    assert [out.name for out in outs] == ["lr0.01.ipynb", "lr0.02.ipynb", "lr0.03.ipynb"]
    with pytest.raises(NotebookFailed):
        execute(toy("1 / 0"), tmp_path / "lr0.04")
    names = {"toy.ipynb", "lr0.01.ipynb", "lr0.02.ipynb", "lr0.03.ipynb", "lr0.04.failed.ipynb"}
    assert {p.name for p in tmp_path.iterdir()} == names


def test_a_notebook_without_parameters_cell_is_refused(toy, tmp_path, no_kernel):
    with pytest.raises(ParameterError, match=r"toy\.ipynb has no cell tagged 'parameters'"):
        execute(toy(tags=()), tmp_path / "out.ipynb")


WRITE = """import json, os, sys
seen = [seed, rate, name, limit, objectives]
with open("seen.json", "w") as file:
    json.dump([seen, sys.executable, os.environ["OMP_NUM_THREADS"], os.getcwd()], file)"""
AWKWARD = 'a "quoted" \\ back{slash}\n= # é'


def test_two_at_once_each_with_its_own_kernel_folder_and_environment(toy, tmp_path, monkeypatch, temp):
    book = toy(WRITE, "import time; time.sleep(0.2)", kernelspec="somebody_elses")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    folders = [tmp_path / "one", tmp_path / "two"]

    def run(folder: Path) -> Path:
        folder.mkdir()
        given = {"seed": len(folder.name), "rate": 1, "name": AWKWARD, "objectives": [{"name": "kd", "t": 5.0}]}
        out = Path("..") / folder.name / "runs" / "out.ipynb"  # relative to where the caller is
        return execute(book, out, given, cwd=folder, env={"OMP_NUM_THREADS": folder.name})

    with ThreadPoolExecutor(2) as pool:
        outs = list(pool.map(run, folders))
    assert Path.cwd() == here
    for folder, out in zip(folders, outs):
        seen, executable, threads, cwd = json.loads((folder / "seen.json").read_text())
        assert seen == [3, 1.0, AWKWARD, None, [{"name": "kd", "t": 5.0}]]
        assert (Path(executable), threads, Path(cwd)) == (Path(sys.executable), folder.name, folder)
        assert [p.name for p in out.parent.iterdir()] == ["out.ipynb"]
        assert recorded_parameters(out) == {
            **notebook.plain(Toy(seed=3, rate=1.0, name=AWKWARD)),
            "objectives": [{"name": "kd", "t": 5.0}],
        }
    assert not list(temp.iterdir())  # no socket, no connection file


@pytest.mark.parametrize(
    "cell, sentence",
    [
        ("raise ValueError('no *such* <domain>.')", "stopped at In [4], ValueError: no *such* <domain>."),
        ("import os; os.kill(os.getpid(), 9)", "stopped at In [4], its kernel died: killed, or out of memory."),
        ("import sys; sys.exit()", "ended at In [4] by sys.exit, before its last cell."),
    ],
    ids=["error", "killed", "exit"],
)
def test_a_notebook_that_stops_is_kept_and_never_looks_done(toy, tmp_path, temp, cell, sentence):
    out = tmp_path / "out.ipynb"
    for earlier in (out, out.with_suffix(".html")):
        earlier.write_text("from an earlier run")
    with pytest.raises(NotebookFailed) as error:
        execute(toy("print('before')", cell, "print('after')"), out, {"seed": 1})
    failed = tmp_path / "out.failed.ipynb"
    assert str(error.value) == f"toy {sentence} The copy is {failed}."
    assert {p.name for p in tmp_path.iterdir()} == {"toy.ipynb", "out.failed.ipynb"}
    assert recorded_parameters(out) is None
    book = nbformat.read(failed, as_version=4)
    nbformat.validate(book)
    said = re.sub("([*<>])", r"\\\1", sentence)  # as it is, and no Markdown
    assert book.cells[0].source == f"**This notebook is not finished.** It {said}"
    assert [c.metadata.papermill.status for c in book.cells[-3:]] == ["completed", "failed", "pending"]
    assert book.cells[-3].outputs[0].text == "before\n" and not book.cells[-1].outputs
    assert not list(temp.iterdir())


def test_kernels_can_be_killed_from_another_thread(toy, tmp_path, temp):
    (tmp_path / "out").mkdir()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, toy("import time; time.sleep(60)"), tmp_path / "out" / "out.ipynb")
        while wait([running], timeout=0.1).not_done:
            notebook.kill_running()
    with pytest.raises(NotebookFailed, match=r"its kernel died|RuntimeError"):
        running.result()
    assert {p.name for p in (tmp_path / "out").iterdir()} <= {"out.failed.ipynb"} and not list(temp.iterdir())
    assert not notebook._running


def test_an_interrupted_notebook_is_kept_and_the_interrupt_goes_on(toy, tmp_path, monkeypatch):
    def interrupted(_, part, **__):
        Path(part).write_text('{"half a note')
        raise KeyboardInterrupt

    monkeypatch.setattr(notebook.papermill, "execute_notebook", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute(toy(), tmp_path / "out.ipynb")
    assert {p.name for p in tmp_path.iterdir()} == {"toy.ipynb", "out.failed.ipynb"}


SHIPPED = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_cell_gives_a_parameter_another_value_so_that_cells_can_be_run_again(path):
    bound = [
        {
            node.id
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        for _, source in notebook._code(path)
    ]
    assert not bound[0] & set().union(*bound[1:])


# by hand the notebooks train the quickstart's networks; defaults stay what studies that name none were recorded with
FIRST_WALK = {
    "01_train_teacher": {"model": "resnet10t_w16", "batch_size": 32, "deploy": {"name": "wakd"}},
    "02_distill": {"model": "resnet10t_w8", "batch_size": 32},
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_notebooks_declare_what_is_described_and_check_it_again(path, tmp_path, no_kernel, monkeypatch):
    with pytest.raises(notebook.NotebookFailed, match="a kernel was started"):  # so nothing was refused before
        execute(path, tmp_path / "out.ipynb")
    described = notebook.plain(notebook.described_by(path)())
    by_hand, declared = FIRST_WALK.get(path.stem, {}), notebook._declared(path)
    assert declared.items() <= (described | by_hand).items() and by_hand.keys() <= declared.keys()
    assert len(declared) == (6 if by_hand else len(described)), "a training has six knobs, and defaults"
    declared, check = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"][:2]
    for loads in ("wakd_kit.results.differences.collect", "wakd_kit.load_run"):
        monkeypatch.setattr(loads, lambda *_, **__: pytest.fail("went on"))
    namespace: dict = {}
    exec(declared, namespace)
    name = next(name for name in ("runs", "run", "seed") if name in namespace)
    namespace[name] = ["abc"]  # what plain papermill would inject without a word
    with pytest.raises(ParameterError, match=rf"{name}=\['abc'\]: expected (int|str), got list\."):
        exec(check, namespace)


@pytest.mark.parametrize(
    "given, sentence",
    [
        ({"size": 1}, "size is at least 2; got 1."),
        ({"directions": 1}, "directions is at least 2; got 1."),
        ({"radii": []}, "radii are distances above 0, at least one; got []."),
        ({"radii": [1.0, 0.0]}, "radii are distances above 0, at least one; got [1.0, 0.0]."),
        ({"corners": ["last", "wakd"]}, "corners are three of labels, steps and 'initial', or none; got ['last', 'wakd']."),
        ({"corners": ["last", "wakd", 0.5]}, "corners are three of labels, steps and 'initial', or none"),
        ({"strategies": [{"name": "wakdd"}]}, "Unknown strategy 'wakdd'. Did you mean 'wakd'?"),
        ({"strategies": ["WAKD", {"name": "last"}], "average": "WAKDD"}, "Unknown label 'WAKDD'. Did you mean 'WAKD'?"),
        ({"strategies": ["WAKD"]}, "Unknown label 'last'. Known: WAKD."),
        ({"strategies": ["last", "WAKD"], "corners": ["last", "SWAD", 30]}, "Unknown label 'SWAD'."),
    ],
)  # fmt: skip
def test_what_a_landscape_cannot_be_drawn_of_is_a_sentence(given, sentence):
    with pytest.raises(ParameterError) as error:
        make(notebook.describe("04_landscape"), given)
    assert str(error.value).startswith(sentence)

"""What a step of a study depends on: computed from what code names, the same on every Python, blind to where it stands."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wakd_kit import fingerprints as sources
from wakd_kit.evaluation.lengths import length_sweep
from wakd_kit.evaluation.windows import window_map
from wakd_kit.study.places import NOTEBOOKS

PACKAGE = Path(sources.PACKAGE)
KD = (("wakd_kit.objectives.logits", "kd"),)


def test_every_name_of_the_short_lists_is_there():
    places = sources.modules()
    assert {*places, *(place.partition("/")[0] for place in places)} >= sources.NOT_RESULTS
    defined = set().union(*map(sources._definitions, sources.modules()))
    assert defined >= sources.NOT_RECORDED
    with pytest.raises(LookupError, match="wakd_kit does not define no_such in what it exports"):
        sources.reached([("", "no_such")])


@pytest.mark.parametrize("text", ["", "# nothing yet\n", '"""Words."""\n', "import os\n"])
def test_a_plugin_in_which_nothing_stands_is_one(text, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "other.py").write_text("x = 1\n")
    mine, other = (sources.of_plugins([str(tmp_path / name)]) for name in ("mine.py", "other.py"))
    assert len(mine) == 1 and [*mine.values()] != [*other.values()]


def test_what_decides_a_recording_and_what_does_not():
    code = sources.of_recording(KD)
    wanted = ("train", "_loop", "augment", "Segments.merge", "Segments._encode", "Segments.shrink", "kd", "Run.average")
    assert set(wanted) <= code.keys() and {"Training.training", "build_model"} <= code.keys()
    assert not {"load_domains", "swad", "Run.scores", "estimate_bytes", "dkd", "evaluate", "tqdm"} & code.keys()
    other = sources.of_recording((("wakd_kit.objectives.logits", "dkd"), ("elsewhere.losses", "mine")))
    assert "dkd" in other and "mine" not in other and other["train"] == code["train"]


@pytest.mark.parametrize(
    "notebook, reached",
    [
        ("02_distill", ("choose", "evaluate", "swad", "window_map", "answers", "show_table")),
        ("03_compare", ("collect", "paired", "interval", "rank_methods")),
        ("08_beyond_accuracy", ("collect", "paired", "agreement", "churn", "reliability")),
        ("04_landscape", ("plane", "interval", "flatness", "walled")),
        ("06_when_averaging_helps", ("measured", "cells", "interval")),
    ],
)
def test_a_notebook_depends_on_all_that_it_reaches(notebook, reached):
    code = sources.of_notebook(NOTEBOOKS / f"{notebook}.ipynb")
    assert set(reached) <= code.keys() and f"{notebook}.ipynb" in code
    assert not {"run_study", "explorer", "locked"} & code.keys()


STEPS = frozenset({"recording", "01", "02", "03", "04", "05", "06", "07", "08", "page", "plane"})


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """Digests of a copy of the package with an edit, as another process (and another Python) tells them."""

    @functools.cache
    def digests(*edits: tuple[str, str, str], move: tuple[str, str] = (), python: str = sys.executable) -> dict:
        root = tmp_path_factory.mktemp("edited")
        shutil.copytree(PACKAGE, root / "wakd_kit", ignore=shutil.ignore_patterns("shipped", "__pycache__"))
        for file, old, new in edits:
            path = root / "wakd_kit" / file
            assert old in path.read_text(), f"{file} has no {old}"
            path.write_text(path.read_text().replace(old, new))
        if move:
            (root / "wakd_kit" / move[1]).parent.mkdir()
            (root / "wakd_kit" / move[0]).rename(root / "wakd_kit" / move[1])
        script = (
            "import json, sys, pathlib\nfrom wakd_kit import fingerprints as s\n"
            f"books = {{b.name[:2]: b for b in pathlib.Path({str(NOTEBOOKS)!r}).glob('0*.ipynb')}}\n"
            f"told = {{b: lambda b=b: s.of_notebook(books[b]) for b in books}}\n"
            f"told |= {{'recording': lambda: s.of_recording({KD!r}), 'page': lambda: s.of_page(compares=True)}}\n"
            "def plane(): pass  # as if it were that one\n"
            "plane.__module__ = 'wakd_kit.landscape.surface'\n"
            "told['plane'] = lambda: s.of_function(plane)\n"
            f"print(json.dumps({{step: told[step]() for step in {sorted(STEPS)}}}))"
        )
        environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([python, "-c", script], env=environment, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return digests


EDITS = [  # what decides a number, and who has to notice
    ("data/augment.py", "angle * (math.pi / 180)", "angle * (math.pi / 181)", STEPS),
    ("averaging/valley.py", "end = t - n_tolerance\n", "end = t - n_tolerance - 1\n", {"01", "02", "04"}),
    ("statistics.py", "0.5 + level / 2", "0.5 + level / 3", {"03", "04", "05", "06", "07", "08", "page"}),
    (
        "runs/store.py",
        "share = self.iterates[position] /",
        "share = 0.5 * self.iterates[position] /",
        {"recording", "01", "02", "04", "06", "07"},
    ),
    ("runs/store.py", "in range(len(counts) - 2) if", "in range(len(counts) - 3) if", {"recording", "01", "02"}),
    ("reporting/parameters.py", '"resume": True}', '"resume": False}', {"recording", "01", "02"}),
    ("reporting/parameters.py", "else split.whole()", "else split", {"recording", "02"}),
    ("runs/run.py", "inside > 1 + 1e-9", "inside > 1 + 1e-8", STEPS),
    ("runs/start.py", "student.load_state_dict(model.state_dict())", "pass", {"recording", "02"}),
    ("evaluation/merging.py", "scale: float = 0.4) -> State", "scale: float = 0.3) -> State", {"07"}),
    ("models/build.py", '"vit_conv_any", pretrained', '"vit_conv_any", not pretrained', {"recording"}),
    ("results/collect.py", "A dash: in at least one run", "None: in at least one run", {"03", "05", "08"}),
    ("reporting/templates/wakd/page.css", "main", "main ", {"page"}),
]


def test_an_edit_is_noticed_where_it_counts_and_words_and_places_are_not(edited):
    before = edited()
    # all digests are of names: a module in another folder, its docstrings and comments count for nothing
    words = ("statistics.py", '"""Intervals', '"""More words. Intervals')
    rooms = [
        (str(f.relative_to(PACKAGE)), "from ..statistics import", "from ..room.statistics import")
        for f in PACKAGE.rglob("*.py")
        if "from ..statistics import" in f.read_text()
    ]
    inside = [("statistics.py", "from .", "from ..")] if "from ." in (PACKAGE / "statistics.py").read_text() else []
    assert edited(words, *inside, *rooms, move=("statistics.py", "room/statistics.py")) == before
    for file, old, new, wanted in EDITS:
        after = edited((file, old, new))
        assert {step for step in STEPS if after[step] != before[step]} == wanted, f"{file}: {new}"


def test_a_function_is_known_by_all_that_it_runs_also_from_within_another():
    whole, other = (sources.of_function(f) for f in (window_map, length_sweep))
    assert len({whole, other, ""}) == 3

    def inner():
        pass

    inner.__module__, inner.__qualname__ = "wakd_kit.evaluation.windows", "window_map.<locals>.inner"
    assert sources.of_function(inner) == whole and sources.of_function(json.dumps) == ""


def test_digests_are_the_same_on_every_python(edited):
    found = [shutil.which(f"python3.{minor}") for minor in (11, 12, 13, 14)]
    pyenv = Path.home().glob(".pyenv/versions/3.1[1-9]*/bin/python")
    others = []
    for python in [*filter(None, found), *map(str, pyenv)]:
        version = subprocess.run(
            [python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
        )
        ours = repr(sys.version_info[:2])
        if version.returncode == 0 and version.stdout.strip() not in (ours, *(said for said, _ in others)):
            others.append((version.stdout.strip(), python))
    if not others:
        pytest.skip("no other Python is installed here")
    for version, python in others[:2]:
        assert edited(python=python) == edited(), version


def test_what_one_python_calls_empty_and_another_leaves_out_is_no_difference():
    function = sources.ast.parse("def f(x): return x").body[0]
    text = sources._dump(function)
    function.type_params, function.type_comment = [], None
    assert sources._dump(function) == text and "type_params" not in text

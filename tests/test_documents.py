"""What README, docs and docstrings say is run: their code, their commands and their examples, at tiny size.

Nothing in their text is changed. ``train`` takes 20 steps of 4 images, handwriting is an eighth of itself, notebooks are executed in this
process on the fewest points, and image folders that are not here stand in for themselves as three images of each class.
Commands that need hours, a network or images are parsed, with every option they show, and the names in them looked up.
"""

import ast
import copy
import doctest
import functools
import importlib.util
import inspect
import pkgutil
import re
import shlex
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import wakd_kit as wk
from wakd_kit.cli import command_line, main
from wakd_kit.data import catalog as benchmarks
from wakd_kit.data import domains
from wakd_kit.reporting import execute as notebook
from wakd_kit.reporting import render as report
from wakd_kit.runs import train as training
from wakd_kit.study.specification import load_study

from . import notebooks

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = ["wakd_kit", *(m.name for m in pkgutil.walk_packages(wk.__path__, "wakd_kit.") if "__main__" not in m.name)]
TRAIN = training.train  # its example; in its place stands one that takes fewer steps
TINY = {
    "steps": 20,
    "segment_length": 5,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "batchnorm_batches": 2,
    "device": "cpu",
    "progress": False,
}
FEWEST = {"size": 2, "directions": 2, "window_map_grid": 2}
MISSING = [logger for logger in ("tensorboard", "wandb") if importlib.util.find_spec(logger) is None]  # an extra
RUN = ["train", "average", "notebook", "landscape", "doctor", "list", *([] if "tensorboard" in MISSING else ["log"])]
FOLDERS = ("pacs", "vlcs", "officehome", "terra", "domainnet", "folder", "images")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Trainings, data and notebooks of this module, tiny."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAKD_CACHE", str(tmp_path_factory.mktemp("tiny")))
        from wakd_kit.data import digits

        scans = digits.load_digits()
        few = type(scans)(**{**scans, "target": scans.target[::8], "images": scans.images[::8]})
        patch.setattr(digits, "load_digits", lambda: few)
        train, load = training.train, domains.load_domains

        def tiny_train(student, split, **settings):
            return train(student, split, **settings | TINY)

        def stand_in(name, **options):
            kind, _, path = name.partition(":")
            if kind not in FOLDERS or (path and Path(path).is_dir()):
                return load(name, **options)
            known = benchmarks.BENCHMARKS[kind]
            images = np.zeros((3 * len(known.classes), 32, 32, 3), np.uint8)
            labels = np.arange(len(images)) % len(known.classes)
            return wk.domains_from_arrays({domain: (images, labels) for domain in known.counts}, known.classes)

        for module, name, value in (
            (wk, "train", tiny_train),  # first: it is found by name, and what is put back must not be the tiny one
            (training, "train", tiny_train),
            (wk, "load_domains", stand_in),
            (notebook, "execute", functools.partial(notebooks.execute, least=FEWEST)),
            (report, "show", lambda figure, alt, **_: plt.close(figure)),
            (report, "render", lambda executed, page: page),
        ):
            patch.setattr(module, name, value)
        for known in (
            wk.objectives.objectives,
            wk.averaging.strategies,
        ):  # what examples register is not there afterwards
            for name, entries in vars(known).items():
                patch.setattr(known, name, copy.copy(entries))
        yield patch


def fenced(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.M | re.S)


def commands(document: Path) -> list[str]:
    """Every ``wakd ...`` that stands between back quotes or begins a line of a block."""
    text = document.read_text()
    lines = [line.split("#")[0] for block in fenced(document, "") for line in block.splitlines()]
    inline = re.findall(r"(?<!`)`(wakd [^`]+)`(?!`)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    return [line.strip() for line in lines if line.startswith("wakd ")] + inline


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_what_a_document_shows_runs(document, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {"wk": wk}
    for number, block in enumerate(fenced(document, "python")):
        if file := re.match(r"# (\w+\.py)\n", block):  # it is one, for others to use
            Path(file[1]).write_text(block)
            continue
        exec(compile(block, f"{document.name}, block {number}", "exec"), namespace)
    capsys.readouterr()
    for command in commands(document):
        words = shlex.split(command)[1:]
        _is_understood(words, command)
        if words[0] in RUN and len(words) > 1:
            assert main(words) == 0, f"{command}: {capsys.readouterr().err}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_study_that_a_document_shows_whole_is_one(document, tmp_path):
    for block in fenced(document, "yaml"):
        if file := re.match(r"# (\w+\.yaml)\n", block):
            (tmp_path / file[1]).write_text(block)
            assert load_study(tmp_path / file[1]).students


def _is_understood(words: list[str], command: str) -> None:
    """The command line takes these words; where a command is only named, it explains itself."""
    named_only = not any("=" in word or word.startswith("-") for word in words)
    try:
        given = command_line().parse_args(words)
    except SystemExit:
        assert named_only, f"{command} is not what the command line takes"
        with pytest.raises(SystemExit) as helped:
            command_line().parse_args([*words, "--help"])
        assert helped.value.code == 0
        return
    if given.command in ("report", "status") and not given.study.endswith(".yaml"):
        assert load_study(given.study).students
    if given.command == "data" and given.verb == "get":
        assert given.name in {*benchmarks.BENCHMARKS, "lessons"}


def test_every_objective_and_command_of_the_command_line_is_in_its_description():
    described = re.findall(r"^wakd (\w+)", inspect.getdoc(importlib.import_module("wakd_kit.cli")), re.M)
    (chosen,) = [a for a in command_line()._actions if a.choices]
    assert set(described) == set(chosen.choices)


# ---- docstrings


@pytest.fixture(scope="module")
def cast(tiny, tmp_path_factory):
    """What examples in docstrings talk of: a split, two models, a run of one, what strategies chose on it, and so on."""
    split = wk.leave_one_out(wk.load_domains("digits"), target="sketch", seed=0)
    student, teacher = (wk.build_model("resnet10t_w16", split.classes, seed=seed) for seed in (0, 1))
    folder = tmp_path_factory.mktemp("cast")
    run = wk.train(student, split, save_to=folder / "CE")
    choices = wk.choose(run, ["last", {"name": "wakd", "begin": 0.5}])
    table = wk.evaluate(run, choices, split)
    examples = split.val["ink"].take(np.arange(8))
    network = nn.Module()
    network.body = lambda images: (images[:, :, ::4, ::4], images[:, :, ::8, ::8])
    network.classify = nn.Linear(3, 10)
    return {
        "wk": wk,
        "split": split,
        "student": student,
        "teacher": teacher,
        "run": run,
        "choices": choices,
        "coefficients": choices["wakd"],
        "table": table,
        "study": wk.comparison.collect(folder),
        "images": torch.from_numpy(np.asarray(examples.images[:])).permute(0, 3, 1, 2) / 255,
        "labels": torch.from_numpy(examples.labels),
        "network": network,
        "combine": wk.objectives.combine,
    }


def blocks(text: str) -> list[str]:
    """Indented paragraphs of a docstring that are Python and call something."""
    paragraphs = [p for p in re.split(r"\n\s*\n", text) if all(line.startswith("    ") for line in p.split("\n"))]
    found = []
    for paragraph in map(textwrap.dedent, paragraphs):
        try:
            tree = ast.parse(paragraph)
        except SyntaxError:  # a listing of files, a command, a YAML file
            continue
        if any(isinstance(node, ast.Call) for node in ast.walk(tree)):
            found.append(paragraph)
    return found


def shown_in(name: str) -> list[list[str]]:
    tree = ast.parse(Path(importlib.util.find_spec(name).origin).read_text())
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    texts = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return list(filter(None, (blocks(text) for text in texts if text)))


SHOWN = [(name, shown) for name in MODULES for shown in shown_in(name)]


@pytest.mark.parametrize("name, shown", SHOWN, ids=[f"{name}-{i}" for i, (name, _) in enumerate(SHOWN)])
def test_what_a_docstring_shows_runs(name, shown, cast, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    if any("load_run" in block for block in shown):
        wk.train(cast["student"], cast["split"], save_to="runs/demo")
    namespace = {**vars(importlib.import_module(name)), **cast}
    for block in shown:
        if not any(f"{logger}(" in block for logger in MISSING):
            exec(block, namespace)


def test_examples_in_docstrings_give_what_they_say(cast, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    finder, said, shown = doctest.DocTestFinder(exclude_empty=True), [], set()
    found = finder.find(TRAIN, "wakd_kit.runs.train.train", extraglobs=cast)
    for name in MODULES:
        found += finder.find(importlib.import_module(name), name, extraglobs=cast)
    for example in (example for example in found if example.examples):
        runner.run(example, out=said.append)
        shown.add(example.name.rpartition(".")[2])
    assert not said, "".join(said)
    core = {
        "load_domains",
        "leave_one_out",
        "build_model",
        "train",
        "choose",
        "evaluate",
        "average",
        "wakd",
        "swad",
    }
    assert core <= shown

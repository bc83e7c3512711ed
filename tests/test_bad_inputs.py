"""200 inputs that cannot work: each is one sentence with what came and what fits, before anything starts, and leaves nothing.

A row is what is given and words that the sentence has to hold: the value or name that came, what fits, and what to do or what
else belongs there. What came is part of what was given and what fits is not, where that is data.
"""

import inspect
import json
import re
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import wakd_kit as wk
from wakd_kit import landscape
from wakd_kit.checks import explained
from wakd_kit.cli import main
from wakd_kit.data.domains import leave_one_out, load_domains
from wakd_kit.evaluation.export import export
from wakd_kit.files import Stopped
from wakd_kit.runs.pretrain import pretrain
from wakd_kit.runs.store import RunProblem
from wakd_kit.study.jobs import Place
from wakd_kit.study.plan import plan
from wakd_kit.study.specification import load_study

from .conftest import patterns

NAN, INF = float("nan"), float("inf")
# errors that say what came and what fits; a bare one of Python or torch says neither
PROBLEMS = (
    ValueError,
    TypeError,
    KeyError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    RunProblem,
    Stopped,
)
OF_PYTHON = """object has no attribute|NoneType|not subscriptable|not iterable|Traceback|Errno|unsupported operand|
not supported between|could not be converted|could not convert|unhashable|out of bounds""".replace("\n", "").split("|")


def refused(call, words: tuple[str, ...], folder: Path) -> str:
    """The sentence of a call that is refused, and nothing below the folder is new, gone or changed."""
    before = contents(folder)
    with pytest.raises(PROBLEMS) as problem:
        call()
    said = str(problem.value)
    check(said, words)
    assert type(problem.value) is not KeyError, "a bare KeyError names no choice"
    assert before == contents(folder)
    return said


def contents(folder: Path) -> dict:
    """Every file and folder below it, but for locks that nobody holds."""
    return {f: f.read_bytes() if f.is_file() else None for f in folder.rglob("*") if f.suffix != ".lock"}


def check(said: str, words: tuple[str, ...]) -> None:
    came, fits, *_ = words
    assert not [word for word in words if word not in said] and came in said.replace(fits, ""), said
    assert "Unknown" not in said or "Did you mean" in said or "Known:" in said, said
    assert "Did you mean" not in said or any("Did you mean" in word for word in words[1:]), said
    assert not [word for word in OF_PYTHON if word in said], said
    _, *more = said.splitlines()
    assert not more or more[0].startswith("  - "), said  # one line, or a list of problems


def table(rows):
    """Parametrised by rows of (what is given, *words), with ids that tell them apart."""
    cases = [(given, words) for given, *words in rows]
    for given, (came, fits, *_) in cases:
        assert came and fits, given
        if isinstance(given, (dict, str)) and given and "array(" not in repr(given):
            parts = re.findall(r"[\w.]+", came) or [came]
            assert fits not in repr(given) and any(part.lower() in repr(given).lower() for part in parts), given
    return pytest.mark.parametrize(
        ("given", "words"), cases, ids=[f"{i}: {' '.join(w)[:50]}" for i, (_, w) in enumerate(cases)]
    )


@pytest.fixture(scope="module")
def student():
    return lambda **more: wk.build_model("resnet10t", 4, seed=0, channels=(4, 8, 8, 8), stem_width=4, **more)


@pytest.fixture
def quick(split, student, tmp_path):
    """A training of 8 steps, and what is changed of it."""

    def train(model=None, data=None, **changes):
        given = {"steps": 8, "segment_length": 2, "batch_size": 8, "save_to": tmp_path / "run", "progress": False}
        return wk.train(model or student(), data or split, **{**given, "device": "cpu", **changes})

    return train


@table(
    [
        ({"steps": 0}, "0", ">= 1", "steps"),
        ({"steps": -5}, "-5", ">= 1", "steps"),
        ({"steps": 10.5}, "10.5", "int", "steps"),
        ({"steps": "10"}, "'10'", "int", "steps"),
        ({"steps": True}, "True", "int", "steps"),
        ({"steps": None}, "None", "int", "steps"),
        ({"segment_length": 0}, "0", ">= 1", "segment_length"),
        ({"segment_length": 2.0}, "2.0", "int", "segment_length"),
        ({"batch_size": 0}, "0", ">= 1", "batch_size"),
        ({"batch_size": -8}, "-8", ">= 1", "batch_size"),
        ({"batch_size": 10**6}, "1000000", "192", "batch_size"),
        ({"batch_size": 1}, "batch_size 1", "take 2"),
        ({"batch_size": 1, "sampling": "classes", "batchnorm": "frozen"}, "batch_size 1", "at least two"),
        ({"batch_size": 2, "sampling": "balanced"}, "batch_size 2", "3 source domains"),
        ({"learning_rate": 0}, "0", "positive", "learning_rate"),
        ({"learning_rate": -1.0}, "-1", "positive", "learning_rate"),
        ({"learning_rate": NAN}, "nan", "positive", "learning_rate"),
        ({"learning_rate": INF}, "inf", "positive", "learning_rate"),
        ({"learning_rate": "1e-3"}, "'1e-3'", "float", "learning_rate"),
        ({"learning_rate": [0.1]}, "[0.1]", "float", "learning_rate"),
        ({"optimiser": "adamm"}, "'adamm'", "Did you mean 'adam'"),
        ({"optimiser": None}, "None", "'adam'", "optimiser"),
        ({"optimiser": torch.optim.Adam}, "torch.optim.adam.Adam", "'adam', 'adamw'", "optimiser"),
        ({"momentum": -1.0, "optimiser": "sgd"}, "-1", ">= 0", "momentum"),
        ({"momentum": NAN}, "nan", ">= 0", "momentum"),
        ({"weight_decay": -1e-4}, "-0.0001", ">= 0", "weight_decay"),
        ({"weight_decay": "none"}, "'none'", "float", "weight_decay"),
        ({"schedule": "cosin"}, "'cosin'", "Did you mean 'cosine'"),
        ({"warmup": -5}, "-5", ">= 0", "warmup"),
        ({"warmup": 8}, "8", "less than the 8 steps", "warmup"),
        ({"warmup": 0.1}, "0.1", "int", "warmup"),
        ({"sampling": "balance"}, "'balance'", "Did you mean 'balanced'"),
        ({"views": "photograph"}, "'photograph'", "Did you mean 'photographs'"),
        ({"views": {"flip": 2}}, "2", "0 to 1", "flip"),
        ({"views": {"flipp": 0.5}}, "'flipp'", "Did you mean 'flip'"),
        ({"views": {"scale": [1.0, 0.5]}}, "(1.0, 0.5)", "low <= high", "scale"),
        ({"views": 3}, "3", "photographs", "views"),
        ({"batchnorm": "froze"}, "'froze'", "Did you mean 'frozen'"),
        ({"batchnorm_batches": 0}, "0", ">= 1", "batchnorm_batches"),
        ({"precision": "float16"}, "'float16'", "Did you mean 'bfloat16'"),
        ({"storage": "float16"}, "'float16'", "'float16_difference'", "Did you mean"),
        ({"most_stored": 0}, "0", ">= 2", "most_stored"),
        ({"most_stored": 1}, "1", ">= 2", "most_stored"),
        ({"seed": -1}, "-1", ">= 0", "seed"),
        ({"seed": None}, "None", "int", "seed"),
        ({"edges": [0]}, "[0]", "between 1 and 7", "edges"),
        ({"edges": [12]}, "[12]", "between 1 and 7", "edges"),
        ({"edges": 3}, "3", "tuple", "edges"),
        ({"edges": ["3"]}, "'3'", "int", "edges[0]"),
        ({"edges": [0.5]}, "0.5", "int", "edges[0]"),
        ({"teacher": 3}, "3", "a Run", "teacher"),
        ({"teacher": "nowhere"}, "nowhere", "settings.json", "the folder that train saved to"),
        ({"teacher": "x" * 300}, "xxx", "at most 255 bytes"),
        ({"save_to": "x" * 300}, "xxx", "at most 255 bytes"),
        ({"save_to": "x" * 250}, "xxx", "at most 255 bytes"),  # .recording is added
        ({"model": "resnet18"}, "'resnet18'", "a module"),
        ({"data": "digits"}, "'digits'", "leave_one_out"),
        ({"device": "gpu"}, "gpu", "cuda"),
        ({"lr": 0.1}, "'lr'", "Did you mean 'learning_rate'", "setting of train"),
        ({"epochs": 3}, "'epochs'", "Did you mean 'steps'"),
        ({"batchsize": 8}, "'batchsize'", "Did you mean 'batch_size'"),
        ({"dropout": 0.1}, "'dropout'", "Known: batch_size, batchnorm"),
    ]
)
def test_settings_of_a_training(quick, tmp_path, given, words):
    refused(lambda: quick(**given), words, tmp_path)


DECLARED = [
    ("wakdd", "'wakdd'", "Did you mean 'wakd'"),
    (3, "3", "a name", "declare"),
    ({"begin": 0.5}, "{'begin': 0.5}", "a name"),
    ({"name": "wakd", "begn": 0.3}, "'begn'", "Did you mean 'begin'"),
    ({"name": "uniform", "begin": 1}, "'begin'", "uniform has no settings"),
    ({"name": "wakd", "begin": 50}, "50", "8 steps"),
    ({"name": "wakd", "begin": 8}, "begins at step 8", "the run has 8 steps"),
    ({"name": "wakd", "begin": 1.5}, "1.5", "8 steps", "step 12"),
    ({"name": "wakd", "begin": -1}, "-1", "int >= 0", "begin"),
    ({"name": "wakd", "begin": "3"}, "'3'", "step (int)"),
    ({"name": "wakd", "begin": NAN}, "nan", "fraction"),
    ({"name": "wakd", "begin": True}, "True", "step (int)"),
    ({"name": "wakd", "begin": [1]}, "[1]", "step (int)"),
    ({"name": "wakd", "exact": "exactly"}, "'exactly'", "'published'"),
    ({"name": "ema", "decay": 1.5}, "1.5", "[0, 1]", "decay"),
    ({"name": "ema", "decay": "0.9"}, "'0.9'", "[0, 1]", "decay"),
    ({"name": "ema", "dcay": 0.5}, "'dcay'", "Did you mean 'decay'"),
    ({"name": "ema", "warmup": True, "warmup_gamma": 0}, "0", "above 0", "warmup_gamma"),
    ({"name": "swad", "n_converge": "3"}, "'3'", ">= 1", "n_converge"),
    ({"name": "swad", "n_tolerance": 0}, "0", ">= 1", "n_tolerance"),
    ({"name": "swad", "tolerance_ratio": -1}, "-1", ">= 0", "tolerance_ratio"),
    ({"name": "swad", "loss": "val_los"}, "'val_los'", "Did you mean 'val_loss'"),
    ({"name": "best_val", "by": "accuracy"}, "'accuracy'", "Did you mean 'val_accuracy'"),
    ({"name": "window", "begin": 4, "end": 2}, "begin=4 and end=2", "iterates 5-6", "later end"),
    ({"name": "window", "end": 99}, "99", "8 steps"),
    ({"name": "swa", "period": 0}, "0", ">= 1", "period"),
    ({"name": "lawa", "k": 40}, "40", "has 4", "smaller k"),
    ({"name": "wise_ft", "alpha": 2}, "2", "[0, 1]", "alpha"),
    ({"name": "sma", "start": 100}, "100", "8 steps"),
    ({"name": "learned", "rounds": -1}, "-1", ">= 0", "rounds"),
    ({"name": "sma", "frequency": 0, "start": 1}, "0", ">= 1", "frequency"),
]


@table(DECLARED)
def test_declared_strategies(quick, tmp_path, given, words):
    refused(lambda: quick(declare=[given]), words, tmp_path)


def test_after_all_of_these_the_corrected_call_trains(quick, tmp_path):
    for given, *_ in DECLARED:
        with pytest.raises(PROBLEMS):
            quick(declare=[given])
    assert quick().steps == 8


@table(
    [
        ([], "No objective", "at least one", 'such as [{"name": "kd"'),
        (3, "3", "a name", "{'name': 'kd'}"),
        ([None], "None", "a name", "{'name': 'kd'}"),
        ("kdd", "'kdd'", "Did you mean 'kd'"),
        ([{"temperature": 4}], "{'temperature': 4}", 'a "name"'),
        ([{"name": "kd", "temprature": 4}], "'temprature'", "Did you mean 'temperature'"),
        ([{"name": "kd", "temperature": "4"}], "'4'", "a number", "temperature"),
        ([{"name": "kd", "temperature": 0}], "0", "positive", "temperature"),
        ([{"name": "kd", "temperature": NAN}], "nan", "positive", "temperature"),
        ([{"name": "kd", "weight": -1}], "-1", ">= 0", "weight"),
        ([{"name": "kd", "weight": NAN}], "nan", ">= 0", "weight"),
        ([{"name": "kd", "weight": "heavy"}], "'heavy'", ">= 0", "weight"),
        ([{"name": "ce", "weight": 0}], "'weight': 0.0", "above 0", "sum to zero"),
        (["ce", "ce"], "ce", "listed twice"),
        ([{"name": "ce", "label_smoothing": 1.5}], "1.5", "from 0 up to", "label_smoothing"),
        ([{"name": "rs_kd", "draws": 2.5}], "2.5", ">= 1", "draws"),
        ([{"name": "dkd", "beta": -1}], "-1", ">= 0", "beta"),
        ([{"name": "kd", "kind": "back"}], "'back'", "Known: forward"),
        ([{"name": "kd", "schedule": 0.1}], "0.1", '{"end": 0.1}', "schedule"),
        ([{"name": "kd", "schedule": {"ends": 1}}], "'ends'", "Did you mean 'end'"),
        ([{"name": "kd", "schedule": {"end": 20.0}}], "20.0", "share of the run", "end"),
        ([{"name": "kd", "schedule": {"end": "half"}}], "'half'", ">= 0", "end"),
        ([{"name": "kd", "schedule": {"of": "kind"}}], "'kind'", "Known: temperature"),
        ([{"name": "kd", "schedule": {"shape": "cosin"}}], "'cosin'", "Did you mean 'cosine'"),
        ([{"name": "simkd", "factor": 0.5}], "0.5", ">= 1", "factor"),
        (["simkd", "dho"], "simkd", "list one", "dho"),
        (["crd", {"name": "crd", "dimensions": 0}], "0", ">= 1", "dimensions"),
        ("kd", "['kd']", "pass teacher="),
    ]
)
def test_objectives(quick, student, tmp_path, given, words):
    taught = {"teacher": student()} if given != "kd" else {}
    refused(lambda: quick(objectives=given, **taught), words, tmp_path)


@table(
    [
        ({"sedes": [0]}, "'sedes'", "Did you mean 'seeds'"),
        ({"seeds": []}, "[]", "at least one seed"),
        ({"seeds": ["a"]}, "'a'", "int", "seeds[0]"),
        ({"seeds": [-1], "window_map": {}}, "-1", ">= 0", "seed"),
        ({"seeds": [0, 0]}, "[0, 0]", "listed twice"),
        ({"seeds": 0}, "0", "list", "seeds"),
        ({"students": {}}, "{}", "at least one student"),
        ({"students": {"K/D": {}}}, "'K/D'", "letters"),
        ({"students": {"KD": 3}}, "'KD'", "settings", "3"),
        ({"students": ["KD"]}, "['KD']", "dict", "students"),
        ({"targets": "nroth"}, "'nroth'", "Did you mean 'north'"),
        ({"targets": ["north", "north"]}, "north", "listed twice"),
        ({"benchmark": "digit"}, "'digit'", "Did you mean 'digits'"),
        ({"benchmark": "folder:/nowhere/at/all"}, "/nowhere/at/all", "domain/class/images"),
        ({"image_size": 0}, "0", "from 8 to 1024", "size"),
        ({"strategies": ["wakdd"]}, "'wakdd'", "Did you mean 'wakd'"),
        ({"strategies": ["last", {"name": "wakd", "bgin": 1}]}, "'bgin'", "Did you mean 'begin'"),
        ({"strategies": ["last", {"name": "wakd", "begin": 7}]}, "7", "6 steps"),
        ({"baseline": "lst"}, "'lst'", "Did you mean 'last'"),
        ({"window_map": {"gird": 3}}, "'gird'", "Did you mean 'grid'"),
        ({"window_map": {"grid": -1}}, "-1", "at least 0", "grid"),
        ({"window_map": {"seeds": [7]}}, "7", "it has 0", "seed"),
        ({"landscape": {"seeds": [7]}}, "7", "it has 0", "seed"),
        ({"landscape": {"students": ["KDD"]}}, "'KDD'", "Did you mean 'KD'"),
        ({"landscape": {"size": 1}}, "1", "at least 2", "size"),
        ({"landscape": {"margin": -1}}, "-1", "at least 0", "margin"),
        ({"landscape": {"radii": [0.0]}}, "0.0", "above 0", "radii"),
        ({"landscape": {"corners": ["last", "last", "last"]}}, "last", "different", "corners"),
        ({"landscape": {"corners": ["last", "WAKD"]}}, "WAKD", "three", "corners"),
        ({"common": {"lr": 0.1}}, "'lr'", "Did you mean 'learning_rate'"),
        ({"common": {"epochs": 3}}, "'epochs'", "Did you mean 'steps'"),
        ({"common": {"learning_rate": "fast"}}, "'fast'", "float", "learning_rate"),
        ({"common": {"learning_rate": NAN}}, "nan", "positive", "learning_rate"),
        ({"common": {"batch_size": 0}}, "0", ">= 1", "batch_size"),
        ({"common": {"most_stored": 0}}, "0", ">= 2", "most_stored"),
        ({"common": {"warmup": -5}}, "-5", ">= 0", "warmup"),
        ({"common": {"steps": 0}}, "0", ">= 1", "steps"),
        ({"common": {"seed": 3}}, "seed", "study sets it"),
        ({"teacher": {"model": "resnet11"}}, "'resnet11'", "Did you mean"),
        ({"teacher": None}, "there is none", "['kd'] learn from a teacher"),
        ({"also": {"05_objektives": {}}}, "'05_objektives'", "Did you mean '05_objectives'"),
        ({"name": "../../evil"}, "../../evil", "letters, digits", "name"),
        ({"name": ""}, "''", "letters, digits", "name"),
    ]
)
def test_study_files(tiny_study, tmp_path, given, words):
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(tiny_study), **given}))
    place = Place(tmp_path / "report", tmp_path / "runs")
    refused(lambda: plan(load_study(file), place), words, tmp_path)


@pytest.fixture
def images(tmp_path):
    """Two domains of two classes of three images, in a folder."""
    for i, domain in enumerate(("p", "q")):
        for n, (image, label) in enumerate(zip(*patterns(i, per_class=3, classes=2))):
            file = tmp_path / "images" / domain / "xy"[label] / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return tmp_path / "images"


DATA = {
    "nothing there": (lambda f: f"folder:{f}/nowhere", "nowhere", "domain/class/images"),
    "an empty folder": (lambda f: (f / "empty").mkdir() or f"folder:{f / 'empty'}", "empty", "domain"),
    "a file": (lambda f: f"folder:{f / 'p' / 'x' / '0.png'}", "0.png", "domain/class/images"),
    "no path": (lambda f: "folder", "which folder", "folder:PATH"),
    "a class that one domain has not": (lambda f: shutil.rmtree(f / "p" / "x") or f"folder:{f}", "'p'", "'x'"),
    "an image that is none": (
        lambda f: (f / "p" / "x" / "0.png").write_text("no") and f"folder:{f}",
        "0.png: not an image",
        "Replace",
    ),
    "an empty image": (
        lambda f: (f / "p" / "x" / "0.png").write_bytes(b"") or f"folder:{f}",
        "0.png: zero bytes",
        "Replace",
    ),
    "a benchmark's name": (lambda f: "pcas", "'pcas'", "Did you mean 'pacs'"),
    "too small": (lambda f: (f"folder:{f}", {"size": 4}), "4", "8 to 1024", "size"),
    "a size that is text": (lambda f: (f"folder:{f}", {"size": "32"}), "'32'", "whole number", "size"),
    "an unknown option": (lambda f: (f"folder:{f}", {"sise": 32}), "'sise'", "Did you mean 'size'"),
    "a path alone": (lambda f: f, "Unknown benchmark PosixPath", "Known: celeba"),
    "a seed that is text": (lambda f: ("digits", {"seed": "a"}), "'a'", "whole number >= 0", "seed"),
    "more than all is set aside": (lambda f: ("corrupted:digits", {"share": 5}), "5", "between 0 and 1", "share"),
    "less than nothing": (lambda f: ("corrupted:digits", {"share": -1}), "-1", "between 0 and 1", "share"),
    "a share that is text": (lambda f: ("corrupted:digits", {"share": "x"}), "'x'", "between 0 and 1", "share"),
    "a seed of corruptions": (lambda f: ("corrupted:digits", {"seed": -1}), "-1", "whole number >= 0", "seed"),
    "one share of a colour": (lambda f: ("coloured_digits", {"agree": 0.7}), "0.7", "lists shares", "agree"),
    "noise that is text": (lambda f: ("coloured_digits", {"noise": "x"}), "'x'", "from 0 to 1", "noise"),
    "no PACS": (lambda f: f"pacs:{f}", "domain folder 'p'", "art_painting", "load it as folder:"),
}


@pytest.mark.parametrize("row", DATA.values(), ids=DATA)
def test_folders_and_images(images, tmp_path, row):
    made, *words = row
    spec = made(images)
    spec, options = spec if isinstance(spec, tuple) else (spec, {})
    refused(lambda: load_domains(spec, **options), words, images)


BYTES = np.zeros((4, 16, 16, 3), np.uint8)


@table(
    [
        ({}, "none", "at least one domain"),
        ({"a": (BYTES.astype(float), [0, 1, 0, 1])}, "float64", "uint8"),
        ({"a": (BYTES[:, :8], [0, 1, 0, 1])}, "(4, 8, 16, 3)", "(n, side, side, 3)"),
        ({"a": (BYTES, [0, 1])}, "2 of 4", "one label", "'a'"),
        ({"a": (BYTES, [0, 1, 2, 1])}, "from 0 to 2", "from 0 to 1", "'a'"),
        ({"a": (BYTES, [-1, 1, 0, 1])}, "from -1 to 1", "from 0 to 1", "'a'"),
        ({"a": (BYTES, [0.5, 1, 0, 1])}, "0.5", "whole numbers"),
        ({"a": (BYTES, [0, 1, 0, 1]), "b": (BYTES[:, :8, :8], [0, 1, 0, 1])}, "{'a': 16, 'b': 8}", "one image side"),
        ({"a\nb": (BYTES, [0, 1, 0, 1])}, "'a\\nb'", "text of one line"),
        ({0: (BYTES, [0, 1, 0, 1])}, "0", "text", "write '0'"),
    ]
)
def test_arrays(tmp_path, given, words):
    refused(lambda: wk.domains_from_arrays(given, ("x", "y")), words, tmp_path)


@table(
    [
        ({"target": "wset"}, "'wset'", "Did you mean 'west'"),
        ({"target": 3}, "3", "Known: east"),
        ({"seed": -1}, "-1", ">= 0", "seed"),
        ({"seed": 0.5}, "0.5", "whole number", "seed"),
        ({"validation": 0}, "0", "between 0 and 1", "validation"),
        ({"validation": 1.0}, "1.0", "between 0 and 1", "validation"),
        ({"validation": "a fifth"}, "'a fifth'", "between 0 and 1", "validation"),
        ({"target": [["west"]]}, "['west']", "a domain's name or a list of some", "target"),
        ({"only": 1.5}, "1.5", "Known: east, north", "source domain"),
    ]
)
def test_splits(domains, tmp_path, given, words):
    refused(lambda: leave_one_out(domains, **{"target": "west", **given}), words, tmp_path)


def test_splits_with_fewer_sources(split, tmp_path):
    refused(lambda: split.only("est"), ("'est'", "Did you mean 'east'"), tmp_path)
    refused(lambda: split.only(), ("at least one source domain", "north"), tmp_path)


FOLDERS = {
    "nothing there": (lambda run, f: f / "nowhere", "nowhere", "settings.json", "that train saved to"),
    "a name that is too long": (lambda run, f: f / ("x" * 300), str(Path("/")), "at most 255 bytes"),
    "a path that is too long": (lambda run, f: f / ("x/" * 3000), str(Path("/")), "all of it 4,095"),
    "a folder of something else": (lambda run, f: f, "No run at", "settings.json", "that train saved to"),
    "another format": (lambda run, f: changed(run, format=99), "99", "format 1"),
    "no settings": (lambda run, f: emptied(run, "settings.json"), "No run at", "settings.json", "that train saved to"),
    "cut settings": (lambda run, f: cut(run, "settings.json"), "settings.json", "from a copy"),
    "no curves": (lambda run, f: emptied(run, "curves.csv"), "before its first segment was complete", "resume=True"),
    "no segments": (lambda run, f: emptied(run, "segments"), "segments", "from a copy"),
    "a cut segment": (lambda run, f: cut(run, next((run / "segments").glob("0*"))), "safetensors", "from a copy"),
    "a missing segment": (
        lambda run, f: emptied(run, next((run / "segments").glob("0*"))),
        "safetensors is missing",
        "from a copy",
    ),
    "an unfinished one": (lambda run, f: run.rename(f"{run}.recording") and run, "not finished", "resume=True"),
    "a cut choice": (lambda run, f: cut(run, "choices.json", make="{}"), "choices.json", "from a copy"),
    "a cut table": (lambda run, f: cut(run, "scores.csv", make='"a,b\n1'), "scores.csv", "from a copy"),
    "a table cut in a row": (lambda run, f: cut(run, "scores.csv", make="a,b\n1,23\n4,56\n"), "scores.csv", "a copy"),
    "curves cut in a row": (lambda run, f: cut(run, "curves.csv"), "curves.csv", "from a copy"),
    "curves cut after a row": (lambda run, f: cut(run, "curves.csv", rows=4), "curves.csv", "from a copy"),
    "curves without rows": (lambda run, f: cut(run, "curves.csv", rows=0), "curves.csv", "from a copy"),
    "empty curves": (lambda run, f: cut(run, "curves.csv", make=""), "curves.csv", "from a copy"),
}


def changed(run, **settings):
    file = run / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return run


def emptied(run, name):
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    return run


def cut(run, name, make=None, rows=None):
    file = run / name
    if make is not None:
        file.write_text(make)
    data = file.read_bytes()
    kept = data[: len(data) // 2] if rows is None else b"".join(data.splitlines(keepends=True)[: rows + 1])
    file.write_bytes(kept)
    return run


@pytest.mark.parametrize("row", FOLDERS.values(), ids=FOLDERS)
def test_run_folders(copied, split, tmp_path, row):
    made, *words = row
    place = made(copied.folder, tmp_path)

    def everything():
        run = wk.load_run(place, split=split)
        run.average(wk.averaging.uniform(run.source_curves), batchnorm="average")
        return run.choices, run.scores

    refused(everything, words, tmp_path)


SAVE_TO = {
    "a run": (lambda run, f: run, {}, "already holds a run", "resume=True"),
    "a file": (lambda run, f: run / "settings.json", {}, "settings.json", "another save_to"),
    "below a file": (lambda run, f: run / "settings.json" / "x", {}, "settings.json", "another save_to"),
    "no name": (lambda run, f: ".", {}, "at .,", "such as runs/mine"),
    "the root": (lambda run, f: "/", {}, "at /,", "such as runs/mine"),
    "something else": (lambda run, f: f, {}, "holds something else", "another save_to"),
    "another training": (lambda run, f: run, {"resume": True}, "this call has 8", "batch_size=16", "another save_to"),
}


@pytest.mark.parametrize("row", SAVE_TO.values(), ids=SAVE_TO)
def test_places_to_record_into(copied, quick, tmp_path, row):
    made, more, *words = row
    refused(lambda: quick(save_to=made(copied.folder, tmp_path), **more), words, tmp_path)


WEIGHTS = {
    "nothing there": (lambda f: f / "no.pth", "no.pth", ".safetensors"),
    "a folder": (lambda f: f, "No weights file at", ".safetensors"),
    "text": (lambda f: written(f / "w.pth", b"no weights"), "w.pth", "Give a state_dict", "holds no weights"),
    "cut": (
        lambda f: written(f / "w.safetensors", b"\x10\0\0\0\0\0\0\0{"),
        "w.safetensors",
        "Give a state_dict",
        "holds no weights",
    ),
    "no tensors": (lambda f: saved(f / "w.pth", {"a": 1}), "w.pth", "Give a state_dict", "no tensors"),
    "of another model": (
        lambda f: saved(f / "w.pth", {"a": torch.zeros(3)}),
        "w.pth",
        "Give weights of this model",
        "does not fit resnet10t",
    ),
}


def written(file, data):
    file.write_bytes(data)
    return file


def saved(file, state):
    torch.save(state, file)
    return file


@pytest.mark.parametrize("row", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_files(tmp_path, row):
    made, *words = row
    file = made(tmp_path)
    refused(lambda: wk.build_model("resnet10t", 4, weights=file), words, tmp_path)


@table(
    [
        (("resnet11", 4, {}), "'resnet11'", "Did you mean"),
        (("resnet10t", 1, {}), "1", "two classes"),
        (("resnet10t", 4, {"chanels": 3}), "'chanels'", "Did you mean 'channels'", "stem_width"),
        (("resnet10t", ["a"], {}), "['a']", "two classes"),
        (("resnet18", 4, {"zzz": 3}), "'zzz'", "Known: aa_layer"),
        (("no such", 4, {}), "'no such'", "Known: resnet10t_w8", "timm.list_models()"),
        (("vit_tiny_patch16_224", 4, {"img_sise": 32}), "'img_sise'", "Did you mean 'img_size'"),
        (("resnet10t", 4, {"checkpoint_path": "w.pth"}), "checkpoint_path", "weights=FILE", "pretrained=True"),
        (
            ("resnet10t", 4, {"pretrained": True, "pretrained_cfg_overlay": {"file": "w.pth"}}),
            "['file']",
            "weights=FILE",
            "remember",
        ),
        (("resnet10t", 4, {"inside": {"after": [0], "name": ["unistyle"]}}), "['unistyle']", "'mixstyle'", "inside"),
        (("vit_conv_d64", 4, {"depht": 3}), "'depht'", "Did you mean 'depth'"),
        (("resnet10t_w16.px7x", 4, {}), "'resnet10t_w16.px7x'", "Did you mean 'resnet10t_w16'"),
    ]
)
def test_models(tmp_path, given, words):
    name, classes, settings = given
    refused(lambda: wk.build_model(name, classes, **settings), words, tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        (lambda f: wk.build_model("resnet18"), "got name", "needs classes"),
        (lambda f: wk.build_model("resnet18", clases=3), "got name, clases", "Did you mean 'classes'"),
        (lambda f: wk.train(), "got nothing", "needs student and split", "It takes student, split"),
        (lambda f: wk.load_run(f, templat=3), "'templat'", "Did you mean 'template'"),
        (lambda f: leave_one_out({}, targt="a"), "'targt'", "Did you mean 'target'"),
        (lambda f: wk.choose(None, [], splitt=3), "'splitt'", "Did you mean 'split'"),
        (lambda f: wk.evaluate(None, {}, batch_norm="last"), "'batch_norm'", "Did you mean 'batchnorm'"),
        (lambda f: export(None, None, to=f), "'to'", "Known: coefficients, file"),
        (lambda f: pretrain("resnet10t_w16.px64", f, lr=1), "'lr'", "Did you mean 'learning_rate'"),
    ],
)
def test_calls_of_verbs(tmp_path, row):
    call, *words = row
    refused(lambda: call(tmp_path), words, tmp_path)


def test_only_an_argument_is_told_to_lack_what_was_asked_of_it():
    of_the_kit = {"__name__": "wakd_kit.of_this_test"}
    exec(
        "def ask(first, second=None):\n    return (first if second is None else second.real * second.held).missing",
        of_the_kit,
    )
    ask = explained(of_the_kit["ask"])
    array, text = np.eye(2), Path("a run")
    with pytest.raises(ValueError, match=r"(?s)^ask asks first=array\(.* for 'missing', which it does not have\."):
        ask(array)
    with pytest.raises(ValueError, match=r"ask asks first=.*Path\('a run'\) for 'missing'"):
        ask(first=text)
    for shared in (None, 3, True):  # whatever else is None or 3 in the package is the same object
        with pytest.raises(AttributeError, match="has no attribute 'missing'"):
            ask(shared)
    with pytest.raises(AttributeError, match=r"'numpy.*' object has no attribute 'missing'"):
        ask(None, types.SimpleNamespace(real=1, held=np.eye(2)))


def test_verbs_show_their_own_signatures():
    assert inspect.signature(wk.train).parameters["learning_rate"].default == 1e-3
    assert wk.train.__doc__.startswith("Train a student") and wk.build_model.__name__ == "build_model"


@table(
    [
        (np.ones(3) / 3, "3 coefficients", "7"),
        (-np.eye(7)[0], "-1", "non-negative"),
        (np.array([2, -1, 0, 0, 0, 0, 0.0]), "least -1", "non-negative"),
        (np.ones(7), "sum 7", "sum to 1"),
        (np.zeros(7), "sum 0", "sum to 1"),
        (np.full(7, NAN), "sum nan", "sum to 1"),
        ("last", "'last'", "what a strategy returned"),
        (None, "None", "what a strategy returned"),
        (np.eye(7), "(7, 7)", "one number per segment"),
    ]
)
def test_coefficients(copied, tmp_path, given, words):
    for call in (copied.average, copied.deploy, lambda c: wk.evaluate(copied, {"mine": c})):
        refused(lambda call=call: call(given), words, tmp_path)


@table(
    [
        (lambda run, f: wk.evaluate(run, {}), "{}", "label"),
        (lambda run, f: wk.evaluate(run, "last"), "'last'", "label"),
        (lambda run, f: wk.choose(run, ["wakdd"]), "'wakdd'", "Did you mean 'wakd'"),
        (lambda run, f: wk.choose(run, [{"name": "wakd", "begin": 99}]), "begin=99", "24 steps", "below 24"),
        (lambda run, f: wk.evaluate(run, {"a\nb": np.eye(7)[0]}), "'a\\nb'", "text of one line"),
        (lambda run, f: wk.choose(run, [{"name": "last", "label": "a\nb"}]), "'a\\nb'", "text of one line"),
        (lambda run, f: landscape.flatness(run, {"a\nb": np.eye(7)[0]}, radii=[1.0]), "'a\\nb'", "text of one line"),
        (lambda run, f: run.average(np.eye(7)[0], batchnorm="froze"), "'froze'", "Did you mean 'frozen'"),
        (lambda run, f: export(run, np.eye(7)[0], f / "x.txt"), "x.txt", ".safetensors"),
        (
            lambda run, f: wk.load_run(run.folder, split=leave_one_out(run.split.domains, "east")),
            "'east'",
            "'west'",
            "run.split",
        ),
        (
            lambda run, f: wk.load_run(run.folder, split=leave_one_out(run.split.domains, "west", 3)),
            "seed 3",
            "seed 0",
            "run.split",
        ),
    ]
)
def test_what_is_asked_of_a_run(copied, tmp_path, given, words):
    refused(lambda: given(copied, tmp_path), words, tmp_path)


@table(
    [
        ("train lr=0.1", "'lr'", "Did you mean 'learning_rate'"),
        ("train bs=8", "'bs'", "Did you mean 'batch_size'"),
        ("train wd=0", "'wd'", "Did you mean 'weight_decay'"),
        ("train steps=0", "0", ">= 1", "steps"),
        ("train steps=many", "'many'", "int", "steps"),
        ("train steps", "'steps'", "name=value"),
        ("train learning_rate=-1", "-1", "positive", "learning_rate"),
        ("train learning_rate=NaN", "nan", "positive", "learning_rate"),
        ("train seed=-1", "-1", ">= 0", "seed"),
        ("train optimiser=adm", "'adm'", "Did you mean 'adam'"),
        ("train objectives=kdd", "'kdd'", "Did you mean 'kd'"),
        ("train benchmark=folder:IMAGES target=2012 image_size=16 objectives=ce", "'2012'", "Known: p, q"),
        ("train benchmark=digit objectives=ce", "'digit'", "Did you mean 'digits'"),
        (
            "train benchmark=folder:IMAGES target=p image_size=16 model=resnet11 objectives=ce",
            "'resnet11'",
            "Did you mean",
        ),
        ("train warmup=600", "got 600", "less than the 600 steps"),
        ('train strategies=["wakdd"]', "'wakdd'", "Did you mean 'wakd'"),
        ("train teacher=nowhere", "No run at nowhere", "settings.json"),
        ("report quickstrat", "'quickstrat'", "Did you mean 'quickstart'"),
        ("report nowhere.yaml", "nowhere.yaml", "wakd list studies"),
        ("average nowhere --strategy wakd --export f.safetensors", "No run at nowhere", "settings.json"),
        ("landscape nowhere", "No run at nowhere", "settings.json"),
        (f"notebook {'x' * 300} out.ipynb", "xxx", "at most 255 bytes"),
        (f"data check {'x' * 300}", "xxx", "at most 255 bytes"),
        (f"report {'x' * 300}", "xxx", "at most 255 bytes"),
        (f"train --plugin {'x' * 300}.py", "xxx", "No plugin at", "ends in .py"),
        (f"report quickstart --profile {'x' * 300}", "xxx", "at most 255 bytes"),
        ("doctor nowhere", "No run at nowhere", "settings.json"),
        ("notebook 02_distil out.ipynb", "'02_distil'", "Did you mean '02_distill'"),
        ("notebook 02_distill out.ipynb -p window_map_grid=-1", "-1", "at least 0", "window_map_grid"),
        ("pretrain resnet10t_w61.px64 nowhere", "resnet10t_w61.px64", "Did you mean"),
        ("pretrain resnet10t_w16.px64 nowhere steps=abc", "'abc'", "int", "steps"),
        ("pretrain resnet10t_w16.px64 nowhere steps=0", "0", ">= 1", "steps"),
        ("pretrain resnet10t_w16.px64 nowhere lr=1", "'lr'", "Did you mean 'learning_rate'"),
        ("data check nowhere", "nowhere", "domain/class/images"),
    ]
)
def test_commands(images, tmp_path, monkeypatch, capsys, given, words):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(given.replace("IMAGES", str(images)).split()) != 0
    said = capsys.readouterr()
    check(said.err.strip() or said.out.strip().splitlines()[-1], words)
    assert not list(Path().iterdir())


def test_a_path_that_the_command_line_reads_is_a_sentence_too(capsys):
    with pytest.raises(SystemExit):
        main(["landscape", "x" * 300])
    assert re.search("argument run: 'x+...' is too long for a path: .* at most 255 bytes", capsys.readouterr().err)


def test_there_are_200_of_them():
    """The rows of this file, counted."""
    here = [f for name, f in globals().items() if name.startswith("test_") and hasattr(f, "pytestmark")]
    assert sum(len(mark.args[1]) for f in here for mark in f.pytestmark) >= 200

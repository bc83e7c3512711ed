"""200 inputs that cannot work: each is one sentence with what came and what fits, before anything starts, and leaves nothing.

A row is what is given and words that the sentence has to hold: the value or name that came, and something that fits.
"""

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import wakd_kit as wk
from wakd_kit.cli import main
from wakd_kit.data.domains import leave_one_out, load_domains
from wakd_kit.evaluation.export import export
from wakd_kit.files import Stopped
from wakd_kit.objectives import combine
from wakd_kit.runs.record import RunProblem
from wakd_kit.study.jobs import Place
from wakd_kit.study.plan import load_study, plan

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
    assert said.strip() and not [word for word in words if word not in said], said
    assert not [word for word in OF_PYTHON if word in said], said
    _, *more = said.splitlines()
    assert not more or more[0].startswith("  - "), said  # one line, or a list of problems


def table(rows):
    """Parametrised by rows of (what is given, *words), with ids that tell them apart."""
    cases = [(given, words) for given, *words in rows]
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
        ({"steps": 0}, "steps", ">= 1", "0"),
        ({"steps": -5}, "steps", ">= 1", "-5"),
        ({"steps": 10.5}, "steps", "int", "10.5"),
        ({"steps": "10"}, "steps", "int", "'10'"),
        ({"steps": True}, "steps", "int", "True"),
        ({"steps": None}, "steps", "int", "None"),
        ({"segment_length": 0}, "segment_length", ">= 1", "0"),
        ({"segment_length": 2.0}, "segment_length", "int", "2.0"),
        ({"batch_size": 0}, "batch_size", ">= 1", "0"),
        ({"batch_size": -8}, "batch_size", ">= 1", "-8"),
        ({"batch_size": 10**6}, "batch_size", "1000000", "192"),
        ({"batch_size": 1}, "batch_size 1", "take 2"),
        ({"batch_size": 1, "sampling": "classes", "batchnorm": "frozen"}, "batch_size 1", "at least two"),
        ({"batch_size": 2, "sampling": "balanced"}, "batch_size 2", "3 source domains"),
        ({"learning_rate": 0}, "learning_rate", "positive", "0"),
        ({"learning_rate": -1.0}, "learning_rate", "positive", "-1"),
        ({"learning_rate": NAN}, "learning_rate", "positive", "nan"),
        ({"learning_rate": INF}, "learning_rate", "positive", "inf"),
        ({"learning_rate": "1e-3"}, "learning_rate", "float", "'1e-3'"),
        ({"learning_rate": [0.1]}, "learning_rate", "float", "[0.1]"),
        ({"optimiser": "adamm"}, "'adamm'", "Did you mean 'adam'"),
        ({"optimiser": None}, "optimiser", "None", "'adam'"),
        ({"optimiser": torch.optim.Adam}, "optimiser", "'adam'"),
        ({"momentum": -1.0, "optimiser": "sgd"}, "momentum", ">= 0", "-1"),
        ({"momentum": NAN}, "momentum", ">= 0", "nan"),
        ({"weight_decay": -1e-4}, "weight_decay", ">= 0", "-0.0001"),
        ({"weight_decay": "none"}, "weight_decay", "float", "'none'"),
        ({"schedule": "cosin"}, "'cosin'", "Did you mean 'cosine'"),
        ({"warmup": -5}, "warmup", ">= 0", "-5"),
        ({"warmup": 8}, "warmup", "less than the 8 steps", "8"),
        ({"warmup": 0.1}, "warmup", "int", "0.1"),
        ({"sampling": "balance"}, "'balance'", "Did you mean 'balanced'"),
        ({"views": "photograph"}, "'photograph'", "Did you mean 'photographs'"),
        ({"views": {"flip": 2}}, "flip", "0 to 1", "2"),
        ({"views": {"flipp": 0.5}}, "'flipp'", "Did you mean 'flip'"),
        ({"views": {"scale": [1.0, 0.5]}}, "scale", "low <= high", "(1.0, 0.5)"),
        ({"views": 3}, "views", "3"),
        ({"batchnorm": "froze"}, "'froze'", "Did you mean 'frozen'"),
        ({"batchnorm_batches": 0}, "batchnorm_batches", ">= 1", "0"),
        ({"precision": "float16"}, "'float16'", "'bfloat16'"),
        ({"storage": "float16"}, "'float16'", "'float16_difference'"),
        ({"most_stored": 0}, "most_stored", ">= 2", "0"),
        ({"most_stored": 1}, "most_stored", ">= 2", "1"),
        ({"seed": -1}, "seed", ">= 0", "-1"),
        ({"seed": None}, "seed", "int", "None"),
        ({"edges": [0]}, "edges", "between 1 and 7", "[0]"),
        ({"edges": [12]}, "edges", "between 1 and 7", "[12]"),
        ({"edges": 3}, "edges", "3", "tuple"),
        ({"edges": ["3"]}, "edges[0]", "'3'", "int"),
        ({"edges": [0.5]}, "edges[0]", "0.5", "int"),
        ({"teacher": 3}, "teacher", "a Run", "int"),
        ({"teacher": "nowhere"}, "No run at nowhere", "settings.json"),
        ({"model": "resnet18"}, "a module", "str"),
        ({"data": "digits"}, "leave_one_out", "str"),
        ({"device": "gpu"}, "gpu", "cuda"),
    ]
)
def test_settings_of_a_training(quick, tmp_path, given, words):
    refused(lambda: quick(**given), words, tmp_path)


DECLARED = [
    ("wakdd", "'wakdd'", "Did you mean 'wakd'"),
    (3, "declare", "3", "a name"),
    ({"begin": 0.5}, "{'begin': 0.5}", "a name"),
    ({"name": "wakd", "begn": 0.3}, "'begn'", "Did you mean 'begin'"),
    ({"name": "last", "begin": 1}, "last has no settings", "'begin'"),
    ({"name": "wakd", "begin": 50}, "step 50", "8 steps"),
    ({"name": "wakd", "begin": 8}, "step 8", "8 steps"),
    ({"name": "wakd", "begin": 1.5}, "step 12", "8 steps"),
    ({"name": "wakd", "begin": -1}, "begin", "int >= 0", "-1"),
    ({"name": "wakd", "begin": "3"}, "step (int)", "'3'"),
    ({"name": "wakd", "begin": NAN}, "fraction", "nan"),
    ({"name": "wakd", "begin": True}, "step (int)", "True"),
    ({"name": "wakd", "begin": [1]}, "step (int)", "[1]"),
    ({"name": "wakd", "exact": "exactly"}, "'exactly'", "'published'"),
    ({"name": "ema", "decay": 1.5}, "decay", "[0, 1]", "1.5"),
    ({"name": "ema", "decay": "0.9"}, "decay", "[0, 1]", "'0.9'"),
    ({"name": "ema", "dcay": 0.5}, "'dcay'", "Did you mean 'decay'"),
    ({"name": "ema", "warmup": True, "warmup_gamma": 0}, "warmup_gamma", "above 0", "0"),
    ({"name": "swad", "n_converge": "3"}, "n_converge", ">= 1", "'3'"),
    ({"name": "swad", "n_tolerance": 0}, "n_tolerance", ">= 1", "0"),
    ({"name": "swad", "tolerance_ratio": -1}, "tolerance_ratio", ">= 0", "-1"),
    ({"name": "swad", "loss": "val_los"}, "'val_los'", "'val_loss'"),
    ({"name": "best_val", "by": "accuracy"}, "'accuracy'", "'val_accuracy'"),
    ({"name": "window", "begin": 4, "end": 2}, "begin=4", "end=2"),
    ({"name": "window", "end": 99}, "step 99", "8 steps"),
    ({"name": "swa", "period": 0}, "period", ">= 1", "0"),
    ({"name": "lawa", "k": 40}, "k=40", "smaller k"),
    ({"name": "wise_ft", "alpha": 2}, "alpha", "[0, 1]", "2"),
    ({"name": "sma", "start": 100}, "step 100", "8 steps"),
    ({"name": "learned", "rounds": -1}, "rounds", ">= 0", "-1"),
    ({"name": "sma", "frequency": 0, "start": 1}, "frequency", ">= 1", "0"),
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
        ([], "No objective", "at least one"),
        (3, "objective", "3", "a name"),
        ([None], "objective", "None", "a name"),
        ("kdd", "'kdd'", "Did you mean 'kd'"),
        ([{"temperature": 4}], "name", "{'temperature': 4}"),
        ([{"name": "kd", "temprature": 4}], "'temprature'", "Did you mean 'temperature'"),
        ([{"name": "kd", "temperature": "4"}], "temperature", "a number", "'4'"),
        ([{"name": "kd", "temperature": 0}], "temperature", "positive", "0"),
        ([{"name": "kd", "temperature": NAN}], "temperature", "positive", "nan"),
        ([{"name": "kd", "weight": -1}], "weight", ">= 0", "-1"),
        ([{"name": "kd", "weight": NAN}], "weight", ">= 0", "nan"),
        ([{"name": "kd", "weight": "heavy"}], "weight", ">= 0", "'heavy'"),
        ([{"name": "ce", "weight": 0}], "weights", "zero"),
        (["ce", "ce"], "ce", "listed twice"),
        ([{"name": "ce", "label_smoothing": 1.5}], "label_smoothing", "0", "1.5"),
        ([{"name": "rs_kd", "draws": 2.5}], "draws", ">= 1", "2.5"),
        ([{"name": "dkd", "beta": -1}], "beta", ">= 0", "-1"),
        ([{"name": "kd", "kind": "back"}], "'back'", "Known: forward"),
        ([{"name": "kd", "schedule": 0.1}], "schedule", "0.1", '{"end": 0.1}'),
        ([{"name": "kd", "schedule": {"ends": 1}}], "'ends'", "Did you mean 'end'"),
        ([{"name": "kd", "schedule": {"end": 20.0}}], "end", "20.0", "share of the run"),
        ([{"name": "kd", "schedule": {"end": "half"}}], "end", ">= 0", "'half'"),
        ([{"name": "kd", "schedule": {"of": "kind"}}], "'kind'", "Known: temperature"),
        ([{"name": "kd", "schedule": {"shape": "cosin"}}], "'cosin'", "Did you mean 'cosine'"),
        ([{"name": "simkd", "factor": 0.5}], "factor", ">= 1", "0.5"),
        (["simkd", "dho"], "simkd", "dho", "list one"),
        (["crd", {"name": "crd", "dimensions": 0}], "dimensions", ">= 1", "0"),
        ("kd", "['kd']", "pass teacher="),
    ]
)
def test_objectives(quick, student, tmp_path, given, words):
    taught = {"teacher": student()} if given != "kd" else {}
    refused(lambda: quick(objectives=given, **taught), words, tmp_path)


@table(
    [
        ({"sedes": [0]}, "'sedes'", "Did you mean 'seeds'"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": ["a"]}, "seeds[0]", "'a'", "int"),
        ({"seeds": [-1], "window_map": {}}, "seed", ">= 0", "-1"),
        ({"seeds": [0, 0]}, "listed twice", "[0, 0]"),
        ({"seeds": 0}, "seeds", "0", "list"),
        ({"students": {}}, "at least one student"),
        ({"students": {"K/D": {}}}, "'K/D'", "letters"),
        ({"students": {"KD": 3}}, "'KD'", "settings", "3"),
        ({"students": ["KD"]}, "students", "dict", "list"),
        ({"targets": "nroth"}, "'nroth'", "Did you mean 'north'"),
        ({"targets": ["north", "north"]}, "listed twice", "north"),
        ({"benchmark": "digit"}, "'digit'", "Did you mean 'digits'"),
        ({"benchmark": "folder:/nowhere/at/all"}, "/nowhere/at/all"),
        ({"image_size": 0}, "size", "0"),
        ({"strategies": ["wakdd"]}, "'wakdd'", "Did you mean 'wakd'"),
        ({"strategies": ["last", {"name": "wakd", "bgin": 1}]}, "'bgin'", "Did you mean 'begin'"),
        ({"strategies": ["last", {"name": "wakd", "begin": 7}]}, "step 7", "6 steps"),
        ({"baseline": "lst"}, "'lst'", "Did you mean 'last'"),
        ({"window_map": {"gird": 3}}, "'gird'", "Did you mean 'grid'"),
        ({"window_map": {"grid": -1}}, "grid", "at least 0", "-1"),
        ({"window_map": {"seeds": [7]}}, "7", "seed"),
        ({"landscape": {"seeds": [7]}}, "7", "seed"),
        ({"landscape": {"students": ["KDD"]}}, "'KDD'", "Did you mean 'KD'"),
        ({"landscape": {"size": 1}}, "size", "at least 2", "1"),
        ({"landscape": {"margin": -1}}, "margin", "at least 0", "-1"),
        ({"landscape": {"radii": [0.0]}}, "radii", "above 0", "0.0"),
        ({"landscape": {"corners": ["last", "last", "last"]}}, "corners", "different", "last"),
        ({"landscape": {"corners": ["last", "WAKD"]}}, "corners", "three", "WAKD"),
        ({"common": {"lr": 0.1}}, "'lr'", "Did you mean 'learning_rate'"),
        ({"common": {"epochs": 3}}, "'epochs'", "Did you mean 'steps'"),
        ({"common": {"learning_rate": "fast"}}, "learning_rate", "'fast'", "float"),
        ({"common": {"learning_rate": NAN}}, "learning_rate", "positive", "nan"),
        ({"common": {"batch_size": 0}}, "batch_size", ">= 1", "0"),
        ({"common": {"most_stored": 0}}, "most_stored", ">= 2", "0"),
        ({"common": {"warmup": -5}}, "warmup", ">= 0", "-5"),
        ({"common": {"steps": 0}}, "steps", ">= 1", "0"),
        ({"common": {"seed": 3}}, "seed", "study sets it"),
        ({"teacher": {"model": "resnet11"}}, "'resnet11'", "Did you mean"),
        ({"teacher": None}, "['kd']", "teacher"),
        ({"also": {"05_objektives": {}}}, "'05_objektives'", "Did you mean '05_objectives'"),
        ({"name": "../../evil"}, "../../evil", "name"),
        ({"name": ""}, "name"),
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
    "nothing there": (lambda f: f"folder:{f}/nowhere", "nowhere"),
    "an empty folder": (lambda f: (f / "empty").mkdir() or f"folder:{f / 'empty'}", "empty", "domain"),
    "a file": (lambda f: f"folder:{f / 'p' / 'x' / '0.png'}", "0.png"),
    "no path": (lambda f: "folder", "folder:PATH"),
    "a class that one domain has not": (lambda f: shutil.rmtree(f / "p" / "x") or f"folder:{f}", "'p'", "'x'"),
    "an image that is none": (lambda f: (f / "p" / "x" / "0.png").write_text("no") and f"folder:{f}", "0.png"),
    "an empty image": (lambda f: (f / "p" / "x" / "0.png").write_bytes(b"") or f"folder:{f}", "0.png"),
    "a benchmark's name": (lambda f: "pcas", "'pcas'", "Did you mean 'pacs'"),
    "too small": (lambda f: (f"folder:{f}", {"size": 4}), "size", "8 to 1024", "4"),
    "a size that is text": (lambda f: (f"folder:{f}", {"size": "32"}), "size", "whole number", "'32'"),
    "an unknown option": (lambda f: (f"folder:{f}", {"sise": 32}), "'sise'", "Did you mean 'size'"),
    "no PACS": (lambda f: f"pacs:{f}", "art_painting"),
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
        ({}, "at least one domain", "none"),
        ({"a": (BYTES.astype(float), [0, 1, 0, 1])}, "uint8", "float64"),
        ({"a": (BYTES[:, :8], [0, 1, 0, 1])}, "(n, side, side, 3)", "(4, 8, 16, 3)"),
        ({"a": (BYTES, [0, 1])}, "'a'", "one label"),
        ({"a": (BYTES, [0, 1, 2, 1])}, "'a'", "0 to 1"),
        ({"a": (BYTES, [-1, 1, 0, 1])}, "'a'", "0 to 1"),
        ({"a": (BYTES, [0.5, 1, 0, 1])}, "whole numbers", "0.5"),
        ({"a": (BYTES, [0, 1, 0, 1]), "b": (BYTES[:, :8, :8], [0, 1, 0, 1])}, "one image side", "16", "8"),
        ({0: (BYTES, [0, 1, 0, 1])}, "text", "0"),
    ]
)
def test_arrays(tmp_path, given, words):
    refused(lambda: wk.domains_from_arrays(given, ("x", "y")), words, tmp_path)


@table(
    [
        ({"target": "wset"}, "'wset'", "Did you mean 'west'"),
        ({"target": 3}, "3", "Known: east"),
        ({"seed": -1}, "seed", ">= 0", "-1"),
        ({"seed": 0.5}, "seed", "whole number", "0.5"),
        ({"validation": 0}, "validation", "between 0 and 1", "0"),
        ({"validation": 1.0}, "validation", "between 0 and 1", "1.0"),
        ({"validation": "a fifth"}, "validation", "between 0 and 1", "'a fifth'"),
    ]
)
def test_splits(domains, tmp_path, given, words):
    refused(lambda: leave_one_out(domains, **{"target": "west", **given}), words, tmp_path)


def test_splits_with_fewer_sources(split, tmp_path):
    refused(lambda: split.only("est"), ("'est'", "Did you mean 'east'"), tmp_path)
    refused(lambda: split.only(), ("at least one source domain", "north"), tmp_path)


FOLDERS = {
    "nothing there": (lambda run, f: f / "nowhere", "nowhere", "settings.json"),
    "a folder of something else": (lambda run, f: f, "settings.json"),
    "another format": (lambda run, f: changed(run, format=99), "99", "format 1"),
    "no settings": (lambda run, f: emptied(run, "settings.json"), "settings.json"),
    "cut settings": (lambda run, f: cut(run, "settings.json"), "settings.json"),
    "no curves": (lambda run, f: emptied(run, "curves.csv"), "resume=True"),
    "no segments": (lambda run, f: emptied(run, "segments"), "segments"),
    "a cut segment": (lambda run, f: cut(run, next((run / "segments").glob("0*"))), "segment"),
    "a missing segment": (lambda run, f: emptied(run, next((run / "segments").glob("0*"))), "segment"),
    "an unfinished one": (lambda run, f: run.rename(f"{run}.recording") and run, "not finished", "resume=True"),
    "a cut choice": (lambda run, f: cut(run, "choices.json", make="{}"), "choices.json"),
    "a cut table": (lambda run, f: cut(run, "scores.csv", make='"a,b\n1'), "scores.csv"),
}


def changed(run, **settings):
    file = run / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return run


def emptied(run, name):
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    return run


def cut(run, name, make=None):
    file = run / name
    if make is not None:
        file.write_text(make)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
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
    "a file": (lambda run, f: run / "settings.json", {}, "settings.json"),
    "below a file": (lambda run, f: run / "settings.json" / "x", {}, "settings.json"),
    "something else": (lambda run, f: f, {}, "another save_to"),
    "another training": (lambda run, f: run, {"resume": True}, "batch_size=16", "8"),
}


@pytest.mark.parametrize("row", SAVE_TO.values(), ids=SAVE_TO)
def test_places_to_record_into(copied, quick, tmp_path, row):
    made, more, *words = row
    refused(lambda: quick(save_to=made(copied.folder, tmp_path), **more), words, tmp_path)


WEIGHTS = {
    "nothing there": (lambda f: f / "no.pth", "no.pth"),
    "a folder": (lambda f: f, "weights"),
    "text": (lambda f: written(f / "w.pth", b"no weights"), "w.pth", "holds no weights"),
    "cut": (lambda f: written(f / "w.safetensors", b"\x10\0\0\0\0\0\0\0{"), "w.safetensors", "holds no weights"),
    "no tensors": (lambda f: saved(f / "w.pth", {"a": 1}), "w.pth", "no tensors"),
    "of another model": (lambda f: saved(f / "w.pth", {"a": torch.zeros(3)}), "w.pth", "does not fit resnet10t"),
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
        (("resnet10t", 1, {}), "two classes", "1"),
        (("resnet10t", 4, {"chanels": 3}), "chanels"),
        (("resnet10t", ["a"], {}), "two classes", "1"),
        (("resnet10t_w16.px7x", 4, {}), "resnet10t_w16.px7x"),
    ]
)
def test_models(tmp_path, given, words):
    name, classes, settings = given
    refused(lambda: wk.build_model(name, classes, **settings), words, tmp_path)


ONE = np.eye(8)[0]


@table(
    [
        (np.ones(3) / 3, "3 coefficients", "7"),
        (-np.eye(7)[0], "non-negative", "-1"),
        (np.ones(7), "sum to 1", "7"),
        (np.zeros(7), "sum to 1", "0"),
        (np.full(7, NAN), "sum to 1", "nan"),
        ("last", "Coefficients", "'last'"),
        (None, "Coefficients", "None"),
        (np.eye(7), "one number per segment", "(7, 7)"),
    ]
)
def test_coefficients(copied, tmp_path, given, words):
    for call in (copied.average, copied.deploy, lambda c: wk.evaluate(copied, {"mine": c})):
        refused(lambda call=call: call(given), words, tmp_path)


@table(
    [
        (lambda run, f: wk.evaluate(run, {}), "label", "{}"),
        (lambda run, f: wk.evaluate(run, "last"), "label", "'last'"),
        (lambda run, f: wk.choose(run, ["wakdd"]), "'wakdd'", "Did you mean 'wakd'"),
        (lambda run, f: wk.choose(run, [{"name": "wakd", "begin": 99}]), "begin=99", "24 steps"),
        (lambda run, f: run.average(np.eye(7)[0], batchnorm="froze"), "'froze'", "frozen"),
        (lambda run, f: export(run, np.eye(7)[0], f / "x.txt"), ".safetensors", ".txt"),
        (lambda run, f: wk.load_run(run.folder, split=leave_one_out(run.split.domains, "east")), "'west'", "'east'"),
        (lambda run, f: wk.load_run(run.folder, split=leave_one_out(run.split.domains, "west", 3)), "seed", "3"),
    ]
)
def test_what_is_asked_of_a_run(copied, tmp_path, given, words):
    refused(lambda: given(copied, tmp_path), words, tmp_path)


@table(
    [
        ("train lr=0.1", "'lr'", "Did you mean 'learning_rate'"),
        ("train bs=8", "'bs'", "Did you mean 'batch_size'"),
        ("train wd=0", "'wd'", "Did you mean 'weight_decay'"),
        ("train steps=0", "steps", ">= 1", "0"),
        ("train steps=many", "steps", "int", "'many'"),
        ("train steps", "name=value", "'steps'"),
        ("train learning_rate=-1", "learning_rate", "positive", "-1"),
        ("train learning_rate=NaN", "learning_rate", "positive", "nan"),
        ("train seed=-1", "seed", ">= 0", "-1"),
        ("train optimiser=adm", "'adm'", "'adam'"),
        ("train objectives=kdd", "'kdd'", "Did you mean 'kd'"),
        ("train benchmark=folder:IMAGES target=2012 image_size=16 objectives=ce", "'2012'", "Known: p, q"),
        ("train benchmark=digit objectives=ce", "'digit'", "Did you mean 'digits'"),
        (
            "train benchmark=folder:IMAGES target=p image_size=16 model=resnet11 objectives=ce",
            "'resnet11'",
            "Did you mean",
        ),
        ("train warmup=600", "warmup", "less than the 600 steps"),
        ('train strategies=["wakdd"]', "'wakdd'", "Did you mean 'wakd'"),
        ("train teacher=nowhere", "No run at nowhere"),
        ("report quickstrat", "'quickstrat'", "Did you mean 'quickstart'"),
        ("report nowhere.yaml", "No study file at nowhere.yaml"),
        ("average nowhere --strategy wakd --export f.safetensors", "No run at nowhere"),
        ("landscape nowhere", "No run at nowhere"),
        ("doctor nowhere", "No run at nowhere"),
        ("notebook 02_distil out.ipynb", "'02_distil'", "Did you mean '02_distill'"),
        ("notebook 02_distill out.ipynb -p window_map_grid=-1", "window_map_grid", "at least 0", "-1"),
        ("pretrain resnet10t_w61.px64 nowhere", "resnet10t_w61.px64", "Did you mean"),
        ("pretrain resnet10t_w16.px64 nowhere lr=1", "'lr'", "Did you mean 'learning_rate'"),
        ("data check nowhere", "nowhere"),
    ]
)
def test_commands(images, tmp_path, monkeypatch, capsys, given, words):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(given.replace("IMAGES", str(images)).split()) != 0
    said = capsys.readouterr()
    check(said.err.strip() or said.out.strip().splitlines()[-1], words)
    assert not list(Path().iterdir())


def test_there_are_200_of_them():
    """The rows of this file, counted."""
    here = [f for name, f in globals().items() if name.startswith("test_") and hasattr(f, "pytestmark")]
    assert sum(len(mark.args[1]) for f in here for mark in f.pytestmark) >= 200
    assert all(inspect.getdoc(f) or f.__name__ for f in here) and combine("ce")

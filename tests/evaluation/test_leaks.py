"""No path from the unseen domain to a choice: every public callable refuses a split of another target, and noise there moves nothing.

A split of another target holds, among its source validation parts, images of the domain that the run must not have seen.
Callables are found by their signature, so a new one is covered as soon as it exists.
"""

import importlib
import inspect
import json
import pkgutil
import shutil

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit import averaging
from wakd_kit.averaging import NoWindow
from wakd_kit.averaging.choosing import strategies
from wakd_kit.evaluation.choose import source_fit
from wakd_kit.explorer.answers import Board
from wakd_kit.landscape.surface import line
from wakd_kit.models.build import BATCHNORM_POLICIES
from wakd_kit.runs.settings import Settings
from wakd_kit.runs.store import RunProblem

from ..conftest import SMALL

STUDENTS = {
    "BatchNorm": {"name": "resnet10t", **SMALL},
    "no BatchNorm": {
        "name": "vit_tiny_patch16_224", "img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2,
    },
}  # fmt: skip
SETTINGS = {"window": {"begin": 2}, "sma": {"start": 2}, "lawa": {"k": 2}, "learned": {"rounds": 2}}
SETTINGS |= {"eoa_wakd_repo": {"begin": 3}}
WANTED = [{"name": name, **SETTINGS.get(name, {})} for name in strategies]

# public callables that take a split and nothing of a run: they make runs, or are what a run and its split go through
WITHOUT_A_RUN = {
    *(
        "data.batches.SourceBatches",
        "data.batches.learnt_from",
        "runs.validate.SourceValidation",
        "runs.network.scored_domains",
        "runs.prepare.prepare",
        "runs.prepare.refuse_unfit",
    ),
    *(
        "runs.prepare.source_features",
        "runs.teacher.Heard",
        "data.augment.calibration_views",
        "runs.train.train",
        "runs.train.teacher_module",
        "evaluation.scores.evaluate_model",
    ),
    *("runs.identity.seen_in_training", "runs.identity.check_unseen", "runs.identity.sources_seen"),
    "runs.identity.trained_on",
    *("runs.checkpoints.record_checkpoints", "runs.train.finished_at"),  # refuse as train does, see test_checkpoints
    *(
        "runs.before.view_spread",
        "runs.before.table",
    ),  # of models and source images; the table refuses who has seen the target
    *(
        "runs.several.Several",
        "runs.several.several",
        "runs.start.started",
        "reporting.parameters.Student.begun",
    ),  # parts of train, which refuses, see test_several, test_start
}


def domains(poisoned=None):
    """Three domains of 24 images; in a poisoned one pixels are noise and labels are drawn anew."""
    found = {}
    for i, name in enumerate("abc"):
        rng = np.random.default_rng([int(name == poisoned), i])
        labels = np.arange(24) % 3
        images = 50 * labels[:, None, None, None] + 30 * i + rng.normal(0, 30, (24, 16, 16, 3))
        if name == poisoned:
            labels, images = rng.permutation(labels), rng.integers(0, 256, images.shape)
        found[name] = images.clip(0, 255).astype(np.uint8), labels
    return wk.domains_from_arrays(found, ("x", "y", "z"))


def train(split, folder, model="BatchNorm", seed=0, **settings):
    spec = dict(STUDENTS[model])
    student = wk.build_model(spec.pop("name"), 3, seed=0, **spec)
    settings = {"steps": 6, "segment_length": 2, "batch_size": 8, "learning_rate": 1e-2, **settings}
    return wk.train(
        student,
        split,
        batchnorm_batches=2,
        declare=[],
        edges=[3],
        seed=seed,
        save_to=folder,
        device="cpu",
        progress=False,
        **settings,
    )


def public():
    """``{module.name: callable}`` of everything public in the kit that takes a split, methods included."""
    found = {}
    for module in pkgutil.walk_packages(wk.__path__, "wakd_kit."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.name or not callable(value):
                continue
            methods = vars(value).items() if inspect.isclass(value) else ()
            own = {f"{name}.{n}": m for n, m in methods if inspect.isfunction(m) and not n.startswith("_")}
            found |= {f"{module.name.removeprefix('wakd_kit.')}.{n}": c for n, c in {name: value, **own}.items()}
    return {name: call for name, call in found.items() if "split" in _parameters(call)}


def _parameters(call):
    try:
        return inspect.signature(call).parameters
    except (TypeError, ValueError):
        return {}


CALLABLES = {name: call for name, call in public().items() if name not in WITHOUT_A_RUN}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The split whose unseen domain is c, and two runs of each model on it."""
    folder, split = tmp_path_factory.mktemp("leaks"), wk.leave_one_out(domains(), "c", 0)
    return split, {model: [train(split, folder / f"{model} {s}", model, s) for s in (0, 1)] for model in STUDENTS}


@pytest.fixture(params=[(model, policy) for model in STUDENTS for policy in BATCHNORM_POLICIES], ids=" ".join)
def runs(request, recorded, tmp_path):
    """The two runs of a model as if they had been recorded under a BatchNorm policy."""
    split, by_model = recorded
    model, policy = request.param
    found = []
    for run in by_model[model]:
        folder = shutil.copytree(run.folder, tmp_path / run.name)
        settings = json.loads((folder / "settings.json").read_text())
        (folder / "settings.json").write_text(json.dumps(settings | {"batchnorm": policy}))
        found.append(wk.load_run(folder, split=split))
    return found


def arguments(call, runs, split, tmp_path):
    """One value for each parameter that a callable needs; a name that is not here is to be added with its callable."""
    curves = runs[0].source_curves
    last, uniform = averaging.last(curves), averaging.uniform(curves)
    known = {
        "self": runs[0], "run": runs[0], "runs": runs, "folder": runs[0].folder, "path": runs[0].folder, "split": split,
        "coefficients": uniform, "choices": {"last": last, "all": uniform}, "wanted": WANTED, "a": last, "b": uniform,
        "corners": {"initial": "initial", "last": last, "all": uniform}, "radii": [1.0],
        "file": tmp_path / "average.safetensors", "settings": Settings(),
    }  # fmt: skip
    needed = [p for p in _parameters(call).values() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD,)]
    missing = [p.name for p in needed if p.name not in known]
    assert not missing, f"this test knows no value for {missing}"
    return {p.name: known[p.name] for p in needed} | {"split": split}


def files(folder):
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}


def test_every_callable_with_a_split_is_known_to_meet_a_run_or_not():
    assert public().keys() >= WITHOUT_A_RUN, "a name here that is no more"
    assert {"evaluation.scores.evaluate", "evaluation.choose.choose", "runs.run.Run"} | {
        "evaluation.soups.Soup",
        "landscape.surface.plane",
    } <= CALLABLES.keys()
    meets = {"run", "runs", "self", "folder", "path"}
    unknown = [name for name, call in CALLABLES.items() if not meets & _parameters(call).keys()]
    assert not unknown, f"{unknown} take a split: of which run, or are they WITHOUT_A_RUN?"


def test_a_split_of_another_target_is_refused_everywhere(runs, tmp_path):
    other = wk.leave_one_out(domains(), "b", 0)
    before = files(tmp_path)
    for name, call in CALLABLES.items():
        given = arguments(call, runs, other, tmp_path)
        policies = (None, *BATCHNORM_POLICIES) if "batchnorm" in _parameters(call) else (None,)
        for policy in policies:
            settings = given if policy is None else {**given, "batchnorm": policy}
            with pytest.raises(RunProblem) as refused:
                pytest.fail(f"{name} under {policy} gave {call(**settings)!r}")
            assert "'c'" in str(refused.value) and "'b'" in str(refused.value), f"{name}: {refused.value}"
    assert files(tmp_path) == before, "a refused call leaves nothing behind"


def test_no_strategy_and_no_score_takes_a_split_of_another_target(runs):
    other = wk.leave_one_out(domains(), "b", 0)
    for wanted in WANTED:
        with pytest.raises(RunProblem, match=r"'c'.*'b'"):
            wk.choose(runs[0], [wanted], other)
    for metric in ("accuracy", "nll"):
        with pytest.raises(RunProblem, match=r"'c'.*'b'"):
            wk.source_score(runs[0], other, metric=metric)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A run that left out b."""
    return train(wk.leave_one_out(domains(), "b", 0), tmp_path_factory.mktemp("elsewhere") / "other")


def test_a_run_of_another_target_is_no_member_and_no_point(runs, elsewhere):
    for members in ([runs[0], elsewhere], [elsewhere, runs[0]]):
        with pytest.raises(RunProblem, match=r"differ in their split .*'[bc]' and '[bc]'"):
            wk.Soup(members, split=runs[0].split)
    last = averaging.last(runs[0].source_curves)
    with pytest.raises(RunProblem, match="target b, not c"):
        line(runs[0], last, (elsewhere, averaging.last(elsewhere.source_curves)))


def test_a_model_that_has_seen_the_unseen_domain_is_neither_teacher_nor_judged(recorded, tmp_path):
    split, by_model = recorded
    other, (run, _) = wk.leave_one_out(domains(), "b", 0), by_model["BatchNorm"]
    model = run.model(averaging.last(run.source_curves), split=split)
    with pytest.raises(ValueError, match="trained on 'b', the domain that should be unseen"):
        wk.evaluate_model(model, other)
    for teacher in (run, model):
        with pytest.raises(ValueError, match="trained on 'b', the domain that should be unseen"):
            train(other, tmp_path / "student", teacher=teacher, objectives=["kd"])


def poisonable(split, folder):
    """All that is decided on a split: parameters, curves, choices of the whole registry, scores, soups, landscapes."""
    runs = [train(split, folder / str(seed), seed=seed) for seed in (0, 1)]
    run, uniform = runs[0], averaging.uniform(runs[0].source_curves)
    choices = [*wk.choose(run, WANTED).values(), *map(Board(run).choose, WANTED)]
    soup = wk.Soup(runs)
    loss_and_gradient, held_out_loss = source_fit(run)
    fitted = loss_and_gradient(uniform)
    surface = line(run, averaging.last(run.source_curves), uniform, size=3, workers=1)
    windows = wk.window_map(run, workers=1)
    return {
        "parameters": torch.cat([t.flatten().double() for t in run.average(uniform).values()]).numpy(),
        "curves": run.table.drop(columns="seconds").to_numpy(),
        "choices": [str(c) if isinstance(c, NoWindow) else c.plain for c in choices],
        "scores": [wk.source_score(run, metric=metric)(uniform) for metric in ("accuracy", "nll")],
        "fit": (fitted[0], fitted[1].tolist(), held_out_loss(uniform)),
        "soups": (
            soup.val_accuracy,
            averaging.diwa(soup.val_accuracy, restrict=True, score=soup.score).tolist(),
            averaging.greedy_soup(val_accuracy=soup.val_accuracy, score=soup.score).tolist(),
            soup.check(allowed=100),
        ),
        "surface": surface[surface["role"] == "source"].drop(columns=["domain", "role"]).to_numpy(),
        "windows": windows.drop(columns="oracle_target_accuracy").to_numpy(),
    }, surface[surface["role"] == "target"]["loss"].to_numpy()


def test_noise_in_place_of_the_unseen_domain_moves_nothing(tmp_path):
    clean, there = poisonable(wk.leave_one_out(domains(), "c", 0), tmp_path / "clean")
    poisoned, other = poisonable(wk.leave_one_out(domains("c"), "c", 0), tmp_path / "poisoned")
    for name, found in clean.items():
        if isinstance(found, np.ndarray):
            np.testing.assert_array_equal(found, poisoned[name], err_msg=name)
        else:
            assert found == poisoned[name], name
    assert not np.array_equal(there, other), "the poison is there, or this test shows nothing"

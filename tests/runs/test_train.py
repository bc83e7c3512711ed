"""The training loop and what it records: exact means, bit-equal resume, and a sentence for everything that cannot work."""

import dataclasses
import datetime
import inspect
import json
import os
import shutil
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import wakd_kit as wk
from wakd_kit.checks import make
from wakd_kit.models import build as models
from wakd_kit.objectives import combine
from wakd_kit.runs import record as recording
from wakd_kit.runs import settings, store
from wakd_kit.runs import teacher as taught
from wakd_kit.runs import train as training
from wakd_kit.runs.optimiser import OPTIMISERS
from wakd_kit.runs.prepare import prepare
from wakd_kit.runs.record import refuse_other_settings
from wakd_kit.runs.store import RunningAverages, RunProblem

from ..conftest import SMALL, one_image


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)

    def domain(shift):
        labels = np.arange(60) % 3
        images = np.clip(60 * labels[:, None, None, None] + shift + rng.normal(0, 30, (60, 16, 16, 3)), 0, 255)
        return images.astype(np.uint8), labels

    domains = wk.domains_from_arrays({"a": domain(0), "b": domain(30), "c": domain(60)}, ("x", "y", "z"))
    return wk.leave_one_out(domains, "c", 0)


def student(seed=0, **settings):
    torch.manual_seed(seed)
    return wk.build_model("resnet10t", 3, **{**SMALL, **settings})


def quick(split, folder, model=None, **settings):
    settings = {"steps": 10, "segment_length": 4, "batch_size": 8, "learning_rate": 1e-2, **settings}
    return wk.train(model or student(), split, save_to=folder, progress=False, device="cpu", **settings)


@pytest.fixture(scope="module")
def teacher(split, tmp_path_factory):
    return quick(split, tmp_path_factory.mktemp("teacher") / "run")


class Spy:
    """Keeps every iterate the slow, obvious way, by standing in for the recorder's add()."""

    def __init__(self, monkeypatch):
        self.iterates = []
        add = recording.Recorder.add

        def both(recorder):
            self.iterates.append({n: t.clone() for n, t in recorder.model.state_dict().items()})
            add(recorder)

        monkeypatch.setattr(recording.Recorder, "add", both)


def brute_mean(iterates):
    return {n: torch.stack([i[n].double() for i in iterates]).mean(0) for n in iterates[0]}


def test_segment_means_and_ends_equal_brute_force(split, tmp_path, monkeypatch):
    spy = Spy(monkeypatch)
    run = quick(split, tmp_path / "run", edges=[6], declare=[])
    assert run.segments.edges.tolist() == [4, 6, 8, 10]
    for k, (first, last) in enumerate([(0, 4), (4, 6), (6, 8), (8, 10)]):
        mean, end = run.segments.read(k, "mean"), run.segments.read(k, "end")
        for name, value in brute_mean(spy.iterates[first:last]).items():
            if name in mean:
                torch.testing.assert_close(mean[name].double(), value, rtol=1e-6, atol=1e-6)
        assert all(torch.equal(end[n], spy.iterates[last - 1][n]) for n in end)


def test_merged_segments_hold_the_mean_of_all_their_iterates(split, tmp_path, monkeypatch):
    spy = Spy(monkeypatch)
    run = quick(split, tmp_path / "run", steps=60, segment_length=2, most_stored=20, declare=[])
    assert len(run.segments) == 20 and len(run.table) == 30
    low = 0
    for k, high in enumerate(run.segments.edges):
        mean = run.segments.read(k, "mean")
        expected = brute_mean(spy.iterates[low:high])
        for name in mean:
            torch.testing.assert_close(mean[name].double(), expected[name], rtol=1e-6, atol=1e-6)
        low = high


@pytest.mark.parametrize(
    "declared", [{"name": "wakd", "begin": 0.3}, {"name": "swad", "n_converge": 2, "n_tolerance": 3}]
)
def test_a_declared_strategy_stays_exact_when_segments_are_merged(split, tmp_path, monkeypatch, declared):
    spy = Spy(monkeypatch)
    run = quick(
        split, tmp_path / "run", steps=80, segment_length=2, most_stored=18, declare=[declared], batchnorm="average"
    )
    settings = {k: v for k, v in declared.items() if k != "name"}
    coefficients = getattr(wk.averaging, declared["name"])(run.source_curves, **settings)
    assert len(run.segments) <= 18 < len(run.table)
    state = run.average(coefficients, exact=True)
    per_iterate = np.repeat(np.asarray(coefficients) / run.source_curves.iterates, run.source_curves.iterates)
    for name, tensor in state.items():
        if tensor.is_floating_point():
            expected = sum(c * i[name].double() for c, i in zip(per_iterate, spy.iterates))
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6)


MOVING = [
    {"name": "ema", "decay": 0.9},
    {"name": "ema", "decay": 0.8, "begin": 0.3, "label": "late"},
    {"name": "ema", "decay": 0.99, "warmup": True, "label": "warmed up"},
    {"name": "ema", "decay": 0.9, "from_initial": True, "label": "from initial"},
    {"name": "power", "gamma": 2.5},
    {"name": "power", "sigma_rel": 0.1, "begin": 0.3, "label": "by length"},
    {"name": "annealed", "shape": "cosine"},
    {"name": "annealed", "shape": [1, 1, 0.5, 0], "begin": 0.25, "label": "listed"},
]


@pytest.fixture(scope="module")
def moving(split, tmp_path_factory):
    """A run with declared moving averages, and every iterate of it."""
    with pytest.MonkeyPatch.context() as patch:
        spy = Spy(patch)
        settings = dict(steps=90, segment_length=3, most_stored=17, batchnorm="average", storage="float16_difference")
        run = quick(split, tmp_path_factory.mktemp("moving") / "run", declare=["wakd", *MOVING], **settings)
    return run, spy


@pytest.mark.parametrize("declared", MOVING)
def test_a_declared_moving_average_is_exact_iterate_by_iterate(moving, declared):
    run, spy = moving
    asked = {k: v for k, v in declared.items() if k not in ("name", "label")}
    strategy = getattr(wk.averaging, declared["name"])
    asked["begin"] = int(90 * asked.get("begin", wk.averaging.settings_of(declared["name"])["begin"]))
    # of single iterates coefficients are exact whatever the segments were
    per_iterate = strategy(iterates=[1] * 90, **asked)
    coefficients = strategy(run.source_curves, **asked)
    state = run.average(coefficients, exact=True)
    grid = run._weighted_sum(run._stored(coefficients)[0], coefficients.initial)
    away = 0.0
    for name, tensor in state.items():
        if tensor.is_floating_point():
            expected = per_iterate.initial * run.segments.initial[name].double()
            expected += sum(c * i[name].double() for c, i in zip(per_iterate, spy.iterates))
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-6)
            away = max(away, (grid[name].double() - expected).abs().max().item())
        else:
            assert torch.equal(tensor, spy.iterates[-1][name])
    assert away > 1e-4, "from segment means alone it would be another average"


def test_coefficients_that_merged_storage_cannot_hold_say_so(split, tmp_path):
    run = quick(split, tmp_path / "run", steps=60, segment_length=2, most_stored=18, declare=[])
    one_early = np.eye(30)[0]
    with pytest.warns(UserWarning, match="moved to the nearest"):
        run.average(one_early, batchnorm="average")
    with pytest.raises(RunProblem, match="Declare the strategy"):
        run.average(one_early, batchnorm="average", exact=True)


def test_half_precision_differences_are_half_the_size_and_close(split, tmp_path):
    full = quick(split, tmp_path / "full", declare=[])
    half = quick(split, tmp_path / "half", declare=[], storage="float16_difference")
    uniform = wk.averaging.uniform(full.source_curves)
    a, b = (r.average(uniform, batchnorm="average") for r in (full, half))
    moved = sum((a[n] - full.segments.initial[n]).double().square().sum() for n in a if a[n].is_floating_point()) ** 0.5
    error = sum((a[n] - b[n]).double().square().sum() for n in a if a[n].is_floating_point()) ** 0.5
    assert 0 < error < 5e-4 * moved
    sizes = [sum(f.stat().st_size for f in (r.folder / "segments").glob("0*.safetensors")) for r in (full, half)]
    assert sizes[1] < 0.75 * sizes[0]  # tiny nets carry large headers


def equal_runs(a, b):
    timing = ["seconds"]
    pd.testing.assert_frame_equal(a.table.drop(columns=timing), b.table.drop(columns=timing))
    assert a.segments.index == b.segments.index
    for k in range(len(a.segments)):
        for of in ("mean", "end"):
            left, right = a.segments.read(k, of), b.segments.read(k, of)
            assert all(torch.equal(left[n], right[n]) for n in left)


class Killed(BaseException):
    pass


DROPS = dict(drop_rate=0.2, drop_path_rate=0.1)  # dropout draws must repeat as well


@pytest.fixture(scope="module", params=["adam", "sgd"])
def whole(request, split, teacher, tmp_path_factory):
    """A run that nobody stops, and its settings."""
    settings = dict(
        steps=20,
        segment_length=2,
        most_stored=5,
        declare=["wakd", {"name": "ema", "decay": 0.9}],
        teacher=teacher,
        objectives="kd",
        optimiser=request.param,
    )
    return quick(split, tmp_path_factory.mktemp("whole") / "whole", student(**DROPS), **settings), settings


@pytest.mark.parametrize("moment", [1, 2, 3, 5, 11, 19])
def test_a_run_stopped_anywhere_resumes_bit_equal(split, whole, tmp_path, monkeypatch, moment):
    whole, settings = whole
    add, count = recording.Recorder.add, 0

    def dies(recorder):
        nonlocal count
        add(recorder)
        count += 1
        if count == moment:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(recording.Recorder, "add", dies)
        with pytest.raises(Killed):
            quick(split, tmp_path / "cut", student(**DROPS), **settings)
    assert not (tmp_path / "cut").exists()
    resumed = quick(split, tmp_path / "cut", student(**DROPS), resume=True, **settings)
    equal_runs(whole, resumed)
    kept = [store.read_state(r.folder / "running" / "0.safetensors") for r in (whole, resumed)]
    assert kept[0] and all(torch.equal(kept[0][n], kept[1][n]) for n in kept[0])


def test_two_processes_do_not_record_into_one_folder(split, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Killed), recording.recording(folder, {"a": 1}, resume=False):
        with pytest.raises(RunProblem, match="another process"), recording.recording(folder, {"a": 1}, resume=True):
            pass
        raise Killed


def test_resume_refuses_other_settings_and_changes_nothing(split, tmp_path):
    run = quick(split, tmp_path / "run")
    before = {f: f.read_bytes() for f in run.folder.rglob("*") if f.is_file()}
    with pytest.raises(RunProblem, match="learning_rate"):
        quick(split, tmp_path / "run", resume=True, learning_rate=0.5)
    with pytest.raises(FileExistsError, match="resume=True"):
        quick(split, tmp_path / "run")
    with pytest.raises(ValueError, match="resume=True continues the run at save_to, and none is given"):
        quick(split, None, resume=True)
    assert quick(split, tmp_path / "run", resume=True).steps == 10
    assert {f: f.read_bytes() for f in run.folder.rglob("*") if f.is_file()} == before
    (run.folder / "segments" / run.segments.index[0]["file"]).unlink()
    with pytest.raises(RunProblem, match="is missing; put it back from a copy, or move its run away"):
        quick(split, tmp_path / "run", resume=True)


def test_a_finished_run_answers_for_strategies_nobody_declared(split, tmp_path):
    quick(split, tmp_path / "run", declare=["wakd"])
    run = quick(split, tmp_path / "run", resume=True, declare=["swad", {"name": "ema", "decay": 0.5}], edges=[5])
    assert run.settings["declare"] == [{"name": "wakd"}] and run.steps == 10


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_rises_in_a_line_before_it_follows_its_schedule(split, tmp_path, schedule):
    given = {"segment_length": 1, "learning_rate": 0.1, "schedule": schedule}
    rates = {w: quick(split, tmp_path / str(w), warmup=w, **given).table["learning_rate"].to_numpy() for w in (0, 4)}
    rise = np.array([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(rates[4], rates[0] * rise)
    half = 0.05 * (1 + np.cos(np.pi * np.arange(10) / 10))
    np.testing.assert_allclose(rates[0], half if schedule == "cosine" else 0.1)


def test_a_run_recorded_before_there_was_warmup_is_accepted(split, tmp_path):
    file = quick(split, tmp_path / "run").folder / "settings.json"
    older = json.loads(file.read_text())
    del older["warmup"]
    file.write_text(json.dumps(older))
    assert quick(split, tmp_path / "run", resume=True).steps == 10
    with pytest.raises(RunProblem, match="warmup"):
        quick(split, tmp_path / "run", resume=True, warmup=2)
    (tmp_path / "run").rename(tmp_path / "other.recording")  # one that is not finished yet
    with pytest.raises(RunProblem, match="learning_rate"):  # and not warmup, which comes later in the alphabet
        quick(split, tmp_path / "other", resume=True, learning_rate=0.5)
    older["student"]["seed"], newer = None, {**older, "student": {**older["student"], "started_from": "shipped"}}
    refuse_other_settings(tmp_path, older, {**newer, "warmup": 0})


def test_a_student_may_be_trained_on_all_domains(split, tmp_path):
    everything = wk.leave_one_out(split.domains, None)
    run = quick(everything, tmp_path / "run")
    assert "target none" in repr(run) and run.settings["split"]["sources"] == list(split.domains)
    table = wk.evaluate(run, wk.choose(run, ["last"]))
    assert set(table["role"]) == {"source"} and set(table["domain"]) == set(split.domains)


def test_divergence_keeps_what_was_recorded(split, tmp_path, monkeypatch):
    class Explodes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)
            self.calls = 0

        def forward(self, x):
            self.calls += self.training
            return self.layer(x.mean((2, 3))) * (float("nan") if self.calls > 6 else 1)

    with pytest.raises(training.Diverged, match=r"between steps 5 and 8 .*Lower learning_rate"):
        quick(split, tmp_path / "run", Explodes(), declare=[])
    kept = wk.load_run(tmp_path / "run.recording")
    assert kept.steps == 4 and not kept.complete


def test_training_leaves_the_callers_random_state_alone(split, tmp_path):
    model = student()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    quick(split, tmp_path / "run", model)
    assert torch.equal(torch.rand(3), expected)


def test_frozen_batchnorm_keeps_its_statistics(split, tmp_path):
    run = quick(split, tmp_path / "run", batchnorm="frozen")
    start, end = run.segments.initial, run.segments.read(len(run.segments) - 1, "end")
    running = [n for n in end if "running" in n]
    assert running and all(torch.equal(start[n], end[n]) for n in running)
    assert any(not torch.equal(start[n], end[n]) for n in end if n.endswith("weight"))


def test_curves_are_the_scores_of_the_end_iterates(split, teacher, tmp_path):
    run = quick(split, tmp_path / "run", teacher=teacher, objectives="kd", declare=[])
    curves = run.source_curves
    for k in range(len(curves)):
        one = wk.averaging.Coefficients(np.eye(len(curves))[k], of="end")
        table = wk.evaluate(run, {"one": one}, split).set_index("domain")
        assert table.loc[["a", "b"], "nll"].mean() == pytest.approx(curves.val_loss[k], rel=1e-5)
        assert table.loc[["a", "b"], "accuracy"].mean() == pytest.approx(curves.val_accuracy[k], abs=one_image(12))
    assert "c" not in {column.split("/")[-1] for column in run.table}


def test_the_distillation_curve_is_the_kl_to_the_teacher(split, teacher, tmp_path):
    run = quick(split, tmp_path / "run", teacher=teacher, objectives=[{"name": "kd", "temperature": 3.0}])
    model = run.model(wk.averaging.last(run.source_curves))
    images = np.concatenate([e.images for e in split.val.values()])
    ours, theirs = wk.evaluation.predict(model, images), wk.evaluation.predict(teacher.model(), images)
    expected = wk.objectives.kd(ours, theirs, temperature=3.0).item()
    assert run.source_curves.val_kd_loss[-1] == pytest.approx(expected, rel=1e-4)


def test_teacher_is_not_trained_and_sees_its_own_normalisation(split, teacher, tmp_path):
    module = teacher.model()
    module.mean.add_(0.1)
    before = {n: t.clone() for n, t in module.state_dict().items()}
    quick(split, tmp_path / "run", teacher=module, objectives="kd")
    assert not module.training and all(torch.equal(before[n], t) for n, t in module.state_dict().items())


def test_a_run_as_teacher_stands_for_what_it_deployed(split, teacher, tmp_path):
    other = quick(split, tmp_path / "teacher")
    other.deploy(wk.averaging.wakd(other.source_curves, begin=0.4))
    run = quick(split, tmp_path / "run", teacher=str(other.folder), objectives="kd")
    assert run.settings["teacher"]["strategy"] == "wakd"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"objectives": "kdd"}, r"Unknown objective 'kdd'. Did you mean 'kd'\?"),
        ({"objectives": "kd"}, "learn from a teacher; pass teacher="),
        ({"objectives": [{"name": "ce", "weight": 0}]}, "sum to zero"),
        ({"objectives": [{"name": "ce", "temprature": 2}]}, "Unknown setting of objective 'ce'"),
        ({"optimiser": "adamm"}, "Did you mean 'adam'"),
        ({"steps": 0}, "steps is a whole number >= 1; got 0"),
        ({"steps": 10.5}, "steps is a whole number"),
        ({"warmup": 10}, "warmup is less than the 10 steps of the run; got 10"),
        ({"warmup": -1}, "warmup is a whole number >= 0; got -1"),
        ({"learning_rate": -1.0}, "learning_rate is a positive number"),
        ({"batch_size": 10_000}, "more than the 96 source training images"),
        ({"declare": [{"name": "wakd", "begin": 50}]}, "begins at step 50, but the run has 10 steps"),
        ({"declare": ["wakdd"]}, "Did you mean 'wakd'"),
        ({"batchnorm": "froze"}, "Did you mean 'frozen'"),
        ({"views": "photograph"}, "Did you mean 'photographs'"),
        ({"edges": [12]}, "edges are steps between 1 and 9"),
        ({"teacher": 3}, "teacher is a Run, a run's folder, a module or several of them in a dictionary"),
        ({"teacher": "nowhere"}, "No run at nowhere"),
    ],
)
def test_bad_settings_are_one_sentence_before_the_first_batch(split, tmp_path, change, sentence):
    with pytest.raises((ValueError, KeyError, TypeError, FileNotFoundError), match=sentence):
        quick(split, tmp_path / "run", **change)
    assert list(tmp_path.iterdir()) == []


def test_class_counts_must_fit(split, tmp_path):
    with pytest.raises(ValueError, match="Student gives 5 classes, the data has 3"):
        quick(split, tmp_path / "run", wk.build_model("resnet10t", 5, **SMALL))
    ten = wk.build_model("resnet10t", 10, **SMALL)
    with pytest.raises(
        ValueError, match=r"Teacher gives 10 classes, student 3\. Was the teacher trained on another dataset"
    ):
        quick(split, tmp_path / "run", teacher=ten, objectives="kd")


def test_every_setting_of_train_is_described_once_with_the_same_default():
    parameters = inspect.signature(wk.train).parameters
    assert [n for n in parameters if n in settings.NAMES] == list(settings.NAMES)
    fields = dataclasses.fields(settings.Settings)
    defaults = {f.name: f.default if f.default is not dataclasses.MISSING else f.default_factory() for f in fields}
    plain = json.loads(json.dumps({name: parameters[name].default for name in settings.NAMES}))
    assert plain == json.loads(json.dumps(defaults))
    assert all(f"\n    {name} " in wk.train.__doc__ for name in settings.NAMES)
    assert typing.get_args(typing.get_args(settings.FITS.batchnorm)[0]) == models.BATCHNORM_POLICIES
    assert typing.get_args(typing.get_args(settings.FITS.storage)[0]) == store.STORAGE
    assert set(typing.get_args(typing.get_type_hints(settings.Stepping)["name"])) == OPTIMISERS.keys()


def test_whole_numbers_of_numpy_are_whole_numbers(split, tmp_path):
    given = {
        "steps": np.int64(4),
        "segment_length": np.int32(2),
        "learning_rate": np.float32(0.01),
        "edges": np.array([3]),
    }
    run = quick(split, tmp_path / "run", declare=[{"name": "wakd", "begin": np.int64(2)}], **given)
    assert run.settings["edges"] == [3] and run.settings["declare"] == [{"name": "wakd", "begin": 2}] and run.steps == 4


def test_numbers_of_numpy_are_recorded_as_python_s_wherever_they_come_in(split, tmp_path):
    again = wk.leave_one_out(split.domains, "c", np.int64(0), validation=np.float32(0.25), only=[np.int64(1), 2])
    assert [type(again.recipe[name]) for name in ("seed", "validation")] == [int, float]
    small = wk.build_model(
        "resnet10t", 3, **{**SMALL, "channels": (np.int64(4), 8, 8, 8)}, seed=np.int64(3), drop_rate=np.float32(0.125)
    )
    run = quick(
        again,
        tmp_path / "run",
        small,
        steps=2,
        seed=np.int64(1),
        ramps=np.bool_(True),
        objectives="simkd",
        teacher=student(1),
    )
    assert run.settings["student"]["settings"]["drop_rate"] == 0.125 and run.settings["student"]["seed"] == 3
    assert run.settings["ramps"] is True and run.settings["seed"] == 1
    assert wk.load_domains("digits", size=np.int64(32), seed=np.int64(0)).options == {"seed": 0}


def test_a_setting_that_no_file_can_hold_is_said_before_anything_is_there(split, tmp_path):
    with pytest.raises(
        RunProblem, match=r"as numbers, text, lists and dictionaries, and <class .*ReLU6'> is none of them"
    ):
        quick(split, tmp_path / "run", student(act_layer=torch.nn.ReLU6))
    assert not list(tmp_path.iterdir())


def test_three_runs_in_a_second_have_names_of_their_own(split, tmp_path, monkeypatch):
    class Now(datetime.datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 1)

    monkeypatch.setattr(training.datetime, "datetime", Now)
    monkeypatch.chdir(tmp_path)
    names = [quick(split, None, steps=2, segment_length=2).folder.name for _ in range(3)]
    assert names == [f"20260101-000000-resnet10t-c-s0{more}" for more in ("", "-2", "-3")]


@pytest.mark.parametrize("spec", [{"name": "window", "begin": 0.1, "end": 0.5}, {"name": "window", "end": 52}])
def test_a_declared_window_keeps_its_end_whatever_comes_after(spec):
    """Both ends are steps of the whole run, at every merge: a segment ends there, and the edge stays."""
    made = make(settings.Settings, {"steps": 104, "segment_length": 5, "declare": [spec]})
    ends = np.array(sorted(settings.segment_ends(made)))
    assert 52 in ends
    for until in range(2, len(ends)):
        kept = settings.edges_to_keep(wk.averaging.Curves(np.diff(ends[: until + 1], prepend=0)), made)
        assert 52 in kept and (10 in kept) == ("begin" in spec or 10 in ends[max(until - 15, 0) : until + 1])


@pytest.mark.parametrize("spec", ["extrapolate", {"name": "bema", "every": 40}, {"name": "lawa", "k": 5}, "five_best"])
def test_what_is_declared_stays_exact_when_segments_are_merged(spec, monkeypatch):
    """At every merge: what decides coefficients per iterate in the end still has its edges then."""

    def five_best(curves, *, by="val_loss"):
        return np.isin(np.arange(len(curves)), np.argsort(getattr(curves, by))[:5]) / 5  # a plain array, as documented

    monkeypatch.setitem(wk.averaging.strategies._entries, "five_best", five_best)
    made = make(settings.Settings, {"steps": 400, "segment_length": 4, "declare": [spec], "edges": [40, 80]})
    ends = np.array(sorted(settings.segment_ends(made)))
    loss = np.linspace(2, 1, len(ends))
    kept = set(ends)
    for until in range(1, len(ends) + 1):  # as a recording with no room beyond what has to stay
        curves = wk.averaging.Curves(
            np.diff(ends[:until], prepend=0), val_loss=loss[:until], val_accuracy=1 - loss[:until] / 2
        )
        kept -= {end for end in ends[:until]} - settings.edges_to_keep(curves, made)
    (found,) = wk.averaging.choose(curves, [made.declare[0]]).values()
    means, last = found.parts["mean"] / curves.iterates, found.parts["end"]
    assert {int(step) for step in ends[(np.diff(means, append=means[-1]) != 0) | (last != 0)]} <= kept and len(
        kept
    ) < len(ends)


def test_a_strategy_that_takes_a_step_for_a_fraction_is_a_sentence(monkeypatch):
    def thirds(curves, *, begin=0.7):
        with np.errstate(all="ignore"):
            late = np.arange(len(curves)) >= begin * len(curves)
            return late / late.sum()

    def late(curves, *, begin=0.7):
        return np.arange(len(curves)) >= wk.averaging.first_after(curves, begin)

    monkeypatch.setitem(wk.averaging.strategies._entries, "thirds", thirds)
    made = make(settings.Settings, {"steps": 400, "segment_length": 4, "declare": ["thirds"]})
    with pytest.raises(ValueError, match=r"thirds picks something else at {'begin': 280} .* averaging.step_of"):
        settings.rehearse(made, teacher=False)
    monkeypatch.setitem(
        wk.averaging.strategies._entries,
        "thirds",
        lambda c, *, begin=0.7: late(c, begin=begin) / late(c, begin=begin).sum(),
    )
    settings.rehearse(made, teacher=False)


def test_defaults_written_out_keep_the_edges_that_defaults_keep():
    made = [
        make(settings.Settings, {"steps": 400, "segment_length": 4, "declare": [{"name": "swad", **more}]})
        for more in ({}, {"n_converge": 3, "n_tolerance": 6})
    ]
    curves = wk.averaging.Curves([4] * 60, val_loss=np.linspace(2, 1, 60), val_loss_pooled=np.linspace(2, 1, 60))
    first, second = (settings.edges_to_keep(curves, one) for one in made)
    assert first == second and len(first) >= 18


def test_a_mixture_chosen_at_a_segments_end_is_that_of_its_mean(split, teacher, tmp_path, monkeypatch):
    chosen = iter([0.2, 0.6, 0.8, 1.0])

    def choose(model, parts):
        before = model.tail.alpha.clone()
        model.tail.alpha.fill_(next(chosen))
        return {"tail.alpha": before}

    monkeypatch.setattr(training, "choose_mixture", choose)
    declare = [{"name": "ema", "decay": 0.5, "begin": 2}]
    run = quick(split, tmp_path / "run", teacher=teacher, objectives="dho", steps=12, declare=declare, edges=[2])
    assert [run.segments.read(k, "mean")["tail.alpha"].item() for k in range(4)] == pytest.approx([0.2, 0.6, 0.8, 1.0])
    kept = store.read_state(run.folder / "running" / "0.safetensors")["tail.alpha"].item()
    assert kept == pytest.approx(1 + (0.8 + (0.6 - 0.8) / 2**4 - 1) / 2**4)


def test_a_student_of_which_other_parameters_are_trained_is_another_recording(split, tmp_path):
    head, given = student(), {"steps": 2, "segment_length": 2, "batchnorm": "frozen"}
    head.requires_grad_(False).model.fc.requires_grad_(True)
    run = quick(split, tmp_path / "run", student(), **given)
    with pytest.raises(RunProblem, match=r"parameters that require no gradient, \[\]; this student has \['model.conv1"):
        quick(split, tmp_path / "run", head, resume=True, **given)
    assert quick(split, tmp_path / "run", student(), resume=True, **given).folder == run.folder


def test_runs_that_begin_in_one_second_have_a_folder_each(split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [training._default_folder(student(), split, 0) for _ in range(3)]
    assert len({*folders}) == 3 and all(Path(f"{f}.recording").is_dir() for f in folders)
    assert quick(split, None, steps=2, segment_length=2).folder not in folders


def test_a_teacher_is_given_back_as_it_came(split, tmp_path):
    module = student(seed=1).train()
    module.model.fc.requires_grad_(False)
    modes = {name: part.training for name, part in module.named_modules()}
    wanted = {name: part.requires_grad for name, part in module.named_parameters()}
    quick(split, tmp_path / "run", teacher=module, objectives="kd", steps=2, segment_length=2)
    assert modes == {name: part.training for name, part in module.named_modules()}
    assert wanted == {name: part.requires_grad for name, part in module.named_parameters()}


class Sums(torch.nn.Module):
    """Three classes out of the mean colour; its gradient is no number at one training step."""

    def __init__(self, bad: int = 0):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.bad, self.calls = torch.nn.Linear(3, 3), bad, 0

    def forward(self, x):
        z = self.layer(x.mean((2, 3)))
        self.calls += self.training
        return z + 0 * torch.sqrt(z.sum() * 0) if self.training and self.calls == self.bad else z


def test_parameters_that_are_no_numbers_are_no_finished_run(split, tmp_path):
    with pytest.raises(training.Diverged, match=r"A parameter became no number between steps 9 and 10 of 10"):
        quick(split, tmp_path / "run", Sums(bad=10))
    assert not (tmp_path / "run").exists() and wk.load_run(tmp_path / "run.recording").steps == 8


def test_what_cannot_be_a_student_or_its_teacher_is_a_sentence(split, tmp_path):
    alone = student()
    with pytest.raises(ValueError, match="Teacher and student share parameters"):
        quick(split, tmp_path / "run", alone, teacher=alone, objectives="kd")
    assert all(parameter.requires_grad for parameter in alone.parameters())
    with pytest.raises(ValueError, match="Nothing of the student requires a gradient"):
        quick(split, tmp_path / "run", student().requires_grad_(False))
    with pytest.raises(ValueError, match="batch_size 1 is too small to train resnet10t on"):
        quick(split, tmp_path / "run", student(layers=(1, 1, 1, 1)), batch_size=1)  # its last map is a point
    with pytest.raises(ValueError, match="batch_size 1 is less than the 2 source domains"):
        quick(split, tmp_path / "run", Sums(), batch_size=1, sampling="balanced")
    for own in ({"channels": [8, 16]}, {"drop_rate": "x"}):
        with pytest.raises(
            ValueError, match=r"resnet10t_w8 computes nothing with its settings {'.*}: .*\. Give others\."
        ):
            quick(split, tmp_path / "run", wk.build_model("resnet10t_w8", 4, **own))
    with pytest.raises(ValueError, match="takes no float32 images of 16 px as they come here"):
        quick(split, tmp_path / "run", Sums().double())
    with pytest.raises(TypeError, match="train takes a student"):
        quick(split, tmp_path / "run", "resnet18")
    assert not list(tmp_path.iterdir())
    assert quick(split, tmp_path / "run", Sums(), batch_size=1, steps=2).steps == 2


def test_a_default_of_double_precision_trains(split, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        assert quick(split, tmp_path / "run", steps=2, segment_length=2).steps == 2
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_student_of_another_kind_or_an_edited_objective_is_no_finished_run(split, tmp_path):
    quick(split, tmp_path / "run", Sums(), steps=2)
    with pytest.raises(RunProblem, match="another structure"):
        quick(split, tmp_path / "run", Sums(bad=99), steps=2, resume=True)
    other = Sums()
    torch.nn.init.zeros_(other.layer.weight)
    with pytest.raises(RunProblem, match="other initial parameters"):
        quick(split, tmp_path / "run", other, steps=2, resume=True)
    file = tmp_path / "run" / "settings.json"
    known = json.loads(file.read_text())
    assert known["seen"][0]["domain"] == "a" and known["code"] == {}
    file.write_text(json.dumps({key: value for key, value in known.items() if key not in ("identity", "code", "seen")}))
    assert quick(split, tmp_path / "run", other, steps=2, resume=True).steps == 2  # those made before do not say


def test_a_teacher_that_has_seen_the_target_is_refused(split, teacher, tmp_path):
    other = wk.leave_one_out(split.domains, "a", 0)
    with pytest.raises(ValueError, match="the domain that should be unseen"):
        quick(other, tmp_path / "run", teacher=teacher, objectives="kd")


def test_load_run_says_what_is_wrong(split, teacher, tmp_path):
    with pytest.raises(FileNotFoundError, match="No run at"):
        wk.load_run(tmp_path / "nothing")
    run = quick(split, tmp_path / "run")
    settings = json.loads((run.folder / "settings.json").read_text())
    (run.folder / "settings.json").write_text(json.dumps({**settings, "format": 99}))
    with pytest.raises(RunProblem, match="recorded in format 99, this kit reads format 1"):
        wk.load_run(run.folder)
    with pytest.raises(RunProblem, match=r"not finished.*resume=True"):
        os.rename(teacher_copy(teacher, tmp_path), tmp_path / "open.recording")
        wk.load_run(tmp_path / "open")


def teacher_copy(teacher, tmp_path):
    return shutil.copytree(teacher.folder, tmp_path / "copy")


def test_a_run_loaded_later_gives_the_same_averages(split, tmp_path):
    run = quick(split, tmp_path / "run")
    again = wk.load_run(tmp_path / "run", split=split)
    coefficients = wk.averaging.wakd(run.source_curves, begin=0.4)
    a, b = run.average(coefficients), again.average(coefficients)
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert torch.equal(
        run.average(wk.averaging.last(run.source_curves))["model.fc.weight"],
        run.segments.read(len(run.segments) - 1, "end")["model.fc.weight"],
    )


def test_environment_records_versions_and_seconds(teacher):
    record = json.loads((teacher.folder / "environment.json").read_text())
    assert torch.__version__.startswith(record["packages"]["torch"]) and record["seconds"] > 0
    assert not (teacher.folder / "checkpoint.pt").exists() and not (teacher.folder / "lock").exists()


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_a_recording_says_which_arithmetic_made_it_and_goes_on_with_what_it_began_with(
    split, tmp_path, monkeypatch, optimiser
):
    given = {"optimiser": optimiser, "learning_rate": 0.1, "declare": ["last"]}
    assert quick(split, tmp_path / "now", **given).settings["arithmetic"]["optimiser"] == "fused"
    with monkeypatch.context() as patch:
        patch.setattr(training, "kernel_for", lambda *_: "foreach")
        whole = quick(split, tmp_path / "whole", **given)
        patch.setattr(recording.Recorder, "add", dies_after(6, recording.Recorder.add))
        with pytest.raises(Killed):
            quick(split, tmp_path / "cut", **given)
    file = tmp_path / "cut.recording" / "settings.json"
    before = json.loads(file.read_text())
    told = {"optimiser": "foreach", "validation": "float32", "teacher": "as it is", "defaults": "by length"}
    assert before.pop("arithmetic") == told
    file.write_text(json.dumps(before))  # as it was written when there was only one
    kernels, step = [], torch.optim.Optimizer.__init__
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Optimizer, "__init__", lambda o, p, d: (kernels.append(d["fused"]), step(o, p, d))[1])
        cut = quick(split, tmp_path / "cut", resume=True, **given)
    assert kernels == [None]
    equal_runs(whole, cut)
    assert quick(split, tmp_path / "whole", resume=True, **given).steps == 10  # and a finished one is not made again


def test_what_was_declared_by_name_keeps_the_defaults_that_it_was_recorded_with(split, tmp_path, monkeypatch):
    names, papers = ["wakd", "ema"], [{"name": "wakd", "begin": 0.1}, {"name": "ema", "decay": 0.999}]
    whole = quick(split, tmp_path / "whole", declare=papers)
    with monkeypatch.context() as patch:  # a recording that was begun while all defaults were the papers'
        patch.setattr(training, "begun_with", lambda folder: {**recording.BEFORE, "optimiser": "fused"})
        patch.setattr(recording.Recorder, "add", dies_after(6, recording.Recorder.add))
        with pytest.raises(Killed):
            quick(split, tmp_path / "before", declare=names)
    before = quick(split, tmp_path / "before", declare=names, resume=True)
    equal_runs(whole, before)
    kept = {"ema": wk.averaging.ema(before.source_curves, decay=0.999), "wakd": wk.averaging.wakd(before, begin=0.1)}
    for name, choice in wk.choose(before, names).items():
        assert np.array_equal(choice, kept[name])
    now = quick(split, tmp_path / "now", declare=names)
    assert now.settings["declare"] == before.settings["declare"] and now.source_curves.ends.tolist() == [4, 6, 8, 10]
    assert wk.choose(now, names)["wakd"].note == "segments 3-4, iterates 7-10"
    exact = [RunningAverages(r.folder / "running").find(wk.choose(r, ["ema"])["ema"]) for r in (now, before)]
    assert None not in exact, "each keeps the moving average that its own choice is answered with"


def dies_after(step, add):
    def dies(recorder):
        add(recorder)
        if recorder.step == step:
            raise Killed

    return dies


def test_updates_are_fused_only_where_memory_lies_as_they_go_through_it(split):
    def kernel(change):
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
        change(model)
        return training.kernel_for(model, torch.nn.Module(), make(settings.Settings, {}), torch.device("cpu"))

    assert kernel(lambda model: model.to(memory_format=torch.channels_last)) == "fused"
    holes = torch.nn.Parameter(torch.zeros(4, 6, 3, 3)[:, ::2])
    assert kernel(lambda model: model.register_parameter("holes", holes)) == "foreach"


def test_validation_is_computed_as_training_is(split, teacher, tmp_path, monkeypatch):
    seen, forward = [], type(student()).forward

    def looks(model, images, **settings):
        seen.append((torch.is_autocast_enabled("cpu"), model.training))
        return forward(model, images, **settings)

    monkeypatch.setattr(type(student()), "forward", looks)
    run = quick(split, tmp_path / "run", teacher=teacher, objectives="kd", precision="bfloat16", steps=2)
    assert run.settings["arithmetic"]["validation"] == "bfloat16"
    assert not any(on for on, _ in seen[:2]) and all(on for on, _ in seen[-3:])


def test_whoever_leaves_the_student_in_eval_mode_does_not_change_the_training(split, tmp_path):
    whole = quick(split, tmp_path / "whole")
    model = student()
    equal_runs(whole, quick(split, tmp_path / "looked", model, sink=lambda row: model.eval()))


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="there is no C++ compiler")
def test_a_compiled_training_is_the_same_but_for_rounding(split, tmp_path):
    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x.mean((2, 3)))

    torch.manual_seed(0)
    models = [Mean() for _ in range(3)]
    models[1].load_state_dict(models[0].state_dict())
    given = {"teacher": models[2], "objectives": "kd", "optimiser": "sgd", "steps": 6}
    whole = quick(split, tmp_path / "whole", models[0], **given)
    run = quick(split, tmp_path / "run", models[1], compile=True, **given)
    assert run.settings["compile"] and run.settings["identity"]["structure"] == whole.settings["identity"]["structure"]
    for ours, theirs in zip(whole.segments.read(1, "end").values(), run.segments.read(1, "end").values()):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    pd.testing.assert_series_equal(whole.table["val_loss_pooled"], run.table["val_loss_pooled"], rtol=1e-4)
    torch.manual_seed(0)
    assert quick(split, tmp_path / "run", Mean(), resume=True, **given).settings["compile"]  # no other training


def test_compiling_and_streaming_are_what_is_done(split, teacher, tmp_path, monkeypatch):
    asked, streamed = [], []

    def compiled(model, device):
        def ask(x, **given):
            asked.append(model)
            return model(x, **given)

        return ask

    class Batches(training.SourceBatches):
        def __init__(self, *given, **settings):
            super().__init__(*given, **settings)
            streamed.append(self.streamed)

    monkeypatch.setattr(training, "check_compiles", lambda device: None)
    monkeypatch.setattr(training, "compiled", compiled)
    monkeypatch.setattr(taught, "compiled", compiled)
    monkeypatch.setattr(training, "SourceBatches", Batches)
    models = student(), teacher.model()
    given = {"teacher": models[1], "objectives": "kd", "teacher_cache": 0, "steps": 4}
    quick(split, tmp_path / "whole", models[0], compile=True, streaming="always", **given)
    assert [sum(model is one for one in asked) for model in models] == [4, 4] and streamed == [True]
    quick(split, tmp_path / "plain", student(), streaming="never", **given)
    assert len(asked) == 8 and streamed == [True, False]


def test_tf32_and_determinism_hold_while_it_trains_and_leave_torch_as_it_was(split, tmp_path):
    def flags(_=None):
        inside.append((torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()))
        return inside[-1]

    inside = []
    before = flags()
    run = quick(split, tmp_path / "run", precision="tf32", deterministic=True, steps=2, sink=flags)
    assert run.settings["precision"] == "tf32" and run.settings["arithmetic"]["validation"] == "tf32"
    assert set(inside[1:]) == {("high", True)} and before == ("highest", False) == flags()


def test_an_accelerator_asks_a_twin_of_the_teacher(split, teacher, tmp_path, monkeypatch):
    """What would run there, here: the loop and validation ask the twin, and the teacher is given back as it came."""
    made, twin = [], taught.frozen

    def looks(model, *, half):
        made.append((model, twin(model, half=half), half))
        return made[-1][1]

    monkeypatch.setattr(taught, "frozen", looks)
    monkeypatch.setattr(
        training, "begun_with", lambda folder: {**recording.BEFORE, "teacher": "folded", "validation": "bfloat16"}
    )
    module = teacher.model()
    quick(split, tmp_path / "run", teacher=module, objectives=["kd", "kdpp"], precision="bfloat16", steps=2)
    ((asked, folded, half),) = made
    assert asked is module and half
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in folded.parameters()}


@pytest.mark.parametrize("name", ["simkd", "dho"])
def test_a_student_that_is_on_the_device_already_gets_its_tail_there(split, name):
    """A second training of one module: it was moved in place. The meta device stands for another."""
    combined, other = combine(name), student(seed=1)
    extended = combined.extended(student().to("meta"), other, seed=0)
    assert {t.device.type for t in (*extended.parameters(), *extended.buffers())} == {"meta"}
    prepare(make(settings.Settings, {"objectives": combined.specs, "batch_size": 8}), extended, other, split, combined)


def test_images_that_do_not_fit_are_streamed_into_the_same_recording(split, teacher, tmp_path, monkeypatch):
    """In training and in its validation; a recording does not say which, and may be resumed the other way."""
    runs = [
        quick(split, tmp_path / how, teacher=teacher, objectives="kd", streaming=how) for how in ("never", "always")
    ]
    monkeypatch.setattr("wakd_kit.data.batches.room", lambda _: 1)
    runs.append(quick(split, tmp_path / "auto", teacher=teacher, objectives="kd"))
    for run in runs[1:]:
        assert run.table.drop(columns="seconds").equals(runs[0].table.drop(columns="seconds"))
        for k in range(len(run.segments)):
            ours, theirs = run.segments.read(k, "mean"), runs[0].segments.read(k, "mean")
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert "streaming" not in run.settings
    quick(split, tmp_path / "always", teacher=teacher, objectives="kd", streaming="never", resume=True)


PARTS = [
    ("backbone", {"model.fc."}),
    (["head", "conv1", "layer1"], {"model.bn1", "model.layer2"}),
    (["model.fc.bias"], {"model.fc.weight", "model.conv1", "model.bn1", "model.layer"}),
]


@pytest.mark.parametrize("which, moves", PARTS, ids=["head alone", "middle", "one parameter"])
def test_what_is_frozen_stays_and_the_rest_moves(split, tmp_path, which, moves):
    student = wk.build_model("resnet10t", split.classes, seed=0, **SMALL)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    run = quick(split, tmp_path / "run", student, freeze=which, batchnorm="frozen")
    after = run.average(wk.choose(run, ["last"])["last"])
    moved = {name for name in before if before[name].is_floating_point() and not torch.equal(before[name], after[name])}
    assert moved == {name for name, _ in student.named_parameters() if name.startswith(tuple(moves))}
    assert all(parameter.requires_grad for parameter in student.parameters()), "it is given back as it came"
    assert run.settings["freeze"] == ([which] if isinstance(which, str) else which)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"freeze": "backbone"}, r"holds model.conv1.1 and \d+ more BatchNorm layers, whose statistics would go on"),
        ({"freeze": ["head", "backbone"], "batchnorm": "frozen"}, "leaves nothing of .* to train"),
        ({"freeze": ["layer9"], "batchnorm": "frozen"}, "nothing that is trained begins with 'layer9'"),
        ({"freeze": 3}, "freeze=3"),
    ],
)
def test_what_cannot_be_frozen_is_said_before_anything_is_recorded(split, tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        quick(split, tmp_path / "run", **given)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("objective", ["fitnet", "rkd", "at", "coral"])
def test_what_no_objective_reaches_is_not_trained_for_nothing(split, tmp_path, teacher, objective):
    """A classifier alone is left, which features do not reach; where the backbone is left, they do."""
    given = {"teacher": teacher, "objectives": [objective], "batchnorm": "frozen", "steps": 2, "segment_length": 2}
    with pytest.raises(ValueError, match=rf"not frozen of resnet10t is not reached by \['{objective}'\]"):
        quick(split, tmp_path / "run", freeze="backbone", **given)
    assert not any(tmp_path.iterdir())
    assert quick(split, tmp_path / "run", freeze="head", **given)
    assert quick(split, tmp_path / "both", freeze="backbone", **{**given, "objectives": ["ce", objective]})

"""The engine against plain evaluation: what is scored, which statistics, in what order, and how little is held."""

import os

import numpy as np
import pytest
import torch
from torch import nn

import wakd_kit as wk
from wakd_kit.averaging import NoWindow, last, uniform, wise_ft
from wakd_kit.evaluation.scores import evaluate_model, predict
from wakd_kit.evaluation.sweep import Point, Sweep
from wakd_kit.models import fold
from wakd_kit.models.build import Adapter, LogitsTap, Output
from wakd_kit.models.device import cores
from wakd_kit.runs.store import RunProblem

from ..conftest import SMALL, one_image


def train_like(split, folder, *, seed=0, channels=SMALL["channels"], steps=4):
    student = wk.build_model("resnet10t", split.classes, seed=seed, **{**SMALL, "channels": channels})
    return wk.train(
        student, split, steps=steps, segment_length=2, batch_size=16, learning_rate=3e-2, batchnorm_batches=4, seed=seed,
        save_to=folder, device="cpu", progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def other(split, tmp_path_factory):
    """Another start of the same network on the same split."""
    return train_like(split, tmp_path_factory.mktemp("sweep") / "other", seed=1)


@pytest.mark.parametrize("policy", ["recalibrate", "average", "last"])
@pytest.mark.parametrize("workers", [1, 3])
def test_scores_are_those_of_plain_evaluation(run, policy, workers):
    choices = [last(run.source_curves), uniform(run.source_curves), wise_ft(run.source_curves, alpha=0.3)] * 3
    sweep = Sweep(run, batchnorm=policy, workers=workers)
    found = list(sweep.scores(Point(sweep.locate(choice)) for choice in choices))
    for scores, choice in zip(found, choices[:3]):
        model = run.model(choice, batchnorm=policy)
        for row in evaluate_model(model, run.split).itertuples():
            same = {"loss": (row.nll, 1e-5), "accuracy": (row.accuracy, one_image(row.n))}
            assert scores[row.domain] == {name: pytest.approx(value, abs=by) for name, (value, by) in same.items()}
    assert found[3:6] == found[:3]


def test_logits_are_those_of_the_network(run):
    sweep = Sweep(run, roles=("target",), batchnorm="average")
    (logits,) = sweep.logits([Point(sweep.locate(uniform(run.source_curves)))])
    model = run.model(uniform(run.source_curves), batchnorm="average")
    assert list(logits) == ["west"]
    assert torch.allclose(logits["west"], predict(model, run.split.target_for_testing_only.images), atol=1e-4)


def test_a_raw_point_keeps_its_statistics(run):
    sweep = Sweep(run, workers=1)
    vector = sweep.locate(last(run.source_curves))
    raw, recalibrated = sweep.scores([Point(vector, raw=True), Point(vector)])
    scores = wk.evaluation.score_choices(run, {"last": last(run.source_curves)}).set_index("domain")
    for domain in raw:
        assert raw[domain]["loss"] == pytest.approx(scores.loc[domain, "nll"], abs=1e-5)
        assert recalibrated[domain]["loss"] != raw[domain]["loss"]


def test_a_model_at_a_point_is_what_is_scored_there(run):
    for policy in ("recalibrate", "average"):
        sweep = Sweep(run, batchnorm=policy, workers=1)
        vector = sweep.locate(uniform(run.source_curves))
        (scores,) = sweep.scores([Point(vector)])
        table = evaluate_model(sweep.model_at(vector), run.split).set_index("domain")["nll"]
        assert {d: s["loss"] for d, s in scores.items()} == pytest.approx(table.to_dict(), abs=1e-5)


def test_points_are_made_when_they_are_needed_and_threads_are_given_back(run):
    sweep, made, threads = Sweep(run, workers=2), [], torch.get_num_threads()
    vector = sweep.locate(last(run.source_curves))
    scores = sweep.scores(Point(made.append(i) or vector) for i in range(40))
    for taken in range(1, 4):
        next(scores)
        assert len(made) <= taken + 2 * sweep.workers
    scores.close()
    assert len(made) < 40 and torch.get_num_threads() == threads


def test_a_point_that_fails_fails_and_nothing_hangs(run):
    sweep = Sweep(run, workers=1)
    vector = sweep.locate(last(run.source_curves))
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        list(sweep.scores([Point(vector), Point(vector[:-1]), Point(vector), Point(vector)]))
    assert len(list(sweep.scores([Point(vector)]))) == 1


def test_a_vector_holds_parameters_first_then_statistics(run):
    sweep, state = Sweep(run), run.average(last(run.source_curves), batchnorm="average")
    vector = sweep.vector(state)
    parameters = [name for name, _ in run.blank_model().named_parameters()]
    assert torch.equal(vector[: sweep.parameters], torch.cat([state[name].flatten() for name in parameters]))
    statistics = sum(t.numel() for n, t in state.items() if "running" in n)
    assert statistics and len(vector) == sweep.parameters + statistics


def test_every_kind_of_point_has_its_vector(run, other):
    sweep = Sweep(run, batchnorm="average")
    coefficients = last(run.source_curves)
    state = run.average(coefficients)
    assert torch.equal(sweep.locate(coefficients), sweep.locate(state))
    assert torch.equal(sweep.locate(np.asarray(uniform(run.source_curves))), sweep.locate(uniform(run.source_curves)))
    assert torch.equal(sweep.locate("initial"), sweep.vector(run.segments.initial))
    theirs = sweep.locate((other, last(other.source_curves)))
    assert torch.equal(theirs, sweep.vector(other.average(last(other.source_curves))))
    assert not torch.equal(sweep.locate((other, "initial")), sweep.locate("initial"))


def test_statistics_are_combined_inside_and_never_beyond_the_points(run, other):
    sweep = Sweep(run, batchnorm="average")
    vectors = [sweep.locate(last(run.source_curves)), sweep.locate((other, last(other.source_curves)))]
    n = sweep.parameters
    inside = sweep.combination((0.25, 0.75), vectors)
    assert torch.allclose(inside, 0.25 * vectors[0] + 0.75 * vectors[1], atol=1e-6)
    beyond = sweep.combination((3, -2), vectors)
    assert torch.allclose(beyond[:n], 3 * vectors[0][:n] - 2 * vectors[1][:n], atol=1e-5)
    assert torch.equal(beyond[n:], vectors[0][n:])
    plain = 3 * vectors[0] - 2 * vectors[1]
    assert plain[n:].min() < 0, "an extrapolated variance is negative here, or this test shows nothing"
    assert torch.equal(sweep.combination((0, 1), vectors), vectors[1])


def test_a_network_that_is_being_trained_is_a_point(run):
    model, sweep = run.model(), Sweep(run, workers=1)
    state = {**model.state_dict(), **dict(model.named_parameters())}  # with gradients, as whoever trains it has them
    vector = sweep.locate(state)
    assert not vector.requires_grad and torch.equal(vector, sweep.locate(model.state_dict()))


def test_points_that_do_not_fit_are_refused(run, split, domains, other, tmp_path):
    sweep = Sweep(run)
    with pytest.raises(NoWindow, match="no valley"):
        sweep.locate(NoWindow("no valley"))
    with pytest.raises(ValueError, match="mark 'a' is 'best'; a point is coefficients, 'initial'"):
        sweep.locate("best", "mark 'a'")
    with pytest.raises(ValueError, match="2 coefficients for 7 segments"):
        sweep.locate([0.5, 0.5])
    wider = train_like(split, tmp_path / "wider", channels=(4, 16, 16, 16), steps=2)
    with pytest.raises(RunProblem, match=r"corner 'b' is of another architecture than student: .* here, .* there"):
        sweep.locate((wider, last(wider.source_curves)), "corner 'b'")
    with pytest.raises(RunProblem, match="no such tensor there"):
        sweep.locate({})
    elsewhere = train_like(wk.leave_one_out(domains, "north", 0), tmp_path / "north", steps=2)
    with pytest.raises(RunProblem, match="north was trained with target north, not west; take runs that left out"):
        sweep.locate((elsewhere, last(elsewhere.source_curves)))
    again = train_like(wk.leave_one_out(domains, "west", 1), tmp_path / "again", steps=2)
    with pytest.warns(UserWarning, match=r"again was split with seed 1, student with 0: .* source losses .* too low"):
        sweep.locate((again, last(again.source_curves)))
    whole = train_like(split.whole(), tmp_path / "whole", steps=2)
    told = "^whole was trained on whole domains, student not: it was trained on some of these .* near {} are too low"
    with pytest.warns(UserWarning, match=told.format("mark 'w'")):
        sweep.locate((whole, last(whole.source_curves)), "mark 'w'")
    with pytest.warns(UserWarning, match=told.format("whole")):
        Sweep(whole).locate((run, last(run.source_curves)), "mark 's'")
    with pytest.raises(ValueError, match=r"Unknown BatchNorm policy 'averag'. Did you mean 'average'"):
        Sweep(run, batchnorm="averag")
    with pytest.raises(ValueError, match=r"Unknown BatchNorm policy 'averag'. Did you mean 'average'"):
        run.average(last(run.source_curves), batchnorm="averag")


class Folding(nn.Module):
    """Networks that compute the same but for how often, and under which name, they call a convolution or a BatchNorm."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.stem, self.conv = kind, nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.b1, self.b2 = nn.BatchNorm2d(8, track_running_stats=kind != "no statistics"), nn.BatchNorm2d(8)
        self.f = nn.Linear(8, 3)
        if kind == "a second name":
            self.alias = self.conv
        if kind == "weight norm":
            nn.utils.weight_norm(self.conv)

    def forward(self, x):
        conv = self.alias if self.kind == "a second name" else self.conv
        y = self.b1(input=conv(self.stem(x))) if self.kind == "by keyword" else self.b1(conv(self.stem(x)))
        y = y.relu()
        if self.kind == "convolution twice":
            y = self.b2(self.conv(y)).relu()
        if self.kind == "convolution again alone":
            y = self.conv(y)
        if self.kind == "BatchNorm twice":
            y = self.b1(y)
        if self.kind == "weight read":
            y = nn.functional.conv2d(y, self.conv.weight, padding=1)
        return self.f(y.mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "folded"),
    [
        *(("plain", True), ("a second name", True), ("by keyword", False), ("no statistics", False)),
        *(("convolution twice", False), ("convolution again alone", False), ("BatchNorm twice", False)),
        *(("weight read", False), ("weight norm", False)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_only_what_is_called_once_is_folded(kind, folded):
    torch.manual_seed(0)
    model = LogitsTap(Folding(kind)).eval()
    twin, pairs = fold.folded(model)
    assert len(pairs) == folded and (twin is not model) == folded
    images = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        for _ in range(3):  # statistics that are not those of a new BatchNorm
            model.train()(torch.rand(8, 3, 8, 8))
        model.eval()
        fold.fold(pairs)
        assert torch.allclose(twin(images).logits, model(images).logits, atol=1e-5)


def test_an_adapters_network_is_not_folded(run):
    torch.manual_seed(0)
    model = Adapter(Folding("plain"), lambda m, x: Output(m(x) + m.f(m.conv(m.stem(x)).mean((2, 3))), x)).eval()
    assert fold.folded(model) == (model, [])


def test_cores_are_counted_where_the_system_does_not_say_which_are_ours(run, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores() == os.cpu_count() and Sweep(run).workers >= 1

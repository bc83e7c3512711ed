"""How iterates lie around an average: against their parameters, on paths whose answer is known, and on a quadratic loss."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import wakd_kit as wk
from wakd_kit import averaging
from wakd_kit.evaluation import journal as tables
from wakd_kit.evaluation.scores import predict, scores
from wakd_kit.landscape import neighbours as noise

from ..conftest import one_image


@pytest.fixture(scope="module")
def late(run):
    return averaging.window(run.source_curves, begin=8, end=24)


def ends(run, coefficients):
    """Last iterates of a window's segments, one row each, trained parameters only, less the initial ones."""
    first, last = coefficients.window()
    names = [name for name, _ in run.blank_model().named_parameters()]
    read = [run.segments.read(i, "end") for i in range(first, last + 1)]
    start = run.segments.initial
    return torch.stack([torch.cat([(s[n] - start[n]).flatten().double() for n in names]) for s in read]).numpy()


def test_noise_is_that_of_the_parameters(run, late):
    names = [name for name, _ in run.blank_model().named_parameters()]
    state, start = run.average(late, exact=False), run.segments.initial
    average = torch.cat([(state[n] - start[n]).flatten().double() for n in names]).numpy()
    found, iterates = noise.noise(run, late), ends(run, late)
    spread = np.sqrt(((iterates - average) ** 2).sum(1).mean())
    assert found["spread"] == pytest.approx(spread, rel=1e-4)
    assert found["relative"] == pytest.approx(spread / np.linalg.norm(average), rel=1e-4)
    variance = ((iterates - iterates.mean(0)) ** 2).sum() / (len(iterates) - 1)
    steps = (np.diff(iterates, axis=0) ** 2).sum(1).mean()
    assert found["bounce"] == pytest.approx(steps / (2 * variance), rel=1e-4)
    assert found["drift"] == pytest.approx(np.linalg.norm(iterates[-1] - iterates[0]) / spread, rel=1e-4)


@pytest.mark.parametrize(
    ("path", "low", "high"), [("bounces", 0.9, 1.1), ("drifts", 0.0, 0.05), ("alternates", 1.8, 2.1)]
)
def test_bounce_tells_a_cloud_from_a_path(monkeypatch, path, low, high):
    n, rng = 40, np.random.default_rng(0)
    iterates = {
        "bounces": rng.standard_normal((n, 500)),
        "drifts": np.outer(np.arange(n), rng.standard_normal(500)),
        "alternates": np.outer((-1.0) ** np.arange(n), rng.standard_normal(500)),
    }[path]
    iterates = iterates + rng.standard_normal(500)  # away from the start
    both = np.concatenate([iterates, iterates])  # segments of one iterate: the mean is the end
    monkeypatch.setattr(noise, "gram", lambda run: both @ both.T)

    whole = averaging.Coefficients(np.full(n, 1 / n))
    assert low < noise.noise(stored(n, every=1), whole)["bounce"] < high


@pytest.mark.parametrize("n", [2, 3])
def test_a_few_iterates_have_no_bounce(monkeypatch, n):
    """Two have a bounce of 1 by algebra, whatever they do, and three on a straight line one of 0.5."""
    iterates = np.outer(1.0 + np.arange(n), np.random.default_rng(0).standard_normal(500))
    both = np.concatenate([iterates, iterates])
    monkeypatch.setattr(noise, "gram", lambda run: both @ both.T)
    found = noise.noise(stored(n, every=1), averaging.Coefficients(np.full(n, 1 / n)))
    assert np.isnan(found["bounce"]) and found["spread"] > 0 and found["drift"] > 0


def stored(n: int, every: int):
    """A run of n segments of one step, stored by so many."""
    edges = np.arange(every, n + 1, every)
    return SimpleNamespace(table=pd.DataFrame({"step": np.arange(1, n + 1)}), segments=SimpleNamespace(edges=edges))


def test_merged_segments_have_one_iterate_each(monkeypatch):
    n, rng = 160, np.random.default_rng(0)
    iterates = rng.standard_normal((n, 500))
    shared = iterates[np.arange(n) // 4 * 4 + 3]  # all that a store of every fourth knows of the others
    both = np.concatenate([shared, shared])
    monkeypatch.setattr(noise, "gram", lambda run: both @ both.T)
    whole = averaging.Coefficients(np.full(n, 1 / n))
    assert 0.9 < noise.noise(stored(n, every=4), whole)["bounce"] < 1.1
    cut = averaging.Coefficients(np.where(np.arange(n) < 6, 1 / 6, 0))  # steps 1 to 6: one stored iterate inside
    assert not noise.has_noise(stored(n, every=4), cut) and noise.has_noise(stored(n, every=1), cut)


def test_a_dip_is_the_mean_of_two_iterates_less_their_middle(run, split, late):
    table = noise.between(run, late, split)
    assert set(table["role"]) == {"source"} and len(table) == 3 * (late.window()[1] - late.window()[0])
    position = {int(edge): i for i, edge in enumerate(run.segments.edges)}
    rises = []
    for _, row in table.iterrows():
        a, b = (run.segments.read(position[row[side]], "end") for side in ("begin", "end"))
        middle = {n: (a[n].double() / 2 + b[n].double() / 2).to(a[n].dtype) for n in a}
        examples, losses = split.val[row["domain"]], []
        for state in (a, b, middle):
            model = run.blank_model()
            model.load_state_dict(state)
            wk.models.recalibrate(model, run.calibration_batches(split, torch.device("cpu")))
            losses.append(scores(predict(model, examples.images), examples.labels))
        nll, accuracy = ([found[m] for found in losses] for m in ("nll", "accuracy"))
        assert row["dip"] == pytest.approx((nll[0] + nll[1]) / 2 - nll[2], abs=2e-5)
        rises.append(accuracy[2] - (accuracy[0] + accuracy[1]) / 2)
    off = np.abs(table["accuracy"] - rises).sum()  # one image may tie
    assert off <= one_image() < np.abs(rises).sum() and off < np.abs(table["accuracy"] + rises).sum()


def test_it_is_kept_and_read_again_and_the_target_is_only_there_when_asked_for(run, split, late, monkeypatch):
    first = noise.between(run, late, split, name="kept")
    monkeypatch.setattr(noise.Sweep, "scores", lambda *_: iter(()))
    assert noise.between(run, late, split, name="kept").equals(first)
    monkeypatch.undo()
    asked = noise.between(run, late, split, roles=("source", "target"), name="oracle")
    assert set(asked["domain"]) - set(first["domain"]) == {split.target}
    assert tables.is_finished(tables.table_file(run, "kept"))


def test_a_window_of_one_segment_has_no_noise(run, split):
    one = averaging.last(run.source_curves)
    with pytest.raises(ValueError, match="two stored segments or more"):
        noise.noise(run, one)
    with pytest.raises(ValueError, match="two stored segments or more"):
        noise.between(run, one, split)

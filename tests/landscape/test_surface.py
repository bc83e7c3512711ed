"""Planes and lines: corners and every point of the grid are what plain evaluation says, and a kill changes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch

import wakd_kit as wk
from tests.evaluation.test_sweep import train_like
from wakd_kit.averaging import NoWindow, last, uniform, wakd, window, wise_ft
from wakd_kit.evaluation import geometry
from wakd_kit.evaluation import journal as tables
from wakd_kit.evaluation.scores import evaluate_model, score_choices
from wakd_kit.landscape import surface as landscape
from wakd_kit.models.build import recalibrate
from wakd_kit.runs.store import RunProblem

from ..conftest import one_image


def three(run) -> dict:
    curves = run.source_curves
    return {"early": window(curves, begin=2, end=8), "last": last(curves), "uniform": uniform(curves)}


def parameters(run, state) -> np.ndarray:
    return torch.cat([state[name].flatten() for name, _ in run.blank_model().named_parameters()]).double().numpy()


@pytest.mark.parametrize("policy", ["recalibrate", "average", "last"])
def test_corners_have_the_losses_of_their_points(copied, policy):
    corners = three(copied)
    plane = landscape.plane(copied, corners, size=2, batchnorm=policy)
    scores = score_choices(copied, corners, batchnorm=policy).rename(columns={"strategy": "label", "nll": "loss"})
    both = plane.points.merge(scores, on=["label", "domain", "role"], suffixes=("", "_expected"))
    assert len(both) == len(plane.points) == 3 * 4
    assert both["loss"].to_numpy() == pytest.approx(both["loss_expected"].to_numpy(), abs=1e-5)
    assert both["accuracy"].tolist() == pytest.approx(both["accuracy_expected"].tolist(), abs=one_image())


def test_every_point_of_the_grid_is_where_its_coordinates_say(copied):
    """Against axes by Gram-Schmidt in numpy, parameters loaded by name, and plain evaluation."""
    corners = three(copied)
    plane = landscape.plane(copied, corners, size=3, margin=0.5)
    states = [copied.average(c, batchnorm="average") for c in corners.values()]
    a, b, c = (parameters(copied, state) for state in states)
    u = (b - a) / np.linalg.norm(b - a)
    v = (c - a) - ((c - a) @ u) * u
    v /= np.linalg.norm(v)
    places = [(0, 0), ((b - a) @ u, 0), ((c - a) @ u, (c - a) @ v)]
    assert plane.corners["label"].tolist() == list(corners)
    assert plane.corners[["x", "y"]].to_numpy() == pytest.approx(np.array(places), rel=1e-5)
    xs, ys, losses = plane.grid("target")
    accuracies = plane.grid("source", "accuracy")[2]
    low, high = np.min(places, axis=0), np.max(places, axis=0)
    assert xs == pytest.approx(np.linspace(1.5 * low[0] - 0.5 * high[0], 1.5 * high[0] - 0.5 * low[0], 3), rel=1e-5)
    assert ys[[0, -1]] == pytest.approx([1.5 * low[1] - 0.5 * high[1], 1.5 * high[1] - 0.5 * low[1]], rel=1e-5)
    batches = copied.calibration_batches(copied.split)
    for row, column in ((0, 2), (2, 0), (1, 1)):
        vector = torch.from_numpy(a + xs[column] * u + ys[row] * v).float()
        model = copied.blank_model()
        model.load_state_dict(copied.segments.read(0, "end"))
        torch.nn.utils.vector_to_parameters(vector, model.parameters())
        scores = evaluate_model(recalibrate(model, batches), copied.split)
        (target,) = scores[scores["role"] == "target"].itertuples()
        assert losses[row, column] == pytest.approx(target.nll, rel=1e-4)
        accuracy = scores[scores["role"] == "source"]["accuracy"].mean()
        assert accuracies[row, column] == pytest.approx(accuracy, abs=one_image())


def test_marks_and_path_are_projected_and_their_residual_is_reported(copied):
    corners = three(copied)
    a, b, c = (parameters(copied, copied.average(point)) for point in corners.values())
    off = np.random.default_rng(0).normal(size=len(a))
    basis = np.linalg.qr(np.stack([b - a, c - a], axis=1))[0]
    off -= basis @ (basis.T @ off)
    built = a + 0.25 * (b - a) + 0.5 * (c - a) + 3 * off / np.linalg.norm(off)
    model = copied.blank_model()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(built).float(), model.parameters())
    marks = {"built": model.state_dict(), "wakd": wakd(copied.source_curves, begin=0.5), "swad": NoWindow("no valley")}
    plane = landscape.plane(copied, corners, size=2, marks=marks)
    first, second, third = plane.corners[["x", "y"]].to_numpy()
    (place,) = plane.marks[plane.marks["label"] == "built"].itertuples()
    assert [place.x, place.y] == pytest.approx(first + 0.25 * (second - first) + 0.5 * (third - first), rel=1e-4)
    assert place.residual == pytest.approx(3, rel=1e-5)
    assert plane.marks["label"].tolist() == ["built", "wakd"]
    # the same projections from the run's inner products alone
    matrix, n = geometry.gram(copied), len(copied.table)
    vectors = [geometry.vector(point, n) for point in corners.values()]
    points = [geometry.vector("initial", n), *np.eye(2 * n)[n:], geometry.vector(marks["wakd"], n)]
    coordinates, residuals = geometry.project(matrix, points, vectors)
    found = pd.concat([plane.path, plane.marks[1:]])
    assert plane.path["step"].tolist() == [0, *copied.table["step"]]
    assert found[["x", "y"]].to_numpy() == pytest.approx(coordinates, rel=1e-4, abs=1e-5)
    assert found["residual"].to_numpy() == pytest.approx(residuals, rel=1e-3, abs=1e-3)
    assert found["residual"].iloc[-2] < 1e-3 < found["residual"].iloc[0], (
        "the last iterate is a corner, the first is far"
    )


def test_a_killed_plane_goes_on_and_equals_one_that_was_not(copied, monkeypatch):
    corners, marks = three(copied), {"wakd": wakd(copied.source_curves, begin=0.5)}
    whole = landscape.plane(copied, corners, size=4, marks=marks, workers=2, name="whole")
    append, kept = tables.Growing.append, []

    def stop_after_nine(self, rows):
        if len(kept) == 9:
            raise KeyboardInterrupt
        kept.append(rows)
        append(self, rows)

    monkeypatch.setattr(tables.Growing, "append", stop_after_nine)
    with pytest.raises(KeyboardInterrupt):
        landscape.plane(copied, corners, size=4, marks=marks)
    monkeypatch.undo()
    file = copied.folder / "landscape" / "plane.csv"
    file.write_bytes(file.read_bytes()[:-7])
    assert landscape.names(copied) == ["whole"]
    with pytest.raises(RunProblem, match="has 35 of 80 rows; give the call that began it again"):
        landscape.load(copied)
    again = landscape.plane(copied, corners, size=4, marks=marks, workers=1)
    for part in ("corners", "marks", "path", "table", "points"):
        assert getattr(again, part).equals(getattr(whole, part)), part
    assert landscape.names(copied) == ["plane", "whole"]


def test_a_finished_plane_is_read_and_another_one_by_its_name_replaces_it(copied, monkeypatch):
    corners = three(copied)
    plane = landscape.plane(copied, corners, size=2)
    assert len(plane.table) == 4 * 4 and plane.table["domain"].nunique() == 4
    with monkeypatch.context() as patch:
        patch.setattr("wakd_kit.evaluation.sweep._Worker.__call__", None)  # nothing is evaluated
        assert landscape.plane(copied, corners, size=2).table.equals(plane.table)
        assert landscape.load(copied).points.equals(plane.points)
    with pytest.warns(UserWarning, match=r"plane.csv was of size 2, this call is of 3: computed anew"):
        assert len(landscape.plane(copied, corners, size=3).table) == 9 * 4
    with pytest.raises(ValueError, match="This plane has the roles source, target; got 'oracle'"):
        plane.grid("oracle")
    with pytest.raises(
        FileNotFoundError, match=r"copied has no plane 'other'; it has plane. Compute it with plane\(run"
    ):
        landscape.load(copied, "other")


def test_far_outside_the_corners_statistics_stay_variances(copied):
    plane = landscape.plane(copied, three(copied), size=3, margin=5, batchnorm="average")
    assert np.isfinite(plane.table["loss"]).all()


def test_corners_that_span_no_plane_are_refused(copied):
    curves = copied.source_curves
    ends = {"initial": "initial", "last": last(curves)}
    with pytest.raises(ValueError, match="three corners; got 2: initial, last"):
        landscape.plane(copied, ends)
    for third in (wise_ft(curves, alpha=0.5), "initial", last(curves)):
        with pytest.raises(ValueError, match="initial, last, third lie on one line"):
            landscape.plane(copied, {**ends, "third": third})
    with pytest.raises(NoWindow, match="no valley"):
        landscape.plane(copied, {**ends, "SWAD": NoWindow("no valley")})
    with pytest.raises(ValueError, match="size counts points on a side of the grid: a whole number >= 2; got 1"):
        landscape.plane(copied, three(copied), size=1)
    assert not (copied.folder / "landscape" / "plane.csv").exists()


@pytest.mark.parametrize("policy", ["recalibrate", "average"])
def test_a_line_runs_through_the_averages_between_its_ends(run, policy):
    curves = run.source_curves
    table = landscape.line(run, "initial", last(curves), size=5, batchnorm=policy)
    between = {alpha: wise_ft(curves, alpha=alpha) for alpha in (0.25, 0.5, 0.75, 1.0)}
    scores = score_choices(run, between, batchnorm=policy).rename(columns={"strategy": "t", "nll": "loss"})
    both = table.merge(scores, on=["t", "domain", "role"], suffixes=("", "_expected"))
    assert len(both) == 4 * 4
    assert both["loss"].to_numpy() == pytest.approx(both["loss_expected"].to_numpy(), abs=1e-5)
    assert sorted(set(table["t"])) == [0, 0.25, 0.5, 0.75, 1]


def test_a_line_to_another_run_ends_at_that_runs_point(run, split, tmp_path):
    other = train_like(split, tmp_path / "other", seed=1)
    table = landscape.line(
        run, last(run.source_curves), (other, last(other.source_curves)), size=3, batchnorm="average"
    )
    expected = score_choices(other, {"last": last(other.source_curves)}).set_index("domain")["nll"]
    found = table[table["t"] == 1].set_index("domain")["loss"]
    assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-5)
    assert (landscape.barrier(table)["barrier"] >= 0).all()


def test_the_barrier_is_the_rise_above_the_straight_line():
    t = np.linspace(-0.5, 1.5, 9)
    hill = 1 - 0.4 * t + np.where(t == 0.25, 0.7, 0.0) + np.where((t < 0) | (t > 1), 9.0, 0.0)
    lines = [("a", "source", hill), ("b", "source", t**2), ("c", "target", 2 + np.minimum(t, 1 - t))]
    table = pd.concat([pd.DataFrame({"t": t, "domain": d, "role": r, "loss": loss}) for d, r, loss in lines])
    found = landscape.barrier(table)
    assert found[["domain", "role"]].values.tolist() == [["a", "source"], ["b", "source"], ["c", "target"]]
    assert found["barrier"].to_numpy() == pytest.approx([0.7, 0, 0.5])
    assert found["t"].tolist()[0] == 0.25 and found["t"].tolist()[2] == 0.5
    mean = table[table["role"] == "source"].groupby("t", as_index=False)["loss"].mean()
    # (0.7 - (0.25 - 0.25^2)) / 2: the barrier of the mean is not the mean of the barriers
    assert landscape.barrier(mean)["barrier"].tolist() == pytest.approx([0.25625])
    with pytest.raises(ValueError, match="needs the losses at t = 0 and t = 1"):
        landscape.barrier(mean[mean["t"] > 0])


@pytest.mark.parametrize(
    "losses, found, words",
    [
        ([1, np.nan, 1], (np.inf, 0.5), "a barrier of inf"),
        ([1, np.inf, 2], (np.inf, 0.5), "a barrier of inf"),
        ([1, 2, np.nan], (np.nan, 0), "no barrier that can be measured"),
        ([np.inf, 2, 1], (np.nan, 0), "no barrier that can be measured"),
    ],
)
def test_a_line_that_is_no_number_is_no_line_without_a_barrier(losses, found, words):
    table = pd.DataFrame({"t": [0, 0.5, 1], "loss": losses}, dtype=float)
    (one,) = landscape.barrier(table)[["barrier", "t"]].to_numpy()
    assert one.tolist() == pytest.approx(found, nan_ok=True)
    both = [table.assign(domain=d, role="source", loss=loss) for d, loss in (("a", losses), ("b", [1.0] * 3))]
    loss, height, _ = landscape.walled(pd.concat(both), "source")
    assert np.array_equal(np.isfinite(loss), np.isfinite(losses)), "domain b does not stand in for domain a"
    assert landscape.said(height) == words


def test_a_line_that_makes_no_sense_is_refused(run):
    for size in (1, 2.0):
        with pytest.raises(ValueError, match=f"size counts points of the line: a whole number >= 2; got {size}"):
            landscape.line(run, "initial", last(run.source_curves), size=size)


def test_landscape_is_part_of_the_package():
    assert wk.landscape.plane is landscape.plane

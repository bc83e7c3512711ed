"""Distances and projections from the Gram matrix against the parameters themselves."""

import json
import shutil

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit.evaluation import geometry

from ..conftest import SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rng = np.random.default_rng(0)
    make = lambda: (rng.integers(0, 255, (60, 16, 16, 3)).astype(np.uint8), np.arange(60) % 3)  # noqa: E731
    domains = wk.domains_from_arrays({"a": make(), "b": make(), "c": make()}, ("x", "y", "z"))
    model = wk.build_model("resnet10t", 3, **SMALL, seed=0)
    folder = tmp_path_factory.mktemp("geometry") / "run"
    split = wk.leave_one_out(domains, "c", 0)
    return wk.train(
        model, split, steps=40, segment_length=2, batch_size=8, learning_rate=1e-2, declare=[], most_stored=18,
        batchnorm="average", save_to=folder, progress=False, device="cpu",
    )  # fmt: skip


def vector(run, state):
    names = [name for name, _ in run.blank_model().named_parameters()]
    return torch.cat([(state[n] - run.segments.initial[n]).flatten().double() for n in names]).numpy()


def test_inner_products_are_those_of_the_parameters(run):
    matrix = geometry.gram(run)
    coefficients = [wk.averaging.uniform(run.source_curves), wk.averaging.wakd(run.source_curves, begin=0.5)]
    vectors = [vector(run, run.average(c, exact=False)) for c in coefficients]
    points = [geometry.vector(c, len(run.table)) for c in coefficients]
    for a, u in zip(points, vectors):
        for b, v in zip(points, vectors):
            assert a @ matrix @ b == pytest.approx(u @ v, rel=1e-5)
    assert geometry.distance(matrix, *points) == pytest.approx(np.linalg.norm(vectors[0] - vectors[1]), rel=1e-5)


def test_means_and_ends_share_one_matrix(run):
    both, n = geometry.gram(run), len(run.table)
    assert both.shape == (2 * n, 2 * n)
    curves = run.source_curves
    choices = {
        "initial": "initial",
        "last": wk.averaging.last(curves),
        "wakd": wk.averaging.wakd(curves, begin=0.5),
        "half": wk.averaging.wise_ft(curves, alpha=0.5),
        "mixed": wk.averaging.bema(curves),
        "beyond": wk.averaging.extrapolate(curves),
    }
    points = {label: geometry.vector(choice, n) for label, choice in choices.items()}
    states = {"initial": run.segments.initial} | {n: run.average(c) for n, c in choices.items() if n != "initial"}
    for a in choices:
        for b in choices:
            expected = np.linalg.norm(vector(run, states[a]) - vector(run, states[b]))
            assert geometry.distance(both, points[a], points[b]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    with pytest.raises(ValueError, match="3 coefficients for 20 segments; a run needs one per segment"):
        geometry.vector([0, 0, 1], 20)


def test_the_matrix_is_computed_once_by_one_code(run, monkeypatch):
    first, compute = geometry.gram(run), geometry._stored_gram
    monkeypatch.setattr(geometry, "_stored_gram", None)
    assert np.array_equal(first, geometry.gram(run))
    monkeypatch.setattr(geometry, "of_function", lambda function: "changed")
    monkeypatch.setattr(geometry, "_stored_gram", lambda run: 2 * compute(run))
    assert np.array_equal(2 * first, geometry.gram(run)) and len([*run.folder.glob("gram_both-*")]) == 1


def test_projection_keeps_the_planes_own_points_and_reports_what_is_left(run):
    n = len(run.table)
    matrix = geometry.gram(run)[n:, n:]  # of last iterates
    plane = np.eye(n)[[2, 9, 19]]
    coordinates, residual = geometry.project(matrix, plane, plane)
    assert coordinates[0] == pytest.approx([0, 0]) and coordinates[1][1] == pytest.approx(0, abs=1e-6)
    assert residual == pytest.approx(np.zeros(3), abs=1e-4 * np.sqrt(matrix.max()))
    (point,), (left,) = geometry.project(matrix, np.eye(n)[14], plane)
    assert point @ point + left**2 == pytest.approx(geometry.distance(matrix, np.eye(n)[14], plane[0]) ** 2, rel=1e-6)
    assert left > 0
    with pytest.raises(ValueError, match="lie on one line"):
        geometry.project(matrix, plane, plane[[0, 1, 1]])


def test_a_matrix_and_a_window_map_of_a_part_are_not_those_of_the_whole(run, tmp_path):
    """As when an unfinished recording is looked at, and goes on."""
    folder = shutil.copytree(run.folder, tmp_path / "part.recording", ignore=shutil.ignore_patterns("gram*"))
    index, curves = folder / "segments" / "index.json", folder / "curves.csv"
    whole = index.read_text(), curves.read_text()
    entries = json.loads(whole[0])[:6]
    index.write_text(json.dumps(entries))
    rows = [line for line in whole[1].splitlines()[1:] if int(line.split(",")[0]) <= entries[-1]["last"]]
    curves.write_text("\n".join([whole[1].splitlines()[0], *rows, ""]))
    part = wk.load_run(folder, split=run.split)
    assert len(geometry.gram(part)) == 2 * len(rows) and len(wk.window_map(part, grid=2)) == len(part.window_map) == 3
    index.write_text(whole[0])
    curves.write_text(whole[1])
    again = wk.load_run(folder, split=run.split)
    assert np.array_equal(geometry.gram(again), geometry.gram(run)) and again.window_map.empty


def test_a_matrix_that_was_cut_short_is_computed_again(run):
    first = geometry.gram(run)
    (file,) = run.folder.glob("gram_*.npy")
    for part in (b"", file.read_bytes()[:-8]):
        file.write_bytes(part)
        assert np.array_equal(geometry.gram(run), first)


def test_a_matrix_in_a_folder_that_may_not_be_written_is_computed_and_not_kept(run, tmp_path, monkeypatch):
    copy = wk.load_run(shutil.copytree(run.folder, tmp_path / "read", ignore=shutil.ignore_patterns("gram*")))
    monkeypatch.setattr(geometry.os, "access", lambda *_: False)
    assert np.array_equal(geometry.gram(copy), geometry.gram(run)) and not [*copy.folder.glob("gram*")]


def test_few_numbers_are_held_at_a_time(run, monkeypatch):
    whole, held, read = geometry._stored_gram(run), [], type(run.segments).read

    def counted(segments, position, of, *, names=None):
        state = read(segments, position, of, names=names)
        held.append((len(state), sum(tensor.numel() for tensor in state.values())))
        return state

    monkeypatch.setattr(type(run.segments), "read", counted)
    most = 2000 * 2 * len(run.segments)
    assert np.allclose(geometry._stored_gram(run, most=most), whole, rtol=1e-12)
    assert all(numbers <= 2000 or tensors == 1 for tensors, numbers in held)

"""Window maps: each cell is what evaluate says of that window, and the proxy is close where it claims to be."""

import itertools

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit.evaluation import sweep, windows
from wakd_kit.evaluation.windows import grid_edges
from wakd_kit.runs.validate import scores

from ..conftest import SMALL, one_image


@pytest.fixture(scope="module", params=["average", "recalibrate", "last"])
def run(request, tmp_path_factory):
    rng = np.random.default_rng(0)

    def domain(shift):
        labels = np.arange(90) % 3
        images = np.clip(60 * labels[:, None, None, None] + shift + rng.normal(0, 60, (90, 16, 16, 3)), 0, 255)
        return images.astype(np.uint8), labels

    domains = wk.domains_from_arrays({"a": domain(0), "b": domain(30), "c": domain(60)}, ("x", "y", "z"))
    model = wk.build_model("resnet10t", 3, **SMALL, seed=0)
    split = wk.leave_one_out(domains, "c", 0)
    return wk.train(
        model, split, steps=24, segment_length=4, batch_size=8, learning_rate=1e-2, batchnorm=request.param, declare=[],
        edges=[1], batchnorm_batches=2, save_to=tmp_path_factory.mktemp("windows") / "run", progress=False, device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(run):
    """What evaluate says of each window, {(begin, end): accuracy and nll per domain}."""
    places = itertools.combinations([0, *map(int, run.segments.edges)], 2)
    windows = {place: wk.averaging.window(run.source_curves, begin=place[0], end=place[1]) for place in places}
    table = wk.evaluate(run, {str(place): window for place, window in windows.items()})
    tables = dict(iter(table.set_index("domain").groupby("strategy")[["accuracy", "nll"]]))
    return {place: tables[str(place)] for place in windows}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_cell_is_what_evaluate_says(run, evaluated, workers):
    table, one = wk.window_map(run, workers=workers), one_image(18)
    assert len(table) == len(evaluated) == 7 * 8 // 2
    for _, cell in table.iterrows():
        said = evaluated[int(cell["begin"]), int(cell["end"])]["accuracy"]
        assert cell["oracle_target_accuracy"] == pytest.approx(said["c"], abs=one_image(90))
        assert cell["val_accuracy"] == pytest.approx(said[["a", "b"]].mean(), abs=one)
        assert [cell["val_accuracy/a"], cell["val_accuracy/b"]] == pytest.approx(said[["a", "b"]].tolist(), abs=one)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_cell_is_of_its_own_window(run, evaluated, workers, monkeypatch):
    """Losses in the place of accuracies, which are alike in many windows."""
    monkeypatch.setattr(sweep, "accuracy", lambda logits, labels: scores(logits, labels)["nll"])
    for _, cell in wk.window_map(run, workers=workers).iterrows():
        nll = evaluated[int(cell["begin"]), int(cell["end"])]["nll"]
        found = cell[["oracle_target_accuracy", "val_accuracy/a", "val_accuracy/b"]].to_numpy(float)
        np.testing.assert_allclose(found, nll[["c", "a", "b"]], rtol=1e-3)


def test_the_map_is_kept_with_the_run(run):
    table = wk.window_map(run, grid=3)
    assert len(table) == 6 and run.window_map["end"].tolist() == table["end"].tolist()


def test_the_proxy_is_exact_for_single_segments_and_writes_nothing(run):
    exact = wk.window_map(run, workers=1)
    kept = run.window_map
    proxy = wk.window_map_proxy(run)
    assert run.window_map.equals(kept)
    edges = run.segments.edges
    single = [i for i, row in enumerate(exact.itertuples()) if ((edges > row.begin) & (edges <= row.end)).sum() == 1]
    assert len(single) == 7
    for column in ("val_accuracy", "oracle_target_accuracy", "val_accuracy/a", "val_accuracy/b"):
        measure, *domain = column.split("/")
        approximate = "/".join([f"{measure}_proxy", *domain])
        assert np.allclose(exact[column].iloc[single], proxy[approximate].iloc[single], atol=one_image(18))


def test_windows_that_diverged_have_no_accuracy(run, monkeypatch):
    mean = windows._mean_of_iterates
    monkeypatch.setattr(windows, "_mean_of_iterates", lambda *a: mean(*a) * (np.nan if a[-1] == 24 else 1))
    for table in (wk.window_map(run, workers=1), wk.window_map_proxy(run)):
        assert (table.drop(columns=["begin", "end"]).isna().all(axis=1) == (table["end"] == 24)).all()
        assert table.notna().all(axis=1).sum() == 6 * 7 // 2


def test_threads_are_given_back(run):
    before = torch.get_num_threads()
    wk.window_map(run, grid=2, workers=2)
    assert torch.get_num_threads() == before


def test_grid_edges_end_with_the_run():
    edges = np.arange(10, 210, 10)
    assert grid_edges(edges, None) == list(edges) and grid_edges(edges, 1) == [200]
    assert grid_edges(edges, 4) == [50, 100, 150, 200] and len(grid_edges(edges, 7)) == 7
    with pytest.raises(ValueError, match="grid counts segments of a window map"):
        grid_edges(edges, 0)

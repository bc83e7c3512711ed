"""Flatness against closed forms: a classifier whose Hessian is known, and the sphere it is averaged over."""

import re

import numpy as np
import pytest
import torch

import wakd_kit as wk
from tests.softmax import expansion, third_order, trained
from wakd_kit.averaging import NoWindow, last, uniform
from wakd_kit.landscape.flatness import filter_norms, flatness, random_direction
from wakd_kit.names import UnknownName


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("flatness") / "run")


def test_the_loss_rises_as_the_second_order_expansion_says(linear):
    choices = {"last": last(linear.source_curves), "uniform": uniform(linear.source_curves)}
    table = flatness(linear, choices, radii=[0.1, 0.4], directions=3, seed=5, workers=1)
    assert len(table) == 2 * 2 * 3 * 3 and set(table["role"]) == {"source", "target"}
    for row in table.itertuples():
        loss, gradient, hessian = expansion(linear, choices[row.strategy], row.domain)
        step = row.radius * random_direction(147, 5, row.direction).double().numpy()
        assert row.loss - row.increase == pytest.approx(loss, abs=1e-5)
        left = third_order(linear, row.domain, step) + 1e-5  # and float32
        assert row.increase == pytest.approx(gradient @ step + step @ hessian @ step / 2, abs=left)


def test_its_mean_over_directions_is_the_trace_of_the_hessian():
    """E[increase] = r^2 tr(H) / (2 d) for a quadratic, within four standard errors."""
    rng = np.random.default_rng(0)
    basis, eigenvalues = np.linalg.qr(rng.normal(size=(40, 40)))[0], rng.exponential(size=40)
    hessian = basis * eigenvalues @ basis.T
    steps = np.array([random_direction(40, 1, k).numpy() for k in range(1, 2001)], dtype=np.float64)
    assert np.linalg.norm(steps, axis=1) == pytest.approx(np.ones(2000), abs=1e-6)
    rises = 0.3**2 / 2 * np.einsum("ki,ij,kj->k", steps, hessian, steps)
    expected, error = 0.3**2 * eigenvalues.sum() / (2 * 40), rises.std() / np.sqrt(2000)
    assert abs(rises.mean() - expected) < 4 * error < 0.05 * expected


def test_directions_are_those_of_the_seed_and_shared_by_choices(linear):
    coefficients = last(linear.source_curves)
    twice = flatness(linear, {"a": coefficients, "b": coefficients}, radii=[1.0], directions=4, name="seeds")
    a, b = (twice[twice["strategy"] == label]["increase"].to_numpy() for label in "ab")
    assert np.array_equal(a, b) and len(set(a)) == len(a)
    with pytest.warns(UserWarning, match=r"choices .* computed anew"):
        again = flatness(linear, {"a": coefficients}, radii=[1.0], directions=4, name="seeds")
    assert np.array_equal(again["increase"], a)
    with pytest.warns(UserWarning, match=r"was of seed 0, this call is of 1: computed anew"):
        other = flatness(linear, {"a": coefficients}, radii=[1.0], directions=4, seed=1, name="seeds")
    assert not np.isin(other["increase"], a).any()


def test_filters_take_the_norms_of_the_points_own():
    shapes = [(3, 2, 2), (3,), (2, 3), (4,)]  # a convolution, its bias, a linear layer; then statistics
    centre = torch.arange(1.0, 26.0)
    direction = torch.randn(21, generator=torch.Generator().manual_seed(0))
    scaled = filter_norms(direction, centre, shapes)
    for low, high in ((0, 4), (4, 8), (8, 12), (15, 18), (18, 21)):
        assert scaled[low:high].norm() == pytest.approx(centre[low:high].norm())
        assert torch.cosine_similarity(scaled[low:high], direction[low:high], dim=0) == pytest.approx(1, abs=1e-6)
    assert scaled.shape == (21,) and torch.equal(scaled[12:15], torch.zeros(3))


def test_filter_normalised_flatness_does_not_change_when_filters_are_rescaled(copied):
    """Weights before a BatchNorm times ten compute the same: as flat by filters, flatter by plain distance."""
    state = copied.average(last(copied.source_curves))
    larger = {name: 10 * tensor if ".conv" in name and tensor.ndim == 4 else tensor for name, tensor in state.items()}
    points = {"as it is": state, "ten times": larger}
    settings = {"radii": [0.5], "directions": 2, "batchnorm": "recalibrate", "workers": 1}
    by_filter = flatness(copied, points, filter_normalised=True, name="filters", **settings)
    plain = flatness(copied, points, name="plain", **settings)
    for table, same in ((by_filter, True), (plain, False)):
        a, b = (table[table["strategy"] == label]["increase"].to_numpy() for label in points)
        assert np.allclose(a, b, rtol=0.02, atol=1e-3) == same, (a, b)


def test_killed_in_the_middle_it_goes_on(copied, monkeypatch):
    choices = {"last": last(copied.source_curves), "uniform": uniform(copied.source_curves)}
    whole = flatness(copied, choices, radii=[1.0, 2.0], directions=2, workers=1)
    file = copied.folder / "landscape" / "flatness.csv"
    file.write_text(file.read_text()[:-200])
    assert flatness(copied, choices, radii=[1.0, 2.0], directions=2, workers=1).equals(whole)


def test_a_choice_without_a_window_has_no_rows(linear):
    choices = {"SWAD": NoWindow("no valley"), "last": last(linear.source_curves)}
    table = flatness(linear, choices, radii=[1.0], directions=1, name="none")
    assert set(table["strategy"]) == {"last"}


@pytest.mark.parametrize(
    "wrong, sentence",
    [({"radii": radii}, "radii are distances") for radii in ([], 5.0, "12", [0.0, 1.0], [np.inf], [np.nan, 1.0], ["1"])]
    + [({"directions": many}, "directions counts random directions: a whole number >= 1; got") for many in (0, 1.5)]
    + [({"seed": seed}, "seed is a whole number >= 0") for seed in (-1, 1.5)]
    + [({"roles": ("sorce",)}, "Unknown role 'sorce'. Did you mean 'source'?")]
    + [({"choices": ["last"]}, "Points are given by label, {label: coefficients}; got ['last']")],
)
def test_what_makes_no_sense_is_refused(linear, wrong, sentence):
    with pytest.raises((ValueError, UnknownName), match=re.escape(sentence)):
        flatness(linear, **{"choices": {"last": last(linear.source_curves)}, "radii": [1.0]} | wrong)


def test_flatness_is_reached_through_landscape():
    assert wk.landscape.flatness is flatness

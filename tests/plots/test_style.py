"""Colour means one thing: a kind of average, wherever it is drawn."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv, to_rgb

from wakd_kit import averaging
from wakd_kit.plots import style

STUDIES = ["last", "best validation", "WAKD", "SWAD", "SMA", "EMA"]


def test_a_strategy_has_one_look_wherever_it_stands_and_whoever_stands_beside():
    alone = {label: style.looks([label])[label] for label in STUDIES}
    for order in itertools.permutations(STUDIES, 4):
        found = style.looks(order)
        assert all(found[label][:2] == alone[label][:2] for label in order)
    assert len({look.colour for look in alone.values()}) == len({look.marker for look in alone.values()}) == 6


@pytest.mark.parametrize(
    "label, name",
    [("WAKD late", "wakd"), ("wakd(begin=0.2)", "wakd"), ("Best validation", "best_val"), ("SWAD by KL", "swad")]
    + [
        ("swad_wakd_repo", "swad"),
        ("deployed", "deployed"),
        ("EMA 0.999", "ema"),
        ("WAKD, last 40 %", "wakd"),
        ("EMA from last third", "ema"),
        ("SWAD last", "swad"),
        ("best of last", "last"),
        ("lastly", None),
        ("", None),
    ],
)
def test_a_label_is_of_the_strategy_that_it_names(label, name):
    assert style.kind_of(label) == (style.OF[name] if name else None)


def test_every_strategy_has_a_kind():
    assert set(averaging.strategies) <= set(style.OF)


def test_several_of_one_kind_have_one_hue_and_are_told_apart():
    many = [f"EMA {n}" for n in range(5)]
    found = style.looks([*many, "something else"])
    assert len({look.colour for look in found.values()}) == 6 and len({found[m].marker for m in many}) == 5
    hues = [rgb_to_hsv(to_rgb(found[label].colour))[0] for label in many]
    assert max(hues) - min(hues) < 0.02


def test_a_finer_field_keeps_its_points_and_their_range_and_is_smooth():
    xs, ys = np.linspace(-2, 3, 6), np.array([0, 1, 4, 5.0])
    values = np.add.outer(ys**2, np.exp(xs))
    x, y, fine = style.finer(xs, ys, values)
    assert fine.shape == (16, 26) and np.array_equal(x[::5], xs) and np.array_equal(y[::5], ys)
    np.testing.assert_allclose(fine[::5, ::5], values)
    assert [fine.min(), fine.max()] == pytest.approx([values.min(), values.max()]), (
        "nothing is lower than what was measured"
    )
    assert (np.diff(fine, axis=0) > 0).all() and (np.diff(fine, axis=1) > 0).all()
    holed = np.where(values > 30, np.inf, values)
    assert style.finer(xs, ys, holed)[2] is holed and len(style.finer(xs[:3], ys, values[:, :3])[0]) == 3


def test_levels_of_losses_pass_over_zero_and_what_is_no_number():
    losses = np.array([[0, 0.1, 0.2], [0.4, np.inf, np.inf], [np.nan, 0.8, np.inf]])
    levels = style.loss_levels(losses, 4)
    assert np.isfinite(levels).all() and (np.diff(levels) > 0).all() and levels[0] == pytest.approx(0.1)
    assert (np.diff(style.loss_levels(np.zeros((2, 2)), 3)) > 0).all()


def test_a_long_name_takes_lines_and_leaves_the_axes_their_room():
    names = ["a student whose teacher is called by its recipe, its width and its seed, and then some", "KD"]
    with style.matplotlib.rc_context(style.STYLE):
        figure = style.empty(7.2, 1.5)
        axis = figure.subplots()
        style.rows(axis, names)
        figure.draw_without_rendering()
    first, second = (label.get_window_extent() for label in axis.get_yticklabels())
    assert axis.get_position().width > 0.5 and second.y1 < first.y0


@pytest.mark.parametrize(
    "low, high, ticks",
    [(0.319, 0.522, [0.4, 0.5]), (0.25, 7, [0.5, 1, 2, 5]), (72, 81.8, [72.5, 75, 77.5, 80])],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert style.round_ticks(low, high) == pytest.approx(ticks)


def test_what_is_no_average_has_no_hue():
    assert style.hue("KD") == style.INK[0] and style.hue("WAKD late") == style.looks(["wakd"])["wakd"].colour

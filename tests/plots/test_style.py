"""Colour means one thing: a kind of average, wherever it is drawn."""

import itertools

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
    + [("swad_wakd_repo", "swad"), ("deployed", "deployed"), ("EMA 0.999", "ema"), ("lastly", None), ("", None)],
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

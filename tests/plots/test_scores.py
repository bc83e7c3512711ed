"""A score against what came of it: points, what correlates, and what is said of it."""

import pandas as pd

from wakd_kit.plots.scores import score_against

TABLE = pd.DataFrame(
    [
        {"teacher": t, "student": s, "target": "ink", "parc": p, "accuracy": a}
        for t, s, p, a in [
            ("wide", "a", 30.0, 0.8),
            ("wide", "b", 30.0, 0.7),
            ("deep", "a", 10.0, 0.6),
            ("deep", "b", 10.0, None),
        ]
    ]
)


def test_every_pair_that_was_trained_is_a_point_and_the_correlation_is_of_pairs():
    figure, alt = score_against(TABLE, "parc", said="PARC of the teacher", average="WAKD")
    (axis,) = figure.axes
    points = {(x, y) for line in axis.lines for x, y in line.get_xydata().tolist()}
    assert points == {(30.0, 80.0), (30.0, 70.0), (10.0, 60.0)}
    assert axis.get_title(loc="left") == "ink" and axis.texts[0].get_text() == "rank correlation\n+0.87, n = 3"
    assert alt.startswith(
        "Accuracy in % of WAKD on unseen domains against PARC of the teacher. ink, rank correlation +0.87 over 3"
    )
    assert "deep, a 60.0 at 10" in alt and axis.get_ylabel() == "accuracy of WAKD on the unseen domain, %"


def test_two_pairs_have_no_correlation():
    figure, alt = score_against(TABLE.iloc[:2], "parc")
    assert "rank correlation –" in alt and figure.axes[0].texts[0].get_text() == "rank correlation\n–, n = 2"

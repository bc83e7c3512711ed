"""When averaging helps: the grid's tables by hand, and a correlation that is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from wakd_kit import averaging, comparison, gain_figures, when


def cells(**columns) -> pd.DataFrame:
    """Four cells: two objectives at two rates, all else alike; gain grows with the dip, not with the bounce."""
    table = pd.DataFrame(
        {
            "student": ["CE slow", "CE fast", "KD slow", "KD fast"],
            "average": "WAKD",
            "objective": ["CE", "CE", "KD T=5", "KD T=5"],
            "learning rate": [0.001, 0.01, 0.001, 0.01],
            "steps": 600,
            "start": "scratch",
            "schedule": "constant",
            "before": [80.0, 81.0, 82.0, 83.0],
            "after": [81.0, 85.0, 82.5, 85.0],
            "gain": [1.0, 4.0, 0.5, 2.0],
            "low": [-0.5, 2.0, -1.0, 1.0],
            "high": [2.5, 6.0, 2.0, 3.0],
            "source_gain": [0.5, 2.0, 0.2, 1.0],
            "source_low": 0.0,
            "source_high": 3.0,
            "n": 12,
            "dip": [0.02, 0.08, 0.01, 0.04],
            "rise": [0.1, 0.2, 0.3, 0.4],
            "relative": [0.1, 0.2, 0.1, 0.2],
            "bounce": [0.3, 0.2, 0.1, 0.4],
            "spread": [1.0, 1.0, 1.0, 1.0],
            "drift": [2.0, np.nan, 2.0, 1.0],
        }
    )
    return table.assign(**columns)


def test_a_cell_is_what_its_run_was_set_to():
    settings = {
        "student": {"name": "resnet10t_w16.px32", "started_from": "shipped"},
        "objectives": [
            {"name": "ce", "weight": 0.5, "label_smoothing": 0.0},
            {"name": "kd", "weight": 1.0, "temperature": 5.0, "kind": "forward"},
        ],
        "learning_rate": 0.01,
        "steps": 600,
        "schedule": "cosine",
    }
    found = when.factors(SimpleNamespace(settings=settings))
    assert found == {
        "objective": "0.5 CE + KD T=5",
        "learning rate": 0.01,
        "steps": 600,
        "start": "pretrained",
        "schedule": "cosine",
    }
    settings["student"] = {"name": "resnet10t_w16"}
    assert when.factors(SimpleNamespace(settings=settings))["start"] == "scratch"


def test_a_gain_that_follows_a_measure_is_found_and_one_that_does_not_is_not():
    found = when.explained(cells()).set_index("measure")
    assert found.loc["dip", "correlation"] == pytest.approx(1) and found.loc["dip", "cells"] == 4
    assert found.loc["bounce", "correlation"] == pytest.approx(0.4)  # ranks of gain 2 4 1 3, of bounce 3 2 1 4
    assert np.isnan(found.loc["spread", "correlation"])  # all alike
    assert found.loc["drift", "cells"] == 3
    assert (found["low"].dropna() <= found["correlation"][found["low"].notna()] + 1e-9).all()


def test_the_interval_of_a_correlation_narrows_with_cells():
    rng = np.random.default_rng(0)
    widths = []
    for n in (10, 100):
        dip = rng.uniform(0, 1, n)
        many = pd.concat([cells()] * (n // 4 + 1), ignore_index=True).head(n)
        found = (
            when.explained(many.assign(dip=dip, gain=dip + rng.normal(0, 0.3, n)), draws=400)
            .set_index("measure")
            .loc["dip"]
        )
        assert found["low"] < found["correlation"] < found["high"]
        widths.append(found["high"] - found["low"])
    assert widths[1] < widths[0] / 2


def test_contrasts_are_of_cells_that_differ_in_one_factor_alone():
    found = when.contrasts(cells())
    assert len(found) == 4  # two of the rate, two of the objective; the diagonals differ in both
    rate = found[found["factor"] == "learning rate"]
    assert rate[["from", "to"]].to_numpy().tolist() == [[0.001, 0.01]] * 2
    assert sorted(zip(rate["gain_from"], rate["gain_to"])) == [(0.5, 2.0), (1.0, 4.0)]
    turned = when.contrasts(cells().iloc[::-1])  # whatever the order of the table, from the lower value to the higher
    assert sorted(zip(turned["gain_from"], turned["gain_to"])) == sorted(zip(found["gain_from"], found["gain_to"]))


def test_sentences_come_from_the_numbers():
    table = cells()
    said = when.findings(table, when.explained(table), baseline="last")
    assert said[0].startswith("WAKD against last on unseen domains: higher in 2 of 4 cells")
    assert "Most: CE fast +4.0 [+2.0, +6.0] (n = 12); least: KD slow +0.5" in said[0]
    assert "goes most with: dip of the source loss" in said[1] and "+1.00" in said[1]


def test_figures_draw_every_cell_that_has_a_number():
    table = cells(gain=[1.0, np.nan, 0.5, 2.0], schedule=["constant", "constant", "cosine", "constant"])
    figure, alt = gain_figures.gain_against(table, "dip", said="dip", baseline="last")
    points = [line for line in figure.axes[0].lines if line.get_marker() != "None" and len(line.get_xdata()) == 1]
    assert [(p.get_xdata()[0], p.get_ydata()[0]) for p in points] == [(0.02, 1.0), (0.01, 0.5), (0.04, 2.0)]
    assert [p.get_markerfacecolor() == "white" for p in points] == [False, True, False]
    assert "CE fast" not in alt and "WAKD KD fast +2.0 at 0.04" in alt
    figure, alt = gain_figures.gains_of_cells(cells(), baseline="last")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(cells()["student"])
    assert "WAKD CE fast +4.0 [+2.0, +6.0]" in alt


def test_measures_are_of_the_window_and_missing_where_there_is_none(run, split, monkeypatch):
    chosen = {"WAKD": averaging.window(run.source_curves, begin=8, end=24), "last": averaging.last(run.source_curves)}
    monkeypatch.setattr(type(run), "choices", property(lambda self: chosen))
    monkeypatch.setattr(type(run), "split", property(lambda self: split))
    study = comparison.Recorded([run])
    row = when.measured(study, "WAKD").iloc[0]
    assert (
        row["student"] == run.name and row["spread"] > 0 and np.isfinite(row[list(when.MEASURES)].astype(float)).all()
    )
    assert when.measured(study, "last").iloc[0][list(when.MEASURES)].isna().all()


def test_a_table_is_printed_with_dashes_for_what_is_not_known():
    printed = when.printed(cells(gain=[1.0, np.nan, 0.5, 2.0], low=np.nan, high=np.nan))
    assert printed["gain"].tolist() == ["+1.0 –", "– –", "+0.5 –", "+2.0 –"]
    assert printed["dip"].tolist()[0] == "+0.020"

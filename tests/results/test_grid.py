"""When averaging helps: the grid's tables by hand, and a correlation that is known."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from wakd_kit import averaging
from wakd_kit.plots import gains as gain_figures
from wakd_kit.results import differences as comparison
from wakd_kit.results import grid as when
from wakd_kit.results.collect import recipe
from wakd_kit.runs.store import RunProblem
from wakd_kit.statistics import holm


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
            "p": [0.2, 0.001, 0.5, 0.004],
            "p_holm": [0.4, 0.004, 0.5, 0.012],
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


def recorded(name: str, **settings) -> SimpleNamespace:
    """As much of a run as a cell reads."""
    values = {
        "student": {"name": "resnet10t_w16", "settings": {}},
        "teacher": None,
        "objectives": [{"name": "ce", "weight": 1.0, "label_smoothing": 0.0}],
        "learning_rate": 0.01,
        "steps": 600,
        "schedule": "constant",
        "warmup": 0,
        "batchnorm": "recalibrate",
        "seed": 0,
        "split": {"target": "ink", "seed": 0},
    }
    return SimpleNamespace(name=name, settings={**values, **settings})


KD = [{"name": "kd", "weight": 1.0, "temperature": 5.0, "kind": "forward"}]
TEACHER = {"run": "teacher", "strategy": "wakd"}


def test_a_cell_is_what_its_run_was_set_to():
    both = [{"name": "ce", "weight": 0.5, "label_smoothing": 0.1}, *KD]
    run = recorded("x", student={"name": "resnet10t_w16.px32", "pretrained": True}, objectives=both, schedule="cosine")
    assert when.factors(run) == {
        "objective": "0.5 CE (label_smoothing 0.1) + KD (temperature 5.0)",
        "learning rate": 0.01,
        "steps": 600,
        "start": "pretrained",
        "schedule": "cosine",
    }
    assert when.factors(recorded("x"))["start"] == "scratch"


def test_what_a_training_differs_in_beside_its_settings_is_no_single_difference():
    split = {
        "target": "ink",
        "seed": 0,
        "contents": dict.fromkeys(["ink", "neon", "photo"]),
        "sources": ["neon", "photo"],
    }
    plain = recorded("A", split=split)
    assert recipe(plain) == recipe(recorded("A")), "recorded before contents were"
    of_one = recorded("B", split={**split, "sources": ["neon"]})
    again = recorded("C", split={**split, "whole": True})
    going_on = recorded("D", student={**plain.settings["student"], "started_from": "A (wakd)"})
    weights = [
        recorded("E", student={**plain.settings["student"], "pretrained": True, "started_from": f"/at/{name}"})
        for name in ("one.safetensors", "other.safetensors")
    ]
    for one, names in ((of_one, ["sources"]), (again, ["images"]), (going_on, ["start"]), (weights[0], ["start"])):
        assert [key for key, value in recipe(one).items() if value != recipe(plain)[key]] == names
    assert when.factors(going_on)["start"] == "A (wakd)" and recipe(weights[0])["start"] == "one.safetensors"
    assert when.factors(weights[0]) == when.factors(weights[1]) and recipe(weights[0]) != recipe(weights[1])
    assert when.factors(recorded("x", batchnorm="frozen"))["start"] == "scratch, frozen BatchNorm"


def test_objectives_that_no_two_students_share_are_called_as_the_students_are():
    runs = [
        recorded("plain", objectives=[{"name": "ce", "weight": 1.0}]),
        recorded("warm", objectives=[{"name": "kd", "weight": 1.0}]),
    ]
    told = when._by_split(SimpleNamespace(runs=runs), when.factors)
    assert [told[name]["ink", 0]["objective"] for name in ("plain", "warm")] == ["plain", "warm"]
    runs.append(recorded("hot", objectives=[{"name": "kd", "weight": 1.0}]))
    shared = when._by_split(SimpleNamespace(runs=runs), when.factors)
    plain, warm, hot = (shared[name]["ink", 0]["objective"] for name in ("plain", "warm", "hot"))
    assert plain == "CE" and warm == hot != "warm"


def test_what_differs_on_one_split_alone_is_seen():
    """As after a search, whose winners are other rates for each target."""

    def study(rates):
        runs, rows = [], []
        for student, objectives in (("CE", None), ("KD", KD)):
            for target, rate in zip(("ink", "neon", "photo"), rates[student]):
                own = {"objectives": objectives} if objectives else {}
                runs.append(recorded(student, learning_rate=rate, split={"target": target, "seed": 0}, **own))
                for strategy, accuracy in (("last", 0.5), ("WAKD", 0.6)):
                    row = {"student": student, "target": target, "seed": 0, "strategy": strategy, "accuracy": accuracy}
                    rows += [row | {"role": role, "domain": role} for role in ("source", "target")]
        return SimpleNamespace(runs=runs, students=["CE", "KD"], scores=pd.DataFrame(rows))

    def compared(**rates):
        return when.contrasts(study(rates), baseline="last", averages=["WAKD"])

    assert compared(CE=(1e-3, 1e-3, 1e-2), KD=(1e-3, 1e-2, 1e-2)).empty, "they differ in a rate, too"
    same = compared(CE=(1e-3, 1e-2, 1e-3), KD=(1e-3, 1e-2, 1e-3))
    assert same["factor"].tolist() == ["objective"] and same["n"].tolist() == [3]
    found = when._by_split(study({"CE": (1e-3, 1e-2, 1e-3), "KD": (1e-3, 1e-3, 1e-3)}), when.factors)
    rates = {name: when._in_common(runs.values())["learning rate"] for name, runs in found.items()}
    assert rates == {"CE": "0.001 or 0.01", "KD": 0.001}


def unseen(explained):
    return explained[explained["on"] == "unseen domains"]


def test_a_gain_that_follows_a_measure_is_found_and_one_that_does_not_is_not():
    found = unseen(when.explained(cells())).set_index("measure")
    assert found.loc["dip", "correlation"] == pytest.approx(1) and found.loc["dip", "cells"] == 4
    assert found.loc["bounce", "correlation"] == pytest.approx(0.4)  # ranks of gain 2 4 1 3, of bounce 3 2 1 4
    assert np.isnan(found.loc["spread", "correlation"])  # all alike
    assert found.loc["drift", "cells"] == 3
    assert found["low"].isna().all()  # four cells: a bootstrap of them would be of no width


def test_cells_of_every_start_are_explained_apart_as_well():
    both = pd.concat([cells(), cells(start="pretrained", gain=-cells()["gain"])])
    found = unseen(when.explained(both, draws=50)).set_index(["start", "measure"])["correlation"]
    assert found["scratch", "dip"] == pytest.approx(1) and found["pretrained", "dip"] == pytest.approx(-1)
    assert found["all", "dip"] == pytest.approx(0)


def test_correlations_are_printed_with_a_column_per_measure_and_without_starts_that_have_none():
    two = cells(start="pretrained").head(2)
    found = when.printed_explained(when.explained(pd.concat([cells(), two], ignore_index=True), draws=200))
    assert list(found["start"]) == ["all"] * 2 + ["scratch"] * 2 and list(found["cells"]) == [6, 6, 4, 4]
    assert list(found["on"]) == ["unseen domains", "source validation"] * 2
    found = found.iloc[::2].reset_index()
    assert found.loc[1, "dip"] == "+1.00" and found.loc[1, "bounce"] == "+0.40" and set(found["spread"]) == {"–"}
    many = pd.concat([cells()] * 3, ignore_index=True)
    assert re.fullmatch(
        r"\+1.00 \[\+\d.\d\d, \+1.00\]", when.printed_explained(when.explained(many, draws=200))["dip"][0]
    )


def test_the_interval_of_a_correlation_narrows_with_cells():
    rng = np.random.default_rng(0)
    widths = []
    for n in (10, 100):
        dip = rng.uniform(0, 1, n)
        many = pd.concat([cells()] * (n // 4 + 1), ignore_index=True).head(n)
        found = (
            unseen(when.explained(many.assign(dip=dip, gain=dip + rng.normal(0, 0.3, n)), draws=400))
            .set_index("measure")
            .loc["dip"]
        )
        assert found["low"] < found["correlation"] < found["high"]
        widths.append(found["high"] - found["low"])
    assert widths[1] < widths[0] / 2


def test_contrasts_are_of_students_that_differ_in_one_setting_alone():
    runs = [
        recorded("slow", learning_rate=0.001),
        recorded("fast"),
        recorded("warm", warmup=60),
        recorded("warm and slow", warmup=60, learning_rate=0.001),
        recorded("KD", objectives=KD, teacher=TEACHER),
        recorded(
            "smooth and slow", learning_rate=0.001, objectives=[{"name": "ce", "weight": 1.0, "label_smoothing": 0.1}]
        ),
    ]
    gained = {"slow": [1, 2, 3], "fast": [3, 3, 6], "warm": 0, "warm and slow": 0, "KD": 1, "smooth and slow": 0}
    rows = []
    for student, gain in gained.items():
        for target, points in zip(("ink", "neon", "photo"), np.broadcast_to(gain, 3)):
            for strategy, accuracy in (("last", 0.5), ("WAKD", 0.5 + points / 100)):
                row = {"student": student, "target": target, "seed": 0, "strategy": strategy, "accuracy": accuracy}
                rows += [row | {"role": role, "domain": role} for role in ("source", "target")]
    study = SimpleNamespace(runs=runs[::-1], students=[*gained][::-1], scores=pd.DataFrame(rows))
    found = when.contrasts(study, baseline="last", averages=["WAKD"]).set_index("students")
    assert set(found.index) == {
        "slow, fast",
        "fast, warm",
        "warm and slow, warm",
        "slow, warm and slow",
        "fast, KD",
        "slow, smooth and slow",
    }
    row = found.loc["slow, fast"]
    assert row[["factor", "from", "to"]].tolist() == ["learning rate", "0.001", "0.01"]
    assert row[["gain_from", "gain_to", "difference", "n"]].tolist() == pytest.approx([2, 4, 2, 3])
    differences = [2, 1, 3]
    assert row["p"] == pytest.approx(scipy.stats.ttest_1samp(differences, 0).pvalue)
    assert row["p_holm"] > row["p"] and found["p_holm"].tolist() == pytest.approx(holm(found["p"]), nan_ok=True)
    half = 4.302653 * 1 / np.sqrt(3)  # t at two degrees of freedom; differences 2, 1, 3
    assert row[["low", "high"]].tolist() == pytest.approx([2 - half, 2 + half])
    assert found.loc["fast, KD", ["factor", "to"]].tolist() == ["objective", "KD (temperature 5.0)"]
    for of, run in (
        ("fast", runs[1]),
        ("KD", runs[4]),
    ):  # on an accelerator teachers are folded, and the slow one is of an older version
        run.settings["arithmetic"] = {"teacher": "folded" if of == "KD" else "as it is"}
    runs[0].settings.pop("warmup", None)
    again = when.contrasts(study, baseline="last", averages=["WAKD"]).set_index("students")
    pd.testing.assert_frame_equal(again, found)
    printed = when.printed_contrasts(found.reset_index())
    assert printed["from"].iloc[list(found.index).index("slow, fast")] == "0.001"


def test_sentences_come_from_the_numbers():
    table = cells()
    said = when.findings(table, when.explained(table), baseline="last")
    assert (
        said[0].startswith("WAKD against last on unseen domains: higher for 2 of 4 cells")
        and "2 of them keep" in said[0]
    )
    assert "Most: CE fast +4.0 [+2.0, +6.0] (n = 12); least: KD slow +0.5" in said[0]
    assert (
        said[1].startswith("Of 5 measures, over 4 cells")
        and "dip of the source loss" in said[1]
        and "+1.00, +1.00 with that on source validation)" in said[1]
    )
    there = table.assign(source_gain=-table["source_gain"])
    assert "+1.00, -1.00 with that on" in when.findings(there, when.explained(there), baseline="last")[1]
    none = pd.concat([table, cells(average="SWAD", n=0, gain=np.nan, low=np.nan, high=np.nan)], ignore_index=True)
    assert when.findings(none, when.explained(none), baseline="last")[1] == "SWAD has no score beside last in any cell."


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
    with pytest.raises(RunProblem, match="was not evaluated with EMA"):
        when.measured(study, "EMA")


def test_a_table_is_printed_with_dashes_for_what_is_not_known():
    printed = when.printed(cells(gain=[1.0, np.nan, 0.5, 2.0], low=np.nan, high=np.nan))
    assert printed["gain"].tolist() == ["+1.0 –", "– –", "+0.5 –", "+2.0 –"]
    assert printed["dip"].tolist()[0] == "+0.020"

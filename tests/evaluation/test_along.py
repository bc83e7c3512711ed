"""Averages along training: every row is what evaluate says of a run that ended there."""

import numpy as np
import pandas as pd
import pytest

import wakd_kit as wk
from wakd_kit import averaging
from wakd_kit.averaging import Coefficients, NoWindow
from wakd_kit.averaging import choose as choose_on
from wakd_kit.evaluation.along import steps_to_reach

from ..conftest import one_image

WANTED = [{"name": "wakd", "begin": 0.5}, {"name": "bema", "label": "BEMA"}, {"name": "swad", "n_converge": 2}]


def test_every_row_is_what_evaluate_says_of_the_run_until_then(copied):
    run = copied
    table = wk.averages_along(run, wanted=WANTED, count=3)
    curves, choices = run.source_curves, {}
    steps = sorted(set(table["step"]))
    assert len(steps) == 3 and steps[-1] == run.steps and set(steps) <= set(curves.ends.tolist())
    for step in steps:
        until = curves[: int(np.searchsorted(curves.ends, step)) + 1]
        more = (0, len(curves) - len(until))
        for label, found in choose_on(until, ["last", *WANTED]).items():
            if not isinstance(found, NoWindow):
                ends = None if found.ends is None else np.pad(found.ends, more)
                found = Coefficients(np.pad(found, more), **{**found.notes, "ends": ends})
            choices[f"{label} at {step}"] = found
    scores = wk.evaluate(run, choices).set_index(["strategy", "domain"])
    images = {domain: len(examples) for domain, examples in run.split.val.items()}
    images[run.split.target] = len(run.split.target_for_testing_only)
    assert len(table) == 3 * 4 * len(images) and table["strategy"].drop_duplicates().tolist() == [
        "last",
        "wakd",
        "BEMA",
        "swad",
    ]
    for row in table.itertuples():
        expected = scores.loc[(f"{row.strategy} at {row.step}", row.domain)]
        assert row.accuracy == pytest.approx(expected["accuracy"], abs=one_image(images[row.domain]), nan_ok=True)
        assert row.loss == pytest.approx(expected["nll"], rel=1e-3, nan_ok=True)


@pytest.mark.parametrize(
    "wanted",
    ["uniform", {"name": "uniform"}, [{"name": "last"}, "uniform"], [{"name": "last", "label": "last"}, "uniform"]],
)
def test_what_is_wanted_is_said_as_choose_takes_it(copied, wanted):
    table = wk.averages_along(copied, wanted=wanted, count=1)
    assert table["strategy"].drop_duplicates().tolist() == ["last", "uniform"]


def test_where_a_strategy_has_no_whole_segment_yet_nothing_is_drawn(copied):
    table = wk.averages_along(copied, wanted=[{"name": "wakd", "begin": 0.7}])
    along = table[table["strategy"] == "wakd"].groupby("step")["accuracy"].first()
    assert np.isnan(along.iloc[0]) and not np.isnan(along.iloc[-1])


def test_it_is_kept_and_goes_on_where_it_was(copied):
    run = copied
    first = wk.averages_along(run, count=2, name="kept")
    file = run.folder / "landscape" / "kept.csv"
    lines = file.read_text().splitlines(keepends=True)
    assert wk.averages_along(run, count=2, name="kept").equals(first) and file.read_text() == "".join(lines)
    file.write_text("".join(lines[:-4]))  # killed
    assert wk.averages_along(run, count=2, name="kept").equals(first)


def test_what_a_strategy_of_the_same_name_chose_before_is_not_read(copied, monkeypatch):
    monkeypatch.setattr(averaging.strategies, "_entries", dict(averaging.strategies._entries))

    def mine(curves):
        return averaging.last(curves)

    averaging.strategies.register(mine)
    first = wk.averages_along(copied, wanted=["mine"], count=1, name="mine")

    def mine(curves):
        return averaging.wakd(curves, begin=0.0)

    monkeypatch.setitem(averaging.strategies._entries, "mine", mine)
    with pytest.warns(UserWarning, match="computed anew"):
        again = wk.averages_along(copied, wanted=["mine"], count=1, name="mine")
    assert not again[again["strategy"] == "mine"].equals(first[first["strategy"] == "mine"])


def test_steps_to_reach_by_hand():
    rows = [(10, 0.2, 0.4), (20, 0.6, 0.6), (30, 0.5, np.nan)]
    table = pd.DataFrame(
        [
            {"step": step, "strategy": strategy, "domain": domain, "role": "source", "accuracy": value + shift}
            for step, last, average in rows
            for strategy, value in (("last", last), ("ema", average))
            for domain, shift in (("a", -0.1), ("b", 0.1))
        ]
    )
    found = steps_to_reach(table).set_index("strategy")
    assert found["step"].to_dict() == {"last": 20, "ema": 20} and found["goal"].tolist() == pytest.approx([0.6, 0.6])
    assert steps_to_reach(table, 0.4)["step"].tolist() == [20, 10] and steps_to_reach(table, 0.7)["step"].isna().all()


def test_what_cannot_be_is_a_sentence(run):
    with pytest.raises(ValueError, match="sma scores candidate averages on source validation and got no score"):
        wk.averages_along(run, wanted=["sma"])
    with pytest.raises(ValueError, match=r"count counts moments of the run.*>= 1; got 0"):
        wk.averages_along(run, count=0)


def test_a_moment_too_early_for_a_strategy_has_no_score_of_it(copied):
    table = wk.averages_along(copied, wanted=[{"name": "wakd", "label": "WAKD", "begin": 0.8}], count=6, workers=1)
    early = table[table["step"] == table["step"].min()].set_index("strategy")["accuracy"]
    assert early.loc["WAKD"].isna().all() and early.drop("WAKD").notna().all()
    assert table[(table["step"] == table["step"].max())]["accuracy"].notna().all()

"""Where nothing differs, tests at 5 % find something 5 % of the time or less: a short form of benchmarks/null_tables.py."""

import runpy
from pathlib import Path

import numpy as np

NULL = runpy.run_path(str(Path(__file__).parent.parent.parent / "benchmarks" / "null_tables.py"))


def test_ranks_of_strategies_that_do_not_differ_are_told_apart_no_more_often_than_they_may():
    found = NULL["ranked"](1000, tables=((2, 2), (2, 3), (3, 3), (4, 2), (12, 6)))
    most = 0.05 + 4 * found["se"]
    assert (found["friedman"] <= most).all() and (found["nemenyi"] <= most).all()
    few = found[found["blocks"] * found["strategies"] <= 8]
    assert (few["friedman"] == 0).all() and (few["nemenyi"] == 0).all(), "no table of theirs has a p below 0.05"
    assert found["friedman"].iloc[-1] > 0.02, "and where there are enough, the test still tests"


def test_differences_that_are_none_are_found_no_more_often_than_they_may():
    found = NULL["paired"](200, pairs=(2, 3, 5), images=(50, 898))
    assert (found["holm"] <= 0.05 + 4 * found["se"]).all()
    assert (found["t"] <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / (200 * NULL["ROWS"]))).all()
    assert (found.loc[found["pairs"] == 2, ["t", "holm"]] == 0).all(axis=None)

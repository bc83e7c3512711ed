"""Tables over runs: every number by hand, and no comparison of runs that do not belong together."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

import wakd_kit as wk
from wakd_kit import averaging
from wakd_kit.averaging import NoWindow
from wakd_kit.averaging.curves import noted
from wakd_kit.files import columns_of
from wakd_kit.results import differences as comparison
from wakd_kit.results.collect import run_folders
from wakd_kit.runs.store import RunProblem
from wakd_kit.statistics import rank_methods


def long(values: dict, role="target") -> pd.DataFrame:
    """{(student, strategy): {(target, seed): accuracy}} as the long table that studies keep."""
    return pd.DataFrame(
        [
            {"student": s, "strategy": t, "target": target, "seed": seed, "role": role, "accuracy": accuracy}
            for (s, t), by_run in values.items()
            for (target, seed), accuracy in by_run.items()
        ]
    )


RUNS = [("ink", 0), ("ink", 1), ("neon", 0), ("neon", 1)]
LAST = dict(zip(RUNS, (0.80, 0.70, 0.50, 0.60)))
WAKD = dict(zip(RUNS, (0.81, 0.72, 0.53, 0.64)))  # 1, 2, 3 and 4 points more
STUDENT = {("kd", "last"): LAST, ("kd", "wakd"): WAKD}


@pytest.fixture
def scores():
    noise = long({("kd", "last"): dict.fromkeys(RUNS, 0.01)}, role="source")  # of no concern to any table here
    return pd.concat([long(STUDENT), noise])


# ---- trainings that fell apart


def test_runs_that_fell_apart_are_named_and_nothing_else_is(scores):
    assert comparison.collapsed(scores, "last") == []
    fallen = {**dict.fromkeys(RUNS, 0.9), ("neon", 1): 0.1}
    source = [long({("kd", "last"): fallen, ("ce", "last"): dict.fromkeys(RUNS, 0.1)}, role="source")]
    source.append(long({("kd", "wakd"): dict.fromkeys(RUNS, 0.1)}, role="source"))
    (sentence,) = comparison.collapsed(pd.concat([long(STUDENT), *source]), "last")
    assert sentence.startswith("kd: 1 of 4 runs fell apart (neon seed 1): 10 % or less on source validation at last")
    assert "half of its runs have 90 % or more" in sentence


# ---- several domains left out at once


def test_domains_left_out_at_once_are_scored_apart_and_count_once(scores):
    both = []
    for domain, less in (("ink", 0.0), ("neon", 0.2)):
        part = long(
            {
                key: {("ink+neon", seed): by_run["ink", seed] - less for seed in (0, 1)}
                for key, by_run in STUDENT.items()
            }
        )
        both.append(part.assign(domain=domain, n=100))
    table = pd.concat(both, ignore_index=True)
    row = comparison.summary(table).set_index("strategy").loc["last"]
    assert row[["ink", "neon", "ink+neon", "mean"]].tolist() == pytest.approx([75, 55, 65, 65]) and row["n"] == 2
    assert row["sd"] == pytest.approx(np.std([70, 60], ddof=1)) and comparison.grid(table) == pytest.approx(
        1 / np.sqrt(2)
    )
    gains = comparison.paired(table, [(("kd", "wakd"), ("kd", "last"))]).iloc[0]
    assert gains["n"] == 2 and gains["pairs"].tolist() == pytest.approx([1, 2])
    again = table.assign(target="ink+pen", domain=table["domain"].replace("neon", "pen"))
    wide = comparison.summary(pd.concat([table, again]))
    assert {"ink of ink+neon", "ink of ink+pen", "neon", "pen", "ink+neon", "ink+pen"} <= {*wide}
    alone = table[table["domain"] == "ink"].assign(target="ink", accuracy=0.9)
    row = comparison.summary(pd.concat([table, alone])).set_index("strategy").loc["last"]
    assert row[["ink of ink+neon", "neon", "ink+neon", "ink", "mean"]].tolist() == pytest.approx([75, 55, 65, 90, 77.5])
    with pytest.raises(ValueError, match="Two scores of student kd, strategy last, target ink"):
        comparison.summary(pd.concat([table, table]))


# ---- means


def test_summary_is_the_mean_over_seeds_then_over_targets(scores):
    row = comparison.summary(scores).set_index("strategy").loc["last"]
    assert row[["ink", "neon"]].tolist() == pytest.approx([75, 55])
    assert row["mean"] == pytest.approx(65)
    # seed 0 has a mean of 65 over targets and seed 1 as well; for wakd they are 67 and 68
    assert row["sd"] == pytest.approx(0)
    assert comparison.summary(scores).set_index("strategy").loc["wakd", "sd"] == pytest.approx(np.sqrt(0.5))
    assert (row["n"], row["missing"]) == (4, 0)


def test_published_numbers_stand_beside_ours_where_every_domain_was_left_out(scores):
    split = {"target": "ink", "sources": ["neon"]}
    study = SimpleNamespace(runs=[SimpleNamespace(settings={"split": split})], scores=scores, targets=["ink", "neon"])
    table = comparison.beside(study, {"kd": {"wakd": 86.6, "never evaluated": 1.0}, "another": {"wakd": 2.0}})
    (row,) = table.to_dict("records")
    assert (row["student"], row["strategy"], row["published"]) == ("kd", "wakd", 86.6)
    assert row["ours"] == pytest.approx(67.5) and row["sd"] == pytest.approx(np.sqrt(0.5)) and row["n"] == 4
    assert not len(comparison.beside(study, {}))
    study.runs.insert(
        0, SimpleNamespace(settings={"split": {"target": "ink", "sources": []}})
    )  # trained on a part of them
    assert len(comparison.beside(study, {"kd": {"wakd": 86.6}})) == 1
    split["sources"].append("pencil")  # which was never left out: not the mean that is published
    assert not len(comparison.beside(study, {"kd": {"wakd": 86.6}}))


@pytest.mark.parametrize("lost", [lambda s: s.assign(accuracy=s["accuracy"].mask(s.index == 6)), lambda s: s.drop(6)])
def test_a_strategy_without_a_score_on_every_run_has_no_mean(lost):
    """Row 6 is wakd on neon, seed 0: no window found, or never evaluated."""
    table = comparison.summary(lost(long(STUDENT))).set_index("strategy")
    assert table.loc["wakd", "ink"] == pytest.approx(76.5)
    assert table.loc["wakd", ["neon", "mean", "sd"]].isna().all()
    assert table.loc["wakd", ["n", "missing"]].tolist() == [3, 1]
    assert table.loc["last", "mean"] == pytest.approx(65) and table.loc["last", "missing"] == 0


def test_a_target_that_a_strategy_never_saw_is_missing_and_not_averaged_away():
    table = comparison.summary(long({("kd", "last"): LAST, ("kd", "wakd"): {r: WAKD[r] for r in RUNS[:2]}}))
    assert np.isnan(table.set_index("strategy").loc["wakd", "mean"])


def test_two_runs_of_one_name_are_not_mixed(scores):
    twice = pd.concat([scores, scores.iloc[:1]])
    for table in (lambda: comparison.summary(twice), lambda: comparison.paired(twice, [])):
        with pytest.raises(ValueError, match="Two scores of student kd, strategy last, target ink, seed 0"):
            table()


# ---- paired differences


def test_interval_is_students():
    # mean 2.5, standard deviation 1.2909944, and t(.975, 3 degrees of freedom) = 3.1824463
    low, high = comparison.interval([1, 2, 3, 4])
    assert (low, high) == pytest.approx((2.5 - 2.0542605, 2.5 + 2.0542605), abs=1e-6)
    narrower = comparison.interval([1, 2, 3, 4], level=0.5)
    assert narrower == pytest.approx((2.5 - 0.7648923 * 0.6454972, 2.5 + 0.7648923 * 0.6454972), abs=1e-6)
    assert np.isnan(comparison.interval([1.0])).all() and np.isnan(comparison.interval([])).all()


def test_differences_are_paired_by_target_and_seed(scores):
    shuffled = scores.sample(frac=1, random_state=3)
    row = comparison.paired(shuffled, [(("kd", "wakd"), ("kd", "last"))]).iloc[0]
    assert sorted(row["pairs"]) == pytest.approx([1, 2, 3, 4])
    assert row[["mean", "low", "high"]].tolist() == pytest.approx([2.5, 2.5 - 2.0542605, 2.5 + 2.0542605], abs=1e-6)
    assert row[["n", "missing", "better", "targets"]].tolist() == [4, 0, 4, 2]
    assert row[["target_low", "target_high"]].isna().all(), "two target means have no interval"
    assert row["label"] == "kd: wakd - last"


def test_pairs_without_a_score_on_both_sides_are_left_out_and_counted():
    scores = long({("kd", "last"): LAST, ("kd", "swad"): {**WAKD, ("ink", 0): np.nan}, ("ce", "last"): {RUNS[3]: 0.5}})
    table = comparison.paired(scores, [(("kd", "swad"), ("kd", "last")), (("kd", "last"), ("ce", "last"))])
    assert sorted(table.loc[0, "pairs"]) == pytest.approx([2, 3, 4])
    assert table[["n", "missing"]].to_numpy().tolist() == [[3, 1], [1, 3]]
    assert table.loc[1, "mean"] == pytest.approx(10) and table.loc[1, "label"] == "kd last - ce last"


def test_nothing_to_compare_is_an_empty_table_and_no_sentence(scores):
    table = comparison.paired(scores, [])
    one = comparison.paired(scores, [(("kd", "wakd"), ("kd", "last"))])
    assert not len(table) and table.columns.tolist() == one.columns.tolist()
    assert comparison.findings(table) == [] and not len(comparison.rounded(table))
    assert comparison.rounded(table).columns.tolist() == comparison.rounded(one).columns.tolist()


def test_an_unknown_side_names_what_there_is(scores):
    with pytest.raises(ValueError, match=r"No scores of kd ema; there are kd last, kd wakd\."):
        comparison.paired(scores, [(("kd", "ema"), ("kd", "last"))])


def test_every_difference_has_a_bootstrap_and_a_p_corrected_for_all_rows(scores):
    both = pd.concat([scores, long({("kd", "swad"): dict(zip(RUNS, (0.79, 0.74, 0.52, 0.58)))})])
    table = comparison.paired(both, [(("kd", s), ("kd", "last")) for s in ("wakd", "swad")])
    pairs = [[1.0, 2.0, 3.0, 4.0], [-1.0, 4.0, 2.0, -2.0]]  # two seeds of ink, two of neon
    p = [ttest_1samp(values, 0).pvalue for values in pairs]
    assert table["p"].tolist() == pytest.approx(p, rel=1e-6)
    assert table["p_holm"].tolist() == pytest.approx([2 * p[0], max(2 * p[0], p[1])], rel=1e-6)
    for row, values in zip(table.itertuples(), pairs):
        drawn = [rng.choice(values[2 * t : 2 * t + 2], 2) for rng in [np.random.default_rng(0)] for _ in range(20_000)
                 for t in rng.integers(2, size=2)]  # fmt: skip
        means = np.reshape(drawn, (20_000, 4)).mean(axis=1)
        assert (row.boot_low, row.boot_high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.26)


# ---- domains called like columns


@pytest.mark.parametrize("name", ["mean", "sd", "se", "n", "missing", "student", "strategy", "source", "domain mean"])
def test_a_domain_never_replaces_a_column(name):
    runs = [(name, 0), (name, 1), ("mean", 0), ("mean", 1), ("photo", 0), ("photo", 1)]
    table = comparison.summary(long({("kd", "last"): dict(zip(runs, (0.9, 0.7, 0.9, 0.7, 0.2, 0.4)))}))
    usual = comparison.summary(long({("kd", "last"): dict(zip(runs[2:], (0.9, 0.7, 0.2, 0.4)))}))
    assert table.columns.is_unique and len(table.columns) == len(usual.columns) + (name != "mean")
    row = table.iloc[0]
    assert (row["student"], row["strategy"]) == ("kd", "last") and row["photo"] == pytest.approx(30)
    assert row[columns_of([name])[name]] == row["domain mean"] == pytest.approx(80)
    assert row["mean"] == pytest.approx(np.mean([80] * (1 + (name != "mean")) + [30]))


# ---- ranks


def test_strategies_are_ranked_within_each_run_of_a_student():
    best, ties = dict.fromkeys(RUNS, 0.9), {**LAST, ("neon", 1): 0.64}  # wakd's score on neon, seed 1
    values = {
        ("kd", "last"): LAST,
        ("kd", "wakd"): WAKD,
        ("kd", "sma"): best,
        ("ce", "last"): LAST,
        ("ce", "ema"): ties,
    }
    table = comparison.ranks(long(values)).set_index(["student", "strategy"])
    assert table["rank"].to_dict() == {
        ("kd", "last"): 3,
        ("kd", "wakd"): 2,
        ("kd", "sma"): 1,
        ("ce", "last"): (3 * 1.5 + 2) / 4,
        ("ce", "ema"): (3 * 1.5 + 1) / 4,
    }
    kd = table.loc["kd"].iloc[0]
    expected = rank_methods(np.array([[LAST[r], WAKD[r], best[r]] for r in RUNS]))
    assert (kd["blocks"], kd["p"], kd["difference"]) == (4, expected.p, expected.difference)
    assert table.loc["ce", "difference"].iloc[0] != kd["difference"], "of two strategies, not of three"


def test_what_has_no_score_everywhere_or_is_deployed_has_no_rank():
    values = {("kd", "last"): LAST, ("kd", "wakd"): WAKD, ("kd", "swad"): {**WAKD, RUNS[0]: np.nan}}
    values |= {
        ("kd", "deployed"): WAKD,
        ("alone", "last"): LAST,
        ("once", "last"): {RUNS[0]: 0.5},
        ("once", "wakd"): {RUNS[0]: 0.6},
    }
    table = comparison.ranks(long(values))
    assert set(table["student"]) == {"kd"}, "one strategy, or one run, is nothing to rank"
    assert table.set_index("strategy")["rank"].to_dict() == pytest.approx(
        {"last": 2, "wakd": 1, "swad": np.nan}, nan_ok=True
    )
    empty = comparison.ranks(long({("alone", "last"): LAST}))
    assert not len(empty) and empty.columns.tolist() == table.columns.tolist()


# ---- one target


def test_scores_on_one_target_are_listed_seed_by_seed():
    north = [("north", 0), ("north", 1)]
    target = long({("kd", "last"): dict(zip(north, (0.8, 0.7))), ("kd", "swad"): dict(zip(north, (0.9, np.nan)))})
    source = long(
        {("kd", "last"): dict(zip(north, (0.5, 0.6))), ("kd", "swad"): dict(zip(north, (0.4, np.nan)))}, "source"
    )
    table = comparison.by_seed(pd.concat([target.assign(ece=[0.1, 0.3, 0.2, np.nan]), source])).set_index("strategy")
    last = {"student": "kd", "seed 0": 80, "seed 1": 70, "mean": 75, "sd": 10 / np.sqrt(2), "ECE": 20, "source": 55}
    assert table.loc["last"].to_dict() == pytest.approx(last)
    assert table.loc["swad", "seed 0"] == pytest.approx(90)
    assert table.loc["swad", ["seed 1", "mean", "sd", "ECE", "source"]].isna().all()


# ---- sentences

ROW = {"label": "kd: wakd - last", "mean": 2.5, "low": 0.4, "high": 4.6, "n": 4, "missing": 0, "better": 4}
ROW |= {"targets": 3, "target_low": -10.2, "target_high": 15.2, "p_holm": 0.04, "point_takes": 12.0}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {},
            "kd: wakd - last: +2.5 points [+0.4, +4.6], higher on these domains; better in 4 of 4 target x seed pairs; "
            "over the 3 target means [-10.2, +15.2].",
        ),
        ({"mean": -2, "low": -3, "high": -1}, "-2.0 points [-3.0, -1.0], lower on these domains;"),
        (
            {"p_holm": 0.2},
            "[+0.4, +4.6], suggestive of higher on these domains (p 0.200 with Holm's correction); better",
        ),
        ({"low": -0.1}, "+2.5 points [-0.1, +4.6], not distinguishable from no difference;"),
        ({"low": 0.0}, "not distinguishable"),
        ({"missing": 2}, "pairs; 2 left out for want of a score on both sides; over"),
        ({"targets": 2}, "4 of 4 target x seed pairs."),
        ({"n": 2, "low": np.nan}, "kd: wakd - last: +2.5 points, two pairs only; nothing can be said."),
        ({"low": np.nan}, "kd: wakd - last: +2.5 points in each of 4 pairs; without a spread, nothing can be said."),
        ({"n": 1, "low": np.nan}, "kd: wakd - last: +2.5 points, one pair only; nothing can be said."),
        ({"n": 0, "missing": 4}, "kd: wakd - last: no pair with a score on both sides; nothing can be said."),
    ],
)
def test_a_verdict_says_what_its_numbers_say(change, sentence):
    assert sentence in comparison.verdict(pd.Series({**ROW, **change}))


def test_a_difference_with_one_pair_is_printed_with_dashes():
    table = comparison.paired(long(STUDENT).iloc[[0, 4]], [(("kd", "wakd"), ("kd", "last"))])
    assert comparison.rounded(table).iloc[0].to_dict() == {
        "difference": "kd: wakd - last",
        "mean": "+1.0",
        "95 % t": "–",
        "95 % bootstrap": "–",
        "95 % t, target means": "–",
        "better": "1 of 1",
        "p": "–",
        "p, Holm": "–",
    }


def test_differences_are_printed_with_their_intervals_and_p(scores):
    table = comparison.paired(scores, [(("kd", "wakd"), ("kd", "last"))]).assign(boot_low=-0.04, p=0.0004, p_holm=0.25)
    printed = comparison.rounded(table).iloc[0]
    assert printed["95 % t"] == "[+0.4, +4.6]" and printed["95 % t, target means"] == "–"
    assert (printed["p"], printed["p, Holm"]) == ("<0.001", "0.250")
    assert printed["95 % bootstrap"].startswith("[-0.0, ") and printed["better"] == "4 of 4"


def test_pairs_that_are_left_out_are_said_wherever_a_difference_is(scores):
    runs = [(target, seed) for target in ("a", "b", "c", "d") for seed in range(3)]
    last = {run: 0.6 + 0.01 * i for i, run in enumerate(runs)}
    wakd = {run: np.nan if run[0] == "a" else last[run] + 0.02 + 0.002 * run[1] for run in runs}
    table = comparison.paired(long({("kd", "last"): last, ("kd", "wakd"): wakd}), [(("kd", "wakd"), ("kd", "last"))])
    assert comparison.rounded(table).iloc[0]["better"] == "9 of 9, 3 left out"
    said = comparison.headline(table, {"kd": "wakd"}, "last")
    assert said.startswith("Yes: ") and "over 9 pairs of target and seed; 3 left out for want of a score" in said


def test_the_headline_is_the_difference_that_was_asked_for(scores):
    """By hand: 1, 2, 3 and 4 points have mean 2.5, sd sqrt(5/3) and t(3) = 3.182, so 2.5 -+ 2.05."""
    table = comparison.paired(scores, [(("kd", "wakd"), ("kd", "last"))])
    asked = {"kd": "wakd"}
    assert comparison.headline(table, asked, "last") == (
        "Yes: averaged by wakd, kd is 2.5 points better than last on unseen domains, with a 95 % interval of [+0.4, +4.6] "
        "over 4 pairs of target and seed."
    )
    row = table.iloc[0]
    for said, mean, low, high in (
        ("No, it hurts: averaged by wakd, kd is 2.5 points worse ", -2.5, -4.6, -0.4),
        ("Not measurably: averaged by wakd, kd is 0.5 points better ", 0.5, -0.4, 1.4),
        ("Not measurably: averaged by wakd, kd is 0.5 points worse ", -0.5, -1.4, 0.4),
        ("Nothing can be said: averaged by wakd, kd has 4 pairs", 1.0, np.nan, np.nan),
    ):
        other = pd.DataFrame([{**row, "mean": mean, "low": low, "high": high}])
        sentence = comparison.headline(other, asked, "last")
        assert sentence.startswith(said) and (said[:4] == "Not ") == sentence.endswith(
            "At such a spread it takes 16 pairs to tell one point from none in four of five studies."
        ), sentence
    both = pd.concat([table, table.assign(label=table["label"].str.replace(r"\bkd\b", "ce", regex=True))])
    for asked_of, first in (({"kd": "wakd", "ce": "wakd"}, "kd"), ({"ce": "wakd", "kd": "wakd"}, "ce")):
        sentences = comparison.headline(both, asked_of, "last").split("It seems so: ")[1:]
        assert len(sentences) == 2 and sentences[0].startswith(f"averaged by wakd, {first} is 2.5"), sentences
        p = table["p"].iloc[0]
        assert 0.05 < 2 * p < 0.1 and sentences[0].endswith(f"seed, p {2 * p:.3f} with Holm's correction for 2. ")
        assert comparison.headline(both.assign(p=0.02), asked_of, "last").count("Yes: ") == 2
        worse = both.assign(mean=-2.5, low=-4.6, high=-0.4)
        assert comparison.headline(worse, asked_of, "last").startswith("It seems to hurt: ")
    one = comparison.headline(pd.DataFrame([{**row, "n": 1}]), asked, "last")
    assert one.startswith("Nothing can be said: averaged by wakd, kd has 1 pair of target and seed")
    few = pd.DataFrame([{**row, "n": 2}])
    assert comparison.headline(few, asked, "last").startswith("Nothing can be said: averaged by wakd, kd has 2 pairs")
    assert comparison.headline(table, {}, "last") == comparison.headline(table, {"ce": "wakd"}, "last") == ""


def test_findings_give_a_verdict_on_what_differs_and_list_the_rest(scores):
    rows = [
        {**ROW, "label": "better", "target_low": 0.1, "target_high": 5.0, "p_holm": 0.04},
        {**ROW, "label": "even", "low": -1.0, "p_holm": 0.2},
        {**ROW, "label": "also even", "mean": -1.0, "low": -4.0, "high": 0.0, "p_holm": 0.2, "point_takes": 66.0},
        {**ROW, "label": "same", "low": np.nan, "high": np.nan, "p_holm": np.nan},
        {**ROW, "label": "both", "n": 2, "low": np.nan, "high": np.nan, "p_holm": np.nan},
        {**ROW, "label": "alone", "n": 1, "low": np.nan, "high": np.nan, "p_holm": np.nan},
        {**ROW, "label": "none", "n": 0, "low": np.nan, "high": np.nan, "p_holm": np.nan},
    ]
    found, even, same, both, alone, none, count = comparison.findings(pd.DataFrame(rows))
    assert found == comparison.verdict(pd.Series(rows[0]))
    assert even == (
        "Not distinguishable from no difference: even (+2.5 [-1.0, +4.6]), also even (-1.0 [-4.0, +0.0]). "
        "At such a spread it takes 12 to 66 pairs to tell one point from none in four of five studies."
    )
    assert same == "The same in every pair, so without a spread nothing can be said: same."
    assert both == "Two pairs only, so nothing can be said: both."
    assert (alone, none) == (
        "One pair only, so nothing can be said: alone.",
        "No pair with a score on both sides: none.",
    )
    assert count == (
        "3 differences were looked at; the 95 % intervals are of each one by itself. With Holm's correction for all of them, "
        "1 keeps p < 0.05: better."
    )
    rows[0]["p_holm"] = 0.05
    assert comparison.findings(pd.DataFrame(rows))[-1].endswith("0 keep p < 0.05.")
    rows[0]["p_holm"] = rows[1]["p_holm"] = 0.01
    assert comparison.findings(pd.DataFrame(rows))[-1].endswith("2 keep p < 0.05: better, even.")
    assert comparison.findings(pd.DataFrame(rows[:1])) == [found]


def test_of_many_differences_those_that_hold_are_told_and_the_rest_counted():
    rows = [{**ROW, "label": f"row {i}", "p_holm": 0.3} for i in range(21)]
    rows[3] = {**rows[3], "p_holm": 0.01}
    rows[4] = {**rows[4], "low": -1.0}
    rows += [{**ROW, "label": f"alone {i}", "n": 1, "low": np.nan, "high": np.nan, "p_holm": np.nan} for i in range(30)]
    held, even, alone, more, count = comparison.findings(pd.DataFrame(rows))
    assert held == comparison.verdict(pd.Series(rows[3]))
    assert even == (
        "Not distinguishable from no difference: 1 of them. "
        "At such a spread it takes 12 pairs to tell one point from none in four of five studies."
    )
    assert more.startswith("19 more leave out zero by themselves") and "of 21 looks about 1 would" in more
    assert alone.startswith("One pair only, so nothing can be said: alone 0, "), "and they are no looks"
    assert count.startswith("21 differences") and count.endswith("1 keeps p < 0.05: row 3.")


def test_differences_with_one_pair_are_no_looks():
    one = {**ROW, "n": 1, "low": np.nan, "high": np.nan, "p_holm": np.nan}
    rows = [{**one, "label": f"alone {i}"} for i in range(28)] + [{**ROW, "label": f"row {i}"} for i in range(2)]
    *_, count = comparison.findings(pd.DataFrame(rows))
    assert count.startswith("2 differences were looked at"), "28 others could not have left out zero"
    assert len(comparison.findings(pd.DataFrame(rows[:29]))) == 2, "one verdict, and those that say nothing"


@pytest.mark.parametrize("images", [0, 898])
def test_two_seeds_that_agree_are_no_finding(images):
    """Accuracies on a grid of 1 / images are often equal, and with them differences: two say nothing."""
    seeds = [("ink", 0), ("ink", 1)]
    both = long({("kd", "last"): dict.fromkeys(seeds, 0.5), ("kd", "wakd"): dict.fromkeys(seeds, 0.51)})
    table = comparison.paired(both.assign(**{"n": images} if images else {}), [(("kd", "wakd"), ("kd", "last"))])
    numbers = ["low", "high", "boot_low", "boot_high", "p", "p_holm", "target_low", "target_high"]
    assert table[numbers].isna().all(axis=None)
    assert comparison.findings(table) == ["Two pairs only, so nothing can be said: kd: wakd - last."]


def test_equal_differences_are_as_sure_as_the_grid_of_images_allows():
    three = [("ink", 0), ("ink", 1), ("ink", 2)]
    both = long({("kd", "last"): dict.fromkeys(three, 0.5), ("kd", "wakd"): dict.fromkeys(three, 0.51)})
    contrast = [(("kd", "wakd"), ("kd", "last"))]
    coarse, fine = (comparison.paired(both.assign(n=n), contrast).iloc[0] for n in (100, 10_000))
    assert coarse["low"] < 0 < coarse["high"] and coarse["p"] > 0.05  # one image of a hundred in each
    assert 0 < fine["low"] < 1 < fine["high"] and 0 < fine["p"] < 0.001  # a hundred of ten thousand
    assert "in each of 3 pairs" in comparison.verdict(comparison.paired(both, contrast).iloc[0])


def test_a_large_domain_left_out_beside_a_small_one_lends_it_no_certainty():
    three = [("ink+neon", 0), ("ink+neon", 1), ("ink+neon", 2)]
    same, better = dict.fromkeys(three, 0.5), dict.fromkeys(three, 0.55)  # one image more of twenty
    small = long({("kd", "last"): same, ("kd", "wakd"): better}).assign(domain="ink", n=20)
    large = long({("kd", "last"): same, ("kd", "wakd"): same}).assign(domain="neon", n=2000)
    for scores in (small, pd.concat([small, large], ignore_index=True)):
        (found,) = comparison.paired(scores, [(("kd", "wakd"), ("kd", "last"))]).to_dict("records")
        assert found["low"] < 0 < found["high"] and found["p"] == pytest.approx(0.05, abs=0.002)


# ---- one run

ONE = pd.DataFrame(
    {
        "strategy": ["last", "last", "swad", "swad", "ema", "ema"],
        "domain": ["ink", "west", "ink", "west", "ink", "west"],
        "role": ["source", "target"] * 3,
        "accuracy": [0.9, 0.5, np.nan, np.nan, 0.95, 0.53],
        "n": [40, 100] * 3,
        "note": ["iterate 20"] * 2 + ["swad found no window: too short"] * 2 + ["decay 0.9"] * 2,
    }
)


def test_one_run_has_the_unseen_domain_first_and_a_gap_where_no_window_was_found():
    table = comparison.one_run(ONE)
    assert table.columns.tolist() == ["strategy", "west (unseen)", "ink", "picked"]
    assert table["strategy"].tolist() == ["last", "swad", "ema"]
    assert table["west (unseen)"].tolist() == pytest.approx([50, np.nan, 53], nan_ok=True)
    assert table["picked"].tolist() == ["iterate 20", "swad found no window: too short", "decay 0.9"]


def test_a_run_that_left_no_domain_out_has_its_source_domains():
    table = ONE[ONE["role"] == "source"]
    assert comparison.one_run(table).columns.tolist() == ["strategy", "ink", "picked"]
    assert "unseen" not in comparison.answer(table, "ema") and "on source validation" in comparison.answer(table, "ema")


def test_answers_compare_with_the_baseline_and_name_the_noise():
    with pytest.raises(ValueError, match="Unknown baseline 'lats'"):
        comparison.answers(ONE, baseline="lats")
    swad, ema, noise = comparison.answers(ONE, baseline="last")
    assert swad == "swad found no window: too short"
    assert ema == "ema scores 53.0% on west, +3.0 points against last."
    assert "One run on 100 images" in noise and "about 5.0 points" in noise  # sqrt(.5 * .5 / 100)


def test_what_diverged_is_not_called_without_a_window():
    gone = ONE.assign(accuracy=ONE["accuracy"].mask(ONE["strategy"] == "ema"))
    gone["note"] = gone["note"].replace("decay 0.9", noted("decay 0.9", np.nan))
    assert "ema has no accuracy: decay 0.9: diverged." in comparison.answers(gone, baseline="last")


def test_a_curve_that_was_not_recorded_is_no_window_and_did_not_diverge():
    why = "This run has no 'val_kd_loss' curve; it has ['val_loss']."
    swad, *_ = comparison.answers(ONE.replace({"note": {"swad found no window: too short": why}}), baseline="last")
    assert swad == f"swad found no window: {why}"


def test_a_baseline_without_a_window_is_a_sentence():
    swad, none, last, ema, noise = comparison.answers(ONE.iloc[[2, 3, 0, 1, 4, 5]], baseline="swad")
    assert swad == "swad found no window: too short" and none == "So nothing is compared with swad."
    assert (last, ema) == ("last scores 50.0% on west.", "ema scores 53.0% on west.")
    assert "about 5.0 points" in noise and "nan" not in noise
    nothing = ONE[ONE["strategy"] == "swad"]
    assert comparison.answers(nothing, baseline="swad") == [swad, none]


def test_a_domain_called_strategy_keeps_its_column():
    table = comparison.one_run(ONE.replace({"domain": {"ink": "strategy", "west": "picked"}}))
    assert table.columns.tolist() == ["strategy", "picked (unseen)", "domain strategy", "picked"]


def test_answer_gives_one_average_on_both_sides():
    sentence = comparison.answer(ONE, "ema")
    assert "ema (decay 0.9): 53.0% on the unseen domain west (100 images), 95.0% on source validation" in sentence
    assert comparison.answer(ONE, "swad") == "swad found no window: too short"
    with pytest.raises(ValueError, match=r"Unknown label 'emma'\. Did you mean 'ema'\?"):
        comparison.answer(ONE, "emma")


# ---- recorded runs


@pytest.fixture(scope="module")
def evaluated(bare, split, tmp_path_factory):
    """A teacher and a student below one folder, evaluated; a third run was not, a fourth is not finished."""
    root, curves = tmp_path_factory.mktemp("differences") / "study", wk.load_run(bare).source_curves
    choices = {"last": averaging.last(curves), "wakd": averaging.wakd(curves), "swad": NoWindow("too short")}
    for name in ("student", "teacher", "unevaluated", "later.recording"):
        shutil.copytree(bare, root / name)
    for name in ("student", "teacher"):
        run = wk.load_run(root / name, split=split)
        run.deploy(choices["wakd"])
        wk.evaluate(run, {**choices, "deployed": run.deployed})
    return root


@pytest.fixture
def study(evaluated, tmp_path):
    """The same in a folder of the test's own."""
    return comparison.collect(shutil.copytree(evaluated, tmp_path / "study"))


def test_collect_finds_evaluated_runs_and_their_scores(study):
    assert [run.name for run in study.runs] == ["student", "teacher"] and study.students == ["teacher", "student"]
    table = study.scores
    assert len(table) == 2 * 4 * 4 and set(table["target"]) == {"west"} and set(table["seed"]) == {0}
    own = study.runs[0].scores
    mine = table[table["student"] == "student"]
    assert mine["accuracy"].tolist() == pytest.approx(own["accuracy"].tolist(), nan_ok=True)
    assert study.about() == (
        "2 recorded runs: teacher (resnet10t), student (resnet10t); west left out with 1 seed (0)."
    )


def test_a_begin_that_meets_no_edge_is_said_where_it_is_shown(study):
    said = "they average whole segments within: wakd (begin=0.6, in 2 of 2 runs)"
    assert said in study.selection() and said in study.selection(["last", "wakd"])
    assert "whole segments" not in study.selection(["last"])


def test_picks_are_in_steps_and_what_was_not_found_is_listed(study):
    picks = study.picks().set_index(["student", "strategy"])
    assert picks.loc[("student", "wakd"), ["begin", "end"]].tolist() == [16, 24]
    assert picks.loc[("student", "last"), ["begin", "end"]].tolist() == [23, 24]
    assert picks.loc[("student", "swad"), ["begin", "end"]].isna().all()
    assert "deployed" not in picks.index.get_level_values("strategy")
    missing = study.without_window()
    assert missing["student"].tolist() == ["teacher", "student"] and set(missing["reason"]) == {"too short"}


def test_runs_without_a_window_for_the_same_reason_share_a_row(study):
    more = comparison.Recorded([*study.runs, study.runs[0]])
    shared, one = more.reasons().to_dict("records")
    assert shared == {"student": "teacher", "strategy": "swad", "runs": "all 1", "reason": "too short"}
    assert (one["student"], one["runs"]) == ("student", "all 2")


def test_only_the_runs_and_strategies_asked_for_are_compared(study):
    root = study.runs[0].folder.parent
    some = comparison.collect(root, only=["student"], strategies=["wakd", "last"])
    assert [run.name for run in some.runs] == ["student"]
    assert list(some.choices(some.runs[0])) == ["wakd", "last"] == list(some.picks()["strategy"])
    assert list(some.scores["strategy"].unique()) == ["wakd", "last", "deployed"]
    with pytest.raises(RunProblem, match=r"No evaluated run below .*: unevaluated \(not evaluated\); train some"):
        comparison.collect(root, only=["unevaluated"], strategies=["last"])
    with pytest.raises(RunProblem, match=r"was not evaluated with sma\."):
        comparison.collect(root, only=["student"], strategies=["last", "sma"])


def test_what_is_missing_is_named_and_hides_nothing(study, split):
    root = study.runs[0].folder.parent
    only = ["student", "unevaluated", "x-s0/DKD", "later", "teacher"]
    some = comparison.collect(root, only=only, strategies=["last", "wakd"])
    assert [run.name for run in some.runs] == ["student", "teacher"]
    assert some.about().endswith(
        "Not among them: unevaluated (not evaluated), x-s0/DKD (no finished recording), later (no finished recording)."
    )
    assert some.contrasts("last", "DKD") == some.contrasts("last"), "a reference that is missing is nobody's"
    assert some.pupils.missing == some.missing
    wk.evaluate(some.runs[0], {"sma": averaging.uniform(some.runs[0].source_curves)}, split)
    lost = comparison.collect(root, only=["student", "teacher"], strategies=["last", "sma"])
    assert lost.about().endswith("Not among them: teacher (not evaluated with sma).")
    assert {*lost.picks()["strategy"]} == {"last", "sma"} and list(lost.choices(lost.runs[1])) == ["last"]


def test_recordings_that_were_set_aside_are_no_students_and_links_are_followed(study, tmp_path):
    root = study.runs[0].folder.parent
    shutil.copytree(root / "student", root / "student.before-20261126-101010")
    shutil.copytree(root / "student", root / "x.before-20261126-101010" / "student")
    assert [run.name for run in comparison.collect(root).runs] == ["student", "teacher"]
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "old").symlink_to(root, target_is_directory=True)
    (linked / "old again").symlink_to(root, target_is_directory=True)
    (root / "round").symlink_to(linked, target_is_directory=True)
    assert [run.name for run in comparison.collect(linked).runs] == ["student", "teacher"]
    (tmp_path / "one").symlink_to(root / "student", target_is_directory=True)
    assert len(comparison.collect(tmp_path / "one").runs) == 1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"benchmark": "digits", "fingerprint": "other", "options": {"size": 32}}, "images"),
        ({"classes": ["a", "b"]}, "classes"),
        ({"validation": 0.5}, "shares held out"),
    ],
    ids=["benchmark", "classes", "validation"],
)
def test_runs_of_different_benchmarks_are_never_pooled(study, changes, what):
    folder = study.runs[0].folder
    settings = json.loads((folder / "settings.json").read_text())
    settings["split"] |= changes
    (folder / "settings.json").write_text(json.dumps(settings))
    for only in ([], ["teacher", "student"]):
        with pytest.raises(RunProblem, match=f"Runs on different {what} are not compared: .*student is of .*teacher is of|"
                           f"Runs on different {what} are not compared: .*teacher is of .*student is of"):  # fmt: skip
            comparison.collect(folder.parent, only=only)


def test_runs_of_one_name_that_were_not_trained_alike_are_told(study):
    root = study.runs[0].folder.parent
    other = shutil.copytree(root / "student", root / "more" / "student")
    settings = json.loads((other / "settings.json").read_text())
    settings["split"]["seed"], settings["learning_rate"], settings["student"]["name"] = 1, 0.5, "resnet18_w24"
    (other / "settings.json").write_text(json.dumps(settings))
    said = comparison.collect(root).about()
    assert "student (resnet18_w24, resnet10t)" in said or "student (resnet10t, resnet18_w24)" in said
    assert "Runs called student were not trained alike: model " in said and "learning rate " in said
    assert "0.5 (in 1)" in said and "0.03 (in 1)" in said and "called teacher" not in said


def test_a_strategy_called_deployed_is_compared(study):
    pupil = study.runs[0]
    (pupil.folder / "deployed.json").unlink()  # it deployed nothing: somebody called a strategy so
    both = comparison.collect(pupil.folder.parent)
    assert (("student", "deployed"), ("student", "last")) in both.contrasts("last")
    assert (("teacher", "deployed"), ("teacher", "last")) not in both.contrasts("last")
    assert "deployed" in set(both.picks().query("student == 'student'")["strategy"])
    assert "deployed" not in set(both.picks().query("student == 'teacher'")["strategy"])
    asked = comparison.collect(pupil.folder.parent, strategies=["last", "deployed"])
    assert {*asked.choices(asked.runs[1])} == {"last", "deployed"}
    values = {
        ("kd", s): dict(zip(RUNS, a)) for s, a in (("last", (0.5, 0.6, 0.5, 0.6)), ("deployed", (0.6, 0.7, 0.6, 0.7)))
    }
    assert {*comparison.ranks(long(values).assign(deployed=False))["strategy"]} == {"last", "deployed"}


def test_contrasts_are_within_students_and_never_with_what_a_teacher_deploys(study):
    contrasts = study.contrasts("last")
    assert contrasts == [((n, s), (n, "last")) for n in ("teacher", "student") for s in ("wakd", "swad")]
    gains = comparison.paired(study.scores, contrasts)
    assert gains["n"].tolist() == [1, 0, 1, 0]
    assert all("nothing can be said" in sentence for sentence in gains.apply(comparison.verdict, axis=1))


@pytest.mark.parametrize(
    ("reference", "between"),
    [
        ("A", [("B", "A"), ("B kd", "A"), ("A kd", "A")]),
        ({"A kd": "A", "B kd": "B"}, [("B kd", "B"), ("A kd", "A")]),
        ("", [("B", "A"), ("B kd", "A"), ("A kd", "A"), ("B kd", "B"), ("A kd", "B"), ("A kd", "B kd")]),
        ({"A kd": "a"}, "Unknown reference student 'a'. Known: A, A kd, B, B kd."),
    ],
)
def test_students_are_compared_with_one_reference_with_their_own_or_with_each_other(reference, between):
    recorded = SimpleNamespace(
        students=["teacher", "A", "B", "B kd", "A kd"], shown=lambda baseline: [baseline], _strategies=dict, missing=()
    )
    if isinstance(between, str):
        with pytest.raises(RunProblem, match=re.escape(between)):
            comparison.Recorded.contrasts(recorded, "last", reference)
    else:
        expected = [((one, "last"), (other, "last")) for one, other in between]
        assert comparison.Recorded.contrasts(recorded, "last", reference) == expected


def test_every_caption_says_what_chose_each_model(study):
    captions = study.captions("last")
    assert captions.keys() == {
        "summary",
        "gains",
        "published",
        "calibration",
        "agreement",
        "churn",
        "domainbed",
        "groups",
        "parts",
        "rules",
    }
    for name, caption in captions.items():
        shown = ["last", "wakd"] if name in ("calibration", "agreement", "churn", "parts") else ()
        assert caption.endswith(f" {study.selection(shown)}") and "Nothing was chosen on the target." in caption
    assert "deployed" in captions["summary"] and "deployed" not in captions["churn"], "only what the table shows"
    assert "over 1 seed;" in captions["summary"]


def test_selection_names_every_strategy_once_with_what_decided(copied):
    chosen = wk.choose(copied, ["last", {"name": "wakd", "label": "WAKD"}, {"name": "sma", "start": 0.1}])
    wk.evaluate(copied, {**chosen, "given": averaging.Coefficients(chosen["last"])})
    sentence, moved = comparison.Recorded([copied]).selection().split(" No segment has an edge")
    assert moved.endswith("WAKD (begin=0.6, in 1 of 1 runs).")
    for label, choice in chosen.items():
        assert sentence.count(label) == 1 and choice.chosen_by in sentence
    assert f"up to {chosen['sma'].evaluations} of them" in sentence and "given (not recorded)" in sentence


def test_what_is_shown_beyond_accuracy_is_the_baseline_and_the_first_average(study):
    assert study.shown("last") == ["last", "wakd"]
    only = comparison.Recorded(study.runs, ("last", "swad"))
    assert only.shown("last") == ["last"], "swad found no window"


def test_tables_are_saved_as_csv(study, tmp_path):
    gains = comparison.paired(study.scores, study.contrasts("last"))
    study.save(tmp_path / "tables", gains=gains, churn=gains)
    study.save(tmp_path / "tables", gains=gains, churn=gains.iloc[:0])
    assert sorted(f.name for f in (tmp_path / "tables").iterdir()) == ["gains.csv", "picks.csv", "scores.csv"]
    assert len(pd.read_csv(tmp_path / "tables" / "scores.csv")) == len(study.scores)
    assert "pairs" not in pd.read_csv(tmp_path / "tables" / "gains.csv")


def test_a_folder_without_evaluated_runs_says_what_to_do(tmp_path):
    with pytest.raises(RunProblem, match=r"No evaluated run below .*evaluate\(run, \.\.\.\)"):
        comparison.collect(tmp_path)


def test_a_run_of_another_format_is_not_collected_in_silence(study):
    file = study.runs[0].folder / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(RunProblem, match="format 99"):
        comparison.collect(study.runs[0].folder.parent)


def test_only_a_search_has_folders_of_sources_left_out(tmp_path):
    for place in ("ink-s0/KD-s2-without-aug", "search/ink-s100/KD-d0", "search/ink-s100-without-neon/KD-d0"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "settings.json").write_text("{}")
    found = [place.relative_to(tmp_path).as_posix() for place in run_folders(tmp_path)]
    assert found == ["ink-s0/KD-s2-without-aug", "search/ink-s100/KD-d0"]


def test_draws_of_a_search_are_no_students(study):
    folder = study.runs[0].folder.parent
    shutil.copytree(study.runs[0].folder, folder / "search" / "ink-s100" / "KD-d0")
    assert comparison.collect(folder).students == study.students
    assert comparison.collect(folder / "search").students == ["KD-d0"]

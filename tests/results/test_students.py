"""Does averaging help every student alike: by hand, against a least-squares fit, and on students that gain alike by design."""

import json

import numpy as np
import pandas as pd
import pytest

from wakd_kit.objectives import objectives
from wakd_kit.plots import gains as gain_figures
from wakd_kit.results import differences as comparison
from wakd_kit.results import students as alike

RUNS = [("ink", 0), ("ink", 1), ("neon", 0), ("neon", 1)]
BEFORE = np.array([0.80, 0.70, 0.50, 0.60])
LABELS = {"baseline": "last", "average": "WAKD"}


def long(gains: dict) -> pd.DataFrame:
    """{student: gain in points per run} over ``BEFORE``; on source validation the gain is half of it, in two domains."""
    rows = []
    for student, gain in gains.items():
        for (target, seed), base, points in zip(RUNS, BEFORE, np.broadcast_to(gain, len(RUNS))):
            shared = {"student": student, "target": target, "seed": seed}
            for strategy, more in (("last", 0), ("WAKD", points / 100)):
                rows.append(
                    shared | {"strategy": strategy, "role": "target", "domain": target, "accuracy": base + more}
                )
                for domain, level in (("photo", 0.9), ("cartoon", 0.7)):
                    rows.append(
                        shared
                        | {"strategy": strategy, "role": "source", "domain": domain, "accuracy": level + more / 2}
                    )
    return pd.DataFrame(rows)


def test_before_and_after_by_hand():
    table = alike.before_after(long({"KD": [1, 2, 3, 4], "CE": [2, 2, 2, 2]}), **LABELS).set_index("student")
    assert table.index.tolist() == ["KD", "CE"]  # the higher average first
    row = table.loc["KD"]
    assert row[["before", "after", "gain", "source_gain", "n"]].tolist() == pytest.approx([65, 67.5, 2.5, 1.25, 4])
    half = 3.182446 * np.sqrt(5 / 3) / 2  # t at 3 degrees of freedom, sd of 1..4, root of n
    assert row[["low", "high"]].tolist() == pytest.approx([2.5 - half, 2.5 + half])
    assert row[["source_low", "source_high"]].tolist() == pytest.approx([1.25 - half / 2, 1.25 + half / 2])
    assert row["sd"] == pytest.approx(np.sqrt(5 / 3)) and table.loc["CE", "sd"] == pytest.approx(0)


def test_a_run_without_a_window_is_left_out_on_both_sides():
    scores = long({"KD": [1, 2, 3, 40]})
    last_run = (scores["target"] == "neon") & (scores["seed"] == 1) & (scores["strategy"] == "WAKD")
    scores.loc[last_run, "accuracy"] = np.nan
    row = alike.before_after(scores, **LABELS).iloc[0]
    assert (row["n"], row["missing"], row["gain"], row["before"]) == (3, 1, pytest.approx(2), pytest.approx(200 / 3))
    two = pd.concat([scores, long({"CE": -5})])  # lower, and on all runs: means over other runs are not ranked with it
    assert alike.before_after(two, **LABELS)["student"].tolist() == ["CE", "KD"]


def test_of_domains_left_out_at_once_one_that_diverged_leaves_no_gain():
    scores = long({"KD": [1, 2, 3, 4]})
    second = scores[scores["role"] == "target"].assign(domain="photo")
    second["accuracy"] = second["accuracy"].mask(
        (second["strategy"] == "WAKD") & (second["target"] == "neon") & (second["seed"] == 1)
    )
    row = alike.before_after(pd.concat([scores, second]), **LABELS).iloc[0]
    assert (row["n"], row["missing"], row["gain"]) == (3, 1, pytest.approx(2))


def test_two_runs_of_one_student_target_and_seed_are_refused():
    scores = long({"KD": 1})
    with pytest.raises(ValueError, match="Two scores of student KD, strategy last, target ink, seed 0"):
        alike.before_after(pd.concat([scores, scores]), **LABELS)


def test_p_values_are_corrected_for_all_students():
    table = alike.before_after(long({"a": [1, 2, 3, 4], "b": [1, 1, 2, 1], "c": [-1, 1, 2, 0]}), **LABELS)
    assert table["p_holm"].min() == pytest.approx(3 * table["p"].min()) and (table["p_holm"] >= table["p"]).all()


def test_a_student_without_any_window_has_a_row_of_dashes_and_is_named():
    scores = long({"KD": [1, 2, 3, 4], "CE": 1})
    scores.loc[(scores["student"] == "CE") & (scores["strategy"] == "WAKD"), "accuracy"] = np.nan
    table = alike.before_after(scores, **LABELS)
    assert (
        table["student"].tolist() == ["KD", "CE"]
        and table["n"].tolist() == [4, 0]
        and table["missing"].tolist() == [0, 4]
    )
    assert set(alike.printed(table).iloc[1, 1:-1]) == {"–"}
    said = alike.findings(table, alike.spread(scores, **LABELS), **LABELS)
    assert "for 1 of 1 students" in said[0] and said[1] == "Without a score on both sides: CE."
    assert [t.get_text() for t in gain_figures.before_after(table, **LABELS)[0].axes[0].get_yticklabels()] == ["KD"]
    nobody = alike.before_after(scores[scores["student"] == "CE"], **LABELS)
    assert alike.findings(nobody, alike.spread(scores, **LABELS), **LABELS) == [
        "No student has a score at last and at WAKD."
    ]


def test_a_label_that_was_not_evaluated_is_named():
    with pytest.raises(ValueError, match="No scores of SWAD; there are last, WAKD"):
        alike.before_after(long({"KD": 1}), baseline="last", average="SWAD")


def test_spread_is_the_analysis_of_variance_of_a_least_squares_fit():
    gains = {name: np.random.default_rng(i).normal(3 * i, 1.5, 4) for i, name in enumerate("abc")}
    found = alike.spread(long(gains), **LABELS)
    y = np.array([gains[name] for name in "abc"]).ravel()
    student, block = np.repeat(np.eye(3), 4, axis=0), np.tile(np.eye(4), (3, 1))

    def residual(design):
        return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]

    full, without = (residual(d) @ residual(d) for d in (np.hstack([block, student]), block))
    f = ((without - full) / 2) / (full / 6)
    from scipy.stats import f as distribution

    assert found.p == pytest.approx(distribution.sf(f, 2, 6))
    means = [gains[name].mean() for name in "abc"]
    assert found.observed == pytest.approx(np.std(means, ddof=1))
    assert found.noise == pytest.approx(np.sqrt(full / 6 / 4))
    assert found.between == pytest.approx(np.sqrt(found.observed**2 - found.noise**2))
    assert (found.students, found.blocks) == (3, 4)


def test_students_that_gain_alike_but_for_noise_are_rarely_called_different():
    rng, p = np.random.default_rng(0), []
    for _ in range(300):
        shared = rng.normal(2, 3, 4)  # a target that gains more gains more for all
        p.append(alike.spread(long({name: shared + rng.normal(0, 1, 4) for name in "abcde"}), **LABELS).p)
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09  # 0.05, give or take 3 standard errors


def test_two_blocks_or_gains_that_agree_on_a_grid_are_no_certainty():
    scores = long({"KD": [1, 2, 3, 4], "CE": [2, 3, 4, 5]})
    two = alike.spread(scores[scores["target"] == "ink"], **LABELS)
    assert (two.students, two.blocks) == (2, 2) and np.isnan([two.p, two.p_ranks, two.noise]).all()
    assert np.isnan(alike.spread(scores, **LABELS).p), (
        "students that differ by the same in every block have no residual"
    )
    on_grid = alike.spread(scores.assign(n=100), **LABELS)  # but the grid has one: they may have been rounded to it
    assert on_grid.noise == pytest.approx(np.sqrt(1 / 6 / 4)) and 0.01 < on_grid.p < 0.2 and on_grid.p_ranks == 1 / 8


def test_two_pairs_have_no_interval():
    scores = long({"KD": [1, 1, 3, 4]})
    row = alike.before_after(scores[scores["target"] == "ink"].assign(n=50), **LABELS).iloc[0]
    assert row["n"] == 2 and row[["low", "high", "source_low", "source_high", "p", "p_holm"]].isna().all()


def test_nothing_is_said_of_one_student():
    scores = long({"KD": [1, 2, 3, 4]})
    apart = alike.spread(scores, **LABELS)
    assert (apart.students, apart.blocks) == (1, 4) and np.isnan([apart.observed, apart.noise, apart.p]).all()
    said = alike.findings(alike.before_after(scores, **LABELS), apart, **LABELS)
    assert said[-1] == "Whether students gain alike cannot be said of 1 with both scores on 4 targets x seeds."


def test_against_is_paired_with_the_reference_and_leaves_the_teacher_out():
    table = alike.against(long({"teacher": 9, "KD": 1, "CE": [2, 3, 4, 5]}), "KD", "WAKD")
    assert table["label"].tolist() == ["CE WAKD - KD WAKD"]
    assert table["pairs"].iloc[0] == pytest.approx([1, 2, 3, 4])


def test_students_are_ranked_at_each_strategy():
    scores = long({"KD": [1, 1, 1, 1], "CE": [0, 0, 0, 0]})
    ranks = comparison.ranks(alike.between_students(scores)).set_index(["student", "strategy"])["rank"]
    assert ranks["WAKD", "KD"] == 1 and ranks["WAKD", "CE"] == 2
    assert ranks["last", "KD"] == ranks["last", "CE"] == 1.5  # the same before averaging


def test_sentences_say_who_gained_and_whether_alike():
    scores = long({"KD": [1, 1.1, 0.9, 1], "CE": [4, 4.1, 3.9, 4.1], "AT": [-1, 1, -1.2, 1]})
    scores.loc[scores["student"] == "CE", "accuracy"] -= 0.02
    scores.loc[scores["student"] == "AT", "accuracy"] += 0.01
    table = alike.before_after(scores, **LABELS)
    first, second, third = alike.findings(table, alike.spread(scores, **LABELS), **LABELS)
    assert (
        first.startswith("WAKD against last on unseen domains: higher for 2 of 3 students") and "lower for 0" in first
    )
    assert "2 of them keep p < 0.05 with Holm's correction" in first
    assert "(CE, n = 4)" in first and "(AT, n = 4)" in first
    assert second.startswith("Students do not gain alike") and "3 students on 4 targets x seeds" in second
    assert "Best before: AT; best after: CE" in third  # 66, 65, 63 before and 66, 66, 67 after
    assert "rank correlation of -1.00; the order" in third and "averaging one of -1.00" in third
    same = long({"KD": [1, 2, 3, 4], "CE": [4, 3, 2, 1]})
    assert "cannot be shown to gain differently" in " ".join(
        alike.findings(alike.before_after(same, **LABELS), alike.spread(same, **LABELS), **LABELS)
    )


def test_one_pair_is_counted_apart():
    scores = long({"KD": [1, 2, 3, 4], "CE": 1})
    scores.loc[(scores["student"] == "CE") & (scores["strategy"] == "WAKD") & (scores["seed"] == 1), "accuracy"] = (
        np.nan
    )
    scores.loc[
        (scores["student"] == "CE") & (scores["target"] == "ink") & (scores["strategy"] == "WAKD"), "accuracy"
    ] = np.nan
    said = alike.findings(alike.before_after(scores, **LABELS), alike.spread(scores, **LABELS), **LABELS)[0]
    assert "for 1 of 1 students" in said and "Of 1 student with fewer than 3 pairs nothing can be said." in said


def test_objectives_are_told_with_what_is_not_their_default():
    spec = {"name": "kd", "weight": 0.5, "temperature": 2.0, "kind": "forward"}
    assert alike.term(spec) == "0.5 kd (temperature 2.0)"
    as_recorded = json.loads(json.dumps({"name": "ofa", "weight": 1.0, **wk_defaults("ofa")}))  # lists, not tuples
    assert alike.term(as_recorded) == "1 ofa (temperature 1.0)"
    assert alike.term({"name": "ctkd", "weight": 1.0, **wk_defaults("ctkd")}).startswith(
        "1 ctkd (scheduled as published)"
    )


def wk_defaults(name: str) -> dict:
    about = objectives.about(name)
    return {**about.built_with, **about.called_with, "schedule": about.schedule}


def test_figures_draw_every_student_before_and_after():
    table = alike.before_after(long({"KD": [1, 2, 3, 4], "CE": 2}), **LABELS)
    figure, alt = gain_figures.before_after(table, **LABELS)
    level, gain = figure.axes
    drawn = {line.get_label(): line for line in level.lines}
    assert drawn["last"].get_xdata() == pytest.approx([65, 65]) and drawn["WAKD"].get_xdata() == pytest.approx(
        [67.5, 67]
    )
    assert [text.get_text() for text in level.get_yticklabels()] == ["KD", "CE"]
    assert gain.lines[0].get_xdata() == pytest.approx([2.5, 2])
    assert "KD 65.0 to 67.5 (+2.5 [" in alt and "CE 65.0 to 67.0" in alt
    figure, alt = gain_figures.gain_by_level(table, **LABELS)
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([66.25, 66])
    assert [text.get_text() for text in figure.axes[0].texts] == ["KD", "CE"] and "KD +2.5 at 66.2" in alt


def test_a_table_is_printed_with_dashes_where_there_is_no_interval():
    scores = long({"KD": [1, 2, 3, 4]})
    one = scores[(scores["target"] == "ink") & (scores["seed"] == 0)]
    printed = alike.printed(alike.before_after(one, **LABELS)).iloc[0]
    assert printed["95 % t"] == printed["sd of pairs"] == "–" and printed["gain, points"] == "+1.0"


def test_an_objective_that_nobody_declared_here_is_told_as_it_was_recorded():
    assert alike.term({"name": "of_somebody", "weight": 2.0, "power": 3}) == "2 of_somebody (power 3)"

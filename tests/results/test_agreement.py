"""Calibration, agreement and churn by hand and by plain loops; sources and the unseen domain never share a number."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import wakd_kit as wk
from wakd_kit import averaging
from wakd_kit.averaging import NoWindow
from wakd_kit.evaluation import scores as evaluation
from wakd_kit.evaluation.predictions import Predicted
from wakd_kit.results import agreement
from wakd_kit.results import differences as comparison
from wakd_kit.results.agreement import Found
from wakd_kit.results.collect import DEPLOYED
from wakd_kit.runs.store import RunProblem


def some(classes, labels=(0, 1, 2, 3), role="target", confidence=None) -> Predicted:
    n = len(labels)
    return Predicted(role, np.array(labels), np.array(classes), np.array(confidence or [0.5] * n))


def found(name, by_strategy, deployed=None, *, target="ink", seed=0, fingerprint="f", validation=0.2) -> Found:
    split = {"target": target, "seed": seed, "fingerprint": fingerprint, "validation": validation}
    run = SimpleNamespace(name=name, settings={"split": split}, folder=Path(f"runs/{name}-s{seed}"))
    return Found(run, by_strategy, deployed)


TEACHER = {"ink": some([0, 1, 2, 0]), "neon": some([0, 1, 2, 3], role="source")}


# ---- reliability


def slow_reliability(confidence, correct, bins):
    rows = []
    for b in range(bins):
        inside = [i for i, c in enumerate(confidence) if b / bins < c <= (b + 1) / bins]
        if inside:
            rows.append((len(inside), np.mean([confidence[i] for i in inside]), np.mean([correct[i] for i in inside])))
    return rows


def test_reliability_pools_the_images_of_all_runs_and_keeps_roles_apart():
    rng = np.random.default_rng(0)

    def random(role):
        n = 300
        return Predicted(
            role, rng.integers(0, 3, n), rng.integers(0, 3, n), rng.uniform(1 / 3, 1, n).astype(np.float32)
        )

    runs = [found("KD", {"last": {"ink": random("target"), "neon": random("source")}}, seed=s) for s in range(2)]
    table = agreement.reliability(runs)
    for role, domain in (("target", "ink"), ("source", "neon")):
        parts = [one.by_strategy["last"][domain] for one in runs]
        confidence, correct = (np.concatenate([getattr(p, n) for p in parts]) for n in ("confidence", "correct"))
        rows = table[table["role"] == role]
        assert rows["n"].sum() == 600
        expected = slow_reliability(confidence, correct, 15)
        np.testing.assert_allclose(rows[["n", "confidence", "accuracy"]], expected, rtol=1e-6)
        assert ((rows["low"] < rows["confidence"]) & (rows["confidence"] <= rows["high"] + 1e-7)).all()


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin_and_certainty_to_the_last():
    sure = some([0, 1, 2, 3], confidence=[0.5, 0.5, 1.0, 0.75])
    table = agreement.reliability([found("KD", {"last": {"ink": sure}})], bins=4)
    assert table[["low", "high", "n"]].to_numpy().tolist() == [[0.25, 0.5, 2], [0.5, 0.75, 1], [0.75, 1.0, 1]]


def test_the_calibration_error_of_a_diagram_is_that_of_evaluate(copied):
    wk.evaluate(copied, {"all": averaging.uniform(copied.source_curves)})
    study = comparison.Recorded([copied])
    table = agreement.reliability(agreement.predictions(study, ["all"]))
    unseen = table[table["role"] == "target"]
    error = ((unseen["confidence"] - unseen["accuracy"]).abs() * unseen["n"]).sum() / unseen["n"].sum()
    scores = copied.scores
    assert error == pytest.approx(scores.loc[scores["role"] == "target", "ece"].item(), abs=1e-6)


# ---- agreement with the teacher


def test_agreement_is_the_share_of_images_with_the_class_of_the_deployed_teacher():
    student = {"last": {"ink": some([0, 1, 0, 0]), "neon": some([1, 1, 1, 1], role="source")}}
    runs = [found("teacher", {"last": TEACHER}, TEACHER), found("KD", student)]
    table = agreement.agreement(runs).set_index("domain")
    assert table["agreement"].to_dict() == {"ink": 0.75, "neon": 0.25}
    assert table["role"].to_dict() == {"ink": "target", "neon": "source"} and set(table["n"]) == {4}
    assert set(table["student"]) == {"KD"}, "a teacher is not compared with itself"
    runs[0] = found("teacher", {}, {"ink": TEACHER["ink"]})  # one that was trained without neon
    assert agreement.agreement(runs)["domain"].tolist() == ["ink"]


def test_what_diverged_predicts_no_class_and_agrees_with_nothing():
    gone = {"ink": some([-1] * 4, confidence=[np.nan] * 4)}
    runs = [found("teacher", {}, gone), found("KD", {"last": gone}), found("KD", {"last": TEACHER}, seed=1)]
    assert agreement.agreement(runs)["agreement"].isna().all()
    assert agreement.churn([*runs[1:], found("KD", {"last": gone}, seed=2)])["churn"].isna().all()
    assert not len(agreement.reliability(runs[1:2]))


def test_a_student_is_compared_with_the_teacher_of_its_own_target_and_seed():
    other = {"ink": some([3, 3, 3, 3]), "neon": some([3, 3, 3, 3], role="source")}
    student = {"last": {"ink": some([0, 1, 2, 0]), "neon": some([0, 1, 2, 3], role="source")}}
    runs = [
        found("teacher", {}, other, seed=1),
        found("KD", student),
        found("teacher", {}, TEACHER),
        found("KD", student, target="photo"),
    ]
    table = agreement.agreement(runs)
    assert table[["target", "seed"]].drop_duplicates().to_numpy().tolist() == [["ink", 0]]
    assert table["agreement"].tolist() == [1, 1]


def test_without_a_teacher_there_is_an_empty_table_with_its_columns():
    table = agreement.agreement([found("KD", {"last": TEACHER})])
    assert not len(table) and "agreement" in table
    assert not len(agreement.printed(table, "agreement"))


@pytest.mark.parametrize(
    ("change", "what"), [({"fingerprint": "g"}, "other images"), ({"validation": 0.5}, "validation")]
)
def test_predictions_on_other_images_are_refused(change, what):
    with pytest.raises(RunProblem, match=rf"runs/teacher-s0 has {what}.* than runs/KD-s0; compare such runs apart"):
        agreement.agreement([found("teacher", {}, TEACHER, **change), found("KD", {"last": TEACHER})])


# ---- churn between seeds


def test_churn_is_the_share_of_images_that_two_seeds_decide_differently():
    seeds = ([0, 1, 2, 3], [0, 1, 2, 0], [1, 1, 3, 0])
    runs = [
        found("KD", {"last": {"ink": some(c), "neon": some([s] * 4, role="source")}}, seed=s)
        for s, c in enumerate(seeds)
    ]
    table = agreement.churn(runs).set_index("seed")
    assert table["churn"].to_dict() == {"0 and 1": 0.25, "0 and 2": 0.75, "1 and 2": 0.5}
    assert set(table["role"]) == {"target"}, "seeds validate on different source images"


def test_churn_is_within_one_student_one_target_and_one_strategy():
    runs = [
        found("KD", {"last": {"ink": some([0] * 4)}}),
        found("KD", {"last": {"photo": some([1] * 4)}}, target="photo", seed=1),
        found("CE", {"last": {"ink": some([1] * 4)}}, seed=1),
        found("KD", {"wakd": {"ink": some([1] * 4)}}, seed=1),
    ]
    assert not len(agreement.churn(runs))
    with pytest.raises(RunProblem, match="other images"):
        agreement.churn([runs[0], found("KD", {}, seed=1, fingerprint="g")])


# ---- of recorded runs


@pytest.fixture
def study(copied):
    curves = copied.source_curves
    chosen = {"last": averaging.last(curves), "all": averaging.uniform(curves), "none": NoWindow("too short")}
    wk.evaluate(copied, chosen)
    return comparison.Recorded([copied])


def test_predictions_are_read_and_not_made_again(study, monkeypatch):
    monkeypatch.setattr(evaluation, "predict", lambda *_: pytest.fail("evaluated again"))
    (one,) = agreement.predictions(study, ["all", "none"])
    assert list(one.by_strategy) == ["all"] and one.deployed is None and (one.target, one.seed) == ("west", 0)


def test_what_is_not_kept_is_evaluated_once_and_equals_what_was_kept(study, monkeypatch):
    (before,) = agreement.predictions(study, ["last", "all"])
    (study.runs[0].folder / "predictions.npz").unlink()
    (again,) = agreement.predictions(study, ["last", "all"])
    for strategy, by_domain in before.by_strategy.items():
        for domain, p in by_domain.items():
            other = again.by_strategy[strategy][domain]
            # where two classes tie, the last bit decides
            assert (p.classes != other.classes).sum() <= 1 and p.role == other.role
            np.testing.assert_allclose(p.confidence, other.confidence, rtol=1e-5)
    monkeypatch.setattr(evaluation, "predict", lambda *_: pytest.fail("evaluated again"))
    agreement.predictions(study, ["last", "all"])


def test_a_teacher_comes_with_what_it_deploys_and_agrees_with_itself_as_a_student(study):
    run = study.runs[0]
    run.deploy(averaging.uniform(run.source_curves))
    wk.evaluate(run, {DEPLOYED: run.deployed})
    teacher = wk.load_run(run.folder.rename(run.folder.with_name("teacher")), split=run.split)
    (one,) = agreement.predictions(comparison.Recorded([teacher]), ["last"])
    assert list(one.by_strategy) == ["last"] and list(one.deployed) == ["north", "east", "south", "west"]
    (same,) = agreement.predictions(comparison.Recorded([teacher]), ["all"])
    pupil = Found(SimpleNamespace(name="KD", settings=run.settings), same.by_strategy)
    assert (agreement.agreement([one, pupil])["agreement"] == 1).all()


# ---- for reading


def test_printed_is_a_column_per_target_in_per_cent_and_source_apart():
    rows = [
        ("ink", 0, "ink", "target", 0.8),
        ("ink", 1, "ink", "target", 0.6),
        ("neon", 0, "neon", "target", 0.5),
        ("neon", 1, "neon", "target", 0.5),
        ("ink", 0, "neon", "source", 0.9),
        ("neon", 0, "ink", "source", 1.0),
    ]
    long = pd.DataFrame(rows, columns=["target", "seed", "domain", "role", "agreement"])
    alone = long[long["role"] == "target"].assign(student="of other sources", strategy="last")
    both = agreement.printed(pd.concat([long.assign(student="KD", strategy="last"), alone]), "agreement")
    assert both.set_index("student")["source"].isna().tolist() == [False, True]
    (row,) = agreement.printed(long.assign(student="KD", strategy="last"), "agreement").to_dict("records")
    assert row == pytest.approx(
        {
            "student": "KD",
            "strategy": "last",
            "ink": 70,
            "neon": 50,
            "mean": 60,
            "sd": 10 / np.sqrt(2),
            "n": 4,
            "source": 95,
        }
    )


def test_source_is_a_dash_where_a_run_has_none():
    rows = [("ink", s, d, r, a) for s, a in ((0, 0.5), (1, np.nan)) for d, r in (("ink", "target"), ("neon", "source"))]
    long = pd.DataFrame(rows, columns=["target", "seed", "domain", "role", "agreement"])
    (row,) = agreement.printed(long.assign(student="KD", strategy="last"), "agreement").to_dict("records")
    assert np.isnan(row["mean"]) and np.isnan(row["source"])


def test_a_domain_called_source_keeps_its_number():
    rows = [("source", "source", "target", 0.9), ("other", "other", "target", 0.5)]
    rows += [("source", "other", "source", 0.1), ("other", "source", "source", 0.3)]
    long = pd.DataFrame(rows, columns=["target", "domain", "role", "agreement"])
    (row,) = agreement.printed(long.assign(student="KD", strategy="last", seed=0), "agreement").to_dict("records")
    assert (row["domain source"], row["other"], row["mean"]) == pytest.approx((90, 50, 70))
    assert row["source"] == pytest.approx(20), "of source validation parts"


def test_findings_are_paired_and_say_before_and_after():
    rows = [
        (student, strategy, target, seed, role, 0.8, error - 0.01 * seed - 0.02 * (target == "neon"))
        for student in ("CE", "KD")
        for strategy, error in (("last", 0.2), ("WAKD", 0.1 + 0.02 * (student == "KD")))
        for target in ("ink", "neon")
        for seed in (0, 1)
        for role in ("target", "source")
    ]
    scores = pd.DataFrame(rows, columns=["student", "strategy", "target", "seed", "role", "accuracy", "ece"])
    scores.loc[(scores["student"] == "CE") & (scores["strategy"] == "WAKD") & (scores["seed"] == 0), "ece"] += 0.02
    study = SimpleNamespace(scores=scores.assign(n=1000), students=["CE", "KD"])
    agreed = pd.DataFrame({"student": ["KD", "KD"], "strategy": ["last", "WAKD"], "mean": [70.0, 75.25]})
    said = agreement.findings(study, ["last", "WAKD"], agreed, agreed.iloc[:0])
    assert said[0] == "Points of calibration error that WAKD takes away on unseen domains, compared with last:"
    assert said[1].startswith("CE: WAKD - last: +9.0 points [") and "better calibrated on these domains" in said[1]
    assert any("KD: WAKD - last" in one and "8.0 points" in one for one in said)
    assert said[-1] == "KD decides as its teacher on 70.0 % of the images of unseen domains at last, on 75.2 % at WAKD."
    agreed.loc[1, "mean"] = np.nan  # no window in a run
    assert agreement.findings(study, ["last", "WAKD"], agreed, agreed.iloc[:0])[-1] == (
        "Whether KD decides as its teacher more or less often after averaging cannot be said of all runs."
    )
    assert "no before and after" in agreement.findings(study, ["last"], agreed, agreed)[0]

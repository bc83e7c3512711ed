"""Scores by hand, and every fast path against the plain one: averaging, building the model, evaluating it."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import wakd_kit as wk
from wakd_kit import averaging
from wakd_kit.averaging import Coefficients, NoWindow
from wakd_kit.data.augment import to_float
from wakd_kit.data.domains import Examples
from wakd_kit.evaluation import scores as evaluation
from wakd_kit.evaluation import sweep
from wakd_kit.evaluation.predictions import kept, predicted
from wakd_kit.evaluation.scores import score_choices, source_score
from wakd_kit.explorer.answers import Board
from wakd_kit.models.build import build_model, recalibrate, training_mode
from wakd_kit.objectives import combine, kd
from wakd_kit.runs import network
from wakd_kit.runs import record as recording
from wakd_kit.runs.network import predict
from wakd_kit.runs.run import load_run
from wakd_kit.runs.validate import METRICS, SourceValidation, calibration_error, scores

from ..conftest import SMALL, one_image

# ---- scores


def test_a_label_that_is_a_number_is_its_text(copied):
    table = wk.evaluate(copied, {0.5: averaging.wakd(copied.source_curves, begin=0.5)})
    assert set(table["strategy"]) == {"0.5"} and "0.5" in set(copied.scores["strategy"]) and "0.5" in copied.choices
    again = wk.evaluate(copied, {0.5: averaging.wakd(copied.source_curves, begin=0.5)})
    assert len(copied.scores[copied.scores["strategy"].astype(str) == "0.5"]) == len(again)


def test_scores_by_hand():
    probs = np.array([[0.7, 0.2, 0.1], [0.1, 0.63, 0.27], [0.17, 0.2, 0.63]])
    found = scores(torch.tensor(np.log(probs) + 5), np.array([0, 2, 2]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.27) + math.log(0.63)) / 3)
    # confidence .7 is right, .63 is right once in two: |.7 - 1| and |1.26 - 1| over three examples
    assert found["ece"] == pytest.approx((0.3 + 0.26) / 3)


def test_the_worst_group_by_hand():
    labels, colours = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 1, 1])
    logits = torch.eye(2, dtype=torch.float64)[[0, 0, 1, 1, 1, 0]]  # right but for the third and the last
    domains = SimpleNamespace(classes=("a", "b"), attributes=("red", "green"))
    plain = Examples(np.zeros((6, 8, 8, 3), np.uint8), labels, np.arange(6))
    assert evaluation.worst_group(logits, plain, domains) == {"worst_group": pytest.approx(2 / 3), "group": "a"}
    found = evaluation.worst_group(logits, replace(plain, attributes=colours), domains)
    assert found == {"worst_group": 0.0, "group": "a, green"}
    found = evaluation.worst_group(torch.full_like(logits, np.nan), plain, domains)
    assert np.isnan(found["worst_group"]) and found["group"] == ""


def slow_calibration_error(probs, labels, bins):
    total = 0.0
    for b in range(bins):
        inside = [i for i, p in enumerate(probs) if b / bins < p.max() <= (b + 1) / bins]
        if inside:
            confidence = np.mean([probs[i].max() for i in inside])
            accuracy = np.mean([probs[i].argmax() == labels[i] for i in inside])
            total += len(inside) / len(labels) * abs(confidence - accuracy)
    return total


@pytest.mark.parametrize(("bins", "classes", "seed"), [(15, 2, 0), (15, 7, 1), (5, 4, 2), (1, 3, 3)])
def test_calibration_error_equals_a_plain_loop(bins, classes, seed):
    rng = np.random.default_rng(seed)
    probs, labels = rng.dirichlet(np.full(classes, 0.4), 300), rng.integers(0, classes, 300)
    found = calibration_error(torch.tensor(probs), torch.tensor(labels), bins=bins)
    assert found == pytest.approx(slow_calibration_error(probs, labels, bins), abs=1e-12)


def test_a_confidence_on_the_edge_belongs_to_the_lower_bin():
    # .5 is in (0, .5] and wrong, .75 is in (.5, 1] and right; in one bin they would nearly cancel
    probs = torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    assert calibration_error(probs, torch.tensor([1, 0]), bins=2) == pytest.approx((0.5 + 0.25) / 2)


def test_certain_predictions_have_a_place_in_the_last_bin():
    certain = torch.eye(2, dtype=torch.float64)
    assert calibration_error(certain, torch.tensor([0, 1])) == 0
    assert calibration_error(certain, torch.tensor([1, 0])) == 1


# ---- predict


def test_predict_gives_the_logits_of_eval_mode_whatever_the_batch_size(domains):
    model = build_model("resnet10t", 4, seed=0, **SMALL, drop_rate=0.5)
    images = domains["north"].images[:20]
    with torch.no_grad():
        expected = model.eval()(to_float(torch.as_tensor(images))).logits
    model.train()
    for size in (7, 256):
        torch.testing.assert_close(predict(model, images, batch_size=size), expected, rtol=1e-5, atol=1e-5)


def test_predict_leaves_every_mode_and_statistic_as_it_was(domains):
    model = build_model("resnet10t", 4, seed=0, **SMALL)
    training_mode(model, "frozen")
    modes = [m.training for m in model.modules()]
    before = {n: t.clone() for n, t in model.state_dict().items()}
    predict(model, domains["north"].images)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


# ---- source validation while training


def test_source_validation_scores_each_source_and_the_distance_to_the_teacher(split):
    student, teacher = (build_model("resnet10t", 4, seed=s, **SMALL) for s in (0, 1))
    taught = torch.cat([predict(teacher, e.images) for e in split.val.values()])
    row = SourceValidation(split, taught, combine({"name": "kd", "temperature": 2.0}))(student)
    pairs = [(predict(student, e.images).double(), predict(teacher, e.images).double()) for e in split.val.values()]
    for (name, examples), (logits, _) in zip(split.val.items(), pairs):
        assert row[f"val_loss/{name}"] == pytest.approx(scores(logits, examples.labels)["nll"], rel=1e-6)
        assert row[f"val_accuracy/{name}"] == scores(logits, examples.labels)["accuracy"]
    mine, theirs = (torch.cat(z) for z in zip(*pairs))
    labels = np.concatenate([e.labels for e in split.val.values()])
    assert row["val_loss_pooled"] == pytest.approx(scores(mine, labels)["nll"], rel=1e-6)
    assert row["val_kd_loss"] == pytest.approx(kd(mine, theirs, temperature=2.0).item(), rel=1e-6)
    assert not any(split.target in name for name in row)
    without = SourceValidation(split, None, combine("ce"))(student)
    assert "val_kd_loss" not in without


# ---- evaluate


def test_evaluate_scores_every_average_on_every_domain(run, split):
    chosen = averaging.choose(run.source_curves, ["last", {"name": "window", "begin": 8}])
    table = wk.evaluate(run, chosen)
    assert table.columns.tolist() == ["strategy", "domain", "role", *METRICS, "worst_group", "group", "n", "note"]
    assert table["domain"].tolist() == [*split.sources, "west"] * 2
    assert table["role"].tolist() == ["source", "source", "source", "target"] * 2
    assert table["n"].tolist() == [16, 16, 16, 80] * 2
    for label, coefficients in chosen.items():
        model = run.model(coefficients)
        for examples, (_, row) in zip(
            [*split.val.values(), split.target_for_testing_only], table[table["strategy"] == label].iterrows()
        ):
            expected = scores(predict(model, examples.images), examples.labels)
            assert row["accuracy"] == pytest.approx(expected["accuracy"], abs=one_image(row["n"]))
            assert row["note"] == coefficients.note
            assert row["nll"] == pytest.approx(expected["nll"], rel=1e-5)
    assert table["nll"].is_unique, "each row is of its own parameters and images"


def test_a_domain_on_which_an_average_is_no_number_says_that_it_diverged(split):
    parts, logits = network.scored_domains(split), {}
    for domain, role, examples in parts:
        logits[domain] = torch.full((len(examples), len(split.classes)), math.nan if role == "target" else 1.0)
    rows = evaluation.judged(parts, logits, split.domains, strategy="last", note="iterate 20")
    assert {(row["role"], row["note"]) for row in rows} == {
        ("source", "iterate 20"),
        ("target", "iterate 20: diverged"),
    }


def test_no_window_is_a_row_without_numbers_and_with_the_reason(run):
    reason = NoWindow("validation loss fell to the last segment")
    table = wk.evaluate(run, {"last": averaging.last(run.source_curves), "swad": reason})
    empty = table[table["strategy"] == "swad"]
    assert len(empty) == 4 and empty[list(METRICS)].isna().all(axis=None)
    assert set(empty["note"]) == {str(reason)} and empty["n"].tolist() == [16, 16, 16, 80]
    assert table.loc[table["strategy"] == "last", list(METRICS)].notna().all(axis=None)


def test_scores_are_kept_with_the_run_the_newest_of_each(copied):
    curves = copied.source_curves
    wk.evaluate(copied, {"mine": averaging.last(curves), "other": averaging.uniform(curves)})
    newer = wk.evaluate(copied, {"mine": averaging.window(curves, begin=12)})
    stored = pd.read_csv(copied.folder / "scores.csv")
    assert len(stored) == 8 and set(stored["strategy"]) == {"mine", "other"}
    kept = stored[stored["strategy"] == "mine"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, newer, check_dtype=False)


@pytest.mark.parametrize("killed", ["remember_choices", "_write"])
def test_a_kill_between_the_files_leaves_no_average_with_the_scores_of_another(copied, monkeypatch, killed):
    curves = copied.source_curves
    two = {"mine": averaging.last(curves), "other": averaging.uniform(curves)}
    wk.evaluate(copied, two)
    of, name = (type(copied), killed) if killed == "remember_choices" else (evaluation, killed)
    kept, calls = getattr(of, name), []

    def kill(*args, **settings):
        calls.append(1)
        if killed == "remember_choices" or len(calls) == 2:  # the rows that are new
            raise KeyboardInterrupt
        return kept(*args, **settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(of, name, kill)
        wk.evaluate(copied, {"mine": averaging.window(curves, begin=12), "other": averaging.uniform(curves)})
    again = load_run(copied.folder, split=copied.split)
    assert set(again.scores["strategy"]) == {"other"} and again.choices.keys() == two.keys()
    assert Board(again).look_up(again.choices["mine"]) == (None, "")
    wk.evaluate(again, {"mine": again.choices["mine"]})
    assert set(load_run(copied.folder).scores["strategy"]) == {"mine", "other"}


@pytest.mark.parametrize(("strategy", "policy"), [("uniform", "average"), ("last", "recalibrate")])
def test_scores_under_a_given_batchnorm_policy_are_not_kept_as_the_runs_own(copied, strategy, policy):
    choice = averaging.choose(copied.source_curves, [strategy])
    own = wk.evaluate(copied, choice)
    other = wk.evaluate(copied, choice, batchnorm=policy)
    assert not np.allclose(own["nll"], other["nll"])
    assert copied.scores["nll"].tolist() == pytest.approx(own["nll"].tolist())


def test_a_split_the_run_was_not_trained_on_is_refused(run, domains):
    with pytest.raises(ValueError, match="'west', this split has target 'east'"):
        wk.evaluate(run, {}, wk.leave_one_out(domains, "east", seed=0))


# ---- scores of averages, many and fast

STRATEGIES = [
    lambda c: averaging.last(c),
    lambda c: averaging.window(c, begin=8),
    lambda c: averaging.window(c, begin=4, end=20),
    lambda c: averaging.ema(c, decay=0.9),
    lambda c: averaging.lawa(c, k=3),
    lambda c: averaging.wise_ft(c),
]


@pytest.mark.parametrize("policy", ["recalibrate", "average", "last", "frozen"])
def test_source_score_is_what_evaluate_measures(copied, policy):
    copied.settings["batchnorm"] = policy
    accuracy, nll = wk.source_score(copied), wk.source_score(copied, metric="nll")
    for strategy in STRATEGIES:
        coefficients = strategy(copied.source_curves)
        table = wk.evaluate(copied, {"average": coefficients})
        means = table[table["role"] == "source"][["accuracy", "nll"]].mean()
        assert accuracy(coefficients) == pytest.approx(means["accuracy"], abs=one_image())
        assert nll(coefficients) == pytest.approx(-means["nll"], rel=1e-4), "larger is better, so nll is negated"


def test_source_score_asks_the_model_once_per_average(run, monkeypatch):
    score, asked = wk.source_score(run), []
    outputs = network.Network.outputs
    monkeypatch.setattr(network.Network, "outputs", lambda n: asked.append(1) or outputs(n))
    first, second = averaging.window(run.source_curves, begin=8), averaging.window(run.source_curves, begin=12)
    assert score(first) == score(averaging.window(run.source_curves, begin=8)) and len(asked) == 1
    score(second)
    assert len(asked) == 2
    score(averaging.Coefficients(np.asarray(first), of="end"))
    assert len(asked) == 3, "the same numbers over last iterates are another average"
    curves = run.source_curves
    beyond = [averaging.bema(curves, begin=curves.ends[0].item(), bias_power=power) for power in (0.2, 0.5)]
    assert np.array_equal(*beyond) and beyond[0].initial == beyond[1].initial
    for point in beyond:
        score(point)
    assert len(asked) == 5, "and so are other ends beside the same means"
    score(averaging.Coefficients(first, **{**first.notes, "chosen_by": "another", "evaluations": 7}))
    assert len(asked) == 5, "what chose an average changes nothing in it"


def test_source_score_never_looks_at_the_target(run, split, monkeypatch):
    choices = {"last": averaging.last(run.source_curves)}
    monkeypatch.setattr(type(split), "each_for_testing_only", lambda s: pytest.fail("looked at the target"))
    assert 0 <= wk.source_score(run, split)(choices["last"]) <= 1
    wk.choose(run, ["wakd", "swad"], split)
    with pytest.raises(pytest.fail.Exception, match="looked at the target"):  # whoever looks goes this way
        evaluation.score_choices(run, choices, split)


def test_source_score_of_an_unknown_metric_is_a_sentence(run):
    with pytest.raises(ValueError, match="Did you mean 'accuracy'"):
        wk.source_score(run, metric="acuracy")


# ---- what cannot be scored, or not be kept, is said before anything is computed


def refused_before_anything_is_predicted(monkeypatch, message, *arguments):
    monkeypatch.setattr(evaluation, "predict", lambda *_: pytest.fail("predicted"))
    with pytest.raises(ValueError, match=message):
        wk.evaluate(*arguments)


def test_nothing_to_evaluate_is_a_sentence(copied, monkeypatch):
    refused_before_anything_is_predicted(monkeypatch, "one or more; got {}", copied, {})
    refused_before_anything_is_predicted(monkeypatch, "as {label: coefficients}", copied, ["last"])
    assert copied.scores.empty


def test_coefficients_that_do_not_fit_are_refused_before_those_that_do_are_scored(copied, monkeypatch):
    choices = {"last": averaging.last(copied.source_curves), "short": [0.5, 0.5]}
    refused_before_anything_is_predicted(monkeypatch, "2 coefficients for 7 segments", copied, choices)


def test_a_folder_that_may_not_be_written_is_said_before_anything_is_predicted(copied, monkeypatch):
    monkeypatch.setattr(recording.os, "access", lambda *_: False)
    choices = {"last": averaging.last(copied.source_curves)}
    table = evaluation.score_choices(copied, choices)
    assert table["accuracy"].notna().all(), "what keeps nothing still works"
    refused_before_anything_is_predicted(monkeypatch, "cannot be written", copied, choices)


@pytest.mark.parametrize("name", ["scores.csv", "choices.json", "predictions.npz"])
def test_what_was_cut_off_is_said_before_anything_is_predicted_and_not_overwritten(copied, monkeypatch, name):
    choices = {"uniform": averaging.uniform(copied.source_curves)}
    wk.evaluate(copied, choices)
    file = copied.folder / name
    file.write_bytes(file.read_bytes()[:-20])
    before = {file.name: file.read_bytes() for file in copied.folder.glob("*.*") if file.name != "measured.lock"}
    refused_before_anything_is_predicted(monkeypatch, name, copied, choices)
    assert all((copied.folder / name).read_bytes() == was for name, was in before.items())


def test_evaluations_side_by_side_keep_every_row(copied):
    curves = copied.source_curves
    labels = [f"from {begin}" for begin in (0, 4, 8, 12, 16, 20)]

    def one(label):
        run = wk.load_run(copied.folder, split=copied.split)
        wk.evaluate(run, {label: averaging.window(curves, begin=int(label.split()[1]))})

    with ThreadPoolExecutor(len(labels)) as pool:
        list(pool.map(one, labels))
    assert sorted(copied.scores["strategy"].unique()) == sorted(labels)
    assert copied.choices.keys() == kept(copied).keys() == set(labels)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_no_numbers_have_no_score_and_are_never_right(broken):
    logits = torch.tensor([[2.0, 1.0], [broken, 0.0]])
    assert all(math.isnan(value) for value in scores(logits, np.array([0, 0])).values())
    assert math.isnan(sweep._scores(logits, torch.tensor([0, 0]))["accuracy"])
    assert predicted(logits, np.array([0, 0]), "target").correct.tolist() == [True, False]


def test_the_last_iterate_recalibrated_is_the_same_parameters_with_statistics_of_source_batches(run, split, tmp_path):
    chosen = wk.choose(run, ["last", {"name": "last", "label": "last, recalibrated", "recalibrated": True}])
    raw, again = (run.average(chosen[label]) for label in chosen)
    statistics, counters = ({name for name in raw if part in name} for part in ("running_", "num_batches"))
    assert statistics and all(torch.equal(raw[name], again[name]) for name in raw if name not in statistics | counters)
    model = run.blank_model()
    model.load_state_dict(raw)
    expected = recalibrate(model, run.calibration_batches(split, torch.device("cpu"))).state_dict()
    for name in statistics:
        torch.testing.assert_close(again[name], expected[name])
        assert not torch.equal(again[name], raw[name])
    table = score_choices(run, chosen, split).set_index(["strategy", "domain"])["nll"].unstack("strategy")
    assert (table["last"] != table["last, recalibrated"]).all()
    score = source_score(run, split, metric="nll")
    assert score(chosen["last"]) != score(chosen["last, recalibrated"]), "a memory that tells the two apart"
    plain = chosen["last, recalibrated"].plain
    assert plain["recalibrated"] and "recalibrated" not in chosen["last"].plain
    assert not run.is_raw(Coefficients(plain.pop("values"), **plain)) and run.is_raw(chosen["last"])

"""Every coefficient equals what published code chose on the same curves (tests/golden/README.md says which code)."""

import json
from pathlib import Path

import numpy as np
import pytest

from wakd_kit import averaging
from wakd_kit.averaging import NoWindow

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "averaging.json").read_text())


def equal(coefficients, golden):
    np.testing.assert_allclose(np.asarray(coefficients), golden, rtol=0, atol=1e-9)


def cases(name):
    return pytest.mark.parametrize("case", GOLDEN[name], ids=range(len(GOLDEN[name])))


def mixture_accuracy(case):
    """The synthetic accuracy that was recorded with a soup: linear gain, quadratic interaction, rounded."""
    linear, quadratic = np.array(case["mix_acc_linear"]), np.array(case["mix_acc_quad"])

    def score(w):
        w = np.asarray(w)
        return round(float(linear @ w - w @ quadratic @ w / 2 + w @ np.diag(quadratic) / 2), case["round_digits"])

    return score


def last_used(coefficients):
    used = np.flatnonzero(np.asarray(coefficients))
    return used[-1] if len(used) else None


@cases("swad_lossvalley")
def test_swad_published(case):
    if not case["converged"]:
        with pytest.raises(NoWindow, match="swad_published found no window"):
            averaging.swad_published(val_loss=case["val_losses"], **case["hyperparameters"])
        return
    coefficients = averaging.swad_published(val_loss=case["val_losses"], **case["hyperparameters"])
    equal(coefficients, case["weights_per_segment"])
    assert coefficients.of == "mean"


@cases("swad_wakd_repo")
def test_swad_wakd_repo(case):
    if not case["converged"]:
        with pytest.raises(NoWindow, match="swad_wakd_repo found no window"):
            averaging.swad_wakd_repo(val_kd_loss=case["val_losses"], loss="val_kd_loss", **case["hyperparameters"])
        return
    equal(averaging.swad_wakd_repo(val_loss=case["val_losses"], **case["hyperparameters"]), case["weights_per_segment"])


@cases("iidmax")
def test_iidmax(case):
    def score(coefficients):
        return case["avg_val_accs_per_segment"][last_used(coefficients)]

    if not case["converged"]:
        with pytest.raises(NoWindow, match="iidmax found no window"):
            averaging.iidmax(val_accuracy=case["val_accs"], score=score)
        return
    equal(averaging.iidmax(val_accuracy=case["val_accs"], score=score), case["weights_per_segment"])


@cases("wakd_trainer_iterate_level")
def test_wakd_trainer(case):
    settings, golden = case["hyperparameters"], case["weights_per_iterate"]
    steps, frequency, begin = (settings[key] for key in ("num_iterations", "frequency", "our_swad_begin"))
    valley = {key: settings[key] for key in ("n_converge", "n_tolerance", "tolerance_ratio")}
    validations = len(case["val_losses"])
    every_step = {"val_accuracy": case["iterate_val_acc"]}

    equal(averaging.wakd(**every_step, begin=begin, exact="published"), golden["main"])
    equal(averaging.wakd(**every_step, begin=begin - 1), golden["main"])
    equal(averaging.eoa_wakd_repo(**every_step, begin=begin, frequency=frequency), golden["eoa"])

    segments = {"iterates": [frequency] * validations}
    if case["swad_converged"]:
        means = averaging.swad_wakd_repo(val_loss=case["val_losses"], **segments, **valley)
        of_iterates = np.repeat(np.asarray(means) / frequency, frequency)
        equal(np.pad(of_iterates, (0, steps - len(of_iterates))), golden["swad"])  # a cut last segment is not validated
    else:  # there another average goes under its name
        with pytest.raises(NoWindow, match="swad_wakd_repo found no window"):
            averaging.swad_wakd_repo(val_loss=case["val_losses"], **segments, **valley)
        assert golden["swad"] == golden["eoa"]
    best = averaging.best_val(val_accuracy=case["val_accs"], **segments)
    assert np.flatnonzero(golden["erm"]).tolist() == [(np.argmax(best) + 1) * frequency - 1]


def check_sma(case, exact):
    settings, accuracy = case["hyperparameters"], case["avg_val_acc_at_step"]
    steps = {"iterates": [1] * settings["n_steps"], "start": settings["sma_start_iter"], "exact": exact}

    best = averaging.sma(score=lambda c: accuracy[last_used(c)], frequency=settings["checkpoint_freq"], **steps)
    equal(best, case["best_weights_per_iterate"])
    assert best.initial == pytest.approx(1 - sum(case["best_weights_per_iterate"]), abs=1e-9)
    final = averaging.sma(score=last_used, **steps)
    equal(final, case["final_weights_per_iterate"])
    assert final.initial == pytest.approx(1 - sum(case["final_weights_per_iterate"]), abs=1e-9)


@cases("sma_eoa")
def test_sma(case):
    check_sma(case, "published")


@cases("sma_ermpp")
def test_sma_of_ermpp(case):
    check_sma(case, "ermpp")


@cases("sma_diwa")
def test_sma_of_diwa(case):
    check_sma(case, "diwa")


@cases("model_soups")
def test_model_soups(case):
    accuracies = case["individual_val_acc"]
    greedy = averaging.greedy_soup(val_accuracy=accuracies, score=mixture_accuracy(case))
    equal(greedy, case["greedy_weights"])
    assert greedy.note.endswith(", ".join(str(i + 1) for i in case["order_of_ingredients"]))
    equal(averaging.uniform_soup(accuracies), case["uniform_weights"])


@cases("diwa_restricted")
def test_diwa_restricted(case):
    scores = case["individual_scores"]
    equal(averaging.diwa(scores, restrict=True, score=mixture_accuracy(case)), case["weights_per_model"])
    equal(averaging.diwa(scores), np.full(len(scores), 1 / len(scores)))


@cases("torch_averaged_model")
def test_torch_averaged_model(case):
    steps = {"iterates": [1] * case["hyperparameters"]["n"]}
    equal(averaging.ema(**steps, decay=case["hyperparameters"]["decay"]), case["ema_weights"])
    equal(averaging.swa(**steps, start=1, period=1), case["swa_weights"])

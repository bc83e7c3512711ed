"""Objectives against losses and gradients that published code produced; each case names its repository and commit."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wakd_kit.objectives import (
    CTKD,
    TAID,
    batchwise,
    ce,
    dist,
    dkd,
    kd,
    ls_dkd,
    ls_kd,
    mlkd_repo,
    nkd,
    sinkd,
    ttm,
    wsld,
    wttm,
)

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = json.loads((GOLDEN / "objectives.json").read_text())["cases"]


def teacher_entropy(z_t, temperature):
    return -(F.softmax(z_t / temperature, 1) * F.log_softmax(z_t / temperature, 1)).sum(1).mean()


def mlkd_of_two_views(x, h):
    """The authors' whole loss: cross-entropy of both views, and their three terms."""
    released = batchwise.as_released((x.logits_s, x.logits_t), (x.logits_s2, x.logits_t2), temperature=h["T"])
    return h["CE_WEIGHT"] * (ce(x.logits_s, None, x.labels) + ce(x.logits_s2, None, x.labels)) + (
        h["KD_WEIGHT"] * sum(released)
    )


# what a published case is in terms of this package: x are its inputs, h its hyper-parameters
PUBLISHED = {
    "kd_T1": lambda x, h: kd(*x.batch, temperature=h["T"]),
    "kd_T4": lambda x, h: kd(*x.batch, temperature=h["T"]),
    "kd_T5": lambda x, h: kd(*x.batch, temperature=h["T"]),
    "kd_mdistiller_T4": lambda x, h: kd(*x.batch, temperature=h["T"]),
    "wakd_pure_kl_T5": lambda x, h: kd(*x.batch, temperature=h["temperature"]),
    # DeiT trains two heads, and divides by the number of classes as well
    "kd_deit_soft": lambda x, h: (
        0.5 * ce(*x.batch) + 0.5 * kd(x.logits_s2, x.logits_t, temperature=h["tau"]) / x.logits_t.shape[1]
    ),
    "kd_deit_hard": lambda x, h: 0.5 * ce(*x.batch) + 0.5 * ce(x.logits_s2, None, x.logits_t.argmax(1)),
    "kd_timm_task": lambda x, h: 0.3 * ce(*x.batch) + 0.7 * kd(*x.batch, temperature=h["temperature"]),
    "td_kd": lambda x, h: 0.5 * ce(*x.batch) + 0.5 * kd(*x.batch, temperature=h["temperature"]),
    # a cross-entropy: the teacher's entropy is left in
    "kd_ce_form_clsKD": lambda x, h: (
        h["alpha"] * (kd(*x.batch, temperature=h["temp"]) + h["temp"] ** 2 * teacher_entropy(x.logits_t, h["temp"]))
    ),
    # called JS there; half of Jeffreys' divergence
    "js_ssld_dml": lambda x, h: kd(*x.batch, temperature=1.0, kind="jeffreys") / 2,
    "dkd_a1_b8_T4": lambda x, h: dkd(*x.batch, alpha=h["alpha"], beta=h["beta"], temperature=h["T"]),
    "dkd_a1_b2_T1": lambda x, h: dkd(*x.batch, alpha=h["alpha"], beta=h["beta"], temperature=h["T"]),
    "nkd_g1.5_T1": lambda x, h: nkd(*x.batch, gamma=h["gamma"], temperature=h["temp"]),
    "nkd_g1.5_T2": lambda x, h: nkd(*x.batch, gamma=h["gamma"], temperature=h["temp"]),
    "nkd_g1.5_T1_softlabel": lambda x, h: nkd(
        x.logits_s, x.logits_t, x.labels_soft, gamma=h["gamma"], temperature=h["temp"]
    ),
    "wsld": lambda x, h: h["alpha"] * wsld(*x.batch, temperature=h["temp"]),
    "lskd_T2": lambda x, h: ls_kd(*x.batch, temperature=h["T"]),
    "td_lskd_T2": lambda x, h: ls_kd(*x.batch, temperature=h["temperature"]) / 4,  # that port lost T^2
    "lsdkd_a1_b8_T2": lambda x, h: ls_dkd(*x.batch, alpha=h["alpha"], beta=h["beta"], temperature=h["T"]),
    "dist_tau1": lambda x, h: dist(*x.batch, beta=h["beta"], gamma=h["gamma"], temperature=h["tau"]),
    "dist_tau4": lambda x, h: dist(*x.batch, beta=h["beta"], gamma=h["gamma"], temperature=h["tau"]),
    "dist_beta2_gamma05_tau2": lambda x, h: dist(*x.batch, beta=h["beta"], gamma=h["gamma"], temperature=h["tau"]),
    "td_dist": lambda x, h: dist(*x.batch, temperature=h["tau"]),
    "ttm_l0.1": lambda x, h: ttm(*x.batch, gamma=h["l"]),
    "wttm_l0.1": lambda x, h: wttm(*x.batch, gamma=h["l"]),
    "mlkd_cc_T4": lambda x, h: batchwise.class_level(x.logits_s, x.logits_t, h["T"]),
    "mlkd_bc_T4": lambda x, h: batchwise.batch_level(x.logits_s, x.logits_t, h["T"]),
    "mlkd_full": mlkd_of_two_views,
    "ctkd_globalT": lambda x, h: CTKD(lowest=h["t_start"], span=h["t_end"]).double()(*x.batch),
    "taid_t0.4": lambda x, h: TAID(start=h["t_start"], end=h["t_end"], alpha=h["alpha"], beta=h["beta"])(
        *x.batch, progress=0.1
    ),
    "sinkd": lambda x, h: (
        h["scale"] * sinkd(x.logits_s, x.logits_t, temperature=2.0, epsilon=h["epsilon"], iterations=h["n_iters"])
    ),
}
# their code rounds to float32; adds 1e-12 inside; clamps each norm where DIST adds to the product
LOOSER = {"taid_t0.4": (1e-6, 1e-6), "js_ssld_dml": (1e-8, 1e-8), "td_dist": (2e-6, 1e-6)}


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "objectives.npz")


@pytest.fixture
def inputs(golden):
    """Every input of the golden cases by its name; ``batch`` is the usual three."""
    x = SimpleNamespace(**{k[3:]: torch.tensor(golden[k]) for k in golden.files if k.startswith("in/")})
    x.logits_s.requires_grad_()
    x.logits_s2.requires_grad_()
    x.batch = (x.logits_s, x.logits_t, x.labels)
    return x


def origin(case):
    about = CASES[case]
    return f"{case}:{about['repo'].replace('+', '/')}@{about['commit'][:8]}"


@pytest.mark.parametrize("case", PUBLISHED, ids=origin)
def test_loss_and_gradients_equal_published_code(golden, inputs, case):
    about = CASES[case]
    loss = PUBLISHED[case](inputs, about["hyper"])
    loss.backward()
    assert loss.dtype == torch.float64
    loss_tolerance, gradient_tolerance = LOOSER.get(case, (1e-10, 1e-9))
    assert abs(loss.item() - golden[f"case/{case}/loss"]) < loss_tolerance
    for name in about["grads"]:
        ours, theirs = getattr(inputs, name).grad, golden[f"case/{case}/grad_{name}"]
        assert np.abs(theirs).max() > 1e-6
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=gradient_tolerance)


def test_terms_of_the_released_mlkd_equal_its_own_log(golden, inputs):
    weak, strong = (inputs.logits_s, inputs.logits_t), (inputs.logits_s2, inputs.logits_t2)
    terms = batchwise.as_released(weak, strong, temperature=4.0)
    for name, ours in zip(("loss_kd", "loss_cc", "loss_bc"), terms):
        assert abs(0.9 * ours.item() - golden[f"case/mlkd_full/{name}"]) < 1e-10
    assert mlkd_repo(*weak).item() == pytest.approx(sum(batchwise.as_released(weak, weak, temperature=4.0)).item())


def test_temperature_of_ctkd_and_its_reversed_gradient_equal_published_code(golden, inputs):
    ctkd = CTKD().double()
    ctkd(*inputs.batch, reversal=1.0).backward()
    assert abs(ctkd.temperature.item() - golden["case/ctkd_globalT/temp"].item()) < 1e-12
    assert abs(ctkd.theta.grad.item() - golden["case/ctkd_globalT/grad_globalT_lambda_m1"].item()) < 1e-9


def test_taid_moves_as_published_code_over_two_steps(golden, inputs):
    hyper = CASES["taid_t0.4"]["hyper"]
    taid = TAID(start=hyper["t_start"], end=hyper["t_end"], alpha=hyper["alpha"], beta=hyper["beta"])
    taid(*inputs.batch, progress=0.10)
    assert taid.t.item() == pytest.approx(golden["case/taid_t0.4/t_after1"].item(), abs=1e-7)
    loss = taid(inputs.logits_s2, inputs.logits_t2, progress=0.11)
    assert loss.item() == pytest.approx(golden["case/taid_t0.4/loss2"].item(), abs=1e-6)
    assert taid.t.item() == pytest.approx(golden["case/taid_t0.4/t_after2"].item(), abs=1e-7)

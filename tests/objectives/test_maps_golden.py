"""Objectives on features and maps against losses and gradients that published code produced."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.objectives.test_golden import CASES, GOLDEN, origin
from tests.objectives.test_golden import PUBLISHED as ON_LOGITS
from wakd_kit import objectives
from wakd_kit.models.tails import ReusedHead
from wakd_kit.models.tap import Output
from wakd_kit.objectives import CRDMemory, VkD, adaptive_target, at, cc_paper, nst, pkt, rkd, sp, xded
from wakd_kit.objectives.features import (
    Fusion,
    VariationalStage,
    hierarchical_mse,
    norm_and_direction,
    three_convolutions,
)
from wakd_kit.objectives.logits import tempered_kl
from wakd_kit.objectives.relations import neighbours, similarities
from wakd_kit.objectives.shift import two_heads


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "objectives.npz")


@pytest.fixture
def inputs(golden):
    """Every input of the golden cases by its name, in float64."""
    x = SimpleNamespace(**{k[3:]: torch.tensor(golden[k]) for k in golden.files if k.startswith("in/")})
    for name in ("logits_s", "logits_s2", "feat7", "feat_s", "map_s", "map_s2", "tok_s"):
        getattr(x, name).requires_grad_()
    return x


def pooled(feature):
    return Output(feature, feature)


def maps(*features):
    return Output(features[0].mean((2, 3)), features[0].mean((2, 3)), features)


def saved(golden, case, names):
    """The published module's ``state_dict`` under our names; ``names`` maps our prefixes to theirs."""
    found = {}
    for ours, theirs in names.items():
        prefix = f"case/{case}/state_{theirs}"
        keys = [k for k in golden.files if k == prefix or k.startswith(prefix + "_")]
        found |= {ours + k.removeprefix(prefix).replace("_", ".", 1): torch.tensor(golden[k]) for k in keys}
    return found


def vid(x, h, z):
    ours, theirs = h["num_input_channels"], h["num_target_channels"]
    stage = VariationalStage(three_convolutions(ours, theirs), theirs, h["init_pred_var"], epsilon=h["eps"]).double()
    names = {"scale": "log_scale"} | {f"mean.{i}": f"regressor_{i}" for i in (0, 2, 4)}
    state = saved(z, "vid", names)
    assert torch.allclose(stage.scale.double(), state["scale"], rtol=0, atol=1e-6)
    stage.load_state_dict(state)
    return stage(F.adaptive_avg_pool2d(x.map_s, 4), x.map_t)


def abf(x, h, z):
    fusion = Fusion(h["in_channel"], h["mid_channel"], h["out_channel"], first=False).double()
    names = {"reduce.0": "conv1_0", "reduce.1": "conv1_1", "attention.0": "att_conv_0"}
    names |= {"expand.0": "conv2_0", "expand.1": "conv2_1"}
    fusion.load_state_dict(saved(z, "reviewkd_abf", names))
    deeper = torch.tensor(z["case/reviewkd_abf/residual"])
    projected, passed = fusion(x.map_s, deeper, (h["out_shape"],) * 2)
    np.testing.assert_allclose(projected.detach(), z["case/reviewkd_abf/out_y"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(passed.detach(), z["case/reviewkd_abf/out_x"], rtol=0, atol=1e-9)
    return F.mse_loss(projected, x.map_t2)


def simkd(x, h, z):
    tail = ReusedHead(channels=h["s_n"], features=h["t_n"], classes=7, factor=h["factor"], finer=2).double()
    state = saved(z, "simkd", {f"projector.{i}": f"transfer_{i}" for i in (0, 1, 3, 4, 6, 7)})
    state |= {f"classifier.{n}": torch.tensor(z[f"case/simkd/head_{n[0]}"]) for n in ("weight", "bias")}
    tail.load_state_dict(state)
    output = tail(maps(x.map_s))
    np.testing.assert_allclose(output.logits.detach(), z["case/simkd/pred"], rtol=0, atol=1e-9)
    return objectives.simkd(output, maps(x.map_t))


def hint(x, h, z):
    """After the projector, which is the identity here."""
    student, teacher = maps(x.map_s2), maps(x.map_t2)
    objective = objectives.FitNetRaw(SimpleNamespace(student=student, teacher=teacher), stages=(0,)).double()
    (projector,) = objective.projected.projectors
    torch.nn.init.dirac_(projector.weight)
    torch.nn.init.zeros_(projector.bias)
    return objective(student, teacher)


def crd(x, h, z):
    """The second call on the same batch, its negatives given: the first set constants and moved the memory."""
    both = SimpleNamespace(student=pooled(x.feat_s), teacher=pooled(x.feat_t))
    objective = CRDMemory(
        both, dimensions=h["feat_dim"], negatives=h["nce_k"], temperature=h["nce_t"], momentum=h["nce_m"]
    ).double()
    objective.learn_examples(torch.arange(h["n_data"]) % 2)
    saved_at = {when: lambda name, when=when: torch.tensor(z[f"case/crd_2steps/state{when}_{name}"]) for when in (0, 1)}
    state = {"constants": objective.constants}
    state |= {f"memory_{side}": saved_at[0](f"contrast_memory_v{i}") for side, i in (("ours", 1), ("theirs", 2))}
    for side, i in (("ours", "s"), ("theirs", "t")):
        state |= {f"{side}.{n}": saved_at[0](f"embed_{i}_linear_{n}") for n in ("weight", "bias")}
    objective.load_state_dict(state)
    places = [torch.tensor(z[f"case/crd_2steps/{name}"]) for name in ("idx", "contrast_idx")]
    first = objective.contrast(both.student, both.teacher, *places)
    assert abs(first.item() - z["case/crd_2steps/loss_step1"].item()) < 1e-9
    np.testing.assert_allclose(objective.constants, saved_at[1]("contrast_params")[2:4], rtol=1e-9)
    return objective.contrast(both.student, both.teacher, *places)


def vkd(x, h, z):
    teacher = torch.tensor(z["case/vkd/teacher_map"]).mean((2, 3))
    objective = VkD(SimpleNamespace(student=pooled(x.tok_s[:, 0]), teacher=pooled(teacher))).double()
    objective.projector.weight = torch.tensor(z["case/vkd/proj_weight"])
    return objective(pooled(x.tok_s.mean(1)), pooled(teacher))


def dho(x, h, z):
    """Published with unlabelled images besides, which the kit has none of."""
    labelled = two_heads(
        x.logits_s, x.logits_s2, x.logits_t, x.labels, share=h["lambda_"], temperature=h["temperature"]
    )
    return labelled + (1 - h["lambda_"]) * tempered_kl(x.feat7, x.logits_t2, h["temperature"])


def ofa(x, h, z):
    return adaptive_target(x.logits_s, x.logits_t, x.labels, epsilon=h["eps"], temperature=h["temperature"])


def correlation_matrices(x, h, z):
    """torchdistill's port: the norm itself, over n^2."""
    n = len(x.feat_s)
    return cc_paper(pooled(x.feat_s), pooled(x.feat_t6), kernel=h["kernel"]).sqrt() * n / n**2


# what a published case is in terms of this package: x are its inputs, h its hyper-parameters, z everything recorded
PUBLISHED = {
    "rkd_distance": lambda x, h, z: rkd(pooled(x.feat_s), pooled(x.feat_t), distance=1.0, angle=0.0),
    "rkd_angle": lambda x, h, z: rkd(pooled(x.feat_s), pooled(x.feat_t), distance=0.0, angle=1.0),
    "rkd_25_50": lambda x, h, z: rkd(pooled(x.feat_s), pooled(x.feat_t)),
    "sp_maps": lambda x, h, z: sp(maps(x.map_s), maps(x.map_t)),
    "sp_vec": lambda x, h, z: (similarities(x.feat_s) - similarities(x.feat_t)).square().sum() / len(x.feat_s) ** 2,
    "cc": lambda x, h, z: neighbours(x.feat_s, x.feat_t6),
    "td_cckd_hint": correlation_matrices,
    "at_p2": lambda x, h, z: at(maps(x.map_s), maps(x.map_t), power=h["p"]),
    "at_szagoruyko_samesize": lambda x, h, z: at(maps(x.map_s), maps(x.map_t5)),
    "pkt": lambda x, h, z: pkt(pooled(x.feat_s), pooled(x.feat_t)),
    "pkt_passalis": lambda x, h, z: pkt(pooled(x.feat_s), pooled(x.feat_t)),
    "td_pkt": lambda x, h, z: pkt(pooled(x.feat_s), pooled(x.feat_t)),
    "nst": lambda x, h, z: nst(maps(x.map_s), maps(x.map_t)),
    "hint_mse": hint,
    "vid": vid,
    "reviewkd_hcl": lambda x, h, z: hierarchical_mse(x.map_s, x.map_t5) + hierarchical_mse(x.map_s2, x.map_t2),
    "reviewkd_abf": abf,
    "simkd": simkd,
    "crd_2steps": crd,
    "vkd": vkd,
    "kdpp_nd": lambda x, h, z: norm_and_direction(x.feat_s, x.feat_t6, x.class_means_t6[x.labels]),
    "ofa_eps1_T1": ofa,
    "ofa_eps1_T2": ofa,
    "ofa_eps1.5_T1": ofa,
    "ofa_eps1.5_T2": ofa,
    "xded_T4": lambda x, h, z: xded(x.logits_s, None, x.labels_blk, temperature=h["KD_TEMP"]),
    "dho": dho,
}


NOT_SHIPPED = {
    "ab_2maps",
    "ft_p2_1",
    "fsp",
    "ofd_feat_loss",
    "itrd_corr",
    "itrd_mutual",
    "rkd_hard_darkrank",
    "td_spkd",
}


def test_every_published_case_is_compared_or_said_to_be_of_an_objective_that_is_not_shipped():
    compared = {*PUBLISHED, *ON_LOGITS}
    assert compared | NOT_SHIPPED == set(CASES) and not compared & NOT_SHIPPED


@pytest.mark.parametrize("case", PUBLISHED, ids=origin)
def test_loss_and_gradients_equal_published_code(golden, inputs, case):
    about = CASES[case]
    loss = PUBLISHED[case](inputs, about["hyper"], golden)
    loss.backward()
    assert loss.dtype == torch.float64
    assert abs(loss.item() - golden[f"case/{case}/loss"]) < 1e-10
    for name in about["grads"]:
        ours, theirs = getattr(inputs, name).grad, golden[f"case/{case}/grad_{name}"]
        assert np.abs(theirs).max() > 1e-6
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)

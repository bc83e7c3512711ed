"""Objectives against slow formulas, and what holds for every one of them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.reference import objectives as slow
from wakd_kit import objectives
from wakd_kit.models.build import Output
from wakd_kit.objectives import (
    CTKD,
    abkd,
    bckd,
    ce,
    combine,
    cwtm,
    dkpp,
    gated_kd,
    kd,
    label_mse,
    margin_mse,
    mlkd,
    mse,
    rs_kd,
    std_ce,
    uld,
)

REGISTRY = objectives.objectives
ON_LOGITS = [
    n
    for n in REGISTRY
    if REGISTRY.about(n).needs <= {"labels", "teacher", "progress"} and not REGISTRY.about(n).of_pair
]
KINDS = ("forward", "reverse", "jeffreys", "js")
VARIANTS = [(name, {}) for name in ON_LOGITS] + [("kd", {"kind": kind}) for kind in KINDS[1:]]

# what does not hold for every objective, and why
DRAWS = {"rs_kd", "dkpp"}  # the classes it draws differ from row to row
# labels; a target term; a blurred plan; draws; no teacher
OTHER_OPTIMUM = {"ce", "cwtm", "std_ce", "label_mse", "nkd", "sinkd", "rs_kd", "dkpp", "xded"}
OPTIMUM = {"ttm": lambda z: 0.1 * z, "wttm": lambda z: 0.2 * z}  # the student is not tempered, the teacher is
ENTROPY_LEFT = {"wsld", "taid"}  # cross-entropies, least at the teacher but not zero
ANY_CLASSES = {"ce", "std_ce", "label_mse", "uld", "xded"}  # no teacher; made for two vocabularies; no teacher


@pytest.fixture
def batch():
    """Student and teacher logits (8, 7) in float64, and labels."""
    golden = np.load(Path(__file__).parent.parent / "golden" / "objectives.npz")
    student = torch.tensor(golden["in/logits_s"], requires_grad=True)
    return student, torch.tensor(golden["in/logits_t"]), torch.tensor(golden["in/labels"])


def ready(spec, classes=7):
    """A combined objective at the middle of 100 steps, called with three arguments: the same draws, no state moves."""
    combined = combine(spec).prepare(torch.zeros(2, classes), torch.zeros(2, classes), steps=100).eval()

    def loss(student, teacher, labels):
        torch.manual_seed(0)
        return combined(student, teacher, labels, step=50)[0]

    return loss


# ---- against loops over examples and classes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kinds_of_kd_are_the_divergences_they_are_called(batch, kind, temperature):
    student, teacher, _ = (t.tolist() for t in batch)
    expected = slow.divergence(student, teacher, temperature, kind)
    assert kd(*batch, temperature=temperature, kind=kind).item() == pytest.approx(expected, abs=1e-10)


def test_papers_temperature_is_the_default_and_forward_the_kind(batch):
    assert kd(*batch).item() == kd(*batch, temperature=5.0, kind="forward").item() != kd(*batch, temperature=4.0).item()


def test_js_is_bounded_where_kl_is_not():
    student, teacher = 1e4 * torch.eye(4)[[1, 2, 3, 0]], 1e4 * torch.eye(4)
    assert kd(student, teacher, temperature=2.0, kind="js").item() == pytest.approx(4 * math.log(2))
    assert kd(student, teacher, temperature=2.0).item() == pytest.approx(4 * 5e3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ce_is_minus_log_probability_of_the_smoothed_label(batch, smoothing):
    student, _, labels = (t.detach().numpy() for t in batch)
    total = 0.0
    for z, y in zip(student, labels):
        log_p = z - math.log(np.exp(z).sum())
        total -= (1 - smoothing) * log_p[y] + smoothing * log_p.mean()
    assert ce(*batch, label_smoothing=smoothing).item() == pytest.approx(total / len(labels), abs=1e-12)


def test_objectives_without_published_numbers_equal_their_formulas(batch):
    student, teacher, labels = (t.tolist() for t in batch)
    for ours, expected in (
        (mse(*batch), slow.mse(student, teacher)),
        (margin_mse(*batch), slow.margin_mse(student, teacher, labels)),
        (bckd(*batch), slow.bckd(student, teacher, 1.0)),
        (bckd(*batch, beta=2.0), slow.bckd(student, teacher, 2.0)),
        (uld(*batch), slow.uld(student, teacher, 1.0)),
        (uld(*batch, temperature=3.0), slow.uld(student, teacher, 3.0)),
        (uld(*batch, standardise=True, top=2), slow.uld(student, teacher, 1.0, True, 2)),
        (cwtm(*batch), slow.cwtm(student, teacher, labels)),
        (gated_kd(*batch), slow.gated_kd(student, teacher, labels, 2.0, 10)),
        (gated_kd(*batch, temperature=4.0, k=2), slow.gated_kd(student, teacher, labels, 4.0, 2)),
        (std_ce(*batch), slow.std_ce(student, labels)),
        (label_mse(*batch), slow.label_mse(student, labels)),
        (abkd(*batch), slow.abkd(student, teacher, 0.8, 0.3, 4.0)),
        (abkd(*batch, alpha=0.2, beta=0.7, temperature=1.0), slow.abkd(student, teacher, 0.2, 0.7, 1.0)),
        (mlkd(*batch), slow.mlkd(student, teacher, (2, 3, 4, 5, 6))),
        (mlkd(*batch, temperatures=[4.0]), slow.mlkd(student, teacher, [4.0])),
    ):
        assert ours.item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("objective", [mse, margin_mse, bckd, uld, mlkd, cwtm, std_ce, label_mse, abkd])
def test_their_gradients_equal_finite_differences(batch, objective):
    student, teacher, labels = batch
    assert torch.autograd.gradcheck(lambda z: objective(z, teacher, labels), student)


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_bckd_pulls_at_nothing_where_both_agree(batch, beta, kind):
    student = batch[0].detach().to(kind).requires_grad_()
    (gradient,) = torch.autograd.grad(bckd(student, student.detach(), beta=beta), student)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("classes", [5, 9])
def test_uld_fills_the_smaller_of_two_class_counts_with_zeros(batch, classes):
    teacher = torch.randn(8, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert uld(batch[0], teacher).item() == pytest.approx(slow.uld(batch[0].tolist(), teacher.tolist(), 1.0), abs=1e-10)


@pytest.mark.parametrize("proposal_temperature", [1.0, 1.7])
def test_rs_kd_weighs_the_classes_that_were_drawn(batch, proposal_temperature):
    student, teacher, _ = batch
    torch.manual_seed(3)
    proposal = F.log_softmax(teacher / proposal_temperature, dim=1).exp()
    drawn = torch.multinomial(proposal, 6, replacement=True).tolist()
    expected = slow.rs_kd(student.tolist(), teacher.tolist(), drawn, proposal_temperature)
    torch.manual_seed(3)
    ours = rs_kd(student, teacher, draws=6, proposal_temperature=proposal_temperature)
    assert ours.item() == pytest.approx(expected, abs=1e-10)


def test_gradients_of_rs_kd_are_those_of_kd_in_expectation(batch):
    student, teacher, _ = batch
    many = student.detach().repeat(1000, 1).requires_grad_()
    torch.manual_seed(0)
    rs_kd(many, teacher.repeat(1000, 1), draws=20).backward()
    kd(student, teacher, temperature=1.0).backward()
    difference = many.grad.view(1000, 8, 7).sum(0) - student.grad
    assert difference.abs().max() < 1e-3 < student.grad.abs().max()  # one standard error is at most 0.5 / 8 / 141


def test_mse_is_twice_the_limit_of_kd_at_high_temperature(batch):
    student, teacher = (z - z.mean(1, keepdim=True) for z in batch[:2])
    assert kd(student, teacher, temperature=1e4).item() == pytest.approx(mse(student, teacher).item() / 2, rel=1e-3)


@pytest.mark.parametrize("alpha, beta", [(1.0, 0.0), (0.0, 1.0), (0.6, 0.0), (0.0, 0.6)])
def test_abkd_at_its_ends_is_the_limit_and_a_kl(batch, alpha, beta):
    end = abkd(*batch, alpha=alpha, beta=beta, temperature=2.0).item()
    near = abkd(*batch, alpha=max(alpha, 1e-5), beta=max(beta, 1e-5), temperature=2.0).item()
    assert near == pytest.approx(end, rel=1e-3)
    if 1 in (alpha, beta):
        kind = "forward" if alpha else "reverse"
        assert 4 * end == pytest.approx(kd(*batch, temperature=2.0, kind=kind).item(), abs=1e-10)


def test_dkpp_keeps_the_teachers_largest_class_and_its_doubt_but_not_where_it_lies(batch):
    _, teacher, _ = batch
    student = torch.zeros_like(teacher).requires_grad_()
    loss = dkpp(student, teacher)
    loss.backward()
    told = softmax_of(student.grad, len(teacher))
    expected = teacher.softmax(1)
    assert torch.equal(told.argmax(1), expected.argmax(1))
    torch.testing.assert_close(told.sort(1).values, expected.sort(1).values)
    assert (told - expected).abs().max() > 1e-3


def softmax_of(gradient, n):
    """What a uniform student is told, from the gradient of its loss: (1/classes - told) / n."""
    return 1 / gradient.shape[1] - n * gradient


def test_dkpp_permutes_evenly():
    teacher = torch.tensor([[4.0, 0.0, 1.0, 2.0]]).double().repeat(6000, 1)
    student = torch.zeros_like(teacher).requires_grad_()
    torch.manual_seed(0)
    dkpp(student, teacher).backward()
    told = softmax_of(student.grad, len(teacher))
    assert torch.equal(told.argmax(1), torch.zeros(6000, dtype=torch.long))
    orders = told[:, 1:].argsort(1)
    counts = torch.bincount(orders[:, 0] * 9 + orders[:, 1] * 3 + orders[:, 2])
    counts = counts[counts > 0]
    assert len(counts) == 6 and (counts - 1000).abs().max() < 150  # five standard deviations of a count of 1,000


def test_taid_follows_the_formula_where_it_runs_ahead_of_its_line():
    generator = torch.Generator().manual_seed(0)
    # batches that get easier, so that the loss falls
    batches = [torch.randn(2, 4, 5, generator=generator).double() * (3 - 0.3 * i) for i in range(8)]
    settings = {"start": 0.2, "end": 0.9, "alpha": 0.4, "beta": 0.5}
    expected = slow.taid([(s.tolist(), t.tolist()) for s, t in batches], steps=40, **settings)
    taid = combine({"name": "taid", **settings}).prepare(*batches[0], steps=40).double()
    ours = [taid(s, t, None, step=step)[1] for step, (s, t) in enumerate(batches, start=1)]
    np.testing.assert_allclose([[v["taid"], v["taid/t"]] for v in ours], expected, rtol=0, atol=1e-6)
    assert expected[-1][1] > 0.2 + 0.7 * 8 / 40 + 0.1  # ahead of the line


def test_ctkd_learns_a_temperature_that_makes_the_loss_larger(batch):
    student, teacher, labels = (batch[0].detach(), *batch[1:])
    ctkd = CTKD().double()
    optimiser = torch.optim.SGD(ctkd.parameters(), lr=20.0)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = ctkd(student, teacher, labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses) and losses[-1] > losses[0] + 1e-2
    fixed = kd(student, teacher, temperature=ctkd.temperature.item())
    assert ctkd(student, teacher).item() == pytest.approx(fixed.item(), abs=1e-12)
    optimiser.zero_grad()
    ctkd(student, teacher, reversal=0.0).backward()
    assert ctkd.theta.grad == 0  # the curriculum begins with a temperature that stays


# ---- what holds for every objective on logits


@pytest.mark.parametrize("name, settings", VARIANTS)
def test_losses_are_float32_or_better_whatever_the_models_ran_in(batch, name, settings):
    student, teacher, labels = batch
    loss = ready({"name": name, **settings})
    assert loss(*batch).dtype == torch.float64
    half = student.bfloat16(), teacher.bfloat16(), labels
    single = loss(*half)
    assert single.dtype == torch.float32
    if name not in DRAWS:  # the same seed draws other classes in another precision
        assert single.item() == pytest.approx(loss(half[0].double(), half[1].double(), labels).item(), rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(*half).item() == single.item()
        objective = objectives.get(name)
        if not isinstance(objective, nn.Module):
            assert objective(*half, **settings).dtype == torch.float32


EXTREME = {
    "certain and wrong": (1e4 * torch.eye(4)[[1, 2, 3, 0]], 1e4 * torch.eye(4)),
    "certain and right": (1e4 * torch.eye(4), 1e4 * torch.eye(4)),
    "one class for all": (1e4 * torch.eye(4)[[2, 2, 2, 2]], torch.zeros(4, 4)),
    "against certainty": (torch.zeros(4, 4), -1e4 * torch.eye(4)),
    "wide": (1e4 * torch.linspace(-1, 1, 16).view(4, 4), -1e4 * torch.linspace(-1, 1, 16).view(4, 4)),
}


@pytest.mark.parametrize("name, settings", [*VARIANTS, ("dkd", {"temperature": 1.0}), ("nkd", {"temperature": 4.0})])
@pytest.mark.parametrize("case", EXTREME)
def test_logits_of_ten_thousand_give_finite_losses_and_gradients(name, settings, case):
    student, teacher = EXTREME[case]
    student = student.clone().requires_grad_()
    loss = ready({"name": name, **settings}, classes=4)(student, teacher, torch.arange(4))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("name", ON_LOGITS)
def test_only_the_student_is_trained_and_taps_count_as_logits(batch, name):
    student, teacher, labels = batch
    teacher.requires_grad_()
    loss = ready(name)
    bare = loss(student, teacher, labels)
    bare.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert loss(Output(student, student), Output(teacher, teacher), labels).item() == bare.item()
    objective = objectives.get(name)
    if not isinstance(objective, nn.Module):  # called by itself too
        objective(student, teacher, labels).backward()
        assert teacher.grad is None


@pytest.mark.parametrize("name, settings", VARIANTS)
def test_the_teacher_is_where_the_formula_says_the_optimum_is(batch, name, settings):
    _, teacher, labels = batch
    if name in OTHER_OPTIMUM:
        return
    student = OPTIMUM.get(name, torch.clone)(teacher).requires_grad_()
    loss = ready({"name": name, "weight": 1.0, **settings})
    value = loss(student, teacher, labels)
    value.backward()
    assert student.grad.abs().max() < 1e-7
    away = loss(student.detach() + torch.linspace(-1, 1, 56).view(8, 7), teacher, labels)
    if name not in ENTROPY_LEFT:
        assert abs(value.item()) < 1e-6 < 1e-4 < away.item()


@pytest.mark.parametrize("name", [n for n in ON_LOGITS if n not in DRAWS])
def test_the_order_of_the_batch_does_not_matter(batch, name):
    order, loss = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4]), ready(name)
    assert loss(*(t[order] for t in batch)).item() == pytest.approx(loss(*batch).item(), rel=1e-12)


@pytest.mark.parametrize("name", [n for n in ON_LOGITS if n not in ANY_CLASSES])
def test_a_teacher_of_other_classes_is_a_sentence_before_and_at_the_first_batch(batch, name):
    sentence = "Teacher gives 9 classes, student 7. Was the teacher trained on another dataset?"
    for go_wrong in (
        lambda: combine(name).prepare(torch.zeros(2, 7), torch.zeros(2, 9), steps=10),
        lambda: ready(name)(batch[0], torch.zeros(8, 9), batch[2]),
    ):
        with pytest.raises(ValueError) as problem:
            go_wrong()
        assert str(problem.value) == sentence


@pytest.mark.parametrize("name", ON_LOGITS)
def test_inputs_that_are_not_there_are_a_sentence(batch, name):
    student, teacher, labels = batch
    for what, given in (("teacher", (student, None, labels)), ("labels", (student, teacher, None))):
        if what in REGISTRY.about(name).needs:
            with pytest.raises(
                ValueError, match=rf"The objectives \['{name}'\] need {what}, which is None; pass {what}."
            ):
                ready(name)(*given)
        else:
            assert ready(name)(*given).isfinite()


@pytest.mark.parametrize("name", ON_LOGITS)
def test_soft_labels_count_as_their_largest_class_or_are_not_read(batch, name):
    student, teacher, labels = batch
    soft = F.one_hot(labels, 7).double() * 0.9 + 0.1 / 7
    scaled = student / student.std(1, keepdim=True)
    as_they_are = {
        "ce": lambda: ce(student, None, labels, label_smoothing=0.1),
        "std_ce": lambda: ce(scaled, None, labels, label_smoothing=0.1),
        "label_mse": lambda: (student - soft).square().mean(),
    }
    expected = as_they_are.get(name, lambda: ready({"name": name, "weight": 1.0})(*batch))()
    loss = ready({"name": name, "weight": 1.0})
    assert loss(student, teacher, soft).item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("name", list(REGISTRY))
def test_every_objective_says_what_it_is_and_where_it_is_from(name):
    about = REGISTRY.about(name)
    assert REGISTRY.get(name).__doc__.strip() and about.kind and about.needs and about.weight > 0
    assert name == "ce" or any(where in about.source for where in ("arXiv", "CVPR", "TMLR"))
    if name != "vl2v":  # which learns from a file: test_embeddings.py
        assert combine(name).specs == combine(combine(name).specs).specs  # a recorded spec means what it meant

"""Objectives that match logits or probabilities of one example: class by class, split at the label, up to scale, over time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import counted, did_you_mean, not_negative, positive
from .base import hard, logit_pair, logits_of, objectives, others_of, target_of

KINDS = ("forward", "reverse", "jeffreys", "js")


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q)`` from log-probabilities (n, classes): summed over classes, mean over the batch, in nats."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def tempered_kl(z_s: Tensor, z_t: Tensor, temperature: float | Tensor, kind: str = "forward") -> Tensor:
    """``T^2`` times a divergence between ``softmax(z_t / T)`` and ``softmax(z_s / T)``, in nats: the core of ``kd``."""
    log_s, log_t = F.log_softmax(z_s / temperature, dim=1), F.log_softmax(z_t / temperature, dim=1)
    if kind == "forward":
        divergence = kl(log_t, log_s)
    elif kind == "reverse":
        divergence = kl(log_s, log_t)
    elif kind == "jeffreys":
        divergence = kl(log_t, log_s) + kl(log_s, log_t)
    else:
        log_mixture = torch.logaddexp(log_s, log_t) - math.log(2)
        divergence = (kl(log_t, log_mixture) + kl(log_s, log_mixture)) / 2
    return temperature**2 * divergence


@objectives.declare(kind="labels", needs="labels", source="cross-entropy with the labels")
def ce(student, teacher, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the student's logits with the labels, hard or soft, nats per example; no teacher.

    label_smoothing  share of each label spread evenly over all classes, from 0 up to, not including, 1
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is from 0 up to, not including, 1; got {label_smoothing}.")
    labels = labels if labels.is_floating_point() else labels.long()
    return F.cross_entropy(logits_of(student), labels, label_smoothing=label_smoothing)


@objectives.declare(kind="logits", needs="teacher", source="Hinton et al. 2015, arXiv 1503.02531, section 2")
def kd(student, teacher, labels: Tensor | None = None, *, temperature: float = 5.0, kind: str = "forward") -> Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``, summed over classes, mean over the batch, in nats.

    No labels and no cross-entropy: alone this is the pure-KL objective of the WAKD paper (arXiv 2309.11446, section 3),
    whose temperature is the default. Common recipes weigh it 0.9 next to 0.1 ``ce``, at T = 4.

    kind  "forward" as above; "reverse" ``KL(student || teacher)``, which seeks modes (MiniLLM, arXiv 2306.08543);
          "jeffreys" the sum of both (PaddleClas trains on half of it under the name JS); "js" the Jensen-Shannon
          divergence, the mean of both ``KL(. || mixture)``, at most ``T^2 log 2`` (GKD, arXiv 2306.13649, beta = 1/2)

    Published variants that divide by the number of classes as well (DeiT's soft loss) are this over ``classes``;
    variants that leave out the teacher's entropy have the same gradient and another value.
    """
    positive(temperature=temperature)
    if kind not in KINDS:
        raise ValueError(did_you_mean("kind of kd", kind, KINDS))
    return tempered_kl(*logit_pair(student, teacher), temperature, kind)


@objectives.declare(kind="logits", needs="teacher", source="Kim et al. 2021, arXiv 2105.08919")
def mse(student, teacher, labels: Tensor | None = None) -> Tensor:
    """Mean squared difference of the logits, over examples and classes (Ba and Caruana 2014, arXiv 1312.6184).

    For logits whose mean over classes is zero it is twice the limit of ``kd`` at high temperature.
    """
    return F.mse_loss(*logit_pair(student, teacher))


@objectives.declare(kind="logits", needs="labels teacher", source="Hofstätter et al. 2020, arXiv 2010.02666")
def margin_mse(student, teacher, labels: Tensor) -> Tensor:
    """Mean squared difference of the margins: the label's logit minus that of each other class.

    The paper ranks passages: one relevant, one not. Here every other class is the one that is not, all weighing alike.
    Logits may differ by a constant per example at no cost.
    """
    labels = hard(labels)
    margin_s, margin_t = (target_of(z, labels)[:, None] - others_of(z, labels) for z in logit_pair(student, teacher))
    return F.mse_loss(margin_s, margin_t)


@objectives.declare(kind="logits", needs="teacher", source="BCKD, Yang et al. 2023, arXiv 2308.14286")
def bckd(student, teacher, labels: Tensor | None = None, *, beta: float = 1.0) -> Tensor:
    """Each class as a yes or no of its own: binary cross-entropy between sigmoids, in nats, weighed by their distance.

    ``sum_c |sigma(t_c) - sigma(s_c)|^beta BCE(sigma(s_c), sigma(t_c))``, mean over the batch. As published, the
    gradient goes through the weight too. The paper's detectors divide by the number of positive boxes instead of the
    batch. Softmax ignores a shift of all logits, this does not: for students that are read through a sigmoid.
    Equal sigmoids pull at nothing, also where ``beta`` is below 1 and the published gradient is no number.
    """
    positive(beta=beta)
    z_s, z_t = logit_pair(student, teacher)
    distance = (z_t.sigmoid() - z_s.sigmoid()).abs()
    distance = distance.clamp_min(torch.finfo(distance.dtype).tiny)
    cross_entropy = F.binary_cross_entropy_with_logits(z_s, z_t.sigmoid(), reduction="none")
    return (distance**beta * cross_entropy).sum(1).mean()


@objectives.declare(kind="logits", needs="teacher", source="RS-KD, Anshumann et al. 2025, arXiv 2503.16870")
def rs_kd(
    student, teacher, labels: Tensor | None = None, *, draws: int = 50, proposal_temperature: float = 1.0
) -> Tensor:
    """``KL(drawn teacher || student)``: classes are drawn from the teacher, with replacement, instead of kept in full.

    A class drawn k times weighs ``k p / q``, normalised, where p is the teacher and q its softmax at
    ``proposal_temperature``. At 1, as published, gradients are those of ``kd`` at temperature 1 in expectation, so what
    has to be stored of a teacher of many classes is a few draws. The value is larger than KL by the noise of the draws,
    also at the teacher. Draws come from torch's global generator, which the training loop seeds at every step.
    """
    counted(draws=draws)
    positive(proposal_temperature=proposal_temperature)
    z_s, z_t = logit_pair(student, teacher)
    log_q = F.log_softmax(z_t / proposal_temperature, dim=1)
    classes = torch.multinomial(log_q.exp(), draws, replacement=True)
    counts = torch.zeros_like(z_t).scatter_add_(1, classes, torch.ones_like(classes, dtype=z_t.dtype))
    # a ratio of far-away temperatures overflows before it is normalised, so it is normalised in log space
    drawn = F.softmax(counts.log() + F.log_softmax(z_t, dim=1) - log_q, dim=1)
    return F.kl_div(F.log_softmax(z_s, dim=1), drawn, reduction="batchmean")


def decoupled_kl(z_s: Tensor, z_t: Tensor, labels: Tensor, *, temperature: float, alpha: float, beta: float) -> Tensor:
    """``T^2 [alpha KL(b_t || b_s) + beta KL(o_t || o_s)]``: b is (label, not label), o the other classes."""
    label_or_not, others = [], []
    for z in (z_s / temperature, z_t / temperature):
        rest = others_of(z, labels)
        # both probabilities from logits, never log(1 - p): p rounds to one for a confident model
        whole, not_label = z.logsumexp(1), rest.logsumexp(1)
        label_or_not.append(torch.stack([target_of(z, labels) - whole, not_label - whole], dim=1))
        others.append(F.log_softmax(rest, dim=1))
    (b_s, b_t), (o_s, o_t) = label_or_not, others
    return temperature**2 * (alpha * kl(b_t, b_s) + beta * kl(o_t, o_s))


@objectives.declare(kind="logits", needs="labels teacher", source="DKD, Zhao et al. 2022, arXiv 2203.08679, equation 7")
def dkd(student, teacher, labels: Tensor, *, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0) -> Tensor:
    """Decoupled KD: ``alpha`` times the KL of (label, not label), ``beta`` times that among the other classes, in nats.

    Plain ``kd`` weighs the second by the teacher's doubt, ``1 - p_t(label)``. Defaults are those for CIFAR-100; beta is
    0.5 to 8 by pair there, ImageNet and OFA-KD use T = 1 with beta 0.5 to 2. The published trainer warms the weight up
    over 20 of 240 epochs, which here is ``"schedule": {"end": 20 / 240}``. Published code takes the logarithm of
    rounded probabilities, which is infinite for a confident student at T = 1. With two classes only the first part is
    left.
    """
    positive(temperature=temperature)
    not_negative(alpha=alpha, beta=beta)
    z_s, z_t = logit_pair(student, teacher)
    return decoupled_kl(z_s, z_t, hard(labels), temperature=temperature, alpha=alpha, beta=beta)


@objectives.declare(kind="logits", needs="labels teacher", source="NKD, Yang et al. 2023, arXiv 2303.13005")
def nkd(student, teacher, labels: Tensor, *, temperature: float = 1.0, gamma: float = 1.5) -> Tensor:
    """Normalised KD: ``-p_t(y) log p_s(y) - gamma T^2 sum_c o_t(c) log o_s(c)``, mean over the batch, in nats.

    y is the label, o the softmax over the other classes, so that both sum to one. The first part is always at T = 1.
    Cross entropies, not divergences: it is not zero, and its first part not least, at the teacher. Published next to
    ``ce``.
    """
    positive(temperature=temperature)
    not_negative(gamma=gamma)
    z_s, z_t = logit_pair(student, teacher)
    labels = hard(labels)
    target = -target_of(z_t.softmax(1), labels) * target_of(F.log_softmax(z_s, dim=1), labels)
    others_s, others_t = (others_of(z, labels) / temperature for z in (z_s, z_t))
    others = F.cross_entropy(others_s, others_t.softmax(1), reduction="none")
    return (target + gamma * temperature**2 * others).mean()


@objectives.declare(
    kind="logits", needs="labels teacher", source="WSLD, Zhou et al. 2021, arXiv 2102.00650", weight=2.25
)
def wsld(student, teacher, labels: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Soft labels weighed per example: ``T^2 w CE(softmax(teacher / T), softmax(student / T))``, mean, in nats.

    ``w = 1 - exp(-L_s / L_t)``, with L the cross-entropy of student and teacher with the label, not differentiated:
    what the student knows as well as the teacher already, counts little. Published next to ``ce``, with the default
    weight.
    """
    positive(temperature=temperature)
    z_s, z_t = logit_pair(student, teacher)
    labels = hard(labels)
    loss_s, loss_t = (F.cross_entropy(z.detach(), labels, reduction="none") for z in (z_s, z_t))
    share = 1 - torch.exp(-loss_s / (loss_t + 1e-7))  # the published guard against a teacher that is certain
    soft = F.cross_entropy(z_s / temperature, F.softmax(z_t / temperature, dim=1), reduction="none")
    return temperature**2 * (share * soft).mean()


def standardised(logits: Tensor) -> Tensor:
    """Each row of logits minus its mean, over its standard deviation (unbiased, as published)."""
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7)


@objectives.declare(kind="logits", needs="teacher", source="Sun et al. 2024, arXiv 2403.01427", weight=9.0)
def ls_kd(student, teacher, labels: Tensor | None = None, *, temperature: float = 2.0) -> Tensor:
    """``kd`` on standardised logits: order and relative distances count, the scale of the student's logits is free.

    So its probabilities mean nothing by themselves: judge calibration after rescaling. Published with the default
    weight next to 0.1 ``ce``; temperature 2 or 3 and weights of 1 to 18 by pair.
    """
    positive(temperature=temperature)
    z_s, z_t = logit_pair(student, teacher)
    return tempered_kl(standardised(z_s), standardised(z_t), temperature)


@objectives.declare(kind="logits", needs="labels teacher", source="Sun et al. 2024, arXiv 2403.01427", weight=9.0)
def ls_dkd(
    student, teacher, labels: Tensor, *, temperature: float = 2.0, alpha: float = 1.0, beta: float = 8.0
) -> Tensor:
    """``dkd`` on standardised logits, as in ``ls_kd``."""
    positive(temperature=temperature)
    not_negative(alpha=alpha, beta=beta)
    z_s, z_t = (standardised(z) for z in logit_pair(student, teacher))
    return decoupled_kl(z_s, z_t, hard(labels), temperature=temperature, alpha=alpha, beta=beta)


def transformed_kl(z_s: Tensor, z_t: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """``KL(softmax(gamma z_t) || softmax(z_s))`` per example, (n,), and the log of ``sum_c p_t(c)^gamma``, (n,)."""
    log_powers = gamma * F.log_softmax(z_t, dim=1)
    log_sum = log_powers.logsumexp(1)
    target = log_powers - log_sum[:, None]
    return F.kl_div(F.log_softmax(z_s, dim=1), target, reduction="none", log_target=True).sum(1), log_sum


@objectives.declare(
    kind="logits", needs="teacher", source="TTM, Zheng and Yang 2024, arXiv 2402.11148, equation 2", weight=45.0
)
def ttm(student, teacher, labels: Tensor | None = None, *, gamma: float = 0.1) -> Tensor:
    """``KL(p_t^gamma, normalised || softmax(student))``, mean over the batch, in nats: the student is not tempered.

    ``gamma`` is one over the teacher's temperature. No T^2; zero where the student's logits are gamma times the
    teacher's. Published next to ``ce``; gamma 0.1 and weight 45 are the authors' example.
    """
    positive(gamma=gamma)
    return transformed_kl(*logit_pair(student, teacher), gamma)[0].mean()


@objectives.declare(
    kind="logits", needs="teacher", source="WTTM, Zheng and Yang 2024, arXiv 2402.11148, section 4", weight=4.0
)
def wttm(student, teacher, labels: Tensor | None = None, *, gamma: float = 0.2) -> Tensor:
    """``ttm`` with each example weighed by ``sum_c p_t(c)^gamma``: more where the teacher is less certain, in nats.

    Gamma 0.2 and weight 4 are the authors' example, beside CRD.
    """
    positive(gamma=gamma)
    divergence, log_sum = transformed_kl(*logit_pair(student, teacher), gamma)
    return (log_sum.exp() * divergence).mean()


@objectives.declare(kind="logits", needs="teacher", source="ULD, Boizard et al. 2024, arXiv 2402.12030", weight=1.5)
def uld(
    student,
    teacher,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    standardise: bool = False,
    top: int | None = None,
) -> Tensor:
    """L1 distance between the sorted probabilities of both, summed over classes, mean over the batch; from 0 to 2.

    Made for two vocabularies that share no names: which class is which is not compared, and the smaller of two class
    counts is filled up with zeros; ``train`` asks for the same classes of teacher and student. So it transfers how certain
    to be, not of what; give it a ``ce`` beside it.
    InfiFusion (arXiv 2501.02795) divides each model's logits by their deviation over the classes first, around their mean
    (``standardise``), and of both keeps the ``top`` largest.
    """
    positive(temperature=temperature)
    z_s, z_t = logits_of(student), logits_of(teacher)
    if standardise:
        z_s, z_t = ((z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True).clamp(min=1e-6) for z in (z_s, z_t))
    if top is not None:
        counted(top=top)
        z_s, z_t = (z.topk(min(top, z.shape[1]), dim=1).values for z in (z_s, z_t))
    p_s, p_t = (F.softmax(z / temperature, dim=1) for z in (z_s, z_t))
    p_s, p_t = (p.sort(dim=1, descending=True).values for p in (p_s, p_t.detach()))
    most = max(p_s.shape[1], p_t.shape[1])
    p_s, p_t = (F.pad(p, (0, most - p.shape[1])) for p in (p_s, p_t))
    return (p_s - p_t).abs().sum(1).mean()


@objectives.declare(
    name="ctkd",
    kind="logits",
    needs="teacher",
    source="CTKD, Li et al. 2023, arXiv 2211.16231",
    weight=0.9,
    schedule={"of": "reversal", "end": 10 / 240, "shape": "cosine"},
)
class CTKD(nn.Module):
    """``kd`` at a learned temperature, ``T = lowest + span sigmoid(theta)``, which is trained to make the loss larger.

    One temperature for all examples ("Global-T"); T^2 is the learned one too. The optimiser of the student trains
    theta on the reversed gradient, ``reversal`` times; the curriculum raises that from 0 to 1 over the first 10 of 240
    epochs, which is the default schedule. As published theta begins at 1, so T at 15.6, and the weight is for 0.1
    ``ce`` beside it.
    """

    watched = ("temperature",)

    def __init__(self, *, lowest: float = 1.0, span: float = 20.0):
        super().__init__()
        positive(lowest=lowest, span=span)
        self.lowest, self.span = lowest, span
        self.theta = nn.Parameter(torch.ones(()))

    @property
    def temperature(self) -> Tensor:
        """The learned one, detached."""
        return self._at(self.theta.detach())

    def _at(self, theta: Tensor) -> Tensor:
        return self.lowest + self.span * theta.sigmoid()

    def forward(self, student, teacher, labels: Tensor | None = None, *, reversal: float = 1.0) -> Tensor:
        """``T^2 KL(teacher || student)`` at the learned temperature, mean over the batch, in nats."""
        not_negative(reversal=reversal)
        fixed = self.theta.detach()
        theta = fixed - reversal * (self.theta - fixed)  # the same value; its gradient is turned round
        return tempered_kl(*logit_pair(student, teacher), self._at(theta))


@objectives.declare(
    name="taid", kind="logits", needs="progress teacher", source="TAID, Shing et al. 2025, arXiv 2501.16937"
)
class TAID(nn.Module):
    """Cross-entropy with ``softmax((1 - t) student + t teacher)``, the student detached there; t grows over the run.

    t goes from ``start`` to ``end`` in a straight line, and ahead of it by ``alpha sigmoid(m) (1 - t)`` a step, where
    m is the moving average, with ``beta``, of the relative fall of the loss. The first step only remembers its loss.
    In nats, mean over the batch. As published it is a cross-entropy, whose value moves with t; the paper writes a
    divergence, with the same gradient. Theirs counts steps from 0, so its line is one step behind. t moves in training
    mode alone.
    """

    watched = ("t",)

    def __init__(self, *, start: float = 0.4, end: float = 1.0, alpha: float = 5e-4, beta: float = 0.99):
        super().__init__()
        if not 0 <= start < end <= 1:
            raise ValueError(f"taid goes from start to a larger end within 0 and 1; got {start} and {end}.")
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} of taid is from 0 to 1; got {value}.")
        self.start, self.end, self.alpha, self.beta = start, end, alpha, beta
        self.register_buffer("t", torch.tensor(start, dtype=torch.float32))
        self.register_buffer("previous_loss", torch.tensor(torch.inf))
        self.register_buffer("momentum", torch.tensor(0.0))

    def forward(self, student, teacher, labels: Tensor | None = None, *, progress: float) -> Tensor:
        """The cross-entropy at the present t, which then moves on."""
        z_s, z_t = logit_pair(student, teacher)
        target = F.softmax((1 - self.t) * z_s.detach() + self.t * z_t, dim=1)
        loss = F.cross_entropy(z_s, target)
        if self.training:
            self._advance(loss.detach(), progress)
        return loss

    def _advance(self, loss: Tensor, progress: float) -> None:
        known = self.previous_loss.isfinite()
        fall = (self.previous_loss - loss) / (self.previous_loss + 1e-15)
        momentum = self.beta * self.momentum + (1 - self.beta) * fall
        line = self.start + (self.end - self.start) * progress
        ahead = self.t + self.alpha * momentum.sigmoid() * (1 - self.t)
        # where(), not if: a branch on a value would make the device wait for it at every step
        self.t.copy_(torch.where(known, ahead.clamp(min=line).clamp(max=self.end), self.t))
        self.momentum.copy_(torch.where(known, momentum, self.momentum))
        self.previous_loss.copy_(loss)


@objectives.declare(
    kind="logits",
    needs="labels teacher",
    source="mAP@k coefficients, Carrino et al. 2023, arXiv 2309.17134; ccasimiro88/self-distillation-gxlt-qa@fedee2db",
)
def gated_kd(student, teacher, labels: Tensor, *, temperature: float = 2.0, k: int = 10) -> Tensor:
    """``kd`` times how well the teacher does on this batch: the mean of ``1 / rank`` of the label among its classes, in nats.

    A label below rank ``k`` counts as 0; with ten classes or fewer the gate never closes. Published on answers in texts, whose
    places are the classes, beside cross-entropy with the labels.
    """
    positive(temperature=temperature)
    counted(k=k)
    z_s, z_t = logit_pair(student, teacher)
    rank = 1 + (z_t > target_of(z_t, hard(labels))[:, None]).sum(1)
    gate = ((rank <= k) / rank.to(z_t.dtype)).mean()
    return gate * tempered_kl(z_s, z_t, temperature)


@objectives.declare(kind="logits", needs="teacher", source="ABKD, Wang et al. 2025, arXiv 2505.04560", weight=32.0)
def abkd(
    student,
    teacher,
    labels: Tensor | None = None,
    *,
    alpha: float = 0.8,
    beta: float = 0.3,
    temperature: float = 4.0,
) -> Tensor:
    """The alpha-beta divergence of teacher p and student q, both at ``temperature``, mean over the batch:
    ``sum_c p^(a+b) / (b (a+b)) + q^(a+b) / (a (a+b)) - p^a q^b / (a b)``.

    (1, 0) is the forward KL and (0, 1) the reverse one, as limits, in which the formula has its own form. Larger alpha makes up
    for large errors, larger beta trusts what the student is sure of. No ``T^2``: the released weight of 32 stands for it.
    Defaults are those of ResNet-56 and ResNet-20 on CIFAR-100. At alpha or beta 0 the released code divides by the other once, the limit
    twice, as here: they differ where that other is not 1.
    """
    not_negative(alpha=alpha, beta=beta)
    positive(temperature=temperature, **{"alpha + beta": alpha + beta})
    log_q, log_p = (F.log_softmax(z / temperature, dim=1) for z in logit_pair(student, teacher))
    both = alpha + beta
    p, q = (both * log_p).exp(), (both * log_q).exp()
    if beta == 0:
        values = (p * alpha * (log_p - log_q) - p + q) / alpha**2
    elif alpha == 0:
        values = (q * beta * (log_q - log_p) - q + p) / beta**2
    else:
        values = p / (beta * both) + q / (alpha * both) - (alpha * log_p + beta * log_q).exp() / (alpha * beta)
    return values.sum(1).mean()

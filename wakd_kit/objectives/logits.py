"""Objectives that match logits or probabilities class by class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import counted, did_you_mean, positive
from .base import hard, logit_pair, logits_of, others_of, target_of
from .registry import objectives

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
    """
    positive(beta=beta)
    z_s, z_t = logit_pair(student, teacher)
    distance = (z_t.sigmoid() - z_s.sigmoid()).abs()
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

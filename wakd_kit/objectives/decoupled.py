"""Objectives that treat the label's class and the others apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import not_negative, positive
from .base import hard, logit_pair, others_of, target_of
from .logits import kl
from .registry import objectives


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
    o_t = F.softmax(others_of(z_t, labels) / temperature, dim=1)
    log_o_s = F.log_softmax(others_of(z_s, labels) / temperature, dim=1)
    return (target - gamma * temperature**2 * (o_t * log_o_s).sum(1)).mean()


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
    soft = -(F.softmax(z_t / temperature, dim=1) * F.log_softmax(z_s / temperature, dim=1)).sum(1)
    return temperature**2 * (share * soft).mean()

"""Objectives that compare logits or probabilities up to their scale."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..names import not_negative, positive
from .base import hard, logit_pair
from .decoupled import decoupled_kl
from .logits import tempered_kl
from .registry import objectives


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


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation (n,) of each row of two (n, m) tensors; 0 where a row does not vary."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)


@objectives.declare(kind="logits", needs="teacher", source="DIST, Huang et al. 2022, arXiv 2205.10536", weight=2.0)
def dist(
    student,
    teacher,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """``T^2 [beta (1 - r over classes) + gamma (1 - r over examples)]``: mean Pearson correlations of probabilities.

    The first is a correlation per example (inter-class), the second per class (intra-class). It needs batches that are
    large next to the number of classes: a class that the batch lacks has a noisy correlation, one that does not vary at
    all counts as uncorrelated. T = 1 for ImageNet, 4 for CIFAR-100. Other ports clamp each norm and differ by 1e-6.
    """
    positive(temperature=temperature)
    not_negative(beta=beta, gamma=gamma)
    p_s, p_t = (F.softmax(z / temperature, dim=1) for z in logit_pair(student, teacher))
    over_classes, over_examples = pearson(p_s, p_t).mean(), pearson(p_s.T, p_t.T).mean()
    return temperature**2 * (beta * (1 - over_classes) + gamma * (1 - over_examples))

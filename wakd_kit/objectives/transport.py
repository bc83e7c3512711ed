"""Objectives that move one distribution onto the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import counted, positive
from .base import logit_pair, logits_of
from .registry import objectives


@objectives.declare(kind="logits", needs="teacher", source="ULD, Boizard et al. 2024, arXiv 2402.12030", weight=1.5)
def uld(student, teacher, labels: Tensor | None = None, *, temperature: float = 1.0) -> Tensor:
    """L1 distance between the sorted probabilities of both, summed over classes, mean over the batch; from 0 to 2.

    Made for two vocabularies that share no names: which class is which is not compared, and the smaller of two class
    counts is filled up with zeros. So it transfers how certain to be, not of what; give it a ``ce`` beside it.
    """
    positive(temperature=temperature)
    p_s, p_t = (F.softmax(logits_of(o) / temperature, dim=1) for o in (student, teacher))
    p_s, p_t = (p.sort(dim=1, descending=True).values for p in (p_s, p_t.detach()))
    most = max(p_s.shape[1], p_t.shape[1])
    p_s, p_t = (F.pad(p, (0, most - p.shape[1])) for p in (p_s, p_t))
    return (p_s - p_t).abs().sum(1).mean()


def sinkhorn(cost: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Plan (n, n) between two batches: ``exp(-cost / epsilon)``, rows and then columns summed to 1 in turn, in log space."""
    log_plan = -cost / epsilon
    for _ in range(iterations):
        log_plan = F.log_softmax(F.log_softmax(log_plan, dim=1), dim=0)
    return log_plan.exp()


@objectives.declare(kind="relations", needs="teacher", source="SinKD, Cui et al. 2024, arXiv 2402.17110", weight=8e-4)
def sinkd(
    student,
    teacher,
    labels: Tensor | None = None,
    *,
    temperature: float = 2.0,
    epsilon: float = 0.1,
    iterations: int = 20,
) -> Tensor:
    """Sinkhorn transport between the batch of student and the batch of teacher probabilities, summed over the batch.

    The cost of a pair of examples is the L1 distance of their probabilities; the plan starts from ``exp(-cost /
    epsilon)`` and its rows and columns are normalised in turn. Here in log space, with the same values. Published for
    language tasks, weight 0.8 times a constant 0.001 beside ``kd``; its code has T = 2 fixed. Since the plan is
    blurred by epsilon, it is neither zero nor least at the teacher.
    """
    positive(temperature=temperature, epsilon=epsilon)
    counted(iterations=iterations)
    p_s, p_t = (F.softmax(z / temperature, dim=1) for z in logit_pair(student, teacher))
    cost = torch.cdist(p_s, p_t, p=1)
    return (sinkhorn(cost, epsilon, iterations) * cost).sum()

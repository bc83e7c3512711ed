"""Objectives that temper the teacher alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..names import positive
from .base import logit_pair
from .registry import objectives


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

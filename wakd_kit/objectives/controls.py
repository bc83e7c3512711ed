"""Controls beside ``kd`` and ``ce``: what remains when one ingredient of a teacher, or of a label, is left out or weighed otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import not_negative, positive
from .base import hard, logit_pair, logits_of, objectives
from .logits import kl


@objectives.declare(
    kind="labels", needs="labels teacher", source="BAN, Furlanello et al. 2018, arXiv 1805.04770, section 3.2"
)
def cwtm(student, teacher, labels: Tensor) -> Tensor:
    """Cross-entropy with the labels, in nats, each example as heavy as the teacher is confident ("confidence-weighted by
    teacher max"): weights ``max p_t`` over their sum in the batch.

    Nothing else of the teacher reaches the student, so what it gains over ``ce`` is not dark knowledge.
    """
    z_s, z_t = logit_pair(student, teacher)
    confidence = F.softmax(z_t, dim=1).amax(1)
    return (confidence / confidence.sum() * F.cross_entropy(z_s, hard(labels), reduction="none")).sum()


@objectives.declare(kind="logits", needs="teacher", source="BAN, Furlanello et al. 2018, arXiv 1805.04770, section 3.2")
def dkpp(student, teacher, labels: Tensor | None = None) -> Tensor:
    """``KL(teacher || student)`` at T = 1, in nats, the teacher's probabilities but its largest permuted example by example
    ("dark knowledge with permuted predictions").

    How sure the teacher is and how its doubt is spread stay; which classes are alike is lost. Permutations come from
    torch's global generator, which the training loop seeds at every step.
    """
    z_s, z_t = logit_pair(student, teacher)
    log_t = F.log_softmax(z_t, dim=1)
    order = torch.rand_like(z_t).argsort(1)
    # where the largest would go, what would come to its place goes: it stays, the others are permuted evenly
    top = log_t.argmax(1, keepdim=True)
    place = (order == top).int().argmax(1, keepdim=True)
    order = order.scatter(1, place, order.gather(1, top)).scatter(1, top, top)
    return kl(log_t.gather(1, order), F.log_softmax(z_s, dim=1))


@objectives.declare(kind="labels", needs="labels", source="MIX-KD, Choi et al. 2023, arXiv 2211.03946, released code")
def std_ce(student, teacher, labels: Tensor) -> Tensor:
    """Cross-entropy, in nats, of ``softmax(z / std(z))``: logits of every example over their standard deviation (unbiased).

    Published 0.1 times beside 0.9 times ``ls_kd`` at temperature 1, which is the method's term for the teacher. Labels may be
    soft. As released, the gradient goes through the deviation too.
    """
    labels = labels if labels.is_floating_point() else labels.long()
    z_s = logits_of(student)
    return F.cross_entropy(z_s / z_s.std(1, keepdim=True).clamp(min=1e-7), labels)


@objectives.declare(kind="labels", needs="labels", source="LFME, Chen et al. 2024, arXiv 2410.17020")
def label_mse(student, teacher, labels: Tensor) -> Tensor:
    """Mean squared difference of the logits and the labels, 0 and 1, over examples and classes; no teacher.

    Beside ``ce``, times 0.01 to 10, it is the baseline that LFME's authors call a free lunch: it keeps logits from growing.
    """
    z_s = logits_of(student)
    soft = labels if labels.is_floating_point() else F.one_hot(labels.long(), z_s.shape[1])
    return F.mse_loss(z_s, soft.to(z_s.dtype))


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

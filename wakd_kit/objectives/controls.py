"""Controls beside ``kd`` and ``ce``: what remains when one ingredient of a teacher, or of a label, is left out or weighed otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import hard, logit_pair, logits_of, objectives
from .logits import kl


@objectives.declare(
    kind="controls", needs="labels teacher", source="BAN, Furlanello et al. 2018, arXiv 1805.04770, section 3.2"
)
def cwtm(student, teacher, labels: Tensor) -> Tensor:
    """Cross-entropy with the labels, in nats, each example as heavy as the teacher is confident ("confidence-weighted by
    teacher max"): weights ``max p_t`` over their sum in the batch.

    Nothing else of the teacher reaches the student, so what it gains over ``ce`` is not dark knowledge.
    """
    z_s, z_t = logit_pair(student, teacher)
    confidence = F.softmax(z_t, dim=1).amax(1)
    return (confidence / confidence.sum() * F.cross_entropy(z_s, hard(labels), reduction="none")).sum()


@objectives.declare(
    kind="controls", needs="teacher", source="BAN, Furlanello et al. 2018, arXiv 1805.04770, section 3.2"
)
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


@objectives.declare(kind="controls", needs="labels", source="MIX-KD, Choi et al. 2023, arXiv 2211.03946, released code")
def std_ce(student, teacher, labels: Tensor) -> Tensor:
    """Cross-entropy, in nats, of ``softmax(z / std(z))``: logits of every example over their standard deviation (unbiased).

    Published 0.1 times beside 0.9 times ``ls_kd`` at temperature 1, which is the method's term for the teacher. Labels may be
    soft. As released, the gradient goes through the deviation too.
    """
    labels = labels if labels.is_floating_point() else labels.long()
    z_s = logits_of(student)
    return F.cross_entropy(z_s / z_s.std(1, keepdim=True).clamp(min=1e-7), labels)


@objectives.declare(kind="controls", needs="labels", source="LFME, Chen et al. 2024, arXiv 2410.17020")
def label_mse(student, teacher, labels: Tensor) -> Tensor:
    """Mean squared difference of the logits and the labels, 0 and 1, over examples and classes; no teacher.

    Beside ``ce``, times 0.01 to 10, it is the baseline that LFME's authors call a free lunch: it keeps logits from growing.
    """
    z_s = logits_of(student)
    soft = labels if labels.is_floating_point() else F.one_hot(labels.long(), z_s.shape[1])
    return F.mse_loss(z_s, soft.to(z_s.dtype))

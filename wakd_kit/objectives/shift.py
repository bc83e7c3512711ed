"""Objectives made for domains that nobody has seen."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..models.tails import with_two_heads
from ..names import positive
from .base import class_means, hard, logit_pair, logits_of, objectives, widened
from .logits import tempered_kl


@objectives.declare(kind="domain shift", needs="labels", source="XDED, Lee et al. 2022, arXiv 2211.14058", weight=5.0)
def xded(student, teacher, labels: Tensor, *, temperature: float = 4.0) -> Tensor:
    """``T^2 KL(softmax(mean of the class / T) || softmax(student / T))``, mean over the batch, in nats; no teacher.

    Every example learns from the student's mean logits of its class in the batch, its own among them, over all domains
    there, not differentiated. An example that is alone in its class adds nothing, so train with ``sampling="classes"``,
    batches of 16 images a class over all domains as published. Published next to ``ce``, in a student without style in its first
    stages: ``build_model(..., inside={"after": [0, 1], "name": "unistyle"})``.
    """
    positive(temperature=temperature)
    z, labels = logits_of(student), hard(labels)
    means, _ = class_means(z.detach(), labels, z.shape[1])
    return tempered_kl(z, means[labels], temperature)


def two_heads(
    z_labels: Tensor, z_teacher: Tensor, teacher: Tensor, labels: Tensor, *, share: float, temperature: float
) -> Tensor:
    """``share CE(labels' head) + (1 - share) T^2 KL(teacher || teacher's head)``."""
    return share * F.cross_entropy(z_labels, labels) + (1 - share) * tempered_kl(z_teacher, teacher, temperature)


@objectives.declare(
    kind="domain shift",
    needs="labels teacher student.parts",
    source="DHO, Kang et al. 2025, arXiv 2505.07675",
    tail=with_two_heads,
)
def dho(student, teacher, labels: Tensor, *, temperature: float = 2.0, share: float = 0.5) -> Tensor:
    """One head learns from labels, a second one from the teacher; what is deployed mixes their probabilities.

    Meant to be the only objective: ``share`` of it is cross-entropy, the rest distillation at this temperature. Of soft
    labels the largest class counts.
    ``train`` puts the second head on the student, so it is recorded and averaged with it, and chooses how the heads are
    mixed on source validation where a segment ends. The paper distils on unlabelled images as well, of which there are
    none here.
    """
    positive(temperature=temperature)
    if not 0 <= share <= 1:
        raise ValueError(f"share of dho is from 0 to 1; got {share}.")
    z_labels, z_teacher = student.parts
    z_teacher, z_t = logit_pair(z_teacher, teacher)
    return two_heads(widened(z_labels), z_teacher, z_t, hard(labels), share=share, temperature=temperature)

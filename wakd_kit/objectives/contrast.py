"""Objectives that tell an example's own teacher feature from those of other examples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ..names import counted, not_negative, positive
from .base import hard, pooled_pair
from .registry import objectives
from .transport import sinkhorn


def others(labels: Tensor) -> Tensor:
    """True (n, n) where two examples differ in class."""
    return labels[:, None] != labels


@objectives.declare(
    name="crd",
    kind="contrast",
    needs="labels teacher pooled",
    source="CRD, Tian et al. 2020, arXiv 1910.10699; in the batch, by InfoNCE",
    weight=0.8,
)
class CRD(nn.Module):
    """How hard it is to find an example's teacher feature among those of other classes in the batch, and the reverse.

    Cosines of embeddings in ``dimensions``, over ``temperature``, in a cross-entropy (InfoNCE, arXiv 1807.03748) that is
    summed over both directions. Published CRD, ``crd_memory``, draws its negatives from a memory of the whole training
    set. Here there is no state beside the two embeddings, and the more classes a batch has, the more there is to learn.
    """

    def __init__(self, pair, *, dimensions: int = 128, temperature: float = 0.07):
        super().__init__()
        counted(dimensions=dimensions)
        positive(temperature=temperature)
        self.temperature = temperature
        self.ours = nn.Linear(pair.student.pooled.shape[1], dimensions)
        self.theirs = nn.Linear(pair.teacher.pooled.shape[1], dimensions)

    def forward(self, student, teacher, labels: Tensor) -> Tensor:
        """In nats, mean over the batch; zero where all examples are of one class."""
        f_s, f_t = pooled_pair(student, teacher)
        s, t = F.normalize(self.ours(f_s), dim=1), F.normalize(self.theirs(f_t), dim=1)
        return info_nce(s @ t.T / self.temperature, hard(labels))


def info_nce(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of (n, n) scores with their diagonal, among it and examples of other classes; of rows plus columns."""
    own = torch.arange(len(scores), device=scores.device)
    same = ~others(labels) & (own[:, None] != own)
    kept = scores.masked_fill(same, -torch.inf)
    return F.cross_entropy(kept, own) + F.cross_entropy(kept.T, own)


@objectives.declare(
    name="wcord_in_batch",
    kind="contrast",
    needs="labels teacher pooled",
    source="WCoRD, Chen et al. 2021, arXiv 2012.08674; global term in the batch",
)
class WCoRDInBatch(nn.Module):
    """Wasserstein contrast: a critic on pairs of features, and transport between the features of the batch.

    ``global_weight`` times the critic's mean on pairs of other classes minus its mean on an example's own pair: the
    dual form of the Wasserstein distance between both kinds of pair, whose critic may not be steep. The critic is the
    cosine of two embeddings under spectral normalisation. Plus ``local_weight`` times the cost of moving one model's
    embeddings onto the other's, ``1 - cosine`` under a Sinkhorn plan: the primal form. The paper's global term draws its
    negatives from a memory of the training set, here they are the batch's. No published code is known to us, and
    the default weights and epsilon were not checked against the paper.
    """

    def __init__(
        self,
        pair,
        *,
        dimensions: int = 128,
        global_weight: float = 0.8,
        local_weight: float = 0.05,
        epsilon: float = 0.05,
        iterations: int = 20,
    ):
        super().__init__()
        counted(dimensions=dimensions, iterations=iterations)
        not_negative(global_weight=global_weight, local_weight=local_weight)
        positive(epsilon=epsilon)
        self.global_weight, self.local_weight = global_weight, local_weight
        self.epsilon, self.iterations = epsilon, iterations
        self.ours = parametrizations.spectral_norm(nn.Linear(pair.student.pooled.shape[1], dimensions))
        self.theirs = parametrizations.spectral_norm(nn.Linear(pair.teacher.pooled.shape[1], dimensions))

    def forward(self, student, teacher, labels: Tensor) -> Tensor:
        """The weighted sum; its global part is between -2 and 2 times its weight."""
        f_s, f_t = pooled_pair(student, teacher)
        cosines = F.normalize(self.ours(f_s), dim=1) @ F.normalize(self.theirs(f_t), dim=1).T
        return self.global_weight * critic_gap(cosines, hard(labels)) + (
            self.local_weight * (sinkhorn(1 - cosines, self.epsilon, self.iterations) * (1 - cosines)).sum() / len(f_s)
        )


def critic_gap(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean of (n, n) scores over pairs of other classes, minus that of the diagonal."""
    negative = others(labels).to(scores.dtype)
    return (scores * negative).sum() / negative.sum().clamp(min=1) - scores.diagonal().mean()

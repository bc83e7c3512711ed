"""Objectives that tell an example's own teacher feature from those of others: in the batch, or in a memory of all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ..names import counted, not_negative, positive
from .base import hard, objectives, pooled_pair
from .relations import sinkhorn


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


def noise_contrast(likelihood: Tensor, examples: int) -> Tensor:
    """``-log D(own) - sum log(1 - D(other))``, mean over the batch, D = P / (P + m / n + 1e-7); own is the first column.

    likelihood  P, (batch, 1 + m) and not normalised over the n ``examples`` of the training set
    """
    noise = (likelihood.shape[1] - 1) / examples
    own, other = likelihood[:, :1], likelihood[:, 1:]
    log_own, log_other = (own / (own + noise + 1e-7)).log(), (noise / (other + noise + 1e-7)).log()
    return -(log_own.sum() + log_other.sum()) / len(likelihood)


@objectives.declare(
    name="crd_memory",
    kind="contrast",
    needs="teacher pooled index",
    source="CRD, Tian et al. 2020, arXiv 1910.10699",
    weight=0.8,
)
class CRDMemory(nn.Module):
    """``crd`` as published: each feature against a memory of the other model's embeddings of the whole training set.

    ``negatives`` of them, of other classes, drawn with replacement at every step, by noise-contrastive estimation; the
    constants that turn cosines into likelihoods are those of the first batch. The memory follows with ``momentum`` as
    examples are shown. It is of the source training images of one split: three tensors that a checkpoint holds and a
    resumed run continues from. Draws come from torch's global generator, which the training loop seeds at every step.
    """

    def __init__(
        self, pair, *, dimensions: int = 128, negatives: int = 16384, temperature: float = 0.07, momentum: float = 0.5
    ):
        super().__init__()
        counted(dimensions=dimensions, negatives=negatives)
        positive(temperature=temperature)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum of crd_memory is from 0 up to, not including, 1; got {momentum}.")
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        self.ours = nn.Linear(pair.student.pooled.shape[1], dimensions)
        self.theirs = nn.Linear(pair.teacher.pooled.shape[1], dimensions)
        self.register_buffer("constants", torch.full((2,), torch.nan))  # of the first batch, until there was one
        self.learn_examples(torch.tensor([0, 1]))

    def learn_examples(self, labels: Tensor, *_) -> None:
        """Begin a memory of training examples with these labels (n,); ``index`` counts them from 0."""
        bound = (3 / self.ours.out_features) ** 0.5
        for name in ("memory_ours", "memory_theirs"):
            start = torch.empty(len(labels), self.ours.out_features, dtype=self.ours.weight.dtype)
            self.register_buffer(name, start.uniform_(-bound, bound).to(self.ours.weight.device))
        labels = labels.to(self.ours.weight.device)
        counts = labels.bincount()
        if (counts > 0).sum() < 2:
            raise ValueError("crd_memory draws negatives of other classes, and all training images are of one class.")
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("by_class", labels.argsort(stable=True), persistent=False)
        self.register_buffer("counts", counts, persistent=False)

    def forward(self, student, teacher, labels: Tensor | None = None, *, index: Tensor) -> Tensor:
        """In nats, summed over both directions, mean over the batch; the memory moves in training mode alone."""
        drawn = torch.cat([index[:, None], self._of_other_classes(self.labels[index])], dim=1)
        return self.contrast(student, teacher, index, drawn)

    def _of_other_classes(self, labels: Tensor) -> Tensor:
        """Places (batch, negatives) of training examples of other classes, each as likely."""
        counts, ends = self.counts[labels, None], self.counts.cumsum(0)[labels, None]
        share = torch.rand(len(labels), self.negatives, device=labels.device, dtype=torch.float64)
        place = (share * (len(self.labels) - counts)).long()
        return self.by_class[place + counts * (place >= ends - counts)]

    def contrast(self, student, teacher, index: Tensor, drawn: Tensor) -> Tensor:
        """The loss against the memory at ``drawn``, (batch, 1 + negatives), whose first column is ``index``."""
        f_s, f_t = pooled_pair(student, teacher)
        embeddings = F.normalize(self.ours(f_s), dim=1), F.normalize(self.theirs(f_t), dim=1)
        memories = self.memory_theirs.clone(), self.memory_ours.clone()  # they move before the backward pass
        likelihoods = [
            (e @ m.T / self.temperature).gather(1, drawn).exp() for e, m in zip(embeddings, memories, strict=True)
        ]
        if self.training:
            self._follow(likelihoods, embeddings, index)
        constants = torch.where(self.constants.isnan(), torch.ones_like(self.constants), self.constants)
        return sum(noise_contrast(p / z, len(self.labels)) for p, z in zip(likelihoods, constants))

    @torch.no_grad()
    def _follow(self, likelihoods: list[Tensor], embeddings: tuple[Tensor, Tensor], index: Tensor) -> None:
        first = torch.stack([p.mean() * len(self.labels) for p in likelihoods])
        self.constants.copy_(torch.where(self.constants.isnan(), first, self.constants))
        for memory, embedding in zip((self.memory_ours, self.memory_theirs), embeddings):
            moved = self.momentum * memory[index] + (1 - self.momentum) * embedding
            memory[index] = F.normalize(moved, dim=1)

"""Objectives that know which source domain each example is from: what should be alike across them, or which of them weighs more.

``domains`` (n, sources) is 1 where an example is of a source, else 0. A batch may lack some of them; with fewer than two there is
nothing to compare, and penalties are zero, except that of ``irm``, which asks each domain by itself. ``sampling="balanced"`` gives
each as many examples, which the methods assume. Nothing here waits for a number or a shape, so an accelerator goes on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import not_negative
from .base import hard, logits_of, objectives, pooled_of


def means_of(values: Tensor, domains: Tensor) -> Tensor:
    """Mean of the rows (n, ...) of each domain, (sources, ...); zero for a domain that is not there."""
    share = domains.to(values.dtype)
    return torch.einsum("nd,n...->d...", share / share.sum(0).clamp(min=1), values)


def over_pairs(distances: Tensor, there: Tensor) -> Tensor:
    """Mean of (sources, sources) distances over all pairs of domains that are there; 0 where there is none."""
    pairs = torch.triu(there[:, None] * there, diagonal=1)
    return (pairs * distances).sum() / pairs.sum().clamp(min=1)


def there(domains: Tensor, values: Tensor, least: int = 1) -> Tensor:
    """1 for each domain with at least so many examples, else 0, (sources,)."""
    return (domains.sum(0) >= least).to(values.dtype)


@objectives.declare(
    kind="across domains",
    needs="domains between student.pooled",
    source="M3SDA, Peng et al. 2019, arXiv 1812.01754, section 4.1",
)
def moments(student, teacher, labels: Tensor | None = None, *, domains: Tensor) -> Tensor:
    """How far the first two moments of pooled features are apart between source domains: ``sum_{k=1,2} mean over pairs of
    || E_i[f^k] - E_j[f^k] ||_2``.

    The paper has pairs of a source and the target as well, whose images are not for training here. Its released code compares
    centred examples instead of means in the first term and lists one pair twice; this is the paper.
    """
    f = pooled_of(student)
    total = 0.0
    for power in (1, 2):
        means = means_of(f.pow(power), domains)
        total = total + over_pairs(torch.linalg.vector_norm(means[:, None] - means, dim=2), there(domains, f))
    return total


@objectives.declare(
    kind="across domains",
    needs="domains between student.pooled",
    source="Deep CORAL, Sun and Saenko 2016, arXiv 1607.01719",
)
def coral(student, teacher, labels: Tensor | None = None, *, domains: Tensor) -> Tensor:
    """Mean squared differences of the means and of the covariances (over n - 1) of pooled features, mean over pairs of source
    domains: as DomainBed has it, which adds the means. A domain with one example has no covariance, so only its mean is compared.
    """
    f = pooled_of(student)
    means, share = means_of(f, domains), domains.to(f.dtype)
    centred = f - share @ means
    covariances = torch.einsum("nd,ni,nj->dij", share / (domains.sum(0).to(f.dtype) - 1).clamp(min=1), centred, centred)
    apart = (means[:, None] - means).square().mean(2)
    spread = (covariances[:, None] - covariances).square().mean((2, 3))
    two = there(domains, f, least=2)
    return over_pairs(apart + two[:, None] * two * spread, there(domains, f))


def risks(student, labels: Tensor, domains: Tensor) -> Tensor:
    """Mean cross-entropy of each domain, (sources,), in nats; zero for one that is not there."""
    return means_of(F.cross_entropy(logits_of(student), hard(labels), reduction="none"), domains)


@objectives.declare(
    kind="across domains",
    needs="labels domains between",
    source="V-REx, Krueger et al. 2021, arXiv 2003.00688",
    weight=10.0,
)
def vrex(student, teacher, labels: Tensor, *, domains: Tensor) -> Tensor:
    """Variance, over source domains, of their mean cross-entropies. Beside ``ce``; DomainBed holds its weight at 1 for the first
    500 of 5,000 steps, which ``schedule`` can say. Of soft labels the largest class counts."""
    losses = risks(student, labels, domains)
    here = there(domains, losses)
    mean = (here * losses).sum() / here.sum()
    return (here * (losses - mean).square()).sum() / here.sum()


@objectives.declare(
    kind="across domains", needs="labels domains", source="IRMv1, Arjovsky et al. 2019, arXiv 1907.02893", weight=100.0
)
def irm(student, teacher, labels: Tensor, *, domains: Tensor) -> Tensor:
    """Squared gradient of each domain's cross-entropy in a factor of the logits, at 1, mean over source domains.

    Without bias, as released and in DomainBed: the product of the gradients of two halves of a domain's examples, every other
    one each; a domain with one example adds nothing. The gradient is written out, ``mean_n sum_c (p_c - y_c) z_c``, so nothing
    is differentiated twice. Beside ``ce``. Of soft labels the largest class counts.
    """
    z = logits_of(student)
    slopes = ((F.softmax(z, dim=1) - F.one_hot(hard(labels), z.shape[1])) * z).sum(1)
    odd = (domains.cumsum(0) % 2) * domains  # the first, third, ... of each domain
    both = there(domains, z, least=2)
    return (both * means_of(slopes, odd) * means_of(slopes, domains - odd)).sum() / there(domains, z).sum()


@objectives.declare(
    name="group_dro",
    kind="across domains",
    needs="labels domains between",
    source="GroupDRO, Sagawa et al. 2020, arXiv 1911.08731, algorithm 1",
)
class GroupDRO(nn.Module):
    """Cross-entropy, each domain as heavy as it has been hard: weights grow by ``exp(rate x loss)`` at every step and sum to 1
    over the domains of a batch.

    In place of ``ce``. A domain that the batch lacks keeps its weight. Weights are state: a resumed run goes on with them. Domains
    are the groups, as in DomainBed, whose rate is the default. Of soft labels the largest class counts.
    """

    MOST = 64  # domains: how long the state is

    def __init__(self):
        super().__init__()
        self.register_buffer("log_weights", torch.zeros(self.MOST))

    def forward(self, student, teacher, labels: Tensor, *, domains: Tensor, rate: float = 0.01) -> Tensor:
        """The weighted mean over the domains of a batch, nats per example."""
        not_negative(rate=rate)
        count = domains.shape[1]
        if count > self.MOST:
            raise ValueError(f"group_dro weighs at most {self.MOST} source domains; there are {count}.")
        losses = risks(student, labels, domains)
        if self.training:
            self.log_weights[:count] += rate * losses.detach()
        absent = there(domains, losses) == 0
        return (F.softmax(self.log_weights[:count].masked_fill(absent, -torch.inf), dim=0) * losses).sum()

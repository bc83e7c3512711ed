"""Objectives on logits that also compare across the batch, class by class: correlations and Gram matrices."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..names import not_negative, positive
from .base import gram, logit_pair, objectives
from .logits import tempered_kl


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation (n,) of each row of two (n, m) tensors; 0 where a row does not vary."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)


def probabilities(z_s: Tensor, z_t: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Of both at a temperature, (n, classes) each."""
    return F.softmax(z_s / temperature, dim=1), F.softmax(z_t / temperature, dim=1)


@objectives.declare(kind="logits", needs="teacher", source="DIST, Huang et al. 2022, arXiv 2205.10536", weight=2.0)
def dist(
    student, teacher, labels: Tensor | None = None, *, temperature: float = 1.0, beta: float = 1.0, gamma: float = 1.0
) -> Tensor:
    """``T^2 [beta (1 - r over classes) + gamma (1 - r over examples)]``: mean Pearson correlations of probabilities.

    The first is a correlation per example (inter-class), the second per class (intra-class). It needs batches that are
    large next to the number of classes: a class that the batch lacks has a noisy correlation, one that does not vary at
    all counts as uncorrelated. T = 1 for ImageNet, 4 for CIFAR-100. Other ports clamp each norm and differ by 1e-6.
    """
    positive(temperature=temperature)
    not_negative(beta=beta, gamma=gamma)
    p_s, p_t = probabilities(*logit_pair(student, teacher), temperature)
    over_classes, over_examples = pearson(p_s, p_t).mean(), pearson(p_s.T, p_t.T).mean()
    return temperature**2 * (beta * (1 - over_classes) + gamma * (1 - over_examples))


def batch_level(z_s: Tensor, z_t: Tensor, temperature: float) -> Tensor:
    """Squared difference of the (n, n) inner products of examples' probabilities, summed, over n."""
    p_s, p_t = probabilities(z_s, z_t, temperature)
    return (gram(p_t) - gram(p_s)).square().sum() / len(z_s)


def class_level(z_s: Tensor, z_t: Tensor, temperature: float) -> Tensor:
    """Squared difference of the (classes, classes) inner products over the batch, summed, over classes."""
    p_s, p_t = probabilities(z_s, z_t, temperature)
    return (gram(p_t.T) - gram(p_s.T)).square().sum() / z_s.shape[1]


SOURCE = "MLKD, Jin et al. 2023, CVPR"


@objectives.declare(kind="logits", needs="teacher", source=f"{SOURCE}; as the paper", weight=0.9)
def mlkd(
    student, teacher, labels: Tensor | None = None, *, temperatures: tuple[float, ...] = (2.0, 3.0, 4.0, 5.0, 6.0)
) -> Tensor:
    """Summed over ``temperatures``: ``kd``, and squared differences of Gram matrices over the batch and over classes.

    This is the method as the paper describes it; ``mlkd_repo`` is what the authors released, and differs. The class
    level grows with the square of the batch, so batches of one size are comparable. The published trainer shows a
    weakly and a strongly augmented view and takes twice the usual epochs; this reads the one view there is. Next to
    0.1 ``ce``.
    """
    if not isinstance(temperatures, (list, tuple)) or not temperatures:
        raise ValueError(f"temperatures is a list of positive numbers; got {temperatures!r}.")
    for temperature in temperatures:
        positive(temperatures=temperature)
    z_s, z_t = logit_pair(student, teacher)
    levels = (tempered_kl, batch_level, class_level)
    return sum(level(z_s, z_t, temperature) for temperature in temperatures for level in levels)


def as_released(
    weak: tuple[Tensor, Tensor], strong: tuple[Tensor, Tensor], *, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The released code's three terms (examples, classes, batch) from (student, teacher) logits of two views.

    What it does, and hardly means to: the masks, which should keep the half of examples or classes of which the teacher
    is least sure, multiply sums, so they only scale them; two temperatures of the strong view read the weak one; Gram
    matrices of the strong view are computed and not used.
    """
    confidence = weak[1].softmax(1)
    examples, classes = (
        (c <= c.quantile(0.5)).to(c.dtype).mean() for c in (confidence.max(1).values, confidence.sum(0))
    )
    five = (temperature, 3.0, 5.0, 2.0, 6.0)
    kd_weak = [tempered_kl(*weak, t) for t in five]
    kd_strong = [tempered_kl(*strong, t) for t in five[:3]] + kd_weak[3:]
    return (
        examples * sum(kd_weak) + sum(kd_strong),
        classes * sum(class_level(*weak, t) for t in five),
        examples * sum(batch_level(*weak, t) for t in five),
    )


@objectives.declare(kind="logits", needs="teacher", source=f"{SOURCE}; as released", weight=0.9)
def mlkd_repo(student, teacher, labels: Tensor | None = None, *, temperature: float = 4.0) -> Tensor:
    """What the authors of ``mlkd`` released, at T of 2, 3, 5, 6 and ``temperature``; ``as_released`` lists its quirks.

    The training loop shows one view, which stands for both the weak and the strong one.
    """
    positive(temperature=temperature)
    view = logit_pair(student, teacher)
    return sum(as_released(view, view, temperature=temperature))

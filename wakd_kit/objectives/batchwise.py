"""Multi-level logit distillation: predictions of one example, across the batch, and across classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import positive
from .base import logit_pair
from .logits import tempered_kl
from .registry import objectives


def gram(rows: Tensor) -> Tensor:
    """Inner products of all pairs of rows, in the precision of the rows also where autocast would lower it."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ rows.T


def batch_level(z_s: Tensor, z_t: Tensor, temperature: float) -> Tensor:
    """Squared difference of the (n, n) inner products of examples' probabilities, summed, over n."""
    p_s, p_t = F.softmax(z_s / temperature, dim=1), F.softmax(z_t / temperature, dim=1)
    return (gram(p_t) - gram(p_s)).square().sum() / len(z_s)


def class_level(z_s: Tensor, z_t: Tensor, temperature: float) -> Tensor:
    """Squared difference of the (classes, classes) inner products over the batch, summed, over classes."""
    p_s, p_t = F.softmax(z_s / temperature, dim=1), F.softmax(z_t / temperature, dim=1)
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

"""ReviewKD: the student's deep maps are fused into its shallow ones before both are compared with the teacher's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import counted
from .base import map_pairs, pooled_pair
from .registry import objectives

POOLS = (4, 2, 1)


def hierarchical_mse(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference of two maps at full size and averaged to 4, 2 and 1; weights 1, 1/2, 1/4, 1/8, normalised.

    Sizes that are no smaller than the map are left out.
    """
    losses = [F.mse_loss(ours, theirs)]
    for side in POOLS:
        if side < theirs.shape[2]:
            losses.append(F.mse_loss(F.adaptive_avg_pool2d(ours, side), F.adaptive_avg_pool2d(theirs, side)))
    weights = [2.0**-i for i in range(len(losses))]
    return sum(w * loss for w, loss in zip(weights, losses)) / sum(weights)


class Fusion(nn.Module):
    """One level: its map and what came from the deeper ones, mixed by learned attention, as the teacher's channels."""

    def __init__(self, channels: int, between: int, out: int, *, first: bool):
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(channels, between, 1, bias=False), nn.BatchNorm2d(between))
        self.attention = None if first else nn.Sequential(nn.Conv2d(2 * between, 2, 1), nn.Sigmoid())
        self.expand = nn.Sequential(nn.Conv2d(between, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))

    def forward(self, ours: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The level at ``size`` in the teacher's channels, and what goes on to the next, shallower level."""
        fused = self.reduce(ours)
        if self.attention is not None:
            deeper = F.interpolate(deeper, fused.shape[-2:], mode="nearest")
            share = self.attention(torch.cat([fused, deeper], dim=1))
            fused = fused * share[:, :1] + deeper * share[:, 1:]
        if fused.shape[-2:] != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.expand(fused), fused


def levels(student, teacher) -> list[tuple[Tensor, Tensor]]:
    """(student, teacher) of every level, deep first: the pooled feature as a map of one position, then stage maps."""
    pooled = tuple(feature[:, :, None, None] for feature in pooled_pair(student, teacher))
    return [pooled, *reversed(map_pairs(student, teacher))]


@objectives.declare(
    name="reviewkd",
    kind="features",
    needs="teacher pooled maps",
    source="ReviewKD, Chen et al. 2021, arXiv 2104.09044",
    weight=5.0,
    schedule={"end": 20 / 240},
)
class ReviewKD(nn.Module):
    """Pooled feature and maps, deep to shallow: each fused with the deeper ones and compared at several sizes; summed.

    Weight and warm-up are those for CIFAR-100 (20 of 240 epochs, the default schedule); ImageNet has weight 1 to 8. Fused
    maps have ``width`` channels, or as many as the student's pooled feature if that is fewer. Published code reads maps
    before their last ReLU, of networks it lists by name; here it is the stages' output, of any family.
    """

    def __init__(self, pair, *, width: int = 512):
        super().__init__()
        counted(width=width)
        between = min(width, pair.student.pooled.shape[1])
        self.fusions = nn.ModuleList(
            Fusion(s.shape[1], between, t.shape[1], first=i == 0)
            for i, (s, t) in enumerate(levels(pair.student, pair.teacher))
        )

    def forward(self, student, teacher, labels: Tensor | None = None) -> Tensor:
        """Summed over levels, mean over everything else."""
        total, passed = 0.0, None
        for fusion, (ours, theirs) in zip(self.fusions, levels(student, teacher)):
            projected, passed = fusion(ours, passed, theirs.shape[-2:])
            total = total + hierarchical_mse(projected, theirs)
        return total

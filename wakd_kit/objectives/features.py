"""Objectives that match stage maps or pooled features one to one, or with the teacher's class centres."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ..models.tails import with_reused_head
from ..names import counted, one_of
from .base import chosen, class_means, hard, last_maps, map_pairs, objectives, pooled_pair, same_size, widened


def channels_normalised(values: Tensor) -> Tensor:
    """Each position's channels (dimension 1) to mean 0 and variance 1."""
    return F.layer_norm(values.movedim(1, -1), values.shape[1:2]).movedim(-1, 1)


class Projected(nn.Module):
    """A 1x1 convolution from the student's channels to the teacher's, for each of the chosen stages."""

    def __init__(self, pair, stages: tuple[int, ...], name: str):
        super().__init__()
        self.stages, self.name = stages, name
        channels = [(s.shape[1], t.shape[1]) for s, t in chosen(map_pairs(pair.student, pair.teacher), stages, name)]
        self.projectors = nn.ModuleList(nn.Conv2d(ours, theirs, 1) for ours, theirs in channels)

    def forward(self, student, teacher) -> list[tuple[Tensor, Tensor]]:
        """(projected student map, teacher map) of one size, by stage."""
        pairs = (same_size(*pair) for pair in chosen(map_pairs(student, teacher), self.stages, self.name))
        return [(projector(s), t) for projector, (s, t) in zip(self.projectors, pairs)]


SOURCE = "FitNets, Romero et al. 2015, arXiv 1412.6550, equation 3"


@objectives.declare(name="fitnet", kind="features", needs="teacher maps", source=f"{SOURCE}; target normalised")
class FitNet(nn.Module):
    """Mean squared difference of a projected student map and the teacher's, its channels normalised at every position.

    Raw targets (``fitnet_raw``) give losses from 0.1 to 100 with the teacher's family, so that one weight fits no two
    pairs; normalised ones begin near 1 for all, and so does the weight. The projector is a 1x1 convolution per stage, trained with the student
    and dropped at deployment. The paper trains on hints first and on labels afterwards; here it is one sum. Its middle
    layer is the second stage; OFA-KD compares with all four, ``stages=[0, 1, 2, 3]``.
    """

    name, target = "fitnet", staticmethod(channels_normalised)

    def __init__(self, pair, *, stages: tuple[int, ...] = (1,)):
        super().__init__()
        self.projected = Projected(pair, stages, self.name)

    def forward(self, student, teacher, labels: Tensor | None = None) -> Tensor:
        """Summed over stages, mean over everything else."""
        return sum(F.mse_loss(s, self.target(t)) for s, t in self.projected(student, teacher))


@objectives.declare(name="fitnet_raw", kind="features", needs="teacher maps", source=SOURCE, weight=100.0)
class FitNetRaw(FitNet):
    """``fitnet`` with the teacher's map as it is, as published; the weight is RepDistiller's.

    The projector is linear. RepDistiller adds BatchNorm and ReLU, which cannot reach the negative values that maps of
    anything but a ReLU network have.
    """

    name, target = "fitnet_raw", staticmethod(lambda theirs: theirs)


def attention(features: Tensor, power: float) -> Tensor:
    """Where a map is active, (n, height width): mean over channels of ``|f|^power``, of length 1."""
    return F.normalize(features.abs().pow(power).mean(1).flatten(1), dim=1)


@objectives.declare(
    kind="features", needs="teacher maps", source="AT, Zagoruyko and Komodakis 2017, arXiv 1612.03928", weight=1000.0
)
def at(student, teacher, labels: Tensor | None = None, *, power: float = 2.0) -> Tensor:
    """Mean squared difference of the attention of both, over examples and positions; summed over stages.

    As the authors' code has it, with its weight: the paper's equation 2 has the norm of the difference and half of
    that weight. ``|f|^power`` is the paper's; the code has ``f^power``, the same at even powers. Any two channel counts
    fit; of two sizes the larger map is averaged.

    power  from 1, below which maps with zeros have no gradient
    """
    if not 1 <= power < math.inf:
        raise ValueError(f"power of at is a number >= 1; got {power}.")
    pairs = (same_size(*pair) for pair in map_pairs(student, teacher))
    return sum((attention(s, power) - attention(t, power)).square().mean() for s, t in pairs)


class VariationalStage(nn.Module):
    """What the teacher's map is expected to be, ``mean`` of the student's, and a learned variance per channel."""

    def __init__(self, mean: nn.Module, theirs: int, variance: float, epsilon: float = 1e-5):
        super().__init__()
        if not epsilon < variance < math.inf:
            raise ValueError(f"variance is a number above 1e-5, which is always added; got {variance}.")
        self.epsilon, self.mean = epsilon, mean
        excess = variance - epsilon
        self.scale = nn.Parameter(torch.full((theirs,), excess + math.log(-math.expm1(-excess))))  # softplus, inverted

    def forward(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """``1/2 [(mean - teacher)^2 / variance + log variance]``, mean over everything."""
        variance = (F.softplus(self.scale) + self.epsilon)[:, None, None]
        return ((self.mean(ours) - theirs).square() / variance + variance.log()).mean() / 2


def three_convolutions(ours: int, theirs: int) -> nn.Sequential:
    """1x1 convolutions from one number of channels to another, with ReLU in between."""
    return nn.Sequential(
        nn.Conv2d(ours, theirs, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(theirs, theirs, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(theirs, theirs, 1, bias=False),
    )


@objectives.declare(name="vid", kind="features", needs="teacher maps", source="VID, Ahn et al. 2019, arXiv 1904.05835")
class VID(nn.Module):
    """A Gaussian's negative log-likelihood of the teacher's maps given the student's, constants left out, by stage.

    A bound on mutual information: its mean is a small network on the student's map, its variance a learned number per
    channel. Below zero once variances are small. What is learned here is trained with the student, resumed with the
    run, and dropped at deployment.
    """

    mean = staticmethod(three_convolutions)

    def __init__(self, pair, *, variance: float = 5.0):
        super().__init__()
        channels = [(s.shape[1], t.shape[1]) for s, t in map_pairs(pair.student, pair.teacher)]
        self.stages = nn.ModuleList(VariationalStage(self.mean(*each), each[1], variance) for each in channels)

    def forward(self, student, teacher, labels: Tensor | None = None) -> Tensor:
        """Summed over stages, in nats per value."""
        pairs = (same_size(*pair) for pair in map_pairs(student, teacher))
        return sum(stage(s, t) for stage, (s, t) in zip(self.stages, pairs))


@objectives.declare(
    name="miro",
    kind="features",
    needs="teacher maps",
    source="MIRO, Cha et al. 2022, arXiv 2203.10789, equation 5",
    weight=0.1,
)
class MIRO(VID):
    """``vid`` with nothing in between: maps stay near those of the network that the student began as, its teacher.

    Keeps what pretraining knew of domains that nobody shows. Published beside ``ce``, the weight from 0.001 to 1 by benchmark, and
    with SWAD after it; there the variances learn at ten times the student's rate.
    """

    mean = nn.Identity

    def __init__(self, pair, *, variance: float = 0.1):
        super().__init__(pair, variance=variance)
        for stage, (ours, theirs) in enumerate(map_pairs(pair.student, pair.teacher)):
            if ours.shape[1:] != theirs.shape[1:]:
                raise ValueError(
                    f"miro compares a student with the network that it began as; at stage {stage} maps are "
                    f"{'x'.join(map(str, ours.shape[1:]))} of the student and {'x'.join(map(str, theirs.shape[1:]))} of the teacher. "
                    "Give it a teacher of the student's architecture, or take vid."
                )


@objectives.declare(
    name="vkd", kind="features", needs="teacher pooled", source="VkD, Miles et al. 2024, arXiv 2403.06213"
)
class VkD(nn.Module):
    """Smooth L1 distance of the student's pooled feature, orthogonally projected, to the teacher's, normalised.

    The projector keeps all of the student's inner products when it has no more features than the teacher; with more its
    rows are orthonormal. It is a product of Householder maps, or a matrix exponential when both have as many features,
    as published, and ``Combined`` keeps it in float32; with 512 features under 2,048, or 1,280 in both, its backward takes longer
    than both networks on a processor. ``orthogonal_map`` is torch's: "cayley" is the cheapest of many features, and moves the same
    projector by other steps. The target is normalised over its channels, which is the paper's choice for
    classification. Published beside ``ce`` and ``kd`` at T = 1.
    """

    def __init__(self, pair, *, orthogonal_map: str | None = None):
        one_of("orthogonal_map", orthogonal_map, (None, "matrix_exp", "cayley", "householder"))
        super().__init__()
        ours, theirs = pair.student.pooled.shape[1], pair.teacher.pooled.shape[1]
        self.projector = parametrizations.orthogonal(nn.Linear(ours, theirs, bias=False), orthogonal_map=orthogonal_map)

    def forward(self, student, teacher, labels: Tensor | None = None) -> Tensor:
        """Mean over examples and channels."""
        f_s, f_t = pooled_pair(student, teacher)
        return F.smooth_l1_loss(self.projector(f_s), channels_normalised(f_t))


@objectives.declare(
    name="cosine", kind="features", needs="teacher pooled", source="DistilBERT, Sanh et al. 2019, arXiv 1910.01108"
)
class Cosine(nn.Module):
    """One minus the cosine of the pooled features of both: how far their directions are apart, from 0 to 2.

    A student of another width is projected first, linearly and with no bias. The paper compares hidden states token by token, of
    models of one width, beside ``kd`` and its own task's loss.
    """

    def __init__(self, pair):
        super().__init__()
        ours, theirs = pair.student.pooled.shape[1], pair.teacher.pooled.shape[1]
        self.projector = nn.Identity() if ours == theirs else nn.Linear(ours, theirs, bias=False)

    def forward(self, student, teacher, labels: Tensor | None = None) -> Tensor:
        """Mean over examples."""
        f_s, f_t = pooled_pair(student, teacher)
        return 1 - F.cosine_similarity(self.projector(f_s), f_t, dim=1).mean()


@objectives.declare(
    kind="features",
    needs="teacher teacher.maps student.parts",
    source="SimKD, Chen et al. 2022, arXiv 2203.14001",
    tail=with_reused_head,
)
def simkd(student, teacher, labels: Tensor | None = None, *, factor: int = 2) -> Tensor:
    """Mean squared difference of the student's last map, projected, and the teacher's. Meant to be the only objective.

    The student that is deployed is its body, this projector (narrower by ``factor`` in between) and the teacher's
    classifier: ``train`` puts them on, so they are recorded and averaged with it. The teacher has to classify the plain
    mean of its last map. Of two sizes the larger is averaged: the student's before the projector.
    """
    counted(factor=factor)
    (projected,) = student.parts
    ours, theirs = same_size(widened(projected), last_maps(teacher, teacher)[1])
    return F.mse_loss(ours, theirs)


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


def norm_and_direction(ours: Tensor, theirs: Tensor, centres: Tensor) -> Tensor:
    """``1 - s . e / max(|s|, |t|)``, mean over the batch; e is the direction of the class centre of each example."""
    along = (ours * F.normalize(centres, dim=1)).sum(1)
    longer = torch.maximum(ours.norm(dim=1), theirs.norm(dim=1)).clamp(min=1e-12)
    return (1 - along / longer).mean()


@objectives.declare(
    name="kdpp",
    kind="features",
    needs="labels teacher pooled centres",
    source="KD++, Wang et al. 2023, arXiv 2305.17007",
)
class KDpp(nn.Module):
    """Norm and direction: pooled features as long as the teacher's, and towards the teacher's centre of their class.

    Zero where a projected feature points along the centre and is at least as long as the teacher's. The
    projector is linear. The centres are the teacher's means over the source training images without augmentation,
    taken once before the first batch: no image of validation or of the target is in them. Published beside ``ce`` and ``kd``:
    this term at 0.5 to 2 and constant, ``kd`` at 1 to 4 and rising over the first 20 epochs, which its ``schedule`` can.
    """

    def __init__(self, pair):
        super().__init__()
        ours, theirs = pair.student.pooled.shape[1], pair.teacher.pooled.shape[1]
        self.projector = nn.Linear(ours, theirs)
        self.register_buffer("centres", torch.full((pair.classes, theirs), torch.nan))  # until they are learned

    def learn_centres(self, features: Tensor, labels: Tensor) -> None:
        """Takes the teacher's pooled features (n, features) of all source training images."""
        self.centres.copy_(class_means(features, labels, len(self.centres))[0])

    def forward(self, student, teacher, labels: Tensor) -> Tensor:
        """From 0 to 2."""
        f_s, f_t = pooled_pair(student, teacher)
        return norm_and_direction(self.projector(f_s), f_t, self.centres[hard(labels)])

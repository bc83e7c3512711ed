"""Objectives that match how the examples of a batch relate to one another: two models' features may differ in size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import counted, did_you_mean, not_negative, positive
from .base import class_means, gram, hard, last_maps, logit_pair, map_pairs, objectives, pooled_pair, same_size


def distances(features: Tensor) -> Tensor:
    """Euclidean distances (n, n) of all pairs, over the mean of those that are not zero."""
    squares = features.square().sum(1)
    apart = (squares[:, None] + squares - 2 * gram(features)).clamp(min=1e-12).sqrt()
    apart = apart * (1 - torch.eye(len(features), dtype=features.dtype, device=features.device))
    positive_ones = (apart > 0).sum().clamp(min=1)
    return apart / (apart.sum() / positive_ones).clamp(min=1e-12)


def angles(features: Tensor) -> Tensor:
    """Cosines (n, n, n): at [i, j, k] of the angle that examples j and k make, seen from i."""
    directions = F.normalize(features[None] - features[:, None], dim=2)
    return directions @ directions.mT


@objectives.declare(kind="relations", needs="teacher pooled", source="RKD, Park et al. 2019, arXiv 1904.05068")
def rkd(student, teacher, labels: Tensor | None = None, *, distance: float = 25.0, angle: float = 50.0) -> Tensor:
    """Smooth L1 between distances of pairs, and between angles of triples, of pooled features; each times its weight.

    Distances are relative to their mean in the batch. Weights of 25 and 50 are those of classification studies
    (RepDistiller), the paper's metric learning has 1 and 2. Memory for angles grows with the cube of the batch.
    """
    not_negative(distance=distance, angle=angle)
    f_s, f_t = pooled_pair(student, teacher)
    return distance * F.smooth_l1_loss(distances(f_s), distances(f_t)) + (
        angle * F.smooth_l1_loss(angles(f_s), angles(f_t))
    )


def similarities(features: Tensor) -> Tensor:
    """Inner products (n, n) of all pairs, every row of length 1."""
    return F.normalize(gram(features.flatten(1)), dim=1)


@objectives.declare(
    kind="relations", needs="teacher maps", source="SP, Tung and Mori 2019, arXiv 1907.09682", weight=3000.0
)
def sp(student, teacher, labels: Tensor | None = None) -> Tensor:
    """Squared difference of the similarities of all pairs of examples, by their last map, over n^2.

    Rows have Euclidean length 1; torchdistill's port has rows of absolute sum 1, another loss.
    """
    f_s, f_t = last_maps(student, teacher)
    return (similarities(f_s) - similarities(f_t)).square().sum() / len(f_s) ** 2


def neighbours(ours: Tensor, theirs: Tensor) -> Tensor:
    """``|d_i| |d_i+1|``, summed over dimensions, mean over neighbours in the batch; d is the difference of embeddings."""
    difference = (ours - theirs).abs()
    return (difference[:-1] * difference[1:]).sum(1).mean()


@objectives.declare(
    name="cc",
    kind="relations",
    needs="teacher pooled",
    source="CC, Peng et al. 2019, arXiv 1904.01802; as the authors' code",
    weight=0.02,
)
class CC(nn.Module):
    """Product of the differences of neighbouring examples, of pooled features embedded in ``dimensions``.

    This is what the authors gave RepDistiller, and not the paper's loss, which is ``cc_paper``. It depends on the order
    of the batch. Both embeddings are trained, the teacher's too, so they may shrink it without learning anything.
    """

    def __init__(self, pair, *, dimensions: int = 128):
        super().__init__()
        counted(dimensions=dimensions)
        self.ours = nn.Linear(pair.student.pooled.shape[1], dimensions)
        self.theirs = nn.Linear(pair.teacher.pooled.shape[1], dimensions)

    def forward(self, student, teacher, labels: Tensor | None = None) -> Tensor:
        """Zero for a batch of one."""
        f_s, f_t = pooled_pair(student, teacher)
        return neighbours(self.ours(f_s), self.theirs(f_t)) if len(f_s) > 1 else 0 * self.ours(f_s).sum()


KERNELS = ("gaussian", "bilinear")


def correlation(features: Tensor, kernel: str, gamma: float, order: int) -> Tensor:
    """The kernel's (n, n) matrix; "gaussian" is a Taylor series in the cosines of the features."""
    if kernel == "bilinear":
        return gram(features)
    cosines = gram(F.normalize(features, dim=1))
    series = sum((2 * gamma * cosines) ** p / math.factorial(p) for p in range(order + 1))
    return math.exp(-2 * gamma) * series


@objectives.declare(kind="relations", needs="teacher pooled", source="CC, Peng et al. 2019, arXiv 1904.01802")
def cc_paper(
    student, teacher, labels: Tensor | None = None, *, kernel: str = "gaussian", gamma: float = 0.4, order: int = 2
) -> Tensor:
    """Squared difference of the kernel matrices of both models' pooled features, over n^2, as the paper writes it.

    kernel  "gaussian": ``exp(-gamma |x - y|^2)`` of features of length 1, by its Taylor series up to ``order``;
            "bilinear": inner products of features as they are, whose size then decides the loss
    """
    if kernel not in KERNELS:
        raise ValueError(did_you_mean("kernel of cc_paper", kernel, KERNELS))
    positive(gamma=gamma)
    counted(order=order)
    matrix_s, matrix_t = (correlation(f, kernel, gamma, order) for f in pooled_pair(student, teacher))
    return (matrix_s - matrix_t).square().sum() / len(matrix_s) ** 2


def neighbour_probabilities(features: Tensor) -> Tensor:
    """How likely each example (row) finds each other: ``(cosine + 1) / 2``, over the sum of its row."""
    unit = features / (features.norm(dim=1, keepdim=True) + 1e-7)
    affinity = (gram(unit) + 1) / 2
    return affinity / affinity.sum(1, keepdim=True)


@objectives.declare(
    kind="relations", needs="teacher pooled", source="PKT, Passalis and Tefas 2018, arXiv 1803.10837", weight=30000.0
)
def pkt(student, teacher, labels: Tensor | None = None) -> Tensor:
    """``p_t log(p_t / p_s)`` of the neighbour probabilities of both, mean over all n^2 pairs, in nats.

    The mean over pairs, not rows, is the authors': the loss falls with the batch, so the weight is for batches of 64.
    1e-7 is added to both probabilities and to lengths, as published.
    """
    p_s, p_t = (neighbour_probabilities(f) for f in pooled_pair(student, teacher))
    return (p_t * ((p_t + 1e-7) / (p_s + 1e-7)).log()).mean()


def mean_squared_products(a: Tensor, b: Tensor) -> Tensor:
    """Mean of ``(x . y)^2`` over all channels x of a and y of b, (n, channels, positions) each.

    It is the sum over all pairs of positions of ``(a'a)(b'b)`` as well, which is less work where there are few positions.
    """
    ours, theirs, positions = a.shape[1], b.shape[1], a.shape[2]
    if positions * (ours + theirs) < ours * theirs:
        return ((a.mT @ a) * (b.mT @ b)).sum((1, 2)).mean() / (ours * theirs)
    return (a @ b.mT).square().mean()


@objectives.declare(
    kind="relations", needs="teacher maps", source="NST, Huang and Wang 2017, arXiv 1707.01219", weight=50.0
)
def nst(student, teacher, labels: Tensor | None = None) -> Tensor:
    """Maximum mean discrepancy of the channels of both, as patterns over positions of length 1; summed over stages.

    The kernel is ``(x . y)^2``. Any two channel counts fit. Memory is n times the product of both, or
    n times the square of the positions where that is less work.
    """
    total = 0.0
    for pair in map_pairs(student, teacher):
        s, t = (F.normalize(m.flatten(2), dim=2) for m in same_size(*pair))
        total = total + mean_squared_products(t, t) + mean_squared_products(s, s) - 2 * mean_squared_products(s, t)
    return total


def prototype_cosines(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Cosine of every example with every class mean of the batch, (n, classes), and which classes it has, (classes,)."""
    means, counts = class_means(features, labels, classes)
    return F.normalize(features, dim=1) @ F.normalize(means, dim=1).T, counts > 0


@objectives.declare(
    kind="relations", needs="labels teacher pooled", source="ProtoKD, Wang et al. 2023, arXiv 2303.09830"
)
def prototypes(student, teacher, labels: Tensor) -> Tensor:
    """Mean squared difference of the cosines between examples and class means, over examples and classes of the batch.

    Each model has means of its own features, so the two may differ in size. The form is that of the authors' code, which
    segments: its examples are voxels and its means are over one image; here they are pooled features and the batch. There
    its weight is 0.1 beside kd at 10. Another paper is called Proto-KD, of prototypes that are not distributed, so this is not:
    it was ``proto_kd`` here once, which is still understood.
    """
    features = pooled_pair(student, teacher)
    labels, classes = hard(labels), student.logits.shape[1]
    (cosines_s, present), (cosines_t, _) = (prototype_cosines(f, labels, classes) for f in features)
    return ((cosines_s - cosines_t).square() * present).sum() / (len(labels) * present.sum())


objectives.rename("proto_kd", "prototypes")


def sinkhorn(cost: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Plan (n, n) between two batches: ``exp(-cost / epsilon)``, rows and then columns summed to 1 in turn, in log space."""
    log_plan = -cost / epsilon
    for _ in range(iterations):
        log_plan = F.log_softmax(F.log_softmax(log_plan, dim=1), dim=0)
    return log_plan.exp()


@objectives.declare(kind="relations", needs="teacher", source="SinKD, Cui et al. 2024, arXiv 2402.17110", weight=8e-4)
def sinkd(
    student,
    teacher,
    labels: Tensor | None = None,
    *,
    temperature: float = 2.0,
    epsilon: float = 0.1,
    iterations: int = 20,
) -> Tensor:
    """Sinkhorn transport between the batch of student and the batch of teacher probabilities, summed over the batch.

    The cost of a pair of examples is the L1 distance of their probabilities; the plan starts from ``exp(-cost /
    epsilon)`` and its rows and columns are normalised in turn. Here in log space, with the same values. Published for
    language tasks, weight 0.8 times a constant 0.001 beside ``kd``; its code has T = 2 fixed. Since the plan is
    blurred by epsilon, it is neither zero nor least at the teacher.
    """
    positive(temperature=temperature, epsilon=epsilon)
    counted(iterations=iterations)
    p_s, p_t = (F.softmax(z / temperature, dim=1) for z in logit_pair(student, teacher))
    cost = torch.cdist(p_s, p_t, p=1)
    return (sinkhorn(cost, epsilon, iterations) * cost).sum()

"""Objectives around class centres: means of features by class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import hard, pooled_pair
from .registry import objectives


def class_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean feature of every class, (classes, features), zero where there is none, and how many there are, (classes,)."""
    member = F.one_hot(labels, classes).to(features.dtype)
    counts = member.sum(0)
    return member.T @ features / counts.clamp(min=1)[:, None], counts


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
    taken once before the first batch: no image of validation or of the target is in them. Published beside ``kd``, with
    weights of 1 to 4 that rise over 20 epochs, as a ``schedule`` can; here there is none by default.
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


def prototype_cosines(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Cosine of every example with every class mean of the batch, (n, classes), and which classes it has, (classes,)."""
    means, counts = class_means(features, labels, classes)
    return F.normalize(features, dim=1) @ F.normalize(means, dim=1).T, counts > 0


@objectives.declare(
    kind="relations",
    needs="labels teacher pooled",
    source="ProtoKD, Wang et al. 2023, arXiv 2303.09830",
)
def proto_kd(student, teacher, labels: Tensor) -> Tensor:
    """Mean squared difference of the cosines between examples and class means, over examples and classes of the batch.

    Each model has means of its own features, so the two may differ in size. The form is that of the authors' code, which
    segments: its examples are voxels and its means are over one image; here they are pooled features and the batch. There
    its weight is 0.1 beside kd at 10.
    """
    labels, classes = hard(labels), student.logits.shape[1]
    (cosines_s, present), (cosines_t, _) = (
        prototype_cosines(f, labels, classes) for f in pooled_pair(student, teacher)
    )
    return ((cosines_s - cosines_t).square() * present).sum() / (len(labels) * present.sum())

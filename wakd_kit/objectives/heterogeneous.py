"""OFA-KD: what a student of another family learns from a teacher is predicted by its stages, in logits."""

from __future__ import annotations

import math

import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ..names import positive
from .base import chosen, hard, logit_pair, objectives, widened


def adaptive_target(
    z_s: Tensor, z_t: Tensor, labels: Tensor, *, epsilon: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """``-sum_c [(p_t(c) + 1[c = y])^epsilon - 1[c = y]] log p_s(c)``, mean over the batch, in nats: ``ofa`` for one head.

    z_s, z_t  logits (n, classes) of a head of the student, and of the teacher
    labels    (n,), or soft ones, of which the largest class counts
    """
    z_s, z_t = logit_pair(z_s, z_t)
    labels = hard(labels)
    p_t = F.softmax(z_t / temperature, dim=1)
    is_label = F.one_hot(labels, p_t.shape[1]).to(p_t.dtype)
    return F.cross_entropy(z_s / temperature, (p_t + is_label) ** epsilon - is_label)


def separable(channels: int, out: int) -> nn.Sequential:
    """A depthwise and a pointwise convolution that halve the map."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )


class ConvolutionalHead(nn.Module):
    """Logits from a map of a pyramid: separable convolutions down to the last map's size, mean, linear."""

    def __init__(self, channels: int, last: int, halvings: int, classes: int):
        super().__init__()
        widths = [channels, *(min(channels * 2**i, last) for i in range(1, halvings)), *[last] * (halvings > 0)]
        self.down = nn.Sequential(*(separable(a, b) for a, b in zip(widths, widths[1:])))
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, features: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, classes)."""
        return self.classifier(self.down(features).mean((2, 3)))


class TokenHead(nn.Module):
    """Logits from tokens of a model of one resolution: one transformer block, norm, mean, linear."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        heads = max(channels // 64, 1)
        self.block = Block(channels, heads if channels % heads == 0 else 1)
        self.norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, classes); every position is a token."""
        tokens = features.flatten(2).mT
        return self.classifier(self.norm(self.block(tokens)).mean(1))


def stage_head(features: Tensor, maps: tuple[Tensor, ...], classes: int) -> nn.Module:
    """The head for one stage of a student with these maps."""
    if maps[0].shape[-2:] == maps[-1].shape[-2:] and len(maps) > 1 and features.shape[2] > 1:
        return TokenHead(features.shape[1], classes)
    halvings = round(math.log2(features.shape[2] / maps[-1].shape[2]))
    return ConvolutionalHead(features.shape[1], maps[-1].shape[1], halvings, classes)


@objectives.declare(
    name="ofa",
    kind="heterogeneous",
    needs="labels teacher student.maps",
    source="OFA-KD, Hao et al. 2023, arXiv 2310.19444",
)
class OFA(nn.Module):
    """Every chosen stage of the student, through a head of its own, and the student itself predict the teacher.

    The target adds the label to the teacher's probabilities before a power ``epsilon``: the larger, the more a teacher's
    doubt counts as noise of its architecture. No T^2. Stages of a pyramid (ResNet, MobileNet, ConvNeXt, Swin) get
    separable convolutions, stages of ViT and MLP models, whose maps have one size, a transformer block; the authors
    have more blocks there, patch merging for Swin, and read ViT stages at the class token. Heads are trained with the
    student and dropped at deployment. Published beside ``ce``, at equal weights.

    epsilon  one number for all, or a list: one for each of ``stages``, and the last for the student's own logits.
             Published: 1 for CIFAR-100, 1.5 for a DeiT-Ti teacher of a ResNet-18 on ImageNet
    stages   counted from 0, as many as the student has by default
    """

    def __init__(
        self, pair, *, epsilon: tuple[float, ...] = (1.0,), temperature: float = 1.0, stages: tuple[int, ...] = ()
    ):
        super().__init__()
        positive(temperature=temperature)
        maps, stages = pair.student.maps, stages or tuple(range(len(pair.student.maps)))
        self.heads = nn.ModuleList(
            stage_head(features, maps, pair.classes) for features in chosen(list(maps), stages, "ofa")
        )
        self.stages, self.temperature = tuple(stages), temperature
        self.epsilons = _each(epsilon, len(self.stages) + 1)

    def forward(self, student, teacher, labels: Tensor) -> Tensor:
        """Summed over stages and the student's own logits, in nats."""
        z_s, z_t = logit_pair(student, teacher)
        logits = [head(widened(student.maps[stage])) for head, stage in zip(self.heads, self.stages)]
        return sum(
            adaptive_target(z, z_t, labels, epsilon=epsilon, temperature=self.temperature)
            for z, epsilon in zip([*logits, z_s], self.epsilons)
        )


def _each(epsilon, count: int) -> list[float]:
    values = list(epsilon) if isinstance(epsilon, (list, tuple)) else [epsilon]
    for value in values:
        positive(epsilon=value)
    if len(values) not in (1, count):
        raise ValueError(f"epsilon of ofa is one number, or {count}: one a stage and the last; got {len(values)}.")
    return values * count if len(values) == 1 else values

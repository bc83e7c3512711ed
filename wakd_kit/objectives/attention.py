"""Objectives between two transformers, by what their self-attention computes: ``Output.attention``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import is_whole, whole_number
from .base import objectives, widened


def relations(joint: Tensor, heads: int) -> Tensor:
    """Logarithms (n, 3, heads, tokens, tokens) of how queries, keys and values (n, 3, their heads, tokens, width) each relate
    among themselves: softmax of the scaled products of all pairs of tokens, in ``heads`` equal parts of their whole width."""
    parts = joint.transpose(2, 3).flatten(3).unflatten(3, (heads, -1)).transpose(2, 3)
    return F.log_softmax(parts @ parts.mT / parts.shape[-1] ** 0.5, dim=-1)


@objectives.declare(
    kind="attention", needs="teacher attention", source="MiniLMv2, Wang et al. 2020, arXiv 2012.15828, section 3"
)
def qkv_relations(student, teacher, labels: Tensor | None = None, *, heads: int = 0, layer: int = -1) -> Tensor:
    """KL from the teacher's relations among queries, among keys and among values to those of the student's last block.

    Summed over the three, mean over heads, tokens and examples, in nats. Widths and numbers of heads may differ, tokens not.
    In the paper it is all that a student learns, before it is fine-tuned on a task.

    heads  parts that relations are taken in, a divisor of both widths, more than attention has in the paper (48 of 768
           channels); 0: as many as the teacher's attention has
    layer  of the teacher, counted from 0 or from the end; the paper takes the last of 12, and of 24 the 21st or 19th (20, 18)
    """
    count = len(teacher.attention)
    whole_number("heads", heads, 0, "relation heads")
    if not is_whole(layer) or not -count <= layer < count:
        raise ValueError(
            f"layer of qkv_relations counts the teacher's {count} blocks, from 0 or from the end; got {layer!r}."
        )
    ours, theirs = widened(student.attention[-1]), widened(teacher.attention[layer]).detach()
    said, heads = f"{heads}" if heads else f"the teacher's {theirs.shape[2]}", heads or theirs.shape[2]
    widths = [joint.shape[2] * joint.shape[4] for joint in (ours, theirs)]
    if any(width % heads for width in widths):
        fits = [k for k in range(1, min(widths) + 1) if not any(width % k for width in widths)]
        raise ValueError(
            f"heads of qkv_relations divides the widths of both, {widths[0]} and {widths[1]}; got {said}. Take one of {fits}."
        )
    _same_tokens([ours], [theirs], "qkv_relations")
    ours, theirs = relations(ours, heads), relations(theirs, heads)
    return (theirs.exp() * (theirs - ours)).sum(-1).mean((0, 2, 3)).sum()


def attention_maps(blocks: tuple[Tensor, ...]) -> Tensor:
    """Who looks at whom, (n, heads of all blocks, tokens, tokens): softmax of the scaled products of queries and keys."""
    maps = [(q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) for q, k, _ in (widened(joint).unbind(1) for joint in blocks)]
    return torch.cat(maps, 1)


@objectives.declare(
    name="a2d",
    kind="attention",
    needs="teacher attention",
    source="A2D, Jin et al. 2024, arXiv 2403.01479; ncsoft/Align-to-Distill@08340a2b",
)
class A2D(nn.Module):
    """Each attention head of the teacher is imitated by a learned mixture of all heads of the student, those of all its blocks.

    A pointwise convolution maps the student's attention maps to as many as the teacher has; KL between the softmaxes over
    each whole map, from the teacher's, in nats, summed over heads, mean over the batch; the released code sums over it, which a
    weight of its size does here. Published for translation beside cross-entropy and ``kd`` at T = 1, half each, with a weight
    that falls by a tenth each epoch.
    The convolution is trained with the student and dropped.
    """

    def __init__(self, pair):
        super().__init__()
        _same_tokens(pair.student.attention, pair.teacher.attention, "a2d")
        self.align = nn.Conv2d(*(sum(b.shape[2] for b in each.attention) for each in (pair.student, pair.teacher)), 1)

    def forward(self, student, teacher, labels: Tensor | None = None) -> Tensor:
        """Mean over the batch, in nats."""
        ours = F.log_softmax(self.align(attention_maps(student.attention)).flatten(2), dim=2)
        theirs = F.log_softmax(attention_maps(teacher.attention).detach().flatten(2), dim=2)
        return (theirs.exp() * (theirs - ours)).sum((1, 2)).mean()


def _same_tokens(ours: Sequence[Tensor], theirs: Sequence[Tensor], name: str) -> None:
    counts = [sorted({joint.shape[3] for joint in blocks}) for blocks in (ours, theirs)]
    if counts[0] != counts[1] or len(counts[0]) > 1:
        said = [" and ".join(map(str, each)) for each in counts]
        raise ValueError(
            f"{name} compares tokens one by one; the student has {said[0]}, the teacher {said[1]}. Give both one patch size, one image "
            "size, and as many class tokens and registers."
        )

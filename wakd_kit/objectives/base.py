"""What objectives read of the two models, made safe in one place: float32 or better, no gradient to the teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def each_tensor(output, change: Callable[[Tensor], Tensor]):
    """The same ``Output``, tensor or nothing, with every tensor in it changed."""
    if isinstance(output, Tensor):
        return change(output)
    if not isinstance(output, tuple):
        return output
    parts = [each_tensor(part, change) for part in output]
    return output._make(parts) if hasattr(output, "_make") else tuple(parts)


def detached(output):
    """The same output, cut from its graph: no objective trains a teacher."""
    return each_tensor(output, Tensor.detach)


def raw_logits(output) -> Tensor:
    """Logits (n, classes) of an ``Output`` or of a bare tensor, as they are."""
    return output if isinstance(output, Tensor) else output.logits


def widened(values: Tensor) -> Tensor:
    """The same in float32 or better: bf16 is no place for a loss, T^2 KL near its optimum comes out negative in it."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def logits_of(output) -> Tensor:
    """Logits (n, classes) of an ``Output`` or of a bare tensor, in float32 or better."""
    return widened(raw_logits(output))


def pooled_pair(student, teacher) -> tuple[Tensor, Tensor]:
    """Pooled features of both, (n, features) each and as many as they have, the teacher's detached."""
    if isinstance(student, Tensor) or isinstance(teacher, Tensor):
        raise ValueError("This objective reads pooled features; got bare logits. Pass what a Tap gives, an Output.")
    return widened(student.pooled), widened(teacher.pooled).detach()


def map_pairs(student, teacher) -> list[tuple[Tensor, Tensor]]:
    """Stage maps of both side by side, shallow first, the teacher's detached; the last ones where one has fewer."""
    count = (
        0 if isinstance(student, Tensor) or isinstance(teacher, Tensor) else min(len(student.maps), len(teacher.maps))
    )
    if count == 0:
        raise ValueError(
            "This objective reads stage maps, and one of the two has none. Pass what a Tap gives, with maps."
        )
    return [(widened(s), widened(t).detach()) for s, t in zip(student.maps[-count:], teacher.maps[-count:])]


def last_maps(student, teacher) -> tuple[Tensor, Tensor]:
    """The last map of both, (n, channels, height, width), the teacher's detached."""
    return map_pairs(student, teacher)[-1]


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps at the smaller height and width of both, the larger one averaged."""
    size = tuple(min(x, y) for x, y in zip(a.shape[-2:], b.shape[-2:]))
    return tuple(m if m.shape[-2:] == size else F.adaptive_avg_pool2d(m, size) for m in (a, b))


def chosen(pairs: list, stages: Sequence[int], name: str) -> list:
    """The pairs of these stages, counted from 0 or from the end; raises for a stage that is not there."""
    if not isinstance(stages, (list, tuple)) or not stages or not all(type(stage) is int for stage in stages):
        raise ValueError(f"stages of {name} is a list of whole numbers; got {stages!r}.")
    for stage in stages:
        if not -len(pairs) <= stage < len(pairs):
            raise ValueError(f"{name} asks for stage {stage}; there are {len(pairs)}, from 0 to {len(pairs) - 1}.")
    return [pairs[stage] for stage in stages]


def logit_pair(student, teacher) -> tuple[Tensor, Tensor]:
    """Logits of both, (n, classes) each, the teacher's detached; ``ValueError`` when the class counts differ."""
    z_s, z_t = logits_of(student), logits_of(teacher).detach()
    if z_s.shape[1] != z_t.shape[1]:
        raise ValueError(
            f"Teacher gives {z_t.shape[1]} classes, student {z_s.shape[1]}. Was the teacher trained on another dataset?"
        )
    return z_s, z_t


def hard(labels: Tensor) -> Tensor:
    """Labels (n,) of any integer type, soft labels (n, classes) as their largest class."""
    return labels.long() if labels.ndim == 1 else labels.argmax(1)


def target_of(values: Tensor, labels: Tensor) -> Tensor:
    """The column (n,) of each example's label."""
    return values.gather(1, labels[:, None]).squeeze(1)


def others_of(values: Tensor, labels: Tensor) -> Tensor:
    """The columns (n, classes - 1) of every class but the label, in their order."""
    # a gather, not a boolean mask: the mask would wait for the device to count its ones
    column = torch.arange(values.shape[1] - 1, device=values.device).expand(len(values), -1)
    return values.gather(1, column + (column >= labels[:, None]))

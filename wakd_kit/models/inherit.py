"""A student that nests in a larger network starts with a part of it: every so many blocks, or channels.

    wide = wk.build_model("resnet18_w32", classes=7)  # or a run, whose model it is
    student = wk.build_model("resnet18_w16", classes=7, inherit=wide, by="channels")
    deep = wk.build_model("vit_d64", classes=7, depth=4)
    student = wk.build_model("vit_d64", classes=7, depth=2, inherit=deep, by="blocks")

"blocks" takes whole blocks, evenly spaced: of 12 for 6 every second one, 0, 2, ..., 10, as DistilBERT starts (Sanh et al. 2019, arXiv
1910.01108, section 2). "channels" takes, wherever a dimension is smaller, indices evenly spaced, the same for every tensor of that
dimension, so what one layer writes is what the next one reads: TinyCLIP's uniform selection (Wu et al. 2023, arXiv 2309.12314).
"both" does both. Nothing is rescaled: sums over half of the channels are half as large, which BatchNorm takes out.

A classifier for other classes starts as it was built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from ..names import one_of
from .tap import Tap, classifiers, mark, provenance_of

Shapes = Mapping[str, tuple[int, ...]]
WAYS = ("blocks", "channels", "both")


def shapes_of(model: nn.Module) -> Shapes:
    """The shape of each tensor of a model's state, by its name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def evenly(count: int, of: int) -> list[int]:
    """``count`` of ``of`` places, evenly spaced from the first: ``floor(i of / count)``."""
    return [i * of // count for i in range(count)]


def places(ours: Shapes, theirs: Shapes, by: str) -> dict[str, tuple[str, list[list[int] | None]]]:
    """Where each tensor of a smaller network lies in a larger one: ``{name: (its name there, indices along each dimension)}``.

    None stands for a dimension as it is. Raises ``ValueError`` where the smaller one does not nest, naming the first tensor.
    """
    one_of("by", by, WAYS)
    blocks = _blocks(ours), _blocks(theirs)
    found = {}
    for name, shape in ours.items():
        there = _name_there(name, *blocks) if by != "channels" else name
        if there not in theirs or len(theirs[there]) != len(shape):
            raise ValueError(f"The student does not nest by {by}: the larger network has nothing like {name}.")
        narrower = [(small, large) for small, large in zip(shape, theirs[there]) if small != large]
        if narrower and by == "blocks":
            raise ValueError(
                f"The student does not nest by blocks: {name} is {shape}, and {theirs[there]} in the larger network."
            )
        if any(small > large for small, large in narrower):
            raise ValueError(
                f"The student does not nest: {name} is {shape}, and only {theirs[there]} in the other network."
            )
        if name.endswith("pos_embed") and shape[1:-1] != theirs[there][1:-1]:
            tokens, of = (math.prod(each[1:-1]) for each in (shape, theirs[there]))
            raise ValueError(
                f"The student does not nest by {by}: {name} is of {tokens} tokens, and of {of} in the larger network, whose places are "
                "others. Build both for images of one size, in patches of one size."
            )
        if narrower and "attn" in name.split("."):
            raise ValueError(
                f"The student does not nest by channels: {name} is of attention, whose heads are no channels. Take as wide a "
                "student with fewer blocks."
            )
        along = [None if small == large else evenly(small, large) for small, large in zip(shape, theirs[there])]
        found[name] = there, along
    return found


def _blocks(shapes: Shapes) -> dict[str, int]:
    """How many numbered parts each container has, by its name."""
    found: dict[str, set[str]] = {}
    for name in shapes:
        parts = name.split(".")
        for i, part in enumerate(parts):
            if part.isdigit():
                found.setdefault(".".join(parts[:i]), set()).add(part)
    return {container: 1 + max(map(int, numbers)) for container, numbers in found.items()}


def _name_there(name: str, ours: Mapping[str, int], theirs: Mapping[str, int]) -> str:
    parts, there = name.split("."), []
    for i, part in enumerate(parts):
        count, of = ours.get(".".join(parts[:i]), 0), theirs.get(".".join(there), 0)
        there.append(str(evenly(count, of)[int(part)]) if part.isdigit() and of > count else part)
    return ".".join(there)


def _refuse_regrouped(student: nn.Module, larger: nn.Module) -> None:
    """Raises ``ValueError`` where a convolution has other groups, of several channels: channels evenly spaced are of other groups there."""
    theirs = {name: module for name, module in larger.named_modules() if isinstance(module, nn.Conv2d)}
    for name, module in student.named_modules():
        other = theirs.get(name)
        if other is not None and getattr(module, "groups", other.groups) != other.groups < other.in_channels:
            raise ValueError(
                f"{name.removeprefix('model.')} has {module.groups} groups of channels, the larger network {other.groups}: a part of its "
                'channels is no part of its groups. Inherit by="blocks", or build the student with as many groups.'
            )


def _refuse_other_heads(student: nn.Module, larger: nn.Module, by: str) -> None:
    """Raises ``ValueError`` where attention of as many channels has another number of heads, which are other channels each."""
    blocks, theirs = (_blocks(shapes_of(student)), _blocks(shapes_of(larger))), dict(larger.named_modules())
    for name, module in student.named_modules():
        other = theirs.get(_name_there(name, *blocks) if by != "channels" else name)
        heads, of = (getattr(each, "num_heads", None) for each in (module, other))
        if None not in (heads, of) and heads != of:
            raise ValueError(
                f"{name.removeprefix('model.')} has {heads} heads, the larger network {of}: each is of other channels there. Build the "
                "student with as many heads."
            )


@torch.no_grad()
def inherited(student: Tap, larger: nn.Module, by: str) -> Tap:
    """The student with the part of a larger network, in place; from now on it knows what that one has seen.

    Raises ``ValueError`` in one sentence for another kind of network, or one that is not larger.
    """
    head = {part for classifier in classifiers(student) for part in classifier.modules()}
    own = {name for name, module in student.named_modules() if module in head}
    classes = getattr(larger, "classes", None)
    keep = {n for n in student.state_dict() if n.rpartition(".")[0] in own} if classes != student.classes else set()
    ours = {name: shape for name, shape in shapes_of(student).items() if name not in keep}
    if by != "blocks":
        _refuse_regrouped(student, larger)
    found, state, started = places(ours, shapes_of(larger), by), larger.state_dict(), student.state_dict()
    _refuse_other_heads(student, larger, by)
    for name, (there, along) in found.items():
        tensor = state[there]
        for dimension, indices in enumerate(along):
            if indices is not None:
                tensor = tensor.index_select(dimension, torch.tensor(indices, device=tensor.device))
        started[name].copy_(tensor)
    origin = provenance_of(larger) or {}
    name = origin.get("run") or larger.spec["name"]
    student.spec["started_from"] = f"{name}, by {by}"
    return mark(student, origin) if origin else student

"""One way to look at any model: images in [0, 1] go in; logits, pooled feature and stage maps come out of one forward."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import is_whole
from .attention import attention_of

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Output(NamedTuple):
    """One forward of a tapped model on n images.

    logits     (n, classes)
    pooled     (n, features), what the classifier reads, but for its dropout in training, which is drawn anew
    maps       stage maps, each (n, channels, height, width), coarse last; empty when not asked for
    parts      what an objective's deployed part gives beside logits, see ``deployed``; empty otherwise
    attention  queries, keys and values of each block of a transformer, see ``attention_of``; empty when not asked for
    """

    logits: Tensor
    pooled: Tensor
    maps: tuple[Tensor, ...] = ()
    parts: tuple[Tensor, ...] = ()
    attention: tuple[Tensor, ...] = ()


class Tap(nn.Module):
    """A timm model that takes images in [0, 1] and returns an ``Output``.

    It normalises with the model's own mean and deviation, and a model that is fixed to one input size gets its images
    resized to it: teacher and student can be fed the same view, and each still sees what it was trained on. One
    forward, no hooks unless attention is asked for: ``forward_intermediates`` and ``forward_head``. Maps are the last four
    of timm's stages (fewer in families that have three), or four blocks of a model without stages, see ``stages_of``; as
    timm gives them, so those of most transformers come before the final norm, and without class tokens.
    """

    def __init__(self, model: nn.Module, spec: dict):
        super().__init__()
        self.model = model
        self.spec = spec
        config = getattr(model, "pretrained_cfg", None) or {}
        for name, default in IMAGENET.items():
            values = torch.tensor(config.get(name) or default).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        settings = spec.get("settings", {})
        asked = settings.get("input_size")
        if asked is None and config.get("fixed_input_size"):
            asked = settings.get("img_size")
        self.size = fixed_size(model) if asked is None else _pair(asked)
        self.stages = stages_of(len(model.feature_info))

    @property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        return self.model.num_classes

    def normalised(self, images: Tensor) -> Tensor:
        """What the model behind the tap sees of images in [0, 1]: its size, its mean and deviation."""
        return (resized(images, self.size) - self.mean) / self.std

    def forward(self, images: Tensor, *, maps: bool | str = True) -> Output:
        """The ``Output`` of images (n, 3, height, width) in [0, 1]; without ``maps`` it has none, with "attention" in their place
        that as well."""
        if maps == "attention":
            with attention_of(self.model) as found:
                output = self(images)
            whole = all(len(joint) == len(images) for joint in found)  # not of parts of an image
            return output._replace(attention=tuple(found) if whole else ())
        x = self.normalised(images)
        stages: Sequence[Tensor] = ()
        if maps:
            features, stages = self.model.forward_intermediates(x, indices=self.stages)
        else:
            features = self.model.forward_features(x)
        with _statistics_kept(self):
            pooled = self.model.forward_head(features, pre_logits=True)
        logits = self.model.forward_head(features)
        if isinstance(logits, tuple):  # a distilled model with its training of two heads switched on
            logits = sum(logits) / len(logits)
        return Output(logits, pooled, tuple(stages))


def classifiers(tap: Tap) -> list[nn.Module]:
    """The classifier of a tapped timm model; the two of a distilled one."""
    found = tap.model.get_classifier()
    return list(found) if isinstance(found, (tuple, list)) else [found]


@contextlib.contextmanager
def _statistics_kept(tap: Tap) -> Iterator[None]:
    """Within it, BatchNorm behind the pooling (MobileNetV4, EfficientViT, LowFormer) normalises, and its running statistics stay: features go through
    a head twice, and a training step counts once."""
    heads = (getattr(tap.model, name, None) for name in ("head", "norm_head", "in_conv"))
    behind = [part for head in heads if isinstance(head, nn.Module) for part in head.modules()]
    moved = [part for part in behind if part.training and getattr(part, "running_mean", None) is not None]
    own = {part for classifier in classifiers(tap) for part in classifier.modules()} if moved else set()
    kept = [(part._buffers, dict(part._buffers)) for part in moved if part not in own]
    for buffers, before in kept:
        buffers.update({name: buffer.clone() for name, buffer in before.items() if buffer is not None})
    try:
        yield
    finally:
        for buffers, before in kept:
            buffers.update(before)


class LogitsTap(nn.Module):
    """Any module that maps images in [0, 1] to logits, as a teacher: its pooled feature is the logits, it has no maps."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.spec = {"name": type(model).__name__}

    def forward(self, images: Tensor, *, maps: bool = True) -> Output:
        """The ``Output`` of images (n, 3, height, width) in [0, 1]: logits, twice."""
        logits = self.model(images)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise TypeError(
                f"{type(self.model).__name__} returned {type(logits).__name__}; expected (n, classes) logits."
            )
        return Output(logits, logits)


class Adapter(nn.Module):
    """Any module as a student or teacher: ``read(model, images)`` returns an ``Output``.

        def read(model, images):
            early, late = (maps := model.body(images))
            return Output(model.classify(late.mean((2, 3))), late.mean((2, 3)), maps)

        student = Adapter(network, read, size=96)

    mean, std  the normalisation it was trained with, per channel; default none, images in [0, 1]
    size       the side in pixels that images are resized to first; default as they come
    """

    def __init__(
        self,
        model: nn.Module,
        read: Callable[[nn.Module, Tensor], Output],
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        size: int | None = None,
    ):
        super().__init__()
        self.model, self.read = model, read
        self.spec = {"name": type(model).__name__}
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.size = size and _pair(size)

    def forward(self, images: Tensor, *, maps: bool = True) -> Output:
        """What ``read`` gives for images (n, 3, height, width) in [0, 1], resized and normalised."""
        output = self.read(self.model, (resized(images, self.size) - self.mean) / self.std)
        if not isinstance(output, Output):
            raise TypeError(
                f"read of {type(self.model).__name__} returned {type(output).__name__}; expected an Output."
            )
        return output if maps else output._replace(maps=())


def stages_of(count: int) -> list[int]:
    """Which of a timm model's ``count`` intermediates are its stages.

    Up to six are stages, with or without a stem: the last four. More are blocks of one resolution: those that end
    shares of 2, 2, 6 and 2 in 12, as OFA-KD cuts ViT and MLP models after Swin (arXiv 2310.19444), not even quarters.
    """
    if count <= 6:
        return list(range(max(count - 4, 0), count))
    return [round(count * share / 12) - 1 for share in (2, 4, 10, 12)]


def fixed_size(model: nn.Module) -> tuple[int, int] | None:
    """(height, width) in pixels of the only images a timm model takes; None when it takes any."""
    config = getattr(model, "pretrained_cfg", None) or {}
    if not config.get("fixed_input_size"):
        return None
    embeddings = (getattr(model, name, None) for name in ("patch_embed", "stem"))
    embedding = next((part for part in embeddings if getattr(part, "img_size", None)), None)
    if embedding is None:
        return tuple(config["input_size"][1:])
    return tuple(embedding.img_size) if getattr(embedding, "strict_img_size", True) else None


def resized(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """The images (n, 3, h, w) at this size, bilinear with antialiasing; as they are where they fit."""
    if size is None or images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    if len(sides) != 2 or not all(is_whole(side) and side >= 1 for side in sides):
        raise ValueError(f"Images are resized to a side in pixels, or to height and width, all >= 1; got {size!r}.")
    return sides


@contextlib.contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """``model.eval()`` inside the block; afterwards every layer is in the mode it was in, frozen BatchNorm included."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class _AsForward(nn.Module):
    """``functional_call`` swaps parameters of a module for one forward: this is that forward, with its maps."""

    def __init__(self, tap: nn.Module, maps: bool | str):
        super().__init__()
        self.tap, self.maps = tap, maps

    def forward(self, images: Tensor) -> Output:
        """The tap's ``Output`` with its maps."""
        return self.tap(images, maps=self.maps)


@torch.no_grad()
def shapes_of(tap: nn.Module, size: int, *, images: int = 2, maps: bool | str = True) -> Output:
    """The ``Output`` of a tapped model on ``images`` of this side as tensors of the meta device: shapes, no numbers.

    Nothing is computed and nothing is copied, so it costs the same for every model. It goes through the model in the
    mode it is in.
    """
    probe = _AsForward(tap, maps)
    state = {name: tensor.to("meta") for name, tensor in (*probe.named_parameters(), *probe.named_buffers())}
    return torch.func.functional_call(probe, state, (torch.zeros(images, 3, size, size, device="meta"),))


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """A short hash of names and values: whether two models are the same to the last bit."""
    found = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(state.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


WRAPPED = ("_orig_mod", "module", "tap", "model")  # compiled, data parallel, with a tail, tapped


def mark(model: nn.Module, provenance: Mapping) -> nn.Module:
    """The same model, which remembers where it came from, and so does what it wraps."""
    for part in layers(model):
        part.provenance = dict(provenance)
    return model


def provenance_of(model: nn.Module | None) -> dict | None:
    """Where a model came from, found through taps, compilation and data parallelism; None where nothing is known."""
    return next((vars(part)["provenance"] for part in layers(model) if vars(part).get("provenance")), None)


def layers(model: nn.Module | None) -> Iterator[nn.Module]:
    """A module and what it wraps, from the outside in."""
    while isinstance(model, nn.Module):
        yield model
        model = next((model._modules[name] for name in WRAPPED if name in model._modules), None)

"""timm models behind one Tap: images in [0, 1] go in, logits, pooled feature and stage maps come out of one forward."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

from .registry import did_you_mean

BATCHNORM_POLICIES = ("frozen", "recalibrate", "average", "last")

# small models for 32 and 64 px, by name; every other name is timm's own
SMALL = {
    "resnet10t_w16": ("resnet10t", {"channels": (16, 32, 64, 128), "stem_width": 16}),
    "resnet18_w16": ("resnet18", {"channels": (16, 32, 64, 128)}),
    "resnet18_w24": ("resnet18", {"channels": (24, 48, 96, 192)}),
    "resnet18_w32": ("resnet18", {"channels": (32, 64, 128, 256)}),
    "vit_d64": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4}),
}


class Output(NamedTuple):
    """One forward of a tapped model on n images.

    logits  (n, classes)
    pooled  (n, features), what the classifier reads
    maps    stage maps, each (n, channels, height, width), coarse last; empty when not asked for
    """

    logits: Tensor
    pooled: Tensor
    maps: tuple[Tensor, ...] = ()


class Tap(nn.Module):
    """A timm model that takes images in [0, 1] and returns an ``Output``.

    It normalises with the model's own mean and deviation, so teacher and student can be fed the same view and each
    still sees what it was trained on. One forward, no hooks: ``forward_intermediates`` and ``forward_head``.
    """

    def __init__(self, model: nn.Module, spec: dict):
        super().__init__()
        self.model = model
        self.spec = spec
        config = getattr(model, "pretrained_cfg", None) or {}
        for name, default in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            values = torch.tensor(config.get(name) or default).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @property
    def classes(self) -> int:
        return self.model.num_classes

    def forward(self, images: Tensor, *, maps: bool = True) -> Output:
        x = (images - self.mean) / self.std
        stages: Sequence[Tensor] = ()
        if maps:
            features, stages = self.model.forward_intermediates(x)
        else:
            features = self.model.forward_features(x)
        pooled = self.model.forward_head(features, pre_logits=True)
        return Output(self.model.forward_head(features), pooled, tuple(stages))


class LogitsTap(nn.Module):
    """Any module that maps images in [0, 1] to logits, as a teacher: its pooled feature is the logits, it has no maps."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.spec = {"name": type(model).__name__}

    def forward(self, images: Tensor, *, maps: bool = True) -> Output:
        logits = self.model(images)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise TypeError(
                f"{type(self.model).__name__} returned {type(logits).__name__}; expected (n, classes) logits."
            )
        return Output(logits, logits)


def as_tap(model: nn.Module) -> nn.Module:
    """The model itself if it already returns an ``Output``, else the thinnest adapter that does."""
    if isinstance(model, (Tap, LogitsTap)):
        return model
    if hasattr(model, "forward_features") and hasattr(model, "forward_head"):
        return Tap(model, {"name": type(model).__name__})
    return LogitsTap(model)


def build_model(
    name: str,
    classes: int | Sequence[str],
    *,
    pretrained: bool = False,
    weights: str | os.PathLike | None = None,
    seed: int | None = None,
    **settings,
) -> Tap:
    """Any timm model by name behind a ``Tap``; ``SMALL`` adds narrow ones for 32 and 64 px (``resnet10t_w16``...).

    classes     number of classes, or their names
    pretrained  fetch timm's weights from the hub
    weights     a local .safetensors, .pth or .bin file to start from instead; a classifier of other size is replaced
    seed        initialise from this seed and leave the global random state alone; default: draw from the global state
    settings    go to ``timm.create_model`` as they are

    Raises ``ValueError`` for an unknown name or settings the model does not take, ``FileNotFoundError`` for missing
    weights, ``ConnectionError`` when the hub cannot be reached (it says how to pass a file).
    """
    count = classes if isinstance(classes, int) else len(classes)
    if count < 2:
        raise ValueError(f"A classifier needs at least two classes; got {count}.")
    timm_name, defaults = SMALL.get(name, (name, {}))
    if not timm.is_model(timm_name):
        raise ValueError(did_you_mean("model", name, [*SMALL, *timm.list_models()]).split(" Known:")[0])
    overlay = _local_weights(Path(weights)) if weights else None
    with contextlib.nullcontext() if seed is None else torch.random.fork_rng():
        if seed is not None:
            torch.manual_seed(seed)
        model = _create(name, timm_name, count, pretrained, weights, overlay, {**defaults, **settings})
    spec = {"name": name, "classes": count, "settings": settings, "pretrained": pretrained, "seed": seed}
    if weights is not None:
        spec["weights"] = str(weights)
    return Tap(model, spec)


def _create(name, timm_name, count, pretrained, weights, overlay, settings) -> nn.Module:
    try:
        return timm.create_model(
            timm_name,
            pretrained=pretrained or weights is not None,
            num_classes=count,
            pretrained_cfg_overlay=overlay,
            **settings,
        )
    except TypeError as error:
        raise ValueError(f"{name} does not take these settings {sorted(settings)}: {error}") from error
    except (OSError, RuntimeError) as error:
        if weights is not None:
            raise ValueError(f"{weights} does not fit {name}: {error}") from error
        if pretrained:
            raise ConnectionError(
                f"Could not fetch pretrained weights of {name} ({type(error).__name__}). Download them on a connected "
                f"machine and pass the file: build_model({name!r}, ..., weights='FILE.safetensors')."
            ) from error
        raise


def _local_weights(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"No weights file at {path}.")
    return {"file": str(path), "source": "file"}


def batchnorms(model: nn.Module) -> list[nn.Module]:
    """Every BatchNorm layer that keeps running statistics (timm's fused variants included)."""
    kinds = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, kinds) and m.track_running_stats]


def training_mode(model: nn.Module, policy: str) -> None:
    """``model.train()``, with BatchNorm kept in eval when the policy is ``frozen`` (as SWAD and WAKD do)."""
    model.train()
    if policy == "frozen":
        for layer in batchnorms(model):
            layer.eval()


@torch.no_grad()
def recalibrate(model: nn.Module, batches) -> nn.Module:
    """Set BatchNorm running statistics to those of the given batches of images, in place; returns the model.

    The statistics are cumulative means over the batches (Izmailov et al. 2018, section 3.2), everything else stays in
    eval, so dropout and stochastic depth do not disturb them. A model without BatchNorm is returned as it came.
    Averaged parameters see activations that none of the averaged networks saw; their statistics fit no one else's.
    """
    layers = batchnorms(model)
    if not layers:
        return model
    momenta = [layer.momentum for layer in layers]
    was_training = model.training
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    seen = 0
    for images in batches:
        model(images, maps=False)
        seen += len(images)
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum
    model.train(was_training)
    if seen < 2:
        raise ValueError(f"BatchNorm recalibration needs source images; got {seen}.")
    return model

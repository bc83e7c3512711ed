"""timm models behind one Tap: images in [0, 1] go in, logits, pooled feature and stage maps come out of one forward."""

from __future__ import annotations

import contextlib
import numbers
import os
from collections.abc import Iterable, Iterator, Sequence
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
    """A tap as it is; a bare timm model in a ``Tap``; any other module, which should return logits, in a ``LogitsTap``."""
    if isinstance(model, (Tap, LogitsTap)):
        return model
    if all(hasattr(model, part) for part in ("forward_features", "forward_intermediates", "forward_head")):
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
    weights     a local .safetensors, .pth or .bin file to start from instead: a timm state_dict, or one of ``Run.average``.
                Every tensor has to fit, but for the classifier: one for another number of classes is replaced
    seed        initialise from this seed and leave the global random state alone; default: draw from the global state
    settings    go to ``timm.create_model`` as they are

    Raises ``ValueError`` for an unknown name, settings the model does not take or weights that do not fit it,
    ``FileNotFoundError`` for missing weights, ``ConnectionError`` when the hub cannot be reached: after its retries,
    nearly a minute, or at once under ``HF_HUB_OFFLINE=1``.
    """
    count = int(classes) if isinstance(classes, numbers.Integral) else len(classes)
    if count < 2:
        raise ValueError(f"A classifier needs at least two classes; got {count}.")
    timm_name, defaults = SMALL.get(name, (name, {}))
    if not timm.is_model(timm_name):
        raise ValueError(did_you_mean("model", name, [*SMALL, *timm.list_models()]).split(" Known:")[0])
    if pretrained and name in SMALL:
        raise ValueError(
            f"{name} is smaller than timm's {timm_name}: no published weights fit it. Pass weights='FILE', or "
            "pretrain it yourself."
        )
    file = None if weights is None else Path(weights)
    with contextlib.nullcontext() if seed is None else torch.random.fork_rng():
        if seed is not None:
            torch.manual_seed(seed)
        model = _create(name, timm_name, count, pretrained, file, {**defaults, **settings})
    spec = {"name": name, "classes": count, "settings": settings, "pretrained": pretrained, "seed": seed}
    if file is not None:
        spec["weights"] = str(file)
    return Tap(model, spec)


def _create(name: str, timm_name: str, count: int, pretrained: bool, file: Path | None, settings: dict) -> nn.Module:
    try:
        if file is None:
            return timm.create_model(timm_name, pretrained=pretrained, num_classes=count, **settings)
        # built for the classes of the file, so that every tensor of it must find its place; then fitted to ours
        state = _read_weights(file)
        stored = _classes_in(state, timm_name)
        overlay = {"state_dict": state, "num_classes": stored, "label_offset": 0}
        model = timm.create_model(
            timm_name, pretrained=True, num_classes=stored, pretrained_cfg_overlay=overlay, **settings
        )
        model.pretrained_cfg.pop("state_dict")
        if stored != count:
            model.reset_classifier(count)
        return model
    except TypeError as error:
        raise ValueError(f"{name} does not take these settings {sorted(settings)}: {error}") from error
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise ValueError(f"{file or 'That'} does not fit {name}: {problem}") from error
    except OSError as error:
        if not pretrained or file is not None:
            raise
        raise ConnectionError(
            f"Could not fetch pretrained weights of {name} ({type(error).__name__}). Download them on a connected "
            f"machine and pass the file: build_model({name!r}, ..., weights='FILE.safetensors')."
        ) from error


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"No weights file at {file}.")
    try:
        state = timm.models.load_state_dict(str(file))
        tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    except Exception as error:  # unpickling, safetensors, and timm's own: each has errors of its own
        raise ValueError(f"{file} holds no weights that can be read ({type(error).__name__}).") from error
    if not tensors:
        raise ValueError(f"{file} holds no tensors.")
    own = all(name.startswith("model.") for name in tensors)  # the state of a Tap
    return {name.removeprefix("model."): t for name, t in tensors.items()} if own else tensors


def _classes_in(state: dict[str, Tensor], timm_name: str) -> int:
    """How many classes the classifier in these weights has, 0 when there is none."""
    classifier = timm.models.get_pretrained_cfg(timm_name).classifier
    first = classifier if isinstance(classifier, str) else next(iter(classifier or ()), "")
    return len(state[f"{first}.weight"]) if f"{first}.weight" in state else 0


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


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Set BatchNorm running statistics to those of the given batches of images, in place; returns the model.

    Averaged parameters see activations that none of the averaged networks saw, so nobody's statistics fit them
    (Izmailov et al. 2018, section 3.2). The new ones are plain means over the batches of each batch's mean and unbiased
    variance, so batches weigh alike and the variance between their means is left out. Everything else stays in eval:
    dropout and stochastic depth do not disturb them. A model without BatchNorm is returned as it came.
    """
    layers = batchnorms(model)
    if not layers:
        return model
    momenta = [layer.momentum for layer in layers]
    seen = 0
    try:
        with in_eval(model):
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # torch's word for a cumulative mean
                layer.train()
            for images in batches:
                model(images, maps=False)
                seen += len(images)
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
    if not seen:
        raise ValueError("BatchNorm recalibration needs source images; got none.")
    return model

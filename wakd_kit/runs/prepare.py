"""What happens once before the first batch: both models are tried out, and objectives learn what they need of the data."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from ..data.augment import to_float
from ..data.domains import Split
from ..models.build import Adapter, LogitsTap, in_eval
from ..models.weights import check_size
from ..objectives import Combined
from .identity import check_unseen, provenance_of


def prepare(
    combined: Combined, student: nn.Module, teacher: nn.Module | None, split: Split, *, steps: int, seed: int
) -> None:
    """One forward of two images through both: class counts fit, and the objectives find what they need and are built.

    Raises ``ValueError`` in one sentence otherwise, and where one of them has seen the domain to be unseen.
    """
    images = next(iter(split.train.values())).images[:2]
    classes = len(split.classes)
    ours, theirs = (
        outputs(model, images, maps=combined.reads("maps", who))
        for model, who in ((student, "student"), (teacher, "teacher"))
    )
    _try_in_training(student, images)
    found = ours.logits.shape[1]
    spec = getattr(student, "spec", {})
    check_size(spec.get("name", ""), spec.get("pretrained_size"), getattr(student, "size", None), split.domains.size)
    if found != classes:
        raise ValueError(f"Student gives {found} classes, the data has {classes}: build it with classes=split.classes.")
    if teacher is not None and theirs.logits.shape[1] != classes:
        raise ValueError(
            f"Teacher gives {theirs.logits.shape[1]} classes, student {classes}. "
            "Was the teacher trained on another dataset?"
        )
    combined.prepare(ours, theirs, steps=steps, seed=seed)
    for who, model in (("teacher", teacher), ("student", student)):
        check_unseen(model, split, who=who)
    origin = (provenance_of(teacher) or {}).get("split")
    if origin is None:
        return
    if origin["classes"] != list(split.classes):
        raise ValueError(f"Teacher knows the classes {origin['classes']}, the data has {list(split.classes)}.")
    alike = origin["fingerprint"] == split.domains.fingerprint or origin["benchmark"] == split.domains.spec
    if alike and origin["seed"] != split.seed:
        warnings.warn(
            f"The teacher was trained on split seed {origin['seed']}, this is {split.seed}: it has seen some of the "
            "source validation images, so validation curves against it are optimistic.",
            stacklevel=5,
        )


@torch.no_grad()
def _try_in_training(student: nn.Module, images: np.ndarray) -> None:
    """A module of one's own may give something else while it is trained, such as a second head: tried on a copy."""
    if not isinstance(student, (LogitsTap, Adapter)):
        return
    device = next((p.device for p in student.parameters()), torch.device("cpu"))
    with torch.random.fork_rng():
        try:
            copy.deepcopy(student).train()(to_float(torch.as_tensor(images).to(device)))
        except TypeError as error:
            raise TypeError(f"In training mode, {error} One that is trained gives the same in both modes.") from error


@torch.no_grad()
def outputs(model: nn.Module | None, images: np.ndarray | Tensor, *, maps: bool):
    """What a model gives for a few images (n, H, W, 3) uint8, in eval mode; nothing without a model."""
    if model is None:
        return None
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with in_eval(model):
        return model(to_float(torch.as_tensor(images).to(device)), maps=maps)


def source_features(teacher: nn.Module, split: Split, *, batch_size: int = 128) -> tuple[Tensor, Tensor]:
    """The teacher's pooled features (n, features) of all source training images, not augmented, and their labels (n,).

    On the teacher's device; nothing of validation parts or of the target is read.
    """
    features, labels = [], []
    for examples in split.train.values():
        for i in range(0, len(examples), batch_size):
            images = np.ascontiguousarray(examples.images[i : i + batch_size])
            features.append(outputs(teacher, images, maps=False).pooled.float())
            labels.append(torch.from_numpy(examples.labels[i : i + batch_size]))
    features = torch.cat(features)
    return features, torch.cat(labels).to(features.device)

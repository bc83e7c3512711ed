"""What happens once before the first batch: both models are tried out, and objectives learn what they need of the data."""

from __future__ import annotations

import contextlib
import copy
import traceback
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..data.augment import to_float
from ..data.batches import learnt_from
from ..data.domains import Split
from ..data.mixing import Mix, second_from
from ..models.arithmetic import own_draws
from ..models.build import Adapter, LogitsTap, frozen_parts, in_eval, training_mode
from ..models.weights import check_size
from ..objectives import Combined, objectives
from ..objectives.base import each_tensor
from .identity import check_unseen, provenance_of, trained_on
from .settings import Settings
from .store import check_recordable


def refuse_unfit(settings: Settings, combined: Combined, split: Split, *, teacher: bool) -> None:
    """Raises ``ValueError`` for settings, objectives and a split that do not go together, whatever the models are."""
    available = sum(len(e) for e in split.train.values())
    if settings.batch_size > available:
        raise ValueError(f"batch_size {settings.batch_size} is more than the {available} source training images.")
    if combined.needs("teacher") and not teacher:
        raise ValueError(f"The objectives {combined.labels} learn from a teacher; pass teacher=.")
    if combined.needs("between") and len(split.sources) < 2:
        raise ValueError(
            f"The objectives {combined.labels} compare source domains, and {split.sources[0]} alone is trained on; leave them out."
        )
    if settings.sampling == "turns" and combined.needs("between"):
        raise ValueError(
            f"The objectives {combined.labels} compare domains within a batch, and with sampling='turns' each is of one; take 'balanced'."
        )
    if isinstance(settings.sampling, dict) and not teacher:
        raise ValueError("Sampling by gap compares the student with its teacher, and there is none; pass teacher=.")
    second = settings.second and second_from(settings.second)
    if not teacher and second and "teacher" in second.asks:
        raise ValueError(
            "The second batch asks the teacher which images it has, and there is no teacher; pass teacher=."
        )


def prepare(settings: Settings, student, teacher, split: Split, combined: Combined) -> None:
    """Both models and the data meet: objectives are built, and what can only now be known to fail is said before the first batch.

    Raises ``ValueError`` in one sentence, and where one of the models has seen the domain to be unseen.
    """
    refuse_unfit(settings, combined, split, teacher=teacher is not None)
    second = settings.second and second_from(settings.second)
    listens = combined.needs("teacher") or isinstance(settings.sampling, dict) or (second and "teacher" in second.asks)
    if teacher is not None and not listens:
        warnings.warn(
            f"Nothing is learned from the teacher by {combined.labels}, it only measures; objectives='kd' distils.",
            stacklevel=4,
        )
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise ValueError(
            "Nothing of the student requires a gradient, so nothing would be trained; call requires_grad_()."
        )
    ours, theirs = (
        {p.untyped_storage().data_ptr() for p in ([] if model is None else model.parameters())}
        for model in (student, teacher)
    )
    if ours & theirs - {0}:
        raise ValueError(
            "Teacher and student share parameters, so the teacher would be trained; pass a copy.deepcopy of it."
        )
    check_recordable(student)
    _try_both(combined, student, teacher, split, settings)
    if combined.needs("index"):
        copy.deepcopy(combined).learn_examples(*learnt_from(split))
    if settings.batch_size == 1:
        _refuse_one_image(combined, student, teacher, split, settings)
    own = (p.requires_grad for name, p in student.named_parameters() if not name.startswith("tail."))
    if settings.freeze or not all(own):
        _refuse_untrained(combined, student, teacher, split, settings)


def _rehearsed(
    combined, student, teacher, split, settings, few: Sequence[tuple[int, int]]
) -> tuple[Tensor, list[Tensor]]:
    """The loss of a first step on a few training images, (source, which of its images), and what of the student would be trained
    on it: of copies on the CPU."""
    parts = [*split.train.values()]
    images = torch.as_tensor(np.stack([parts[source].images[i : i + 1][0] for source, i in few]))
    labels = torch.as_tensor([int(parts[source].labels[i]) for source, i in few])
    index = torch.as_tensor([sum(map(len, parts[:source])) + i for source, i in few])
    domains = torch.eye(len(parts))[[source for source, _ in few]]
    model, terms = copy.deepcopy((student, combined))
    training_mode(model.cpu(), settings.batchnorm)
    terms.train().learn_examples(*learnt_from(split))
    taught = each_tensor(outputs(teacher, images, maps=combined.asks("teacher")), Tensor.cpu)
    shown = to_float(images)
    with torch.random.fork_rng(devices=[]), frozen_parts(model, settings.freeze, settings.batchnorm):
        known = {"index": index, "domains": domains, "images": shown}
        total, _ = terms(model(shown, maps=combined.asks("student")), taught, labels, step=1, **known)
        return total, [parameter for parameter in model.parameters() if parameter.requires_grad]


def _refuse_one_image(combined: Combined, student, teacher, split: Split, settings: Settings) -> None:
    """BatchNorm and some objectives take no batch of one, which a step alone says. Raises ``ValueError`` where one image fails
    and two do not."""

    def problem(count: int) -> str:
        try:
            _rehearsed(combined, student, teacher, split, settings, [(0, i) for i in range(count)])
        except (ValueError, RuntimeError) as error:
            return str(error).splitlines()[0]
        return ""

    said = problem(1)
    if said and not problem(2):
        raise ValueError(
            f"batch_size 1 is too small to train {student.spec['name']} on {combined.labels} ({said}); take 2."
        )


def _refuse_untrained(combined: Combined, student, teacher, split: Split, settings: Settings) -> None:
    """Raises ``ValueError`` where no objective reaches what of the student is not frozen: it would never move. With a second batch
    that is not known before."""
    if settings.second:
        return
    pairs = [
        (source, int(i))
        for source, part in enumerate([*split.train.values()][:2])
        for label in np.unique(part.labels)[:2]
        for i in np.flatnonzero(part.labels == label)[:2]
    ]
    total, trained = _rehearsed(combined, student, teacher, split, settings, pairs)
    if not total.requires_grad or not any(
        g is not None for g in torch.autograd.grad(total, trained, allow_unused=True)
    ):
        raise ValueError(
            f"What is not frozen of {student.spec['name']} is not reached by {combined.labels}, so it would never move. Freeze less, or add "
            "an objective on logits, such as 'ce'."
        )


def _try_both(
    combined: Combined, student: nn.Module, teacher: nn.Module | None, split: Split, settings: Settings
) -> None:
    """One forward of two images through both: class counts fit, and the objectives find what they need and are built."""
    images = next(iter(split.train.values())).images[:2]
    classes = len(split.classes)
    ours = outputs(student, images, maps=combined.asks("student"))
    theirs = outputs(teacher, images, maps=combined.asks("teacher"))
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
    shown = {"images": to_float(torch.as_tensor(images)), "sources": len(split.sources)}
    combined.prepare(ours, theirs, steps=settings.steps, seed=settings.seed, **shown)
    _refuse_mixed(combined, ours, theirs, settings, shown)
    for who, model in (("teacher", teacher), ("student", student)):
        check_unseen(model, split, who=who)
    for one in getattr(teacher, "members", [teacher]):
        origin = (provenance_of(one) or {}).get("split")
        if origin and origin["classes"] != list(split.classes):
            raise ValueError(f"Teacher knows the classes {origin['classes']}, the data has {list(split.classes)}.")
        _warn_of_validation(one, split, "teacher", "curves of the distillation loss there are optimistic")
    _warn_of_validation(student, split, "student", "averages are chosen by images that it has learned")


@contextlib.contextmanager
def computing(model: nn.Module, side: int) -> Iterator[None]:
    """What a model stumbles over in its forward is one sentence with its name; what this package says of it stands as it is."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not isinstance(error, RuntimeError) and frame.f_globals.get("__name__", "").startswith(
            __name__.partition(".")[0] + "."
        ):
            raise
        spec = getattr(model, "spec", {"name": type(model).__name__})
        said = f"{type(error).__name__} " * (not isinstance(error, RuntimeError)) + (str(error).splitlines() or [""])[0]
        if spec.get("settings") and not isinstance(error, RuntimeError):
            raise ValueError(
                f"{spec['name']} computes nothing with its settings {spec['settings']}: {said.strip()}. Give others."
            ) from error
        raise ValueError(
            f"{spec['name']} takes no float32 images of {side} px as they come here: {said.strip()}."
        ) from error


def _warn_of_validation(model, split: Split, who: str, so: str) -> None:
    """Warns where a model was trained on images that this split validates on: those of its own split are counted."""
    learned = trained_on(model, split) if split.held_out else {}
    seen = sum(np.isin(split.val[d].rows, rows).sum() for d, rows in learned.items())
    if seen:
        of = sum(map(len, split.val.values()))
        warnings.warn(
            f"The {who} was trained on {seen} of the {of} source validation images, on a split of another seed or share: {so}.",
            stacklevel=6,
        )


def _refuse_mixed(combined: Combined, student, teacher, settings: Settings, shown: dict) -> None:
    """Raises ``ValueError`` for a term on mixed images that needs to know which image, domain or class each of them is."""
    second = settings.second and second_from(settings.second)
    mixes = {"views": settings.mix, "mixed": settings.second if isinstance(second, Mix) else None}
    if not any(mixes.values()):
        return
    largest = combined.reading_largest(student, teacher, **shown)
    for label, spec in zip(combined.labels, combined.specs):
        mix, about = mixes[spec.get("on", "views")], objectives.about(spec["name"])
        known = [what for what in ("index", "domains") if mix and what in about.needs]
        known += ["largest class of a label"] * bool(mix and mix["labels"] == "mixed" and label in largest)
        if known:
            raise ValueError(
                f"{label} reads the {known[0]} of each image, and mixed ones have no one such: let it learn from the views as they "
                'are, and mix a second batch for others (second=), or mix images alone ("labels": "own") where that is what it reads.'
            )


@torch.no_grad()
def _try_in_training(student: nn.Module, images: np.ndarray) -> None:
    """A module of one's own may give something else while it is trained, such as a second head: tried on a copy."""
    if not isinstance(student, (LogitsTap, Adapter)):
        return
    device = next((p.device for p in student.parameters()), torch.device("cpu"))
    try:
        copied = copy.deepcopy(student).train()
    except Exception as error:  # whatever it holds that has no copy
        raise ValueError(f"{student.spec['name']} cannot be copied, which is how it is tried out: {error}.") from error
    with own_draws(device), computing(student, images.shape[1]):
        try:
            copied(to_float(torch.as_tensor(images).to(device)))
        except TypeError as error:
            raise TypeError(f"In training mode, {error} One that is trained gives the same in both modes.") from error


@torch.no_grad()
def outputs(model: nn.Module | None, images: np.ndarray | Tensor, *, maps: bool | str):
    """What a model gives for a few images (n, H, W, 3) uint8, in eval mode; nothing without a model."""
    if model is None:
        return None
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with in_eval(model), computing(model, images.shape[1]):
        return model(to_float(torch.as_tensor(images).to(device)), maps=maps)


def source_features(teacher: nn.Module, split: Split) -> Tensor:
    """The teacher's ``pooled_features`` of all source training images, not augmented; nothing of validation parts or of the target
    is read."""
    return torch.cat([pooled_features(teacher, examples.images) for examples in split.train.values()])


def pooled_features(model: nn.Module, images: np.ndarray | Tensor) -> Tensor:
    """A model's pooled features (n, features) of images (n, H, W, 3) uint8, on its device."""
    parts = (np.ascontiguousarray(images[i : i + 128]) for i in range(0, len(images), 128))
    return torch.cat([outputs(model, part, maps=False).pooled.float() for part in parts])

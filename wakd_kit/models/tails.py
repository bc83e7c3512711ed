"""Objectives whose student keeps a part of them: a tail on the tapped student, so that every average covers it.

A tail belongs to the student's ``state_dict``. Recording, averaging, BatchNorm recalibration and evaluation treat it as
they treat the rest. ``train`` puts it on when an objective asks for it, ``build_model(..., deployed=...)`` rebuilds it
from what a run recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.augment import to_float
from ..data.batches import uploaded
from ..data.domains import Examples
from ..names import counted
from .tap import Output, Tap, fingerprint, in_eval, shapes_of

PROBE_SIZE = 224  # channel counts do not depend on it, and sizes of maps only where a model has one size


class Deployed(nn.Module):
    """A tapped student whose logits come out of a tail: one of ``TAILS``, built from ``deployed``."""

    def __init__(self, tap: Tap, deployed: dict):
        super().__init__()
        self.tap = tap
        try:
            settings = dict(deployed)
            self.tail = TAILS[settings.pop("tail")](**settings)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f'deployed is what a run recorded of it, {{"tail": one of {", ".join(TAILS)}, ...}}; got {deployed!r}.'
            ) from error
        # built on the CPU, so that a seed means the same
        self.tail.to(next((p.device for p in tap.parameters()), None))
        self.spec = {**tap.spec, "settings": {**tap.spec.get("settings", {}), "deployed": dict(deployed)}}

    @property
    def classes(self) -> int:
        """How many classes the student tells apart."""
        return self.tap.classes

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) that the student's images are resized to; None where it sees them as they come."""
        return self.tap.size

    def forward(self, images: Tensor, *, maps: bool | str = True) -> Output:
        """The tapped student's ``Output`` with the tail's logits and parts."""
        output = self.tail(self.tap(images, maps=maps or self.tail.reads_maps))
        return output if maps else output._replace(maps=())


class ReusedHead(nn.Module):
    """SimKD's student: its last map, projected to the teacher's channels, goes through the teacher's classifier.

    The projector is 1x1, 3x3, 1x1 convolutions with BatchNorm and ReLU, narrower by ``factor`` in between; a map that is
    ``finer`` times the teacher's in height and width is averaged to its size first, as in the authors' code. The
    student's own classifier is not used. ``parts`` is the projected map. ``of`` says by content which classifier it is;
    earlier recordings do not. Under ``batchnorm="frozen"`` the projector's BatchNorm layers, which are new, stay at mean 0
    and variance 1.
    """

    reads_maps = True

    def __init__(
        self, *, channels: int, features: int, classes: int, factor: int = 2, finer: int = 1, of: str | None = None
    ):
        super().__init__()
        self.finer = finer
        narrow = features // factor
        self.projector = nn.Sequential(
            *_convolution(channels, narrow, 1), *_convolution(narrow, narrow, 3), *_convolution(narrow, features, 1)
        )
        self.classifier = nn.Linear(features, classes).requires_grad_(False)

    def forward(self, output: Output) -> Output:
        """Logits of the teacher's classifier on the projected map, which is the only part."""
        features = output.maps[-1]
        coarse = [math.ceil(side / self.finer) for side in features.shape[-2:]]
        projected = self.projector(features if self.finer == 1 else F.adaptive_avg_pool2d(features, coarse))
        return output._replace(logits=self.classifier(projected.mean((2, 3))), parts=(projected,))


class TwoHeads(nn.Module):
    """DHO's student: a head for labels and one for the teacher; logits are the log of their mixed probabilities.

    ``alpha softmax(labels' head) + (1 - alpha) softmax(teacher's head / beta)``. The student's own classifier is the
    head for labels. alpha and beta are state: chosen on source validation where a segment ends, see
    ``choose_mixture``, and averaged with the rest. ``parts`` are the logits of both heads.
    """

    reads_maps = False

    def __init__(self, *, features: int, classes: int):
        super().__init__()
        self.head = nn.Linear(features, classes)
        self.register_buffer("alpha", torch.tensor(0.5))
        self.register_buffer("beta", torch.tensor(1.0))

    def forward(self, output: Output) -> Output:
        """Logits of both heads mixed; each head's are the parts."""
        heads = (output.logits, self.head(output.pooled))
        return output._replace(logits=mixed(*heads, self.alpha, self.beta), parts=heads)


def mixed(z_labels: Tensor, z_teacher: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Log-probabilities (n, classes) of ``alpha softmax(z_labels) + (1 - alpha) softmax(z_teacher / beta)``."""
    log_labels, log_teacher = F.log_softmax(z_labels, dim=1), F.log_softmax(z_teacher / beta, dim=1)
    return torch.logaddexp(alpha.log() + log_labels, (1 - alpha).log() + log_teacher)


class TextHead(nn.Module):
    """VL2V's student: its feature, projected, is compared by cosine with an embedding of each class's name, times ``scale``.

    The embeddings stay as they are. ``parts`` is the projected feature, (n, width).
    """

    reads_maps = False

    def __init__(self, *, features: int, classes: int, width: int, scale: float, of: str):
        super().__init__()
        self.projector = nn.Linear(features, width)
        self.scale, self.of = scale, of  # which embeddings these are is a part of what the student is
        self.register_buffer("text", torch.zeros(classes, width))

    def forward(self, output: Output) -> Output:
        """Logits by cosine; the projected feature is the only part."""
        projected = self.projector(output.pooled)
        cosines = F.normalize(projected, dim=1) @ F.normalize(self.text, dim=1).T
        return output._replace(logits=self.scale * cosines, parts=(projected,))


TAILS = {"reused_head": ReusedHead, "two_heads": TwoHeads, "text_head": TextHead}


def _convolution(channels: int, out: int, side: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, out, side, padding=side // 2, bias=False)
    return convolution, nn.BatchNorm2d(out), nn.ReLU()


def with_reused_head(student: Tap, teacher: nn.Module, *, factor: int = 2) -> Deployed:
    """SimKD's student for this teacher, the teacher's classifier copied into it.

    Raises ``ValueError`` unless the teacher classifies the plain mean of its last map by one linear layer, of ``factor`` features or more.
    """
    counted(factor=factor)
    classifier = teacher.model.get_classifier() if isinstance(teacher, Tap) else None
    if not isinstance(classifier, nn.Linear) or not _averages_its_map(teacher):
        raise ValueError(
            f"simkd keeps the teacher's classifier on an averaged map; {teacher.spec['name']} does not classify the plain "
            "mean of its last map by one linear layer. Take another teacher, such as a ResNet, or another objective."
        )
    if factor > classifier.in_features:
        raise ValueError(f"factor of simkd is at most the teacher's {classifier.in_features} features; got {factor}.")
    (size, *_) = student.size or teacher.size or (PROBE_SIZE,)  # a model of one size is shown no other
    ours, theirs = (shapes_of(tap, size).maps[-1].shape for tap in (student, teacher))
    settings = {"channels": ours[1], "features": classifier.in_features, "classes": classifier.out_features}
    settings |= {
        "factor": factor,
        "finer": max(1, round(ours[2] / theirs[2])),
        "of": fingerprint(classifier.state_dict()),
    }
    deployed = Deployed(student, {"tail": "reused_head", **settings})
    with torch.no_grad():
        deployed.tail.classifier.weight.copy_(classifier.weight)
        deployed.tail.classifier.bias.copy_(torch.zeros(()) if classifier.bias is None else classifier.bias)
    return deployed


@torch.no_grad()
def _averages_its_map(teacher: Tap) -> bool:
    """Whether the pooled feature is the mean of the last map, seen on one image."""
    size = (teacher.size or (64, 64))[0]
    images = torch.linspace(0, 1, 3 * size * size, device=teacher.mean.device).view(1, 3, size, size)
    with in_eval(teacher):
        output = teacher(images)
    mean = output.maps[-1].mean((2, 3))
    return mean.shape == output.pooled.shape and torch.allclose(mean, output.pooled, rtol=1e-3, atol=1e-4)


def with_two_heads(student: Tap, teacher: nn.Module) -> Deployed:
    """DHO's student: a second head beside the student's own."""
    shapes = shapes_of(student, PROBE_SIZE)
    settings = {"features": shapes.pooled.shape[1], "classes": shapes.logits.shape[1]}
    return Deployed(student, {"tail": "two_heads", **settings})


def with_text_head(student: Tap, text: Tensor, *, scale: float, of: str) -> Deployed:
    """VL2V's student: embeddings (classes, width) of the classes' names stand for a classifier; ``of`` says by content which they are.

    Raises ``ValueError`` where there are not as many as classes.
    """
    shapes = shapes_of(student, PROBE_SIZE)
    classes, width = shapes.logits.shape[1], text.shape[1]
    if len(text) != classes:
        raise ValueError(f"There are embeddings of {len(text)} names, and the student tells {classes} classes apart.")
    settings = {"features": shapes.pooled.shape[1], "classes": classes, "width": width, "scale": scale, "of": of}
    deployed = Deployed(student, {"tail": "text_head", **settings})
    deployed.tail.text.copy_(text)
    return deployed


ALPHAS = [i / 20 for i in range(21)]
BETAS = [0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0]


@torch.no_grad()
def choose_mixture(student: nn.Module, validation: Iterable[Examples]) -> dict[str, Tensor] | None:
    """Set alpha and beta of a student of two heads to the pair with the best accuracy on these examples, in place; returns
    what the two were before, by their names in the ``state_dict``.

    DHO's grid, alpha from 0 to 1 by 0.05 and seven betas from 0.5 to 4 (arXiv 2505.07675); domains weigh the same, the lower negative log-likelihood
    decides between equals. Any other student is left alone: None. Meant for source validation: scores on the same images
    afterwards are slightly optimistic, as they are for everything that was chosen there.
    """
    if not isinstance(student, Deployed) or not isinstance(student.tail, TwoHeads):
        return None
    device = student.tail.alpha.device
    parts = []
    with in_eval(student):
        for examples in validation:
            batches = map(to_float, uploaded(examples.images, device, 128))
            heads = [torch.cat(z).double() for z in zip(*(student(x, maps=False).parts for x in batches))]
            parts.append((*heads, torch.from_numpy(examples.labels).to(device)))
    grid = [torch.tensor(pair, dtype=torch.float64, device=device) for pair in ((a, b) for a in ALPHAS for b in BETAS)]
    best = max(grid, key=lambda pair: _quality(parts, *pair))
    before = {f"tail.{name}": getattr(student.tail, name).clone() for name in ("alpha", "beta")}
    student.tail.alpha.copy_(best[0])
    student.tail.beta.copy_(best[1])
    return before


def _quality(parts: list[tuple[Tensor, Tensor, Tensor]], alpha: Tensor, beta: Tensor) -> tuple[float, float]:
    """Mean accuracy over domains, and minus the mean negative log-likelihood."""
    by_domain = []
    for z_labels, z_teacher, labels in parts:
        log_p = mixed(z_labels, z_teacher, alpha, beta)
        right = (log_p.argmax(1) == labels).double().mean()
        by_domain.append((right, log_p.gather(1, labels[:, None]).mean()))
    return tuple(torch.stack(values).mean().item() for values in zip(*by_domain))

"""Objectives made for domains that nobody has seen."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..models.tails import Deployed, with_text_head, with_two_heads
from ..models.tap import Tap
from ..models.weights import sha256
from ..names import positive
from .base import class_means, hard, logit_pair, logits_of, objectives, widened
from .logits import tempered_kl


@objectives.declare(kind="domain shift", needs="labels", source="XDED, Lee et al. 2022, arXiv 2211.14058", weight=5.0)
def xded(student, teacher, labels: Tensor, *, temperature: float = 4.0) -> Tensor:
    """``T^2 KL(softmax(mean of the class / T) || softmax(student / T))``, mean over the batch, in nats; no teacher.

    Every example learns from the student's mean logits of its class in the batch, its own among them, over all domains
    there, not differentiated. An example that is alone in its class adds nothing, so train with ``sampling="classes"``,
    batches of 16 images a class over all domains as published. Published next to ``ce``, in a student without style in its first
    stages: ``build_model(..., inside={"after": [0, 1], "name": "unistyle"})``.
    """
    positive(temperature=temperature)
    z, labels = logits_of(student), hard(labels)
    means, _ = class_means(z.detach(), labels, z.shape[1])
    return tempered_kl(z, means[labels], temperature)


def two_heads(
    z_labels: Tensor, z_teacher: Tensor, teacher: Tensor, labels: Tensor, *, share: float, temperature: float
) -> Tensor:
    """``share CE(labels' head) + (1 - share) T^2 KL(teacher || teacher's head)``."""
    return share * F.cross_entropy(z_labels, labels) + (1 - share) * tempered_kl(z_teacher, teacher, temperature)


@objectives.declare(
    kind="domain shift",
    needs="labels teacher student.parts",
    source="DHO, Kang et al. 2025, arXiv 2505.07675",
    tail=with_two_heads,
)
def dho(student, teacher, labels: Tensor, *, temperature: float = 2.0, share: float = 0.5) -> Tensor:
    """One head learns from labels, a second one from the teacher; what is deployed mixes their probabilities.

    Meant to be the only objective: ``share`` of it is cross-entropy, the rest distillation at this temperature. Of soft
    labels the largest class counts.
    ``train`` puts the second head on the student, so it is recorded and averaged with it, and chooses how the heads are
    mixed on source validation where a segment ends. The paper distils on unlabelled images as well, of which there are
    none here.
    """
    positive(temperature=temperature)
    if not 0 <= share <= 1:
        raise ValueError(f"share of dho is from 0 to 1; got {share}.")
    z_labels, z_teacher = student.parts
    z_teacher, z_t = logit_pair(z_teacher, teacher)
    return two_heads(widened(z_labels), z_teacher, z_t, hard(labels), share=share, temperature=temperature)


def write_embeddings(
    file: str | os.PathLike,
    images: Mapping[str, Tensor | np.ndarray],
    text: Tensor | np.ndarray,
    *,
    classes: Sequence[str],
    scale: float = 100.0,
) -> None:
    """Keep what a vision-language teacher makes of images and of the classes' names, for ``vl2v``, as a .safetensors file.

    images   {domain: (n, width)}, in the order of the benchmark's images, of the source domains at least
    text     (classes, width), by whatever prompts; a prompt that names the unseen domain looks at it
    classes  their names, in that order
    scale    of cosines as logits: exp(logit_scale), 100 in CLIP

    >>> domains = wk.load_domains("digits")
    >>> images = {name: torch.randn(len(domains[name]), 8) for name in domains}  # stands for what a teacher gives
    >>> write_embeddings("embeddings.safetensors", images, torch.randn(10, 8), classes=domains.classes)
    """
    tensors = {f"image/{domain}": torch.as_tensor(of).float().contiguous() for domain, of in images.items()}
    tensors["text"] = torch.as_tensor(text).float().contiguous()
    problem = [name for name, t in tensors.items() if t.ndim != 2 or t.shape[1:] != tensors["text"].shape[1:]]
    if problem or len(tensors["text"]) != len(classes):
        shapes = {name: tuple(t.shape) for name, t in tensors.items()}
        raise ValueError(f"Embeddings are (n, width), and one of each of the {len(classes)} classes; got {shapes}.")
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, {"classes": json.dumps([*classes]), "scale": repr(float(scale))})


def _embeddings(file: str | os.PathLike) -> tuple[dict[str, Tensor], Tensor, list[str], float]:
    """Those of images by domain, of names, the names and the scale that ``write_embeddings`` wrote. Raises ``ValueError`` for
    anything else."""
    try:
        with safe_open(file, "pt") as opened:
            about, tensors = opened.metadata() or {}, {name: opened.get_tensor(name) for name in [*opened.keys()]}
        return tensors, tensors.pop("text"), json.loads(about["classes"]), float(about["scale"])
    except (OSError, TypeError, SafetensorError, KeyError) as error:
        raise ValueError(
            f"vl2v learns from the embeddings of a vision-language teacher, and {str(file)!r} holds none ({type(error).__name__}). "
            "Write them with wakd_kit.objectives.write_embeddings; none can be made up."
        ) from error


def _with_text_head(student: Tap, teacher: nn.Module | None, *, embeddings: str = "") -> Deployed:
    _, text, _, scale = _embeddings(embeddings)
    return with_text_head(student, text, scale=scale, of=sha256(Path(embeddings))[:16])


@objectives.declare(
    name="vl2v",
    kind="domain shift",
    needs="labels student.parts index",
    source="VL2V-ADiP, Addepalli et al. 2024, arXiv 2310.08255; val-iisc/VL2V-ADiP@d442aae0",
    tail=_with_text_head,
)
class VL2V(nn.Module):
    """The student's feature, projected, goes between the teacher's embedding of the image and that of the class's name.

    ``-(share cos(z, image) + (1 - share) cos(z, text of the label))``, mean over the batch, from -1 to 1; of soft labels the
    largest class counts. Meant to be the only objective, in two trainings: the first with ``freeze="backbone"`` trains the
    projector, the second starts from it and has ``freeze="head"``. The student that is deployed has the projector and the
    names' embeddings for a classifier. Embeddings are of images as they are, where the authors' teacher sees the student's views.
    """

    def __init__(self, *, embeddings: str = ""):
        super().__init__()
        self.file = embeddings
        self.tensors, text, self.classes, _ = _embeddings(embeddings)
        self.content = sha256(Path(embeddings))[:16]
        self.register_buffer("image", text, persistent=False)  # until those of images are learned
        self.register_buffer("text", text, persistent=False)

    def learn_examples(self, labels: Tensor, rows: Mapping[str, np.ndarray] | None, classes: Sequence[str]) -> None:
        """Keep the embeddings of the source training images; raises ``ValueError`` where the file is of others."""
        if [*classes] != self.classes:
            raise ValueError(f"{self.file} has embeddings of the names {self.classes}, the data has {[*classes]}.")
        parts = []
        for domain, places in rows.items():
            of = self.tensors.get(f"image/{domain}")
            if of is None or places.max() >= len(of):
                there = "none" if of is None else f"{len(of)}"
                raise ValueError(f"{self.file} has {there} of the images of {domain!r}, of which a split has more.")
            parts.append(of[torch.as_tensor(places)])
        self.image = torch.cat(parts).to(self.text.device)

    def forward(self, student, teacher, labels: Tensor, *, index: Tensor, share: float = 0.5) -> Tensor:
        """From -1 to 1, mean over the batch."""
        if not 0 <= share <= 1:
            raise ValueError(f"share of vl2v is from 0 to 1; got {share}.")
        (projected,) = student.parts
        near = [F.cosine_similarity(widened(projected), of) for of in (self.image[index], self.text[hard(labels)])]
        return -(share * near[0] + (1 - share) * near[1]).mean()

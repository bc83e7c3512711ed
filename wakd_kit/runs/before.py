"""Scores before training: what features, gradients and views of the sources say of teachers and students, in seconds.

    wk.scores.table({"wide": teacher, "narrow": run}, {"small": student}, split)   # ranked, with what each score took

Only source training images enter a score, so it may choose; whether it chose well is seen afterwards, on the unseen domain
(``plots.scores.score_against``).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import make
from ..data.augment import augment, mixed, to_float, views_from
from ..data.batches import SourceBatches, seed_step
from ..data.domains import Split
from ..data.mixing import Mix
from ..models.arithmetic import own_draws
from ..models.build import as_tap
from ..models.tap import in_eval
from ..names import one_of
from ..objectives import relations
from ..statistics import rank_correlation
from .identity import check_unseen, same_split
from .prepare import pooled_features
from .run import Run, load_run

__all__ = ["diswot", "parc", "table", "view_spread"]


def parc(features, labels) -> float:
    """How well distances of features rank like distances of classes, -100 to 100; higher is better.

    Pearson distances ``1 - corrcoef`` between images, of their features (n, d), each dimension standardised over the images, and
    of their one-hot labels; Spearman's rank correlation of the two over all pairs, ties averaged, times 100. PARC, Bolya et al. 2021,
    arXiv 2111.06977, as its authors' code without the PCA. A dimension that never changes says nothing, an image whose features are
    all at their mean is at distance 1 from the others. Takes (n, n) of memory: some hundred images are enough.

    Raises ``ValueError`` for fewer than two classes.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    classes = np.unique(labels)
    if len(features) != len(labels) or len(classes) < 2:
        raise ValueError(
            f"parc takes features and labels of the same images, of two classes or more; got {len(features)} features and "
            f"{len(labels)} labels of {len(classes)} classes."
        )
    deviation = features.std(0)
    standard = (features - features.mean(0)) / np.where(deviation > 0, deviation, 1)
    pairs = np.triu_indices(len(labels), 1)
    ours, theirs = (_distances(rows)[pairs] for rows in (standard, labels[:, None] == classes))
    return 100 * float(np.nan_to_num(rank_correlation(ours, theirs)))


def _distances(rows: np.ndarray) -> np.ndarray:
    """``1 - corrcoef`` (n, n) of rows, 1 for one that never changes; to 12 digits, so that pairs that tie do so."""
    centred = rows - rows.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(norm > 0, norm, 1)
    return np.round(1 - unit @ unit.T, 12)


def diswot(
    teacher: nn.Module, student: nn.Module, images: Tensor, labels: Tensor, *, semantic: str = "channels", seed: int = 0
) -> float:
    """How alike two architectures see one batch before they know anything; 0 is most alike, more negative less.

    Copies of both start from unit Gaussians; the score is minus the difference of their relations between images (``sp`` on
    their last maps), minus that of the gradients of cross-entropy with respect to their classifiers' weights (classes, features): of the
    outer product of each class's gradient with itself, rows of Euclidean length 1, squares summed over rows, mean over classes and rows.
    DisWOT, Dong et al. 2023, arXiv 2303.15678, as its code for NAS-Bench-201.

    images    (n, 3, height, width) in [0, 1], of the sources; the published batch is 64
    semantic  "channels" as published, for networks with as many features; "classes" compares Gram matrices of the classes'
              gradients instead, for any two networks: another number, to be compared with its like alone
    Raises ``ValueError`` for networks without maps or a classifier, or with other numbers of features.
    """
    one_of("semantic", semantic, ("channels", "classes"))
    outputs, gradients = [], []
    for model in (student, teacher):
        tap = _gaussian(model, seed).to(images.device)
        classifier = tap.model.get_classifier() if hasattr(getattr(tap, "model", None), "get_classifier") else None
        if not isinstance(classifier, nn.Linear):
            raise ValueError(f"diswot reads the gradient of a linear classifier, and {tap.spec['name']} has none.")
        output = tap(images)
        (gradient,) = torch.autograd.grad(F.cross_entropy(output.logits, labels), classifier.weight)
        outputs.append(output._replace(maps=tuple(m.detach() for m in output.maps)))
        gradients.append(gradient)
    ours, theirs = gradients
    if semantic == "channels" and ours.shape != theirs.shape:
        raise ValueError(
            f"diswot compares gradients feature by feature, and the student has {ours.shape[1]} features, the teacher "
            f"{theirs.shape[1]}. Say semantic='classes', which compares them class by class."
        )
    if semantic == "classes":
        apart = (relations.similarities(ours) - relations.similarities(theirs)).square().sum() / len(ours) ** 2
    else:
        outer = [F.normalize(g[:, :, None] * g[:, None, :], dim=2) for g in gradients]
        apart = (outer[0] - outer[1]).square().sum() / ours.numel()
    return -float(relations.sp(*outputs)) - float(apart)


@torch.no_grad()
def _gaussian(model: nn.Module, seed: int) -> nn.Module:
    """A copy in training mode: convolutions and linear layers from a unit Gaussian, norms at 1, biases at 0."""
    tap = copy.deepcopy(as_tap(model)).requires_grad_().train()
    generator = torch.Generator().manual_seed(seed)
    for module in tap.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight.copy_(torch.randn(weight.shape, generator=generator))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm) and weight is not None:
            weight.fill_(1)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()
    return tap


@torch.no_grad()
def view_spread(
    teacher: nn.Module,
    split: Split,
    *,
    views: str | dict | None = None,
    mix: dict | None = None,
    groups: int = 20,
    steps: int = 5,
    batch_size: int = 64,
    seed: int = 0,
) -> float:
    """T.stddev: how much what a teacher gives for views of the sources differs from one handful of batches to the next.

    The teacher's probabilities at temperature 1, mean over a batch and over the ``steps`` batches of a group; their standard
    deviation over groups, mean over classes. Lower is better: Wang et al. 2022 (arXiv 2012.02909) rank augmentations by it.

    views  default the benchmark's own
    mix    as ``train`` takes it, such as {"name": "cutmix"}: a group is then of a batch's views and of their mixes, as published
    Raises ``ValueError`` for fewer than two groups.
    """
    if groups < 2:
        raise ValueError(f"view_spread compares groups of batches, at least two; got {groups}.")
    teacher = as_tap(teacher)
    device = next((p.device for p in teacher.parameters()), torch.device("cpu"))
    data = SourceBatches(split, batch_size, "pooled", seed, device)
    settings, generator, means = (
        views_from(split.domains.views if views in (None, {}) else views),
        torch.Generator(),
        [],
    )
    mixes = mix and make(Mix, mix)
    with in_eval(teacher), own_draws(device):
        for step in range(1, groups * steps + 1):
            seed_step(generator, seed, step, device)
            images, labels, _ = data.batch(step)
            shown = [augment(images, settings, generator)]
            if mixes:
                rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
                shown.append(mixed(shown[0], labels, mixes, rng, len(split.classes))[0])
            means += [teacher(one, maps=False).logits.double().softmax(1).mean(0) for one in shown]
    return float(torch.stack(means).unflatten(0, (groups, -1)).mean(1).std(0).mean())


def table(
    teachers: Mapping[str, Run | str | Path | nn.Module],
    students: Mapping[str, nn.Module],
    split: Split,
    *,
    images: int = 512,
    groups: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Every pair of a teacher and a student, the most promising first, by scores of source training images alone.

    ``teacher, student, parc, view_spread, diswot, seconds``: the first two scores are the teacher's, ``diswot`` (class by class)
    is the pair's, seconds are what this row's scores took. Rows go by PARC, then by DisWOT: no weighing of the two is known, and
    spreads compare views of one teacher, not teachers.

    images  for ``parc``, drawn alike from every source;  groups  for ``view_spread``
    Raises ``ValueError`` where a teacher or a student has seen the domain to be unseen.
    """
    rows, shown, labels = [], *_drawn_alike(split, images, seed)
    batch = to_float(shown[:64]), labels[:64]
    for name, given in teachers.items():
        clock = time.perf_counter()
        made = load_run(given) if isinstance(given, str | Path) else given
        if isinstance(made, Run):  # of arrays in memory it knows no split, and this may be its own
            made = made.model(split=split if same_split(made.settings["split"], split.recipe) else None)
        teacher = as_tap(made)
        check_unseen(teacher, split, who=f"teacher {name}")
        own = {"parc": parc(pooled_features(teacher, shown).cpu(), labels)}
        own["view_spread"] = view_spread(teacher, split, groups=groups, seed=seed)
        for label, student in students.items():
            check_unseen(student, split, who=f"student {label}")
            score = diswot(teacher, student, *batch, semantic="classes", seed=seed)
            took, clock = time.perf_counter() - clock, time.perf_counter()
            rows.append({"teacher": name, "student": label, **own, "diswot": score, "seconds": took})
    found = pd.DataFrame(rows, columns=["teacher", "student", "parc", "view_spread", "diswot", "seconds"])
    return found.sort_values(["parc", "diswot"], ascending=False, ignore_index=True)


def _drawn_alike(split: Split, images: int, seed: int) -> tuple[Tensor, Tensor]:
    """(n, H, W, 3) uint8 and (n,) of source training images, as many of each source, source after source in turn."""
    rng, each = np.random.default_rng(seed), -(-images // len(split.sources))
    chosen = [(examples, rng.permutation(len(examples))[:each]) for examples in split.train.values()]
    shown = [np.asarray(examples.images[np.sort(which)]) for examples, which in chosen]
    labels = [examples.labels[np.sort(which)] for examples, which in chosen]
    mixed = rng.permutation(sum(map(len, labels)))[:images]
    return torch.as_tensor(np.concatenate(shown)[mixed]), torch.as_tensor(np.concatenate(labels)[mixed])

"""Averages across runs: soups of several runs' parameters, and ensembles of their predictions.

Soups return ``Coefficients`` with one entry per run. They make sense for runs that share their initial parameters;
``check_barrier`` says so before anything is averaged. The greedy soup across runs is ``greedy_soup`` with one
accuracy per run: ``greedy_soup(val_accuracy=[...], score=score)``.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..names import one_of, real_number
from .curves import Coefficients, NoWindow, as_curves
from .search import Score, greedy, scored
from .spans import over_ends


def uniform_soup(val_accuracy: Sequence[float]) -> Coefficients:
    """The mean of all runs: the uniform soup of Wortsman et al. (2022). Only the number of entries is read, (R,)."""
    return _of_all(val_accuracy, "uniform_soup")


def diwa(val_accuracy: Sequence[float], *, restrict: bool = False, score: Score | None = None) -> Coefficients:
    """Diverse weight averaging of runs that share their start: of all, or restricted to those that help.

    Rame et al., "Diverse Weight Averaging for Out-of-Distribution Generalization" (2022), algorithm 1; restricted as
    scripts/diwa.py of alexrame/diwa@4bfe468d: runs by accuracy, best first (of equals the earlier first), each kept
    if the mean of all kept scores at least as high as before (``greedy_soup`` asks for strictly higher, and takes
    the later of equals first).

    val_accuracy  (R,) each run's own source-validation accuracy; it orders the runs and is compared with nothing
                  else (there, domain means are mixed with accuracies over pooled examples)
    score         needed when restricted: coefficients over runs -> source-validation accuracy of that average
    """
    if not restrict:
        return _of_all(val_accuracy, "diwa")
    if score is None:
        raise ValueError("diwa(restrict=True) scores candidate averages on source validation; give score=...")
    curves = as_curves(val_accuracy=val_accuracy)
    first, *others = np.argsort(-curves.series("val_accuracy"), kind="stable")
    alone = scored(score, over_ends(curves, [first], "diwa", f"run {first + 1}"))
    return greedy(curves, int(first), alone, others, score, operator.ge, "diwa")


def ensemble(logits: Any, *, combine: str = "probs") -> np.ndarray:
    """Class probabilities of several models together, (N, C), from their logits, (R, N, C).

    "probs"   the mean of their probabilities
    "logits"  the softmax of their summed logits: predicts as Arpit et al., "Ensemble of Averages" (2022), whose code
              takes the largest summed logit (salesforce/ensemble-of-averages@19183f1c)
    """
    one_of("combine", combine, ("probs", "logits"))
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 3 or len(logits) == 0 or not np.all(np.isfinite(logits)):
        raise ValueError(
            f"An ensemble needs finite logits of shape (runs, examples, classes) from one run or more; "
            f"got shape {logits.shape}{', not all finite' if logits.ndim == 3 and len(logits) else ''}."
        )
    return _softmax(logits).mean(axis=0) if combine == "probs" else _softmax(logits.sum(axis=0))


def check_barrier(losses: Sequence[float], midpoints: Any, *, allowed: float = 0.1) -> float:
    """The highest loss barrier between two runs, nats; raises ``NoWindow`` when it exceeds ``allowed``.

    The barrier of a pair is the source-validation loss at the mean of their parameters, less the mean of their own
    losses: near 0 or below for runs that share a start and were trained mildly, near log(classes) for strangers
    (Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", 2020). The default of 0.1 is ours.

    losses     (R,) each run's own loss
    midpoints  (R, R) loss at the midpoint of runs i < j; pairs left NaN were not evaluated and are not checked, one whose
               loss is not finite is infinity
    """
    real_number("allowed", allowed, 0, meaning="the highest barrier in nats")
    losses, midpoints = np.asarray(losses, dtype=np.float64), np.asarray(midpoints, dtype=np.float64)
    if losses.ndim != 1 or midpoints.shape != (len(losses), len(losses)):
        raise ValueError(f"{losses.size} losses need midpoints of shape {(losses.size,) * 2}; got {midpoints.shape}.")
    if not np.all(np.isfinite(losses)):
        worst = int(np.argmin(np.isfinite(losses)))
        raise NoWindow(f"The loss of run {worst + 1} is {losses[worst]}: it diverged. Leave it out.")
    pairs = [(i, j) for i, j in combinations(range(len(losses)), 2) if not np.isnan(midpoints[i, j])]
    if not pairs:
        return 0.0
    barrier, (i, j) = max((midpoints[i, j] - (losses[i] + losses[j]) / 2, (i, j)) for i, j in pairs)
    if barrier > allowed:
        raise NoWindow(
            f"Runs {i + 1} and {j + 1} do not share a start: midpoint loss {midpoints[i, j]:.2g} vs "
            f"{losses[i]:.2g} and {losses[j]:.2g}. Average runs that were trained mildly from the same initial parameters, or use ensemble(...)."
        )
    return float(barrier)


def _of_all(val_accuracy: Sequence[float], strategy: str) -> Coefficients:
    curves = as_curves(val_accuracy=val_accuracy)
    return over_ends(curves, range(len(curves)), strategy, f"all {len(curves)} runs")


def _softmax(logits: np.ndarray) -> np.ndarray:
    exps = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exps / exps.sum(axis=-1, keepdims=True)

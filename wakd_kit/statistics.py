"""Intervals, tests and mean ranks of paired scores. numpy and scipy only; nothing here knows of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, stdtr, stdtrit


def interval(differences: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean; NaN with fewer than two values."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stdtrit(len(values) - 1, 0.5 + level / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def p_value(differences: Sequence[float]) -> float:
    """Two-sided p of Student's t test that the mean is zero, of which ``interval`` is the other side; NaN below two values.

    Values that are all the same leave no doubt: p is 1 when they are zero, else 0.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return float("nan")
    if values.std() == 0:
        return float(values[0] == 0)
    t = values.mean() / (values.std(ddof=1) / np.sqrt(len(values)))
    return float(2 * stdtr(len(values) - 1, -abs(t)))


def bootstrap_interval(
    clusters: Sequence[Sequence[float]], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of all values, by resampling in two stages; NaN with fewer than two values.

    clusters  the values of each target domain. A resample draws as many targets with replacement, then from each as many
              of its values with replacement (Davison and Hinkley 1997, section 3.8).

    With one cluster, or one value in each, this is Efron's percentile interval. No distribution is assumed, and none is
    corrected for: with few targets every bootstrap is too narrow for a domain not in the list. At a nominal 95 %, four
    targets and three seeds, normal differences whose spread over targets is 0, 1 or 2 times that over seeds were covered
    95, 99 and 100 % of the time for these targets, and 95, 87 and 82 % for new ones. Resampling whole targets covers 80 % of
    new ones whatever the spread, seeds within targets 83 % of these ones.
    """
    groups = [np.asarray(values, dtype=float) for values in clusters if len(values)]
    sizes = np.array([len(values) for values in groups], dtype=int)
    if sizes.sum() < 2:
        return float("nan"), float("nan")
    table = np.array([np.pad(values, (0, sizes.max() - len(values))) for values in groups])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(groups), size=(resamples, len(groups)))
    inside = (rng.random((*drawn.shape, sizes.max())) * sizes[drawn][..., None]).astype(int)
    counted = np.arange(sizes.max()) < sizes[drawn][..., None]
    means = np.where(counted, table[drawn[..., None], inside], 0).sum((1, 2)) / counted.sum((1, 2))
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p values (1979): one below 0.05 holds with all the others looked at as well.

    The i-th smallest of m is multiplied by m - i + 1 and is at least the one before, at most 1. NaN counts for nothing.
    """
    p = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def told(p: float) -> str:
    """A p value in a sentence, after the letter."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's; NaN for fewer than three values, or where one side's are all alike."""
    from scipy.stats import rankdata  # slow to import, as in ``rank_methods``

    ranks = [rankdata(values) for values in (a, b)]
    if len(ranks[0]) < 3 or min(np.ptp(r) for r in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of k methods over n blocks, and what they show.

    mean        (k,) mean rank of each method, 1 is best
    statistic   Friedman's chi-square, corrected for ties
    p           of Iman and Davenport's F on it: could these ranks come from methods that do not differ?
    difference  Nemenyi's critical difference: two methods differ at the level when their mean ranks are this far apart
    """

    mean: np.ndarray
    blocks: int
    statistic: float
    p: float
    difference: float


def rank_methods(scores: np.ndarray, *, level: float = 0.95) -> Ranks:
    """Friedman's test and Nemenyi's critical difference of (n, k) scores, a row per block, higher is better.

    Demsar 2006 (JMLR 7), section 3.2.2; ties share their mean rank. We differ in correcting the statistic for ties, which
    are common where two strategies pick the same window. Raises ``ValueError`` for fewer than two methods or blocks.
    """
    from scipy.stats import (
        rankdata,
        studentized_range,
    )  # takes half a second, and most who import this module never rank

    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or min(scores.shape) < 2 or not np.isfinite(scores).all():
        raise ValueError(
            f"Ranks need a finite score of at least two methods on at least two blocks; got {scores.shape}."
        )
    n, k = scores.shape
    ranks = rankdata(-scores, axis=1)
    mean, middle = ranks.mean(axis=0), (k + 1) / 2
    spread = ((ranks - middle) ** 2).sum() / (n * (k - 1))
    statistic = n * ((mean - middle) ** 2).sum() / spread if spread else 0.0
    rest = n * (k - 1) - statistic
    f = (n - 1) * statistic / rest if rest > 1e-9 else np.inf
    q = studentized_range.ppf(level, k, np.inf) / np.sqrt(2)
    return Ranks(
        mean, n, float(statistic), float(fdtrc(k - 1, (k - 1) * (n - 1), f)), float(q * np.sqrt(k * (k + 1) / (6 * n)))
    )


def cliques(mean_ranks: Sequence[float], difference: float) -> list[list[int]]:
    """The largest groups of methods, two or more, whose mean ranks lie closer than the critical difference, best first.

    They are what the bars of a critical-difference diagram join: nothing inside a group can be told apart.
    """
    ranks = np.asarray(mean_ranks, dtype=float)
    order, found = [int(i) for i in np.argsort(ranks, kind="stable")], []
    for start, first in enumerate(order):
        alike = [i for i in order[start:] if ranks[i] - ranks[first] < difference]
        if len(alike) > 1 and not any(set(alike) <= set(other) for other in found):
            found.append(alike)
    return found

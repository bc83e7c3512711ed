"""Intervals, tests and mean ranks of paired scores. numpy and scipy only; nothing here knows of runs."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import fdtrc, nctdtr, stdtr, stdtrit

MOST = 10**12  # pairs that anything is said of
FEWEST = 3  # pairs that an interval or a p value takes: two on a grid are often equal, which looks like certainty

DASH = f"A dash in place of an interval or p: fewer than {FEWEST} pairs, or targets where it is over their means."


def interval(differences: Sequence[float], *, level: float = 0.95, step: float = 0.0) -> tuple[float, float]:
    """Student's t interval of a mean; NaN with fewer than ``FEWEST`` values, or where their spread is not known.

    step  of the grid that the values lie on, such as 100 / images for differences of accuracies in points: they are not
          taken to be surer than it allows. Values that are all the same have no spread to judge by without one
    """
    values = np.asarray(differences, dtype=float)
    error = _error(values, step)
    if np.isnan(error):
        return float("nan"), float("nan")
    half = stdtrit(len(values) - 1, 0.5 + level / 2) * error
    return float(values.mean() - half), float(values.mean() + half)


def p_value(differences: Sequence[float], *, step: float = 0.0) -> float:
    """Two-sided p of Student's t test that the mean is zero, of which ``interval`` is the other side, NaN where that is."""
    values = np.asarray(differences, dtype=float)
    error = _error(values, step)
    if np.isnan(error):
        return float("nan")
    return float(2 * stdtr(len(values) - 1, -abs(values.mean() / error)))


def pairs_to_tell(
    difference: float, differences: Sequence[float], *, level: float = 0.95, power: float = 0.8, step: float = 0.0
) -> float:
    """How many pairs of a spread like this tell a mean ``difference`` from none: the fewest by which Student's t test at
    1 - ``level`` rejects with a chance of ``power``, by the noncentral t distribution (Cohen 1988, section 2.4). At least
    ``FEWEST``; infinite from ``MOST`` on, NaN where ``interval`` is. The spread of few pairs is itself known badly, and so is
    this number. Raises ``ValueError`` for chances that are none.

    >>> pairs_to_tell(1.0, [-1.0, 0.0, 1.0])  # a standard deviation
    10.0
    """
    if not (0 < level < 1 and 0 < power < 1):
        raise ValueError(f"level and power are chances between 0 and 1; got level={level!r} and power={power!r}.")
    values = np.asarray(differences, dtype=float)
    effect = abs(difference) / (_error(values, step) * np.sqrt(len(values)))
    if not effect > 0:
        return float("nan")

    def finds(n: int) -> bool:
        bound, shift = stdtrit(n - 1, 0.5 + level / 2), effect * np.sqrt(n)
        return 1 - nctdtr(n - 1, shift, bound) + nctdtr(n - 1, shift, -bound) >= power

    enough = FEWEST
    while not finds(enough) and enough < MOST:
        enough *= 2
    if enough >= MOST:
        return float("inf")
    return float(bisect.bisect_left(range(enough), True, lo=FEWEST, key=finds))


def _error(values: np.ndarray, step: float) -> float:
    """Standard error of the mean, of a sd of ``step`` / sqrt(6) or more: each of two accuracies is rounded to the grid, by
    an error whose variance is step^2 / 12. NaN for too few values, or equal ones that are on no grid."""
    if len(values) < FEWEST or not (step or _differ(values)):
        return float("nan")
    return float(max(values.std(ddof=1), step / np.sqrt(6)) / np.sqrt(len(values)))


def _differ(values: np.ndarray) -> bool:
    """Whether values differ by more than the rounding of their arithmetic."""
    return np.ptp(values) > 1e-9 * np.abs(values).max()


def bootstrap_interval(
    clusters: Sequence[Sequence[float]], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of all values, by resampling in two stages; NaN for fewer than ``FEWEST`` of them, and
    where all are the same.

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
    if sizes.sum() < FEWEST or not _differ(np.concatenate(groups)):
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


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | np.ndarray:
    """Spearman's; NaN for fewer than three values, or where one side's are all alike. Of (n, many) values, (many,) of them."""
    from scipy.stats import rankdata  # slow to import, as in ``rank_methods``

    if len(a) < 3:
        return float("nan")
    ranks = [rankdata(values, axis=0) for values in (a, b)]
    x, y = (r - r.mean(axis=0) for r in ranks)
    covariance, *variances = (of.sum(axis=0) / (len(x) - 1) for of in (x * y, x * x, y * y))
    with np.errstate(invalid="ignore"):  # 0 / 0
        found = np.clip(covariance / np.sqrt(variances[0]) / np.sqrt(variances[1]), -1, 1)
    return found if np.ndim(found) else float(found)


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of k methods over n blocks, and what they show.

    mean        (k,) mean rank of each method, 1 is best
    statistic   Friedman's chi-square, corrected for ties
    p           could these ranks come from methods that do not differ? Exact where ``sums_of_ranks`` is, else ``friedman_p``
    difference  Nemenyi's critical difference: two methods differ at the level when their mean ranks are this far apart.
                Where far too many would be, the exact one: k, as far as no two can be, where blocks are too few
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
    from scipy.stats import rankdata  # half a second, and most who import this never rank

    scores = np.round(np.asarray(scores, dtype=float), 9)  # differences of equal images are ties, which floats break
    if scores.ndim != 2 or min(scores.shape) < 2 or not np.isfinite(scores).all():
        raise ValueError(
            f"Ranks need a finite score of at least two methods on at least two blocks; got {scores.shape}."
        )
    n, k = scores.shape
    ranks = rankdata(-scores, axis=1)
    mean, middle = ranks.mean(axis=0), (k + 1) / 2
    spread = ((ranks - middle) ** 2).sum() / (n * (k - 1))
    statistic = n * ((mean - middle) ** 2).sum() / spread if spread else 0.0
    difference = _studentized_range(level, k) * np.sqrt(k * (k + 1) / (12 * n))
    if (exact := sums_of_ranks(ranks)) is None:
        p = friedman_p(n, k, statistic)
    else:
        sums, chances = exact
        p = min(1.0, chances[(sums**2).sum(axis=1) >= ((ranks.sum(axis=0) - n * middle) ** 2).sum()].sum())
        ranges = np.ptp(sums, axis=1) / n
        if chances[ranges >= difference].sum() > 1.2 * (1 - level):  # on few blocks, or with many ties
            beyond = {wide: chances[ranges >= wide].sum() for wide in np.unique(ranges)}
            difference = next((wide for wide, chance in beyond.items() if chance <= 1 - level), k)
    return Ranks(mean, n, float(statistic), float(p), float(difference))


@functools.cache
def _studentized_range(level: float, k: int) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, k, np.inf))


def friedman_p(n: int, k: int, statistic: float) -> float:
    """The chance of a Friedman statistic this large where all orders of k methods in each of n blocks are as likely.

    By Kendall and Babington Smith's F (1939), with k - 1 - 2/n and n - 1 times as many degrees of freedom, which has the
    mean and variance of the exact distribution; Iman and Davenport's, with k - 1, rejects up to 6 % of the time at a level
    of 5 %. See docs/statistics.md. Never less than the chance that all blocks have the order of the first.
    """
    rest, freedom = n * (k - 1) - statistic, k - 1 - 2 / n
    p = fdtrc(freedom, (n - 1) * freedom, (n - 1) * statistic / rest) if rest > 1e-9 else 0.0
    return max(float(p), 1 / factorial(k) ** (n - 1))


EXACT = {2: 200, 3: 50, 4: 16, 5: 6, 6: 3, 7: 2}  # {methods: blocks} up to which that takes about a tenth of a second


def sums_of_ranks(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """All sums of ranks that methods can have where every order of a block's ranks, ties included, is as likely.

    (states, k) sums about their mean, those that differ in order alone as one, and the chance of each. None for more
    methods or blocks than ``EXACT``.
    """
    if len(ranks) > EXACT.get(ranks.shape[1], 0):
        return None
    doubled = np.rint(2 * ranks).astype(np.int64) - (ranks.shape[1] + 1)  # whole numbers, ties as well
    return _sums_of_ranks(tuple(sorted(tuple(sorted(row)) for row in doubled.tolist())))


@functools.lru_cache(maxsize=64)
def _sums_of_ranks(blocks: tuple[tuple[int, ...], ...]) -> tuple[np.ndarray, np.ndarray]:
    """``sums_of_ranks`` of doubled ranks about their mean, of which nothing but the ties matters."""
    k = len(blocks[0])
    orders = np.array(list(permutations(range(k))))
    sums, chances = np.zeros((1, k), dtype=np.int64), np.ones(1)
    for row in np.array(blocks):
        moves, times = np.unique(row[orders], axis=0, return_counts=True)
        chances = np.outer(chances, times / len(orders)).ravel()
        reached = np.sort((sums[:, None] + moves).reshape(-1, k), axis=1)
        digits = (np.ptp(reached) + 1) ** np.arange(k - 1)  # sums add up to zero: the last goes without saying
        _, first, which = np.unique(reached[:, 1:] @ digits, return_index=True, return_inverse=True)
        sums, chances = reached[first], np.bincount(which.ravel(), chances)
    return sums / 2, chances


def cliques(mean_ranks: Sequence[float], difference: float) -> list[list[int]]:
    """The largest groups of methods, two or more, whose mean ranks lie closer than the critical difference, best first.

    They are what the bars of a critical-difference diagram join: nothing inside a group can be told apart.
    """
    ranks = np.asarray(mean_ranks, dtype=float)
    order, found = [int(i) for i in np.argsort(ranks, kind="stable")], []
    for start, first in enumerate(order):
        alike = [i for i in order[start:] if ranks[i] - ranks[first] < difference - 1e-9]  # means of ranks are rounded
        if len(alike) > 1 and not any(set(alike) <= set(other) for other in found):
            found.append(alike)
    return found


def standard_error(share: float, counts: Sequence[int]) -> float:
    """Binomial standard error of an accuracy ``share`` that is the mean over domains of so many images each, a fraction."""
    return float(np.sqrt(share * (1 - share) * sum(1 / n for n in counts)) / len(counts))

"""Tables over many runs: means with spread, and paired differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on unseen domains per student and strategy, in per cent.

    scores  long: ``student, strategy, target, seed, role, accuracy``. One column per target (mean over seeds); ``mean``
    over targets as the domain-generalisation literature reports it, ``sd`` of that mean over seeds, ``n`` runs. A
    strategy that found no window in some run has no mean: a mean over the rest would not be comparable. ``missing``
    counts those runs.
    """
    unseen = scores[scores["role"] == "target"]
    rows = []
    for (student, strategy), part in unseen.groupby(["student", "strategy"], sort=False):
        by_target = 100 * part.pivot(index="seed", columns="target", values="accuracy")
        average = by_target.mean(axis=1, skipna=False)
        rows.append(
            {
                "student": student,
                "strategy": strategy,
                **by_target.mean(skipna=False).to_dict(),
                "mean": average.mean(skipna=False),
                "sd": average.std(ddof=1, skipna=False),
                "n": int(part["accuracy"].notna().sum()),
                "missing": int(part["accuracy"].isna().sum()),
            }
        )
    return pd.DataFrame(rows)


def interval(differences: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean; NaN with fewer than two values."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def paired(scores: pd.DataFrame, contrasts: Sequence[tuple[tuple[str, str], tuple[str, str]]]) -> pd.DataFrame:
    """Differences in accuracy on the unseen domain, in points, paired by target and seed.

    contrasts  ((student, strategy), (student, strategy)): the first minus the second
    Returns ``label, mean, low, high, n, better, targets, target_low, target_high, pairs``. ``low, high`` is the 95 % t
    interval over all n target x seed pairs; they share targets, so ``target_low, target_high`` gives the interval over
    the means of the ``targets`` targets as well: wide with few targets, and the honest one for a domain not in the list.
    """
    unseen = scores[scores["role"] == "target"].set_index(["student", "strategy", "target", "seed"])["accuracy"]
    known = unseen.index.droplevel(["target", "seed"]).unique()
    rows = []
    for first, second in contrasts:
        for side in (first, second):
            if side not in known:
                raise ValueError(f"No scores of {' '.join(side)}; there are {', '.join(' '.join(k) for k in known)}.")
        pairs = 100 * (unseen[first] - unseen[second]).dropna()
        by_target = pairs.groupby("target").mean()
        (low, high), (target_low, target_high) = interval(pairs), interval(by_target)
        rows.append(
            {
                "label": _label(first, second),
                "mean": pairs.mean(),
                "low": low,
                "high": high,
                "n": len(pairs),
                "better": int((pairs > 0).sum()),
                "targets": len(by_target),
                "target_low": target_low,
                "target_high": target_high,
                "pairs": pairs.to_numpy(),
            }
        )
    return pd.DataFrame(rows)


def _label(first: tuple[str, str], second: tuple[str, str]) -> str:
    if first[0] == second[0]:
        return f"{first[0]}: {first[1]} - {second[1]}"
    return f"{' '.join(first)} - {' '.join(second)}"


def verdict(row: pd.Series) -> str:
    """One sentence for a row of ``paired``, from its numbers alone."""
    if row["n"] < 2:
        return f"{row['label']}: {row['mean']:+.1f} points, one pair only; nothing can be said."
    if row["low"] > 0:
        finding = "higher"
    elif row["high"] < 0:
        finding = "lower"
    else:
        finding = "not distinguishable from no difference"
    return (
        f"{row['label']}: {row['mean']:+.1f} points [{row['low']:+.1f}, {row['high']:+.1f}], {finding}; "
        f"better in {row['better']} of {row['n']} target x seed pairs."
    )

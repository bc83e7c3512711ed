"""When does averaging help? Every student of a study is one cell of a grid; its gain beside what should explain it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from tqdm.auto import tqdm

from .alike import before_after
from .averaging import Coefficients
from .comparison import brackets
from .flatness import flatness
from .noise import between, noise
from .recorded import Recorded
from .run import Run

MEASURES = ("dip", "rise", "relative", "bounce", "spread", "drift")
DIRECTIONS = 4
SAID = {
    "dip": "dip of the source loss half way between neighbouring iterates, nats",
    "rise": "rise of the source loss in random directions, as far from the average as iterates are, nats",
    "relative": "distance of iterates from their average, over its distance from the start",
    "bounce": "bounce of iterates: 1 draws around a mean, 0 a drift",
    "spread": "distance of iterates from their average",
    "drift": "distance from first to last iterate, over that from the average",
}


def factors(run: Run) -> dict[str, object]:
    """What a cell of the grid may differ in, from a run's settings: objective, learning rate, steps, start, schedule."""
    s = run.settings
    student = s["student"]
    return {
        "objective": " + ".join(map(_objective, s["objectives"])),
        "learning rate": s["learning_rate"],
        "steps": s["steps"],
        "start": "pretrained" if student.get("started_from") or student.get("weights") else "scratch",
        "schedule": s["schedule"],
    }


def _objective(spec: dict) -> str:
    temperature = f" T={spec['temperature']:g}" if "temperature" in spec else ""
    weight = f"{spec['weight']:g} " if spec["weight"] != 1 else ""
    return f"{weight}{spec['name'].upper()}{temperature}"


def measured(study: Recorded, average: str, *, progress: bool = False) -> pd.DataFrame:
    """``student, target, seed`` and what each run's iterates do in the window of this average: see ``noise``.

    ``dip`` is the mean over neighbours and source domains; ``rise`` the flatness of the average at ``spread``, how far
    iterates are from it, over ``DIRECTIONS`` random directions: how much of the dip is the valley's, and how much the way the
    noise points. Nothing of the target is read. Kept with each run. Runs where the strategy found no window, or one of a
    single segment, have none of it.
    """
    rows = []
    for run in tqdm(study.runs, disable=not progress, unit="run"):
        split, choice = run.settings["split"], run.choices[average]
        row = {"student": run.name, "target": split["target"], "seed": split["seed"]}
        if isinstance(choice, Coefficients) and choice.of == "mean" and choice.window()[0] < choice.window()[1]:
            row |= noise(run, choice) | {"dip": between(run, choice)["dip"].mean()}
            flat = flatness(
                run, {average: choice}, radii=[row["spread"]], directions=DIRECTIONS, roles=("source",), name="rise"
            )
            row["rise"] = flat["increase"].mean()
        rows.append(row)
    return pd.DataFrame(rows, columns=["student", "target", "seed", *MEASURES])


def cells(study: Recorded, measures: pd.DataFrame, *, baseline: str, averages: Sequence[str]) -> pd.DataFrame:
    """A row per student and average: factors, the paired gain over the baseline with its interval, means of the measures.

    ``student, average``, the factors; ``before, after, gain, low, high, n`` on the unseen domain and ``source_gain,
    source_low, source_high`` on source validation, in per cent and points, as ``alike.before_after``; ``dip``, ... as
    ``measured``, means over targets and seeds.
    """
    of_student = {run.name: factors(run) for run in reversed(study.runs)}
    means = measures.groupby("student")[list(MEASURES)].mean()
    tables = []
    for average in averages:
        table = before_after(study.scores, baseline=baseline, average=average)
        known = pd.DataFrame([of_student[name] for name in table["student"]])
        tables.append(
            pd.concat([table[["student"]].assign(average=average), known, table.drop(columns="student")], axis=1)
        )
    return pd.concat(tables, ignore_index=True).merge(means, left_on="student", right_index=True)


def explained(table: pd.DataFrame, *, role: str = "target", draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Rank correlation over cells of the gain with each measure, with a 95 % bootstrap interval over cells.

    table  as ``cells`` returns
    role   "target": the gain on unseen domains; "source": the gain on source validation
    ``average, measure, correlation, low, high, cells``. Cells share teachers, images and starts: an interval that treats
    them as independent is on the narrow side.
    """
    gain, rng, rows = "gain" if role == "target" else "source_gain", np.random.default_rng(seed), []
    for average, part in table.groupby("average", sort=False):
        for measure in MEASURES:
            pairs = part[[measure, gain]].dropna().to_numpy()
            n = len(pairs)
            drawn = [_rank_correlation(pairs[rng.integers(0, n, n)]) for _ in range(draws if n > 2 else 0)]
            drawn = [r for r in drawn if np.isfinite(r)]  # a draw of one cell alone has no order
            low, high = np.percentile(drawn, [2.5, 97.5]) if drawn else (np.nan, np.nan)
            row = {"average": average, "measure": measure, "correlation": _rank_correlation(pairs)}
            rows.append(row | {"low": low, "high": high, "cells": n})
    return pd.DataFrame(rows)


def _rank_correlation(pairs: np.ndarray) -> float:
    """Spearman's; NaN for fewer than three cells, or where all are alike."""
    if len(pairs) < 3:
        return float("nan")
    ranks = [rankdata(column) for column in pairs.T]
    if min(np.ptp(r) for r in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """Cells that differ in one factor alone: what changing it does to the gain.

    ``average, factor, from, to, students``; ``gain_from, gain_to``: gains of both on unseen domains, points.
    """
    names = ["objective", "learning rate", "steps", "start", "schedule"]
    rows = []
    for average, part in table.groupby("average", sort=False):
        listed = part.to_dict("records")
        for i, first in enumerate(listed):
            for second in listed[i + 1 :]:
                differ = [name for name in names if first[name] != second[name]]
                if len(differ) == 1:
                    factor = differ[0]
                    a, b = (first, second) if _before(first[factor], second[factor]) else (second, first)
                    rows.append(
                        {
                            "average": average,
                            "factor": factor,
                            "from": a[factor],
                            "to": b[factor],
                            "students": f"{a['student']}, {b['student']}",
                            "gain_from": a["gain"],
                            "gain_to": b["gain"],
                        }
                    )
    return pd.DataFrame(rows, columns=["average", "factor", "from", "to", "students", "gain_from", "gain_to"])


def _before(a, b) -> bool:
    return a < b if isinstance(a, (int, float)) else str(a) < str(b)


def findings(table: pd.DataFrame, correlations: pd.DataFrame, *, baseline: str) -> list[str]:
    """What the grid shows, in sentences, from its numbers alone."""
    sentences = []
    for average, part in table.groupby("average", sort=False):
        known = part[part["n"] > 0]
        higher, lower = (known["low"] > 0).sum(), (known["high"] < 0).sum()
        best, worst = known.loc[known["gain"].idxmax()], known.loc[known["gain"].idxmin()]
        sentences.append(
            f"{average} against {baseline} on unseen domains: higher in {higher} of {len(known)} cells with an interval that "
            f"leaves out zero, lower in {lower}. Most: {_cell(best)}; least: {_cell(worst)}."
        )
    first = correlations[correlations["average"] == correlations["average"].iloc[0]].dropna(subset=["correlation"])
    if len(first):
        r = first.loc[first["correlation"].abs().idxmax()]
        sentences.append(
            f"Over {r['cells']} cells the gain of {r['average']} goes most with: {SAID[r['measure']]} (rank correlation "
            f"{r['correlation']:+.2f} [{r['low']:+.2f}, {r['high']:+.2f}], bootstrap over cells)."
        )
    return sentences


def _cell(row: pd.Series) -> str:
    return f"{row['student']} {row['gain']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}] (n = {row['n']:.0f})"


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """``cells`` as it is printed: intervals in brackets, one row per student and average."""
    return pd.DataFrame(
        {
            "student": table["student"],
            "average": table["average"],
            "before": table["before"].map(_number),
            "after": table["after"].map(_number),
            "gain": [f"{_number(r.gain, '+.1f')} {brackets(r.low, r.high)}" for r in table.itertuples()],
            "on source": [
                f"{_number(r.source_gain, '+.1f')} {brackets(r.source_low, r.source_high)}" for r in table.itertuples()
            ],
            "n": table["n"],
            "dip": table["dip"].map(lambda value: _number(value, "+.3f")),
            "rise": table["rise"].map(lambda value: _number(value, "+.3f")),
            "relative": table["relative"].map(lambda value: _number(value, ".2f")),
            "bounce": table["bounce"].map(lambda value: _number(value, ".2f")),
        }
    )


def _number(value: float, form: str = ".1f") -> str:
    return format(value, form) if np.isfinite(value) else "–"


def caption(study: Recorded, baseline: str) -> str:
    """What the numbers of ``printed`` are, and what chose the models behind them."""
    return (
        f"Accuracy in % on the domain left out, before is {baseline}; gains in points on it and on source validation, paired by "
        f"target and seed, with 95 % t intervals, n pairs. {SAID['dip'].capitalize()}; {SAID['rise']}; relative: {SAID['relative']}; "
        f"{SAID['bounce']}; all in the window of the first average. {study.selection()}"
    )

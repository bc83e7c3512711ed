"""How long should the moving average have been? Accuracy against its length, from one recorded run."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..averaging import Coefficients, Curves, ema, last, power, relative_length
from ..averaging.profiles import WIDEST
from ..checks import explained
from ..data.domains import Split
from ..names import real_number, whole_number
from .journal import Growing, computed, of_averages, table_file
from .sweep import Sweep

_COLUMNS = {"family": str, "length": float, "setting": float, "domain": str, "role": str, "loss": float}
_COLUMNS["accuracy"] = float


@explained
def length_sweep(
    run,
    split: Split | None = None,
    *,
    count: int = 8,
    shortest: float | None = None,
    workers: int | None = None,
    progress: bool = False,
    name: str = "lengths",
) -> pd.DataFrame:
    """Accuracy of moving averages of every length, exponential and power profiles, over the whole run: the length as EDM2
    states it, the standard deviation of the profile relative to the run (arXiv 2312.02696, section 3.2).

    count     lengths of each family, at equal ratios, from ``shortest`` to 0.2887, where both are the plain mean
    shortest  default three stored segments, below which what lies within a segment would matter
    name      kept as landscape/<name>.csv in the run's folder; continues after a kill

    Rows: ``family`` ("exponential", "power", and "last" for the last iterate, of length 0), ``length``, ``setting`` (the
    decay, or the power), ``domain``, ``role`` ("source": validation; "target": an oracle, to look at and never to choose
    by), ``loss`` (nats per example), ``accuracy`` (fraction). Exponential averages have the warm-up 1/t, without which a
    long one would be its first iterate. BatchNorm is as ``evaluate`` has it.
    """
    curves, sweep = run.source_curves, Sweep(run, split, workers=workers)
    if shortest is None:
        shortest = min(WIDEST / 2, 3 * float(run.segments.iterates.max()) / curves.steps)
    averages = lengths(curves, count, shortest)
    identity = {"kind": "lengths", "at": [[family, setting] for family, _, setting, _ in averages], **sweep.settled}
    identity["averages"] = of_averages(average for *_, average in averages)

    def missing(table: Growing):
        left = averages[table.done :]
        for (family, length, setting, _), found in zip(left, sweep.scores_of(c for *_, c in left)):
            about = {"family": family, "length": length, "setting": setting}
            yield [{**about, "domain": d, "role": role, **found[d]} for d, role in sweep.roles.items()]

    kept = {"points": len(averages), "rows_per_point": len(sweep.roles), "progress": progress}
    return computed(table_file(run, name), identity, _COLUMNS, missing, **kept)


def lengths(curves: Curves, count: int, shortest: float) -> list[tuple[str, float, float, Coefficients]]:
    """(family, length, setting, coefficients) of the last iterate, then of every family at ``count`` lengths."""
    count = whole_number("count", count, 2, "lengths of each family")
    shortest = real_number("shortest", shortest, 1e-6, WIDEST, meaning="a length relative to the run")
    found = [("last", 0.0, 0.0, last(curves))]
    asked = np.geomspace(shortest, WIDEST, count).tolist()
    decays = [decay_of(length, curves.steps) for length in asked]
    averages = [("exponential", d, ema(curves, decay=d, warmup=True, warmup_power=1)) for d in decays]
    averages += [("power", length, power(curves, sigma_rel=length)) for length in asked]
    return found + [(family, relative_length(curves, a), setting, a) for family, setting, a in averages]


def decay_of(length: float, steps: int) -> float:
    """The decay at which ``ema`` with the warm-up 1/t over so many steps has this relative length, by bisection."""
    each, shorter, longer = Curves(np.ones(steps, dtype=int)), 0.0, 1.0

    def reached(decay: float) -> float:
        return relative_length(each, ema(each, decay=decay, warmup=True, warmup_power=1))

    for _ in range(40 if reached(1.0) > length else 0):  # 1 is the plain mean
        middle = (shorter + longer) / 2
        shorter, longer = (middle, longer) if reached(middle) < length else (shorter, middle)
    return longer

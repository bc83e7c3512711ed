"""Points beyond the iterates: coefficients with signs, which sum to 1 but are no average in the strict sense.

Their ``magnitude``, the sum of absolute coefficients, says how far they reach: rounding and noise of what is stored are
multiplied by up to as much.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..names import real_number, whole_number
from .curves import Coefficients, Curves, as_curves
from .spans import describe, ending_at, first_after, moved, step_of


def bema(
    curves: Curves | None = None,
    *,
    ema_power: float = 0.5,
    bias_power: float = 0.2,
    lag: float = 10,
    multiplier: float = 1,
    begin: int | float = 0,
    every: int | None = None,
    **series: Any,
) -> Coefficients:
    """``a (last - start) + moving average``: the moving average of the iterates without the lag that averaging brings.

    Block and Zhang, "BEMA: Bias-Corrected Exponential Moving Average" (2025, arXiv 2508.00180), algorithm 1, with the
    defaults of abblock/bema@b98e633: at step t the average moves towards the iterate by (lag + multiplier t)^-ema_power, and
    a = (lag + multiplier t)^-bias_power at the last step. Average and start begin as the iterate of step ``begin``, the initial
    parameters for 0.

    every  steps between updates of the average. None: every step, where an iterate stands as its segment's mean; published are
           400 in runs far longer, whose iterates have to be the last of their segments

    Coefficients of means, of the last iterate and of the start, of which the start's is negative. ``ValueError`` for an
    update inside a segment, or none at all.

    >>> found = bema(iterates=[1], lag=0)  # one step: all of the iterate, and once more what it moved
    >>> found.tolist(), found.ends.tolist(), found.initial
    ([1.0], [1.0], -1.0)
    """
    curves = as_curves(curves, **series)
    for name, value in (("ema_power", ema_power), ("bias_power", bias_power), ("lag", lag), ("multiplier", multiplier)):
        real_number(name, value, 0, meaning="a constant of the published schedule")
    if lag + multiplier == 0:
        raise ValueError(
            "lag and multiplier are both 0, and the schedule divides by lag + multiplier t; give one above 0."
        )
    start = step_of(curves, begin, "begin")
    asked = f"bema(begin={begin}{'' if every is None else f', every={every}'})"
    at_start = ending_at(curves, start, asked) if start else None
    if every is None:
        first = first_after(curves, begin)
        steps = np.arange(start + 1, curves.steps + 1)
    else:
        steps = np.arange(start + whole_number("every", every, 1, "steps between updates"), curves.steps + 1, every)
        first = 0
    if not len(steps):
        raise ValueError(
            f"{asked} never updates its average in {curves.steps} steps. Choose an earlier begin or a smaller every."
        )
    moves = np.minimum((lag + multiplier * steps) ** -float(ema_power), 1.0)
    later = np.append(np.cumprod((1 - moves)[:0:-1])[::-1], 1.0)  # what all later updates leave of each
    weights, left = moves * later, float((1 - moves[0]) * later[0])
    correction = float((lag + multiplier * steps[-1]) ** -float(bias_power))

    means, ends = np.zeros(len(curves)), np.zeros(len(curves))
    if every is None:
        counts = curves.iterates[first:]
        means[first:] = np.add.reduceat(weights, np.cumsum(counts) - counts)
    else:
        np.add.at(ends, [ending_at(curves, int(step), asked) for step in steps], weights)
    ends[ending_at(curves, int(steps[-1]), asked)] += correction
    if at_start is not None:
        ends[at_start] += left - correction
    note = f"{describe(curves, first, len(curves) - 1)}, and {correction:.12g} of last minus {f'iterate {start}' if start else 'initial'}"
    initial = left - correction if at_start is None else 0.0
    return Coefficients(means, ends=ends, initial=initial, signed=True, strategy="bema", note=note)


def extrapolate(
    curves: Curves | None = None,
    *,
    between: Sequence[int | float] = (0.5, 0.75),
    amount: float = 0.5,
    **series: Any,
) -> Coefficients:
    """``late + amount (late - early)``, of two means of neighbouring parts of the run: beyond the average, the way it went.

    After Extra-Merge (2026, arXiv 2605.26484), of which only the abstract was to be had: the form of the line is ours.

    between  where the early part begins and the late part begins, each a step (int) or a fraction of the run; the late part
             ends with the run
    amount   how far beyond the late mean, in distances between the two; 0 is the late mean. Choose it on source validation

    ``ValueError`` for parts without a whole segment.

    >>> extrapolate(iterates=[1] * 4, between=(0, 0.5), amount=1).tolist()
    [-0.5, -0.5, 1.0, 1.0]
    """
    curves = as_curves(curves, **series)
    if isinstance(between, (str, numbers.Number)) or len(between) != 2:
        raise ValueError(f"between is where the early and the late part begin, such as (0.5, 0.75); got {between!r}.")
    amount = real_number("amount", amount, 0, meaning="how far beyond the late mean to go")
    first, middle = (first_after(curves, value, "between") for value in between)
    if first >= middle:
        raise ValueError(
            f"No whole segment lies between {between[0]} and {between[1]}: choose a later start of the late part, or shorter segments."
        )
    counts = curves.iterates.astype(float)
    early, late = np.zeros(len(curves)), np.zeros(len(curves))
    early[first:middle] = counts[first:middle] / counts[first:middle].sum()
    late[middle:] = counts[middle:] / counts[middle:].sum()
    note = (
        f"{describe(curves, middle, len(curves) - 1)}{moved(curves, between[1], middle, 'between')}, and {amount:.12g} beyond "
        f"them from {describe(curves, first, middle - 1)}{moved(curves, between[0], first, 'between')}"
    )
    return Coefficients(late + amount * (late - early), signed=True, strategy="extrapolate", note=note)

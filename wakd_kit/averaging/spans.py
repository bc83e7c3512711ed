"""Steps, segments and settings: the small shared vocabulary of the strategies. Nothing here chooses anything."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from .curves import Coefficients, Curves, NoWindow


def step_of(curves: Curves, value: Any, setting: str) -> int:
    """The step a setting names: an int is that step, a float the fraction of the run up to it (rounded down)."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 0:
        return int(value)
    if isinstance(value, numbers.Integral) or not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise ValueError(
            f"{setting} is a step as an int >= 0, or a fraction of the run as a float in [0, 1]; got {value!r}."
        )
    return math.floor(value * curves.steps + 1e-9)  # 0.29 * 100 is 28.999999999999996


def first_after(curves: Curves, value: Any, setting: str = "begin") -> int:
    """The first segment, from 0, whose iterates all lie after the step that ``value`` names."""
    step = step_of(curves, value, setting)
    if step >= curves.steps:
        raise ValueError(
            f"{setting}={value} leaves nothing to average: this run has {curves.steps} steps. "
            f"Choose a step below {curves.steps}, or a fraction below 1."
        )
    first = int(np.searchsorted(curves.begins, step, side="right"))
    if first == len(curves):
        raise NoWindow(
            f"{setting}={value} lies inside the last segment (steps {curves.begins[-1]}-{curves.steps}), and no whole "
            f"segment follows it. Choose {setting} <= {curves.begins[-1] - 1}, or train with shorter segments."
        )
    return first


def starting_at(curves: Curves, step: int, asked: str) -> int:
    """The segment whose first iterate is ``step``; otherwise the sentence that says which edge to declare."""
    segment = _holding(curves, step, asked)
    if curves.begins[segment] != step:
        raise ValueError(
            f"{asked} counts from iterate {step}, which lies inside {describe(curves, segment, segment)}. "
            f"Declare an edge after step {step - 1} when training{', or leave out exact=' * ('exact=' in asked)}."
        )
    return segment


def ending_at(curves: Curves, step: int, asked: str) -> int:
    """The segment whose last iterate is ``step``; otherwise the sentence that says which edge to declare."""
    segment = _holding(curves, step, asked)
    if curves.ends[segment] != step:
        raise ValueError(
            f"{asked} needs iterate {step}, which lies inside {describe(curves, segment, segment)}. "
            f"Declare an edge after step {step} when training, or choose settings that meet the recorded edges."
        )
    return segment


def _holding(curves: Curves, step: int, asked: str) -> int:
    """The segment that holds iterate ``step``."""
    if not 1 <= step <= curves.steps:
        raise ValueError(f"{asked} asks for iterate {step}, and this run has iterates 1-{curves.steps}.")
    return int(np.searchsorted(curves.ends, step))


def over_iterates(curves: Curves, first: int, last: int, strategy: str, note: str = "") -> Coefficients:
    """Segments ``first`` to ``last``, each in proportion to its iterates: the plain mean of all iterates in them."""
    counts = np.zeros(len(curves))
    counts[first : last + 1] = curves.iterates[first : last + 1]
    return Coefficients(counts / counts.sum(), strategy=strategy, note=describe(curves, first, last) + note)


def over_segments(curves: Curves, first: int, last: int, strategy: str, note: str = "") -> Coefficients:
    """Segments ``first`` to ``last``, each the same, however many iterates it holds."""
    counts = np.zeros(len(curves))
    counts[first : last + 1] = 1
    return Coefficients(counts / counts.sum(), strategy=strategy, note=describe(curves, first, last) + note)


def over_ends(curves: Curves, segments: Any, strategy: str, note: str) -> Coefficients:
    """The last iterates of these segments, each the same."""
    counts = np.zeros(len(curves))
    counts[segments] = 1
    return Coefficients(counts / counts.sum(), of="end", strategy=strategy, note=note)


def describe(curves: Curves, first: int, last: int) -> str:
    """``segments 5-20, iterates 201-1000``, counted from 1 as a reader does."""
    segments = f"segment {first + 1}" if first == last else f"segments {first + 1}-{last + 1}"
    start, end = curves.begins[first], curves.ends[last]
    return f"{segments}, " + (f"iterate {start}" if start == end else f"iterates {start}-{end}")


def moved(curves: Curves, value: Any, first: int, setting: str = "begin") -> str:
    """What to add to a note when ``value`` fell inside a segment and the window starts at the next one."""
    step = step_of(curves, value, setting)
    start = curves.begins[first]
    return "" if start == step + 1 else f" ({setting}={value} lies inside segment {first})"

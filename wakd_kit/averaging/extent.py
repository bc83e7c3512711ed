"""Which steps of a run an average takes, and how much of each iterate: what tables list and figures draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .curves import Coefficients, Curves


def extent(curves: Curves, coefficients: Coefficients) -> tuple[int, int]:
    """(begin, end) in steps: iterates begin < i <= end carry weight. (0, 0) for the initial parameters alone."""
    parts = coefficients.parts
    used = np.flatnonzero(np.abs(parts["mean"]) + np.abs(parts["end"]))
    if not len(used):
        return 0, 0
    begins = curves.begins if parts["mean"][used[0]] else curves.ends
    return int(begins[used[0]]) - 1, int(curves.ends[used[-1]])


def density(curves: Curves, coefficients: Coefficients) -> np.ndarray:
    """The coefficient of an iterate of each segment, (segments,), over the largest in size; of means where both are weighed."""
    density = np.asarray(coefficients) / (curves.iterates if coefficients.of == "mean" else 1)
    return density / (np.abs(density).max() or 1)


@dataclass(frozen=True)
class Bar:
    """Iterates begin < i <= end, each with the same coefficient: ``height`` over the largest of its kind, -1 to 1.

    single  whether it is one iterate, weighed beside or in place of means: a last iterate, or the initial parameters, which
            end at step 0
    """

    begin: int
    end: int
    height: float
    single: bool


def bars(curves: Curves, coefficients: Coefficients) -> list[Bar]:
    """What an average takes of each segment and of the start, for drawing: means over the largest of them, single iterates
    over the largest of those; the start alone beside means over whichever is larger."""
    means, ends = coefficients.parts["mean"] / curves.iterates, coefficients.parts["end"]
    most = {"mean": np.abs(means).max(), "end": max(np.abs(ends).max(), abs(coefficients.initial))}
    if not ends.any():
        most["end"] = max(most.values())
    found = [Bar(0, 0, coefficients.initial / most["end"], True)] if coefficients.initial else []
    for of, values, begins in (("mean", means, curves.begins - 1), ("end", ends, curves.ends - 1)):
        found += [
            Bar(int(begins[k]), int(curves.ends[k]), float(values[k] / most[of]), of == "end")
            for k in np.flatnonzero(values)
        ]
    return found


def widened(curves: Curves, drawn: Sequence[Bar]) -> list[tuple[float, float]]:
    """(from, to) of bars in steps, as they are drawn: an iterate alone is one step, and wide enough to be seen, ending where it is;
    the start begins there."""
    wide = curves.steps / 100
    return [(max(b.end - wide, 0), max(b.end, wide)) if b.single else (b.begin, b.end) for b in drawn]


def plain_window(curves: Curves, choice: object) -> tuple[int, int] | None:
    """(begin, end) in steps when a choice is the plain mean of all iterates between them; None for any other, or no choice."""
    if not isinstance(choice, Coefficients) or choice.of != "mean" or choice.initial or choice.ends is not None:
        return None
    first, last = choice.window()
    inside = density(curves, choice)[first : last + 1]
    return extent(curves, choice) if np.allclose(inside, inside[0], rtol=1e-6, atol=0) else None

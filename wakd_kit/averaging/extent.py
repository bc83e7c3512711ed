"""Which steps of a run an average takes, and how much of each iterate: what tables list and figures draw."""

from __future__ import annotations

import numpy as np

from .curves import Coefficients, Curves


def extent(curves: Curves, coefficients: Coefficients) -> tuple[int, int]:
    """(begin, end) in steps: iterates begin < i <= end carry weight. (0, 0) for the initial parameters alone."""
    used = np.flatnonzero(coefficients)
    if not len(used):
        return 0, 0
    begins = curves.begins if coefficients.of == "mean" else curves.ends
    return int(begins[used[0]]) - 1, int(curves.ends[used[-1]])


def density(curves: Curves, coefficients: Coefficients) -> np.ndarray:
    """The coefficient of an iterate of each segment, (segments,), over the largest."""
    density = np.asarray(coefficients) / (curves.iterates if coefficients.of == "mean" else 1)
    return density / (density.max() or 1)


def plain_window(curves: Curves, choice: object) -> tuple[int, int] | None:
    """(begin, end) in steps when a choice is the plain mean of all iterates between them; None for any other, or no choice."""
    if not isinstance(choice, Coefficients) or choice.of != "mean" or choice.initial:
        return None
    first, last = choice.window()
    inside = density(curves, choice)[first : last + 1]
    return extent(curves, choice) if np.allclose(inside, inside[0], rtol=1e-6, atol=0) else None

"""How figures look, and the parts that several of them have: rows of names, a forest of intervals, levels of a field.

Colours are Okabe and Ito's; nothing rests on colour alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
LOSSES = {
    "train_loss": "training objective",
    "val_loss": "validation cross-entropy",
    "val_kd_loss": "validation KL to the teacher",
}

STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": "#333333",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 100,
    "svg.fonttype": "path",
}


def styled(draw: Callable) -> Callable:
    """Decorator: draws in ``STYLE``, whatever the reader's own settings are."""

    @functools.wraps(draw)
    def in_style(*args, **settings):
        with matplotlib.rc_context(STYLE):
            return draw(*args, **settings)

    return in_style


def colour(i: int) -> str:
    """The colour of the i-th strategy, again from the first after the last."""
    return COLOURS[i % len(COLOURS)]


def marker(i: int) -> str:
    """The marker of the i-th strategy: the ninth has the first one's colour, not its marker."""
    return MARKERS[(i + i // len(MARKERS)) % len(MARKERS)]


def line(i: int) -> str:
    """The kind of line of the i-th strategy."""
    return LINES[i % len(LINES)]


def empty(width: float, height: float) -> Figure:
    """A figure of this size in inches whose parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained")


def rows(axis, names: Sequence[str], *, grid: bool = True) -> None:
    """A row per name, the first on top, with thin lines down from the ticks."""
    axis.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    axis.set_yticklabels(list(names))
    axis.tick_params(axis="y", length=0)
    if grid:
        axis.grid(axis="x", color="#E2E2E2", lw=0.6)


def forest(axis, table: pd.DataFrame, names: Sequence[str], *, mean: str, colour: str, lw=2.0, ms=5.0, **label) -> None:
    """A row per name: the interval from ``low`` to ``high``, a diamond at the mean, and a line down at zero."""
    axis.hlines(range(len(table)), table["low"], table["high"], color=colour, lw=lw)
    axis.plot(table[mean], range(len(table)), "D", ms=ms, color=colour, **label)
    zero(axis.axvline)
    rows(axis, names)


def zero(across: Callable) -> None:
    """The line of no difference, behind everything: ``zero(axis.axvline)`` or ``zero(axis.axhline)``."""
    across(0, color="#888888", lw=1, zorder=0)


def loss_levels(losses: np.ndarray, count: int) -> np.ndarray:
    """Levels at equal ratios from the lowest loss on, since a valley spans orders of magnitude.

    The highest fifth of a field is above them: it shares one colour, which leaves the others to the valley.
    """
    low, high = np.nanmin(losses), np.nanquantile(losses, 0.8)
    return np.geomspace(low, max(high, 1.001 * low), count)

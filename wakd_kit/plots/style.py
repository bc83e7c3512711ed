"""How figures look, and the parts that several of them have: rows of names, a forest of intervals, levels of a field.

Colour has one meaning, in figures and in the explorer. A hue is a kind of average (``looks``), the same one in every study, wherever
it stands in a list; what is no average, such as losses, domains, objectives and pairs of runs, is ink, told apart by dashes and markers;
on fields bright is better, a low loss or a high accuracy. Hues are Okabe and Ito's, their vermilion left to what a reader moves; nothing
rests on colour alone.
"""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from scipy.interpolate import pchip_interpolate

from ..statistics import standard_error

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
LOSSES = {
    "train_loss": "training objective",
    "val_loss": "validation cross-entropy",
    "val_kd_loss": "validation KL to the teacher",
}

KINDS = {  # of averages: colour, marker, and whose labels they are
    "one iterate": ("#333333", "o", ("last",)),
    "an iterate that is chosen": ("#8C8C8C", "s", ("best_val", "best validation", "best")),
    "a plain mean": ("#0072B2", "^", ("wakd", "uniform", "window", "annealed")),
    "a valley of the loss": ("#CC79A7", "D", ("swad", "swad_published", "swad_wakd_repo", "eoa_wakd_repo")),
    "tried on source validation": ("#E69F00", "v", ("sma", "iidmax", "greedy_soup", "learned", "soup")),
    "a moving average": ("#009E73", "P", ("ema", "power", "bema", "exponential")),
    "samples and mixtures": ("#56B4E9", "X", ("swa", "lawa", "wise_ft", "extrapolate", "deployed", "diwa", "ensemble")),
}
OF = {name: kind for kind, (*_, names) in KINDS.items() for name in names}
ITERATES = ("one iterate", "an iterate that is chosen")
INK = ("#222222", "#6A6A6A", "#9A9A9A")
OTHER = "#7A4E9E"  # a label that names no strategy

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
    """Decorator: draws in ``STYLE``, whatever the reader's own settings are; what a label says is text, a $ too."""

    @functools.wraps(draw)
    def in_style(*args, **settings):
        with matplotlib.rc_context({**STYLE, "text.parse_math": False}):
            return draw(*args, **settings)

    return in_style


class Look(NamedTuple):
    """How an average is drawn: its colour, marker and kind of line."""

    colour: str
    marker: str
    line: str


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """{label: how it is drawn}: the colour and marker of its kind; of several of one kind the later have other shades and markers.

    A label is of the strategy that it names, in any case: "WAKD", "wakd(begin=0.2)" and "WAKD late" are plain means.
    """
    found: dict[str, Look] = {}
    seen: dict[str | None, int] = {}
    for i, label in enumerate(dict.fromkeys(labels)):
        kind = kind_of(label)
        again = seen[kind] = seen.get(kind, -1) + 1
        own, shape = KINDS[kind][:2] if kind else (OTHER, "*")
        shape = MARKERS[(MARKERS.index(shape) + again) % len(MARKERS)]
        found[label] = Look(shade(own, again), shape, line(i))
    return found


def kind_of(label: str) -> str | None:
    """The kind of average that a label names, a key of ``KINDS``; None when it names none."""
    said = label.lower()
    named = [name for name in OF if re.search(rf"(?<![a-z]){re.escape(name)}(?![a-z_])", said)]
    named = [name for name in named if OF[name] not in ITERATES] or named  # "EMA, last 40 %" is no iterate
    return OF[max(named, key=len)] if named else None


def hue(label: str) -> str:
    """The colour of the kind of average that a label names, ink when it names none."""
    kind = kind_of(label)
    return KINDS[kind][0] if kind else INK[0]


def shade(colour: str, again: int) -> str:
    """The colour itself, then darker and lighter ones of its hue."""
    towards, share = ((0, 0), (0, 0.4), (1, 0.45), (0, 0.65), (1, 0.65))[again % 5]
    return to_hex([(1 - share) * c + share * towards for c in to_rgb(colour)]).upper()


def ink(i: int) -> str:
    """The grey of the i-th line that is no average; ``line(i)`` has its dashes."""
    return INK[(i // len(LINES)) % len(INK)]


def marker(i: int) -> str:
    """The marker of the i-th thing; with ``ink(i)``, another for each of a dozen."""
    return MARKERS[(i + i // len(MARKERS)) % len(MARKERS)]


def line(i: int) -> str:
    """The kind of line of the i-th thing."""
    return LINES[i % len(LINES)]


def empty(width: float, height: float) -> Figure:
    """A figure of this size in inches whose parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained")


WRAPPED = 36  # characters to a line: a name that is longer would leave its axes no room


def rows(axis, names: Sequence[str], *, grid: bool = True) -> None:
    """A row per name, the first on top, with thin lines down from the ticks. A long name takes several lines, and its figure is as high
    as they need."""
    wrapped, most = _wrapped(names)
    if most > 1:
        axis.figure.set_figheight(max(axis.figure.get_figheight(), 1.2 + 0.16 * most * len(names)))
    axis.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    axis.set_yticklabels(wrapped)
    axis.tick_params(axis="y", length=0)
    if grid:
        axis.grid(axis="x", color="#E2E2E2", lw=0.6)


def row_height(names: Sequence[str]) -> float:
    """Inches that a row of ``rows`` takes: more where a name is wrapped."""
    return max(0.2, 0.18 * _wrapped(names)[1])


def _wrapped(names: Sequence[str]) -> tuple[list[str], int]:
    """Names in lines, and how many lines the longest takes."""
    wrapped = [textwrap.fill(name, WRAPPED) for name in names]
    return wrapped, 1 + max((name.count("\n") for name in wrapped), default=0)


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

    The highest fifth of a field is above them: it shares one colour, which leaves the others to the valley. A loss that is zero,
    below the lowest level, or no number decides none of them.
    """
    known = losses[np.isfinite(losses) & (losses > 0)]
    low, high = (known.min(), np.quantile(known, 0.8)) if known.size else (1.0, 1.0)
    return np.geomspace(low, max(high, 1.001 * low), count)


def finer(
    xs: np.ndarray, ys: np.ndarray, values: np.ndarray, times: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A field on a grid that many times as fine, so that bands are curves and no polygons: it keeps its points, and between two of
    them goes only up or only down (PCHIP along each axis; Fritsch and Butland 1984), so nothing is lower or higher than measured.
    One with holes, or fewer than four points to a side, is left as it is."""
    if min(values.shape) < 4 or not np.isfinite(values).all():
        return xs, ys, values
    x, y = (np.interp(np.arange(times * (len(v) - 1) + 1) / times, np.arange(len(v)), v) for v in (xs, ys))
    return x, y, pchip_interpolate(xs, pchip_interpolate(ys, values, y, axis=0), x, axis=1)


def round_ticks(low: float, high: float) -> list[float]:
    """About four round numbers from ``low`` to ``high``, at equal ratios where these are far apart."""
    places = LogLocator(subs=(1, 2, 5)) if high > 5 * low > 0 else MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])
    return [tick for tick in places.tick_values(low, high) if low <= tick <= high]


def error_of_best(share: float, counts: Sequence[int]) -> float:
    """``standard_error`` of the best of many: one that is right everywhere may be half an image worse, and is not known exactly."""
    return standard_error(min(share, 1 - 0.5 / sum(counts)), counts)


def widest(table: pd.DataFrame, columns: Sequence[str]) -> float:
    """From the best to what three quarters of the values reach, at its most among the columns: how much a scale of colour spans
    that all of them share. Windows of early iterates are below it, and would flatten the rest."""
    return max(float(table[column].max() - table[column].quantile(0.25)) for column in columns) or 0.01

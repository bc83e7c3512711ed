"""Figures of what averaging gains, student by student: each takes a table of ``alike`` and returns ``(figure, alt)``."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from .comparison import brackets
from .figures import STYLE

BEFORE, AFTER, LINK = "#D55E00", "#0072B2", "#B8C4CE"


def before_after(table: pd.DataFrame, *, baseline: str, average: str) -> tuple[Figure, str]:
    """Accuracy on unseen domains of every student before (open) and after (filled) averaging; gains with intervals beside.

    table  as ``alike.before_after`` returns, in its order; students without a score on both sides are not drawn
    """
    table = table[table["n"] > 0]
    rows = range(len(table))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.1 + 0.29 * len(table)), layout="constrained")
        level, gain = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
        level.hlines(rows, table["before"], table["after"], color=LINK, lw=3, zorder=1)
        level.plot(table["before"], rows, "o", ms=6, mfc="white", mec=BEFORE, mew=1.5, label=baseline)
        level.plot(table["after"], rows, "o", ms=6, color=AFTER, label=average)
        level.set(xlabel="accuracy on unseen domains, %", yticks=rows, ylim=(len(table) - 0.5, -0.5))
        level.set_yticklabels(table["student"])
        level.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, borderaxespad=0.2)
        gain.hlines(rows, table["low"], table["high"], color=AFTER, lw=2)
        gain.plot(table["gain"], rows, "D", ms=5, color=AFTER)
        gain.axvline(0, color="#888888", lw=1, zorder=0)
        gain.set_xlabel(f"{average} - {baseline}, points\n(mean with 95 % interval)")
        for axis in (level, gain):
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="x", color="#E2E2E2", lw=0.6)
    listed = (
        f"{r['student']} {r['before']:.1f} to {r['after']:.1f} ({r['gain']:+.1f} {brackets(r['low'], r['high'])})"
        for _, r in table.iterrows()
    )
    return figure, f"Accuracy in % on unseen domains, {baseline} to {average}, with the gain: {'; '.join(listed)}."


def gain_by_level(table: pd.DataFrame, *, baseline: str, average: str) -> tuple[Figure, str]:
    """The gain of each student against its level, the mean of before and after (Bland and Altman 1986).

    Against ``before`` alone, noise in it would draw a falling line by itself: who was unlucky before gains more.
    table  as ``alike.before_after`` returns; students without a score on both sides are not drawn
    """
    table = table[table["n"] > 0]
    level = (table["before"] + table["after"]) / 2
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axis = figure.subplots()
        axis.vlines(level, table["low"], table["high"], color=LINK, lw=1.5, zorder=1)
        axis.plot(level, table["gain"], "D", ms=5, color=AFTER)
        for place, gain, student in zip(level, table["gain"], table["student"]):
            axis.annotate(student, (place, gain), xytext=(5, 3), textcoords="offset points", fontsize=8)
        axis.axhline(0, color="#888888", lw=1, zorder=0)
        axis.margins(x=0.1)
        axis.set(
            xlabel=f"mean accuracy of {baseline} and {average} on unseen domains, %",
            ylabel=f"{average} - {baseline}, points\n(mean with 95 % interval)",
        )
        axis.grid(color="#E2E2E2", lw=0.6)
    listed = (f"{s} {gain:+.1f} at {x:.1f}" for s, gain, x in zip(table["student"], table["gain"], level))
    return figure, f"Gain of {average} over {baseline} in points against mean accuracy in %: {'; '.join(listed)}."

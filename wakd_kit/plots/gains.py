"""Figures of what averaging gains, student by student: each takes a table of ``results.students`` or ``results.grid``, returns ``(figure, alt)``."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..results.differences import points
from .style import empty, forest, hue, marker, rows, shade, styled, zero

BEFORE, LINK, GREY = "#333333", "#B8C4CE", "#777777"


@styled
def before_after(
    table: pd.DataFrame, *, baseline: str, average: str, chance: float | None = None
) -> tuple[Figure, str]:
    """Accuracy on unseen domains of every student before (open) and after (filled) averaging; gains with intervals beside.

    table   as ``students.before_after`` returns, in its order; students without a score on both sides are not drawn
    chance  accuracy of guessing in %, drawn as a line
    """
    table = table[table["n"] > 0]
    places = range(len(table))
    figure = empty(7.2, 1.1 + 0.29 * len(table))
    level, gain = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
    level.hlines(places, table["before"], table["after"], color=LINK, lw=3, zorder=1)
    level.plot(table["before"], places, "o", ms=6, mfc="white", mec=BEFORE, mew=1.5, label=baseline)
    level.plot(table["after"], places, "o", ms=6, color=hue(average), label=average)
    if chance is not None:
        level.axvline(chance, color="#888888", lw=1, ls=":", label="guessing")
    level.set_xlabel("accuracy on unseen domains, %")
    level.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, borderaxespad=0.2)
    rows(level, table["student"])
    forest(gain, table, table["student"], mean="gain", colour=hue(average))
    gain.set_xlabel(f"{average} - {baseline}, points\n(mean with 95 % interval)")
    listed = (f"{r['student']} {r['before']:.1f} to {r['after']:.1f} ({points(r)})" for _, r in table.iterrows())
    return figure, f"Accuracy in % on unseen domains, {baseline} to {average}, with the gain: {'; '.join(listed)}."


@styled
def gain_by_level(table: pd.DataFrame, *, baseline: str, average: str) -> tuple[Figure, str]:
    """The gain of each student against its level, the mean of before and after (Bland and Altman 1986).

    Against ``before`` alone, noise in it would draw a falling line by itself: who was unlucky before gains more.
    table  as ``students.before_after`` returns; students without a score on both sides are not drawn
    """
    table = table[table["n"] > 0]
    level = (table["before"] + table["after"]) / 2
    figure = empty(7.2, 3.6)
    axis = figure.subplots()
    axis.vlines(level, table["low"], table["high"], color=LINK, lw=1.5, zorder=1)
    axis.plot(level, table["gain"], "D", ms=5, color=hue(average))
    for place, gain, student in zip(level, table["gain"], table["student"]):
        axis.annotate(student, (place, gain), xytext=(5, 3), textcoords="offset points", fontsize=8)
    zero(axis.axhline)
    axis.margins(x=0.1)
    axis.set(
        xlabel=f"mean accuracy of {baseline} and {average} on unseen domains, %",
        ylabel=f"{average} - {baseline}, points\n(mean with 95 % interval)",
    )
    axis.grid(color="#E2E2E2", lw=0.6)
    listed = (f"{s} {gain:+.1f} at {x:.1f}" for s, gain, x in zip(table["student"], table["gain"], level))
    return figure, f"Gain of {average} over {baseline} in points against mean accuracy in %: {'; '.join(listed)}."


@styled
def gain_against(table: pd.DataFrame, measure: str, *, said: str, baseline: str) -> tuple[Figure, str]:
    """The gain on unseen domains of every cell against one measure, a panel per average.

    table  as ``grid.cells`` returns: shape is the objective, shade the start, open markers a rate that decays
    """
    table = table.dropna(subset=["gain", measure])
    averages, objectives = list(table["average"].unique()), list(table["objective"].unique())
    starts = list(table["start"].unique())
    figure = empty(7.2, 4.2)
    axes = figure.subplots(1, max(1, len(averages)), sharey=True, squeeze=False)[0]
    for axis, average in zip(axes, averages):
        for _, r in table[table["average"] == average].iterrows():
            own, shape = shade(hue(average), starts.index(r["start"])), marker(objectives.index(r["objective"]))
            axis.plot([r[measure]] * 2, [r["low"], r["high"]], "-", color=own, lw=0.8, alpha=0.4)
            axis.plot(r[measure], r["gain"], shape, ms=5, mfc="white" if r["schedule"] == "cosine" else own, mec=own)
        zero(axis.axhline)
        axis.set(title=average)
        axis.grid(color="#E2E2E2", lw=0.6)
    axes[0].set_ylabel(f"gain over {baseline}, points\n(mean with 95 % interval)")
    figure.supxlabel(said, fontsize=9, color="#333333")
    told = [{"marker": marker(i), "color": GREY, "label": o} for i, o in enumerate(objectives)]
    if len(starts) > 1:
        told += [{"marker": ".", "ms": 12, "color": shade(GREY, i), "label": s} for i, s in enumerate(starts)]
    if (table["schedule"] == "cosine").any():
        told.append({"marker": "o", "mfc": "white", "mec": GREY, "label": "cosine"})
    handles = [Line2D([], [], ls="", **entry) for entry in told]
    # more than three beside each other would be wider than the axes
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 3))
    listed = (f"{r['average']} {r['student']} {r['gain']:+.1f} at {r[measure]:.3g}" for _, r in table.iterrows())
    return figure, f"Gain over {baseline} in points against {said}: {'; '.join(listed)}."


@styled
def gains_of_cells(table: pd.DataFrame, *, baseline: str) -> tuple[Figure, str]:
    """The gain of every cell and average with its interval, cells in rows: filled on unseen domains, open on source validation.

    table  as ``grid.cells`` returns
    """
    students, averages = list(table["student"].unique()), list(table["average"].unique())
    figure = empty(7.2, 1.0 + 0.27 * len(students))
    axes = figure.subplots(1, max(1, len(averages)), sharex=True, sharey=True, squeeze=False)[0]
    for axis, average in zip(axes, averages):
        part = table[table["average"] == average].set_index("student").reindex(students)
        forest(axis, part, students, mean="gain", colour=hue(average), lw=1.5, ms=4, label="unseen domains")
        axis.plot(part["source_gain"], range(len(part)), "o", ms=4, mfc="white", mec=BEFORE, label="source validation")
        axis.set_title(average)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    figure.supxlabel(f"gain over {baseline}, points (mean with 95 % interval)", fontsize=9, color="#333333")
    known = table[table["n"] > 0]
    listed = (f"{r['average']} {r['student']} {points(r)}" for _, r in known.iterrows())
    return figure, f"Gain over {baseline} on unseen domains in points: {'; '.join(listed)}."

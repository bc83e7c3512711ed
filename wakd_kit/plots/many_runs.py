"""Figures over many runs: differences, windows, ranks, calibration. Each returns ``(figure, alt)``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..results.differences import points
from ..statistics import cliques, told
from .style import INK, empty, hue, looks, marker, rows, styled, zero


@styled
def differences(table: pd.DataFrame, *, baseline: str, between: str = "between students") -> tuple[Figure, str]:
    """Paired differences in points of accuracy on unseen domains: every pair as a dot, the mean with its 95 % interval.

    table  rows ``label, student, pairs (array), pair_targets, mean, low, high, n`` in points, as ``differences.paired`` returns

    between  what stands above rows that are of no one student

    One axis with one zero: what averaging does to each student, student by student, in its strategy's colour, then how students differ.
    """
    groups = list(table.groupby("student", sort=False))
    targets = sorted({target for pairs in table["pair_targets"] for target in pairs})
    lines = len(table) + len(groups)
    figure = empty(7.2, 0.27 * lines + 0.9)
    axis, rng, at, ticks, names = figure.subplots(), np.random.default_rng(0), 0, [], []
    for student, part in groups:
        title = f"{student}: difference to {baseline}" if student else between
        axis.text(0, at, title, transform=axis.get_yaxis_transform(), weight="bold", va="center", ha="left")
        called = [_called(label, student, baseline) for label in part["label"]]
        for name, (_, row) in zip(called, part.iterrows()):
            at += 1
            own = hue(name) if student else INK[1]
            axis.hlines(at, row["low"], row["high"], color=own, lw=5, alpha=0.4, zorder=1)
            axis.plot(row["mean"], at, "|", ms=13, mew=2.5, color=own, zorder=2)
            if not row["n"]:
                axis.text(0, at, "  no pair with a score on both sides", va="center", style="italic", color="#777777")
            for i, target in enumerate(targets):
                own = row["pairs"][np.array(row["pair_targets"], dtype=object) == target] if row["n"] else []
                height = at + rng.uniform(-0.2, 0.2, len(own))
                axis.plot(own, height, marker(i), ms=4.5, color=INK[0], mec="white", mew=0.4, zorder=3)
            ticks.append(at)
            names.append(name.replace(" - ", " − "))
        at += 1
    axis.set(ylim=(at - 0.4, -0.6), yticks=ticks)
    axis.set_yticklabels(names)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="#E2E2E2", lw=0.6)
    axis.spines["left"].set_visible(False)
    zero(axis.axvline)
    for i, target in enumerate(targets):
        axis.plot([], [], marker(i), ms=4.5, color=INK[0], label=target)
    if targets:
        axis.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=8, borderaxespad=0, handletextpad=0.1, columnspacing=1
        )
    axis.set_xlabel(
        "accuracy on the unseen domain, points: a line for the\nmean, a band for its 95 % interval, a marker per pair"
    )
    known = table[table["n"] > 0]
    said = [f"{r['label']} {points(r, 'mean')}" for _, r in known.iterrows()]
    return figure, f"Paired differences to {baseline} in points, mean and 95 % interval: " + "; ".join(said) + "."


def _called(label: str, student: str, baseline: str) -> str:
    """What a row is called below its student's name."""
    return label.removeprefix(f"{student}: ").removesuffix(f" - {baseline}" if student else "")


@styled
def picks(table: pd.DataFrame, *, steps: int) -> tuple[Figure, str]:
    """Which part of training each strategy averaged, one thin line per run: rows ``student, strategy, begin, end``.

    A strategy has one colour for all students; lines are sorted by where they begin, single iterates are dots. A run
    without a window has no line, and the row says how many there are.
    """
    groups = list(table.groupby(["student", "strategy"], sort=False))
    colours = {name: look.colour for name, look in looks(table["strategy"]).items()}
    labels, found = [], []
    figure = empty(7.2, 0.6 + 0.32 * len(groups))
    axis = figure.subplots()
    for row, ((student, strategy), part) in enumerate(groups):
        windows = part.dropna(subset=["begin"]).sort_values(["begin", "end"])
        places = row + np.linspace(-0.3, 0.3, len(windows)) if len(windows) > 1 else [row]
        for place, begin, end in zip(places, windows["begin"], windows["end"]):
            if end - begin > 1:
                axis.plot([begin, end], [place, place], lw=1.2, color=colours[strategy], solid_capstyle="butt")
            else:
                axis.plot(end, place, "o", ms=2.5, color=colours[strategy], clip_on=False)
        missing = len(part) - len(windows)
        labels.append(f"{student} {strategy}" + f" ({missing} without)" * bool(missing))
        span = f"{windows['begin'].mean():.0f} to {windows['end'].mean():.0f}" if len(windows) else "no window"
        found.append(f"{student} {strategy}: {span}" + f" ({missing} runs without a window)" * bool(missing))
        if row and groups[row - 1][0][0] != student:
            axis.axhline(row - 0.5, color="#CCCCCC", lw=0.8)
    rows(axis, labels)
    axis.set(xlim=(0, steps), xlabel="step")
    return figure, "Mean window of each strategy in steps. " + "; ".join(found) + "."


@styled
def critical_difference(table: pd.DataFrame) -> tuple[Figure, str]:
    """Mean ranks of each student's strategies (1 is best), and bars that join those which cannot be told apart.

    table  rows ``student, strategy, rank, blocks, p, difference`` as ``differences.ranks`` returns; Demsar 2006 (JMLR 7).
           A strategy without a rank is named below the title and not drawn.
    """
    groups, alts = list(table.groupby("student", sort=False)), []
    heights = [1.2 + 0.19 * len(part) for _, part in groups]
    figure = empty(7.2, max(1, sum(heights)))
    axes = figure.subplots(max(1, len(groups)), squeeze=False, height_ratios=heights or None)[:, 0]
    if not groups:
        axes[0].text(0, 0.5, "Too few strategies, targets or seeds to rank.")
        axes[0].set_axis_off()
    for axis, (student, part) in zip(axes, groups):
        one, ranked = part.iloc[0], part.dropna(subset=["rank"]).sort_values("rank", kind="stable")
        joined = cliques(ranked["rank"], one["difference"])
        _ranks(axis, ranked, joined, one["difference"])
        title = f"{student}: {one['blocks']} targets × seeds, Friedman p {told(one['p'])}"
        unranked = part.loc[part["rank"].isna(), "strategy"]
        title += f"; not ranked: {', '.join(unranked)}" * bool(len(unranked))
        axis.set_title(title)
        alike = "; ".join(" and ".join(ranked["strategy"].iloc[group]) for group in joined) or "none"
        listed = ", ".join(f"{r.strategy} {r.rank:.1f}" for r in ranked.itertuples())
        alts.append(f"{title}; {listed}; critical difference {one['difference']:.1f}; not told apart: {alike}")
    found = ". ".join(alts) or "Nothing to rank"
    return figure, f"Mean ranks by accuracy on unseen domains, 1 is best. {found}."


def _ranks(axis, ranked: pd.DataFrame, joined: list[list[int]], difference: float) -> None:
    """One diagram: the scale, a stem per strategy to its name at the near side, bars below the scale."""
    k, half = len(ranked), (len(ranked) + 1) // 2
    first = 0.5 + 0.35 * len(joined)
    axis.hlines(0, 1, k, color="#333333", lw=1)
    for tick in range(1, k + 1):
        axis.vlines(tick, -0.12, 0, color="#333333", lw=1)
        axis.text(tick, -0.22, str(tick), ha="center", va="bottom", fontsize=8)
    for i, (strategy, rank) in enumerate(zip(ranked["strategy"], ranked["rank"])):
        left = i < half
        depth, edge = first + 0.75 * (i if left else k - 1 - i), 1 - 0.08 * k if left else k + 0.08 * k
        axis.plot([rank, rank, edge], [0, depth, depth], color="#555555", lw=0.8)
        axis.plot(rank, 0, "o", ms=6, color=hue(strategy), mec="white", mew=0.5, clip_on=False, zorder=3)
        text = f"{strategy}  {rank:.2f}" if left else f"{rank:.2f}  {strategy}"
        axis.text(edge, depth, f" {text} ", ha="right" if left else "left", va="center")
    for row, group in enumerate(joined):
        low, high = ranked["rank"].iloc[group[0]], ranked["rank"].iloc[group[-1]]
        axis.hlines(0.3 + 0.35 * row, low - 0.04, high + 0.04, color=INK[2], lw=3)
    top = -1.2
    axis.hlines(top, 1, 1 + difference, color="#333333", lw=1.5)
    axis.vlines([1, 1 + difference], top - 0.12, top + 0.12, color="#333333", lw=1.5)
    axis.text(1 + difference, top, f"  critical difference {difference:.2f}", va="center", fontsize=8)
    axis.set(xlim=(1 - 0.45 * k, k + 0.45 * k), ylim=(first + 0.75 * max(0, half - 1) + 0.4, top - 0.3))
    axis.set_axis_off()


@styled
def reliability(
    table: pd.DataFrame, errors: Mapping[tuple[str, str, str], float], *, bins: int = 15
) -> tuple[Figure, str]:
    """Accuracy against confidence, a panel per student (column, four beside each other) and role (row); the area of a
    marker is its share of images.

    table   rows ``student, strategy, role, low, high, n, confidence, accuracy`` as ``agreement.reliability`` returns. A line
            below the diagonal is overconfident, and joins bins of 10 images or more: a few say nothing.
    errors  {(student, strategy, role): expected calibration error in %}, for the legend, as ``agreement.calibration`` returns
    """
    roles = {"target": "unseen domain", "source": "source validation"}
    students, strategies = list(table["student"].unique()), list(table["strategy"].unique())
    columns = min(max(1, len(students)), 4)
    blocks, alts = -(-len(students) // columns) or 1, []
    figure = empty(max(3.4, 2.7 * columns + 0.6), 5.4 * blocks)
    axes = figure.subplots(2 * blocks, columns, squeeze=False)
    for place, student in enumerate(students):
        block, column = divmod(place, columns)
        for axis, (role, name) in zip(axes[2 * block : 2 * block + 2, column], roles.items()):
            axis.plot([0, 100], [0, 100], color="#888888", lw=1, zorder=0)
            for strategy, look in looks(strategies).items():
                part = table[(table[["student", "strategy", "role"]] == (student, strategy, role)).all(axis=1)]
                if not len(part):
                    continue
                share = part["n"] / part["n"].sum()
                value = errors[student, strategy, role]
                error = f"{value:.1f}" if np.isfinite(value) else "–"
                x, y = 100 * part["confidence"], 100 * part["accuracy"]
                joined = part["n"] >= 10
                axis.plot(x[joined], y[joined], look.line, color=look.colour, lw=1.2)
                axis.scatter(x, y, s=4 + 120 * share, marker=look.marker, color=look.colour, alpha=0.8, lw=0)
                label = f"{strategy}: ECE {error}"
                axis.plot([], [], look.line, marker=look.marker, ms=4, color=look.colour, label=label)
                alts.append(f"{student} {strategy} on {name} {error} %")
            axis.set(title=f"{student}, {name}", xlim=(0, 102), ylim=(0, 102), aspect="equal")
            axis.legend(loc="best")
    for place in range(len(students), blocks * columns):  # the last block may have fewer students than columns
        for axis in axes[2 * (place // columns) :, place % columns]:
            axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy, %")
    for axis in axes[1::2].flat:
        axis.set_xlabel("confidence, %")
    found = ", ".join(alts)
    return figure, f"Reliability in {bins} bins of confidence. Expected calibration error, mean over runs: {found}."

"""Figures of loss landscapes, from the tables of ``landscape``. Each returns ``(figure, alt)``.

Source validation stands on the left; the unseen domain stands on the right and is called an oracle, because nothing may be
chosen by it. A strategy has its colour wherever it is drawn: ``style.looks``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from scipy.optimize import isotonic_regression

from ..averaging import Coefficients, Curves
from ..averaging.extent import bars
from ..landscape.surface import HEADINGS, SPOKEN, lowest, of_all, roles_of, said, walled
from ..statistics import FEWEST, interval
from .style import Look, empty, finer, ink, line, looks, loss_levels, marker, round_ticks, rows, styled

if TYPE_CHECKING:
    from ..landscape.surface import Plane

UNITS = {"loss": "nats per example", "accuracy": "accuracy, %"}
HALO = [withStroke(linewidth=2.5, foreground="white")]
ON_THE_PLANE = 0.01  # of the plane's width: what lies nearer is drawn as a point of it


@styled
def plane(plane: Plane, *, value: str = "loss") -> tuple[Figure, str]:
    """The plane through three points as filled contours, with the trajectory and every average projected onto it.

    value  "loss": bands at equal ratios, since a valley spans orders of magnitude; "accuracy": at equal differences

    The highest losses, or the lowest accuracies, share one colour, which leaves the others to the valley. A point off the
    plane is hollow and has its distance from it written beside: the field under it is not its own loss. Both axes are
    Euclidean distances between parameters, drawn at one scale.
    """
    if value not in UNITS:
        raise ValueError(f"value is one of {', '.join(UNITS)}; got {value!r}.")
    roles, table = roles_of(plane.table), plane.table
    shape = np.ptp(table["y"]) / np.ptp(table["x"])
    figure = empty(0.5 + 4.6 * len(roles), 0.9 + np.clip(3.5 * shape, 1.5, 4.8))
    axes = figure.subplots(1, len(roles), sharex=True, sharey=True, squeeze=False)[0]
    for axis, role in zip(axes, roles):
        _field(figure, axis, *plane.grid(role, value), value)
        axis.set_title(f"{HEADINGS[role]}, {UNITS[value]}")
        axis.set_xlabel("distance in parameter space")
    axes[0].set_ylabel("distance in parameter space")
    figure.draw_without_rendering()  # settles where the axes are; labels are placed among the points of a finished axis
    figure.set_layout_engine("none")
    for axis in axes:
        _trajectory(axis, plane.path)
        _write_labels(axis, _draw_points(axis, plane))
    return figure, _words(plane, value, roles)


def _field(figure: Figure, axis, xs: np.ndarray, ys: np.ndarray, values: np.ndarray, value: str) -> None:
    if value == "loss":
        levels, extend = loss_levels(values, 13), "max"
        values = np.maximum(values, levels[0])
    else:
        values = 100 * values
        known, extend = values[np.isfinite(values)], "min"
        low, high = (np.quantile(known, 0.2), known.max()) if known.size else (0.0, 100.0)
        levels = np.linspace(min(low, high - 0.1), high, 13)
    xs, ys, values = finer(xs, ys, values)
    bright = "cividis_r" if value == "loss" else "cividis"  # the better, the brighter
    field = axis.contourf(xs, ys, values, levels, cmap=bright, extend=extend)
    field.set_edgecolor("face")  # no hairlines between the bands of a PDF
    axis.contour(xs, ys, values, levels, colors="white", linewidths=0.4, linestyles="-", alpha=0.6)
    bar = figure.colorbar(
        field, cax=axis.inset_axes([1.02, 0, 0.03, 1]), ticks=round_ticks(levels[0], levels[-1]), format="%.3g"
    )
    bar.ax.minorticks_off()
    axis.set(xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]), aspect="equal")
    axis.spines[:].set_visible(False)


def _trajectory(axis, path: pd.DataFrame) -> None:
    axis.plot(path["x"], path["y"], "-", color="white", lw=2.6, alpha=0.8, zorder=2)
    axis.plot(path["x"], path["y"], ".-", color="#222222", lw=0.9, ms=3.5, zorder=2, label="_trajectory")


def _draw_points(axis, plane: Plane) -> list[tuple[str, float, float]]:
    """Corners and averages as markers; returns (label, x, y) of each."""
    width, written = np.ptp(plane.table["x"]), []
    look = looks(plane.marks["label"])
    for _, mark in plane.marks.iterrows():
        on, (own, shape, _) = mark["residual"] <= ON_THE_PLANE * width, look[mark["label"]]
        style = {"mfc": own, "mec": "white"} if on else {"mfc": "white", "mec": own}
        axis.plot(mark["x"], mark["y"], shape, ms=8, mew=1.4, zorder=4, label=mark["label"], **style)
        written.append((mark["label"] + ("" if on else f" ({mark['residual']:.3g} off)"), mark["x"], mark["y"]))
    for _, corner in plane.corners.iterrows():
        axis.plot(corner["x"], corner["y"], "+", ms=14, mew=1.4, color="black", zorder=3, label=f"_{corner['label']}")
        if corner["label"] not in set(plane.marks["label"]):
            written.append((corner["label"], corner["x"], corner["y"]))
    return written


def _write_labels(axis, points: Sequence[tuple[str, float, float]]) -> None:
    """Writes each label near its point, where it covers no point and no other label, with a line from one to the other."""
    places: dict[tuple[float, float], list[str]] = {}
    for label, x, y in points:
        if axis.viewLim.contains(x, y):
            places.setdefault((x, y), []).append(label)  # two strategies may have picked the same
    pixels = axis.figure.dpi / 72
    inside = Bbox(axis.bbox.get_points() + 3 * pixels * np.array([[1, 1], [-1, -1]]))
    taken = [_box(axis.transData.transform(place), (12 * pixels, 12 * pixels)) for place in places]
    for place, labels in places.items():
        note = axis.annotate(
            ", ".join(labels),
            place,
            (0, 0),
            textcoords="offset points",
            fontsize=8,
            path_effects=HALO,
            ha="center",
            va="center",
            zorder=6,
            arrowprops={"arrowstyle": "-", "color": "black", "lw": 0.6, "shrinkA": 1, "shrinkB": 4},
        )
        written = note.get_window_extent()
        size, centre = (written.width + 4 * pixels, written.height + 2 * pixels), axis.transData.transform(place)
        for offset in _offsets(written.width / pixels, written.height / pixels):
            box = _box(centre + pixels * offset, size)
            within = np.array_equal(Bbox.union([box, inside]).get_points(), inside.get_points())
            if within and not any(box.overlaps(other) for other in taken):
                break
        note.set_position(offset)
        taken.append(box)


def _box(centre: np.ndarray, size: tuple[float, float]) -> Bbox:
    return Bbox.from_bounds(centre[0] - size[0] / 2, centre[1] - size[1] / 2, *size)


def _offsets(width: float, height: float) -> np.ndarray:
    """Where a label of this size (points) may stand, nearest first: 24 directions at growing distance from its point."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = np.stack([(width / 2 + 9) * np.cos(angles), (height / 2 + 9) * np.sin(angles)], axis=1)
    outwards = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([around + distance * outwards for distance in range(0, 160, 8)])


def _words(plane: Plane, value: str, roles: Sequence[str]) -> str:
    def number(amount: float) -> str:
        if np.isnan(amount):
            return "no number"
        return f"{amount:.3g} nats" if value == "loss" else f"{amount:.1%}"

    size = len(plane.table) // plane.table["domain"].nunique()
    alt = f"{value.capitalize()} on {size} points of the plane through {', '.join(plane.corners['label'])}."
    for role in roles:
        best, *_ = lowest(plane, role, value)
        own = plane.points[plane.points["role"] == role].groupby("label", sort=False)[value].agg(of_all)
        extreme = "lowest" if value == "loss" else "highest"
        listed = ", ".join(f"{label} {number(amount)}" for label, amount in own.items())
        alt += f" The {extreme} {SPOKEN[role]} is {number(best)}; {listed}."
    off = plane.marks[plane.marks["residual"] > ON_THE_PLANE * np.ptp(plane.table["x"])]
    if len(off):
        alt += f" Off the plane: {', '.join(f'{m.label} by {m.residual:.3g}' for m in off.itertuples())}."
    return alt


@styled
def barriers(lines: Mapping[str, pd.DataFrame]) -> tuple[Figure, str]:
    """Loss along the straight line between two points, for several pairs: ``{label: table}`` as ``line`` returns.

    The mean over a role's domains, and its barrier as ``landscape.barrier`` measures it: the bar from the dotted line
    between the losses of both ends up to the curve.
    """
    roles, alt = roles_of(pd.concat(lines.values())), "Loss along straight lines between two points."
    figure = empty(0.5 + 4.4 * len(roles), 3.1 + 0.2 * len(lines))
    axes = figure.subplots(1, len(roles), sharex=True, squeeze=False)[0]
    for axis, role in zip(axes, roles):
        found = []
        for i, (label, table) in enumerate(lines.items()):
            loss, height, top = walled(table, role)
            axis.plot(loss, line(i), color=ink(i), label=f"{label}: {said(height)}")
            axis.plot([0, 1], loss.loc[[0, 1]], ":", color=ink(i), lw=0.7)
            if 0 < height < np.inf:
                axis.plot([top, top], [loss[top] - height, loss[top]], "-", color=ink(i), lw=2.5, alpha=0.3)
                axis.plot(top, loss[top], marker(i), color=ink(i), ms=5)
            found.append(f"{label} {said(height)}")
        axis.set(title=f"{HEADINGS[role]}, nats per example", xlabel="part of the way")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18))
        alt += f" {SPOKEN[role].capitalize()}, in nats: {', '.join(found)}."
    return figure, alt


@styled
def flatness(table: pd.DataFrame) -> tuple[Figure, str]:
    """How much the loss rises at growing distance along random directions: a line per strategy, with its band.

    table  as ``landscape.flatness`` returns; several runs' tables joined, with a column ``run``, are one figure

    A band is the 95 % interval of the mean (Student's t): over directions for one run; for several over runs, each of them
    the mean over its directions. Domains of a role weigh the same.
    """
    roles, strategies = roles_of(table), list(dict.fromkeys(table["strategy"]))
    over = "run" if "run" in table and table["run"].nunique() > 1 else "direction"
    radius, many = table["radius"].max(), table[over].nunique()
    alt = f"Rise of the loss in nats at radius {radius:.3g}, mean{' and 95 % interval' * (many >= FEWEST)} over {many} {over}{'s' * (many != 1)}."
    figure = empty(0.9 + 4.1 * len(roles), 3.4)
    axes = figure.subplots(1, len(roles), squeeze=False)[0]
    for axis, role in zip(axes, roles):
        found = []
        for strategy, look in looks(strategies).items():
            part = table[(table["role"] == role) & (table["strategy"] == strategy)]
            samples = part.groupby(["radius", over])["increase"].agg(of_all).unstack()
            low, high = np.transpose([interval(row) for row in samples.to_numpy()])
            mean = pd.concat([pd.Series({0.0: 0.0}), samples.mean(axis=1, skipna=False)])  # where it starts
            axis.fill_between(mean.index, [0, *low], [0, *high], color=look.colour, alpha=0.14, lw=0)
            axis.plot(mean, look.line, color=look.colour, marker=look.marker, ms=4, label=strategy)
            brackets = f" [{low[-1]:.3g}, {high[-1]:.3g}]" if np.isfinite(low[-1]) else ""
            found.append(f"{strategy} {mean[radius]:.3g}{brackets}")
        alt += f" {SPOKEN[role].capitalize()}: {', '.join(found)}."
        axis.axhline(0, color="#888888", lw=0.8, zorder=0)
        axis.set(title=f"{HEADINGS[role]}, rise in nats", xlabel="radius", xlim=(0, 1.02 * radius))
        axis.grid(color="#E6E6E6", lw=0.6)
    axes[0].legend()
    return figure, alt


@styled
def eigenvalues(table: pd.DataFrame) -> tuple[Figure, str]:
    """Curvature of the loss per domain: the largest Hessian eigenvalues, and the trace with its standard error.

    table  as ``landscape.curvature`` returns. A bar is the largest eigenvalue, with a tick for each of the next ones; the
           unseen domain, an oracle, stands on top.
    """
    domains = list(dict.fromkeys([*table.loc[table["role"] == "target", "domain"], *table["domain"]]))
    strategies = list(dict.fromkeys(table["strategy"]))
    unseen = set(table.loc[table["role"] == "target", "domain"])
    height = 0.8 / len(strategies)
    found = []
    figure = empty(9.2, 0.9 + 0.24 * len(domains) * max(len(strategies), 2))
    top, trace = figure.subplots(1, 2, sharey=True)
    for i, (strategy, look) in enumerate(looks(strategies).items()):
        own = table[table["strategy"] == strategy]
        for row, domain in enumerate(domains):
            part, y = own[own["domain"] == domain], row + (i - (len(strategies) - 1) / 2) * height
            values = part[part["kind"] == "eigenvalue"].sort_values("rank")["value"].to_numpy()
            sums = part[part["kind"] == "trace"].iloc[0]
            top.barh(y, values[0], height * 0.9, color=look.colour, alpha=0.75)
            top.plot(values[1:], np.full(len(values) - 1, y), "|", color="black", ms=45 * height, mew=0.9)
            trace.barh(y, sums["value"], height * 0.9, color=look.colour, alpha=0.75)
            trace.errorbar(sums["value"], y, xerr=sums["standard_error"], color="black", lw=1, capsize=3, zorder=4)
            for axis, tip in ((top, values[0]), (trace, sums["value"])):
                label = strategy if axis is trace and not row else None
                axis.plot(tip, y, look.marker, color=look.colour, mec="white", mew=0.8, ms=6, label=label)
            found.append(
                f"{strategy} on {domain}: largest {values[0]:.3g}, trace {sums['value']:.3g} "
                f"(standard error {sums['standard_error']:.2g})"
            )
    top.set(title="Largest eigenvalues of the Hessian", xlabel="nats per squared distance")
    trace.set(title="Trace of the Hessian", xlabel="nats per squared distance, with standard error")
    for axis in (top, trace):
        rows(axis, [d.replace("_", " ") + " (unseen, oracle)" * (d in unseen) for d in domains])
        axis.set_axisbelow(True)
    trace.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure, "Curvature of the loss in nats per squared distance. " + "; ".join(found) + "."


@styled
def along_training(
    curves: Curves, choices: Mapping[str, object], scores: pd.DataFrame, windows: pd.DataFrame | None = None
) -> tuple[Figure, str]:
    """Accuracy along training, and every average as a bar over the iterates it takes, at the accuracy it reaches.

    choices  {label: coefficients}; the bar is as opaque as an iterate's coefficient is large
    scores   as ``evaluate`` returns, of these labels; on the unseen domain they are an oracle
    windows  a run's ``window_map``, if it has one: its single cells are means of successive iterates, and give the
             unseen domain a curve, which no run records by itself
    """
    reached = 100 * scores.groupby(["role", "strategy"])["accuracy"].agg(lambda a: a.mean(skipna=False)).unstack()
    drawn = {name: look for name, look in looks(choices).items() if isinstance(choices[name], Coefficients)}
    figure = empty(10.4, 3.4)
    axes = dict(zip(HEADINGS, figure.subplots(1, 2, sharex=True)))
    steps, values = {"source": curves.ends}, {"source": 100 * curves.val_accuracy}
    if windows is not None and len(windows):
        cells = windows.sort_values("end").drop_duplicates("begin")
        steps["target"], values["target"] = (
            cells[["begin", "end"]].mean(axis=1),
            100 * cells["oracle_target_accuracy"],
        )
    reached = reached.reindex(index=list(axes), columns=list(drawn))
    for role, axis in axes.items():
        accuracy, shown = reached.loc[role].dropna(), []  # averages that diverged have none
        if role in steps:
            axis.plot(steps[role], values[role], ".-", color="#777777", lw=1, ms=4, zorder=1)
            shown = np.asarray(values[role])[np.asarray(steps[role]) > curves.steps / 4]
        for name, height in accuracy.items():
            _bar(axis, curves, choices[name], height, drawn[name])
        heights = [height for height in (*accuracy, *shown) if np.isfinite(height)] or [0.0]
        low, high = min(heights), max(heights)
        axis.set(ylim=(low - 0.15 * (high - low + 1), high + 0.15 * (high - low + 1)), xlim=(0, curves.steps))
        axis.set(title=f"{HEADINGS[role]}, accuracy in %", xlabel="step")
        _beside(axis, {f"{name} {value:.1f}": (value, drawn[name]) for name, value in accuracy.items()})
    alt = f"Accuracy over {curves.steps} steps."
    for role in axes:
        reads = (f"{n} {v:.1f} %" if np.isfinite(v) else f"{n} has no accuracy" for n, v in reached.loc[role].items())
        alt += f" Averages {SPOKEN[role]}: {', '.join(reads)}."
    return figure, alt + "".join(f" {name} found no window." for name in choices if name not in drawn)


def _bar(axis, curves: Curves, coefficients: Coefficients, height: float, look: Look) -> None:
    """A horizontal bar over the averaged iterates, as opaque as their coefficients; one iterate is a marker alone."""
    strokes: list[list[float]] = []  # begin, end, opacity; what touches and weighs the same is one, without a gap
    for bar in bars(curves, coefficients):
        if strokes and strokes[-1][1] == bar.begin and np.isclose(strokes[-1][2], abs(bar.height)):
            strokes[-1][1] = bar.end
        else:
            strokes.append([bar.begin, bar.end, abs(bar.height)])
    lines = [[(begin, height), (end, height)] for begin, end, _ in strokes]
    opacities = [share for *_, share in strokes]
    axis.add_collection(
        LineCollection(lines, colors=look.colour, alpha=opacities, linewidths=3, capstyle="butt", zorder=2)
    )
    axis.plot(
        max(end for _, end, _ in strokes),
        height,
        look.marker,
        color=look.colour,
        mec="white",
        ms=7,
        zorder=3,
        clip_on=False,
    )


def _beside(axis, labels: Mapping[str, tuple[float, Look]]) -> None:
    """Writes labels right of the axis at their heights, moved apart where they would cover each other."""
    low, high = axis.get_ylim()
    gap = (high - low) / 14
    order = sorted(labels, key=lambda label: labels[label][0])
    heights = np.array([labels[label][0] for label in order])
    rank = np.arange(len(order)) * gap
    # nearest heights at least a gap apart: without the gaps, the nearest that never fall (pool adjacent violators)
    moved = isotonic_regression(heights - rank).x + rank if len(rank) else rank
    moved -= max(0, moved[-1] - high) if len(moved) else 0
    for label, height, y in zip(order, heights, moved):
        axis.annotate(
            label,
            (1.0, height),
            (1.05, y),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": labels[label][1].colour, "lw": 0.8, "shrinkA": 0, "shrinkB": 3},
        )

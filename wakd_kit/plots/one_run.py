"""Figures of recorded runs. Each takes tables or runs, computes no scores, and returns ``(figure, alt)``.

``alt`` says in words what the figure shows, from the same numbers. Accuracies are fractions in tables and per cent here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from ..averaging import Coefficients, Curves, NoWindow
from ..averaging.curves import diverged
from ..averaging.extent import bars, extent, plain_window, widened
from ..data.domains import Domains, domains_from_arrays
from ..data.folders import as_rgb
from ..files import room_for
from .style import LOSSES, empty, error_of_best, ink, line, looks, row_height, rows, styled, widest

if TYPE_CHECKING:
    from ..data.check import DataReport


@styled
def contact_sheet(domains: Domains, *, columns: int | None = None) -> tuple[Figure, str]:
    """One random image per class (column) and domain (row)."""
    names, rng = list(domains), np.random.default_rng(0)
    labels = range(min(len(domains.classes), columns or 12))
    cut = len(labels) < len(domains.classes)
    figure = empty(1 + 0.72 * len(labels), 0.25 + 0.78 * len(names))
    axis = figure.subplots()  # one for all: axes of their own take most of the time that a figure takes
    for row, name in enumerate(names):
        for label in labels:
            examples = domains[name]
            of_class = np.flatnonzero(examples.labels == label)
            if not len(of_class):  # the place stays empty
                continue
            axis.imshow(
                examples.images[rng.choice(of_class)], extent=(label + 0.04, label + 0.96, row + 0.96, row + 0.04)
            )
    axis.set(xlim=(0, len(labels)), ylim=(len(names), 0))
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_xticks(np.arange(len(labels)) + 0.5, [domains.classes[label] for label in labels], fontsize=8)
    axis.set_yticks(np.arange(len(names)) + 0.5, [name.replace("_", " ") for name in names])
    axis.spines[:].set_visible(False)
    counts = ", ".join(f"{name} ({len(domains[name])} images)" for name in names)
    shown = f"{'the first ' * cut}{len(labels)}{f' of {len(domains.classes)}' * cut} classes"
    return figure, f"One example per class, {shown}, of each domain: {counts}."


@styled
def training_curves(curves: Curves, choices: Mapping[str, object] | None = None) -> tuple[Figure, str]:
    """Losses, source-validation accuracy, and below them the coefficients each strategy chose, if ``choices`` are given."""
    choices = choices or {}
    steps = curves.ends
    strip = row_height(choices) * (len(choices) + 0.2)
    figure = empty(8.2, 3.2 + strip if choices else 2.7)
    grid = figure.add_gridspec(2, 2, height_ratios=[1.9, strip]) if choices else figure.add_gridspec(1, 2)
    loss, accuracy = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    for i, (name, label) in enumerate(LOSSES.items()):
        values = getattr(curves, name)
        if values is not None:
            loss.plot(steps, values, line(i), color=ink(i), label=label)
    loss.set(title="Loss, nats per example", xlabel="step", yscale="log", xlim=(0, curves.steps))
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # 0.5, not 5 x 10^-1
    loss.yaxis.set_minor_formatter(NullFormatter())
    if loss.lines:
        loss.legend()
    for i, (domain, values) in enumerate(curves.per_domain.get("val_accuracy", {}).items()):
        accuracy.plot(steps, 100 * values, line(i + 1), color=ink(i + 1), lw=1, label=domain.replace("_", " "))
    accuracy.plot(steps, 100 * curves.val_accuracy, color="#222222", lw=2, label="mean of source domains")
    accuracy.set(title="Source validation accuracy, %", xlabel="step", xlim=(0, curves.steps))
    accuracy.legend()
    if choices:
        _strip(figure.add_subplot(grid[1, :]), curves, choices)
    end = curves.val_accuracy[-1]
    alt = f"Training over {curves.steps} steps: source validation accuracy {f'ends at {end:.1%}' if np.isfinite(end) else 'is lost'}."
    for name, choice in choices.items():
        alt += f" {name} found no window." if isinstance(choice, NoWindow) else f" {name} picks {choice.note}."
    return figure, alt


def _strip(axis, curves: Curves, choices: Mapping[str, object]) -> None:
    """One row per strategy: a bar per segment whose height is its coefficient per iterate, relative to the largest; negative
    ones hang below a line, and the initial parameters' is hatched, at the left."""
    for row, (coefficients, look) in enumerate(zip(choices.values(), looks(choices).values())):
        if not isinstance(coefficients, Coefficients):
            axis.text(0.008 * curves.steps, row, "no window", va="center", style="italic", color="#777777")
            continue
        drawn = bars(curves, coefficients)
        places = widened(curves, drawn)
        negative = any(bar.height < 0 for bar in drawn)
        if negative:
            axis.hlines(row, 0, curves.steps, color="#999999", lw=0.6)
        axis.bar(
            [begin for begin, _ in places],
            [(-0.4 if negative else -0.8) * bar.height for bar in drawn],  # upwards: rows count from the top
            width=[end - begin for begin, end in places],
            bottom=row if negative else row + 0.4,
            align="edge",
            color=look.colour,
            hatch=["////" if bar.end == 0 else "" for bar in drawn],
            edgecolor="white",
            linewidth=0,
        )
    rows(axis, choices, grid=False)
    axis.set(
        xlim=(0, curves.steps), ylim=(len(choices) - 0.4, -0.6), xlabel="step", title="Coefficient of each iterate"
    )


@styled
def accuracy_by_domain(table: pd.DataFrame, *, chance: float | None = None) -> tuple[Figure, str]:
    """Accuracy of each strategy (marker) on each domain (row) of one run; what is unseen stands apart on top.

    table   as ``evaluate`` returns. A strategy without a window, or whose average diverged, is named in the legend, and has no marker.
    chance  accuracy of guessing, a fraction, drawn as a line
    """
    rows_unseen = table[table["role"] == "target"]
    apart = list(rows_unseen["domain"].unique())
    told = rows_unseen if apart else table  # a run that left no domain out
    unseen = told.groupby("strategy", sort=False)["accuracy"].agg(lambda a: a.mean(skipna=False))
    domains = list(dict.fromkeys([*apart, *table["domain"]]))
    figure = empty(6.4, 0.9 + 0.42 * len(domains))
    axis = figure.subplots()
    for i, (name, look) in enumerate(looks(unseen.index).items()):
        part = table[table["strategy"] == name].set_index("domain").reindex(domains)
        offset = (i - (len(unseen) - 1) / 2) * 0.7 / len(unseen)
        axis.plot(
            100 * part["accuracy"],
            np.arange(len(domains)) + offset,
            look.marker,
            color=look.colour,
            ms=5,
            label=name if np.isfinite(unseen[name]) else f"{name} ({_lack(table, name)})",
        )
    if chance is not None:
        axis.axvline(100 * chance, color="#888888", lw=1, ls=":", label="guessing")
    if apart:
        axis.axhspan(-0.5, len(apart) - 0.5, color="#F1EDE4", zorder=0)
    rows(axis, [d.replace("_", " ") + " (unseen)" * (d in apart) for d in domains])
    axis.set_xlabel("accuracy, %")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    values = [f"{n} {v:.1%}" if np.isfinite(v) else f"{n} {_lack(table, n)}" for n, v in unseen.items()]
    where = f"unseen domain {apart[0]}" if len(apart) == 1 else f"unseen domains {', '.join(apart)} (mean)"
    return figure, f"Accuracy on {f'the {where}' if apart else 'source validation (mean)'}: {', '.join(values)}."


def _lack(table: pd.DataFrame, strategy: str) -> str:
    """Why a strategy has no accuracy."""
    notes = table.loc[(table["strategy"] == strategy) & table["accuracy"].isna(), "note"]
    return "diverged" if diverged(notes.iloc[0]) else "found no window"


@styled
def window_map(
    table: pd.DataFrame,
    curves: Curves,
    choices: Mapping[str, object] | None = None,
    *,
    images: int | None = None,
    source_images: Sequence[int] = (),
) -> tuple[Figure, str]:
    """Accuracy of the average over every window: begin (down) by end (right); source validation beside the oracle.

    table          columns ``begin, end, val_accuracy, oracle_target_accuracy`` as ``windows.window_map`` returns
    choices        {label: coefficients}; those that are a plain mean over a window are marked where it ends and begins, at the
                   upper right corner of their cell; the best cell of the oracle has a ring there
    images         number of target images, and ``source_images`` those of each source's validation part: the title then gives
                   the binomial standard error of one cell in points, and cells within two of them of the best are hatched

    Both panels spend their colours on the same number of points, each down from its own best: a step of colour is as much
    here as there.
    """
    begins, ends = np.unique(table["begin"]), np.unique(table["end"])
    edges = np.concatenate([[0], ends])
    cell = edges[-1] / len(ends)
    marks = _marks(curves, choices or {}, cell)
    look = looks(choices or {})
    best = table.loc[table["oracle_target_accuracy"].fillna(-1).idxmax()]
    share, last = best["oracle_target_accuracy"], table.iloc[-1]
    figure = empty(9.6, 3.9)
    panels = (
        ("val_accuracy", "Source validation accuracy, %", source_images),
        ("oracle_target_accuracy", "Unseen domain accuracy, % (oracle)", [images] if images else ()),
    )
    axes = figure.subplots(1, 2, sharey=True)
    width = 100 * widest(table, [column for column, *_ in panels])
    for axis, (column, title, counts) in zip(axes, panels):
        values = 100 * table.pivot(index="begin", columns="end", values=column).reindex(index=begins, columns=ends)
        high = values.max(axis=None)
        mesh = axis.pcolormesh(
            edges, np.append(begins, edges[-1]), values, cmap="cividis", vmin=high - width, vmax=high
        )
        bar = figure.colorbar(mesh, ax=axis, shrink=0.9, extend="min" if high > width else "neither", pad=0.02)
        if high <= width:  # of a weak run, from zero
            bar.ax.set_ylim(0, high)
        if len(counts) and np.isfinite(high):
            error = 100 * error_of_best(high / 100, counts)
            _hatch(axis, table, 100 * table[column] >= high - 2 * error, edges, np.append(begins, edges[-1]))
            title = (
                f"{title[:-1]}; one cell ± {error:.1f})" if title.endswith(")") else f"{title} (one cell ± {error:.1f})"
            )
        for name, x, y in marks:
            own = {"color": look[name].colour, "mec": "white", "mew": 1.2, "clip_on": False}
            axis.plot(x, y, look[name].marker, ms=8, label=name, zorder=3, **own)
        axis.set(title=title, xlabel="window ends at step", xlim=(0, edges[-1]), ylim=(edges[-1], 0))
        axis.spines[:].set_visible(False)
    ring = {
        "mfc": "none",
        "mec": "black",
        "mew": 1.4,
        "clip_on": False,
        "path_effects": [withStroke(linewidth=3, foreground="white")],
    }
    if np.isfinite(share):
        axes[1].plot(best["end"], best["begin"], "o", ms=12, label="best of the oracle", zorder=4, **ring)
    axes[0].set_ylabel("window begins after step")
    axes[1].tick_params(axis="y", length=0)
    for axis in (axis for axis in axes if axis.lines):
        axis.legend(loc="lower left")  # the corner where a window would end before it begins
    alt = f"Map of {len(table)} windows, none of which has an accuracy: training diverged."
    if np.isfinite(share):
        final = last["oracle_target_accuracy"]
        alt = (
            f"Map of {len(table)} window{'s' * (len(table) > 1)}. The best on the unseen domain, an oracle, runs from step {best['begin']:.0f} to "
            f"{best['end']:.0f}: {share:.1%}; the last cell, from step {last['begin']:.0f}, "
            f"{f'reaches {final:.1%}' if np.isfinite(final) else 'diverged'}."
        )
    spans = {name: extent(curves, choices[name]) for name, *_ in marks}
    return figure, alt + "".join(f" {name} averages from step {b} to {e}." for name, (b, e) in spans.items())


def _hatch(axis, table: pd.DataFrame, alike: pd.Series, ends: np.ndarray, begins: np.ndarray) -> None:
    """Lines over the cells that cannot be told from the best."""
    for begin, end in table.loc[alike, ["begin", "end"]].to_numpy():
        column, row = np.searchsorted(ends, end), np.searchsorted(begins, begin)
        corner = ends[column - 1], begins[row]
        size = end - corner[0], begins[row + 1] - begin
        axis.add_patch(Rectangle(corner, *size, fill=False, hatch="////", lw=0, ec="#00000070", zorder=2))


def _marks(curves: Curves, choices: Mapping[str, object], cell: float) -> list[tuple[str, float, float]]:
    """(label, x, y) of every plain mean over a window, at its end and begin; those in one place stand side by side."""
    found = {name: window for name, choice in choices.items() if (window := plain_window(curves, choice))}
    marks, places = [], list(found.values())
    for i, (name, (begin, end)) in enumerate(found.items()):
        marks.append((name, end - 0.45 * cell * places[:i].count((begin, end)), begin))
    return marks


@styled
def lengths(table: pd.DataFrame) -> tuple[Figure, str]:
    """Accuracy against the length of a moving average, source validation beside the oracle; a line for the last iterate.

    table  as ``length_sweep`` returns: domains of a role are averaged
    """
    mean = 100 * table.groupby(["role", "family", "length"])["accuracy"].agg(lambda a: a.mean(skipna=False))
    titles = {"source": "Source validation accuracy, %", "target": "Unseen domain accuracy, % (oracle)"}
    shown = [role for role in titles if role in mean.index.get_level_values("role")]
    figure = empty(3.6 * len(shown) + 1.2, 2.9)
    said = []
    for axis, role in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        last = mean[role, "last"].iloc[0]
        axis.axhline(last, color="#222222", ls=":", lw=1.2, label="last iterate")
        for family, look in looks(table.loc[table["family"] != "last", "family"]).items():
            values = mean[role, family]
            axis.plot(
                values.index, values, look.line, marker=look.marker, ms=4, color=look.colour, label=f"{family} average"
            )
            where = f"{family} on the {'source validation' if role == 'source' else 'unseen domain (oracle)'}"
            if values.isna().all():
                said.append(f"{where}: no accuracy")
                continue
            said.append(
                f"{where}: best {values.max():.1f} at length {values.idxmax():.3f}, {values.iloc[-1]:.1f} as plain mean, "
                f"last iterate {last:.1f}"
            )
        axis.set(title=titles[role], xlabel="length of the average, share of the run", xscale="log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.legend()
    return figure, f"Accuracy in % against the length of a moving average: {'; '.join(said)}."


@styled
def along(table: pd.DataFrame, reached: pd.DataFrame) -> tuple[Figure, str]:
    """Accuracy along training of the iterates and of each strategy's own average, source validation beside the oracle; a ring where
    an average is first as good as the best of the iterates that were looked at.

    table    as ``averages_along`` returns: domains of a role are averaged
    reached  what ``steps_to_reach`` says of it
    """
    mean = 100 * table.groupby(["role", "strategy", "step"])["accuracy"].agg(lambda a: a.mean(skipna=False))
    steps, drawn = reached.set_index(["role", "strategy"]), looks(table["strategy"])
    titles = {"source": "Source validation accuracy, %", "target": "Unseen domain accuracy, % (oracle)"}
    shown = [role for role in titles if role in set(table["role"])]
    figure = empty(3.6 * len(shown) + 1.2, 2.9)
    said = []
    for axis, role in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        for i, strategy in enumerate(drawn):
            values, (goal, step) = mean[role, strategy], steps.loc[(role, strategy), ["goal", "step"]]
            iterates, look = i == 0, drawn[strategy]
            how = (
                {"color": "#222222", "ls": ":"} if iterates else {"color": look.colour, "marker": look.marker, "ms": 4}
            )
            axis.plot(values.index, values, label="iterates" if iterates else strategy, **how)
            first = "never" if pd.isna(step) else f"first at step {int(step)}"
            if iterates:
                said.append(
                    f"on the {'source validation' if role == 'source' else 'unseen domain (oracle)'} the best of the {len(values)} iterates that were looked at, {100 * goal:.1f}, is reached {first.removeprefix('first ')}"
                )
                continue
            said.append(f"by {strategy} {first}")
            if not pd.isna(step):
                axis.plot(step, values[step], "o", ms=10, mfc="none", mec=look.colour)
        axis.set(title=titles[role], xlabel="step at which the run would have ended")
        axis.legend()
    return figure, f"Accuracy in % along training: {', '.join(said)}."


def write_sheet(report: DataReport, file: Path, *, seed: int = 0, side: int = 96) -> str:
    """A contact sheet as PNG, a random readable image per domain and class, grey where there is none; says so."""
    rng = np.random.default_rng(seed)
    readable = report.files[report.files["problem"].isna()]
    by_place = {place: group["file"].tolist() for place, group in readable.groupby(["domain", "class"])}
    arrays = {}
    for domain in report.counts.columns:
        images = np.full((len(report.counts), side, side, 3), 200, np.uint8)
        for i, name in enumerate(report.counts.index):
            if (domain, name) in by_place:
                with Image.open(report.root / rng.choice(by_place[domain, name])) as image:
                    images[i] = np.asarray(as_rgb(image).resize((side, side)))
        arrays[domain] = images, np.arange(len(images))
    figure, _ = contact_sheet(domains_from_arrays(arrays, tuple(report.counts.index)), columns=len(report.counts))
    alt = f"One image per class of {len(arrays)} domains ({', '.join(arrays)}), grey where there is none."
    figure.savefig(room_for(file, "contact sheet"), format="png", dpi=150, metadata={"Description": alt})
    return alt

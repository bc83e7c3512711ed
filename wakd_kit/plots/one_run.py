"""Figures of recorded runs. Each takes tables or runs, computes no scores, and returns ``(figure, alt)``.

``alt`` says in words what the figure shows, from the same numbers. Accuracies are fractions in tables and per cent here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from ..averaging import Coefficients, Curves, NoWindow
from ..averaging.extent import bars, extent, plain_window
from ..data.domains import Domains, domains_from_arrays
from ..data.folders import as_rgb
from .style import LOSSES, colour, empty, line, marker, rows, styled

if TYPE_CHECKING:
    from ..data.check import DataReport


@styled
def contact_sheet(domains: Domains, *, seed: int = 0, columns: int | None = None) -> tuple[Figure, str]:
    """One random image per class (column) and domain (row)."""
    names, rng = list(domains), np.random.default_rng(seed)
    labels = range(min(len(domains.classes), columns or 12))
    figure = empty(1 + 0.72 * len(labels), 0.25 + 0.78 * len(names))
    axis = figure.subplots()  # one for all: axes of their own take most of the time that a figure takes
    for row, name in enumerate(names):
        for label in labels:
            examples = domains[name]
            image = examples.images[rng.choice(np.flatnonzero(examples.labels == label))]
            axis.imshow(image, extent=(label + 0.04, label + 0.96, row + 0.96, row + 0.04))
    axis.set(xlim=(0, len(labels)), ylim=(len(names), 0))
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_xticks(np.arange(len(labels)) + 0.5, [domains.classes[label] for label in labels], fontsize=8)
    axis.set_yticks(np.arange(len(names)) + 0.5, [name.replace("_", " ") for name in names])
    axis.spines[:].set_visible(False)
    counts = ", ".join(f"{name} ({len(domains[name])} images)" for name in names)
    return figure, f"One example per class, {len(labels)} classes, of each domain: {counts}."


@styled
def training_curves(
    curves: Curves, choices: Mapping[str, object] | None = None, *, target: pd.DataFrame | None = None
) -> tuple[Figure, str]:
    """Losses, source-validation accuracy, and below them the coefficients each strategy chose, if ``choices`` are given.

    target  optional rows ``step, accuracy`` measured on the unseen domain; drawn as what they are, an oracle
    """
    choices = choices or {}
    steps = curves.ends
    strip = 0.5 + 0.22 * len(choices) if choices else 0
    figure = empty(8.2, 2.7 + strip)
    grid = figure.add_gridspec(2, 2, height_ratios=[2.7, strip]) if choices else figure.add_gridspec(1, 2)
    loss, accuracy = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    for i, (name, label) in enumerate(LOSSES.items()):
        values = getattr(curves, name)
        if values is not None:
            loss.plot(steps, values, line(i), color=colour(i), label=label)
    loss.set(title="Loss, nats per example", xlabel="step", yscale="log", xlim=(0, curves.steps))
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # 0.5, not 5 x 10^-1
    loss.yaxis.set_minor_formatter(NullFormatter())
    if loss.lines:
        loss.legend()
    for i, (domain, values) in enumerate(curves.per_domain.get("val_accuracy", {}).items()):
        accuracy.plot(steps, 100 * values, line(i), color=colour(i), lw=1, label=domain.replace("_", " "))
    accuracy.plot(steps, 100 * curves.val_accuracy, color="#222222", lw=2, label="mean of source domains")
    if target is not None:
        accuracy.plot(target["step"], 100 * target["accuracy"], ":", color="#7F3FBF", label="unseen domain (oracle)")
    accuracy.set(title="Source validation accuracy, %", xlabel="step", xlim=(0, curves.steps))
    accuracy.legend()
    if choices:
        _strip(figure.add_subplot(grid[1, :]), curves, choices)
    alt = f"Training over {curves.steps} steps: source validation accuracy ends at {curves.val_accuracy[-1]:.1%}."
    for name, choice in choices.items():
        alt += f" {name} found no window." if isinstance(choice, NoWindow) else f" {name} picks {choice.note}."
    return figure, alt


def _strip(axis, curves: Curves, choices: Mapping[str, object]) -> None:
    """One row per strategy: a bar per segment whose height is its coefficient per iterate, relative to the largest."""
    for row, coefficients in enumerate(choices.values()):
        if not isinstance(coefficients, Coefficients):
            axis.text(0.008 * curves.steps, row, "no window", va="center", style="italic", color="#777777")
            continue
        drawn = bars(curves, coefficients)
        # a last iterate is one step: drawn wide enough to be seen, and ending where it is
        width = [curves.steps / 100 if bar.single else bar.end - bar.begin for bar in drawn]
        negative = any(bar.height < 0 for bar in drawn)
        axis.bar(
            [bar.end - wide for bar, wide in zip(drawn, width)],
            [(-0.4 if negative else -0.8) * bar.height for bar in drawn],  # upwards: rows count from the top
            width=width,
            bottom=row if negative else row + 0.4,
            align="edge",
            color=colour(row),
        )
    rows(axis, choices, grid=False)
    axis.set(
        xlim=(0, curves.steps), ylim=(len(choices) - 0.4, -0.6), xlabel="step", title="Coefficient of each iterate"
    )


@styled
def accuracy_by_domain(table: pd.DataFrame) -> tuple[Figure, str]:
    """Accuracy of each strategy (marker) on each domain (row) of one run; the unseen domain stands apart on top.

    table  as ``evaluate`` returns. A strategy without a window is named in the legend, and has no marker.
    """
    unseen = table[table["role"] == "target"].set_index("strategy")["accuracy"]
    domains = list(dict.fromkeys([*table.loc[table["role"] == "target", "domain"], *table["domain"]]))
    figure = empty(6.4, 0.9 + 0.42 * len(domains))
    axis = figure.subplots()
    for i, name in enumerate(unseen.index):
        part = table[table["strategy"] == name].set_index("domain").reindex(domains)
        offset = (i - (len(unseen) - 1) / 2) * 0.7 / len(unseen)
        axis.plot(
            100 * part["accuracy"],
            np.arange(len(domains)) + offset,
            marker(i),
            color=colour(i),
            ms=5,
            label=name if np.isfinite(unseen[name]) else f"{name} (no window)",
        )
    axis.axhspan(-0.5, 0.5, color="#F1EDE4", zorder=0)
    names = [d.replace("_", " ") for d in domains]
    rows(axis, [f"{names[0]} (unseen)", *names[1:]])
    axis.set_xlabel("accuracy, %")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    values = [f"{n} {v:.1%}" if np.isfinite(v) else f"{n} found no window" for n, v in unseen.items()]
    return figure, f"Accuracy on the unseen domain {domains[0]}: {', '.join(values)}."


@styled
def window_map(
    table: pd.DataFrame, curves: Curves, choices: Mapping[str, object] | None = None, *, images: int | None = None
) -> tuple[Figure, str]:
    """Accuracy of the average over every window: begin (down) by end (right); source validation beside the oracle.

    table    columns ``begin, end, val_accuracy, oracle_target_accuracy`` as ``windows.window_map`` returns
    choices  {label: coefficients}; those that are a plain mean over a window are marked where they lie, half a cell
             inside their corner; the best cell of the oracle has a ring
    images   number of target images: the title then gives the binomial standard error of one cell in points
    """
    begins, ends = np.unique(table["begin"]), np.unique(table["end"])
    edges = np.concatenate([[0], ends])
    cell = edges[-1] / len(ends)
    marks = _marks(curves, choices or {}, cell)
    best = table.loc[table["oracle_target_accuracy"].idxmax()]
    share = best["oracle_target_accuracy"]
    noise = "" if images is None else f"; one cell ± {100 * np.sqrt(share * (1 - share) / images):.1f}"
    figure = empty(9.6, 3.9)
    panels = (
        ("val_accuracy", "Source validation accuracy, %"),
        ("oracle_target_accuracy", f"Unseen domain accuracy, % (oracle{noise})"),
    )
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (column, title) in zip(axes, panels):
        values = 100 * table.pivot(index="begin", columns="end", values=column).reindex(index=begins, columns=ends)
        # one scale per panel, without the lowest quarter: windows of early iterates would flatten the rest
        low = np.nanquantile(values, 0.25)
        mesh = axis.pcolormesh(edges, np.append(begins, edges[-1]), values, cmap="cividis", vmin=low)
        figure.colorbar(mesh, ax=axis, shrink=0.9, extend="min", pad=0.02)
        for i, name, x, y in marks:
            axis.plot(x, y, marker(i), ms=8, color=colour(i), mec="white", mew=1.2, label=name, zorder=3)
        axis.set(title=title, xlabel="window ends at step", xlim=(0, edges[-1]), ylim=(edges[-1], 0))
        axis.spines[:].set_visible(False)
    column, row = np.searchsorted(ends, best["end"]), np.searchsorted(begins, best["begin"])
    x, y = edges[column : column + 2].mean(), np.append(begins, edges[-1])[row : row + 2].mean()
    axes[1].plot(x, y, "o", ms=12, mfc="none", mec="#D55E00", mew=1.6, label="best of the oracle", zorder=2)
    axes[0].set_ylabel("window begins after step")
    axes[1].tick_params(axis="y", length=0)
    for axis in axes if marks else axes[1:]:
        axis.legend(loc="lower left")  # the corner where a window would end before it begins
    alt = (
        f"Map of {len(table)} windows. The best on the unseen domain, an oracle, runs from step {best['begin']:.0f} to "
        f"{best['end']:.0f}: {share:.1%}; the last single segment reaches {table['oracle_target_accuracy'].iloc[-1]:.1%}."
    )
    spans = {name: extent(curves, choices[name]) for _, name, *_ in marks}
    return figure, alt + "".join(f" {name} averages from step {b} to {e}." for name, (b, e) in spans.items())


def _marks(curves: Curves, choices: Mapping[str, object], cell: float) -> list[tuple[int, str, float, float]]:
    """(place in choices, label, x, y) of every plain mean over a window; those in one place are set side by side."""
    found = []
    for i, (name, c) in enumerate(choices.items()):
        if window := plain_window(curves, c):
            found.append((i, name, window[1] - cell / 2, window[0] + cell / 2))
    marks = []
    for i, name, x, y in found:
        alike = [other for other, _, *place in found if place == [x, y]]
        marks.append((i, name, x + (alike.index(i) - (len(alike) - 1) / 2) * cell * 0.5, y))
    return marks


@styled
def lengths(table: pd.DataFrame) -> tuple[Figure, str]:
    """Accuracy against the length of a moving average, source validation beside the oracle; a line for the last iterate.

    table  as ``length_sweep`` returns: domains of a role are averaged
    """
    mean = 100 * table.groupby(["role", "family", "length"])["accuracy"].mean()
    titles = {"source": "Source validation accuracy, %", "target": "Unseen domain accuracy, % (oracle)"}
    shown = [role for role in titles if role in mean.index.get_level_values("role")]
    figure = empty(3.6 * len(shown) + 1.2, 2.9)
    said = []
    for axis, role in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        last = mean[role, "last"].iloc[0]
        axis.axhline(last, color="#222222", ls=":", lw=1.2, label="last iterate")
        for i, family in enumerate(dict.fromkeys(table.loc[table["family"] != "last", "family"])):
            values = mean[role, family]
            axis.plot(values.index, values, line(i), marker=marker(i), ms=4, color=colour(i), label=f"{family} average")
            said.append(
                f"{family} on the {'source validation' if role == 'source' else 'unseen domain (oracle)'}: best {values.max():.1f} "
                f"at length {values.idxmax():.3f}, {values.iloc[-1]:.1f} as plain mean, last iterate {last:.1f}"
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
    an average is first as good as the iterates ever are.

    table    as ``averages_along`` returns: domains of a role are averaged
    reached  what ``steps_to_reach`` says of it
    """
    mean = 100 * table.groupby(["role", "strategy", "step"])["accuracy"].agg(lambda a: a.mean(skipna=False))
    steps = reached.set_index(["role", "strategy"])
    titles = {"source": "Source validation accuracy, %", "target": "Unseen domain accuracy, % (oracle)"}
    shown = [role for role in titles if role in set(table["role"])]
    figure = empty(3.6 * len(shown) + 1.2, 2.9)
    said = []
    for axis, role in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        for i, strategy in enumerate(dict.fromkeys(table["strategy"])):
            values, (goal, step) = mean[role, strategy], steps.loc[(role, strategy), ["goal", "step"]]
            iterates = i == 0
            look = (
                {"color": "#222222", "ls": ":"}
                if iterates
                else {"color": colour(i - 1), "marker": marker(i - 1), "ms": 4}
            )
            axis.plot(values.index, values, label="iterates" if iterates else strategy, **look)
            first = "never" if pd.isna(step) else f"first at step {int(step)}"
            if iterates:
                said.append(
                    f"on the {'source validation' if role == 'source' else 'unseen domain (oracle)'} the iterates' best, {100 * goal:.1f}, is reached {first.removeprefix('first ')}"
                )
                continue
            said.append(f"by {strategy} {first}")
            if not pd.isna(step):
                axis.plot(step, values[step], "o", ms=10, mfc="none", mec=look["color"])
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
    figure, _ = contact_sheet(domains_from_arrays(arrays, tuple(report.counts.index)))
    alt = f"One image per class of {len(arrays)} domains ({', '.join(arrays)}), grey where there is none."
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="png", dpi=150, metadata={"Description": alt})
    return alt

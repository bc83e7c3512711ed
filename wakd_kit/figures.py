"""Figures of recorded runs. Each takes tables or runs, computes no scores, and returns ``(figure, alt)``.

``alt`` says in words what the figure shows, from the same numbers. Colours are Okabe and Ito's; nothing rests on colour
alone. Accuracies are fractions in tables and per cent here.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .averaging import Coefficients, Curves
from .domains import Domains

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")

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


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def contact_sheet(domains: Domains, *, seed: int = 0, columns: int | None = None) -> tuple[Figure, str]:
    """One random image per class (column) and domain (row)."""
    names, rng = list(domains), np.random.default_rng(seed)
    labels = range(min(len(domains.classes), columns or 12))
    with matplotlib.rc_context(STYLE):
        figure = _figure(1 + 0.72 * len(labels), 0.25 + 0.78 * len(names))
        axes = figure.subplots(len(names), len(labels), squeeze=False)
        for row, name in zip(axes, names):
            for axis, label in zip(row, labels):
                examples = domains[name]
                axis.imshow(examples.images[rng.choice(np.flatnonzero(examples.labels == label))])
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            row[0].set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center")
        for axis, label in zip(axes[0], labels):
            axis.set_title(domains.classes[label], fontsize=8, fontweight="normal", loc="center")
    counts = ", ".join(f"{name} ({len(domains[name])} images)" for name in names)
    return figure, f"One example per class, {len(labels)} classes, of each domain: {counts}."


def training_curves(
    curves: Curves, choices: Mapping[str, object] | None = None, *, target: pd.DataFrame | None = None
) -> tuple[Figure, str]:
    """Losses, source-validation accuracy, and below them the coefficients each strategy chose.

    target  optional rows ``step, accuracy`` measured on the unseen domain; drawn as what they are, an oracle
    """
    found = {n: c for n, c in (choices or {}).items() if isinstance(c, Coefficients)}
    steps = curves.ends
    with matplotlib.rc_context(STYLE):
        figure = _figure(8.2, 3.0 + 0.22 * max(len(found), 1))
        grid = figure.add_gridspec(2, 2, height_ratios=[2.6, 0.22 * max(len(found), 1) + 0.1])
        loss, accuracy = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
        shown = {
            "train_loss": "training objective",
            "val_loss": "validation cross-entropy",
            "val_kd_loss": "validation KL to the teacher",
        }
        for i, (name, label) in enumerate(shown.items()):
            values = getattr(curves, name)
            if values is not None:
                loss.plot(steps, values, LINES[i], color=COLOURS[i], label=label)
        loss.set(title="Loss, nats per example", xlabel="step", yscale="log")
        loss.legend()
        for i, (domain, values) in enumerate(curves.per_domain.get("val_accuracy", {}).items()):
            accuracy.plot(steps, 100 * values, LINES[i % 4], color=COLOURS[i], lw=1, label=domain.replace("_", " "))
        accuracy.plot(steps, 100 * curves.val_accuracy, color="#222222", lw=2, label="mean of source domains")
        if target is not None:
            accuracy.plot(
                target["step"], 100 * target["accuracy"], ":", color="#7F3FBF", label="unseen domain (oracle)"
            )
        accuracy.set(title="Source validation accuracy of the current iterate, %", xlabel="step")
        accuracy.legend()
        _strip(figure.add_subplot(grid[1, :]), curves, found)
    alt = (
        f"Training over {curves.steps} steps: source validation accuracy ends at {curves.val_accuracy[-1]:.1%}. "
        + " ".join(f"{name} picks {c.note}." for name, c in found.items())
    )
    return figure, alt


def _strip(axis, curves: Curves, found: Mapping[str, Coefficients]) -> None:
    """One row per strategy: a bar per segment whose height is its coefficient per iterate, relative to the largest."""
    for row, (_, coefficients) in enumerate(found.items()):
        density = np.asarray(coefficients) / (curves.iterates if coefficients.of == "mean" else 1)
        used = density > density.max() * 1e-3
        width = curves.iterates if coefficients.of == "mean" else np.maximum(curves.iterates * 0.25, curves.steps / 200)
        left = curves.begins - 1 if coefficients.of == "mean" else curves.ends - width
        axis.bar(
            left[used],
            0.8 * (density / density.max())[used],
            width=np.broadcast_to(width, density.shape)[used],
            bottom=row - 0.4,
            align="edge",
            color=COLOURS[row % len(COLOURS)],
        )
    axis.set(xlim=(0, curves.steps), ylim=(len(found) - 0.4, -0.6), xlabel="step", yticks=range(len(found)))
    axis.set_yticklabels(list(found))
    axis.set_title("Coefficients per iterate")
    axis.tick_params(axis="y", length=0)


def accuracy_by_domain(table: pd.DataFrame) -> tuple[Figure, str]:
    """Accuracy of each strategy (marker) on each domain (row) of one run; the unseen domain stands apart on top."""
    table = table.dropna(subset=["accuracy"])
    domains = [*table.loc[table["role"] == "target", "domain"].unique()]
    domains += [d for d in table["domain"].unique() if d not in domains]
    with matplotlib.rc_context(STYLE):
        figure = _figure(6.4, 0.9 + 0.42 * len(domains))
        axis = figure.subplots()
        names = list(table["strategy"].unique())
        for i, name in enumerate(names):
            part = table[table["strategy"] == name].set_index("domain").reindex(domains)
            offset = (i - (len(names) - 1) / 2) * 0.09
            axis.plot(
                100 * part["accuracy"],
                np.arange(len(domains)) + offset,
                MARKERS[i % 8],
                color=COLOURS[i % 8],
                ms=5,
                label=name,
            )
        axis.axhspan(-0.5, 0.5, color="#F1EDE4", zorder=0)
        axis.set(yticks=range(len(domains)), ylim=(len(domains) - 0.5, -0.5), xlabel="accuracy, %")
        axis.set_yticklabels(
            [f"{d.replace('_', ' ')} (unseen)" if i == 0 else d.replace("_", " ") for i, d in enumerate(domains)]
        )
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        axis.grid(axis="x", color="#DDDDDD", lw=0.6)
    unseen = table[table["role"] == "target"].set_index("strategy")["accuracy"]
    return figure, f"Accuracy on the unseen domain {domains[0]}: " + ", ".join(
        f"{n} {v:.1%}" for n, v in unseen.items()
    ) + "."


def window_map(table: pd.DataFrame, curves: Curves, choices: Mapping[str, object] | None = None) -> tuple[Figure, str]:
    """Accuracy of the average over every window: begin (down) by end (right); source validation beside the oracle.

    table    columns ``begin, end, val_accuracy, oracle_target_accuracy`` as ``evaluation.window_map`` returns
    choices  {label: coefficients}; windows of segment means are marked where they lie
    """
    marks = {n: c.window() for n, c in (choices or {}).items() if isinstance(c, Coefficients) and c.of == "mean"}
    begins, ends = np.unique(table["begin"]), np.unique(table["end"])
    edges = np.concatenate([[0], ends])
    with matplotlib.rc_context(STYLE):
        figure = _figure(9.6, 4.2)
        panels = (
            ("val_accuracy", "Source validation accuracy, %"),
            ("oracle_target_accuracy", "Unseen domain accuracy, % (oracle)"),
        )
        for axis, (column, title) in zip(figure.subplots(1, 2, sharey=True), panels):
            values = 100 * table.pivot(index="begin", columns="end", values=column).reindex(index=begins, columns=ends)
            # one scale per panel, from the windows that any strategy would take: early single segments would flatten it
            low = np.nanquantile(values, 0.1)
            mesh = axis.pcolormesh(edges, np.append(begins, edges[-1]), values, cmap="cividis", vmin=low)
            figure.colorbar(mesh, ax=axis, shrink=0.85, extend="min")
            for i, (name, (first, last)) in enumerate(marks.items()):
                end = curves.ends[last]
                jitter = (i - (len(marks) - 1) / 2) * edges[-1] * 0.012
                axis.plot(
                    end - 0.01 * edges[-1] + jitter,
                    curves.begins[first] - 1 + 0.012 * edges[-1],
                    MARKERS[i % 8],
                    ms=7,
                    color=COLOURS[i % 8],
                    mec="white",
                    mew=1.2,
                    clip_on=False,
                    label=name,
                )
            axis.set(title=title, xlabel="window ends at step", xlim=(0, edges[-1]), ylim=(edges[-1], 0))
            axis.spines[:].set_visible(False)
        figure.axes[0].set_ylabel("window begins after step")
        if marks:
            figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(marks))
    best = table.loc[table["oracle_target_accuracy"].idxmax()]
    alt = (
        f"Map of {len(table)} windows. The best on the unseen domain, an oracle, runs from step {best['begin']:.0f} to "
        f"{best['end']:.0f}: {best['oracle_target_accuracy']:.1%}; the last single segment reaches "
        f"{table['oracle_target_accuracy'].iloc[-1]:.1%}."
    )
    return figure, alt


def differences(table: pd.DataFrame, *, baseline: str) -> tuple[Figure, str]:
    """Paired differences in points of accuracy on unseen domains: every pair as a dot, the mean with its 95 % interval.

    table  rows ``label, difference (array of pairs), mean, low, high, n`` in points, as ``comparison.paired`` returns
    """
    with matplotlib.rc_context(STYLE):
        figure = _figure(7.2, 0.7 + 0.34 * len(table))
        axis = figure.subplots()
        rng = np.random.default_rng(0)
        for row, (_, r) in enumerate(table.iterrows()):
            pairs = np.asarray(r["pairs"], dtype=float)
            axis.plot(pairs, row + rng.uniform(-0.18, 0.18, len(pairs)), "o", ms=3, color="#9DB7CC", mec="none")
            axis.plot([r["low"], r["high"]], [row, row], "-", color="#1B3A57", lw=2)
            axis.plot(r["mean"], row, "D", color="#1B3A57", ms=5)
        axis.axvline(0, color="#888888", lw=1)
        axis.set(yticks=range(len(table)), ylim=(len(table) - 0.5, -0.5))
        axis.set_yticklabels(list(table["label"]))
        axis.set_xlabel(
            f"accuracy on the unseen domain minus {baseline}, points (mean, 95 % interval; dots: target x seed)"
        )
        axis.grid(axis="x", color="#E2E2E2", lw=0.6)
    known = table[table["n"] > 0]
    parts = [f"{r['label']} {r['mean']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}]" for _, r in known.iterrows()]
    return figure, f"Paired differences to {baseline} in points, mean and 95 % interval: " + "; ".join(parts) + "."


def picks(table: pd.DataFrame, *, steps: int) -> tuple[Figure, str]:
    """Which part of training each strategy averaged, one thin line per run: rows ``student, strategy, begin, end``."""
    groups = list(table.groupby(["student", "strategy"], sort=False))
    with matplotlib.rc_context(STYLE):
        figure = _figure(7.2, 0.6 + 0.36 * len(groups))
        axis = figure.subplots()
        for row, (_, part) in enumerate(groups):
            offsets = np.linspace(-0.32, 0.32, len(part)) if len(part) > 1 else [0.0]
            for offset, (_, r) in zip(offsets, part.iterrows()):
                if np.isfinite(r["begin"]):
                    width = max(r["end"] - r["begin"], steps * 0.004)
                    axis.barh(
                        row + offset,
                        width,
                        left=r["end"] - width,
                        height=0.5 / max(len(part), 1),
                        color=COLOURS[row % 8],
                    )
        axis.set(yticks=range(len(groups)), ylim=(len(groups) - 0.4, -0.6), xlim=(0, steps), xlabel="step")
        axis.set_yticklabels([f"{student} {strategy}" for (student, strategy), _ in groups])
        axis.tick_params(axis="y", length=0)
    found = [f"{s} {t}: {part['begin'].mean():.0f} to {part['end'].mean():.0f}" for (s, t), part in groups]
    return figure, "Mean window of each strategy in steps. " + "; ".join(found) + "."

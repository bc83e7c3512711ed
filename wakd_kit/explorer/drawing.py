"""What the explorer's view draws, as plain JSON values: lines, coloured cells and contours in units of their axes.

Choosing limits, ticks and colours is done here, placing them on a screen in view.js. Accuracies are
fractions, loss is nats per example, a window is the pair of steps (begin, end) that holds iterates begin < i <= end.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import matplotlib
import numpy as np
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from .. import averaging
from ..averaging import Coefficients, NoWindow
from ..averaging.extent import bars, extent, widened
from ..plots.style import LOSSES, error_of_best, finer, looks, loss_levels, widest
from .answers import MEAN, Board

DASHES = ("", "6 3", "8 3 2 3", "2 2")
INK, SOFT = "var(--wk-ink)", "var(--wk-soft)"  # what is no average has no hue
BANDS = 13


def scene(board: Board, presets: Mapping[str, Coefficients | NoWindow] = MappingProxyType({})) -> dict:
    """Everything that stays while a window moves.

    presets  {label: what a strategy picked}: drawn on the maps where they are windows; a page has a button for each
    """
    run, settings = board.run, board.run.settings
    steps = board.curves.steps
    last = values_of(board.measure(averaging.last(board.curves)))
    return {
        "name": run.name,
        "about": _about(board),
        "alt": f"Training of {run.name}, {settings['student']['name']}, over {steps} steps, unseen domain {board.target}",
        "rows": board.rows,
        "steps": steps,
        "step": "checkpoint" if "checkpoints" in settings else "optimiser step",
        "ticks": _ticks(steps),
        "edges": [int(e) for e in board.edges],
        "segments": np.stack([board.curves.begins - 1, board.curves.ends], axis=1).tolist(),
        "curves": [_losses(board), _accuracies(board)],
        "windows": {f"{w.begin}-{w.end}": values_of(w[3:]) for w in board.windows.itertuples()},
        "exact": board.exact,
        "places": _places(board),
        "last": last,
        "low": _lowest_shown(board),
        "maps": _maps(board, presets),
        "target": board.target.replace("_", " "),
        "plane": _plane(board),
        "presets": [],
        "asks": False,
        "hidden": False,
    }


def _ticks(steps: int) -> list[float]:
    """Round steps of a run and its last one, before which none stands too close."""
    ticks = MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]).tick_values(0, steps)
    return [*(tick for tick in ticks.tolist() if tick <= steps - (ticks[1] - ticks[0]) / 2), float(steps)]


def _about(board: Board) -> str:
    name, sources = board.run.settings["student"]["name"], [d.replace("_", " ") for d in board.sources]
    seen = (", ".join(sources[:-1]), sources[-1])
    steps, trained = board.curves.steps, "was trained for {} steps"
    trained = "of {} checkpoints was trained" if "checkpoints" in board.run.settings else trained
    return (
        f"{name} {trained.format(steps)} on {' and '.join(filter(None, seen))}, and has never "
        f"seen {board.target.replace('_', ' ')}. Averaging the parameters of a stretch of that training gives another "
        "model without further training."
    )


def _losses(board: Board) -> dict:
    recorded = {label: getattr(board.curves, name) for name, label in LOSSES.items()}
    lines = [  # an objective may be zero or less, which a logarithmic axis has no place for
        _line(board, label, np.where(values > 0, values, np.nan), SOFT if i else INK, DASHES[i])
        for i, (label, values) in enumerate(recorded.items())
        if values is not None
    ]
    lines = [line for line in lines if line["points"]]
    values = [v for line in lines for _, v in line["points"]] or [1.0]
    low, high = min(values) / 1.1, max(values) * 1.1
    ticks = [t for t in LogLocator(subs=(1, 2, 5)).tick_values(low, high) if low <= t <= high]
    return {
        "title": "Loss",
        "unit": "nats per example, logarithmic",
        "limits": [low, high],
        "ticks": ticks[:: 1 + len(ticks) // 6],
        "logarithmic": True,
        "lines": lines,
    }


def _accuracies(board: Board) -> dict:
    by_domain = board.curves.per_domain["val_accuracy"]
    lines = [
        _line(board, domain, 100 * values, SOFT, DASHES[(i + 1) % len(DASHES)])
        for i, (domain, values) in enumerate(by_domain.items())
    ]
    lines.append({**_line(board, "mean", 100 * board.curves.val_accuracy, INK, ""), "wide": True})
    low = min((v for line in lines for _, v in line["points"]), default=0.0)
    ticks = [t for t in MaxNLocator(4).tick_values(low, 100) if low <= t <= 100]
    return {
        "title": "Source validation accuracy",
        "unit": "% of each single iterate",
        "along": "mean, averaged so far",  # a line that follows the window
        "limits": [low, 100.5],
        "ticks": ticks,
        "logarithmic": False,
        "lines": lines,
    }


def _line(board: Board, name: str, values: np.ndarray, colour: str, dash: str) -> dict:
    points = [[int(step), float(v)] for step, v in zip(board.curves.ends, values) if np.isfinite(v)]
    return {"name": name.replace("_", " "), "colour": colour, "dash": dash, "points": points}


def _lowest_shown(board: Board) -> float:
    """Where the axis of the accuracy table begins, in steps of 5 %: windows of early iterates may lie below it."""
    if not len(board.windows):
        return 0.0
    lowest = board.windows[board.rows].quantile(0.25).min()
    return min(float(np.floor(20 * lowest) / 20), 0.95)


def _maps(board: Board, presets: Mapping[str, Coefficients | NoWindow]) -> list[dict]:
    """Source validation beside the oracle: as many points of accuracy to a step of colour in both."""
    if not len(board.windows):
        return []
    rows = (MEAN, board.target)
    width = widest(board.windows, rows)
    return [_map(board, row, presets, width) for row in rows]


def _map(board: Board, row: str, presets: Mapping[str, Coefficients | NoWindow], width: float) -> dict:
    """Window map of one row: a coloured cell per window, end (right) by begin (down), hatched where noise hides the difference
    to the best."""
    oracle = row == board.target
    values, edges = board.windows[row], board.edges
    after = dict(zip(edges, edges[1:]))
    before = dict(zip(edges[1:], edges))
    norm = Normalize(values.max() - width, values.max())
    best = board.windows.loc[values.idxmax()]
    span = [int(best["begin"]), int(best["end"])]
    error = error_of_best(values.max(), [board.images[name] for name in ([row] if oracle else board.sources)])
    proxy = "" if board.exact else " (proxy)"
    title = f"Unseen domain {board.target}" if oracle else "Source validation, mean of domains"
    return {
        "title": title,
        "oracle": oracle,
        "cells": [
            [before[w.end], w.end, w.begin, after[w.begin], colour, bool(value >= values.max() - 2 * error)]
            for w, colour, value in zip(board.windows.itertuples(), _colours(norm(values)), values)
        ],
        "noise": f"hatched: within {200 * error:.1f} points of the best, two standard errors",
        "scale": _scale(norm),
        "marks": _marks(board, presets, span if oracle else None),
        "alt": f"Map of {len(values)} window{'s' * (len(values) > 1)} by where they begin and end, accuracy{proxy} in colour. {title}"
        f"{', an oracle' if oracle else ''}: the best window averages steps {span[0] + 1} to {span[1]} and scores "
        f"{values.max():.1%}.",
    }


def _marks(board: Board, presets: Mapping[str, Coefficients | NoWindow], best: list[int] | None) -> list[dict]:
    """Where strategies' windows end and begin, those in one place under one label, and the best of the oracle."""
    spans = {label: board.span(choice) for label, choice in presets.items()}
    if best is not None:
        spans["best of the oracle"] = tuple(best)
    places: dict[tuple[int, int], list[str]] = {}
    for label, span in spans.items():
        if span is not None:
            places.setdefault(span, []).append(label)
    look = looks(presets)
    return [
        {
            "window": span,
            "label": ", ".join(labels),
            "colour": look[labels[0]].colour if labels[0] in look else "#FFFFFF",
        }
        for span, labels in places.items()
    ]


def _scale(norm: Normalize) -> dict:
    """Colours of accuracies from the lowest that has one of its own, of weak runs from zero."""
    low = max(norm.vmin, 0.0)
    labels = [f"{100 * low:.1f}{' or less' * (low > 0)}", f"{100 * norm.vmax:.1f}"]
    return {"colours": _colours(norm(np.linspace(low, norm.vmax, 9))), "labels": labels, "unit": "accuracy, %"}


def _colours(shares) -> list[str]:
    return [to_hex(c) for c in matplotlib.colormaps["cividis"](np.asarray(shares, dtype=float))]


def _places(board: Board) -> dict[str, list[float]]:
    """Every window's place on the plane, as for ``Board.place``; empty where that cannot be said."""
    edges = board.edges
    spans = [(b, e) for i, b in enumerate(edges) for e in edges[i + 1 :]]
    found = board.place([board.window(*span) for span in spans])
    return {} if found is None else {f"{b}-{e}": _rounded(place) for (b, e), place in zip(spans, found)}


def _plane(board: Board) -> dict | None:
    """The loss plane: source validation beside the oracle, in bands at equal ratios, with the trajectory on it."""
    plane = board.plane
    if plane is None:
        return None
    panels = [_field(board, role, *plane.grid(role, "loss")) for role in ("source", "target")]
    xs, ys, _ = plane.grid("source", "loss")
    shape = float(np.ptp(xs) / np.ptp(ys))
    drawn = float(np.clip(shape, 1, 2.5))
    spots: dict[tuple[float, float], list[str]] = {}
    for mark in (*plane.corners.itertuples(), *plane.marks.itertuples()):
        spots.setdefault((round(mark.x, 4), round(mark.y, 4)), []).append(mark.label)
    return {
        "panels": panels,
        "x": [xs[0], xs[-1]],
        "y": [ys[0], ys[-1]],
        "xticks": MaxNLocator(4).tick_values(xs[0], xs[-1])[1:-1].tolist(),
        "yticks": MaxNLocator(4).tick_values(ys[0], ys[-1])[1:-1].tolist(),
        "shape": drawn,
        "axes": "distance in parameter space" + ("" if drawn == shape else "; down and across not to one scale"),
        "path": plane.path[["x", "y"]].round(4).to_numpy().tolist(),
        "marks": [
            {"at": at, "label": ", ".join(dict.fromkeys(labels)), "colour": looks(labels)[labels[0]].colour}
            for at, labels in spots.items()
        ],
        "placed": board.place([averaging.last(board.curves)]) is not None,
    }


def _field(board: Board, role: str, xs: np.ndarray, ys: np.ndarray, losses: np.ndarray) -> dict:
    levels = loss_levels(losses, BANDS)
    low, high = levels[0], levels[-1]
    shares = 1 - np.arange(BANDS) / (BANDS - 1)  # a low loss is as bright as a high accuracy
    bands = Figure().add_subplot().contourf(*finer(xs, ys, np.maximum(losses, low)), levels, extend="max").get_paths()
    fills = [
        {"colour": colour, "paths": [np.round(ring, 4).tolist() for ring in band.to_polygons()]}
        for band, colour in zip(bands, _colours(shares))
    ]
    oracle = role == "target"
    title = f"Loss on the unseen domain {board.target}" if oracle else "Loss on source validation"
    return {
        "title": title,
        "oracle": oracle,
        "fills": fills,
        "scale": {"colours": _colours(shares), "labels": [f"{low:.2g}", f"{high:.2g}"], "unit": "nats per example"},
        "alt": f"{title}{', an oracle,' if oracle else ''} on the plane through {', '.join(board.plane.corners['label'])}, "
        f"from {low:.2g} nats per example at its lowest, with the trajectory of training on it.",
    }


def _rounded(values) -> list[float]:
    return [float(f"{v:.5g}") for v in values]


def pick(board: Board, label: str, choice: Coefficients | NoWindow) -> dict:
    """One average as the view shows it: what it takes of training, where it lies, and how it scores as far as known."""
    if isinstance(choice, NoWindow):
        return {"label": label, "problem": str(choice), "colour": looks([label])[label].colour}
    accuracy, source = board.look_up(choice)
    begin, end = extent(board.curves, choice)
    return {
        "label": label,
        "note": choice.note,
        "colour": looks([label])[label].colour,
        "begin": begin,
        "end": end,
        "window": board.span(choice),
        "place": None if (places := board.place([choice])) is None else _rounded(places[0]),
        "bars": _bars(board, choice),
        "accuracy": None if accuracy is None else values_of(accuracy),
        "source": source,
    }


def _bars(board: Board, choice: Coefficients) -> list[list]:
    """(from step, to step, height -1 to 1, whether it is the start): the coefficient of each iterate against the largest."""
    drawn = bars(board.curves, choice)
    return [[float(a), float(b), bar.height, bar.end == 0] for (a, b), bar in zip(widened(board.curves, drawn), drawn)]


def values_of(accuracies) -> list[float | None]:
    """Accuracies as JSON has them: six decimals, None where there is none."""
    return [None if np.isnan(v) else round(float(v), 6) for v in accuracies]

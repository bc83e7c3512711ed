"""Every window of a run: begin x end -> accuracy of its average. Exact, or by a fast proxy that says it is one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..checks import explained
from ..data.domains import Split
from ..files import write_text, write_with
from ..names import whole_number
from ..runs.identity import of_recording
from ..runs.record import measuring
from ..runs.validate import accuracy
from .sweep import Point, Sweep


@explained
def window_map(
    run, split: Split | None = None, *, grid: int | None = None, workers: int | None = None, progress: bool = False
) -> pd.DataFrame:
    """Accuracy of the average over every window of stored segments: the landscape that strategies choose from.

    grid     look at about this many segments at most (neighbours joined), default all stored ones; the number of windows
             grows as the square of it
    workers  windows evaluated side by side, one thread each; default the cores, one on a GPU

    Columns: ``begin, end`` (steps, the window holds iterates begin < i <= end), ``val_accuracy`` (mean over source
    domains), ``oracle_target_accuracy``: an oracle, for looking, never for choosing, and ``val_accuracy/<domain>`` per
    source domain. Each window is averaged and evaluated as ``evaluate`` would, BatchNorm policy included. Holds ``grid``
    copies of the parameters in memory. The table is kept in the run's folder (window_map.csv).
    """
    edges, sweep = _laid_out(run, split, grid, workers)
    with measuring(run.folder):  # a folder that nothing can be kept in is refused before anything is computed
        pass
    begins = [0, *edges[:-1]]
    means = [_mean_of_iterates(run.segments, sweep, low, high) for low, high in zip(begins, edges)]

    def points() -> Iterator[Point]:
        """All windows that begin at one edge, then at the next: each adds one segment to the sum of the one before."""
        for start in range(len(edges)):
            total = torch.zeros_like(means[start], dtype=torch.float64)
            for k in range(start, len(edges)):
                total.add_(means[k], alpha=edges[k] - begins[k])
                yield _point(sweep, (total / (edges[k] - begins[start])).float(), begins[start], edges[k])

    windows = [(begins[start], end) for start in range(len(edges)) for end in edges[start:]]
    scores = tqdm(sweep.scores(points()), total=len(windows), unit="window", disable=not progress)
    table = pd.DataFrame(
        # scores come first: the bar is full when they have ended
        [_row(*window, {d: s["accuracy"] for d, s in found.items()}, sweep) for found, window in zip(scores, windows)]
    )
    with measuring(run.folder):
        about = run.folder / "window_map.json"
        about.unlink(missing_ok=True)
        write_with(run.folder / "window_map.csv", lambda path: table.to_csv(path, index=False))
        write_text(about, json.dumps({"recording": of_recording(run)}))
    return table


def window_map_proxy(run, split: Split | None = None, *, grid: int | None = None) -> pd.DataFrame:
    """A fast stand-in for ``window_map``: the mean of the segments' logits in place of the logits of their mean.

    One forward per segment instead of one per window. It ranks windows nearly as the exact map does on source validation,
    and much less so on a target: something to draw while the exact map is computed, never a number to report. Columns as
    in ``window_map`` with ``_proxy`` after the measure's name (``val_accuracy_proxy/<domain>``); nothing is written to
    the run.
    """
    edges, sweep = _laid_out(run, split, grid)
    begins = [0, *edges[:-1]]
    means = (_mean_of_iterates(run.segments, sweep, low, high) for low, high in zip(begins, edges))
    points = (_point(sweep, *window) for window in zip(means, begins, edges))
    sums: dict[str, list[Tensor]] = {domain: [] for domain in sweep.labels}
    for low, high, logits in zip(begins, edges, sweep.logits(points)):
        for domain, z in logits.items():
            sums[domain].append(z.double() * (high - low))
    cumulative = {d: torch.cumsum(torch.stack([torch.zeros_like(z[0]), *z]), dim=0) for d, z in sums.items()}
    rows = []
    for start in range(len(edges)):
        for k in range(start, len(edges)):
            found = {d: accuracy(c[k + 1] - c[start], sweep.labels[d]) for d, c in cumulative.items()}
            rows.append(_row(begins[start], edges[k], found, sweep, suffix="_proxy"))
    return pd.DataFrame(rows)


def _laid_out(run, split: Split | None, grid: int | None, workers: int | None = None) -> tuple[list[int], Sweep]:
    """Where windows may begin and end, and what evaluates them: source validation and an unseen domain beside it."""
    edges, sweep = grid_edges(run.segments.edges, grid), Sweep(run, split, workers=workers)
    if sweep.split.target is None:
        raise ValueError("A window map has an unseen domain beside source validation; this run left none out.")
    return edges, sweep


def _row(begin: int, end: int, accuracy: dict[str, float], sweep: Sweep, *, suffix: str = "") -> dict:
    by_role = {role: {d: accuracy[d] for d, r in sweep.roles.items() if r == role} for role in ("source", "target")}
    sources = by_role["source"]
    return {
        "begin": begin,
        "end": end,
        f"val_accuracy{suffix}": float(np.mean([*sources.values()])),
        f"oracle_target_accuracy{suffix}": float(np.mean([*by_role["target"].values()])),
        **{f"val_accuracy{suffix}/{d}": value for d, value in sources.items()},
    }


def _point(sweep: Sweep, mean: Tensor, low: int, high: int) -> Point:
    """The mean of the iterates after step ``low`` up to ``high``, with statistics as ``run.average`` gives a window's."""
    if sweep.policy == "last":
        state = sweep.run.segments.read(int(np.searchsorted(sweep.run.segments.edges, high)), "end")
        mean[sweep.parameters :] = sweep.vector(state)[sweep.parameters :]
    return Point(mean, raw=high - low == 1)


def _mean_of_iterates(segments, sweep: Sweep, low: int, high: int) -> Tensor:
    """Mean of all iterates after step ``low`` up to step ``high``, as one flat float32 vector."""
    total = None
    for position in np.flatnonzero((segments.edges > low) & (segments.edges <= high)):
        vector = sweep.vector(segments.read(int(position), "mean")).double()
        vector *= int(segments.iterates[position]) / (high - low)
        total = vector if total is None else total + vector
    return total.float()


def grid_edges(edges: np.ndarray, grid: int | None) -> list[int]:
    """At most ``grid`` of the given segment edges, evenly spread, the last one always among them."""
    if grid is None or whole_number("grid", grid, 1, "segments of a window map") >= len(edges):
        return [int(e) for e in edges]
    chosen = np.unique(np.round(np.linspace(0, len(edges), grid + 1)[1:]).astype(int) - 1)
    return [int(e) for e in edges[chosen]]

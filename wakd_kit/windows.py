"""Every window of a run: begin x end -> accuracy of its average. Exact, or by a fast proxy that says it is one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .domains import Split
from .files import write_with
from .sweep import Point, Sweep


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
    split = _with_target(split or run.split)
    edges = grid_edges(run.segments.edges, grid)
    begins = [0, *edges[:-1]]
    sweep = Sweep(run, split, workers=workers)
    means = [_mean_of_iterates(run.segments, sweep, low, high) for low, high in zip(begins, edges)]
    ends = [_statistics_at(run.segments, sweep, edge) for edge in edges] if sweep.policy == "last" else None

    def points() -> Iterator[Point]:
        """All windows that begin at one edge, then at the next: each adds one segment to the sum of the one before."""
        for start in range(len(edges)):
            total = torch.zeros_like(means[start], dtype=torch.float64)
            for k in range(start, len(edges)):
                count = edges[k] - begins[start]
                total.add_(means[k], alpha=edges[k] - begins[k])
                vector = (total / count).float()
                if ends:
                    vector[sweep.parameters :] = ends[k]
                yield Point(vector, raw=count == 1)

    windows = [(begins[start], end) for start in range(len(edges)) for end in edges[start:]]
    scores = tqdm(sweep.scores(points()), total=len(windows), unit="window", disable=not progress)
    table = pd.DataFrame(
        [_row(*window, {d: s["accuracy"] for d, s in found.items()}, split) for window, found in zip(windows, scores)]
    )
    write_with(run.folder / "window_map.csv", lambda path: table.to_csv(path, index=False))
    return table


def window_map_proxy(run, split: Split | None = None, *, grid: int | None = None) -> pd.DataFrame:
    """A fast stand-in for ``window_map``: the mean of the segments' logits in place of the logits of their mean.

    One forward per segment instead of one per window. It ranks windows nearly as the exact map does on source validation,
    and much less so on a target: something to draw while the exact map is computed, never a number to report. Columns as
    in ``window_map`` with ``_proxy`` after the measure's name (``val_accuracy_proxy/<domain>``); nothing is written to
    the run.
    """
    split = _with_target(split or run.split)
    edges = grid_edges(run.segments.edges, grid)
    begins = [0, *edges[:-1]]
    sweep = Sweep(run, split)

    def points() -> Iterator[Point]:
        for low, high in zip(begins, edges):
            vector = _mean_of_iterates(run.segments, sweep, low, high)
            if sweep.policy == "last":
                vector[sweep.parameters :] = _statistics_at(run.segments, sweep, high)
            yield Point(vector, raw=high - low == 1)

    sums: dict[str, list[Tensor]] = {domain: [] for domain in sweep.labels}
    for low, high, logits in zip(begins, edges, sweep.logits(points())):
        for domain, z in logits.items():
            sums[domain].append(z.double() * (high - low))
    cumulative = {d: torch.cumsum(torch.stack([torch.zeros_like(z[0]), *z]), dim=0) for d, z in sums.items()}
    rows = []
    for start in range(len(edges)):
        for k in range(start, len(edges)):
            accuracy = {d: _accuracy(c[k + 1] - c[start], sweep.labels[d]) for d, c in cumulative.items()}
            rows.append(_row(begins[start], edges[k], accuracy, split, suffix="_proxy"))
    return pd.DataFrame(rows)


def _with_target(split: Split) -> Split:
    if split.target is None:
        raise ValueError("A window map has an unseen domain beside source validation; this run left none out.")
    return split


def _row(begin: int, end: int, accuracy: dict[str, float], split: Split, *, suffix: str = "") -> dict:
    return {
        "begin": begin,
        "end": end,
        f"val_accuracy{suffix}": float(np.mean([accuracy[d] for d in split.sources])),
        f"oracle_target_accuracy{suffix}": accuracy[split.target],
        **{f"val_accuracy{suffix}/{d}": accuracy[d] for d in split.sources},
    }


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).double().mean().item()


def _mean_of_iterates(segments, sweep: Sweep, low: int, high: int) -> Tensor:
    """Mean of all iterates after step ``low`` up to step ``high``, as one flat float32 vector."""
    total = None
    for position in np.flatnonzero((segments.edges > low) & (segments.edges <= high)):
        vector = sweep.vector(segments.read(int(position), "mean")).double()
        vector *= int(segments.iterates[position]) / (high - low)
        total = vector if total is None else total + vector
    return total.float()


def _statistics_at(segments, sweep: Sweep, step: int) -> Tensor:
    """Running statistics of the iterate at ``step``, which ends a stored segment: for the policy ``last``."""
    state = segments.read(int(np.searchsorted(segments.edges, step)), "end")
    return sweep.vector(state)[sweep.parameters :]


def grid_edges(edges: np.ndarray, grid: int | None) -> list[int]:
    """At most ``grid`` of the given segment edges, evenly spread, the last one always among them."""
    if grid is None or grid >= len(edges):
        return [int(e) for e in edges]
    if grid < 1:
        raise ValueError(f"A window map needs a grid of at least one segment; got {grid}.")
    chosen = np.unique(np.round(np.linspace(0, len(edges), grid + 1)[1:]).astype(int) - 1)
    return [int(e) for e in edges[chosen]]

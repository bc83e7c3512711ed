"""Loss landscapes of recorded runs: the plane through three points, the line between two.

A *point* is a set of parameters: coefficients of the run (what a strategy chose), "initial", ``(run, coefficients)`` for
another run of the same architecture, or a state_dict. Distances, directions and coordinates are over parameters only, as
in ``geometry``: running statistics of BatchNorm are no directions to move in.

BatchNorm. Under the policy ``recalibrate`` statistics are recomputed at every point, single iterates included, so that
they are no exception on their own surface. Under ``frozen``, ``average`` and ``last`` every given point has its own, as
``run.average`` says, and a point between them has them combined by its weights; outside the segment or triangle between
the given points those weights are clipped at zero and divided by their sum, for an extrapolated variance could be negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from ..averaging import NoWindow
from ..data.domains import Split
from ..evaluation.journal import Growing, computed, finished, is_finished, table_file
from ..evaluation.sweep import Point, Sweep
from ..files import read_json
from ..names import real_number, whole_number
from .curvature import curvature
from .flatness import flatness

__all__ = ["Plane", "barrier", "curvature", "flatness", "line", "load", "names", "plane"]

_COLUMNS = {"label": str, "x": float, "y": float, "domain": str, "role": str, "loss": float, "accuracy": float}


HEADINGS = {"source": "Source validation", "target": "Unseen domain (oracle)"}
SPOKEN = {"source": "on source validation", "target": "on the unseen domain (oracle)"}


@dataclass(frozen=True)
class Plane:
    """Loss and accuracy on a grid over the plane through three points, and what lies on it or near.

    x and y are Euclidean distances in parameter space along two orthonormal axes: the origin is the first corner, the
    first axis leads to the second one. A residual is the distance of a point from the plane, in the same unit.

    corners  label, x, y
    marks    label, x, y, residual
    path     step, x, y, residual: last iterates of the run's stored segments; step 0 is the initial parameters
    table    x, y, domain, role, loss (nats per example), accuracy (a fraction): one row per point of the grid and domain;
             the role is "source" (its validation part) or "target"
    points   label, domain, role, loss, accuracy of the corners and the marks themselves, wherever they lie, measured as
             the grid is. Under ``recalibrate`` a single iterate is recalibrated here and is not in ``evaluate``.
    """

    corners: pd.DataFrame
    marks: pd.DataFrame
    path: pd.DataFrame
    table: pd.DataFrame
    points: pd.DataFrame

    def grid(self, role: str, value: str = "loss") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(xs, ys, values)``: (size,), (size,) and (size, size) with a row per y; the mean over domains of that role."""
        part = self.table[self.table["role"] == role]
        if part.empty:
            raise ValueError(f"This plane has the roles {', '.join(sorted(set(self.table['role'])))}; got {role!r}.")
        field = part.pivot_table(index="y", columns="x", values=value, aggfunc=of_all, dropna=False)
        return field.columns.to_numpy(), field.index.to_numpy(), field.to_numpy()


def plane(
    run,
    corners: Mapping[str, object],
    split: Split | None = None,
    *,
    size: int = 25,
    margin: float = 0.25,
    marks: Mapping[str, object] | None = None,
    batchnorm: str | None = None,
    workers: int | None = None,
    progress: bool = False,
    name: str = "plane",
) -> Plane:
    """The plane through three points on a ``size`` x ``size`` grid, with the run's trajectory projected onto it.

    corners    {label: point}, exactly three; see the module for what is a point
    margin     how far the grid reaches beyond the corners' bounding box, as a fraction of its width and its height
    marks      more points to place on it, by label; one whose strategy found no window has no place and no row
    batchnorm  policy for running statistics, default the run's
    workers    points evaluated side by side, one thread each; default the cores, one on a GPU
    name       kept as landscape/<name>.csv and .json in the run's folder: the same call continues where it was killed, or
               reads what is there; a call with other points or settings under a used name warns and computes anew

    Raises ``ValueError`` for other than three corners or three on one line, ``NoWindow`` for a corner that is none,
    ``RunProblem`` for a point that does not fit this run and while another process computes the same name.

    The picture is that of Garipov et al. 2018, arXiv 1802.10026, figure 1.
    """
    if len(corners) != 3:
        raise ValueError(f"A plane goes through three corners; got {len(corners)}: {', '.join(corners) or 'none'}.")
    whole_number("size", size, 2, "points on a side of the grid")
    real_number("margin", margin, 0, meaning="how far the grid reaches beyond the corners")
    file = table_file(run, name)
    sweep = Sweep(run, split, batchnorm=batchnorm, workers=workers)
    if none := [corner for corner in corners.values() if isinstance(corner, NoWindow)]:
        raise none[0]
    located, corners_of = sweep.located(corners, "corner")
    given = [*located.values()]
    axes = _Axes(given, sweep.parameters, list(corners))
    marked, marks_of = sweep.located(marks or {}, "mark")
    identity = {"kind": "plane", "corners": corners_of, "marks": marks_of, "size": size, "margin": margin}
    identity |= sweep.settled

    def places() -> dict:
        return {
            "corners": [{"label": label, "x": x, "y": y} for label, (x, y) in zip(corners, axes.corners)],
            "marks": [{"label": label, **axes.place(vector)} for label, vector in marked.items()],
            "path": [{"step": step, **axes.place(vector)} for step, vector in _iterates(run, sweep)],
        }

    count = 3 + len(marked) + size**2

    def missing(table: Growing) -> Iterator[list[dict]]:
        # what was kept when it began: on a machine that sums in another order coordinates differ in their last digits
        at = np.array([[corner["x"], corner["y"]] for corner in table.about["corners"]])
        listed = [*table.about["corners"], *table.about["marks"], *_grid(at, size, margin)]

        def point(i: int) -> Point:
            """A mark is its own vector; everything else is combined from the corners."""
            if 3 <= i < 3 + len(marked):
                return Point([*marked.values()][i - 3])
            return Point(sweep.combination(_weights(at, listed[i]["x"], listed[i]["y"]), given))

        todo = range(table.done, count)
        for found, i in zip(sweep.scores(map(point, todo)), todo):
            yield [{"label": "", **listed[i], "domain": d, "role": r, **found[d]} for d, r in sweep.roles.items()]

    kept = {"points": count, "rows_per_point": len(sweep.roles), "about": places, "progress": progress}
    computed(file, identity, _COLUMNS, missing, **kept)
    return load(run, name)


def load(run, name: str = "plane") -> Plane:
    """A plane that was computed for this run. Raises ``FileNotFoundError`` for none, ``RunProblem`` for a part of one."""
    file = table_file(run, name)
    if not file.exists():
        raise FileNotFoundError(
            f"{run.name} has no plane {name!r}; it has {', '.join(names(run)) or 'none'}. Compute it with plane(run, ...)."
        )
    about, rows = finished(file, _COLUMNS)
    labelled = rows["label"] != ""
    return Plane(
        corners=pd.DataFrame(about["corners"]),
        marks=pd.DataFrame(about["marks"], columns=["label", "x", "y", "residual"]),
        path=pd.DataFrame(about["path"]),
        table=rows[~labelled].drop(columns="label").reset_index(drop=True),
        points=rows[labelled].drop(columns=["x", "y"]).reset_index(drop=True),
    )


def names(run) -> list[str]:
    """The planes that were computed for this run, to the end."""
    files = sorted((run.folder / "landscape").glob("*.json"))
    return [
        file.stem
        for file in files
        if read_json(file)["identity"]["kind"] == "plane" and is_finished(file.with_suffix(".csv"))
    ]


def line(
    run,
    a,
    b,
    split: Split | None = None,
    *,
    size: int = 21,
    batchnorm: str | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Loss and accuracy on the line from point ``a`` to point ``b``: ``t, domain, role, loss, accuracy``.

    size  points from a (t = 0) to b (t = 1), both included

    Nothing is kept. Goodfellow et al. 2015, arXiv 1412.6544; for ``barrier`` see there.
    """
    whole_number("size", size, 2, "points of the line")
    sweep = Sweep(run, split, batchnorm=batchnorm, workers=workers)
    ends = [sweep.locate(a, "the first point"), sweep.locate(b, "the second point")]
    ts = [k / (size - 1) for k in range(size)]
    points = (Point(sweep.combination((1 - t, t), ends)) for t in ts)
    scores = tqdm(sweep.scores(points), total=len(ts), unit="point", disable=not progress)
    return pd.DataFrame(
        [{"t": t, "domain": d, "role": r, **found[d]} for found, t in zip(scores, ts) for d, r in sweep.roles.items()]
    )


def barrier(table: pd.DataFrame) -> pd.DataFrame:
    """How far the loss between two points rises above the straight line between their losses, in nats per example.

    table  as ``line`` returns it, or any with ``t`` and ``loss`` and some of ``domain``, ``role`` to tell lines apart
           (average over domains first for the barrier of the mean loss: it is not the mean of the barriers)

    Returns one row per line: ``domain, role, barrier, t``, the largest over 0 <= t <= 1 of
    loss(t) - ((1 - t) loss(0) + t loss(1)), never below zero, and where it is: infinity where a loss between is no finite
    number, NaN where one at an end is none. Entezari et al. 2022, arXiv 2110.06296, section 2; Frankle et al. 2020, arXiv
    1912.05671, section 2, compare with the mean of both ends instead.
    """
    keys = [key for key in ("domain", "role") if key in table]
    rows = []
    for key, part in table.groupby(keys, sort=False) if keys else [((), table)]:
        loss = part.set_index("t")["loss"].loc[0:1].replace(np.inf, np.nan)
        if 0 not in loss.index or 1 not in loss.index:
            raise ValueError(f"A barrier needs the losses at t = 0 and t = 1; got t from {loss.index.min()} on.")
        t = loss.index.to_numpy()
        rise = loss.to_numpy() - ((1 - t) * loss[0] + t * loss[1])
        rise[np.isnan(rise)] = np.inf if loss.loc[[0, 1]].notna().all() else np.nan
        rows.append({**dict(zip(keys, key)), "barrier": float(rise.max()), "t": float(t[rise.argmax()])})
    return pd.DataFrame(rows)


class _Axes:
    """Orthonormal axes of the plane through three vectors; only their first ``parameters`` entries count."""

    def __init__(self, vectors: Sequence[Tensor], parameters: int, labels: Sequence[str]):
        self.parameters = parameters
        self.origin, second, third = (vector[:parameters].double() for vector in vectors)
        self.first = second - self.origin
        width = self.first.norm()
        self.first /= width
        self.second = third - self.origin
        along = self.second @ self.first
        self.second -= along * self.first
        height = self.second.norm()
        # float32 leaves points on a line about 1e-7 of their norm beside it
        if not min(width, height) > 1e-6 * self.origin.norm() + 1e-6 * max(width, abs(along)):
            raise ValueError(f"{', '.join(labels)} lie on one line; a plane needs three points that do not.")
        self.second /= height
        self.corners = [(0.0, 0.0), (width.item(), 0.0), (along.item(), height.item())]

    def place(self, vector: Tensor) -> dict[str, float]:
        """Coordinates of a vector's projection, and how far it is from the plane."""
        step = vector[: self.parameters].double() - self.origin
        x, y = step @ self.first, step @ self.second
        residual = (step - x * self.first - y * self.second).norm()
        return {"x": x.item(), "y": y.item(), "residual": residual.item()}


def _iterates(run, sweep: Sweep) -> Iterator[tuple[int, Tensor]]:
    yield 0, sweep.vector(run.segments.initial)
    for position, edge in enumerate(run.segments.edges):
        yield int(edge), sweep.vector(run.segments.read(position, "end"))


def _grid(corners: np.ndarray, size: int, margin: float) -> list[dict[str, float]]:
    low, high = corners.min(axis=0), corners.max(axis=0)
    reach = margin * (high - low)
    xs, ys = (np.linspace(a, b, size).tolist() for a, b in zip(low - reach, high + reach))
    return [{"x": x, "y": y} for y in ys for x in xs]


def _weights(corners: np.ndarray, x: float, y: float) -> tuple[float, float, float]:
    """The point at (x, y) as a combination of the three corners, weights summing to 1."""
    (_, _), (width, _), (along, height) = corners
    third = y / height
    second = (x - third * along) / width
    return 1 - second - third, second, third


def of_all(values: pd.Series) -> float:
    """The mean, NaN where one is: what diverged on one domain is not judged by the others."""
    return values.mean(skipna=False)


def roles_of(table: pd.DataFrame) -> list[str]:
    """The roles a table has, "source" before "target"."""
    return [role for role in HEADINGS if (table["role"] == role).any()]


def lowest(plane: Plane, role: str, value: str = "loss") -> tuple[float, float, float]:
    """The best point of the plane's grid: (mean over the role's domains of the lowest loss or highest accuracy, x, y); NaN where
    none has a value."""
    xs, ys, values = plane.grid(role, value)
    if np.isnan(values).all():
        return np.nan, np.nan, np.nan
    best = np.nanargmin(values) if value == "loss" else np.nanargmax(values)
    row, column = np.unravel_index(best, values.shape)
    return float(values[row, column]), float(xs[column]), float(ys[row])


def walled(line: pd.DataFrame, role: str) -> tuple[pd.Series, float, float]:
    """The loss along a line by t, mean over the role's domains, its barrier in nats, and the t of it."""
    loss = line[line["role"] == role].groupby("t")["loss"].agg(of_all)
    found = barrier(loss.reset_index()).iloc[0]
    return loss, found["barrier"], found["t"]


def said(barrier: float) -> str:
    """A barrier in words, for sentences and legends."""
    if np.isnan(barrier):
        return "no barrier that can be measured"
    return f"a barrier of {barrier:.2g}" if barrier > 0 else "no barrier"

"""Flatness: how much the loss rises at a given distance from a point, in random directions."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.domains import Split
from ..evaluation.journal import Growing, computed, table_file
from ..evaluation.sweep import Point, Sweep
from ..names import SEED, whole_number

_COLUMNS = {"strategy": str, "radius": float, "direction": int, "domain": str, "role": str, "loss": float}


def flatness(
    run,
    choices: Mapping[str, object],
    split: Split | None = None,
    *,
    radii: Sequence[float],
    directions: int = 20,
    seed: int = 0,
    filter_normalised: bool = False,
    roles: tuple[str, ...] = ("source", "target"),
    batchnorm: str | None = None,
    workers: int | None = None,
    progress: bool = False,
    name: str = "flatness",
) -> pd.DataFrame:
    """Rise of the loss at growing distance from each choice, in random directions that all choices share.

    choices            {label: point}, see ``landscape`` for what is a point; one without a window has no rows
    radii              distances from the point, in the unit of ``Plane``: try the distance from the last iterate to an
                       average, halved and doubled
    directions         how many, drawn evenly over the sphere of all parameters (BatchNorm's scales and shifts and frozen ones too). The
                       same for every choice and radius, so that choices can be compared direction by direction
    filter_normalised  scale each filter of a direction to the norm of the point's own filter, and leave biases and
                       BatchNorm alone: the radius is then a fraction of the filters' norms, and rescaled networks that
                       compute the same are equally flat. Li et al. 2018, arXiv 1712.09913, section 4
    roles              on "source" validation, on the unseen "target", or both
    batchnorm          policy for running statistics, default the run's: ``recalibrate`` at every point, the centre
                       included; under any other policy the centre's statistics stay as they are
    name               kept as landscape/<name>.csv in the run's folder; continues, or is computed anew, as ``plane``

    Returns ``strategy, radius, direction, domain, role, loss, increase`` (nats per example): one row per choice, radius,
    direction and domain; increase is the loss there less the loss at the choice itself. Its mean over directions is the
    flatness of Cha et al. 2021 (SWAD), arXiv 2102.08604, section 4.4, which takes 100 directions. Near enough to a
    minimum it is radius^2 trace(H) / (2 parameters), H the Hessian.
    """
    given = list(radii) if isinstance(radii, Iterable) else []
    if not given or not all(isinstance(radius, numbers.Real) and 0 < radius < math.inf for radius in given):
        raise ValueError(f"radii are distances from the point, one or more, each a number above 0; got {radii!r}.")
    radii = [float(radius) for radius in given]
    whole_number("directions", directions, 1, "random directions")
    SEED.check("seed", seed)
    file = table_file(run, name)
    sweep = Sweep(run, split, roles=roles, batchnorm=batchnorm, workers=workers)
    centres, made_of = sweep.located(choices)
    identity = {"kind": "flatness", "choices": made_of, "radii": radii, "directions": directions, "seed": seed}
    identity |= {"filter_normalised": filter_normalised, **sweep.settled}
    if set(roles) != {"source", "target"}:  # those of both are called as they were
        identity["roles"] = list(roles)
    labels, count = list(centres), len(centres) * (1 + directions * len(radii))

    def place(i: int) -> tuple[str, int, float]:
        """Choice after choice: its centre as direction 0 at radius 0, then every direction at every radius."""
        choice, i = divmod(i, 1 + directions * len(radii))
        direction, radius = divmod(i - 1, len(radii))
        return (labels[choice], 1 + direction, radii[radius]) if i else (labels[choice], 0, 0.0)

    def point(i: int) -> Point:
        label, direction, radius = place(i)
        centre = centres[label]
        if not direction:
            return Point(centre)
        step = random_direction(sweep.parameters, seed, direction)
        if filter_normalised:
            step = filter_norms(step, centre, [*sweep.shapes.values()])
        moved = centre.clone()
        moved[: sweep.parameters] += radius * step
        return Point(moved)

    def missing(table: Growing) -> Iterator[list[dict]]:
        todo = range(table.done, count)
        for found, i in zip(sweep.scores(map(point, todo)), todo):
            at = dict(zip(("strategy", "direction", "radius"), place(i)))
            yield [{**at, "domain": d, "role": r, "loss": found[d]["loss"]} for d, r in sweep.roles.items()]

    kept = {"points": count, "rows_per_point": len(sweep.roles), "progress": progress}
    rows = computed(file, identity, _COLUMNS, missing, **kept)
    centre = rows[rows["direction"] == 0][["strategy", "domain", "loss"]]
    rows = rows[rows["direction"] > 0].merge(centre, on=["strategy", "domain"], suffixes=("", "_at_centre"))
    rows["increase"] = rows["loss"] - rows.pop("loss_at_centre")
    return rows


def random_direction(parameters: int, seed: int, number: int) -> Tensor:
    """One of a seed's directions, float32 of norm 1, evenly distributed over the sphere."""
    normal = np.random.default_rng([seed, number]).standard_normal(parameters)
    return torch.from_numpy(normal / np.linalg.norm(normal)).float()


def filter_norms(direction: Tensor, centre: Tensor, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    """A direction with each filter scaled to the norm of the centre's, and 0 for biases and normalisation layers.

    A filter is what makes one output: a row of a weight of two or more dimensions. ``shapes`` are those of the tensors
    that the vectors hold one after the other; the direction may end before the centre.
    """
    scaled, start = torch.zeros_like(direction), 0
    for shape in shapes:
        stop = start + math.prod(shape)
        if len(shape) > 1 and stop <= len(direction):
            own, wanted = (vector[start:stop].view(shape[0], -1) for vector in (direction, centre))
            scaled[start:stop] = (own / own.norm(dim=1, keepdim=True) * wanted.norm(dim=1, keepdim=True)).flatten()
        start = stop
    return scaled

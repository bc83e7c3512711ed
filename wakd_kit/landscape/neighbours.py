"""What averaging has to work with: how far iterates bounce around their mean, and how the loss between them dips.

Near a minimum the loss is a quadratic with Hessian H. An iterate at distance d from the average then costs d'Hd/2 more
than the average does, and the middle of two iterates a and b costs (a - b)'H(a - b)/8 less than they do on the mean. So
averaging gains where iterates are noisy along directions in which the loss rises, and where it does not, one of the two
is missing: iterates that hardly move, that drift instead of bouncing, or a loss that is no valley between them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..data.domains import Split
from ..evaluation.geometry import gram, vector
from ..evaluation.journal import Growing, computed, table_file
from ..evaluation.sweep import Point, Sweep

FEWEST = 4  # iterates that a bounce takes
_COLUMNS = {"begin": int, "end": int, "place": str, "domain": str, "role": str, "loss": float, "accuracy": float}


def noise(run, coefficients) -> dict[str, float]:
    """How the stored iterates in an average's window lie around it, from the run's Gram matrix alone.

    coefficients  a mean over a window of two stored segments or more; each has one iterate, its last

    ``spread``   root mean square distance of the iterates from the average, in parameter distance
    ``relative`` the same, over the distance of the average from the initial parameters
    ``bounce``   the mean squared step between neighbouring iterates over twice their variance (von Neumann 1941): about 1
                 for iterates that are independent draws around a mean, near 0 for ones that drift along a path. It is of
                 iterates one stored segment apart, so runs that store segments of other lengths are not comparable.
                 NaN for fewer than ``FEWEST``: of two it is 1 whatever they do, of three on a straight line 0.5
    ``drift``    distance of the window's last iterate from its first, over ``spread``

    Raises ``ValueError`` for fewer than two, or coefficients that are not of segment means.
    """
    recorded = _iterates(run, coefficients)
    both, segments = gram(run), len(run.table)
    average = vector(coefficients, segments)
    ends = np.zeros((len(recorded), 2 * segments))
    ends[np.arange(len(ends)), segments + recorded] = 1

    def squared(steps: np.ndarray) -> np.ndarray:
        return np.einsum("ni,ij,nj->n", steps, both, steps).clip(min=0)

    spread = float(np.sqrt(squared(ends - average).mean()))
    variance = squared(ends - ends.mean(axis=0)).sum() / (len(ends) - 1)
    steps = squared(np.diff(ends, axis=0)).mean()
    across = float(np.sqrt(squared(ends[-1:] - ends[:1])[0]))
    return {
        "spread": spread,
        "relative": spread / float(np.sqrt(squared(average[None])[0])),
        "bounce": float(steps / (2 * variance)) if len(ends) >= FEWEST else float("nan"),
        "drift": across / spread,
    }


def has_noise(run, coefficients) -> bool:
    """Whether these are coefficients of segment means whose window holds two stored segments or more."""
    return getattr(coefficients, "of", "mean") == "mean" and len(_stored_ends(run, coefficients)) > 1


def _iterates(run, coefficients) -> np.ndarray:
    if not has_noise(run, coefficients):
        raise ValueError(f"Noise is of a mean over two stored segments or more; got {coefficients!r}.")
    return _stored_ends(run, coefficients)


def _stored_ends(run, coefficients) -> np.ndarray:
    """The recorded segments in a window that end where a stored one does: the others' iterates are gone."""
    first, last = coefficients.window()
    steps = run.table["step"].to_numpy()
    inside = np.arange(first, last + 1)
    return inside[np.isin(steps[inside], run.segments.edges)]


def between(
    run,
    coefficients,
    split: Split | None = None,
    *,
    roles: tuple[str, ...] = ("source",),
    workers: int | None = None,
    name: str = "between",
) -> pd.DataFrame:
    """Loss at the last iterates of an average's window, and half way between neighbours: is there a valley between them?

    ``begin, end`` (steps of both iterates), ``domain, role``; ``dip``: the mean loss of the two less that of their middle,
    in nats per example, and ``accuracy``: that of the middle less the mean of the two. A dip above zero is a valley; the
    barrier of Frankle et al. 2020 (arXiv 1912.05671), taken at the middle, is -dip where that is positive.
    Under the policy ``recalibrate`` statistics are recomputed at every point, single iterates included.

    roles  "source" (validation) by default; with "target" rows of it are an oracle's
    name   kept as landscape/<name>.csv in the run's folder; continues after a kill
    """
    steps = run.table["step"].to_numpy()[_iterates(run, coefficients)].tolist()
    sweep = Sweep(run, split, roles=roles, workers=workers)
    places = [(a, b) for a, b in zip(steps, steps)] + list(zip(steps[:-1], steps[1:]))
    identity = {"kind": "between", "steps": steps, "roles": roles, **sweep.settled}

    def points(done: int) -> Iterator[Point]:
        at = {int(edge): position for position, edge in enumerate(run.segments.edges)}
        for begin, end in places[done:]:
            pair = [sweep.vector(run.segments.read(at[step], "end")) for step in (begin, end)]
            yield Point(pair[0] if begin == end else sweep.combination((0.5, 0.5), pair))

    def missing(table: Growing) -> Iterator[list[dict]]:
        for found, (begin, end) in zip(sweep.scores(points(table.done)), places[table.done :]):
            at = {"begin": begin, "end": end, "place": "iterate" if begin == end else "middle"}
            yield [{**at, "domain": d, "role": role, **found[d]} for d, role in sweep.roles.items()]

    kept = {"points": len(places), "rows_per_point": len(sweep.roles)}
    rows = computed(table_file(run, name), identity, _COLUMNS, missing, **kept)
    iterates = rows[rows["place"] == "iterate"].set_index(["end", "domain"])[["loss", "accuracy"]]
    middles = rows[rows["place"] == "middle"].reset_index(drop=True)
    ours = [iterates.loc[list(zip(middles[side], middles["domain"]))].to_numpy() for side in ("begin", "end")]
    mean = (ours[0] + ours[1]) / 2
    return middles[["begin", "end", "domain", "role"]].assign(
        dip=mean[:, 0] - middles["loss"], accuracy=middles["accuracy"] - mean[:, 1]
    )

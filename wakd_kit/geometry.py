"""Distances and projections of averages from one small matrix, without touching parameters again.

Every average of a run is a weighted sum of segment means (or of last iterates), so inner products between averages follow
from those between segments: for coefficients a and b, <average(a) - initial, average(b) - initial> = a' G b.
"""

from __future__ import annotations

import numpy as np
import torch

from .files import write_with


def gram(run, *, of: str = "mean") -> np.ndarray:
    """Inner products of the recorded segments' displacements from the initial parameters, (segments, segments) float64.

    of  "mean" for segments' means, "end" for their last iterates, "both" for [means; ends], (2 segments, 2 segments):
        with ``vector``, every point of the run has its place in that one

    One entry per recorded segment, so that strategies' coefficients fit; segments that were merged when stored share
    theirs. Parameters only: running statistics are no directions to move in. Read from the run's folder when it was
    computed before; computing takes one pass over the stored segments per parameter tensor.
    """
    if of not in ("mean", "end", "both"):
        raise ValueError(f"of is 'mean', 'end' or 'both'; got {of!r}.")
    file = run.folder / f"gram_{of}.npy"
    if not file.exists():
        stored = _stored_gram(run, ("mean", "end") if of == "both" else (of,))
        write_with(file, lambda path: _save(path, stored))
    stored = np.load(file)
    block = np.searchsorted(run.segments.edges, run.table["step"].to_numpy())
    if of == "both":
        block = np.concatenate([block, block + len(run.segments)])
    return stored[np.ix_(block, block)]


def vector(coefficients, segments: int) -> np.ndarray:
    """One choice over [means; ends], (2 segments,): what ``gram(run, of="both")`` and ``project`` understand.

    coefficients  what a strategy returned, an array with one per segment (then of segment means), or "initial" for the
                  initial parameters. Those are the origin, so a choice's share of them leaves no trace
    """
    both = np.zeros(2 * segments)
    if isinstance(coefficients, str) and coefficients == "initial":
        return both
    values = np.asarray(coefficients, dtype=np.float64)
    if values.shape != (segments,):
        raise ValueError(f"{values.size} coefficients for {segments} segments; a run needs one per segment.")
    if getattr(coefficients, "of", "mean") == "end":
        both[segments:] = values
    else:
        both[:segments] = values
    return both


def _stored_gram(run, kinds: tuple[str, ...]) -> np.ndarray:
    names = [name for name, _ in run.blank_model().named_parameters()]
    # memory-mapped until touched
    states = [run.segments.read(position, of) for of in kinds for position in range(len(run.segments))]
    total = np.zeros((len(states), len(states)))
    for name in names:
        rows = torch.stack([state[name].flatten() for state in states]).double()
        rows -= run.segments.initial[name].flatten().double()
        total += (rows @ rows.T).numpy()
    return total


def _save(path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)


def distance(gram: np.ndarray, a, b) -> float:
    """Euclidean distance between the averages with coefficients ``a`` and ``b``."""
    step = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return float(np.sqrt(max(step @ gram @ step, 0.0)))


def iterate_noise(gram: np.ndarray, coefficients) -> float:
    """Root mean square distance of the segments from their average, weighted by the coefficients."""
    c = np.asarray(coefficients, dtype=np.float64)
    return float(np.sqrt(max(c @ np.diag(gram) - c @ gram @ c, 0.0)))


def project(gram: np.ndarray, points, plane) -> tuple[np.ndarray, np.ndarray]:
    """Where averages lie in the plane through three of them.

    points  (n, segments) coefficients of what to project
    plane   three coefficient vectors: origin, a point on the first axis, a point that spans the rest
    Returns coordinates (n, 2), in units of parameter distance, and the residual distance of each from the plane, (n,).
    Raises ``ValueError`` when the three lie on one line.
    """
    origin, first, second = (np.asarray(p, dtype=np.float64) for p in plane)
    u, v = first - origin, second - origin
    u = u / _norm(gram, u)
    v = v - (v @ gram @ u) * u
    length = _norm(gram, v)
    v = v / length
    steps = np.atleast_2d(np.asarray(points, dtype=np.float64)) - origin
    coordinates = np.stack([steps @ gram @ u, steps @ gram @ v], axis=1)
    squared = np.einsum("ni,ij,nj->n", steps, gram, steps) - (coordinates**2).sum(axis=1)
    return coordinates, np.sqrt(np.maximum(squared, 0.0))


def _norm(gram: np.ndarray, direction: np.ndarray) -> float:
    squared = direction @ gram @ direction
    scale = np.abs(direction) @ np.abs(gram) @ np.abs(direction)
    if squared <= 1e-12 * scale or scale == 0:
        raise ValueError("The three points of the plane lie on one line; choose points that differ.")
    return float(np.sqrt(squared))

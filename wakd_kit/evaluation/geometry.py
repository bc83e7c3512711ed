"""Distances and projections of averages from one small matrix, without touching parameters again.

Every average of a run is a weighted sum of segment means (or of last iterates), so inner products between averages follow
from those between segments: for coefficients a and b, <average(a) - initial, average(b) - initial> = a' G b.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from ..files import write_with
from ..fingerprints import of_function
from ..runs.identity import digest, of_recording


def gram(run) -> np.ndarray:
    """Inner products of displacements from the initial parameters, of [means; last iterates] of the recorded segments: (2 segments,
    2 segments) float64, in which every point of the run has its place by ``vector``.

    Segments that were merged when stored share their entries. Parameters only: running statistics are no directions to move in.
    Read from the run's folder when it was computed of this recording by this code before, and kept there where it may be; computing reads
    every stored segment once.
    """
    file = run.folder / f"gram_both-{digest(of_recording(run), of_function(gram))}.npy"
    stored = _read(file)
    if stored is None:
        stored = _stored_gram(run)
        if os.access(run.folder, os.W_OK):
            for older in run.folder.glob("gram_both-*.npy"):
                older.unlink(missing_ok=True)
            write_with(file, lambda path: _save(path, stored))
    both = np.concatenate([run.stored_in, run.stored_in + len(run.segments)])
    return stored[np.ix_(both, both)]


def vector(coefficients, segments: int) -> np.ndarray:
    """One choice over [means; ends], (2 segments,): what ``gram`` and ``project`` understand.

    coefficients  what a strategy returned, an array with one per segment (then of segment means), or "initial" for the
                  initial parameters. Those are the origin, so a choice's share of them leaves no trace
    """
    both = np.zeros(2 * segments)
    if isinstance(coefficients, str) and coefficients == "initial":
        return both
    values = np.asarray(coefficients, dtype=np.float64)
    if values.shape != (segments,):
        raise ValueError(f"{values.size} coefficients for {segments} segments; a run needs one per segment.")
    return np.concatenate(
        [*coefficients.parts.values()] if hasattr(coefficients, "parts") else [values, both[segments:]]
    )


def _read(file: Path) -> np.ndarray | None:
    """The matrix in a file; None where there is none, or where the file was cut short, and it is computed again."""
    try:
        return np.load(file)
    except (FileNotFoundError, EOFError, ValueError):
        return None


def _stored_gram(run, *, most: int = 2**26) -> np.ndarray:
    """Inner products between stored segments. At most about so many numbers are held, or one tensor of every segment."""
    stored = [(position, of) for of in ("mean", "end") for position in range(len(run.segments))]
    total = np.zeros((len(stored), len(stored)))
    sizes = {name: parameter.numel() for name, parameter in run.blank_model().named_parameters()}
    for names in _groups(sizes, most // len(stored)):
        states = [run.segments.read(position, of, names=names) for position, of in stored]
        for name in names:
            rows = torch.stack([state[name].flatten() for state in states]).double()
            rows -= run.segments.initial[name].flatten().double()
            total += (rows @ rows.T).numpy()
    return total


def _groups(sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """The names in order, in groups whose sizes sum to ``most`` or that are of one name."""
    group: list[str] = []
    for name, size in sizes.items():
        if group and sum(sizes[n] for n in group) + size > most:
            yield group
            group = []
        group.append(name)
    yield group


def _save(path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)


def distance(gram: np.ndarray, a, b) -> float:
    """Euclidean distance between the averages with coefficients ``a`` and ``b``."""
    step = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return float(np.sqrt(max(step @ gram @ step, 0.0)))


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
    length = _norm(gram, v, second - origin)
    v = v / length
    steps = np.atleast_2d(np.asarray(points, dtype=np.float64)) - origin
    coordinates = np.stack([steps @ gram @ u, steps @ gram @ v], axis=1)
    squared = np.einsum("ni,ij,nj->n", steps, gram, steps) - (coordinates**2).sum(axis=1)
    return coordinates, np.sqrt(np.maximum(squared, 0.0))


def _norm(gram: np.ndarray, direction: np.ndarray, of: np.ndarray | None = None) -> float:
    """Its length; what is left ``of`` a vector, by rounding alone, has none."""
    squared, whole = direction @ gram @ direction, np.abs(direction if of is None else of)
    scale = whole @ np.abs(gram) @ whole
    if squared <= 1e-12 * scale or scale == 0:
        raise ValueError("The three points of the plane lie on one line; choose points that differ.")
    return float(np.sqrt(squared))

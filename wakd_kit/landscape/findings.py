"""What notebook 04 looks at in a run, and what the tables of landscape.py show, in sentences made from their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..averaging import Coefficients, NoWindow
from ..evaluation import geometry
from ..evaluation.choose import choose
from ..evaluation.scores import evaluate
from ..names import did_you_mean
from ..runs.run import load_run
from ..runs.store import RunProblem
from ..statistics import FEWEST, interval
from .surface import SPOKEN, lowest, of_all, roles_of, said, walled

if TYPE_CHECKING:
    from .surface import Plane


def chosen(run, wanted: Sequence[str | Mapping]) -> dict[str, Coefficients | NoWindow]:
    """What strategies picked on a run, {label: coefficients, or the reason for none}; their scores are in ``run.scores``.

    wanted  labels under which the run was evaluated, or strategies as ``choose`` takes them, which are then evaluated;
            [] for all that was evaluated. Raises ``ValueError`` when there is neither
    """
    known = run.choices
    if not (wanted or known):
        raise ValueError(f"{run.name} was not evaluated yet: name strategies, such as ['last', 'wakd'].")
    recorded = [s for s in wanted or known if isinstance(s, str) and s in known]
    if new := choose(run, [s for s in wanted if s not in recorded]):
        evaluate(run, new)
    return {label: known[label] for label in recorded} | new


def average_of(choices: Mapping[str, Coefficients | NoWindow], label: str = "", *, baseline: str = "") -> str | None:
    """The label of the average to look at: the one given, else the first of more than one mean of a segment or last iterate.

    baseline  what it is compared with, which is not the average
    None where it averages nothing: no window was found, or every other strategy takes a single iterate.
    """
    if label and label not in choices:
        raise ValueError(did_you_mean("label", label, choices))
    found = {n: c.parts.values() for n, c in choices.items() if isinstance(c, Coefficients)}
    averages = [n for n, parts in found.items() if n != baseline and sum(map(np.count_nonzero, parts)) > 1]
    return next((name for name in averages if label in ("", name)), None)


def corners(run, choices: Mapping, wanted: Sequence[str | int], *, baseline: str, average: str | None) -> dict:
    """Three labelled points for ``landscape.plane``: labels of ``choices``, steps that end a stored segment, or "initial".

    None wanted: the baseline, the average, and the iterate after which that average begins, or the last one stored before; without an average the middle
    iterate and the initial parameters; where that iterate is the baseline, the last one is in its place. When the baseline
    is the last iterate, the first three are both ends of the stretch
    of training that is averaged, and its mean: the plane shows the part of the valley that it went through. An earlier
    iterate is too far away for that, and its plane a narrow strip on the way there.
    """
    stored = run.segments.edges
    if not wanted and len(stored) < 2:
        raise RunProblem(
            f"{run.name} has one stored segment, and a plane through its iterates takes two: train it longer."
        )
    if not wanted and average is None:
        wanted = [baseline, int(stored[(len(stored) - 1) // 2]), "initial"]
    elif not wanted:
        begin = run.source_curves.begins[choices[average].window()[0]] - 1
        third = int(max((edge for edge in stored if edge <= begin), default=0))
        other = choices.get(baseline)
        # best_val's, say: two corners would be one
        if third and isinstance(other, Coefficients) and _alike(run, _iterate(run, third), other):
            third = int(stored[-1])
        wanted = [baseline, average, third]
    points = {}
    for corner in wanted:
        if corner in (0, "initial"):
            points["initial"] = "initial"
        elif isinstance(corner, int):
            points[f"step {corner}"] = _iterate(run, corner)
        elif corner in choices:
            points[corner] = choices[corner]
        else:
            raise ValueError(did_you_mean("corner", corner, [*choices, "initial"]))
    return points


def _alike(run, a, b) -> bool:
    return np.allclose(*(geometry.vector(point, len(run.source_curves.ends)) for point in (a, b)))


def _iterate(run, step: int) -> Coefficients:
    stored = run.segments.edges  # of segments that were joined an iterate between is not there
    if step not in stored:
        nearest = stored[np.abs(stored - step).argmin()]
        raise ValueError(
            f"No stored segment of {run.name} ends at step {step}; the nearest that does ends at {nearest}."
        )
    return Coefficients(
        run.source_curves.ends == step, of="end", strategy="iterate", note=f"the iterate of step {step}"
    )


def distance(run, a, b) -> float:
    """Euclidean distance between the parameters of two choices of a run, either of which may be "initial"."""
    a, b = (geometry.vector(point, len(run.table)) for point in (a, b))
    return geometry.distance(geometry.gram(run), a, b)


def unit(run, a, b, *, filter_normalised: bool) -> float:
    """What radii count: the distance between two choices, relative to the norm of the last iterate where directions have the
    norms of filters."""
    if not filter_normalised:
        return distance(run, a, b)
    last, names = run.segments.read(-1, "end"), (name for name, _ in run.blank_model().named_parameters())
    return distance(run, a, b) / float(np.sqrt(sum(last[name].double().square().sum() for name in names)))


def pairs(
    points: Mapping[str, object], choices: Mapping, average: str | None, others: Sequence[str]
) -> dict[str, tuple]:
    """{label: (a, b)} of the lines to look at: the plane's three sides, and from the average to that of other runs.

    others  run folders, each evaluated under the average's label
    """
    found = {f"{a} to {b}": (points[a], points[b]) for a, b in combinations(points, 2)}
    for folder in others if average else ():
        other = load_run(folder)
        if not isinstance(other.choices.get(average), Coefficients):
            raise ValueError(f"{folder} has no average {average!r}; it has {', '.join(other.choices) or 'none'}.")
        label = f"{average} to that of {Path(folder).parent.name}/{other.name}"
        # runs of several studies may be called the same
        label = f"{average} to that of {folder}" if label in found else label
        found[label] = choices[average], (other, other.choices[average])
    return found


def in_the_valley(plane: Plane, *, baseline: str, average: str | None) -> list[str]:
    """How low the average and the baseline lie, and how far from the lowest loss of the plane's grid; one per role."""
    marks, sentences = plane.marks.set_index("label"), []
    for role in roles_of(plane.table):
        best, x, y = lowest(plane, role)
        own = plane.points[plane.points["role"] == role].groupby("label")["loss"].agg(of_all)
        listed = []
        for name in _both(average, baseline):
            if name not in marks.index:
                raise ValueError(did_you_mean("mark of the plane", name, marks.index))
            mark = marks.loc[name]
            away = np.linalg.norm([mark["x"] - x, mark["y"] - y, mark["residual"]])
            listed.append(f"{name} has {own[name]:.3g} nats, at a distance of {away:.3g} from there")
        sentences.append(
            f"{SPOKEN[role].capitalize()} the lowest loss of the plane is {best:.3g} nats; {', '.join(listed)}."
        )
    return sentences


def _both(average: str | None, baseline: str) -> list[str]:
    return [baseline] if average in (None, baseline) else [average, baseline]


def between(lines: Mapping[str, pd.DataFrame]) -> list[str]:
    """What straight lines between points show: a sentence per pair with the losses at both ends and the barrier."""
    sentences = []
    for label, table in lines.items():
        parts = []
        for role in roles_of(table):
            loss, height, _ = walled(table, role)
            parts.append(f"{loss[0]:.3g} to {loss[1]:.3g} nats {SPOKEN[role]}, {said(height)}")
        sentences.append(f"From {label}: {'; '.join(parts)}.")
    return sentences


def flatter(table: pd.DataFrame, *, baseline: str, average: str | None) -> list[str]:
    """Whether the loss rises less around the average than around the baseline: a sentence per role, and one on both.

    table  as ``landscape.flatness`` returns. Differences are paired, direction by direction; the intervals are over
           directions (Student's t, 95 %, of each radius by itself) and tell nothing about other trainings. Fewer than
           ``statistics.FEWEST`` directions have none, and no verdict
    """
    if average in (None, baseline):
        return [f"There is no average here whose flatness could be compared with that of {baseline}."]
    sentences, verdicts = [], []
    for role in roles_of(table):
        by = table[table["role"] == role].groupby(["radius", "direction", "strategy"])
        rise = by["increase"].agg(of_all).unstack()
        paired = (rise[average] - rise[baseline]).unstack("direction")
        intervals = np.array([interval(row) for row in paired.to_numpy()])
        listed = [
            f"{mean:+.3f}{f' [{low:+.3f}, {high:+.3f}]' if np.isfinite(low) else ''} at {radius:.3g}"
            for (radius, mean), (low, high) in zip(paired.mean(axis=1, skipna=False).items(), intervals)
        ]
        sentences.append(
            f"{SPOKEN[role].capitalize()} the rise of the loss around {average} less that around {baseline}, in nats over "
            f"{paired.shape[1]} direction{'s' * (paired.shape[1] != 1)} by radius: {', '.join(listed)}."
        )
        if paired.shape[1] < FEWEST:
            return [*sentences, f"Fewer than {FEWEST} directions do not tell whether {average} is flatter."]
        flatter, sharper = (intervals[:, 1] < 0).sum(), (intervals[:, 0] > 0).sum()
        told = [f"{word} than {baseline} at {n}" for word, n in (("flatter", flatter), ("sharper", sharper)) if n]
        told += [f"not to be measured at {n}" for n in [(~np.isfinite(paired)).any(axis=1).sum()] if n]
        told = " and ".join(told) or f"not to be told from {baseline} at any"
        verdicts.append(f"{told} of {len(paired)} radii {SPOKEN[role]}")
    return [*sentences, f"So in this run {average} is {'; '.join(verdicts)}."]


def curved(table: pd.DataFrame, *, baseline: str, average: str | None) -> list[str]:
    """Largest eigenvalue and trace of the Hessian around the average and the baseline, a sentence per role.

    table  as ``landscape.curvature`` returns; means over a role's domains, the trace with its standard error
    """
    sentences = []
    for role in roles_of(table):
        parts = []
        for name in _both(average, baseline):
            own = table[(table["role"] == role) & (table["strategy"] == name)]
            largest = own[(own["kind"] == "eigenvalue") & (own["rank"] == 1)]["value"].mean()
            trace = own[own["kind"] == "trace"]
            error = np.sqrt((trace["standard_error"] ** 2).sum()) / len(trace)
            parts.append(f"{largest:.3g} and {trace['value'].mean():.3g} (± {error:.3g}) around {name}")
        sentences.append(
            f"{SPOKEN[role].capitalize()} the largest eigenvalue and the trace of the Hessian are {', '.join(parts)}."
        )
    return sentences

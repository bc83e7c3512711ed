"""Two studies of one design, side by side: what is the same in both is paired by target and seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..averaging import Coefficients
from ..averaging.choosing import SCHEDULE, SETTLED
from ..runs.store import RunProblem
from .collect import Recorded, place_of, recipe, refuse_other_data, short
from .differences import on_unseen, paired, summary, verdict


def together(studies: Mapping[str, Recorded]) -> pd.DataFrame:
    """Scores of two studies in one long table, students called ``study/student``.

    Raises ``RunProblem`` unless both are of the same images, classes and validation parts, and have a student and a
    strategy in common.
    """
    refuse_other_data([run for study in studies.values() for run in study.runs])
    tables = [study.scores.assign(student=name + "/" + study.scores["student"]) for name, study in studies.items()]
    if not both(studies):
        listed = "; ".join(f"{name}: {', '.join(study.students)}" for name, study in studies.items())
        raise RunProblem(
            f"No student with a strategy of one name is in both studies ({listed}). Rename one, then they can be compared."
        )
    return pd.concat(tables, ignore_index=True)


def both(studies: Mapping[str, Recorded]) -> list[tuple[str, str]]:
    """(student, strategy) that two studies have in common, in the order of the first."""
    first, second = ([*dict.fromkeys(zip(s.scores["student"], s.scores["strategy"]))] for s in studies.values())
    return [pair for pair in first if pair in second]


def compared(studies: Mapping[str, Recorded]) -> pd.DataFrame:
    """The second study less the first, as ``differences.paired`` has it, a row per student and strategy of both.

    Targets and seeds of one study alone are left out, and what was not scored on any that both have; ``missing`` counts those that
    both have and one has no score of. The label is ``student strategy``.
    """
    a, b = studies
    scores = together(studies)
    unseen = on_unseen(scores)
    splits = [
        {*zip(part["target"], part["seed"])}
        for name in studies
        for part in [unseen[unseen["student"].str.startswith(f"{name}/")]]
    ]
    shared = splits[0] & splits[1]
    scores = scores[[split in shared for split in zip(scores["target"], scores["seed"])]]
    there = {*zip(scores["student"], scores["strategy"])}
    pairs = {
        (student, strategy): ((f"{b}/{student}", strategy), (f"{a}/{student}", strategy))
        for student, strategy in both(studies)
    }
    pairs = {own: sides for own, sides in pairs.items() if there.issuperset(sides)}
    return paired(scores, [*pairs.values()]).assign(label=[" ".join(own) for own in pairs], student="")


def side_by_side(studies: Mapping[str, Recorded]) -> pd.DataFrame:
    """``student, strategy``, and of each study ``mean, sd, n`` on unseen domains in per cent, each over its own targets and seeds."""
    key, tables = ["student", "strategy"], []
    for name, study in studies.items():
        own = summary(study.scores).set_index(key)[["mean", "sd", "n"]].astype({"n": "Int64"})
        tables.append(own.add_prefix(f"{name}: "))
    order = dict.fromkeys(row for table in tables for row in table.index)
    return pd.concat(
        [table.reindex(pd.MultiIndex.from_tuples(order, names=key)) for table in tables], axis=1
    ).reset_index()


def unlike(studies: Mapping[str, Recorded]) -> list[str]:
    """A sentence on each student that the two studies trained otherwise: settings that differ, and how."""
    sentences, (a, b) = [], studies.values()
    for student in [name for name in a.students if name in b.students]:
        first, second = (
            {tuple(place_of(run).values()): recipe(run) for run in study.runs if run.name == student}
            for study in (a, b)
        )
        pairs = [(first[at], second[at]) for at in first if at in second]
        pairs = pairs or [(next(iter(first.values())), next(iter(second.values())))]
        differ = dict.fromkeys(key for x, y in pairs for key in {**x, **y} if x.get(key) != y.get(key))
        if differ:
            had = {
                key: [" or ".join(dict.fromkeys(short(one.get(key)) for one in side)) for side in zip(*pairs)]
                for key in differ
            }
            listed = "; ".join(f"{key} {' and '.join(sides)}" for key, sides in had.items())
            sentences.append(f"{student} was trained otherwise: {listed}.")
    return sentences + _averaged_otherwise(a, b)


def _averaged_otherwise(a: Recorded, b: Recorded) -> list[str]:
    """A sentence on each label that stands for another average in the second study, where a strategy or a schedule tells."""
    found: dict[str, str] = {}
    for first, second in itertools.product(a.runs, b.runs):
        if first.name == second.name and place_of(first) == place_of(second):
            for label in (x := first.choices).keys() & (y := second.choices).keys() - found.keys():
                if _another(x[label], y[label]):
                    found[label] = (
                        f"{label} is another average there: of {first.name}, {x[label].note} and {y[label].note}."
                    )
    return [found[label] for label in sorted(found)]


def _another(first: object, second: object) -> bool:
    if not (isinstance(first, Coefficients) and isinstance(second, Coefficients)):
        return False
    settled = {first.chosen_by, second.chosen_by} <= {
        SCHEDULE,
        SETTLED,
    }  # what reads validation differs from run to run
    alike = first.shape != second.shape or np.allclose(first, second)  # trained otherwise, which is said of the student
    return first.strategy != second.strategy or (settled and not alike)


def how_paired(studies: Mapping[str, Recorded], table: pd.DataFrame) -> str:
    """One sentence: over how many pairs the studies are compared, and what each has alone."""
    known = {
        name: {(run.settings["split"]["target"], run.settings["split"]["seed"]) for run in study.runs}
        for name, study in studies.items()
    }
    (a, first), (b, second) = known.items()
    if not first & second:
        return (
            f"{a} and {b} have no target and seed in common, so nothing is paired: only their means stand side by side."
        )
    alone = [
        f"{len(own - other)} of {name} alone"
        for name, own, other in ((a, first, second), (b, second, first))
        if own - other
    ]
    alone += [
        f"{label} with a score on none of them"
        for label in (" ".join(pair) for pair in both(studies))
        if label not in set(table["label"])
    ]
    left = f"; left out: {', '.join(alone)}" if alone else ""
    return f"Paired over {len(first & second)} targets and seeds that both have{left}."


def answers(studies: Mapping[str, Recorded], table: pd.DataFrame) -> list[str]:
    """What differs between two studies, in a sentence each: those that hold with Holm's correction, and how many do not."""
    a, b = studies
    looked = table[table["low"].notna()]
    held = looked[looked["p_holm"] < 0.05]
    said = [verdict(row) for _, row in held.iterrows()]
    rest = f"{len(looked) - len(held)} of {len(looked)} differences of {b} to {a} do not hold with Holm's correction."
    return [*said, *[rest] * (len(looked) > len(held))]

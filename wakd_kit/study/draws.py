"""The trainings of a study's search: which are to do, which fell apart, and what won on each target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..data.domains import unseen_in
from ..results.searched import source_accuracy, winner
from . import chains
from .jobs import RENDERED, Job, Place, fell_apart, reason
from .places import StudyProblem
from .search import Search, draw, search_of, split_seeds
from .specification import Study
from .steps import Filled, training_of


@dataclass(frozen=True)
class Sought:
    """A training of a search: for which unseen domain, which of its sources it leaves out as well or "", and which draw of which
    student it is, None for one that draws of others come after."""

    job: Job
    target: str
    held: str
    student: str
    number: int | None

    def as_drawn(self, search: Search, place: Place) -> dict:
        """A draw as the comparison reads it."""
        about = {"target": self.target, "student": self.student, "draw": self.number}
        about["settings"] = draw(search, self.number, self.student)
        about["run"] = self.job.run.relative_to(place.runs).as_posix()
        return about | ({"held": self.held} if self.held else {})


def searched(
    study: Study, targets: Sequence[str], place: Place, filled: Filled
) -> tuple[list[Sought], list[Sought], dict]:
    """The trainings of a study's search, those that fell apart, and {(target, student): the settings that won, None while that is
    not known}.

    A student learns and starts from those that won on the same split; without a search of them, from the study's own.
    """
    search, jobs, fell, found = search_of(study.search), [], [], {}
    if search is None:
        return jobs, fell, found
    everybody = chains.in_order(study)
    asked = [label for label in everybody if label in (search.students or everybody) and label not in search.like]
    needed = chains.all_before(study, asked)
    seeds, out = split_seeds(search, study.seeds), search.rule == "leave_one_source_out"
    short = {} if search.steps is None else {"steps": search.steps}
    for target in targets:
        sources = [name for name in filled.domains if name not in unseen_in(target, filled.domains)]
        if out and len(sources) < 2:
            raise StudyProblem(
                f"{study.name}: search: without {target} there is one source; leaving it out leaves none."
            )
        splits = [(target, seed, held, sources) for seed in seeds for held in ("", *(sources if out else ()))]
        names: dict[str, str] = {}  # who stands there for each label
        for label in filter(needed.__contains__, everybody):
            above = chains.all_before(study, [label]) - {label}
            waits = any(found.get((target, other), {}) is None for other in above)
            if label in search.like:
                raise StudyProblem(
                    f"{study.name}: search: others come after {label}, so it is not like {search.like[label]}, but searched."
                )
            if label not in asked:
                names[label] = label
                plain = filled(_drawn(study, place, split, label, names, short) for split in splits)
                jobs += _of_splits(plain, splits, label, None, waits)
                continue
            draws = [draw(search, i, label) for i in range(search.draws)]
            scores, apart = [], 0
            for i, settings in enumerate(draws):
                names[label], given = f"{label}-d{i}", settings | short
                tried = filled(_drawn(study, place, split, label, names, given) for split in splits)
                tried = _of_splits(tried, splits, label, i, waits)
                judged = [one.job for one in tried if bool(one.held) == out]
                role = "target" if out else "source"  # of trainings whose unseen domain is a source of this search
                fell += (lost := [one for one in tried if fell_apart(one.job, place)])  # which are not tried again
                jobs += [one for one in tried if one not in lost]
                score = [_score(job, place, search.by or study.baseline, role) for job in judged]
                scores.append([-math.inf] if lost else score)
                apart += bool(lost)
            best = winner(scores)
            if best is None and not any(None in of_draw for of_draw in scores):
                raise StudyProblem(f"{study.name}: {_nothing_won(study, search, label, target, apart)}")
            found[target, label] = None if best is None else draws[best]
            names[label] = f"{label}-d{best or 0}"
        found |= {(target, label): found.get((target, other), {}) for label, other in search.like.items()}
    return jobs, fell, found


def _of_splits(
    jobs: Sequence[Job], splits: Sequence[tuple], label: str, number: int | None, waits: bool
) -> list[Sought]:
    """One training on each split of a search; ``waits`` for settings that are searched before."""
    return [
        Sought(replace(job, open=waits), target, held, label, number)
        for job, (target, _, held, _) in zip(jobs, splits, strict=True)
    ]


def _nothing_won(study: Study, search: Search, label: str, target: str, apart: int) -> str:
    """Why no draw of a search can win, of which so many fell apart."""
    if apart == search.draws:
        return f"every draw of {label} without {target} fell apart; search lower rates."
    return (
        f"no draw of {label} without {target} has a score by {search.by or study.baseline} on every split: of {search.draws}, "
        f"{apart} fell apart and the others found no window. Search other settings, or by another average."
    )


def _drawn(
    study: Study, place: Place, split: tuple[str, int, str, list[str]], label: str, names: Mapping, own: Mapping
) -> Job:
    """The job of one draw on one split, called and recorded below search/ as ``names`` has it: of those before it as well.

    split  unseen domain, seed, the source that is left out as well or "", and all sources: what is judged on one of them never
           meets the unseen domain, not even when it is scored
    """
    target, seed, held, sources = split
    at = f"{target}-s{seed}" + f"-without-{held}" * bool(held)
    runs = {other: place.runs / "search" / at / name for other, name in names.items()}
    if held:
        target, own = held, {**own, "only": [name for name in sources if name != held]}
    return training_of(study, (target, seed), label, f"search-{at}-{names[label]}", runs, own)


def _score(job: Job, place: Place, label: str, role: str) -> float | None:
    """What counts of a draw: what ``source_accuracy`` reads of an average, None where it is not known."""
    waits = job.open or not (reason(job, place) or RENDERED).startswith(RENDERED)
    return None if waits else source_accuracy(job.run, label, role)

"""Who comes after whom: a student may learn from, start from, or be trained as long as another student of its study.

    students:
      TA: {model: resnet10t_w16}                 # an assistant, taught by the study's teacher
      S: {teacher: TA}                           # taught by the assistant; ``teacher: teacher`` is the study's own
      S2: {teacher: TA, start: S}                # starts where S ended, or at the average that S deploys
      Half: {model: resnet10t_w8, start: {of: TA, by: channels}}    # starts as a part of a wider or deeper one
      DG: {teacher: {of: [TA, S, teacher], weigh: right}}           # several at once, see ``runs.several``
      All: {refit: S}                            # on all source images, for as many steps as S validated best at

A label stands for that student's run of the same target and seed. Text that is no label is a path; ``./TA`` is a folder that
is called like a student.
"""

from __future__ import annotations

import graphlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..files import path_of

ROLES = ("teacher", "start", "refit")


def each_name(value: object, change: Callable[[str], str]) -> object:
    """What stands under ``teacher`` or ``start``, with every label or path in it changed."""
    if isinstance(value, Mapping) and isinstance(value.get("of"), str):
        return {**value, "of": change(value["of"])}
    if isinstance(value, Mapping) and isinstance(value.get("of"), list):
        return {**value, "of": [each_name(one, change) if one != "start" else one for one in value["of"]]}
    return change(value) if isinstance(value, str) else value


def names_in(value: object) -> list[str]:
    """The labels and paths that stand under ``teacher`` or ``start``."""
    found: list[str] = []
    each_name(value, lambda name: found.append(name) or name)
    return found


def roles_of(study, label: str) -> dict[str, object]:
    """What a student of a study says of its teacher, by default the study's, and of its start; the teacher has neither."""
    if label == "teacher":
        return {}
    own = {**study.common, **(study.students[label] or {})}
    return {"teacher": "teacher" if study.teacher is not None else None, **{r: own[r] for r in ROLES if r in own}}


def everybody(study) -> list[str]:
    """The labels of a study, its own teacher first."""
    return [*["teacher"] * (study.teacher is not None), *study.students]


def before(study, label: str) -> dict[str, None]:
    """The labels that a student learns or starts from, the teacher's first."""
    return {
        name: None for value in roles_of(study, label).values() for name in names_in(value) if name in everybody(study)
    }


def all_before(study, labels: Iterable[str]) -> set[str]:
    """These labels, and all that they come after."""
    found, new = set(), set(labels)
    while new:
        found |= new
        new = {other for label in new for other in before(study, label)} - found
    return found


def in_order(study) -> list[str]:
    """The labels as the study lists them, each after those that it learns or starts from."""
    found: dict[str, None] = {}

    def visit(label: str) -> None:
        if label in found:
            return
        for other in before(study, label):
            visit(other)
        found[label] = None

    for label in everybody(study):
        visit(label)
    return list(found)


def problem(study) -> str | None:
    """Why students cannot come after each other as they say, in a sentence; None where they can."""
    if "start" in study.students and any(
        isinstance(value, Mapping) and isinstance(value.get("of"), list)
        for label in study.students
        for value in roles_of(study, label).values()
    ):
        return "start, among several teachers, is the student as it starts; give the student that is called so another name."
    try:
        graphlib.TopologicalSorter({label: before(study, label) for label in study.students}).prepare()
    except graphlib.CycleError as circle:
        *_, (first, *others) = circle.args
        return f"students learn or start from each other in a circle: {' before '.join([first, *others])}. One has to be the first."
    return None


def placed(name: str, folder: Path, labels: Iterable[str]) -> str:
    """A label as it is, and a path in a file of this folder made whole. Raises ``ValueError`` for one that could be both."""
    path = os.path.abspath(folder / path_of(name))
    if name not in labels:
        return path
    if os.path.isfile(os.path.join(path, "settings.json")):
        raise ValueError(
            f"{name} is a student of this study, and a run beside its file: write ./{name} for the run, or rename the student."
        )
    return name

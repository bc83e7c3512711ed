"""What a study may say: one small YAML file, checked as far as it can be read without images and models.

    name: quickstart                                  # of its folders; default the file's
    benchmark: digits                                 # paths, also of weights and teachers, are relative to this file
    targets: all
    seeds: [0, 1, 2]
    teacher: {model: resnet18_w16, steps: 600}        # parameters of 01_train_teacher
    common: {model: resnet10t_w16, steps: 600}        # parameters of 02_distill, for every student
    students:                                         # label: what differs
      CE: {objectives: [{name: ce}], teacher: null}
      KD: {objectives: [{name: kd, temperature: 5.0}]}
      Again: {teacher: KD}                            # a student may learn from another, and start from one; see chains.py
    strategies: [last, wakd, swad]
    window_map: {grid: 10, seeds: [0], students: [KD]}
    landscape: {targets: [sketch], size: 15}          # of which runs (by default one of each target), and 04's parameters
    published: {KD: {WAKD: 86.6}}                     # what a paper reports of this setting, to stand beside ours

    search: {draws: 20, over: {learning_rate: "10^U(-4,-2)"}}    # settings are searched first; see search.py

    extends: quickstart                               # another study, shipped or a file: what stands here takes the place
                                                      # of what it says; the blocks in COMPLETED one by one

``study.run_study`` runs it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .. import plugins
from ..averaging import labels_of
from ..names import UnknownName, did_you_mean, within
from ..reporting.parameters import STRATEGIES, ParameterError, describe, make
from ..results.merged import labels_of_pairs
from . import chains
from .jobs import PAIRS
from .places import StudyProblem, file_of
from .reading import TEXTS, values_of
from .search import search_of


@dataclass(frozen=True)
class Study:
    """A study file, checked.

    name        of its folders under reports/ and runs/; by default the file's
    seeds       each is one of the split, the initialisation and the batches; every target is trained with each
    students    {label: what differs from ``common``}, parameters of 02_distill; the label names the folder
    benchmark   what ``load_domains`` takes: digits, pacs, pacs:PATH, folder:PATH; the path is relative to the file
    image_size  side in pixels; by default the benchmark's own
    targets     the domains that are left out, each in turn; all of them by default; several at once as [[photo, sketch], ink]
    teacher     parameters of 01_train_teacher, trained once for each target and seed; none by default
    common      parameters of 02_distill for every student
    strategies  what is averaged: names, or {name, label, settings}
    window_map  {grid, seeds, students}: runs of which every window of a grid is scored, by default none; grid is 10
    landscape   parameters of 04_landscape, and the targets, seeds and students whose loss is looked at: by default one
                student of each target, of the first seed; none with students: []
    baseline    the label that the others are compared with
    reference   the student that others are compared with, or {student: its own}; by default every two of them are
    answer      {student: label}: the differences to the baseline that answer the title, named before there is any result;
                the page's first sentences. Or a list of the pairs of 07_named_pairs that do, as it calls them:
                [WAKD student WAKD - KD last]; what was merged is ``merged mean of WAKD`` and so on
    published   {student: {label of a strategy: accuracy in % that a paper reports of this setting}}, to stand beside ours
    mask        a csv of images and the part that each is in, such as in and out of pretraining: accuracies are told apart by it
    search      {draws, seeds, over, instead, by, rule, students, like, steps, seed}: settings that are searched before, by default none
    also        notebooks over all recordings beside the comparison, with settings of theirs: {05_objectives: {average: EMA}}
    plugins     files (.py, relative to this one) and modules of one's own that declare objectives, strategies, models or benchmarks
    title       of its page; by default the name
    about       a paragraph below the title
    """

    name: str
    seeds: list[int]
    students: dict
    benchmark: str = "digits"
    image_size: int | None = None
    targets: str | list[str] = "all"
    teacher: dict | None = None
    common: dict = field(default_factory=dict)
    strategies: list = field(default_factory=lambda: list(STRATEGIES))
    window_map: dict = field(default_factory=dict)
    landscape: dict = field(default_factory=dict)
    baseline: str = "last"
    reference: str | dict = ""
    answer: dict | list[str] = field(default_factory=dict)
    published: dict = field(default_factory=dict)
    mask: str = ""
    search: dict = field(default_factory=dict)
    also: dict = field(default_factory=dict)
    plugins: list[str] = field(default_factory=list)
    title: str = ""
    about: str = ""

    def problem(self) -> str | None:
        """What cannot be run as it is written, in one sentence; None when nothing is known to be wrong."""
        for what, values in (("seed", self.seeds), ("student", self.students), ("target", self.targets)):
            if not values:
                return f"a study needs at least one {what}. {what}s is {values!r}."
            if isinstance(values, list) and len(set(values)) < len(values):
                return f"a {what} is listed twice in {values}."
        for label, own in self.students.items():
            if not re.fullmatch(r"\w[\w+=. -]*", str(label)) or str(label) != label or label.casefold() == "teacher":
                return f"a student's name is text of letters, digits, + - = _ . and not 'teacher'; got {label!r}."
            if len(label.encode()) > LONGEST:
                return f"a student's name is that of files, at most {LONGEST} bytes with room for what is added to it; got {label!r}."
            if re.search(r"(\.(failed|part|recording)|[ .])$|\.before-", label):
                return f"a student's name ends in no space or dot, and not in what marks a copy that is kept (.failed, .part, .recording, .before-...); got {label!r}."
            if twin := next(
                (other for other in self.students if other != label and str(other).casefold() == label.casefold()), None
            ):
                return f"students {twin!r} and {label!r} are one folder where capitals do not count; rename one."
            if not isinstance(own, dict | None):
                return f"student {label!r} takes settings (name: value), got {own!r}."
        if not re.fullmatch(r"\w([\w. -]*[\w-])?", self.name):
            return f"name is that of a folder, of letters, digits, . _ -; got {self.name!r}."
        blocks = {"teacher": self.teacher, "common": self.common, "landscape": self.landscape}
        for where, given in {**blocks, **self.students}.items():
            fixed = SET_BY_STUDY & (given or {}).keys() - ({"strategies"} if where == "landscape" else set())
            if fixed:
                return f"{where}: {', '.join(sorted(fixed))} cannot be set here; the study sets it for all."
        for name, own in self.also.items():
            if not isinstance(own, dict | None):
                return f"also: {name} takes settings (name: value), got {own!r}."
            fixed = {"about", "runs", "only", "tables"} & (own or {}).keys()
            if fixed:
                return f"also: {name}: {', '.join(sorted(fixed))} cannot be set here; the study sets it."
        for block, wanted in (("window_map", self.window_map), ("landscape", self.landscape)):
            for key in ("targets", "seeds", "students", "strategies"):
                if not isinstance(wanted.get(key, []), list):
                    return f"{block}: {key} is a list; got {wanted[key]!r}."
            for seed in wanted.get("seeds", []):
                if seed not in self.seeds:
                    return f"{block}: the study has no seed {seed!r}; it has {', '.join(map(str, self.seeds))}."
        for student, numbers in self.published.items():
            if not isinstance(numbers, dict) or not all(map(within(0, 100).fits, numbers.values())):
                return f"published: {student} takes numbers from 0 to 100, in per cent (strategy: number); got {numbers!r}."
        if not self.strategies:
            return "a study needs at least one strategy. strategies is []."
        for label in self.landscape.get("students", []):
            if self.landscape["students"].count(label) > 1:
                return f"landscape: students: {label!r} is listed twice."
        try:
            labels = labels_of(self.strategies)
        except (ValueError, UnknownName) as error:
            return str(error)
        for own in self.landscape.get("strategies", []):  # which would be scored, and so change what the run says
            if isinstance(own, dict):
                return (
                    f"landscape: strategies are labels of the study's strategies; list {own} there, and here its label."
                )
        for label, what in (("deployed", "what a teacher deployed"), ("initial", "where training began")):
            if label in labels:
                return f"a strategy is called {label!r}, which is {what}; give it another label."
        if said := chains.problem(self) or self._of_search(labels):
            return said
        reference, named = self.reference, [self.reference] if self.reference else []
        if isinstance(reference, dict):
            named = [*reference, *reference.values()]
            if same := next((label for label, own in reference.items() if own == label), None):
                return f"reference: {same} is compared with another student, not with itself."
        try:
            answers = [*self._answers(labels)]
        except ParameterError as error:
            return f"also: {PAIRS}: {error}"
        for where, what, names, known in (
            ("", "setting of window_map", self.window_map, ("grid", "seeds", "students")),
            ("window_map: ", "student", self.window_map.get("students", []), self.students),
            ("landscape: ", "student", self.landscape.get("students", []), self.students),
            ("", "reference", named, self.students),
            ("", "baseline", [self.baseline], labels),
            *answers,
            ("", "label", self.landscape.get("strategies", []), labels),
            ("published: ", "student", self.published, self.students),
            ("published: ", "label", [label for numbers in self.published.values() for label in numbers], labels),
        ):
            for name in names:
                if not isinstance(name, str) or name not in known:
                    return where + did_you_mean(what, name, known)
        return None

    def _answers(self, labels: Sequence[str]) -> Iterator[tuple]:
        """What ``answer`` names, and what there is: averages of students, or pairs that are compared."""
        if isinstance(self.answer, dict):
            yield "answer: ", "student", self.answer, [*self.students, *["teacher"] * (self.teacher is not None)]
            yield "answer: ", "label", self.answer.values(), [label for label in labels if label != self.baseline]
        elif self.answer:
            if PAIRS not in self.also:
                raise ParameterError(
                    f"answer lists pairs, which are named in also: {{{PAIRS}: {{pairs: ...}}}}; none is."
                )
            named = make(describe(PAIRS), self.also.get(PAIRS) or {})
            yield "answer: ", "pair", self.answer, labels_of_pairs(named.pairs, named.merge, named.against)

    def _of_search(self, labels: Sequence[str]) -> str | None:
        try:
            search = search_of(self.search)
        except ParameterError as error:
            return str(error)
        known = [*["teacher"] * (self.teacher is not None), *self.students]
        for what, names, fit in (
            (
                ("label", [search.by] * bool(search.by), labels),
                ("student", search.students or [], known),
                ("student", [*search.like, *search.like.values()], known),
            )
            if search
            else ()
        ):
            for name in names:
                if name not in fit:
                    return f"search: {did_you_mean(what, name, fit)}"
        searched = [n for n in search.students or known if n not in search.like] if search else []
        for label, other in search.like.items() if search else ():
            if other not in searched:
                return f"search: like: {label} takes the settings that won of {other}, which is not searched itself."
        draws = {f"{label}-d{i}": label for label in searched for i in range(search.draws)}
        if taken := [label for label in known if label in draws]:
            return f"search: {taken[0]} is what a draw of {draws[taken[0]]} is called; give the student another name."
        for label in search.instead if search else ():
            if label not in searched:
                return f"search: instead: {did_you_mean('student that is searched', label, searched)}"
        for where, name, _ in search.sources() if search else ():
            if name in SET_BY_STUDY | {"teacher", "start", "refit", "deploy"}:
                return f"search: {where}: {name} cannot be drawn."
        drawn = [where for where, name, _ in search.sources() if name == "only"] if search else []
        own = drawn or [
            n
            for n, s in {"teacher": self.teacher, "common": self.common, **self.students}.items()
            if "only" in (s or {})
        ]
        if search and search.rule == "leave_one_source_out" and own:
            return f"search: leave_one_source_out leaves sources out itself, and {own[0]} says only."
        return None


LONGEST = 120  # of a file's 255, beside target, seed, notebook and what marks a copy
SET_BY_STUDY = {"benchmark", "image_size", "target", "seed", "strategies", "baseline", "save_to", "run"}


def load_study(which: str | os.PathLike) -> Study:
    """A study by file, or by the name of one shipped under reports/. Raises ``StudyProblem`` in one sentence.

    Names in it are text, whatever they look like; paths are relative to the file's folder.
    """
    path = file_of(which)
    try:
        values = {n: v for n, v in values_of(path).items() if v is not None or n not in TEXTS}
        study = make(Study, {"name": path.stem, **values})
        plugins.bring(*study.plugins)
    except (ValueError, FileNotFoundError) as error:
        raise StudyProblem(f"{path}: {error}") from error
    if problem := study.problem():
        raise StudyProblem(f"{path}: {problem}")
    return study

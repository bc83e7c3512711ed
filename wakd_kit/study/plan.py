"""What a study is and what it takes: one small YAML file, checked, as jobs, which are notebooks with complete parameters.

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

import functools
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from .. import fingerprints as sources
from .. import plugins
from ..averaging import labels_of, strategies
from ..data.domains import Domains, load_domains, sources_among, unseen_in
from ..data.mask import parts_of as in_parts
from ..evaluation.export import card_of_export
from ..models.build import build_model, declares, frozen_parts
from ..models.inherit import Shapes, shapes_of
from ..models.tap import shapes_of as outputs_of
from ..models.weights import check_size, find, from_file, sha256
from ..names import UnknownName, closest, did_you_mean, within
from ..objectives import combine, objectives
from ..reporting.parameters import STRATEGIES, ParameterError, Training, describe, make, plain
from ..results.merged import MERGED, labels_of_merged, labels_of_pairs
from ..results.searched import source_accuracy, winner
from ..runs.identity import of_objectives
from ..runs.run import load_run
from ..runs.settings import NOT_RECORDED, Settings, rehearse, segment_ends
from ..runs.start import parts_of, refuse_other_network, shapes_of_run
from ..runs.train import size_of_recording
from . import chains
from .jobs import PAIRS, RENDERED, Job, Place, fell_apart, looked_at, reason, taught_by
from .places import NOTEBOOKS, StudyProblem, file_of
from .reading import TEXTS, values_of
from .search import Search, draw, search_of, split_seeds


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
            if re.search(r"(\.(failed|part|recording)|[ .])$|\.before-", label):
                return f"a student's name ends in no space or dot, and not in what marks a copy that is kept (.failed, .part, .recording, .before-...); got {label!r}."
            if twin := next(
                (other for other in self.students if other != label and other.casefold() == label.casefold()), None
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
        try:
            labels = labels_of(self.strategies)
        except (ValueError, UnknownName) as error:
            return str(error)
        for own in self.landscape.get("strategies", []):  # which would be scored, and so change what the run says
            if isinstance(own, dict):
                return (
                    f"landscape: strategies are labels of the study's strategies; list {own} there, and here its label."
                )
        if "deployed" in labels:
            return "a strategy is called 'deployed', which is what a teacher deployed; give it another label."
        if said := chains.problem(self) or self._of_search(labels):
            return said
        reference = self.reference if isinstance(self.reference, dict) else {self.reference: ""}
        try:
            answers = [*self._answers(labels)]
        except ParameterError as error:
            return f"also: {PAIRS}: {error}"
        for where, what, names, known in (
            ("", "setting of window_map", self.window_map, ("grid", "seeds", "students")),
            ("window_map: ", "student", self.window_map.get("students", []), self.students),
            ("landscape: ", "student", self.landscape.get("students", []), self.students),
            ("", "reference", filter(None, [*reference, *reference.values()]), self.students),
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
        else:
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
        for label in search.instead if search else ():
            if label not in searched:
                return f"search: instead: {did_you_mean('student that is searched', label, searched)}"
        for where, name, _ in search.sources() if search else ():
            if name in SET_BY_STUDY | {"teacher", "start", "refit", "deploy"}:
                return f"search: {where}: {name} cannot be drawn."
        own = [
            n
            for n, s in {"teacher": self.teacher, "common": self.common, **self.students}.items()
            if "only" in (s or {})
        ]
        if search and search.rule == "leave_one_source_out" and own:
            return f"search: leave_one_source_out leaves sources out itself, and {own[0]} says only."
        return None


SET_BY_STUDY = {"benchmark", "image_size", "target", "seed", "strategies", "baseline", "save_to", "run"}


def load_study(which: str | os.PathLike) -> Study:
    """A study by file, or by the name of one shipped under reports/. Raises ``StudyProblem`` in one sentence.

    Names in it are text, whatever they look like; paths are relative to the file's folder.
    """
    path = file_of(which)
    try:
        values = {n: v for n, v in values_of(path).items() if v is not None or n not in TEXTS}
        study = make(Study, {"name": path.stem, **values})
        plugins.use(*study.plugins)
    except (ValueError, FileNotFoundError) as error:
        raise StudyProblem(f"{path}: {error}") from error
    if problem := study.problem():
        raise StudyProblem(f"{path}: {problem}")
    return study


def plan(study: Study, place: Place, *, listed: bool = False) -> list[Job]:
    """Every job of a study, each after those it needs: what is searched; per seed and target the teacher, the students,
    their landscapes; then notebooks over all of them, the comparison last.

    A job whose settings a search has not found yet is ``open``: it stands there with what the study says without.

    listed  there is a page over all studies beside the report's folder
    Whatever can be known without training is checked here: parameters, objectives, strategies on curves of the length that
    each run will have, and that every model can be built. Raises ``StudyProblem`` naming the student.
    """
    options = {} if study.image_size is None else {"size": study.image_size}
    try:
        domains = load_domains(study.benchmark, **options)
    except (ValueError, UnknownName, OSError) as error:
        raise StudyProblem(f"{study.name}: {error}") from error
    try:
        if study.mask:
            in_parts(domains, study.mask)
    except ValueError as error:
        raise StudyProblem(f"{study.name}: mask: {error}") from error
    targets = study.targets if isinstance(study.targets, list) else [study.targets]
    targets = list(domains) if study.targets == "all" else targets
    try:
        targets, looked_at = [
            ["+".join(unseen_in(t, domains)) for t in ts] for ts in (targets, study.landscape.get("targets", []))
        ]
        if "targets" in study.landscape:
            study = replace(study, landscape={**study.landscape, "targets": looked_at})
    except ValueError as error:
        raise StudyProblem(f"{study.name}: {error}") from error
    if (odd := [t for t in looked_at if t not in targets]) and study.landscape.get("students") != []:
        raise StudyProblem(
            f"{study.name}: landscape: targets: {odd[0]} is not left out here; choose of {', '.join(targets)}, such as "
            f"landscape: {{targets: [{targets[0]}]}}."
        )
    filled = _Filled(study, domains)
    sought, fell, found = _search(study, targets, place, filled)
    splits = [(target, seed) for seed in study.seeds for target in targets]
    splits_jobs = {split: filled(_chain(study, *split, place, found)) for split in splits}
    waits = {target for (target, _), settings in found.items() if settings is None}
    for target, seed in splits:  # a split is one piece of work: it begins when all that is searched for it is found
        if target in waits:
            splits_jobs[target, seed] = [replace(job, open=True) for job in splits_jobs[target, seed]]
    jobs = [*(one.job for one in sought), *(job for chain in splits_jobs.values() for job in chain)]
    jobs = _with_others(study, jobs, domains)
    _refuse_runs_of_its_own(study, jobs)
    jobs += _over_all(study, splits_jobs, sought, fell, place, listed)
    of = {job.name: (target, "", seed) for (target, seed), chain in splits_jobs.items() for job in chain}
    of |= {one.job.name: (one.target, one.held, one.job.parameters["seed"]) for one in sought}
    jobs = _shown(study, jobs, of)
    names = [job.name.casefold() for job in jobs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise StudyProblem(f"{study.name}: two notebooks would be called {twice[0]}; rename a student or a domain.")
    return jobs


def _shown(study: Study, jobs: list[Job], of: Mapping[str, tuple[str, str, int]]) -> list[Job]:
    """The same jobs with the titles of their pages, and where one goes from each: up, to its domain, before and after.

    of  of those of one split: the unseen domain, the source that is left out as well or "", and the seed, by the job's name
    """
    found = []
    for i, job in enumerate(jobs):
        if job.page:
            found.append(job)
            continue
        nav, title = {f"← {study.title or study.name}": "../index.html"}, None  # the notebook's own question
        if job.name in of:
            target, held, seed = of[job.name]
            out = f"{target} and {held}" if held else target
            title = f"{'Loss around ' * (not job.records)}{job.run.name}, {out} left out, seed {seed}"
            nav[target] = f"../targets/{target}.html"
        for way, other in (("previous", i - 1), ("next", i + 1)):
            if 0 <= other < len(jobs) and not jobs[other].page:
                nav[f"{way}: {jobs[other].name}"] = f"{jobs[other].name}.html"
        shown = {"title": title} if title else {}
        shown |= {"above": study.title or study.name, "nav": nav}
        found.append(replace(job, shown=shown))
    return found


class _Filled:
    """Jobs as they are planned, with what their recordings take and are made from; the first of each name is rehearsed."""

    def __init__(self, study: Study, domains: Domains):
        self.study, self.domains = study, domains
        self.own: set[str] = set()  # places of the study's recordings
        self._size: dict[str, dict[str, int]] = {}
        self._unsaid: dict[str, dict] = {}
        self._shapes: dict[str, Shapes] = {}
        self._known: dict[str, dict[str, str]] = {}  # what lies at a path is read once

    def __call__(self, jobs: Iterable[Job]) -> list[Job]:
        jobs = list(jobs)
        self.own |= {str(job.run) for job in jobs if job.records}
        return [self._one(job) if job.records else job for job in jobs]

    def _one(self, job: Job) -> Job:
        p, name = job.parameters, job.run.name
        if p["only"]:  # a name may be a source of one split and the unseen domain of another
            try:
                unseen = unseen_in(p["target"], self.domains)
                sources_among([domain for domain in self.domains if domain not in unseen], p["only"])
            except ValueError as error:
                raise StudyProblem(f"{self.study.name}, {name} without {p['target']}: only: {error}") from error
        if name not in self._size:
            try:
                settings, self._size[name], self._shapes[name] = _rehearse(describe(job.notebook)(**p), self.domains)
            except (ValueError, TypeError, UnknownName, OSError) as error:
                raise StudyProblem(f"{self.study.name}, {name}: {error}") from error
            # those that a notebook does not ask for, as they are by default
            aside = {*p, *NOT_RECORDED, "declare", "edges", "ramps"}
            self._unsaid[name] = {n: v for n, v in plain(settings).items() if n not in aside}
            self._unsaid[name]["views"] = self.domains.views
        others = [
            chains.each_name(p.get(r), lambda one: Path(one).name if one in self.own else one) for r in chains.ROLES
        ]
        asked = json.dumps(
            [*(p[n] for n in ("weights", "pretrained", "model", "model_settings", "objectives")), *others]
        )
        if asked not in self._known:
            self._known[asked] = _given(self.study, job, self.own)
            if p.get("start"):
                self._refuse_other_start(name, p)
        made = {"images": self.domains.fingerprint} | self._unsaid[name] | self._known[asked]
        return replace(job, **self._size[name], given=made)

    def _refuse_other_start(self, name: str, p: Mapping) -> None:
        place, by = parts_of(p["start"])
        start = Path(place)
        try:
            known = self._shapes[start.name] if place in self.own else shapes_of_run(start)
            refuse_other_network(start.name, known, p["model"], self._shapes[name], by)
        except ValueError as error:
            raise StudyProblem(f"{self.study.name}, {name}: {error}") from error


def _given(study: Study, job: Job, own: Collection[str]) -> dict[str, str]:
    """What a recording is made from beside the images, by what it is: weights, runs of elsewhere, own objectives. Of runs of this
    study, ``own``, only who they are: what they are is known when they are done."""
    p, given = job.parameters, {}
    try:
        found = from_file(p["weights"]) if p["weights"] else find(p["model"]) if p["pretrained"] else None
        if found:
            given["weights"] = found.origin
        named = chains.each_name(
            p.get("teacher"), lambda n: Path(n).name if n in own else _content(study, n, "teacher")
        )
        if isinstance(named, dict):
            given["teacher"] = json.dumps(named)
        elif named and p["teacher"] not in own:
            given["teacher"] = named
        for role in ("start", "refit"):
            if p.get(role):
                named = chains.each_name(p[role], lambda n, r=role: Path(n).name if n in own else _content(study, n, r))
                given[role] = named if isinstance(named, str) else json.dumps(named)
    except (ValueError, FileNotFoundError) as error:
        raise StudyProblem(f"{study.name}, {job.name}: {error}") from error
    given |= sources.of_plugins(plugin for plugin in study.plugins if declares(plugins.module_of(plugin), p["model"]))
    return given | {f"objective {name}": code for name, code in of_objectives(combine(p["objectives"])).items()}


def _content(study: Study, place: str, role: str) -> str:
    """What stands for a run of elsewhere, or for an exported file, as a teacher, or for a run as a start. Raises
    ``FileNotFoundError``, and ``ValueError`` for a file that cannot teach."""
    if role == "teacher" and Path(place).is_file():
        card_of_export(Path(place))
        return sha256(Path(place))
    if found := taught_by(Path(place)) if Path(place).is_dir() else "":
        return found
    labels = chains.everybody(study)
    near = closest(Path(place).name, labels)
    raise FileNotFoundError(f"No run at {place}, which should be the {role}.{near} Students here: {', '.join(labels)}.")


def _with_others(study: Study, jobs: Sequence[Job], domains: Domains) -> list[Job]:
    """The same jobs with what landscapes know of their ``others``: those of this study they come after, so that they stand after
    all trainings; those of elsewhere are known by what they are."""
    own = {str(job.run): job for job in jobs if job.records}
    targets = {place: job.parameters["target"] for place, job in own.items()}
    known = {}
    for other in study.landscape.get("others", []):
        if other not in own:
            targets[other], known[other] = _target_of(study, other, domains), looked_at(Path(other))

    def one(job: Job) -> Job:
        others = [] if job.records else job.parameters["others"]
        for other in others:
            if targets[other] != (target := targets[str(job.run)]):
                raise StudyProblem(
                    f"{study.name}, {job.name}: others: {other} left out {targets[other]}, not {target}; a line has one unseen domain: "
                    f"take runs that left out {target}, or say landscape: targets: [{targets[other]}]."
                )
        after = dict.fromkeys([*job.after, *(own[other].name for other in others if other in own)])
        elsewhere = [known[other] for other in others if other in known]
        given = job.given | ({"others": json.dumps(elsewhere)} if elsewhere else {})
        return replace(job, after=tuple(after), given=given)

    return sorted(map(one, jobs), key=lambda job: bool(job.parameters.get("others")))


def _target_of(study: Study, other: str, domains: Domains) -> str:
    """What a run of elsewhere left out. Raises ``StudyProblem`` where there is none, or one of other images."""
    try:
        split = load_run(other).settings["split"]
    except FileNotFoundError:
        raise StudyProblem(f"{study.name}, landscape: others are folders of runs; there is none at {other}.") from None
    except ValueError as error:
        raise StudyProblem(f"{study.name}, landscape: others: {error}") from error
    if split["fingerprint"] != domains.fingerprint:
        raise StudyProblem(
            f"{study.name}, landscape: others: {other} was trained on other images; take runs of this benchmark."
        )
    return split["target"]


def _refuse_runs_of_its_own(study: Study, jobs: Sequence[Job]) -> None:
    """A run of this study is named by its student: a path is the same for every target, and what lies there may be another's."""
    recorded = {str(job.run): job for job in jobs if job.records}
    for job in jobs:
        for name in (n for role in chains.ROLES for n in chains.names_in(job.parameters.get(role))):
            if name in recorded and recorded[name].name not in job.after:
                label = recorded[name].run.name
                raise StudyProblem(
                    f"{study.name}, {job.name}: {name} is a run of this study; write {label}, the student of the same target and seed."
                )


def _over_all(
    study: Study,
    by_split: Mapping[tuple[str, int], list[Job]],
    sought: Sequence[_Sought],
    fell: Sequence[_Sought],
    place: Place,
    listed: bool,
) -> Iterator[Job]:
    """The notebooks over all runs: those the study asks for, and the comparison, which is its page, with what was ``sought``, and
    which draws of it ``fell`` apart."""
    jobs = [job for chain in by_split.values() for job in chain]
    recording = [job for job in jobs if job.records]
    given = {
        "about": study.about,
        "runs": str(place.runs),
        "only": [job.run.relative_to(place.runs).as_posix() for job in recording],
        "strategies": labels_of(study.strategies),
        "baseline": study.baseline,
        "reference": study.reference,
        "answer": study.answer,
        "published": study.published,
        "tables": str(place.out),
    }
    waits = any(job.open for job in jobs)
    also = [_also(study, name, own or {}, given, [job.name for job in recording]) for name, own in study.also.items()]
    also = [replace(job, open=waits) for job in also]
    yield from also
    notebooks = []
    for (target, seed), chain in by_split.items():
        named = [job.run.name if job.records else f"landscape of {job.run.name}" for job in chain]
        notebooks.append([target, seed, {n: f"notebooks/{job.name}.html" for n, job in zip(named, chain)}])
    searches: dict[tuple[str, int], dict[str, str]] = {}
    for one in sought:
        split = searches.setdefault((one.target, one.job.parameters["seed"]), {})
        split[one.job.run.name + f", {one.held} held out" * bool(one.held)] = f"notebooks/{one.job.name}.html"
    notebooks += [[*split, pages] for split, pages in searches.items()]
    page = {"title": study.title or study.name, "notebooks": notebooks, "listed": listed}
    page["also"] = {job.name: f"notebooks/{job.name}.html" for job in also}
    if search := search_of(study.search):
        given["searched"] = [one.as_drawn(search, place) for one in sought if one.number is not None]
        given["searched"] += [one.as_drawn(search, place) | {"fell_apart": True} for one in fell]
        given["searched_by"] = search.by or study.baseline
    job = job_of(
        study,
        "03_compare",
        "03_compare",
        given | {"mask": study.mask},
        after=[*(one.job.name for one in sought), *(job.name for job in (*jobs, *also))],
    )
    yield replace(job, page=page, open=waits, given={"mask": sha256(Path(study.mask))} if study.mask else {})


def _also(study: Study, name: str, own: Mapping, given: Mapping, after: Sequence[str]) -> Job:
    labels = given["strategies"]
    if name not in ALSO:
        raise StudyProblem(f"{study.name}: {did_you_mean('notebook over all recordings', name, ALSO)}")
    # what the study leaves empty keeps the notebook's default
    shared = {f.name: given[f.name] for f in fields(describe(name)) if given.get(f.name)}
    if isinstance(shared.get("reference"), dict):  # these ask about one
        del shared["reference"]
    job = job_of(study, name, name, {**shared, **own}, after=after)
    names = {"reference": study.students, "baseline": labels, "average": labels, "averages": labels}
    for setting, known in names.items():
        asked = job.parameters.get(setting, [])
        for value in [asked] if isinstance(asked, str) else asked:
            if value not in known:
                raise StudyProblem(f"{study.name}, {name}: {did_you_mean(setting, value, known)}")
    there = dict.fromkeys(chains.everybody(study), labels)
    pairs, merge, against = (job.parameters.get(n) or [] for n in ("pairs", "merge", "against"))
    named = []
    if merge:
        named += [("merge", "student", student, there) for student in merge["students"]]
        named += [("merge", "label", label, labels) for label in merge["averages"]]
        there = {**there, MERGED: labels_of_merged(**merge)}
    for where, sides in (("pairs", [side for pair in pairs for side in pair]), ("against", [against] * bool(against))):
        for student, label in sides:
            named += [(where, "student", student, there), (where, "label", label, there.get(student, ()))]
    for where, what, value, known in named:
        if value not in known:
            raise StudyProblem(f"{study.name}, {name}: {where}: {did_you_mean(what, value, known)}")
    runs = len(given["only"]) // (len(study.students) + (study.teacher is not None))
    if name != "08_beyond_accuracy" and not (pairs or against) and min(runs, len(study.students)) < 2:
        raise StudyProblem(
            f"{study.name}, {name} compares students over targets and seeds: at least two of each; got {len(study.students)} "
            f"on {runs}."
        )
    return job


def _chain(study: Study, target: str, seed: int, place: Place, found: Mapping) -> Iterator[Job]:
    """The jobs of one split. ``found``: {(target, student): settings, None while they are searched}."""
    name, folder = f"{target}-s{seed}", place.runs / f"{target}-s{seed}"
    runs, trained = {label: folder / label for label in chains.everybody(study)}, {}
    for label in chains.in_order(study):
        own = found.get((target, label)) or {}
        map_grid = _map_grid(study, seed, label)
        trained[label] = _training(study, (target, seed), label, f"{name}-{label}", runs, own, map_grid)
        yield trained[label]
    for label in _looked_at(study, target, seed):
        given = {name: value for name, value in study.landscape.items() if name not in ("targets", "seeds", "students")}
        given.setdefault("strategies", labels_of(study.strategies))
        given |= {"run": str(folder / label), "baseline": study.baseline}
        called = f"landscape-{name}-{label}"
        if isinstance(given.get("figures"), str) and given["figures"]:
            given["figures"] = str(Path(given["figures"], called))
        job = job_of(study, "04_landscape", called, given, after=[f"{name}-{label}"])
        _refuse_beyond(study, job, trained[label])
        yield job


def _refuse_beyond(study: Study, landscape: Job, training: Job) -> None:
    """Raises ``StudyProblem`` for a corner of a landscape at a step at which its run will have no segment."""
    steps, p = [c for c in landscape.parameters["corners"] if isinstance(c, int)], training.parameters
    if not steps or p["refit"] is not None:  # whose length is not known yet
        return
    ends = {0, *segment_ends(describe(training.notebook)(**p).settings())}
    for step in steps:
        if step not in ends:
            raise StudyProblem(
                f"{study.name}, {landscape.name}: corners: no segment ends at step {step}; the nearest that does ends at "
                f"{min(ends, key=lambda end: abs(end - step))}, the last at {max(ends)}."
            )


def _training(
    study: Study,
    split: tuple[str, int],
    label: str,
    name: str,
    runs: Mapping[str, Path],
    own: Mapping,
    map_grid: int = 0,
) -> Job:
    """The job that trains a study's teacher or one of its students.

    runs      where this one and those that it comes after are recorded, by label; jobs are called as the folders
    own       settings that take the place of what the study says
    map_grid  of a student's windows, unless the study says another
    """
    (target, seed), save_to = split, str(runs[label])
    given = {"benchmark": study.benchmark, "image_size": study.image_size, "target": target, "seed": seed}
    given |= {"strategies": study.strategies}
    if label == "teacher":
        return job_of(study, "01_train_teacher", name, {**given, **study.teacher, **own, "save_to": save_to})
    mine, roles = study.students[label] or {}, chains.roles_of(study, label)
    aside = {"pretrained": False, "weights": None} if mine.get("start") else {}
    given |= {"window_map_grid": map_grid, **study.common, **aside, **mine, **own}
    given |= {role: chains.each_name(value, lambda one: str(runs.get(one, one))) for role, value in roles.items()}
    given |= {"save_to": save_to, "baseline": study.baseline}
    after = [name.removesuffix(runs[label].name) + runs[other].name for other in chains.before(study, label)]
    return job_of(study, "02_distill", name, given, after=after)


@dataclass(frozen=True)
class _Sought:
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


def _search(
    study: Study, targets: Sequence[str], place: Place, filled: _Filled
) -> tuple[list[_Sought], list[_Sought], dict]:
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
) -> list[_Sought]:
    """One training on each split of a search; ``waits`` for settings that are searched before."""
    return [
        _Sought(replace(job, open=waits), target, held, label, number)
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
    return _training(study, (target, seed), label, f"search-{at}-{names[label]}", runs, own)


def _score(job: Job, place: Place, label: str, role: str) -> float | None:
    """What counts of a draw: what ``source_accuracy`` reads of an average, None where it is not known."""
    waits = job.open or not (reason(job, place) or RENDERED).startswith(RENDERED)
    return None if waits else source_accuracy(job.run, label, role)


def _map_grid(study: Study, seed: int, student: str) -> int:
    wanted = study.window_map
    seeds, students = wanted.get("seeds", study.seeds), wanted.get("students", list(study.students))
    return wanted.get("grid", 10) if wanted and seed in seeds and student in students else 0


def _looked_at(study: Study, target: str, seed: int) -> list[str]:
    """The students of one split whose landscapes are drawn; by default one, of the study's first seed."""
    wanted, students = study.landscape, study.students
    if target not in wanted.get("targets", [target]) or seed not in wanted.get("seeds", study.seeds[:1]):
        return []
    taught = [label for label in students if chains.roles_of(study, label)["teacher"]]
    return wanted.get("students", (taught or list(students))[:1])


ALSO = (
    "05_objectives",
    "06_when_averaging_helps",
    "07_named_pairs",
    "08_beyond_accuracy",
)  # over all recordings, where a study asks for them


def job_of(study: Study, notebook: str, name: str, given: Mapping, after: Sequence[str] = ()) -> Job:
    """The step of a study that executes a shipped notebook. Raises ``StudyProblem`` for parameters that do not fit it."""
    cls, file = describe(notebook), NOTEBOOKS / f"{notebook}.ipynb"
    try:
        complete = make(cls, given)
    except ParameterError as error:
        raise StudyProblem(f"{study.name}, {name}: {error}") from error
    listed = json.dumps(complete.objectives) if issubclass(cls, Training) else ""
    code = _code(file, listed, (getattr(complete, "teacher_as", None) or {}).get("name", ""))
    code = {**code, "analysis": code["analysis"] | sources.of_plugins(study.plugins)}
    return Job(name, file, plain(complete), tuple(after), plugins=tuple(study.plugins), **code)


@functools.cache
def _code(file: Path, listed: str, teacher_as: str) -> dict[str, dict[str, str]]:
    """Digests of the code that a notebook's recording, its tables and its page are made with; ``listed`` are the objectives of
    a training, as JSON, ``teacher_as`` the strategy that averages its teacher's run, "" where it has none."""
    training = {}
    if listed:
        made = [objectives.get(spec["name"]) for spec in combine(json.loads(listed)).specs]
        made += [strategies.get(teacher_as)] if teacher_as else []
        training = sources.of_recording(tuple((one.__module__, one.__qualname__) for one in made))
    analysis = {name: digest for name, digest in sources.of_notebook(file).items() if name not in training}
    rendering = sources.of_page(compares=file.stem == "03_compare")
    return {"training": training, "analysis": analysis | sources.of_libraries(), "rendering": rendering}


def _rehearse(p: Training, domains: Domains) -> tuple[Settings, dict[str, int], Shapes]:
    """Raises what training or averaging would raise later for a model, a step or a strategy's setting that cannot be.

    Returns the settings of the training; bytes, ``disk`` of its recording at most, ``taught`` of what its teacher gives; and
    the shapes of its network.
    """
    objectives, teacher = combine(p.objectives), getattr(p, "teacher", None)
    if objectives.needs("teacher") and teacher is None:
        raise ValueError(f"the objectives {objectives.labels} learn from a teacher, and there is none.")
    student = build_model(p.model, domains.classes, **{**p.student(), "pretrained": False})
    found = find(p.model) if p.pretrained and p.weights is None else None
    check_size(p.model, found.size if found else student.spec.get("pretrained_size"), student.size, domains.size)
    if objectives.reads("attention", "student"):  # which few models have
        objectives.refuse_unread(outputs_of(student, domains.size, maps="attention"), None)
    settings = p.settings()
    if not objectives.deploying:  # whose parts may be named, and are there once the teacher is
        with frozen_parts(student, settings.freeze, settings.batchnorm):
            pass
    rehearse(settings, [p.deploy] if p.deploy else [], teacher=teacher is not None)
    size = size_of_recording(student, settings)
    taught = size["teacher"] * (len(teacher["of"]) if isinstance(teacher, dict) else 1)
    return settings, {"disk": size["disk"], "taught": taught}, shapes_of(student)

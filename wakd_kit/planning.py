"""What a study is and what it takes: one small YAML file, checked, as jobs, which are notebooks with complete parameters.

    name: quickstart
    benchmark: digits
    targets: all
    seeds: [0, 1, 2]
    teacher: {model: resnet18_w16, steps: 600}        # parameters of 01_train_teacher
    common: {model: resnet10t_w16, steps: 600}        # parameters of 02_distill, for every student
    students:                                         # label: what differs
      CE: {objectives: [{name: ce}], teacher: null}
      KD: {objectives: [{name: kd, temperature: 5.0}]}
    strategies: [last, wakd, swad]
    window_map: {grid: 10, seeds: [0], students: [KD]}
    landscape: {targets: [sketch], size: 15}          # of which runs (by default one of each target), and 04's parameters

``study.run_study`` runs it.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import yaml

from . import sources
from .averaging import Curves, choose, labels_of
from .domains import Domains, load_domains
from .jobs import Job, Place
from .models import build_model
from .objectives import combine, objectives
from .parameters import (
    STRATEGIES,
    Compare,
    Distill,
    Landscape,
    Objectives,
    ParameterError,
    Training,
    TrainTeacher,
    When,
    describe,
    make,
    plain,
)
from .pretrained import check_size, find, from_file
from .registry import UnknownName, did_you_mean
from .training import segment_ends, size_of_recording

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
REPORTS = Path(__file__).parent.parent / "reports"


class StudyProblem(ValueError):
    """A study file that cannot be run; the message says what came, what fits and what to do."""


@dataclass(frozen=True)
class Study:
    """A study file, checked. ``title`` and ``about`` are shown on its page.

    reference  the student that others are compared with, or {student: its own}; by default every two of them are
    also       notebooks over all recordings beside the comparison, with settings of theirs: {05_objectives: {average: EMA}}
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
    also: dict = field(default_factory=dict)
    title: str = ""
    about: str = ""

    def problem(self) -> str | None:
        """What cannot be run as it is written, in one sentence; None when nothing is known to be wrong."""
        for what, values in (("seed", self.seeds), ("student", self.students), ("target", self.targets)):
            if not values:
                return f"a study needs at least one {what}."
            if isinstance(values, list) and len(set(values)) < len(values):
                return f"a {what} is listed twice in {values}."
        for label, own in self.students.items():
            if not re.fullmatch(r"\w[\w+=. -]*", str(label)) or str(label) != label or label == "teacher":
                return f"a student's name is text of letters, digits, + - = _ . and not 'teacher'; got {label!r}."
            if not isinstance(own, dict | None):
                return f"student {label!r} takes settings (name: value), got {own!r}."
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
        for key in self.window_map:
            if key not in ("grid", "seeds", "students"):
                return did_you_mean("setting of window_map", key, ("grid", "seeds", "students"))
        for block, wanted in (("window_map", self.window_map), ("landscape", self.landscape)):
            for key in ("targets", "seeds", "students"):
                if not isinstance(wanted.get(key, []), list):
                    return f"{block}: {key} is a list; got {wanted[key]!r}."
            for label in wanted.get("students", []):
                if label not in self.students:
                    return f"{block}: {did_you_mean('student', label, self.students)}"
        try:
            labels = labels_of(self.strategies)
        except (ValueError, UnknownName) as error:
            return str(error)
        named = [*self.reference, *self.reference.values()] if isinstance(self.reference, dict) else [self.reference]
        for label in filter(None, named):
            if label not in self.students:
                return did_you_mean("reference", label, self.students)
        for what, label in [("baseline", self.baseline), *(("label", s) for s in self.landscape.get("strategies", []))]:
            if label not in labels:
                return did_you_mean(what, label, labels)
        return None


SET_BY_STUDY = {"benchmark", "image_size", "target", "seed", "strategies", "baseline", "save_to", "run"}


def load_study(which: str | os.PathLike) -> Study:
    """A study by file, or by the name of one shipped under reports/. Raises ``StudyProblem`` in one sentence."""
    path = Path(which)
    if path.suffix not in (".yaml", ".yml"):
        shipped = {p.stem: p for p in REPORTS.glob("*.yaml")}
        if str(which) not in shipped:
            raise StudyProblem(f"{did_you_mean('study', str(which), shipped)} A file of your own ends in .yaml.")
        path = shipped[str(which)]
    if not path.is_file():
        raise StudyProblem(f"No study file at {path}.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise StudyProblem(f"{path}{place}, is no YAML: {getattr(error, 'problem', None) or error}.") from error
    if not isinstance(values, dict):
        raise StudyProblem(f"{path} should hold settings (name: value); it holds {type(values).__name__}.")
    try:
        study = make(Study, values)
    except ParameterError as error:
        raise StudyProblem(f"{path}: {error}") from error
    if problem := study.problem():
        raise StudyProblem(f"{path}: {problem}")
    return study


class _Loader(yaml.SafeLoader):
    """YAML with 1e-3 as a number, and a name that comes twice as an error: the first would be dropped silently."""

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name, (key, _) in zip(names, node.value):
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(problem=f"{name!r} comes twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def plan(study: Study, place: Place, *, listed: bool = False) -> list[Job]:
    """Every job of a study, each after those it needs: per seed and target the teacher, the students, their landscapes;
    then notebooks over all of them, the comparison last.

    listed  there is a page over all studies beside the report's folder
    Whatever can be known without training is checked here: parameters, objectives, strategies on curves of the length that
    each run will have, and that every model can be built. Raises ``StudyProblem`` naming the student.
    """
    options = {} if study.image_size is None else {"size": study.image_size}
    domains = load_domains(study.benchmark, **options)
    targets = study.targets if isinstance(study.targets, list) else [study.targets]
    targets = list(domains) if study.targets == "all" else targets
    for target in [*targets, *study.landscape.get("targets", [])]:
        if target not in domains:
            raise StudyProblem(f"{study.name}: {did_you_mean('target domain', target, domains)}")
    splits = [(target, seed) for seed in study.seeds for target in targets]
    chains = {split: list(_chain(study, *split, place.runs / "{}-s{}".format(*split))) for split in splits}
    disk = {}
    for job in (job for job in chains[splits[0]] if job.records):
        cls = describe(job.notebook)
        try:
            disk[job.run.name] = _rehearse(cls(**job.parameters), domains)
        except (ValueError, TypeError, UnknownName, OSError) as error:
            raise StudyProblem(f"{study.name}, {job.run.name}: {error}") from error
    jobs = (job for chain in chains.values() for job in chain)
    jobs = [replace(job, disk=disk[job.run.name]) if job.records else job for job in jobs]
    return [*jobs, *_over_all(study, chains, place, listed)]


def _over_all(study: Study, chains: Mapping[tuple[str, int], list[Job]], place: Place, listed: bool) -> Iterator[Job]:
    """The notebooks over all runs: those the study asks for, and the comparison, which is its page."""
    jobs = [job for chain in chains.values() for job in chain]
    recording = [job for job in jobs if job.records]
    given = {
        "about": study.about,
        "runs": str(place.runs),
        "only": [str(job.run.relative_to(place.runs)) for job in recording],
        "strategies": labels_of(study.strategies),
        "baseline": study.baseline,
        "reference": study.reference,
        "tables": str(place.out),
    }
    also = [_also(study, name, own or {}, given, [job.name for job in recording]) for name, own in study.also.items()]
    yield from also
    notebooks = []
    for (target, seed), chain in chains.items():
        named = [job.run.name if job.records else f"landscape of {job.run.name}" for job in chain]
        notebooks.append([target, seed, {n: f"notebooks/{job.name}.html" for n, job in zip(named, chain)}])
    page = {"title": study.title or study.name, "notebooks": notebooks, "listed": listed}
    page["also"] = {job.name: f"notebooks/{job.name}.html" for job in also}
    job = job_of(study, Compare, "03_compare", given, after=[job.name for job in (*jobs, *also)])
    yield replace(job, page=page)


def _also(study: Study, name: str, own: Mapping, given: Mapping, after: Sequence[str]) -> Job:
    classes, labels = {NOTEBOOK_OF[cls]: cls for cls in ALSO}, given["strategies"]
    if name not in classes:
        raise StudyProblem(f"{study.name}: {did_you_mean('notebook over all recordings', name, classes)}")
    # what the study leaves empty keeps the notebook's default
    shared = {f.name: given[f.name] for f in fields(classes[name]) if given.get(f.name)}
    if isinstance(shared.get("reference"), dict):  # these ask about one
        del shared["reference"]
    job = job_of(study, classes[name], name, {**shared, **own}, after=after)
    names = {"reference": study.students, "baseline": labels, "average": labels, "averages": labels}
    for setting, known in names.items():
        asked = job.parameters.get(setting, [])
        for value in [asked] if isinstance(asked, str) else asked:
            if value not in known:
                raise StudyProblem(f"{study.name}, {name}: {did_you_mean(setting, value, known)}")
    runs = len(given["only"]) // (len(study.students) + (study.teacher is not None))
    if min(runs, len(study.students)) < 2:
        raise StudyProblem(
            f"{study.name}, {name} compares students over targets and seeds: at least two of each; got {len(study.students)} "
            f"on {runs}."
        )
    return job


def _chain(study: Study, target: str, seed: int, runs: Path) -> Iterator[Job]:
    shared = {
        "benchmark": study.benchmark,
        "image_size": study.image_size,
        "target": target,
        "seed": seed,
        "strategies": study.strategies,
    }
    name, teacher = f"{target}-s{seed}", None
    if study.teacher is not None:
        teacher = str(runs / "teacher")
        yield job_of(study, TrainTeacher, f"{name}-teacher", {**shared, **study.teacher, "save_to": teacher})
    for label, own in study.students.items():
        given = {**shared, "teacher": teacher, **study.common, **(own or {})}
        given |= {"save_to": str(runs / label), "baseline": study.baseline}
        given.setdefault("window_map_grid", _map_grid(study, seed, label))
        taught = teacher is not None and given["teacher"] == teacher
        yield job_of(study, Distill, f"{name}-{label}", given, after=[f"{name}-teacher"] * taught)
    for label in _looked_at(study, target, seed):
        given = {name: value for name, value in study.landscape.items() if name not in ("targets", "seeds", "students")}
        given.setdefault("strategies", labels_of(study.strategies))
        given |= {"run": str(runs / label), "baseline": study.baseline}
        yield job_of(study, Landscape, f"landscape-{name}-{label}", given, after=[f"{name}-{label}"])


def _map_grid(study: Study, seed: int, student: str) -> int:
    wanted = study.window_map
    seeds, students = wanted.get("seeds", study.seeds), wanted.get("students", list(study.students))
    return wanted.get("grid", 10) if wanted and seed in seeds and student in students else 0


def _looked_at(study: Study, target: str, seed: int) -> list[str]:
    """The students of one split whose landscapes are drawn; by default one, of the study's first seed."""
    wanted, students = study.landscape, study.students
    if target not in wanted.get("targets", [target]) or seed not in wanted.get("seeds", study.seeds[:1]):
        return []
    taught = [n for n, own in students.items() if {"teacher": study.teacher, **study.common, **(own or {})}["teacher"]]
    return wanted.get("students", (taught or list(students))[:1])


NOTEBOOK_OF = {
    TrainTeacher: "01_train_teacher",
    Distill: "02_distill",
    Compare: "03_compare",
    Landscape: "04_landscape",
    Objectives: "05_objectives",
    When: "06_when_averaging_helps",
}
ALSO = (Objectives, When)


def job_of(study: Study, cls: type, name: str, given: Mapping, after: Sequence[str] = ()) -> Job:
    try:
        complete = make(cls, given)
    except ParameterError as error:
        raise StudyProblem(f"{study.name}, {name}: {error}") from error
    file = NOTEBOOKS / f"{NOTEBOOK_OF[cls]}.ipynb"
    training = {}
    if issubclass(cls, Training):
        defined = _defined_in(json.dumps(complete.objectives))
        training = sources.digests((*sources.RECORDING, *sources.of_objectives(defined)))
        training |= _weights_of(study, name, complete)
    analysis = {**sources.digests(sources.ANALYSIS[file.stem]), file.name: sources.of_notebook(file)}
    return Job(name, file, plain(complete), tuple(after), training, analysis)


def _weights_of(study: Study, name: str, p: Training) -> dict[str, str]:
    """Which weights a training starts from, by what is in them; nothing where there are none, or timm's hub is asked for them."""
    try:
        found = from_file(p.weights) if p.weights else find(p.model) if p.pretrained else None
    except (ValueError, FileNotFoundError) as error:
        raise StudyProblem(f"{study.name}, {name}: {error}") from error
    return {"weights": found.origin} if found else {}


@functools.cache
def _defined_in(listed: str) -> tuple[str, ...]:
    """The modules that define the objectives of a list, given as JSON."""
    return tuple(objectives.get(spec["name"]).__module__ for spec in combine(json.loads(listed)).specs)


def _rehearse(p: Training, domains: Domains) -> int:
    """Raises what training or averaging would raise later for a model, a step or a strategy's setting that cannot be.

    Returns how many bytes the recording will take at most.
    """
    objectives, teacher = combine(p.objectives), getattr(p, "teacher", None)
    if objectives.needs("teacher") and teacher is None:
        raise ValueError(f"the objectives {objectives.labels} learn from a teacher, and there is none.")
    student = build_model(p.model, domains.classes, **{**p.student(), "pretrained": False})
    found = find(p.model) if p.pretrained and p.weights is None else None
    check_size(p.model, found.size if found else student.spec.get("pretrained_size"), student.size, domains.size)
    settings = {"edges": [], **p.training()}
    settings["declare"] = [{"name": s} if isinstance(s, str) else s for s in settings["declare"]]
    if min(p.steps, p.segment_length) < 1:
        raise ValueError(f"steps and segment_length are at least 1; got {p.steps} and {p.segment_length}.")
    ends = np.array(sorted(segment_ends(settings)))
    if ends[0] < 1 or ends[-1] > p.steps:
        raise ValueError(
            f"A strategy begins beyond the {p.steps} steps of the run; see begin and start in {p.strategies}."
        )
    recorded = ["train_loss", "val_loss", "val_loss_pooled", "val_accuracy"]
    recorded += ["val_kd_loss"] if teacher else []
    curves = Curves(np.diff(ends, prepend=0), **dict.fromkeys(recorded, np.full(len(ends), 0.5)))
    for strategy in [*p.strategies, *([p.deploy] if isinstance(p, TrainTeacher) else [])]:
        try:
            choose(curves, [strategy], score=_stop, loss_and_gradient=_stop, held_out_loss=_stop)
        except _Searching:
            continue
    return size_of_recording(student, settings)["disk"]


class _Searching(Exception):
    """A strategy got as far as trying averages, so its settings are in order."""


def _stop(*_) -> float:
    raise _Searching

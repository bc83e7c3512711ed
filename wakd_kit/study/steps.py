"""One step of a study as a job: a notebook with complete parameters, rehearsed before anything trains.

job = training_of(study, (target, seed), label, name, runs, own)
filled = Filled(study, domains); [job] = filled([job])      # with what it takes and records from
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from .. import fingerprints as sources
from .. import plugins
from ..averaging import strategies
from ..data.domains import Domains, Split, leave_one_out
from ..evaluation.export import card_of_export
from ..models.build import build_model, declares, frozen_parts
from ..models.inherit import Shapes, shapes_of
from ..models.tap import Output
from ..models.tap import shapes_of as outputs_of
from ..models.weights import check_size, find, from_file, sha256
from ..names import UnknownName, closest
from ..objectives import Combined, combine, objectives
from ..reporting.parameters import ParameterError, Training, describe, make, plain
from ..runs.identity import of_objectives
from ..runs.prepare import computing, refuse_unfit
from ..runs.settings import NOT_RECORDED, Settings, rehearse
from ..runs.start import parts_of, refuse_other_network, shapes_of_run
from ..runs.train import size_of_recording
from . import chains
from .jobs import Job, taught_by
from .places import NOTEBOOKS, StudyProblem
from .specification import Study


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


def training_of(
    study: Study,
    at: tuple[str, int],
    label: str,
    name: str,
    runs: Mapping[str, Path],
    own: Mapping,
    map_grid: int = 0,
) -> Job:
    """The job that trains a study's teacher or one of its students.

    at        the unseen domain and the seed
    runs      where this one and those that it comes after are recorded, by label; jobs are called as the folders
    own       settings that take the place of what the study says
    map_grid  of a student's windows, unless the study says another
    """
    (target, seed), save_to = at, str(runs[label])
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


class Filled:
    """Jobs as they are planned, with what their recordings take and are made from; the first of each name is rehearsed."""

    def __init__(self, study: Study, domains: Domains):
        self.study, self.domains = study, domains
        self.own: set[str] = set()  # places of the study's recordings
        self._settings: dict[str, Settings] = {}
        self._fitting: set[tuple[str, str]] = set()  # a training, without this target
        self._size: dict[str, dict[str, int]] = {}
        self._unsaid: dict[str, dict] = {}
        self._shapes: dict[str, Shapes] = {}
        self._rehearsed: dict[str, Training] = {}
        self._splits: dict[tuple, Split] = {}
        self._known: dict[str, dict[str, str]] = {}  # what lies at a path is read once

    def __call__(self, jobs: Iterable[Job]) -> list[Job]:
        jobs = list(jobs)
        self.own |= {str(job.run) for job in jobs if job.records}
        return [self._one(job) if job.records else job for job in jobs]

    def _one(self, job: Job) -> Job:
        p, name = job.parameters, job.run.name
        split = self._split(name, p)
        if name not in self._size:
            settings, self._size[name], self._shapes[name] = self.rehearse(job)
            self._settings[name] = settings
            self._rehearsed[name] = describe(job.notebook)(**p)
            # those that a notebook does not ask for, as they are by default
            aside = {*p, *NOT_RECORDED, "declare", "edges", "ramps"}
            self._unsaid[name] = {n: v for n, v in plain(settings).items() if n not in aside}
            self._unsaid[name]["views"] = self.domains.views
        if (name, p["target"]) not in self._fitting:  # other sources are others in number
            try:
                _refuse_unfit(self._settings[name], p, split)
            except ValueError as error:
                raise StudyProblem(f"{self.study.name}, {name} without {p['target']}: {error}") from error
            self._fitting.add((name, p["target"]))
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

    def rehearse(self, job: Job) -> tuple[Settings, dict[str, int], Shapes]:
        """What ``_rehearse`` returns of a training. Raises ``StudyProblem``."""
        p, name = describe(job.notebook)(**job.parameters), job.run.name
        split, teacher = self._split(name, job.parameters), getattr(p, "teacher", None)
        if isinstance(teacher, str) and teacher in self.own:
            teacher = self._rehearsed[Path(teacher).name]
        try:
            return _rehearse(p, split, teacher)
        except (ValueError, TypeError, UnknownName, OSError) as error:
            raise StudyProblem(f"{self.study.name}, {name}: {error}") from error

    def _split(self, name: str, p: Mapping) -> Split:
        """The split of a training; of one seed, for others are as large. Raises ``StudyProblem`` for one that cannot be made: a name may be
        a source of one split and the unseen domain of another, and a class too small for both sides."""
        target, only = p["target"], p["only"]
        try:
            with warnings.catch_warnings():  # of copies, which the training warns of
                warnings.simplefilter("ignore")
                if (key := (target, tuple(only))) not in self._splits:
                    self._splits[key] = leave_one_out(self.domains, target, p["seed"], only=only)
                return self._splits[key]
        except ValueError as error:
            raise StudyProblem(f"{self.study.name}, {name} without {target}: {'only: ' * bool(only)}{error}") from error

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
    none = f" No {role} is null." if Path(place).name.lower() == "none" else ""
    raise FileNotFoundError(
        f"No run at {place}, which should be the {role}.{near}{none} Students here: {', '.join(labels)}."
    )


def _rehearse(p: Training, split: Split, teacher: object) -> tuple[Settings, dict[str, int], Shapes]:
    """Raises what training or averaging would raise later for a model, a step or a strategy's setting that cannot be.

    teacher  what teaches: of this study, its parameters; else as ``p`` names it
    Returns the settings of the training; bytes, ``disk`` of its recording at most, ``taught`` of what its teacher gives; and
    the shapes of its network.
    """
    objectives, domains = combine(p.objectives), split.domains
    if objectives.needs("teacher") and teacher is None:
        raise ValueError(f"the objectives {objectives.labels} learn from a teacher, and there is none.")
    student = build_model(p.model, domains.classes, **{**p.student(), "pretrained": False})
    found = find(p.model) if p.pretrained and p.weights is None else None
    check_size(p.model, found.size if found else student.spec.get("pretrained_size"), student.size, domains.size)
    if objectives.reads("attention", "student"):  # which few models have
        objectives.refuse_unread(outputs_of(student, domains.size, maps="attention"), None)
    settings = p.settings()
    _refuse_unfit(settings, plain(p), split)
    if teacher is None or isinstance(teacher, Training):
        _try_objectives(objectives, student, teacher, settings, split)
    if isinstance(teacher, Training) and p.teacher_as:
        rehearse(teacher.settings(), [p.teacher_as], teacher=getattr(teacher, "teacher", None) is not None)
    if not objectives.deploying:  # whose parts may be named, and are there once the teacher is
        with frozen_parts(student, settings.freeze, settings.batchnorm):
            pass
    rehearse(settings, [p.deploy] if p.deploy else [], teacher=teacher is not None)
    size = size_of_recording(student, settings)
    taught = size["teacher"] * (len(teacher["of"]) if isinstance(teacher, dict) else 1)
    return settings, {"disk": size["disk"], "taught": taught}, shapes_of(student)


def _refuse_unfit(settings: Settings, p: Mapping, split: Split) -> None:
    """Raises ``ValueError`` for a training that its split has too few images, or domains, for."""
    trained_on = split if p.get("refit") is None else split.whole()
    refuse_unfit(settings, combine(p["objectives"]), trained_on, teacher=p.get("teacher") is not None)


@functools.cache
def _given_by(model: str, classes: int, settings: str, size: int, maps: bool | str) -> Output:
    """Shapes of what a network gives, which may teach many students."""
    return _outputs(build_model(model, classes, **json.loads(settings)).eval(), size, maps)


def _outputs(model, size: int, maps: bool | str) -> Output:
    """What a network gives for two images of this side, as shapes alone; of one that computes on numbers meanwhile, for two of zeros.
    Raises ``ValueError`` where it gives nothing."""
    try:
        return outputs_of(model, size, maps=maps)
    except Exception:  # which without numbers is no verdict
        with computing(model, size), torch.no_grad(), torch.random.fork_rng(devices=[]):
            return copy.deepcopy(model)(torch.zeros(2, 3, size, size), maps=maps)


def _try_objectives(objectives: Combined, student, teacher: Training | None, settings: Settings, split: Split) -> None:
    """Raises ``ValueError`` for a network that computes nothing on these images while it is trained, and for objectives that do not find in
    both networks what they read: on shapes alone."""
    ours = _outputs(student.train(), split.domains.size, objectives.asks("student"))
    student.eval()
    if objectives.deploying:  # a part of them is built from the teacher itself
        return
    theirs = None
    if teacher is not None:
        given = json.dumps({**teacher.student(), "pretrained": False})
        theirs = _given_by(teacher.model, len(split.classes), given, split.domains.size, objectives.asks("teacher"))
    with contextlib.suppress(RuntimeError):  # what has no shape without numbers
        objectives.prepare(ours, theirs, steps=settings.steps, seed=settings.seed, sources=len(split.sources))

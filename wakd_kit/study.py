"""A study: targets x seeds x students, described by one small YAML file, run through notebooks, ending in one page.

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

What is done already is not done again: a finished notebook with the same parameters is kept, a killed training continues
from its last segment. Delete a notebook's copy to have it executed again; trainings that are recorded stay.
"""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import yaml

from . import notebook, report
from .averaging import Curves, choose, labels_of
from .domains import load_domains
from .models import build_model
from .objectives import combine
from .parameters import STRATEGIES, Compare, Distill, Training, TrainTeacher
from .registry import UnknownName, did_you_mean
from .run import recording_folder
from .training import segment_ends

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
REPORTS = Path(__file__).parent.parent / "reports"


class StudyProblem(ValueError):
    """A study file that cannot be run; the message says what came, what fits and what to do."""


@dataclass(frozen=True)
class Study:
    """A study file, checked. ``title`` and ``about`` are shown on its page."""

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
    baseline: str = "last"
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
        for where, given in {"teacher": self.teacher, "common": self.common, **self.students}.items():
            fixed = SET_BY_STUDY & (given or {}).keys()
            if fixed:
                return f"{where}: {', '.join(sorted(fixed))} cannot be set here; the study sets it for all."
        for key in self.window_map:
            if key not in ("grid", "seeds", "students"):
                return did_you_mean("setting of window_map", key, ("grid", "seeds", "students"))
        for label in self.window_map.get("students", ()):
            if label not in self.students:
                return "window_map: " + did_you_mean("student", label, self.students)
        try:
            labels = labels_of(self.strategies)
        except (ValueError, UnknownName) as error:
            return str(error)
        return None if self.baseline in labels else did_you_mean("baseline", self.baseline, labels)


SET_BY_STUDY = {"benchmark", "image_size", "target", "seed", "strategies", "baseline", "save_to"}


@dataclass(frozen=True)
class Job:
    """One notebook to execute: ``name`` is its file below the report's folder, without suffix."""

    name: str
    notebook: Path
    parameters: dict

    @property
    def run(self) -> Path:
        """The folder it records into."""
        return Path(self.parameters["save_to"])

    def needs(self, other: Job) -> bool:
        return self.parameters.get("teacher") == str(other.run)


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
        study = notebook.make(Study, values)
    except notebook.ParameterError as error:
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


def plan(study: Study, runs: Path) -> list[list[Job]]:
    """Chains of jobs: per seed and target the teacher, then every student.

    Whatever can be known without training is checked here: parameters, objectives, strategies on curves of the length that
    each run will have, and that every model can be built. Raises ``StudyProblem`` naming the student.
    """
    options = {} if study.image_size is None else {"size": study.image_size}
    domains = load_domains(study.benchmark, **options)
    targets = study.targets if isinstance(study.targets, list) else [study.targets]
    targets = list(domains) if study.targets == "all" else targets
    for target in targets:
        if target not in domains:
            raise StudyProblem(f"{study.name}: {did_you_mean('target domain', target, domains)}")
    chains = [list(_chain(study, t, seed, runs / f"{t}-s{seed}")) for seed in study.seeds for t in targets]
    for job in chains[0]:
        cls = notebook.describe(job.notebook)
        try:
            _rehearse(cls(**job.parameters), domains.classes)
        except (ValueError, TypeError, UnknownName, OSError) as error:
            raise StudyProblem(f"{study.name}, {job.run.name}: {error}") from error
    return chains


def _chain(study: Study, target: str, seed: int, runs: Path) -> Iterator[Job]:
    shared = {
        "benchmark": study.benchmark,
        "image_size": study.image_size,
        "target": target,
        "seed": seed,
        "strategies": study.strategies,
    }
    teacher = None
    if study.teacher is not None:
        teacher = str(runs / "teacher")
        yield _job(study, TrainTeacher, f"{target}-s{seed}-teacher", {**shared, **study.teacher, "save_to": teacher})
    for label, own in study.students.items():
        given = {**shared, "teacher": teacher, **study.common, **(own or {})}
        given |= {"save_to": str(runs / label), "baseline": study.baseline}
        given.setdefault("window_map_grid", _map_grid(study, seed, label))
        yield _job(study, Distill, f"{target}-s{seed}-{label}", given)


def _map_grid(study: Study, seed: int, student: str) -> int:
    wanted = study.window_map
    seeds, students = wanted.get("seeds", study.seeds), wanted.get("students", list(study.students))
    return wanted.get("grid", 10) if wanted and seed in seeds and student in students else 0


NOTEBOOK_OF = {TrainTeacher: "01_train_teacher", Distill: "02_distill", Compare: "03_compare"}


def _job(study: Study, cls: type, name: str, given: Mapping) -> Job:
    try:
        complete = notebook.make(cls, given)
    except notebook.ParameterError as error:
        raise StudyProblem(f"{study.name}, {name}: {error}") from error
    return Job(name, NOTEBOOKS / f"{NOTEBOOK_OF[cls]}.ipynb", {f.name: getattr(complete, f.name) for f in fields(cls)})


def _rehearse(p: Training, classes: tuple[str, ...]) -> None:
    """Raises what training or averaging would raise later for a model, a step or a strategy's setting that cannot be."""
    objectives, teacher = combine(p.objectives), getattr(p, "teacher", None)
    if objectives.needs("teacher") and teacher is None:
        raise ValueError(f"the objectives {objectives.labels} learn from a teacher, and there is none.")
    build_model(p.model, classes, **{**p.student(), "pretrained": False})
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


class _Searching(Exception):
    """A strategy got as far as trying averages, so its settings are in order."""


def _stop(*_) -> float:
    raise _Searching


def run_study(
    which: str | os.PathLike | Study,
    *,
    cores: int | None = None,
    out: str | os.PathLike | None = None,
    runs: str | os.PathLike | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Train what is missing, execute and render every notebook, and return the page, ``<out>/index.html``.

    cores  trainings at once, one thread each; default all cores. Chains (a teacher and its students) run side by side.
    out    report folder, default reports/<name>;  runs  recordings, default runs/<name>
    A failed notebook is kept as *.failed.ipynb and named; everything that does not depend on it still runs, and then
    ``StudyProblem`` is raised.
    """
    study = which if isinstance(which, Study) else load_study(which)
    out = Path(out or REPORTS / study.name).resolve()
    runs = Path(runs or REPORTS.parent / "runs" / study.name).resolve()
    chains = plan(study, runs)
    cores = max(1, cores or _cores())
    workers = min(cores, len(chains))
    env = {"OMP_NUM_THREADS": str(cores // workers), "TQDM_DISABLE": "1"}
    progress = _Progress(sum(map(len, chains)), say)
    say(f"{study.name}: {progress.total} notebooks, {workers} at once")
    pool = ThreadPoolExecutor(workers)
    working = [pool.submit(_work, chain, out, env, progress) for chain in chains]
    try:
        for chain in working:
            chain.result()
    except BaseException:  # interrupted: a kernel would go on for a whole training, and continues from its last segment
        progress.stopping.set()
        pool.shutdown(wait=False, cancel_futures=True)
        while any(chain.running() for chain in working):
            notebook.kill_running()
            time.sleep(0.3)
        raise
    pool.shutdown()
    if progress.failed:
        raise StudyProblem(
            f"{study.name}: {len(progress.failed)} of {progress.total} notebooks were not executed "
            f"({', '.join(progress.failed)}). See *.failed.ipynb in {out / 'notebooks'}; what is done is kept."
        )
    return _page(study, chains, out, runs, env, progress)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Progress:
    """What all chains share: how far the study is, what failed, and whether to stop."""

    def __init__(self, total: int, say: Callable[[str], None]):
        self.total, self.say = total, say
        self.started, self.lock, self.stopping = time.time(), threading.Lock(), threading.Event()
        self.done, self.fresh, self.failed = 0, 0, []

    def finished(self, job: Job, *, fresh: bool, seconds: float) -> None:
        with self.lock:
            self.done, self.fresh = self.done + 1, self.fresh + fresh
            took = f"{seconds:.0f} s, {time.time() - self.started:.0f} s in all" if fresh else "done before"
            self.say(f"[{self.done}/{self.total}] {job.name} ({took})")

    def failure(self, job: Job, reason: object) -> None:
        with self.lock:
            self.failed.append(job.name)
            self.say(f"FAILED {job.name}: {reason}")


def _work(chain: list[Job], out: Path, env: dict, progress: _Progress) -> None:
    missing: list[Job] = []
    for job in chain:
        if progress.stopping.is_set():
            return
        clock = time.time()
        lost = next((other for other in missing if job.needs(other)), None)
        try:
            if lost:
                raise StudyProblem(f"its teacher {lost.name} failed.")
            fresh = _execute(job, chain, out, env)
        except Exception as error:  # other jobs do not depend on it; the report of all failures is raised at the end
            missing.append(job)
            if not progress.stopping.is_set():
                progress.failure(job, error)
        else:
            progress.finished(job, fresh=fresh, seconds=time.time() - clock)


def _execute(job: Job, chain: list[Job], out: Path, env: dict) -> bool:
    """Execute and render a notebook unless that was done with the same parameters; says whether it had to."""
    executed = _copy(job, out)
    page = executed.with_suffix(".html")
    fresh = not (notebook.recorded_parameters(executed) == job.parameters and (job.run / "settings.json").is_file())
    if fresh:
        for student in chain:  # what learned from another teacher is not done, even if this is killed halfway
            if student.needs(job):
                _copy(student, out).unlink(missing_ok=True)
        page.unlink(missing_ok=True)
        _put_aside(job, executed)
        notebook.execute(job.notebook, executed, job.parameters, cwd=NOTEBOOKS, env=env)
    if fresh or not page.exists():
        report.render(executed, page)
    return fresh


def _copy(job: Job, out: Path) -> Path:
    return out / "notebooks" / f"{job.name}.ipynb"


def _put_aside(job: Job, executed: Path) -> None:
    """A recording that stopped under other parameters cannot be continued; it makes way, and is kept."""
    stopped = [executed.with_suffix(".part.ipynb"), executed.with_suffix(".failed.ipynb")]
    began_with = next(filter(None, map(_parameters_of, stopped)), job.parameters)
    partial = recording_folder(job.run)
    if began_with != job.parameters and partial.exists():
        aside = recording_folder(job.run.with_name(f"{job.run.name}.before-{time.strftime('%Y%m%d-%H%M%S')}"))
        os.replace(partial, aside)


def _parameters_of(copy: Path) -> dict | None:
    try:
        return notebook.recorded_parameters(copy)
    except ValueError:  # written halfway
        return None


def _page(study: Study, chains: list[list[Job]], out: Path, runs: Path, env: dict, progress: _Progress) -> Path:
    """The comparison of all runs as the study's page; made again when any notebook was, or when it is not there."""
    jobs = [job for chain in chains for job in chain]
    pages = {"tables": {name: f"{name}.csv" for name in ("summary", "gains", "scores", "picks")}}
    for job in jobs:
        group = f"{job.parameters['target']}, seed {job.parameters['seed']}"
        address = urllib.parse.quote(f"notebooks/{job.name}.html")
        pages.setdefault(group, {})[job.run.name] = address
    given = {
        "about": study.about,
        "runs": str(runs),
        "only": [str(job.run.relative_to(runs)) for job in jobs],
        "strategies": labels_of(study.strategies),
        "baseline": study.baseline,
        "tables": str(out),
        "pages": pages,
    }
    job = _job(study, Compare, "03_compare", given)
    executed, index = _copy(job, out), out / "index.html"
    if progress.fresh or not index.exists() or notebook.recorded_parameters(executed) != job.parameters:
        notebook.execute(job.notebook, executed, job.parameters, cwd=NOTEBOOKS, env=env)
        report.render(executed, index, title=study.title or study.name)
    problems = [p for page in (index, *(out / "notebooks").glob("*.html")) for p in report.offline_problems(page)]
    if problems:
        raise StudyProblem(f"{out} is not self-contained: {'; '.join(problems[:5])}")
    progress.say(f"report: {index}")
    return index

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
from its last segment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from . import notebook, report
from .averaging import strategies as known_strategies
from .domains import load_domains
from .parameters import Compare, Distill, TrainTeacher
from .registry import did_you_mean

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
REPORTS = Path(__file__).parent.parent / "reports"


class StudyProblem(ValueError):
    """A study file that cannot be run; the message says what came, what fits and what to do."""


@dataclass(frozen=True)
class Study:
    """A study file, checked. ``title`` and ``about`` are shown on its page."""

    name: str
    seeds: list
    students: dict
    benchmark: str = "digits"
    image_size: int | None = None
    targets: str | list = "all"
    teacher: dict | None = None
    common: dict = field(default_factory=dict)
    strategies: list = field(default_factory=lambda: ["last", "best_val", "wakd", "swad", "sma", "ema"])
    window_map: dict = field(default_factory=dict)
    baseline: str = "last"
    title: str = ""
    about: str = ""


@dataclass(frozen=True)
class Job:
    """One notebook to execute: ``name`` is its file below the report's folder, without suffix."""

    name: str
    notebook: Path
    parameters: dict


def load_study(which: str | os.PathLike) -> Study:
    """A study by file, or by the name of one shipped under reports/. Raises ``StudyProblem`` in one sentence."""
    path = Path(which)
    if path.suffix not in (".yaml", ".yml"):
        shipped = {p.stem: p for p in REPORTS.glob("*.yaml")}
        if str(which) not in shipped:
            raise StudyProblem(did_you_mean("study", str(which), shipped))
        path = shipped[str(which)]
    if not path.is_file():
        raise StudyProblem(f"No study file at {path}.")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise StudyProblem(f"{path} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise StudyProblem(f"{path} should hold settings (name: value); it holds {type(values).__name__}.")
    try:
        study = notebook.make(Study, values)
    except notebook.ParameterError as error:
        raise StudyProblem(f"{path}: {error}") from error
    if not study.seeds or not study.students:
        raise StudyProblem(f"{path}: a study needs at least one seed and one student.")
    for strategy in study.strategies:
        name = strategy if isinstance(strategy, str) else strategy.get("name")
        if name not in known_strategies:
            raise StudyProblem(f"{path}: {did_you_mean('strategy', name, known_strategies)}")
    return study


def plan(study: Study, runs: Path) -> list[list[Job]]:
    """Chains of jobs: per target and seed the teacher, then every student. Parameters are validated here."""
    options = {} if study.image_size is None else {"size": study.image_size}
    domains = load_domains(study.benchmark, **options)
    targets = list(domains) if study.targets == "all" else list(study.targets)
    for target in targets:
        if target not in domains:
            raise StudyProblem(f"{study.name}: {did_you_mean('target domain', target, domains)}")
    return [_chain(study, target, seed, runs / f"{target}-s{seed}") for seed in study.seeds for target in targets]


def _chain(study: Study, target: str, seed: int, runs: Path) -> list[Job]:
    shared = {
        "benchmark": study.benchmark,
        "image_size": study.image_size,
        "target": target,
        "seed": seed,
        "strategies": study.strategies,
    }
    jobs = []
    if study.teacher is not None:
        given = {**shared, **study.teacher, "save_to": str(runs / "teacher")}
        jobs.append(_job(study, TrainTeacher, "01_train_teacher", f"{target}-s{seed}-teacher", given))
    for label, own in study.students.items():
        given = {**shared, "teacher": str(runs / "teacher") if study.teacher is not None else None}
        given |= {"window_map_grid": _map_grid(study, seed, label), **study.common, **(own or {})}
        given |= {"save_to": str(runs / label)}
        jobs.append(_job(study, Distill, "02_distill", f"{target}-s{seed}-{label}", given))
    return jobs


def _map_grid(study: Study, seed: int, student: str) -> int:
    wanted = study.window_map
    seeds, students = wanted.get("seeds", study.seeds), wanted.get("students", list(study.students))
    return int(wanted.get("grid", 10)) if wanted and seed in seeds and student in students else 0


def _job(study: Study, cls: type, stem: str, name: str, given: Mapping) -> Job:
    try:
        complete = notebook.make(cls, given)
    except notebook.ParameterError as error:
        raise StudyProblem(f"{study.name}, {name}: {error}") from error
    return Job(name, NOTEBOOKS / f"{stem}.ipynb", {f.name: getattr(complete, f.name) for f in fields(cls)})


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
    workers = max(1, min(cores or os.cpu_count() or 1, len(chains)))
    threads = str(max(1, (cores or os.cpu_count() or 1) // workers))
    total, started, done, problems = sum(map(len, chains)), time.time(), 0, []
    say(f"{study.name}: {total} notebooks, {workers} at once")

    def work(chain: list[Job]) -> None:
        nonlocal done
        for job in chain:
            clock = time.time()
            try:
                fresh = _execute(job, out, {"OMP_NUM_THREADS": threads, "TQDM_DISABLE": "1"})
            except Exception as error:  # the report of all failures is raised at the end
                problems.append(f"{job.name}: {error}")
                say(f"FAILED {job.name}: {error}")
                return
            done += 1
            took = f"{time.time() - clock:.0f} s" if fresh else "done before"
            say(f"[{done}/{total}] {job.name} ({took}, {time.time() - started:.0f} s in all)")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, chains))
    if problems:
        raise StudyProblem(
            f"{study.name}: {len(problems)} notebook(s) failed, see *.failed.ipynb in {out / 'notebooks'}."
        )
    return _page(study, chains, out, runs, say)


def _execute(job: Job, out: Path, env: dict) -> bool:
    """Execute and render a notebook unless that was done with the same parameters; says whether it had to."""
    executed = out / "notebooks" / f"{job.name}.ipynb"
    page = executed.with_suffix(".html")
    fresh = notebook.recorded_parameters(executed) != job.parameters
    if fresh:
        notebook.execute(job.notebook, executed, job.parameters, cwd=NOTEBOOKS, env=env)
    if fresh or not page.exists():
        report.render(executed, page)
    return fresh


def _page(study: Study, chains: list[list[Job]], out: Path, runs: Path, say: Callable[[str], None]) -> Path:
    pages = {job.name: f"notebooks/{job.name}.html" for chain in chains for job in chain}
    given = {
        "title": study.title or study.name,
        "runs": str(runs),
        "baseline": study.baseline,
        "tables": str(out),
        "pages": pages,
    }
    job = _job(study, Compare, "03_compare", "03_compare", given)
    executed = out / "notebooks" / "03_compare.ipynb"
    notebook.execute(job.notebook, executed, job.parameters, cwd=NOTEBOOKS, env={"TQDM_DISABLE": "1"})
    index = report.render(executed, out / "index.html", title=study.title or study.name)
    problems = report.offline_problems(index)
    if problems:
        raise StudyProblem(f"{index} is not self-contained: {'; '.join(problems)}")
    say(f"report: {index}")
    return index

"""A study: targets x seeds x students, described by one small YAML file, run through notebooks, ending in one page.

What is done already is not done again: a finished notebook with the same parameters is kept, a killed training continues
from its last segment. Delete a notebook's copy to have it executed again; trainings that are recorded stay.
"""

from __future__ import annotations

import os
import threading
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import notebook, report
from .averaging import labels_of
from .parameters import Compare
from .planning import NOTEBOOKS, REPORTS, Job, Study, StudyProblem, job_of, load_study, plan
from .run import recording_folder


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
                raise StudyProblem(f"its {'teacher' if job.records else 'run'} {lost.name} failed.")
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
        for other in chain:  # what learned from another teacher is not done, even if this is killed halfway
            if other.needs(job):
                _copy(other, out).unlink(missing_ok=True)
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
    pages = {"tables": {name: f"{name}.csv" for name in ("summary", "gains", "scores", "picks")}}
    for chain in chains:
        group = f"{chain[0].parameters['target']}, seed {chain[0].parameters['seed']}"
        names = [job.run.name if job.records else f"landscape of {job.run.name}" for job in chain]
        pages[group] = {n: urllib.parse.quote(f"notebooks/{job.name}.html") for n, job in zip(names, chain)}
    jobs = [job for chain in chains for job in chain if job.records]
    given = {
        "about": study.about,
        "runs": str(runs),
        "only": [str(job.run.relative_to(runs)) for job in jobs],
        "strategies": labels_of(study.strategies),
        "baseline": study.baseline,
        "tables": str(out),
        "pages": pages,
    }
    job = job_of(study, Compare, "03_compare", given)
    executed, index = _copy(job, out), out / "index.html"
    if progress.fresh or not index.exists() or notebook.recorded_parameters(executed) != job.parameters:
        notebook.execute(job.notebook, executed, job.parameters, cwd=NOTEBOOKS, env=env)
        report.render(executed, index, title=study.title or study.name)
    problems = [p for page in (index, *(out / "notebooks").glob("*.html")) for p in report.offline_problems(page)]
    if problems:
        raise StudyProblem(f"{out} is not self-contained: {'; '.join(problems[:5])}")
    progress.say(f"report: {index}")
    return index

"""A study: targets x seeds x students, described by one small YAML file, run through notebooks, ending in one page.

What is done already is not done again: a notebook that was executed with the same parameters, by the same code, on the same
results before it is kept, and a killed training continues from its last segment. Jobs are run by snakemake where it is
installed (``pip install snakemake``), several at once, here or on a cluster; else one after the other.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..files import Held, holder, locked, path_of, recording_folder, write_text
from ..models import device
from ..reporting import warm
from ..runs.settings import AS_STORED
from . import cluster
from . import jobs as job_files
from . import status as told
from .jobs import (
    Job,
    Place,
    accepted,
    attempt,
    changed,
    describe,
    failure,
    lost,
    pending,
    present,
    retrained,
    said_of,
    show_missing,
)
from .places import NOTEBOOKS, REPORTS, StudyProblem, another_at, beside, file_of, name_of, remember
from .plan import plan
from .reading import contents_of
from .search import search_of
from .specification import Study, load_study

__all__ = ["NOTEBOOKS", "REPORTS", "Study", "StudyProblem", "load_study", "plan", "planned", "run_study", "status"]

WORKFLOW = Path(__file__).parent


def run_study(
    which: str | os.PathLike | Study,
    *,
    cores: int | None = None,
    gpus: int | None = None,
    profile: str | None = None,
    engine: str | None = None,
    out: str | os.PathLike | None = None,
    runs: str | os.PathLike | None = None,
    keep_recordings: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Train what is missing, execute and render every notebook, and return the page, ``<out>/index.html``.

    cores    processor cores to use, default all; several notebooks run side by side where snakemake is installed
    gpus     notebooks that train on an accelerator at one time, default one on each that torch sees; more than there are share
             them, 0 computes on the processor
    profile  a snakemake profile: "slurm", which is shipped, or a folder with a config.yaml of your own
    engine   "snakemake" or "sequential", default snakemake where it is installed
    out      report folder, default reports/<name>;  runs  recordings, default runs/<name>: beside a file of one's own
    keep_recordings  accept finished recordings that this code would make otherwise, as they are; those of other settings are
                     put aside and recorded again
    A failed notebook is kept as *.failed.ipynb and named; everything that does not depend on it still runs, the page is made
    of what is there and says what is missing, and then ``StudyProblem`` is raised; so it is when another process runs the
    same study.
    """
    _refuse(cores, gpus, profile)
    engine = engine or ("snakemake" if profile or importlib.util.find_spec("snakemake") else "sequential")
    if engine not in ("snakemake", "sequential"):
        raise ValueError(f"engine is 'snakemake' or 'sequential'; got {engine!r}.")
    study, place = _placed(which, out, runs)
    # where nothing was ever done there is something to do, and everything is imported while the study is planned; jobs of a
    # profile are processes of their own, maybe on other machines
    fresh = engine == "snakemake" and not place.engine.exists()
    warmed = contextlib.nullcontext(({}, [])) if profile else warm.started(at_once=fresh)
    options = {"cores": cores or device.cores(), "gpus": gpus, "profile": profile, "keep_recordings": keep_recordings}
    with warmed as (env, keeps):
        jobs = _jobs(study, place)
        return _run(study, place, jobs, _file(which), engine, env, keeps, say=say, **options)


def _run(
    study: Study,
    place: Place,
    jobs: list[Job],
    file: Path | None,
    engine: str,
    env: dict[str, str],
    keeps: list[int],
    *,
    cores: int,
    gpus: int | None,
    profile: str | None,
    keep_recordings: bool,
    say: Callable[[str], None],
) -> Path:
    place.prepare()
    hidden = (
        _devices(0) if gpus == 0 else {}
    )  # notebooks that are executed from here take one after the other what there is
    try:
        with locked(place.engine / "lock", owner=f"wakd report {study.name}") as lock:
            if file:
                write_text(place.engine / "study.json", json.dumps(_names(file, place)))
                remember(file, place.out, place.runs)
            _say_how_searched(study, place)

            def do(ready: Sequence[Job]) -> str:
                if engine == "snakemake":
                    command = _words(ready, place, cores, gpus, profile)
                    own = {**env, **({"WAKD_GPUS": ""} if profile else _devices(gpus))}
                    return _snakemake(command, place, [lock.fileno(), *keeps], own, say if profile else None)
                _one_by_one(ready, place, {"OMP_NUM_THREADS": str(cores), **env, **hidden}, say)
                return ""

            said, then = "", None
            while jobs != then:  # what waits for a search is planned anew once that has found its settings
                if keep_recordings:
                    _accept(jobs, place)
                said = _round(study, jobs, place, do, say)
                jobs, then = _jobs(study, place) if study.search else jobs, jobs
            left = _with_what_is_there(jobs, place, hidden, say)
    except Held as other:
        raise StudyProblem(
            f"{study.name} is being run: {told.who(str(other))}. Wait for it, look at it with wakd status, or stop it first."
        ) from None
    if left:
        names = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        failed = [f"{job.name}: {why}" for job in jobs if (why := failure(job, place) or lost(job, place))]
        why = f"{failed[0]} See wakd status." if failed else f"The engine stopped{said}."
        page = place.out / "index.html"
        shown = f" {page} shows what is there." if page.is_file() and failed else ""
        raise StudyProblem(
            f"{study.name}: {len(left)} of {len(jobs)} notebooks were not executed ({names}). {why} What is done is kept.{shown}"
        )
    say(f"report: {place.out / 'index.html'}")
    return place.out / "index.html"


def _refuse(cores: int | None, gpus: int | None, profile: str | None) -> None:
    """Raises ``ValueError`` for what no study can be run with."""
    for name, given, least in (("cores", cores, 1), ("gpus", gpus, 0)):
        if given is not None and given < least:
            raise ValueError(f"{name} is {least} or more; got {given}.")
    if profile:
        cluster.executor_of(profile)  # or says what it needs


def _say_how_searched(study: Study, place: Place) -> None:
    """For the captions of whatever is made of these recordings."""
    file, search = place.runs / "search" / "rule.json", search_of(study.search)
    if search:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps({"rule": search.rule, "draws": search.draws, "by": search.by or study.baseline}))
    else:
        file.unlink(missing_ok=True)


def _round(
    study: Study, jobs: Sequence[Job], place: Place, do: Callable[[Sequence[Job]], str], say: Callable[[str], None]
) -> str:
    """Do what is not open, and return the last that the engine said if it failed."""
    ready = [job for job in jobs if not job.open]
    describe(jobs, place)
    waiting = pending(jobs, place)
    for name in waiting:
        place.file("stamps", name).unlink(missing_ok=True)
    for job in jobs:
        if job.name not in waiting:
            job_files.stamp(job, place)
    say(f"{study.name}: {len(waiting)} of {len(jobs)} notebooks to do")
    for line in _what_is_known(jobs, place):
        say(line)
    needed, free, sentence = _space(jobs, waiting, place)
    if needed > free:
        raise StudyProblem(
            f"{study.name}: {sentence} Pass --runs with a folder on a larger disk, set storage: float16_difference or "
            "a smaller most_stored for the teacher and in common, or ask for fewer seeds."
        )
    if needed:
        say(sentence + _taught(jobs, waiting))
    return "" if waiting.keys().isdisjoint(job.name for job in ready) else do(ready)


def planned(
    which: str | os.PathLike | Study,
    *,
    out: str | os.PathLike | None = None,
    runs: str | os.PathLike | None = None,
    keep_recordings: bool = False,
    cores: int | None = None,
    gpus: int | None = None,
    profile: str | None = None,
) -> list[str]:
    """What ``run_study`` would do, a line per notebook with the reason; nothing is written, and what it refuses is refused."""
    _refuse(cores, gpus, profile)
    study, place, jobs = _planned(which, out, runs)
    waiting = pending(jobs, place)
    lines = [f"{name}: {why}" for name, why in waiting.items()]
    lines += _what_is_known(jobs, place, keep_recordings=keep_recordings)
    needed, _, sentence = _space(jobs, waiting, place, keep_recordings=keep_recordings)
    lines += [sentence + _taught(jobs, waiting)] if needed else []
    return [*lines, f"{study.name}: {len(waiting)} of {len(jobs)} notebooks to do"]


def status(
    which: str | os.PathLike | Study, *, out: str | os.PathLike | None = None, runs: str | os.PathLike | None = None
) -> tuple[pd.DataFrame, str]:
    """Every notebook of a study as it was planned last: ``name, kind, state, seconds, step, steps, said``, and a sentence with what
    is left of it.

    state    done, running, failed or waiting;  seconds  it took, of those that are done, or has been running
    The time left is what notebooks of each kind took on average, over as many as are running, at least one.
    """
    if isinstance(which, Study):
        _, place, jobs = _planned(which, out, runs)
        waiting = pending(jobs, place)
        rows = [told.row_of(job, place, waiting) for job in jobs]
    else:
        place = told.place_of(which, out, runs)
        rows = told.rows_of(place)
    name = which.name if isinstance(which, Study) else name_of(file_of(which))
    table = pd.DataFrame(rows, columns=["name", "kind", "state", "seconds", "step", "steps", "said"])
    return table, told.sentence_of(name, place, rows)


def _planned(which: str | os.PathLike | Study, out, runs) -> tuple[Study, Place, list[Job]]:
    study, place = _placed(which, out, runs)
    return study, place, _jobs(study, place)


def _jobs(study: Study, place: Place) -> list[Job]:
    usual = {beside(study.name, folder and folder / "x.yaml") / "reports" for folder in (None, place.home)}
    return plan(study, place, listed=place.out.parent in {folder.resolve() for folder in usual})


def _placed(which: str | os.PathLike | Study, out, runs) -> tuple[Study, Place]:
    study, file = which if isinstance(which, Study) else load_study(which), _file(which)
    own = {"reports": out, "runs": runs}
    usual = beside(study.name, file)
    own = [path_of(given or usual / kind / study.name).resolve() for kind, given in own.items()]
    for folder, name in zip(own, ("out", "runs")):
        there = next(above for above in (folder, *folder.parents) if os.path.exists(above))
        if not there.is_dir():
            raise StudyProblem(f"{there} is no folder; give another --{name}.")
    place = Place(*own, file and file.parent)
    if file and runs is None:
        _refuse_another(study, file, place)
    return study, place


def _file(which: str | os.PathLike | Study) -> Path | None:
    return None if isinstance(which, Study) else file_of(which).resolve()


def _names(file: Path, place: Place) -> dict[str, object]:
    """A study's file as it is kept beside its recordings: where it is, and where from there, for both may be moved, and what it
    says, and what it extends."""
    command = f"wakd report {file.stem if file.parent == REPORTS.resolve() else file.name}"
    there = {"file": str(file), "from_here": os.path.relpath(file, place.engine)}
    return {**there, "command": command, "content": [*contents_of(file).values()]}


def _refuse_another(study: Study, file: Path, place: Place) -> None:
    """Two studies of one name do not take over each other's folders; one of another name went on with these recordings."""
    other = another_at(file, place.engine)
    if other and name_of(other) == study.name:
        raise StudyProblem(
            f"{file}: {place.runs} holds the recordings of {other}, which is called {study.name!r} as well. Give one of them "
            "another name, or pass --runs and --out."
        )


def _what_is_known(jobs: Sequence[Job], place: Place, *, keep_recordings: bool = False) -> list[str]:
    """Sentences on finished recordings that would be another one now, and on those of which not all is known."""
    why = {job.name: found for job in jobs if (found := retrained(job, place))}
    fit = {job.name for job in jobs if job.name in why and _acceptable(job, place)}
    again = [name for name in why if not (keep_recordings and name in fit)]
    lines = []
    if again:
        other = " --keep-recordings accepts other code of the kit, not other settings or an edited objective."
        lines.append(
            f"{len(again)} finished recordings were made otherwise and are recorded again, such as {again[0]} ({why[again[0]]}); the "
            "old ones are kept as *.before-*."
            + (f" --keep-recordings accepts {len(fit)} of them as they are." if fit and not keep_recordings else other)
        )
    known = [found for job in jobs if job.name not in why and (found := accepted(job, place))]
    for what in dict.fromkeys(known):
        of = "before the code of recordings was told as it is now" if what == "code" else f"with {what}"
        lines.append(
            f"{known.count(what)} finished recordings were made {of}; all else is the same, and they are kept."
        )
    return lines


def _space(
    jobs: Sequence[Job], waiting: Mapping[str, str], place: Place, *, keep_recordings: bool = False
) -> tuple[int, int, str]:
    """Bytes that recordings which are not there yet will take at most, bytes that are free, and both in a sentence."""
    kept = {job.name for job in jobs if keep_recordings and retrained(job, place) and _acceptable(job, place)}
    needed = sum(_missing(job, place) for job in jobs if job.name in waiting and job.records and job.name not in kept)
    free = shutil.disk_usage(next(folder for folder in (place.runs, *place.runs.parents) if folder.is_dir())).free
    return (
        needed,
        free,
        f"Recordings take at most {_in_bytes(needed)} more, and {place.runs} has {_in_bytes(free)} free.",
    )


def _in_bytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _taught(jobs: Sequence[Job], waiting: Mapping[str, str]) -> str:
    """A sentence on what the teachers of these jobs will take in the cache; empty where nothing is kept."""
    students = [job for job in jobs if job.name in waiting and job.taught and not job.run.exists()]
    by_teacher: dict[str, int] = {}
    for job in students:
        same = json.dumps([job.parameters[name] for name in ("teacher", "target", "seed", "batch_size", "sampling")])
        by_teacher[same] = max(job.taught, by_teacher.get(same, 0))
    most = max((1e9 * job.parameters["teacher_cache"] for job in students), default=0)
    taken = min(sum(by_teacher.values()), most)
    return f" What teachers give takes at most {_in_bytes(taken)} of the cache." * bool(taken)


def _missing(job: Job, place: Place) -> int:
    if job.run.exists():
        return job.disk if retrained(job, place) else 0
    begun = recording_folder(job.run).rglob("*")
    return max(0, job.disk - sum(file.stat().st_size for file in begun if file.is_file()))


def _accept(jobs: Sequence[Job], place: Place) -> None:
    for job in jobs:
        if retrained(job, place) and _acceptable(job, place):
            job_files.begin(job, place)


def _acceptable(job: Job, place: Place) -> bool:
    """Whether ``train`` takes a finished recording as it is: what differs is the kit's code, or how it is stored or computed."""
    return all(name.startswith("code of ") or name in AS_STORED for name in changed(job, place))


def _one_by_one(jobs: Sequence[Job], place: Place, env: Mapping[str, str], say: Callable[[str], None]) -> None:
    failed: set[str] = set()
    for job in jobs:
        if job.over_all and failed:
            continue
        if lost := next((name for name in job.after if name in failed), None):
            failed.add(job.name)
            say(f"FAILED {job.name}: {lost}, which it needs, failed.")
            continue
        try:
            done = attempt(job, place, env=env, say=say)
        except KeyboardInterrupt:  # a kernel would go on for a whole training, and continues from its last segment
            from ..reporting import execute  # imported by the job that runs; a dry run does not wait for papermill

            execute.kill_running()
            raise
        failed |= set() if done else {job.name}


def _with_what_is_there(
    jobs: Sequence[Job], place: Place, env: Mapping[str, str], say: Callable[[str], None]
) -> list[str]:
    """Names of what is still to do. Where all of it failed or waits for what did, notebooks over all runs go without it."""
    left, gone = pending(jobs, place), {}
    for job in jobs:
        if job.name in left and not job.over_all:
            said = said_of(job, place) or lost(job, place)
            waits = next((f"waits for {name}, which is not there" for name in job.after if name in gone), "")
            if job.open and gone:  # draws come first
                waits = waits or "waits for a search of which draws are not there"
            if not (said or waits):
                return list(left)
            gone[job.name] = said or waits
            show_missing(job, place, gone[job.name])
    for job in jobs:
        if job.over_all and not gone and failure(job, place):  # the engine has tried
            gone[job.name] = said_of(job, place)
        elif job.over_all and gone and job.name in left:
            if attempt(present(job, gone), place, env=env, say=say):
                del left[job.name]
            else:  # the page of the others does not depend on it
                gone[job.name] = said_of(job, place)
    return list(left)


def _words(jobs: Sequence[Job], place: Place, cores: int, gpus: int | None, profile: str | None) -> list[str]:
    """How snakemake is called for these jobs. How many threads each has is the profile's to say where there is one."""
    at_once = max(1, sum(not job.after for job in jobs), 0 if profile else len(_slots(gpus)))
    threads = max(1, cores // at_once)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW / "Snakefile")]
    command += ["--directory", str(place.engine), "--rerun-triggers", "mtime"]
    # the lock of the study is held; snakemake's own would have to be broken by hand after a kill
    command += ["--nolock", "--rerun-incomplete", "--keep-going", "--scheduler", "greedy"]
    command += ["--config", f"threads={threads}", f"gpu={int(gpus != 0)}"]
    if profile:
        return command + cluster.words(profile)
    return command + ["--cores", str(cores)] + (["--resources", f"gpu={n}"] if (n := len(_slots(gpus))) else [])


def _snakemake(
    command: Sequence[str], place: Place, keeps: list[int], env: Mapping[str, str], say: Callable[[str], None] | None
) -> str:
    """Run the study's engine; returns the last that it said, if it failed. It inherits ``keeps``, the study's lock and what
    keeps the warm process that ``env`` names, which therefore end with the last of the two. Jobs that cannot say for
    themselves that they are done are said through ``say``."""
    said = place.engine / "logs" / "snakemake.log"
    keeps = keeps if os.name == "posix" else []
    with (
        open(said, "wb") as log,
        subprocess.Popen(command, pass_fds=keeps, env={**os.environ, **env}, stderr=log) as engine,
    ):
        try:
            if say:
                _watch(engine, place, say)
            else:
                with _killed_as_by_ctrl_c():
                    engine.wait()
        except KeyboardInterrupt:
            # Ctrl-C reaches it too: it ends its jobs, on a cluster as well, and that takes a while
            engine.wait() if say else _end(engine, place)
            raise
    if not engine.returncode:
        return ""
    text = said.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith(("Shutting down", "Complete log"))]
    why = (
        f": the cluster took no job: {why}" if (why := cluster.refused(text)) else f", and said: {' '.join(lines[-2:])}"
    )
    return f"{why} (all of it: {said})"


@contextlib.contextmanager
def _killed_as_by_ctrl_c():
    """SIGTERM, which ``kill`` sends, and systemd, and a cluster whose time is up, is a KeyboardInterrupt to the main thread."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _end(engine: subprocess.Popen, place: Place) -> None:
    """Have an engine of this machine begin no more jobs, and kill those that work: they go on from what they recorded."""
    engine.terminate()
    while engine.poll() is None:
        for lock in (place.engine / "locks").iterdir():
            if process := told.process_of(holder(lock) or ""):
                with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended, or is a colleague's
                    os.kill(process, warm.KILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.wait(timeout=1)


def _watch(engine: subprocess.Popen, place: Place, say: Callable[[str], None]) -> None:
    """Say which jobs are done while the engine works."""

    def stamped() -> set[str]:
        return {file.name for file in (place.engine / "stamps").glob("*")}  # snakemake removes an empty folder

    known = stamped()
    while engine.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.wait(timeout=3)
        for name in sorted(stamped() - known):
            known.add(name)
            say(f"[{len(known)}/{len(list((place.engine / 'jobs').iterdir()))}] {name}")


def _devices(gpus: int | None) -> dict[str, str]:
    """The environment that shares out accelerators, see ``jobs.one_gpu``; where none is wanted, one in which there is none."""
    return {"CUDA_VISIBLE_DEVICES": "", "WAKD_GPUS": ""} if gpus == 0 else {"WAKD_GPUS": ",".join(_slots(gpus))}


def _slots(gpus: int | None) -> list[str]:
    """The accelerator of each of ``gpus`` notebooks that train at one time, as CUDA_VISIBLE_DEVICES names it; none without one."""
    import torch

    there = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")  # those that this process was given, or all
    names = names[:there] if names[0] else [str(number) for number in range(there)]
    return [names[slot % there] for slot in range(there if gpus is None else gpus)] if there else []

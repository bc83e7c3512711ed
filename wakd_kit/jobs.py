"""One step of a study: a notebook with complete parameters, what it waits for, and whether it is done.

    python -m wakd_kit.jobs runs/quickstart/engine/jobs/sketch-s0-KD.json

is what an engine calls, on this machine or another that sees the same folders. A job is done when its notebook was executed
with these parameters, by this code, on these results of the jobs before it. It holds a lock while it works, so one that
outlives a killed engine is waited for, and never written beside.

    runs/<study>/engine/jobs/*.json      what each job is; written by ``wakd report``, read by everything here
    runs/<study>/engine/done/*.json      what each was when it was done, its result and its seconds
    runs/<study>/engine/began/*.json     what the recording at its place was started with
    runs/<study>/engine/stamps/          for the engine: a file per job that is done, which it may delete
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .files import Held, holder, locked, recording_folder, write_text

# parameters that no recorded number depends on; strategies only decide which segment edges are kept
NOT_RECORDED = {"save_to", "teacher", "window_map_grid", "baseline", "deploy"}


@dataclass(frozen=True)
class Job:
    """One notebook to execute: ``name`` is its file below the report's folder, without suffix.

    after     names of the jobs whose results it reads; a student's teacher comes first
    training  digests of the code that decides what it records; empty if it records nothing
    analysis  digests of the code behind everything else in it
    page      of the comparison: what its page links to
    disk      bytes that what it records takes at most
    """

    name: str
    notebook: Path
    parameters: dict
    after: tuple[str, ...] = ()
    training: dict[str, str] = field(default_factory=dict)
    analysis: dict[str, str] = field(default_factory=dict)
    page: dict = field(default_factory=dict)
    disk: int = 0

    @property
    def records(self) -> bool:
        """Whether it trains, and does not only look at what was recorded."""
        return "save_to" in self.parameters

    @property
    def run(self) -> Path | None:
        """The folder it records into, or looks at; None for one that looks at many."""
        place = self.parameters.get("save_to") or self.parameters.get("run")
        return Path(place) if place else None

    @property
    def kind(self) -> str:
        return self.notebook.stem


@dataclass(frozen=True)
class Place:
    """Where a study keeps things. ``out`` is the report's folder, ``runs`` that of its recordings."""

    out: Path
    runs: Path

    @property
    def engine(self) -> Path:
        return self.runs / "engine"

    def file(self, kind: str, job: str) -> Path:
        return self.engine / kind / (job if kind in ("stamps", "locks") else f"{job}.json")

    def executed(self, job: Job) -> Path:
        return self.out / "notebooks" / f"{job.name}.ipynb"

    def rendered(self, job: Job) -> Path:
        return self.out / "index.html" if job.page else self.executed(job).with_suffix(".html")

    def failed(self, job: Job) -> Path:
        return self.executed(job).with_suffix(".failed.ipynb")

    def prepare(self) -> None:
        for kind in ("jobs", "done", "began", "stamps", "locks", "logs"):
            (self.engine / kind).mkdir(parents=True, exist_ok=True)
        self.out.mkdir(parents=True, exist_ok=True)


def describe(jobs: Iterable[Job], place: Place) -> None:
    """Write what every job is, touching only files whose content changes; files of jobs that are no more are removed."""
    place.prepare()
    named = set()
    for job in jobs:
        text = json.dumps(
            {**asdict(job), "notebook": str(job.notebook), "out": str(place.out), "runs": str(place.runs)}
        )
        file = place.file("jobs", job.name)
        named.add(file)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)
    for kind in ("jobs", "stamps"):
        for file in (place.engine / kind).iterdir():
            if place.file("jobs", file.name.removesuffix(".json")) not in named:
                file.unlink()


def read(file: str | os.PathLike) -> tuple[Job, Place]:
    """A job as ``describe`` wrote it, and where it works."""
    values = json.loads(Path(file).read_text(encoding="utf-8"))
    place = Place(Path(values.pop("out")), Path(values.pop("runs")))
    return Job(**{**values, "notebook": Path(values["notebook"]), "after": tuple(values["after"])}), place


def reason(job: Job, place: Place) -> str | None:
    """Why a job has to be done, in a few words; None when it is done."""
    then = done(job, place)
    if not then:
        return "failed before" if place.failed(job).exists() else "new"
    if not place.executed(job).is_file():
        return "its notebook is gone"
    if not place.rendered(job).is_file():
        return "its page is gone"
    if job.records and not (job.run / "settings.json").is_file():
        return "its recording is gone"
    for what in ("parameters", "training", "analysis", "page"):
        if differ := _differs(getattr(job, what), then[what]):
            said = {"parameters": "", "training": "code of ", "analysis": "code of ", "page": "its page's "}[what]
            return f"{said}{differ} changed"
    before = {name: _json(place.file("done", name)).get("result") for name in job.after}
    differ = [name for name, result in before.items() if result and then["before"].get(name) != result]
    return f"result of {', '.join(differ[:3])} changed" if differ else None


def done(job: Job, place: Place) -> dict:
    """What a job was when it was done, with its ``result`` and ``seconds``; empty if it was not."""
    return _json(place.file("done", job.name))


def pending(jobs: Iterable[Job], place: Place) -> dict[str, str]:
    """``{name: why}`` of every job that has to be done, or looked at again because one before it has to."""
    found: dict[str, str] = {}
    for job in jobs:
        why = reason(job, place) or next((f"after {name}" for name in job.after if name in found), None)
        if why:
            found[job.name] = why
    return found


def retrained(job: Job, place: Place) -> str:
    """What makes the finished recording of a job another one than it would record now; empty when it can stay."""
    began = _json(place.file("began", job.name))
    if not (job.records and began and job.run.exists()):
        return ""
    now, then = _recording(job, place), began["recording"]
    if None in now["the teacher"]:  # it is not done yet, so nobody knows whether it is another one
        now, then = ({**recording, "the teacher": None} for recording in (now, then))
    return _differs(now, then)


def perform(
    job: Job, place: Place, *, env: Mapping[str, str] | None = None, say: Callable[[str], None] = print
) -> bool:
    """Execute and render a notebook unless it is done; returns whether it had to.

    A notebook that fails is kept as *.failed.ipynb and raises ``NotebookFailed``; a recording that its settings or its code
    could no longer make is kept under another name. Waits for another process that is at the same job.
    """

    def waits(who: str) -> None:
        say(f"waiting for {job.name}: {who}")

    with locked(place.file("locks", job.name), wait=waits):
        why = reason(job, place)
        if why is None:
            stamp(job, place)
            return False
        from . import notebook, report  # papermill and matplotlib, which a job that is done does not wait for

        clock = time.time()
        place.file("done", job.name).unlink(missing_ok=True)
        executed, rendered = place.executed(job), place.rendered(job)
        rendered.unlink(missing_ok=True)
        if job.records:
            _wait_for_recording(job, waits)
            _make_way(job, place, say)
        before = {name: _json(place.file("done", name)).get("result") for name in job.after}
        notebook.execute(
            job.notebook,
            executed,
            job.parameters,
            cwd=job.notebook.parent,
            env={**(env or {}), "TQDM_DISABLE": "1"},
            checked=True,
        )
        if job.page:
            _publish(job, place, say)
        else:
            report.render(executed, rendered)
        record = {what: getattr(job, what) for what in ("parameters", "training", "analysis", "page")}
        record |= {"before": before, "result": _result(job), "teaches": _teaches(job)}
        record |= {"why": why, "seconds": round(time.time() - clock, 1), "at": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_text(place.file("done", job.name), json.dumps(record))
        stamp(job, place)
    return True


def _publish(job: Job, place: Place, say: Callable[[str], None]) -> None:
    from . import pages, report

    notebooks = {(target, seed): named for target, seed, named in job.page["notebooks"]}
    named = {name: job.page[name] for name in ("title", "also", "listed")}
    said = pages.publish(place.executed(job), place.out, notebooks=notebooks, **named)
    if named["listed"]:
        pages.overview(place.out.parent)
    problems = [problem for page in place.out.rglob("*.html") for problem in report.offline_problems(page)]
    if problems:
        raise ValueError(f"{place.out} is not self-contained: {'; '.join(problems[:5])}")
    say(said)


def stamp(job: Job, place: Place) -> None:
    """Tell the engine that a job is done; a stamp that says so already is left alone."""
    file, result = place.file("stamps", job.name), done(job, place)["result"]
    if not file.exists() or file.read_text() != result:
        write_text(file, result)


def _wait_for_recording(job: Job, waits: Callable[[str], None]) -> None:
    """A kernel whose engine was killed goes on for a moment."""
    lock = recording_folder(job.run) / "lock"
    with contextlib.suppress(FileNotFoundError):  # it may finish meanwhile
        if holder(lock):
            with locked(lock, wait=waits):
                pass


def _make_way(job: Job, place: Place, say: Callable[[str], None]) -> None:
    """A recording that this job would not make, or could not continue, is kept under another name."""
    began = _json(place.file("began", job.name))
    # edges follow from strategies: a finished recording serves others, an unfinished one cannot be continued with them
    now = json.loads(json.dumps({"recording": _recording(job, place), "strategies": job.parameters.get("strategies")}))
    partial = recording_folder(job.run)
    for folder, other in (
        (job.run, began and _differs(now["recording"], began["recording"])),
        (
            partial,
            began and (_differs(now["recording"], began["recording"]) or began["strategies"] != now["strategies"]),
        ),
    ):
        if folder.exists() and other:
            aside = job.run.with_name(f"{job.run.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
            aside = recording_folder(aside) if folder == partial else aside
            os.replace(folder, aside)
            say(f"{job.name}: {folder.name} was recorded otherwise ({other}); it is kept as {aside.name}")
    begin(job, place)


def begin(job: Job, place: Place) -> None:
    """Write what the recording at a job's place is: made with these settings, by this code, from this teacher."""
    now = {"recording": _recording(job, place), "strategies": job.parameters.get("strategies")}
    write_text(place.file("began", job.name), json.dumps(now))


def _recording(job: Job, place: Place) -> dict:
    """What decides a recording: settings, code, and what its teacher deployed."""
    taught = [_json(place.file("done", name)).get("teaches") for name in job.after]
    parameters = {n: v for n, v in job.parameters.items() if n not in NOT_RECORDED | {"strategies"}}
    return {**parameters, **{f"code of {n}": digest for n, digest in job.training.items()}, "the teacher": taught}


def _differs(now: dict, then: dict) -> str:
    now = json.loads(json.dumps(now))
    return ", ".join(sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name)))


def _teaches(job: Job) -> str:
    """What a recording stands for as a teacher: its settings, its last segment, and which average it deployed."""
    if not job.records:
        return ""
    segments = job.run / "segments"
    last = json.loads((segments / "index.json").read_text(encoding="utf-8"))[-1]["file"]
    return _digest(job.run / "settings.json", segments / last, job.run / "deployed.json")


def _result(job: Job) -> str:
    """What later jobs may read of this one."""
    if job.run is None:
        return _digest()
    names = ("choices.json", "scores.csv", "window_map.csv") if job.records else ("landscape/plane.csv",)
    return _digest(*(job.run / name for name in names), said=_teaches(job))


def _digest(*files: Path, said: str = "") -> str:
    found = hashlib.sha256(said.encode())
    for file in files:
        found.update(file.read_bytes() if file.exists() else b"-")
    return found.hexdigest()[:16]


def _json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


@contextlib.contextmanager
def one_gpu(place: Place, job: Job):
    """Environment with one of ``WAKD_GPUS`` devices that no other job of the study uses; none where that is not set."""
    for device in range(int(os.environ.get("WAKD_GPUS") or 0) if job.records else 0):
        with contextlib.suppress(Held), locked(place.engine / f"gpu-{device}", owner=job.name):
            yield {"CUDA_VISIBLE_DEVICES": str(device)}
            return
    yield {}


def main(arguments: list[str]) -> int:
    """Perform the job of a file; one line on stdout when it is done or failed."""
    job, place = read(arguments[0])
    clock = time.time()

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        with one_gpu(place, job) as device:
            fresh = perform(job, place, env=device, say=say)
    except Exception as error:  # whatever it was: the engine goes on with what does not depend on it
        say(f"FAILED {job.name}: {error}")
        return 1
    say(progress(job, place, fresh, time.time() - clock))
    return 0


def progress(job: Job, place: Place, fresh: bool, seconds: float) -> str:
    """How far the study is, now that a job is done."""
    ready, total = (len(list((place.engine / kind).iterdir())) for kind in ("stamps", "jobs"))
    return f"[{ready}/{total}] {job.name} ({f'{seconds:.0f} s' if fresh else 'done before'})"


if __name__ == "__main__":
    # jsonschema, which nbformat imports, would build a grammar for internationalised addresses: 1.5 s for nothing
    sys.modules.setdefault("rfc3987_syntax", None)
    sys.exit(main(sys.argv[1:]))

"""One step of a study: a notebook with complete parameters, what it waits for, and whether it is done.

    python -m wakd_kit.study.jobs runs/quickstart/engine/jobs/sketch-s0-KD.json

is what an engine calls, on this machine or another that sees the same folders. A job is done when its notebook was executed
with these parameters, by this code, on these images and these results of the jobs before it, and what it wrote is there. It
holds a lock while it works, so one that outlives a killed engine is waited for, and never written beside.

    runs/<study>/engine/jobs/*.json      what each job is; written by ``wakd report``, read by everything here
    runs/<study>/engine/order.json       their order
    runs/<study>/engine/done/*.json      what each was when it was done, its result and its seconds
    runs/<study>/engine/began/*.json     what the recording at its place was started with
    runs/<study>/engine/failed/*.json    why it failed, of those that did and were not mended
    runs/<study>/engine/stamps/          for the engine: a file per job that is done, which it may delete
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from html import escape
from pathlib import Path

from .. import fingerprints as sources
from .. import plugins
from ..files import Held, holder, json_or_nothing, locked, made, read_json, recording_folder, write_text
from ..reporting.warm import Forked
from . import cluster

# parameters that no recorded number depends on; strategies only decide which segment edges are kept
NOT_RECORDED = {"save_to", "window_map_grid", "baseline", "deploy", "strategies", "teacher_cache"}
# and those that are known by what is there, wherever it lies: ``Job.given``, or what the teacher of the study deployed
BY_CONTENT = {
    "benchmark": "images",
    "image_size": "images",
    "weights": "weights",
    "teacher": "teacher",
    "start": "start",
    "refit": "refit",
}
RENDERED = "its page"  # how reasons begin for which a notebook is not executed again
KINDS = ("jobs", "done", "began", "failed", "stamps", "locks", "logs")


@dataclass(frozen=True)
class Job:
    """One notebook to execute: ``name`` is its file below the report's folder, without suffix.

    after      names of the jobs whose results it reads; a student's teacher comes first, then where it starts
    training   digests of the code that decides what it records; empty if it records nothing
    analysis   digests of the code behind everything else in it, and versions of libraries
    given      what it records from, by content: "images", and where there are such "weights", a "teacher" of another study and a
               "start", which is known by its name where it is a run of this one; of a landscape, the "others" of elsewhere
    rendering  digests of the code that makes a page of it
    page       of the comparison: what its page links to
    shown      of every other: the title of its page, what stands above it, and {name: address} of pages to go to
    disk       bytes that what it records takes at most
    taught     bytes that what its teacher gives takes in the cache, once for all students of that teacher
    missing    {job: why} of those that it does without; see ``present``
    plugins    files and modules of one's own that its kernel imports
    open       a search has not found its settings yet, so that it cannot be done
    """

    name: str
    notebook: Path
    parameters: dict
    after: tuple[str, ...] = ()
    training: dict[str, str] = field(default_factory=dict)
    analysis: dict[str, str] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    rendering: dict[str, str] = field(default_factory=dict)
    page: dict = field(default_factory=dict)
    shown: dict = field(default_factory=dict)
    disk: int = 0
    taught: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    open: bool = False

    @property
    def records(self) -> bool:
        """Whether it trains, and does not only look at what was recorded."""
        return "save_to" in self.parameters

    @property
    def over_all(self) -> bool:
        """Whether it looks at many runs: then it goes on with those that are there when others failed."""
        return "runs" in self.parameters

    @property
    def run(self) -> Path | None:
        """The folder it records into, or looks at; None for one that looks at many."""
        place = self.parameters.get("save_to") or self.parameters.get("run")
        return Path(place) if place else None

    @property
    def kind(self) -> str:
        """The name of its notebook."""
        return self.notebook.stem


@dataclass(frozen=True)
class Place:
    """Where a study keeps things. ``out`` is the report's folder, ``runs`` that of its recordings, ``home`` its file's."""

    out: Path
    runs: Path
    home: Path | None = None

    @property
    def engine(self) -> Path:
        """The folder of what is known of its jobs."""
        return self.runs / "engine"

    def file(self, kind: str, job: str) -> Path:
        """Where one of ``KINDS`` is kept of a job."""
        name = for_engine(job)
        return self.engine / kind / (name if kind in ("stamps", "locks") else f"{name}.json")

    def executed(self, job: Job) -> Path:
        """Where the executed copy of its notebook goes."""
        return self.out / "notebooks" / f"{job.name}.ipynb"

    def rendered(self, job: Job) -> Path:
        """Where its page goes."""
        return self.out / "index.html" if job.page else self.executed(job).with_name(f"{job.name}.html")

    def failed(self, job: Job) -> Path:
        """Where the copy of a notebook that failed is kept."""
        return self.executed(job).with_name(f"{job.name}.failed.ipynb")

    def prepare(self) -> None:
        """Make the folders."""
        made(self.out, "--out")
        for kind in KINDS:
            made(self.engine / kind, "--runs")

    def relative(self, value: object) -> object:
        """A parameter without where this study happens to lie: paths in it are relative to its folders."""
        if isinstance(value, Mapping):
            return {name: self.relative(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.relative(item) for item in value]
        return self._with([(str(folder), name) for name, folder in self._called.items()], value)

    def absolute(self, value: object) -> object:
        """What ``relative`` gave, with the paths of this place."""
        if isinstance(value, Mapping):
            return {name: self.absolute(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.absolute(item) for item in value]
        return self._with([(name, str(folder)) for name, folder in self._called.items()], value)

    @property
    def _called(self) -> dict[str, Path | str]:
        folders = {"<runs>": self.runs, "<report>": self.out, "<study>": self.home, "~": os.path.expanduser("~")}
        return {name: folder for name, folder in folders.items() if folder is not None}

    @staticmethod
    def _with(folders: Sequence[tuple[str, str]], value: object) -> object:
        """A path that begins with one of these folders, with the other in its place; anything else as it is."""
        # a colon may end the kind of a benchmark, or stand in a folder's name
        starts = [0, *(i + 1 for i, letter in enumerate(value) if letter == ":")] if isinstance(value, str) else []
        for start in starts:
            for old, new in folders:
                if f"{value[start:]}{os.sep}".startswith(f"{old}{os.sep}"):
                    return f"{value[:start]}{new}{value[start + len(old) :]}"
        return value


def for_engine(job: str) -> str:
    """A job's name without the characters that snakemake reads as wildcards."""
    return re.sub(r"[{}<>\x00-\x1f\x7f]|%(?=[0-9A-Fa-f]{2})", lambda found: f"%{ord(found.group()):02X}", job)


def describe(jobs: Iterable[Job], place: Place) -> None:
    """Write what every job is, touching only files whose content changes; files of jobs that are no more are removed."""
    place.prepare()
    jobs, named = list(jobs), set()
    where = {name: folder and str(folder) for name, folder in vars(place).items()}
    for job in jobs:
        stamps = [for_engine(name) for name in job.after]
        text = json.dumps({**vars(job), "notebook": str(job.notebook), "stamps": stamps, "place": where})
        file = place.file("jobs", job.name)
        named.add(file.stem)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)
    write_text(place.engine / "order.json", json.dumps([place.file("jobs", job.name).stem for job in jobs]))
    for kind in ("jobs", "stamps", "failed"):
        for file in (place.engine / kind).iterdir():
            lost = kind == "failed" and file.name.startswith("search-")  # draws that fell apart are no jobs, and known
            if file.name.removesuffix(".json") not in named and not lost:
                file.unlink()


def read(file: str | os.PathLike) -> tuple[Job, Place]:
    """A job as ``describe`` wrote it, and where it works."""
    job, values = described(file), json.loads(Path(file).read_text(encoding="utf-8"))
    return job, Place(**{name: folder and Path(folder) for name, folder in values["place"].items()})


def described(file: str | os.PathLike, place: Place | None = None) -> Job:
    """A job as ``describe`` wrote it, by this version or an earlier one, which said less; with its paths at ``place``, where the
    study lies now."""
    values = json.loads(Path(file).read_text(encoding="utf-8"))
    if place is not None and values.get("place"):
        there = {name: folder and Path(folder) for name, folder in values["place"].items()}
        values["parameters"] = place.absolute(Place(**there).relative(values["parameters"]))
    values = {f.name: values[f.name] for f in fields(Job) if f.name in values}
    values |= {name: tuple(values.get(name, ())) for name in ("after", "plugins")}
    return Job(**{**values, "notebook": Path(values["notebook"])})


def reason(job: Job, place: Place) -> str | None:
    """Why a job has to be done, in a few words; None when it is done."""
    then = done(job, place)
    if failure(job, place):
        return "failed before"
    if not then:
        return "was done by another version" if place.file("done", job.name).exists() else "new"
    if not place.executed(job).is_file():
        return "its notebook is gone"
    if job.records and not (job.run / "settings.json").is_file():
        return "its recording is gone"
    wrote = then.get("wrote", ()) if job.over_all and not job.page else ()
    if lost := next((name for name in wrote if not (place.out / name).is_file()), ""):
        return f"its {lost} is gone"
    files = _files(job, place)
    for name, digest in then["files"].items():
        if files.get(name) != digest:
            return f"its {name} {'changed' if name in files else 'is gone'}"
    if job.missing.keys() != then["missing"].keys():
        return f"{len(then['missing'])} runs were missing"
    for what in ("parameters", "training", "given", "analysis"):
        if differ := _differs(_what(job, place)[what], then[what]):
            return f"{_SAID.get(what, '')}{differ} changed"
    before = _before(job, place)
    if differ := [name for name, result in before.items() if result and then["before"].get(name) != result]:
        return f"result of {', '.join(differ[:3])} changed"
    if not place.rendered(job).is_file():
        return f"{RENDERED} is gone"
    then = {**then["rendering"], **then["page"], **then.get("shown", {})}
    differ = _differs({**job.rendering, **job.page, **job.shown}, then)
    return f"{RENDERED}'s {differ} changed" if differ else None


_SAID = {"training": "code of ", "analysis": "code of "}


def done(job: Job, place: Place) -> dict:
    """What a job was when it was done, with its ``result`` and ``seconds``; empty if it was not, or that is not known."""
    then = json_or_nothing(place.file("done", job.name))
    return then if then.get("scheme") == sources.SCHEME else {}


def fell_apart(job: Job, place: Place) -> bool:
    """Whether a training was given up because its loss became no number, with the settings and the code of now."""
    failed = json_or_nothing(place.file("failed", job.name))
    return "Diverged: " in failed.get("said", "") and not _differs(_recording(job, place), failed.get("recording", {}))


def failure(job: Job, place: Place) -> str:
    """Why a job failed when it was tried last; empty when it did not."""
    copy = place.failed(job)
    return json_or_nothing(place.file("failed", job.name)).get("said") or (f"see {copy.name}" if copy.exists() else "")


def lost(job: Job, place: Place) -> str:
    """Why a cluster ended a job when it was tried last, which it then could not tell itself; empty where that is not known."""
    return cluster.ended(place.engine, for_engine(job.name))


PAIRS = "07_named_pairs"  # whose table the comparison reads


def present(job: Job, missing: Mapping[str, str]) -> Job:
    """A job over many runs with those that are there. ``missing``, {job: why it is not}, is what its page says of itself."""
    gone = {name: why for name, why in missing.items() if name in job.after}
    only = [run for run in job.parameters["only"] if "-".join(Path(run).parts) not in gone]
    after, page = tuple(name for name in job.after if name not in gone), dict(job.page)
    if page:
        pages = {f"notebooks/{name}.html" for name in gone}
        page["notebooks"] = [
            [target, seed, {n: to for n, to in named.items() if to not in pages}]
            for target, seed, named in page["notebooks"]
        ]
        page["also"] = {n: to for n, to in page["also"].items() if to not in pages}
    own = {**job.parameters, "only": only}
    if "searched" in own:
        lost = ["-".join(Path(draw["run"]).parts) in gone for draw in own["searched"]]
        # a search of which a draw is not there has no winner
        without = {(d["target"], d["student"]) for d, one in zip(own["searched"], lost) if one}
        own["searched"] = [d for d in own["searched"] if (d["target"], d["student"]) not in without]
    if isinstance(own.get("answer"), list) and PAIRS in gone:
        own["answer"] = []
    if page and "reference" in own:
        own["reference"] = _of_those(own["reference"], {Path(run).name for run in only})
    return replace(job, parameters=own, after=after, page=page, missing=gone)


def _of_those(reference: str | Mapping[str, str], students: set[str]) -> str | dict[str, str]:
    """The reference student, or {student: its own}, as far as these students go."""
    if isinstance(reference, str):
        return reference if reference in students else ""
    return {one: other for one, other in reference.items() if {one, other} <= students}


def pending(jobs: Iterable[Job], place: Place) -> dict[str, str]:
    """``{name: why}`` of every job that has to be done, or looked at again because one before it has to."""
    found: dict[str, str] = {}
    for job in jobs:
        why = "its settings are searched" if job.open else reason(job, place)
        why = why or next((f"after {name}" for name in job.after if name in found), None)
        if why:
            found[job.name] = why
    return found


def retrained(job: Job, place: Place) -> str:
    """What makes the finished recording of a job another one than it would record now; empty when it can stay."""
    return _listed(changed(job, place))


def changed(job: Job, place: Place) -> list[str]:
    """``retrained`` as names: of settings, "code of ..." and of what it is made from."""
    began = _began(job, place)
    return _otherwise(job, place, began) if job.records and began and job.run.exists() and not job.open else []


def accepted(job: Job, place: Place) -> str:
    """What is not known of a finished recording that can stay, or was another library then; empty when nothing is."""
    began = _began(job, place)
    if not (job.records and began and job.run.exists()):
        return ""
    if began.get("scheme") != sources.SCHEME:
        return "code"
    then = began["libraries"]
    return ", ".join(
        f"{name} {then[name]}" for name, now in sources.of_libraries().items() if then.get(name, now) != now
    )


def perform(
    job: Job, place: Place, *, env: Mapping[str, str] | None = None, say: Callable[[str], None] = print
) -> bool:
    """Execute and render a notebook unless it is done; returns whether it had to.

    One whose page alone is out of date is only rendered. A notebook that fails is kept as *.failed.ipynb and raises
    ``NotebookFailed``; a recording that its settings or its code could no longer make is kept under another name. Waits for
    another process that is at the same job; one over all runs, for others of them too: what each wrote is told by when.
    """

    def waits(who: str) -> None:
        say(f"waiting for {job.name}: {who}")

    alone = contextlib.nullcontext()
    if job.over_all:
        alone = locked(place.engine / "tables", wait=lambda who: say(f"{job.name} waits for {who}"), owner=job.name)

    with locked(place.file("locks", job.name), wait=waits):
        why = reason(job, place)
        if why is None:
            stamp(job, place)
            return False
        place.file("failed", job.name).unlink(missing_ok=True)
        try:
            with alone:
                _do(job, place, why, env, say, waits)
        except Exception as error:
            write_text(
                place.file("failed", job.name),
                json.dumps({"said": str(error), "at": _now(), "recording": _recording(job, place)}),
            )
            show_missing(job, place)
            raise
        except BaseException:  # interrupted, which is no failure: it goes on from what it recorded
            place.failed(job).unlink(missing_ok=True)
            raise
        stamp(job, place)
    return True


def _do(job: Job, place: Place, why: str, env: Mapping | None, say: Callable, waits: Callable) -> None:
    from ..reporting import execute as notebook  # papermill and matplotlib, which a job that is done does not wait for
    from ..reporting import render as report

    clock, then, before = time.time(), json_or_nothing(place.file("done", job.name)), _before(job, place)
    executed, rendered = place.executed(job), place.rendered(job)
    formerly, wrote = then.get("formerly", []), set(then.get("wrote", []))
    rendered.unlink(missing_ok=True)
    if job.over_all and not job.parameters["only"]:
        raise ValueError("none of the runs that it looks at is there.")
    if not why.startswith(RENDERED):
        taught = teaches(job)
        if job.records:
            _wait_for_recording(job, waits)
            _make_way(job, place, say)
        if job.page:
            # of a student that is no more it draws nothing in their place
            for name in wrote - _wrote(place, without=replace(job, missing={})):
                (place.out / name).unlink(missing_ok=True)
        there = _tables(place.out) if job.over_all else {}
        settings = {
            "cwd": job.notebook.parent,
            "env": {**(env or {}), **plugins.naming(*job.plugins), "TQDM_DISABLE": "1"},
            "checked": True,
        }
        notebook.execute(job.notebook, executed, job.parameters, **settings)
        wrote = {name for name, at in _tables(place.out).items() if there.get(name) != at} if job.over_all else wrote
        same = taught and taught == teaches(job)  # what it teaches may have been told otherwise before
        formerly = sorted({*formerly, then.get("teaches", "")} - {"", taught}) if same else []
    if job.page:
        _publish(job, place, say, wrote)
    else:
        _explorer(job, place)
        report.render(executed, rendered, parameters=place.relative(job.parameters), **_shown(job, place))
    seconds = then["seconds"] if why.startswith(RENDERED) else round(time.time() - clock, 1)
    record = {"scheme": sources.SCHEME, **_what(job, place), "before": before, "files": _files(job, place)}
    record |= {"result": _result(job), "teaches": teaches(job), "formerly": formerly, "wrote": sorted(wrote)}
    record |= {"why": why, "seconds": seconds, "at": _now()}
    write_text(place.file("done", job.name), json.dumps(record))


def _explorer(job: Job, place: Place) -> None:
    """Write the explorer's page of a run that has a window map, for the report to link to; of another there is none."""
    from ..explorer.pages import explorable, write_page

    page = place.out / "explorer" / f"{job.name}.html"
    if job.records and explorable(job.run):
        write_page(job.run, page)
    elif job.records:
        page.unlink(missing_ok=True)


def _shown(job: Job, place: Place) -> dict:
    """What a page says of where it belongs; the explorer of its run is named where there is one."""
    explorer = f"explorer/{job.name}.html"
    nav = {"explorer": f"../{explorer}"} if (place.out / explorer).is_file() else {}
    return {**job.shown, "nav": job.shown.get("nav", {}) | nav} if job.shown else {}


def said_of(job: Job, place: Place) -> str:
    """Why a job failed, as a page may say it: without where on this machine its copy and its recording are."""
    said = re.sub(r" The copy is .*|; what was recorded until then is in \S+(?=\.)", "", failure(job, place))
    return said.replace(str(place.runs), "<runs>").replace(str(place.out), "<report>")


def show_missing(job: Job, place: Place, why: str = "") -> None:
    """Make the page of a job that failed, or waits for one that did: what there is of its notebook, below the reason."""
    if job.page:
        return
    from ..reporting import render as report

    notice = report.text_html(why or said_of(job, place))
    with contextlib.suppress(OSError, ValueError):  # what failed is told in any case
        if place.failed(job).is_file():
            given = {"parameters": place.relative(job.parameters), "notice": notice}
            page = report.render(place.failed(job), place.rendered(job), **_shown(job, place), **given)
            text = page.read_text(encoding="utf-8")  # a traceback names files of this machine
            for folder, name in (
                (place.runs, "<runs>"),
                (place.out, "<report>"),
                (sources.PACKAGE, "wakd_kit"),
                (Path(sys.prefix), "<python>"),
            ):
                text = text.replace(str(folder), escape(name))
            write_text(page, text)
        elif not place.rendered(job).is_file():
            report.write_page(place.rendered(job), **{"title": job.name, **_shown(job, place)}, notice=notice)


def _tables(out: Path) -> dict[str, int]:
    """The tables and figures of a report, and when each was written."""
    files = [file for kind in ("*.csv", "*.tex", "figures/*") for file in out.glob(kind)]
    return {file.relative_to(out).as_posix(): file.stat().st_mtime_ns for file in files}


def _wrote(place: Place, *, without: Job, planned: bool = True) -> set[str]:
    """The tables and figures that the other jobs of the study wrote when they were done, or those that were planned once and are
    no more, or are missing."""
    own, now = place.file("done", without.name), place.engine / "jobs"
    there = {file.name for file in now.glob("*.json")} - {place.file("done", name).name for name in without.missing}
    done = [file for file in own.parent.glob("*.json") if file != own and (file.name in there) == planned]
    return {name for file in done for name in json_or_nothing(file).get("wrote", [])}


def _publish(job: Job, place: Place, say: Callable[[str], None], wrote: set[str]) -> None:
    from ..reporting import pages

    known = json_or_nothing(place.engine / "study.json")
    file = Path(known["file"]) if "file" in known else None
    notebooks = {(target, seed): named for target, seed, named in job.page["notebooks"]}
    named = {name: job.page[name] for name in ("title", "also", "listed")}
    named |= {"notebooks": notebooks, "missing": job.missing}
    named |= {"given": job.parameters, "parameters": place.relative(job.parameters)}
    named["left"] = _wrote(place, without=job, planned=False) - _wrote(place, without=job) - wrote
    named["ran"] = {"notebooks took": _took(job, place), "command": known.get("command", "")}
    said = pages.publish(place.executed(job), place.out, file=file, **named)
    if named["listed"]:
        pages.overview(place.out.parent)
    say(said)


def _took(job: Job, place: Place) -> str:
    minutes = sum(json_or_nothing(place.file("done", name)).get("seconds") or 0 for name in job.after) / 60
    took = f"{minutes / 60:.1f} hours" if minutes >= 60 else f"{max(minutes, 1):.0f} minutes"
    return f"{took} in all, trainings included, one after the other"


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
    began = _began(job, place)
    partial = recording_folder(job.run)
    other = _listed(_otherwise(job, place, began)) if began else ""
    # edges follow from what is declared: a finished recording serves others, an unfinished one cannot be continued with them
    edges = began and _differs(_declared(job), {name: began.get(name) for name in _declared(job)})
    for folder, why in ((job.run, other), (partial, other or (edges and "strategies, or what is deployed"))):
        if folder.exists() and why:
            aside = job.run.with_name(f"{job.run.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
            aside = recording_folder(aside) if folder == partial else aside
            os.replace(folder, aside)
            say(f"{job.name}: {folder.name} was recorded otherwise ({why}); it is kept as {aside.name}")
    begin(job, place)


def begin(job: Job, place: Place) -> None:
    """Write what the recording at a job's place is: made with these settings, by this code, from this teacher."""
    began = _began(job, place)
    there = began.get("libraries") if job.run.exists() else None  # those that a finished one was made with
    now = {
        "scheme": sources.SCHEME,
        "recording": _recording(job, place),
        **_declared(job),
    }
    write_text(place.file("began", job.name), json.dumps({**now, "libraries": there or sources.of_libraries()}))


def _declared(job: Job) -> dict:
    """The averages that a training keeps edges for."""
    return {name: job.parameters.get(name) for name in ("strategies", "deploy")}


def _began(job: Job, place: Place) -> dict:
    """What the recording at a job's place was begun with; empty where there is none, or that is not known."""
    began = json_or_nothing(place.file("began", job.name))
    return began if began.keys() >= {"recording", "strategies"} else {}


def _recording(job: Job, place: Place) -> dict:
    """What decides a recording: settings, code, what it is made from, and whether it has a teacher and what that one deployed."""
    taught = [json_or_nothing(place.file("done", name)).get("teaches") for name in job.after]
    parameters = {n: v for n, v in job.parameters.items() if n not in NOT_RECORDED | BY_CONTENT.keys()}
    code = {f"code of {n}": digest for n, digest in job.training.items()}
    return {
        **place.relative(parameters),
        **code,
        **job.given,
        "the teacher": taught,
        "taught": job.parameters.get("teacher") is not None,
    }


def _otherwise(job: Job, place: Place, began: dict) -> list[str]:
    """In what a recording differs from the one that a job would make, as far as what it was begun with can tell."""
    now, then = _recording(job, place), dict(began["recording"])
    code = {name for name in now.keys() | then.keys() if name.startswith("code of ")}
    unknown, made_from = set(), {*BY_CONTENT.values()} - {"images"}
    if began.get("scheme") != sources.SCHEME:  # its code was told otherwise, so it cannot be compared
        then |= _images(job) | ({"weights": then["code of weights"]} if "code of weights" in then else {})
        unknown, made_from = code | (job.given.keys() - then.keys()), set()
    # what was not told always
    unknown |= {n for n in now if n == "taught" or n.startswith(sources.IMPORTS)} - then.keys()
    unknown |= then.keys() - now.keys() - code - made_from  # settings that there are no longer
    if None in now["the teacher"]:  # it is not done yet, so nobody knows whether it is another one
        unknown.add("the teacher")
    elif then.get("the teacher") in [[name] for name in _formerly(job, place)]:
        then["the teacher"] = now["the teacher"]
    if now.keys() - then.keys() - code - unknown:  # a setting that is new since then had its default
        then = {n: v for n, v in _defaults(job.kind).items() if n in now} | then
    return _differing(*({n: v for n, v in what.items() if n not in unknown} for what in (now, then)))


def _formerly(job: Job, place: Place) -> list[str]:
    """What records of before called what a job's teacher still deploys."""
    return [name for before in job.after for name in json_or_nothing(place.file("done", before)).get("formerly", [])]


def _images(job: Job) -> dict[str, str]:
    """Which images a finished or an unfinished recording was made of, by its own word."""
    folder = job.run if job.run.exists() else recording_folder(job.run)
    found = json_or_nothing(folder / "settings.json").get("split", {}).get("fingerprint")
    return {"images": found} if found else {}


@functools.cache
def _defaults(notebook: str) -> dict:
    from ..reporting.parameters import describe, plain

    return plain(describe(notebook)())


def _what(job: Job, place: Place) -> dict[str, dict]:
    """What a job is, as far as it decides whether it is done; paths are relative, and data are known by content."""
    parameters = {n: v for n, v in job.parameters.items() if BY_CONTENT.get(n) not in job.given}
    what = {
        name: getattr(job, name) for name in ("training", "given", "analysis", "rendering", "page", "shown", "missing")
    }
    return {"parameters": place.relative(parameters), **what}


def _before(job: Job, place: Place) -> dict[str, str | None]:
    return {name: json_or_nothing(place.file("done", name)).get("result") for name in job.after}


def _differs(now: dict, then: dict) -> str:
    return _listed(_differing(now, then))


def _differing(now: dict, then: dict) -> list[str]:
    if now == then:
        return []
    now = json.loads(json.dumps(now))
    return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def teaches(job: Job) -> str:
    """``taught_by`` the recording at a job's place; empty for a job that records nothing."""
    return taught_by(job.run) if job.records else ""


def taught_by(run: Path) -> str:
    """What a recording stands for as a teacher: its settings, its last segment, and which average it deployed.

    Empty where there is none.
    """
    segments, deployed = run / "segments", json_or_nothing(run / "deployed.json")
    if not (segments / "index.json").is_file():
        return ""
    last = read_json(segments / "index.json")[-1]["file"]
    rare = {name: True for name in ("signed", "recalibrated") if (deployed or {}).get(name)}
    average = {name: deployed.get(name) for name in ("values", "of", "initial")} | rare if deployed else None
    return _digest(run / "settings.json", segments / last, said=json.dumps(average))


def looked_at(run: Path) -> str:
    """What a recording stands for where its averages are looked at: what it teaches, and what was chosen of it."""
    return _digest(run / "choices.json", said=taught_by(run))


def _result(job: Job) -> str:
    """What later jobs may read of this one."""
    return _digest(*_written(job).values(), said=teaches(job))


def _written(job: Job) -> dict[str, Path]:
    """The small files that a job leaves for others to read, by the names that they have in the folder of its run."""
    if job.name == PAIRS:
        return {"named_pairs.csv": Path(job.parameters["tables"]) / "named_pairs.csv"}
    if job.run is None:
        return {}
    recorded = ("choices.json", "scores.csv", "window_map.csv", "deployed.json")
    return {name: job.run / name for name in (recorded if job.records else ("landscape/plane.csv",))}


def _files(job: Job, place: Place) -> dict[str, str]:
    """Digests of what a job left to be read: ``{name: digest}``, of a comparison's tables that they are there."""
    if job.page:
        return {file.name: "there" for kind in ("csv", "tex") for file in place.out.glob(f"*.{kind}")}
    return {name: _digest(file) for name, file in _written(job).items() if file.is_file()}


def _digest(*files: Path, said: str = "") -> str:
    found = hashlib.sha256(said.encode())
    for file in files:
        found.update(file.read_bytes() if file.exists() else b"-")
    return found.hexdigest()[:16]


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")


@contextlib.contextmanager
def one_gpu(place: Place, job: Job):
    """Environment with one of the devices that ``WAKD_GPUS`` lists; nothing where it lists none.

    A job that records has a place in the list to itself; those that only evaluate are spread over the devices by their names.
    """
    listed = [device for device in os.environ.get("WAKD_GPUS", "").split(",") if device]
    for number, device in enumerate(listed if job.records else ()):
        with contextlib.suppress(Held), locked(place.engine / f"gpu-{number}", owner=job.name):
            yield {"CUDA_VISIBLE_DEVICES": device}
            return
    yield {"CUDA_VISIBLE_DEVICES": listed[zlib.crc32(job.name.encode()) % len(listed)]} if listed else {}


def main(arguments: list[str]) -> int:
    """Perform the job of a file; one line on stdout when it is done or failed."""
    job, place = read(arguments[0])
    with one_gpu(place, job) as device:
        return 0 if attempt(job, place, env=device, say=functools.partial(print, flush=True)) else 1


def attempt(job: Job, place: Place, *, env: Mapping[str, str] | None = None, say: Callable[[str], None]) -> bool:
    """``perform`` a job and say how far the study is then, or why it failed; returns whether it is done.

    Whatever the failure was: what does not depend on the job goes on.
    """
    clock = time.time()
    try:
        fresh = perform(job, place, env=env, say=say)
    except Exception as error:
        say(f"FAILED {job.name}: {error}")
        return False
    ready, total = (len(list((place.engine / kind).iterdir())) for kind in ("stamps", "jobs"))
    say(f"[{ready}/{total}] {job.name} ({f'{time.time() - clock:.0f} s' if fresh else 'done before'})")
    return True


def forked(arguments: list[str]) -> int:
    """``main`` in a fork of the study's warm process, or here where there is none."""
    try:
        job = Forked("wakd_kit.study.jobs:main", arguments)
    except OSError:
        # jsonschema, which nbformat imports, would build a grammar for internationalised addresses: 1.5 s for nothing
        sys.modules.setdefault("rfc3987_syntax", None)
        return main(arguments)
    while True:
        try:
            return abs(job.wait())
        except KeyboardInterrupt:  # a terminal tells this process alone
            job.send_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(forked(sys.argv[1:]))

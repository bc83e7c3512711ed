"""What of a study is done, running, failed or waiting, read off its folders: nothing is planned, and nothing imports torch."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..files import holder, json_or_nothing, path_of, read_json, recording_folder
from ..fingerprints import of_plugins
from . import cluster
from . import jobs as job_files
from .jobs import Job, Place, failure
from .places import StudyProblem, another_at, beside, file_of, name_of, remembered
from .reading import contents_of

STATES = ("failed", "running", "waiting", "done")


def place_of(
    which: str | os.PathLike, out: str | os.PathLike | None = None, runs: str | os.PathLike | None = None
) -> Place:
    """Where a study writes: as given, else where it wrote last, else beside its file. Raises ``StudyProblem`` where another one
    has gone on with its recordings since: what is known there of notebooks is that one's."""
    file = file_of(which)
    name = name_of(file)
    there = (remembered(file) or ()) if out is None and runs is None else ()
    usual = [beside(name, file) / kind / name for kind in ("reports", "runs")]
    given = [path_of(folder).resolve() if folder else None for folder in (out, runs)]
    place = Place(*(a or b for a, b in zip(given, there or usual)), file.resolve().parent)
    if other := another_at(file, place.engine):
        raise StudyProblem(
            f"{place.runs} was planned last by {other}, which goes on with the same recordings. What of {name} is to do there says: "
            f"wakd report {which} --runs {place.runs} --out {place.out} --dry-run"
        )
    return place


def recorded(which: str) -> tuple[str, Path, dict]:
    """What a study, or a folder of recordings, is called, where they are, and which of them count: what ``collect`` takes."""
    if path_of(which).is_dir():
        folder = path_of(which).resolve()
        return folder.name, folder, {}
    place = place_of(which)
    compared = json_or_nothing(place.file("jobs", "03_compare")).get("parameters", {})
    if not compared:
        raise StudyProblem(f"{which} was not run yet: nothing is at {place.runs}.")
    return name_of(file_of(which)), place.runs, {name: compared[name] for name in ("only", "strategies")}


def rows_of(place: Place) -> list[dict]:
    """Every notebook of a study as it was planned last: ``name, kind, state, seconds, step, steps, said``; none before it began.

    seconds  it took, of those that are done; since it began, of those that run
    said     of those that failed: why, in a line; of those that wait: for what
    """
    files = {file.stem: file for file in sorted((place.engine / "jobs").glob("*.json"))}
    planned = read_json(place.engine / "order.json") if (place.engine / "order.json").is_file() else []
    jobs = [job_files.described(files[name], place) for name in dict.fromkeys([*planned, *files]) if name in files]
    waiting = job_files.pending(jobs, place)
    return [row_of(job, place, waiting) for job in jobs]


def row_of(job: Job, place: Place, waiting: Mapping[str, str]) -> dict:
    """One notebook; see ``rows_of``."""
    owner = holder(place.file("locks", job.name))
    done, failed = job_files.done(job, place), failure(job, place)
    again = failed and _again(job, place)
    state = "running" if owner else "failed" if failed and not again else "waiting" if job.name in waiting else "done"
    row = {"name": job.name, "kind": job.kind, "state": state, "seconds": done.get("seconds"), "step": None}
    row |= {"steps": job.parameters.get("steps"), "said": owner or failed or waiting.get(job.name, "")}
    if state == "waiting" and (why := job_files.lost(job, place)):  # it is tried again while the engine runs
        row |= {"state": "waiting" if holder(place.engine / "lock") else "failed", "said": why}
    if state == "running":
        row["seconds"], row["step"] = _since(place.file("locks", job.name)), _step(job)
    return row


def _again(job: Job, place: Place) -> bool:
    """Whether a job failed before the engine began that runs now, which tries it again; but for draws that fell apart."""
    lock, told = place.engine / "lock", [place.file("failed", job.name), place.failed(job)]
    if not holder(lock) or (job.name.startswith("search-") and job_files.fell_apart(job, place)):
        return False
    with contextlib.suppress(OSError):
        return max(file.stat().st_mtime for file in told if file.exists()) < lock.stat().st_mtime
    return False


def _since(lock: Path) -> float | None:
    with contextlib.suppress(OSError):
        return max(0.0, time.time() - lock.stat().st_mtime)
    return None


def _step(job: Job) -> int | None:
    """The last step that a training recorded."""
    for folder in (recording_folder(job.run), job.run) if job.records else ():
        with contextlib.suppress(OSError, StopIteration, ValueError, KeyError), open(folder / "curves.csv") as file:
            return int(float([*csv.DictReader(file)][-1]["step"]))
    return None


def in_one_line(said: str, most: int = 110) -> str:
    """Why a notebook failed, without where it stopped and what was kept."""
    said = re.sub(r" The copy is .*| Nothing was changed;.*", "", said, flags=re.S)
    said = re.sub(r"^\S+ stopped(?: at In \[\d+\])?, ", "", " ".join(said.split()))
    return said if len(said) <= most else f"{said[: most - 4].rstrip()} ..."


def sentence_of(name: str, place: Place, rows: Sequence[dict]) -> str:
    """How many notebooks are in which state, what is left, and who is at it."""
    if not rows:
        return f"{name} was not begun: nothing is at {place.runs}. wakd report --dry-run says what it would do."
    counts = {state: sum(row["state"] == state for row in rows) for state in STATES}
    said = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    engine = holder(place.engine / "lock")
    return f"{name}: {said}. {left_of(rows)} {f'Run by {who(engine)}.' if engine else 'Nobody runs it.'}"


def left_of(rows: Sequence[dict]) -> str:
    """The time left, from what the notebooks of each kind took that are done, over as many as run, at least one; kinds of which
    none is done are named."""
    left = [row for row in rows if row["state"] != "done"]
    if not left:
        return "Nothing is left."
    each: dict[str, list[float]] = {}
    for row in rows:
        if row["state"] != "running" and row["seconds"]:  # also of what is to be done again
            each.setdefault(row["kind"], []).append(row["seconds"])
    known = [row for row in left if row["kind"] in each]
    unknown = [row["kind"] for row in left if row["kind"] not in each]
    others = ", ".join(f"{n} of {kind}" if (n := unknown.count(kind)) > 1 else kind for kind in dict.fromkeys(unknown))
    if not known:
        return f"Time left is not known yet: none was done before of {others}."
    gone = [row["seconds"] or 0 if row["state"] == "running" else 0 for row in known]
    seconds = sum(max(0, sum(each[row["kind"]]) / len(each[row["kind"]]) - spent) for row, spent in zip(known, gone))
    minutes = seconds / max(1, sum(row["state"] == "running" for row in rows)) / 60
    about = f"About {minutes:.0f} minutes are left" if minutes >= 1.5 else "About a minute is left"
    return f"{about}{f', and {others}, of which none is done yet' * bool(others)}."


def lines_of(rows: Sequence[dict]) -> list[str]:
    """A line for each notebook, for a terminal."""
    wide = max((len(row["name"]) for row in rows), default=0) + 2
    return [f"{row['state']:9}{row['name']:{wide}}{_told(row)}" for row in rows]


def _told(row: Mapping) -> str:
    took = "" if row["seconds"] is None else f"{row['seconds']:.0f} s"
    if row["state"] == "running":
        at = f", step {row['step']} of {row['steps']}" if row["step"] else ""
        return f"for {took}{at}"
    return took if row["state"] == "done" else in_one_line(row["said"])


def failed_lines(rows: Sequence[dict], place: Place, last: int = 15) -> list[str]:
    """All that is known of each notebook that failed: why, its page, and the end of its log."""
    found = []
    for row in rows:
        if row["state"] == "failed":
            name, page = job_files.for_engine(row["name"]), place.out / "notebooks" / f"{row['name']}.html"
            found += [row["name"], f"  {row['said']}", *[f"  page: {page}"] * page.is_file()]
            for log in (place.engine / "logs" / f"{name}.log", cluster.log_of(place.engine, name)):
                if log and log.is_file() and log.stat().st_size:
                    found.append(f"  log: {log}")
                    found += [f"    {line}" for line in log.read_text("utf-8", "replace").splitlines()[-last:]]
    return found


def exit_status(rows: Sequence[dict]) -> int:
    """0 when all is done, 1 when something failed, 3 when something is still to do."""
    states = {row["state"] for row in rows}
    return 1 if "failed" in states else 0 if states == {"done"} else 3


def changed_since(which: str | os.PathLike, place: Place) -> str:
    """A sentence where a study's file, one that it extends or one of its plugins was edited after it was planned last."""
    known, planned = json_or_nothing(place.engine / "study.json"), sorted((place.engine / "jobs").glob("*.json"))
    now, then = contents_of(file_of(which)), known.get("content", [])
    then = [then] if isinstance(then, str) else then  # earlier versions knew of the file alone
    edited = [file.name for (file, holds), held in zip(now.items(), then) if holds != held]
    edited += [Path(plugin).name for job in map(job_files.described, planned[:1]) for plugin in _edited(job)]
    if not edited:
        return ""
    return f"{' and '.join(edited)} {'was' if len(edited) == 1 else 'were'} edited since; wakd report {which} --dry-run says what is to do now."


def _edited(job: Job) -> Iterator[str]:
    """The plugins of a job that are others than when it was planned; of one that lies elsewhere now nothing is known."""
    for plugin in job.plugins:
        with contextlib.suppress(FileNotFoundError, ValueError):
            try:
                edited = any(job.analysis.get(name, now) != now for name, now in of_plugins([plugin]).items())
            except SyntaxError:
                edited = True
            if edited:
                yield plugin


def who(owner: str) -> str:
    """Who holds a study's lock: an engine outlives its ``wakd report`` that was killed, and holds it in that one's name."""
    if os.name == "posix" and (process := process_of(owner)):
        with contextlib.suppress(PermissionError):  # somebody else's, and there
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                return f"the engine that was left behind when {owner} was killed"
    return owner


def process_of(owner: str) -> int | None:
    """The process of this machine that holds a lock, by what the lock says of itself; None of another machine's."""
    found = re.match(r"process (\d+) on ([^ ,]+)", owner)
    return int(found[1]) if found and found[2] == socket.gethostname() else None

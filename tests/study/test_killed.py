"""A study whose engine, jobs or kernels are killed finishes with the same command, trains nothing twice, and ends the same."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from wakd_kit import files
from wakd_kit.reporting.warm import Forked
from wakd_kit.study import jobs
from wakd_kit.study.run import status

from .. import forked
from ..offline import offline_problems
from ..waiting import MINUTES, until

pytest.importorskip("snakemake", reason="snakemake is not installed")


def processes(folder: Path) -> dict[str, list[int]]:
    """Engines, jobs, kernels and what they are forked from that work in a folder, by kind."""
    found = {"report": [], "snakemake": [], "job": [], "kernel": [], "warm": []}
    parents, warm = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            here = os.readlink(entry / "cwd")
        except OSError:
            continue
        text = " ".join(command)
        if "-m snakemake" in text and str(folder) in text:
            found["snakemake"].append(int(entry.name))
        elif "wakd_kit.study.jobs" in command and here.startswith(str(folder)):
            found["job"].append(int(entry.name))
        elif "wakd_kit" in command and "report" in command and str(folder) in text:
            found["report"].append(int(entry.name))
        elif "wakd_kit.reporting.warm" in command:  # it, and what it forked
            warm[int(entry.name)] = (entry / "comm").read_text().strip(), here
    for process, (name, here) in warm.items():
        if name == "wakd report" and here == str(folder):
            found["report"].append(process)
        if name == "wakd main" and here.startswith(str(folder)):
            found["job"].append(process)
            if (parent := parents[process]) not in found["warm"]:
                found["warm"].append(parent)
    found["kernel"] = [p for p, (name, _) in warm.items() if name == "wakd kernel" and parents[p] in found["warm"]]
    return found


def start(file: Path, folder: Path, said: str = "log", *, cold: bool = True) -> subprocess.Popen | Forked:
    """``wakd report``, with a warm process of its own; or forked from that of all tests, as then are its jobs and kernels."""
    words = ["report", str(file), "--cores", "2", "--out", str(folder / "report"), "--runs", str(folder / "runs")]
    with open(folder / said, "a") as log:
        if not cold:
            return forked.process("tests.forked:report", *words, cwd=folder, streams=(0, log.fileno(), log.fileno()))
        command = [sys.executable, "-m", "wakd_kit", *words]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def finish(file: Path, folder: Path) -> None:
    assert start(file, folder).wait(60 * MINUTES) == 0, (folder / "log").read_text()


def quiet(folder: Path) -> None:
    """Waits until no process works in the folder."""
    until(lambda: not any(processes(folder).values()), lambda: f"still at work: {processes(folder)}")


def trained(folder: Path) -> dict[Path, int]:
    """When each finished recording was completed."""
    return {f.parent: f.stat().st_mtime_ns for f in (folder / "runs").glob("*-s*/*/environment.json")}


def scores(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "report" / "scores.csv")


SHORT = {"targets": ["north"], "students": {"CE": {"objectives": ["ce"], "teacher": None}, "Again": {"teacher": "CE"}}}
SHORT |= {"window_map": {}, "landscape": {"students": []}}


@pytest.fixture
def study(tiny_study, tmp_path):
    """Writes the tiny study with these settings; its folder is its own."""

    def write(name: str, **settings) -> tuple[Path, Path]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tiny.yaml").write_text(yaml.safe_dump({**yaml.safe_load(tiny_study), **settings}))
        return folder / "tiny.yaml", folder

    return write


SLOW = pytest.mark.skipif("WAKD_SLOW" not in os.environ, reason="long form; set WAKD_SLOW=1")


@pytest.mark.parametrize(
    "what", ["snakemake", "job", "kernel", *(pytest.param(w, marks=SLOW) for w in ("report", "warm"))]
)
def test_a_killed_study_goes_on_with_the_same_command_given_once(study, what):
    """The engine dies while a kernel works; the same command goes on, and meanwhile another one is turned away."""
    file, folder = study("killed", **SHORT)
    places = {"out": folder / "report", "runs": folder / "runs"}
    engine = start(file, folder)
    until(lambda: processes(folder)["kernel"], (folder / "log").read_text)
    for victim in processes(folder)[what]:
        os.kill(victim, signal.SIGKILL)
    engine.wait(60 * MINUTES)
    # what was not killed may still work; the same command waits for it, or says who is at it
    second, lock = start(file, folder, cold=False), folder / "runs" / "engine" / "lock"
    while second.poll() is None and f"process {second.pid} on" not in (files.holder(lock) or ""):
        time.sleep(0.2)
    if second.poll() is None:
        third = start(file, folder, "third", cold=False)
        assert third.wait() == 2
        table, sentence = status(file, **places)
        said = (folder / "third").read_text()
        assert "is being run" in said and f"process {second.pid} on" in said
        assert f"Run by process {second.pid}" in sentence
        assert set(table["state"]) <= {"done", "running", "waiting"}
    else:
        assert what == "report"  # its snakemake goes on
    if second.wait():
        quiet(folder)
        finish(file, folder)
    if what != "report":
        assert "is being run" not in (folder / "log").read_text()
    table, sentence = status(file, **places)
    assert set(table["state"]) == {"done"} and "Nothing is left. Nobody runs it." in sentence
    kernels_made_it(folder / "report")


def test_a_study_that_is_asked_to_end_ends_with_all_that_it_began(study):
    """``kill`` reaches ``wakd report`` alone, which may have been started in the background, where Ctrl-C is ignored."""
    file, folder = study("ended", **SHORT)
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine = start(file, folder)
    signal.signal(signal.SIGINT, ignored)
    until(lambda: processes(folder)["kernel"], (folder / "log").read_text)
    engine.terminate()
    assert engine.wait(60 * MINUTES) == 130 and "what is recorded is kept" in (folder / "log").read_text()
    quiet(folder)
    table, sentence = status(file, out=folder / "report", runs=folder / "runs")
    assert set(table["state"]) <= {"done", "waiting"} and "Nobody runs it." in sentence


def kernels_made_it(out: Path) -> None:
    """What a study ends in when kernels execute its notebooks, jobs render them and snakemake starts the jobs."""
    for page in (out / "index.html", *out.glob("notebooks/*.html")):
        assert offline_problems(page) == [] and str(out.parent) not in page.read_text()
    names = {"north-s0-teacher", "north-s0-CE", "north-s0-Again", "03_compare"}
    assert {file.name for file in out.glob("notebooks/*.ipynb")} == {f"{name}.ipynb" for name in names}
    shown = {"north-s0-teacher": 3, "north-s0-CE": 3, "03_compare": 4}
    for name, least in shown.items():
        book = nbformat.read(out / "notebooks" / f"{name}.ipynb", as_version=4)
        html = "".join(o.data.get("text/html", "") for c in book.cells for o in c.get("outputs", []) if "data" in o)
        assert html.count("<figure>") >= least, name
        assert all(c.metadata.papermill.status == "completed" for c in book.cells if c.cell_type == "code")


SPLITS = {"targets": ["north", "east", "south"], "seeds": [0, 1]}
# a study of six splits, with as many landscapes
MANY = {**SPLITS, "window_map": {}, "landscape": {**SPLITS, "size": 2, "radii": [1.0], "directions": 2}}


@pytest.mark.slow
@SLOW
def test_a_study_of_25_jobs_killed_at_random_moments(study):
    """kill -9 of anything that works, again and again: nothing that was done is trained twice, and the scores are those
    of a study that nobody disturbed."""
    students = {"CE": {"objectives": ["ce"], "teacher": None}, "KD": {"objectives": ["kd"]}}
    settings = {"students": students, **MANY}
    file, calm = study("calm", **settings)
    finish(file, calm)
    file, folder = study("killed", **settings)
    rng, kills = random.Random(0), {kind: 0 for kind in ("report", "snakemake", "job", "kernel", "warm")}
    recorded: dict[Path, int] = {}
    for _ in range(100):
        engine = start(file, folder)
        moment = time.time() + rng.uniform(3, 25)
        while time.time() < moment and engine.poll() is None:
            time.sleep(0.1)
        if engine.poll() == 0:
            break
        running = {kind: found for kind, found in processes(folder).items() if found}
        if running:
            kind = rng.choice(sorted(running))
            os.kill(rng.choice(running[kind]), signal.SIGKILL)
            kills[kind] += 1
        if engine.poll() is None and rng.random() < 0.5:
            os.kill(engine.pid, signal.SIGKILL)
            kills["report"] += 1
        recorded |= {run: moment for run, moment in trained(folder).items() if run not in recorded}
    quiet(folder)
    finish(file, folder)
    print(f"{sum(kills.values())} kills: {kills}")
    assert sum(kills.values()) >= 5
    assert recorded.items() <= trained(folder).items() and len(trained(folder)) == 18
    pd.testing.assert_frame_equal(scores(folder), scores(calm), rtol=1e-6)
    assert not list((folder / "runs").glob("*-s*/*.before-*"))
    for file in (folder / "runs" / "engine" / "done").iterdir():
        assert jobs.reason(*jobs.read(folder / "runs" / "engine" / "jobs" / file.name)) is None

"""A study whose engine, jobs or kernels are killed finishes with the same command, trains nothing twice, and ends the same."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from wakd_kit import files
from wakd_kit.study import jobs
from wakd_kit.study.run import status

pytest.importorskip("snakemake", reason="snakemake is not installed")


def processes(folder: Path) -> dict[str, list[int]]:
    """Engines, jobs and kernels that work in a folder, by kind."""
    found = {"report": [], "snakemake": [], "job": [], "kernel": []}
    parents = {}
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
        elif "ipykernel_launcher" in command:
            found["kernel"].append(int(entry.name))
    found["kernel"] = [kernel for kernel in found["kernel"] if parents.get(kernel) in found["job"]]
    return found


def start(file: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "wakd_kit", "report", str(file), "--cores", "2"]
    command += ["--out", str(folder / "report"), "--runs", str(folder / "runs")]
    with open(folder / "log", "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def finish(file: Path, folder: Path) -> None:
    assert start(file, folder).wait(timeout=900) == 0, (folder / "log").read_text()


def quiet(folder: Path) -> None:
    """Waits until no process works in the folder."""
    for _ in range(600):
        if not any(processes(folder).values()):
            return
        time.sleep(0.1)
    raise AssertionError(f"still at work: {processes(folder)}")


def trained(folder: Path) -> dict[Path, int]:
    """When each finished recording was completed."""
    return {f.parent: f.stat().st_mtime_ns for f in (folder / "runs").glob("*-s*/*/environment.json")}


def scores(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "report" / "scores.csv")


SHORT = {"targets": ["north"], "students": {"CE": {"objectives": ["ce"], "teacher": None}}}
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


@pytest.mark.parametrize("what", ["snakemake", *(pytest.param(w, marks=SLOW) for w in ("report", "job", "kernel"))])
def test_a_killed_study_goes_on_with_the_same_command(study, what):
    file, folder = study("killed", **SHORT)
    engine = start(file, folder)
    for _ in range(1200):
        if processes(folder)["kernel"]:
            break
        time.sleep(0.05)
    assert processes(folder)["kernel"], (folder / "log").read_text()
    for victim in processes(folder)[what]:
        os.kill(victim, signal.SIGKILL)
    engine.wait(timeout=300)
    # what was not killed may still work; the same command waits for it, or says who is at it
    second = start(file, folder)
    if second.wait(timeout=300):
        quiet(folder)
        finish(file, folder)
    assert (folder / "report" / "index.html").is_file()
    assert "is being run" not in (folder / "log").read_text() or what == "report"


def test_two_reports_of_one_study_at_once(study):
    file, folder = study("twice", **SHORT)
    first = start(file, folder)
    lock = folder / "runs" / "engine" / "lock"
    while first.poll() is None and not files.holder(lock):
        time.sleep(0.05)
    second = start(file, folder)
    assert second.wait(timeout=60) == 2
    table, sentence = status(file, out=folder / "report", runs=folder / "runs")
    assert f"process {first.pid} on" in (folder / "log").read_text() and f"Run by process {first.pid}" in sentence
    assert set(table["state"]) <= {"done", "running", "waiting"}
    assert first.wait(timeout=300) == 0
    table, sentence = status(file, out=folder / "report", runs=folder / "runs")
    assert set(table["state"]) == {"done"} and "Nothing is left. Nobody runs it." in sentence


@pytest.mark.slow
@SLOW
def test_a_study_of_25_jobs_killed_at_random_moments(study):
    """kill -9 of anything that works, again and again: nothing that was done is trained twice, and the scores are those
    of a study that nobody disturbed."""
    students = {"CE": {"objectives": ["ce"], "teacher": None}, "KD": {"objectives": ["kd"]}}
    settings = {"targets": ["north", "east", "south"], "seeds": [0, 1], "students": students, "window_map": {}}
    settings["landscape"] = {
        "targets": ["north", "east", "south"],
        "seeds": [0, 1],
        "size": 2,
        "radii": [1.0],
        "directions": 2,
    }
    file, calm = study("calm", **settings)
    finish(file, calm)
    file, folder = study("killed", **settings)
    rng, kills = random.Random(0), {kind: 0 for kind in ("report", "snakemake", "job", "kernel")}
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

"""Studies on a real Slurm of one node (tests/slurm.py): what the cluster ends is named, the same command goes on, and the numbers
are those of a study that ran here."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from wakd_kit.cli import main
from wakd_kit.study import cluster, places

from .. import slurm
from ..waiting import MINUTES, until
from .test_killed import MANY

PLUGIN = "snakemake_executor_plugin_slurm"
NAPS = '''
import os, time
from pathlib import Path

from wakd_kit.objectives import objectives

HERE = Path(__file__).parent


@objectives.declare(kind="logits", needs="", source="a test")
def naps(student, teacher=None, labels=None):
    """Nothing, and three seconds of it while a file beside this one is there; says which job it was in."""
    with open(HERE / "batches", "a") as said:
        said.write(os.environ.get("SLURM_JOB_ID", "here") + "\\n")
    if (HERE / "nap").exists():
        time.sleep(3)
    return student.logits.sum() * 0
'''


@pytest.fixture(scope="module")
def reached(tmp_path_factory):
    """The environment in which Slurm's commands, and snakemake, reach a cluster that ends with this module."""
    if why := slurm.missing():
        pytest.skip(why)
    if importlib.util.find_spec(PLUGIN) is None:
        pytest.skip("snakemake's plugin for Slurm is not installed: pip install snakemake-executor-plugin-slurm")
    with slurm.cluster(tmp_path_factory.mktemp("slurm") / "of_one") as env:
        yield env


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_left():
    """A report that a test has given up is ended with it."""
    yield
    while STARTED:
        if (report := STARTED.pop()).poll() is None:
            os.killpg(report.pid, signal.SIGKILL)
            report.wait()


def written(folder: Path, tiny: str, *, retries: int, **settings) -> Path:
    """The tiny study with these settings, and beside it the shipped profile as a cluster without accelerators takes it, in a
    hurry; returns the study's file."""
    (folder / "profile").mkdir(parents=True)
    shipped = yaml.safe_load((cluster.folder_of("slurm") / "config.yaml").read_text())
    hurry = {"latency-wait": 10, "slurm-init-seconds-before-status-checks": 2, "retries": retries}
    hurry |= {"set-threads": ["notebook=1"], "default-resources": ["runtime=30", "mem_mb=2000"]}
    (folder / "profile" / "config.yaml").write_text(yaml.safe_dump(shipped | hurry))
    (folder / "naps.py").write_text(NAPS)
    study = yaml.safe_load(tiny) | {"plugins": ["naps.py"]} | settings
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study))
    return folder / "tiny.yaml"


def start(file: Path, env: dict[str, str]) -> subprocess.Popen:
    """``wakd report`` on the cluster."""
    folder = file.parent
    words = ["report", str(file), "--profile", str(folder / "profile"), "--gpus", "0"]
    words += ["--out", str(folder / "report"), "--runs", str(folder / "runs")]
    with open(folder / "log", "a") as log:
        command = [sys.executable, "-m", "wakd_kit", *words]
        STARTED.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True))
    return STARTED[-1]


def finish(report: subprocess.Popen, file: Path, env: dict[str, str], expected: int = 0) -> str:
    """What it said, all of it, once it has ended as expected."""
    wait_until(lambda: report.poll() is not None, file, env, "the report has ended")
    said = (file.parent / "log").read_text()
    assert report.returncode == expected, said
    return said


def wait_until(there: Callable[[], object], file: Path, env: dict[str, str], what: str) -> object:
    """What ``there`` gives, once it gives something; where it never does, what the cluster and the study say of it."""
    return until(there, lambda: f"{what}\n{slurm.state(env)}\n{(file.parent / 'log').read_text()[-3000:]}", every=0.5)


def job_of(name: str, file: Path, env: dict[str, str], report: subprocess.Popen, state: str = "RUNNING") -> str:
    """The number that the cluster gave a job of the study, once it is in this state."""

    def there() -> str | None:
        for line in slurm.say(["squeue", "--noheader", "--states=all", "--format=%i|%T|%k"], env).splitlines():
            number, now, comment = line.split("|", 2)
            if now == state and comment.endswith(f"_{name}"):
                return number
        assert report.poll() is None or state != "RUNNING", (file.parent / "log").read_text()
        return None

    return wait_until(there, file, env, f"{name} is {state}")


def batches(file: Path, job: str) -> int:
    """How many batches a job of the cluster has trained on."""
    said = file.with_name("batches")
    return said.read_text().split().count(job) if said.exists() else 0


def trains(file: Path, env: dict[str, str], report: subprocess.Popen, job: str, n: int = 1) -> None:
    """Waits until a job has trained on some batches."""

    def there() -> bool:
        assert report.poll() is None, (file.parent / "log").read_text()
        return batches(file, job) >= n

    wait_until(there, file, env, f"job {job} has trained on {n} batches")


def status(file: Path, *words: str) -> int:
    folders = ["--out", str(file.parent / "report"), "--runs", str(file.parent / "runs")]
    return main(["status", str(file), *folders, *words])


def scores(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "report" / "scores.csv")
    return table.sort_values([*table.columns[:6]], ignore_index=True)


@pytest.mark.slurm
@pytest.mark.slow
def test_a_job_that_is_cancelled_is_named_with_its_log_and_the_same_command_goes_on(
    reached, tiny_study, finished, tmp_path, capsys
):
    short = {"targets": ["north"], "window_map": {}, "landscape": {"students": []}}
    student = {"KD": {"objectives": [{"name": "kd"}, {"name": "naps"}]}}
    file = written(tmp_path / "study", tiny_study, retries=0, students=student, **short)
    (tmp_path / "study" / "nap").touch()
    report = start(file, reached)
    job = job_of("north-s0-KD", file, reached, report)
    trains(file, reached, report, job)
    assert status(file) == 3 and "Run by process" in capsys.readouterr().out
    slurm.say(["scancel", job], reached)
    said = finish(report, file, reached, expected=2)
    assert f"north-s0-KD: its job {job} of the cluster: CANCELLED AT" in said and "What is done is kept" in said
    assert "[1/3] north-s0-teacher" in said, "what is done elsewhere is said here"
    capsys.readouterr()
    assert status(file) == 1
    assert re.search(rf"failed +north-s0-KD +its job {job} of the cluster: CANCELLED AT", capsys.readouterr().out)
    assert status(file, "--failed") == 1
    out = capsys.readouterr().out
    assert f"slurm_logs/rule_notebook/north-s0-KD/{job}.log" in out and not re.search("^north-s0-teacher", out, re.M)
    (tmp_path / "study" / "nap").unlink()
    finish(start(file, reached), file, reached)
    assert status(file) == 0 and "CANCELLED" not in capsys.readouterr().out
    ours, local = scores(tmp_path / "study"), scores(finished)
    local = local[local["target"] == "north"].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours[local.columns], local, rtol=1e-6)


@pytest.mark.slurm
@pytest.mark.slow
def test_ctrl_c_cancels_what_the_cluster_runs(reached, tiny_study, tmp_path):
    student = {"CE": {"objectives": ["ce", {"name": "naps"}], "teacher": None}}
    file = written(
        tmp_path / "study", tiny_study, retries=0, targets=["north"], students=student, window_map={}, landscape={}
    )
    (tmp_path / "study" / "nap").touch()  # so that it is still there when it is looked at
    report = start(file, reached)
    job = job_of("north-s0-CE", file, reached, report)
    trains(file, reached, report, job)
    for process in (report.pid, *_children(report.pid)):  # as a terminal tells all of them
        os.kill(process, signal.SIGINT)
    assert report.wait(60 * MINUTES) != 0
    assert job == job_of("north-s0-CE", file, reached, report, "CANCELLED")


def _children(process: int) -> list[int]:
    said = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in said.split()]


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.skipif("WAKD_SLOW" not in os.environ, reason="long form; set WAKD_SLOW=1")
def test_a_study_of_27_jobs_on_a_cluster_that_ends_drains_and_is_left(reached, tiny_study, tmp_path, capsys):
    """A time limit, a node that drains, ``scancel``, a snakemake that is killed: the numbers are those of a study run here."""
    students = {"CE": {"objectives": ["ce"], "teacher": None}, "KD": {"objectives": [{"name": "kd"}, {"name": "naps"}]}}
    students["KD"] |= {"steps": 40, "segment_length": 4}
    settings = {"students": students, **MANY}
    settings["also"] = {"05_objectives": {"average": "WAKD"}, "06_when_averaging_helps": {"averages": ["WAKD"]}}
    file = written(tmp_path / "study", tiny_study, retries=1, **settings)
    folder, nap = file.parent, file.parent / "nap"
    nap.touch()
    report = start(file, reached)
    # its time is up while it trains: it is tried again, and goes on where it was
    first = job_of("north-s0-KD", file, reached, report)
    trains(file, reached, report, first, 10)
    slurm.say(["scontrol", "update", f"jobid={first}", "timelimit=1"], reached)
    assert first == job_of("north-s0-KD", file, reached, report, "TIMEOUT")
    assert "DUE TO TIME LIMIT" in next((folder / "runs").rglob(f"slurm_logs/*/*/{first}.log")).read_text()
    nap.unlink()
    then = batches(file, first)
    # a node that drains takes nothing new and finishes what it has
    host = slurm.say(["sinfo", "--noheader", "--format=%n"], reached)
    slurm.say(["scontrol", "update", f"nodename={host}", "state=drain", "reason=test"], reached)
    left = ["squeue", "--noheader", "--states=RUNNING,COMPLETING"]
    wait_until(lambda: not slurm.say(left, reached), file, reached, "the node has finished what it had")
    capsys.readouterr()
    done = [row["name"] for row in _rows(file, capsys) if row["state"] == "done"]
    time.sleep(20)
    assert slurm.say(["squeue", "--noheader", "--states=PENDING"], reached), "jobs wait"
    rows = _rows(file, capsys)
    assert done == [row["name"] for row in rows if row["state"] == "done"] and not [
        r for r in rows if r["state"] == "running"
    ]
    assert report.poll() is None
    # the engine is killed, and what Slurm has is left to it; the same command takes over when the node is back
    for process in _children(report.pid):
        os.kill(process, signal.SIGKILL)
    report.wait(60 * MINUTES)  # it shows what is there
    slurm.say(["scontrol", "update", f"nodename={host}", "state=resume"], reached)
    report = start(file, reached)
    # which waited for the one that came to an end first
    second = job_of("landscape-north-s0-KD", file, reached, report)
    slurm.say(["scancel", second], reached)
    said = finish(report, file, reached)
    assert "27 of 27 notebooks to do" in said and status(file) == 0
    jobs = set(file.with_name("batches").read_text().split()) - {first, "here"}  # here: a plan tries its objectives
    went_on = [n for job in jobs if (n := batches(file, job)) < 40]
    assert then + went_on[0] < 40 + 20 and len(went_on) == 1, (then, went_on)
    recordings = [*(folder / "runs").glob("*-s*/*/environment.json")]
    assert len(recordings) == 18 and not [*(folder / "runs").glob("*-s*/*.before-*")]
    local = written(tmp_path / "local", tiny_study, retries=0, **settings)
    words = [
        "report",
        str(local),
        "--out",
        str(tmp_path / "local" / "report"),
        "--runs",
        str(tmp_path / "local" / "runs"),
    ]
    subprocess.run([sys.executable, "-m", "wakd_kit", *words, "--cores", "1"], check=True, capture_output=True)
    pd.testing.assert_frame_equal(scores(folder), scores(tmp_path / "local"), rtol=1e-6)


def _rows(file: Path, capsys) -> list[dict]:
    capsys.readouterr()
    status(file, "--json")
    return json.loads(capsys.readouterr().out)["notebooks"]


# ---- what a cluster says, without one


def test_what_the_cluster_said_of_a_job_counts_for_the_run_of_the_study_that_is_now(tmp_path):
    log = tmp_path / ".snakemake" / "slurm_logs" / "rule_notebook" / "north-s0-KD" / "12.log"
    log.parent.mkdir(parents=True)
    assert cluster.ended(tmp_path, "north-s0-KD") == "" and cluster.log_of(tmp_path, "north-s0-KD") is None
    for line, why in (
        (
            "slurmstepd: error: *** STEP 12.0 ON n1 CANCELLED AT 2026-11-27T06:11:26 ***",
            "CANCELLED AT 2026-11-27T06:11:26",
        ),
        (
            "slurmstepd-n1: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-27T06:11:26 DUE TO TIME LIMIT ***",
            "CANCELLED AT 2026-11-27T06:11:26 DUE TO TIME LIMIT",
        ),
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0. Some of the step tasks have been OOM Killed.",
            "Detected 1 oom_kill event in StepId=12.0. Some of the step tasks have been OOM Killed",
        ),
    ):
        log.write_text(f"Select jobs to execute...\n{line}\nsrun: error: n1: task 0: Terminated\n")
        assert cluster.ended(tmp_path, "north-s0-KD") == f"its job 12 of the cluster: {why}."
    (tmp_path / "lock").touch()
    os.utime(log, ns=(1, 1))
    assert cluster.ended(tmp_path, "north-s0-KD") == "", "the study was begun again since"
    log.write_text("WorkflowError:\nAt least one job did not complete successfully.\n")
    assert cluster.ended(tmp_path, "north-s0-KD") == "", "it told itself why"


def test_why_a_cluster_takes_no_job_is_found_in_what_snakemake_said():
    said = "    message: SLURM sbatch failed. The error message was 'sbatch: error: {}'.\n    sbatch call:\n"
    assert cluster.refused(said.format("Batch job submission failed: Invalid account")) == (
        "Batch job submission failed: Invalid account"
    )
    assert cluster.refused(said.format("Invalid generic resource (gres) specification")).endswith("--gpus 0)")
    assert cluster.refused("WorkflowError:\n") == ""


def test_where_slurm_keeps_no_accounts_its_queue_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    scontrol = tmp_path / "scontrol"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(places.StudyProblem, match="no scontrol on the PATH"):
        cluster.words("slurm")
    for kept, more in (
        ("accounting_storage/none", ["--slurm-status-command", "squeue"]),
        ("accounting_storage/slurmdbd", []),
    ):
        scontrol.write_text(f"#!/bin/sh\necho 'AccountingStorageType   = {kept}'\n")
        scontrol.chmod(0o755)
        assert cluster.words("slurm") == ["--profile", str(cluster.PROFILES / "slurm"), *more]
    (tmp_path / "config.yaml").write_text("executor: local\n")
    assert cluster.words(str(tmp_path)) == ["--profile", str(tmp_path)]

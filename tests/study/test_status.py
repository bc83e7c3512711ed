"""Who runs a study, how far it is, what is left of it and why it failed: read off its folders, wherever these are."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from wakd_kit.cli import main
from wakd_kit.files import locked
from wakd_kit.fingerprints import of_plugins
from wakd_kit.study import places, status
from wakd_kit.study.cluster import executor_of
from wakd_kit.study.jobs import Place
from wakd_kit.study.run import _names
from wakd_kit.study.status import who


def test_a_process_that_is_dead_is_not_named_as_running():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here, since = socket.gethostname(), "since Thu Nov 26 17:00:00 2026"
    dead = f"process {gone.pid} on {here}, wakd report tiny, {since}"
    assert who(dead) == f"the engine that was left behind when {dead} was killed"
    for owner in (
        f"process {os.getpid()} on {here} {since}",
        f"process {gone.pid} on another, x, {since}",
        "another process",
    ):
        assert who(owner) == owner


def row(kind: str, state: str, seconds: float | None = None) -> dict:
    return {"name": kind, "kind": kind, "state": state, "seconds": seconds, "step": None, "steps": None, "said": ""}


def test_the_time_left_is_told_from_the_first_notebook_of_a_kind_on():
    first = [
        row("02", "done", 120.0),
        row("02", "done", 60.0),
        row("02", "waiting"),
        row("02", "waiting"),
        row("03", "waiting"),
    ]
    assert status.left_of(first) == "About 3 minutes are left, and 03, of which none is done yet."
    assert status.left_of(first[:4]) == "About 3 minutes are left."
    running = [*first[:2], row("02", "running", 30.0), row("02", "running", 0.0)]
    assert status.left_of(running) == "About a minute is left.", "(60 + 90) / 2 seconds"
    assert status.left_of([row("02", "waiting")]) == "Time left is not known yet: none was done before of 02."
    assert status.left_of(first[:2]) == "Nothing is left."


def test_a_failure_is_told_in_one_line():
    said = (
        "02_distill stopped at In [4], Diverged: The training loss became nan between steps 1 and 4 of 20. Lower "
        "learning_rate (now 1e+09).\nThe rest is long enough to be cut. The copy is /a/b/c.failed.ipynb."
    )
    line = status.in_one_line(said)
    assert line.startswith("Diverged: The training loss became nan between steps 1 and 4 of 20. Lower learning_rate")
    assert "\n" not in line and len(line) <= 110 and "/a/b" not in line
    assert status.in_one_line("short") == "short"


@pytest.fixture
def moved(finished, tmp_path, monkeypatch):
    """The tiny study, finished, whose output is elsewhere than beside its file; returns the file."""
    monkeypatch.setenv("WAKD_CACHE", str(tmp_path / "cache"))
    for part in ("report", "runs"):
        shutil.copytree(finished / part, tmp_path / "elsewhere" / part)
    file = tmp_path / "here" / "tiny.yaml"
    file.parent.mkdir()
    (tmp_path / "elsewhere" / "runs" / "engine" / "study.json").write_text(json.dumps({"file": str(file)}))
    return shutil.copy(finished / "tiny.yaml", file)


def test_a_study_is_found_by_its_file_wherever_it_wrote(moved, tmp_path, capsys):
    assert main(["status", str(moved)]) == 3
    assert f"tiny was not begun: nothing is at {tmp_path / 'here' / 'runs' / 'tiny'}." in capsys.readouterr().out
    elsewhere = tmp_path / "elsewhere"
    places.remember(moved, elsewhere / "report", elsewhere / "runs")
    assert main(["status", str(moved)]) == 0
    out = capsys.readouterr().out
    assert (
        "tiny: 6 done. Nothing is left. Nobody runs it." in out and out.count("\ndone ") + out.startswith("done ") == 6
    )
    shutil.rmtree(elsewhere / "runs")
    assert places.remembered(moved) is None, "what is gone is not named"


def test_what_was_edited_since_is_named_and_what_was_only_touched_is_not(moved, finished, tmp_path):
    place = status.place_of(moved, tmp_path / "elsewhere" / "report", tmp_path / "elsewhere" / "runs")
    shutil.copy(finished / "runs" / "engine" / "study.json", place.engine)
    os.utime(moved)
    first, plugin = min((place.engine / "jobs").glob("*.json")), tmp_path / "rules.py"
    plugin.write_text("BEGIN = 0.5")
    job = json.loads(first.read_text())
    job |= {"plugins": [str(plugin)], "analysis": job["analysis"] | of_plugins([str(plugin)])}
    first.write_text(json.dumps(job))
    plugin.write_text("BEGIN = 0.5  # of the run")
    assert status.changed_since(moved, place) == ""
    for edited in ("BEGIN = 0.4", "BEGIN ="):
        plugin.write_text(edited)
        assert status.changed_since(moved, place) == (
            f"rules.py was edited since; wakd report {moved} --dry-run says what is to do now."
        )
    moved = Path(moved)
    moved.write_text(f"{moved.read_text()}\nabout: more\n")
    os.utime(moved, (0, 0))
    assert status.changed_since(moved, place).startswith("tiny.yaml and rules.py were edited since; ")
    plugin.unlink()
    assert status.changed_since(moved, place).startswith("tiny.yaml was edited since; ")


def test_an_edited_file_that_a_study_extends_is_named(tmp_path):
    base, study = tmp_path / "base.yaml", tmp_path / "study.yaml"
    base.write_text("steps: 100")
    study.write_text("extends: base.yaml")
    place = Place(tmp_path / "report", tmp_path / "runs", tmp_path)
    place.engine.mkdir(parents=True)
    (place.engine / "study.json").write_text(json.dumps(_names(study, place)))
    assert status.changed_since(study, place) == ""
    base.write_text("steps: 200")
    assert status.changed_since(study, place).startswith("base.yaml was edited since; ")
    study.write_text("extends: study.yaml")
    assert status.changed_since(study, place).startswith("study.yaml was edited since; ")
    study.unlink()
    with pytest.raises(places.StudyProblem, match="No study file"):
        status.changed_since(study, place)


def test_what_failed_is_told_with_its_page_its_log_and_a_status(moved, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    engine = elsewhere / "runs" / "engine"
    (engine / "failed" / "north-s0-KD.json").write_text(
        json.dumps({"said": "02_distill stopped at In [4], Diverged: nan."})
    )
    (engine / "logs").mkdir(exist_ok=True)
    (engine / "logs" / "north-s0-KD.log").write_text("a line\nthe last line\n")
    given = [str(moved), "--out", str(elsewhere / "report"), "--runs", str(elsewhere / "runs")]
    assert main(["status", *given]) == 1
    out = capsys.readouterr().out
    assert "failed   north-s0-KD" in out and "Diverged: nan." in out and "stopped at" not in out
    assert "waiting  landscape-north-s0-KD  after north-s0-KD" in out and "4 done" not in out.splitlines()[0]
    assert main(["status", *given, "--failed"]) == 1
    out = capsys.readouterr().out
    assert "02_distill stopped at In [4]" in out and "the last line" in out and "north-s0-KD.html" in out
    assert "teacher" not in out
    os.utime(engine / "failed" / "north-s0-KD.json", (0, 0))
    with locked(engine / "lock"):  # an engine that began since then tries it again
        assert main(["status", *given]) == 3
    out = capsys.readouterr().out
    assert "waiting  north-s0-KD" in out and "Diverged: nan." in out
    assert main(["status", *given, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert {r["state"] for r in said["notebooks"] if r["name"] == "north-s0-KD"} == {"failed"} and said[
        "study"
    ] == "tiny"


def test_status_waits_for_no_torch(moved, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    code = "import sys; from wakd_kit.cli import main; print(main(sys.argv[1:]), {'torch', 'pandas'} & {*sys.modules})"
    given = ["status", str(moved), "--out", str(elsewhere / "report"), "--runs", str(elsewhere / "runs")]
    said = subprocess.run([sys.executable, "-c", code, *given], check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == "0 set()" and "done" in said


def test_a_study_writes_beside_its_file_and_a_shipped_one_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "home", lambda: tmp_path / "checkout")
    own = tmp_path / "mine" / "own.yaml"
    own.parent.mkdir()
    own.write_text("name: 007\nseeds: [0]\n")
    assert places.name_of(own) == "007"
    assert places.beside("007", own) == own.parent
    assert (
        places.beside("quickstart", places.file_of("quickstart")) == tmp_path / "checkout" == places.beside("x", None)
    )
    engine = tmp_path / "checkout" / "runs" / "007" / "engine"
    engine.mkdir(parents=True)
    (engine / "study.json").write_text(json.dumps({"file": str(own)}))
    assert places.beside("007", own) == tmp_path / "checkout", "where it was recorded before"


def test_studies_that_begin_at_once_are_all_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("WAKD_CACHE", str(tmp_path / "cache"))
    files = [tmp_path / f"{name}.yaml" for name in "abcdefgh"]
    [file.touch() for file in files]
    read = places.json_or_nothing
    # who has read what is known is overtaken by the others before it writes
    monkeypatch.setattr(places, "json_or_nothing", lambda file: [read(file), time.sleep(0.05)][0])
    at_once = [threading.Thread(target=places.remember, args=(file, tmp_path, tmp_path)) for file in files]
    [thread.start() for thread in at_once], [thread.join() for thread in at_once]
    assert all(places.remembered(file) == (tmp_path, tmp_path) for file in files)


def test_a_profile_whose_executor_is_not_installed_is_refused_at_once(tmp_path):
    from wakd_kit.study.run import run_study

    with pytest.raises(
        places.StudyProblem, match=r"No profile at nowhere: it is 'slurm', or a folder with a config\.yaml"
    ):
        run_study("quickstart", profile="nowhere")
    (tmp_path / "config.yaml").write_text("executor: no-such-cluster\n")
    with pytest.raises(
        places.StudyProblem, match=r"which needs: pip install snakemake-executor-plugin-no-such-cluster$"
    ):
        run_study("quickstart", profile=str(tmp_path))
    (tmp_path / "config.v8+.yaml").write_text("executor: local\n")
    assert executor_of(str(tmp_path)) == "local", "the one that snakemake takes"
    (tmp_path / "config.v8+.yaml").unlink()
    for text, said in (
        ("jobs: [50\n", r"config\.yaml, line 2, is no YAML"),
        ("- slurm", "should hold settings of snakemake"),
    ):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(places.StudyProblem, match=said):
            run_study("quickstart", profile=str(tmp_path))

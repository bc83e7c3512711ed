"""A study recorded by the code of 0f5ebef, before there were rooms: it is read as it is, and nothing of it is recorded again.

before.zip   before.yaml and runs/ as that commit's ``wakd report before.yaml`` left them, without locks and logs; paths of
             the machine are <folder> and <checkout>
"""

import hashlib
import zipfile
from pathlib import Path

import pandas as pd
import pytest

import wakd_kit as wk
from wakd_kit.reporting import execute as notebook
from wakd_kit.reporting import pages, render
from wakd_kit.runs.run import Run
from wakd_kit.study.jobs import accepted, retrained
from wakd_kit.study.run import _planned as planned_of
from wakd_kit.study.run import planned, run_study, status

from .. import notebooks

# SHA-256 of every name and array of run.average(..., batchnorm="average"), computed by that commit
AVERAGES = {
    "uniform": "fb19632d4eee4f141c3542a7b9abc039d8fc6da74f39ba2ed276598e8a6f5f8c",
    "wakd": "a74a71403958c3ce5839bf583d338f9d46ef83286a98fa4db81573ac209a69d4",
    "last": "2ec4eddec8760bea3d8212d2f84497a3824d733055d07092b8448250f5aa37aa",
}


@pytest.fixture
def before(tmp_path) -> Path:
    """The folder that holds before.yaml and runs/, with its own place in what was recorded."""
    zipfile.ZipFile(Path(__file__).with_name("before.zip")).extractall(tmp_path)
    for file in (tmp_path / "runs" / "engine").rglob("*.json"):
        file.write_text(file.read_text().replace("<folder>", str(tmp_path)))
    return tmp_path


@pytest.fixture
def run(before) -> Run:
    return wk.load_run(before / "runs" / "sketch-s0" / "KD")


def recorded(folder: Path) -> dict[str, tuple]:
    """Every file of the trainings that only a training writes: its bytes, and when it was written."""
    files = [*folder.glob("runs/*/*/segments/*"), *folder.glob("runs/*/*/curves.csv")]
    files += [*folder.glob("runs/*/*/settings.json"), *folder.glob("runs/*/*/environment.json")]
    assert len(files) == 2 * (4 + 3)
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_a_run_of_before_loads_with_all_that_it_recorded(run):
    assert (run.name, run.settings["steps"], len(run.source_curves)) == ("KD", 4, 2)
    assert run.settings["objectives"] == [{"name": "kd", "weight": 1.0, "temperature": 5.0, "kind": "forward"}]
    assert set(run.choices) == {"last", "WAKD"} and "KD" in repr(run)
    assert set(run.scores["role"]) == {"source", "target"}
    assert run.split.target == "sketch"  # the images are those it was trained on


@pytest.mark.parametrize("strategy", AVERAGES)
def test_its_averages_are_those_that_were_computed_before_bit_for_bit(run, strategy):
    settings = {"begin": 0.5} if strategy == "wakd" else {}
    coefficients = getattr(wk.averaging, strategy)(run.source_curves, **settings)
    state = run.average(coefficients, batchnorm="average")
    told = b"".join(name.encode() + state[name].contiguous().numpy().tobytes() for name in sorted(state))
    assert hashlib.sha256(told).hexdigest() == AVERAGES[strategy]


def test_its_choices_are_evaluated_to_the_scores_of_before(run):
    then = run.scores.copy()
    now = wk.evaluate(run, wk.choose(run, ["last", {"name": "wakd", "label": "WAKD", "begin": 0.5}]))
    both = then.merge(now, on=["strategy", "domain"], suffixes=("_then", "_now"))
    assert len(both) == len(then) == 8
    # another machine adds up in another order
    pd.testing.assert_series_equal(both["nll_then"], both["nll_now"], check_names=False, rtol=1e-4)


def test_nothing_of_its_study_is_recorded_again(before):
    folders = {"out": before / "report", "runs": before / "runs"}
    files = recorded(before)
    lines = planned(before / "before.yaml", **folders)
    # notebooks say why: what they measure and say has a new version; recordings are kept
    assert lines[:3] == [f"{name}: was done by another version" for name in JOBS]
    assert lines[3:] == [KEPT, "before: 3 of 3 notebooks to do"]
    _, place, jobs = planned_of(before / "before.yaml", *folders.values())
    assert [retrained(job, place) for job in jobs] == ["", "", ""]
    assert [accepted(job, place) for job in jobs] == ["code", "code", ""]
    assert status(before / "before.yaml", **folders)[1].startswith("before: 3 waiting.")
    assert recorded(before) == files


JOBS = ["sketch-s0-teacher", "sketch-s0-KD", "03_compare"]
KEPT = (
    "2 finished recordings were made before the code of recordings was told as it is now; all else is the same, and they are "
    "kept."
)


@pytest.mark.slow
def test_its_report_is_made_again_of_the_recordings_that_are_there(before, monkeypatch):
    monkeypatch.setattr(notebook, "execute", lambda *given, env, **settings: notebooks.execute(*given, **settings))
    monkeypatch.setattr(render, "show", lambda figure, alt, **_: None)  # drawn, and not turned into images
    monkeypatch.setattr(pages, "BROWSERS", ())
    folders = {"out": before / "report", "runs": before / "runs"}
    files, lines = recorded(before), []
    page = run_study(before / "before.yaml", engine="sequential", cores=1, **folders, say=lines.append)
    assert page.is_file() and recorded(before) == files
    assert not list((before / "runs").rglob("*.before-*")) and KEPT in lines
    assert planned(before / "before.yaml", **folders)[-1] == "before: 0 of 3 notebooks to do"

"""What is done otherwise on Windows, forced here. Nothing of it was run on Windows itself."""

import os
import sys

import pytest

import wakd_kit as wk
from wakd_kit import files
from wakd_kit.runs import record
from wakd_kit.study import run as studies
from wakd_kit.study import status
from wakd_kit.study.jobs import Place

from .conftest import SMALL


class Windows:
    """``os`` of a module, but for its name: patched for all, paths themselves would be Windows'."""

    name = "nt"

    def __getattr__(self, name: str):
        return getattr(os, name)


def test_without_shared_locks_who_holds_one_is_still_told(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    assert files.holder(tmp_path / "lock") is None
    with files.locked(tmp_path / "lock", owner="a test"):
        assert f"process {os.getpid()} on" in files.holder(tmp_path / "lock") and "a test" in files.holder(
            tmp_path / "lock"
        )
        with pytest.raises(files.Held, match="a test"), files.locked(tmp_path / "lock"):
            pass
    assert files.holder(tmp_path / "lock") is None


def test_a_recording_gets_its_name_after_its_lock_is_closed(split, tmp_path, monkeypatch):
    open_then = []
    monkeypatch.setattr(record, "os", os_ := Windows())

    def replace(source, to):
        if str(to) == str(tmp_path / "run"):
            open_then.append(files.holder(record.recording_folder(tmp_path / "run") / "lock"))
        return os.replace(source, to)

    os_.replace = replace
    student = wk.build_model("resnet10t", split.classes, seed=0, **SMALL)
    recipe = {"steps": 2, "segment_length": 1, "batch_size": 8, "batchnorm_batches": 1}
    wk.train(student, split, **recipe, save_to=tmp_path / "run", device="cpu", progress=False)
    assert open_then == [None], "Windows renames no folder in which a file is open"
    assert len(wk.load_run(tmp_path / "run").source_curves) == 2


def test_an_engine_inherits_no_locks_and_who_is_dead_is_not_asked(tmp_path, monkeypatch):
    for module in (studies, status):
        monkeypatch.setattr(module, "os", Windows())
    place = Place(tmp_path / "report", tmp_path / "runs")
    place.prepare()
    with open(tmp_path / "kept", "w") as kept:
        code = f"import os; os.fstat({kept.fileno()})"  # fails where it was not inherited
        said = studies._snakemake([sys.executable, "-c", code], place, [kept.fileno()], {}, None)
    assert "Bad file descriptor" in said
    owner = f"process 999999 on {status.socket.gethostname()}, wakd report tiny, since now"
    assert status.who(owner) == owner

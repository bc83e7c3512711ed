"""What a recording survives: a machine without git, a name that is taken, a kill in its last second, tensors of any kind."""

import builtins
import errno
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import wakd_kit as wk
from wakd_kit import files
from wakd_kit.models.tap import provenance_of
from wakd_kit.runs import record as recording
from wakd_kit.runs import store
from wakd_kit.runs.record import MEASURED, measuring
from wakd_kit.runs.store import RunProblem, Segments, estimate_bytes


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    domains = {name: (rng.integers(0, 255, (24, 8, 8, 3)).astype(np.uint8), np.arange(24) % 3) for name in "abc"}
    return wk.leave_one_out(wk.domains_from_arrays(domains, ("x", "y", "z"), views="none"), "c", 0)


class Small(nn.Module):
    """A layer on the mean colour, and a tensor of any kind beside it."""

    def __init__(self, beside=None, name="beside"):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.register_buffer(name, torch.zeros(2) if beside is None else beside)

    def forward(self, x):
        return self.layer(x.mean((2, 3)))


def quick(split, folder, model=None, **settings):
    settings = {"steps": 8, "segment_length": 2, "batch_size": 8, "batchnorm": "last", **settings}
    return wk.train(model or Small(), split, save_to=folder, progress=False, device="cpu", **settings)


@pytest.fixture
def steps(monkeypatch):
    """The steps that are trained, as they are."""
    add, seen = recording.Recorder.add, []

    def counts(recorder):
        add(recorder)
        seen.append(recorder.step)

    monkeypatch.setattr(recording.Recorder, "add", counts)
    return seen


class Killed(BaseException):
    pass


def test_a_machine_without_git_and_without_the_package_finishes(split, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    folder = quick(split, tmp_path / "run").folder
    known = json.loads((folder / "environment.json").read_text())
    assert known["commit"] is None and known["packages"]["wakd_kit"] is None and known["seconds"] >= 0


def test_an_environment_names_the_device_that_computes(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"a card called {device}")
    devices = [recording.environment(torch.device(name))["device"] for name in ("cpu", "cuda:1")]
    assert devices == ["cpu", "a card called cuda:1"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_kits_own_commit_is_kept_and_not_that_of_a_repository_which_holds_it_installed(tmp_path, monkeypatch):
    def git(*words) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, text=True).stdout

    def module(folder: Path) -> None:
        file = folder / "wakd_kit" / "runs" / "record.py"
        file.parent.mkdir(parents=True)
        file.write_text("")
        monkeypatch.setattr(recording, "__file__", str(file))

    (tmp_path / "analysis.py").write_text("")
    git("init", "-q")
    git("add", "analysis.py")
    git("commit", "-qm", "mine")
    module(tmp_path / ".venv" / "site-packages")
    assert recording._commit() == (None, None)
    git("add", "-f", ".venv")  # nor where it is committed there
    assert recording._commit() == (None, None)
    module(tmp_path)
    git("add", "wakd_kit")
    git("commit", "-qm", "the kit")
    assert recording._commit() == (git("rev-parse", "HEAD").strip(), False)
    Path(recording.__file__).write_text("# edited")
    assert recording._commit() == (git("rev-parse", "HEAD").strip(), True)


@pytest.mark.parametrize("moment", ["before the name", "after the name"])
def test_a_kill_in_the_last_second_loses_no_step(split, tmp_path, monkeypatch, steps, moment):
    folder, rename = tmp_path / "run", os.replace

    def dies(old, new):
        if new == folder and moment == "before the name":
            raise Killed
        rename(old, new)
        if new == folder:
            raise Killed

    whole = quick(split, tmp_path / "whole")
    steps.clear()
    with monkeypatch.context() as patch:
        patch.setattr(recording.os, "replace", dies)
        with pytest.raises(Killed):
            quick(split, folder)
    run = quick(split, folder, resume=True)
    assert steps == [*range(1, 9)]
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in whole.folder.iterdir())
    assert not files.recording_folder(folder).exists()
    a, b = (r.segments.read(len(r.segments) - 1, "end") for r in (whole, run))
    assert all(torch.equal(a[n], b[n]) for n in a)


def test_a_recording_that_an_older_version_left_complete_gets_its_name(split, tmp_path, steps):
    quick(split, tmp_path / "run").folder.rename(tmp_path / "run.recording")  # its checkpoint was deleted already
    steps.clear()
    assert quick(split, tmp_path / "run", resume=True).steps == 8 and steps == []


def test_a_finished_run_leaves_its_last_iterate_in_the_student_and_what_it_has_seen(split, tmp_path):
    first, again = Small(), Small()
    quick(split, tmp_path / "run", first)
    assert provenance_of(again) is None and not torch.equal(*(next(m.parameters()) for m in (first, again)))
    quick(split, tmp_path / "run", again, resume=True)
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in first.state_dict().items())
    assert provenance_of(again) == provenance_of(first)


def test_a_run_that_got_its_name_since_it_was_loaded_says_so(split, tmp_path):
    run = quick(split, tmp_path / "run")
    run.folder.rename(tmp_path / "run.recording")
    loaded = wk.load_run(tmp_path / "run.recording", split=split, template=Small())
    (tmp_path / "run.recording").rename(tmp_path / "run")
    with pytest.raises(RunProblem, match=r"run.recording is complete and called run now: load that run"):
        loaded.average(wk.choose(loaded, ["last"])["last"])


def test_a_recording_is_no_place_to_save_to(split, tmp_path, steps):
    with pytest.raises(ValueError, match=r"until it is complete; save_to is '.*/run'"):
        quick(split, tmp_path / "run.recording", resume=True)
    assert steps == []


def test_a_folder_of_ones_own_keeps_what_is_in_it(split, tmp_path):
    for name in ("environment.json", "checkpoint.pt", "lock"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(RunProblem, match="holds something else"):
        quick(split, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"environment.json", "checkpoint.pt", "lock"}


def test_what_takes_a_runs_name_meanwhile_costs_no_step(split, tmp_path, steps):
    folder = tmp_path / "run"

    def logger(row):
        folder.mkdir(exist_ok=True)
        (folder / "events").write_text("x")

    with pytest.raises(RunProblem, match=r"complete in .*run\.recording, .* move away .* resume=True"):
        quick(split, folder, sink=logger)
    shutil.move(folder, tmp_path / "logged")
    assert quick(split, folder, resume=True).steps == 8 and steps == [*range(1, 9)]


def test_a_name_that_no_recording_can_get_is_refused_before_the_first_batch(split, tmp_path, steps):
    (tmp_path / "link").symlink_to(tmp_path / "scratch")
    with pytest.raises(RunProblem, match="is a link, and no run can take its place: give the folder that it leads to"):
        quick(split, tmp_path / "link")
    with pytest.raises(RunProblem, match="holds something else"), recording.recording(tmp_path, {}, resume=False):
        pass
    assert steps == [] and [p.name for p in tmp_path.iterdir()] == ["link"]
    (tmp_path / "empty").mkdir()
    with recording.recording(tmp_path / "empty", {}, resume=False) as partial:
        (partial / "curves.csv").write_text("seconds\n1.0\n")
    assert (tmp_path / "empty" / "environment.json").exists()


def test_a_recording_without_a_checkpoint_is_nothing(split, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(recording.Checkpoint, "save", lambda *_: (_ for _ in ()).throw(Killed))
        quick(split, tmp_path / "run")
    assert quick(split, tmp_path / "run", learning_rate=0.5).settings["learning_rate"] == 0.5


def test_who_comes_while_another_finishes_trains_nothing(tmp_path):
    folder = tmp_path / "run"
    (tmp_path / "run").mkdir()
    (folder / "settings.json").write_text("{}")
    with pytest.raises(RunProblem, match="finished by another process"), recording.recording(folder, {}, resume=True):
        raise AssertionError("trains")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_what_was_measured_goes_when_a_recording_goes_on(split, tmp_path, monkeypatch):
    add = recording.Recorder.add

    def dies(recorder):
        add(recorder)
        if recorder.step == 5:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(recording.Recorder, "add", dies)
        quick(split, tmp_path / "run")
    partial = tmp_path / "run.recording"
    (partial / "landscape").mkdir()
    names = [pattern.replace("*", "kept") for pattern in MEASURED]
    (partial / "running").mkdir()
    for name in [*names, "landscape/page.ipynb", "curves.csv.01234567.part", "running/0.safetensors.01234567.part"]:
        (partial / name).write_text("x")
    folder = quick(split, tmp_path / "run", resume=True).folder
    assert not [name for name in names if (folder / name).exists()] and not list(folder.rglob("*.part"))
    assert (folder / "landscape" / "page.ipynb").exists()  # what somebody wrote is his


class Norm(nn.Module):
    """Running statistics by hand: changed in place, or each a new tensor."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place, self.layer = in_place, nn.Linear(3, 3)
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.register_buffer("centre", torch.zeros(3))

    def forward(self, x):
        x = x.mean((2, 3))
        if self.training:
            new = torch.lerp(self.centre, x.mean(0).detach(), 0.1)
            if self.in_place:
                self.centre.copy_(new)
            else:
                self.centre = new
                self.layer.bias = nn.Parameter(self.layer.bias.data.clone())  # as pruning does
        return self.layer(x - self.centre)


def test_means_follow_tensors_that_a_forward_pass_replaces(split, tmp_path):
    declared = {"name": "ema", "decay": 0.9}
    runs = [
        quick(split, tmp_path / str(kept), Norm(kept), declare=[declared], optimiser="sgd", learning_rate=1e-12)
        for kept in (True, False)
    ]
    for of in ("mean", "end"):
        a, b = (run.segments.read(2, of) for run in runs)
        torch.testing.assert_close(a, b)
    kept = [store.read_state(run.folder / "running" / "0.safetensors") for run in runs]
    torch.testing.assert_close(*kept)
    assert a["model.centre"].abs().max() > 0.01


def test_a_module_that_is_replaced_is_said(split, tmp_path):
    class Replaces(Small):
        def forward(self, x):
            self.layer = nn.Linear(3, 3)
            return super().forward(x)

    with pytest.raises(RunProblem, match=r"'model\.layer\.\w+' was put elsewhere while it was trained"):
        quick(split, tmp_path / "run", Replaces(), optimiser="sgd")


@pytest.mark.parametrize("storage", ["float32", "float16_difference"])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64", "int16", "int8", "uint16", "uint32", "bool"])
def test_tensors_of_a_student_come_back_as_what_they_were(split, tmp_path, storage, kind):
    beside = torch.tensor([1, 0, 3]).to(getattr(torch, kind))
    run = quick(split, tmp_path / "run", Small(beside), storage=storage, steps=2)
    assert run.segments.read(0, "end")["model.beside"].tolist() == beside.tolist()
    if beside.is_floating_point():
        assert run.segments.read(0, "mean")["model.beside"].tolist() == beside.tolist()


class Extra(Small):
    def get_extra_state(self):
        return {"scale": 1.0}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (Small(torch.ones(2, dtype=torch.complex64)), r"'model.beside' is torch.complex64; .* two real ones"),
        (Small(torch.ones(2).to(torch.float8_e4m3fn)), r"'model.beside' is torch.float8_e4m3fn; .* a bfloat16"),
        (Extra(), r"'model._extra_state' is dict; .* in buffers"),
    ],
)
def test_what_no_recording_holds_is_said_before_there_is_one(split, tmp_path, model, sentence):
    with pytest.raises(ValueError, match=sentence):
        quick(split, tmp_path / "run", model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["ж" * 60, 'a"\\b' * 9, "日本" * 40, "🦊" * 30])
def test_names_that_json_writes_with_many_bytes(tmp_path, name):
    state = {f"{name}{i}": torch.full((3, 2), float(i)) for i in range(3)}
    store.write_state(tmp_path / "state.safetensors", state)
    read = store.read_state(tmp_path / "state.safetensors")
    assert all(torch.equal(state[n], read[n]) for n in state)


def test_differences_beyond_half_precision_are_kept(tmp_path):
    start, state = {"variance": torch.ones(3)}, {"variance": torch.tensor([1.5, 1e5, 3e20])}
    segments = Segments.create(tmp_path / "segments", start, "float16_difference")
    segments.append(state, state, 1, 1)
    segments.append(state, state, 2, 2)
    segments.merge(0)
    for of in ("mean", "end"):
        torch.testing.assert_close(segments.read(0, of)["variance"], state["variance"], rtol=8e-3, atol=0)


def test_statistics_are_kept_as_they_are_and_older_recordings_have_differences(tmp_path):
    start, state = {"bn.running_var": torch.tensor([0.3, 40.0])}, {"bn.running_var": torch.tensor([0.0, 0.005])}
    segments = Segments.create(tmp_path / "segments", start, "float16_difference")
    for step in (1, 2):
        segments.append(state, state, step, step)
    segments.merge(0)
    for of in ("mean", "end"):
        torch.testing.assert_close(segments.read(0, of), state)
    older = {f"{of}.bn.running_var": torch.tensor([0.5, -8.0]).half() for of in ("mean", "end")}
    store.write_state(segments.folder / segments.index[0]["file"], older)
    torch.testing.assert_close(segments.read(0, "end")["bn.running_var"], torch.tensor([0.8, 32.0]))


def test_a_segment_that_was_merged_meanwhile_is_told_from_one_that_is_lost(tmp_path):
    state = {"w": torch.zeros(2)}
    writes = Segments.create(tmp_path / "segments", state, "float32")
    for step in (1, 2, 3):
        writes.append(state, state, step, step)
    reads = Segments(tmp_path / "segments")
    writes.merge(0)
    writes.clean()
    with pytest.raises(RunProblem, match="was merged with another since this run was loaded: load it again"):
        reads.read(0, "mean")
    (writes.folder / writes.index[1]["file"]).unlink()
    with pytest.raises(RunProblem, match="is missing; put it back"):
        reads.read(2, "mean")


def test_an_unfinished_recording_may_store_a_segment_while_it_is_loaded(split, tmp_path, monkeypatch):
    quick_dies(split, tmp_path / "run", monkeypatch, declare=[])
    partial, read = tmp_path / "run.recording", pd.read_csv
    index = partial / "segments" / "index.json"
    later = index.read_text()
    index.write_text(json.dumps(json.loads(later)[:1]))

    def stores(file, **settings):
        (partial / "segments" / "index.json").write_text(later)
        return read(file, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(pd, "read_csv", stores)
        run = wk.load_run(partial)
    assert run.segments.edges[-1] >= run.steps == 4


def test_the_estimate_is_a_bound_whatever_the_tensors_and_their_names(split, tmp_path):
    model = Small(torch.ones(500, dtype=torch.float64), name="ж" * 60)
    model.register_buffer("index", torch.zeros(900, dtype=torch.int64))
    model.register_buffer("none", torch.zeros(0))
    sizes, save = [], recording.Checkpoint.save

    def weighs(checkpoint, *given):
        save(checkpoint, *given)
        sizes.append(sum(f.stat().st_size for f in checkpoint.folder.rglob("*.safetensors")))
        sizes[-1] += 2 * checkpoint.file.stat().st_size

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording.Checkpoint, "save", weighs)
        run = quick(split, tmp_path / "run", model, steps=20, declare=[{"name": "ema", "decay": 0.5}])
    assert max(sizes) <= estimate_bytes(run.blank_model(), 10, "float32", 1)["disk"]


def test_a_resumed_optimiser_keeps_its_step_counts_on_the_cpu(split, tmp_path, monkeypatch):
    load, asked = torch.load, []

    def looks(*given, **settings):
        asked.append(settings["map_location"])
        return load(*given, **settings)

    quick_dies(split, tmp_path / "run", monkeypatch)
    monkeypatch.setattr(torch, "load", looks)
    quick(split, tmp_path / "run", resume=True)
    assert asked == ["cpu"]


def quick_dies(split, folder, monkeypatch, step=5, **settings):
    add = recording.Recorder.add

    def dies(recorder):
        add(recorder)
        if recorder.step == step:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(recording.Recorder, "add", dies)
        quick(split, folder, **settings)


@pytest.mark.parametrize("cut", [b"", b"PK\x03\x04", b"other"])
def test_a_checkpoint_that_is_cut_off_is_said(split, tmp_path, monkeypatch, cut):
    quick_dies(split, tmp_path / "run", monkeypatch)
    (tmp_path / "run.recording" / "checkpoint.pt").write_bytes(cut)
    with pytest.raises(RunProblem, match=r"checkpoint.pt is cut off or was edited"):
        quick(split, tmp_path / "run", resume=True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_disk_that_is_full_when_a_checkpoint_is_saved_is_said(split, tmp_path, monkeypatch):
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, path: save(state, "/dev/full"))
    with pytest.raises(OSError, match=r"checkpoint.pt could not be written: "):
        quick(split, tmp_path / "run")


def test_curves_without_a_checkpoint_are_those_of_another_training(split, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(Killed))
        quick(split, tmp_path / "run")
    rows = []
    quick(split, tmp_path / "run", sink=rows.append, learning_rate=0.5)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]


def test_a_finished_run_is_settled_while_somebody_measures_it(split, tmp_path):
    folder = quick(split, tmp_path / "run").folder
    with measuring(folder):
        recording.settle(folder)
        with pytest.raises(files.Held), files.locked(folder / "measured.lock"):
            pass


def test_measuring_is_for_one_at_a_time_who_may_ask_again(tmp_path):
    seen = []

    def other():
        with measuring(tmp_path):
            seen.append("other")

    with measuring(tmp_path), measuring(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        assert thread.is_alive() and seen == [] and files.holder(tmp_path / "measured.lock")
    thread.join()
    assert seen == ["other"] and files.holder(tmp_path / "measured.lock") is None


def test_measuring_waits_for_another_process_and_says_so(tmp_path):
    code = (
        "import sys, time, pathlib; from wakd_kit.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1]) / 'measured.lock'): print('taken', flush=True); time.sleep(1.5)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "taken\n"
        said = f"is being measured by process {process.pid} on .*: waiting"
        with pytest.warns(UserWarning, match=said), measuring(tmp_path):
            pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_what_cannot_be_written_is_said_before_it_is_measured(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunProblem, match="cannot be written: copy the run"), measuring(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said(split, tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(files.NoLocks, match=f"without locks .{os.strerror(number)}.*keep runs on another disk"):
        quick(split, tmp_path / "run")


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    def both(partial):
        files.write_text(tmp_path / "a", "inner")
        partial.write_text("outer")

    files.write_with(tmp_path / "a", both)
    assert (tmp_path / "a").read_text() == "outer" and [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(ZeroDivisionError):
        files.write_with(tmp_path / "a", lambda partial: (partial.write_text("half"), 1 / 0))
    assert (tmp_path / "a").read_text() == "outer" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_names_in_a_table_stay_what_they_were(tmp_path):
    import pandas as pd

    names = ["NA", "0", "007", "null", "1e3", "nan", ""]
    table = pd.DataFrame({"domain": names, "strategy": ["1"] * 7, "score": [1 / 3, np.nan, *range(5)], "n": range(7)})
    table.to_csv(tmp_path / "t.csv", index=False)
    pd.testing.assert_frame_equal(files.read_table(tmp_path / "t.csv").astype({"domain": object, "strategy": object}),
                                  table.astype({"domain": object, "strategy": object}), check_exact=True)  # fmt: skip


def test_a_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(files.path_of("~/runs")) == "/somewhere/runs"

    def nobody(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(files.Path, "expanduser", nobody)
    with pytest.raises(ValueError, match=r"no home folder here for '~/runs'; write the whole path"):
        files.path_of("~/runs")


def test_the_lock_of_a_folder_that_gets_another_name_is_asked_for_again(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    opened, real = [], builtins.open

    def moves(path, *given, **settings):
        file = real(path, *given, **settings)
        if not opened and str(path).endswith("lock"):
            (tmp_path / "a").rename(tmp_path / "b")
            (tmp_path / "a").mkdir()
            opened.append(path)
        return file

    monkeypatch.setattr(builtins, "open", moves)
    with files.locked(tmp_path / "a" / "lock") as lock:
        assert os.path.samestat(os.fstat(lock.fileno()), os.stat(tmp_path / "a" / "lock"))


def test_the_error_of_half_precision_is_what_is_said(tmp_path):
    generator, walk = torch.Generator().manual_seed(0), torch.zeros(20_000)
    whole, half = (
        Segments.create(tmp_path / storage, {"w": torch.randn(20_000)}, storage) for storage in store.STORAGE
    )
    half._initial = whole.initial
    for step in range(1, 101):
        walk = walk + 1e-3 * torch.randn(walk.shape, generator=generator)
        state = {"w": whole.initial["w"] + walk}
        for segments in (whole, half):
            segments.append(state, state, step, step)
        if step == 50:
            assert relative_error(whole, half, step - 1) < 3e-4
    for segments in (whole, half):
        segments.shrink(16, ())
    assert all(relative_error(whole, half, position) < 1e-3 for position in range(16))


def relative_error(whole, half, position):
    true, kept = (segments.read(position, "mean")["w"] for segments in (whole, half))
    return ((true - kept).norm() / (true - whole.initial["w"]).norm()).item()


@pytest.mark.parametrize("seconds", [0, 1e9])
def test_how_often_checkpoints_are_written_changes_nothing(split, tmp_path, monkeypatch, seconds):
    monkeypatch.setattr("wakd_kit.runs.train.SECONDS", seconds)
    saved, save = [], recording.Checkpoint.save

    def looks(checkpoint, rows, segments, state):
        saved.extend([rows[-1]["step"]] if state else [])
        save(checkpoint, rows, segments, state)

    monkeypatch.setattr(recording.Checkpoint, "save", looks)
    given = {"steps": 26, "most_stored": 4, "declare": []}
    whole = quick(split, tmp_path / "whole", **given)
    assert saved == ([*range(2, 27, 2)] if seconds == 0 else [2, 10, 18, 26])
    quick_dies(split, tmp_path / "cut", monkeypatch, step=17, **given)
    partial = tmp_path / "cut.recording"
    kept = json.loads((partial / "segments" / "index.json").read_text())
    assert kept[-1]["last"] == 16 and wk.load_run(partial).steps == 16  # who looks meanwhile sees all that was closed
    cut = quick(split, tmp_path / "cut", resume=True, **given)
    assert files_of(whole) == files_of(cut)


def files_of(run) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run.folder / "segments").iterdir()}


@pytest.mark.parametrize("what", ["Segments.append", "Checkpoint.save"])
def test_what_goes_wrong_while_writing_stops_the_training_and_costs_nothing(split, tmp_path, monkeypatch, what):
    owner, name = what.split(".")
    write, calls = getattr(getattr(recording, owner), name), []

    def full(*given):
        calls.append(given)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*given)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(getattr(recording, owner), name, full)
        quick(split, tmp_path / "cut", steps=20)
    assert len(calls) == 3, "nothing more was written"
    cut = quick(split, tmp_path / "cut", steps=20, resume=True)
    assert files_of(cut) == files_of(quick(split, tmp_path / "whole", steps=20))


def test_what_goes_wrong_while_the_last_segment_is_written_is_heard(split, tmp_path, monkeypatch):
    save = recording.Checkpoint.save

    def full(checkpoint, rows, *given):
        if rows[-1]["step"] == 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, rows, *given)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(recording.Checkpoint, "save", full)
        quick(split, tmp_path / "run")
    assert not (tmp_path / "run").exists() and quick(split, tmp_path / "run", resume=True).complete


def test_training_goes_on_while_a_segment_is_written_and_no_further(split, tmp_path, monkeypatch, steps):
    append, seen = Segments.append, []

    def waits(segments, *given):
        until = time.time() + 5
        while len(steps) < min(given[3] + 2, 8) and time.time() < until:
            time.sleep(0.001)
        time.sleep(0.05)
        seen.append((given[3], len(steps)))
        append(segments, *given)

    monkeypatch.setattr(Segments, "append", waits)
    quick(split, tmp_path / "run")
    assert seen == [(2, 4), (4, 6), (6, 8), (8, 8)]

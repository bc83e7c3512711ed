"""Sinks get the recorded source curves, row by row, live or afterwards; packages that are not there are no matter."""

import importlib.machinery
import importlib.util
import json
import os
import struct
import subprocess
import sys
from contextlib import contextmanager
from types import ModuleType

import pytest

import wakd_kit as wk
from wakd_kit.cli import main
from wakd_kit.runs import loggers

from ..conftest import SMALL


@pytest.fixture
def rows():
    return []


def train(split, folder, **settings):
    student = wk.build_model("resnet10t", split.classes, seed=0, **SMALL)
    settings = {"steps": 6, "segment_length": 2, "batch_size": 8, "batchnorm_batches": 1, "declare": [], **settings}
    return wk.train(student, split, save_to=folder, device="cpu", progress=False, **settings)


def test_a_training_sends_what_a_finished_run_replays(split, tmp_path, rows):
    run = train(split, tmp_path / "run", sink=rows.append)
    replayed = []
    loggers.replay(run, replayed.append)
    assert [row["step"] for row in rows] == [row["step"] for row in replayed] == [2, 4, 6]
    for live, later in zip(rows, replayed):
        assert loggers.series(live) == pytest.approx(loggers.series(later))


def test_a_continued_training_sends_only_what_is_new(split, tmp_path, rows):
    class Killed(Exception):
        pass

    def killed(row):
        rows.append(row)
        if row["step"] == 4:
            raise Killed

    with pytest.raises(Killed):
        train(split, tmp_path / "run", sink=killed)
    train(split, tmp_path / "run", sink=rows.append, resume=True)
    assert [row["step"] for row in rows] == [2, 4, 6], (
        "a row is sent once it is recorded, so none is lost or sent twice"
    )


def test_nothing_of_the_target_is_sent(run, split, rows):
    loggers.replay(run, rows.append)
    sent = set().union(*map(loggers.series, rows))
    assert not any(split.target in name or "target" in name for name in sent)
    assert {f"val_loss/{d}" for d in split.sources} < sent and "train_loss" in sent


def test_a_series_leaves_out_the_step_and_what_was_not_measured():
    row = {"step": 4, "iterates": 2, "train_loss": 0.5, "val_kd_loss": float("nan"), "val_loss/ink": 1}
    assert loggers.series(row) == {"train_loss": 0.5, "val_loss/ink": 1.0}


# ---- two of the packages, in place of which stand fakes that keep what they get


@pytest.fixture
def fake(monkeypatch):
    """{folder or run name: [(step, {name: value})]} of what TensorBoard and W&B were sent."""
    sent = {}

    class SummaryWriter:
        def __init__(self, folder):
            self.rows = sent.setdefault(folder, [])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.rows.append("closed")

        def add_scalar(self, name, value, step):
            self.rows.append((step, {name: value}))

    @contextmanager
    def init(*, project, name, **options):
        rows = sent[f"{project}/{name}"] = [options]

        class Logged:
            def log(self, values, step):
                rows.append((step, values))

        yield Logged()
        rows.append("closed")

    for name, members in {
        "tensorboard": {},
        "torch.utils.tensorboard": {"SummaryWriter": SummaryWriter},
        "wandb": {"init": init},
    }.items():
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return sent


def test_tensorboard_gets_a_scalar_per_curve_and_segment(fake, run):
    with loggers.tensorboard("events") as sink:
        loggers.replay(run, sink)
    *scalars, closed = fake["events"]
    expected = [(row["step"], {n: v}) for row in run.table.to_dict("records") for n, v in loggers.series(row).items()]
    assert scalars == expected and closed == "closed"


def test_wandb_gets_a_row_per_segment(fake, run):
    with loggers.wandb("project", name="demo", mode="offline") as sink:
        loggers.replay(run, sink)
    options, *logged, closed = fake["project/demo"]
    assert options == {"mode": "offline"} and closed == "closed"
    assert logged == [(row["step"], loggers.series(row)) for row in run.table.to_dict("records")]


def test_log_sends_every_run_below_a_folder_to_both(fake, split, tmp_path, capsys):
    for place in ("north-s0/KD", "north-s0/teacher"):
        train(split, tmp_path / "runs" / place)
    assert main(["log", str(tmp_path / "runs"), "--tensorboard", str(tmp_path / "events"), "--wandb", "demo"]) == 0
    assert capsys.readouterr().out.splitlines() == ["north-s0/KD", "north-s0/teacher"]
    assert fake.keys() == {
        str(tmp_path / "events" / "north-s0" / "KD"),
        str(tmp_path / "events" / "north-s0" / "teacher"),
        "demo/north-s0/KD",
        "demo/north-s0/teacher",
    }
    assert fake["demo/north-s0/KD"][0]["config"]["steps"] == 6


def test_log_takes_one_run_and_one_that_is_still_recording(fake, split, tmp_path, capsys):
    train(split, tmp_path / "KD")
    (tmp_path / "KD").rename(tmp_path / "KD.recording")
    assert main(["log", str(tmp_path / "KD.recording"), "--wandb", "demo"]) == 0
    assert capsys.readouterr().out == "KD.recording\n" and list(fake) == ["demo/KD.recording"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["."], "wakd log: Say where to: --tensorboard FOLDER, --wandb PROJECT, --trackio PROJECT, or several."),
        (
            [".", "--wandb", "demo"],
            "wakd log: No recorded run in or below .: give a run's folder, or one that holds runs.",
        ),
    ],
)
def test_what_cannot_be_logged_is_a_sentence(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["log", *words]) == 2
    assert capsys.readouterr().err == f"{sentence}\n"


@pytest.mark.parametrize("package", ["tensorboard", "wandb", "trackio"])
def test_without_the_package_it_says_what_to_install(package, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    opened = getattr(loggers, package)(str(tmp_path / "x"))
    with pytest.raises(ImportError, match=rf"{package} is not installed.*pip install {package}"):
        opened.__enter__()


# ---- the packages themselves, each read back from what it left on the disk


def test_event_files_hold_the_curves(run, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    assert main(["log", str(run.folder), "--tensorboard", str(tmp_path)]) == 0
    events = accumulator.EventAccumulator(str(tmp_path / run.folder.name))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set().union(*map(loggers.series, run.table.to_dict("records")))
    read = events.Scalars("val_accuracy/north")
    assert [e.step for e in read] == run.table["step"].tolist()
    assert [e.value for e in read] == pytest.approx(run.table["val_accuracy/north"].tolist())


def records_of(file) -> list[bytes]:
    """The records of a .wandb file: a LevelDB log, 7 bytes of a header, then blocks of 32 KiB in which a record is a checksum,
    its length, whether it is whole, first, middle or last of a longer one, and its bytes."""
    data, at, found, part = file.read_bytes(), 7, [], b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        part += data[at + 7 : at + 7 + length]
        if kind in (1, 4):
            found, part = [*found, part], b""
        at += 7 + length
    return found


def test_a_wandb_file_written_offline_holds_the_curves(run, tmp_path, monkeypatch):
    internal = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="wandb is not installed")
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true", "CONSOLE": "off"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    assert main(["log", str(run.folder), "--wandb", "demo"]) == 0
    importlib.import_module("wandb").teardown()  # its service writes behind our back until it is told to end
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows, config = [], {}
    for record in map(internal.Record.FromString, records_of(file)):
        if record.WhichOneof("record_type") == "run":
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append((items["_step"], {name: value for name, value in items.items() if name[0] != "_"}))
    expected = [(row["step"], loggers.series(row)) for row in run.table.to_dict("records")]
    assert [step for step, _ in rows] == [step for step, _ in expected]
    assert all(read == pytest.approx(sent) for (_, read), (_, sent) in zip(rows, expected))
    assert config["steps"] == 24


def test_a_database_of_trackio_holds_the_curves(run, tmp_path, monkeypatch):
    """In a process of its own: where its databases are is settled when it is imported."""
    if importlib.util.find_spec("trackio") is None:
        pytest.skip("trackio is not installed")
    code = """
import json, sys
from wakd_kit.cli import main
assert main(["log", sys.argv[1], "--trackio", "demo"]) == 0
from trackio.sqlite_storage import SQLiteStorage as kept
(name,) = kept.get_runs("demo")
print("READ " + json.dumps([name, kept.get_logs("demo", name), kept.get_run_config("demo", name)["steps"]]))
"""
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", code, run.folder], env=env, capture_output=True, text=True, check=True)
    name, logs, steps = json.loads(said.stdout.split("READ ")[1].splitlines()[0])
    assert name == run.folder.name and steps == 24
    expected = [(row["step"], loggers.series(row)) for row in run.table.to_dict("records")]
    for row, (step, sent) in zip(logs, expected, strict=True):
        assert row.pop("step") == step and row.pop("timestamp") and row == pytest.approx(sent)

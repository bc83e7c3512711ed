"""What training writes: the trajectory as segments, each the mean of its iterates and its last iterate.

A recording costs one extra parameter vector in memory (a running sum) and one fused add per step. On disk it keeps at
most ``most`` stored segments: beyond that, neighbours are merged, and a merged mean is exactly the mean over all its
iterates. Edges that declared strategies need are never merged away. A declared moving average, which no edge can make
exact, is kept itself: one more vector and one fused update per step each.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor, nn

from .averaging import Coefficients, Recurrence
from .files import Held, locked, recording_folder, write_text, write_with

State = dict[str, Tensor]

STORAGE = ("float32", "float16_difference")


class RunProblem(ValueError):
    """A run folder that cannot be used as asked; the message says what it is and what to do."""


class Segments:
    """The stored segments of a run: a folder of safetensors files and an index of the steps each one covers.

    storage  "float32" as it is, or "float16_difference": half precision of the difference to the initial parameters
             (half the size, relative error of the displacement about 5e-5)
    """

    def __init__(self, folder: Path, storage: str = "float32"):
        self.folder = folder
        self.storage = storage
        self._index_file = folder / "index.json"
        self.index: list[dict] = json.loads(self._index_file.read_text()) if self._index_file.exists() else []
        self._initial: State | None = None

    @classmethod
    def create(cls, folder: Path, initial: State, storage: str) -> Segments:
        if storage not in STORAGE:
            raise ValueError(f"storage is one of {', '.join(STORAGE)}; got {storage!r}.")
        folder.mkdir(parents=True)
        write_state(folder / "initial.safetensors", initial)
        segments = cls(folder, storage)
        segments._write_index()
        return segments

    def __len__(self) -> int:
        return len(self.index)

    @property
    def edges(self) -> np.ndarray:
        """Last step of each stored segment, ascending, (stored,)."""
        return np.array([entry["last"] for entry in self.index], dtype=np.int64)

    @property
    def iterates(self) -> np.ndarray:
        """Number of iterates in each stored segment, (stored,)."""
        return np.array([entry["last"] - entry["first"] + 1 for entry in self.index], dtype=np.int64)

    @property
    def initial(self) -> State:
        """The parameters and buffers before the first step."""
        if self._initial is None:
            self._initial = read_state(self.folder / "initial.safetensors")
        return self._initial

    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.iterdir())

    def read(self, position: int, of: str) -> State:
        """The "mean" or the "end" iterate of one stored segment, in float32; "end" has the integer buffers too."""
        with self._open(position) as file:
            return {name: self._decode(name, file.get_tensor(f"{of}.{name}")) for name in _names(file, of)}

    def append(self, mean: State, end: State, first: int, last: int) -> None:
        """Store one more segment. The file is complete before the index names it."""
        entry = _entry(first, last)
        given = {"mean": mean, "end": end}
        write_tensors(
            self.folder / entry["file"],
            [(of, name) for of, state in given.items() for name in state],
            lambda of, name: self._encode(name, given[of][name]),
        )
        self.index.append(entry)
        self._write_index()

    def merge(self, position: int) -> None:
        """Join a stored segment with the next one: the mean over all iterates of both, and the later end.

        Tensor by tensor, so that memory holds what is written and little more.
        """
        left, right = self.index[position], self.index[position + 1]
        share = self.iterates[position] / (self.iterates[position] + self.iterates[position + 1])
        joined = _entry(left["first"], right["last"])
        with self._open(position) as before, self._open(position + 1) as after:

            def joint(of: str, name: str) -> Tensor:
                if of == "end":
                    return after.get_tensor(f"end.{name}")
                total = self._decode(name, before.get_tensor(f"mean.{name}")).double().mul_(share)
                total.add_(self._decode(name, after.get_tensor(f"mean.{name}")), alpha=1 - share)
                return self._encode(name, total.float())

            names = [(of, name) for of in ("mean", "end") for name in _names(after, of)]
            write_tensors(self.folder / joined["file"], names, joint)
        self.index[position : position + 2] = [joined]
        self._write_index()
        for old in (left, right):
            (self.folder / old["file"]).unlink(missing_ok=True)

    def shrink(self, most: int, keep: Iterable[int]) -> None:
        """Merge neighbours until at most ``most`` are stored, smallest pair first, earliest first among equals.

        ``keep`` are steps at which an edge must stay. The newest stored segment is never merged. When every other
        edge is to be kept, more than ``most`` remain: exactness goes before size.
        """
        keep = set(keep)
        while len(self.index) > most:
            counts, edges = self.iterates, self.edges
            free = [i for i in range(len(counts) - 2) if int(edges[i]) not in keep]
            if not free:
                return
            self.merge(min(free, key=lambda i: counts[i] + counts[i + 1]))

    def cut(self, step: int) -> None:
        """Forget what was stored after ``step`` (a resumed run records it again), and files no index names."""
        self.index = [entry for entry in self.index if entry["last"] <= step]
        self._write_index()
        named = {entry["file"] for entry in self.index} | {"index.json", "initial.safetensors"}
        for file in self.folder.iterdir():
            if file.name not in named:
                file.unlink()

    def _open(self, position: int):
        return safe_open(self.folder / self.index[position]["file"], "pt")

    def _encode(self, name: str, tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu()
        if self.storage == "float16_difference" and tensor.is_floating_point():
            return (tensor - self._start(name)).half()
        return tensor

    def _decode(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.float() + self._start(name) if tensor.dtype == torch.float16 else tensor

    def _start(self, name: str) -> Tensor:
        """One tensor of the initial parameters, read when needed: half-precision storage keeps no copy of them."""
        if self._initial is not None:
            return self._initial[name]
        with safe_open(self.folder / "initial.safetensors", "pt") as file:
            return file.get_tensor(name)

    def _write_index(self) -> None:
        write_text(self._index_file, json.dumps(self.index))


def _entry(first: int, last: int) -> dict:
    return {"first": first, "last": last, "file": f"{first:07d}-{last:07d}.safetensors"}


def _names(file, of: str) -> list[str]:
    return [key.removeprefix(f"{of}.") for key in file.keys() if key.startswith(f"{of}.")]  # noqa: SIM118


class Recorder:
    """Sums the iterates of the open segment: ``add()`` after every optimiser step, ``close()`` at a segment's end.

    recurrences  moving averages to keep as well, one state each in ``running``
    """

    def __init__(self, model: nn.Module, segments: Segments, recurrences: Sequence[Recurrence] = ()):
        self.model = model
        self.segments = segments
        self.recurrences = list(recurrences)
        # state_dict tensors share memory with the live parameters and buffers, so the list is made once
        self._live = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
        self._tensors = list(self._live.values())
        self._sums = [torch.zeros_like(t, dtype=torch.float32) for t in self._tensors]
        self.running = [{n: t.detach().clone() for n, t in self._live.items()} for _ in self.recurrences]
        self.count = 0
        self.step = int(segments.edges[-1]) if len(segments) else 0

    @torch.no_grad()
    def add(self) -> None:
        torch._foreach_add_(self._sums, self._tensors)
        self.count += 1
        self.step += 1
        for recurrence, average in zip(self.recurrences, self.running):
            if self.step > recurrence.begin:
                share = 1 - float(recurrence.decays[self.step - recurrence.begin - 1])
                torch._foreach_lerp_([*average.values()], self._tensors, share)

    @torch.no_grad()
    def close(self, step: int) -> None:
        """Store the segment that ends with this step and start the next one."""
        torch._foreach_div_(self._sums, self.count)
        mean = dict(zip(self._live, self._sums))
        self.segments.append(mean, dict(self.model.state_dict()), step - self.count + 1, step)
        torch._foreach_zero_(self._sums)
        self.count = 0


class Checkpoint:
    """What a killed run continues from: parameters, optimiser, state of the objectives, curves. Saving it commits the segment just closed.

    No random state is needed: every draw is a function of the seed and the step.
    """

    def __init__(self, folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, objectives: nn.Module):
        self.folder, self.model, self.optimiser, self.objectives = folder, model, optimiser, objectives
        self.file = folder / "checkpoint.pt"

    def save(self, rows: list[dict], running: Sequence[State] = ()) -> None:
        write_with(self.folder / "curves.csv", lambda path: pd.DataFrame(rows).to_csv(path, index=False))
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        state |= {"objectives": self.objectives.state_dict(), "rows": rows, "running": list(running)}
        write_with(self.file, lambda path: torch.save(state, path))

    def restore(self, storage: str, recurrences: Sequence[Recurrence] = ()) -> tuple[Recorder, list[dict]]:
        """A recorder that goes on where the last checkpoint was, and the curve rows until there; none at the start."""
        folder = self.folder / "segments"
        if not self.file.exists():
            shutil.rmtree(folder, ignore_errors=True)
            segments = Segments.create(folder, self.model.state_dict(), storage)
            return Recorder(self.model, segments, recurrences), []
        state = torch.load(self.file, map_location=next(self.model.parameters()).device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.objectives.load_state_dict(state.get("objectives", {}))
        if "running" not in state:
            raise RunProblem(
                f"{self.folder} was started by an older version of wakd_kit, whose checkpoints hold no moving averages. "
                "Finish it with that version, or record it again elsewhere."
            )
        segments = Segments(folder, storage)
        segments.cut(state["rows"][-1]["step"])
        recorder = Recorder(self.model, segments, recurrences)
        recorder.running = state["running"]
        return recorder, state["rows"]


class RunningAverages:
    """The moving averages that a finished run kept, each with the coefficients that it stands for."""

    def __init__(self, folder: Path):
        self.folder = folder
        index = folder / "index.json"
        self.index: list[dict] = json.loads(index.read_text()) if index.exists() else []

    def write(self, averages: Iterable[tuple[Coefficients, State]]) -> None:
        self.folder.mkdir(exist_ok=True)
        self.index = []
        for i, (coefficients, state) in enumerate(averages):
            write_state(self.folder / f"{i}.safetensors", state)
            values = np.asarray(coefficients).tolist()
            self.index.append({"values": values, "initial": coefficients.initial, "note": coefficients.note})
        write_text(self.folder / "index.json", json.dumps(self.index))

    def find(self, values: np.ndarray, of: str, initial: float) -> State | None:
        """The moving average with these coefficients, if it was kept."""
        for i, kept in enumerate(self.index):
            if (
                of == "mean"
                and abs(kept["initial"] - initial) < 1e-12
                and np.allclose(kept["values"], values, 0, 1e-12)
            ):
                return read_state(self.folder / f"{i}.safetensors")
        return None


@contextlib.contextmanager
def recording(folder: Path, settings: dict, *, resume: bool) -> Iterator[Path]:
    """The folder to record into, ``<folder>.recording``, held by one process; it gets its final name on a clean exit.

    Raises ``RunProblem`` when another process is recording there, when an unfinished recording is there and ``resume``
    is not asked for, or when that recording was started with other settings.
    """
    partial = recording_folder(folder)
    partial.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(partial / "lock"))
        except Held as other:
            raise RunProblem(f"{folder} is being recorded by another process ({other}).") from None
        settings_file = partial / "settings.json"
        if settings_file.exists():
            if not resume:
                raise RunProblem(
                    f"{folder} was started before and is not finished; pass resume=True to continue it, or another "
                    "save_to to start afresh."
                )
            refuse_other_settings(folder, json.loads(settings_file.read_text()), settings)
        else:
            write_text(settings_file, json.dumps(settings, indent=1))
        yield partial
        seconds = float(pd.read_csv(partial / "curves.csv")["seconds"].sum())
        write_text(partial / "environment.json", json.dumps(environment(seconds), indent=1))
        (partial / "checkpoint.pt").unlink(missing_ok=True)
        (partial / "lock").unlink()
        os.replace(partial, folder)


GAINED = {"warmup": 0}  # settings that recordings made before them did not have, as they were then


def refuse_other_settings(folder: Path, recorded: dict, asked: dict) -> None:
    """Raises ``RunProblem`` naming the first setting in which a recorded run differs from what is asked for."""
    asked, recorded = json.loads(json.dumps(asked)), {**GAINED, **recorded}
    for key in sorted(recorded.keys() | asked.keys()):
        old, new = recorded.get(key), asked.get(key)
        if key == "student" and old and new:  # where weights came from was not always recorded
            new = {k: v for k, v in new.items() if k in old or k not in ("started_from", "pretrained_size")}
        if key == "teacher" and old and new:  # known by what it is, not by where it lies
            old, new = ({k: v for k, v in t.items() if k != "run" and k in old} for t in (old, new))
        if old != new:
            raise RunProblem(
                f"{folder} was recorded with {key}={old!r}, this call has {new!r}. "
                "Nothing was changed; use the same settings or another save_to, or move that folder away."
            )


def estimate_bytes(model: nn.Module, segments: int, storage: str, running: int = 0) -> dict[str, int]:
    """What a recording will take, in bytes: on disk at most while it is recorded, and in memory beyond plain training.

    segments  how many are stored at most
    running   how many moving averages are declared
    """
    state = model.state_dict().values()
    numbers, width = sum(t.numel() for t in state if t.is_floating_point()), 2 if storage == "float16_difference" else 4
    one = 2 * numbers * width + 2 * HEADER * len(state)  # a mean and an end
    # parameters and two moments; the new checkpoint is written before the old one goes, and so is a merged segment
    checkpoint = (3 + running) * (4 * numbers + CHECKPOINT_ENTRY * len(state))
    whole = (1 + running) * (4 * numbers + HEADER * len(state))  # initial parameters and moving averages
    # the running sum; a tensor or two while segments are written
    largest = max(t.numel() for t in state)
    return {
        "disk": (segments + 2) * one + whole + 2 * checkpoint,
        "memory": 4 * ((1 + running) * numbers + 4 * largest),
    }


HEADER, CHECKPOINT_ENTRY = 150, 500  # bytes a tensor takes in a file beside its numbers and name, at most
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}  # safetensors' names


def write_state(path: Path, state: State) -> None:
    """A safetensors file that is either complete or not there."""
    write_tensors(path, [(name,) for name in state], state.__getitem__)


def write_tensors(path: Path, names: Sequence[tuple[str, ...]], make: Callable[..., Tensor]) -> None:
    """``write_state`` for tensors that are made one at a time: ``make(*name)`` is stored as the name's parts, dotted.

    safetensors' own writer wants all of them at once and copies them as bytes, beside a training that may have no room
    for that. Here memory holds one tensor. The header comes first in the file and is written last, into room left for it.
    """
    header: dict[str, dict] = {}
    room = sum(HEADER + len(".".join(name)) for name in names) // 8 * 8
    partial = path.with_name(path.name + ".part")
    with open(partial, "wb") as file:
        file.seek(8 + room)
        for name in names:
            tensor, begin = make(*name).detach().cpu().contiguous(), file.tell() - 8 - room
            file.write(memoryview(tensor.flatten().view(torch.uint8).numpy()))
            offsets = [begin, file.tell() - 8 - room]
            kind = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
            header[".".join(name)] = kind
        file.seek(0)
        file.write(struct.pack("<Q", room) + json.dumps(header).encode().ljust(room))
    os.replace(partial, path)


def fingerprint(state: State) -> str:
    """A short hash of names and values: whether two models are the same."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def read_state(path: Path) -> State:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no dict)


def environment(seconds: float) -> dict:
    """Versions, commit, device and seconds: what a reader needs to judge where a number came from."""
    here = Path(__file__).parent
    git = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True)
    dirty = subprocess.run(["git", "-C", here, "status", "--porcelain", "."], capture_output=True, text=True)
    packages = ("wakd_kit", "torch", "torchvision", "timm", "numpy")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "commit": git.stdout.strip() or None,
        "uncommitted_changes": bool(dirty.stdout.strip()),
        "seconds": round(seconds, 3),
    }

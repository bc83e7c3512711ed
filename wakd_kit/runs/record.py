"""What training writes: the trajectory as segments, each the mean of its iterates and its last iterate.

A recording costs one extra parameter vector in memory (a running sum) and one fused add per step. On disk it keeps at
most ``most`` stored segments: beyond that, neighbours are merged, and a merged mean is exactly the mean over all its
iterates. Edges that declared strategies need are never merged away. A declared moving average, which no edge can make
exact, is kept itself: one more vector and one fused update per step each.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import struct
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..averaging import Coefficients, Recurrence
from ..files import UNREADABLE, Held, locked, read_json, recording_folder, sweep, write_text, write_with
from .identity import difference, fingerprint  # noqa: F401 (others have it from here)

State = dict[str, Tensor]

STORAGE = ("float32", "float16_difference")


class RunProblem(ValueError):
    """A run folder that cannot be used as asked; the message says what it is and what to do."""


class Segments:
    """The stored segments of a run: a folder of safetensors files and an index of the steps each one covers.

    storage  "float32" as it is, or "float16_difference": half the size, the difference to the initial parameters in half
             precision. What was stored once is off by 2e-4 of its displacement (by 3e-8 where that is below 6e-5), and every
             merge rounds a mean again: 1e-3 where a hundred segments became sixteen. A tensor in which something moved by
             more than 65,504 is kept in bfloat16, to 4e-3.
    """

    def __init__(self, folder: Path, storage: str = "float32"):
        self.folder = folder
        self.storage = storage
        self._index_file = folder / "index.json"
        self.index: list[dict] = read_json(self._index_file) if self._index_file.exists() else []
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

    def read(self, position: int, of: str, *, names: Iterable[str] | None = None) -> State:
        """The "mean" or the "end" iterate of one stored segment, floats in float32 (or what is wider); "end" has the
        integer buffers too.

        names  of the tensors to read, default all
        """
        with self._open(position) as file:
            wanted = _names(file, of) if names is None else names
            return {name: self._decode(name, file.get_tensor(f"{of}.{name}")) for name in wanted}

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
        return _opened(self.folder / self.index[position]["file"])

    def _encode(self, name: str, tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu()
        if self.storage == "float16_difference" and tensor.is_floating_point():
            moved = tensor.float() - self._start(name).float()
            half = moved.half()
            return half if half.isfinite().all() else moved.bfloat16()
        return tensor

    def _decode(self, name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        wide = tensor if tensor.dtype == torch.float64 else tensor.float()
        return wide + self._start(name).float() if self.storage == "float16_difference" else wide

    def _start(self, name: str) -> Tensor:
        """One tensor of the initial parameters, read when needed: half-precision storage keeps no copy of them."""
        if self._initial is not None:
            return self._initial[name]
        with _opened(self.folder / "initial.safetensors") as file:
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
        state = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
        # where each of them is now, at every step: a forward pass or a hook may have put another tensor in its place
        places = _places(model)
        self._places = {n: places[n] for n in state}
        self._sums = {n: torch.zeros_like(state[n], dtype=torch.float32) for n in self._places}
        self.running = [{n: state[n].detach().clone() for n in self._places} for _ in self.recurrences]
        self.count = 0
        self.step = int(segments.edges[-1]) if len(segments) else 0

    @torch.no_grad()
    def add(self) -> None:
        tensors = [owner[key] for owner, key in self._places.values()]
        torch._foreach_add_([*self._sums.values()], tensors)
        self.count += 1
        self.step += 1
        for recurrence, average in zip(self.recurrences, self.running):
            if self.step > recurrence.begin:
                share = 1 - float(recurrence.decays[self.step - recurrence.begin - 1])
                torch._foreach_lerp_([*average.values()], tensors, share)

    @torch.no_grad()
    def revise(self, name: str, before: Tensor) -> None:
        """A tensor was set anew for the open segment: the segment's mean and the moving averages hold what it is now, as if
        it had never been what it was ``before``."""
        owner, key = self._places[name]
        change = owner[key] - before
        self._sums[name].add_(change, alpha=self.count)
        for recurrence, average in zip(self.recurrences, self.running):
            steps = np.arange(self.step - self.count + 1, self.step + 1)
            decays = recurrence.decays[steps[steps > recurrence.begin] - recurrence.begin - 1]
            average[name].add_(change, alpha=1 - float(np.prod(decays)))

    @torch.no_grad()
    def close(self, step: int) -> None:
        """Store the segment that ends with this step and start the next one."""
        state = dict(self.model.state_dict())
        self._check({n: t for n, t in state.items() if t.is_floating_point()})
        sums = [*self._sums.values()]
        torch._foreach_div_(sums, self.count)
        self.segments.append(self._sums, state, step - self.count + 1, step)
        torch._foreach_zero_(sums)
        self.count = 0

    def _check(self, state: State) -> None:
        """Raises ``RunProblem`` unless the tensors that were summed are those of the ``state_dict``."""
        here = {n: owner.get(key) for n, (owner, key) in self._places.items()}
        lost = [n for n, t in here.items() if t is None or n not in state or t.data_ptr() != state[n].data_ptr()]
        if lost := [*lost, *(n for n in state if n not in here)]:
            raise RunProblem(
                f"The student's {lost[0]!r} was put elsewhere while it was trained, so this segment has no mean; replace "
                "parameters and buffers in their modules, not the modules, and train it again from the start."
            )


def _places(model: nn.Module) -> dict[str, tuple[dict, str]]:
    """For every name in a ``state_dict`` the dictionary of its module, and its key there."""
    return {
        f"{prefix}.{key}" if prefix else key: (owner, key)
        for prefix, module in model.named_modules(remove_duplicate=False)
        for owner in (module._parameters, module._buffers)
        for key in owner
    }


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
            shutil.rmtree(folder, ignore_errors=True)  # a kill before the first segment was complete
            segments = Segments.create(folder, self.model.state_dict(), storage)
            return Recorder(self.model, segments, recurrences), []
        # to the CPU, where an optimiser wants its step counts; the rest is copied to where it belongs
        state = torch.load(self.file, map_location="cpu", weights_only=True)
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
        for average, kept in zip(recorder.running, state["running"]):
            for name, tensor in average.items():
                tensor.copy_(kept[name])
        return recorder, state["rows"]


class RunningAverages:
    """The moving averages that a finished run kept, each with the coefficients that it stands for."""

    def __init__(self, folder: Path):
        self.folder = folder
        index = folder / "index.json"
        self.index: list[dict] = read_json(index) if index.exists() else []

    def write(self, averages: Iterable[tuple[Coefficients, State]]) -> None:
        self.folder.mkdir(exist_ok=True)
        self.index = []
        for i, (coefficients, state) in enumerate(averages):
            write_state(self.folder / f"{i}.safetensors", state)
            kept = {"values": np.asarray(coefficients).tolist(), "initial": coefficients.initial}
            self.index.append(kept | {"strategy": coefficients.strategy, "note": coefficients.note})
        write_text(self.folder / "index.json", json.dumps(self.index))

    def find(self, coefficients) -> State | None:
        """The moving average that these coefficients stand for, if it was kept: those of one strategy with the same settings.

        Coefficients per segment alone do not tell it: what lies within one segment does not show in them.
        """
        strategy, note = getattr(coefficients, "strategy", ""), getattr(coefficients, "note", "")
        for i, kept in enumerate(self.index):
            if (
                (strategy, note) == (kept.get("strategy", "ema"), kept["note"])
                and abs(kept["initial"] - coefficients.initial) < 1e-12
                and np.allclose(kept["values"], coefficients, 0, 1e-12)
            ):
                return read_state(self.folder / f"{i}.safetensors")
        return None


# what is measured on a run, beside what was recorded; patterns of files in its folder
MEASURED = (
    *("scores.csv", "choices.json", "predictions.npz", "deployed.json", "window_map.csv", "window_map.json"),
    *("gram_*.np*", "landscape/*.csv", "landscape/*.json"),
)
_MEASURING: dict[Path, list] = {}  # by folder: the lock of this process's threads, and how deep its holder is in it


@contextlib.contextmanager
def measuring(folder: Path) -> Iterator[None]:
    """Hold what is measured on a run (``MEASURED``), to read, change and write it; waits for other processes and threads.

    Who has it may ask for it again. Raises ``RunProblem`` when the folder cannot be written.
    """
    folder = folder.resolve()
    if not os.access(folder, os.W_OK):
        raise RunProblem(
            f"{folder} keeps what is measured on it and cannot be written: copy the run to a folder of yours."
        )
    mine = _MEASURING.setdefault(folder, [threading.RLock(), 0])
    with mine[0], contextlib.ExitStack() as held:
        if not mine[1]:
            held.enter_context(locked(folder / "measured.lock", wait=lambda who: _waits(folder, who)))
            for name in (name for name in MEASURED if "/" not in name):  # a table has a lock of its own
                sweep(folder, name)
        mine[1] += 1
        try:
            yield
        finally:
            mine[1] -= 1


def _waits(folder: Path, who: str) -> None:
    warnings.warn(f"{folder} is being measured by {who}: waiting.", stacklevel=2)


@contextlib.contextmanager
def recording(folder: Path, settings: dict, *, resume: bool) -> Iterator[Path]:
    """The folder to record into, ``<folder>.recording``, held by one process; it gets its final name on a clean exit.

    What was recorded until its first checkpoint is nothing, and may be started again with other settings; what was measured
    on a recording that goes on is deleted. The checkpoint stays until the folder has its final name, so that whatever keeps
    it from that loses no step.

    Raises ``RunProblem`` when another process is recording there, when the name is taken, when an unfinished recording is
    there and ``resume`` is not asked for, or when that recording was started with other settings.
    """
    _refuse_taken(folder)
    partial, known = recording_folder(folder), environment()
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunProblem(f"No run can be recorded at {folder} ({error.strerror}); give another save_to.") from error
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(partial / "lock"))
        except Held as other:
            raise RunProblem(f"{folder} is being recorded by another process ({other}).") from None
        except FileNotFoundError:  # it got its name in this moment
            _refuse_taken(folder)
            raise
        settings_file = partial / "settings.json"
        if not (partial / "checkpoint.pt").exists():
            try:
                _refuse_taken(folder)  # another process may have finished it before this one had the lock
            except RunProblem:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            write_text(settings_file, json.dumps(settings, indent=1))
        elif not resume:
            raise RunProblem(
                f"{folder} was started before and is not finished; pass resume=True to continue it, or another "
                "save_to to start afresh."
            )
        else:
            refuse_other_settings(folder, read_json(settings_file), settings)
        with measuring(partial):
            sweep(partial)
            shutil.rmtree(partial / "running", ignore_errors=True)  # half written in its last moment, and written again
            _forget_measured(partial)
        yield partial
        seconds = float(pd.read_csv(partial / "curves.csv")["seconds"].sum())
        write_text(partial / "environment.json", json.dumps(known | {"seconds": round(seconds, 3)}, indent=1))
        with measuring(partial):
            _forget_measured(partial)
            if os.name == "posix":  # with the locks; Windows renames no folder in which a file is open
                _give_name(partial, folder)
    if os.name != "posix":
        _give_name(partial, folder)
    settle(folder)


def _refuse_taken(folder: Path) -> None:
    """Raises ``RunProblem`` when a recording could not get its name in the end."""
    if folder.is_symlink():
        raise RunProblem(f"{folder} is a link, and no run can take its place: give the folder that it leads to.")
    if (folder / "settings.json").is_file():
        raise RunProblem(f"{folder} was finished by another process: the same call with resume=True returns it.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunProblem(
            f"{folder} holds something else and cannot become a run: move it away, or give another save_to."
        )


def _forget_measured(folder: Path) -> None:
    for pattern in MEASURED:
        for file in folder.glob(pattern):
            file.unlink()


def _give_name(partial: Path, folder: Path) -> None:
    try:
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
        os.replace(partial, folder)
    except OSError as error:
        raise RunProblem(
            f"The training is complete in {partial}, but that could not be renamed to {folder} ({error.strerror}): move away "
            "what is in its place and give the same call again with resume=True, which trains nothing twice."
        ) from None


def settle(folder: Path) -> None:
    """Do what a killed process was about to: name a recording that is complete, and delete what a finished run needs no more."""
    partial = recording_folder(folder)
    # the last file of a recording is there, and the checkpoint was deleted before the folder had its name: older versions
    if (partial / "environment.json").exists() and not (partial / "checkpoint.pt").exists() and not folder.exists():
        _give_name(partial, folder)
    if (folder / "environment.json").exists():
        for name in ("checkpoint.pt", "lock", "measured.lock"):
            (folder / name).unlink(missing_ok=True)


GAINED = {"warmup": 0}  # settings that recordings made before them did not have, as they were then


def refuse_other_settings(folder: Path, recorded: dict, asked: dict) -> None:
    """Raises ``RunProblem`` naming the first setting in which a recorded run differs from what is asked for."""
    found = difference({**GAINED, **recorded}, json.loads(json.dumps(asked)))
    if found:
        raise RunProblem(
            f"{folder} was recorded with {found}. Nothing was changed; use the same settings or another save_to, or move "
            "that folder away."
        )


def estimate_bytes(model: nn.Module, segments: int, storage: str, running: int = 0) -> dict[str, int]:
    """What a recording will take, in bytes: on disk at most while it is recorded, and in memory beyond plain training.

    segments  how many are stored at most
    running   how many moving averages are declared
    """
    state = model.state_dict()
    floats = [t for t in state.values() if t.is_floating_point()]
    numbers, everything = sum(t.numel() for t in floats), sum(t.numel() * t.element_size() for t in state.values())
    halved = sum((t.element_size() - 2) * t.numel() for t in floats) if storage == "float16_difference" else 0
    mean = numbers * (2 if storage == "float16_difference" else 4)
    headers = sum(_header(f"mean.{name}") for name in state)
    one = mean + everything - halved + 2 * headers  # a mean and an end
    # parameters and two moments; the new checkpoint is written before the old one goes, and so is a merged segment
    checkpoint = (3 + running) * (everything + sum(CHECKPOINT_ENTRY + len(name.encode()) for name in state))
    whole = (1 + running) * (everything + headers)  # initial parameters and moving averages
    # the running sum; a tensor or two while segments are written
    largest = max(t.numel() for t in state.values())
    return {
        "disk": (segments + 2) * one + whole + 2 * checkpoint,
        "memory": 4 * ((1 + running) * numbers + 4 * largest),
    }


def check_recordable(model: nn.Module) -> None:
    """Raises ``ValueError`` for a student whose ``state_dict`` no recording can hold."""
    places = _places(model)
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            kind, instead = type(tensor).__name__, "keep what get_extra_state() gives in buffers"
        elif tensor.dtype not in DTYPES:
            kind, instead = (
                tensor.dtype,
                "a complex one is two real ones (torch.view_as_real), one of 8 bits a bfloat16",
            )
        elif name not in places:
            kind, instead = "under another name in its module", "leave names to torch"
        else:
            continue
        raise ValueError(
            f"The student's {name!r} is {kind}; a recording holds real tensors of 16 bits or more, whole numbers and bools, "
            f"each under its own name: {instead}."
        )


HEADER, CHECKPOINT_ENTRY = 150, 500  # bytes a tensor takes in a file beside its numbers and name, at most
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
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
    write_with(path, lambda partial: _write_tensors(partial, names, make))


def _write_tensors(path: Path, names: Sequence[tuple[str, ...]], make: Callable[..., Tensor]) -> None:
    header: dict[str, dict] = {}
    room = sum(_header(".".join(name)) for name in names) // 8 * 8
    with open(path, "wb") as file:
        file.seek(8 + room)
        for name in names:
            tensor, begin = make(*name).detach().cpu().contiguous(), file.tell() - 8 - room
            file.write(memoryview(tensor.flatten().view(torch.uint8).numpy()))
            offsets = [begin, file.tell() - 8 - room]
            kind = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
            header[".".join(name)] = kind
        written = json.dumps(header, separators=(",", ":")).encode()
        assert len(written) <= room, f"a header of {len(written)} bytes in room for {room}"
        file.seek(0)
        file.write(struct.pack("<Q", room) + written.ljust(room))


def _header(name: str) -> int:
    """Bytes that a tensor takes in a file beside its numbers, at most; JSON writes a letter with up to twelve."""
    return HEADER + len(json.dumps(name))


def _opened(file: Path):
    try:
        return safe_open(file, "pt")
    except FileNotFoundError:
        raise RunProblem(f"{file} is missing; put it back from a copy, or train this run again.") from None
    except SafetensorError as error:
        raise RunProblem(f"{file} {UNREADABLE}") from error


def read_state(path: Path) -> State:
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no dict)


def environment() -> dict:
    """Versions, commit and device: what a reader needs to judge where a number came from. What is not known is None."""
    packages = ("wakd_kit", "torch", "torchvision", "timm", "numpy")
    commit, changes = _commit()
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "packages": {name: _version(name) for name in packages},
        "commit": commit,
        "uncommitted_changes": changes,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # used from its folder
        return None


def _commit() -> tuple[str | None, bool | None]:
    """The commit of the kit's own repository and whether there are changes to it; None for an installed kit, or without git."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", here, *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    here = Path(__file__).parent.parent
    # a repository that merely holds the environment which the kit is installed in does not know this file
    if shutil.which("git") is None or git("ls-files", "--full-name", Path(__file__).name) != "wakd_kit/runs/record.py":
        return None, None
    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "."))

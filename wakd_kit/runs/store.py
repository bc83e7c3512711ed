"""What a run keeps on disk: its trajectory as segments, each the mean of its iterates and its last iterate.

At most ``most`` segments are stored: beyond that, neighbours are merged, and a merged mean is exactly the mean over all its
iterates. Edges that declared strategies need are never merged away. A declared moving average, which no edge can make exact,
is kept itself.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..averaging import Coefficients
from ..files import UNREADABLE, read_json, write_text, write_with

State = dict[str, Tensor]

STORAGE = ("float32", "float16_difference")
STATISTICS = ("running_mean", "running_var")  # of BatchNorm, by the ends of their names
HEADER, CHECKPOINT_ENTRY = 150, 500  # bytes a tensor takes in a file beside its numbers and name, at most


class RunProblem(ValueError):
    """A run folder that cannot be used as asked; the message says what it is and what to do."""


class Segments:
    """The stored segments of a run: a folder of safetensors files and an index of the steps each one covers.

    storage  "float32" as it is, or "float16_difference": half the size, the difference to the initial parameters in half
             precision. What was stored once is off by 2e-4 of its displacement (by 3e-8 where that is below 6e-5), and every
             merge rounds a mean again: 1e-3 where a hundred segments became sixteen. A tensor in which something moved by
             more than 65,504 is kept in bfloat16, to 4e-3. ``STATISTICS`` are kept as they are: of a variance that fell to nearly 0
             a rounded difference may leave less than nothing.

    Of a segment of n iterates there may be a ramp beside the mean: ``12 / (n^2 - 1) * sum_i (i - (n + 1) / 2) iterate_i``, what the
    straight line through its iterates changes over it.
    """

    def __init__(self, folder: Path, storage: str = "float32"):
        self.folder = folder
        self.storage = storage
        self._index_file = folder / "index.json"
        self.index: list[dict] = read_json(self._index_file) if self._index_file.exists() else []
        self._initial: State | None = None
        self._start_file = None

    @classmethod
    def create(cls, folder: Path, initial: State, storage: str) -> Segments:
        """A new folder of segments, none so far, that start from this state; in place of what was left there by a kill."""
        if storage not in STORAGE:
            raise ValueError(f"storage is one of {', '.join(STORAGE)}; got {storage!r}.")
        shutil.rmtree(folder, ignore_errors=True)
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

    def read(self, position: int, of: str, *, names: Iterable[str] | None = None) -> State:
        """The "mean", the "end" iterate or the "ramp" of one stored segment, floats in float32 (or what is wider); "end" has
        the integer buffers too.

        names  of the tensors to read, default all
        """
        with self._started(), self._open(position) as file:
            wanted = _names(file, of) if names is None else names
            found = {name: file.get_tensor(f"{of}.{name}") for name in wanted}
            return {name: t.float() if of == "ramp" else self._decode(name, t) for name, t in found.items()}

    def check(self) -> None:
        """Raises ``RunProblem`` for a file that is missing or was cut off; only what stands at their beginnings is read."""
        _opened(self.folder / "initial.safetensors")
        for position in range(len(self)):
            self._open(position)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every parameter and buffer its shape."""
        with _opened(self.folder / "initial.safetensors") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    @property
    def ramps(self) -> bool:
        """Whether every stored segment has its ramp."""
        return bool(self.index) and all(entry.get("ramp") for entry in self.index)

    def append(self, mean: State, end: State, first: int, last: int, ramp: State | None = None) -> None:
        """Store one more segment. The file is complete before the index names it."""
        given = {"mean": mean, "end": end}
        with self._started():
            state = {f"{of}.{name}": self._encode(name, state[name]) for of, state in given.items() for name in state}
            state |= {f"ramp.{name}": self._slight(tensor) for name, tensor in (ramp or {}).items()}
        self.index.append(self._write(state, first, last))
        self._write_index()

    def merge(self, position: int) -> None:
        """Join a stored segment with the next one: the mean over all iterates of both, and the later end.

        The files of the two stay until ``clean``: a checkpoint may name them still.
        """
        left, right = self.index[position], self.index[position + 1]
        share = self.iterates[position] / (self.iterates[position] + self.iterates[position + 1])
        with self._started(), self._open(position) as before, self._open(position + 1) as after:
            state = {f"end.{name}": after.get_tensor(f"end.{name}") for name in _names(after, "end")}
            for name in _names(after, "mean"):
                total = self._decode(name, before.get_tensor(f"mean.{name}")).double().mul_(share)
                total.add_(self._decode(name, after.get_tensor(f"mean.{name}")), alpha=1 - share)
                state[f"mean.{name}"] = self._encode(name, total.float())
            n, m = (int(count) for count in self.iterates[position : position + 2])
            for name in _names(before, "ramp"):
                apart = self._decode(name, after.get_tensor(f"mean.{name}")).double()
                apart.sub_(self._decode(name, before.get_tensor(f"mean.{name}"))).mul_(n * m / 2)
                for count, file in ((n, before), (m, after)):
                    apart.add_(file.get_tensor(f"ramp.{name}"), alpha=(count**2 - 1) / 12)
                state[f"ramp.{name}"] = self._slight((apart * (12 / ((n + m) ** 2 - 1))).float())
            self.index[position : position + 2] = [self._write(state, left["first"], right["last"])]
        self._write_index()

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
        self.clean()

    def clean(self) -> None:
        """Delete the files that the index does not name: of segments that were merged, or never committed."""
        named = {entry["file"] for entry in self.index} | {"index.json", "initial.safetensors"}
        for file in self.folder.iterdir():
            if file.name not in named:
                file.unlink()

    def _write(self, state: State, first: int, last: int) -> dict:
        """Write a segment's file; its entry in the index."""
        entry = {"first": first, "last": last, "file": f"{first:07d}-{last:07d}.safetensors"}
        entry |= {"ramp": True} if any(name.startswith("ramp.") for name in state) else {}
        write_state(self.folder / entry["file"], state)
        return entry

    def _open(self, position: int):
        file = self.folder / self.index[position]["file"]
        now = read_json(self._index_file) if not file.exists() and self._index_file.exists() else self.index
        if file.name not in [entry["file"] for entry in now]:
            raise RunProblem(f"{file} was merged with another since this run was loaded: load it again.")
        return _opened(file)

    def _slight(self, ramp: Tensor) -> Tensor:
        """A ramp as it is stored: a difference already, in half precision where differences are."""
        half = ramp.detach().cpu().half() if self.storage == "float16_difference" else None
        return (
            ramp.detach().cpu() if half is None else half if half.isfinite().all() else ramp.detach().cpu().bfloat16()
        )

    def _encode(self, name: str, tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu()
        if self.storage == "float16_difference" and tensor.is_floating_point():
            if name.endswith(STATISTICS):
                return tensor if tensor.dtype == torch.float64 else tensor.float()
            moved = tensor.float() - self._start(name).float()
            half = moved.half()
            return half if half.isfinite().all() else moved.bfloat16()
        return tensor

    def _decode(self, name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        wide = tensor if tensor.dtype == torch.float64 else tensor.float()
        # what is wider is no difference; older recordings have differences of statistics, too
        differs = self.storage == "float16_difference" and tensor.element_size() == 2
        return wide + self._start(name).float() if differs else wide

    def _start(self, name: str) -> Tensor:
        """One tensor of the initial parameters, read when needed: half-precision storage keeps no copy of them."""
        return self._initial[name] if self._initial is not None else self._start_file.get_tensor(name)

    @contextlib.contextmanager
    def _started(self) -> Iterator[None]:
        """The initial parameters at hand, where differences to them are stored."""
        if self.storage == "float32" or self._initial is not None or self._start_file is not None:
            yield
            return
        with _opened(self.folder / "initial.safetensors") as self._start_file:
            try:
                yield
            finally:
                self._start_file = None

    def _write_index(self) -> None:
        write_text(self._index_file, json.dumps(self.index))


def _names(file, of: str) -> list[str]:
    return [key.removeprefix(f"{of}.") for key in file.keys() if key.startswith(f"{of}.")]  # noqa: SIM118


class RunningAverages:
    """The moving averages that a finished run kept, each with the coefficients that it stands for."""

    def __init__(self, folder: Path):
        self.folder = folder
        index = folder / "index.json"
        self.index: list[dict] = read_json(index) if index.exists() else []

    def write(self, averages: Iterable[tuple[Coefficients, State]]) -> None:
        """Keep the moving averages of a run that is finished."""
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


def write_state(path: Path, state: State) -> None:
    """A safetensors file that is either complete or not there."""
    # safetensors takes none that share memory or lie otherwise than their shape says: of those a copy of its own
    copies, taken = {}, set()
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage()
        own = memory.data_ptr() not in taken and memory.nbytes() == tensor.nbytes
        copies[name] = tensor if own else tensor.clone()
        taken.add(memory.data_ptr())
    try:
        write_with(path, lambda partial: save_file(copies, partial))
    except SafetensorError as error:  # a full disk, too
        raise OSError(f"{path} could not be written: {error}") from error


def read_state(path: Path) -> State:
    """What ``write_state`` wrote. Raises ``RunProblem`` for a file that is not there or not whole."""
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no dict)


def _opened(file: Path):
    try:
        return safe_open(file, "pt")
    except FileNotFoundError:
        for place in file.parents:
            if place.suffix == ".recording" and not place.exists() and place.with_suffix("").exists():
                raise RunProblem(f"{place} is complete and called {place.stem} now: load that run.") from None
        raise RunProblem(
            f"{file} is missing; put it back from a copy, or move its run away and train it again."
        ) from None
    except SafetensorError as error:
        raise RunProblem(f"{file} {UNREADABLE}") from error


def places_of(model: nn.Module) -> dict[str, tuple[dict, str]]:
    """For every name in a ``state_dict`` the dictionary of its module, and its key there."""
    return {
        f"{prefix}.{key}" if prefix else key: (owner, key)
        for prefix, module in model.named_modules(remove_duplicate=False)
        for owner in (module._parameters, module._buffers)
        for key in owner
    }


UNSAVED = 4  # a checkpoint is written at least at every so many segments


def estimate_bytes(
    model: nn.Module, segments: int, storage: str, running: int = 0, *, merged: bool = True, ramps: bool = False
) -> dict[str, int]:
    """What a recording will take, in bytes: on disk at most while it is recorded, and in memory beyond plain training.

    segments  how many are stored at most
    running   how many moving averages are declared
    merged    whether more are recorded than stored
    ramps     whether each has its ramp
    """
    state = model.state_dict()
    floats = [t for t in state.values() if t.is_floating_point()]
    numbers, everything = sum(t.numel() for t in floats), sum(t.numel() * t.element_size() for t in state.values())
    half = {n: t for n, t in state.items() if t.is_floating_point() and not n.endswith(STATISTICS)}
    half = half if storage == "float16_difference" else {}
    halved = sum((t.element_size() - 2) * t.numel() for t in half.values())
    mean = 4 * numbers - 2 * sum(t.numel() for t in half.values())
    headers = sum(HEADER + len(json.dumps(f"mean.{name}")) for name in state)
    one = mean + everything - halved + 2 * headers + ramps * (mean + headers)  # a mean, an end, a ramp
    # parameters and two moments; the new checkpoint is written before the old one goes, and so is a merged segment
    checkpoint = (3 + running) * (everything + sum(CHECKPOINT_ENTRY + len(name.encode()) for name in state))
    whole = (1 + running) * (everything + headers)  # initial parameters and moving averages
    # running sums; what is being written, a copy of it and of what the next checkpoint holds
    memory = 4 * (1 + running + 2 * ramps) * numbers + 2 * (mean + everything) + (2 + running) * everything
    # what was merged since the last checkpoint is still there: two for one, and one of them would be stored
    return {"disk": (segments + 2 + UNSAVED * merged) * one + whole + 2 * checkpoint, "memory": memory}


def check_recordable(model: nn.Module) -> None:
    """Raises ``ValueError`` for a student whose ``state_dict`` no recording can hold."""
    places = places_of(model)
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            kind, instead = type(tensor).__name__, "keep what get_extra_state() gives in buffers"
        elif tensor.is_complex() or tensor.is_quantized or (tensor.is_floating_point() and tensor.element_size() < 2):
            kind = tensor.dtype
            instead = "a complex one is two real ones (torch.view_as_real), one of 8 bits a bfloat16"
        elif name not in places:
            kind, instead = "under another name in its module", "leave names to torch"
        else:
            continue
        raise ValueError(
            f"The student's {name!r} is {kind}; a recording holds real tensors of 16 bits or more, whole numbers and bools, "
            f"each under its own name: {instead}."
        )

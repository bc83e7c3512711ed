"""Recording a training: what each step adds, what a killed one continues from, and how a folder gets its final name.

It costs one extra parameter vector in memory (a running sum) and one fused add per step; a declared moving average one more
vector and one fused update each.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import platform
import re
import shutil
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..averaging import Recurrence
from ..files import UNREADABLE, Held, locked, read_json, read_table, recording_folder, sweep, write_text, write_with
from ..names import version_of
from ..objectives import combine
from .identity import difference
from .store import RunProblem, Segments, State, places_of


class Closed(NamedTuple):
    """A segment to be stored: what ``Segments.append`` takes."""

    mean: State
    end: State
    first: int
    last: int
    ramp: State


def copies(state):
    """Copies on the host of the tensors in nested dictionaries and lists; from CUDA's the host does not wait, see ``landing``."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True, non_blocking=state.is_cuda)
    if isinstance(state, Mapping):
        return {key: copies(value) for key, value in state.items()}
    return [copies(value) for value in state] if isinstance(state, (list, tuple)) else state


def landing(device: torch.device) -> Callable[[], None]:
    """What waits until all copies from the device that were begun are complete."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


class Writer:
    """One thread that writes while training goes on. Who has more to write waits for it, and hears what went wrong."""

    def __init__(self):
        self._thread, self._writing = ThreadPoolExecutor(1, "wakd-writer"), None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind, *_) -> None:
        self._thread.shutdown()  # what is being written is written to its end, whatever happened meanwhile
        if kind is None:
            self.wait()

    def start(self, write: Callable, *given) -> None:
        """Begin to write, once what was begun before is written."""
        self.wait()
        self._writing = self._thread.submit(write, *given)

    def wait(self) -> None:
        """Nothing is being written afterwards. Raises what the thread raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


class Recorder:
    """Sums the iterates of the open segment: ``add()`` after every optimiser step, ``close()`` at a segment's end.

    recurrences  moving averages to keep as well, one state each in ``running``
    ramps        whether the segment's ramp is summed as well
    every        steps after which there is an iterate, which counts for all of them: those in between are steps of an
                 optimiser that is pulled back
    """

    def __init__(
        self,
        model: nn.Module,
        segments: Segments,
        recurrences: Sequence[Recurrence] = (),
        *,
        ramps: bool = False,
        every: int = 1,
    ):
        self.model, self.every, self._taken = model, every, 0
        self.segments = segments
        self.recurrences = list(recurrences)
        state = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
        # where each of them is now, at every step: a forward pass or a hook may have put another tensor in its place
        places = places_of(model)
        self._places = {n: places[n] for n in state}
        self._sums = {n: torch.zeros_like(state[n], dtype=torch.float32) for n in self._places}
        self._ramps = {n: torch.zeros_like(total) for n, total in self._sums.items()} if ramps else {}
        self.running = [{n: state[n].detach().clone() for n in self._places} for _ in self.recurrences]
        self.count = 0
        self.step = int(segments.edges[-1]) if len(segments) else 0

    @torch.no_grad()
    def add(self) -> None:
        """One more step, and an iterate where a round ends: what the model's tensors are now."""
        self._taken += 1
        if self._taken % self.every:
            return
        tensors = [owner[key] for owner, key in self._places.values()]
        torch._foreach_add_([*self._sums.values()], tensors, alpha=self.every)
        before, self.count, self.step = self.count, self.count + self.every, self.step + self.every
        if self._ramps:
            torch._foreach_add_([*self._ramps.values()], tensors, alpha=sum(range(before + 1, self.count + 1)))
        for recurrence, average in zip(self.recurrences, self.running):
            if self.step > recurrence.begin:
                decays = recurrence.decays[: self.step - recurrence.begin][-self.every :]
                torch._foreach_lerp_([*average.values()], tensors, 1 - math.prod(map(float, decays)))

    @torch.no_grad()
    def revise(self, name: str, before: Tensor) -> None:
        """A tensor was set anew for the open segment: the segment's mean and the moving averages hold what it is now, as if
        it had never been what it was ``before``."""
        owner, key = self._places[name]
        change = owner[key] - before
        self._sums[name].add_(change, alpha=self.count)
        if self._ramps:
            self._ramps[name].add_(change, alpha=self.count * (self.count + 1) / 2)
        for recurrence, average in zip(self.recurrences, self.running):
            steps = np.arange(self.step - self.count + 1, self.step + 1)
            decays = recurrence.decays[steps[steps > recurrence.begin] - recurrence.begin - 1]
            average[name].add_(change, alpha=1 - float(np.prod(decays)))

    @torch.no_grad()
    def close(self, step: int) -> Closed:
        """The segment that ends with this step, as copies on the host that may still be on their way; the next one starts."""
        state = dict(self.model.state_dict())
        self._check({n: t for n, t in state.items() if t.is_floating_point()})
        sums, ramps = [*self._sums.values()], [*self._ramps.values()]
        if (
            ramps
        ):  # from steps that count from 1 to those that count from the middle, and what that comes to over the segment
            torch._foreach_add_(ramps, sums, alpha=-(self.count + 1) / 2)
            torch._foreach_mul_(ramps, 12 / (self.count**2 - 1) if self.count > 1 else 0.0)
        torch._foreach_div_(sums, self.count)
        closed = Closed(copies(self._sums), copies(state), step - self.count + 1, step, copies(self._ramps))
        torch._foreach_zero_([*sums, *ramps])
        self.count = 0
        return closed

    def _check(self, state: State) -> None:
        """Raises ``RunProblem`` unless the tensors that were summed are those of the ``state_dict``."""
        here = {n: owner.get(key) for n, (owner, key) in self._places.items()}
        lost = [n for n, t in here.items() if t is None or n not in state or t.data_ptr() != state[n].data_ptr()]
        if lost := [*lost, *(n for n in state if n not in here)]:
            raise RunProblem(
                f"The student's {lost[0]!r} was put elsewhere while it was trained, so this segment has no mean; replace "
                "parameters and buffers in their modules, not the modules, and train it again from the start."
            )


class Checkpoint:
    """What a killed run continues from: parameters, optimiser, state of the objectives and of learned views, curves, and which
    segments there were.

    No random state is needed: every draw is a function of the seed and the step.
    """

    def __init__(
        self, folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, objectives: nn.Module, learned=None
    ):
        self.folder, self.model, self.optimiser, self.objectives = folder, model, optimiser, objectives
        self.learned = learned
        self.file = folder / "checkpoint.pt"

    def take(self, end: State, running: Sequence[State] = ()) -> dict:
        """What it would hold now, as copies on the host; ``end`` are those of the model that there are already."""
        state = {"optimiser": self.optimiser.state_dict(), "objectives": self.objectives.state_dict()}
        state |= {"learned": self.learned.state_dict()} if self.learned else {}
        return {"model": end, **copies(state | {"running": list(running)})}

    def save(self, rows: list[dict], segments: Segments, state: dict | None) -> None:
        """Write curves.csv until now and, with a ``state``, all that a killed run continues from: that commits the segments
        until now, and files of older ones may go."""
        write_curves(self.folder, rows)
        if state is not None:
            state = {**state, "rows": rows, "segments": segments.index}
            try:
                write_with(self.file, lambda path: torch.save(state, path))
            except RuntimeError as error:  # torch's of a full disk
                raise OSError(f"{self.file} could not be written: {str(error).splitlines()[0]}") from error
            segments.clean()

    def measured(self) -> int:
        """The last step of curves.csv, which may lie after the checkpoint; 0 without one of the two."""
        file = self.folder / "curves.csv"
        return int(read_table(file)["step"].max()) if self.file.exists() and file.exists() else 0

    def restore(self, storage: str, recurrences: Sequence[Recurrence] = (), **settings) -> tuple[Recorder, list[dict]]:
        """A recorder that goes on where the last checkpoint was, and the curve rows until there; none at the start.

        What was recorded after it is cut off: it is recorded again, to the same bits. ``settings`` are the recorder's.
        """
        folder = self.folder / "segments"
        if not self.file.exists():
            segments = Segments.create(folder, self.model.state_dict(), storage)
            return Recorder(self.model, segments, recurrences, **settings), []
        # to the CPU, where an optimiser wants its step counts; the rest is copied to where it belongs
        try:
            state = torch.load(self.file, map_location="cpu", weights_only=True)
        except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise RunProblem(f"{self.file} {UNREADABLE}") from error
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.objectives.load_state_dict(state.get("objectives", {}))
        if self.learned:
            self.learned.load_state_dict(state["learned"])
        if "running" not in state:
            raise RunProblem(
                f"{self.folder} was started by an older version of wakd_kit, whose checkpoints hold no moving averages. "
                "Finish it with that version, or record it again elsewhere."
            )
        rows, segments = state["rows"], Segments(folder, storage)
        segments.index = state.get("segments", segments.index)  # older ones were written with every segment
        write_curves(self.folder, rows)
        segments.cut(rows[-1]["step"])
        recorder = Recorder(self.model, segments, recurrences, **settings)
        for average, kept in zip(recorder.running, state["running"]):
            for name, tensor in average.items():
                tensor.copy_(kept[name])
        return recorder, rows


def write_curves(folder: Path, rows: Sequence[Mapping]) -> None:
    """curves.csv of a recording: a row for each segment."""
    write_with(folder / "curves.csv", lambda path: pd.DataFrame(rows).to_csv(path, index=False))


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
def recording(folder: Path, settings: dict, *, resume: bool, device: torch.device | None = None) -> Iterator[Path]:
    """The folder to record into, ``<folder>.recording``, held by one process; it gets its final name on a clean exit.

    What was recorded until its first checkpoint is nothing, and may be started again with other settings; what was measured
    on a recording that goes on is deleted. The checkpoint stays until the folder has its final name, so that whatever keeps
    it from that loses no step.

    Raises ``RunProblem`` when another process is recording there, when the name is taken, when an unfinished recording is
    there and ``resume`` is not asked for, when that recording was started with other settings, or for settings that JSON cannot
    hold.
    """
    _refuse_taken(folder)
    text = json.dumps(settings, indent=1, default=_refuse_unwritten)
    partial, known = recording_folder(folder), environment(device or torch.device("cpu"))
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
            write_text(settings_file, text)
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


def _refuse_unwritten(value: object) -> None:
    raise RunProblem(
        f"A recording keeps its settings as numbers, text, lists and dictionaries, and {value!r} is none of them: say it by one, "
        "or build the model yourself and give that to as_tap."
    )


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
    if (folder / "environment.json").exists() and (folder / "settings.json").exists():
        for name in ("checkpoint.pt", "lock"):  # not the lock of what is measured, which somebody may hold
            (folder / name).unlink(missing_ok=True)


# how recordings were computed whose settings do not say
BEFORE = {"optimiser": "foreach", "validation": "float32", "teacher": "as it is", "defaults": "published"}


def begun_with(folder: Path) -> dict | None:
    """The arithmetic of the recording that goes on here: it is finished with what it began with. None where none does."""
    partial = recording_folder(folder)
    if not (partial / "checkpoint.pt").exists():
        return None
    return {**BEFORE, **read_json(partial / "settings.json").get("arithmetic", {})}


GAINED = {
    "warmup": 0,
    "compile": False,
    "deterministic": False,
    "mix": None,
    "second": None,
    "freeze": [],
}  # settings that recordings made before them did not have, as they were then


def refuse_other_settings(folder: Path, recorded: dict, asked: dict) -> None:
    """Raises ``RunProblem`` naming the first setting in which a recorded run differs from what is asked for."""
    # settings that objectives have gained since then had their defaults, and some were called otherwise
    files = {
        spec["name"]: spec["embeddings"] for spec in asked["objectives"] if "embeddings" in spec
    }  # by content, in "code"
    specs = [s | {"embeddings": files[s["name"]]} if s["name"] in files else s for s in recorded["objectives"]]
    recorded = {**GAINED, **recorded, "objectives": combine(specs).specs if specs else []}
    found = difference(json.loads(json.dumps(recorded)), json.loads(json.dumps(asked)))
    if found:
        raise RunProblem(
            f"{folder} was recorded with {found}. Nothing was changed; use the same settings or another save_to, or move "
            "that folder away."
        )


def environment(device: torch.device) -> dict:
    """Versions, commit and the device that computes: what a reader needs to judge where a number came from. What is not known is None."""
    packages = ("wakd_kit", "torch", "torchvision", "timm", "numpy")
    commit, changes = _commit()
    return {
        "python": platform.python_version(),
        "processor": processor(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_threads(torch.get_num_threads())}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "packages": {name: version_of(name) for name in packages},
        "commit": commit,
        "uncommitted_changes": changes,
    }


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def processor() -> str | None:
    """What the processor is called, as far as the system says."""
    known = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*: (.*)", known.read_text(), re.M) if known.exists() else []
    return next(iter(models), platform.processor() or None)


def _commit() -> tuple[str | None, bool | None]:
    """The commit of the kit's own repository and whether there are changes to it; None for an installed kit, or without git."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", here, *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    here = Path(__file__).parent.parent
    this = str(Path(__file__).relative_to(here))
    # a repository that merely holds the environment which the kit is installed in does not know this file
    if shutil.which("git") is None or git("ls-files", "--full-name", this) != f"{here.name}/{Path(this).as_posix()}":
        return None, None
    return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "."))

"""What objectives read of a teacher, kept on disk: the first student pays for it, those after it read.

    heard = Heard(teacher, split, ...)      -> a context that lasts as long as the training
    heard(step, x)                          -> the teacher's Output for the views of this step: read, or else asked, and kept

Views are a function of seed, step, batch, sampling and their own settings, and a teacher in eval mode is a function of its
views, so all students of one teacher hear the same. It is kept under all that decides the bits, and on the CPU equal to them:

    $WAKD_CACHE/teachers/<key>/about.json                        whose outputs these are, and of what
    $WAKD_CACHE/teachers/<key>/logits-0000001-0000256.safetensors   of these steps, (steps, n, classes); pooled features alike
    $WAKD_CACHE/teachers/<key>/validation.safetensors, features.safetensors   of images as they are, (n, classes or features)
    $WAKD_CACHE/teachers/<key>/statistics.safetensors               BatchNorm's, of what a run deploys

A file is never changed and has its name when it is whole, so students that train side by side need no lock. Whatever is
missing, or does not fit its checksum, is asked of the teacher again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

from ..data import augment, batches, mixing
from ..data.domains import DataProblem, Split, cache_folder
from ..files import DAY, json_or_nothing, sweep, write_text
from ..models import arithmetic as computing
from ..models import build, fold, inside, tails, tap
from ..models.arithmetic import compiled, own_draws
from ..models.build import batchnorms
from ..models.device import device as device_of
from ..models.fold import frozen
from ..models.tap import Output
from ..objectives import Combined, combine
from . import network, prepare, shown
from .identity import digest, fingerprint, normalisation, of_objectives, of_recording, provenance_of, structure
from .network import predict
from .prepare import outputs, source_features
from .record import processor
from .run import Run
from .settings import Settings
from .store import RunProblem, read_state, write_state

# settings that views and teachers know nothing of; one that is not named here is part of the key
ASIDE = {"objectives", "steps", "segment_length", "learning_rate", "optimiser", "momentum", "weight_decay", "schedule"}
ASIDE |= {
    "warmup",
    "freeze",
    "batchnorm",
    "batchnorm_batches",
    "declare",
    "edges",
    "most_stored",
    "storage",
    "ramps",
    "teacher_cache",
    "streaming",
}
CODE = (augment, batches, mixing, shown, network, prepare, build, computing, fold, inside, tails, tap)
PIECE = 4 * 2**20  # bytes of a file of steps, about: what waits on the device to be written, and a kill loses
LOOK = 32  # steps after which a student that found nothing looks again, for one beside it may be ahead


class Heard:
    """A teacher as one training hears it, in eval mode on its device; nothing but None where there is none.

    arithmetic  of the recording: "teacher" is "folded" where a folded twin is asked, "validation" the precision of that

    Asked anew at every step are one whose maps or parts an objective reads, one that gives other outputs for the same
    images, one with hooks, of which no identity tells, and one whose images depend on what a network
    says.
    """

    def __init__(
        self,
        teacher: nn.Module | None,
        split: Split,
        combined: Combined,
        settings: Settings,
        device: torch.device,
        arithmetic: Mapping[str, str],
    ):
        self.teacher, self.split, self.maps = teacher, split, combined.asks("teacher")
        self.kept = _kept(teacher, split, settings, device, arithmetic)
        half = settings.precision == "bfloat16"
        self.asked = frozen(teacher, half=half) if teacher and arithmetic["teacher"] == "folded" else teacher
        self.ask = compiled(self.asked, device) if teacher and settings.compile else self.asked
        anew = self.maps or combined.reads("parts", "teacher") or not self.kept or picks(settings)
        read = [] if anew else _read_by(combined)
        self.series = [Series(self.kept, name, device) for name in read]

    def __enter__(self) -> Heard:
        return self

    def __exit__(self, *_) -> None:
        for series in self.series:
            series.write()

    @torch.no_grad()
    def __call__(self, step: int, x: Tensor, labels: Tensor | None = None, **_) -> Output | None:
        """The teacher's ``Output`` for the views of a step; what no objective reads of it may be empty. What else is known of
        the batch is for several teachers, see ``several``."""
        if self.teacher is None:
            return None
        found = [series.at(step) for series in self.series]
        if found and all(tensor is not None for tensor in found):
            logits, *pooled = found
            return Output(logits, *(pooled or [logits[:, :0]]))
        output = self.ask(x, maps=self.maps)
        for series, known, tensor in zip(self.series, found, output):
            if known is None:
                series.add(step, tensor)
        return output

    def validation(self) -> Tensor | None:
        """Logits (n, classes) of the source validation images, not augmented, domain after domain; on the CPU."""
        if self.teacher is None:
            return None
        return self._once(
            "validation", lambda: torch.cat([predict(self.asked, e.images) for e in self.split.val.values()])
        )

    def features(self) -> tuple[Tensor, Tensor]:
        """``source_features`` on the teacher's device, and the labels (n,) of their images."""
        labels = torch.cat([torch.from_numpy(e.labels) for e in self.split.train.values()])
        features = self._once("features", lambda: source_features(self.teacher, self.split))
        on = next((p.device for p in self.teacher.parameters()), features.device)
        return features.to(on), labels.to(on)

    def _once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        found = self.kept.read(name) if self.kept else None
        if found is None:
            found = compute()
            if self.kept:
                self.kept.write(name, found)
        return found


def picks(settings: Settings) -> bool:
    """Whether a step's images depend on what a network says: of mixed ones that are picked, of views that are learned, or of
    domains that are drawn by gaps."""
    asked = settings.second and mixing.second_from(settings.second).asks
    return bool(asked) or isinstance(settings.sampling, Mapping)


def _read_by(combined: Combined) -> list[str]:
    """Which of ``Output``'s tensors objectives read; one that is not the kit's own may read both, whatever it declares."""
    return ["logits", "pooled"] if combined.reads("pooled", "teacher") or of_objectives(combined) else ["logits"]


class Series:
    """One tensor of every step: ``at`` reads it, ``add`` keeps it, ``write`` writes what was added since the last file."""

    def __init__(self, kept: Kept, name: str, device: torch.device):
        self.kept, self.name, self.device = kept, name, device
        self.first, self.values = 1, ()  # the file that is read now
        self.look = 0  # until this step there is none
        self.begin, self.added = 1, []  # what is not written yet

    def at(self, step: int) -> Tensor | None:
        """What is kept of a step; None where nothing is."""
        if not 0 <= step - self.first < len(self.values) and step >= self.look:
            self._open(step)
        if 0 <= step - self.first < len(self.values):
            return self.values[step - self.first].clone()  # memory of its own: how it is aligned can decide last bits
        return None

    def add(self, step: int, tensor: Tensor) -> None:
        """Keep what the teacher gave at a step."""
        if step != self.begin + len(self.added):
            self.write()
        self.begin = self.begin if self.added else step
        self.added.append(tensor.clone())
        if len(self.added) * tensor.nbytes >= PIECE:
            self.write()

    def write(self) -> None:
        """Write what was added, as one file."""
        if self.added:
            last = self.begin + len(self.added) - 1
            self.kept.write(f"{self.name}-{self.begin:07d}-{last:07d}", torch.stack(self.added).cpu())
        self.added = []

    def _open(self, step: int) -> None:
        pieces = self.kept.pieces(self.name)
        self.values, self.look = (), min([step + LOOK, *(first for first, _ in pieces if first > step)])
        for first, last in sorted((p for p in pieces if p[0] <= step <= p[1]), key=lambda p: -p[1]):
            values = self.kept.read(f"{self.name}-{first:07d}-{last:07d}")
            if values is not None and len(values) == last - first + 1:
                self.first, self.values = first, values.to(self.device)
                return


class Kept:
    """The folder of what one teacher gave in trainings of one kind, among others below ``teachers``; all together take at
    most ``most`` bytes, and those that were used longest ago go first."""

    def __init__(self, folder: Path, most: float, about: dict):
        self.folder, self.most, self.about, self.full = folder, most, about, False
        with contextlib.suppress(OSError):  # not there yet, or another user's
            os.utime(folder)
        sweep(folder, idle=DAY)

    def pieces(self, name: str) -> list[tuple[int, int]]:
        """(first, last) step of every file of a series."""
        try:
            files = os.listdir(self.folder)
        except OSError:  # not there yet; what else there may be, writing says
            return []
        found = (re.fullmatch(rf"{name}-(\d+)-(\d+)\.safetensors", file) for file in files)
        return [(int(match[1]), int(match[2])) for match in found if match]

    def read(self, name: str) -> Tensor | None:
        """A tensor on the CPU; None where it is not there or not what was written."""
        file = self.folder / f"{name}.safetensors"
        if not os.path.exists(file):
            return None
        try:
            state = read_state(file)
            if int(state["sum"]) == _sum(state["values"]):
                return state["values"]
        except (RunProblem, OSError, KeyError):  # deleted in this moment, or cut off by a crash of the machine
            pass
        with contextlib.suppress(OSError):
            file.unlink()
        return None

    def write(self, name: str, values: Tensor) -> None:
        """Keep a tensor, if there is room. What cannot be written is said once, and is no reason to stop."""
        if self.full:
            return
        values = values.detach().cpu().contiguous()
        try:
            if not self._room_for(values.nbytes):
                self._stop(f"teacher_cache={self.most / 1e9:g} GB are full")
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "about.json").exists():
                write_text(self.folder / "about.json", json.dumps(self.about))
            state = {"values": values, "sum": torch.tensor(_sum(values))}
            write_state(self.folder / f"{name}.safetensors", state)
        except OSError as error:
            self._stop(f"{self.folder} cannot be written ({error.strerror or error})")

    def _stop(self, why: str) -> None:
        self.full = True
        warnings.warn(
            f"{why}: what the teacher gives from here on is not kept, and the next student asks it again.", stacklevel=2
        )

    def _room_for(self, more: int) -> bool:
        """Whether there is room for so many bytes, after the others that were used longest ago have gone."""
        taken = {folder: bytes_of(folder) for folder in kept_folders(self.folder.parent)}
        for folder in [folder for folder in taken if folder != self.folder]:
            if sum(taken.values()) + more <= self.most:
                break
            shutil.rmtree(folder, ignore_errors=True)
            taken[folder] = 0
        return sum(taken.values()) + more <= self.most


def _sum(values: Tensor) -> int:
    return zlib.crc32(values.contiguous().flatten().view(torch.uint8).numpy())


def teachers_folder() -> Path:
    """Where it is all kept: a folder each below ``teachers`` in ``$WAKD_CACHE``."""
    return cache_folder() / "teachers"


def kept_folders(above: Path) -> list[Path]:
    """The folders of what teachers gave; those that were used longest ago come first."""
    used = {}
    for folder in above.iterdir() if above.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # another process has just dropped it
            used[folder] = folder.stat().st_mtime
    return sorted(used, key=used.get)


def bytes_of(folder: Path) -> int:
    """What the files in a folder take, those that go away meanwhile left out."""
    total = 0
    for file in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def listed() -> list[str]:
    """A line on each of them: whose outputs, of what, how many bytes."""
    lines = []
    for folder in kept_folders(teachers_folder()):
        about = json_or_nothing(folder / "about.json").get("words", "a teacher that is not known any more")
        lines.append(f"{bytes_of(folder) / 1e6:10.2f} MB  {about}")
    return lines


def drop() -> None:
    """Delete all of it. Students ask their teachers again, with the same result."""
    shutil.rmtree(teachers_folder(), ignore_errors=True)


def most_bytes(settings: Settings, classes: int) -> int:
    """Bytes that the logits of every view take in the cache; the bound where features are kept, whose number is the
    teacher's; 0 where the teacher is not asked, or asked for maps."""
    combined, most = combine(settings.objectives), int(settings.teacher_cache * 1e9)
    maps = combined.asks("teacher") or combined.reads("parts", "teacher")
    if not combined.needs("teacher") or maps or picks(settings):
        return 0
    logits = 4 * settings.steps * settings.batch_size * (2 if settings.second else 1) * classes
    return most if "pooled" in _read_by(combined) or combined.needs("centres") else min(logits, most)


def _kept(
    teacher: nn.Module | None, split: Split, settings: Settings, device: torch.device, arithmetic: Mapping[str, str]
) -> Kept | None:
    """Where this teacher's outputs are kept; None where they are not."""
    if teacher is None or any(m._forward_hooks or m._forward_pre_hooks for m in teacher.modules()):
        return None
    name = (provenance_of(teacher) or {}).get("run") or "teacher"
    words = f"{name} ({teacher.spec['name']}), target {split.target}, seed {settings.seed}, batches of {settings.batch_size}"
    kept = _under(settings, words, lambda: _key(teacher, split, settings, device, arithmetic))
    return kept if kept and (os.path.isdir(kept.folder) or _repeats(teacher, split)) else None


def _under(settings: Settings, words: str, key: Callable[[], dict]) -> Kept | None:
    """What is kept under a key; None where nothing should be, or can be, which is said."""
    if not settings.teacher_cache:
        return None
    about = {"words": words, "key": key()}
    try:
        folder = teachers_folder() / digest(json.dumps(about["key"], sort_keys=True))
    except (OSError, DataProblem) as error:
        warnings.warn(f"What the teacher gives is not kept, and every student asks it: {error}", stacklevel=2)
        return None
    return Kept(folder, settings.teacher_cache * 1e9, about)


def deployed(run: Run, split: Split | None, settings: Settings, device: torch.device | None = None) -> nn.Module:
    """What a run deploys, as ``run.model`` gives it. Its BatchNorm statistics, which take passes over source images on the device,
    are kept."""
    coefficients, blank = run.deployed, run.blank_model()
    kept = None
    if run.settings["batchnorm"] == "recalibrate" and batchnorms(blank) and not run.is_raw(coefficients):

        def key() -> dict:
            # the average itself, for the code that takes it is no part of the key
            averaged = fingerprint(run.average(coefficients, batchnorm="average"))
            return {"recording": of_recording(run), "averaged": averaged, **_arithmetic(blank, device_of(device))}

        kept = _under(settings, f"{run.name}: BatchNorm statistics", key)
    statistics = kept.read("statistics") if kept else None
    policy = {} if statistics is None else {"batchnorm": "average"}
    model = run.model(coefficients, split=split, device=device, **policy)
    buffers = list(model.buffers())
    if statistics is not None:
        for buffer, values in zip(buffers, statistics.split([buffer.numel() for buffer in buffers])):
            buffer.copy_(values.view_as(buffer))
    elif kept:
        kept.write("statistics", torch.cat([buffer.double().flatten() for buffer in buffers]))
    return model


def _repeats(teacher: nn.Module, split: Split) -> bool:
    """Whether a teacher gives the same for two images twice: one with dropout in eval, or a memory, does not."""
    images = next(iter(split.train.values())).images[:2]
    with own_draws(next((p.device for p in teacher.parameters()), torch.device("cpu")), seed=0):
        first, second = (outputs(teacher, images, maps=False) for _ in range(2))
    return torch.equal(first.logits, second.logits) and torch.equal(first.pooled, second.pooled)


def _key(
    teacher: nn.Module, split: Split, settings: Settings, device: torch.device, arithmetic: Mapping[str, str]
) -> dict:
    """All that decides the bits of what a teacher gives: the network and its numbers, the images, the views of every step,
    and what computes. Buffers are taken to the last bit, unlike in ``identity.of_teacher``."""
    numbers = {**dict(teacher.named_parameters()), **dict(teacher.named_buffers())}
    return {
        "teacher": [structure(teacher), normalisation(teacher), fingerprint(numbers)],
        "split": [split.domains.fingerprint, split.seed, split.validation, list(split.sources)],
        "sizes": [[len(e) for e in part.values()] for part in (split.train, split.val)],
        "settings": {name: value for name, value in dataclasses.asdict(settings).items() if name not in ASIDE},
        "asked": [arithmetic["teacher"], arithmetic["validation"]],
        **_arithmetic(teacher, device),
    }


def _arithmetic(model: nn.Module, device: torch.device) -> dict:
    """All that decides the bits of a forward beside network, numbers and images."""
    code = (Path(module.__file__).read_text(encoding="utf-8") for module in CODE)
    return {
        "code": digest(*code),
        "device": [device.type, _named(device)],
        "libraries": [torch.__version__, timm.__version__, np.__version__],
        "arithmetic": [
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.are_deterministic_algorithms_enabled(),
            [bool(module.fused_attn) for module in model.modules() if hasattr(module, "fused_attn")],
            any(module._compiled_call_impl is not None for module in model.modules()),
        ],
    }


def _named(device: torch.device) -> str:
    """What computes: the card, or the processor with the number of threads, which decides the order of sums."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"

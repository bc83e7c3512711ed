"""The one training loop. It records a trajectory and knows nothing of averaging strategies beyond what to keep exact."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..averaging import RECURRENCES, Curves, strategies
from ..checks import explained, make
from ..data.augment import views_from
from ..data.batches import SourceBatches, learnt_from, seed_step
from ..data.domains import Split
from ..files import Stopped, path_of, recording_folder
from ..models.arithmetic import autocast, check_compiles, compiled, computing, own_draws
from ..models.build import as_tap, frozen_parts, in_eval, training_mode
from ..models.device import device as device_of
from ..models.tails import choose_mixture
from ..models.tap import mark
from ..objectives import Combined, combine
from .gap import Shares
from .identity import of_objectives, of_student, of_teacher, same_split, seen_in_training
from .optimiser import kernel_for, optimiser_for, set_learning_rate, update
from .prepare import prepare
from .record import Checkpoint, Closed, Writer, begun_with, landing, recording, refuse_other_settings, settle
from .run import FORMAT, Run, curves_from, load_run
from .settings import (
    AS_STORED,
    NAMES,
    NOT_RECORDED,
    Settings,
    as_published,
    curves_alike,
    described,
    edges_to_keep,
    every,
    named,
    recurrences,
    rehearse,
    segment_ends,
    stepping,
)
from .several import hear, several
from .shown import Shown
from .store import UNSAVED, RunningAverages, estimate_bytes
from .teacher import deployed, most_bytes
from .validate import SourceValidation

SECONDS = 5.0  # after which a checkpoint is written, with the next segment's end


class Diverged(Stopped):
    """The training loss stopped being a number; everything recorded before stays where it is."""


@explained
def train(
    student: nn.Module,
    split: Split,
    *,
    objectives: str | dict | Sequence[str | dict] = ({"name": "ce"},),
    teacher: Run | str | os.PathLike | nn.Module | dict | None = None,
    steps: int = 2000,
    segment_length: int = 50,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    optimiser: str | dict = "adam",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    warmup: int = 0,
    sampling: str | dict = "pooled",
    views: str | dict | None = None,
    mix: dict | None = None,
    second: dict | None = None,
    batchnorm: str = "recalibrate",
    freeze: str | Sequence[str] = (),
    batchnorm_batches: int = 10,
    precision: str = "float32",
    compile: bool = False,
    deterministic: bool = False,
    declare: Sequence[str | dict] = ("wakd", "swad"),
    edges: Sequence[int] = (),
    most_stored: int = 64,
    storage: str = "float32",
    ramps: bool = False,
    teacher_cache: float = 5.0,
    streaming: str = "auto",
    seed: int = 0,
    device: str | None = None,
    save_to: str | os.PathLike | None = None,
    resume: bool = False,
    sink: Callable[[Mapping[str, float]], None] | None = None,
    progress: bool = True,
) -> Run:
    """Train a student on the source domains of a split, recording its trajectory; returns the finished ``Run``.

    {settings}

    teacher             a Run or its folder (what it deployed, else its last iterate) or a module; always in eval mode and
                        fed the student's views, normalised its own way; a module is given back as it came. Several as one:
                        {"of": [run, run, "start"], "weigh": "uniform"}, see ``runs.several``
    save_to             the run's folder, default runs/<date>-<model>-<target>-s<seed>; it is called *.recording until
                        complete
    resume              continue a killed run from its last checkpoint, seconds or at most four segments before, bit for bit
                        on the CPU; a finished run is just loaded, and the student is its last iterate as after
                        training, rounded where that is how it is stored
    sink                called with each row of curves.csv as it is measured, such as those of ``loggers``; a run that goes on
                        sends those that curves.csv did not hold yet

    At every segment's end the current iterate is evaluated on source validation: cross-entropy and accuracy per domain,
    and, with a teacher, the distillation loss (T^2 KL at the temperature of the kd objective, else the paper's 5).
    Raises before the first batch, in one sentence, for anything that cannot work; ``Diverged`` when the loss or a
    parameter is no number.

    >>> run = wk.train(student, split, objectives="ce", steps=600, save_to="runs/example")
    >>> run.complete
    True
    """
    given = {name: value for name, value in locals().items() if name in NAMES}
    if not isinstance(student, nn.Module) or not isinstance(split, Split):
        got = " and ".join(repr(one) if isinstance(one, str) else type(one).__name__ for one in (student, split))
        raise TypeError(f"train takes a student (a module) and a split (of leave_one_out); got {got}.")
    if sink is not None and not callable(sink):
        raise ValueError(
            f"sink is called with each row of the curves, as those of wakd_kit.runs.loggers are; got {sink!r}."
        )
    if resume and save_to is None:
        raise ValueError(
            "resume=True continues the run at save_to, and none is given: say which folder, or leave resume out."
        )
    device, combined = device_of(device), combine(objectives)
    views = views_from(split.domains.views if views in (None, {}) else views)
    settings = make(Settings, given | {"objectives": combined.specs, "views": views.settings()})
    rehearse(settings, teacher=teacher is not None)
    teacher = teacher_module(teacher, split, settings, student, combined, device)
    student = combined.extended(as_tap(student), teacher, seed=seed)
    prepare(settings, student, teacher, split, combined)
    if settings.compile:
        check_compiles(device)
    recorded = {n: v for n, v in dataclasses.asdict(settings).items() if n not in NOT_RECORDED} | {
        "format": FORMAT,
        "student": student.spec,
        "identity": of_student(student),
        "teacher": None if teacher is None else of_teacher(teacher),
        "code": of_objectives(combined),
        "split": split.recipe,
        "seen": seen_in_training(split, teacher, student),
    }
    folder = folder_of(save_to) if save_to else _default_folder(student, split, seed)
    recorded["arithmetic"] = begun_with(folder) or {
        "optimiser": kernel_for(student, combined, settings, device),
        "validation": settings.precision,
        "teacher": "as it is" if teacher is None or device.type == "cpu" else "folded",
        "defaults": "by length",  # of declared strategies
    }
    if recorded["arithmetic"]["defaults"] == "published":
        settings = as_published(settings)
    about = {"run": folder.name, "split": split.recipe, "seen": recorded["seen"]}
    finished = finished_at(folder, recorded, split, student, resume)
    if finished is not None:
        student.to(device).load_state_dict(finished.segments.read(-1, "end"))
        mark(student, about)
        return finished
    data = SourceBatches(
        split, settings.batch_size, settings.sampling, settings.seed, device, streaming=settings.streaming
    )
    with (
        frozen_parts(student, settings.freeze, settings.batchnorm),
        recording(folder, recorded, resume=resume, device=device) as partial,
        own_draws(device),
        _lent(teacher, device),
        computing(device, settings.precision, deterministic=settings.deterministic),
        Writer() as writer,
        hear(teacher, split, combined, settings, device, recorded["arithmetic"]) as heard,
        tqdm(total=steps * batch_size, unit="img", unit_scale=True, disable=not progress) as bar,
    ):
        student.to(device, memory_format=torch.channels_last)
        mark(student, about)
        optimiser = optimiser_for(student, combined.to(device), settings, recorded["arithmetic"]["optimiser"])
        combined.learn_examples(*learnt_from(split))
        shown = Shown(views, settings, student, heard.asked, len(split.classes))
        checkpoint = Checkpoint(partial, student, optimiser, combined, shown.learned)
        book = _Book(student, heard, split, combined, settings, checkpoint, recorded["arithmetic"], writer, data)
        if combined.needs("centres") and not book.rows:
            combined.learn_centres(*heard.features())
        _loop(student, heard, data, combined, optimiser, settings, shown, book, bar, sink)
    return load_run(folder, split=split, template=student)


train.__doc__ = train.__doc__.replace("{settings}", described())


def _loop(student, heard, data: SourceBatches, combined: Combined, optimiser, settings, shown, book, bar, sink) -> None:
    """Every step: one batch of views, one forward each, one update, one iterate added to the open segment."""
    generator, ends = torch.Generator(), segment_ends(settings)  # views are drawn on the CPU: the same on every device
    precise, maps = autocast(data.device, settings.precision), combined.asks("student")
    learn = compiled(student, data.device) if settings.compile else student
    answer, rho = functools.partial(_answer, learn, combined, precise, maps), stepping(settings).rho

    bar.initial = bar.n = book.started * settings.batch_size
    training_mode(student, settings.batchnorm)
    for step in range(book.started + 1, settings.steps + 1):
        seed_step(generator, settings.seed, step, data.device)
        if settings.compile:
            torch.compiler.cudagraph_mark_step_begin()  # what graphs gave at the last step may be overwritten
        images, labels, of_batch = data.batch(step)
        x, labels = shown(images, labels, generator)
        with precise:
            teacher_output = heard(step, x, labels, **of_batch)
        taught = functools.partial(answer, x, teacher_output, labels, step=step, **of_batch)
        set_learning_rate(optimiser, settings, step)
        loss, terms = update(optimiser, student, combined, taught, rho)
        book.add({"train_loss": loss.detach(), **{f"train/{name}": value for name, value in terms.items()}})
        bar.update(settings.batch_size)
        if step in ends:
            row = book.close(step, optimiser.param_groups[0]["lr"])
            if sink is not None and step > book.measured:
                sink(row)
            training_mode(student, settings.batchnorm)  # whoever looked at the student may have left it in another
            bar.set_postfix(loss=f"{row['train_loss']:.3f}", val=f"{book.validation.accuracy(row):.1%}")
    book.finish()


def _answer(learn, combined: Combined, precise, maps: bool | str, x: Tensor, teacher_output, labels, **of_batch):
    """The loss on these views and its terms, of the parameters as they are now."""
    with precise:
        output = learn(x, maps=maps)
    return combined(output, teacher_output, labels, images=x, **of_batch)


class _Book:
    """What a training writes as it goes: ``add`` after every update, ``close`` at a segment's end, ``finish`` after the last.

    Files are written by a thread of their own while training goes on: every segment and its curves, and a checkpoint with
    the first and the last of them and whenever ``SECONDS`` or ``UNSAVED`` segments have passed since the last.
    """

    def __init__(
        self, student, heard, split, combined: Combined, settings, checkpoint: Checkpoint, arithmetic, writer, data
    ):
        self.student, self.split, self.settings, self.checkpoint = student, split, settings, checkpoint
        self.device, self.writer = next(student.parameters()).device, writer
        self.autocast = autocast(self.device, arithmetic["validation"])
        with self.autocast:
            self.validation = SourceValidation(split, heard.validation(), combined)
        self.measured = checkpoint.measured()
        self.recorder, self.rows = checkpoint.restore(
            settings.storage, recurrences(settings), ramps=settings.ramps, every=every(settings)
        )
        self.started = self.rows[-1]["step"] if self.rows else 0
        self.saved, self.unsaved = -math.inf, 0
        self.shares = Shares(settings, data, self.validation) if isinstance(settings.sampling, Mapping) else None
        if self.shares:
            with self.autocast:
                self.shares.begin(self.rows, self.validation, student)
        self._open()

    def _open(self) -> None:
        self.totals, self.clock = {}, time.perf_counter()

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """One more step: its losses, and the iterate where there is one, see ``Recorder``."""
        self.recorder.add()
        for name, value in losses.items():
            self.totals[name] = self.totals.get(name, 0) + value

    def close(self, step: int, learning_rate: float) -> dict:
        """Measure the segment that ends here, and begin to store it; its row of curves.csv. Raises ``Diverged``."""
        student, recorder, settings = self.student, self.recorder, self.settings
        row = {"step": step, "iterates": recorder.count}
        row |= {name: float(total) / recorder.count for name, total in self.totals.items()}
        if (
            not math.isfinite(row["train_loss"])
            or not torch.stack([p.isfinite().all() for p in student.parameters()]).all()
        ):
            raise Diverged(_diverged(row, settings, self.checkpoint.folder))
        for name, before in (choose_mixture(student, self.split.val.values()) or {}).items():
            recorder.revise(name, before)
        with self.autocast:
            row |= self.validation(student)
        if self.shares:
            row |= self.shares.close(row, step - recorder.count)
        row |= self.checkpoint.learned.columns() if self.checkpoint.learned else {}
        row |= {"learning_rate": learning_rate, "seconds": time.perf_counter() - self.clock}
        self.rows.append(row)
        self.writer.wait()  # at most one segment is in memory beside the open one
        closed = recorder.close(step)
        state = self.checkpoint.take(closed.end, recorder.running) if self._due(step) else None
        self.writer.start(self._write, closed, [*self.rows], state, landing(self.device))
        self._open()
        return row

    def _due(self, step: int) -> bool:
        """Whether a checkpoint is to be written with this segment."""
        self.unsaved += 1
        now = time.perf_counter()
        if now - self.saved < SECONDS and self.unsaved < UNSAVED and step < self.settings.steps:
            return False
        self.saved, self.unsaved = now, 0
        return True

    def _write(self, closed: Closed, rows: list[dict], state: dict | None, landed: Callable[[], None]) -> None:
        """Store a segment, merge what is too many, and make safe what there is until now; in the writer's thread."""
        landed()
        segments, settings = self.recorder.segments, self.settings
        segments.append(*closed)
        if len(segments) > settings.most_stored:
            segments.shrink(settings.most_stored, edges_to_keep(self._curves(rows), settings))
        self.checkpoint.save(rows, segments, state)

    def finish(self) -> None:
        """Keep the moving averages that were declared, with the coefficients that they stand for."""
        self.writer.wait()
        curves, declared = self._curves(self.rows), self.settings.declare
        kept = [strategies.get(s["name"])(curves, **named(s)) for s in declared if s["name"] in RECURRENCES]
        if kept:
            RunningAverages(self.checkpoint.folder / "running").write(zip(kept, self.recorder.running))

    def _curves(self, rows: list[dict]) -> Curves:
        return curves_from(pd.DataFrame(rows), self.split.sources)


def _diverged(row: dict, settings: Settings, folder: Path) -> str:
    first, finite = row["step"] - row["iterates"] + 1, math.isfinite(row["train_loss"])
    what = "A parameter became no number" if finite else f"The training loss became {row['train_loss']}"
    return (
        f"{what} between steps {first} and {row['step']} of {settings.steps}. "
        f"Lower learning_rate (now {settings.learning_rate:g}); what was recorded until then is in {folder}."
    )


def size_of_recording(model: nn.Module, settings: Settings) -> dict[str, float]:
    """``{"segments", "stored", "disk", "memory", "teacher"}``: how many of them, and at most how many bytes, from the settings
    alone, but for edges where validation makes a declared strategy keep more; the last are those of the cache in which what a
    teacher gives is kept."""
    segments, running = len(segment_ends(settings)), len(recurrences(settings))
    stored = min(segments, settings.most_stored)
    if segments > stored:  # then declared strategies keep edges, and the newest keep theirs
        kept = edges_to_keep(curves_alike(settings, teacher=True), settings)
        stored = min(segments, max(stored, len(kept)))
    kept = {"segments": segments, "stored": stored, "teacher": most_bytes(settings, model.classes)}
    return kept | estimate_bytes(
        model, stored, settings.storage, running, merged=segments > stored, ramps=settings.ramps
    )


@contextlib.contextmanager
def _lent(teacher: nn.Module | None, device: torch.device) -> Iterator[None]:
    """The teacher on the device and in eval mode; afterwards it is where and what it was."""
    if teacher is None:
        yield
        return
    home = next((parameter.device for parameter in teacher.parameters()), device)
    with in_eval(teacher):
        teacher.to(device, memory_format=torch.channels_last)
        try:
            yield
        finally:
            teacher.to(home)


def teacher_module(
    teacher, split: Split, settings: Settings, student, combined: Combined, device: torch.device
) -> nn.Module | None:
    if teacher is None:
        return None
    if isinstance(teacher, Mapping):
        given = {"split": split, "settings": settings, "student": student, "combined": combined, "device": device}
        each = functools.partial(teacher_module, **given)
        return several(teacher, each, student, split, combined, settings)
    if isinstance(teacher, (str, os.PathLike)):
        teacher = load_run(teacher)
    if isinstance(teacher, Run):
        own = split if same_split(teacher.settings["split"], split.recipe) else None
        teacher = deployed(teacher, own, settings, device)
    if not isinstance(teacher, nn.Module):
        raise TypeError(
            f"teacher is a Run, a run's folder, a module or several of them in a dictionary; got {teacher!r}."
        )
    return as_tap(teacher)


def folder_of(save_to: str | os.PathLike) -> Path:
    """The folder of a run that is to be recorded; raises ``ValueError`` for a name that only an unfinished one has."""
    folder = path_of(save_to)
    if folder.name.endswith(".recording"):
        raise ValueError(
            f"{folder} is what a recording is called until it is complete; save_to is {str(folder.with_suffix(''))!r}."
        )
    return folder


def _default_folder(student: nn.Module, split: Split, seed: int) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path("runs") / f"{now}-{student.spec['name']}-{split.target or 'all'}-s{seed}"
    names = (
        folder.with_name(folder.name + more) for more in itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    )
    for name in names:
        if not name.exists():
            with contextlib.suppress(FileExistsError):  # of another process that began in this second
                recording_folder(name).mkdir(parents=True)
                return name


def finished_at(folder: Path, settings: dict, split: Split, student: nn.Module, resume: bool) -> Run | None:
    """The finished run at this place, if resuming is asked for and it is the same training."""
    settle(folder)
    if not (folder / "settings.json").is_file():
        return None
    if not resume:
        raise FileExistsError(
            f"{folder} already holds a run; load_run({str(folder)!r}) reads it, resume=True accepts it, "
            "another save_to keeps both."
        )
    recorded = load_run(folder, split=split).settings
    stored = {name: recorded[name] for name in AS_STORED if name in recorded}
    refuse_other_settings(folder, recorded, {**settings, **stored})
    run = load_run(folder, split=split, template=student)
    run.segments.check()
    return run

"""The one training loop. It records a trajectory and knows nothing of averaging strategies beyond what to keep exact."""

from __future__ import annotations

import datetime
import inspect
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from .averaging import Recurrence, ema, ema_recurrence, settings_of, strategies
from .batches import SourceBatches, seed_step
from .domains import Split
from .evaluation import SourceValidation
from .files import Stopped
from .mixture import choose_mixture
from .models import BATCHNORM_POLICIES, as_tap, training_mode
from .objectives import Combined, combine
from .preparing import prepare, source_features
from .recording import (
    STORAGE,
    Checkpoint,
    RunningAverages,
    estimate_bytes,
    fingerprint,
    recording,
    refuse_other_settings,
)
from .registry import did_you_mean
from .run import FORMAT, Run, curves_from, load_run
from .views import augment, views_from

EVALUATIONS = {"score", "loss_and_gradient", "held_out_loss"}
OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
SCHEDULES = ("constant", "cosine")
SAMPLING = ("pooled", "balanced", "classes")
PRECISIONS = ("float32", "bfloat16")


class Diverged(Stopped):
    """The training loss stopped being a number; everything recorded before stays where it is."""


def train(
    student: nn.Module,
    split: Split,
    *,
    objectives: str | dict | Sequence[str | dict] = ({"name": "ce"},),
    teacher: Run | str | os.PathLike | nn.Module | None = None,
    steps: int = 2000,
    segment_length: int = 50,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    optimiser: str = "adam",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    warmup: int = 0,
    sampling: str = "pooled",
    views: str | dict | None = None,
    batchnorm: str = "recalibrate",
    batchnorm_batches: int = 10,
    precision: str = "float32",
    declare: Sequence[str | dict] = ("wakd", "swad"),
    edges: Sequence[int] = (),
    most_stored: int = 64,
    storage: str = "float32",
    seed: int = 0,
    device: str | None = None,
    save_to: str | os.PathLike | None = None,
    resume: bool = False,
    sink: Callable[[Mapping[str, float]], None] | None = None,
    progress: bool = True,
) -> Run:
    """Train a student on the source domains of a split, recording its trajectory; returns the finished ``Run``.

    objectives      a list of {"name", "weight", settings}; there is no hidden cross-entropy
    teacher         a Run or its folder (what it deployed, else its last iterate) or a module; always in eval mode and fed
                    the student's views, normalised its own way
    steps           optimiser steps, counted from 1; a segment ends every ``segment_length`` of them, at every step in
                    ``edges``, where a declared strategy begins, and at the last step
    learning_rate   constant by default, as in the WAKD paper (arXiv 2309.11446, section 4): averaging needs iterates that
                    keep moving. ``schedule="cosine"`` decays it to zero.
    warmup          steps over which the learning rate first rises to its value, in a line; transformers need some
    sampling        "pooled": examples of all source domains shuffled together (WAKD); "balanced": as many of each domain
                    in every batch (DomainBed); "classes": 16 images of a class over all domains, as many classes as
                    fit (XDED)
    views           augmentation, a preset's name or a dictionary of ``Views`` fields; default the benchmark's own
    batchnorm       "frozen" (eval during training, for pretrained students), or what happens to running statistics when
                    iterates are averaged: "recalibrate" on ``batchnorm_batches`` source batches, "average", "last"
    declare         strategies that must stay exact: their windows when stored segments are merged (``most_stored``), and
                    an ema iterate by iterate, at one more parameter vector in memory each
    storage         "float32" or "float16_difference" (half the disk)
    save_to         the run's folder, default runs/<date>-<model>-<target>-s<seed>; it is called *.recording until complete
    resume          continue a killed run from its last segment, bit for bit on the CPU; a finished run is just loaded
    sink            called with each row of curves.csv once it is recorded, such as those of ``loggers``

    At every segment's end the current iterate is evaluated on source validation: cross-entropy and accuracy per domain,
    and, with a teacher, the distillation loss (T^2 KL at the temperature of the kd objective, else the paper's 5).
    Raises before the first batch, in one sentence, for anything that cannot work; ``Diverged`` when the loss is no number.
    """
    combined = combine(objectives)
    views = views_from(views or split.domains.views)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    teacher = _teacher_module(teacher, split)
    student = combined.extended(as_tap(student), teacher, seed=seed)
    settings = {
        "objectives": combined.specs,
        "steps": steps,
        "segment_length": segment_length,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "optimiser": optimiser,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup": warmup,
        "sampling": sampling,
        "views": views.settings(),
        "batchnorm": batchnorm,
        "batchnorm_batches": batchnorm_batches,
        "precision": precision,
        "declare": [{"name": d} if isinstance(d, str) else dict(d) for d in declare],
        "edges": sorted(int(e) for e in edges),
        "most_stored": most_stored,
        "storage": storage,
        "seed": seed,
    }
    _check(settings, student, teacher, split, combined)
    settings |= {
        "format": FORMAT,
        "student": student.spec,
        "teacher": None if teacher is None else _identity(teacher),
        "split": {**split.recipe, "sources": list(split.sources)},
    }
    folder = Path(save_to) if save_to else _default_folder(student, split, seed)
    finished = _finished(folder, settings, split, student, resume)
    if finished is not None:
        return finished
    with (
        recording(folder, settings, resume=resume) as partial,
        torch.random.fork_rng(),
        tqdm(total=steps * batch_size, unit="img", unit_scale=True, disable=not progress) as bar,
    ):
        student.to(device, memory_format=torch.channels_last)
        if teacher is not None:
            teacher.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        _loop(student, teacher, split, combined, settings, views, device, partial, bar, sink)
    return load_run(folder, split=split, template=student)


def _loop(student, teacher, split, combined: Combined, settings, views, device, folder: Path, bar: tqdm, sink) -> None:
    """Every step: one batch of views, one forward each, one update, one iterate added to the open segment."""
    steps, size, seed = settings["steps"], settings["batch_size"], settings["seed"]
    data = SourceBatches(split, size, settings["sampling"], seed, device)
    combined.to(device).learn_examples(data.labels)
    optimiser = _optimiser(student, combined, settings)
    validation = SourceValidation(split, teacher, combined)
    checkpoint = Checkpoint(folder, student, optimiser, combined)
    recorder, rows = checkpoint.restore(settings["storage"], recurrences(settings))
    segments = recorder.segments
    started, ends = (rows[-1]["step"] if rows else 0), segment_ends(settings)
    generator = torch.Generator(device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings["precision"] == "bfloat16")
    maps = {who: combined.reads("maps", who) for who in ("student", "teacher")}
    if combined.needs("centres") and not rows:
        combined.learn_centres(*source_features(teacher, split))
    totals, clock = {}, time.perf_counter()

    bar.initial = bar.n = started * size
    for step in range(started + 1, steps + 1):
        seed_step(generator, seed, step)
        index = data.index(step)
        images, labels = data.images[index], data.labels[index]
        x = augment(images, views, generator)
        training_mode(student, settings["batchnorm"])
        with autocast:
            student_output = student(x, maps=maps["student"])
            with torch.no_grad():
                teacher_output = None if teacher is None else teacher(x, maps=maps["teacher"])
        loss, terms = combined(student_output, teacher_output, labels, step=step, index=index)
        set_learning_rate(optimiser, settings, step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        recorder.add()
        for name, value in {"train_loss": loss.detach(), **{f"train/{n}": v for n, v in terms.items()}}.items():
            totals[name] = totals.get(name, 0) + value
        bar.update(size)
        if step not in ends:
            continue

        row = {"step": step, "iterates": recorder.count}
        row |= {name: float(total) / recorder.count for name, total in totals.items()}
        if not math.isfinite(row["train_loss"]):
            raise Diverged(_diverged(row, settings, folder))
        choose_mixture(student, split.val.values())
        row |= validation(student)
        row |= {"learning_rate": optimiser.param_groups[0]["lr"], "seconds": time.perf_counter() - clock}
        rows.append(row)
        recorder.close(step)
        if len(segments) > settings["most_stored"]:
            segments.shrink(settings["most_stored"], edges_to_keep(pd.DataFrame(rows), settings))
        checkpoint.save(rows, recorder.running)
        if sink is not None:
            sink(row)
        bar.set_postfix(loss=f"{row['train_loss']:.3f}", val=f"{validation.accuracy(row):.1%}")
        totals, clock = {}, time.perf_counter()
    curves = curves_from(pd.DataFrame(rows), split.sources)
    kept = [ema(curves, **named(spec)) for spec in settings["declare"] if spec["name"] == "ema"]
    if kept:
        RunningAverages(folder / "running").write(zip(kept, recorder.running))


def _diverged(row: dict, settings: dict, folder: Path) -> str:
    first = row["step"] - row["iterates"] + 1
    return (
        f"The training loss became {row['train_loss']} between steps {first} and {row['step']} of {settings['steps']}. "
        f"Lower learning_rate (now {settings['learning_rate']:g}); what was recorded until then is in {folder}."
    )


def segment_ends(settings: dict) -> frozenset[int]:
    """The steps at which a segment ends: see ``train``."""
    steps, length = settings["steps"], settings["segment_length"]
    begins = [b for b in (_begin_step(spec, steps) for spec in settings["declare"]) if b]
    return frozenset([*range(length, steps, length), *settings["edges"], *begins, steps])


def recurrences(settings: dict) -> list[Recurrence]:
    """The moving averages that are declared: all that edges cannot keep exact."""
    steps, specs = settings["steps"], [spec for spec in settings["declare"] if spec["name"] == "ema"]
    return [ema_recurrence(steps, **{**named(spec), "begin": _begin_step(spec, steps)}) for spec in specs]


def size_of_recording(model: nn.Module, settings: dict) -> dict[str, float]:
    """``{"segments", "stored", "disk", "memory"}``: how many of them, and at most how many bytes, from the settings alone."""
    segments = len(segment_ends(settings))
    stored, running = min(segments, settings["most_stored"]), len(recurrences(settings))
    return {"segments": segments, "stored": stored} | estimate_bytes(model, stored, settings["storage"], running)


def named(spec: dict) -> dict:
    """The settings of a declared strategy."""
    return {key: value for key, value in spec.items() if key not in ("name", "label")}


def edges_to_keep(table: pd.DataFrame, settings: dict) -> set[int]:
    """Steps at which stored segments must keep an edge so that declared strategies stay exact.

    A strategy that reads curves may still move its window back over recent segments, so those all keep their edges;
    further back, an edge is kept where the coefficient per iterate changes, or where an end iterate is used.
    """
    curves, steps = curves_from(table, settings["split"]["sources"]), table["step"].to_numpy()
    keep, recent = {*settings["edges"]}, 16
    for spec in settings["declare"]:
        begin = _begin_step(spec, settings["steps"])
        keep.add(begin)
        strategy = strategies.get(spec["name"])
        known = inspect.signature(strategy).parameters
        recent = max(recent, sum(2 * spec.get(n, 0) for n in ("n_converge", "n_tolerance")))
        # a search is not settled by curves, and a moving average is kept itself: only their begin needs an edge
        if EVALUATIONS & known.keys() or spec["name"] == "ema":
            continue
        begins = {name: begin for name in _BEGINS if name in known}
        try:
            coefficients = strategy(curves, **{**named(spec), **begins})
        except ValueError:  # no window yet, or its begin is still to come
            continue
        density = np.asarray(coefficients) / curves.iterates
        changes = density != 0 if coefficients.of == "end" else np.diff(density, append=density[-1]) != 0
        keep.update(int(step) for step in steps[changes])
    return keep | {int(step) for step in steps[-recent:]}


_BEGINS = ("begin", "start")


def _begin_step(spec: dict, steps: int) -> int:
    """The step after which a declared strategy begins, 0 when it has no such setting; fractions are of the whole run."""
    settings = {**settings_of(spec["name"]), **spec}
    value = next((settings[name] for name in _BEGINS if name in settings), 0)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{spec['name']} begins at a step (int) or a fraction of the run (float); got {value!r}.")
    return math.floor(value * steps + 1e-9) if isinstance(value, float) else int(value)


def set_learning_rate(optimiser: torch.optim.Optimizer, settings: dict, step: int) -> None:
    """Constant, or half a cosine from the learning rate to zero over the run; times a rising line during warm-up."""
    rate, warmup = settings["learning_rate"], settings["warmup"]
    if settings["schedule"] == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * (step - 1) / settings["steps"]))
    if step <= warmup:
        rate *= step / warmup
    for group in optimiser.param_groups:
        group["lr"] = rate


def _optimiser(student: nn.Module, combined: Combined, settings: dict) -> torch.optim.Optimizer:
    # the student's come first, so a checkpoint of objectives without parameters stays what it was
    trained = [p for p in (*student.parameters(), *combined.parameters()) if p.requires_grad]
    extra = {"momentum": settings["momentum"]} if settings["optimiser"] == "sgd" else {}
    kind = OPTIMISERS[settings["optimiser"]]
    return kind(trained, lr=settings["learning_rate"], weight_decay=settings["weight_decay"], foreach=True, **extra)


def _teacher_module(teacher, split: Split) -> nn.Module | None:
    if teacher is None:
        return None
    if isinstance(teacher, (str, os.PathLike)):
        teacher = load_run(teacher)
    if isinstance(teacher, Run):
        same = all(teacher.settings["split"][key] == value for key, value in split.recipe.items())
        teacher = teacher.model(split=split if same else None)
    if not isinstance(teacher, nn.Module):
        raise TypeError(f"teacher is a Run, a run's folder or a module; got {type(teacher).__name__}.")
    return as_tap(teacher)


def _identity(teacher: nn.Module) -> dict:
    """What a run keeps of its teacher: where it came from, and a fingerprint of its parameters."""
    origin = getattr(teacher, "provenance", None) or {"model": teacher.spec}
    # parameters only: recalibrated statistics may differ in the last bit with the number of threads
    return {**origin, "fingerprint": fingerprint(dict(teacher.named_parameters()))}


def _check(settings: dict, student: nn.Module, teacher: nn.Module | None, split: Split, combined: Combined) -> None:
    """Everything that can be known to fail is said here, before the first batch."""
    s = settings
    for name, known in (
        ("optimiser", OPTIMISERS),
        ("schedule", SCHEDULES),
        ("sampling", SAMPLING),
        ("batchnorm", BATCHNORM_POLICIES),
        ("precision", PRECISIONS),
        ("storage", STORAGE),
    ):
        if s[name] not in known:
            raise ValueError(did_you_mean(name, s[name], known))
    least_of = {"steps": 1, "segment_length": 1, "batch_size": 1, "batchnorm_batches": 1, "warmup": 0, "seed": 0}
    for name, least in least_of.items():
        if isinstance(s[name], bool) or not isinstance(s[name], int) or s[name] < least:
            raise ValueError(f"{name} is a whole number >= {least}; got {s[name]!r}.")
    if s["warmup"] >= s["steps"]:
        raise ValueError(f"warmup is less than the {s['steps']} steps of the run; got {s['warmup']}.")
    if s["most_stored"] < 2:
        raise ValueError(f"most_stored is at least 2 segments; got {s['most_stored']}.")
    for name in ("learning_rate", "weight_decay"):
        if not (isinstance(s[name], (int, float)) and 0 <= s[name] < math.inf) or s["learning_rate"] == 0:
            raise ValueError(f"{name} is a positive number; got {s[name]!r}.")
    available = sum(len(e) for e in split.train.values())
    if s["batch_size"] > available:
        raise ValueError(f"batch_size {s['batch_size']} is more than the {available} source training images.")
    for spec in s["declare"]:
        strategies.get(spec["name"])
        begin = _begin_step(spec, s["steps"])
        if not 0 <= begin < s["steps"]:
            raise ValueError(f"Declared strategy {spec} begins at step {begin}, but the run has {s['steps']} steps.")
    if any(not 0 < e < s["steps"] for e in s["edges"]):
        raise ValueError(f"edges are steps between 1 and {s['steps'] - 1}; got {s['edges']}.")
    if combined.needs("teacher") and teacher is None:
        raise ValueError(f"The objectives {combined.labels} learn from a teacher; pass teacher=.")
    prepare(combined, student, teacher, split, steps=s["steps"], seed=s["seed"])


def _default_folder(student: nn.Module, split: Split, seed: int) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{now}-{student.spec['name']}-{split.target or 'all'}-s{seed}"


def _finished(folder: Path, settings: dict, split: Split, student: nn.Module, resume: bool) -> Run | None:
    """The finished run at this place, if resuming is asked for and it is the same training."""
    if not folder.exists():
        return None
    if not resume:
        raise FileExistsError(
            f"{folder} already holds a run; load_run({str(folder)!r}) reads it, resume=True accepts it, "
            "another save_to keeps both."
        )
    run = load_run(folder, split=split, template=student)
    # these only decide how a run is stored, not its trajectory; averages that do not fit its storage say so themselves
    stored = {name: run.settings[name] for name in ("declare", "edges", "most_stored", "storage")}
    # settings that objectives have gained since then had their defaults
    recorded = {**run.settings, "objectives": combine(run.settings["objectives"]).specs}
    refuse_other_settings(folder, json.loads(json.dumps(recorded)), {**settings, **stored})
    return run

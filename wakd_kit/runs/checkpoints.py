"""Checkpoints of other code as a run: averaged, searched, explored, drawn as a landscape and exported like a recording."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..checks import explained, make
from ..data.augment import views_from
from ..data.domains import Split
from ..files import path_of
from ..models.arithmetic import own_draws
from ..models.build import as_tap, in_eval, read_weights
from ..models.device import device as device_of
from ..models.tap import fingerprint, mark
from ..models.weights import provenance_of_file
from ..names import is_whole
from ..objectives import combine
from .identity import check_unseen, of_student, of_teacher, seen_in_training
from .network import predict
from .prepare import prepare
from .record import Recorder, recording, write_curves
from .run import FORMAT, Run, load_run
from .settings import NOT_RECORDED, Settings
from .store import Segments, State
from .train import finished_at, folder_of, teacher_module
from .validate import SourceValidation


@explained
def record_checkpoints(
    student: nn.Module,
    split: Split,
    checkpoints: Iterable[str | os.PathLike | Mapping[str, Tensor]],
    *,
    save_to: str | os.PathLike,
    steps: Sequence[int] | None = None,
    teacher: object = None,
    batchnorm: str = "recalibrate",
    batch_size: int = 64,
    device: str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Record checkpoints of a training outside the kit; returns the finished ``Run``, whose iterates they are, in this order.

    student      the network with the parameters that training began with: of ``build_model``, of timm, or any module that returns
                 logits of images in [0, 1]
    split        sources that it was trained on and the domain that it has not seen, as only you know. Averages are chosen on
                 ``split.val``: without a choice among images that were trained on only if those were held out there, too
    checkpoints  files (.pt, .pth, .bin, .safetensors) or state dicts of that network; a file may hold one as ``state_dict`` or
                 ``model``, and names may begin with what data parallelism or compilation puts before them
    steps        of that training after which each was saved, ascending from 1: it then stands for all since the one before, and
                 ``begin``, windows and decays count steps; by default the k-th is step k
    teacher      who taught there, as ``train`` takes it: the distillation loss on source validation (T = 5) is recorded as well
    batchnorm    as of ``train``: "recalibrate" on source batches of ``batch_size`` images, "average", "last", or "frozen" where
                 the statistics did not move
    resume       what is there already is loaded, if it holds the same checkpoints; what was not finished begins anew, with or without

    Without ``steps`` the k-th checkpoint is step k: ``begin=0.5`` leaves out the first half of them, ``ema(decay=0.9)`` decays from one
    to the next. Each is evaluated on source validation; there is no training loss (NaN). Raises ``ValueError`` in one sentence, before
    anything is recorded, for a checkpoint that is not of this network or holds what is no number.

    >>> states = [run.segments.read(k, "end") for k in range(len(run.segments))]  # as other code might have saved them
    >>> theirs = wk.record_checkpoints(student, split, states, save_to="runs/theirs")
    >>> theirs.complete
    True
    """
    several = isinstance(checkpoints, Iterable) and not isinstance(checkpoints, str | os.PathLike | Mapping | nn.Module)
    checkpoints = [*checkpoints] if several else [checkpoints]
    odd = [one for one in checkpoints if not isinstance(one, str | os.PathLike | Mapping)]
    if len(checkpoints) < 2 or odd:
        got = ", ".join(dict.fromkeys(type(one).__name__ for one in odd or checkpoints)) or "none"
        raise ValueError(
            f"checkpoints is a list of at least two files or state dicts, in order; got {len(checkpoints)}, of {got}."
        )
    if steps is None:
        _refuse_order_of_text(checkpoints)
    device, student, count = device_of(device), as_tap(student), len(checkpoints)
    at, combined = _at(steps, count), combine("ce" if teacher is None else "kd")
    given = {"batchnorm": batchnorm, "batch_size": batch_size, "steps": at[-1], "segment_length": 1}
    given |= {"segment_length": at[-1], "edges": at[:-1]} if steps is not None else {}
    settings = make(
        Settings, given | {"declare": (), "most_stored": count, "views": views_from(split.domains.views).settings()}
    )
    teacher = teacher_module(teacher, split, settings, student, combined, device)
    prepare(settings, student, teacher, split, combined)
    digests = [fingerprint(_state(student, checkpoint, k)) for k, checkpoint in enumerate(checkpoints, 1)]
    origins = [*_origins(checkpoints, split)]
    recorded = {n: v for n, v in dataclasses.asdict(settings).items() if n not in NOT_RECORDED} | {
        "format": FORMAT,
        "objectives": [],
        "checkpoints": {"count": count, "content": " ".join(digests), **({} if steps is None else {"at": at})},
        "student": student.spec,
        "identity": of_student(student),
        "teacher": None if teacher is None else of_teacher(teacher),
        "code": {},
        "split": split.recipe,
        "seen": seen_in_training(split, teacher, student, *origins),
        "arithmetic": {"validation": settings.precision, "defaults": "by length"},
    }
    folder, rows = folder_of(save_to), []
    finished = finished_at(folder, recorded, split, student, resume)
    if finished is not None:
        return finished
    with recording(folder, recorded, resume=resume, device=device) as partial, own_draws(device), in_eval(student):
        student.to(device)
        segments = Segments.create(partial / "segments", student.state_dict(), settings.storage)
        taught = None if teacher is None else torch.cat([predict(teacher, e.images) for e in split.val.values()])
        validation = SourceValidation(split, taught, combined)
        for number, checkpoint in enumerate(tqdm(checkpoints, disable=not progress), 1):
            clock, step = time.perf_counter(), at[number - 1]
            student.load_state_dict(_state(student, checkpoint, number))
            recorder = Recorder(student, segments, every=step - (0 if number == 1 else at[number - 2]))
            for _ in range(recorder.every):
                recorder.add()
            row = {"step": step, "iterates": recorder.count, "train_loss": float("nan"), **validation(student)}
            rows.append(row | {"learning_rate": float("nan"), "seconds": time.perf_counter() - clock})
            segments.append(*recorder.close(step))
        write_curves(partial, rows)
        mark(student, {"run": folder.name, "split": split.recipe, "seen": recorded["seen"]})
    return load_run(folder, split=split, template=student)


def _at(steps: Sequence[int] | None, count: int) -> list[int]:
    """The steps that the checkpoints are of. Raises ``ValueError`` where they are none."""
    if steps is None:
        return [*range(1, count + 1)]
    at = [*steps] if isinstance(steps, Iterable) and not isinstance(steps, str) else [steps]
    fits = all(map(is_whole, at)) and all(0 < one < other for one, other in itertools.pairwise(at)) and len(at) == count
    if not fits:
        raise ValueError(
            f"steps are whole numbers from 1 on, ascending, one for each of the {count} checkpoints (where training began, at 0, is the "
            f"network itself); got {steps!r:.200}."
        )
    return list(map(int, at))


def _refuse_order_of_text(checkpoints: Sequence[str | os.PathLike | Mapping]) -> None:
    """Raises ``ValueError`` for files in the order of their names as text where numbers in them have another: 1, 10, 2."""
    names = [Path(one).name for one in checkpoints if not isinstance(one, Mapping)]
    numbered = sorted(
        names,
        key=lambda name: [(part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", name)],
    )
    if names == sorted(names) != numbered:
        turn = next(i for i, (one, other) in enumerate(zip(names, numbered)) if one != other)
        raise ValueError(
            f"Iterates are in the order of the list, and {names[turn]} comes before {numbered[turn]} there, as names sort: list files as their "
            "numbers do, or say steps=, one for each."
        )


def _origins(checkpoints: Iterable[str | os.PathLike | Mapping], split: Split) -> Iterator[nn.Module]:
    """What remembers as a network does where each file came from of which a card beside it tells. Raises ``ValueError`` for one that was
    trained on what is to be unseen."""
    for file in (path_of(one) for one in checkpoints if not isinstance(one, Mapping)):
        if found := provenance_of_file(file):
            check_unseen(one := mark(nn.Identity(), found), split, who=f"network of {file}")
            yield one


def _state(student: nn.Module, checkpoint: str | os.PathLike | Mapping[str, Tensor], number: int) -> State:
    """What a checkpoint holds, by the names of the tapped student; raises ``ValueError`` where that is another network's."""
    named = str(checkpoint) if isinstance(checkpoint, str | os.PathLike) else f"state dict {number}"
    found = checkpoint if isinstance(checkpoint, Mapping) else read_weights(path_of(checkpoint), use_ema=False)
    found = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): tensor for name, tensor in found.items()}
    own = student.state_dict()
    # the network's own names, the tap's, or those of a network within a "model" of its own
    within = next(
        (at for at in ("", "model.", "model.model.") if {at + name for name in found} == own.keys()), "model."
    )
    state = {within + name: tensor for name, tensor in found.items()}
    for name in sorted(own.keys() | state.keys()):
        has, wants = (tuple(of[name].shape) if name in of else "none" for of in (state, own))
        if has != wants:
            raise ValueError(
                f"{named} is no checkpoint of {student.spec['name']}: of {name.removeprefix('model.')!r} its shape is {has}, the network's "
                f"{wants}. Give the network that it was taken of, as it was built there."
            )
    odd = next((n for n, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()), None)
    if odd is not None:
        raise ValueError(
            f"{named} holds what is no number in {odd.removeprefix('model.')!r}: leave it out; averages with it are none."
        )
    return state

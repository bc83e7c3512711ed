"""A run: one recorded training, as a folder. Load it, read its source curves, average its trajectory any way you like.

    runs/demo/
      settings.json     everything train() was asked for, the split, the teacher, what is declared
      curves.csv        one row per segment: losses and source-validation curves
      segments/         initial parameters; per stored segment the mean of its iterates and its last iterate
      running/          moving averages that were declared, iterate by iterate
      environment.json  versions, commit, device, seconds
      deployed.json     the coefficients this run stands for when it serves as a teacher
      scores.csv        what evaluate() measured, target included; choices.json: of which coefficients;
                        predictions.npz: class and confidence of every image
      window_map.csv    the last window map; its target column is called an oracle

While it is being recorded the folder is called ``demo.recording`` and holds a checkpoint and a lock as well.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..averaging import Coefficients, Curves, NoWindow, last
from ..averaging.profiles import leaning
from ..checks import explained
from ..data.augment import calibration_views, views_from
from ..data.domains import Split, other_split, split_of
from ..files import UNREADABLE, path_of, read_json, read_table, recording_folder, stamp, write_text
from ..models.build import as_tap, batchnorms, build_model
from ..models.tap import mark
from .identity import of_recording, seen_according_to
from .network import Network, policy_of
from .record import measuring
from .store import STATISTICS, RunningAverages, RunProblem, Segments, State

FORMAT = 1


# coefficients of this absolute sum multiply the rounding of half-precision storage, 2^-11, to 1 %
MOST_ROUNDED = 20


class Run:
    """One recorded training. Made by ``train`` or ``load_run``; reading it never changes it."""

    def __init__(self, folder: Path, *, split: Split | None = None, template: nn.Module | None = None):
        self.folder = folder
        self.settings = read_json(folder / "settings.json")
        # in this order: a recording that goes on stores a segment first, and then its row
        # numbers as earlier versions read them, whose digests of recordings are of these
        self.table = read_table(folder / "curves.csv", float_precision=None)
        self.segments = Segments(folder / "segments", self.settings["storage"])
        self._template = None if template is None else structure_of(as_tap(template))
        if split is not None:
            self.check_split(split)
        self._split = split
        self._choices = (None, {})

    def __repr__(self) -> str:
        s = self.settings
        return (
            f"Run({self.folder.name!r}: {s['student']['name']}, target {s['split']['target'] or 'none'}, seed {s['seed']}, "
            f"{self.steps} steps, {len(self.table)} segments)"
        )

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.folder.name

    @property
    def steps(self) -> int:
        """Optimiser steps recorded."""
        return int(self.table["step"].iloc[-1])

    def summary(self) -> str:
        """One sentence: what was trained, how long and how fast (validation included), and what was recorded of it."""
        s, seconds = self.settings, float(self.table["seconds"].sum())
        parameters = sum(p.numel() for p in self.blank_model().parameters())
        recorded, stored = len(self.table), len(self.segments)
        kept = "all stored" if stored == recorded else f"stored as {stored}"
        size = sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file())
        start = s["student"].get("started_from") or s["student"].get("weights")
        started = f", started from {start}" if start else ""
        trained = (
            f"{self.steps} steps of {s['batch_size']} images in {seconds:.0f} s, "
            f"{self.steps * s['batch_size'] / seconds:.0f} images per second with validation; {recorded} segments recorded, {kept}"
        )
        return (
            f"{s['student']['name']} ({parameters / 1e6:.2f} million parameters{started}): "
            f"{f'{recorded} checkpoints of other code' if 'checkpoints' in s else trained}, {size / 1e6:.1f} MB on disk."
        )

    @property
    def complete(self) -> bool:
        """Whether training reached its last step."""
        return self.steps >= self.settings["steps"]

    @property
    def split(self) -> Split:
        """The split it was trained on, loaded again if need be. Raises ``RunProblem`` when the data has changed."""
        if self._split is None:
            recipe = self.settings["split"]
            if recipe["benchmark"] is None:
                raise RunProblem(
                    f"{self.name} was trained on arrays in memory, which are gone with them: take it as "
                    f"load_run({str(self.folder)!r}, split=...) with the split it was trained on."
                )
            split = split_of(recipe)
            self.check_split(split)
            self._split = split
        return self._split

    def check_split(self, split: Split, *, others: Sequence[Run] = ()) -> None:
        """Raises ``RunProblem`` unless ``split`` is the one this run was trained on, wherever its images lie.

        others  runs that are merged with this one: the split is then of the sources of all of them
        """
        recorded, given = self.settings["split"], split.recipe
        key = other_split(recorded, given, aside=["sources"] if others else [])
        if key:
            wanted, what = (f"{key} {recipe.get(key)!r}" for recipe in (recorded, given))
            if key == "fingerprint":
                then, now = (recipe.get("options", {}).get("size") for recipe in (recorded, given))
                wanted, what = (
                    (f"images of {then} px", f"{now} px") if then and now and then != now else ("other images", "these")
                )
            raise RunProblem(f"{self.name} was trained with {wanted}, this split has {what}; use run.split.")
        if others:
            of = [run.settings["split"]["sources"] for run in (self, *others)]
            if {domain for sources in of for domain in sources} != set(split.sources):
                raise RunProblem(
                    f"The sources of this split are {', '.join(split.sources)}, and the runs that meet in it were trained on "
                    f"{'; '.join(', '.join(sources) for sources in of)}: give the split of all of these."
                )
            for run, sources in zip((self, *others), of):
                run.check_split(split.only(*sources))

    @property
    def source_curves(self) -> Curves:
        """What strategies read: one entry per segment, source domains only. See ``averaging.Curves``."""
        return curves_from(self.table, self.settings["split"]["sources"])

    @property
    def stored_in(self) -> np.ndarray:
        """The stored segment, from 0, that each recorded one is part of, (recorded,)."""
        return np.searchsorted(self.segments.edges, self.table["step"].to_numpy())

    def stored_coefficients(self, coefficients) -> tuple[np.ndarray, float]:
        """Coefficients over stored segments, and how much of them had to move to fit the stored grid.

        Stored segments may cover several recorded ones. Inside one, coefficients can only be spread over its iterates
        evenly (or sit on its last iterate); the second value is the part, 0 to 1, that this displaced.
        """
        stored, _, moved = self._stored(coefficients)
        return stored[getattr(coefficients, "of", "mean")], moved

    def _within(self, coefficients) -> np.ndarray:
        """What the ramps of stored segments count: how far a segment's weight lies behind its middle, (stored,)."""
        counts, ends = self.table["iterates"].to_numpy(), self.table["step"].to_numpy()
        block = self.stored_in
        middle = self.segments.edges - (self.segments.iterates - 1) / 2
        values, _, _ = _checked(coefficients)
        means = values if getattr(coefficients, "of", "mean") == "mean" else np.zeros(len(values))
        lean = leaning(self.source_curves, coefficients) if isinstance(coefficients, Coefficients) else 0.0
        behind = means * (ends - (counts - 1) / 2 + lean - middle[block]) / self.segments.iterates[block]
        found = np.bincount(block, weights=behind, minlength=len(self.segments))
        return np.where(np.abs(found) > 1e-12, found, 0.0)

    def displaced(self, coefficients) -> float:
        """The share, 0 to 1, of an average's coefficients that merged storage puts on the nearest of its segments; 0 where it has
        them all, and for a moving average that was declared and kept."""
        moved = self.stored_coefficients(coefficients)[1]
        kept = moved > 1e-9 and RunningAverages(self.folder / "running").find(coefficients) is not None
        return 0.0 if kept or moved <= 1e-9 else moved

    def _stored(self, coefficients) -> tuple[dict[str, np.ndarray], float, float]:
        """Coefficients over stored segments, ``{"mean", "end"}``, the initial parameters' own, and how much had to move."""
        values, initial, ends = _checked(coefficients)
        of, iterates = getattr(coefficients, "of", "mean"), self.table["iterates"].to_numpy()
        if values.shape != iterates.shape:
            raise ValueError(f"{values.size} coefficients for {len(iterates)} segments; a run needs one per segment.")
        block = self.stored_in
        within = {
            "mean": iterates / self.segments.iterates[block],
            "end": np.isin(self.table["step"], self.segments.edges),
        }
        parts = {"mean": np.zeros(len(values)), "end": np.zeros(len(values)) if ends is None else ends} | {of: values}
        stored = {of: np.bincount(block, weights=part, minlength=len(self.segments)) for of, part in parts.items()}
        moved = sum(np.abs(stored[of][block] * within[of] - part).sum() / 2 for of, part in parts.items())
        size = sum(np.abs(part).sum() for part in stored.values()) + abs(initial)
        if self.settings.get("storage") == "float16_difference" and size > MOST_ROUNDED:
            raise RunProblem(
                f"These coefficients are {size:.3g} in absolute sum, and {self.name} is stored in half precision: its rounding, 0.05 % "
                f"of a step from the start, would be multiplied beyond {MOST_ROUNDED}. Train with storage='float32', or extrapolate less."
            )
        return stored, initial, float(moved)

    def average(
        self,
        coefficients,
        *,
        split: Split | None = None,
        batchnorm: str | None = None,
        exact: bool = False,
        device: str | torch.device | None = None,
    ) -> State:
        """The averaged student as a ``state_dict``, float32 on the CPU; sums are taken in float64.

        The coefficients of an ema that was declared are answered with the moving average that training kept, exact
        iterate by iterate; any other ema takes each segment's iterates as their mean.

        coefficients  what a strategy returned, or any array with one per segment (then of segment means)
        batchnorm     policy for running statistics, default the run's own: ``average`` them like parameters, take
                      those of the ``last`` iterate used, ``recalibrate`` on source batches. Under ``recalibrate`` a
                      single raw iterate keeps the statistics it was trained with, unless the policy is given here.
        exact         raise instead of warn when merged storage cannot represent the coefficients exactly; one that has ``ramps`` is
                      close, within a few thousandths of the way from the average to the last iterate, and does not warn
        device        where statistics are recalibrated, default the GPU where there is one

        >>> state = run.average(wk.averaging.wakd(run.source_curves, begin=0.5))
        >>> student.load_state_dict(state)
        <All keys matched successfully>
        """
        policy = policy_of(self, batchnorm)
        if split is not None:
            self.check_split(split)
        stored, initial, moved = self._stored(coefficients)
        ramps = self._within(coefficients) if self.segments.ramps else None
        running = RunningAverages(self.folder / "running").find(coefficients)
        if moved > 1e-9 and running is None and (exact or ramps is None):
            message = (
                f"{self.name} stores {len(self.segments)} merged segments; {moved:.1%} of these coefficients moved to "
                "the nearest of them. Declare the strategy with these settings when training, store more segments, or record ramps, to "
                "have it exactly."
            )
            if exact:
                raise RunProblem(message)
            warnings.warn(message, stacklevel=2)
        state = self._weighted_sum(stored, initial, ramps) if running is None else self._counters() | running
        if policy == "last" and len(used := _used(stored)):
            state |= self._buffers(int(used[-1]))
        if policy == "recalibrate" and (batchnorm or not self.is_raw(coefficients)) and batchnorms(self.blank_model()):
            network = Network(self, split, roles=(), batchnorm=policy, device=device)
            state = {name: tensor.cpu() for name, tensor in network.load(state).state_dict().items()}
        return state

    def is_raw(self, coefficients) -> bool:
        """Whether coefficients stand for one iterate as it was trained, with BatchNorm statistics of its own."""
        if getattr(coefficients, "recalibrated", False):
            return False
        stored, initial, _ = self._stored(coefficients)
        means, ends = (np.flatnonzero(stored[of]) for of in ("mean", "end"))
        one = len(means) + len(ends) == 1 and not initial
        return bool(one and (len(ends) or self.segments.iterates[means[0]] == 1))

    def _counters(self) -> State:
        """Integer buffers such as num_batches_tracked, of the last iterate."""
        return {n: t for n, t in self.segments.read(-1, "end").items() if not t.is_floating_point()}

    def _weighted_sum(self, stored: Mapping[str, np.ndarray], initial: float, ramps: np.ndarray | None = None) -> State:
        total: dict[str, Tensor] = {}
        used = _used(stored)
        weighed = [
            (float(stored[of][k]), functools.partial(self.segments.read, int(k), of)) for of in stored for k in used
        ]
        weighed += [(float(initial), lambda: self.segments.initial)]
        inside = sum(max(weight, 0.0) for weight, _ in weighed)  # 1 where no coefficient is negative
        for weight, read in weighed:
            for name, tensor in read().items() if weight else ():
                if tensor.is_floating_point():
                    total.setdefault(name, torch.zeros(tensor.shape, dtype=torch.float64))
                    # an extrapolated variance could be negative: statistics stay among those of the iterates
                    statistic = inside > 1 + 1e-9 and name.endswith(STATISTICS)
                    total[name].add_(tensor, alpha=max(weight, 0.0) / inside if statistic else weight)
        for k in [] if ramps is None else np.flatnonzero(ramps):
            for name, tensor in self.segments.read(int(k), "ramp").items():
                if not name.endswith(STATISTICS):  # a variance stays among those of the iterates
                    total[name].add_(tensor, alpha=float(ramps[k]))
        # counters such as num_batches_tracked cannot be averaged: those of the last iterate used stand
        ends = self.segments.read(int(used[-1]), "end") if len(used) else self.segments.initial
        return {name: total[name].float() if name in total else tensor for name, tensor in ends.items()}

    def _buffers(self, position: int) -> State:
        buffers = {name for name, _ in self.blank_model().named_buffers()}
        return {n: t for n, t in self.segments.read(position, "end").items() if n in buffers}

    def calibration_batches(
        self, split: Split, device: torch.device | str = "cpu", *, others: Sequence[Run] = ()
    ) -> list[Tensor]:
        """The source training images that BatchNorm is recalibrated on: the same views at every call."""
        self.check_split(split, others=others)
        s = self.settings
        return calibration_views(
            split, views_from(s["views"]), s["batchnorm_batches"], s["batch_size"], seed=s["seed"], device=device
        )

    def blank_model(self) -> nn.Module:
        """The student's architecture on the CPU in eval mode, parameters to be loaded."""
        if self._template is None:
            spec = self.settings["student"]
            if "classes" not in spec:
                raise RunProblem(
                    f"{self.name} was trained on a model of your own ({spec['name']}): call load_run({str(self.folder)!r}, "
                    "template=model) with one built the same way. Its model(...).model is yours, averaged."
                )
            # a seed leaves the global random state alone
            self._template = structure_of(build_model(spec["name"], spec["classes"], seed=0, **spec["settings"]))
        blank = {id(p): _parameter(p, "cpu") for p in self._template.parameters()}
        return copy.deepcopy(self._template, blank).eval().to(memory_format=torch.channels_last)

    def model(self, coefficients=None, **options) -> nn.Module:
        """The student with averaged parameters, in eval mode; default what was deployed, else the last iterate."""
        if coefficients is None:
            coefficients = self.deployed
        model = self.blank_model()
        model.load_state_dict(self.average(coefficients, **options))
        what = {"strategy": getattr(coefficients, "strategy", "") or "given coefficients"}
        what |= {"note": getattr(coefficients, "note", ""), "split": self.settings["split"]}
        return mark(model, {"run": self.name, **what, "seen": seen_according_to(self.settings)})

    def deploy(self, coefficients: Coefficients) -> None:
        """Choose what this run stands for when it is used as a teacher; recorded in the run. A ``NoWindow`` is raised."""
        if isinstance(coefficients, NoWindow):
            raise coefficients
        self.stored_coefficients(coefficients)
        with measuring(self.folder):
            write_text(self.folder / "deployed.json", json.dumps(_record(coefficients)))

    def withdraw(self) -> None:
        """Take back what was deployed, if anything was: the run stands for its last iterate again."""
        if (self.folder / "deployed.json").exists():
            with measuring(self.folder):
                (self.folder / "deployed.json").unlink()

    @property
    def deployed(self) -> Coefficients:
        """The coefficients chosen with ``deploy``; the last iterate when nothing was chosen."""
        file = self.folder / "deployed.json"
        return _recorded(read_json(file)) if file.exists() else last(self.source_curves)

    def remember_choices(self, choices: Mapping[str, object]) -> None:
        """Keep what strategies chose, by label, beside what was chosen before."""
        file = self.folder / "choices.json"
        with measuring(self.folder):
            known = read_json(file) if file.exists() else {}
            write_text(file, json.dumps(known | {label: _record(choice) for label, choice in choices.items()}))

    @property
    def choices(self) -> dict[str, Coefficients | NoWindow]:
        """What strategies chose when this run was evaluated: ``{label: coefficients}``, or the reason for none."""
        file = self.folder / "choices.json"
        if (now := stamp(file)) != self._choices[0]:
            self._choices = now, {label: _recorded(record) for label, record in read_json(file).items()} if now else {}
        return dict(self._choices[1])

    @property
    def window_map(self) -> pd.DataFrame:
        """The table of the last ``window_map`` of this recording; empty when there was none."""
        about = self.folder / "window_map.json"
        if about.exists() and read_json(about)["recording"] != of_recording(self):
            return pd.DataFrame()
        return self._table("window_map.csv")

    @property
    def scores(self) -> pd.DataFrame:
        """What ``evaluate`` has measured on this run so far; empty when nothing."""
        return self._table("scores.csv")

    def _table(self, name: str) -> pd.DataFrame:
        file = self.folder / name
        return read_table(file) if file.exists() else pd.DataFrame()


def curves_from(table: pd.DataFrame, sources: Sequence[str]) -> Curves:
    """``Curves`` from the rows a recording writes, one per segment."""
    per_domain = {n: {d: table[f"{n}/{d}"].to_numpy() for d in sources} for n in ("val_loss", "val_accuracy")}
    return Curves(
        iterates=table["iterates"].to_numpy(),
        train_loss=table["train_loss"].to_numpy(),
        val_loss=np.mean([*per_domain["val_loss"].values()], axis=0),
        val_loss_pooled=table["val_loss_pooled"].to_numpy(),
        val_accuracy=np.mean([*per_domain["val_accuracy"].values()], axis=0),
        val_kd_loss=table["val_kd_loss"].to_numpy() if "val_kd_loss" in table else None,
        per_domain=per_domain,
    )


def _record(choice) -> dict:
    """Plain values of coefficients, or of the reason why there are none."""
    if isinstance(choice, NoWindow):
        return {"no_window": str(choice), "chosen_by": choice.chosen_by, "evaluations": choice.evaluations}
    return (
        choice.plain if isinstance(choice, Coefficients) else {"values": np.asarray(choice, dtype=np.float64).tolist()}
    )


def _recorded(record: dict) -> Coefficients | NoWindow:
    """What ``_record`` wrote."""
    if "no_window" in record:
        reason = NoWindow(record["no_window"])
        reason.chosen_by, reason.evaluations = record.get("chosen_by", ""), record.get("evaluations", 0)
        return reason
    notes = {key: value for key, value in record.items() if key != "values"}
    ends = None if notes.get("ends") is None else np.array(notes["ends"])
    values, initial, ends = _summing_to_one(np.array(record["values"]), notes.get("initial", 0.0), ends, slack=1e-3)
    return Coefficients(values, **{**notes, "initial": initial, "ends": ends})


def _checked(coefficients) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Coefficients of a run: values, the initial parameters', and those of ends beside means, if any."""
    initial, ends = getattr(coefficients, "initial", 0.0), getattr(coefficients, "ends", None)
    values, initial, ends = _summing_to_one(coefficients, initial, ends)
    parts = np.concatenate([values, [initial], [] if ends is None else ends])
    negative = parts.min() < 0 and not getattr(coefficients, "signed", False)
    if not np.all(np.isfinite(parts)) or negative or abs(parts.sum() - 1) > 1e-9 * max(1, np.abs(parts).sum()):
        least = f", the least {parts.min():.6g}" if parts.min() < 0 else ""
        raise ValueError(f"Coefficients are non-negative and sum to 1; got sum {parts.sum():.6g}{least}.")
    return values, initial, ends


def _summing_to_one(coefficients, initial: float, ends: np.ndarray | None, *, slack: float = 1e-6):
    """Coefficients (n,), the initial parameters' and the ends' in float64, whose sum is 1 where it was in the precision they came in."""
    given = np.asarray(coefficients)
    if given.ndim != 1 or given.dtype.kind not in "fiu":
        got = repr(coefficients) if given.ndim == 0 else f"{given.shape} {given.dtype}"
        raise ValueError(f"Coefficients are what a strategy returned, or one number per segment; got {got}.")
    values = given.astype(np.float64)
    total = float(values.sum()) + initial + (0.0 if ends is None else float(np.sum(ends)))
    slack = max(slack, float(np.finfo(given.dtype).eps)) if given.dtype.kind == "f" else slack
    by = total if 1e-12 < abs(total - 1) <= slack else 1.0
    return values / by, initial / by, None if ends is None else np.asarray(ends) / by


def _used(stored: Mapping[str, np.ndarray]) -> np.ndarray:
    """Positions of stored segments that carry weight, by mean or end."""
    return np.flatnonzero(sum(np.abs(part) for part in stored.values()))


def structure_of(student: nn.Module) -> nn.Module:
    """A copy of a student without its parameters, which are on the meta device: it shares nothing with it and weighs little.

    What is done to the student afterwards, training included, does not reach the copy.
    """
    memo = {id(p): _parameter(p, "meta") for p in student.parameters()}
    return copy.deepcopy(student, memo | {id(b): b.detach().cpu().clone() for b in student.buffers()})


def _parameter(like: nn.Parameter, device: str) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(like, device=device), requires_grad=like.requires_grad)


@explained
def load_run(path: str | os.PathLike, *, split: Split | None = None, template: nn.Module | None = None) -> Run:
    """The run recorded in a folder; a folder that ends in ``.recording`` gives what an unfinished run has so far.

    split     the split it was trained on, if it is in memory already
    template  the student's module, for students that are no timm model
    Raises ``FileNotFoundError`` for no run there, ``RunProblem`` for an unfinished run or one of another format, ``ValueError`` for
    one of which a file was cut off.
    """
    folder = path_of(path)
    if not (folder / "settings.json").is_file():
        partial = recording_folder(folder)
        if (partial / "settings.json").is_file():
            raise RunProblem(
                f"{folder} is not finished. Call train(..., save_to={str(folder)!r}, resume=True), or the same `wakd train`, to continue it, or "
                f"load_run({str(partial)!r}) for what was recorded so far."
            )
        raise FileNotFoundError(f"No run at {folder}: it has no settings.json. Give the folder that train saved to.")
    settings = read_json(folder / "settings.json")
    if settings.get("format") != FORMAT:
        raise RunProblem(
            f"{folder} was recorded in format {settings.get('format')}, this kit reads format {FORMAT}. Nothing was "
            "changed; its environment.json names the version of wakd_kit that reads it."
        )
    if not (folder / "curves.csv").is_file():
        raise RunProblem(f"{folder} stopped before its first segment was complete; train again with resume=True.")
    run = Run(folder, split=split, template=template)
    if not len(run.segments):
        raise RunProblem(
            f"{folder} has lost its segments: put the folder segments/ back from a copy, or train it again."
        )
    ends = {run.settings["steps"], *run.segments.edges.tolist()}
    if not folder.name.endswith(".recording") and ends - {*run.table["step"]}:
        raise RunProblem(f"{folder / 'curves.csv'} {UNREADABLE}")
    if template is not None:
        recorded, given = run.segments.shapes(), {n: tuple(t.shape) for n, t in run.blank_model().state_dict().items()}
        for name in sorted(recorded.keys() | given.keys()):
            if recorded.get(name) != given.get(name):
                has, lacks = (of.get(name, "none") for of in (given, recorded))
                raise RunProblem(
                    f"The template is no student of {folder}: of {name!r} its shape is {has}, the run's {lacks}. Build it the same way "
                    "as the one that was trained."
                )
    return run

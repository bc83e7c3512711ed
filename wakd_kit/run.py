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
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .averaging import Coefficients, Curves, NoWindow, last
from .domains import Split, leave_one_out, load_domains
from .files import recording_folder, write_text
from .models import BATCHNORM_POLICIES, batchnorms, build_model, recalibrate
from .recording import RunningAverages, RunProblem, Segments, State
from .views import calibration_views, views_from

FORMAT = 1


class Run:
    """One recorded training. Made by ``train`` or ``load_run``; reading it never changes it."""

    def __init__(self, folder: Path, *, split: Split | None = None, template: nn.Module | None = None):
        self.folder = folder
        self.settings = json.loads((folder / "settings.json").read_text())
        self.segments = Segments(folder / "segments", self.settings["storage"])
        self.table = pd.read_csv(folder / "curves.csv")
        self._split = split
        self._template = template

    def __repr__(self) -> str:
        s = self.settings
        return (
            f"Run({self.folder.name!r}: {s['student']['name']}, target {s['split']['target'] or 'none'}, seed {s['seed']}, "
            f"{self.steps} steps, {len(self.table)} segments)"
        )

    @property
    def name(self) -> str:
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
        return (
            f"{s['student']['name']} ({parameters / 1e6:.2f} million parameters{started}): {self.steps} steps of "
            f"{s['batch_size']} images in {seconds:.0f} s, {self.steps * s['batch_size'] / seconds:.0f} images per second "
            f"with validation; {recorded} segments recorded, {kept}, {size / 1e6:.1f} MB on disk."
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
                raise RunProblem(f"{self.name} was trained on arrays in memory; pass split=... here.")
            domains = load_domains(recipe["benchmark"], **recipe["options"])
            split = leave_one_out(domains, recipe["target"], recipe["seed"], validation=recipe["validation"])
            self.check_split(split)
            self._split = split
        return self._split

    def check_split(self, split: Split) -> None:
        """Raises ``RunProblem`` unless ``split`` is the one this run was trained on."""
        recorded, given = self.settings["split"], split.recipe
        for key in ("target", "seed", "validation", "fingerprint"):
            if recorded[key] != given[key]:
                what = "images" if key == "fingerprint" else f"{key} {given[key]!r}"
                wanted = "other images" if key == "fingerprint" else repr(recorded[key])
                raise RunProblem(f"{self.name} was trained with {wanted}, this split has {what}; use run.split.")

    @property
    def source_curves(self) -> Curves:
        """What strategies read: one entry per segment, source domains only. See ``averaging.Curves``."""
        return curves_from(self.table, self.settings["split"]["sources"])

    def stored_coefficients(self, coefficients) -> tuple[np.ndarray, float]:
        """Coefficients over stored segments, and how much of them had to move to fit the stored grid.

        Stored segments may cover several recorded ones. Inside one, coefficients can only be spread over its iterates
        evenly (or sit on its last iterate); the second value is the part, 0 to 1, that this displaced.
        """
        values = np.asarray(coefficients, dtype=np.float64)
        of, initial = getattr(coefficients, "of", "mean"), getattr(coefficients, "initial", 0.0)
        iterates = self.table["iterates"].to_numpy()
        if values.shape != iterates.shape:
            raise ValueError(f"{values.size} coefficients for {len(iterates)} segments; a run needs one per segment.")
        if not np.all(np.isfinite(values)) or values.min() < 0 or abs(values.sum() + initial - 1) > 1e-6:
            raise ValueError(f"Coefficients are non-negative and sum to 1; got sum {values.sum() + initial:.6g}.")
        block = np.searchsorted(self.segments.edges, self.table["step"].to_numpy())
        stored = np.bincount(block, weights=values, minlength=len(self.segments))
        if of == "end":
            spread = np.where(np.isin(self.table["step"], self.segments.edges), stored[block], 0.0)
        else:
            spread = stored[block] * iterates / self.segments.iterates[block]
        return stored, float(np.abs(spread - values).sum() / 2)

    def average(
        self,
        coefficients,
        *,
        split: Split | None = None,
        batchnorm: str | None = None,
        exact: bool = False,
    ) -> State:
        """The averaged student as a ``state_dict``, float32 on the CPU; sums are taken in float64.

        The coefficients of an ema that was declared are answered with the moving average that training kept, exact
        iterate by iterate; any other ema takes each segment's iterates as their mean.

        coefficients  what a strategy returned, or any array with one per segment (then of segment means)
        batchnorm     policy for running statistics, default the run's own: ``average`` them like parameters, take
                      those of the ``last`` iterate used, ``recalibrate`` on source batches. Under ``recalibrate`` a
                      single raw iterate keeps the statistics it was trained with, unless the policy is given here.
        exact         raise instead of warn when merged storage cannot represent the coefficients exactly
        """
        policy = batchnorm or self.settings["batchnorm"]
        if policy not in BATCHNORM_POLICIES:
            raise ValueError(f"batchnorm is one of {', '.join(BATCHNORM_POLICIES)}; got {policy!r}.")
        stored, moved = self.stored_coefficients(coefficients)
        of, initial = getattr(coefficients, "of", "mean"), getattr(coefficients, "initial", 0.0)
        running = RunningAverages(self.folder / "running").find(np.asarray(coefficients), of, initial)
        if moved > 1e-9 and running is None:
            message = (
                f"{self.name} stores {len(self.segments)} merged segments; {moved:.1%} of these coefficients moved to "
                "the nearest of them. Declare the strategy when training, or store more segments, to have it exactly."
            )
            if exact:
                raise RunProblem(message)
            warnings.warn(message, stacklevel=2)
        state = self._weighted_sum(stored, of, initial) if running is None else self._counters() | running
        one = np.count_nonzero(stored) == 1 and not initial
        raw_iterate = one and (of == "end" or self.segments.iterates[stored.argmax()] == 1)
        if policy == "last" and np.count_nonzero(stored):
            state |= self._buffers(int(np.flatnonzero(stored)[-1]))
        if policy == "recalibrate" and (batchnorm or not raw_iterate):
            state = self._recalibrated(state, split)
        return state

    def _counters(self) -> State:
        """Integer buffers such as num_batches_tracked, of the last iterate."""
        return {n: t for n, t in self.segments.read(-1, "end").items() if not t.is_floating_point()}

    def _weighted_sum(self, stored: np.ndarray, of: str, initial: float) -> State:
        total: dict[str, Tensor] = {}
        used = np.flatnonzero(stored)
        for position in used:
            for name, tensor in self.segments.read(position, of).items():
                if tensor.is_floating_point():
                    total.setdefault(name, torch.zeros(tensor.shape, dtype=torch.float64))
                    total[name].add_(tensor, alpha=stored[position])
        if initial:
            for name, tensor in self.segments.initial.items():
                if tensor.is_floating_point():
                    total[name] = total.get(name, 0) + initial * tensor.double()
        # counters such as num_batches_tracked cannot be averaged: those of the last iterate used stand
        ends = self.segments.read(int(used[-1]), "end") if len(used) else self.segments.initial
        return {name: total[name].float() if name in total else tensor for name, tensor in ends.items()}

    def _buffers(self, position: int) -> State:
        buffers = {name for name, _ in self.blank_model().named_buffers()}
        return {n: t for n, t in self.segments.read(position, "end").items() if n in buffers}

    def _recalibrated(self, state: State, split: Split | None) -> State:
        model = self.blank_model()
        if not batchnorms(model):
            return state
        model.load_state_dict(state)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        recalibrate(model.to(device), self.calibration_batches(split or self.split, device))
        return {name: tensor.cpu() for name, tensor in model.state_dict().items()}

    def calibration_batches(self, split: Split, device: torch.device | str = "cpu") -> list[Tensor]:
        """The source training images that BatchNorm is recalibrated on: the same views at every call."""
        self.check_split(split)
        s = self.settings
        return calibration_views(
            split, views_from(s["views"]), s["batchnorm_batches"], s["batch_size"], seed=s["seed"], device=device
        )

    def blank_model(self) -> nn.Module:
        """The student's architecture in eval mode, parameters to be loaded."""
        if self._template is None:
            spec = self.settings["student"]
            if "classes" not in spec:
                raise RunProblem(
                    f"{self.name} was trained on a model of your own ({spec['name']}); build it and load "
                    "run.average(...) into it, or pass template=model to load_run."
                )
            self._template = build_model(spec["name"], spec["classes"], **spec["settings"])
        return copy.deepcopy(self._template).cpu().eval()

    def model(self, coefficients=None, **options) -> nn.Module:
        """The student with averaged parameters, in eval mode; default what was deployed, else the last iterate."""
        if coefficients is None:
            coefficients = self.deployed
        model = self.blank_model()
        model.load_state_dict(self.average(coefficients, **options))
        model.provenance = {
            "run": self.name,
            "strategy": getattr(coefficients, "strategy", "") or "given coefficients",
            "note": getattr(coefficients, "note", ""),
            "split": self.settings["split"],
        }
        return model

    def deploy(self, coefficients: Coefficients) -> None:
        """Choose what this run stands for when it is used as a teacher; recorded in the run. A ``NoWindow`` is raised."""
        if isinstance(coefficients, NoWindow):
            raise coefficients
        self.stored_coefficients(coefficients)
        write_text(self.folder / "deployed.json", json.dumps(_record(coefficients)))

    @property
    def deployed(self) -> Coefficients:
        """The coefficients chosen with ``deploy``; the last iterate when nothing was chosen."""
        file = self.folder / "deployed.json"
        return Coefficients(**json.loads(file.read_text())) if file.exists() else last(self.source_curves)

    def remember_choices(self, choices: Mapping[str, object]) -> None:
        """Keep what strategies chose, by label, beside what was chosen before."""
        file = self.folder / "choices.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        write_text(file, json.dumps(known | {label: _record(choice) for label, choice in choices.items()}))

    @property
    def choices(self) -> dict[str, Coefficients | NoWindow]:
        """What strategies chose when this run was evaluated: ``{label: coefficients}``, or the reason for none."""
        file = self.folder / "choices.json"
        records = json.loads(file.read_text()) if file.exists() else {}
        return {n: NoWindow(r["no_window"]) if "no_window" in r else Coefficients(**r) for n, r in records.items()}

    @property
    def window_map(self) -> pd.DataFrame:
        """The table of the last ``window_map`` of this run; empty when there was none."""
        file = self.folder / "window_map.csv"
        return pd.read_csv(file) if file.exists() else pd.DataFrame()

    @property
    def scores(self) -> pd.DataFrame:
        """What ``evaluate`` has measured on this run so far; empty when nothing."""
        file = self.folder / "scores.csv"
        return pd.read_csv(file) if file.exists() else pd.DataFrame()


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
        return {"no_window": str(choice)}
    return {"values": np.asarray(choice, dtype=np.float64).tolist(), **getattr(choice, "notes", {})}


def load_run(path: str | os.PathLike, *, split: Split | None = None, template: nn.Module | None = None) -> Run:
    """The run recorded in a folder; a folder that ends in ``.recording`` gives what an unfinished run has so far.

    split     the split it was trained on, if it is in memory already
    template  the student's module, for students that are no timm model
    Raises ``FileNotFoundError`` for no run there, ``RunProblem`` for an unfinished run or one of another format.
    """
    folder = Path(path)
    if not (folder / "settings.json").is_file():
        partial = recording_folder(folder)
        if (partial / "settings.json").is_file():
            raise RunProblem(
                f"{folder} is not finished. Call train(..., save_to={str(folder)!r}, resume=True) to continue it, or "
                f"load_run({str(partial)!r}) for what was recorded so far."
            )
        raise FileNotFoundError(f"No run at {folder}: it has no settings.json.")
    settings = json.loads((folder / "settings.json").read_text())
    if settings.get("format") != FORMAT:
        raise RunProblem(
            f"{folder} was recorded in format {settings.get('format')}, this kit reads format {FORMAT}. Nothing was "
            "changed; its environment.json names the version of wakd_kit that reads it."
        )
    if not (folder / "curves.csv").is_file():
        raise RunProblem(f"{folder} stopped before its first segment was complete; train again with resume=True.")
    run = Run(folder, split=split, template=template)
    if split is not None:
        run.check_split(split)
    return run

"""Averages across runs: what soups, DiWA and ensembles need from torch. What is chosen is decided in ``averaging``.

soup = Soup([run_a, run_b, run_c])                      # each run's best-validation iterate, as DiWA
soup.check()                                            # the loss barrier between them, or a sentence why not
coef = averaging.diwa(soup.val_accuracy, restrict=True, score=soup.score)
table = soup.evaluate({"DiWA": coef})
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from ..averaging import NoWindow, best_val, check_barrier, ensemble
from ..data.domains import Split, other_split
from ..runs.network import Network
from ..runs.record import RunProblem, State
from ..runs.run import Run
from .scores import COLUMNS, judged, source_mean


class Soup:
    """Several runs of one architecture on one split, one set of parameters of each.

    coefficients  one per run, what it contributes; default its best-validation iterate

    Raises ``RunProblem`` when the runs differ in architecture or split: their mean would mean nothing.
    """

    def __init__(self, runs: Sequence[Run], *, coefficients: Sequence | None = None, split: Split | None = None):
        if len(runs) < 2:
            raise RunProblem(f"A soup needs at least two runs; got {len(runs)}.")
        for run in runs[1:]:
            here, there = run.settings["split"], runs[0].settings["split"]
            differs = other_split(here, there)
            if differs or not _same_student(run, runs[0]):
                what = f"split ({differs} {here[differs]!r} and {there[differs]!r})" if differs else "student"
                raise RunProblem(f"{run.name} and {runs[0].name} differ in their {what}; a soup needs the same.")
        self.runs = list(runs)
        self.split = split or runs[0].split
        chosen = [best_val(run.source_curves) for run in runs] if coefficients is None else coefficients
        if len(chosen) != len(runs):
            raise RunProblem(f"{len(runs)} runs need as many coefficients, one set each; got {len(chosen)}.")
        self._source = Network(runs[0], self.split, roles=("source",))
        self.states = [run.average(c, split=self.split) for run, c in zip(runs, chosen)]
        self._known: dict[tuple[str, bytes], float] = {}

    @property
    def val_accuracy(self) -> list[float]:
        """Each member's own source-validation accuracy, domains weighing the same: what orders them."""
        return [self.score(member) for member in np.eye(len(self.states))]

    def average(self, coefficients) -> State:
        """The weighted mean of the members' parameters and float buffers; statistics are recalibrated on evaluation."""
        values = np.asarray(coefficients, dtype=np.float64)
        if values.shape != (len(self.states),) or values.min() < 0 or abs(values.sum() - 1) > 1e-6:
            raise ValueError(
                f"A soup of {len(self.states)} runs needs as many coefficients, summing to 1; got {values}."
            )
        total: State = {}
        for value, state in zip(values, self.states):
            if value == 0:  # a member that was left out may have diverged
                continue
            for name, tensor in state.items():
                if tensor.is_floating_point():
                    total[name] = total.get(name, 0) + value * tensor.double()
        return {n: total[n].float() if n in total else t for n, t in self.states[0].items()}

    def score(self, coefficients) -> float:
        """Source-validation accuracy of the soup with these coefficients; memoised."""
        return self._mean(coefficients, "accuracy")

    def check(self, *, allowed: float = 0.1) -> float:
        """The highest loss barrier between two members, in nats on source validation; ``NoWindow`` says if too high."""
        members = np.eye(len(self.states))
        losses = [self._mean(member, "nll") for member in members]
        midpoints = np.full(members.shape, np.nan)
        for i, j in itertools.combinations(range(len(members)), 2):
            loss = self._mean((members[i] + members[j]) / 2, "nll")
            midpoints[i, j] = loss if np.isfinite(loss) else np.inf
        return check_barrier(losses, midpoints, allowed=allowed)

    def evaluate(self, choices: Mapping[str, object]) -> pd.DataFrame:
        """Like ``scores.evaluate``, for coefficients over runs; ``"probs"`` or ``"logits"`` in place of coefficients
        scores the ensemble of all members' predictions instead."""
        network = Network(self.runs[0], self.split)
        rows = []
        for label, choice in choices.items():
            none, logits = isinstance(choice, NoWindow), None
            if isinstance(choice, str):
                members = [self._logits(network, member) for member in np.eye(len(self.states))]
                stacked = {d: np.stack([m[d].numpy() for m in members]) for d in network.roles}
                probs = {d: ensemble(z, combine=choice) for d, z in stacked.items()}
                logits = {d: torch.from_numpy(np.log(p + 1e-300)) for d, p in probs.items()}
            elif not none:
                logits = self._logits(network, choice)
            note = str(choice) if none else getattr(choice, "note", "")
            rows += judged(network.parts, logits, strategy=label, note=note)
        return pd.DataFrame(rows, columns=COLUMNS)

    def _logits(self, network: Network, coefficients) -> dict[str, torch.Tensor]:
        """Of the soup with these coefficients; a member alone keeps its statistics, which are its run's own."""
        network.load(self.average(coefficients), raw=np.count_nonzero(coefficients) == 1)
        return network.outputs()

    def _mean(self, coefficients, metric: str) -> float:
        key = metric, np.asarray(coefficients, dtype=np.float64).tobytes()
        if key not in self._known:
            logits = self._logits(self._source, coefficients)
            self._known[key] = source_mean(logits, self._source.labels, metric)
        return self._known[key]


def _same_student(run: Run, other: Run) -> bool:
    here, there = run.settings, other.settings
    if any(here["student"].get(key) != there["student"].get(key) for key in ("name", "classes", "settings")):
        return False
    structures = {s["identity"]["structure"] for s in (here, there) if "identity" in s}  # not recorded before
    return len(structures) < 2

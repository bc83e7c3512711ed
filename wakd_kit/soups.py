"""Averages across runs: what soups, DiWA and ensembles need from torch. What is chosen is decided in ``averaging``.

soup = Soup([run_a, run_b, run_c])                      # each run's best-validation iterate, as DiWA
soup.check()                                            # the loss barrier between them, or a sentence why not
coef = averaging.diwa(soup.val_accuracy, restrict=True, score=soup.score)
table = soup.evaluate({"DiWA": coef})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from .averaging import NoWindow, best_val, check_barrier, ensemble
from .domains import Split
from .evaluation import METRICS, Averages, scored_domains, scores
from .recording import RunProblem, State
from .run import Run


class Soup:
    """Several runs of one architecture on one split, one set of parameters of each.

    coefficients  one per run, what it contributes; default its best-validation iterate

    Raises ``RunProblem`` when the runs differ in architecture or split: their mean would mean nothing.
    """

    def __init__(self, runs: Sequence[Run], *, coefficients: Sequence | None = None, split: Split | None = None):
        if len(runs) < 2:
            raise RunProblem(f"A soup needs at least two runs; got {len(runs)}.")
        for run in runs[1:]:
            for what, here, there in (
                ("student", _architecture(run), _architecture(runs[0])),
                ("split", run.settings["split"], runs[0].settings["split"]),
            ):
                if here != there:
                    raise RunProblem(f"{run.name} and {runs[0].name} differ in their {what}; a soup needs the same.")
        self.runs = list(runs)
        self.split = split or runs[0].split
        chosen = [best_val(run.source_curves) for run in runs] if coefficients is None else coefficients
        if len(chosen) != len(runs):
            raise RunProblem(f"{len(runs)} runs need as many coefficients, one set each; got {len(chosen)}.")
        self.states = [run.average(c, split=self.split) for run, c in zip(runs, chosen)]
        self._source = Averages(runs[0], self.split)
        self._known: dict[bytes, float] = {}

    @property
    def val_accuracy(self) -> list[float]:
        """Each member's own source-validation accuracy, domains weighing the same: what orders them."""
        return [self._source_mean(state, "accuracy", raw=True) for state in self.states]

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
        key = np.asarray(coefficients, dtype=np.float64).tobytes()
        if key not in self._known:
            single = np.count_nonzero(coefficients) == 1
            self._known[key] = self._source_mean(self.average(coefficients), "accuracy", raw=single)
        return self._known[key]

    def check(self, *, allowed: float = 0.1) -> float:
        """The highest loss barrier between two members, in nats on source validation; ``NoWindow`` says if too high."""
        losses = [self._source_mean(state, "nll", raw=True) for state in self.states]
        midpoints = np.full((len(self.states), len(self.states)), np.nan)
        for i in range(len(self.states)):
            for j in range(i + 1, len(self.states)):
                halves = np.zeros(len(self.states))
                halves[[i, j]] = 0.5
                loss = self._source_mean(self.average(halves), "nll")
                midpoints[i, j] = loss if np.isfinite(loss) else np.inf
        return check_barrier(losses, midpoints, allowed=allowed)

    def evaluate(self, choices: Mapping[str, object]) -> pd.DataFrame:
        """Like ``evaluation.evaluate``, for coefficients over runs; ``"probs"`` or ``"logits"`` in place of coefficients
        scores the ensemble of all members' predictions instead."""
        everything = Averages(self.runs[0], self.split, roles=("source", "target"))
        rows = []
        for label, choice in choices.items():
            if isinstance(choice, str):
                members = [everything.logits(state, raw=True) for state in self.states]
                logits = {
                    d: torch.from_numpy(
                        np.log(ensemble(np.stack([m[d].numpy() for m in members]), combine=choice) + 1e-300)
                    )
                    for d in members[0]
                }
            elif not isinstance(choice, NoWindow):
                logits = everything.logits(self.average(choice), raw=np.count_nonzero(choice) == 1)
            for domain, role, examples in scored_domains(self.split):
                found = isinstance(choice, NoWindow)
                row = dict.fromkeys(METRICS, np.nan) if found else scores(logits[domain], examples.labels)
                note = str(choice) if found else getattr(choice, "note", "")
                rows.append(
                    {"strategy": label, "domain": domain, "role": role, **row, "n": len(examples), "note": note}
                )
        return pd.DataFrame(rows)

    def _source_mean(self, state: State, metric: str, *, raw: bool = False) -> float:
        logits = self._source.logits(state, raw=raw)
        return float(np.mean([scores(z, self._source.labels[d])[metric] for d, z in logits.items()]))


def _architecture(run: Run) -> dict:
    return {name: run.settings["student"].get(name) for name in ("name", "classes", "settings")}

"""Averages across runs: what soups, DiWA and ensembles need from torch. What is chosen is decided in ``averaging``.

soup = Soup([run_a, run_b, run_c])                      # each run's best-validation iterate, as DiWA
soup.check()                                            # the loss barrier between them, or a sentence why not
coef = averaging.diwa(soup.val_accuracy, restrict=True, score=soup.score)
table = soup.evaluate({"DiWA": coef, "TIES": {"name": "ties", "density": 0.2}})
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from ..averaging import NoWindow, best_val, check_barrier, ensemble
from ..data.domains import Split, other_split, split_of
from ..runs.network import Network
from ..runs.run import Run
from ..runs.store import RunProblem, State
from .merging import merge, named
from .scores import COLUMNS, judged, source_mean


class Soup:
    """Several runs of one architecture, one set of parameters of each. They may differ in their sources, as experts do, and in
    nothing else of their split; a member alone keeps its BatchNorm statistics, whatever is made of several has those of all sources.

    coefficients  one per run, what it contributes; default its best-validation iterate
    split         of the sources of all of them, if it is in memory already

    Raises ``RunProblem`` when the runs differ in architecture, target, seed of the split or data: their mean would mean nothing.
    """

    def __init__(self, runs: Sequence[Run], *, coefficients: Sequence | None = None, split: Split | None = None):
        if len(runs) < 2:
            raise RunProblem(f"A soup needs at least two runs; got {len(runs)}.")
        first = runs[0].settings["split"]
        for run in runs[1:]:
            here = run.settings["split"]
            differs = other_split(here, first, aside=["sources"])
            if differs or not _same_student(run, runs[0]):
                both = f"{differs} {here.get(differs, False)!r} and {first.get(differs, False)!r}"
                what = f"split ({both})" if differs else "student"
                raise RunProblem(f"{run.name} and {runs[0].name} differ in their {what}; a soup needs the same.")
        self.runs = list(runs)
        self.split = split or _split_of_all(runs)
        chosen = [best_val(run.source_curves) for run in runs] if coefficients is None else coefficients
        if len(chosen) != len(runs):
            raise RunProblem(f"{len(runs)} runs need as many coefficients, one set each; got {len(chosen)}.")
        self._source = self._network(("source",))
        own = (self.split.only(*run.settings["split"]["sources"]) for run in runs)
        self.states = [run.average(c, split=part) for run, c, part in zip(runs, chosen, own)]
        self._known: dict[tuple[str, bytes], float] = {}
        self._merged: dict[str, State] = {}

    @property
    def val_accuracy(self) -> list[float]:
        """Each member's own source-validation accuracy, domains weighing the same: what orders them."""
        return [self.score(member) for member in np.eye(len(self.states))]

    def average(self, coefficients) -> State:
        """The weighted mean of the members' parameters and float buffers; statistics are recalibrated on evaluation."""
        values, total = self._checked(coefficients), {}
        for value, state in zip(values, self.states):
            if value == 0:  # a member that was left out may have diverged
                continue
            for name, tensor in state.items():
                if tensor.is_floating_point():
                    total[name] = total.get(name, 0) + value * tensor.double()
        return {n: total[n].float() if n in total else t for n, t in self.states[0].items()}

    def _checked(self, coefficients) -> np.ndarray:
        values = np.asarray(coefficients, dtype=np.float64)
        if values.shape != (len(self.states),) or not values.min() >= 0 or not abs(values.sum() - 1) <= 1e-6:
            raise ValueError(
                f"A soup of {len(self.states)} runs needs as many coefficients, summing to 1; got {values}."
            )
        return values

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

    def merge(self, rule: str | Mapping) -> State:
        """What a rule of ``merging`` makes of the members: a ``state_dict``, float32 on the CPU, its BatchNorm statistics as the runs'
        policy wants them, of all sources. Raises ``RunProblem`` where members have no start in common, naming the loss barrier.
        """
        key = json.dumps(named(rule), sort_keys=True)
        if key not in self._merged:
            self._check_start()
            names = [name for name, _ in self._source.model.named_parameters()]
            start, *states = (
                {name: state[name] for name in names} for state in (self.runs[0].segments.initial, *self.states)
            )
            state = self.average(np.full(len(self.states), 1 / len(self.states))) | merge(start, states, rule)
            settled = self._source.load(state).state_dict()
            self._merged[key] = {name: tensor.cpu().clone() for name, tensor in settled.items()}
        return {name: tensor.clone() for name, tensor in self._merged[key].items()}

    def _check_start(self) -> None:
        first, names = self.runs[0], [name for name, _ in self._source.model.named_parameters()]
        for run in self.runs[1:]:
            here, there = run.segments.initial, first.segments.initial
            if not all(torch.equal(here[name], there[name]) for name in names):
                barrier = self.check(allowed=1e12)
                raise RunProblem(
                    f"{run.name} and {first.name} began with different parameters, and what is merged is what runs moved from a common "
                    f"start: the highest loss barrier between these runs is {barrier:.2g} nats. Train them from one seed or one "
                    "file of weights, or use an ensemble."
                )

    def evaluate(self, choices: Mapping[str, object]) -> pd.DataFrame:
        """Like ``scores.evaluate``, for coefficients over runs; in their place ``"probs"`` or ``"logits"`` scores the ensemble of all
        members' predictions, and a rule of ``merging``, by name or with settings, what it makes of them.

        Whatever cannot be scored is refused before the first choice is; one of a member that diverged is a row of NaN with a note.
        """
        for choice in choices.values():
            if _is_rule(choice):
                merge({"": torch.zeros(2, 2)}, [{"": torch.eye(2)}] * 2, choice)  # its settings too
                self._check_start()
            elif not isinstance(choice, str | NoWindow):
                self._checked(choice)
        network, rows = self._network(("source", "target")), []
        for label, choice in choices.items():
            try:
                logits, note = self._predicted(network, choice), getattr(choice, "note", "")
            except NoWindow as none:
                logits, note = None, str(none)
            rows += judged(network.parts, logits, network.split.domains, strategy=label, note=note)
        return pd.DataFrame(rows, columns=COLUMNS)

    def _predicted(self, network: Network, choice: object) -> dict[str, torch.Tensor]:
        """Logits by domain of what was chosen; ``NoWindow`` where there is nothing of it, or a member diverged."""
        if isinstance(choice, NoWindow):
            raise choice
        if _is_rule(choice):
            self._check_finite(self.states)
            network.load(self.merge(choice), raw=True)
            return network.outputs()
        if not isinstance(choice, str):
            return self._logits(network, choice)
        members = [self._logits(network, member) for member in np.eye(len(self.states))]
        self._check_finite(members)
        stacked = {d: np.stack([m[d].numpy() for m in members]) for d in network.roles}
        probs = {d: ensemble(z, combine=choice) for d, z in stacked.items()}
        return {d: torch.from_numpy(np.log(p + 1e-300)) for d, p in probs.items()}

    def _check_finite(self, members: Sequence[Mapping[str, torch.Tensor]]) -> None:
        for run, member in zip(self.runs, members):
            if not all(torch.isfinite(tensor).all() for tensor in member.values()):
                raise NoWindow(f"{run.name} diverged: it holds or predicts what is no number. Leave it out.")

    def _network(self, roles: tuple[str, ...]) -> Network:
        return Network(self.runs[0], self.split, roles=roles, others=self.runs[1:])

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


def _is_rule(choice: object) -> bool:
    """Whether it names a rule of ``merging``."""
    return isinstance(choice, str | Mapping) and choice not in ("probs", "logits")


def _split_of_all(runs: Sequence[Run]) -> Split:
    """The split of the sources of all runs, which differ in nothing else."""
    first = runs[0].split
    sources = {domain for run in runs for domain in run.settings["split"]["sources"]}
    if sources == set(first.sources):
        return first
    return split_of(first.recipe, first.domains, sources=sorted(sources))


def _same_student(run: Run, other: Run) -> bool:
    here, there = run.settings, other.settings
    if any(here["student"].get(key) != there["student"].get(key) for key in ("name", "classes", "settings")):
        return False
    structures = {s["identity"]["structure"] for s in (here, there) if "identity" in s}  # not recorded before
    return len(structures) < 2

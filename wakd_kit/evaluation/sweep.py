"""Scores of many parameter sets of one network on fixed images: what window maps and loss landscapes spend their time on.

A parameter set is one flat vector: all parameters, frozen ones too, then BatchNorm's running statistics. Vectors are written into
a model in place, BatchNorm is folded into the convolutions before it, and several are evaluated side by side.
"""

from __future__ import annotations

import collections
import copy
import functools
import queue
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..averaging import NoWindow
from ..data.augment import to_float
from ..data.domains import Split, other_split
from ..models.build import Tap
from ..models.device import cores
from ..models.fold import fold, folded
from ..runs.identity import fingerprint
from ..runs.network import Network, predict
from ..runs.store import RunProblem
from ..runs.validate import accuracy


class Point(NamedTuple):
    """One parameter set: ``vector`` as ``Sweep.vector`` makes it; a ``raw`` one keeps the running statistics in it."""

    vector: Tensor
    raw: bool = False


class Sweep(Network):
    """Evaluates many parameter sets of a run's network on the images that models are judged on.

    split, roles, batchnorm  as for a ``Network``: under ``recalibrate`` statistics are recomputed at every point that is
                             not raw, under any other policy they are those in the vector
    workers                  points evaluated side by side, one thread each; default the cores, one on a GPU
    """

    def __init__(self, run, split: Split | None = None, *, workers: int | None = None, **settings):
        super().__init__(run, split, **settings)
        parameters, state = dict(self.model.named_parameters()), self.model.state_dict()
        statistics = [n for n, _ in self.model.named_buffers() if n in state and state[n].is_floating_point()]
        self.shapes = {name: state[name].shape for name in (*parameters, *statistics)}
        self.parameters = sum(tensor.numel() for tensor in parameters.values())
        self.workers = workers or (1 if self.device.type == "cuda" else cores())

    @property
    def settled(self) -> dict[str, object]:
        """What scores depend on beside the points: the policy and the split, as plain values."""
        return {"batchnorm": self.policy, "split": self.split.recipe}

    def located(self, points: Mapping[str, object], what: str = "choice") -> tuple[dict[str, Tensor], dict[str, str]]:
        """``locate`` of every point, {label: vector}, and {label: what it is made of}; not of strategies that found none."""
        if not isinstance(points, Mapping):
            raise ValueError(f"Points are given by label, {{label: coefficients}}; got {points!r}.")
        found = {n: self.locate(p, f"{what} {n!r}") for n, p in points.items() if not isinstance(p, NoWindow)}
        return found, {label: fingerprint({"": vector}) for label, vector in found.items()}

    def vector(self, state: Mapping[str, Tensor]) -> Tensor:
        """A state as one flat float32 vector on the CPU: its first ``parameters`` entries are parameters, the rest statistics."""
        return torch.cat([state[name].detach().flatten().cpu() for name in self.shapes])

    def locate(self, point, label: str = "point") -> Tensor:
        """The vector of any point: coefficients of this run, "initial", ``(run, coefficients)`` or a state_dict.

        Its statistics are what ``run.average`` gives under the policy (averaged ones where they are recalibrated anyway).
        Raises ``NoWindow`` for a strategy that found none, ``RunProblem`` for another architecture or another target;
        warns when the other run, or this one and not the other, was trained on images that are source validation here.
        """
        run, coefficients = point if isinstance(point, tuple) else (self.run, point)
        if isinstance(coefficients, NoWindow):
            raise coefficients
        if run is not self.run:
            self._check_other(run, label)
        if isinstance(coefficients, str):
            if coefficients != "initial":
                raise ValueError(
                    f"{label} is {coefficients!r}; a point is coefficients, 'initial', (run, coefficients) or a state_dict."
                )
            state = run.segments.initial
        elif isinstance(coefficients, Mapping):
            state = coefficients
        else:
            state = self.average(coefficients, run)
        for name, shape in self.shapes.items():
            given = tuple(state[name].shape) if name in state else "no such tensor"
            if given != tuple(shape):
                raise RunProblem(
                    f"{label} is of another architecture than {self.run.name}: {name} is {tuple(shape)} here, {given} there."
                )
        return self.vector(state)

    def _check_other(self, run, label: str) -> None:
        here, there = self.run.settings["split"], run.settings["split"]
        if key := other_split(there, here, aside=("whole", "seed", "validation", "sources")):
            what = "other images" if key == "fingerprint" else f"{key} {there[key]}, not {here[key]}"
            raise RunProblem(f"{label}: {run.name} was trained with {what}; take runs that left out the same domain.")
        if key := other_split(there, here, aside=["sources"]):
            whole = key == "whole"  # which one of the two is
            one, other = (self.run, run) if whole and here.get("whole") else (run, self.run)
            how = "trained on whole domains" if whole else f"split with {key} {there[key]}"
            warnings.warn(
                f"{one.name} was {how}, {other.name} {'not' if whole else f'with {here[key]}'}: it was trained on some of these "
                f"source validation images, so source losses near {label if one is run else one.name} are too low.",
                stacklevel=4,
            )

    def combination(self, weights: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
        """The weighted sum of vectors, summed in float64; weights sum to 1 and may be negative.

        Running statistics are combined with the weights clipped at zero and divided by their sum: inside the segment or
        triangle between the points these are the weights, outside it an extrapolated variance could be negative.
        """
        inside = np.clip(weights, 0, None) / np.clip(weights, 0, None).sum()
        total = torch.zeros_like(vectors[0], dtype=torch.float64)
        for weight, within, vector in zip(weights, inside, vectors):
            total[: self.parameters].add_(vector[: self.parameters], alpha=float(weight))
            total[self.parameters :].add_(vector[self.parameters :], alpha=float(within))
        return total.float()

    @torch.no_grad()
    def model_at(self, vector: Tensor) -> nn.Module:
        """A model of its own with these parameters, in eval mode, statistics as at any point that is not raw."""
        model = copy.deepcopy(self.model).eval()
        state = model.state_dict()
        _write([state[name] for name in self.shapes], vector)
        return self.settle(model)

    def logits(self, points: Iterable[Point]) -> Iterator[dict[str, Tensor]]:
        """{domain: (n, classes)} of each point, in order. Few points are held at a time, however many are given."""
        return self._map(lambda logits: logits, points)

    def scores(self, points: Iterable[Point]) -> Iterator[dict[str, dict[str, float]]]:
        """{domain: {"loss": nats per example, "accuracy": fraction}} of each point, in order."""
        return self._map(lambda logits: {d: _scores(z, self.labels[d]) for d, z in logits.items()}, points)

    def scores_of(self, choices: Iterable) -> Iterator[dict[str, dict[str, float]]]:
        """``scores`` of averages of the run, as ``evaluate`` has them: a raw one keeps its statistics."""
        return self.scores(Point(self.locate(c), raw=self.run.is_raw(c)) for c in choices)

    @functools.cached_property
    def _idle(self) -> queue.SimpleQueue[_Worker]:
        """One network per worker, made one after the other: torch.fx patches modules while it traces them."""
        idle, inputs = queue.SimpleQueue(), _inputs(self.model, self.images)
        for _ in range(self.workers):
            idle.put(_Worker(self, inputs))
        return idle

    def _map(self, measure: Callable[[dict[str, Tensor]], dict], points: Iterable[Point]) -> Iterator[dict]:
        idle = self._idle

        def one(point: Point) -> dict:
            network = idle.get()
            try:
                return measure(network(*point))
            finally:
                idle.put(network)

        threads, waiting = torch.get_num_threads(), collections.deque()
        try:
            if self.workers > 1:
                torch.set_num_threads(1)  # small nets gain more from points side by side than from threads within one
            with ThreadPoolExecutor(self.workers) as pool:
                for point in points:
                    waiting.append(pool.submit(one, point))
                    if len(waiting) > 2 * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
        finally:
            torch.set_num_threads(threads)


def _scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    return {"loss": F.cross_entropy(logits.double(), labels).item(), "accuracy": accuracy(logits, labels)}


class _Worker:
    """One model that flat vectors are written into, and its twin with BatchNorm folded, which answers."""

    def __init__(self, sweep: Sweep, inputs: dict[str, list[Tensor]] | None):
        self.sweep, self.inputs, self.model = sweep, inputs, copy.deepcopy(sweep.model)
        state = self.model.state_dict()
        self.tensors = [state[name] for name in sweep.shapes]
        self.folded, self.pairs = folded(self.model)

    @torch.inference_mode()
    def __call__(self, vector: Tensor, raw: bool) -> dict[str, Tensor]:
        _write(self.tensors, vector)
        self.sweep.settle(self.model, raw=raw)
        fold(self.pairs)  # the twin's convolutions become what is in the model now
        if self.inputs is None:
            return {domain: predict(self.folded, images) for domain, images in self.sweep.images.items()}
        network = self.folded.model.eval()
        return {d: torch.cat([network(x) for x in xs]).float().cpu() for d, xs in self.inputs.items()}


def _write(tensors: list[Tensor], vector: Tensor) -> None:
    parts = vector.to(tensors[0].device).split([t.numel() for t in tensors])
    torch._foreach_copy_(tensors, [part.view(t.shape) for part, t in zip(parts, tensors)])


def _inputs(
    model: nn.Module, images: dict[str, Tensor], *, most: int = 2**29, batch_size: int = 128
) -> dict[str, list[Tensor]] | None:
    """What the network behind the tap sees, made once for all points; None where that would take too much memory."""
    held = all(isinstance(u, Tensor) for u in images.values())  # images that do not fit stay where they are
    if not (held and isinstance(model, Tap)) or 4 * sum(u.numel() for u in images.values()) > most:
        return None
    return {
        domain: [model.normalised(to_float(part)) for part in parts.split(batch_size)]
        for domain, parts in images.items()
    }

"""What strategies that search need from torch: scores, and for ``learned`` a loss, its gradient and a held-out half."""

from __future__ import annotations

import functools
import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import averaging
from ..averaging import Coefficients, Curves, NoWindow
from ..averaging.choosing import EVALUATIONS, SCHEDULE, SETTLED, settings_of
from ..averaging.extent import extent
from ..checks import explained
from ..data.augment import to_float
from ..data.domains import Examples, Split
from ..runs.network import Network
from ..runs.run import curves_from
from ..runs.settings import as_declared, named
from .scores import source_score


@explained
def choose(run, wanted: Sequence[str | Mapping], split: Split | None = None) -> dict[str, Coefficients | NoWindow]:
    """``averaging.choose`` on a recorded run, with the evaluations on source validation that its strategies ask for.

    Nothing is loaded or evaluated for strategies that read curves alone. Those that evaluate averages look over stored
    segments: every average they try and return can be made exactly. Returns {label: coefficients, one per recorded segment,
    or the reason for none}. Raises ``RunProblem`` for a split that the run was not trained on, whatever is wanted.

    >>> list(wk.choose(run, ["last", {"name": "wakd", "label": "second half", "begin": 0.5}]))
    ['last', 'second half']
    """
    return Chooser(run, split)(wanted)


class Chooser:
    """``choose`` for one run, asked again and again: an average that was evaluated is not evaluated twice."""

    def __init__(self, run, split: Split | None = None):
        if split is not None:
            run.check_split(split)
        self.run, self.split = run, split
        self._ends = np.isin(run.table["step"], run.segments.edges)  # recorded segments that end a stored one
        self._block = run.stored_in
        self._share = run.table["iterates"].to_numpy() / run.segments.iterates[self._block]

    def __call__(self, wanted: Sequence[str | Mapping]) -> dict[str, Coefficients | NoWindow]:
        labels = averaging.labels_of(wanted)  # names and settings are checked before the first evaluation
        entries = [wanted] if isinstance(wanted, (str, Mapping)) else list(wanted)
        return {label: self._one(entry, label) for label, entry in zip(labels, entries, strict=True)}

    def _one(self, entry: str | Mapping, label: str) -> Coefficients | NoWindow:
        entry = as_declared(self.run.settings, {"name": entry} if isinstance(entry, str) else entry)
        parameters = inspect.signature(averaging.strategies.get(entry["name"])).parameters
        searches = (EVALUATIONS.keys() & parameters.keys()) - entry.keys()  # one that brings its own has its own grid
        (choice,) = averaging.choose(
            self._stored_curves if searches else self.run.source_curves,
            [{**entry, "label": label}],
            score=lambda c: self._score(self._recorded(c)),
            loss_and_gradient=self._loss_and_gradient,
            held_out_loss=lambda c: self._fit[1](self._recorded(c)),
        ).values()
        if choice.chosen_by == SCHEDULE and self._declared(entry):
            choice.chosen_by = SETTLED
        if not isinstance(choice, Coefficients):
            return choice
        if searches:
            return self._recorded(choice)
        if not self.run.segments.ramps and (moved := self.run.displaced(choice)):
            choice.note += f" ({moved:.1%} of it on the nearest of {len(self.run.segments)} stored segments)"
        return choice

    def _declared(self, entry: Mapping) -> bool:
        """Whether this strategy was declared with these settings when the run was trained."""

        def complete(spec: Mapping) -> dict:
            given = {name: value for name, value in named(spec).items() if value is not None}
            return {**settings_of(spec["name"], self.run.steps, given.get("exact")), **given}

        before = [s for s in self.run.settings.get("declare", ()) if s["name"] == entry["name"]]
        return complete(entry) in [complete(as_declared(self.run.settings, spec)) for spec in before]

    @functools.cached_property
    def _score(self) -> Callable:
        return source_score(self.run, self.split)

    @functools.cached_property
    def _fit(self) -> tuple[Callable, Callable]:
        return source_fit(self.run, self.split)

    def _loss_and_gradient(self, coefficients: Coefficients) -> tuple[float, np.ndarray]:
        loss, gradient = self._fit[0](self._recorded(coefficients))
        return loss, gradient[self._ends]

    @functools.cached_property
    def _stored_curves(self) -> Curves:
        """The source curves with one entry per stored segment, whose neighbours were joined when there were too many."""
        table = self.run.table[self._ends].copy()
        table["iterates"] = self.run.segments.iterates
        table["train_loss"] = np.bincount(self._block, weights=self.run.table["train_loss"] * self._share)
        return curves_from(table, self.run.settings["split"]["sources"])

    def _recorded(self, stored: Coefficients) -> Coefficients:
        """Coefficients over stored segments as they are over recorded ones: the same average, and a note that says so."""
        if self._ends.all():
            return stored
        values = np.asarray(stored)[self._block] * (self._ends if stored.of == "end" else self._share)
        ends = None if stored.ends is None else stored.ends[self._block] * self._ends
        note = f"{stored.note} (of {len(stored)} stored segments)"
        if stored.of == "end":
            steps = self.run.segments.edges[np.flatnonzero(stored)]
            note = f"{stored.note} (of {len(stored)} stored segments: iterates {', '.join(map(str, steps))})"
        return Coefficients(values, **{**stored.notes, "ends": ends, "note": note})


def choices_table(run, choices: Mapping[str, Coefficients | NoWindow]) -> pd.DataFrame:
    """What each strategy picked on one run, a row each: the results of ``choose`` (or ``run.choices``) for reading.

    Columns: ``strategy`` (label), ``begin``, ``end`` (steps; iterates begin < i <= end carry weight), ``iterates`` (how many
    carry weight), ``of`` ("mean" of segments, "end" iterates or "both"), ``initial`` (coefficient of the initial parameters),
    ``magnitude`` (sum of absolute coefficients: 1 but for points beyond the iterates), ``displaced`` (the share of them that merged
    storage moves to the nearest stored segment; 0 is exact between segments),
    ``chosen_by``, ``evaluations`` (averages evaluated on source validation to choose), ``picked`` (a sentence), and
    ``reason`` where there is no window. ``coefficients`` holds the array itself, None where there is none.
    """
    curves, rows = run.source_curves, []
    for label, choice in choices.items():
        if isinstance(choice, NoWindow):
            row = {"strategy": label, "chosen_by": choice.chosen_by, "evaluations": choice.evaluations}
            rows.append(row | {"reason": str(choice), "coefficients": None})
            continue
        row = {"strategy": label, "of": choice.of if choice.ends is None else "both", "initial": choice.initial}
        row |= {"magnitude": choice.magnitude, "displaced": run.displaced(choice), "chosen_by": choice.chosen_by}
        row |= {"evaluations": choice.evaluations, "picked": choice.note, "coefficients": np.asarray(choice)}
        means, ends = (part != 0 for part in choice.parts.values())
        if means.any() or ends.any():
            row |= zip(("begin", "end"), extent(curves, choice))
            row |= {"iterates": int(curves.iterates[means].sum() + np.sum(ends & ~means))}
        rows.append(row)
    names = (
        "strategy begin end iterates of initial magnitude displaced chosen_by evaluations picked reason coefficients"
    )
    table = pd.DataFrame(rows, columns=names.split())
    return table.astype({"begin": "Int64", "end": "Int64", "iterates": "Int64"})


def halves(examples: Examples, *, seed: int) -> tuple[Examples, Examples]:
    """Two disjoint halves of a validation part, stratified by class and kept apart by original."""
    rng, first = np.random.default_rng(seed), np.zeros(len(examples), dtype=bool)
    for label in np.unique(examples.labels):
        originals = np.unique(examples.originals[examples.labels == label])
        chosen = rng.permutation(originals)[: (len(originals) + int(rng.integers(2))) // 2]
        first |= np.isin(examples.originals, chosen) & (examples.labels == label)
    return examples.take(np.flatnonzero(first)), examples.take(np.flatnonzero(~first))


def source_fit(run, split: Split | None = None) -> tuple[Callable, Callable]:
    """``(loss_and_gradient, held_out_loss)`` for ``averaging.learned``, on a nested split of source validation.

    The loss is the cross-entropy of the average, mean over source domains, nats. Its derivative for segment k is the inner
    product of the loss's gradient with segment k's mean. BatchNorm statistics are held fixed in that derivative: the
    true loss decides whether a step is taken, so this bends the direction a little and never the result's claim.

    Raises ``NoWindow`` where a domain has too few validation images for two halves.
    """
    network = Network(run, split, roles=())
    trained = {name: p for name, p in network.model.named_parameters() if p.requires_grad}
    parts = {d: halves(e, seed=zlib.crc32(d.encode())) for d, e in network.split.val.items()}
    for domain, pair in parts.items():
        if not all(map(len, pair)):
            raise NoWindow(
                f"learned fits on one half of source validation and stops on the other: the {sum(map(len, pair))} validation "
                f"images of {domain} make no two halves. Hold out more (leave_one_out(validation=...)), or use wakd(begin=...)."
            )
    fitting, held_out = zip(*parts.values())

    def terms(coefficients, data: Sequence[Examples], *, batch_size: int = 128) -> Iterator[Tensor]:
        """What each batch adds to the loss of an average: domains weigh the same, and images in a domain."""
        model = network.take(coefficients)
        for examples in data:
            for i in range(0, len(examples), batch_size):
                images = torch.as_tensor(examples.images[i : i + batch_size]).to(network.device)
                labels = torch.as_tensor(examples.labels[i : i + batch_size]).to(network.device)
                found = F.cross_entropy(model(to_float(images), maps=False).logits, labels, reduction="sum")
                yield found / (len(examples) * len(data))

    def loss_and_gradient(coefficients) -> tuple[float, np.ndarray]:
        loss, slopes = 0.0, [torch.zeros_like(p) for p in trained.values()]
        for term in terms(coefficients, fitting):
            torch._foreach_add_(slopes, torch.autograd.grad(term, [*trained.values()], materialize_grads=True))
            loss += term.item()
        slopes = {name: slope.cpu().double() for name, slope in zip(trained, slopes)}
        per_stored = np.zeros(len(run.segments))
        for position in range(len(run.segments)):
            mean = run.segments.read(position, "mean")
            per_stored[position] = sum((slopes[n] * mean[n].double()).sum().item() for n in slopes)
        return loss, per_stored[run.stored_in]

    @torch.no_grad()
    def held_out_loss(coefficients) -> float:
        return sum(term.item() for term in terms(coefficients, held_out))

    return loss_and_gradient, held_out_loss

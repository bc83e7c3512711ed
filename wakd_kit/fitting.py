"""What strategies that search need from torch: scores, and for ``learned`` a loss, its gradient and a held-out half."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from . import averaging
from .averaging import Coefficients, NoWindow
from .domains import Examples, Split
from .evaluation import source_score
from .models import batchnorms, recalibrate
from .views import to_float


def choose(run, wanted: Sequence[str | Mapping], split: Split | None = None) -> dict[str, Coefficients | NoWindow]:
    """``averaging.choose`` on a recorded run, with the evaluations on source validation that its strategies ask for.

    Nothing is loaded or evaluated for strategies that read curves alone. Returns {label: coefficients, or the reason for none}.
    """
    score = functools.cache(lambda: source_score(run, split))
    fit = functools.cache(lambda: source_fit(run, split))
    return averaging.choose(
        run.source_curves,
        wanted,
        score=lambda c: score()(c),
        loss_and_gradient=lambda c: fit()[0](c),
        held_out_loss=lambda c: fit()[1](c),
    )


def choices_table(run, choices: Mapping[str, Coefficients | NoWindow]) -> pd.DataFrame:
    """What each strategy picked on one run, a row each: the results of ``choose`` (or ``run.choices``) for reading.

    Columns: ``strategy`` (label), ``begin``, ``end`` (steps; iterates begin < i <= end carry weight), ``iterates`` (how many
    carry weight), ``of`` ("mean" of segments or "end" iterates), ``initial`` (coefficient of the initial parameters),
    ``chosen_by``, ``evaluations`` (averages evaluated on source validation to choose), ``picked`` (a sentence), and
    ``reason`` where there is no window. ``coefficients`` holds the array itself, None where there is none.
    """
    curves, rows = run.source_curves, []
    for label, choice in choices.items():
        if isinstance(choice, NoWindow):
            row = {"strategy": label, "chosen_by": choice.chosen_by, "evaluations": choice.evaluations}
            rows.append(row | {"reason": str(choice), "coefficients": None})
            continue
        used = np.flatnonzero(choice)
        row = {"strategy": label, "of": choice.of, "initial": choice.initial, "chosen_by": choice.chosen_by}
        row |= {"evaluations": choice.evaluations, "picked": choice.note, "coefficients": np.asarray(choice)}
        if len(used):
            ends = choice.of == "end"
            row |= {"begin": int(curves.ends[used[0]] if ends else curves.begins[used[0]]) - 1}
            row |= {"end": int(curves.ends[used[-1]])}
            row |= {"iterates": len(used) if ends else int(curves.iterates[used].sum())}
        rows.append(row)
    columns = ("strategy", "begin", "end", "iterates", "of", "initial", "chosen_by", "evaluations", "picked", "reason")
    table = pd.DataFrame(rows, columns=[*columns, "coefficients"])
    return table.astype({"begin": "Int64", "end": "Int64", "iterates": "Int64"})


def halves(examples: Examples, *, seed: int) -> tuple[Examples, Examples]:
    """Two disjoint halves of a validation part, stratified by class and kept apart by original."""
    rng, first = np.random.default_rng(seed), np.zeros(len(examples), dtype=bool)
    for label in np.unique(examples.labels):
        originals = np.unique(examples.originals[examples.labels == label])
        chosen = rng.permutation(originals)[: (len(originals) + int(rng.integers(2))) // 2]
        first |= np.isin(examples.originals, chosen) & (examples.labels == label)
    return examples.take(np.flatnonzero(first)), examples.take(np.flatnonzero(~first))


def source_fit(run, split: Split | None = None, *, seed: int = 0) -> tuple[Callable, Callable]:
    """``(loss_and_gradient, held_out_loss)`` for ``averaging.learned``, on a nested split of source validation.

    The loss is the cross-entropy of the average, mean over source domains, nats. Its derivative for segment k is the inner
    product of the loss's gradient with segment k's mean. BatchNorm statistics are held fixed in that derivative: the
    true loss decides whether a step is taken, so this bends the direction a little and never the result's claim.
    """
    split = split or run.split
    run.check_split(split)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = run.blank_model().to(device)
    trained = dict(model.named_parameters())
    calibrates = run.settings["batchnorm"] == "recalibrate" and bool(batchnorms(model))
    batches = run.calibration_batches(split, device) if calibrates else []
    parts = [halves(examples, seed=seed) for examples in split.val.values()]
    fitting, held_out = ([_on(device, pair[side]) for pair in parts] for side in (0, 1))

    def load(coefficients) -> None:
        model.load_state_dict(run.average(coefficients, split=split, batchnorm="average" if calibrates else None))
        model.eval()
        recalibrate(model, batches) if calibrates else None

    def loss(data: list[tuple[Tensor, Tensor]]) -> Tensor:
        return torch.stack([F.cross_entropy(model(x, maps=False).logits, y) for x, y in data]).mean()

    def loss_and_gradient(coefficients) -> tuple[float, np.ndarray]:
        load(coefficients)
        value = loss(fitting)
        slopes = dict(zip(trained, torch.autograd.grad(value, list(trained.values()))))
        per_stored = np.zeros(len(run.segments))
        for position in range(len(run.segments)):
            mean = run.segments.read(position, "mean")
            per_stored[position] = sum((slopes[n].cpu().double() * mean[n].double()).sum().item() for n in slopes)
        block = np.searchsorted(run.segments.edges, run.table["step"].to_numpy())
        return value.item(), per_stored[block]

    @torch.no_grad()
    def held_out_loss(coefficients) -> float:
        load(coefficients)
        return loss(held_out).item()

    return loss_and_gradient, held_out_loss


def _on(device: torch.device, examples: Examples) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(np.ascontiguousarray(examples.images)).to(device)
    return to_float(images), torch.from_numpy(examples.labels).to(device)

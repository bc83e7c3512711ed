"""Strategies that try candidate averages on source validation before they choose: SMA, IIDMax, soups, learned.

``score(coefficients) -> float`` is the source-validation accuracy of the averaged model, higher is better; the
caller evaluates it (and remembers it), so nothing here touches a parameter. Candidates are ``Coefficients``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..names import one_of, real_number, whole_number
from .curves import Coefficients, Curves, NoWindow, as_curves
from .fitting import fitting
from .spans import (
    describe,
    ending_at,
    first_after,
    moved,
    over_ends,
    over_iterates,
    over_segments,
    starting_at,
    step_of,
)

Score = Callable[[Coefficients], float]


def sma(
    curves: Curves | None = None,
    *,
    score: Score,
    start: int | float | None = None,
    frequency: int | None = None,
    exact: str | None = None,
    **series: Any,
) -> Coefficients:
    """The simple moving average at its best: the mean of the iterates after ``start``, up to the best checkpoint.

    Arpit et al., "Ensemble of Averages" (2022), section 2. Each checkpoint's average is scored on source
    validation, and the best is returned, ties to the earliest; a checkpoint is a segment end.

    start      a step (int) or a fraction of the run; the first whole segment after it begins. None is 100 as published, and a
               tenth of a run that is shorter than 1,000 steps; with ``exact`` what that code has, 100, ERM++ 600
    frequency  score only every ``frequency`` steps and at the last one; None scores at every segment end
    exact      how the published code counts, which matters for short runs:
               "published"  salesforce/ensemble-of-averages@19183f1c: iterate start - 1 counts too (start <= 1: the
                            initial parameters do, in ``coefficients.initial``); checkpoints fall at steps 1,
                            1 + frequency, ... and at the last; those before ``start`` offer their raw iterate,
                            which is returned where it scores best, or where ``start`` is never reached: the note says so
               "ermpp"      facebookresearch/DomainBed@b93c22a1, ERM++: the same count
               "diwa"       alexrame/diwa@4bfe468d: as published, but iterate ``start`` counts twice and start - 1
                            not at all, since the average shares its storage with the model until then

    Raises ``ValueError`` when ``start`` leaves nothing to average, without exact, or when exact needs an edge that was not
    recorded.
    """
    curves = as_curves(curves, **series)
    one_of("exact", exact, (None, "published", "ermpp", "diwa"))
    if frequency is not None:
        whole_number("frequency", frequency, 1, "steps between checkpoints")
    if start is None:
        start = fitting("sma", curves.steps, exact)["start"]
    if exact is not None:
        return _best(_sma_published(curves, step_of(curves, start, "start"), frequency, exact), score)
    first = first_after(curves, start, "start")
    note = moved(curves, start, first, "start")
    due = [frequency is None or end % frequency == 0 or end == curves.steps for end in curves.ends]
    ends = [segment for segment in range(first, len(curves)) if due[segment]]
    return _best((over_iterates(curves, first, segment, "sma", note) for segment in ends), score)


def iidmax(curves: Curves | None = None, *, score: Score, **series: Any) -> Coefficients:
    """The average since the best raw iterate, at its own best: IIDMax of khanrc/swad@252190eb.

    An average restarts at every segment whose last iterate has a new best source-validation accuracy, and grows by
    one segment (all alike) at every validation; of all these averages the one with the best score is returned. Only
    strictly better values count, so ties go to the earliest. Reads "val_accuracy", scores once per segment; a score that
    is no accuracy may be negative.

    Raises ``NoWindow`` where the published code crashes (accuracy 0 at the first validation) or ends without a model
    (every average scored 0).
    """
    curves = as_curves(curves, **series)
    accuracy = curves.series("val_accuracy")
    if accuracy[0] <= 0:
        raise NoWindow(
            "iidmax found no window: validation accuracy is 0 at the first segment, where its average should begin. "
            "Train longer before the first segment ends, or use wakd(begin=...)."
        )
    best_accuracy, best_score, chosen, start, values = 0.0, -np.inf, None, 0, []
    for segment, raw in enumerate(accuracy):
        if raw > best_accuracy:
            best_accuracy, start = raw, segment
        candidate = over_segments(curves, start, segment, "iidmax")
        values.append(scored(score, candidate))
        if values[-1] > best_score:
            best_score, chosen = values[-1], candidate
    if not any(values):
        raise NoWindow(
            f"iidmax found no window: each of its {len(curves)} averages scored 0 on source validation. "
            "Recalibrate BatchNorm before scoring, or use wakd(begin=...)."
        )
    return chosen


def greedy_soup(curves: Curves | None = None, *, score: Score, **series: Any) -> Coefficients:
    """The greedy soup of a run's last iterates, or of several runs: one that does not help is left out.

    Wortsman et al., "Model soups" (2022), recipe 1, as mlfoundations/model-soups@d5398f18: candidates by their own
    source-validation accuracy, best first (of equals the later first), each kept if the mean of all kept then
    scores strictly higher. Across runs that share their initial parameters, give one accuracy per run:
    ``greedy_soup(val_accuracy=[0.91, 0.89, 0.93], score=score)``; the coefficients then weigh runs.

    Reads "val_accuracy" for the order and, as published, as the score to beat of the first candidate: it has to be
    the accuracy that ``score`` measures. Scores every candidate but the first.
    """
    curves = as_curves(curves, **series)
    accuracy = curves.series("val_accuracy")
    first, *others = np.argsort(accuracy, kind="stable")[::-1]
    return greedy(curves, int(first), float(accuracy[first]), others, score, operator.gt, "greedy_soup")


def greedy(
    curves: Curves,
    first: int,
    best: float,
    others: Iterable[int],
    score: Score,
    better: Callable[[float, float], bool],
    strategy: str,
) -> Coefficients:
    """``first``, which scores ``best``, and of ``others`` in order each with ``better(score with it, best so far)``."""
    kept = [first]
    for candidate in map(int, others):
        trial = [*kept, candidate]
        value = scored(score, over_ends(curves, trial, strategy, _members(trial)))
        if better(value, best):
            kept, best = trial, value
    return over_ends(curves, kept, strategy, f"kept {len(kept)} of {len(curves)}: {_members(kept)}")


def learned(
    curves: Curves | None = None,
    *,
    loss_and_gradient: Callable[[Coefficients], tuple[float, np.ndarray]],
    held_out_loss: Callable[[Coefficients], float],
    begin: int | float = 0.0,
    rounds: int = 100,
    patience: int = 10,
    rate: float = 1.0,
    **series: Any,
) -> Coefficients:
    """Coefficients of segment means fitted on one half of source validation, stopped on the other half.

    Exponentiated gradient (Kivinen and Warmuth, 1997) keeps them on the simplex: each round multiplies every
    coefficient by exp(-rate * slope), the slope centred and scaled to at most 1, and normalises. The rate halves
    when the fitted loss would rise, and grows otherwise, so the fitted loss never rises. Of all rounds the one with
    the lowest held-out loss is returned; the uniform start is among them, so by that loss this is never worse than
    ``wakd(begin=...)``. Deterministic if both callables are.

    loss_and_gradient  coefficients -> (loss of the averaged model on the fitting half, its gradient, (S,)). The
                       gradient for segment k is the inner product of the loss gradient with segment k's mean.
    held_out_loss      coefficients -> loss on the other half, which the fit never sees
    begin              only segments after this step or fraction take part
    rounds, patience   at most so many rounds; stop after ``patience`` of them without a better held-out loss
    rate               length of the first step

    Raises ``NoWindow`` where a loss or a derivative is not finite, as after training diverged.
    """
    curves = as_curves(curves, **series)
    whole_number("rounds", rounds, 0, "steps of the fit")
    whole_number("patience", patience, 1, "rounds without a better held-out loss")
    if real_number("rate", rate, 0, meaning="the length of the first step") == 0:
        raise ValueError("rate=0 would leave the coefficients uniform; use wakd(begin=...) for that.")
    first = first_after(curves, begin)
    current = chosen = over_iterates(curves, first, len(curves) - 1, "learned")
    loss, gradient = _fitted(loss_and_gradient, current)
    held_out = chosen_loss = scored(held_out_loss, current, "held_out_loss")
    chosen_round = waited = 0
    for fitted in range(1, rounds + 1):
        slope = gradient - current @ gradient
        scale = np.abs(slope[first:]).max()
        if waited == patience or scale == 0 or rate < 1e-8:
            break
        values = np.zeros(len(curves))
        exponents = -rate * slope[first:] / scale
        values[first:] = current[first:] * np.exp(exponents - exponents.max())
        trial = Coefficients(values / values.sum(), strategy="learned")
        trial_loss, trial_gradient = _fitted(loss_and_gradient, trial)
        if trial_loss > loss:
            rate /= 2
            continue
        current, loss, gradient, rate = trial, trial_loss, trial_gradient, rate * 1.5
        held_out = scored(held_out_loss, current, "held_out_loss")
        waited += 1
        if held_out < chosen_loss:
            chosen, chosen_loss, chosen_round, waited = current, held_out, fitted, 0
    note = f"{describe(curves, first, len(curves) - 1)}, round {chosen_round}, held-out loss {chosen_loss:.4g}"
    return Coefficients(chosen, strategy="learned", note=note + moved(curves, begin, first))


def _sma_published(curves: Curves, start: int, frequency: int | None, exact: str) -> Iterable[Coefficients]:
    """The average at every checkpoint, as the code of ``exact`` holds it then."""
    asked = f"sma(start={start}, exact={exact!r})"
    if frequency is None:
        checkpoints = range(len(curves))
    else:
        steps = sorted({*range(1, curves.steps + 1, frequency), curves.steps})
        checkpoints = [ending_at(curves, step, f"{asked} with frequency={frequency}") for step in steps]
    for segment in checkpoints:
        end = curves.ends[segment]
        if end < start:
            yield over_ends(curves, [segment], "sma", f"iterate {end} alone, before the start at {start}: no average")
            continue
        first, twice, initial = 0, 0, 0
        if start <= 1:
            initial = 1
        elif exact == "diwa":
            first = starting_at(curves, start, asked)
            ending_at(curves, start, asked)
            twice = 1
        else:
            first = starting_at(curves, start - 1, asked)
        counts = np.zeros(len(curves))
        counts[first : segment + 1] = curves.iterates[first : segment + 1]
        counts[first] += twice
        total = counts.sum() + initial
        note = f"{describe(curves, first, segment)} (as {exact}{', with the initial parameters' if initial else ''})"
        yield Coefficients(counts / total, initial=initial / total, strategy="sma", note=note)


def _members(kept: list[int]) -> str:
    return ", ".join(str(member + 1) for member in kept)


def _best(candidates: Iterable[Coefficients], score: Score) -> Coefficients:
    """The candidate with the highest score, of equals the first."""
    return max(candidates, key=lambda candidate: scored(score, candidate))


def _fitted(loss_and_gradient: Callable, coefficients: Coefficients) -> tuple[float, np.ndarray]:
    loss, gradient = loss_and_gradient(coefficients)
    gradient = np.asarray(gradient, dtype=np.float64)
    if gradient.shape != coefficients.shape:
        raise ValueError(
            f"loss_and_gradient gives a loss and one derivative per segment, ({len(coefficients)},); "
            f"got a gradient of shape {gradient.shape}."
        )
    broken = np.sum(~np.isfinite(gradient))
    if broken or not np.isfinite(loss):
        raise NoWindow(
            f"loss_and_gradient gives a loss of {loss} and {broken} derivatives that are no numbers for the average of "
            f"{coefficients.note or 'a candidate'}: it cannot be fitted."
        )
    return float(loss), gradient


def scored(score: Score, candidate: Coefficients, name: str = "score") -> float:
    """The score of a candidate; ``NoWindow`` where it is not finite and so cannot be compared."""
    value = float(score(candidate))
    if not np.isfinite(value):
        raise NoWindow(
            f"{name} is {value} for the average of {candidate.note or 'a candidate'}: it cannot be compared."
        )
    return value

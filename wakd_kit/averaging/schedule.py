"""Strategies that follow a schedule: which segments count was settled before training. They read no curve at all.

Each takes a run's ``Curves`` (or bare lists, ``wakd(iterates=[50] * 40)``) and returns ``Coefficients``: float64,
one per segment, non-negative, summing to 1. Where a setting is a moment of training, an int is a step counted
from 1 and a float a fraction of the run. "Begin at s" means: the iterates after step s. A segment belongs if all
its iterates do, so a moment inside a segment moves to that segment's end, and the note says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..names import one_of, real_number, whole_number
from .curves import Coefficients, Curves, as_curves
from .fitting import fitting
from .spans import describe, ending_at, first_after, moved, over_ends, over_iterates, starting_at, step_of


def last(curves: Curves | None = None, *, recalibrated: bool = False, **series: Any) -> Coefficients:
    """The last iterate: what a run without averaging returns. One-hot, of last iterates.

    Averages have their BatchNorm measured again on source batches where the run's policy says so, and a raw iterate keeps its own
    statistics. ``recalibrated``: its are measured again too, which tells what of a gain is averaging and what is BatchNorm.
    """
    curves = as_curves(curves, **series)
    chosen = over_ends(curves, [-1], "last", f"iterate {curves.steps}" + ", BatchNorm measured again" * recalibrated)
    return Coefficients(chosen, **{**chosen.notes, "recalibrated": recalibrated}) if recalibrated else chosen


def uniform(curves: Curves | None = None, **series: Any) -> Coefficients:
    """The mean of every iterate of the run, segments in proportion to their iterates (Polyak-Ruppert averaging)."""
    curves = as_curves(curves, **series)
    return over_iterates(curves, 0, len(curves) - 1, "uniform")


def window(
    curves: Curves | None = None, *, begin: int | float = 0, end: int | float | None = None, **series: Any
) -> Coefficients:
    """The mean of the iterates after ``begin``, up to and including ``end`` (None: the last).

    Both are a step (int) or a fraction of the run (float). Whole segments only: one that ``begin`` or ``end`` cuts
    is left out. ``ValueError`` when no whole segment lies between them.
    """
    curves = as_curves(curves, **series)
    first = first_after(curves, begin)
    stop = curves.steps if end is None else step_of(curves, end, "end")
    if stop > curves.steps:
        raise ValueError(f"end={end} lies beyond this run of {curves.steps} steps.")
    final = int(np.searchsorted(curves.ends, stop, side="right")) - 1
    if final < first:
        raise ValueError(
            f"No whole segment lies between begin={begin} and end={end}: the first after begin holds iterates "
            f"{curves.begins[first]}-{curves.ends[first]}. Choose a later end or an earlier begin."
        )
    cut = "" if curves.ends[final] == stop else f" (end={end} lies inside segment {final + 2})"
    return over_iterates(curves, first, final, "window", moved(curves, begin, first) + cut)


def wakd(
    curves: Curves | None = None, *, begin: int | float | None = None, exact: str | None = None, **series: Any
) -> Coefficients:
    """The mean of every iterate after ``begin``: weight-averaged knowledge distillation.

    The method of Berezovskiy and Morozov, "Weight Averaging Improves Knowledge Distillation under Domain Shift" (2023):
    no validation decides anything. Without a begin it is the paper's tenth (5,000 of 50,000 steps) in runs of 5,000 steps and
    more and with ``exact``, and 0.6 in shorter ones: see ``fitting``.

    ``exact="published"`` counts iterate ``begin`` itself too, as vorobeevich/distillation-in-dg@e32e1098 does (it
    copies the model after update ``begin``): begin..end inclusive, one iterate more. That iterate has to be the
    first of its segment; if it is not, the error names the edge to declare when training.

    Raises ``ValueError`` when ``begin`` is not before the end of the run (the published trainer crashes at the end
    of training instead), naming the run's length.

    >>> wakd(iterates=[10, 10, 10, 10], begin=0.5).tolist()
    [0.0, 0.0, 0.5, 0.5]
    """
    curves = as_curves(curves, **series)
    one_of("exact", exact, (None, "published"))
    if begin is None:
        begin = fitting("wakd", curves.steps, exact)["begin"]
    if exact is None:
        first = first_after(curves, begin)
        return over_iterates(curves, first, len(curves) - 1, "wakd", moved(curves, begin, first))
    first = starting_at(curves, step_of(curves, begin, "begin"), f"wakd(begin={begin}, exact='published')")
    return over_iterates(curves, first, len(curves) - 1, "wakd", " (as published)")


def ema(
    curves: Curves | None = None,
    *,
    decay: float | None = None,
    begin: int | float = 0,
    warmup: bool = False,
    warmup_gamma: float = 1.0,
    warmup_power: float = 2 / 3,
    from_initial: bool = False,
    **series: Any,
) -> Coefficients:
    """An exponential moving average of the iterates after ``begin``, chosen after training.

    average <- d * average + (1 - d) * iterate at every step, where the first step copies (d = 0), so that of n
    iterates the first gets decay^(n-1) and iterate i > 0 gets (1 - decay) decay^(n-1-i). That is
    ``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn(decay)``, and timm's ``ModelEmaV3`` called
    with its step.

    decay         per iterate, in [0, 1]; None remembers the last sixth of the run, at most 1,000 steps (``fitting``): 0.99 of 600
                  steps, 0.999 of 6,000 and more
    warmup        timm's ramp: the t-th step after the first uses min(decay, 1 - (1 + t/warmup_gamma)^-warmup_power),
                  so a short run is not ruled by its first iterates; gamma = power = 1, decay = 1 is the plain mean
    from_initial  the average starts as the initial parameters, as ``ModelEmaV3`` does when called without a step;
                  they get decay^n, in ``coefficients.initial``. Needs begin=0; a warm-up still begins by copying

    A segment receives the sum of its iterates' coefficients and applies it to their mean. That is the moving average with
    each iterate replaced by its segment's mean: exact for segments of one iterate, close while segments are short beside
    1/(1 - decay) steps. A run that declared these settings kept the moving average itself, and ``run.average`` answers
    with that one.
    """
    curves = as_curves(curves, **series)
    first = first_after(curves, begin)
    iterates = curves.iterates[first:]
    decay = fitting("ema", curves.steps)["decay"] if decay is None else decay
    d = ema_recurrence(
        curves.steps,
        decay=decay,
        begin=int(curves.begins[first]) - 1,
        warmup=warmup,
        warmup_gamma=warmup_gamma,
        warmup_power=warmup_power,
        from_initial=from_initial,
    ).decays
    kept_later = np.append(np.cumprod(d[:0:-1])[::-1], 1.0)  # product of d over all later steps
    per_iterate = (1 - d) * kept_later

    values = np.zeros(len(curves))
    values[first:] = np.add.reduceat(per_iterate, np.cumsum(iterates) - iterates)
    ramp = " with warm-up" + f" {warmup_gamma:.12g}^-{warmup_power:.12g}" * ((warmup_gamma, warmup_power) != (1, 2 / 3))
    note = f"{describe(curves, first, len(curves) - 1)}, decay {decay:.12g}{ramp if warmup else ''}"
    note += moved(curves, begin, first)
    if kept_later[0] > 0.1:
        where = "the initial parameters" if from_initial else f"iterate {curves.begins[first]}"
        note += f"; too long for this run: {kept_later[0] * (d[0] if from_initial else 1):.0%} of it is {where}"
    return Coefficients(values, initial=float(d[0] * kept_later[0]), strategy="ema", note=note)


@dataclass(frozen=True)
class Recurrence:
    """An average that is updated at every step after ``begin``: average <- d average + (1 - d) iterate.

    decays  d of each of those steps, (steps - begin,); the average before the first is the initial parameters
    """

    begin: int
    decays: np.ndarray


def ema_recurrence(
    steps: int,
    *,
    decay: float | None = None,
    begin: int = 0,
    warmup: bool = False,
    warmup_gamma: float = 1.0,
    warmup_power: float = 2 / 3,
    from_initial: bool = False,
) -> Recurrence:
    """The update that ``ema`` with these settings stands for in a run of so many steps; ``begin`` is a step here."""
    decay = fitting("ema", steps)["decay"] if decay is None else decay
    decay = real_number("decay", decay, 0, 1, meaning="what the average keeps at each iterate")
    real_number("warmup_power", warmup_power, 0, meaning="the exponent of the warm-up")
    if real_number("warmup_gamma", warmup_gamma, 0, meaning="the time scale of the warm-up in steps") == 0:
        raise ValueError("warmup_gamma divides the step and has to be above 0; got 0.")
    if from_initial and begin:
        raise ValueError(f"from_initial starts at the initial parameters, so begin has to be 0; got begin={begin}.")
    t = np.arange(steps - begin)
    d = np.minimum(decay, 1 - (1 + t / warmup_gamma) ** -warmup_power) if warmup else np.full(len(t), decay)
    if not from_initial:
        d[0] = 0.0
    return Recurrence(begin, d)


def swa(
    curves: Curves | None = None, *, start: int | float = 0.75, period: int | None = None, **series: Any
) -> Coefficients:
    """The mean of last iterates sampled every ``period`` steps, from ``start`` on: stochastic weight averaging.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (2018), section 3; as in
    timgaripov/swa@411b2fca the sample at ``start`` itself counts. Samples are taken at the first segment end at or
    after ``start`` and every ``period`` steps after it (None: at every segment end). The learning rate that SWA
    asks for is a matter of training and not of this function.

    Raises ``ValueError`` when ``start`` lies beyond the run or a sample would fall inside a segment.
    """
    curves = as_curves(curves, **series)
    step = step_of(curves, start, "start")
    if step > curves.steps:
        raise ValueError(f"start={start} lies beyond this run of {curves.steps} steps: nothing would be sampled.")
    picked = np.arange(np.searchsorted(curves.ends, step), len(curves))
    if period is not None:
        whole_number("period", period, 1, "steps between samples")
        samples = range(curves.ends[picked[0]], curves.steps + 1, period)
        picked = np.array([ending_at(curves, sample, f"swa(start={start}, period={period})") for sample in samples])
    return over_ends(curves, picked, "swa", _iterates(curves, picked))


def lawa(curves: Curves | None = None, *, k: int = 6, share: float | None = None, **series: Any) -> Coefficients:
    """The mean of the last ``k`` checkpoints, a checkpoint being a segment's last iterate.

    Latest weight averaging: Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest
    Weight Averaging" (2022), with one checkpoint per epoch and k = 6. Written from the paper; not compared with its
    authors' code.

    share  in place of ``k``: the checkpoints of the last share of the run, such as the 0.01 of Ajroldi et al., "When, Where
           and Why to Average Weights?" (2025, arXiv 2502.06761).

    Raises ``ValueError`` when the run has fewer than ``k`` segments, or the share holds no checkpoint but the last.
    """
    curves = as_curves(curves, **series)
    k = whole_number("k", k, 1, "checkpoints (segment ends)")
    if share is not None:
        share = real_number("share", share, 0, 1, meaning="the last part of the run")
        k = int(np.sum(curves.ends > curves.steps * (1 - share) + 1e-9))
        if k < 2:
            raise ValueError(
                f"lawa(share={share:g}) is the last {share * curves.steps:g} of {curves.steps} steps, and only one segment ends "
                f"there. Choose a share above {curves.iterates[-1] / curves.steps:.3g}, or train with shorter segments."
            )
    if k > len(curves):
        raise ValueError(f"lawa averages the last k={k} segment ends; this run has {len(curves)}. Choose a smaller k.")
    picked = np.arange(len(curves) - k, len(curves))
    return over_ends(curves, picked, "lawa", _iterates(curves, picked))


def wise_ft(curves: Curves | None = None, *, alpha: float = 0.75, **series: Any) -> Coefficients:
    """``(1 - alpha) * initial + alpha * last`` parameters: WiSE-FT, between a pretrained model and its fine-tuning.

    Wortsman et al., "Robust fine-tuning of zero-shot models" (2022), section 3. The initial parameters' share is in
    ``coefficients.initial``.
    """
    curves = as_curves(curves, **series)
    alpha = real_number("alpha", alpha, 0, 1, meaning="the share of the last iterate")
    values = np.zeros(len(curves))
    values[-1] = alpha
    note = f"iterate {curves.steps} at {alpha:g}, initial parameters at {1 - alpha:g}"
    return Coefficients(values, of="end", initial=1 - alpha, strategy="wise_ft", note=note)


def _iterates(curves: Curves, picked: np.ndarray) -> str:
    """``iterates 800, 850, ..., 1000``: the sampled last iterates."""
    steps = [str(step) for step in curves.ends[picked]]
    if len(steps) > 4:
        steps = [*steps[:2], "...", steps[-1]]
    return f"iterate{'s' if len(picked) > 1 else ''} {', '.join(steps)} ({len(picked)} in all)"

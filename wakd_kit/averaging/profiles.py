"""Averages whose weight follows a smooth profile over training: power functions, and what imitates a decaying rate.

A profile is a function F that rises from F(0) = 0 to F(1) = 1 over the part of the run that is averaged: up to the
fraction x of it, iterates receive F(x) of the weight. A segment between the fractions a and b gets F(b) - F(a), for the
mean of its iterates: exact where F is straight between a and b, and close while segments are short beside the part. A run
that declared a profile (``declare=[{"name": "power", ...}]``) kept the average itself, iterate by iterate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..names import did_you_mean, is_number, real_number
from .curves import Coefficients, Curves, as_curves
from .schedule import Recurrence, ema_recurrence
from .spans import describe, first_after, moved

WIDEST = 1 / math.sqrt(12)  # relative length of the plain mean of all iterates
SHAPES = ("linear", "cosine", "1-sqrt")


def power(
    curves: Curves | None = None,
    *,
    gamma: float | None = None,
    sigma_rel: float | None = None,
    begin: int | float = 0,
    **series: Any,
) -> Coefficients:
    """The iterates after ``begin``, the t-th of n in proportion to t^gamma: the moving average of EDM2, chosen after training.

    Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models" (2024, arXiv 2312.02696), section 3.1:
    average <- b average + (1 - b) iterate with b = (1 - 1/t)^(gamma + 1), whose coefficient of iterate t is
    (t/n)^(gamma + 1) - ((t - 1)/n)^(gamma + 1). Early iterates vanish and no warm-up is needed. gamma = 0 is the plain mean,
    1 weighs linearly (the weighted moving average of arXiv 2505.12082); schedule-free's and Shamir and Zhang's
    polynomial-decay averages are of the same family.

    gamma      the exponent, at least 0; 1 where neither is given
    sigma_rel  in its place the length of the average as EDM2 states it: the profile's standard deviation over the length of
               the averaged part, above 0 and at most 0.2887 (gamma = 0)

    EDM2 reconstructs a profile from two moving averages kept along training; here it is read off the record, whose
    coefficients are never negative. ``ValueError`` for both settings, or one out of bounds.

    >>> power(iterates=[1, 1, 2], gamma=0).tolist()
    [0.25, 0.25, 0.5]
    """
    curves = as_curves(curves, **series)
    rising, name = _power(gamma, sigma_rel)
    return _profile(curves, rising, begin, "power", name)


def annealed(
    curves: Curves | None = None,
    *,
    shape: str | Sequence[float] = "1-sqrt",
    begin: int | float = 0.1,
    **series: Any,
) -> Coefficients:
    """What the run might have reached, had its rate been decayed after ``begin``: a merge in place of a schedule.

    Tian et al., "WSM: Decay-Free Learning Rate Schedule via Checkpoint Merging" (2025, arXiv 2507.17634): iterate j is the
    start plus all updates until j, so an average of iterates weighs update i by w_i = sum of the coefficients from i on, as
    a rate decayed by w would have; turned around, c_j = w_j - w_(j+1). It holds exactly for the updates that were recorded;
    a real decay would have met other gradients. Meant for a run at a constant rate.

    shape  of the rate after ``begin``, x from 0 to 1: "linear" 1 - x, whose average is the plain mean (``wakd``); "cosine"
           (1 + cos(pi x)) / 2, whose average weighs the middle most; "1-sqrt" 1 - sqrt(x), which weighs the first iterates
           most; or a list of rates at equal distances, from 1 down to 0, straight lines between them

    ``ValueError`` for another shape: a rate that rises, or does not end at 0, is no average of these iterates.

    >>> annealed(iterates=[1] * 4, shape=[1, 1, 0], begin=0).tolist()
    [0.0, 0.0, 0.5, 0.5]
    """
    curves = as_curves(curves, **series)
    rising, name = _annealed(shape)
    return _profile(curves, rising, begin, "annealed", name)


def power_recurrence(
    steps: int, *, gamma: float | None = None, sigma_rel: float | None = None, begin: int = 0
) -> Recurrence:
    """The update that ``power`` with these settings stands for in a run of so many steps; ``begin`` is a step here."""
    return _recurrence(_power(gamma, sigma_rel)[0], steps, begin)


def annealed_recurrence(steps: int, *, shape: str | Sequence[float] = "1-sqrt", begin: int = 0) -> Recurrence:
    """The update that ``annealed`` with this shape stands for in a run of so many steps; ``begin`` is a step here."""
    return _recurrence(_annealed(shape)[0], steps, begin)


# averages that change from iterate to iterate: no edge keeps them exact, so a run that declares one keeps it itself
RECURRENCES = {"ema": ema_recurrence, "power": power_recurrence, "annealed": annealed_recurrence}


def gamma_of(sigma_rel: float) -> float:
    """The exponent of the power profile of this relative length: the largest root of g^3 + 7 g^2 + (16 - s^-2) g + 12 - s^-2."""
    length = real_number("sigma_rel", sigma_rel, 0, WIDEST + 1e-4, meaning="a length relative to the run")
    if length == 0:
        raise ValueError("sigma_rel=0 is no average but the last iterate; give a length above 0.")
    roots = np.roots([1, 7, 16 - length**-2, 12 - length**-2])
    return max(0.0, float(roots.real[np.abs(roots.imag) < 1e-6].max()))


def relative_length(curves: Curves, coefficients: Coefficients) -> float:
    """Standard deviation of the step that an average's weight lies at, over the length of the run: EDM2's sigma_rel of any
    average, so that moving averages of different kinds are compared at one length. Within a segment weight lies evenly, and
    the initial parameters lie at step 0. Raises ``ValueError`` for signed coefficients.

    >>> round(relative_length(as_curves(iterates=[25] * 4), power(iterates=[25] * 4, gamma=0)), 4)
    0.2887
    """
    if coefficients.signed:
        raise ValueError(
            f"{coefficients.strategy or 'A point'} has signed coefficients: it is no average, and has no length."
        )
    counts, ends = curves.iterates, curves.ends
    weights = np.concatenate([[coefficients.initial], *coefficients.parts.values()])
    steps = np.concatenate([[0], ends - (counts - 1) / 2, ends])
    spread = np.concatenate([[0], (counts**2 - 1) / 12, np.zeros(len(curves))])
    return float(np.sqrt(weights @ ((steps - weights @ steps) ** 2 + spread)) / curves.steps)


def leaning(curves: Curves, coefficients: Coefficients) -> np.ndarray:
    """How many steps behind its middle the weight within each segment lies, (S,).

    0 but for averages whose weight changes from iterate to iterate (``RECURRENCES``). Of those it is taken to grow by a constant
    factor a step within a segment, that between its neighbours: exact for an ema on even segments, close for what is smooth. What a run that
    keeps ramps can use of it, ``run.average`` does.
    """
    lean, density = np.zeros(len(curves)), np.asarray(coefficients) / curves.iterates
    used = np.flatnonzero(density > 0)
    if coefficients.strategy not in RECURRENCES or coefficients.of != "mean" or len(used) < 2:
        return lean
    middles = curves.ends - (curves.iterates - 1) / 2
    for k, rate in zip(used, np.gradient(np.log(density[used]), middles[used])):
        steps = np.arange(curves.iterates[k]) - (curves.iterates[k] - 1) / 2
        weights = np.exp(rate * steps - np.abs(rate * steps).max())
        lean[k] = weights @ steps / weights.sum()
    return lean


def average_of(coefficients: Coefficients | np.ndarray) -> tuple:
    """What tells this average from others of its run, whatever it is called and whoever chose it: a key of a dictionary.

    Of averages whose weight changes from iterate to iterate (``RECURRENCES``) what lies within a segment does not show in
    coefficients, so these are told by their settings as well.
    """
    if not isinstance(coefficients, Coefficients):
        coefficients = Coefficients(coefficients)
    of_its_own = coefficients.strategy in RECURRENCES
    told = (coefficients.strategy, coefficients.note) if of_its_own else ()
    parts = tuple(part.tobytes() for part in coefficients.parts.values())
    return (*parts, coefficients.initial, coefficients.recalibrated, *told)


def _power(gamma: float | None, sigma_rel: float | None) -> tuple[Callable, str]:
    if gamma is not None and sigma_rel is not None:
        raise ValueError(
            f"gamma and sigma_rel are one length said twice; got gamma={gamma!r} and sigma_rel={sigma_rel!r}. Give one."
        )
    if sigma_rel is not None:
        exponent, name = gamma_of(sigma_rel), f"length {sigma_rel:.12g}"
    else:
        exponent = real_number("gamma", 1.0 if gamma is None else gamma, 0, meaning="the exponent of the profile")
        name = f"in proportion to step^{exponent:.12g}"
    return lambda x: x ** (exponent + 1), name


def _annealed(shape: str | Sequence[float]) -> tuple[Callable, str]:
    if isinstance(shape, str):
        if shape not in SHAPES:
            raise ValueError(did_you_mean("shape of a decaying rate", shape, SHAPES))
        known = {"linear": lambda x: x, "cosine": lambda x: (1 - np.cos(np.pi * x)) / 2, "1-sqrt": np.sqrt}
        return known[shape], f"as a rate decayed by {shape}"
    rates = list(shape) if isinstance(shape, Sequence) else []
    falls = len(rates) > 1 and all(map(is_number, rates)) and np.all(np.diff(rates) <= 0)
    if not falls or (rates[0], rates[-1]) != (1, 0):
        raise ValueError(
            f"shape is one of {', '.join(SHAPES)}, or at least two rates that fall from 1 to 0, such as [1, 0.3, 0]; got {shape!r}."
        )
    at = np.linspace(0, 1, len(rates))
    return lambda x: 1 - np.interp(x, at, rates), f"as a rate decayed by {', '.join(f'{rate:.12g}' for rate in rates)}"


def _profile(curves: Curves, rising: Callable, begin: int | float, strategy: str, name: str) -> Coefficients:
    first = first_after(curves, begin)
    passed = np.append(0, np.cumsum(curves.iterates[first:]))
    values = np.zeros(len(curves))
    values[first:] = np.diff(rising(passed / passed[-1]))
    note = f"{describe(curves, first, len(curves) - 1)}, {name}{moved(curves, begin, first)}"
    return Coefficients(values, strategy=strategy, note=note)


def _recurrence(rising: Callable, steps: int, begin: int) -> Recurrence:
    reached = rising(np.arange(steps - begin + 1) / (steps - begin))
    decays = np.divide(reached[:-1], reached[1:], out=np.zeros(steps - begin), where=reached[1:] > 0)
    return Recurrence(begin, decays)

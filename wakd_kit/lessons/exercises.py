"""Exercises with checked answers. A lesson's cell says ``check("03.1", answer)``; what is right stands here and not there.

    @exercise("00.2", '''answer = 0.5''')          its name, and one way to do it as code that assigns ``answer``
    def half(answer):                              says what is wrong with an answer, or nothing
        ...

An exercise is open while its answer is ``...``. A judge raises what it likes: what a student's function raises is said as well.
"""

from __future__ import annotations

import functools
import importlib
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..names import Registry, is_number

LESSONS = ("averages", "teachers", "judging")  # modules beside this one that hold exercises


@dataclass(frozen=True)
class Exercise:
    """What is wrong with an answer, in a sentence or nothing (``judge``), and one that is right, as code."""

    judge: Callable[[object], str | None]
    solution: str


exercises = Registry("exercise")


def exercise(name: str, solution: str) -> Callable[[Callable], Callable]:
    """Decorator: this function judges the answers of exercise ``name``. Returns it unchanged."""

    def declare(judge: Callable) -> Callable:
        exercises.register(Exercise(judge, textwrap.dedent(solution).strip()), name=name)
        return judge

    return declare


def check(name: str, answer: object) -> None:
    """Print whether an answer to an exercise is right, and if not what is wrong with it. Raises ``UnknownName`` for no such exercise."""
    print(f"{name}: {judged(name, answer)}")


def solution(name: str) -> None:
    """Print one way to do an exercise: code that assigns ``answer``. Raises ``UnknownName`` for no such exercise."""
    print(known().get(name).solution)


def judged(name: str, answer: object) -> str:
    """What ``check`` prints of an answer: "right.", what is wrong, or that the exercise is open."""
    found = known().get(name)
    if answer is ...:
        return f'open. Put your answer where the dots are and run the cell again; solution("{name}") shows one.'
    try:
        wrong = "the answer is None, which is nothing." if answer is None else found.judge(_giving(answer))
    except _Nothing:
        wrong = "your function gives nothing, None: is its return missing?"
    except Exception as error:  # of the student's own function, or an answer of another kind than was asked for
        wrong = f"your answer stopped the check, {type(error).__name__}: {error}"
    return f"not yet: {wrong}" if wrong else "right."


class _Nothing(Exception):
    """A student's function returned nothing."""


def _giving(answer: object) -> object:
    """An answer, which raises ``_Nothing`` where it is a function that returns nothing."""
    if not callable(answer):
        return answer

    @functools.wraps(answer, updated=())
    def asked(*given, **settings):
        if (found := answer(*given, **settings)) is None:
            raise _Nothing
        return found

    return asked


@functools.cache
def known() -> Registry:
    """All exercises by name."""
    for module in LESSONS:
        importlib.import_module(f".{module}", __package__)
    return exercises


# ---- sentences that several judges share


def number(answer: object, right: float, *, hint: str, within: float = 0.01) -> str | None:
    """What is wrong with a number, if it is further from ``right`` than ``within`` of it: too large or too small, and what to look at."""
    if isinstance(answer, str) or np.ndim(answer) != 0:
        return f"give one number; got {type(answer).__name__}."
    given = float(answer)
    if abs(given - right) <= within * max(abs(right), 1e-12):
        return None
    return f"{_off(given, right)}; {hint}."


def values(answer: object, right: object, *, within: float = 1e-6, what: str = "values") -> str | None:
    """What is wrong with an array: its shape, or where it first differs from ``right``."""
    given, right = np.asarray(answer, dtype=float), np.asarray(right, dtype=float)
    if given.shape != right.shape:
        return f"{what} of shape {right.shape} were asked for; got {given.shape}."
    near = np.abs(given - right) <= within * np.maximum(np.abs(right).max(), 1e-12)
    if near.all():
        return None
    place = tuple(int(i) for i in np.argwhere(~near)[0])
    at = f" at {place[0] if len(place) == 1 else place}" if place else ""
    return f"{what}{at}: {_off(given[place], right[place])}."


def _off(given: float, right: float) -> str:
    side = "no number" if np.isnan(given) else "too large" if given > right else "too small"
    return f"{given:.4g} is {side}"


def known_mistake(answer: object, said: dict[float, str]) -> str | None:
    """What is said of a number that a known mistake gives; nothing of any other answer."""
    return next((text for value, text in said.items() if is_number(answer) and np.isclose(answer, value)), None)


def fraction(answer: object, right: float) -> str | None:
    """What is wrong with points of accuracy that are given as a fraction."""
    if right and number(answer, right / 100, hint="", within=0.05) is None:
        return "that is a fraction; points of accuracy are hundredths of it."
    return None


def function(answer: object, called: str) -> str | None:
    """What is wrong if this is no function."""
    return None if callable(answer) else f"give the function itself, {called}; got {type(answer).__name__}."

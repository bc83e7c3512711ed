"""Named plain functions, and one dialect of what fits: unknown names and settings that cannot be are one sentence each.

Standard library only. Functions with settings of their own call the checks, ``positive(temperature=temperature)``;
dataclasses carry a ``Bound`` in their annotations, see ``checks.make``.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import math
import numbers
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

# what other tools call it
ALSO_CALLED = {"lr": "learning_rate", "epochs": "steps", "wd": "weight_decay", "bs": "batch_size"}


def did_you_mean(kind: str, name: object, known: Iterable[str]) -> str:
    """One sentence for an unknown name: what came, the closest known name, and all that fit."""
    known = sorted(known)
    return f"Unknown {kind} {name!r}.{closest(name, known)} Known: {', '.join(known)}."


def closest(name: object, known: Iterable[str]) -> str:
    """`` Did you mean 'steps'?``, or nothing where no known name is close."""
    known = list(known)
    other = ALSO_CALLED.get(str(name))
    close = [other] if other in known else difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def own_version() -> str:
    """The kit's version in words, also where it is used from its folder and has none."""
    return version_of("wakd_kit") or "from its folder"


def version_of(package: str) -> str | None:
    """The version of an installed package; None for one that is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def one_line(what: str, name: object) -> str:
    """The name. Raises ``ValueError`` unless it is text of one line: it stands in tables that are read line by line."""
    if not isinstance(name, str) or len(name.splitlines()) != 1:
        raise ValueError(f"The {what} is text of one line; got {name!r}.")
    return name


MERGED = "merged"  # the student that runs were merged into
PLUGGED = ("objective", "strategy", "benchmark")  # what a file of one's own may declare


class Registry:
    """A dictionary of functions by name, filled by a decorator that returns the function unchanged.

    The same function defined again, as a notebook's cell does when it is run again, takes the place of the first; a name
    that another function has is refused.

    >>> strategies = Registry("strategy")
    >>> @strategies.register
    ... def last(curves): ...
    >>> strategies.get("last") is last
    True
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Callable] = {}
        self._renamed: dict[str, str] = {}

    def rename(self, before: str, now: str) -> None:
        """Understand a name of earlier: recordings and studies hold it."""
        self._renamed[before] = now

    def now(self, name: str) -> str:
        """What something of this name is called now; ``UnknownName`` where nothing is."""
        self.get(name)
        return self._renamed.get(name, name)

    def register(self, function: Callable | None = None, *, name: str | None = None) -> Callable:
        """The function, which is known by its own name or another one from now on; a decorator as well."""
        if function is None:
            return lambda decorated: self.register(decorated, name=name)
        key = one_line(f"name of a {self.kind}", name or function.__name__)
        if key in self._entries and _stands(self._entries[key]) != _stands(function):
            raise ValueError(
                f"{self.kind} {key!r} is registered twice, in {_stands(self._entries[key])[0]} and in {_stands(function)[0]}; "
                "give one of them another name."
            )
        self._entries[key] = function
        return function

    def get(self, name: str) -> Callable:
        """The registered function; ``KeyError`` with the closest known name otherwise."""
        try:
            return self._entries[self._renamed.get(name, name)]
        except (KeyError, TypeError):
            own = " One of your own: --plugin FILE.py, or plugins: in a study." if self.kind in PLUGGED else ""
            raise UnknownName(did_you_mean(self.kind, name, self._entries) + own) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return self._renamed.get(name, name) in self._entries

    def __len__(self) -> int:
        return len(self._entries)


def _stands(function: Callable) -> tuple[str, str]:
    """Where a function or class is defined: its module, and its name there."""
    return function.__module__, getattr(function, "__qualname__", repr(function))


class UnknownName(KeyError):
    """A name that nothing was registered under; prints as the bare sentence."""

    def __str__(self) -> str:
        return self.args[0]


class ParameterError(ValueError):
    """Settings that a training, a notebook or a study does not take; the message says which and what fits."""


@dataclass(frozen=True)
class Bound:
    """What a setting has to be beyond its type, and how that is said after its name: "is a whole number >= 1"."""

    words: str
    fits: Callable[[object], bool]

    def check(self, name: str, value):
        """The value. Raises ``ParameterError`` where it does not fit."""
        if not self.fits(value):
            raise ParameterError(f"{name} {self.words}; got {value!r}.")
        return value

    def each(self, **settings) -> None:
        """``check`` for several settings by name: ``positive(temperature=temperature)``."""
        for name, value in settings.items():
            self.check(name, value)


def is_whole(value: object) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def whole(least: int) -> Bound:
    """Whole numbers from ``least`` on."""
    return Bound(f"is a whole number >= {least}", lambda value: is_whole(value) and value >= least)


SEED = Bound("is a whole number >= 0 and below 2^63", lambda value: is_whole(value) and 0 <= value < 2**63)


def at_least(least: float) -> Bound:
    """Finite numbers from ``least`` on."""
    return Bound(f"is at least {least}", lambda value: is_number(value) and value >= least)


def within(least: float, most: float) -> Bound:
    """Numbers from ``least`` to ``most``, both included."""
    return Bound(f"is a number from {least:g} to {most:g}", lambda value: is_number(value) and least <= value <= most)


POSITIVE = Bound("is a positive number", lambda value: is_number(value) and value > 0)
NOT_NEGATIVE = Bound("is a number >= 0", lambda value: is_number(value) and value >= 0)


positive, not_negative, counted = POSITIVE.each, NOT_NEGATIVE.each, whole(1).each


def whole_number(setting: str, value: object, least: int, of_what: str) -> int:
    """``value`` as an int >= ``least``; otherwise a sentence with what the setting counts."""
    return int(Bound(f"counts {of_what}: a whole number >= {least}", whole(least).fits).check(setting, value))


def real_number(setting: str, value: object, least: float, most: float = math.inf, *, meaning: str) -> float:
    """``value`` as a float in [least, most]; otherwise a sentence with what the setting means."""
    fits = f">= {least:g}" if most == math.inf else f"in [{least:g}, {most:g}]"
    return float(Bound(f"is {meaning}: a number {fits}", within(least, most).fits).check(setting, value))


def one_of(setting: str, value: object, known: Iterable) -> None:
    """Raises for a value that is none of those known."""
    Bound(
        f"is one of {', '.join(map(repr, known))}",
        lambda value: any(isinstance(value, type(k)) and value == k for k in known),
    ).check(setting, value)


def unboxed(value: object) -> object:
    """A number of numpy as one of Python, which JSON can hold, also within lists and dictionaries; anything else as it is."""
    if type(value) in (list, tuple):
        return type(value)(map(unboxed, value))
    if type(value) is dict:
        return {key: unboxed(inside) for key, inside in value.items()}
    of_numpy = type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0  # bools are no Number there
    return value.item() if of_numpy else value

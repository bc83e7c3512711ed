"""Named plain functions: register one, resolve a name, and say what was meant when a name is unknown."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator


def did_you_mean(kind: str, name: object, known: Iterable[str]) -> str:
    """One sentence for an unknown name: what came, the closest known name, and all that fit."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(known)}."


class Registry:
    """A dictionary of functions by name, filled by a decorator that returns the function unchanged.

    >>> strategies = Registry("strategy")
    >>> @strategies.register
    ... def last(curves): ...
    >>> strategies.get("last") is last
    True
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Callable] = {}

    def register(self, function: Callable | None = None, *, name: str | None = None) -> Callable:
        if function is None:
            return lambda decorated: self.register(decorated, name=name)
        key = name or function.__name__
        if key in self._entries:
            raise ValueError(f"{self.kind} {key!r} is registered twice.")
        self._entries[key] = function
        return function

    def get(self, name: str) -> Callable:
        """The registered function; ``KeyError`` with the closest known name otherwise."""
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise UnknownName(did_you_mean(self.kind, name, self._entries)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)


class UnknownName(KeyError):
    """A name that nothing was registered under; prints as the bare sentence."""

    def __str__(self) -> str:
        return self.args[0]

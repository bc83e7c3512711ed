"""Which objectives exist, and what each needs: the table behind ``get`` and ``wakd list objectives``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..registry import Registry


@dataclass(frozen=True)
class Objective:
    """What is known of an objective beside its function.

    kind    family: "labels", "logits", "features", "relations", ...
    needs   which inputs it reads: any of "labels", "teacher", "pooled", "maps"
    weight  default weight in a combined objective
    source  paper, and where the published code stands
    """

    kind: str
    needs: frozenset[str]
    weight: float
    source: str


class Objectives(Registry):
    def __init__(self):
        super().__init__("objective")
        self._about: dict[str, Objective] = {}

    def declare(self, *, kind: str, needs: str, source: str, weight: float = 1.0) -> Callable:
        """Decorator: registers the function under its name and returns it unchanged. ``needs`` is space-separated."""

        def register(function: Callable) -> Callable:
            self.register(function)
            self._about[function.__name__] = Objective(kind, frozenset(needs.split()), weight, source)
            return function

        return register

    def about(self, name: str) -> Objective:
        self.get(name)
        return self._about[name]


objectives = Objectives()


def get(name: str) -> Callable:
    """The objective of this name, a plain function; raises with the closest name when there is none."""
    return objectives.get(name)

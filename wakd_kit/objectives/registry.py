"""Which objectives exist, and what each needs: the table behind ``get`` and ``wakd list objectives``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from ..names import Registry


@dataclass(frozen=True)
class Objective:
    """What is known of an objective beside its function.

    kind        family: "labels", "logits", "features", "relations", ...
    needs       which inputs it reads: any of "labels", "teacher", "pooled" and "maps" (of both models; "student.maps" of one),
                "student.parts" (what a deployed part gives), "centres" (class means of the teacher over the source
                training images), "index" (which training images the batch shows), "progress" (share of the run done)
    weight      default weight in a combined objective
    source      paper, and where the published code stands
    schedule    default schedule, where the paper's method is one
    built_with  settings of the module's ``__init__``, with defaults; empty for a plain function
    called_with settings of each call, with defaults; these can be scheduled
    of_pair     a module that is built when the shapes of student and teacher are known
    tail        ``(student, teacher, *, settings) -> student`` that puts on what this objective deploys with the student
    """

    kind: str
    needs: frozenset[str]
    weight: float
    source: str
    schedule: dict | None = None
    built_with: dict = field(default_factory=dict)
    called_with: dict = field(default_factory=dict)
    of_pair: bool = False
    tail: Callable | None = None

    def reads(self, what: str, who: str) -> bool:
        """Whether it reads "pooled", "maps" or "parts" of "student" or "teacher"."""
        return what in self.needs or f"{who}.{what}" in self.needs


class Objectives(Registry):
    def __init__(self):
        super().__init__("objective")
        self._about: dict[str, Objective] = {}

    def declare(
        self,
        *,
        kind: str,
        needs: str,
        source: str,
        weight: float = 1.0,
        name: str | None = None,
        schedule: dict | None = None,
        tail: Callable | None = None,
    ) -> Callable:
        """Decorator: registers a function, or a module's class, and returns it unchanged. ``needs`` is space-separated.

        A function is ``(student, teacher, labels, *, settings) -> scalar``. An ``nn.Module`` with parameters or state
        is called alike: what is fixed once is a keyword of ``__init__``, what a call reads is a keyword of
        ``forward``. If its ``__init__`` takes ``pair`` first, it is built by ``Combined.prepare`` from a ``Pair``,
        whose shapes are those of both models' outputs. One that needs "progress" is called with ``progress=``, from 0
        to 1 over the run, one that needs "index" with ``index=`` and has ``learn_examples(labels)``, one that needs
        "centres" has ``learn_centres(features, labels)``. Settings of ``tail`` are
        settings of the objective.
        """

        def register(objective: Callable) -> Callable:
            self.register(objective, name=name)
            is_module = inspect.isclass(objective)
            fixed = objective if is_module else tail
            made = inspect.signature(fixed).parameters if fixed else {}
            called = inspect.signature(objective.forward if is_module else objective).parameters
            self._about[name or objective.__name__] = Objective(
                kind,
                frozenset(needs.split()),
                weight,
                source,
                schedule,
                _keyword_only(made),
                {key: value for key, value in _keyword_only(called).items() if key not in ("progress", "index")},
                "pair" in made,
                tail,
            )
            return objective

        return register

    def about(self, name: str) -> Objective:
        self.get(name)
        return self._about[name]


def _keyword_only(parameters) -> dict:
    return {p.name: p.default for p in parameters.values() if p.kind is p.KEYWORD_ONLY}


objectives = Objectives()


def get(name: str) -> Callable:
    """The objective of this name, ready to call: a plain function, or a new module with its default settings.

    Raises with the closest name when there is none, and ``ValueError`` for a module that is built for a pair of models.
    """
    objective = objectives.get(name)
    if objectives.about(name).of_pair:
        raise ValueError(f"{name} is built for a pair of models: combine({name!r}).prepare(student_output, ...).")
    return objective() if inspect.isclass(objective) else objective

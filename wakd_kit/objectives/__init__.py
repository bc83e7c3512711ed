"""Training objectives: plain functions ``(student, teacher, labels, *, settings) -> scalar``, summed by explicit weight.

``student`` and ``teacher`` are a Tap's ``Output``, or bare logits (n, classes). Losses are means over the batch in nats
per example, computed in float32 or better whatever precision the models ran in.

    total = combine([{"name": "ce"}, {"name": "kd", "temperature": 4.0, "weight": 0.9}])
    loss, terms = total(student(images), teacher(images), labels)

There is no hidden cross-entropy: what is listed is what is trained.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..registry import did_you_mean
from .logits import ce, kd
from .registry import Objective, get, objectives

__all__ = ["Combined", "Objective", "ce", "combine", "get", "kd", "objectives"]


class Combined:
    """A weighted sum of objectives, made by ``combine``.

    Calling it returns ``(total, terms)``: the scalar to differentiate, and every unweighted term, detached, by label.
    """

    def __init__(self, specs: list[dict]):
        self.specs = specs
        self.terms: list[tuple[str, float, Callable, dict]] = []
        for spec in specs:
            settings = {k: v for k, v in spec.items() if k not in ("name", "weight")}
            same = sum(other["name"] == spec["name"] for other in specs)
            label = (
                spec["name"] if same == 1 else f"{spec['name']}[{','.join(f'{k}={v}' for k, v in settings.items())}]"
            )
            self.terms.append((label, spec["weight"], get(spec["name"]), settings))

    @property
    def labels(self) -> list[str]:
        return [label for label, *_ in self.terms]

    def needs(self, what: str) -> bool:
        """Whether any term needs ``"teacher"``, ``"labels"``, ``"pooled"`` or ``"maps"``."""
        return any(what in objectives.about(spec["name"]).needs for spec in self.specs)

    def __call__(self, student, teacher, labels) -> tuple[Tensor, dict[str, Tensor]]:
        total, terms = 0.0, {}
        for label, weight, objective, settings in self.terms:
            value = objective(student, teacher, labels, **settings)
            terms[label] = value.detach()
            total = total + weight * value
        return total, terms


def combine(specs: str | dict | Sequence[str | dict]) -> Combined:
    """The weighted sum that a list of ``{"name", "weight", settings...}`` describes; names alone get their defaults.

    Raises in one sentence: ``UnknownName`` for an unknown objective; ``ValueError`` for an unknown setting or a value it
    cannot have, a weight that is no number >= 0, an empty list, one entry twice, or weights that are all zero.
    """
    if isinstance(specs, (str, dict)):
        specs = [specs]
    complete = [_complete(spec) for spec in specs]
    if not complete:
        raise ValueError('No objective given; list at least one, such as [{"name": "kd", "temperature": 5.0}].')
    combined = Combined(complete)
    for label in combined.labels:
        if combined.labels.count(label) > 1:
            raise ValueError(f"{label} is listed twice with the same settings; list it once, with one weight.")
    if not any(spec["weight"] for spec in complete):
        raise ValueError(f"The objectives' weights sum to zero ({complete}); nothing would be trained.")
    return combined


def _complete(spec: str | dict) -> dict:
    spec = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "name" not in spec:
        raise ValueError(f'Every objective needs a "name"; got {spec}.')
    name = spec.pop("name")
    function = get(name)
    known = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    weight = spec.pop("weight", objectives.about(name).weight)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
        raise ValueError(f"The weight of objective {name!r} is a number >= 0; got {weight!r}.")
    for key, value in spec.items():
        if key not in known:
            raise ValueError(did_you_mean(f"setting of objective {name!r}", key, [*known, "weight"]))
        default = known[key]
        numeric = isinstance(default, (int, float)) and not isinstance(default, bool)
        if numeric and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ValueError(f"Setting {key!r} of objective {name!r} is a number; got {value!r}.")
    settings = {**known, **spec}
    if objectives.about(name).needs <= {"labels", "teacher"}:  # an objective on logits can be tried out here and now
        function(torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, dtype=torch.long), **settings)
    return {"name": name, "weight": float(weight), **settings}

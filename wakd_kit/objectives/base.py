"""What every objective is built on: inputs made safe in one place, schedules, and the table of which there are.

Inputs are float32 or better, and no gradient goes to the teacher. The registry is behind ``get`` and ``wakd list objectives``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import Registry, did_you_mean, is_number, is_whole


def each_tensor(output, change: Callable[[Tensor], Tensor]):
    """The same ``Output``, tensor or nothing, with every tensor in it changed."""
    if isinstance(output, Tensor):
        return change(output)
    if not isinstance(output, tuple):
        return output
    parts = [each_tensor(part, change) for part in output]
    return output._make(parts) if hasattr(output, "_make") else tuple(parts)


def detached(output):
    """The same output, cut from its graph: no objective trains a teacher."""
    return each_tensor(output, Tensor.detach)


def raw_logits(output) -> Tensor:
    """Logits (n, classes) of an ``Output`` or of a bare tensor, as they are."""
    return output if isinstance(output, Tensor) else output.logits


def widened(values: Tensor) -> Tensor:
    """The same in float32 or better: bf16 is no place for a loss, T^2 KL near its optimum comes out negative in it."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def logits_of(output) -> Tensor:
    """Logits (n, classes) of an ``Output`` or of a bare tensor, in float32 or better."""
    return widened(raw_logits(output))


def pooled_of(output) -> Tensor:
    """Pooled features of an ``Output``, (n, features), in float32 or better."""
    if isinstance(output, Tensor):
        raise ValueError("This objective reads pooled features; got bare logits. Pass what a Tap gives, an Output.")
    return widened(output.pooled)


def pooled_pair(student, teacher) -> tuple[Tensor, Tensor]:
    """Pooled features of both, (n, features) each and as many as they have, the teacher's detached."""
    theirs = pooled_of(teacher).detach()
    return pooled_of(student), theirs


def map_pairs(student, teacher) -> list[tuple[Tensor, Tensor]]:
    """Stage maps of both side by side, shallow first, the teacher's detached; the last ones where one has fewer."""
    count = (
        0 if isinstance(student, Tensor) or isinstance(teacher, Tensor) else min(len(student.maps), len(teacher.maps))
    )
    if count == 0:
        raise ValueError(
            "This objective reads stage maps, and one of the two has none. Pass what a Tap gives, with maps."
        )
    return [(widened(s), widened(t).detach()) for s, t in zip(student.maps[-count:], teacher.maps[-count:])]


def last_maps(student, teacher) -> tuple[Tensor, Tensor]:
    """The last map of both, (n, channels, height, width), the teacher's detached."""
    return map_pairs(student, teacher)[-1]


def same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps at the smaller height and width of both, the larger one averaged."""
    size = tuple(min(x, y) for x, y in zip(a.shape[-2:], b.shape[-2:]))
    return tuple(m if m.shape[-2:] == size else F.adaptive_avg_pool2d(m, size) for m in (a, b))


def chosen(pairs: list, stages: Sequence[int], name: str) -> list:
    """The pairs of these stages, counted from 0 or from the end; raises for a stage that is not there."""
    if not isinstance(stages, (list, tuple)) or not stages or not all(type(stage) is int for stage in stages):
        raise ValueError(f"stages of {name} is a list of whole numbers; got {stages!r}.")
    for stage in stages:
        if not -len(pairs) <= stage < len(pairs):
            raise ValueError(f"{name} asks for stage {stage}; there are {len(pairs)}, from 0 to {len(pairs) - 1}.")
    return [pairs[stage] for stage in stages]


def logit_pair(student, teacher) -> tuple[Tensor, Tensor]:
    """Logits of both, (n, classes) each, the teacher's detached; ``ValueError`` when the class counts differ."""
    z_s, z_t = logits_of(student), logits_of(teacher).detach()
    if z_s.shape[1] != z_t.shape[1]:
        raise ValueError(
            f"Teacher gives {z_t.shape[1]} classes, student {z_s.shape[1]}. Was the teacher trained on another dataset?"
        )
    return z_s, z_t


def hard(labels: Tensor) -> Tensor:
    """Labels (n,) of any integer type, soft labels (n, classes) as their largest class."""
    return labels.long() if labels.ndim == 1 else labels.argmax(1)


def target_of(values: Tensor, labels: Tensor) -> Tensor:
    """The column (n,) of each example's label."""
    return values.gather(1, labels[:, None]).squeeze(1)


def others_of(values: Tensor, labels: Tensor) -> Tensor:
    """The columns (n, classes - 1) of every class but the label, in their order."""
    # a gather, not a boolean mask: the mask would wait for the device to count its ones
    column = torch.arange(values.shape[1] - 1, device=values.device).expand(len(values), -1)
    return values.gather(1, column + (column >= labels[:, None]))


def gram(rows: Tensor) -> Tensor:
    """Inner products of all pairs of rows, in the precision of the rows also where autocast would lower it."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ rows.T


def class_means(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean feature of every class, (classes, features), zero where there is none, and how many there are, (classes,)."""
    member = F.one_hot(labels, classes).to(features.dtype)
    counts = member.sum(0)
    return member.T @ features / counts.clamp(min=1)[:, None], counts


SHAPES = ("linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """Moves one number of an objective from ``first`` to the value its spec gives it.

    of          "weight", or a setting that calls of the objective read, such as "temperature"; counts do not move
    first       the value until ``begin``
    begin, end  between which steps it moves: steps as int, shares of the run as float
    shape       "linear", or "cosine": half a cosine, slow at both ends

    ``{"name": "dkd", "schedule": {"end": 0.1}}`` raises the weight from 0 to 1 over the first tenth of the run.
    """

    of: str = "weight"
    first: float = 0.0
    begin: int | float = 0
    end: int | float = 1.0
    shape: str = "linear"

    @classmethod
    def from_spec(cls, name: str, given: dict, settings: dict) -> Schedule:
        """Raises ``ValueError`` in one sentence for what cannot be; numbers among ``settings`` can be scheduled, whole ones are counts."""
        if not isinstance(given, dict):
            raise ValueError(
                f'The schedule of objective {name!r} is a dictionary such as {{"end": 0.1}}; got {given!r}.'
            )
        for key in given:
            if key not in (known := [f.name for f in fields(cls)]):
                raise ValueError(did_you_mean(f"schedule key of objective {name!r}", key, known))
        schedule = cls(**given)
        if not isinstance(schedule.of, str):
            raise ValueError(
                f"of, in the schedule of objective {name!r}, is the name of a setting, or weight; got {schedule.of!r}."
            )
        movable = ["weight", *(key for key, value in settings.items() if is_number(value) and not is_whole(value))]
        if is_whole(settings.get(schedule.of)):
            raise ValueError(
                f"{schedule.of} of objective {name!r} is a whole number, {settings[schedule.of]}, and those are counts, which do not "
                f"move. In an objective of your own, write its default as {float(settings[schedule.of])}."
            )
        if schedule.of not in movable:
            raise ValueError(did_you_mean(f"setting to schedule of objective {name!r}", schedule.of, movable))
        if schedule.shape not in SHAPES:
            raise ValueError(did_you_mean("shape of a schedule", schedule.shape, SHAPES))
        for key in ("first", "begin", "end"):
            value = getattr(schedule, key)
            if not is_number(value) or value < 0:
                raise ValueError(f"{key} in the schedule of objective {name!r} is a number >= 0; got {value!r}.")
        for key in ("begin", "end"):
            value = getattr(schedule, key)
            if isinstance(value, float) and value > 1:
                raise ValueError(
                    f"{key} in a schedule is a step (int) or a share of the run (float <= 1); got {value}."
                )
        if type(schedule.begin) is type(schedule.end) and schedule.begin >= schedule.end:
            raise ValueError(f"A schedule ends after it begins; got begin={schedule.begin}, end={schedule.end}.")
        return schedule

    def spec(self) -> dict:
        """Plain values: ``Schedule(**spec)`` is the same again."""
        return asdict(self)

    def value(self, last: float, step: int, steps: int) -> float:
        """The number at a step, counted from 1, of a run of ``steps``, on its way from ``first`` to ``last``."""
        begin, end = (math.floor(at * steps + 1e-9) if isinstance(at, float) else at for at in (self.begin, self.end))
        if begin > end:  # one is a step and the other a share
            raise ValueError(
                f"A schedule ends after it begins; begin={self.begin} and end={self.end} are steps {begin} and {end} of {steps}."
            )
        share = min(max((step - begin) / max(end - begin, 1), 0.0), 1.0)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.first + (last - self.first) * share


NEEDS = {
    "labels": "of the batch",
    "teacher": "what the teacher gives",
    "centres": "class means of the teacher over the source training images",
    "index": "which training images the batch shows",
    "domains": "the source of each",
    "between": "several sources in a batch",
    "images": "what both have seen",
    "progress": "share of the run done",
}
READS = ("pooled", "maps", "attention", "parts")  # of an ``Output``, beside its logits
WORDS = {*NEEDS, *READS, *(f"{who}.{what}" for who in ("student", "teacher") for what in READS)}


@dataclass(frozen=True)
class Objective:
    """What is known of an objective beside its function.

    kind        family: "labels", "logits", "features", "relations", ...
    needs       which inputs it reads: words of ``NEEDS``, and of ``READS`` of both models ("student.maps" of one)
    weight      default weight in a combined objective
    source      paper, and where the published code stands
    schedule    default schedule, where the paper's method is one
    built_with  settings of the module's ``__init__``, with defaults; empty for a plain function
    called_with settings of each call, with defaults; numbers that are no counts can be scheduled
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
        """Whether it reads one of ``READS`` of "student" or "teacher"."""
        return what in self.needs or f"{who}.{what}" in self.needs


class Objectives(Registry):
    """The registry of objectives, and what is known of each."""

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
        whose shapes are those of both models' outputs. Its attribute ``rate``, where it has one, is the learning rate of its
        parameters as a multiple of the student's. One that needs "progress" is called with ``progress=``, from 0
        to 1 over the run, one that needs "domains" with ``domains=`` (n, sources), 1 where an example is of a source, one that needs
        "images" with ``images=`` (n, 3, height, width) in [0, 1], one that needs "index" with ``index=`` and has ``learn_examples(labels, rows, classes)``, one that needs
        "centres" has ``learn_centres(features, labels)``. Settings of ``tail`` are
        settings of the objective. Raises ``ValueError`` for a word in ``needs`` that says nothing.
        """
        for word in needs.split():
            if word not in WORDS:
                raise ValueError(did_you_mean("word in needs of an objective", word, WORDS))

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
                {key: value for key, value in _keyword_only(called).items() if key not in GIVEN},
                "pair" in made,
                tail,
            )
            return objective

        return register

    def about(self, name: str) -> Objective:
        """What is known of an objective; ``UnknownName`` where there is none of that name."""
        return self._about[self.now(name)]


GIVEN = ("progress", "index", "domains", "images")  # what ``Combined`` hands to who needs it


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

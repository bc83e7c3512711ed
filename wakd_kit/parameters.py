"""What each shipped notebook accepts: one frozen dataclass each, and the check of plain values against it.

``notebook.execute`` checks names, types and choices before a kernel starts, and the notebook's second cell does the same,
so a plain ``papermill -p`` or an edited cell is checked as well.
"""

from __future__ import annotations

import contextlib
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from .averaging import labels_of
from .registry import Registry, UnknownName, did_you_mean

descriptions = Registry("notebook")


class ParameterError(ValueError):
    """Parameters that a notebook (or a settings file) does not take; the message says which and what fits."""


def notebook_parameters(stem: str) -> Callable[[type], type]:
    """Decorator: this dataclass describes the parameters of the notebook called ``stem``. Returns it unchanged."""
    return descriptions.register(name=stem)


def describe(which: str | Path) -> type:
    """The dataclass that describes a notebook, by its name or file. Raises ``UnknownName`` when nothing does."""
    return descriptions.get(Path(which).stem)


def make(cls: type, given: Mapping[str, object]):
    """An instance of a dataclass from plain values, each checked by name and type; ``ParameterError`` otherwise.

    A whole number widens to a float and a list to a tuple; a bool is no number, and text is never converted. Everything
    that does not fit is named at once.
    """
    known = {f.name: f for f in fields(cls)}
    problems = [did_you_mean("parameter", name, known) for name in given if name not in known]
    missing = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in given]
    if missing:
        problems.append(f"{cls.__name__} needs {', '.join(missing)}.")
    hints, values = typing.get_type_hints(cls), {}
    for name in given.keys() & known.keys():
        try:
            values[name] = _fitted(name, given[name], hints[name])
        except ParameterError as problem:
            problems.append(str(problem))
    if problems:
        raise ParameterError(" ".join(sorted(problems)))
    return cls(**values)


def _fitted(name: str, value: object, hint: object) -> object:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in options:
            with contextlib.suppress(ParameterError):
                return _fitted(name, value, option)
        raise ParameterError(f"{name}={value!r}: expected {_spelled(hint)}, got {type(value).__name__}.")
    if origin is typing.Literal:
        if value not in options or isinstance(value, bool):
            raise ParameterError(f"{name}={value!r}: choose one of {', '.join(map(repr, options))}.")
        return value
    wanted = origin or hint
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is tuple and isinstance(value, list):
        value = tuple(value)
    fits = isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not bool)
    if not fits:
        raise ParameterError(f"{name}={value!r}: expected {_spelled(hint)}, got {type(value).__name__}.")
    if wanted in (list, tuple) and options:
        return wanted(_fitted(f"{name}[{i}]", item, options[0]) for i, item in enumerate(value))
    return value


def _spelled(hint: object) -> str:
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join("None" if o is type(None) else _spelled(o) for o in options)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, options))
    return getattr(hint, "__name__", str(hint))


def parameters(which: str | type, namespace: Mapping[str, object]):
    """The checked parameters of the running notebook: ``p = parameters("02_distill", globals())`` in its second cell."""
    cls = which if isinstance(which, type) else describe(which)
    return make(cls, {f.name: namespace[f.name] for f in fields(cls) if f.name in namespace})


def plain(instance) -> dict[str, object]:
    """The fields of a dataclass as JSON values, which is how papermill should get them."""
    return json.loads(json.dumps(asdict(instance)))


@functools.cache  # a plan of a thousand jobs lists the same few
def _try_objectives(listed: str) -> None:
    from .objectives import combine  # torch; whoever only reads or writes parameters does not wait for it

    combine(json.loads(listed))


STRATEGIES = ["last", "best_val", "wakd", "swad", "sma", "ema"]


@dataclass(frozen=True)
class Training:
    """What 01 and 02 share: the split, and settings of ``train`` under their own names."""

    benchmark: str = "digits"
    image_size: int | None = None
    target: str = "sketch"
    seed: int = 0
    model: str = "resnet10t_w16"
    model_settings: dict = field(default_factory=dict)
    pretrained: bool = False
    weights: str | None = None
    objectives: list | str = field(default_factory=lambda: [{"name": "ce"}])
    steps: int = 600
    segment_length: int = 30
    batch_size: int = 64
    learning_rate: float = 0.01
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    sampling: Literal["pooled", "balanced", "classes"] = "pooled"
    batchnorm: Literal["recalibrate", "frozen", "average", "last"] = "recalibrate"
    precision: Literal["float32", "bfloat16"] = "float32"
    storage: Literal["float32", "float16_difference"] = "float32"
    most_stored: int = 64
    strategies: list = field(default_factory=lambda: list(STRATEGIES))
    save_to: str = "../runs/explore/teacher"

    def __post_init__(self):
        try:
            _try_objectives(json.dumps(self.objectives))
            labels_of(self.strategies)
        except (ValueError, UnknownName) as error:
            raise ParameterError(str(error)) from error

    def data(self) -> dict:
        """Keyword arguments of ``load_domains``."""
        return {} if self.image_size is None else {"size": self.image_size}

    def student(self) -> dict:
        """Keyword arguments of ``build_model``."""
        return {"pretrained": self.pretrained, "weights": self.weights, "seed": self.seed, **self.model_settings}

    def training(self) -> dict:
        """Keyword arguments of ``train``; a killed notebook run again continues its recording."""
        names = {f.name for f in fields(Training)} - _NOT_FOR_TRAIN
        return {name: getattr(self, name) for name in names} | {"declare": self.strategies, "resume": True}


_NOT_FOR_TRAIN = {
    "benchmark",
    "image_size",
    "target",
    "model",
    "model_settings",
    "pretrained",
    "weights",
    "strategies",
}


@notebook_parameters("01_train_teacher")
@dataclass(frozen=True)
class TrainTeacher(Training):
    """01: trains a teacher on the source domains and deploys one average of it."""

    model: str = "resnet18_w16"
    deploy: dict = field(default_factory=lambda: {"name": "wakd", "begin": 0.4})

    def __post_init__(self):
        super().__post_init__()
        try:
            labels_of([self.deploy])
        except (ValueError, UnknownName) as error:
            raise ParameterError(f"deploy: {error}") from error


@dataclass(frozen=True)
class Student(Training):
    """One student, as ``wakd train`` takes it: ``strategies`` are declared only, no folder is a dated one under runs/."""

    objectives: list | str = field(default_factory=lambda: [{"name": "kd", "temperature": 5.0}])
    strategies: list = field(default_factory=lambda: ["wakd", "swad"])
    teacher: str | None = None
    save_to: str = ""


@notebook_parameters("02_distill")
@dataclass(frozen=True)
class Distill(Student):
    """02: trains one student, averages its trajectory by every strategy, and scores them on every domain."""

    strategies: list = field(default_factory=lambda: list(STRATEGIES))
    teacher: str | None = "../runs/explore/teacher"
    save_to: str = "../runs/explore/student"
    window_map_grid: int = 8
    baseline: str = "last"

    def __post_init__(self):
        super().__post_init__()
        if self.baseline not in labels_of(self.strategies):
            raise ParameterError(did_you_mean("baseline", self.baseline, labels_of(self.strategies)))


@notebook_parameters("03_compare")
@dataclass(frozen=True)
class Compare:
    """03: everything recorded under one folder, all targets and seeds, in tables with intervals."""

    about: str = ""
    runs: str = "../runs/explore"
    only: list[str] = field(default_factory=list)
    strategies: list[str] = field(default_factory=list)
    baseline: str = "last"
    reference: str | dict = ""
    tables: str = "../runs/explore/tables"


@notebook_parameters("05_objectives")
@dataclass(frozen=True)
class Objectives:
    """05: one teacher per split and a student per objective, recorded by ``wakd report objectives``; each student before and
    after averaging."""

    about: str = ""
    runs: str = "../runs/objectives"
    only: list[str] = field(default_factory=list)
    baseline: str = "last"
    average: str = "WAKD"
    reference: str = "KD"
    tables: str = "../runs/objectives/tables"

    def __post_init__(self):
        if self.average == self.baseline:
            raise ParameterError(f"average and baseline are two labels; both are {self.average!r}.")


@notebook_parameters("06_when_averaging_helps")
@dataclass(frozen=True)
class When:
    """06: a grid of students, recorded by ``wakd report when_it_helps``: what averaging gains in every cell, and why."""

    about: str = ""
    runs: str = "../runs/when_it_helps"
    only: list[str] = field(default_factory=list)
    baseline: str = "last"
    averages: list[str] = field(default_factory=lambda: ["WAKD", "SWAD", "EMA"])
    tables: str = "../runs/when_it_helps/tables"

    def __post_init__(self):
        if not self.averages or self.baseline in self.averages:
            raise ParameterError(f"averages are labels other than the baseline {self.baseline!r}; got {self.averages}.")


@notebook_parameters("04_landscape")
@dataclass(frozen=True)
class Landscape:
    """04: the loss around one recorded run: a plane, lines, flatness and, where asked for, curvature."""

    run: str = "../runs/explore/student"
    strategies: list = field(default_factory=list)
    baseline: str = "last"
    average: str = ""
    corners: list = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    size: int = 25
    margin: float = 0.4
    radii: list[float] = field(default_factory=lambda: [1.0, 2.0, 4.0])
    directions: int = 10
    filter_normalised: bool = False
    curvature_images: int = 0
    figures: str = ""

    def __post_init__(self):
        for name, least in {"size": 2, "directions": 2, "curvature_images": 0}.items():
            if getattr(self, name) < least:
                raise ParameterError(f"{name} is at least {least}; got {getattr(self, name)}.")
        if not self.radii or min(self.radii) <= 0:
            raise ParameterError(f"radii are distances above 0, at least one; got {self.radii}.")
        if len(self.corners) not in (0, 3) or not all(type(corner) in (str, int) for corner in self.corners):
            raise ParameterError(f"corners are three of labels, steps and 'initial', or none; got {self.corners}.")
        try:
            labels = [s for s in self.strategies if isinstance(s, str)]
            labels += labels_of([s for s in self.strategies if not isinstance(s, str)])
        except (ValueError, UnknownName) as error:
            raise ParameterError(str(error)) from error
        for name in (self.baseline, self.average or self.baseline, *self.corners):
            if labels and isinstance(name, str) and name not in (*labels, "initial"):
                raise ParameterError(did_you_mean("label", name, labels))


@notebook_parameters("10_explore_averaging")
@dataclass(frozen=True)
class ExploreAveraging:
    """10: any recorded run, to try windows and strategies on by hand."""

    runs: str = "../runs"
    window_map_grid: int = 20

    def __post_init__(self):
        if self.window_map_grid < 1:
            raise ParameterError(f"window_map_grid is at least 1; got {self.window_map_grid}.")

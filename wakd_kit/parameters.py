"""The parameters of the shipped notebooks: one frozen dataclass each, the only description of what they accept.

``notebook.execute`` checks names, types and choices against it before a kernel starts, and the notebook's second cell
does the same, so a plain ``papermill -p`` or an edited cell is checked as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from .averaging import labels_of
from .notebook import ParameterError, notebook_parameters
from .objectives import combine
from .registry import UnknownName, did_you_mean

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
    sampling: Literal["pooled", "balanced"] = "pooled"
    batchnorm: Literal["recalibrate", "frozen", "average", "last"] = "recalibrate"
    strategies: list = field(default_factory=lambda: list(STRATEGIES))
    save_to: str = "../runs/explore/teacher"

    def __post_init__(self):
        try:
            combine(self.objectives)
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


@notebook_parameters("02_distill")
@dataclass(frozen=True)
class Distill(Training):
    """02: trains one student, averages its trajectory by every strategy, and scores them on every domain."""

    objectives: list | str = field(default_factory=lambda: [{"name": "kd", "temperature": 5.0}])
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
    tables: str = "../runs/explore/tables"
    pages: dict = field(default_factory=dict)

"""What a student starts from where that is another run: the same network, with the parameters that the run deployed.

In Python there is nothing to it, for a run's model is a student like any other, and knows what it has seen:

    run = wk.train(earlier.model(), split, teacher=teacher, objectives=objectives)
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import nn

from ..data.domains import Split
from ..models.tap import mark
from .identity import provenance_of, same_split
from .run import load_run
from .settings import Settings
from .teacher import deployed

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(model: nn.Module) -> Shapes:
    """The shape of each tensor of a model's state, by its name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def shapes_of_run(place: str | os.PathLike) -> Shapes:
    """``shapes_of`` what a run trained. Raises what ``load_run`` raises."""
    return shapes_of(load_run(place).blank_model())


def refuse_other_network(start: str, recorded: Shapes, model: str, asked: Shapes) -> None:
    """Raises ``ValueError`` where a run's network, with what objectives deployed with it, is not the one that should start there."""
    differ = [name for name in {**recorded, **asked} if recorded.get(name) != asked.get(name)]
    if differ:
        theirs, ours = (shapes.get(differ[0], "none") for shapes in (recorded, asked))
        raise ValueError(
            f"{start} trained another network than {model}, which should start from it: {differ[0]} is {theirs} there and {ours} "
            "here. Give both the same model and model_settings."
        )


def started(student: nn.Module, place: str | os.PathLike, split: Split, settings: Settings) -> nn.Module:
    """The student with the parameters and statistics that the run at ``place`` deployed, by default its last iterate.

    It is changed in place, and from now on knows what that run has seen. Raises ``ValueError`` for another network.
    """
    run = load_run(place)
    model = deployed(run, split if same_split(run.settings["split"], split.recipe) else None, settings)
    refuse_other_network(run.name, shapes_of(model), student.spec["name"], shapes_of(student))
    student.load_state_dict(model.state_dict())
    origin = provenance_of(model)
    student.spec["started_from"] = f"{run.name} ({origin['strategy']})"
    return mark(student, origin)

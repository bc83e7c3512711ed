"""What a student starts from where that is another run: the same network, or the part of a larger one, with what the run deployed.

In Python there is nothing to it, for a run's model is a student like any other, and knows what it has seen:

    further = wk.train(run.model(), split, teacher=teacher, objectives="kd")

A part of a larger network is what ``build_model(inherit=run, by="channels")`` begins as.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import nn

from ..data.domains import Split
from ..models.inherit import WAYS, Shapes, inherited, places, shapes_of
from ..models.tails import Deployed
from ..models.tap import Tap, mark
from ..names import did_you_mean
from .identity import provenance_of, same_split
from .run import load_run
from .settings import Settings
from .teacher import deployed


def parts_of(start: str | Mapping) -> tuple[str, str | None]:
    """Where the run of a start is, and by what the student is a part of it, None where it is all of it: a path, or
    ``{"of": path, "by": "channels"}``. Raises ``ValueError`` for what is neither."""
    if not isinstance(start, Mapping):
        return start, None
    if start.keys() != {"of", "by"} or not isinstance(start["of"], str):
        raise ValueError(
            f'start is a run, or {{"of": run, "by": {" or ".join(WAYS)}}} for a part of it; got {dict(start)}.'
        )
    if start["by"] not in WAYS:
        raise ValueError(f"start: {did_you_mean('by', start['by'], WAYS)}")
    return start["of"], start["by"]


def shapes_of_run(place: str | os.PathLike) -> Shapes:
    """``shapes_of`` what a run trained. Raises what ``load_run`` raises."""
    return shapes_of(load_run(place).blank_model())


def refuse_other_network(start: str, recorded: Shapes, model: str, asked: Shapes, by: str | None = None) -> None:
    """Raises ``ValueError`` where a run's network, with what objectives deployed with it, is not the one that should start there,
    or where that one is no part of it."""
    if by is not None:
        places(asked, recorded, by)
        return
    differ = [name for name in {**recorded, **asked} if recorded.get(name) != asked.get(name)]
    if differ:
        theirs, ours = (shapes.get(differ[0], "none") for shapes in (recorded, asked))
        raise ValueError(
            f"{start} trained another network than {model}, which should start from it: {differ[0]} is {theirs} there and {ours} "
            "here. Give both the same model and model_settings, or say {of: ..., by: channels} for a part of it."
        )


def started(student: nn.Module, start: str | Mapping, split: Split, settings: Settings) -> nn.Module:
    """The student with the parameters and statistics that a run deployed, by default its last iterate, or with its part of them.

    It is changed in place, but for a part that an objective put behind that one, and from now on knows what that run has seen. Raises ``ValueError`` for a network that does not fit.
    """
    place, by = parts_of(start)
    run = load_run(place)
    model = deployed(run, split if same_split(run.settings["split"], split.recipe) else None, settings)
    if by is not None:
        return inherited(student, model, by)
    if isinstance(model, Deployed) and isinstance(student, Tap):  # what that one's objective put behind it goes on
        student = Deployed(student, model.spec["settings"]["deployed"])
    refuse_other_network(run.name, shapes_of(model), student.spec["name"], shapes_of(student))
    student.load_state_dict(model.state_dict())
    origin = provenance_of(model)
    student.spec["started_from"] = f"{run.name} ({origin['strategy']})"
    return mark(student, origin)

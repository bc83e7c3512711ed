"""One schedule for every objective: a weight or a setting that moves between two steps of the run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

from ..names import did_you_mean, is_number

SHAPES = ("linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """Moves one number of an objective from ``first`` to the value its spec gives it.

    of          "weight", or a setting that calls of the objective read, such as "temperature"
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
        """Raises ``ValueError`` in one sentence for what cannot be; numbers among ``settings`` can be scheduled."""
        if not isinstance(given, dict):
            raise ValueError(
                f'The schedule of objective {name!r} is a dictionary such as {{"end": 0.1}}; got {given!r}.'
            )
        for key in given:
            if key not in (known := [f.name for f in fields(cls)]):
                raise ValueError(did_you_mean(f"schedule key of objective {name!r}", key, known))
        schedule = cls(**given)
        movable = ["weight", *(key for key, value in settings.items() if is_number(value))]
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
        return asdict(self)

    def value(self, last: float, step: int, steps: int) -> float:
        """The number at a step, counted from 1, of a run of ``steps``, on its way from ``first`` to ``last``."""
        begin, end = (math.floor(at * steps + 1e-9) if isinstance(at, float) else at for at in (self.begin, self.end))
        share = min(max((step - begin) / max(end - begin, 1), 0.0), 1.0)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.first + (last - self.first) * share

"""Settings as the field finds them: random draws, each a recorded training on a split of its own, and the winner is fixed.

    search:
      draws: 20                           # of the teacher and of each student, with each target left out
      seeds: 1                            # splits that each is trained on, none of them the study's; 3 is DomainBed's budget
      over:                               # parameters of 01 and 02; in braces, quote what has a comma
        learning_rate: 10^U(-5,-3.5)
        batch_size: 2^U(3,5.5)
        schedule: [constant, cosine]
      by: WAKD                            # whose source validation decides

For each unseen domain the draws are trained without it and judged on the validation parts of the others, by the mean over
these and over seeds; the winner is what the study's own seeds are trained with. DomainBed (Gulrajani and Lopez-Paz 2021,
arXiv 2007.01434) reports the winners' own trainings, one of each of three searches; here they are trained anew, on splits
that chose nothing.

``rule: leave_one_source_out`` is that paper's second rule of model selection: every draw is also trained without each source in
turn, and judged on all images of that one. The third, the oracle, chooses by the unseen domain: a table says what it would
have chosen, and nothing else ever knows.
"""

from __future__ import annotations

import functools
import math
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np

from ..checks import hints, make, spelled
from ..names import ParameterError, whole
from ..reporting.parameters import describe

FIRST_SEED = 100  # of the splits that are searched on


@dataclass(frozen=True)
class Search:
    """How settings are searched.

    over      {parameter of 01 and 02: where it is drawn from}: U(a,b), 10^U(a,b), 2^U(a,b), or a list of values
    instead   {student: {parameter: where its own are drawn from}}, over ``over``: a transformer wants other rates than a CNN
    draws     how many, the same for the teacher and every student
    seeds     splits that each draw is trained on, from seed 100 on, none of them the study's
    by        the label of the strategy whose average decides, on source validation; by default the study's baseline
    rule      what it decides by: source validation of the training domains, or a source that a training of its own left out
    students  who is searched, "teacher" among them; by default all, but for those that are ``like`` another
    like      {student: the one whose winner it takes}
    steps     of the trainings that search; by default the study's own
    seed      of the draws
    """

    over: dict
    instead: dict = field(default_factory=dict)
    draws: Annotated[int, whole(1)] = 20
    seeds: Annotated[int, whole(1)] = 1
    by: str = ""
    rule: Literal["training_domain_validation", "leave_one_source_out"] = "training_domain_validation"
    students: list | None = None
    like: dict = field(default_factory=dict)
    steps: Annotated[int, whole(1)] | None = None
    seed: Annotated[int, whole(0)] = 0

    def __post_init__(self):
        if not self.over:
            raise ParameterError("search: over names at least one parameter and where it is drawn from.")
        for label, own in self.instead.items():
            if not isinstance(own, dict):
                raise ParameterError(
                    f"search: instead: {label} takes {{parameter: where it is drawn from}}; got {own!r}."
                )
        if self.students == []:
            raise ParameterError("search: students lists who is searched, at least one; leave it out for all.")
        for where, name, source in self.sources():
            if not isinstance(name, str):
                raise ParameterError(f"search: {where}: parameters are names; got {name!r}.")
            if not (source if isinstance(source, list) else _form(source)):
                raise ParameterError(
                    f"search: {where}: {name} is drawn from U(a,b), 10^U(a,b), 2^U(a,b) with a < b, or a list of values; got "
                    f"{source!r}. In braces, quote what has a comma in it."
                )
        if self.steps is not None and any(name == "steps" for _, name, _ in self.sources()):
            raise ParameterError("search: steps is drawn, or given for all draws; leave out one of them.")

    def sources(self) -> list[tuple[str, str, object]]:
        """All that is drawn: (where it says so, parameter, where that is drawn from)."""
        blocks = {"over": self.over} | {f"instead: {label}": own for label, own in self.instead.items()}
        return [(where, *each) for where, block in blocks.items() for each in block.items()]


def search_of(block: Mapping) -> Search | None:
    """The search of a study's block of that name; None for an empty one. Raises ``ParameterError``."""
    return make(Search, block) if block else None


def split_seeds(search: Search, taken: Sequence[int]) -> list[int]:
    """The seeds of the splits that are searched on: none of a study's own, so that no winner is confirmed where it won."""
    free = (seed for seed in range(FIRST_SEED, FIRST_SEED + search.seeds + len(taken)) if seed not in taken)
    return [seed for seed, _ in zip(free, range(search.seeds))]


def draw(search: Search, number: int, label: str = "") -> dict[str, object]:
    """The settings of one draw of the teacher or a student: whole numbers where its notebook takes those.

    Decided by the search's seed, the draw's number, the setting's name and where it is drawn from alone: more draws, or more
    settings, leave the others as they were, and all who draw from the same are tried with the same.
    """
    found, cls = {}, describe("01_train_teacher" if label == "teacher" else "02_distill")
    for name, source in (search.over | search.instead.get(label, {})).items():
        random = np.random.default_rng([search.seed, number, zlib.crc32(name.encode())])
        if isinstance(source, list):
            found[name] = source[random.integers(len(source))]
            continue
        base, low, high = _form(source)
        value = random.uniform(low, high)
        value = float(f"{base**value if base else value:.3g}")
        found[name] = round(value) if name in _whole(cls) else value
    return found


@functools.cache
def _whole(cls: type) -> set[str]:
    """The parameters that are whole numbers."""
    return {name for name, hint in hints(cls).items() if spelled(hint) == "int"}


def _form(source: object) -> tuple[float, float, float] | None:
    """(base, a, b) of ``base^U(a,b)``, base 0 for ``U(a,b)``; None for what is neither, or reaches beyond what is a number."""
    number = r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*"
    found = re.fullmatch(rf"(?:(10|2)\^)?U\({number},{number}\)", str(source).strip())
    try:
        base, low, high = (float(part or 0) for part in found.groups()) if found else (0, 0, 0)
    except ValueError:
        return None
    most = sys.float_info.max_10_exp / math.log10(base) if base else sys.float_info.max / 2
    return (base, low, high) if low < high and max(abs(low), abs(high)) < most else None

"""What a training is: every setting once, with its type, its default, what fits and a sentence; and what follows from them.

``train``'s signature, its docstring, ``settings.json``, the notebooks' parameters and the plan of a study are held to
this. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

import numpy as np

from ..averaging import PUBLISHED, RECURRENCES, Curves, NoWindow, Recurrence, choose, settings_of, strategies
from ..averaging.curves import NotRecorded
from ..checks import hints, make
from ..data.mixing import Mix, second_from
from ..names import NOT_NEGATIVE, POSITIVE, SEED, ParameterError, is_number, is_whole, unboxed, whole, within

# settings of strategies that are a step (int) or a fraction of the run (float), as they are said
VERBS = {"begin": "begins", "start": "begins", "end": "ends", "between": "begins a part"}


@dataclass(frozen=True)
class Stepping:
    """What ``optimiser`` says in full: which of torch's, how far and how often it is pulled back, and SAM's radius."""

    name: Literal["adam", "adamw", "sgd"]
    pull_back: Annotated[float, within(0, 1), POSITIVE] = 1.0
    every: Annotated[int, whole(1)] = 1
    rho: Annotated[float, NOT_NEGATIVE] = 0.0

    @property
    def plain(self) -> str | dict:
        """As it is recorded: its name alone where nothing else is asked for."""
        pull = {"pull_back": self.pull_back, "every": self.every} if self.pull_back < 1 else {}
        more = pull | ({"rho": self.rho} if self.rho else {})
        return {"name": self.name, **more} if more else self.name


@dataclass(frozen=True)
class Gap:
    """What ``sampling`` by gaps says in full: after which share of the run domains get other shares, and how much of those is theirs."""

    name: Literal["gap"]
    every: Annotated[float, POSITIVE, within(0, 1)] = 0.03
    smoothing: Annotated[float, within(0, 1)] = 0.5


@dataclass(frozen=True)
class Settings:
    """The settings of a training, checked. Those that name objects (views, objectives) are in their complete, plain form.

    Made by ``checks.make``; ``ParameterError`` in one sentence where one does not fit, or two do not fit together.
    """

    objectives: Annotated[list, 'a list of {"name", "weight", settings}; there is no hidden cross-entropy'] = field(
        default_factory=lambda: [{"name": "ce"}]
    )
    steps: Annotated[
        int,
        whole(1),
        "optimiser steps, counted from 1; a segment ends every ``segment_length`` of them, at every step in ``edges``, "
        "where a declared strategy begins or ends, and at the last step",
    ] = 2000
    segment_length: Annotated[int, whole(1), "iterates in a segment: what is averaged is chosen segment by segment"] = (
        50
    )
    batch_size: Annotated[int, whole(1), "images of a step, of all source domains together"] = 64
    learning_rate: Annotated[
        float,
        POSITIVE,
        "constant by default, as in the WAKD paper (arXiv 2309.11446, section 4): averaging needs iterates that keep "
        "moving",
    ] = 1e-3
    optimiser: Annotated[
        Literal["adam", "adamw", "sgd"] | dict,
        "torch's, with its defaults but for what is set here and a momentum of 0.9 for sgd; {name, pull_back, every}: after every so many steps parameters "
        "keep this share of the way that those took them (Lookahead, Reptile; with sampling in turns over as many sources: "
        "Fish). Recorded are the parameters after each pull-back, standing for all steps of their round. {name, rho}: gradients are those "
        "at the worst of all points within rho, by its first order (SAM), for twice the time",
    ] = "adam"
    momentum: Annotated[float, NOT_NEGATIVE, "of sgd"] = 0.9
    weight_decay: Annotated[float, NOT_NEGATIVE, "as the optimiser has it: decoupled in adamw alone"] = 0.0
    schedule: Annotated[Literal["constant", "cosine"], '"cosine" decays the learning rate to zero over the run'] = (
        "constant"
    )
    warmup: Annotated[
        int, whole(0), "steps over which the learning rate first rises to its value, in a line; transformers need some"
    ] = 0
    sampling: Annotated[
        Literal["pooled", "balanced", "classes", "turns", "gap"] | dict,
        '"pooled": examples of all source domains shuffled together (WAKD); "balanced": as many of each domain in every '
        'batch (DomainBed); "classes": 16 images of a class over all domains, as many classes as fit (XDED); "turns": every '
        'batch of one domain, domain after domain (Fish); "gap", or {name, every, smoothing}: domains are drawn by the ratio of '
        "student's to teacher's perplexity on source validation, anew after each such share of the run, held towards equal shares "
        "(DDK); they are in curves.csv as share/<domain>",
    ] = "pooled"
    views: Annotated[
        dict | None,
        "augmentation, a preset's name or a dictionary of ``Views`` fields; default the benchmark's own",
    ] = None
    mix: Annotated[
        dict | None,
        'views mixed of two images, and soft labels: {"name": "mixup" or "cutmix"} and fields of ``Mix``, such as ``alpha`` and the '
        "``share`` of the batch",
    ] = None
    second: Annotated[
        dict | None,
        'a second batch, mixed of the same views, for objectives with "on": "mixed": as ``mix``, and ``pick`` for CutMixPick; or '
        '{"name": "learned"}, other views of the same images, whose strengths are learned against the student (fields of ``Learned``; '
        "they are in curves.csv as views/<variation>)",
    ] = None
    batchnorm: Annotated[
        Literal["frozen", "recalibrate", "average", "last"],
        '"frozen" (eval during training, for pretrained students), or what happens to running statistics when iterates '
        'are averaged: "recalibrate" on ``batchnorm_batches`` source batches, "average", "last"',
    ] = "recalibrate"
    freeze: Annotated[
        str | tuple[str, ...],
        'what stays as the student begins: "backbone", "head" (its classifier, and what an objective puts behind the student), '
        "or beginnings of parameters' names, several in a list; default nothing",
    ] = ()
    batchnorm_batches: Annotated[int, whole(1), "source batches that BatchNorm is recalibrated on"] = 10
    precision: Annotated[
        Literal["float32", "tf32", "bfloat16"],
        'of both forwards and of validation; losses are in float32 or better. "tf32" is float32 whose products an accelerator '
        "may round to 10 bits",
    ] = "float32"
    compile: Annotated[
        bool,
        "student, teacher and views by torch.compile, on CUDA as graphs: minutes at the start, less time a step; rounds "
        "otherwise",
    ] = False
    deterministic: Annotated[
        bool,
        "the same bits twice on an accelerator, too, where there are kernels for it; the CPU's always are",
    ] = False
    declare: Annotated[
        tuple,
        "strategies that must stay exact: their windows when stored segments are merged (``most_stored``), and ema, "
        "power and annealed iterate by iterate, at one more parameter vector in memory each",
    ] = ("wakd", "swad")
    edges: Annotated[tuple[int, ...], "steps at which a segment ends as well, never merged away"] = ()
    most_stored: Annotated[
        int,
        whole(2),
        "segments on disk; neighbours are merged beyond that, but for edges that declared strategies need and the newest",
    ] = 64
    storage: Annotated[
        Literal["float32", "float16_difference"],
        "of segments: as it is, or the difference to the start in half the disk",
    ] = "float32"
    ramps: Annotated[
        bool,
        "one more vector of each segment, its slope: averages whose weights change within a stored segment are then close to exact",
    ] = False
    teacher_cache: Annotated[
        float,
        NOT_NEGATIVE,
        "GB of disk, for all of them together, that what teachers give may take below ``$WAKD_CACHE``: the first student "
        "of a teacher asks it, those after it read the same; what was used longest ago goes first, 0 keeps nothing",
    ] = 5.0
    streaming: Annotated[
        Literal["auto", "always", "never"],
        "images are gathered by a thread ahead of each step, and need not fit the device or the memory: where they exceed half "
        "of what is free, of a study each its part of that, always or never; the batches are the same",
    ] = "auto"
    seed: Annotated[int, SEED, "of batches, views, dropout and what objectives initialise"] = 0

    def __post_init__(self):
        listed = [{"name": spec} if isinstance(spec, str) else spec for spec in self.declare]
        for spec in listed:
            if not isinstance(spec, Mapping) or "name" not in spec:
                raise ParameterError(f"declare lists strategies, each a name or a dictionary with one; got {spec!r}.")
        declare = [{key: unboxed(value) for key, value in spec.items()} for spec in listed]
        object.__setattr__(self, "declare", declare)
        object.__setattr__(self, "edges", sorted(self.edges))
        object.__setattr__(self, "freeze", [self.freeze] if isinstance(self.freeze, str) else list(self.freeze))
        self._refuse_unheard_parts()
        if isinstance(self.optimiser, Mapping):
            stepped = make(Stepping, self.optimiser)
            object.__setattr__(self, "optimiser", stepped.plain)
            self._refuse_broken_rounds(stepped)
        if isinstance(self.sampling, Mapping) or self.sampling == "gap":
            given = {"name": "gap"} if isinstance(self.sampling, str) else self.sampling
            object.__setattr__(self, "sampling", dataclasses.asdict(make(Gap, given)))
        for name, made in (("mix", functools.partial(make, Mix)), ("second", second_from)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, dataclasses.asdict(made(getattr(self, name))))
        self._refuse_unheard_mixes()
        if self.warmup >= self.steps:
            raise ParameterError(f"warmup is less than the {self.steps} steps of the run; got {self.warmup}.")
        if any(not 0 < edge < self.steps for edge in self.edges):
            raise ParameterError(f"edges are steps between 1 and {self.steps - 1}; got {self.edges}.")

    def _refuse_unheard_parts(self) -> None:
        """Parts of a dictionary that decide nothing without another, which may be said to be none."""
        for setting, part, needs in (
            ("optimiser", "every", "pull_back"),
            ("second", "pool", "pick"),
            ("second", "temperature", "pick"),
        ):
            given = getattr(self, setting)
            if isinstance(given, Mapping) and part in given and needs not in given:
                raise ParameterError(
                    f"{setting}: {part} decides nothing without {needs}; say {needs} as well, or leave out {part}={given[part]!r}."
                )

    def _refuse_unheard_mixes(self) -> None:
        """A second batch and objectives on it go together; a batch of one has nothing to be mixed with."""
        on_mixed = any(isinstance(spec, Mapping) and spec.get("on") == "mixed" for spec in self.objectives)
        if on_mixed != (self.second is not None):
            there, missing = ("on: mixed", "second") if on_mixed else ("second", 'objective with "on": "mixed"')
            raise ParameterError(
                f"There is {there}, and no {missing}: a second batch is mixed for the objectives that say so."
            )
        if (self.mix or self.second) and self.batch_size < 2:
            raise ParameterError(
                f"Images are mixed within a batch, which has at least 2; got batch_size {self.batch_size}."
            )

    def _refuse_broken_rounds(self, stepped: Stepping) -> None:
        """A segment ends where a round does, so that its end is what is recorded."""
        lengths = {"steps": [self.steps], "segment_length": [self.segment_length], "edges": self.edges}
        for name, values in lengths.items():
            for value in values if stepped.pull_back < 1 else ():
                if value % stepped.every:
                    raise ParameterError(
                        f"An optimiser that is pulled back every {stepped.every} steps has segments of whole rounds: {name} is a "
                        f"multiple of {stepped.every}, such as {max(value // stepped.every, 1) * stepped.every}; got {value}."
                    )


NOT_RECORDED = ("teacher_cache", "streaming")  # decide nothing of a recording
# decide how one is stored or computed, not what it is of; averages that do not fit its storage say so themselves
AS_STORED = ("declare", "edges", "most_stored", "storage", "ramps", "compile", "deterministic")
NAMES = tuple(f.name for f in fields(Settings))
FITS = types.SimpleNamespace(**hints(Settings))  # ``steps: FITS.steps`` is a field with the same bounds


def described(width: int = 120) -> str:
    """The settings as a table for a docstring: each name and its sentence."""
    lines = []
    for name, fits in vars(FITS).items():
        sentence = next(note for note in typing.get_args(fits) if isinstance(note, str))
        lines += textwrap.wrap(sentence, width - 4, initial_indent=f"{name:20}", subsequent_indent=" " * 20)
    return "\n    ".join(lines)


def segment_ends(settings: Settings) -> frozenset[int]:
    """The steps at which a segment ends: see ``Settings.steps``."""
    steps, length = settings.steps, settings.segment_length
    at = [moments(spec, steps, every(settings)) for spec in settings.declare]
    declared = {step for one in at for step in _edges(one) if 0 < step < steps}
    return frozenset([*range(length, steps, length), *settings.edges, *declared, steps])


def recurrences(settings: Settings) -> list[Recurrence]:
    """The moving averages that are declared: all that edges cannot keep exact."""
    steps, specs = settings.steps, [spec for spec in settings.declare if spec["name"] in RECURRENCES]
    return [
        RECURRENCES[spec["name"]](steps, **{**named(spec), **moments(spec, steps, every(settings))}) for spec in specs
    ]


def as_published(settings: Settings) -> Settings:
    """These settings, and declared strategies with the defaults that they had while all defaults were the papers'."""
    declare = [{**PUBLISHED.get(spec["name"], {}), **spec} for spec in settings.declare]
    return dataclasses.replace(settings, declare=tuple(declare))


def as_declared(recorded: Mapping, spec: Mapping) -> dict:
    """A strategy as a recording means it, whose settings.json says ``recorded``.

    What was declared by name while all defaults were the papers' still has them: a study of before that names no settings
    chooses on its recordings what it chose then.
    """
    then = recorded.get("arithmetic", {}).get("defaults", "published") == "published"
    named_then = then and any(declared["name"] == spec["name"] for declared in recorded.get("declare", ()))
    return {**(PUBLISHED.get(spec["name"], {}) if named_then else {}), **spec}


def named(spec: Mapping) -> dict:
    """The settings of a declared strategy."""
    return {key: value for key, value in spec.items() if key not in ("name", "label")}


def moments(spec: Mapping, steps: int, every: int = 1) -> dict[str, int | list[int]]:
    """The moments of a declared strategy as steps of a whole run: ``{"begin": 120}``. A float is a fraction of the run.

    every  steps of a round after which an iterate is recorded: a moment within one is its end
    """
    given = {name: value for name, value in named(spec).items() if value is not None}
    known = {**settings_of(spec["name"], steps, given.get("exact")), **given}

    def step(name: str, value: object) -> int | list[int]:
        if isinstance(value, list | tuple) and name == "between":
            return [step(name, one) for one in value]
        if not is_number(value):
            at = f"{spec['name']} {VERBS[name]} at a step (int) or a fraction of the run (float)"
            raise ValueError(f"{at}; got {value!r}.")
        return -(-(int(value) if is_whole(value) else math.floor(value * steps + 1e-9)) // every) * every

    return {name: step(name, known[name]) for name in VERBS if known.get(name) is not None}


def stepping(settings: Settings) -> Stepping:
    """What ``optimiser`` says, in full."""
    given = settings.optimiser
    return make(Stepping, given if isinstance(given, Mapping) else {"name": given})


def every(settings: Settings) -> int:
    """How many steps an iterate is recorded after: 1, or the steps between two pull-backs."""
    return stepping(settings).every


def _edges(at: Mapping[str, int | list[int]]) -> list[int]:
    """All steps among these moments."""
    return [step for steps in at.values() for step in (steps if isinstance(steps, list) else [steps])]


def edges_to_keep(curves: Curves, settings: Settings) -> set[int]:
    """Steps at which stored segments must keep an edge so that declared strategies stay exact, from curves until now.

    A strategy that reads curves may still move its window back over recent segments, so those all keep their edges;
    further back, an edge is kept where the coefficient per iterate changes, or where an end iterate is used.
    """
    keep, recent = {*settings.edges}, 16
    for spec in settings.declare:
        strategy, at = strategies.get(spec["name"]), moments(spec, settings.steps, every(settings))
        keep.update(_edges(at))
        known = {**settings_of(spec["name"]), **spec}
        recent = max(recent, sum(2 * known.get(n, 0) for n in ("n_converge", "n_tolerance")), known.get("k") or 0)
        # a search is not settled by curves, a moving average is kept itself or within segments: only their moments need an edge
        kept = spec["name"] in RECURRENCES or (spec["name"] == "bema" and spec.get("every") is None)
        if kept or EVALUATIONS & inspect.signature(strategy).parameters.keys():
            continue
        try:
            (coefficients,) = choose(curves, [{**spec, **at}]).values()
        except ValueError:  # its begin or end is still to come
            continue
        if isinstance(coefficients, NoWindow):
            continue
        means, ends = coefficients.parts["mean"] / curves.iterates, coefficients.parts["end"]
        changes = (np.diff(means, append=means[-1]) != 0) | (ends != 0)
        keep.update(int(step) for step in curves.ends[changes])
    return keep | {int(step) for step in curves.ends[-recent:]}


EVALUATIONS = {"score", "loss_and_gradient", "held_out_loss"}


def rehearse(settings: Settings, wanted: Sequence[str | Mapping] = (), *, teacher: bool) -> None:
    """Raises what averaging would raise later for a strategy or a setting of one that cannot be, on curves of this length.

    wanted   strategies, with settings, beside those declared: what is deployed, or teaches, and so needs the curves that it reads
    teacher  whether there is one, and so a distillation curve
    ``ValueError`` or ``UnknownName`` in one sentence. A strategy that finds no window on these curves may find one later.
    """
    specs = [{"name": spec} if isinstance(spec, str) else spec for spec in (*settings.declare, *wanted)]
    for spec in specs:
        for moment, step in moments(spec, settings.steps).items():
            step = max(step) if isinstance(step, list) else step
            if step > settings.steps - (moment != "end"):
                raise ValueError(
                    f"A strategy {VERBS[moment]} beyond the {settings.steps} steps of the run: {dict(spec)} {VERBS[moment]} at "
                    f"step {step}, but the run has {settings.steps} steps."
                )
    curves = curves_alike(settings, teacher=teacher)
    for spec in specs:
        try:
            as_asked = _picked(curves, spec, needed=spec in [*wanted])
        except _Searching:
            continue
        at = moments(spec, settings.steps)
        try:
            with np.errstate(all="ignore"):
                alike = not at or np.array_equal(as_asked, _picked(curves, {**spec, **at}))
        except ValueError:
            alike = False
        if not alike:
            raise ValueError(
                f"{spec['name']} picks something else at {at} than at the fractions of the run that these are. While a run is recorded it "
                "gets steps, as ints: read such a setting by averaging.step_of(curves, begin, 'begin'), which takes both."
            )


def curves_alike(settings: Settings, *, teacher: bool) -> Curves:
    """Curves of a run of these settings, at one value each: what is known of it before it is trained."""
    ends = np.array(sorted(segment_ends(settings)))
    recorded = ["train_loss", "val_loss", "val_loss_pooled", "val_accuracy", *["val_kd_loss"] * teacher]
    return Curves(np.diff(ends, prepend=0), **dict.fromkeys(recorded, np.full(len(ends), 0.5)))


def _picked(curves: Curves, spec: Mapping, *, needed: bool = False) -> np.ndarray:
    """What a strategy picks on these curves, nothing where it finds no window; raises ``_Searching`` where it evaluates averages, and
    of one that is ``needed`` that a curve is not there."""
    evaluations = dict.fromkeys(EVALUATIONS, _searching)
    try:
        (found,) = choose(curves, [spec], **evaluations).values()
    except OverflowError as error:
        raise ValueError(f"{spec['name']} takes no such numbers: {named(spec)} ({error.args[-1]}).") from error
    if needed and isinstance(found, NotRecorded):
        raise ValueError(f"{spec['name']} finds nothing to average: {found}")
    return np.empty(0) if isinstance(found, NoWindow) else np.concatenate([*found.parts.values()])


class _Searching(Exception):
    """A strategy got as far as trying averages, so its settings are in order."""


def _searching(*_) -> float:
    raise _Searching

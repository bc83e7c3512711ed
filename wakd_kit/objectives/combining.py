"""A weighted list of objectives: checked, completed, summed; with its modules' parameters, state and schedules."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.tails import Deployed
from ..models.tap import Output, Tap
from ..names import did_you_mean, is_number, is_whole, one_of, unboxed
from .base import Schedule, detached, each_tensor, objectives, raw_logits


@dataclass(frozen=True)
class Pair:
    """What a module is built from: the shapes of an ``Output`` of student and teacher (or None), on zeros.

    ``pair.student.pooled.shape[1]``, ``[m.shape[1:] for m in pair.teacher.maps]``.

    spec     what the student is, to build another of its kind; None where that is not known
    sources  how many source domains there are
    """

    student: object
    teacher: object
    spec: dict | None = None
    sources: int = 2

    @property
    def classes(self) -> int:
        """How many the student tells apart."""
        return raw_logits(self.student).shape[1]


class Combined(nn.Module):
    """A weighted sum of objectives, made by ``combine``.

    Calling it returns ``(total, terms)``: the scalar to differentiate, and every unweighted term, detached, by label;
    what a module lists as ``watched`` comes too, as label/name. The teacher is detached here, and autocast is off:
    losses are computed in float32 or better. As a module it holds the parameters and the state of its objectives,
    which the optimiser and a checkpoint need as they need the student's.
    """

    def __init__(self, specs: list[dict]):
        super().__init__()
        self.specs = specs
        self.labels = _labels(specs)
        self.steps: int | None = None
        self.seed = 0
        self.spec: dict | None = None
        self.schedules = [Schedule(**spec["schedule"]) if "schedule" in spec else None for spec in specs]
        self.parts = nn.ModuleDict()  # by position in the list: labels hold dots
        self._build(None)

    def needs(self, what: str) -> bool:
        """Whether any term needs one of ``NEEDS``."""
        return any(what in objectives.about(spec["name"]).needs for spec in self.specs)

    def reads(self, what: str, who: str) -> bool:
        """Whether any term reads one of ``READS`` of "student" or "teacher"."""
        return any(objectives.about(spec["name"]).reads(what, who) for spec in self.specs)

    def asks(self, who: str) -> bool | str:
        """What "student" or "teacher" is asked for beside its logits, as ``maps`` of a ``Tap``."""
        return "attention" if self.reads("attention", who) else self.reads("maps", who)

    @property
    def deploying(self) -> list[dict]:
        """Those that deploy a part of their own with the student."""
        return [spec for spec in self.specs if objectives.about(spec["name"]).tail]

    def extended(self, student: nn.Module, teacher: nn.Module | None, *, seed: int = 0) -> nn.Module:
        """The student with what an objective deploys with it, or as it is where none does.

        Raises ``ValueError`` where the two models do not allow it.
        """
        self.spec = getattr(student, "spec", None)
        deploying = self.deploying
        untaught = teacher is None and self.needs("teacher")  # which is said later
        if not deploying or untaught:
            return student
        (spec,) = deploying
        about = objectives.about(spec["name"])
        if isinstance(student, Deployed):  # it goes on with the part that it has, which must be this one
            with torch.random.fork_rng(devices=[]):
                wanted = about.tail(student.tap, teacher, **{key: spec[key] for key in about.built_with})
            theirs, ours = (each.spec["settings"]["deployed"] for each in (student, wanted))
            if {**ours, **theirs} != ours:  # an earlier recording may say less
                raise ValueError(
                    f"{spec['name']} adds a part to the student, which has another already: {theirs}, not {ours}. Let it start "
                    "where a student of this objective ended, or without one."
                )
            return student
        if not isinstance(student, Tap):
            raise ValueError(f"{spec['name']} adds a part to a timm model; {student.spec['name']} is none.")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            extended = about.tail(student, teacher, **{key: spec[key] for key in about.built_with})
        return extended

    def learn_centres(self, features: Tensor, labels: Tensor) -> None:
        """Hand the teacher's pooled features (n, features) of all source training images to what needs "centres"."""
        for position, spec in enumerate(self.specs):
            if "centres" in objectives.about(spec["name"]).needs:
                self.parts[str(position)].learn_centres(features, labels)

    def prepare(
        self, student, teacher, *, steps: int, seed: int = 0, images: Tensor | None = None, sources: int = 2
    ) -> Combined:
        """Make ready for a run of ``steps``: build what depends on the models, and try everything out once.

        student, teacher  what the two gave for the same few images, on any device, the meta device too: an ``Output``
                          or logits, of which only shapes are read; None without a teacher
        seed              initial parameters are a function of it; the global random state is left alone
        images, sources   what the two were shown, in [0, 1], and how many source domains there are, for networks of objectives

        Raises ``ValueError``, in one sentence, for class counts that differ and for inputs that an objective needs and
        the models do not give. What is built is on the CPU, so move it to the device afterwards. Returns itself.
        """
        self.steps, self.seed = steps, seed
        (student, teacher), labels, of_batch = _a_batch(student, teacher, images, sources)
        both = student, teacher
        if self._hears_mixed():  # such a batch behind the first
            both = [each_tensor(output, lambda t: torch.cat([t, t])) for output in both]
            of_batch["images"] = torch.cat([of_batch["images"]] * 2)
            labels = labels, F.one_hot(labels, raw_logits(student).shape[1]).float()
        self._refuse_missing(*both, labels, of_batch)
        training = self.training
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._build(Pair(student, teacher, self.spec, sources))
            with torch.no_grad():
                self.eval()(*both, labels, step=1, **of_batch)  # state moves in training mode alone
        return self.train(training)

    @torch.no_grad()
    def reading_largest(self, student, teacher, images: Tensor | None = None, sources: int = 2) -> list[str]:
        """The terms, by label, that read of soft labels which class is the largest: found by asking each of them once."""
        asked = []

        class Soft(Tensor):
            """Labels that notice being asked for their largest class."""

            @classmethod
            def __torch_function__(cls, function, types, args=(), kwargs=None):
                asked.extend([True] * (function.__name__ in ("argmax", "max", "topk", "sort", "argsort")))
                return super().__torch_function__(function, types, args, kwargs or {})

        (student, teacher), labels, of_batch = _a_batch(student, teacher, images, sources)
        soft = F.one_hot(labels, raw_logits(student).shape[1]).float().as_subclass(Soft)
        found, training = [], self.training
        self.eval()
        with torch.random.fork_rng(devices=[]):
            for position, label in enumerate(self.labels):
                asked.clear()
                if (
                    "index" not in objectives.about(self.specs[position]["name"]).needs
                ):  # those remember images, not labels
                    self._term(position, 1, of_batch)(student, teacher, soft)
                found += [label] * bool(asked)
        self.train(training)
        return found

    def learn_examples(
        self, labels: Tensor, rows: Mapping[str, np.ndarray] | None = None, classes: Sequence[str] = ()
    ) -> None:
        """Hand the labels (n,) of all source training images, in the order of ``index``, to what needs "index"; with their rows
        among all images of each domain, and the names of the classes."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            for position, spec in enumerate(self.specs):
                if "index" in objectives.about(spec["name"]).needs:
                    self.parts[str(position)].learn_examples(labels, rows, classes)

    def forward(
        self,
        student,
        teacher,
        labels,
        *,
        step: int | None = None,
        index: Tensor | None = None,
        domains: Tensor | None = None,
        images: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total and its terms.

        labels   a pair where a second batch lies behind the first in both outputs: labels of the first, of the second
        step     counted from 1, needed where there is a schedule or an objective follows the run's progress
        index    which training images these are, (n,), needed where an objective remembers them
        domains  (n, sources), 1 where an example is of a source, needed where an objective compares domains
        images   what both have seen, in [0, 1], needed where an objective owns a network
        """
        of_batch = {"index": index, "domains": domains, "images": images}
        self._refuse_missing(student, teacher, labels, of_batch)
        batches = {"views": (student, detached(teacher), labels, images)}
        if isinstance(labels, tuple):
            n, both = len(labels[0]), (student, detached(teacher), images)
            for on, cut, own in (("views", slice(n), labels[0]), ("mixed", slice(n, None), labels[1])):
                *outputs, seen = (each_tensor(part, lambda t, cut=cut: t[cut]) for part in both)
                batches[on] = (*outputs, own, seen)
        total, terms = 0.0, {}
        with torch.autocast(raw_logits(student).device.type, enabled=False):
            for position, (label, spec) in enumerate(zip(self.labels, self.specs)):
                *given, seen = batches[spec.get("on", "views")]
                value = self._term(position, step, {**of_batch, "images": seen})(*given)
                objective = self._objective(position)
                terms[label] = value.detach()
                terms |= {f"{label}/{name}": getattr(objective, name).detach().clone() for name in watched(objective)}
                total = total + self._at(position, step)["weight"] * value
        return total, terms

    def _term(self, position: int, step: int | None, of_batch: Mapping) -> Callable:
        """The objective with its settings at this step, and what it needs to know of the batch."""
        about, now = objectives.about(self.specs[position]["name"]), self._at(position, step)
        settings = {key: now[key] for key in about.called_with}
        if "progress" in about.needs:
            settings["progress"] = step / self._known_steps(self.labels[position], step)
        settings |= {what: given for what, given in of_batch.items() if what in about.needs}
        return functools.partial(self._objective(position), **settings)

    def _at(self, position: int, step: int | None) -> dict:
        """The spec of a term with its scheduled number at this step."""
        spec, schedule = self.specs[position], self.schedules[position]
        if schedule is None:
            return spec
        steps = self._known_steps(self.labels[position], step)
        return {**spec, schedule.of: schedule.value(spec[schedule.of], step, steps)}

    def _known_steps(self, label: str, step: int | None) -> int:
        if self.steps is None or step is None:
            raise ValueError(
                f"{label} changes over the run: call prepare(student_output, teacher_output, steps=...) before the "
                "first batch and pass step= with every batch."
            )
        return self.steps

    def _objective(self, position: int):
        name = self.specs[position]["name"]
        if not inspect.isclass(objectives.get(name)):
            return objectives.get(name)
        if str(position) not in self.parts:
            raise ValueError(f"{name} is built for a pair of models: call prepare(student_output, ...) first.")
        return self.parts[str(position)]

    def _build(self, pair: Pair | None) -> None:
        """Modules that are not there yet and can be built from what is known."""
        for position, spec in enumerate(self.specs):
            about, objective = objectives.about(spec["name"]), objectives.get(spec["name"])
            if inspect.isclass(objective) and str(position) not in self.parts and (pair or not about.of_pair):
                settings = {key: spec[key] for key in about.built_with}
                module = objective(pair, **settings) if about.of_pair else objective(**settings)
                self.parts[str(position)] = module

    def _hears_mixed(self) -> bool:
        return any(spec.get("on") == "mixed" for spec in self.specs)

    def _refuse_missing(self, student, teacher, labels, of_batch: Mapping) -> None:
        """Raises in one sentence when what an objective reads is not there."""
        if self._hears_mixed() and not isinstance(labels, tuple):
            raise ValueError(
                f"The objectives {self.labels} learn from a second batch; pass labels of both, (labels, soft)."
            )
        for what, given in {"teacher": teacher, "labels": labels, **of_batch}.items():
            if given is None and self.needs(what):
                raise ValueError(f"The objectives {self.labels} need {what}, which is None; pass {what}.")
        self.refuse_unread(student, teacher)

    def refuse_unread(self, student, teacher) -> None:
        """Raises ``ValueError`` where an ``Output`` of one, if it is given, lacks what an objective reads of it."""
        for what in ("pooled", "maps", "parts", "attention"):
            for who, output in (("student", student), ("teacher", teacher)):
                if self.reads(what, who) and output is not None and not len(getattr(output, what, ())):
                    only = "; convolutional networks, and transformers that compute theirs another way (Swin, BEiT, EVA), do not"
                    raise ValueError(
                        f"The objectives {self.labels} read {what} of the {who}, whose output has none."
                        + f" timm's ViT and DeiT have it{only}." * (what == "attention")
                    )


def _a_batch(student, teacher, images: Tensor | None, sources: int) -> tuple[list, Tensor, dict[str, Tensor]]:
    """Outputs of both as zeros, labels (n,), and what else there is to know of a batch, to try objectives out on."""
    both = [each_tensor(output, lambda t: torch.zeros(t.shape)) for output in (student, teacher)]
    n = len(raw_logits(student))
    places = torch.arange(n) % 2
    of_batch = {"index": places, "domains": torch.eye(max(sources, 2))[places][:, :sources]}
    of_batch["images"] = torch.zeros(n, 3, 32, 32) if images is None else images
    return both, torch.zeros(n, dtype=torch.long), of_batch


def watched(objective) -> tuple[str, ...]:
    """Names of scalars of a module that are logged beside its loss, such as a learned temperature."""
    return getattr(objective, "watched", ())


def combine(specs: str | dict | Sequence[str | dict]) -> Combined:
    """The weighted sum that a list of ``{"name", "weight", settings...}`` describes; names alone get their defaults.

    An entry may have a ``"schedule"``, see ``Schedule``; None takes away an objective's own. ``"on": "mixed"`` is for terms that
    learn from the second, mixed batch of ``train(second=)`` in place of the views.

    Raises in one sentence: ``UnknownName`` for an unknown objective; ``ValueError`` for an unknown setting or a value
    it cannot have, a weight that is no number >= 0, an empty list, one entry twice, two that would deploy a part with the student, or
    weights that are all zero.
    """
    if isinstance(specs, str | Mapping) or not isinstance(specs, Iterable):
        specs = [specs]
    complete = [_complete(spec) for spec in specs]
    if not complete:
        raise ValueError('No objective given; list at least one, such as [{"name": "kd", "temperature": 5.0}].')
    if not any(_largest_weight(spec) for spec in complete):
        raise ValueError(
            f"The objectives' weights sum to zero ({complete}); nothing would be trained. Give one a weight above 0."
        )
    combined = Combined(complete)
    if len(deploying := combined.deploying) > 1:
        raise ValueError(f"{' and '.join(s['name'] for s in deploying)} each deploy a part of their own; list one.")
    return combined


def _complete(spec: str | dict) -> dict:
    """The spec with every setting; raises for what cannot be, which the objective itself says on a tiny example."""
    if not isinstance(spec, str | Mapping):
        raise ValueError(f"An objective is a name or a dictionary with one, such as {{'name': 'kd'}}; got {spec!r}.")
    spec = {"name": spec} if isinstance(spec, str) else {key: unboxed(value) for key, value in spec.items()}
    if "name" not in spec:
        raise ValueError(f'Every objective needs a "name"; got {spec}.')
    about = objectives.about(spec["name"])
    name = objectives.now(spec.pop("name"))
    weight = spec.pop("weight", about.weight)
    if not is_number(weight) or weight < 0:
        raise ValueError(f"The weight of objective {name!r} is a number >= 0; got {weight!r}.")
    schedule, on = spec.pop("schedule", about.schedule), spec.pop("on", "views")
    one_of(f"on of objective {name!r}", on, ("views", "mixed"))
    known = {**about.built_with, **about.called_with}
    for key, value in spec.items():
        if key not in known:
            raise ValueError(did_you_mean(f"setting of objective {name!r}", key, [*known, "weight", "schedule", "on"]))
        if type(known[key]) in (int, float) and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ValueError(f"Setting {key!r} of objective {name!r} is a number; got {value!r}.")
        if isinstance(known[key], bool) and not isinstance(value, bool):
            raise ValueError(f"Setting {key!r} of objective {name!r} is True or False; got {value!r}.")
    complete = {"name": name, "weight": float(weight), **known, **spec}
    if on == "mixed":  # what is on the views says nothing, as it did before there was another batch
        complete["on"] = on
    tried = [complete]
    if schedule is not None:
        scheduled = Schedule.from_spec(name, schedule, about.called_with)
        complete["schedule"] = scheduled.spec()
        tried.append({**complete, scheduled.of: scheduled.first})
    if not about.tail:
        for one in tried:
            _try_out({key: value for key, value in one.items() if key not in ("schedule", "on")})
    return complete


def _try_out(spec: dict) -> None:
    """An objective is called on a tiny pair here and now, so that what it refuses is refused before anything is built.

    It may be written for as many stages as the models have, so it is refused where it refuses every number of them.
    """
    wide = heads if is_whole(heads := spec.get("heads")) and heads > 0 else 1  # which fit is for the models to say
    blocks = (torch.zeros(2, 3, 1, 2, wide),) * 100
    problems = {}
    for stages in (4, 3, 2, 1):
        tiny = Output(torch.zeros(2, 10), torch.zeros(2, 3), (torch.zeros(2, 3, 2, 2),) * stages, attention=blocks)
        try:
            Combined([spec]).prepare(tiny, tiny, steps=1)
            return
        except Exception as problem:  # of the user's own function, too
            problems[stages] = problem
    said = {n: f"{'' if isinstance(e, ValueError) else f'{type(e).__name__}: '}{e}" for n, e in problems.items()}
    if len({*said.values()}) > 1:  # which of them is about the number of stages is for the reader to see
        each = " ".join(f"Of {n} stages: {sentence}" for n, sentence in said.items())
        raise ValueError(f"Objective {spec['name']!r} refuses models of any number of stages. {each}")
    if isinstance(problem := problems[4], ValueError):
        raise problem
    raise ValueError(
        f"Objective {spec['name']!r} stopped where it was tried on two made-up examples (10 classes, 3 pooled features, 4 maps of "
        f"3 x 2 x 2), {said[4]}"
    ) from problem


def refuse_settings(specs: str | dict | Sequence[str | dict]) -> None:
    """What ``combine`` refuses, and settings of those that read a deployed part, which ``combine`` cannot try: that is built behind
    the student. Raises ``ValueError`` where one says the same of two heads' logits, of a map and of a feature.
    """
    z, maps = torch.zeros(2, 10), torch.zeros(2, 3, 2, 2)
    for spec in [spec for spec in combine(specs).specs if objectives.about(spec["name"]).tail]:
        schedule = Schedule(**spec["schedule"]) if "schedule" in spec else None
        for one in [spec] if schedule is None else [spec, {**spec, schedule.of: schedule.first}]:
            said = []
            for parts in ((z, z), (maps,), (z[:, :1],)):
                tiny = Output(z, torch.zeros(2, 3), (maps,), parts)
                try:
                    Combined([{key: one[key] for key in one if key not in ("schedule", "on")}]).prepare(
                        tiny, tiny, steps=1
                    )
                    break
                except Exception as problem:  # of the user's own function, too
                    said.append(problem)
            if len(said) == 3 and isinstance(said[0], ValueError) and len({*map(str, said)}) == 1:
                raise said[0]


def _largest_weight(spec: dict) -> float:
    schedule = spec.get("schedule")
    return max(spec["weight"], schedule["first"] if schedule and schedule["of"] == "weight" else 0.0)


def _labels(specs: list[dict]) -> list[str]:
    """The name of each term; with the settings in which they differ where a name is listed twice."""
    labels = []
    for spec in specs:
        same = [{"on": "views", **other} for other in specs if other["name"] == spec["name"]]
        settings = {key: value for key, value in {"on": "views", **spec}.items() if key not in ("name", "weight")}
        told = {k: v for k, v in settings.items() if any(other.get(k) != v for other in same)}
        settings.pop("on")
        label = ",".join(f"{key}={value}" for key, value in (told or settings).items())
        labels.append(spec["name"] if len(same) == 1 else f"{spec['name']}[{label}]")
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"{label} is listed twice with the same settings; list it once, with one weight.")
    return labels

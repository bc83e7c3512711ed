"""What each shipped notebook accepts: one frozen dataclass each, and the check of plain values against it.

``execute.execute`` checks names, types and choices before a kernel starts, and the notebook's second cell does the same,
so a plain ``papermill -p`` is checked as well, and types and choices of an edited cell.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

from ..averaging import labels_of
from ..checks import make, parse
from ..files import path_of
from ..names import MERGED, ParameterError, Registry, UnknownName, at_least, did_you_mean, whole
from ..runs.settings import FITS, NAMES, Settings, named

__all__ = ["ParameterError", "describe", "make", "notebook_parameters", "parameters", "parse", "plain"]

descriptions = Registry("notebook")


def notebook_parameters(stem: str) -> Callable[[type], type]:
    """Decorator: this dataclass describes the parameters of the notebook called ``stem``. Returns it unchanged."""
    return descriptions.register(name=stem)


def describe(which: str | Path) -> type:
    """The dataclass that describes a notebook, by its name or file. Raises ``UnknownName`` when nothing does."""
    return descriptions.get(Path(which).stem)


def parameters(which: str | type, namespace: Mapping[str, object]):
    """The checked parameters of the running notebook: ``p = parameters("02_distill", globals())`` in its second cell.

    Of other names only those are refused that papermill set, in the cell headed "# Parameters" that it puts right after the
    notebook's own: what else a session has, cells left there.
    """
    cls = which if isinstance(which, type) else describe(which)
    known = {f.name for f in fields(cls)}
    unknown = _injected(list(namespace.get("In", ())), known) - known
    return make(cls, {name: namespace[name] for name in (*known, *unknown) if name in namespace})


def _injected(cells: list[str], known: set[str]) -> set[str]:
    """What papermill set, of the cells that ran, and no cell before it: a copy may declare parameters of its own."""
    at = max((i for i, cell in enumerate(cells) if cell.startswith("# Parameters\n")), default=0)
    if not at or not _assigned(cells[at - 1]) & known:
        return set()
    found = _assigned(cells[at]).difference(*map(_assigned, cells[:at]))
    return {name for name in found if not name.startswith("PAPERMILL_")}  # its own, of --inject-paths


def _assigned(cell: str) -> set[str]:
    with contextlib.suppress(SyntaxError):
        return {
            node.id
            for node in ast.walk(ast.parse(cell))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
    return set()


def plain(instance) -> dict[str, object]:
    """The fields of a dataclass as JSON values, which is how papermill should get them."""
    return json.loads(json.dumps(vars(instance), default=asdict))


@functools.cache  # a plan of a thousand jobs lists the same few
def _try_objectives(listed: str) -> None:
    # torch; whoever only reads or writes parameters does not wait for it
    from ..objectives.combining import refuse_settings

    refuse_settings(json.loads(listed))


@functools.cache
def _try_several(teacher: str, listed: str) -> None:
    from ..objectives import combine
    from ..runs.several import checked, temperature_of

    try:
        temperature_of(combine(json.loads(listed)), checked(json.loads(teacher)))
    except ValueError as error:
        raise ParameterError(f"teacher: {error}") from error


@functools.cache
def _try_start(start: str) -> None:
    from ..runs.start import parts_of

    try:
        parts_of(json.loads(start))
    except ValueError as error:
        raise ParameterError(str(error)) from error


@functools.cache  # those of a study are asked about with each of its jobs
def _labels(listed: str) -> list[str]:
    return labels_of(json.loads(listed))


def _try_strategy(setting: str, spec: dict) -> None:
    try:
        labels_of([spec])
    except (ValueError, UnknownName) as error:
        raise ParameterError(f"{setting}: {error}") from error


def _try_rules(listed: list) -> None:
    from ..results.merged import labelled

    try:
        labelled(listed)
    except (ValueError, UnknownName) as error:
        raise ParameterError(f"merge: {error}") from error


NOT_OF_THE_MODEL = (
    "name",
    "classes",
    "pretrained",
    "weights",
    "seed",
    "deployed",
    "inherit",
    "by",
)  # of ``build_model``
SPELLED_OUT = ("objectives", "steps", "batch_size", "learning_rate", "seed", "save_to")  # where a reader looks for them
STRATEGIES = ["last", "best_val", "wakd", "swad", "sma", "ema"]


@dataclass(frozen=True)
class Training:
    """What 01 and 02 share: the split, and settings of ``train`` under their own names.

    benchmark       what ``load_domains`` takes
    image_size      side in pixels; by default the benchmark's own
    target          the domain that is left out
    only            the sources that it is trained on, by name or by place from 1; all of them by default
    model           any timm name, or one of the kit's small ones
    model_settings  keyword arguments of the model
    pretrained      whether it starts from weights: shipped ones, those in ``$WAKD_WEIGHTS``, timm's
    weights         a file to start from in their place
    strategies      what is averaged: names, or {name, label, settings}
    save_to         the run's folder
    """

    benchmark: str = "digits"
    image_size: Annotated[int, whole(1)] | None = None
    target: str = "photo"
    only: list[str | int] = field(default_factory=list)
    seed: Annotated[int, whole(0), "of the split, the initialisation, batches, views and dropout"] = 0
    model: str = "resnet10t_w16"
    model_settings: dict = field(default_factory=dict)
    pretrained: bool = False
    weights: str | None = None
    objectives: list | str = field(default_factory=lambda: [{"name": "ce"}])
    steps: FITS.steps = 600
    segment_length: FITS.segment_length = 30
    batch_size: FITS.batch_size = Settings.batch_size
    learning_rate: FITS.learning_rate = 0.01
    optimiser: FITS.optimiser = Settings.optimiser
    weight_decay: FITS.weight_decay = Settings.weight_decay
    schedule: FITS.schedule = Settings.schedule
    warmup: FITS.warmup = Settings.warmup
    sampling: FITS.sampling = Settings.sampling
    mix: FITS.mix = Settings.mix
    second: FITS.second = Settings.second
    freeze: FITS.freeze = Settings.freeze
    batchnorm: FITS.batchnorm = Settings.batchnorm
    precision: FITS.precision = Settings.precision
    compile: FITS.compile = Settings.compile
    deterministic: FITS.deterministic = Settings.deterministic
    storage: FITS.storage = Settings.storage
    most_stored: FITS.most_stored = Settings.most_stored
    teacher_cache: FITS.teacher_cache = Settings.teacher_cache
    strategies: list = field(default_factory=lambda: list(STRATEGIES))
    save_to: str = "../runs/explore/teacher"

    def __post_init__(self):
        if said := [name for name in NOT_OF_THE_MODEL if name in self.model_settings]:
            raise ParameterError(
                f"model_settings are the model's own, and {said[0]!r} is none: model, pretrained, weights, seed and start stand "
                "beside it, classes are those of the benchmark, and what is deployed follows from the objectives."
            )
        try:
            _try_objectives(json.dumps(self.objectives))
            _labels(json.dumps(self.strategies))
        except (ValueError, UnknownName) as error:
            raise ParameterError(str(error)) from error
        if deploy := getattr(self, "deploy", None):
            _try_strategy("deploy", deploy)
            if "deployed" in _labels(json.dumps(self.strategies)):
                raise ParameterError(
                    "a strategy is labelled 'deployed', which is what is deployed; give it another label."
                )
        self.settings()

    def data(self) -> dict:
        """Keyword arguments of ``load_domains``."""
        return {} if self.image_size is None else {"size": self.image_size}

    def student(self) -> dict:
        """Keyword arguments of ``build_model``."""
        return {"pretrained": self.pretrained, "weights": self.weights, "seed": self.seed, **self.model_settings}

    def settings(self) -> Settings:
        """What ``train`` will make of them; views are the benchmark's own, and objectives as they are listed here."""
        listed = self.objectives if isinstance(self.objectives, list) else [self.objectives]
        return make(Settings, self._named() | {"objectives": listed})

    def training(self) -> dict:
        """Keyword arguments of ``train``; a killed notebook run again continues its recording."""
        return self._named() | {"save_to": self.save_to, "resume": True}

    def further(self) -> dict:
        """Those of ``training`` that the call in 01 and 02 does not spell out."""
        return {name: value for name, value in self.training().items() if name not in SPELLED_OUT}

    def _named(self) -> dict:
        """Settings of ``train``; declared is what will be averaged, and what teaches, which is as exact."""
        declare, deploy = (
            [{"name": one} if isinstance(one, str) else one for one in self.strategies],
            getattr(self, "deploy", None),
        )
        if deploy and (deploy["name"], named(deploy)) not in [(one["name"], named(one)) for one in declare]:
            declare.append({**deploy, "label": "deployed"})
        return {name: getattr(self, name) for name in NAMES if hasattr(self, name)} | {"declare": declare}


@notebook_parameters("01_train_teacher")
@dataclass(frozen=True)
class TrainTeacher(Training):
    """01: trains a teacher on the source domains and deploys one average of it.

    deploy  the strategy whose average teaches
    """

    model: str = "resnet18_w16"
    deploy: dict = field(default_factory=lambda: {"name": "wakd", "begin": 0.4})


@dataclass(frozen=True)
class Student(Training):
    """One student, as ``wakd train`` takes it: ``strategies`` are declared only, no folder is a dated one under runs/.

    teacher  a run's folder or an exported file; none where nothing is distilled; several as {"of": [...], "weigh": rule}
    start    a run's folder: what it deployed, else its last iterate, is where this student starts, in place of weights; a part
             of it where that run's network is larger, {"of": folder, "by": "channels"}, "blocks" or "both"
    refit    a run's folder: trained on all source images, validation parts included, up to the step at which that run validated best
    """

    objectives: list | str = field(default_factory=lambda: [{"name": "kd", "temperature": 5.0}])
    strategies: list = field(default_factory=lambda: ["wakd", "swad"])
    teacher: str | dict | None = None
    start: str | dict | None = None
    refit: str | None = None
    save_to: str = ""

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.teacher, dict):
            _try_several(json.dumps(self.teacher), json.dumps(self.objectives))
        if isinstance(self.start, dict):
            _try_start(json.dumps(self.start))
        if self.start is not None and (self.pretrained or self.weights is not None):
            raise ParameterError(
                "start and weights both say where the student starts; leave out weights and pretrained."
            )

    def split(self, domains):
        """The split that it is trained on. Raises as ``leave_one_out`` does."""
        from ..data.domains import leave_one_out

        split = leave_one_out(domains, self.target, self.seed, only=self.only)
        return split if self.refit is None else split.whole()

    def training(self) -> dict:
        """Keyword arguments of ``train``, with the steps that ``refit`` found; a killed notebook run again continues its recording."""
        given = super().training()
        if self.refit is None:
            return given
        from ..runs.run import load_run

        curves = load_run(self.refit).source_curves
        return given | {"steps": int(curves.ends[curves.series("val_accuracy").argmax()])}

    def begun(self, split):
        """The student as training begins: built, and where ``start`` says so with what that run deployed. Raises ``ValueError``."""
        from ..models.build import build_model

        student = build_model(self.model, split.classes, **self.student())
        if self.start is None:
            return student
        from ..runs.start import started

        return started(student, self.start, split, self.settings())

    def taught_by(self):
        """What ``train`` takes as the teacher: a run's place, or the network of an exported file; of several, of each. Raises
        ``ValueError`` for a file that cannot teach."""
        if isinstance(self.teacher, dict):
            of = [one if one == "start" else replace(self, teacher=one).taught_by() for one in self.teacher["of"]]
            return {**self.teacher, "of": of}
        if self.teacher is None or not path_of(self.teacher).is_file():
            return self.teacher
        from ..evaluation.export import exported

        return exported(path_of(self.teacher))


@notebook_parameters("02_distill")
@dataclass(frozen=True)
class Distill(Student):
    """02: trains one student, averages its trajectory by every strategy, and scores them on every domain.

    teacher_as       the strategy whose average of the teacher's run teaches; by default what that run deployed
    deploy           the strategy whose average teaches, or is where another starts, after this one; by default the last iterate
    window_map_grid  every window of a grid with so many points a side is scored; 0 for none
    baseline         the label that the others are compared with
    """

    strategies: list = field(default_factory=lambda: list(STRATEGIES))
    teacher: str | dict | None = "../runs/explore/teacher"
    teacher_as: dict | None = None
    deploy: dict | None = None
    save_to: str = "../runs/explore/student"
    window_map_grid: Annotated[int, at_least(0)] = 8
    baseline: str = "last"

    def __post_init__(self):
        super().__post_init__()
        if self.baseline not in (labels := _labels(json.dumps(self.strategies))):
            raise ParameterError(did_you_mean("baseline", self.baseline, labels))
        if self.teacher_as is not None:
            if self.teacher is None:
                raise ParameterError("teacher_as is an average of the teacher, and there is none.")
            of = self.teacher["of"] if isinstance(self.teacher, dict) else [self.teacher]
            if file := next((one for one in of if path_of(one).is_file()), None):
                raise ParameterError(
                    f"teacher_as is an average of a run that teaches, and {file} is a file, of one average; give the run's "
                    "folder, or leave teacher_as out."
                )
            _try_strategy("teacher_as", self.teacher_as)

    def taught_by(self):
        """What ``train`` takes as the teacher: its place, or the average of its run that is asked for; of several, of each.

        Raises ``NoWindow``."""
        if self.teacher_as is None or isinstance(self.teacher, dict):
            return super().taught_by()
        from ..averaging import NoWindow
        from ..evaluation.choose import choose
        from ..runs.run import load_run

        run = load_run(self.teacher)
        (average,) = choose(run, [self.teacher_as]).values()
        if isinstance(average, NoWindow):
            raise average
        return run.model(average)


@notebook_parameters("03_compare")
@dataclass(frozen=True)
class Compare:
    """03: everything recorded under one folder, all targets and seeds, in tables with intervals.

    about       a paragraph below the title
    runs        the folder of the recordings
    only        those of them that are compared, by path below it; all by default
    strategies  labels, in this order; all that were evaluated by default
    baseline    the label that the others are compared with
    reference   the student that others are compared with, or {student: its own}; by default every two of them are
    published   {student: {label: accuracy in % that a paper reports}}, to stand beside ours
    searched    draws of a search, {"target", "student", "draw", "settings", "run"}, the run by path below ``runs``
    searched_by  the label that chose among them
    mask        a table of images and their parts, by which accuracies are told apart; see ``data.mask``
    answer      {student: label}: the difference to the baseline that the first sentence of the page is about; or labels of pairs
                that 07_named_pairs compared, from its table
    tables      the folder for tables as csv and LaTeX
    """

    about: str = ""
    runs: str = "../runs/explore"
    only: list[str] = field(default_factory=list)
    strategies: list[str] = field(default_factory=list)
    baseline: str = "last"
    reference: str | dict = ""
    answer: dict | list[str] = field(default_factory=dict)
    published: dict = field(default_factory=dict)
    searched: list[dict] = field(default_factory=list)
    searched_by: str = "last"
    mask: str = ""
    tables: str = "../runs/explore/tables"


@notebook_parameters("05_objectives")
@dataclass(frozen=True)
class Objectives:
    """05: one teacher per split and a student per objective, recorded by ``wakd report objectives``; each student before and
    after averaging.

    average    the label after
    baseline   the label before
    reference  the student that the others are compared with
    """

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
    """06: a grid of students, recorded by ``wakd report when_it_helps``: what averaging gains in every cell, and why.

    averages  the labels whose gains are explained
    baseline  the label that they gain over
    """

    about: str = ""
    runs: str = "../runs/when_it_helps"
    only: list[str] = field(default_factory=list)
    baseline: str = "last"
    averages: list[str] = field(default_factory=lambda: ["WAKD", "SWAD", "EMA"])
    tables: str = "../runs/when_it_helps/tables"

    def __post_init__(self):
        if not self.averages or self.baseline in self.averages:
            raise ParameterError(f"averages are labels other than the baseline {self.baseline!r}; got {self.averages}.")
        if len(set(self.averages)) < len(self.averages):
            raise ParameterError(f"averages are labels, each of them once; got {self.averages}.")


@notebook_parameters("07_named_pairs")
@dataclass(frozen=True)
class NamedPairs:
    """07: differences that were named before there was a result, between students, averages, and what runs of one split merge to.

    pairs    [[student, label], [student, label]]: the first less the second; "merged" is what was merged
    merge    {students, rules, averages}: the runs of these students are merged, for each target and seed, as each of these averages
    against  [student, label] that everything merged is compared with
    margin   points that a difference is compared with as well: on par where its 95 % interval lies within them; 0 for none
    """

    about: str = ""
    runs: str = "../runs/explore"
    only: list[str] = field(default_factory=list)
    pairs: list = field(default_factory=list)
    merge: dict = field(default_factory=dict)
    against: list[str] = field(default_factory=list)
    margin: Annotated[float, at_least(0)] = 0.0
    tables: str = "../runs/explore/tables"

    def __post_init__(self):
        for pair in self.pairs:
            if not isinstance(pair, list) or [_is_side(side) for side in pair] != [True, True]:
                raise ParameterError(f"pairs are of two, each [student, label of an average]; got {pair!r}.")
            if self.pairs.count(pair) > 1:
                raise ParameterError(f"pairs: {pair!r} is listed twice.")
            if pair[0] == pair[1]:
                raise ParameterError(f"pairs: {pair!r} is one average twice.")
        if self.merge:
            known, listed = {*self.merge} == {"students", "rules", "averages"}, self.merge.values()
            if not known or not all(isinstance(one, list) and one for one in listed):
                raise ParameterError(f"merge takes students, rules and averages, each a list; got {self.merge}.")
            for what in ("students", "averages"):
                names = self.merge[what]
                if not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
                    raise ParameterError(f"merge: {what} are names, each of them once; got {names}.")
            if len(self.merge["students"]) < 2:
                raise ParameterError(f"merge: runs of at least two students are merged; got {self.merge['students']}.")
            _try_rules(self.merge["rules"])
        if self.against and self.against[0] == MERGED:
            raise ParameterError(
                f"against is what the merged is compared with, a student's average; got {self.against}."
            )
        if self.against and not (_is_side(self.against) and self.merge):
            raise ParameterError(f"against is [student, label] beside something merged; got {self.against}.")


def _is_side(side: object) -> bool:
    return isinstance(side, list) and len(side) == 2 and all(isinstance(one, str) for one in side)


@notebook_parameters("08_beyond_accuracy")
@dataclass(frozen=True)
class BeyondAccuracy:
    """08: calibration, agreement with the teacher and churn between seeds, before and after averaging.

    strategies  labels, of which the first that averages and that every student has is looked at; all by default
    baseline    the label before averaging
    """

    about: str = ""
    runs: str = "../runs/explore"
    only: list[str] = field(default_factory=list)
    strategies: list[str] = field(default_factory=list)
    baseline: str = "last"
    tables: str = "../runs/explore/tables"

    def __post_init__(self):
        if self.strategies and self.baseline not in self.strategies:
            raise ParameterError(f"strategies hold the baseline {self.baseline!r}; got {self.strategies}.")


@notebook_parameters("04_landscape")
@dataclass(frozen=True)
class Landscape:
    """04: the loss around one recorded run: a plane, lines, flatness and, where asked for, curvature.

    run                the run's folder
    strategies         labels it was evaluated under, or strategies; all it was evaluated under by default
    baseline           what the average is compared with
    average            the average's label; by default the first strategy that averages
    corners            of the plane: three labels, steps or "initial"; by default baseline, average and where that begins
    others             folders of other runs: lines from this run's average to theirs
    size               points along each side of the plane, and along each line
    margin             how far the plane reaches beyond its corners
    radii              for flatness, times the distance between the plane's first two corners
    directions         random directions for flatness
    filter_normalised  whether directions are scaled to the norm of each filter; that distance is then relative to these norms
    curvature_images   images of a domain for Hessian eigenvalues and trace, 0 for none
    figures            the folder for figures as PDF, in a study one below it for each landscape; by default landscape/ in the run's folder
    """

    run: str = "../runs/explore/student"
    strategies: list = field(default_factory=list)
    baseline: str = "last"
    average: str = ""
    corners: list = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    size: Annotated[int, at_least(2)] = 11
    margin: Annotated[float, at_least(0)] = 0.4
    radii: list[float] = field(default_factory=lambda: [1.0, 2.0, 4.0])
    directions: Annotated[int, at_least(2)] = 10
    filter_normalised: bool = False
    curvature_images: Annotated[int, at_least(0)] = 0
    figures: str = ""

    def __post_init__(self):
        if not self.radii or not all(0 < radius < math.inf for radius in self.radii):
            raise ParameterError(f"radii are distances above 0, at least one; got {self.radii}.")
        if len(self.corners) not in (0, 3) or not all(type(corner) in (str, int) for corner in self.corners):
            raise ParameterError(f"corners are three of labels, steps and 'initial', or none; got {self.corners}.")
        if len(set(self.corners)) < len(self.corners):
            raise ParameterError(f"corners are three different points, which span a plane; got {self.corners}.")
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
    """10: any recorded run, to try windows and strategies on by hand.

    runs             a run's folder, or any folder above runs
    window_map_grid  at most so many segments a side of a window map that is computed
    hidden           whether what the unseen domain says is covered until it is asked for
    """

    runs: str = "../runs"
    window_map_grid: Annotated[int, at_least(1)] = 20
    hidden: bool = False

"""The jobs of a study: what is searched, each split's trainings and landscapes, then notebooks over all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from ..averaging import labels_of
from ..data.domains import Domains, load_domains, unseen_in
from ..data.mask import parts_of as in_parts
from ..models.weights import sha256
from ..names import MERGED, UnknownName, did_you_mean
from ..reporting.parameters import describe
from ..results.merged import labels_of_merged
from ..runs.run import load_run
from ..runs.settings import segment_ends
from . import chains
from .draws import Sought, searched
from .jobs import Job, Place, looked_at
from .places import StudyProblem
from .search import draw, search_of
from .specification import Study
from .steps import Filled, job_of, training_of


def plan(study: Study, place: Place, *, listed: bool = False) -> list[Job]:
    """Every job of a study, each after those it needs: what is searched; per seed and target the teacher, the students,
    their landscapes; then notebooks over all of them, the comparison last.

    A job whose settings a search has not found yet is ``open``: it stands there with what the study says without.

    listed  there is a page over all studies beside the report's folder
    Whatever can be known without training is checked here: parameters, objectives, strategies on curves of the length that
    each run will have, and that every model can be built. Raises ``StudyProblem`` naming the student.
    """
    options = {} if study.image_size is None else {"size": study.image_size}
    try:
        domains = load_domains(study.benchmark, **options)
    except (ValueError, UnknownName, OSError) as error:
        raise StudyProblem(f"{study.name}: {error}") from error
    try:
        if study.mask:
            in_parts(domains, study.mask)
    except ValueError as error:
        raise StudyProblem(f"{study.name}: mask: {error}") from error
    targets = study.targets if isinstance(study.targets, list) else [study.targets]
    targets = list(domains) if study.targets == "all" else targets
    try:
        targets, looked_at = [
            ["+".join(unseen_in(t, domains)) for t in ts] for ts in (targets, study.landscape.get("targets", []))
        ]
        if "targets" in study.landscape:
            study = replace(study, landscape={**study.landscape, "targets": looked_at})
    except ValueError as error:
        raise StudyProblem(f"{study.name}: {error}") from error
    if twice := [t for t in targets if targets.count(t) > 1]:
        raise StudyProblem(f"{study.name}: {twice[0]} is listed twice among the targets {study.targets}.")
    if (odd := [t for t in looked_at if t not in targets]) and study.landscape.get("students") != []:
        raise StudyProblem(
            f"{study.name}: landscape: targets: {odd[0]} is not left out here; choose of {', '.join(targets)}, such as "
            f"landscape: {{targets: [{targets[0]}]}}."
        )
    filled = Filled(study, domains)
    sought, fell, found = searched(study, targets, place, filled)
    splits = [(target, seed) for seed in study.seeds for target in targets]
    splits_jobs = {split: filled(_chain(study, *split, place, found)) for split in splits}
    waits = {target for (target, _), settings in found.items() if settings is None}
    for target, seed in splits:  # a split is one piece of work: it begins when all that is searched for it is found
        if target in waits:
            splits_jobs[target, seed] = [replace(job, open=True) for job in splits_jobs[target, seed]]
    _rehearse_alike(study, splits[0], place, filled)
    jobs = [*(one.job for one in sought), *(job for chain in splits_jobs.values() for job in chain)]
    jobs = _with_others(study, jobs, domains)
    _refuse_runs_of_its_own(study, jobs)
    jobs += _over_all(study, splits_jobs, sought, fell, place, listed)
    of = {job.name: (target, "", seed) for (target, seed), chain in splits_jobs.items() for job in chain}
    of |= {one.job.name: (one.target, one.held, one.job.parameters["seed"]) for one in sought}
    jobs = _shown(study, jobs, of)
    names = [job.name.casefold() for job in jobs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise StudyProblem(f"{study.name}: two notebooks would be called {twice[0]}; rename a student or a domain.")
    return jobs


def _shown(study: Study, jobs: list[Job], of: Mapping[str, tuple[str, str, int]]) -> list[Job]:
    """The same jobs with the titles of their pages, and where one goes from each: up, to its domain, before and after.

    of  of those of one split: the unseen domain, the source that is left out as well or "", and the seed, by the job's name
    """
    found = []
    for i, job in enumerate(jobs):
        if job.page:
            found.append(job)
            continue
        nav, title = {f"← {study.title or study.name}": "../index.html"}, None  # the notebook's own question
        if job.name in of:
            target, held, seed = of[job.name]
            out = f"{target} and {held}" if held else target
            title = f"{'Loss around ' * (not job.records)}{job.run.name}, {out} left out, seed {seed}"
            nav[target] = f"../targets/{target}.html"
        for way, other in (("previous", i - 1), ("next", i + 1)):
            if 0 <= other < len(jobs) and not jobs[other].page:
                nav[f"{way}: {jobs[other].name}"] = f"{jobs[other].name}.html"
        shown = {"title": title} if title else {}
        shown |= {"above": study.title or study.name, "nav": nav}
        found.append(replace(job, shown=shown))
    return found


def _with_others(study: Study, jobs: Sequence[Job], domains: Domains) -> list[Job]:
    """The same jobs with what landscapes know of their ``others``: those of this study they come after, so that they stand after
    all trainings; those of elsewhere are known by what they are."""
    own = {str(job.run): job for job in jobs if job.records}
    targets = {place: job.parameters["target"] for place, job in own.items()}
    known = {}
    for other in study.landscape.get("others", []):
        if other not in own:
            targets[other], known[other] = _target_of(study, other, domains), looked_at(Path(other))

    def one(job: Job) -> Job:
        others = [] if job.records else job.parameters["others"]
        for other in others:
            if targets[other] != (target := targets[str(job.run)]):
                raise StudyProblem(
                    f"{study.name}, {job.name}: others: {other} left out {targets[other]}, not {target}; a line has one unseen domain: "
                    f"take runs that left out {target}, or say landscape: targets: [{targets[other]}]."
                )
        after = dict.fromkeys([*job.after, *(own[other].name for other in others if other in own)])
        elsewhere = [known[other] for other in others if other in known]
        given = job.given | ({"others": json.dumps(elsewhere)} if elsewhere else {})
        return replace(job, after=tuple(after), given=given)

    return sorted(map(one, jobs), key=lambda job: bool(job.parameters.get("others")))


def _target_of(study: Study, other: str, domains: Domains) -> str:
    """What a run of elsewhere left out. Raises ``StudyProblem`` where there is none, or one of other images."""
    try:
        split = load_run(other).settings["split"]
    except FileNotFoundError:
        raise StudyProblem(f"{study.name}, landscape: others are folders of runs; there is none at {other}.") from None
    except ValueError as error:
        raise StudyProblem(f"{study.name}, landscape: others: {error}") from error
    if split["fingerprint"] != domains.fingerprint:
        raise StudyProblem(
            f"{study.name}, landscape: others: {other} was trained on other images; take runs of this benchmark."
        )
    return split["target"]


def _refuse_runs_of_its_own(study: Study, jobs: Sequence[Job]) -> None:
    """A run of this study is named by its student: a path is the same for every target, and what lies there may be another's."""
    recorded = {str(job.run): job for job in jobs if job.records}
    for job in jobs:
        for name in (n for role in chains.ROLES for n in chains.names_in(job.parameters.get(role))):
            if name in recorded and recorded[name].name not in job.after:
                label = recorded[name].run.name
                raise StudyProblem(
                    f"{study.name}, {job.name}: {name} is a run of this study; write {label}, the student of the same target and seed."
                )


def _over_all(
    study: Study,
    by_split: Mapping[tuple[str, int], list[Job]],
    sought: Sequence[Sought],
    fell: Sequence[Sought],
    place: Place,
    listed: bool,
) -> Iterator[Job]:
    """The notebooks over all runs: those the study asks for, and the comparison, which is its page, with what was ``sought``, and
    which draws of it ``fell`` apart."""
    jobs = [job for chain in by_split.values() for job in chain]
    recording = [job for job in jobs if job.records]
    given = {
        "about": study.about,
        "runs": str(place.runs),
        "only": [job.run.relative_to(place.runs).as_posix() for job in recording],
        "strategies": labels_of(study.strategies),
        "baseline": study.baseline,
        "reference": study.reference,
        "answer": study.answer,
        "published": study.published,
        "tables": str(place.out),
    }
    waits = any(job.open for job in jobs)
    also = [_also(study, name, own or {}, given, [job.name for job in recording]) for name, own in study.also.items()]
    also = [replace(job, open=waits) for job in also]
    yield from also
    notebooks = []
    for (target, seed), chain in by_split.items():
        named = [job.run.name if job.records else f"landscape of {job.run.name}" for job in chain]
        notebooks.append([target, seed, {n: f"notebooks/{job.name}.html" for n, job in zip(named, chain)}])
    searches: dict[tuple[str, int], dict[str, str]] = {}
    for one in sought:
        split = searches.setdefault((one.target, one.job.parameters["seed"]), {})
        split[one.job.run.name + f", {one.held} held out" * bool(one.held)] = f"notebooks/{one.job.name}.html"
    notebooks += [[*split, pages] for split, pages in searches.items()]
    page = {"title": study.title or study.name, "notebooks": notebooks, "listed": listed}
    page["also"] = {job.name: f"notebooks/{job.name}.html" for job in also}
    if search := search_of(study.search):
        given["searched"] = [one.as_drawn(search, place) for one in sought if one.number is not None]
        given["searched"] += [one.as_drawn(search, place) | {"fell_apart": True} for one in fell]
        given["searched_by"] = search.by or study.baseline
    job = job_of(
        study,
        "03_compare",
        "03_compare",
        given | {"mask": study.mask},
        after=[*(one.job.name for one in sought), *(job.name for job in (*jobs, *also))],
    )
    yield replace(job, page=page, open=waits, given={"mask": sha256(Path(study.mask))} if study.mask else {})


def _also(study: Study, name: str, own: Mapping, given: Mapping, after: Sequence[str]) -> Job:
    labels = given["strategies"]
    if name not in ALSO:
        raise StudyProblem(f"{study.name}: {did_you_mean('notebook over all recordings', name, ALSO)}")
    # what the study leaves empty keeps the notebook's default
    shared = {f.name: given[f.name] for f in fields(describe(name)) if given.get(f.name)}
    if isinstance(shared.get("reference"), dict):  # these ask about one
        del shared["reference"]
    job = job_of(study, name, name, {**shared, **own}, after=after)
    names = {
        "reference": study.students,
        "baseline": labels,
        "average": labels,
        "averages": labels,
        "strategies": labels,
    }
    for setting, known in names.items():
        asked = job.parameters.get(setting, [])
        for value in [asked] if isinstance(asked, str) else asked:
            if value not in known:
                raise StudyProblem(f"{study.name}, {name}: {did_you_mean(setting, value, known)}")
    there = dict.fromkeys(chains.everybody(study), labels)
    pairs, merge, against = (job.parameters.get(n) or [] for n in ("pairs", "merge", "against"))
    named = []
    if merge and MERGED in study.students:
        raise StudyProblem(
            f"{study.name}, {name}: {MERGED!r} is what was merged, and a student is called so; rename it."
        )
    if merge:
        named += [("merge", "student", student, there) for student in merge["students"]]
        named += [("merge", "label", label, labels) for label in merge["averages"]]
        there = {**there, MERGED: labels_of_merged(**merge)}
    for where, sides in (("pairs", [side for pair in pairs for side in pair]), ("against", [against] * bool(against))):
        for student, label in sides:
            named += [(where, "student", student, there), (where, "label", label, there.get(student, ()))]
    for where, what, value, known in named:
        if value not in known:
            raise StudyProblem(f"{study.name}, {name}: {where}: {did_you_mean(what, value, known)}")
    if merge and not (against or any(side[0] == MERGED for pair in pairs for side in pair)):
        raise StudyProblem(
            f"{study.name}, {name}: merge: what is merged is compared with something; say against: [student, label], or name it in pairs."
        )
    runs = len(given["only"]) // (len(study.students) + (study.teacher is not None))
    if name != "08_beyond_accuracy" and not (pairs or against) and min(runs, len(study.students)) < 2:
        raise StudyProblem(
            f"{study.name}, {name} compares students over targets and seeds: at least two of each; got {len(study.students)} "
            f"on {runs}."
        )
    return job


def _rehearse_alike(study: Study, split: tuple[str, int], place: Place, filled: Filled) -> None:
    """Raises ``StudyProblem`` for a student that takes what will have won of another, where a draw of that does not fit it: unless all
    that is drawn are numbers like any other."""
    if (search := search_of(study.search)) is None:
        return
    runs = {label: place.runs / f"{split[0]}-s{split[1]}" / label for label in chains.everybody(study)}
    for label, other in search.like.items():
        drawn = [draw(search, number, other) for number in range(search.draws)]
        for own in drawn if not all(isinstance(value, float) for one in drawn for value in one.values()) else ():
            filled.rehearse(training_of(study, split, label, label, runs, own))


def _chain(study: Study, target: str, seed: int, place: Place, found: Mapping) -> Iterator[Job]:
    """The jobs of one split. ``found``: {(target, student): settings, None while they are searched}."""
    name, folder = f"{target}-s{seed}", place.runs / f"{target}-s{seed}"
    runs, trained = {label: folder / label for label in chains.everybody(study)}, {}
    for label in chains.in_order(study):
        own = found.get((target, label)) or {}
        map_grid = _map_grid(study, seed, label)
        trained[label] = training_of(study, (target, seed), label, f"{name}-{label}", runs, own, map_grid)
        yield trained[label]
    for label in _looked_at(study, target, seed):
        given = {name: value for name, value in study.landscape.items() if name not in ("targets", "seeds", "students")}
        given.setdefault("strategies", labels_of(study.strategies))
        given |= {"run": str(folder / label), "baseline": study.baseline}
        called = f"landscape-{name}-{label}"
        if isinstance(given.get("figures"), str) and given["figures"]:
            given["figures"] = str(Path(given["figures"], called))
        job = job_of(study, "04_landscape", called, given, after=[f"{name}-{label}"])
        _refuse_beyond(study, job, trained[label])
        yield job


def _refuse_beyond(study: Study, landscape: Job, training: Job) -> None:
    """Raises ``StudyProblem`` for a corner of a landscape at a step at which its run will have no segment."""
    corners, p = landscape.parameters["corners"], training.parameters
    steps = [c for c in corners if isinstance(c, int)]
    if not steps or p.get("refit") is not None:  # whose length is not known yet
        return
    ends = {0, *segment_ends(describe(training.notebook)(**p).settings())}
    for step in steps:
        if step not in ends:
            raise StudyProblem(
                f"{study.name}, {landscape.name}: corners: no segment ends at step {step}; the nearest that does ends at "
                f"{min(ends, key=lambda end: abs(end - step))}, the last at {max(ends)}."
            )
    named = [one if isinstance(one, str) else one["name"] for one in study.strategies]
    last = [label for label, name in zip(labels_of(study.strategies), named) if name == "last"]
    points = [0 if c == "initial" else max(ends) if c in last else c for c in corners]
    if len({*points}) < len(points):
        raise StudyProblem(
            f"{study.name}, {landscape.name}: corners are three different points, which span a plane; got {corners}."
        )


def _map_grid(study: Study, seed: int, student: str) -> int:
    wanted = study.window_map
    seeds, students = wanted.get("seeds", study.seeds), wanted.get("students", list(study.students))
    return wanted.get("grid", 10) if wanted and seed in seeds and student in students else 0


def _looked_at(study: Study, target: str, seed: int) -> list[str]:
    """The students of one split whose landscapes are drawn; by default one, of the study's first seed."""
    wanted, students = study.landscape, study.students
    if target not in wanted.get("targets", [target]) or seed not in wanted.get("seeds", study.seeds[:1]):
        return []
    taught = [label for label in students if chains.roles_of(study, label)["teacher"]]
    return wanted.get("students", (taught or list(students))[:1])


ALSO = (
    "05_objectives",
    "06_when_averaging_helps",
    "07_named_pairs",
    "08_beyond_accuracy",
)  # over all recordings, where a study asks for them

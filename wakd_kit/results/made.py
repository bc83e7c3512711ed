"""How recorded runs were made, and whether they learned anything, in words for a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ..files import json_or_nothing
from ..runs.run import Run
from .collect import Recorded
from .students import objectives_of


def made(study: Recorded) -> dict[str, str]:
    """``{what: words}``: images, models, objectives, recipe, seeds, code, libraries, machine and time of all runs.

    What is not the same for all students is said student by student. Nothing in it is a path.
    """
    split = study.runs[0].settings["split"]
    return {
        "benchmark": _images(split),
        "left out": f"{', '.join(study.targets)}, each in turn" if len(study.targets) > 1 else study.targets[0],
        "seeds": ", ".join(map(str, study.seeds)),
        "models": _each(study, lambda run: run.settings["student"]["name"] + _started(run)),
        "objectives": _each(study, lambda run: objectives_of(run)),
        "recipe": _each(study, _recipe),
        **_where(study.runs),
    }


def _images(split: dict) -> str:
    kind, _, path = (split["benchmark"] or "arrays in memory").partition(":")
    size = split.get("options", {}).get("size")
    return (
        f"{kind}{path and ' ' + Path(path).name}{f' at {size} px' if size else ''}, {len(split['classes'])} classes; "
        f"{100 * split['validation']:.0f} % of each source domain held out"
    )


def _each(study: Recorded, say: Callable[[Run], str]) -> str:
    """What runs have in common, or what each student has of its own."""
    own = {name: dict.fromkeys(say(run) for run in study.runs if run.name == name) for name in study.students}
    said = {name: " or ".join(map(str, words)) for name, words in own.items()}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"{name}: {words}" for name, words in said.items())


def _started(run: Run) -> str:
    start = run.settings["student"].get("started_from")
    return f", pretrained ({Path(start).name})" if start else ""


def _recipe(run: Run) -> str:
    s = run.settings
    if "checkpoints" in s:
        return f"{s['steps']:,} checkpoints of a training by other code, BatchNorm {s['batchnorm']}"
    warm = f" after {s['warmup']} steps of warm-up" if s.get("warmup") else ""
    decay = f", weight decay {s['weight_decay']:g}" if s["weight_decay"] else ""
    return (
        f"{s['steps']:,} steps of {s['batch_size']} images, {_optimiser(s['optimiser'])}, {s['schedule']} rate {s['learning_rate']:g}"
        f"{warm}{decay}, {s['sampling'] if isinstance(s['sampling'], str) else s['sampling']['name']} batches, BatchNorm {s['batchnorm']}, {s['precision']}, segments of {s['segment_length']} steps"
    )


def _optimiser(said: str | dict) -> str:
    if isinstance(said, str):
        return said
    sharp = f" with SAM (rho {said['rho']:g})" if "rho" in said else ""
    pulled = f" pulled back by {said['pull_back']:g} every {said['every']} steps" if "pull_back" in said else ""
    return f"{said['name']}{sharp}{pulled}"


def _where(runs: Iterable[Run]) -> dict[str, str]:
    """Code, libraries, machine and hours, from what each recording keeps of them."""
    known = [found for run in runs if (found := json_or_nothing(run.folder / "environment.json"))]
    if not known:
        return {}

    def all_of(say: Callable[[dict], str]) -> str:
        return " or ".join(dict.fromkeys(filter(None, map(say, known))))

    def packages(of: dict) -> str:
        listed = {**of.get("packages", {}), "Python": of.get("python", "")}
        return ", ".join(f"{name} {version}" for name, version in listed.items() if version)

    hours = sum(of.get("seconds", 0) for of in known) / 3600
    took = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes" if hours >= 1 / 40 else "about a minute"
    took = took if hours >= 1 / 120 else "under a minute"
    return {
        "code": all_of(_commit),
        "libraries": all_of(packages),
        "machine": all_of(
            lambda of: ", ".join(filter(None, (of.get("processor"), of.get("machine"), of.get("device"))))
        ),
        "training took": f"{took} in all, {len(known)} runs, one after the other",
    }


def _commit(of: dict) -> str:
    commit = of.get("commit")
    return (
        f"commit {commit[:10]}{' with changes that were not committed' * bool(of.get('uncommitted_changes'))}"
        if commit
        else ""
    )


def at_chance(study: Recorded, baseline: str) -> list[str]:
    """A sentence on students whose ``baseline`` is within two standard errors of guessing, on source validation, in all runs:
    they learned nothing."""
    guess, rows = study.chance / 100, study.scores[study.scores["strategy"] == baseline]
    source = rows[rows["role"] == "source"].groupby(["student", "target", "seed"], sort=False)
    right, images = (
        source.apply(lambda part: (part["accuracy"] * part["n"]).sum(skipna=False), include_groups=False),
        source["n"].sum(),
    )
    within = (right / images - guess) <= 2 * (guess * (1 - guess) / images) ** 0.5
    blind = [name for name, part in within.groupby("student", sort=False) if len(part) and part.all()]
    said = f"{', '.join(blind)}: at chance ({100 * guess:.1f} %) on source validation in every run; there is nothing to average yet."
    return [said] * bool(blind)

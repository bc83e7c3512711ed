"""Every method of the literature by its name: how it is run here and how that differs, or why it is not here. For
``wakd list methods`` and docs/methods.md; what is known of each is in methods.yaml."""

from __future__ import annotations

import functools
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..names import UnknownName, did_you_mean

STATES = ("works", "in part", "not here")
FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class Method:
    """One method.

    name     as it is called; ``also`` are further names
    source   paper, and repository and commit where code was read
    what     what it does, a phrase
    state    "works", "in part" or "not here"
    differs  how it is not the published one, or why it is not here; nothing where it is faithful
    study    what a study file says beside what ``study_of`` adds; a method that is no training has none
    python   how it is run where that is no study
    """

    name: str
    source: str
    what: str
    state: str = "works"
    differs: str = ""
    also: tuple[str, ...] = ()
    study: dict = field(default_factory=dict)
    python: str = ""


@functools.cache
def methods() -> dict[str, Method]:
    """All of them by name, as listed."""
    return {known["name"]: Method(**known) for known in yaml.safe_load(FILE.read_text(encoding="utf-8"))}


def method(name: str) -> Method:
    """The one of this name, capitals aside; ``UnknownName`` with the closest otherwise."""
    called = {other.casefold(): one for one in methods().values() for other in (one.name, *one.also)}
    try:
        return called[name.casefold()]
    except KeyError:
        raise UnknownName(
            did_you_mean("method", name, [n for one in methods().values() for n in (one.name, *one.also)])
        ) from None


BASELINE = {"KD": {"objectives": [{"name": "kd", "temperature": 5.0}]}}


def study_of(one: Method) -> dict:
    """What a study file that runs a method says: over the quickstart, beside plain distillation. ``ValueError`` where none does."""
    if not one.study:
        raise ValueError(f"{one.name} is {one.state}: {one.differs or one.python}")
    return {
        "title": f"{one.name}: {one.what}",
        "extends": "quickstart",
        **one.study,
        "students": BASELINE | one.study["students"],
        "reference": "KD",
        "answer": {},
        "window_map": {"students": []},
        "landscape": {"students": []},
    }


AND = {"works": "; how it differs: ", "in part": "; what is not here: ", "not here": ": "}


def lines_of(name: str | None = None) -> list[str]:
    """A line for every method; of one, what is known of it and a study file that runs it."""
    if name is None:
        return [f"{one.name:20}{one.state:10}{one.what} ({one.source})" for one in methods().values()]
    one = method(name)
    said = [
        f"{one.name}: {one.what}.",
        f"{one.source}.",
        f"{one.state.capitalize()}{AND[one.state]}{one.differs}." if one.differs else f"{one.state.capitalize()}.",
    ]
    said += [f"Run it so: {one.python}"] * bool(one.python)
    head = [f"# {line}" for text in said for line in textwrap.wrap(text, 130)]
    body = yaml.safe_dump(study_of(one), sort_keys=False, allow_unicode=True, width=140) if one.study else ""
    return [*head, *body.splitlines()]

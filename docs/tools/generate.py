"""Writes what the code says already into docs/: every key of a study file, every objective. `python docs/tools/generate.py`.

What lies between `<!-- generated -->` and `<!-- end -->` is made here; tests/test_docs.py says when it is out of date.
"""

import inspect
import json
import re
import sys
import typing
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path

DOCS = Path(__file__).parent.parent
sys.path.insert(0, str(Path(__file__).parent))

from docstrings import described  # noqa: E402

from wakd_kit.averaging import settings_of, strategies  # noqa: E402
from wakd_kit.checks import hints, spelled  # noqa: E402
from wakd_kit.names import Bound  # noqa: E402
from wakd_kit.objectives import objectives  # noqa: E402
from wakd_kit.reporting.parameters import describe  # noqa: E402
from wakd_kit.runs.settings import FITS  # noqa: E402
from wakd_kit.study import plan, search  # noqa: E402

GIVEN = {"teacher": "the study's", "window_map_grid": "by `window_map`"}  # what a study puts in place of a default


def study_keys() -> str:
    """Every key of a study file: type, default, what fits, a sentence."""
    shared = set(plan.SET_BY_STUDY)
    landscape = sorted(shared - {"strategies"})
    over_all = ("about", "runs", "only", "tables")
    parts = [
        table([plan.Study]),
        "## teacher, common and students\n",
        f"Set by the study for all: {spoken(shared)}.\n",
        table(
            [describe("01_train_teacher"), describe("02_distill")],
            but=shared,
            named=("teacher", "students"),
            given=GIVEN,
        ),
        "## search\n",
        "Random draws, each a recorded training on a split of its own and without the domain that is left out; what won on source "
        'validation is fixed for the study\'s seeds. In braces, quote what has a comma: `over: {learning_rate: "10^U(-5,-3.5)"}`.\n',
        table([search.Search]),
        "## landscape\n",
        "`targets`, `seeds` and `students` say of which runs, and then:\n",
        table([describe("04_landscape")], but=landscape),
        "## also\n",
    ]
    for notebook in plan.ALSO:
        parts += [f"`{notebook}`:\n", table([describe(notebook)], but=over_all)]
    told = "Each with the settings it takes beside `name` and `label`, and their defaults, where they fit the run those of 600 steps:\n"
    parts += ["## strategies\n", told]
    parts += [f"- `{name}`{': ' * bool(settings_of(name))}{spelled_out(settings_of(name, 600))}" for name in strategies]
    return "\n".join(parts)


def objective_list() -> str:
    """Every objective by kind: its equation or what it is, what it needs, settings and where it is from."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(objectives):
        about, documented = objectives.about(name), inspect.getdoc(objectives.get(name))
        first = " ".join(documented.split("\n\n")[0].split())
        first = first.replace("``", "`")
        needs = "" if about.needs == {"labels"} else f" Needs {spoken(about.needs - {'labels'})}."
        weight = f" Weight {about.weight:g}." * (about.weight != 1)
        kinds.setdefault(about.kind, []).append(f"- **`{name}`**: {first}{needs}{weight} *{about.source}*")
    return "\n\n".join(
        "\n".join([f"## {kind.capitalize()}\n", *lines]) for kind, lines in sorted(kinds.items(), key=_by_kind)
    )


def _by_kind(item: tuple[str, list[str]]) -> tuple[bool, bool, str]:
    kind = item[0]
    return kind != "labels", kind != "logits", kind  # what everybody looks for first; the order of imports says nothing


def table(
    classes: list[type], *, but: Iterable[str] = (), named: Iterable[str] = ("",), given: dict | None = None
) -> str:
    """The fields of dataclasses as one table; where they differ, each says its own.

    but    fields that are left out
    named  what each of the classes is for
    given  {field: what stands for its default}
    """
    keys = {f.name: None for cls in classes for f in fields(cls) if f.name not in but}
    lines = ["| key | type | default | what |", "|---|---|---|---|"]
    for key in keys:
        having = {use: cls for use, cls in zip(named, classes) if key in hints(cls)}
        defaults = {use: default(cls, key) for use, cls in having.items()}
        alike = len(set(defaults.values())) == 1
        said = defaults[next(iter(having))] if alike else ", ".join(f"{use} {value}" for use, value in defaults.items())
        said = (given or {}).get(key, said)
        hint = hints(next(iter(having.values())))[key]
        only = f" ({next(iter(having))} only)" * (len(having) < len(classes))
        bounds = "".join(f", {bound.words.removeprefix('is ')}" for bound in notes(hint, Bound))
        cells = [f"`{key}`", spelled(hint) + bounds, said, sentence(list(having.values()), key) + only]
        if any("|" in cell for cell in cells):
            raise ValueError(f"{key} has a | in what is said of it, which ends a cell.")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def default(cls: type, key: str) -> str:
    field = next(f for f in fields(cls) if f.name == key)
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return "–" if value is MISSING else f"`{json.dumps(value)}`"


def notes(hint: object, kind: type) -> list:
    """What an annotation says beside the type: its bounds, or its sentence."""
    own = [note for note in getattr(hint, "__metadata__", ()) if isinstance(note, kind)]
    return own + [note for option in typing.get_args(hint) for note in notes(option, kind)]


def sentence(classes: list[type], key: str) -> str:
    """What is said of a field: in its annotation, or in the table of a class's docstring."""
    for cls in classes:
        said = notes(hints(cls)[key], str)
        said += [rows[key] for base in cls.__mro__ if key in (rows := described(base.__doc__))]
        said += notes(vars(FITS).get(key), str)  # a setting of train under its own name
        if said:
            return said[0].replace("``", "`")
    raise LookupError(f"{classes[0].__name__}.{key} has no sentence: add a row to the docstring.")


def spoken(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def spelled_out(settings: dict) -> str:
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in settings.items()}
    return ", ".join(f"`{name}` {json.dumps(value)}" for name, value in rounded.items())


PAGES = {"study-files.md": study_keys, "objectives.md": objective_list}
BETWEEN = re.compile(r"(?<=<!-- generated -->\n).*(?=<!-- end -->)", re.S)


def page(name: str) -> str:
    """A page as it should be: its own words, and what is generated."""
    return BETWEEN.sub(lambda _: f"\n{PAGES[name]().strip()}\n\n", (DOCS / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name in PAGES:
        (DOCS / name).write_text(page(name), encoding="utf-8")

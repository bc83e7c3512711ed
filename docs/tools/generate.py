"""Writes what the code says already into docs/: every key of a study file, objective and strategy. `python docs/tools/generate.py`.

What lies between `<!-- generated -->` and `<!-- end -->` is made here; tests/test_docs.py says when it is out of date.
"""

import inspect
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path

from wakd_kit.averaging import settings_of, strategies
from wakd_kit.averaging.about import ABOUT
from wakd_kit.averaging.choosing import SCHEDULE, chosen_by
from wakd_kit.checks import hints, spelled
from wakd_kit.cli import IN_PYTHON
from wakd_kit.docstrings import notes, sentence_of
from wakd_kit.names import Bound
from wakd_kit.objectives import objectives
from wakd_kit.reporting.parameters import describe
from wakd_kit.study import plan, search, specification
from wakd_kit.study.methods import STATES, methods

DOCS = Path(__file__).parent.parent
GIVEN = {"teacher": "the study's", "window_map_grid": "by `window_map`"}  # what a study puts in place of a default


def study_keys() -> str:
    """Every key of a study file: type, default, what fits, a sentence."""
    shared = set(specification.SET_BY_STUDY)
    over_all = ("about", "runs", "only", "tables")
    parts = [
        table([specification.Study]),
        "## teacher, common and students\n",
        f"Set by the study for all: {spoken(shared)}.\n",
        table(
            [describe("01_train_teacher"), describe("02_distill")],
            but=shared,
            named=("teacher", "students"),
            given=GIVEN,
        ),
        f"In Python alone, settings of `wk.train`: {spoken([*IN_PYTHON, 'device'])}.\n",
        "## search\n",
        "Random draws, each a recorded training on a split of its own and without the domain that is left out; what won on source "
        'validation is fixed for the study\'s seeds. In braces, quote what has a comma: `over: {learning_rate: "10^U(-5,-3.5)"}`.\n',
        table([search.Search]),
        "## landscape\n",
        "`targets`, `seeds` and `students` say of which runs (of none: `landscape: {students: []}`), `strategies` which of the study's labels are looked at, all by default, and then:\n",
        table([describe("04_landscape")], but=shared),
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


def strategy_list() -> str:
    """Every strategy: what it averages and what decides, when that is exact, what it costs, where it is from and what tests compare it with."""
    lines = [
        "| strategy | averages | decided by | exact | cost | source | tested against |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in strategies:
        known = ABOUT[name]
        decided = chosen_by(name).replace(SCHEDULE, "schedule")
        cells = [f"`{name}`", known.averages, decided, known.exact, known.cost, known.source, known.tested]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def lesson_list() -> str:
    """Every lesson: its number, question, run time and words, as its first cell has them."""
    lines = ["| lesson | question | about | words |", "|---|---|---|---|"]
    for file in sorted((DOCS.parent / "notebooks" / "lessons").glob("*.ipynb")):
        first = "".join(json.loads(file.read_text(encoding="utf-8"))["cells"][0]["source"])
        title, seconds = first.splitlines()[0].removeprefix("# "), re.search(r"about (\d+) seconds", first)[1]
        words = re.sub(r"\.\./\.\./docs/", "", first.split("Words: ")[1].split(".*")[0])
        lines.append(f"| `{file.stem}` | {title} | {seconds} s | {words} |")
    return "\n".join(lines)


COMPARED = {  # what is compared: kinds of objectives
    "response: what the network answers": ("logits", "controls", "domain shift"),
    "feature: what it computes on the way": ("features", "heterogeneous", "attention"),
    "relation: how examples lie to each other": ("relations", "contrast"),
}


ELSEWHERE = {
    "vl2v": "feature",
    "nst": "feature",
    "label_mse": "",
    "std_ce": "",
}  # single ones that their kind does not tell
BEFOREHAND = {"vl2v"}  # what teaches was asked once, and its embeddings lie in a file


def map_of_distillation() -> str:
    """Objectives by what is compared and who teaches: a teacher that stands, one that learns along, or none."""
    kind = {name: objectives.about(name).kind for name in objectives}
    taught = {
        name for name in kind if any(need.startswith("teacher") for need in objectives.about(name).needs)
    } | BEFOREHAND
    along = {name for name in kind if kind[name] == "partners"}
    features = {name for name in along if "student.maps" in objectives.about(name).needs}
    lines = ["| compared | offline or self: a teacher that stands | online: one that learns along | without one |"]
    lines += ["|---|---|---|---|"]
    rest = {*kind} - along
    for said, kinds in COMPARED.items():
        row = said.partition(":")[0]
        names = {
            name
            for name in kind
            if (name in ELSEWHERE and ELSEWHERE[name] == row) or (name not in ELSEWHERE and kind[name] in kinds)
        }
        online = {"feature": features, "response": along - features}.get(row, set())
        cells = [spoken(part) or "–" for part in (names & taught, online, names - taught)]
        lines.append(f"| {said} | {' | '.join(cells)} |")
        rest -= names
    assert not rest & taught, f"{sorted(rest & taught)}: name their kinds in COMPARED"
    return "\n".join([*lines, f"\nNo distillation at all: {spoken(rest)}."])


def method_list() -> str:
    """Every method: whether it works here, what it does, how it differs or why it is not here, and where it is from."""
    lines = [
        "| method | here | what it does | how it differs, or why it is not here | source |",
        "|---|---|---|---|---|",
    ]
    for one in methods().values():
        lines.append(f"| {one.name} | {one.state} | {one.what} | {one.differs.strip()} | {one.source} |")
    counts = Counter(one.state for one in methods().values())
    works, part, missing = (counts[state] for state in STATES)
    return "\n".join([f"{works} work, {part} are here in part, {missing} are not.\n", *lines])


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
        cells = [
            f"`{key}`",
            spelled(hint) + bounds,
            said,
            sentence_of([*having.values()], key).replace("``", "`") + only,
        ]
        if any("|" in cell for cell in cells):
            raise ValueError(f"{key} has a | in what is said of it, which ends a cell.")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def default(cls: type, key: str) -> str:
    field = next(f for f in fields(cls) if f.name == key)
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return "–" if value is MISSING else f"`{json.dumps(value)}`"


def spoken(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def spelled_out(settings: dict) -> str:
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in settings.items()}
    return ", ".join(f"`{name}` {json.dumps(value)}" for name, value in rounded.items())


PAGES = {
    "study-files.md": study_keys,
    "objectives.md": objective_list,
    "strategies.md": strategy_list,
    "methods.md": method_list,
    "lessons.md": lesson_list,
    "kd-map.md": map_of_distillation,
}
BETWEEN = re.compile(r"(?<=<!-- generated -->\n).*(?=<!-- end -->)", re.S)


def page(name: str) -> str:
    """A page as it should be: its own words, and what is generated."""
    return BETWEEN.sub(lambda _: f"\n{PAGES[name]().strip()}\n\n", (DOCS / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name in PAGES:
        (DOCS / name).write_text(page(name), encoding="utf-8")

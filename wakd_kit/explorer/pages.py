"""The explorer of one run as a page that answers without a kernel: for people without Python, and for every report.

page(run, "explorer.html")          writes it, and returns the part to embed in another page
write_page(folder, "explorer.html") the same for a run's folder; ``explorable(folder)`` says whether it can be made
write_pages(runs, "explorer/")      of every run below a folder that one can be made of
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from itertools import chain, count
from pathlib import Path
from string import Template

from ..averaging import Coefficients, NoWindow
from ..files import path_of, room_for, write_text
from ..names import own_version
from ..reporting.render import table_html
from ..results import differences as comparison
from ..results.collect import run_folders
from ..runs.run import Run, load_run
from ..runs.store import RunProblem
from .answers import Board
from .drawing import pick, scene

HERE = Path(__file__).parent
VIEW, STYLE, FRAGMENT, SHELL = (
    (HERE / name).read_text(encoding="utf-8") for name in ("view.js", "view.css", "fragment.html", "page.html")
)


def explorable(folder: str | Path) -> bool:
    """Whether a page can be made of the run in this folder: finished, evaluated, with a window map, one domain left out."""
    folder = path_of(folder)
    if not all((folder / name).is_file() for name in ("settings.json", "window_map.csv", "scores.csv")):
        return False
    run = load_run(folder)
    split = run.settings["split"]
    return split["target"] is not None and "targets" not in split and len(run.window_map.dropna()) > 0


def write_page(folder: str | Path, file: str | Path, *, hidden: bool = False) -> Path:
    """Write the explorer of a run's folder as a page of its own; returns the file, whose folder is made if need be.

    hidden  whether what looks at the unseen domain is covered until it is asked for: for teaching

    Raises ``RunProblem`` for a run without a window map.
    """
    return page(load_run(folder), file, hidden=hidden)


def write_pages(runs: str | Path, folder: str | Path, *, hidden: bool = False) -> dict[Path, Path]:
    """A page of every run in or below ``runs`` that one can be made of, ``sketch-s0-KD.html`` of ``sketch-s0/KD``.

    Returns {the run's folder: its page}, which is empty where no run has a window map.
    """
    runs, found, taken = path_of(runs), {}, set()
    for place in filter(explorable, run_folders(runs)):
        first = "-".join(place.relative_to(runs).parts) or place.name  # which a-b/c and a/b-c share
        name = next(n for n in chain([first], (f"{first}-{i}" for i in count(2))) if n.casefold() not in taken)
        taken.add(name.casefold())
        found[place] = write_page(place, path_of(folder) / f"{name}.html", hidden=hidden)
    return found


def page(
    run: Run,
    path: str | Path | None = None,
    choices: Mapping[str, Coefficients | NoWindow] | None = None,
    *,
    hidden: bool = False,
) -> str | Path:
    """The explorer of one run without a kernel: HTML that answers from tables it carries. Asks no network for anything.

    path     write a page of its own there, for any browser, light or dark as the reader has it, and return that path;
             without one the part to embed in another page is returned: ``display(HTML(explorer.page(run)))``
    choices  {label: coefficients} with a button each; default what was evaluated on the run, else every strategy that
             reads curves alone. What the run has no scores of is evaluated now, and not written into it
    hidden   whether what looks at the unseen domain is covered until it is asked for

    Raises ``RunProblem`` when the run has no window map: every answer is looked up in it.
    """
    file = path and room_for(path_of(path), "page")
    board = Board(run)
    if board.exact is None:
        raise RunProblem(f"{run.name} has no window map, which a page answers from; call window_map(run) first.")
    chosen = dict(choices or board.presets())
    table = comparison.one_run(board.table(chosen))  # measures them, for the buttons as well
    data = scene(board, chosen) | {"presets": [pick(board, label, choice) for label, choice in chosen.items()]}
    data |= {"hidden": hidden}
    told = json.dumps(data, allow_nan=False).replace("<", "\\u003c")  # no name in it opens or ends a tag or a comment
    fragment = Template(FRAGMENT).substitute(
        style=STYLE, view=VIEW, data=told, table=table_html(table, caption="Accuracy in %, evaluated exactly")
    )
    if file is None:
        return fragment
    title = f"{_named(run)}: which part of training should be averaged?"
    version = own_version()
    whole = Template(SHELL).substitute(title=escape(title), explorer=fragment, version=version)
    write_text(file, whole)
    return file


def _named(run: Run) -> str:
    """``KD, sketch left out, seed 0``: what tells a run from its neighbours in a study."""
    return f"{run.name}, {run.settings['split']['target'].replace('_', ' ')} left out, seed {run.settings['split']['seed']}"

"""Which parts of this package a step of a study depends on, and a digest of each: what changed since it was done.

A digest is of the syntax tree without docstrings, so comments and layout count for nothing. Standard library only.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).parent

# "module:names" is those definitions of a module alone; a folder is all of its modules
RECORDING = (
    "domains",
    "digits",
    "image_folder",
    "views",
    "batches",
    "models",
    "pretrained",
    "tap",
    "zoo",
    "deployed",
    "preparing",
    "mixture",
    "training",
    "recording:Recorder",
    "evaluation:SourceValidation,predict,scores",
    "objectives/combining",
    "objectives/inputs",
    "objectives/schedules",
)
SHARED = (
    "averaging",
    "fitting",
    "evaluation",
    "run",
    "report",
    "figures",
    "templates/wakd/page.css",
    "templates/wakd/index.html.j2",
)
ANALYSIS = {
    "01_train_teacher": (*SHARED, "comparison"),
    "02_distill": (*SHARED, "comparison", "windows", "sweep"),
    "03_compare": (
        *SHARED,
        "comparison",
        "recorded",
        "statistics",
        "study_figures",
        "agreement",
        "predictions",
        "published",
        "latex",
        "pages",
    ),
    "04_landscape": (
        *SHARED,
        "landscape",
        "landscape_figures",
        "landscape_findings",
        "flatness",
        "curvature",
        "sweep",
        "geometry",
        "tables",
    ),
    "05_objectives": (
        *SHARED,
        "comparison",
        "recorded",
        "statistics",
        "alike",
        "gain_figures",
        "study_figures",
        "latex",
    ),
    "06_when_averaging_helps": (
        *SHARED,
        "comparison",
        "recorded",
        "statistics",
        "alike",
        "when",
        "noise",
        "flatness",
        "geometry",
        "sweep",
        "tables",
        "gain_figures",
    ),
}


def digests(parts: Iterable[str]) -> dict[str, str]:
    """``{part: digest}``; a folder counts as its modules. Raises ``FileNotFoundError`` for a part that is not there."""
    return dict(_digests(tuple(parts)))


@functools.cache
def _digests(parts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for part in parts:
        module, _, names = part.partition(":")
        if (PACKAGE / module).is_dir():
            found |= {f"{module}/{file.stem}": _digest(file) for file in sorted((PACKAGE / module).glob("*.py"))}
        else:
            file = PACKAGE / module
            found[module] = _digest(file if file.suffix else file.with_suffix(".py"), names)
    return found


def of_objectives(modules: Iterable[str]) -> tuple[str, ...]:
    """Parts behind the Python modules in which objectives are defined; those of other packages are not followed."""
    inside = f"{__package__}."
    return tuple(sorted({m.removeprefix(inside).replace(".", "/") for m in modules if m.startswith(inside)}))


@functools.cache
def _digest(file: Path, names: str = "") -> str:
    if file.suffix != ".py":
        return _short(file.read_text(encoding="utf-8"))
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if names:
        wanted = names.split(",")
        tree.body = [node for node in tree.body if getattr(node, "name", None) in wanted]
        if len(tree.body) < len(wanted):
            raise FileNotFoundError(f"{file} does not define all of {names}.")
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return _short(ast.dump(tree))


@functools.cache
def of_notebook(file: Path) -> str:
    """Digest of a notebook's cells; outputs and metadata count for nothing."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return _short(json.dumps([[cell["cell_type"], "".join(cell["source"])] for cell in cells]))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""The house style of docstrings, read: prose, a table of names and sentences, indented code, examples; and what is said of settings."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Sequence

from .checks import hints
from .runs.settings import FITS

ROW = re.compile(r"(\w[\w.*]*(?:, \w+)*)( +)(\S.*)")
GAP = re.compile(r"\S {4,}\S")  # what stands in columns is a drawing


def parts(docstring: str) -> list[tuple[str, object]]:
    """Its parts in order: ("text", lines), ("code", lines), ("table", {name: sentence})."""
    found: list[tuple[str, object]] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        lines = block.split("\n")
        if all(line.startswith("    ") for line in lines) or lines[0].startswith(">>>") or _drawn(lines):
            found.append(("code", lines))
            continue
        text: list[str] = []
        while lines:
            rows, left = table(lines)
            if rows:
                found += [("text", text)] * bool(text) + [("table", rows)]
                text, lines = [], left
            else:
                text.append(lines.pop(0))
        found += [("text", text)] * bool(text)
    return found


def table(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """The rows that lines begin with, as {name: sentence}, and the lines after them."""
    rows: dict[str, str] = {}
    name, column = "", 0
    for i, line in enumerate(lines):
        row = ROW.fullmatch(line)
        columns = row and len(row[2]) > 1 and row.start(3) == (column or row.start(3))
        overlong = row and rows and row.end(1) >= column - 1 and row[1].islower()
        if columns or overlong:
            name, column = row[1], column or row.start(3)
            rows[name] = row[3]
        elif rows and line[:column].strip() == "" and line.strip():
            rows[name] += " " + line.strip()
        else:
            return rows, lines[i:]
    return rows, []


def _drawn(lines: list[str]) -> bool:
    """Whether lines are equations, or stand in columns."""
    rows, left = table(lines)
    if rows and not left:
        return any(GAP.search(said) for said in rows.values())
    return any(map(GAP.search, left)) or (len(lines) > 1 and all(" = " in line for line in lines))


def described(docstring: str) -> dict[str, str]:
    """Every name that the tables of a docstring describe, with its sentence."""
    tables = [rows for kind, rows in parts(docstring or "") if kind == "table"]
    return {name: said for rows in tables for names, said in rows.items() for name in names.split(", ")}


def sentence_of(classes: Sequence[type], key: str) -> str:
    """What is said of a field: in its annotation, or in the table of a class's docstring. Raises ``LookupError`` where nothing is."""
    for cls in classes:
        said = notes(hints(cls)[key], str)
        said += [rows[key] for base in cls.__mro__ if key in (rows := described(base.__doc__))]
        said += notes(vars(FITS).get(key), str)  # a setting of train under its own name
        if said:
            return said[0]
    raise LookupError(f"{classes[0].__name__}.{key} has no sentence: add a row to the docstring.")


def notes(hint: object, kind: type) -> list:
    """What an annotation says beside the type: its bounds, or its sentence."""
    own = [note for note in getattr(hint, "__metadata__", ()) if isinstance(note, kind)]
    return own + [note for option in typing.get_args(hint) for note in notes(option, kind)]

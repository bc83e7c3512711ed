"""The house style of docstrings, read: prose, a table of names and sentences, indented code, examples."""

import inspect
import re
import textwrap

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


def markdown(docstring: str) -> str:
    """The docstring as Markdown: tables as lists, examples and drawings in fences, nothing else changed."""
    written = []
    for kind, part in parts(docstring):
        if kind == "table":
            written.append("\n".join(f"- **`{name}`**: {said}" for name, said in part.items()))
        elif kind == "code":
            shown = textwrap.dedent("\n".join(part))
            language = "pycon" if part[0].startswith(">>>") else ""
            written.append(f"```{language}\n{shown}\n```")
        else:
            written.append("\n".join(part))
    return "\n\n".join(written)

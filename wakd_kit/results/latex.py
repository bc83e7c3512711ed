"""Tables for a paper: booktabs, every cell escaped, through pandas' Styler; and for a log, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from ..files import made

# a minus and a dash of another alphabet are what pdfLaTeX stumbles over
SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
}


def escape(text: object) -> str:
    """Text as LaTeX prints it, number signs included: a hyphen before a digit is a minus."""
    letters = [*str(text)]
    for i, letter in enumerate(letters):
        if letter == "-" and (i == 0 or letters[i - 1] in "[( ") and str(text)[i + 1 : i + 2].isdigit():
            letters[i] = "−"
    return "".join(SPECIAL.get(letter, letter) for letter in letters)


def booktabs(table: pd.DataFrame, *, caption: str, label: str, best: Sequence[str] = ()) -> str:
    """A ``table`` environment with rules above, below and under the head; needs ``\\usepackage{booktabs}``.

    best  columns of numbers whose highest value is bold, within the rows that share the first column (a student), and with
          it all that print the same

    Numbers have one decimal and align on the right, NaN is a dash; names lose their underscores.
    """
    table = table.reset_index(drop=True)
    cells = table.map(_cell)
    cells.columns = [escape(str(name).replace("_", " ")) for name in table]
    for name in best:
        printed = table[name].round(1)
        top = printed.groupby(table.iloc[:, 0], sort=False).transform("max")
        bold = np.flatnonzero(printed == top)
        column = table.columns.get_loc(name)  # names that differ in an underscore alone are one heading
        cells.iloc[bold, column] = [rf"\textbf{{{text}}}" for text in cells.iloc[bold, column]]
    numeric = [_numeric(table[name]) for name in table]
    return cells.style.hide(axis="index").to_latex(
        hrules=True,
        column_format="".join("r" if right else "l" for right in numeric),
        caption=escape(caption),
        label=label,
        position="tb",
        position_float="centering",
    )


def compact(summary: pd.DataFrame, *, caption: str, label: str) -> str:
    """``differences.summary`` for the width of a column: accuracies per domain, mean ± sd, a rule between students, the best of
    each student bold. The caption is its first sentence; the whole of it is a comment above.
    """
    columns = [name for name in summary if name not in ("mean", "sd", "se", "n", "missing")]
    known = summary["mean"].notna()
    short = summary[columns].assign(
        mean=[f"{row.mean:.1f} ± {row.sd:.1f}" for row in summary[["mean", "sd"]].itertuples(index=False)]
    )
    short["mean"] = short["mean"].where(known, "–").str.replace(" ± nan", "")
    first, _, _ = caption.partition(": ")
    text, above, rows = booktabs(short, caption=f"{first}.", label=label, best=columns[2:]), None, []
    for line in text.splitlines():
        cells = line.split(" & ")
        head = r"\midrule" not in rows
        if len(cells) == len(short.columns) and not head:
            rows += [r"\midrule"] * (above is not None and cells[0] != above)
            line = " & ".join(["" if cells[0] == above else cells[0], *cells[1:]])
            above = cells[0]
        rows.append(line)
    return f"% {escape(caption)}\n" + "\n".join(rows) + "\n"


def markdown(table: pd.DataFrame) -> str:
    """A table of words, such as ``differences.printed_as`` returns, in Markdown."""
    rows = [table.columns, ["---"] * table.shape[1], *table.to_numpy()]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def save(
    folder: str | Path,
    captions: Mapping[str, str],
    *,
    best: Mapping[str, Sequence[str]] = MappingProxyType({}),
    study: str = "",
    **tables: pd.DataFrame,
) -> None:
    """Write every table that has rows as ``<name>.tex`` into a folder, labelled ``tab:<name>``, captions by name.

    best   {name of a table: its columns whose highest value is bold}
    study  stands in the labels, ``tab:<study>-<name>``, so that two studies go into one paper
    A table called summary is written a second time, ``compact.tex``.
    """
    folder = made(Path(folder), "folder for the tables")
    for name, table in tables.items():
        file = folder / f"{name}.tex"
        file.unlink(missing_ok=True)
        if len(table):
            label = f"tab:{study}-{name}" if study else f"tab:{name}"
            text = booktabs(table, caption=captions[name], label=label, best=best.get(name, ()))
            file.write_text(text, encoding="utf-8")
    if len(tables.get("summary", ())) and {"mean", "sd"} <= {*tables["summary"]}:
        label = f"tab:{study}-compact" if study else "tab:compact"
        text = compact(tables["summary"], caption=captions["summary"], label=label)
        (folder / "compact.tex").write_text(text, encoding="utf-8")


def _cell(value: object) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "--"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return escape(f"{value:z.1f}")
    return escape(value)


def _numeric(column: pd.Series) -> bool:
    return (
        pd.api.types.is_numeric_dtype(column) or column.astype(str).str.fullmatch(r"[-+\[\]<\d., –±]+|\d+ of \d+").all()
    )

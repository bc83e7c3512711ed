"""Two studies of one design on one page: what differs, paired by target and seed where both have one.

compared/<first>-<second>/index.html, differences.csv, side_by_side.csv, figures/differences.svg and .pdf
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from ..plots import many_runs as study_figures
from ..results import differences as comparison
from ..results.collect import PAIRED, Recorded, save_tables
from ..results.made import made
from ..results.together import answers, compared, how_paired, side_by_side, unlike
from . import render as report
from .pages import recipe_html


def compare(studies: Mapping[str, Recorded], out: Path) -> tuple[Path, list[str]]:
    """Write the page of two studies into a folder; returns the page, and what it says in sentences.

    Raises ``RunProblem`` for studies of other images or classes, or without a student and a strategy in common.
    """
    a, b = studies
    table = compared(studies)
    said = [how_paired(studies, table), *unlike(studies), *answers(studies, table)]
    sides = side_by_side(studies)
    parts = [report.text_html(said[0])]
    if len(table):
        drawn, alt = study_figures.differences(table, baseline=a, between=f"{b} less {a}")
        parts.append(report.figure_html(drawn, alt, save_to=out / "figures" / "differences"))
    parts += [report.text_html(*said[1:])] * bool(said[1:])
    caption = (
        "Accuracy in % on the domain left out: mean over all targets and seeds of each study, sd over seeds, n runs."
    )
    parts += ["<h2>Side by side</h2>", report.table_html(sides, caption=caption)]
    if len(table):
        parts += [
            "<h2>Paired differences</h2>",
            report.table_html(comparison.rounded(table), caption=f"{b} less {a}, {PAIRED}"),
        ]
    parts += [
        recipe_html(made(study)).replace("How this was made", f"How {escape(name)} was made")
        for name, study in studies.items()
    ]
    save_tables(out, differences=table, side_by_side=sides)
    files = {"tables as csv": {file.stem: file.name for file in sorted(out.glob("*.csv"))}}
    return report.write_page(
        out / "index.html", *parts, title=f"{a} and {b}", above="Two studies compared", links=files
    ), said

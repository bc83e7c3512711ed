"""From executed notebooks to pages: accessible figures and tables in a notebook, self-contained HTML out of it.

A page makes no network request and hides code: it is what a reader gets who has neither Jupyter nor Python.
"""

from __future__ import annotations

import base64
import datetime
import functools
import io
import json
import re
import struct
from collections.abc import Mapping
from html import escape
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, display
from matplotlib.figure import Figure

from ..files import made, room_for, write_text
from ..names import own_version
from .formulas import with_formulas

if TYPE_CHECKING:
    import nbformat

TEMPLATES = Path(__file__).with_name("templates")
KINDS = ("lines", "field")
PIXELS_PER_INCH = 100  # of a page, so that a figure's 9 pt type is read as 12.5 px


def show(
    figure: Figure, alt: str, *, caption: str = "", kind: str = "lines", save_to: str | Path | None = None
) -> None:
    """Display a figure in a notebook: see ``figure_html``."""
    display(HTML(figure_html(figure, alt, caption=caption, kind=kind, save_to=save_to)))


def figure_html(
    figure: Figure, alt: str, *, caption: str = "", kind: str = "lines", save_to: str | Path | None = None
) -> str:
    """A figure as ``<figure>`` with alt text and its image inside; the figure is closed.

    kind     "lines" draws SVG (small, sharp at any size), "field" PNG at 144 dpi (images, maps)
    save_to  also write it there, in the format of the suffix (.pdf for papers); without one, as svg (a field as png) and pdf
    Raises ``ValueError`` without alt text: a figure that cannot be read aloud is not finished.
    """
    if not alt.strip():
        raise ValueError("Every figure needs alt text: say in words what it shows.")
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}; got {kind!r}.")
    # SVG: no fonts needed, same bytes each time; PDF: fonts that publishers accept
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "wakd", "pdf.fonttype": 42}):
        if save_to is not None:
            for file in _files(Path(save_to), kind):
                made(file.parent, "place for the figure")
                figure.savefig(file, bbox_inches="tight")
        source, width = _svg(figure) if kind == "lines" else _png(figure)
    plt.close(figure)
    below = f"<figcaption>{escape(_signs(caption))}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{escape(_signs(alt))}" style="width:{width:.0f}px">{below}</figure>'


def _files(given: Path, kind: str) -> list[Path]:
    ends = (".svg" if kind == "lines" else ".png", ".pdf")
    return [given] if given.suffix in (*ends, ".png", ".svg") else [given.with_name(given.name + end) for end in ends]


def _svg(figure: Figure) -> tuple[str, float]:
    data = io.BytesIO()
    figure.savefig(data, format="svg", bbox_inches="tight", metadata={"Date": None})
    points = float(re.search(rb'<svg [^>]*?width="([\d.]+)pt"', data.getvalue()).group(1))
    return _address("svg+xml", data), points / 72 * PIXELS_PER_INCH


def _png(figure: Figure, dpi: int = 144) -> tuple[str, float]:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=dpi, bbox_inches="tight")
    pixels = struct.unpack(">I", data.getvalue()[16:20])[0]  # the width in a PNG's header
    return _address("png", data), pixels / dpi * PIXELS_PER_INCH


def _address(kind: str, data: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def show_table(table: pd.DataFrame, *, caption: str = "", digits: int = 1, under: str = "") -> None:
    """Display a table: header cells with scope, numbers right-aligned with ``digits`` decimals, a dash for NaN.

    under  a title under which a table that few ask for is folded; on paper it is there
    """
    display(HTML(table_html(table, caption=caption, digits=digits, under=under)))


def table_html(table: pd.DataFrame, *, caption: str = "", digits: int = 1, under: str = "") -> str:
    """The HTML of ``show_table``. The first column names its row; an index is shown if it has a name."""
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    columns = [[_cell(value, digits) for value in table.iloc[:, i]] for i in range(table.shape[1])]
    classes = [' class="number"' if _numeric(column) else "" for column in columns]
    head = "".join(f'<th scope="col"{c}>{escape(_spaced(n))}</th>' for n, c in zip(table.columns, classes))
    rows, above = [], ""
    grouped = len(columns) > 0 and len(set(columns[0])) < len(columns[0])
    for cells in zip(*columns):
        first, *rest = zip(cells, classes)
        row = f'<th scope="row"{first[1]}>{escape(first[0])}</th>'
        rule = ' class="first"' if grouped and first[0] != above else ""  # a rule above each group of rows of one name
        rows.append(f"<tr{rule}>{row}{''.join(f'<td{c}>{escape(text)}</td>' for text, c in rest)}</tr>")
        above = first[0]
    body = "\n".join(rows) or f'<tr><td colspan="{len(columns)}">none</td></tr>'
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    whole = f'<div class="table"><table>{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    return f'<details class="folded"><summary>{escape(under)}</summary>\n{whole}</details>' if under else whole


def _cell(value: object, digits: int) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, Integral) or not isinstance(value, Real):
        return _signs(str(value))
    return _signs(f"{value:z.{digits}f}")


SIGNS = {
    r"(?<![\w.-])-(?=\d)": "−",
    r"(?<=\w) x (?=\w)": " × ",
    r"(?<=\S) - (?=\S)": " − ",
    r"(?<=\d) ?%(?!\w)": "\N{NO-BREAK SPACE}%",
}


def _signs(text: str) -> str:
    """Signs as they are printed: a minus as long as a plus, between words too, a cross, and per cent apart from its number,
    on the same line; other hyphens stay."""
    return functools.reduce(lambda so_far, sign: re.sub(sign, SIGNS[sign], so_far), SIGNS, text)


def _numeric(cells: list[str]) -> bool:
    """Numbers and what is made of them, such as ``[−0.3, +1.2]``, ``<0.001`` and ``3 of 12``, align on the right; so do
    dashes alone."""
    filled = [text for text in cells if text != "–"]
    return bool(cells) and all(re.fullmatch(r"[<>]?\s?[\d\s.,+−±%\[\]()/]+|\d+ of \d+", text) for text in filled)


def _spaced(name: object) -> str:
    return str(name).replace("_", " ")


def show_text(*sentences: str) -> None:
    """Display computed sentences: one as a paragraph, several as a list; empty ones are left out."""
    if any(sentences):
        display(HTML(text_html(*sentences)))


def text_html(*sentences: str) -> str:
    """The HTML of ``show_text``."""
    texts = [escape(_signs(sentence)) for sentence in sentences if sentence]
    return f"<p>{texts[0]}</p>" if len(texts) == 1 else "<ul>" + "".join(f"<li>{t}</li>" for t in texts) + "</ul>"


def links_html(pages: Mapping[str, Mapping[str, str]]) -> str:
    """Lines of links, ``{group: {name: address relative to the page}}``; a group without links is left out."""
    lines = [
        f"<li>{escape(group)}: " + ", ".join(_link(name, address, group) for name, address in to.items()) + "</li>"
        for group, to in pages.items()
        if to
    ]
    return f'<ul class="links">{"".join(lines)}</ul>'


def _link(name: str, address: str, group: str) -> str:
    # out of its line, a name alone says little
    return f'<a href="{escape(quote(address))}" aria-label="{escape(f"{name}, {group}")}">{escape(name)}</a>'


def render(
    notebook: str | Path,
    page: str | Path,
    *,
    title: str | None = None,
    above: str = "",
    question: bool = True,
    nav: Mapping[str, str] = MappingProxyType({}),
    links: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    notice: str = "",
    box: str = "",
    parameters: Mapping[str, object] | None = None,
    code: bool = False,
) -> Path:
    """Write an executed notebook as a self-contained page and return its path.

    Markdown and outputs are kept; code, stderr, progress bars and widgets, which need a kernel, are left out. ``title`` is
    the window's title and the page's heading, by default the notebook's first heading, which else stands below it as the
    question that the page answers, unless ``question`` is False. The page ends with the parameters the notebook ran with.

    above  a line above the heading: where the page belongs
    nav    {name: address} of pages to go to, above all; not printed
    links  {group: {name: address}} of files and pages that belong to it, below all; not printed
    notice HTML that stands before everything else
    box    HTML that stands before the first section
    parameters  to show, default those it ran with, which hold paths of this machine
    code   whether the cells' code is shown, as in a lesson; formulas between dollars are drawn in any case
    """
    import nbformat  # here: every notebook imports this module for show(), and only what renders needs it

    notebook = Path(notebook)
    book = nbformat.read(notebook, as_version=4)
    about = _about(book, notebook, title, parameters)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _worth_reading(output)]
    headed = next((cell for cell in book.cells if cell.cell_type == "markdown" and cell.source.startswith("# ")), None)
    if title and headed is not None:
        first, _, rest = headed.source.partition("\n")
        asked = first.lstrip("# ")
        headed.source = f"{asked}\n{rest}" if question and asked != title else rest.lstrip()
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = with_formulas(cell.source)
    if code:
        book.cells = [part for cell in book.cells for part in (*_shown_code(cell), cell)]
    if box:
        first = next((i for i, cell in enumerate(book.cells) if cell.source.startswith("## ")), len(book.cells))
        output = nbformat.v4.new_output("display_data", data={"text/html": box})
        book.cells.insert(first, nbformat.v4.new_code_cell(outputs=[output]))
    heading = title if title or headed is None else ""
    return _write(book, Path(page), {**about, "heading": heading, "above": above, "notice": notice}, nav, links)


def _shown_code(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code of a code cell as text before it; a student's is marked."""
    import nbformat

    if cell.cell_type != "code":
        return []
    kind = "code student" if "student" in cell.metadata.get("tags", []) else "code"
    output = f'<pre class="{kind}"><code>{escape(cell.source)}</code></pre>'
    return [nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data={"text/html": output})])]


def write_page(
    page: str | Path,
    *parts: str,
    title: str,
    nav: Mapping[str, str] = MappingProxyType({}),
    links: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    above: str = "",
    notice: str = "",
) -> Path:
    """Write a page that no notebook made, of HTML such as ``figure_html`` and ``table_html`` return, and return its path.

    title  of the window, and the heading of the page;  nav, links, above, notice  as ``render`` takes them
    """
    import nbformat

    new = nbformat.v4
    outputs = [new.new_output("display_data", data={"text/html": part}) for part in parts]
    book = new.new_notebook(cells=[new.new_code_cell(outputs=outputs)])
    about = {**_about(book, None, title), "heading": title, "above": above, "notice": notice}
    return _write(book, Path(page), about, nav, links)


def _write(book: nbformat.NotebookNode, page: Path, about: dict, nav: Mapping, links: Mapping) -> Path:
    addresses = {name: quote(to) for name, to in nav.items()}
    about = {**about, "nav": addresses, "links": links_html(links) if any(links.values()) else ""}
    body, _ = _exporter().from_notebook_node(book, resources={"wakd": about})
    write_text(room_for(page, "page"), _with_contents(body))
    return page


def _with_contents(body: str) -> str:
    """A page whose sections can be gone to, with a list of them beside it where there are more than a few."""
    sections = re.findall(r"<h2>(.*?)</h2>", body)
    if len(sections) <= FEW_SECTIONS:
        return body
    listed = []
    for i, section in enumerate(sections, 1):
        body = body.replace(f"<h2>{section}</h2>", f'<h2 id="s{i}">{section}</h2>', 1)
        listed.append(f'<li><a href="#s{i}">{re.sub("<[^>]*>", "", section)}</a></li>')  # no link in a link
    if '<h2 id="files">' in body:
        listed.append('<li><a href="#files">Files and pages</a></li>')
    contents = f'<nav class="contents" aria-label="On this page"><ol>{"".join(listed)}</ol></nav>\n'
    return body.replace("<main ", contents + "<main ", 1)


FEW_SECTIONS = 4


@functools.cache  # its templates are compiled once
def _exporter():
    from nbconvert import HTMLExporter

    return HTMLExporter(
        template_name="wakd", extra_template_basedirs=[str(TEMPLATES)], exclude_input=True, exclude_anchor_links=True
    )


def _worth_reading(output: nbformat.NotebookNode) -> bool:
    if output.output_type == "stream":
        return output.name == "stdout" and "\r" not in output.text and bool(output.text.strip())
    return "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def _about(
    book: nbformat.NotebookNode, notebook: Path | None, title: str | None, parameters: Mapping | None = None
) -> dict[str, object]:
    """What the template prints besides the cells."""
    headings = [c.source.splitlines()[0].lstrip("# ") for c in book.cells if c.source.startswith("# ")]
    record = book.metadata.get("papermill", {})
    given = record.get("parameters", {}) if parameters is None else parameters
    return {
        "css": (TEMPLATES / "wakd" / "page.css").read_text(encoding="utf-8"),
        "title": title or next(iter(headings), "") or notebook.stem,
        "version": own_version(),
        "rendered": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "notebook": notebook.name if notebook else "",
        "seconds": record.get("duration"),
        "parameters": {name: json.dumps(value, ensure_ascii=False) for name, value in given.items()},
    }

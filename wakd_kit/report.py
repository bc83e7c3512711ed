"""From executed notebooks to pages: accessible figures and tables in a notebook, self-contained HTML out of it.

A page makes no network request and hides code: it is what a reader gets who has neither Jupyter nor Python.
"""

from __future__ import annotations

import base64
import datetime
import html as escaping
import importlib.metadata
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
from IPython.display import HTML, display
from matplotlib.figure import Figure
from nbconvert import HTMLExporter

TEMPLATES = Path(__file__).with_name("templates")
KINDS = ("lines", "field")


def show(
    figure: Figure, alt: str, *, caption: str = "", kind: str = "lines", save_to: str | Path | None = None
) -> None:
    """Display a figure in a notebook as ``<figure>`` with alt text, and close it.

    kind     "lines" draws SVG (small, sharp at any size), "field" PNG at 144 dpi (images, maps)
    save_to  also write it there, in the format of the suffix (.pdf for papers)
    Raises ``ValueError`` without alt text: a figure that cannot be read aloud is not finished.
    """
    if not alt.strip():
        raise ValueError("Every figure needs alt text: say in words what it shows.")
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}; got {kind!r}.")
    if save_to is not None:
        figure.savefig(save_to, bbox_inches="tight")
    data = io.BytesIO()
    if kind == "lines":
        figure.savefig(data, format="svg", bbox_inches="tight", metadata={"Date": None})
        source = "data:image/svg+xml;base64," + base64.b64encode(data.getvalue()).decode()
    else:
        figure.savefig(data, format="png", dpi=144, bbox_inches="tight")
        source = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    width = round(100 * figure.get_figwidth())
    plt.close(figure)
    below = f"<figcaption>{escaping.escape(caption)}</figcaption>" if caption else ""
    image = f'<img src="{source}" alt="{escaping.escape(alt, quote=True)}" style="width:{width}px">'
    display(HTML(f"<figure>{image}{below}</figure>"))


def show_table(table: pd.DataFrame, *, caption: str = "", digits: int = 1) -> None:
    """Display a table: header cells with scope, numbers right-aligned with ``digits`` decimals, a dash for NaN."""
    display(HTML(table_html(table, caption=caption, digits=digits)))


def table_html(table: pd.DataFrame, *, caption: str = "", digits: int = 1) -> str:
    numeric = {name: pd.api.types.is_numeric_dtype(table[name]) for name in table}
    whole = {name: pd.api.types.is_integer_dtype(table[name]) for name in table}
    head = "".join(f'<th scope="col"{_number(numeric[n])}>{escaping.escape(_spaced(n))}</th>' for n in table)
    rows = []
    for values in table.itertuples(index=False):
        cells = []
        for position, (name, value) in enumerate(zip(table, values)):
            text = _cell(value, 0 if whole[name] else digits)
            tag, scope = ("th", ' scope="row"') if position == 0 else ("td", "")
            cells.append(f"<{tag}{scope}{_number(numeric[name])}>{escaping.escape(text)}</{tag}>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "".join(rows) or f'<tr><td colspan="{len(table.columns)}">none</td></tr>'
    title = f"<caption>{escaping.escape(caption)}</caption>" if caption else ""
    return f'<div class="table"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _number(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _spaced(name: object) -> str:
    return str(name).replace("_", " ")


def _cell(value: object, digits: int) -> str:
    if isinstance(value, float) and value != value:
        return "–"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.{digits}f}"
    return str(value)


def show_text(*sentences: str) -> None:
    """Display computed sentences: one as a paragraph, several as a list."""
    texts = [escaping.escape(sentence) for sentence in sentences]
    body = f"<p>{texts[0]}</p>" if len(texts) == 1 else "<ul>" + "".join(f"<li>{t}</li>" for t in texts) + "</ul>"
    display(HTML(body))


def show_links(pages: dict[str, str]) -> None:
    """Display a list of links: ``{name: address relative to the page}``."""
    links = "".join(
        f'<li><a href="{escaping.escape(a, quote=True)}">{escaping.escape(n)}</a></li>' for n, a in pages.items()
    )
    display(HTML(f'<ul class="links">{links}</ul>' if links else "<p>none</p>"))


def render(notebook: str | Path, page: str | Path, *, title: str | None = None) -> Path:
    """Write an executed notebook as a self-contained page and return its path. Code and progress output are left out."""
    notebook, page = Path(notebook), Path(page)
    book = nbformat.read(notebook, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.output_type in ("display_data", "execute_result", "error")]
            cell.outputs = [o for o in cell.outputs if not _is_widget(o)]
    exporter = HTMLExporter(template_name="wakd", extra_template_basedirs=[str(TEMPLATES)])
    exporter.exclude_input = True
    heading = next(
        (c.source.splitlines()[0].lstrip("# ") for c in book.cells if c.source.startswith("# ")), notebook.stem
    )
    resources = {
        "wakd": {
            "css": (TEMPLATES / "wakd" / "page.css").read_text(),
            "title": title or heading,
            "version": importlib.metadata.version("wakd_kit"),
            "rendered": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
            "notebook": notebook.name,
            "parameters": book.metadata.get("papermill", {}).get("parameters", {}),
        }
    }
    body, _ = exporter.from_notebook_node(book, resources=resources)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(body)
    return page


def _is_widget(output) -> bool:
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def offline_problems(page: str | Path) -> list[str]:
    """What would make a page ask the network or leave a reader out: fetched addresses, images without alt text."""
    text = Path(page).read_text()
    scan = _Scan()
    scan.feed(text)
    styles = " ".join(re.findall(r"<style[^>]*>(.*?)</style>", text, flags=re.S))
    fetched = re.findall(r"url\(\s*['\"]?(https?:[^)'\"]+)|@import\s+['\"](https?:[^'\"]+)", styles)
    return scan.problems + [f"style asks for {a or b}" for a, b in fetched]


_FETCHED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}


class _Scan(HTMLParser):
    def __init__(self):
        super().__init__()
        self.problems: list[str] = []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        address = values.get(_FETCHED.get(tag, ""), "") or ""
        if re.match(r"(https?:)?//", address):
            self.problems.append(f"<{tag}> asks for {address}")
        if tag == "img" and not (values.get("alt") or "").strip():
            self.problems.append("an image has no alt text")

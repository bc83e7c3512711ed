"""Executes lessons and writes them as pages into docs/lessons, where the site finds them: `python docs/tools/lessons.py`, or with numbers, `00 03`."""

import sys
import tempfile
import warnings
from pathlib import Path

import nbformat

from wakd_kit.reporting.execute import execute
from wakd_kit.reporting.render import render

ROOT = Path(__file__).parent.parent.parent
SOURCES, PAGES = ROOT / "notebooks" / "lessons", ROOT / "docs" / "lessons"


def write(source: Path, to: Path = PAGES) -> Path:
    """One lesson, executed, as a page of the site: code shown, links to documents and to other lessons as they are there."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*names no description")  # a lesson has no parameters
        done = execute(source, Path(folder) / source.name)
        book = nbformat.read(done, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "markdown":
                cell.source = as_on_the_site(cell.source)
        nbformat.write(book, done)
        return render(done, to / f"{source.stem}.html", code=True, nav={"All lessons": "./", "Words": "../glossary/"})


def as_on_the_site(text: str) -> str:
    """Links of a lesson, as they are from its page: `../../docs/use.md#x` is `../use/#x`, a notebook is its page."""
    for page in (ROOT / "docs").glob("*.md"):
        text = text.replace(f"](../../docs/{page.name}", f"](../{page.stem}/")
    return text.replace("](../../docs/pages/", "](../pages/").replace(".ipynb)", ".html)")


if __name__ == "__main__":
    wanted = sys.argv[1:] or [""]
    for source in sorted(SOURCES.glob("*.ipynb")):
        if any(source.name.startswith(number) for number in wanted):
            print(write(source).relative_to(ROOT))

"""What mkdocs needs beyond its configuration: the first page is README.md, and a page of the API for each room.

Nothing of wakd_kit is imported: its docstrings are read from the source, so the site can be built without torch.
"""

import re
import sys
from pathlib import Path

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(Path(__file__).parent))

from docstrings import markdown  # noqa: E402

HALL = ["checks", "names", "files", "written", "fingerprints", "statistics", "plugins", "cli"]


def rooms() -> list[str]:
    """Every folder of the package with modules, by name."""
    return sorted(folder.parent.name for folder in (ROOT / "wakd_kit").glob("*/__init__.py"))


def on_config(config):
    """Adds to the navigation what comes by itself: a page for each room, the decisions."""
    decisions = sorted(
        file.relative_to(ROOT / "docs").as_posix() for file in (ROOT / "docs" / "decisions").glob("*.md")
    )
    config.nav += [{"API": [{room: f"api/{room}.md"} for room in (*rooms(), "hall")]}, {"Decisions": decisions}]
    return config


def on_files(files: Files, config) -> Files:
    """Adds README, CONTRIBUTING and CHANGELOG, and a page for each room and for the hall."""
    pages = {name: beside((ROOT / source).read_text(encoding="utf-8")) for name, source in TOP.items()}
    for room in rooms():
        modules = sorted(file.stem for file in (ROOT / "wakd_kit" / room).glob("*.py") if file.stem != "__init__")
        pages[f"api/{room}.md"] = api(room, [f"{room}.{module}" for module in modules], opening=f"wakd_kit.{room}")
    pages["api/hall.md"] = api("The hall", [name for name in HALL if (ROOT / "wakd_kit" / f"{name}.py").exists()])
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """The list of lessons, each linked to its page where there is one: `make lessons` executes them into docs/lessons."""
    if page.file.src_uri != "lessons.md":
        return markdown
    pages = [file.src_uri for file in files if re.fullmatch(r"lessons/\d\d_.*\.html", file.src_uri)]
    for name in pages:
        markdown = markdown.replace(f"| `{Path(name).stem}` |", f"| [{Path(name).stem}]({name}) |")
    return markdown


def on_post_page(output: str, page, config) -> str:
    """The theme's search is a dialog without a name."""
    return output.replace(
        'data-md-component="search" role="dialog">', 'data-md-component="search" role="dialog" aria-label="Search">'
    )


TOP = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def beside(text: str) -> str:
    """A page of the top folder as one of docs/: its links to docs/ and to the other pages of the top folder go there."""
    text = re.sub(r"\]\(docs/", "](", text)
    text = re.sub(r"\[([^\]]*)\]\((LICENSE|CITATION\.cff)\)", r"\1", text)  # no pages of the site
    for name, source in TOP.items():
        text = text.replace(f"]({source})", f"]({name})")
    return text


def api(title: str, modules: list[str], opening: str = "") -> str:
    """A page of the API: what the room says of itself, then its modules."""
    lines = [f"# {title}"]
    if opening:
        lines += [
            f"::: {opening}",
            "    options: {members: false, show_root_heading: false, show_root_toc_entry: false}",
        ]
    lines += [line for module in modules for line in (f"## `{module}`", f"::: wakd_kit.{module}")]
    return "\n\n".join(lines).replace("\n\n    options", "\n    options")


class HouseStyle(griffe.Extension):
    """Docstrings as Markdown: see ``docstrings``."""

    def on_instance(self, *, obj, **_) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)

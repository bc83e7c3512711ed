"""Lesson 04 without Python: its page in a browser, the table it reads, and pages of lessons, read as axe-core reads them."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

import wakd_kit.explorer
import wakd_kit.reporting
from wakd_kit.lessons import shipped
from wakd_kit.reporting.render import render
from wakd_kit.study.specification import load_study

from ..notebooks import execute

ROOT = Path(__file__).parent.parent.parent
EXPLORER = ROOT / "docs" / "pages" / "explorer.html"
PAGE = ROOT / "docs" / "pages" / "windows.html"
REPORT = ROOT / "docs" / "pages" / "quickstart.html"


def test_the_explorer_in_the_documents_is_the_kit_s_of_today():
    """A snapshot of one recorded run: where this fails, `wakd explore` that run, or another, into docs/pages."""
    kit, page = Path(wakd_kit.explorer.__file__).parent, EXPLORER.read_text(encoding="utf-8")
    assert [
        name for name in ("view.js", "view.css") if (kit / name).read_text(encoding="utf-8").strip() not in page
    ] == []


def test_the_report_in_the_documents_is_the_kit_s_of_today():
    """A snapshot of the quickstart: where this fails, `wakd report quickstart` and `python docs/tools/report.py reports/quickstart`."""
    page = REPORT.read_text(encoding="utf-8")
    assert (Path(wakd_kit.reporting.__file__).parent / "templates/wakd/page.css").read_text(
        encoding="utf-8"
    ).strip() in page
    cells = json.loads((ROOT / "notebooks" / "03_compare.ipynb").read_text(encoding="utf-8"))["cells"]
    said = [line.strip() for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"]]
    sections = [line.removeprefix("## ") for line in said if line.startswith("## ")]
    assert sections and re.findall(r"<h2 id=[^>]*>([^<]*)</h2>", page) == ["How this was made", *sections]
    assert f"<h1>{load_study('quickstart').title}</h1>" in page and len(page) < 1_000_000


def test_the_page_of_the_site_is_what_the_kit_writes(tmp_path):
    assert PAGE.read_text(encoding="utf-8") == shipped.write_page(tmp_path / "windows.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["CE", "KD"])
def test_picks_are_windows_of_the_table_and_honest(name):
    told = shipped.tables()[name]
    windows, picks = told["windows"], shipped.picks(name)
    assert {*picks.values()} <= {*windows} and picks["all of it"] == (0, told["curves"].steps)
    assert windows[picks["best on source validation"]][0] == max(source for source, _ in windows.values())
    assert shipped.nearest(windows, *picks["WAKD, last 40 %"]) == picks["WAKD, last 40 %"]
    assert np.all(np.diff(told["curves"].ends) > 0) and all(begin < end for begin, end in windows)


@pytest.mark.browser
def test_the_page_asks_first_and_tells_afterwards(chromium):
    wrong: list[str] = []
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else wrong.append(request.url)
    )
    page.goto(PAGE.as_uri())
    windows, told = shipped.tables()["CE"]["windows"], page.locator("#told")
    assert told.inner_text() == "" and not re.search(r"unseen kind\s+[\d.]+ %", page.locator("main").inner_text())
    page.locator("#begin").press("ArrowRight")
    page.locator("#end").press("ArrowLeft")
    begin, end = (int(page.locator(f"#{name}s").inner_text()) for name in ("begin", "end"))
    assert (begin, end) in windows and page.url.endswith(f"#run=CE&window={begin}-{end}")
    page.get_by_role("button", name="This is my window").press("Enter")
    own = page.locator("tr.own td").all_inner_texts()
    assert own[1:3] == [f"{100 * value:.1f}" for value in windows[begin, end]]
    best = 100 * max(target for _, target in windows.values())
    assert page.locator("tbody tr").last.locator("td").nth(2).inner_text() == f"{best:.1f}"
    shared = page.url
    page.get_by_role("button", name="Taught by a larger network").click()
    assert told.inner_text() == "" and "run=KD" in page.url
    page.goto("about:blank")
    page.goto(shared)
    assert page.locator("tr.own td").all_inner_texts() == own
    for width in (1920, 400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
    assert wrong == []


@pytest.fixture(scope="module")
def addresses(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    source = ROOT / "notebooks" / "lessons" / "00_why_averages_help.ipynb"
    with pytest.warns(UserWarning, match="names no description"):
        lesson = render(execute(source, folder / source.name), folder / "lesson.html", code=True)
    return {
        "lesson": lesson.as_uri(),
        "windows": PAGE.as_uri(),
        "windows, told": f"{PAGE.as_uri()}#run=KD&window=180-300&told",
        "explorer, tour": f"{(PAGE.parent / 'explorer.html').as_uri()}#window=330-600&tour=3",
    }


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["lesson", "windows", "windows, told", "explorer, tour"])
def test_axe_finds_nothing(chromium, addresses, kind):
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None:
        pytest.skip("axe-core is not here: pip install axe-playwright-python")
    axe = (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    broken = {}
    for scheme in ("light", "dark"):
        page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        page.goto(addresses[kind])
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert len(result["passes"]) > 5, "axe has looked at the page"
        broken |= {(scheme, one["id"]): [node["html"][:200] for node in one["nodes"]] for one in result["violations"]}
        page.close()
    assert broken == {}

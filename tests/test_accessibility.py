"""axe-core finds nothing on any kind of page that the kit writes, light and dark, in Chromium.

The script comes with the test extra ``axe-playwright-python``, of which only the file is used; without it these tests are skipped.
"""

import importlib.util
from pathlib import Path

import pytest

from wakd_kit.explorer.pages import write_pages

pytestmark = pytest.mark.browser
KINDS = ("index", "target", "notebook", "explorer", "explorer, covered", "explorer, large type")


@pytest.fixture(scope="module")
def axe() -> str:
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None:
        pytest.skip("axe-core is not here: pip install axe-playwright-python")
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def addresses(finished, tmp_path_factory) -> dict[str, str]:
    """{kind of page: address}, of the finished study and of the explorer of one of its runs."""
    report, pages = finished / "report", write_pages(finished / "runs", tmp_path_factory.mktemp("explorer"))
    explorer = next(iter(pages.values())).as_uri()
    found = {
        "index": next(report.glob("index.html")).as_uri(),
        "target": sorted(report.glob("targets/*.html"))[0].as_uri(),
        "notebook": sorted(report.glob("notebooks/*KD.html"))[0].as_uri(),
        "explorer": explorer,
        "explorer, covered": f"{explorer}#guess",
        "explorer, large type": f"{explorer}#large",
    }
    assert tuple(found) == KINDS
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing(chromium, axe, addresses, kind):
    found = {}
    for scheme in ("light", "dark"):
        page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        page.goto(addresses[kind])
        for details in page.locator("details").all():  # what is folded is read as well
            details.evaluate("one => (one.open = true)")
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert len(result["passes"]) > 5, "axe has looked at the page"
        for broken in result["violations"]:
            found[scheme, broken["id"]] = [node["html"][:200] for node in broken["nodes"]]
        page.close()
    assert found == {}

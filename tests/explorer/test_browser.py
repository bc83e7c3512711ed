"""The explorer in a real browser: hands, keys and presets move every picture, and its numbers are evaluate's."""

import itertools
import json
import re

import nbformat
import numpy as np
import pytest

import wakd_kit as wk
from wakd_kit.explorer import widget as explorer
from wakd_kit.explorer.answers import MEAN, Board
from wakd_kit.explorer.drawing import scene
from wakd_kit.reporting import render as report
from wakd_kit.study.run import NOTEBOOKS

from ..lab import lab, run_all
from ..offline import offline_problems

pytestmark = pytest.mark.browser
PICTURES = (
    ".wk-curve >> nth=0",
    ".wk-curve >> nth=1",
    ".wk-strip",
    ".wk-accuracy",
    ".wk-map >> nth=0",
    ".wk-map >> nth=1",
)

RUN_BELOW = """async (source) => {
  const book = window.jupyterapp.shell.currentWidget.content;
  book.activeCellIndex = book.widgets.length - 1;
  await window.jupyterapp.commands.execute("notebook:insert-cell-below");
  book.activeCell.model.sharedModel.setSource(source);
  window.jupyterapp.commands.execute("notebook:run-cell");
}"""
CLIPPED = """all => all.flatMap(view => {
  const output = view.closest(".jp-OutputArea-output").getBoundingClientRect();
  return [view, ...view.querySelectorAll("span, b, td, th, button")].filter(e => {
    const r = e.getBoundingClientRect();
    return r.width && (r.left < output.left - 0.5 || r.right > output.right + 0.5);
  }).map(e => e.outerHTML.slice(0, 80));
})"""


@pytest.fixture
def opened(chromium):
    """Opens an address: the page, and what went wrong in it or was asked for over a network."""
    pages = []

    def visit(address: str | None = None, **options):
        page = chromium.new_page(viewport={"width": 1280, "height": 1000}, **options)
        pages.append(page)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on(
            "request",
            lambda r: (
                wrong.append(r.url) if not r.url.startswith((address or "http://127", "data:", "blob:")) else None
            ),
        )
        if address:
            page.goto(address)
        return page, wrong

    yield visit
    for page in pages:
        page.close()


def drag(page, start: float, end: float, steps: int) -> None:
    """Drag on the first curve from one step of training to another."""
    page.locator(".wk-curve").first.scroll_into_view_if_needed()
    box = page.locator(".wk-curve").first.bounding_box()
    xs, y = [box["x"] + box["width"] * at / steps for at in (start, end)], box["y"] + box["height"] / 2
    page.mouse.move(xs[0], y)
    page.mouse.down()
    page.mouse.move(xs[1], y, steps=5)
    page.mouse.up()


def shown(page) -> dict[str, float]:
    """The accuracies in the table as a reader sees them, in per cent."""
    cells = page.locator(".wk-accuracy tbody tr").evaluate_all(
        "rows => rows.map(r => [r.querySelector('th').firstChild.textContent.trim(), r.querySelector('.wk-now').textContent])"
    )
    return {name: float(text) for name, text in cells}


def expected(run, choice):
    """The same from evaluate, to the last digit that is shown."""
    table = wk.evaluate(run, {"it": choice}).set_index("domain")
    sources = table.loc[table["role"] == "source", "accuracy"]
    accuracy = {**table["accuracy"], MEAN: sources.mean()}
    return pytest.approx({name: 100 * value for name, value in accuracy.items()}, abs=0.051)


def test_the_explorer_in_jupyterlab(chromium, opened, runs, tmp_path):
    from playwright.sync_api import expect

    book = nbformat.read(NOTEBOOKS / "10_explore_averaging.ipynb", as_version=4)
    book.cells = book.cells[:5]
    book.cells[1].source = f"runs = {str(runs)!r}\nwindow_map_grid = 20"
    nbformat.write(book, tmp_path / "explore.ipynb")
    with lab(tmp_path) as address:
        page, wrong = opened()
        run_all(page, address, "explore.ipynb")
        what, source = page.locator(".wk-what"), page.locator(".wk-source")
        expect(what).to_have_text("wakd: iterates 2 to 12")
        expect(source).to_have_text("exact")
        run = wk.load_run(runs / "east" / "student")
        before = {name: page.locator(name).screenshot() for name in PICTURES}

        drag(page, 1, 6.2, 12)
        expect(what).to_have_text("Your window: iterates 7 to 12")
        expect(source).to_have_text("exact")  # evaluated in the kernel, after letting go
        assert shown(page) == expected(run, wk.averaging.window(run.source_curves, begin=6))
        assert page.locator(".wk-strategy select").input_value() == explorer.OWN
        after = {name: page.locator(name).screenshot() for name in PICTURES}
        assert [name for name in PICTURES if before[name] == after[name]] == []

        page.locator(".wk-end").focus()
        page.keyboard.press("ArrowLeft")
        expect(what).to_have_text("Your window: iterates 7 to 10")
        assert "unseen domain" in page.locator(".wk-end").get_attribute("aria-valuetext")

        page.locator(".wk-strategy select").select_option("ema")
        expect(what).to_have_text(re.compile("^ema: "))
        expect(source).to_have_text("exact")
        assert shown(page) == expected(run, wk.averaging.ema(run.source_curves))
        expect(page.locator(".wk-map .wk-here").first).to_be_hidden()  # no window, no place on the map
        strip = page.locator(".wk-strip").screenshot()
        page.locator(".wk-set-decay .noUi-handle").focus()
        for _ in range(4):  # from the 0.5 that fits twelve steps
            page.keyboard.press("ArrowRight")
        expect(page.locator(".wk-note")).to_contain_text("decay 0.98")
        expect(what).to_have_text("ema (decay=0.98): iterates 1 to 12")
        assert page.locator(".wk-strip").screenshot() != strip

        page.locator(".wk-strategy select").select_option("swad")
        expect(what).to_have_text(re.compile("^swad"))

        page.locator(".wk-run select").select_option("north/student")
        expect(page.locator(".wk-accuracy th small").locator("..")).to_contain_text("north")
        expect(page.locator(".wk-map")).to_have_count(2)  # by proxy: the run has no window map
        box = page.locator(".wk-map .wk-box").nth(1)
        box.scroll_into_view_if_needed()
        corner = box.bounding_box()
        page.mouse.move(corner["x"] + 0.95 * corner["width"], corner["y"] + 0.55 * corner["height"])
        page.mouse.down()
        expect(what).to_have_text("Your window: iterates 7 to 12")
        expect(source).to_have_text("quick estimate (proxy)")
        page.mouse.up()
        expect(source).to_have_text("exact")
        run = wk.load_run(runs / "north" / "student")
        assert shown(page) == expected(run, wk.averaging.window(run.source_curves, begin=6))
        page.locator(".wk-exact-map").click()
        expect(page.locator(".wk-message")).to_contain_text("kept with the run")
        assert len(wk.load_run(runs / "north" / "student").window_map) == 7 * 8 // 2
        page.evaluate(RUN_BELOW, "display(HTML(explorer.page(explore.board.run)))")
        expect(page.locator(".wk-page .wk-what")).to_have_text(re.compile("iterates"))
        for width in (1280, 1920):
            page.set_viewport_size({"width": width, "height": 1000})
            assert page.locator(".wk-explorer").count() == 2
            assert page.locator(".wk-explorer").evaluate_all(CLIPPED) == [], f"cut off at {width} px"
        assert wrong == []


@pytest.fixture
def page_of(mapped):
    """A run with a window map and evaluated strategies, one of which finds no window."""
    wk.evaluate(
        mapped, wk.choose(mapped, ["last", {"name": "wakd", "begin": 8}, "ema", {"name": "swad", "n_converge": 9}])
    )
    return mapped


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_answers_without_a_kernel(opened, page_of, tmp_path, scheme):
    explorer.page(page_of, tmp_path / "page.html")
    page, wrong = opened((tmp_path / "page.html").as_uri(), color_scheme=scheme)
    assert page.locator(".wk-what").inner_text() == "wakd: iterates 9 to 24"
    assert shown(page) == expected(page_of, wk.averaging.wakd(page_of.source_curves, begin=8))
    before = {name: page.locator(name).screenshot() for name in PICTURES}
    drag(page, 8, 4, 24)
    assert page.locator(".wk-what").inner_text() == "Your window: iterates 5 to 24"
    assert shown(page) == expected(page_of, wk.averaging.window(page_of.source_curves, begin=4))
    assert [name for name in PICTURES if page.locator(name).screenshot() == before[name]] == []

    drag(page, 4, 0, 24)
    page.locator(".wk-end").focus()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    assert page.locator(".wk-what").inner_text() == "Your window: iterates 1 to 12"
    page.locator(".wk-band").focus()
    page.keyboard.press("End")
    assert page.locator(".wk-what").inner_text() == "Your window: iterates 9 to 24"  # four segments, as before
    page.keyboard.press("Home")
    assert page.locator(".wk-what").inner_text() == "Your window: iterates 1 to 12"

    page.get_by_role("button", name="swad").click()
    assert page.locator(".wk-note").inner_text().startswith("swad found no window")
    assert page.locator(".wk-now").all_inner_texts() == ["–"] * 5
    handle = page.locator(".wk-begin")
    assert handle.get_attribute("aria-valuetext").startswith("swad: swad found no window")
    handle.press("ArrowRight")
    assert page.locator(".wk-what").inner_text() == "Your window: iterates 3 to 24"
    page.get_by_role("button", name="ema").press("Enter")
    assert shown(page) == expected(page_of, page_of.choices["ema"])
    assert wrong == []


def test_what_the_unseen_domain_says_can_be_covered_until_it_is_asked_for(opened, page_of, tmp_path):
    explorer.page(page_of, tmp_path / "page.html", hidden=True)
    page, wrong = opened((tmp_path / "page.html").as_uri())
    verdict, unseen = page.locator(".wk-verdict"), page.locator(".wk-unseen td")
    covered = page.get_by_role("button", name="Cover the unseen domain")
    known = expected(page_of, wk.averaging.wakd(page_of.source_curves, begin=8)).expected

    def words() -> str:
        attributes = "['aria-label', 'aria-valuetext'].map(n => e.getAttribute(n))"
        spoken = page.locator("[aria-label], [aria-valuetext]").evaluate_all(
            f"all => all.filter(e => e.checkVisibility()).flatMap(e => {attributes})"
        )
        return page.locator("main").inner_text() + " ".join(filter(None, spoken))

    assert covered.get_attribute("aria-pressed") == "true"
    assert verdict.inner_text().startswith("source validation") and unseen.all_inner_texts()[1:] == ["?"] * 3
    assert page.locator(".wk-unseen-field").is_hidden() and page.locator(".wk-page > details").is_hidden()
    page.locator(".wk-numbers summary").click()
    page.locator(".wk-every th[scope=col]").first.wait_for()  # a disclosure says that it is open a moment later
    assert page.locator(".wk-every th[scope=col]").all_inner_texts()[1:] == [
        "mean of sources",
        "north",
        "east",
        "south",
    ]
    assert "oracle:" not in words() and "best of the oracle" not in words()
    covered.press("Enter")
    assert covered.get_attribute("aria-pressed") == "false"
    assert re.fullmatch(r"west [\d.]+ → [\d.]+, [+−±][\d.]+ oracle", verdict.inner_text())
    assert f"→ {known['west']:.1f}," in verdict.inner_text() and shown(page)["west"] == pytest.approx(
        known["west"], abs=0.051
    )
    assert page.locator(".wk-every th[scope=col]").nth(1).inner_text() == "west, unseen: oracle"
    assert page.locator(".wk-every tbody tr").count() == len(page_of.window_map)
    page.goto("about:blank")
    page.goto((tmp_path / "page.html").as_uri() + "#guess")
    assert covered.get_attribute("aria-pressed") == "true" and wrong == []
    page.goto("about:blank")
    page.goto((tmp_path / "page.html").as_uri() + "#guess&tour=3")  # covered again at the stop that had uncovered it
    assert covered.get_attribute("aria-pressed") == "true" and page.url.endswith("guess&tour=3")


MODEL = """data => {
  const state = { data, pick: {}, window: [4, 12] }, heard = {};
  const set = (name, value) => { state[name] = value; heard[`change:${name}`]?.(); };
  window.model = { get: (name) => state[name], set, on: (name, hear) => (heard[name] = hear), save_changes() {} };
  document.querySelector("main").replaceChildren(document.createElement("div"));
  render({ model, el: document.querySelector("main > div") });
}"""


def test_a_page_within_a_page_covers_what_it_was_written_to_cover(opened, page_of, tmp_path):
    explorer.page(page_of, tmp_path / "page.html", hidden=True)
    page, wrong = opened()
    page.set_content('<iframe width="1200" height="900"></iframe>')
    page.locator("iframe").evaluate("(frame, text) => { frame.srcdoc = text; }", (tmp_path / "page.html").read_text())
    frame = page.frame_locator("iframe")
    frame.locator(".wk-verdict").wait_for()
    assert "wk-covered" in frame.locator(".wk-explorer").get_attribute("class") and wrong == []


def test_what_a_kernel_sends_changes_what_is_shown_and_nothing_that_the_reader_has_set(opened, page_of, tmp_path):
    explorer.page(page_of, tmp_path / "page.html")
    page, wrong = opened((tmp_path / "page.html").as_uri())
    page.add_script_tag(content=explorer.VIEW)
    data = json.loads(json.dumps(scene(Board(page_of)) | {"id": "first", "asks": True, "hidden": True}))
    page.evaluate(MODEL, data)
    what, covered = page.locator(".wk-what"), page.get_by_role("button", name="Cover the unseen domain")
    tour, stop = page.get_by_role("button", name="Tour", exact=True), page.locator(".wk-stop")
    assert covered.get_attribute("aria-pressed") == "true"
    tour.click()
    for _ in range(3):
        page.get_by_role("button", name="Next").click()
    assert stop.inner_text().startswith("4 of 5. Compare. Under Average")
    page.get_by_role("button", name="Back").click()
    assert covered.get_attribute("aria-pressed") == "false"
    covered.click()
    page.evaluate("data => model.set('data', data)", data | {"id": "second", "hidden": False})
    assert covered.get_attribute("aria-pressed") == tour.get_attribute("aria-pressed") == "true"
    assert stop.inner_text().startswith("3 of 5.") and page.locator(".wk-unseen td").nth(1).inner_text() == "?"
    pick = {"label": "WAKD", "key": "WAKD {}", **dict.fromkeys(("note", "place", "accuracy", "colour"))}
    pick |= {"begin": 4, "end": 12, "window": [4, 12], "bars": [], "source": ""}
    page.evaluate("pick => (model.set('window', []), model.set('pick', pick))", pick)
    assert what.inner_text() == "WAKD: iterates 5 to 12"
    page.evaluate("() => (model.set('pick', {}), model.set('window', [4, 12]))")
    assert what.inner_text() == "Your window: iterates 5 to 12" and wrong == []
    page.evaluate("data => model.set('data', data)", {**data, "id": "third", "windows": {}})
    page.evaluate("() => model.set('window', [4, 16])")
    page.wait_for_function("() => model.get('asked')?.startsWith('third')")
    page.evaluate("() => model.set('answer', { key: model.get('asked'), problem: 'the images are gone.' })")
    assert page.locator(".wk-source").inner_text() == "not evaluated" and page.evaluate("model.get('asked')") == ""
    # a second view of the same explorer knows what the first has asked for
    page.evaluate("() => model.set('answer', { key: 'third\\n4-16', accuracy: model.get('data').last })")
    assert page.locator(".wk-source").inner_text() == "exact"
    page.evaluate(
        "() => render({ model, el: document.querySelector('main').appendChild(document.createElement('div')) })"
    )
    assert page.locator(".wk-source").all_inner_texts() == ["exact", "exact"] and wrong == []


def test_a_heading_is_no_setting_of_an_explorer_on_its_page(opened, page_of, tmp_path):
    (tmp_path / "page.html").write_text(f"<!doctype html><h2 id='larger-guesses'>A</h2>{explorer.page(page_of)}")
    page, _ = opened(f"{(tmp_path / 'page.html').as_uri()}#larger-guesses")
    page.locator(".wk-verdict").wait_for()
    assert page.locator(".wk-explorer").get_attribute("class") == "wk-explorer"


def test_the_address_of_a_page_says_what_is_shown_and_a_tour_leads_through_it(opened, page_of, tmp_path):
    explorer.page(page_of, tmp_path / "page.html")
    address = (tmp_path / "page.html").as_uri()
    page, wrong = opened(address)
    page.locator(".wk-end").focus()
    page.keyboard.press("ArrowLeft")
    begin, end = map(int, re.search(r"#window=(\d+)-(\d+)$", page.url).groups())
    stop = page.locator(".wk-stop")
    assert page.locator(".wk-what").inner_text() == f"Your window: iterates {begin + 1} to {end}" and stop.is_hidden()
    page.goto("about:blank")
    page.goto(f"{address}#window=4-12&tour=2")
    assert page.locator(".wk-what").inner_text() == "Your window: iterates 5 to 12"
    assert stop.inner_text().startswith("2 of 5. Predict.")
    assert page.locator(".wk-unseen td").all_inner_texts()[1:] == ["?"] * 3 and page.url.endswith(
        "#window=4-12&guess&tour=2"
    )
    on = page.get_by_role("button", name="Next")
    on.press("Enter")
    assert stop.inner_text().startswith("3 of 5. Run.") and "?" not in page.locator(".wk-unseen td").all_inner_texts()
    on.click()
    assert page.locator(".wk-preset[aria-pressed=true]").count() == 1
    on.click()
    page.get_by_role("button", name="End of the tour").click()
    assert stop.is_hidden() and "tour" not in page.url
    page.goto("about:blank")
    page.goto(f"{address}#guess&tour=3")
    assert stop.inner_text().startswith("3 of 5. Run. Uncover the unseen domain")
    page.get_by_role("button", name="Cover the unseen domain").click()
    assert stop.inner_text().startswith("3 of 5. Run. Uncovered:")
    page.goto("about:blank")
    page.goto(f"{address}#window=5-12")  # no window of this page
    assert "iterates 6 to 12" not in page.locator(".wk-what").inner_text() and wrong == []


def test_a_line_says_what_the_average_so_far_was_worth_on_source_validation(opened, page_of, tmp_path):
    explorer.page(page_of, tmp_path / "page.html")
    page, _ = opened((tmp_path / "page.html").as_uri() + "#window=4-12")
    table = page_of.window_map
    steps = int(table["end"].max())
    from_there = table[table["begin"] == 4].sort_values("end")
    drawn = [pair.split() for pair in re.split("[ML]", page.locator(".wk-along").get_attribute("d"))[1:]]
    assert [float(x) for x, _ in drawn] == pytest.approx([1000 * e / steps for e in from_there["end"]], abs=0.06)
    heights, means = [float(y) for _, y in drawn], from_there["val_accuracy"].to_numpy()
    assert (np.diff(heights) < 0).tolist() == (np.diff(means) > 0).tolist() and len(heights) > 2
    assert "averaged so far" in page.locator(".wk-timeline").inner_text()
    before = page.locator(".wk-along").get_attribute("d")
    page.locator(".wk-begin").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".wk-along").get_attribute("d") != before


def test_on_a_projector_cause_and_effect_are_on_one_screen(opened, page_of, tmp_path):
    explorer.page(page_of, tmp_path / "page.html")
    page, _ = opened((tmp_path / "page.html").as_uri() + "#large")
    needed = [
        ".wk-verdict",
        ".wk-begin",
        ".wk-end",
        ".wk-strip",
        ".wk-unseen",
        ".wk-accuracy tr >> nth=5",
        ".wk-preset >> nth=0",
    ]
    sizes = "all => all.map(e => parseFloat(getComputedStyle(e).fontSize))"
    for width, height, least in ((1280, 720, 18), (853, 480, 18)):
        page.set_viewport_size({"width": width, "height": height})
        boxes = {name: page.locator(name).bounding_box() for name in needed[: 7 if height == 720 else 1]}
        assert {name for name, b in boxes.items() if b["y"] < 0 or b["y"] + b["height"] > height} == set()
        assert min(page.locator(".wk-accuracy td, .wk-what, .wk-verdict").evaluate_all(sizes)) >= least
        assert min(page.locator(".wk-x, .wk-y").evaluate_all(sizes)) >= 14
    page.mouse.wheel(0, 500)
    page.wait_for_timeout(100)
    assert page.locator(".wk-verdict").bounding_box()["y"] >= 0, "the answer stays on top while the page is scrolled"


def test_a_button_is_answered_aloud_and_a_slider_speaks_for_itself(opened, page_of, tmp_path):
    from playwright.sync_api import expect

    explorer.page(page_of, tmp_path / "page.html")
    page, _ = opened((tmp_path / "page.html").as_uri())
    said = page.locator(".wk-said")
    assert said.get_attribute("aria-live") == "polite"
    page.get_by_role("button", name="ema").click()
    expect(said).to_have_text(
        re.compile(r"^ema: iterates 1 to 24; unseen domain \(oracle\) [\d.]+ %, [+−±][\d.]+ points to the last")
    )
    page.get_by_role("button", name="swad").click()
    expect(said).to_have_text(re.compile("^swad: swad found no window"))
    page.get_by_role("button", name="last").click()
    expect(said).to_have_text(re.compile("^last: "))
    page.locator(".wk-end").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(400)
    assert said.inner_text().startswith("last: "), "the slider's own words are enough"
    assert "unseen domain" in page.locator(".wk-end").get_attribute("aria-valuetext")


def test_marks_stand_at_the_edges_of_their_windows_and_bars_below_the_line(opened, page_of, tmp_path):
    curves = page_of.source_curves
    choices = {"W": wk.averaging.window(curves, begin=8, end=20), "B": wk.averaging.bema(curves)}
    explorer.page(page_of, tmp_path / "page.html", choices=choices)
    page, _ = opened((tmp_path / "page.html").as_uri())
    box = page.locator(".wk-map .wk-box").first.bounding_box()
    here = page.locator(".wk-map .wk-here").first.bounding_box()
    assert (here["x"] + here["width"] / 2 - box["x"]) / box["width"] == pytest.approx(20 / 24, abs=0.01)
    assert (here["y"] + here["height"] / 2 - box["y"]) / box["height"] == pytest.approx(8 / 24, abs=0.01)
    assert all(float(r.get_attribute("y")) >= 0 for r in page.locator(".wk-strip rect").all())
    page.get_by_role("button", name="B", exact=True).click()
    line = float(page.locator(".wk-strip .wk-zero").get_attribute("y1"))
    (start,) = page.locator(".wk-strip .wk-start.wk-negative").all()
    assert float(start.get_attribute("y")) == line and float(start.get_attribute("height")) > 0
    last = page.locator(".wk-strip rect").last
    assert float(last.get_attribute("y")) + float(last.get_attribute("height")) == pytest.approx(line)


def test_every_window_of_a_page_shows_its_own_row(opened, page_of, tmp_path):
    explorer.page(page_of, tmp_path / "page.html")
    page, _ = opened((tmp_path / "page.html").as_uri())
    board, found = Board(page_of), {}
    page.locator(".wk-begin").focus()
    for begin, end in itertools.combinations(board.edges, 2):
        corner = page.locator(".wk-map .wk-box").first.bounding_box()
        x, y = ((e - 0.5) / 24 for e in (end, begin + 1))
        page.mouse.click(corner["x"] + x * corner["width"], corner["y"] + y * corner["height"])
        text = page.locator(".wk-what").inner_text()
        found[begin, end] = (text, shown(page)["west"])
    for (begin, end), (text, accuracy) in found.items():
        assert text.endswith(f"iterates {begin + 1} to {end}")
        row = board.windows.query("begin == @begin and end == @end").iloc[0]
        assert accuracy == pytest.approx(100 * row["west"], abs=0.051)


def test_pictures_have_words_and_fit_every_screen(opened, page_of, tmp_path):
    explorer.page(page_of, tmp_path / "page.html")
    page, _ = opened((tmp_path / "page.html").as_uri())
    images = page.locator("[role=img]").evaluate_all("all => all.map(i => i.getAttribute('aria-label'))")
    assert len(images) == 2 and all(len(words) > 40 for words in images) and "an oracle" in images[1]
    assert page.locator("svg:not([aria-hidden])").count() == 0
    sliders = page.locator("[role=slider]").evaluate_all(
        "all => all.map(s => [s.ariaLabel, s.ariaValueText, s.tabIndex])"
    )
    assert len(sliders) == 3 and all(label and value and tab == 0 for label, value, tab in sliders)
    for width in (1920, 1280, 700, 400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        clipped = page.locator(".wk-explorer :is(span, b, td, th)").evaluate_all(
            "all => all.filter(e => { const r = e.getBoundingClientRect(); return r.width && (r.left < 0 || r.right > innerWidth) }).length"
        )
        assert clipped == 0


def test_a_rendered_notebook_holds_the_explorer(opened, page_of, tmp_path):
    html = explorer.page(page_of)
    new = nbformat.v4
    output = new.new_output("display_data", data={"text/html": html})
    cell = new.new_code_cell("...", outputs=[output])
    nbformat.write(new.new_notebook(cells=[new.new_markdown_cell("# Why?"), cell]), tmp_path / "book.ipynb")
    rendered = report.render(tmp_path / "book.ipynb", tmp_path / "book.html")
    assert offline_problems(rendered) == []
    page, wrong = opened(rendered.as_uri(), color_scheme="dark")
    drag(page, 8, 4, 24)
    assert page.locator(".wk-what").inner_text() == "Your window: iterates 5 to 24"
    assert page.locator(".wk-explorer").bounding_box()["width"] > 900  # wider than the column of text
    colours = "[getComputedStyle(document.querySelector('.wk-explorer')).color, getComputedStyle(document.documentElement).backgroundColor]"
    dark = page.evaluate(colours)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(colours)
    shade = [[sum(map(int, re.findall(r"\d+", colour))) / 3 for colour in pair] for pair in (dark, light)]
    assert shade[0][0] > 200 > 60 > shade[0][1] and shade[1][0] < 60 < 200 < shade[1][1], (
        "as the reader has it, with its page"
    )
    assert wrong == []

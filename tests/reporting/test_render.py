"""A page shows outputs without code, asks the network for nothing, and can be read aloud."""

from xml.etree import ElementTree

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from wakd_kit.reporting import render as report

from ..offline import offline_problems

ALT = 'Loss falls from "2.3" to <0.4 in 10 steps'
PARAMETERS = {"seed": 3, "name": "<b>last</b>", "objectives": [{"name": "kd", "temperature": 5.0}]}


def line_figure() -> Figure:
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(np.arange(10), 2.3 * 0.82 ** np.arange(10), label="validation")
    axis.set(xlabel="step", ylabel="loss, nats per example")
    axis.legend(frameon=False)
    return figure


def field_figure() -> Figure:
    figure = Figure(figsize=(5, 4), layout="constrained")
    axis = figure.subplots()
    x, y = np.meshgrid(np.linspace(-2, 2, 60), np.linspace(-2, 2, 60))
    figure.colorbar(axis.pcolormesh(x, y, x**2 + 2 * y**2, cmap="cividis"), ax=axis)
    return figure


TABLE = pd.DataFrame(
    {
        "student": ["CE", "KD & <co>", "KD"],
        "target_acc": [51.92, -0.04, np.nan],
        "seeds": [5, 5, 12],
        "interval": ["[-3.1, +4.0]", "[-1.0, +1.0]", "–"],
        "note": ["0-5", None, "steps 30-60: -2"],
    }
)


@pytest.fixture
def shown(monkeypatch):
    """What show, show_table and so on display, as a list of HTML."""
    html = []
    monkeypatch.setattr(report, "display", lambda shown: html.append(shown.data))
    return html


@pytest.fixture
def page(shown, tmp_path):
    """An executed notebook as papermill leaves it, rendered."""
    report.show(line_figure(), ALT, caption="The loss of one run & its end")
    report.show(field_figure(), "A bowl", kind="field")
    report.show_table(TABLE, caption="Accuracy in %")
    report.show_text("One sentence.")
    new = nbformat.v4
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "BAR 100%"}
    outputs = [
        new.new_output("stream", name="stderr", text="epoch 3: 100%|####| WARNING"),
        new.new_output("stream", name="stdout", text="a printed line\n"),
        new.new_output("stream", name="stdout", text="  5%\r 10%\r"),
        new.new_output("display_data", data=widget),
        *(new.new_output("display_data", data={"text/html": html, "text/plain": "<HTML>"}) for html in shown),
    ]
    book = new.new_notebook(
        cells=[
            new.new_markdown_cell("# Does a *page* open?\n\nSome **bold** text, and [a link](https://example.org)."),
            new.new_code_cell("secret_code = 1", outputs=outputs),
            new.new_markdown_cell("## Lists\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        ]
    )
    book.metadata.papermill = {"parameters": PARAMETERS, "duration": 12.3}
    nbformat.write(book, tmp_path / "toy.ipynb")
    return report.render(tmp_path / "toy.ipynb", tmp_path / "pages" / "toy.html")


def test_a_page_shows_outputs_and_no_code(page):
    text = page.read_text(encoding="utf-8")
    for wanted in (
        "a printed line",
        "<strong>bold</strong>",
        "<p>One sentence.</p>",
        "The loss of one run &amp; its end",
    ):
        assert wanted in text
    for hidden in ("secret_code", "WARNING", "100%", " 10%", "BAR", "<script", "&lt;HTML", "¶"):
        assert hidden not in text[text.index("<main") :]
    assert text.startswith("<!doctype html>") or text.startswith("<!DOCTYPE html>")
    assert '<html lang="en">' in text and 'href="#content"' in text
    assert "<title>Does a *page* open?</title>" in text
    assert [p.name for p in page.parent.iterdir()] == ["toy.html"]


def test_a_page_says_what_it_was_made_from(page):
    text = page.read_text(encoding="utf-8")
    assert "from toy.ipynb, which ran for 12 s" in text
    for name, value in (("seed", "3"), ("name", '"&lt;b&gt;last&lt;/b&gt;"'), ("objectives", '"temperature": 5.0')):
        assert f'<th scope="row">{name}</th>' in text and value in text


def test_a_page_is_complete_in_itself(page):
    assert offline_problems(page) == []
    assert page.stat().st_size < 200_000


def test_a_title_of_its_own_is_the_heading_and_the_question_stands_below_it(page, tmp_path):
    toy, asked = page.parent.parent / "toy.ipynb", "<p>Does a <em>page</em> open?</p>"
    assert "<h1>Does a <em>page</em> open?</h1>" in page.read_text()
    text = report.render(toy, tmp_path / "b.html", title="A study & more", above="Above <it>").read_text()
    assert text.count("<h1>") == 1 and "<h1>A study &amp; more</h1>" in text and asked in text
    assert "<title>A study &amp; more · Above &lt;it&gt;</title>" in text
    assert text.index('<p class="above">Above &lt;it&gt;</p>') < text.index("<h1>") < text.index(asked)
    text = report.render(toy, tmp_path / "b.html", title="A study & more", question=False).read_text()
    assert asked not in text and "Some <strong>bold</strong>" in text and '<p class="above">' not in text


def test_a_box_stands_before_the_first_section(page, tmp_path):
    text = report.render(
        page.parent.parent / "toy.ipynb", tmp_path / "b.html", box='<div class="box">x</div>'
    ).read_text()
    assert text.index("a printed line") < text.index('<div class="box">x</div>') < text.index("Lists")


def test_a_long_page_lists_its_sections_and_a_short_one_does_not(tmp_path):
    for sections, listed in ((report.FEW_SECTIONS, False), (report.FEW_SECTIONS + 1, True)):
        parts = [f"<h2>Part &amp; {i}</h2><p>text</p>" for i in range(sections)]
        text = report.write_page(tmp_path / "long.html", *parts, title="Long").read_text()
        assert ('<nav class="contents" aria-label="On this page">' in text) == listed
        for i in range(sections * listed):
            assert (
                f'<a href="#s{i + 1}">Part &amp; {i}</a>' in text and f'<h2 id="s{i + 1}">Part &amp; {i}</h2>' in text
            )


def test_a_list_of_sections_has_no_link_in_a_link(tmp_path):
    parts = [f'<h2>Part <a href="x.html">{i}</a></h2>' for i in range(report.FEW_SECTIONS + 1)]
    text = report.write_page(tmp_path / "long.html", *parts, title="Long").read_text()
    assert '<li><a href="#s1">Part 0</a></li>' in text and '<h2 id="s1">Part <a href="x.html">0</a></h2>' in text


def test_a_title_replaces_the_heading_and_is_escaped(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "bare.ipynb")
    page = report.render(tmp_path / "bare.ipynb", tmp_path / "bare.html", title="a < b")
    assert "<title>a &lt; b</title>" in page.read_text(encoding="utf-8")
    assert "<details>" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind, size", [("lines", 640), ("field", 500)])
def test_figures_carry_alt_text_and_their_size(shown, kind, size):
    figure = line_figure() if kind == "lines" else field_figure()
    report.show(figure, ALT, kind=kind)
    image = ElementTree.fromstring(shown[0].replace('px">', 'px"/>')).find("img")
    assert image.get("alt") == ALT
    assert image.get("src").startswith("data:image/svg+xml" if kind == "lines" else "data:image/png")
    assert float(image.get("style").removeprefix("width:").removesuffix("px")) == pytest.approx(size, rel=0.04)


def test_the_same_figure_is_the_same_bytes_and_can_be_saved(shown, tmp_path):
    for _ in range(2):
        report.show(line_figure(), ALT, save_to=tmp_path / "loss.pdf")
    assert shown[0] == shown[1]
    assert (tmp_path / "loss.pdf").read_bytes().startswith(b"%PDF")
    report.show(line_figure(), ALT, save_to=tmp_path / "figures" / "loss")
    report.show(field_figure(), ALT, kind="field", save_to=tmp_path / "figures" / "bowl")
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    assert names == {"loss.svg", "loss.pdf", "bowl.png", "bowl.pdf"}


def test_a_figure_without_alt_text_is_refused(shown):
    with pytest.raises(ValueError, match="Every figure needs alt text"):
        report.show(line_figure(), "  ")
    with pytest.raises(ValueError, match="kind is one of lines, field; got 'png'"):
        report.show(line_figure(), ALT, kind="png")
    assert not shown


def test_tables_have_scopes_and_aligned_numbers_and_are_escaped():
    root = ElementTree.fromstring(report.table_html(TABLE, caption="50 < 60 %"))
    assert root.find(".//caption").text == "50 < 60 %"
    head = root.findall(".//thead//th")
    assert [h.text for h in head] == ["student", "target acc", "seeds", "interval", "note"]
    assert {h.get("scope") for h in head} == {"col"}
    assert [h.get("class") for h in head] == [None, "number", "number", "number", None]
    rows = [[cell.text for cell in row] for row in root.findall(".//tbody/tr")]
    assert rows == [
        ["CE", "51.9", "5", "[−3.1, +4.0]", "0-5"],
        ["KD & <co>", "0.0", "5", "[−1.0, +1.0]", "–"],
        ["KD", "–", "12", "–", "steps 30-60: −2"],
    ]
    assert {row[0].get("scope") for row in root.findall(".//tbody/tr")} == {"row"}


def test_a_column_of_dashes_alone_aligns_like_the_numbers_beside_it():
    root = ElementTree.fromstring(report.table_html(TABLE.assign(target_acc=np.nan)))
    assert [h.get("class") for h in root.findall(".//thead//th")][1] == "number"
    empty = ElementTree.fromstring(report.table_html(TABLE.iloc[:0]))
    assert {h.get("class") for h in empty.findall(".//thead//th")} == {None}


def test_a_column_of_p_values_aligns_though_one_is_too_small_to_print():
    table = report.table_html(pd.DataFrame({"what": ["a", "b"], "p": ["<0.001", "0.417"], "said": ["a < b", "x"]}))
    assert '<th scope="col" class="number">p</th>' in table and '<td class="number">&lt;0.001</td>' in table
    assert '<th scope="col">said</th>' in table


def test_a_named_index_is_a_column_and_an_empty_table_says_so():
    indexed = report.table_html(TABLE.set_index("student")[["seeds"]])
    assert '<th scope="row">CE</th><td class="number">5</td>' in indexed
    assert '<td colspan="5">none</td>' in report.table_html(TABLE.iloc[:0])


def test_a_table_that_few_ask_for_is_folded_under_its_title():
    root = ElementTree.fromstring(report.table_html(TABLE, caption="50 < 60 %", under="Worst & best"))
    assert (root.tag, root.get("open"), root.findtext("summary")) == ("details", None, "Worst & best")
    assert root.findtext(".//caption") == "50 < 60 %" and "details" not in report.table_html(TABLE)


def test_a_rule_stands_above_each_group_of_rows_of_one_name():
    rows = ElementTree.fromstring(report.table_html(TABLE.assign(student=["CE", "KD", "KD"]))).findall(".//tbody/tr")
    assert [row.get("class") for row in rows] == ["first", "first", None]
    assert "first" not in report.table_html(TABLE)  # nothing to group


def test_links_are_listed_and_escaped():
    html = report.links_html(
        {"a & b": {"one": 'notebooks/"a" ?.html'}, "ink, seed 0": {"KD": "kd.html", "CE": "ce.html"}, "none": {}}
    )
    assert '<li>a &amp; b: <a href="notebooks/%22a%22%20%3F.html" aria-label="one, a &amp; b">one</a></li>' in html
    line = html[html.index("<li>ink") :]
    assert line.startswith('<li>ink, seed 0: <a href="kd.html" aria-label="KD, ink, seed 0">KD</a>, <a href="ce.html"')
    assert "none" not in html, "a group without links is left out"


def test_a_page_begins_with_where_to_go_and_ends_with_its_files(page, tmp_path):
    nav, links = {"All studies": "../index.html", "a b": "a b.html"}, {"tables": {"summary": "summary.csv"}}
    text = report.render(page.parent.parent / "toy.ipynb", tmp_path / "b.html", nav=nav, links=links).read_text()
    head, body = text.split('<main id="content">')
    assert '<nav aria-label="Pages">' in head and '<a href="a%20b.html">a b</a>' in head
    assert (
        body.index("Lists") < body.index('<h2 id="files">') < body.index('href="summary.csv"') < body.index("</main>")
    )
    plain = page.read_text()
    assert "<nav" not in plain and 'id="files"' not in plain


def test_a_page_can_be_written_without_a_notebook(tmp_path):
    parts = [report.text_html("a < b"), report.table_html(TABLE), report.figure_html(line_figure(), ALT)]
    page = report.write_page(tmp_path / "new" / "page.html", *parts, title="Studies & more", nav={"up": "index.html"})
    text = page.read_text(encoding="utf-8")
    assert offline_problems(page) == [] and parts[0] in text
    assert text.count("<figure>") == text.count('<div class="table">') == 1 and "KD &amp; &lt;co&gt;" in text
    assert (
        text.count("<h1>") == 1
        and "<h1>Studies &amp; more</h1>" in text
        and "<title>Studies &amp; more</title>" in text
    )
    assert "from " not in text[text.index("<footer>") :] and "<details>" not in text
    assert [p.name for p in page.parent.iterdir()] == ["page.html"]


def test_sentences_are_a_paragraph_or_a_list_and_empty_ones_nothing(shown):
    report.show_text("")
    report.show_text("", "a < b by -3, 77.2% of 90 %, a%20b")
    report.show_text("one", "two")
    assert shown == [
        "<p>a &lt; b by −3, 77.2\N{NO-BREAK SPACE}% of 90\N{NO-BREAK SPACE}%, a%20b</p>",
        "<ul><li>one</li><li>two</li></ul>",
    ]


@pytest.mark.parametrize(
    "html, problem",
    [
        ('<img src="https://x.org/a.png" alt="a">', "<img> asks for https://x.org/a.png"),
        ('<img src="figure.png" alt="a">', "<img> asks for figure.png"),
        ('<img src="data:image/png;base64,AA">', "an image has no alt text"),
        ('<img alt="No description has been provided for this image">', "an image has no alt text"),
        ('<link rel="stylesheet" href="//cdn.org/a.css">', "<link> asks for //cdn.org/a.css"),
        ('<script src="https://x.org/a.js"></script>', "<script> asks for https://x.org/a.js"),
        ("<script>fetch('https://x.org/b')</script>", "a script mentions https://x.org/b"),
        ("<style>@import 'https://x.org/a.css';</style>", "a style asks for https://x.org/a.css"),
        ('<p style="background: url(https://x.org/a.png)">', "a style asks for https://x.org/a.png"),
    ],
)
def test_what_a_page_would_fetch_is_named(tmp_path, html, problem):
    (tmp_path / "page.html").write_text(f"<a href='https://x.org'>fine: url(https://x.org)</a>{html}")
    assert offline_problems(tmp_path / "page.html") == [problem]


@pytest.mark.browser
def test_a_browser_opens_the_page_without_network_or_errors(page, look):
    seen = look(page)
    assert not seen["asked"] and not seen["errors"]
    assert [alt for alt, _ in seen["images"]] == [ALT, "A bowl"] and all(pixels > 0 for _, pixels in seen["images"])
    assert seen["widths"] == [1920, 1280, 400]  # nothing sticks out sideways

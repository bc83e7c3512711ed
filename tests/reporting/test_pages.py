"""The pages around a study: what they link to exists, what they say is what was recorded, and paper cuts no figure."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from wakd_kit.reporting import pages
from wakd_kit.reporting.execute import recorded_parameters
from wakd_kit.reporting.pages import NoPdf
from wakd_kit.results.made import _optimiser
from wakd_kit.study.run import NOTEBOOKS

from ..notebooks import execute
from ..offline import offline_problems

A4 = (166, 261)  # mm inside the margins of page.css


def links(page: Path) -> list[Path]:
    return [(page.parent / unquote(to)).resolve() for to in re.findall(r'<a [^>]*?href="([^"#]+)"', page.read_text())]


def program(directory: Path, name: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


@pytest.fixture
def path(monkeypatch, tmp_path):
    """A PATH of its own for programs that stand in for a browser."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin" if shutil.which("sh", path="/bin") else "")
    monkeypatch.setattr(pages, "BROWSERS", ("fake-browser",))
    return tmp_path / "bin"


# ---- of a study


def test_every_link_of_every_page_leads_somewhere(finished):
    report_folder = finished / "report"
    every = sorted(report_folder.rglob("*.html"))
    assert {"north.html", "east.html"} == {p.name for p in (report_folder / "targets").iterdir()}
    for page in every:
        for to in links(page):
            assert to.is_file(), f"{page.name} links to {to}"
        assert offline_problems(page) == []


def test_the_report_links_to_all_that_belongs_to_it(finished):
    out = finished / "report"
    to = set(links(out / "index.html"))
    pdf = {out / "index.pdf"} if (out / "index.pdf").exists() else set()
    notebooks = {p.resolve() for p in (out / "notebooks").glob("*.html")}
    tables = {*out.glob("*.csv"), *out.glob("*.tex"), *out.glob("figures/*")}
    explorers = {out / "explorer" / f"{d}-s0-KD.html" for d in ("north", "east")}
    assert explorers == {*out.glob("explorer/*")}
    assert to == {*notebooks, *pdf, *tables, *explorers, *out.glob("targets/*.html"), out / "tiny.yaml"}
    figures = {"differences", "domains", "ranks", "picks"} | {f"window_map-{d}-s0-KD" for d in ("north", "east")}
    assert {f.stem for f in out.glob("figures/*.pdf")} == figures == {f.stem for f in out.glob("figures/*.[sp][vn]g")}
    names = {p.name for p in out.iterdir()}
    assert {"summary.csv", "gains.csv", "ranks.csv", "summary.tex", "gains.tex"} <= names


def test_what_accuracy_does_not_say_is_a_notebook_of_its_own(finished, tmp_path):
    given = {"runs": str(finished / "runs"), "tables": str(tmp_path / "tables")}
    executed = execute(NOTEBOOKS / "08_beyond_accuracy.ipynb", tmp_path / "beyond.ipynb", given)
    said = pages.report.render(executed, tmp_path / "beyond.html").read_text()
    assert "Points of calibration error that WAKD takes away on unseen domains, compared with last:" in said
    assert "KD decides as its teacher on " in said and "with another seed" not in said[said.index("Answer</h2>") :]
    made = {file.relative_to(tmp_path / "tables").as_posix() for file in (tmp_path / "tables").rglob("*.*")}
    figures = {f"figures/reliability.{end}" for end in ("svg", "pdf")}
    assert made == {"calibration.csv", "calibration.tex", "agreement.csv", "agreement.tex", *figures}, (
        "one seed has no churn"
    )


def test_the_page_of_a_target_has_the_scores_of_every_seed_there(finished):
    page = (finished / "report" / "targets" / "north.html").read_text()
    scores = pd.read_csv(finished / "report" / "scores.csv")
    there = scores[(scores["target"] == "north") & (scores["role"] == "target")].dropna(subset="accuracy")
    table = page[page.index("<h2>Every seed") : page.index("<h2>Paired")]
    for row in there.itertuples():
        assert f'<td>{row.strategy}</td><td class="number">{100 * row.accuracy:.1f}</td>' in table
    assert "<title>north left out · A tiny study</title>" in page and "<h1>north left out</h1>" in page
    assert "Guessing scores 50.0 %." in page and page.count("Nothing was chosen on the target") == 1
    differences = page[page.index("<h2>Paired") : page.index("<h2>What each")]
    assert (
        "fewer than 3 seeds give no interval" in differences
        and 'scope="col">p' not in differences
        and "better" in differences
    )
    assert "east" not in page[page.index("<main") :].replace("least", ""), "and nothing of another target"
    to = links(finished / "report" / "targets" / "north.html")
    assert (finished / "report" / "index.html").resolve() in to
    assert {p.stem for p in to if p.parent.name == "notebooks"} == {
        "north-s0-teacher",
        "north-s0-KD",
        "landscape-north-s0-KD",
    }


def test_one_page_lists_all_studies_the_newest_first(finished, tmp_path):
    for name, rendered in (("first", "2026-01-01 10:00 UTC"), ("second one", "2026-01-02 10:00 UTC")):
        shutil.copytree(finished / "report", tmp_path / name)
        record = json.loads((tmp_path / name / "study.json").read_text())
        text = json.dumps({**record, "rendered": rendered, "title": f"Study <{name}>"})
        (tmp_path / name / "study.json").write_text(text)
    (tmp_path / "no study").mkdir()
    page = pages.overview(tmp_path)
    text = page.read_text()
    assert page == tmp_path / "index.html" and offline_problems(page) == []
    assert text.index("Study &lt;second one&gt;") < text.index("Study &lt;first&gt;")
    for said in (
        "4 recorded runs: teacher (resnet10t), KD (resnet10t)",
        "Strategies: last, WAKD, SWAD.",
        "1 landscape.",
    ):
        assert said in text
    assert "Rendered 2026-01-02 10:00 UTC." in text and "nothing to learn from" in text
    to = links(page)
    assert all(t.is_file() for t in to)
    assert {tmp_path / name / "index.html" for name in ("first", "second one")} <= set(to)


def test_a_study_of_another_version_is_named_and_stops_no_other(finished, tmp_path):
    shutil.copytree(finished / "report", tmp_path / "ours")
    for name, text in (("empty", ""), ("older", '{"title": "x"}'), ("list", "[]"), ("cut", '{"title"')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text(text)
    page = pages.overview(tmp_path)
    assert "A tiny study" in page.read_text()
    for name in ("empty", "older", "list", "cut"):
        assert f"{name}/study.json is not of this version of wakd_kit" in page.read_text()


def test_the_report_says_how_it_was_made(finished):
    page = (finished / "report" / "index.html").read_text()
    box = page[page.index('<div class="box">') :].split("</div>")[0]
    assert page.index("<h1>A tiny study</h1>") < page.index('<div class="box">') < page.index("The domains</h2>")
    for what, said in {
        "benchmark": "folder images at 16 px, 2 classes; 20 % of each source domain held out",
        "left out": "east, north, each in turn",
        "seeds": "0",
        "models": "resnet10t",
        "objectives": "teacher: 1 ce; KD: 1 kd (temperature 5.0)",
        "command": "wakd report tiny.yaml",
        "study file": '<a href="tiny.yaml">tiny.yaml</a>',
    }.items():
        assert f"<dt>{what}</dt><dd>{said}</dd>" in box
    assert "6 steps of 8 images, adam, constant rate 0.01" in box
    for what in ("commit ", "torch ", "cores", "Python "):
        assert what in box
    assert (finished / "report" / "tiny.yaml").read_text() == (finished / "tiny.yaml").read_text()


def test_a_page_of_a_notebook_has_its_own_title_and_ways_on(finished):
    notebooks = finished / "report" / "notebooks"
    pages_of = {page: page.read_text() for page in notebooks.glob("*.html")}
    titles = [re.search("<title>(.*?)</title>", text)[1] for text in pages_of.values()]
    assert len({*titles}) == len(titles) and "KD, north left out, seed 0 · A tiny study" in titles
    for page in pages_of:
        assert (finished / "report" / "index.html").resolve() in links(page)
    to = links(notebooks / "north-s0-KD.html")
    assert (finished / "report" / "explorer" / "north-s0-KD.html").resolve() in to
    assert {"north.html", "north-s0-teacher.html", "landscape-north-s0-KD.html"} <= {page.name for page in to}


def test_explorer_pages_are_linked_where_they_are(publish, path):
    out, _ = publish(listed=False)
    assert "by hand" not in (out / "index.html").read_text()
    explorer = out / "explorer" / "north-s0-KD.html"
    explorer.parent.mkdir()
    explorer.write_text("<p>drag")
    publish(listed=False)
    assert explorer in links(out / "index.html") and explorer in links(out / "targets" / "north.html")
    assert explorer not in links(out / "targets" / "east.html")


def test_what_a_notebook_left_that_is_no_more_is_not_linked(publish, path):
    out, _ = publish(listed=False)
    (out / "figures").mkdir()
    names = ("against.csv", "against.tex", "figures/against.svg", "figures/picks.svg")
    for name in names:
        (out / name).write_text("0")
    assert {out / name for name in names} <= {*links(publish(listed=False)[0] / "index.html")}
    publish(listed=False, left=names[:3])
    assert {out / name for name in names} & {*links(out / "index.html")} == {out / names[3]}
    assert "against" not in json.loads((out / "study.json").read_text())["tables"]


def test_what_is_missing_is_said_once_per_reason():
    said = pages.gaps({"a-s0-KD": "Diverged <nan>", "b-s0-KD": "Diverged <nan>", "a-s0-CE": "waits"})
    assert "Not in this report: 3 notebooks." in said and "a-s0-KD, b-s0-KD: Diverged &lt;nan&gt;" in said
    assert pages.gaps({}) == ""


def test_pages_hold_no_path_of_this_machine(finished):
    for page in (finished / "report").rglob("*.html"):
        assert str(finished) not in page.read_text(), page.name
    assert "&lt;runs&gt;/north-s0/KD" in (finished / "report" / "notebooks" / "north-s0-KD.html").read_text()


@pytest.fixture
def publish(finished, tmp_path):
    """Publishes the comparison of the tiny study again, in a folder for several; returns its folder and what it says."""
    out = tmp_path / "reports" / "tiny"
    for kept in ("notebooks", "*.csv"):
        for file in (finished / "report").glob(kept):
            copy = shutil.copytree if file.is_dir() else shutil.copy
            out.mkdir(parents=True, exist_ok=True)
            copy(file, out / file.name)
    notebooks = {("north", 0): {"KD": "notebooks/north-s0-KD.html"}, ("east", 0): {"KD": "notebooks/east-s0-KD.html"}}

    def published(listed: bool, **given) -> tuple[Path, str]:
        executed = out / "notebooks" / "03_compare.ipynb"
        given.setdefault("given", recorded_parameters(executed))
        return out, pages.publish(executed, out, title="Again", notebooks=notebooks, listed=listed, **given)

    return published


def test_a_page_reads_the_recordings_of_now_where_a_study_was_copied(publish, finished, tmp_path, path):
    moved = tmp_path / "moved"
    shutil.copytree(finished / "runs", moved)
    for scores in moved.glob("*/KD/scores.csv"):
        scores.write_text(re.sub(r"^(WAKD,[^,]*,target,)[^,]+", r"\g<1>0.123", scores.read_text(), flags=re.M))
    ran = recorded_parameters(finished / "report" / "notebooks" / "03_compare.ipynb")
    for runs, there in ((finished / "runs", False), (moved, True)):
        out, _ = publish(listed=False, given=ran | {"runs": str(runs)})
        assert ("12.3" in (out / "targets" / "north.html").read_text()) == there


def test_a_study_links_to_the_page_over_all_studies_where_there_is_one(publish, path):
    out, said = publish(listed=True)
    assert said.startswith("no PDF: no Chromium on this machine.")
    assert out.parent / "index.html" in links(out / "index.html")
    assert out / "index.html" in links(pages.overview(out.parent))
    publish(listed=False)
    assert out.parent / "index.html" not in links(out / "index.html")


def test_a_pdf_is_linked_once_it_is_there(publish, path):
    print_it = 'for a; do case "$a" in --print-to-pdf=*) echo %PDF > "${a#*=}";; file:*) cp "${a#file://}" seen.html;; esac; done'
    program(path, "fake-browser", f"cd {path} && {print_it}")
    out, said = publish(listed=False)
    assert said == f"in print: {out / 'index.pdf'}"
    assert out / "index.pdf" in links(out / "index.html")
    assert json.loads((out / "study.json").read_text())["pages"]["PDF"] == "index.pdf"
    assert "index.pdf" not in (path / "seen.html").read_text()


# ---- in print


def test_without_a_browser_it_says_how_to_print(path, finished):
    page = finished / "report" / "targets" / "north.html"
    with pytest.raises(
        NoPdf, match=r"no PDF: no Chromium on this machine\. Open .*north\.html in a browser and print it\."
    ):
        pages.pdf(page)


def test_a_browser_that_prints_nothing_says_why_and_leaves_no_older_pdf(path, tmp_path):
    page = tmp_path / "a page.html"
    page.write_text("<p>one")
    program(path, "fake-browser", 'for a; do case "$a" in --print-to-pdf=*) echo %PDF > "${a#*=}";; esac; done')
    assert pages.pdf(page).read_text() == "%PDF\n" and pages.pdf(page).name == "a page.pdf"
    program(path, "fake-browser", "echo starting >&2; echo no display >&2; exit 3")
    with pytest.raises(NoPdf, match=r"printed nothing \(no display\)"):
        pages.pdf(page)
    assert not page.with_suffix(".pdf").exists()


@pytest.mark.browser
def test_a_browser_opens_pages_that_no_notebook_made_offline_and_nothing_sticks_out(finished, look, tmp_path):
    shutil.copytree(finished / "report", tmp_path / "tiny")
    for page, images in ((pages.overview(tmp_path), 0), (tmp_path / "tiny" / "targets" / "north.html", 1)):
        seen = look(page)
        assert not seen["asked"] and not seen["errors"] and len(seen["images"]) == images
        assert all(alt and pixels for alt, pixels in seen["images"])
        assert seen["widths"] == [1920, 1280, 400]


@pytest.mark.browser
def test_the_keyboard_reaches_the_content_and_every_link(finished, chromium):
    view = chromium.new_page()
    view.goto((finished / "report" / "index.html").as_uri())
    reached = []
    for _ in range(1 + view.locator("a").count()):
        view.keyboard.press("Tab")
        reached.append(view.evaluate("[document.activeElement.tagName, document.activeElement.getAttribute('href')]"))
    assert reached[0] == ["A", "#content"], "first of all, a way past the navigation"
    assert [to for tag, to in reached if tag == "A"] == view.eval_on_selector_all(
        "a", "all => all.map(a => a.getAttribute('href'))"
    )
    outline = view.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "and it shows where one is"
    view.close()


@pytest.mark.browser
def test_every_figure_and_row_stays_on_one_page_of_paper(finished, chromium):
    view = chromium.new_page(viewport={"width": round(A4[0] * 96 / 25.4), "height": round(A4[1] * 96 / 25.4)})
    view.emulate_media(media="print")
    for page in sorted((finished / "report").rglob("*.html")):
        if page.parent.name == "explorer":  # nothing to print: it is moved by hand
            continue
        view.goto(page.as_uri())
        found = view.eval_on_selector_all(
            "figure, tr", "all => all.map(e => [getComputedStyle(e).breakInside, e.getBoundingClientRect().height])"
        )
        assert found and all(rule == "avoid" and height < A4[1] * 96 / 25.4 for rule, height in found), page.name
        wide = view.evaluate("document.documentElement.scrollWidth")
        assert wide <= round(A4[0] * 96 / 25.4), f"{page.name} sticks out of the paper"
        assert (
            view.evaluate("getComputedStyle(document.querySelector('nav') ?? document.querySelector('.skip')).display")
            == "none"
        )
    view.close()


@pytest.mark.browser
def test_the_pdf_has_the_text_of_the_report_on_a4(finished, chromium, tmp_path):
    if not shutil.which("pdftotext"):
        pytest.skip("pdftotext (poppler) is not installed")
    printed = finished / "report" / "index.pdf"
    assert printed.is_file()
    about = subprocess.run(
        ["pdfinfo", printed], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
    ).stdout
    assert "(A4)" in about and 2 <= int(re.search(r"Pages: +(\d+)", about).group(1)) <= 12
    text = subprocess.run(["pdftotext", printed, "-"], capture_output=True, text=True).stdout
    for said in ("A tiny study", "Accuracy on unseen domains", "Mean ranks", "Every window there is"):
        assert said in text
    for folded in ("The worst class", "Worst-group accuracy in %"):
        assert folded in text, "what is folded on the screen is there on paper"
    assert "Files and pages" not in text, "links lead nowhere on paper"


@pytest.mark.parametrize(
    "said, words",
    [
        ("adam", "adam"),
        ({"name": "adam", "rho": 0.05}, "adam with SAM (rho 0.05)"),
        ({"name": "sgd", "pull_back": 0.5, "every": 5}, "sgd pulled back by 0.5 every 5 steps"),
        (
            {"name": "sgd", "pull_back": 0.5, "every": 5, "rho": 1},
            "sgd with SAM (rho 1) pulled back by 0.5 every 5 steps",
        ),
    ],
)
def test_every_form_of_an_optimiser_has_words(said, words):
    assert _optimiser(said) == words

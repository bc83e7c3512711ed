"""The pages of a study that no notebook makes: one per unseen domain, the PDF, and one page over all studies.

reports/index.html                 all studies that were rendered, newest first
reports/<study>/index.html         03_compare, rendered, with links to all that belongs to the study
reports/<study>/index.pdf          the same in print, where there is a Chromium
reports/<study>/targets/*.html     one per unseen domain
reports/<study>/explorer/*.html    <target>-s<seed>-<student>: averages of one run by hand, of runs with a window map
reports/<study>/study.json         what the page over all studies says of this one
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from ..files import json_or_nothing, write_text
from ..plots import many_runs as study_figures
from ..results import differences as comparison
from ..results.collect import Recorded, collect
from ..results.made import made
from ..results.merged import answer
from ..statistics import FEWEST
from . import render as report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

RECORD = {"title": str, "about": str, "runs": str, "holds": str, "rendered": str, "pages": dict, "tables": dict}

Notebooks = Mapping[tuple[str, int], Mapping[str, str]]


class NoPdf(RuntimeError):
    """A page that could not be printed; the message says why, and what to do instead."""


def publish(
    executed: Path,
    out: Path,
    *,
    title: str,
    notebooks: Notebooks,
    also: Mapping[str, str] = MappingProxyType({}),
    missing: Mapping[str, str] = MappingProxyType({}),
    listed: bool = False,
    given: Mapping[str, object],
    parameters: Mapping[str, object] | None = None,
    ran: Mapping[str, str] = MappingProxyType({}),
    left: Collection[str] = (),
    file: Path | None = None,
) -> str:
    """Write index.html, its PDF, a page per unseen domain and study.json; returns a sentence on the PDF.

    executed   the 03_compare that was executed for the study
    given      its parameters as they are now: the folder of the study may have been moved, or copied, since
    notebooks  {(target, seed): {name: address below out}} of the pages of its other notebooks
    also       {name: address below out} of those over all runs
    missing    {name: why} of notebooks that failed, or waited for one that did; the page says so before anything else
    parameters to show, default those that the notebook ran with
    listed     the folder above ``out`` has, or will have, the page over all studies: pages link to it
    ran        {what: words} on how the study was run, which recordings do not know: its command, its hours
    left       addresses below ``out`` of tables and figures that a notebook left which is no more, or is missing: not linked to
    file       the study's file, of which a copy is kept beside the page
    """
    study = collect(given["runs"], only=given["only"], strategies=given["strategies"])
    targets = {target: f"targets/{target}.html" for target in study.targets}
    explorers = _explorers(study, out)
    gains = comparison.paired(study.scores, study.contrasts(given["baseline"], given["reference"]))
    if file is not None and file.is_file():
        write_text(out / file.name, file.read_text(encoding="utf-8"))
        ran = {**ran, "study file": file.name}
    above = {"All studies": "../index.html"} if listed else {}

    def there(kind: str) -> list[Path]:
        return [f for f in sorted(out.glob(kind)) if f.relative_to(out).as_posix() not in left]

    links = {
        "unseen domains": targets,
        "explorer": {name: address for by_run in explorers.values() for name, address in by_run.items()},
        "the study": {file.name: file.name} if "study file" in ran else {},
        "tables as csv": {file.stem: file.name for file in there("*.csv")},
        "tables as LaTeX (booktabs)": {file.stem: file.name for file in there("*.tex")},
        **({"over all runs": also} if also else {}),
        "figures": {f.name: f"figures/{f.name}" for f in there("figures/*") if f.suffix in (".svg", ".png", ".pdf")},
        **{f"{target}, seed {seed}": pages for (target, seed), pages in notebooks.items()},
    }
    shown = {"title": title, "question": False, "links": links, "notice": gaps(missing, out), "parameters": parameters}
    shown["box"] = recipe_html({**made(study), **ran}, links["explorer"], files={"study file"})
    index = report.render(executed, out / "index.html", nav=above | targets, **shown)
    try:
        printed = pdf(index)
    except NoPdf as problem:
        files, said = {}, str(problem)
    else:
        files, said = {"PDF": printed.name}, f"in print: {printed}"
        report.render(executed, index, nav=above | files | targets, **shown)
    for target, address in targets.items():
        others = {f"← {title}": "../index.html"} | beside({other: f"{other}.html" for other in study.targets}, target)
        own = {f"seed {s}": {n: f"../{a}" for n, a in p.items()} for (t, s), p in notebooks.items() if t == target}
        own |= {"explorer": {n: f"../{a}" for (t, _), p in explorers.items() if t == target for n, a in p.items()}}
        target_page(study, target, out / address, title=title, given=given, nav=others, links=own)
    record = {
        "title": title,
        "about": given["about"],
        "runs": study.about(),
        "answer": answer(gains, given["answer"], given["baseline"], out),
        "holds": holds(study, notebooks) + (f" {len(missing)} notebooks are missing." if missing else ""),
        "rendered": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "pages": {"report": "index.html", **files, **targets},
        "tables": links["tables as csv"],
    }
    write_text(out / "study.json", json.dumps(record, ensure_ascii=False, indent=1))
    return said


def _explorers(study: Recorded, out: Path) -> dict[tuple[str, int], dict[str, str]]:
    """{(target, seed): {name: address below ``out``}} of the explorer's pages that are there."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for run in study.runs:
        target, seed = (run.settings["split"][name] for name in ("target", "seed"))
        address = f"explorer/{study.called(run)}.html"
        if (out / address).is_file():
            found.setdefault((target, seed), {})[f"{run.name}, {target}, seed {seed}"] = address
    return found


def recipe_html(
    made: Mapping[str, str], explorers: Mapping[str, str] = MappingProxyType({}), *, files: Collection[str] = ()
) -> str:
    """A box: how runs were made, and where averages can be tried by hand. What is in ``files`` links to the file it names."""
    by_hand = ", ".join(f'<a href="{escape(quote(to))}">{escape(name)}</a>' for name, to in explorers.items())
    first = f"<p>Move the window by hand: {by_hand}.</p>" if by_hand else ""
    words = {
        what: f'<a href="{escape(quote(said))}">{escape(said)}</a>' if what in files else escape(said)
        for what, said in made.items()
    }
    rows = "".join(f"<dt>{escape(what)}</dt><dd>{said}</dd>" for what, said in words.items() if said)
    return f'<div class="box">{first}<h2>How this was made</h2><dl>{rows}</dl></div>'


def gaps(missing: Mapping[str, str], out: Path | None = None) -> str:
    """What a page does not show, and why, as HTML: those with the same reason in a line; empty when nothing is missing.

    out  the page's folder: names link to what is there of them
    """
    if not missing:
        return ""
    why: dict[str, list[str]] = {}
    for name, said in missing.items():
        why.setdefault(said, []).append(name)

    def named(name: str) -> str:
        address = f"notebooks/{name}.html"
        there = out is not None and (out / address).is_file()
        return f'<a href="{escape(quote(address))}">{escape(name)}</a>' if there else escape(name)

    lines = [f"<li>{', '.join(map(named, names))}: {escape(said)}</li>" for said, names in why.items()]
    total = f"Not in this report: {len(missing)} notebook{'s' * (len(missing) > 1)}."
    return f"{report.text_html(total)}<ul>{''.join(lines)}</ul>"


def beside(pages: Mapping[str, str], name: str) -> dict[str, str]:
    """Links from one of some pages, {name: address}, to the one before it and the one after."""
    names = list(pages)
    at = names.index(name)
    found = {f"previous: {names[at - 1]}": pages[names[at - 1]]} if at else {}
    return found | ({f"next: {names[at + 1]}": pages[names[at + 1]]} if at + 1 < len(names) else {})


def holds(study: Recorded, notebooks: Notebooks) -> str:
    """One sentence: which strategies were compared, and what was drawn of how many runs."""
    strategies = study.scores.loc[~study.scores["deployed"], "strategy"].unique()
    landscapes = sum(name.startswith("landscape") for pages in notebooks.values() for name in pages)
    drawn = {"window map": len(study.mapped()), "landscape": landscapes}
    return f"Strategies: {', '.join(strategies)}." + "".join(
        f" {n} {what}{'s' * (n > 1)}." for what, n in drawn.items() if n
    )


def target_page(
    study: Recorded, target: str, page: Path, *, title: str, given: Mapping, nav: Mapping, links: Mapping
) -> Path:
    """Write what a study shows on one unseen domain: every seed, differences paired by seed, windows, its notebooks."""
    of_target = [run for run in study.runs if run.settings["split"]["target"] == target]
    part = replace(study, runs=of_target, missing=())
    gains = comparison.paired(part.scores, part.contrasts(given["baseline"], given["reference"]))
    drawn, alt = study_figures.picks(part.picks(), steps=part.steps)
    seeds = f"{len(part.seeds)} seed{'s' * (len(part.seeds) > 1)}"
    parts = [
        report.text_html(part.about()),
        report.text_html(part.selection()),
        report.text_html(
            "One domain is one data set: what holds on it may not hold on the next. "
            f"All {len(study.targets)} are judged together in the report."
        ),
        "<h2>Every seed</h2>",
        report.table_html(
            comparison.by_seed(part.scores),
            caption=f"Accuracy in % on {target}, the domain left out; mean and sd over {seeds}. ECE: expected calibration "
            f"error there in % (15 bins), mean over seeds. Guessing scores {study.chance:.1f} %. Source: accuracy on source validation, mean over its domains and "
            "seeds. A dash: no window was found, or the average diverged.",
        ),
    ]
    if len(gains):
        differences = comparison.rounded(gains).drop(columns="95 % t, target means")
        known = differences.loc[:, differences.ne("–").any()]  # with two seeds there is neither interval nor p
        caption = f"Differences in accuracy on {target} in points, paired by seed" + (
            f", with 95 % intervals (t; bootstrap of seeds); p is of the t test, Holm's correction is for all rows. {comparison.DASH}"
            if "p" in known
            else f"; fewer than {FEWEST} seeds give no interval."
        )
        parts += ["<h2>Paired differences</h2>", report.table_html(known, caption=caption)]
    parts += ["<h2>What each strategy picked</h2>", report.figure_html(drawn, alt)]
    return report.write_page(page, *parts, title=f"{target} left out", above=title, nav=nav, links=links)


def overview(folder: str | os.PathLike) -> Path:
    """Write ``folder/index.html``, over every study below it that was published, newest first; returns the page.

    One whose study.json this version cannot read is named, and nothing else is said of it.
    """
    folder, found, unread = Path(folder), {}, []
    for file in sorted(folder.glob("*/study.json")):
        record = json_or_nothing(file)
        if all(isinstance(record.get(key), kind) for key, kind in RECORD.items()):
            found[file.parent.name] = record
        else:
            unread.append(
                f"{file.relative_to(folder)} is not of this version of wakd_kit: run the study again to list it."
            )
    parts = [report.text_html(*unread)] if unread else []
    for name, study in sorted(found.items(), key=lambda item: item[1]["rendered"], reverse=True):
        there = {group: {n: f"{name}/{to}" for n, to in study[group].items()} for group in ("pages", "tables")}
        parts += [
            f'<h2><a href="{escape(quote(f"{name}/index.html"))}">{escape(study["title"])}</a></h2>',
            *(report.text_html(study[said]) for said in ("answer", "about") if study.get(said)),
            report.text_html(f"{study['runs']} {study['holds']} Rendered {study['rendered']}."),
            report.links_html(there),
        ]
    return report.write_page(folder / "index.html", *parts, title="Studies")


def pdf(page: Path) -> Path:
    """Print a page on A4 beside it, ``<page>.pdf``, by a headless Chromium; returns the PDF.

    Raises ``NoPdf`` where there is no Chromium, or when it prints nothing within two minutes. An older PDF is gone then.
    """
    out = page.with_suffix(".pdf")
    out.unlink(missing_ok=True)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise NoPdf(f"no PDF: no Chromium on this machine. Open {page} in a browser and print it.")
    flags = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-pdf-header-footer"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses to start otherwise, for root
    with tempfile.TemporaryDirectory(prefix="wakd-", ignore_cleanup_errors=True) as profile:  # its children may linger
        flags += [f"--user-data-dir={profile}", f"--print-to-pdf={out}"]
        try:
            done = subprocess.run(
                [browser, *flags, page.resolve().as_uri()], capture_output=True, text=True, timeout=120
            )
        except subprocess.TimeoutExpired:
            raise NoPdf(f"no PDF: {browser} did not print {page} within two minutes.") from None
    if not out.is_file():
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise NoPdf(f"no PDF: {browser} printed nothing ({reason}). Open {page} in a browser and print it.")
    return out

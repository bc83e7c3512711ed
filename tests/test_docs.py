"""Pages that the code writes are as it would write them today, and nothing is left out of them or of the site."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from wakd_kit.averaging import as_curves, choose, strategies
from wakd_kit.averaging.about import ABOUT
from wakd_kit.objectives import objectives
from wakd_kit.statistics import interval
from wakd_kit.study.specification import load_study

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def tool(name: str):
    """A module of docs/tools, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generate():
    before = [*sys.path]
    yield tool("generate")
    sys.path[:] = before


@pytest.mark.parametrize(
    "name", ["study-files.md", "objectives.md", "strategies.md", "methods.md", "lessons.md", "kd-map.md"]
)
def test_a_generated_page_is_up_to_date(name, generate):
    assert (DOCS / name).read_text() == generate.page(name), "python docs/tools/generate.py writes it again"


def test_a_key_without_a_sentence_is_named(generate, monkeypatch):
    monkeypatch.setattr(generate.specification.Study, "__doc__", "A study file.")
    with pytest.raises(LookupError, match=r"Study\.\w+ has no sentence: add a row to the docstring"):
        generate.study_keys()


@pytest.mark.parametrize("page, names", [("objectives.md", objectives), ("study-files.md", strategies)])
def test_everything_registered_is_listed(page, names):
    listed = re.findall(r"^- \**`(\w+)`", (DOCS / page).read_text(), re.M)
    assert sorted(listed) == sorted(names)


def test_every_strategy_says_where_it_is_from_when_it_is_exact_and_what_it_costs():
    assert list(ABOUT) == sorted(ABOUT, key=list(strategies).index) and {*ABOUT} == {*strategies}
    losses = [6, 5, 4, 3, 4, 5]
    curves = as_curves(
        iterates=[49, 1, 50, 50, 50, 50],
        val_accuracy=[0.1, 0.2, 0.3, 0.4, 0.3, 0.2],
        val_loss=losses,
        val_kd_loss=losses,
    )
    evaluate = {
        "score": lambda c: 0.0,
        "held_out_loss": lambda c: 0.0,
        "loss_and_gradient": lambda c: (0.0, np.zeros(6)),
    }
    for name, about in ABOUT.items():
        assert all(about) and about.tested in ("published code", "published update", "slow reference", "by hand")
        own = {"begin": 50} if name == "eoa_wakd_repo" else {}  # an iterate that is a segment
        (found,) = choose(curves, [{"name": name, **own}], **evaluate).values()
        assert (found.evaluations > 0) == (about.cost != "none"), name


def test_study_files_that_are_shown_load(tmp_path):
    shown = [
        block
        for page in DOCS.glob("*.md")
        for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.M | re.S)
    ]
    assert shown
    for i, block in enumerate(shown):
        (tmp_path / f"shown-{i}.yaml").write_text(block)
        assert load_study(tmp_path / f"shown-{i}.yaml").students


def test_every_page_is_in_the_navigation_and_links_lead_somewhere():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    pages = [next(iter(entry.values())) if isinstance(entry, dict) else entry for entry in nav]
    assert {path.name for path in DOCS.glob("*.md")} == {*pages} - {"index.md", "contributing.md", "changelog.md"}
    for page in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


STYLE = """Scores averages.

    table = score(run)

size  side in pixels; it may be
      None for the benchmark's own
overlong_name the next one

>>> 1 + 1
2

run = score(a)     a table
gain = a - b       points
"""


def test_docstrings_of_the_house_become_markdown():
    docstrings = tool("docstrings")
    assert docstrings.described(STYLE) == {
        "size": "side in pixels; it may be None for the benchmark's own",
        "overlong_name": "the next one",
    }
    assert docstrings.markdown(STYLE) == (
        "Scores averages.\n\n```\ntable = score(run)\n```\n\n"
        "- **`size`**: side in pixels; it may be None for the benchmark's own\n- **`overlong_name`**: the next one\n\n"
        "```pycon\n>>> 1 + 1\n2\n```\n\n```\nrun = score(a)     a table\ngain = a - b       points\n```"
    )


KEPT = {
    "methods": [
        *((student, "WAKD", student, "last") for student in ("CE", "KD", "RKD", "XDED")),
        *((student, "WAKD", "KD", "WAKD") for student in ("CE", "CE + KD", "RKD")),
    ],
    "annealed_digits": [("CE", "WAKD", "CE cosine", "last"), ("KD", "as a cosine", "KD cosine", "last")],
    "annealed_pacs": [
        *(("CE", "WAKD", "CE", "last"), ("KD", "WAKD", "KD", "last"), ("teacher", "WAKD", "teacher", "last")),
        *(("CE", "WAKD", "CE cosine", "last"), ("KD", "as a cosine", "KD cosine", "last")),
    ],
    "methods_pacs": [
        *((s, "WAKD", s, "last") for s in ("CE", "KD", "CE + KD", "KD++", "TAID", "V_kD", "DKD", "generation 2")),
        *((s, "WAKD", "KD", "WAKD") for s in ("CE", "CE + KD", "KD++", "TAID", "V_kD", "DKD", "generation 2")),
    ],
    "pacs64": [
        *((student, "WAKD", student, "last") for student in ("teacher", "CE", "KD")),
        *(("CE", "WAKD", "CE", "last, recalibrated"), ("KD", "WAKD", "CE", "WAKD")),
    ],
    "heterogeneous_mixer": [
        *((f"CNN {s}", "WAKD", f"CNN {s}", "last") for s in ("fitnet", "ofa")),
        *((f"CNN {s}", "WAKD", "CNN CE", "WAKD") for s in ("kd", "fitnet", "ofa")),
    ],
    "heterogeneous_vit": [
        *((f"CNN {s}", "WAKD", f"CNN {s}", "last") for s in ("CE", "kd", "ofa")),
        *((f"CNN {s}", of, "CNN CE", of) for s in ("kd", "rkd") for of in ("last", "WAKD")),
        *((f"{s} fitnet", "last", f"{s} CE", "last") for s in ("CNN", "mixer")),
    ],
    "heterogeneous_cnn": [
        *((s, "WAKD", s, "last") for s in ("mixer CE", "mixer fitnet", "ViT fitnet", "ViT CE", "ViT kd")),
        *((f"{s} fitnet", of, f"{s} CE", of) for s in ("ViT", "mixer") for of in ("last", "WAKD")),
    ],
    "forms_pacs": [
        *((s, "WAKD", s, "last") for s in ("KD", "KD T=1", "KD of last", "KD to CE", "teacher")),
        *((s, "WAKD", "KD", "WAKD") for s in ("KD T=1", "KD of last", "KD to CE")),
    ],
    "teachers_pacs": [
        *((s, "WAKD", s, "last") for s in ("CE", "KD", "KD of three")),
        *(("KD of three", of, other, of) for of, other in (("WAKD", "KD"), ("last", "CE"), ("WAKD", "CE"))),
    ],
    "pacs_imagenet": [
        *((s, average, s, "last") for s in ("CE", "KD") for average in ("best validation", "WAKD", "SWAD", "SMA")),
        ("KD", "WAKD", "CE", "WAKD"),
    ],
    "corrupted_digits": [("CE", "WAKD", "CE", "last"), ("KD", "WAKD", "KD", "last")],
    "coloured_digits": [("CE", "WAKD", "CE", "last"), ("KD", "WAKD", "KD", "last")],
}


@pytest.mark.parametrize("study", KEPT)
def test_what_results_say_follows_from_the_tables_that_are_kept(study):
    table = pd.read_csv(DOCS / "tables" / f"{study}.csv")
    scores = table.groupby(["student", "strategy", "target", "seed"])["accuracy"].mean() * 100
    (section,) = (part for part in (DOCS / "results.md").read_text().split("\n## ") if f"tables/{study}.csv" in part)
    said = section.replace("−", "-").replace("**", "")
    for *first, student, strategy in KEPT[study]:
        gains = scores[tuple(first)] - scores[student, strategy]
        low, high = interval(gains)
        assert f"{gains.mean():+.1f} [{low:+.1f}, {high:+.1f}]" in said, (first, student, strategy)


@pytest.mark.parametrize("study", ["space_and_time", "space_and_time_pacs"])
def test_what_results_say_of_time_and_space_follows_from_its_table(study):
    table = pd.read_csv(DOCS / "tables" / f"{study}.csv")
    (_, section) = (DOCS / "results.md").read_text().split(f"(tables/{study}.csv)")
    along = table[(table["student"] == "all") & (table["strategy"] == "WAKD")]["accuracy"].mean()
    assert f"averaged along time: {100 * along:.1f}" in section.split("\n\n")[0]


def test_what_results_say_of_one_run_at_224_px_is_in_its_table_and_that_of_96_px():
    (_, section) = (DOCS / "results.md").read_text().replace("−", "-").split("(tables/pacs_224.csv)")
    rows = {"student, cross-entropy": "CE", "student, distilled": "KD", "teacher": "teacher"}
    small, large = (
        table[(table["target"] == "art_painting") & (table["seed"] == 0)]
        .groupby(["student", "strategy"])["accuracy"]
        .first()
        for table in (pd.read_csv(DOCS / "tables" / f"{name}.csv") for name in ("teachers_pacs", "pacs_224"))
    )
    for said, student in rows.items():
        found = [100 * table[student, of] for table in (small, large) for of in ("last", "WAKD")]
        gains = f"{found[1] - found[0]:+.1f}, {found[3] - found[2]:+.1f}"
        assert f"| {said} | {' | '.join(f'{one:.1f}' for one in found)} | {gains} |" in section.split("\n## ")[0]


def test_every_kept_table_is_linked():
    text = (DOCS / "results.md").read_text()
    assert [f.name for f in (DOCS / "tables").iterdir() if f"(tables/{f.name})" not in text] == []

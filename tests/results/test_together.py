"""Two studies side by side: paired by target and seed where both have one, refused where images differ."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from wakd_kit.reporting.compare import compare
from wakd_kit.results.collect import collect
from wakd_kit.results.together import answers, compared, how_paired, side_by_side, unlike
from wakd_kit.runs.store import RunProblem

from ..offline import offline_problems


@pytest.fixture
def twice(finished, tmp_path):
    """The tiny study's recordings, and a copy of which KD's last scores a tenth more and was trained at another rate."""
    copy = shutil.copytree(finished / "runs", tmp_path / "copy", ignore=shutil.ignore_patterns("engine"))
    for file in copy.glob("*/KD/scores.csv"):
        scores = pd.read_csv(file)
        scores.loc[(scores["role"] == "target") & (scores["strategy"] == "last"), "accuracy"] += 0.1
        scores.to_csv(file, index=False)
        settings = json.loads((file.parent / "settings.json").read_text())
        (file.parent / "settings.json").write_text(json.dumps(settings | {"learning_rate": 0.5}))
    return {"old": collect(finished / "runs"), "new": collect(copy)}, copy


def test_what_both_studies_have_is_paired_by_target_and_seed(twice):
    studies, _ = twice
    table = compared(studies).set_index("label")
    assert table.loc["KD last", "mean"] == pytest.approx(10) and table.loc["KD last", "n"] == 2
    assert table.loc["teacher last", "mean"] == table.loc["KD WAKD", "mean"] == 0
    assert how_paired(studies, table.reset_index()) == "Paired over 2 targets and seeds that both have."
    (said,) = unlike(studies)
    assert said == "KD was trained otherwise: learning rate 0.01 and 0.5."
    assert answers(studies, compared(studies)) == [], "two pairs say nothing"
    sides = side_by_side(studies).set_index(["student", "strategy"])
    assert [*sides.index][:2] == [("teacher", "last"), ("teacher", "WAKD")], "in the order of the first"
    sides = sides.loc[("KD", "last")]
    assert sides["new: mean"] == pytest.approx(sides["old: mean"] + 10) and sides["old: n"] == 2


def test_a_label_that_is_another_average_there_is_said(twice):
    studies, copy = twice
    for run in collect(copy).runs:
        choices = json.loads((run.folder / "choices.json").read_text())
        values = np.array(choices["WAKD"]["values"])
        later = values * (np.arange(len(values)) == len(values) - 1)
        choices["WAKD"] |= {"values": [*(later / later.sum())], "note": "segment 3, iterates 5-6"}
        (run.folder / "choices.json").write_text(json.dumps(choices))
    studies["new"] = collect(copy)
    *_, said = unlike(studies)
    assert said.startswith("WAKD is another average there: of ") and said.endswith(" and segment 3, iterates 5-6.")
    assert not any(said.startswith(("last is", "SWAD is")) for said in unlike(studies))


def test_what_one_study_has_alone_is_left_out_and_said(twice):
    studies, copy = twice
    shutil.rmtree(copy / "east-s0")
    studies["new"] = collect(copy)
    table = compared(studies)
    assert set(table["n"]) <= {0, 1}
    assert how_paired(studies, table) == "Paired over 1 targets and seeds that both have; left out: 1 of old alone."
    studies["old"] = collect(studies["old"].runs[0].folder.parent)  # the other target alone
    table = compared(studies)
    assert not len(table) and how_paired(studies, table).startswith("old and new have no target and seed in common")
    studies["new"] = collect(studies["old"].runs[0].folder.parent)  # one target in common, and no score on it
    said = how_paired(studies, table)
    assert said.startswith("Paired over 1 targets") and "KD last with a score on none of them" in said


def test_what_was_scored_on_no_common_split_is_left_out_and_named(twice):
    studies, copy = twice
    scores = pd.read_csv(copy / "north-s0" / "KD" / "scores.csv")
    scores[scores["strategy"] != "WAKD"].to_csv(copy / "north-s0" / "KD" / "scores.csv", index=False)
    north = studies["old"].runs[0].folder.parent.parent / "north-s0"
    studies = {"old": collect(north), "new": collect(copy)}
    table = compared(studies)
    assert "KD last" in [*table["label"]] and "KD WAKD" not in [*table["label"]]
    left = "left out: 1 of new alone, KD WAKD with a score on none of them."
    assert how_paired(studies, table) == f"Paired over 1 targets and seeds that both have; {left}"


def test_two_pairs_of_one_name_are_two(twice):
    """Students KD and "KD late", strategies WAKD and "late WAKD"."""
    studies, _ = twice
    rows = studies["old"].scores
    for study in studies.values():
        own = rows[(rows["student"] == "KD") & (rows["strategy"] == "last")]
        study.__dict__["scores"] = pd.concat(
            [own.assign(student="KD late", strategy="WAKD"), own.assign(strategy="late WAKD"), own]
        )
    assert sorted(compared(studies)["label"]) == ["KD last", "KD late WAKD", "KD late WAKD"]


def test_studies_of_other_images_or_students_are_not_compared(twice):
    studies, copy = twice
    for folder in copy.glob("*/KD"):
        folder.rename(folder.with_name("other"))
    for folder in copy.glob("*/teacher"):
        shutil.rmtree(folder)
    with pytest.raises(
        RunProblem, match=r"No student with a strategy of one name is in both studies \(old: teacher, KD; new: other\)"
    ):
        compared({**studies, "new": collect(copy)})
    for file in copy.glob("*/other/settings.json"):
        settings = json.loads(file.read_text())
        settings["split"]["fingerprint"] = "another"
        file.write_text(json.dumps(settings))
    with pytest.raises(RunProblem, match="Runs on different images are not compared"):
        compared({**studies, "new": collect(copy)})


def test_the_page_of_two_studies(twice, tmp_path):
    page, said = compare(twice[0], tmp_path / "out")
    text = page.read_text()
    assert "<h1>old and new</h1>" in text and said[0] in text and "How new was made" in text
    assert offline_problems(page) == [] and str(tmp_path) not in text
    assert {file.name for file in (tmp_path / "out").rglob("*.*")} == {
        *("index.html", "differences.csv", "side_by_side.csv", "differences.svg", "differences.pdf")
    }

"""The paper's three claims, judged from a study's scores: planted differences get the words they deserve."""

import runpy
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import wakd_kit as wk

NAMES = ("WAKD", "SWAD", "SMA", "best validation")
SCRIPT = Path(__file__).parent.parent.parent / "reports" / "claims_of_the_paper.py"


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """What the script prints for these accuracies beside the last iterate's: {strategy: (mean difference, its sd)}."""

    def run(planted: dict[str, tuple[float, float]], *more: str) -> dict[str, str]:
        rng, rows = np.random.default_rng(0), []
        for target, seed in product("abcd", range(3)):
            last = rng.normal(60, 8)
            noise = {name: mean + sd * rng.standard_normal() for name, (mean, sd) in planted.items()}
            for name, value in {"last": 0.0, **noise}.items():
                rows.append(("KD", name, "target", target, seed, (last + value) / 100))
        table = pd.DataFrame(rows, columns=["student", "strategy", "role", "target", "seed", "accuracy"])
        table.to_csv(tmp_path / "scores.csv", index=False)
        monkeypatch.setattr("sys.argv", [str(SCRIPT), str(tmp_path), *more])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| KD")]
        assert all(len(line) == 8 for line in lines)
        return {first.removeprefix("| KD: "): words for first, _, _, *words in lines}

    return run


def test_claims_that_hold(told):
    said = told({"WAKD": (3, 0.3), "SWAD": (3.1, 0.3), "SMA": (2.9, 0.3), "best validation": (0, 0.3)})
    assert {said[f"{a} - {b}"][0] for a in ("WAKD", "SWAD", "SMA") for b in ("last", "best validation")} == {"better"}
    assert said["SWAD - SMA"][0] == said["SWAD - SMA"][2] == "on par within 1"
    assert said["WAKD - SWAD"][0] == "not worse by 1"
    assert said["WAKD - SWAD"][3] in {f"{n} of 12" for n in range(13)}


def test_claims_that_fail_or_that_nothing_can_be_said_of(told):
    said = told({"WAKD": (-3, 0.3), "SWAD": (0, 9), "SMA": (0.5, 0.1), "best validation": (0, 0.3)})
    assert (said["WAKD - last"][0], said["SWAD - last"][0]) == ("worse", "not told apart")
    assert said["SWAD - SMA"][0] == "undecided" and said["WAKD - SMA"][0] == "worse"
    narrow = told({"WAKD": (0, 0.01), "SWAD": (0.5, 0.01), "SMA": (0, 9), "best validation": (0, 1)}, "--margin", "0.3")
    assert narrow["WAKD - SWAD"][0] == "worse"  # 0.5 is beyond 0.3


def test_seeds_that_agree_about_targets_that_do_not_are_told_apart(tmp_path, monkeypatch, capsys):
    """Nine pairs of one sign beside three of the other: the intervals over pairs and over targets say different things."""
    rows = [
        ("KD", name, "target", target, seed, accuracy + by * (seed + 1) / 1000)
        for target, gain in zip("abcd", (0.05, 0.05, 0.05, 0.001))
        for seed in range(3)
        for name, accuracy, by in [("last", 0.5, 0), *((n, 0.5 + gain, i) for i, n in enumerate(NAMES))]
    ]
    columns = ["student", "strategy", "role", "target", "seed", "accuracy"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "scores.csv", index=False)
    monkeypatch.setattr("sys.argv", [str(SCRIPT), str(tmp_path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| KD: WAKD - last")]
    assert line.split(" | ")[3] == "better" and line.split(" | ")[5] == "not told apart"


def test_two_targets_and_two_pairs_have_no_word(tmp_path, monkeypatch, capsys):
    rows = [
        ("KD", name, "target", target, seed, 0.5 + 0.01 * i + 0.001 * seed)
        for target in ("NA", "007")
        for seed in range(2)
        for i, name in enumerate(("last", *NAMES))
    ]
    columns = ["student", "strategy", "role", "target", "seed", "accuracy"]
    for part, words in ((rows, ("better", "–")), (rows[:10], ("–", "–"))):
        pd.DataFrame(part, columns=columns).assign(n=100).to_csv(tmp_path / "scores.csv", index=False)
        monkeypatch.setattr("sys.argv", [str(SCRIPT), str(tmp_path)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| KD: SMA - last")]
        assert (line.split(" | ")[3], line.split(" | ")[5]) == words and "nan" not in line


def test_wakd_begun_elsewhere_is_scored_from_the_recording(run, split, tmp_path, monkeypatch):
    shutil.copytree(run.folder, tmp_path / "c-s0" / "KD")
    load = wk.load_run
    monkeypatch.setattr(wk, "load_run", lambda folder: load(folder, split=split))
    found = runpy.run_path(str(SCRIPT))["begun_elsewhere"](tmp_path, "KD")
    late = wk.averaging.wakd(run.source_curves, begin=0.6)
    expected = wk.evaluation.score_choices(run, {"WAKD from 60%": late}, split)
    part = found[found["strategy"] == "WAKD from 60%"]
    assert part["accuracy"].tolist() == expected["accuracy"].tolist() and set(part["target"]) == {split.target}
    assert found["strategy"].nunique() == 5

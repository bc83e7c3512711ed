"""The paper's three claims, judged from a study's scores: planted differences get the words they deserve."""

import runpy
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).parent.parent / "reports" / "claims_of_the_paper.py"


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
        return {first.removeprefix("| KD: "): rest[-1].removesuffix(" |") for first, *rest in lines}

    return run


def test_claims_that_hold(told):
    said = told({"WAKD": (3, 0.3), "SWAD": (3.1, 0.3), "SMA": (2.9, 0.3), "best validation": (0, 0.3)})
    assert {said[f"{a} - last"] for a in ("WAKD", "SWAD", "SMA")} == {"better"}
    assert said["SWAD - SMA"] == "on par within 1"
    assert said["WAKD - SWAD"] == "not worse by 1" and said["WAKD - best validation"] == "better"


def test_claims_that_fail_or_that_nothing_can_be_said_of(told):
    said = told({"WAKD": (-3, 0.3), "SWAD": (0, 9), "SMA": (0.5, 0.1), "best validation": (0, 0.3)})
    assert (said["WAKD - last"], said["SWAD - last"]) == ("worse", "not told apart")
    assert said["SWAD - SMA"] == "undecided" and said["WAKD - SMA"] == "worse"
    narrow = told({"WAKD": (0, 0.01), "SWAD": (0.5, 0.01), "SMA": (0, 9), "best validation": (0, 1)}, "--margin", "0.3")
    assert narrow["WAKD - SWAD"] == "worse"  # 0.5 is beyond 0.3

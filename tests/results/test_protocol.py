"""Tables as papers print them, by hand."""

import numpy as np
import pandas as pd
import pytest

from wakd_kit.results import protocol
from wakd_kit.results.latex import booktabs


def rows(student: str, seed: int, target: str, accuracy: float, worst: float, role="target", domain=None) -> dict:
    about = {"student": student, "strategy": "last", "target": target, "seed": seed, "domain": domain or target}
    return {**about, "role": role, "accuracy": accuracy, "worst_group": worst, "group": "a", "n": 50}


@pytest.fixture
def scores():
    found = []
    for seed, (ink, neon) in enumerate([(0.80, 0.50), (0.70, 0.60), (0.75, 0.70)]):
        found += [rows("KD", seed, "ink", ink, ink - 0.2), rows("KD", seed, "neon", neon, neon - 0.4)]
        found += [
            rows("KD", seed, t, 0.9, worst, "source", d)
            for t in ("ink", "neon")
            for d, worst in {"p": 0.5, "q": 0.7}.items()
        ]
    return pd.DataFrame(found)


def test_domainbed_prints_the_mean_and_its_standard_error_over_trials(scores):
    row = protocol.domainbed(scores).iloc[0]
    assert row["ink"] == f"75.0 ± {np.std([80, 70, 75]) / np.sqrt(3):.1f}"
    assert row["Avg"] == f"67.5 ± {np.std([65, 65, 72.5]) / np.sqrt(3):.1f}"
    called = protocol.domainbed(scores.replace("ink", "Avg")).iloc[0]  # a domain of that name
    assert called[["domain Avg", "Avg"]].tolist() == row[["ink", "Avg"]].tolist()
    assert r"75.0 $\pm$ 2.4" in booktabs(protocol.domainbed(scores), caption="c", label="l")
    scores.loc[0, "accuracy"] = np.nan  # no window there: no mean over the rest
    assert protocol.domainbed(scores).iloc[0][["ink", "Avg"]].tolist() == ["–", "–"]
    assert protocol.domainbed(scores[scores["seed"] == 1]).empty


def test_domainbed_prints_no_error_of_one_seed_and_no_mean_over_some(scores):
    once = scores[scores["seed"] == 1].assign(student="CE")
    some = scores[scores["seed"] != 1].assign(strategy="SWAD")
    table = protocol.domainbed(pd.concat([scores, once, some])).set_index(["student", "strategy"])
    assert table.loc["CE", "last"].tolist() == ["70.0", "60.0", "65.0"]
    assert table.loc["KD", "SWAD"].tolist() == ["–", "–", "–"] and "±" in table.loc[("KD", "last"), "Avg"]


def test_worst_groups_are_of_each_run_and_worst_domains_of_means(scores):
    row = protocol.groups(scores).iloc[0]
    assert row[["ink", "neon", "mean", "worst domain", "source"]].tolist() == pytest.approx([55, 20, 37.5, 60, 50])
    gone = scores.assign(worst_group=scores["worst_group"].mask((scores["role"] == "source") & (scores["seed"] == 0)))
    assert np.isnan(protocol.groups(gone).iloc[0]["source"])
    assert row["n"] == 6 and row["sd"] == pytest.approx(np.std([35, 35, 42.5], ddof=1))
    assert protocol.groups(scores.drop(columns="worst_group")).empty  # scored by an older version


def test_of_domains_left_out_at_once_the_worst_group_of_all_counts():
    both = [rows("KD", 0, "ink+neon", 0.8, 0.6, domain="ink"), rows("KD", 0, "ink+neon", 0.6, 0.1, domain="neon")]
    row = protocol.groups(pd.DataFrame(both)).iloc[0]
    assert row[["ink", "neon", "ink+neon", "mean", "worst domain"]].tolist() == pytest.approx([60, 10, 10, 10, 60])

"""Beyond accuracy: calibration, agreement with the teacher and churn between seeds, from what averages predicted.

    found = predictions(study, ["last", "wakd"])     # evaluates what is not kept yet
    reliability(found), agreement(found), churn(found)
    agreed, churned = printed(agreement(found), "agreement"), printed(churn(found), "churn")
    findings(study, ["last", "wakd"], agreed, churned)

The unseen domain and source validation are never mixed: every table says ``role``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ..averaging import Coefficients
from ..evaluation.predictions import Predicted, keep, kept
from ..evaluation.scores import measured
from ..runs.record import measuring
from ..runs.run import Run
from ..runs.store import RunProblem
from .collect import DEPLOYED, Recorded, place_of
from .differences import findings as differences_found
from .differences import paired, summary


@dataclass(frozen=True)
class Found:
    """What averages of one run predicted, ``by_strategy[strategy][domain]``, and what it deploys as a teacher, if it is one."""

    run: Run
    by_strategy: dict[str, dict[str, Predicted]]
    deployed: dict[str, Predicted] | None = None

    @property
    def target(self) -> str:
        """The unseen domain."""
        return self.run.settings["split"]["target"]

    @property
    def seed(self) -> int:
        """Of the split."""
        return self.run.settings["split"]["seed"]

    def unseen(self, strategy: str) -> np.ndarray:
        """The classes that an average predicted on the unseen domain, of several on all of them."""
        return np.concatenate([p.classes for p in self.by_strategy[strategy].values() if p.role == "target"])


def predictions(study: Recorded, strategies: Sequence[str]) -> list[Found]:
    """What these strategies' averages predicted in every run of a study, and what teachers deploy.

    Averages whose predictions are not kept yet are evaluated now, once. A strategy that found no window in a run is
    missing there.
    """
    found = []
    for run in study.runs:
        teaches = run.name == "teacher"
        by_strategy = of_run(run, [*strategies, DEPLOYED] if teaches else strategies)
        deployed = by_strategy.get(DEPLOYED) if teaches else None
        compared = {label: found_by for label, found_by in by_strategy.items() if label in strategies}
        found.append(Found(run, compared, deployed))
    return found


def of_run(run: Run, strategies: Sequence[str]) -> dict[str, dict[str, Predicted]]:
    """``{strategy: {domain: Predicted}}`` of one run, as kept with it; what is missing is evaluated and kept."""
    known, chosen = kept(run), run.choices
    missing = [s for s in strategies if s not in known and isinstance(chosen.get(s), Coefficients)]
    fresh: dict[str, dict[str, Predicted]] = {}
    if missing:
        fresh = measured(run, {s: chosen[s] for s in missing})
        with measuring(run.folder):
            keep(run, fresh)
    return {s: by_domain for s, by_domain in (known | fresh).items() if s in strategies}


def reliability(found: Sequence[Found], *, bins: int = 15) -> pd.DataFrame:
    """Confidence and accuracy in equal-width bins of confidence, over all images of all runs of a student and strategy.

    ``student, strategy, role, low, high, n, confidence, accuracy`` (fractions), empty bins left out: what a reliability
    diagram shows (Guo et al. 2017, arXiv 1706.04599, section 2; bins are (0, 1/15], (1/15, 2/15], ...).
    """
    pooled: dict[tuple, list[Predicted]] = {}
    for one in found:
        for strategy, by_domain in one.by_strategy.items():
            for p in by_domain.values():
                pooled.setdefault((one.run.name, strategy, p.role), []).append(p)
    rows = []
    for (student, strategy, role), parts in pooled.items():
        confidence, correct = (np.concatenate([getattr(p, n) for p in parts]) for n in ("confidence", "correct"))
        known = np.isfinite(confidence)  # a diverged average is sure of nothing
        confidence, correct = confidence[known], correct[known]
        bin_of = np.clip(np.ceil(confidence.astype(float) * bins), 1, bins) - 1
        for b in np.unique(bin_of):
            inside = bin_of == b
            row = {"student": student, "strategy": strategy, "role": role, "low": b / bins, "high": (b + 1) / bins}
            row |= {"n": int(inside.sum()), "confidence": confidence[inside].mean(), "accuracy": correct[inside].mean()}
            rows.append(row)
    columns = ["student", "strategy", "role", "low", "high", "n", "confidence", "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def calibration(scores: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """``{(student, strategy, role): expected calibration error in %}``, as ``printed(scores, "ece")`` has them: mean over runs."""
    table = printed(scores, "ece")
    columns = {"target": "mean", "source": "source"}
    return {
        (row["student"], row["strategy"], role): row[column]
        for row in table.to_dict("records")
        for role, column in columns.items()
        if column in row
    }


def agreement(found: Sequence[Found]) -> pd.DataFrame:
    """How often a student predicts the class that its teacher's deployed average predicts, right or wrong, per domain.

    ``student, strategy, target, seed, domain, role, agreement`` (fraction) and ``n`` images. Average top-1 agreement,
    which Stanton et al. (2021, arXiv 2106.05945, section 3) call fidelity. A student is compared with the teacher
    of its target and seed in the study, also where it did not learn from it: that is the level to beat. Empty without one;
    only of domains that both were measured on.
    """
    teachers = {(one.target, one.seed): one for one in found if one.deployed}
    rows = []
    for one in found:
        teacher = teachers.get((one.target, one.seed))
        if teacher is None or teacher is one:
            continue
        _refuse_other_images(one, teacher, keys=("fingerprint", "validation"))
        for strategy, by_domain in one.by_strategy.items():
            for domain, p in by_domain.items():
                if domain not in teacher.deployed:  # a source that the teacher was not trained on
                    continue
                same = _alike(p.classes, teacher.deployed[domain].classes)
                row = {"student": one.run.name, "strategy": strategy, **place_of(one.run)}
                rows.append(row | {"domain": domain, "role": p.role, "agreement": same.mean(), "n": len(same)})
    columns = ["student", "strategy", "target", "seed", "domain", "role", "agreement", "n"]
    return pd.DataFrame(rows, columns=columns)


def churn(found: Sequence[Found]) -> pd.DataFrame:
    """How often two seeds of one student predict different classes for the same image of the unseen domain.

    ``student, strategy, target, seed, role, churn`` (fraction), a row per pair of seeds ("0 and 1"), and ``n`` images.
    Milani Fard et al. 2016 (NeurIPS). Seeds validate on different source images, so there is none for source domains.
    """
    rows = []
    for first, second in combinations(found, 2):
        if first.run.name != second.run.name or first.target != second.target:
            continue
        _refuse_other_images(first, second, keys=("fingerprint",))
        for strategy in [s for s in first.by_strategy if s in second.by_strategy]:
            differ = 1 - _alike(*(one.unseen(strategy) for one in (first, second)))
            row = {"student": first.run.name, "strategy": strategy, "target": first.target, "role": "target"}
            rows.append(row | {"seed": f"{first.seed} and {second.seed}", "churn": differ.mean(), "n": len(differ)})
    return pd.DataFrame(rows, columns=["student", "strategy", "target", "seed", "role", "churn", "n"])


def _alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether classes are the same, 1 or 0; NaN for all where a side is of an average that diverged, which predicts none."""
    same = (first == second).astype(float)
    return np.full_like(same, np.nan) if min(first.min(), second.min()) < 0 else same


def _refuse_other_images(first: Found, second: Found, *, keys: Sequence[str]) -> None:
    for key in keys:
        here, there = (one.run.settings["split"][key] for one in (first, second))
        if here != there:
            raise RunProblem(
                f"{second.run.folder} has {'other images' if key == 'fingerprint' else f'{key} {there}'} than "
                f"{first.run.folder}; compare such runs apart."
            )


def printed(long: pd.DataFrame, measure: str) -> pd.DataFrame:
    """``agreement``, ``churn`` or a study's ``scores`` (measure "ece") for reading, in per cent.

    ``student, strategy``, a column per unseen domain (mean over seeds), their ``mean``, its ``sd`` over seeds (of churn:
    over pairs of seeds), ``n`` runs (pairs), and ``source``, the mean over source validation parts where there are any.
    """
    if not len(long):
        return pd.DataFrame(columns=["student", "strategy", "mean", "sd", "n"])
    wide = summary(long, measure).drop(columns=["se", "missing"])
    of_source = long[long["role"] == "source"].groupby(["student", "strategy"])[measure]
    source = of_source.agg(lambda values: values.mean(skipna=False))  # a dash where the others have one
    if len(source):
        wide["source"] = [100 * source.get((row.student, row.strategy), np.nan) for row in wide.itertuples()]
    return wide


def findings(study: Recorded, shown: Sequence[str], agreed: pd.DataFrame, churned: pd.DataFrame) -> list[str]:
    """What the tables come to, in sentences: the calibration error that averaging takes away on unseen domains, paired by target and
    seed, then agreement with the teacher and churn between seeds, before and after.

    shown  the label before averaging, and the one after, as ``Recorded.shown`` returns them;  agreed, churned  as ``printed`` has them
    """
    if len(shown) < 2:
        return ["Nothing here is an average that every student has: there is no before and after."]
    before, after = shown[:2]
    right = study.scores.assign(accuracy=1 - study.scores["ece"])
    less = paired(right, [((name, after), (name, before)) for name in study.students])
    words = {"higher on": "better calibrated on", "lower on": "worse calibrated on"}
    said = [f"Points of calibration error that {after} takes away on unseen domains, compared with {before}:"]
    said += [re.sub("|".join(words), lambda found: words[found[0]], one) for one in differences_found(less)]
    for table, what in ((agreed, "decides as its teacher"), (churned, "decides otherwise with another seed")):
        by_label = table.set_index(["student", "strategy"])["mean"].to_dict() if len(table) else {}
        for name in study.students:
            if (name, before) not in by_label or (name, after) not in by_label:
                continue
            levels = [by_label[name, label] for label in (before, after)]
            if not np.isfinite(levels).all():  # no window, or a diverged average, in a run
                said.append(f"Whether {name} {what} more or less often after averaging cannot be said of all runs.")
                continue
            said.append(
                f"{name} {what} on {levels[0]:.1f} % of the images of unseen domains at {before}, on {levels[1]:.1f} % at {after}."
            )
    return said

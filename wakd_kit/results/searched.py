"""What a search chose, and what it would have chosen by another average: every draw is a recorded run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import columns_of, read_table


def source_accuracy(run: Path, label: str, role: str = "source") -> float | None:
    """The mean accuracy over source validation parts of a run's average, as it was evaluated; None where it was not.

    role  "target" for a training that left out a source of its search: then that one counts, and it met no other unseen domain
    An average that is not there, or no number, is the worst there is: -inf. Nothing of the unseen domain is read.
    """
    if not (run / "scores.csv").is_file():
        return None
    table = read_table(run / "scores.csv")
    rows = table[(table["strategy"] == label) & (table["role"] == role)]
    mean = rows["accuracy"].mean(skipna=False)
    return None if not len(rows) else -np.inf if np.isnan(mean) else float(mean)


def winner(scores: Sequence[Sequence[float | None]]) -> int | None:
    """The draw with the highest mean over seeds, the first of equals; None while one of them is not known, and where none is a
    number.

    scores  per draw and seed; -inf for one that fell apart, or found no window
    """
    if any(score is None for of_draw in scores for score in of_draw):
        return None
    means = np.array([np.mean(of_draw) for of_draw in scores])
    known = np.isfinite(means)
    return int(np.argmax(np.where(known, means, -np.inf))) if known.any() else None


def searched(
    runs: Path, draws: Sequence[Mapping], labels: Sequence[str], rule: str = "training_domain_validation"
) -> pd.DataFrame:
    """The winner of every search by every strategy: ``target, student, strategy, draws, settings, source``.

    draws   {"target", "student", "draw", "settings", "run": its place below ``runs``}, several of a draw for several seeds;
            "held" is the source that one was trained without, "fell_apart" one that lost for that
    rule    of the search: what a draw is judged on
    draws, of the table, counts those that have a score by this strategy
    source  accuracy in per cent on source validation, mean over its domains and over seeds; or, by "leave_one_source_out", on the
            sources that were left out
    A search of which a draw is not there, or without this strategy, has no winner by it.
    """
    rows, (role, held) = [], _READ[rule]
    for target, student in dict.fromkeys((draw["target"], draw["student"]) for draw in draws):
        own = [draw for draw in draws if (draw["target"], draw["student"]) == (target, student)]
        settings = {draw["draw"]: spoken(draw["settings"]) for draw in own}
        for label in labels:
            scores = _per_draw(runs, own, label, role, held)
            of_draws = [scores.get(number, [None]) for number in settings]
            best, known = winner(of_draws), [one for one in of_draws if None not in one and np.isfinite(np.mean(one))]
            row = {"target": target, "student": student, "strategy": label, "draws": len(known)}
            number = None if best is None else [*settings][best]
            won = {"settings": "", "source": np.nan}
            if number is not None:
                won = {"settings": settings[number], "source": 100 * np.mean(scores[number])}
            rows.append(row | won)
    return pd.DataFrame(rows, columns=["target", "student", "strategy", "draws", "settings", "source"])


RULES = {
    "training_domain_validation": "training-domain validation",
    "leave_one_source_out": "leave-one-source-domain-out",
    "oracle": "oracle: the unseen domain itself",
}


def by_rule(runs: Path, draws: Sequence[Mapping], label: str) -> pd.DataFrame:
    """What each rule of model selection chooses among the same draws: ``student, rule, draws``, and accuracy in per cent on each
    unseen domain of the draw's own trainings, mean over seeds, with the ``mean`` over these. The rules of Gulrajani and
    Lopez-Paz (2021, section 3): validation parts of the training domains; training domains left out in turn, where that was
    trained; and the unseen domain itself, the oracle, here on all its images, which is looked up after everything was chosen.

    draws  as ``searched`` takes them;  label  of the strategy that is judged
    """
    rows = []
    for student in dict.fromkeys(draw["student"] for draw in draws):
        of_student = [draw for draw in draws if draw["student"] == student]
        for rule, (role, held) in _READ.items():
            row = {"student": student, "rule": RULES[rule], "draws": len({draw["draw"] for draw in of_student})}
            for target in dict.fromkeys(draw["target"] for draw in of_student):
                part = [draw for draw in of_student if draw["target"] == target]
                judged, unseen = _per_draw(runs, part, label, role, held), _per_draw(runs, part, label, "target", False)
                both = [number for number in unseen if number in judged]
                best = winner([judged[number] for number in both]) if both else None
                found = np.nan if best is None else 100 * np.mean(unseen[both[best]])
                row[columns_of([target])[target]] = found if np.isfinite(found) else np.nan  # it found no window there
            if not np.isnan(mean := np.mean([*row.values()][3:])):
                rows.append(row | {"mean": mean})
    return pd.DataFrame(rows)


# rule: of what role its score is, and of trainings without a further source or of those with all
_READ = {
    "training_domain_validation": ("source", False),
    "leave_one_source_out": ("target", True),
    "oracle": ("target", False),
}


def _per_draw(runs: Path, draws: Sequence[Mapping], label: str, role: str, held: bool) -> dict[int, list[float | None]]:
    """Scores of each draw; -inf where any of its trainings fell apart, as the search had it."""
    found: dict[int, list[float | None]] = {}
    fell = {draw["draw"] for draw in draws if draw.get("fell_apart")}
    for draw in draws:
        if bool(draw.get("held")) == held:
            score = -np.inf if draw["draw"] in fell else source_accuracy(Path(runs) / draw["run"], label, role)
            found.setdefault(draw["draw"], []).append(score)
    return found


def spoken(settings: Mapping) -> str:
    """Settings of a draw as they stand in a table: "learning_rate 0.0003"."""
    return ", ".join(f"{name} {v if isinstance(v, str) else json.dumps(v)}" for name, v in settings.items())


def caption(by: str, rule: str = "training_domain_validation") -> str:
    """What the table of ``winners`` is, where it stands alone."""
    judged = "on the sources that were left out" if _READ[rule][1] else "on source validation"
    return (
        "What was searched: settings drawn at random, each draw a training of its own without the domain left out, and judged by the rule of "
        f"model selection that the captions name. What won by {by} is fixed for all runs of the study; the other columns say what another average "
        f"would have chosen, in % {judged}."
    )


def winners(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """A row per search for reading: the settings that won by the strategy ``by``, then "same", or the others, for each strategy."""
    rows = []
    for (target, student), part in table.groupby(["target", "student"], sort=False):
        part = part.set_index("strategy")
        won = part.loc[by]
        row = {"unseen domain": target, "student": student, "fixed": won["settings"] or "–", "source": won["source"]}
        for label, other in part.drop(index=by).iterrows():
            row[f"by {label}"] = "same" if other["settings"] == won["settings"] else other["settings"] or "–"
        rows.append(row)
    return pd.DataFrame(rows)


def otherwise(table: pd.DataFrame, by: str) -> list[str]:
    """A sentence for each other strategy: in how many searches it would have chosen otherwise."""
    wide = table.pivot(index=["target", "student"], columns="strategy", values="settings")
    draws = table.pivot(index=["target", "student"], columns="strategy", values="draws")
    wide = wide.where(draws > 1, "")  # of one there is no choice
    wide = wide[wide[by] != ""]
    said = []
    for label in table["strategy"].unique():
        both = wide[wide[label] != ""]
        if label != by and len(both):
            other = int((both[label] != both[by]).sum())
            said.append(f"{label} would have chosen otherwise in {other} of {len(both)} searches.")
    return said

"""Differences that were named before there was a result, and runs of one split merged into one, as if they were a student."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from ..averaging import NoWindow
from ..data.domains import split_of
from ..evaluation import merging
from ..evaluation.journal import Growing, computed, table_file
from ..evaluation.soups import Soup
from ..names import MERGED, did_you_mean
from ..runs.identity import digest, of_recording
from ..runs.run import Run
from ..written import written
from .collect import Recorded, place_of
from .differences import headline, label_of, paired, refuse_unscored, verdict

_COLUMNS = {
    "strategy": str,
    "domain": str,
    "role": str,
    "accuracy": float,
    "nll": float,
    "ece": float,
    "n": int,
    "note": str,
}


def merged(
    study: Recorded,
    students: Sequence[str],
    rules: Sequence[str | Mapping],
    averages: Sequence[str],
    *,
    progress: bool = False,
) -> pd.DataFrame:
    """What runs of several students come to when those of one target and seed are merged: rows as in ``Recorded.scores``, of the
    student ``MERGED``, whose strategies are called "ties of WAKD".

    rules     of ``evaluation.merging``, by name or {"name", "label", settings}
    averages  labels: each run takes part as this average of it

    Kept with the first of these runs. Where a run, or a window of its, is missing, there are no rows. Raises ``RunProblem`` for runs
    without a common start, and ``ValueError`` for a student that is not there.
    """
    for student in students:
        if student not in study.students:
            raise ValueError(did_you_mean("student to be merged", student, study.students))
    labels, rules = labelled(rules)
    splits: dict[tuple, dict[str, Run]] = {}
    for run in study.runs:
        if run.name in students:
            splits.setdefault(tuple(place_of(run).values()), {})[run.name] = run
    tables = []
    for runs in tqdm(
        [runs for runs in splits.values() if len(runs) == len(students)], unit="split", disable=not progress
    ):
        members = [runs[student] for student in students]
        for average in averages:
            chosen = [study.choices(run).get(average) for run in members]
            if any(choice is None or isinstance(choice, NoWindow) for choice in chosen):
                continue
            table = _of_one_split(study, members, chosen, rules)
            table["strategy"] = table["strategy"].map(dict(zip(map(str, range(len(rules))), labels))) + f" of {average}"
            tables.append(table.assign(student=MERGED, deployed=False, **place_of(members[0])))
    return pd.concat(tables, ignore_index=True) if tables else study.scores.iloc[:0]


def labelled(rules: Sequence[str | Mapping]) -> tuple[list[str], list[dict]]:
    """What rules of merging are called, and each as {"name", settings}. Raises ``UnknownName`` and ``ValueError`` for what is no
    rule, and for two of one label."""
    given = [{k: v for k, v in rule.items() if k != "label"} if isinstance(rule, Mapping) else rule for rule in rules]
    given = [*map(merging.named, given)]
    labels = _labels(rules)
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"Two rules of merging are called {twice[0]!r}; give one of them a 'label'.")
    return labels, given


def _labels(rules: Sequence[str | Mapping]) -> list[str]:
    return [rule if isinstance(rule, str) else rule.get("label", rule.get("name")) for rule in rules]


def _of_one_split(study: Recorded, members: Sequence[Run], chosen: Sequence, rules: Sequence[Mapping]) -> pd.DataFrame:
    """The scores of every rule, which is called by its place: labels are no part of what is kept."""
    identity = {"kind": "merged", "rules": list(rules), "of": [of_recording(run) for run in members]}
    identity["as"] = [choice.plain | {"note": ""} for choice in chosen]
    identity["code"] = digest(*(written(merging.rules.get(rule["name"])) for rule in rules))
    sources = {domain for run in members for domain in run.settings["split"]["sources"]}

    def missing(table: Growing) -> Iterator[list[dict]]:
        split = split_of(members[0].settings["split"], study.domains, sources=sorted(sources))
        soup = Soup(members, coefficients=chosen, split=split)
        for place in range(table.done, len(rules)):
            yield soup.evaluate({str(place): rules[place]}).to_dict("records")

    file = table_file(members[0], f"merged-{digest(str(identity))}")
    unseen = members[0].settings["split"].get("targets") or [members[0].settings["split"]["target"]]
    domains = len(sources) + len(unseen)
    return computed(file, identity, _COLUMNS, missing, points=len(rules), rows_per_point=domains)


def contrasts(
    scores: pd.DataFrame, pairs: Sequence, against: Sequence[str] = (), *, margin: float = 0.0
) -> pd.DataFrame:
    """``differences.paired`` of the pairs that were named, and of all that was merged less one average of one student.

    pairs    [[student, label], [student, label]]: the first less the second
    against  [student, label]
    margin   points within which two count as on par, for verdicts; 0 for none, and no column
    """
    wanted = [(tuple(first), tuple(second)) for first, second in pairs]
    if against:
        own = scores[scores["student"] == MERGED]
        wanted += [((MERGED, label), tuple(against)) for label in own["strategy"].unique()]
    table = paired(scores, [*dict.fromkeys(wanted)])
    return table.assign(margin=margin) if margin else table


def with_merged(study: Recorded, merge: Mapping[str, Sequence], *, progress: bool = False) -> pd.DataFrame:
    """The scores of a study, and those of what is ``merged`` where something is."""
    if not merge:
        return study.scores
    return pd.concat([study.scores, merged(study, **merge, progress=progress)], ignore_index=True)


def levels(scores: pd.DataFrame, pairs: Sequence, against: Sequence[str] = ()) -> pd.DataFrame:
    """What is compared, a row each: ``student, average``, mean accuracy in per cent on the ``unseen`` domain and on ``source``
    validation over ``runs``; only over those that have a score."""
    sides = dict.fromkeys(tuple(side) for pair in [*pairs, *[[against]] * bool(against)] for side in pair)
    sides |= dict.fromkeys((MERGED, label) for label in scores.loc[scores["student"] == MERGED, "strategy"].unique())
    rows, known = [], dict.fromkeys(scores[["student", "strategy"]].itertuples(index=False, name=None))
    for student, label in sides:
        refuse_unscored((student, label), known)
        own = scores[(scores["student"] == student) & (scores["strategy"] == label)].dropna(subset="accuracy")
        mean = (
            100
            * own.groupby(["target", "seed", "role"])["accuracy"]
            .mean()
            .unstack()
            .reindex(columns=["target", "source"])
            .mean()
        )
        runs = len(own[["target", "seed"]].drop_duplicates())
        rows.append(
            {"student": student, "average": label, "unseen": mean["target"], "source": mean["source"], "runs": runs}
        )
    return pd.DataFrame(rows, columns=["student", "average", "unseen", "source", "runs"])


def verdicts(table: pd.DataFrame) -> list[str]:
    """A sentence for every difference, as they were named, and one on all of them together."""
    if table.empty:
        return ["No difference was named, and nothing was merged."]
    told = table.loc[table["p_holm"] < 0.05, "label"]
    held = f"{len(told)} keep{'s' * (len(told) == 1)} p < 0.05{': ' * bool(len(told))}{', '.join(told)}"
    return [*(verdict(row) for _, row in table.iterrows()), f"With Holm's correction for all {len(table)}, {held}."]


def answer(gains: pd.DataFrame, asked: Mapping | Sequence[str], baseline: str, tables: str | os.PathLike) -> str:
    """A page's first sentences: ``differences.headline`` of averages, or of pairs that were named, by their labels, from the
    table that 07_named_pairs wrote into ``tables``. Empty where nothing was asked, or there is no such table."""
    if isinstance(asked, Mapping):
        return headline(gains, asked, baseline)
    if not (Path(tables) / "named_pairs.csv").is_file():
        return ""
    found = pd.read_csv(Path(tables) / "named_pairs.csv").set_index("label", drop=False)
    return " ".join(verdict(found.loc[label]) for label in asked if label in found.index)


def labels_of_pairs(pairs: Sequence, merge: Mapping[str, Sequence], against: Sequence[str]) -> list[str]:
    """What ``contrasts`` calls the pairs that are named, and what comes of merging."""
    named = [(tuple(first), tuple(second)) for first, second in pairs]
    if merge and against:
        named += [((MERGED, label), tuple(against)) for label in labels_of_merged(**merge)]
    return [label_of(*sides) for sides in named]


def labels_of_merged(students: Sequence[str], rules: Sequence[str | Mapping], averages: Sequence[str]) -> list[str]:
    """The strategies that ``MERGED`` has once runs are ``merged``."""
    return [f"{rule} of {average}" for average in averages for rule in _labels(rules)]

"""Tables over many runs: means with spread, paired differences with intervals, mean ranks, and what they say in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .recorded import DEPLOYED, Recorded, collect
from .statistics import bootstrap_interval, holm, interval, p_value, rank_methods

__all__ = [
    "DEPLOYED",
    "Recorded",
    "answer",
    "answers",
    "brackets",
    "by_seed",
    "collapsed",
    "collect",
    "findings",
    "interval",
    "on_unseen",
    "one_run",
    "paired",
    "probability",
    "ranks",
    "rounded",
    "summary",
    "verdict",
]


def summary(scores: pd.DataFrame, measure: str = "accuracy") -> pd.DataFrame:
    """A fraction measured on unseen domains (``accuracy``, ``ece``, ...) per student and strategy, in per cent.

    scores  long: ``student, strategy, target, seed, role`` and the measure. One column per target (mean over seeds);
    ``mean`` over targets as the domain-generalisation literature reports it, ``sd`` of that mean over seeds and ``se`` its
    standard error, sd / sqrt(seeds), as in DomainBed's tables (Gulrajani and Lopez-Paz 2021, which divide by n, not n - 1,
    under the root of sd); ``n`` runs. A strategy that found no window in some run, or was not evaluated on it, has no mean:
    a mean over the rest would not be comparable. ``missing`` counts the runs of its student without a score.
    """
    unseen = on_unseen(scores)
    rows = []
    for (student, strategy), part in unseen.groupby(["student", "strategy"], sort=False):
        by_target = 100 * part.pivot(index="seed", columns="target", values=measure)
        of_student = unseen[unseen["student"] == student]
        by_target = by_target.reindex(
            index=sorted(of_student["seed"].unique()), columns=sorted(unseen["target"].unique())
        )
        average = by_target.mean(axis=1, skipna=False)
        sd = average.std(ddof=1, skipna=False)
        rows.append(
            {
                "student": student,
                "strategy": strategy,
                **by_target.mean(skipna=False).to_dict(),
                "mean": average.mean(skipna=False),
                "sd": sd,
                "se": sd / np.sqrt(len(average)),
                "n": int(by_target.notna().sum().sum()),
                "missing": int(by_target.isna().sum().sum()),
            }
        )
    return pd.DataFrame(rows)


def by_seed(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores on one unseen domain, seed by seed, in per cent: ``student, strategy``, a column per seed, their ``mean`` and
    ``sd``, ``ece`` there and accuracy on ``source`` validation, both means over seeds. NaN where no window was found."""
    unseen, rows = on_unseen(scores), []
    sources = scores[scores["role"] == "source"].groupby(["student", "strategy"])["accuracy"]
    source = 100 * sources.agg(lambda values: values.mean(skipna=False))
    for (student, strategy), part in unseen.groupby(["student", "strategy"], sort=False):
        accuracy = 100 * part.set_index("seed")["accuracy"].reindex(sorted(unseen["seed"].unique()))
        rows.append(
            {
                "student": student,
                "strategy": strategy,
                **{f"seed {seed}": value for seed, value in accuracy.items()},
                "mean": accuracy.mean(skipna=False),
                "sd": accuracy.std(ddof=1, skipna=False),
                "ECE": 100 * part["ece"].mean(skipna=False),
                "source": source[student, strategy],
            }
        )
    return pd.DataFrame(rows)


def on_unseen(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows on the unseen domain. Raises ``ValueError`` when two of them claim the same student, target and seed."""
    unseen = scores[scores["role"] == "target"]
    key = ["student", "strategy", "target", "seed"]
    twice = unseen[unseen.duplicated(key)]
    if len(twice):
        first = ", ".join(f"{name} {value}" for name, value in twice[key].iloc[0].items())
        raise ValueError(f"Two scores of {first}: runs that differ otherwise need student names that tell them apart.")
    return unseen


def paired(scores: pd.DataFrame, contrasts: Sequence[tuple[tuple[str, str], tuple[str, str]]]) -> pd.DataFrame:
    """Differences in accuracy on the unseen domain, in points, paired by target and seed.

    contrasts  ((student, strategy), (student, strategy)): the first minus the second

    ``label``; ``student`` whose strategies they are, "" between two; ``mean``; ``low, high``: the 95 % t interval over all ``n`` target x seed pairs; ``boot_low, boot_high``: the
    bootstrap's, targets resampled and seeds within them (``statistics.bootstrap_interval``); ``p`` of the t test over all
    pairs and ``p_holm`` with Holm's correction over the rows of this table; ``missing``: targets and seeds left out for
    want of a score on both sides (no window found, say); ``better``: pairs above zero; ``pairs``: all of them.
    Pairs share targets, so ``target_low, target_high`` is the t interval over the means of the ``targets`` targets as
    well: wide with few targets, and the honest one for a domain not in the list.
    """
    unseen = on_unseen(scores).set_index(["student", "strategy", "target", "seed"]).sort_index()["accuracy"]
    known = unseen.index.droplevel(["target", "seed"]).unique()
    rows = []
    for first, second in contrasts:
        for side in (first, second):
            if side not in known:
                raise ValueError(f"No scores of {' '.join(side)}; there are {', '.join(' '.join(k) for k in known)}.")
        both = 100 * (unseen[first] - unseen[second])
        pairs = both.dropna()
        targets = [part.to_numpy() for _, part in pairs.groupby("target")]
        (low, high), (target_low, target_high) = interval(pairs), interval([part.mean() for part in targets])
        boot_low, boot_high = bootstrap_interval(targets)
        rows.append(
            {
                "label": _label(first, second),
                "student": first[0] if first[0] == second[0] else "",
                "mean": pairs.mean(),
                "low": low,
                "high": high,
                "boot_low": boot_low,
                "boot_high": boot_high,
                "p": p_value(pairs),
                "n": len(pairs),
                "missing": len(both) - len(pairs),
                "better": int((pairs > 0).sum()),
                "targets": len(targets),
                "target_low": target_low,
                "target_high": target_high,
                "pairs": pairs.to_numpy(),
            }
        )
    table = pd.DataFrame(rows, columns=list(_DIFFERENCE))
    return table.assign(p_holm=holm(table["p"]))


MANY = 20
_DIFFERENCE = (
    *(
        "label",
        "student",
        "mean",
        "low",
        "high",
        "boot_low",
        "boot_high",
        "p",
        "p_holm",
        "n",
        "missing",
        "better",
        "targets",
    ),
    *("target_low", "target_high", "pairs"),
)


def ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean ranks of the strategies of each student by accuracy on the unseen domain, 1 is best, with Nemenyi's test.

    ``student, strategy, rank``; ``blocks``: targets x seeds that were ranked; ``p``: Friedman's, of strategies that do
    not differ; ``difference``: two mean ranks this far apart differ at the 5 % level. See ``statistics.rank_methods``;
    seeds of one target count as blocks of their own, as data sets do there, so p speaks of these targets. A strategy
    without a score on every run has no rank. Students with fewer than two ranked strategies or two blocks are left out.
    """
    rows = []
    for student, part in on_unseen(scores[scores["strategy"] != DEPLOYED]).groupby("student", sort=False):
        table = part.pivot(index=["target", "seed"], columns="strategy", values="accuracy")[part["strategy"].unique()]
        whole = table.dropna(axis="columns")
        if min(whole.shape) < 2:
            continue
        found = rank_methods(whole.to_numpy())
        rank = dict(zip(whole.columns, found.mean))
        rows += [
            {
                "student": student,
                "strategy": strategy,
                "rank": rank.get(strategy, float("nan")),
                "blocks": found.blocks,
                "p": found.p,
                "difference": found.difference,
            }
            for strategy in table
        ]
    return pd.DataFrame(rows, columns=["student", "strategy", "rank", "blocks", "p", "difference"])


def _label(first: tuple[str, str], second: tuple[str, str]) -> str:
    if first[0] == second[0]:
        return f"{first[0]}: {first[1]} - {second[1]}"
    return f"{' '.join(first)} - {' '.join(second)}"


def verdict(row: pd.Series) -> str:
    """One sentence for a row of ``paired``, from its numbers alone."""
    left_out = f"; {row['missing']} left out for want of a score on both sides" if row["missing"] else ""
    if row["n"] == 0:
        return f"{row['label']}: no pair with a score on both sides; nothing can be said."
    if row["n"] == 1:
        return f"{row['label']}: {row['mean']:+.1f} points, one pair only{left_out}; nothing can be said."
    if row["low"] > 0:
        finding = "higher on these domains"
    elif row["high"] < 0:
        finding = "lower on these domains"
    else:
        finding = "not distinguishable from no difference"
    over_targets = ""
    if row["targets"] > 1:
        over_targets = f"; over the {row['targets']} target means [{row['target_low']:+.1f}, {row['target_high']:+.1f}]"
    return (
        f"{row['label']}: {row['mean']:+.1f} points [{row['low']:+.1f}, {row['high']:+.1f}], {finding}; "
        f"better in {row['better']} of {row['n']} target x seed pairs{left_out}{over_targets}."
    )


def findings(table: pd.DataFrame) -> list[str]:
    """What the rows of ``paired`` show, in sentences: a verdict on each difference whose interval leaves out zero, one
    sentence on all that cannot be told from none, one on what could not be compared, how many were looked at and which
    of them hold with Holm's correction. Of more than ``MANY`` differences a reader gets the verdicts that hold, and how
    many there are of the rest, which the table lists."""
    told = (table["n"] > 1) & ((table["low"] > 0) | (table["high"] < 0))
    hold = table["p_holm"] < 0.05
    held, even = table.loc[hold, "label"], table[(table["n"] > 1) & ~told]
    many = len(table) > MANY
    sentences = [verdict(row) for _, row in table[told & hold if many else told].iterrows()]
    listed = [f"{r['label']} ({r['mean']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}])" for _, r in even.iterrows()]
    for what, labels in (
        ("Not distinguishable from no difference", [f"{len(even)} of them"] * bool(len(even)) if many else listed),
        ("One pair only, so nothing can be said", table.loc[table["n"] == 1, "label"]),
        ("No pair with a score on both sides", table.loc[table["n"] == 0, "label"]),
    ):
        if len(labels):
            sentences.append(f"{what}: {', '.join(labels)}.")
    if many:
        sentences.append(
            f"{(told & ~hold).sum()} more leave out zero by themselves and do not hold with Holm's correction for all; of {len(table)} "
            f"looks about {0.05 * len(table):.0f} would where nothing differs."
        )
    if len(table) > 1:
        sentences.append(
            f"{len(table)} differences were looked at; the 95 % intervals are of each one by itself. With Holm's correction "
            f"for all of them, {len(held)} keep{'s' * (len(held) == 1)} p < 0.05{': ' * bool(len(held))}{', '.join(held)}."
        )
    return sentences


def collapsed(scores: pd.DataFrame, baseline: str) -> list[str]:
    """A sentence on each student with runs whose ``baseline`` has less than half of the student's median accuracy on source
    validation: a training that fell apart, whose scores swamp a mean. None of them is left out anywhere."""
    source = scores[(scores["role"] == "source") & (scores["strategy"] == baseline)]
    accuracy = source.groupby(["student", "target", "seed"], sort=False)["accuracy"].mean()
    sentences = []
    for student, runs in accuracy.groupby("student", sort=False):
        fallen = runs[runs < runs.median() / 2]
        if len(fallen):
            which = ", ".join(f"{target} seed {seed}" for _, target, seed in fallen.index)
            sentences.append(
                f"{student}: {len(fallen)} of {len(runs)} runs fell apart ({which}): {100 * fallen.max():.0f} % or less on source "
                f"validation at {baseline}, where half of its runs have {100 * runs.median():.0f} % or more. They are in every mean and interval."
            )
    return sentences


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """The table of ``paired`` as it is printed: 95 % intervals in brackets, one decimal."""

    return pd.DataFrame(
        {
            "difference": table["label"],
            "mean": table["mean"].map(lambda m: f"{m:+.1f}" if np.isfinite(m) else "–"),
            "95 % t": [brackets(*ends) for ends in zip(table["low"], table["high"])],
            "95 % bootstrap": [brackets(*ends) for ends in zip(table["boot_low"], table["boot_high"])],
            "95 % t, target means": [brackets(*ends) for ends in zip(table["target_low"], table["target_high"])],
            "better": [f"{better} of {n}" if n else "–" for better, n in zip(table["better"], table["n"])],
            "p": table["p"].map(probability),
            "p, Holm": table["p_holm"].map(probability),
        }
    )


def brackets(low: float, high: float) -> str:
    """An interval as it is printed; a dash where there is none."""
    return f"[{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else "–"


def probability(p: float) -> str:
    """A p value as it is printed; a dash where there is none."""
    return "–" if np.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def one_run(table: pd.DataFrame) -> pd.DataFrame:
    """The table of ``evaluate`` for readers: strategies by domains in per cent, the unseen one first, and what was picked."""
    unseen = list(table.loc[table["role"] == "target", "domain"].unique())  # none where no domain was left out
    wide = 100 * table.pivot(index="strategy", columns="domain", values="accuracy").loc[table["strategy"].unique()]
    wide = wide[[*unseen, *(d for d in wide if d not in unseen)]].rename(columns={d: f"{d} (unseen)" for d in unseen})
    notes = table.drop_duplicates("strategy").set_index("strategy")["note"]
    return wide.assign(picked=notes).reset_index()


def answer(table: pd.DataFrame, label: str) -> str:
    """One sentence: what one average scores on the unseen domain and on source validation."""
    part = table[table["strategy"] == label]
    source = f"{part.loc[part['role'] == 'source', 'accuracy'].mean():.1%} on source validation (mean over domains)"
    unseen = [
        f"{r.accuracy:.1%} on the unseen domain {r.domain} ({r.n} images)"
        for r in part.itertuples()
        if r.role == "target"
    ]
    return f"{label} ({part['note'].iloc[0]}): {', '.join([*unseen, source])}."


def answers(table: pd.DataFrame, *, baseline: str) -> list[str]:
    """One sentence per strategy of one run: its accuracy on the unseen domain against the baseline's, with its noise."""
    unseen = table[table["role"] == "target"].set_index("strategy")
    base, sentences = unseen.loc[baseline], []
    for name, row in unseen.drop(index=baseline).iterrows():
        if np.isnan(row["accuracy"]):
            sentences.append(f"{name} found no window: {row['note'].split('found no window: ')[-1]}")
            continue
        gain = 100 * (row["accuracy"] - base["accuracy"])
        sentences.append(
            f"{name} scores {row['accuracy']:.1%} on {row['domain']}, {gain:+.1f} points against {baseline}."
        )
    error = 100 * np.sqrt(base["accuracy"] * (1 - base["accuracy"]) / base["n"])
    sentences.append(
        f"One run on {base['n']:.0f} images: each accuracy has a binomial standard error of about {error:.1f} points, and "
        "another seed would move it further. Averages over targets and seeds are in the comparison."
    )
    return sentences

"""Tables over many runs: means with spread, paired differences with intervals, mean ranks, and what they say in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from ..averaging.curves import diverged
from ..files import columns_of
from ..names import did_you_mean
from ..statistics import DASH as DASH
from ..statistics import FEWEST, bootstrap_interval, holm, interval, p_value, pairs_to_tell, rank_methods
from .collect import DEPLOYED, Recorded
from .collect import collect as collect


def grid(scores: pd.DataFrame, role: str = "target") -> float:
    """The step of the grid that accuracies lie on, in points, at its widest; 0 where ``n`` is not told.

    It is 100 / images. A mean over D domains is rounded as on a grid of (100 / D) sqrt(sum of 1 / images^2), since the
    variances step^2 / 12 of independent roundings add up: one small domain among large ones stays coarse.
    """
    rows = scores[(scores["role"] == role) & (scores.get("n", pd.Series(0, scores.index)) > 0)]
    if rows.empty:
        return 0.0
    runs = (100.0 / rows["n"]).groupby([rows[name] for name in ("student", "strategy", "target", "seed")])
    return float(runs.agg(lambda steps: np.sqrt((steps**2).sum()) / len(steps)).max())


def summary(scores: pd.DataFrame, measure: str = "accuracy") -> pd.DataFrame:
    """A fraction measured on unseen domains (``accuracy``, ``ece``, ...) per student and strategy, in per cent.

    scores  long: ``student, strategy, target, seed, role`` and the measure. One column per target (mean over seeds), called
    as ``columns_of`` says, of several that were left out at once one of each besides; ``mean`` over targets as the domain-generalisation literature reports it, ``sd`` of that mean over seeds and ``se`` its
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
                **_apart(scores, student, strategy, measure),
                **by_target.mean(skipna=False).rename(columns_of(by_target)).to_dict(),
                "mean": average.mean(skipna=False),
                "sd": sd,
                "se": sd / np.sqrt(len(average)),
                "n": int(by_target.notna().sum().sum()),
                "missing": int(by_target.isna().sum().sum()),
            }
        )
    return pd.DataFrame(rows)


def _apart(scores: pd.DataFrame, student: str, strategy: str, measure: str) -> dict[str, float]:
    """{domain: its mean over seeds} of those that were not left out alone; "domain of targets" where another target has it, too."""
    if "domain" not in scores:
        return {}
    rows = scores[scores["role"] == "target"]
    twice = rows.groupby("domain")["target"].nunique() > 1
    rows = rows[rows.groupby("target")["domain"].transform("nunique") > 1]
    own = rows[(rows["student"] == student) & (rows["strategy"] == strategy)]
    found = {}
    for target, domain in dict.fromkeys(zip(rows["target"], rows["domain"])):
        part = own[(own["target"] == target) & (own["domain"] == domain)][measure]
        name = f"{domain} of {target}" if twice[domain] else domain
        found[columns_of([name])[name]] = 100 * part.mean(skipna=False)
    return found


def beside(study: Recorded, published: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Published numbers with ours: ``student, strategy, published, ours, sd, n``, in per cent.

    published  {student: {strategy: mean over the unseen domains}}, of the setting that these runs repeat, as a study's file
               says. What is not compared here has no row; nothing has one unless every domain was left out in turn

    ``ours`` is the mean over targets, ``sd`` its spread over seeds, ``n`` runs, as in ``summary``.
    """
    splits = [run.settings["split"] for run in study.runs]
    every = {domain for split in splits for domain in (split["target"], *split["sources"])}
    ours = summary(study.scores).set_index(["student", "strategy"])
    rows = [
        {
            "student": student,
            "strategy": strategy,
            "published": number,
            "ours": own["mean"],
            "sd": own["sd"],
            "n": own["n"],
        }
        for student, numbers in published.items()
        for strategy, number in numbers.items()
        if (student, strategy) in ours.index and {*study.targets} == every
        for own in [ours.loc[(student, strategy)].to_dict()]
    ]
    return pd.DataFrame(rows, columns=["student", "strategy", "published", "ours", "sd", "n"])


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
    """The rows on the unseen domain, of several that were left out at once the mean, which weighs them alike, and the ``n`` images
    of all. Raises ``ValueError`` when two of one domain claim the same student, target and seed."""
    unseen = scores[scores["role"] == "target"]
    key = ["student", "strategy", "target", "seed"]
    twice = unseen[unseen.duplicated([*key, *({"domain"} & {*unseen})])]
    if len(twice):
        first = ", ".join(f"{name} {value}" for name, value in twice[key].iloc[0].items())
        raise ValueError(f"Two scores of {first}: runs that differ otherwise need student names that tell them apart.")
    if not unseen.duplicated(key).any():
        return unseen
    own = {"n": "sum", "worst_group": lambda values: values.min(skipna=False)}
    measured = {name: lambda values: values.mean(skipna=False) for name in unseen.select_dtypes("float")}
    how = {name: own.get(name, measured.get(name, "first")) for name in unseen if name not in key}
    return unseen.groupby(key, sort=False, as_index=False).agg(how)[[*unseen]]


def refuse_unscored(side: tuple[str, str], known: Iterable[tuple[str, str]]) -> None:
    """Raises ``ValueError`` for a student and strategy of which there are no scores."""
    if side not in known:
        raise ValueError(f"No scores of {' '.join(side)}; there are {', '.join(' '.join(k) for k in known)}.")


def paired(scores: pd.DataFrame, contrasts: Sequence[tuple[tuple[str, str], tuple[str, str]]]) -> pd.DataFrame:
    """Differences in accuracy on the unseen domain, in points, paired by target and seed.

    contrasts  ((student, strategy), (student, strategy)): the first minus the second

    ``label``; ``student`` whose strategies they are, "" between two; ``mean``; ``low, high``: the 95 % t interval over all
    ``n`` target x seed pairs; ``boot_low, boot_high``: the bootstrap's, targets resampled and seeds within them
    (``statistics.bootstrap_interval``); ``p`` of the t test over all pairs and ``p_holm`` with Holm's correction over the
    rows of this table; ``missing``: targets and seeds left out for want of a score on both sides (no window found, say);
    ``better``: pairs above zero; ``pairs``: all of them, and ``pair_targets`` of each. Pairs share targets, so ``target_low, target_high`` is the t
    interval over the means of the ``targets`` targets as well: wide with few targets, and the honest one for a domain not
    in the list. Intervals and p are NaN for fewer than ``statistics.FEWEST`` values, and allow for the grid of accuracies.
    ``point_takes``: how many such pairs tell one point from none in four of five studies (``statistics.pairs_to_tell``).
    """
    unseen, step = on_unseen(scores), grid(scores)
    unseen = unseen.set_index(["student", "strategy", "target", "seed"]).sort_index()["accuracy"]
    known = unseen.index.droplevel(["target", "seed"]).unique()
    rows = []
    for first, second in contrasts:
        for side in (first, second):
            refuse_unscored(side, known)
        both = 100 * (unseen[first] - unseen[second])
        pairs = both.dropna()
        targets = [part.to_numpy() for _, part in pairs.groupby("target")]
        row = {"label": label_of(first, second), "student": first[0] if first[0] == second[0] else ""}
        row["boot_low"], row["boot_high"] = bootstrap_interval(targets)
        row["target_low"], row["target_high"] = interval([part.mean() for part in targets], step=step)
        row |= {"missing": len(both) - len(pairs), "better": int((pairs > 0).sum()), "targets": len(targets)}
        row["point_takes"] = pairs_to_tell(1.0, pairs, step=step)
        rows.append(
            row
            | estimate(pairs, step=step)
            | {"pairs": pairs.to_numpy(), "pair_targets": [*pairs.index.get_level_values("target")]}
        )
    table = pd.DataFrame(rows, columns=_DIFFERENCE)
    return table.assign(p_holm=holm(table["p"]))


MANY = 20
_DIFFERENCE = [
    *("label", "student", "mean", "low", "high", "boot_low", "boot_high", "p"),
    *("p_holm", "n", "missing", "better", "targets", "target_low", "target_high", "point_takes"),
    *("pairs", "pair_targets"),
]


def estimate(pairs: pd.Series, *, step: float, of: str = "mean") -> dict[str, float]:
    """What paired differences come to: the mean, called ``of``, its 95 % t interval ``low, high``, ``p`` of the t test, and
    ``n``. ``step`` is that of the grid they lie on, see ``statistics.interval``."""
    low, high = interval(pairs, step=step)
    return {of: pairs.mean(), "low": low, "high": high, "p": p_value(pairs, step=step), "n": len(pairs)}


def ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean ranks of the strategies of each student by accuracy on the unseen domain, 1 is best, with Nemenyi's test.

    ``student, strategy, rank``; ``blocks``: targets x seeds that were ranked; ``p``: Friedman's, of strategies that do
    not differ; ``difference``: two mean ranks this far apart differ at the 5 % level. See ``statistics.rank_methods``;
    seeds of one target count as blocks of their own, as data sets do there, so p speaks of these targets. A strategy
    without a score on every run has no rank. Students with fewer than two ranked strategies or two blocks are left out.
    """
    rows = []
    deployed = scores["deployed"] if "deployed" in scores else scores["strategy"] == DEPLOYED
    for student, part in on_unseen(scores[~deployed]).groupby("student", sort=False):
        table = part.pivot(index=["target", "seed"], columns="strategy", values="accuracy")[part["strategy"].unique()]
        whole = table.dropna(axis="columns")
        if min(whole.shape) < 2:
            continue
        found = rank_methods(whole.to_numpy())
        rank = dict(zip(whole.columns, found.mean))
        about = {"student": student, "blocks": found.blocks, "p": found.p, "difference": found.difference}
        rows += [{**about, "strategy": strategy, "rank": rank.get(strategy, float("nan"))} for strategy in table]
    return pd.DataFrame(rows, columns=["student", "strategy", "rank", "blocks", "p", "difference"])


def label_of(first: tuple[str, str], second: tuple[str, str]) -> str:
    """What a difference of two (student, label) is called."""
    if first[0] == second[0]:
        return f"{first[0]}: {first[1]} - {second[1]}"
    return f"{' '.join(first)} - {' '.join(second)}"


def _left_out(row: pd.Series) -> str:
    return f"; {row['missing']} left out for want of a score on both sides" if row.get("missing") else ""


def _within(row: pd.Series) -> str:
    """What the 95 % interval of a row says of the ``margin`` that was named for it, in points; "" where none was."""
    margin = row.get("margin", 0.0)
    if not margin > 0 or not row["low"] > -margin:
        return ""
    named = f"{margin:g} point{'s' * (margin != 1)}"
    if row["high"] < margin:
        return f"; on par, within {named} either way"
    return f"; not worse by {named}" if row["low"] <= 0 else ""


def verdict(row: pd.Series) -> str:
    """One sentence for a row of ``paired``, from its numbers alone. What leaves out zero by itself and does not hold with
    Holm's correction for all rows of its table is called suggestive. Where the row has a ``margin``, in points, it says whether the
    interval lies within it on both sides (two one-sided tests at 2.5 %), or on the side of worse."""
    left_out = _left_out(row)
    if row["n"] == 0:
        return f"{row['label']}: no pair with a score on both sides; nothing can be said."
    if row["n"] < FEWEST:
        few = _PAIRS[row["n"]].lower()
        return f"{row['label']}: {row['mean']:+.1f} points, {few} only{left_out}; nothing can be said."
    if np.isnan(row["low"]):
        return f"{row['label']}: {row['mean']:+.1f} points in each of {row['n']} pairs{left_out}; without a spread, nothing can be said."
    if row["low"] <= 0 <= row["high"]:
        finding = "not distinguishable from no difference"
    else:
        finding = f"{'higher' if row['low'] > 0 else 'lower'} on these domains"
        if row["p_holm"] >= 0.05:
            finding = f"suggestive of {finding} (p {row['p_holm']:.3f} with Holm's correction)"
    over_targets = ""
    if row["targets"] >= FEWEST:
        over_targets = f"; over the {row['targets']} target means {brackets(row['target_low'], row['target_high'])}"
    return (
        f"{row['label']}: {row['mean']:+.1f} points {brackets(row['low'], row['high'])}, {finding}{_within(row)}; "
        f"better in {row['better']} of {row['n']} target x seed pairs{left_out}{over_targets}."
    )


_PAIRS = {1: "One pair", 2: "Two pairs"}


def headline(table: pd.DataFrame, asked: Mapping[str, str], baseline: str) -> str:
    """The answer to a title that asks whether averaging helps: rows of ``paired`` in words, with their means and intervals.

    asked  {student: strategy}: the differences to ``baseline`` that answer, which a study names before there is a result; the words
           are by Holm's correction for them
    Empty where nothing was asked, or no such difference is in the table.
    """
    labels = [label_of((student, strategy), (student, baseline)) for student, strategy in asked.items()]
    rows = [row for label in labels for _, row in table[table["label"] == label].iterrows()]
    named = {label: f"averaged by {strategy}, {student}" for label, (student, strategy) in zip(labels, asked.items())}
    held = holm([row["p"] for row in rows])
    return " ".join(
        _answer(
            row, named[row["label"]], baseline, f"p {p:.3f} with Holm's correction for {len(rows)}" * bool(p >= 0.05)
        )
        for row, p in zip(rows, held)
    )


def _answer(row: pd.Series, who: str, baseline: str, falls: str) -> str:
    if row["n"] < FEWEST or np.isnan(row["low"]):
        return f"Nothing can be said: {who} has {row['n']} pair{'s' * (row['n'] != 1)} of target and seed to compare with {baseline}, or no spread."
    told = not row["low"] <= 0 <= row["high"]
    said = ("Yes" if row["mean"] > 0 else "No, it hurts") if told else "Not measurably"
    if told and falls:
        said = "It seems so" if row["mean"] > 0 else "It seems to hurt"
    way = "better" if row["mean"] > 0 else "worse"
    return (
        f"{said}: {who} is {abs(row['mean']):.1f} points {way} than {baseline} on unseen domains, with a 95 % interval "
        f"of {brackets(row['low'], row['high'])} over {row['n']} pairs of target and seed"
        f"{_left_out(row)}{f', {falls}' if told and falls else ''}.{'' if told else _takes([row['point_takes']])}"
    )


def _takes(pairs: Sequence[float]) -> str:
    """A sentence on how many pairs a point takes, of one difference or of several."""
    fewest, most = f"{min(pairs):.0f}", f"{max(pairs):.0f}"
    return f" At such a spread it takes {fewest}{f' to {most}' * (fewest != most)} pairs to tell one point from none in four of five studies."


def findings(table: pd.DataFrame) -> list[str]:
    """What the rows of ``paired`` show, in sentences: a verdict on each difference whose interval leaves out zero, one
    sentence on all that cannot be told from none and on how many pairs a point would take, one on what could not be compared,
    how many could be told and which of them hold with Holm's correction. Of more than ``MANY`` differences a reader gets the
    verdicts that hold, and how many there are of the rest, which the table lists."""
    looked = (table["n"] >= FEWEST) & table["low"].notna()  # the others could not have left out zero
    told = looked & ((table["low"] > 0) | (table["high"] < 0))
    hold = looked & (table["p_holm"] < 0.05)
    held, even, looks = table.loc[hold, "label"], table[looked & ~told], int(looked.sum())
    many = looks > MANY
    sentences = [verdict(row) for _, row in table[told & hold if many else told].iterrows()]
    of_n = {n: table.loc[table["n"] == n, "label"] for n in range(FEWEST)}
    if len(even):
        labels = (
            [f"{len(even)} of them"] if many else [f"{r['label']} ({points(r, 'mean')})" for _, r in even.iterrows()]
        )
        sentences.append(f"Not distinguishable from no difference: {', '.join(labels)}.{_takes(even['point_takes'])}")
    for what, labels in (
        (
            "The same in every pair, so without a spread nothing can be said",
            table.loc[~looked & (table["n"] >= FEWEST), "label"],
        ),
        *((f"{few} only, so nothing can be said", of_n[n]) for n, few in reversed(_PAIRS.items())),
        ("No pair with a score on both sides", of_n[0]),
    ):
        if len(labels):
            sentences.append(f"{what}: {', '.join(labels)}.")
    if many and (more := int((told & ~hold).sum())):
        by_themselves = "leaves out zero by itself and does" if more == 1 else "leave out zero by themselves and do"
        sentences.append(
            f"{more} more {by_themselves} not hold with Holm's correction for all; of {looks} looks about "
            f"{0.05 * looks:.0f} would where nothing differs."
        )
    if looks > 1:
        sentences.append(
            f"{looks} differences were looked at; the 95 % intervals are of each one by itself. With Holm's correction "
            f"for all of them, {len(held)} keep{'s' * (len(held) == 1)} p < 0.05{': ' * bool(len(held))}{', '.join(held)}."
        )
    return sentences


def collapsed(scores: pd.DataFrame, baseline: str) -> list[str]:
    """A sentence on each student with runs whose ``baseline`` has less than half of the student's median accuracy on source
    validation: a training that fell apart, whose scores swamp a mean. None of them is left out anywhere."""
    source = scores[(scores["role"] == "source") & (scores["strategy"] == baseline)]
    accuracy = source.groupby(["student", "target", "seed"], sort=False)["accuracy"].agg(lambda a: a.mean(skipna=False))
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
    missing = table.get("missing", pd.Series(0, table.index))
    better = [
        f"{better} of {n}{f', {lacking} left out' if lacking else ''}" if n else "–"
        for better, n, lacking in zip(table["better"], table["n"], missing)
    ]
    columns = {
        "difference": "label",
        "mean": "mean:+.1f",
        "95 % t": "low..high",
        "95 % bootstrap": "boot_low..boot_high",
    }
    columns |= {
        "95 % t, target means": "target_low..target_high",
        "better": "better",
        "p": "p:p",
        "p, Holm": "p_holm:p",
    }
    return printed_as(table.assign(better=better), columns)


def printed_as(table: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """A table of estimates for reading, with a dash for what is not known.

    columns  {heading: what stands below it}: a column's name, as it is; or, with spaces between, "column:+.1f" for a number,
             "column:p" for a p value, "low..high" for an interval
    """

    def cell(part: str, row: Mapping) -> str:
        name, _, form = part.partition(":")
        if not form:
            return brackets(*(row[end] for end in name.split("..")))
        return probability(row[name]) if form == "p" else format(row[name], form) if np.isfinite(row[name]) else "–"

    rows = table.to_dict("records")
    return pd.DataFrame(
        {
            heading: table[what]
            if what in table
            else [" ".join(cell(part, row) for part in what.split()) for row in rows]
            for heading, what in columns.items()
        }
    )


def brackets(low: float, high: float) -> str:
    """An interval as it is printed; a dash where there is none."""
    return f"[{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else "–"


def points(row: Mapping, of: str = "gain") -> str:
    """A difference with its interval, where it has one, in a sentence."""
    return f"{row[of]:+.1f}" + f" {brackets(row['low'], row['high'])}" * bool(np.isfinite(row["low"]))


def probability(p: float) -> str:
    """A p value as it is printed; a dash where there is none."""
    return "–" if np.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def one_run(table: pd.DataFrame) -> pd.DataFrame:
    """The table of ``evaluate`` for readers: strategies by domains in per cent, the unseen one first, and what was picked."""
    unseen = list(table.loc[table["role"] == "target", "domain"].unique())  # none where no domain was left out
    wide = 100 * table.pivot(index="strategy", columns="domain", values="accuracy").loc[table["strategy"].unique()]
    wide = wide[[*unseen, *(d for d in wide if d not in unseen)]]
    wide = wide.rename(columns=columns_of(wide) | {d: f"{d} (unseen)" for d in unseen})
    notes = table.drop_duplicates("strategy").set_index("strategy")["note"]
    return wide.assign(picked=notes).reset_index()


def answer(table: pd.DataFrame, label: str) -> str:
    """One sentence: what one average scores on the unseen domain and on source validation."""
    part = table[table["strategy"] == label]
    if part.empty:
        raise ValueError(did_you_mean("label", label, table["strategy"].unique()))
    if part["accuracy"].isna().all():
        return _without(label, part["note"].iloc[0])
    source = f"{part.loc[part['role'] == 'source', 'accuracy'].mean():.1%} on source validation (mean over domains)"
    unseen = [
        f"{r.accuracy:.1%} on the unseen domain {r.domain} ({r.n} images)"
        for r in part.itertuples()
        if r.role == "target"
    ]
    return f"{label} ({part['note'].iloc[0]}): {', '.join([*unseen, source])}."


def _without(name: str, note: str) -> str:
    why = note.split("found no window: ")[-1]
    return f"{name} has no accuracy: {why}." if diverged(why) else f"{name} found no window: {why}"


def answers(table: pd.DataFrame, *, baseline: str) -> list[str]:
    """One sentence per strategy of one run: its accuracy on the unseen domain against the baseline's, with its noise."""
    rows = table[table["role"] == "target"]
    lacks = rows[rows["accuracy"].isna()].groupby("strategy")["note"].first()
    mean = {"accuracy": lambda values: values.mean(skipna=False)}  # of several that were left out at once
    unseen = rows.groupby("strategy", sort=False).agg({"domain": " and ".join, "n": "sum", **mean})
    if baseline not in unseen.index:
        raise ValueError(did_you_mean("baseline", baseline, unseen.index))
    base, sentences = unseen.loc[baseline], []
    for name, row in unseen.iterrows():
        if np.isnan(row["accuracy"]):
            sentences.append(_without(name, lacks[name]))
            sentences += [f"So nothing is compared with {baseline}."] * (name == baseline)
        elif name != baseline:
            gain = 100 * (row["accuracy"] - base["accuracy"])
            against = "" if np.isnan(gain) else f", {gain:+.1f} points against {baseline}"
            sentences.append(f"{name} scores {row['accuracy']:.1%} on {row['domain']}{against}.")
    known = unseen.dropna(subset=["accuracy"])
    if known.empty:
        return sentences
    one = base if np.isfinite(base["accuracy"]) else known.iloc[0]
    error = 100 * np.sqrt(one["accuracy"] * (1 - one["accuracy"]) / one["n"])
    sentences.append(
        f"One run on {one['n']:.0f} images: each accuracy has a binomial standard error of about {error:.1f} points, and "
        "another seed would move it further. Averages over targets and seeds are in the comparison."
    )
    return sentences

"""Does averaging help every student alike? Tables and sentences over many students of the same targets and seeds."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import fdtrc

from ..objectives import objectives as registry
from ..runs.run import Run
from ..statistics import DASH, FEWEST, holm, rank_correlation, rank_methods, told
from .collect import PAIRED, Recorded
from .differences import estimate, grid, on_unseen, paired, points, printed_as


def before_after(scores: pd.DataFrame, *, baseline: str, average: str) -> pd.DataFrame:
    """A row per student: accuracy in per cent on unseen domains before and after averaging.

    scores  long, as ``Recorded.scores``
    ``student``; ``before`` and ``after``: means over all targets and seeds; ``gain`` in points with its 95 % t interval
    ``low, high`` over the ``n`` pairs, and ``sd`` of them; ``p`` of the t test and ``p_holm``, corrected for the students;
    ``source_gain``: the same difference on source validation, mean over source domains, with ``source_low, source_high``.
    Runs in which either found no window are left out on both sides, and counted in ``missing``. Students without such
    runs come first, highest average first: means over other runs are not comparable with theirs.
    """
    pairs, step, rows = _pairs(scores, baseline, average), grid(scores), []
    for student in scores["student"].unique():
        every = pairs[pairs["student"] == student]
        part = every.dropna()
        row = {"student": student, "before": part["before"].mean(), "after": part["after"].mean()}
        row |= {"sd": part["gain"].std(ddof=1), "missing": len(every) - len(part)}
        source = estimate(part["source_gain"], step=grid(scores, "source"), of="gain")
        row |= {f"source_{name}": value for name, value in source.items()}
        rows.append(row | estimate(part["gain"], step=step, of="gain"))
    table = pd.DataFrame(rows, columns=_COLUMNS)
    table = table.assign(incomplete=table["missing"] > 0, p_holm=holm(table["p"]))
    table = table.sort_values(["incomplete", "after"], ascending=[True, False], kind="stable", ignore_index=True)
    return table.drop(columns="incomplete")


_COLUMNS = [
    *("student", "before", "after", "gain", "low", "high", "sd"),
    *("p", "source_gain", "source_low", "source_high", "n", "missing"),
]


def gains(scores: pd.DataFrame, *, baseline: str, average: str) -> pd.DataFrame:
    """Gains on unseen domains in points, a row per target and seed, a column per student; NaN without a window."""
    return _pairs(scores, baseline, average).pivot(index=["target", "seed"], columns="student", values="gain")


def _pairs(scores: pd.DataFrame, baseline: str, average: str) -> pd.DataFrame:
    """``student, target, seed, before, after, gain, source_gain`` in per cent and points, a row per run."""
    on_unseen(scores)
    by = scores.groupby(["student", "target", "seed", "role", "strategy"], sort=False)["accuracy"]
    measured = by.agg(lambda values: values.mean(skipna=False)).unstack(["role", "strategy"])
    for label in (baseline, average):
        if ("target", label) not in measured:
            raise ValueError(f"No scores of {label}; there are {', '.join(scores['strategy'].unique())}.")
    wide = 100 * measured
    return pd.DataFrame(
        {
            "before": wide["target", baseline],
            "after": wide["target", average],
            "gain": wide["target", average] - wide["target", baseline],
            "source_gain": wide["source", average] - wide["source", baseline],
        }
    ).reset_index()


@dataclass(frozen=True)
class Spread:
    """How far the mean gains of students lie apart, beside what pairs that differ by noise alone would show.

    students, blocks  how many were compared, on how many targets x seeds that all of them have
    observed          sd of the students' mean gains, points
    noise             sd that those means would have if every student gained alike: residual sd / sqrt(blocks)
    between           estimated sd of true mean gains, sqrt(max(0, observed^2 - noise^2))
    p                 of the F test that every student gains alike (two-way analysis of variance without replication)
    p_ranks           of Friedman's test on the same gains, which looks at their order alone
    """

    students: int
    blocks: int
    observed: float
    noise: float
    between: float
    p: float
    p_ranks: float


def spread(scores: pd.DataFrame, *, baseline: str, average: str) -> Spread:
    """Do gains differ between students by more than noise? Blocks are targets x seeds, which students share.

    A student without a score on both sides of every block is left out; with fewer than two students, or
    ``statistics.FEWEST`` blocks, every number is NaN. Residuals are taken to be no smaller than the grid of accuracies
    allows. Seeds of one target share its images, so p speaks of these targets.
    """
    table = gains(scores, baseline=baseline, average=average).dropna(axis="columns").to_numpy()
    n, k = table.shape
    if n < FEWEST or k < 2:
        return Spread(k, n, *[float("nan")] * 5)
    means = table.mean(axis=0)
    residual = table - table.mean(axis=1, keepdims=True) - means + table.mean()
    error = max((residual**2).sum() / ((n - 1) * (k - 1)), grid(scores) ** 2 / 6)
    observed = means.var(ddof=1)
    p = float(fdtrc(k - 1, (n - 1) * (k - 1), n * observed / error)) if error > 1e-12 else float("nan")
    between = np.sqrt(max(0.0, observed - error / n))
    return Spread(k, n, float(np.sqrt(observed)), float(np.sqrt(error / n)), float(between), p, rank_methods(table).p)


def against(scores: pd.DataFrame, reference: str, label: str) -> pd.DataFrame:
    """``differences.paired`` of every student less the reference, all at one strategy; the teacher is left out."""
    students = [s for s in scores["student"].unique() if s not in (reference, "teacher")]
    return paired(scores, [((student, label), (reference, label)) for student in students])


def between_students(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with students and strategies exchanged, for ``differences.ranks`` to rank students at each strategy."""
    return scores.rename(columns={"student": "strategy", "strategy": "student"})


def findings(table: pd.DataFrame, apart: Spread, *, baseline: str, average: str) -> list[str]:
    """What ``before_after`` and ``spread`` show, in sentences, from their numbers alone."""
    none, known = table.loc[table["n"] == 0, "student"], table[table["n"] > 0]
    if known.empty:
        return [f"No student has a score at {baseline} and at {average}."]
    sentences = [
        f"{counted(known, average, baseline, 'students')} Gains run from {_gain(known, 'idxmin')} to {_gain(known, 'idxmax')}."
    ]
    if len(none):
        sentences.append(f"Without a score on both sides: {', '.join(none)}.")
    if np.isnan(apart.p):
        said = f"{apart.students} with both scores on {apart.blocks} targets x seeds."
        return [*sentences, f"Whether students gain alike cannot be said of {said}"]
    alike = "do not gain alike" if apart.p < 0.05 else "cannot be shown to gain differently"
    sentences.append(
        f"Students {alike}: their mean gains have an sd of {apart.observed:.1f} points, where noise alone would give "
        f"{apart.noise:.1f} (F test p {told(apart.p)}, Friedman p {told(apart.p_ranks)}; "
        f"{apart.students} students on {apart.blocks} targets x seeds); the true sd is estimated at {apart.between:.1f}."
    )
    whole = known[known["missing"] == 0]
    level = rank_correlation(whole["before"] + whole["after"], whole["gain"])
    order = rank_correlation(whole["before"], whole["after"])
    if np.isfinite(level + order):
        sentences.append(
            f"Over {len(whole)} students, the gain and the level (mean of before and after) have a rank correlation of "
            f"{level:+.2f}; the order of students before and after averaging one of {order:+.2f}. Best before: "
            f"{whole.loc[whole['before'].idxmax(), 'student']}; best after: {whole.loc[whole['after'].idxmax(), 'student']}."
        )
    return sentences


def counted(table: pd.DataFrame, average: str, baseline: str, what: str) -> str:
    """One sentence: how many intervals of the gain leave out zero, and how many hold with Holm's correction."""
    known = table[table["low"].notna()]
    higher, lower, held = (int(test.sum()) for test in (known["low"] > 0, known["high"] < 0, known["p_holm"] < 0.05))
    few = int((table["n"] > 0).sum() - len(known))
    return (
        f"{average} against {baseline} on unseen domains: higher for {higher} of {len(known)} {what} with a 95 % interval over "
        f"pairs that leaves out zero, lower for {lower}; {held} of them keep p < 0.05 with Holm's correction for all."
        + f" Of {few} {what if few > 1 else what[:-1]} with fewer than {FEWEST} pairs nothing can be said."
        * bool(few)
    )


def _gain(table: pd.DataFrame, which: str) -> str:
    row = table.loc[getattr(table["gain"], which)()]
    return f"{points(row)} ({row['student']}, n = {row['n']:.0f})"


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """``before_after`` as it is printed: one decimal, intervals in brackets, a dash for what is not known."""
    columns = {"student": "student", "before": "before:.1f", "after": "after:.1f", "gain, points": "gain:+.1f"}
    columns |= {
        "95 % t": "low..high",
        "sd of pairs": "sd:.1f",
        "p, Holm": "p_holm:p",
        "gain on source": "source_gain:+.1f",
    }
    return printed_as(table, columns | {"95 % t, source": "source_low..source_high", "n": "n"})


def objectives(study: Recorded) -> pd.DataFrame:
    """``student, model, objectives``: what each student minimises, with weights and settings other than the default."""
    rows = {}
    for run in study.runs:
        model, terms = run.settings["student"]["name"], objectives_of(run)
        rows.setdefault(run.name, {"student": run.name, "model": model, "objectives": terms})
    return pd.DataFrame(list(rows.values()))


def objectives_of(run: Run) -> str:
    """What a run minimised, in a line."""
    return " + ".join(map(term, run.settings["objectives"])) or "by other code"


def term(spec: dict) -> str:
    """One objective of a list with its weight, its temperature, and other settings where they are not the default; all of them
    where nobody declared it here."""
    about, usual = registry.about(spec["name"]) if spec["name"] in registry else None, {}
    if about:
        usual = json.loads(
            json.dumps({**about.built_with, **about.called_with, "schedule": about.schedule})
        )  # as recorded
    settings = {n: value for n, value in spec.items() if n not in ("name", "label", "weight")}
    own = {n: value for n, value in settings.items() if n == "temperature" or value != usual.get(n)}
    said = ", ".join(f"{name} {value}" for name, value in own.items())
    schedule = "scheduled as published" if about and about.schedule and "schedule" not in own else ""
    inside = ", ".join(filter(None, (said, schedule)))
    return f"{spec['weight']:g} {spec['name']}" + f" ({inside})" * bool(inside)


def captions(study: Recorded, reference: str, *, baseline: str, average: str) -> dict[str, str]:
    """What the numbers of the printed tables are, and what chose the models behind them."""
    over = f"{len(study.targets)} targets and {len(study.seeds)} seeds"
    return {
        "before_after": f"Accuracy in % on the domain left out, mean over {over}: before is {baseline}, after is {average}, "
        "with the paired difference in points, its 95 % t interval over pairs and the sd of pairs; p of the t test with "
        "Holm's correction for the students; the same difference on source validation, mean over its domains; n pairs, fewer "
        f"where no window was found, and then not comparable with the others. {DASH} {study.selection()}",
        "against": f"Accuracy of each student at {average} less that of {reference} at {average}, {PAIRED} "
        f"{study.selection([average])}",
    }

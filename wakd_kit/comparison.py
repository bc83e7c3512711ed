"""Tables over many runs: means with spread, and paired differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from .averaging import Coefficients, NoWindow
from .domains import Domains
from .recording import RunProblem
from .run import Run, load_run


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on unseen domains per student and strategy, in per cent.

    scores  long: ``student, strategy, target, seed, role, accuracy``. One column per target (mean over seeds); ``mean``
    over targets as the domain-generalisation literature reports it, ``sd`` of that mean over seeds, ``n`` runs. A
    strategy that found no window in some run, or was not evaluated on it, has no mean: a mean over the rest would not
    be comparable. ``missing`` counts the runs of its student without a score.
    """
    unseen = _unseen(scores)
    rows = []
    for (student, strategy), part in unseen.groupby(["student", "strategy"], sort=False):
        by_target = 100 * part.pivot(index="seed", columns="target", values="accuracy")
        of_student = unseen[unseen["student"] == student]
        by_target = by_target.reindex(
            index=sorted(of_student["seed"].unique()), columns=sorted(unseen["target"].unique())
        )
        average = by_target.mean(axis=1, skipna=False)
        rows.append(
            {
                "student": student,
                "strategy": strategy,
                **by_target.mean(skipna=False).to_dict(),
                "mean": average.mean(skipna=False),
                "sd": average.std(ddof=1, skipna=False),
                "n": int(by_target.notna().sum().sum()),
                "missing": int(by_target.isna().sum().sum()),
            }
        )
    return pd.DataFrame(rows)


def _unseen(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows on the unseen domain. Raises ``ValueError`` when two of them claim the same student, target and seed."""
    unseen = scores[scores["role"] == "target"]
    key = ["student", "strategy", "target", "seed"]
    twice = unseen[unseen.duplicated(key)]
    if len(twice):
        first = ", ".join(f"{name} {value}" for name, value in twice[key].iloc[0].items())
        raise ValueError(f"Two scores of {first}: runs that differ otherwise need student names that tell them apart.")
    return unseen


def interval(differences: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean; NaN with fewer than two values."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stdtrit(len(values) - 1, 0.5 + level / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def paired(scores: pd.DataFrame, contrasts: Sequence[tuple[tuple[str, str], tuple[str, str]]]) -> pd.DataFrame:
    """Differences in accuracy on the unseen domain, in points, paired by target and seed.

    contrasts  ((student, strategy), (student, strategy)): the first minus the second
    Returns ``label, mean, low, high, n, missing, better, targets, target_low, target_high, pairs``. ``low, high`` is the
    95 % t interval over all n target x seed pairs; they share targets, so ``target_low, target_high`` gives the interval
    over the means of the ``targets`` targets as well: wide with few targets, and the honest one for a domain not in the
    list. A target and seed without a score on both sides (no window found, say) is left out and counted as ``missing``.
    """
    unseen = _unseen(scores).set_index(["student", "strategy", "target", "seed"]).sort_index()["accuracy"]
    known = unseen.index.droplevel(["target", "seed"]).unique()
    rows = []
    for first, second in contrasts:
        for side in (first, second):
            if side not in known:
                raise ValueError(f"No scores of {' '.join(side)}; there are {', '.join(' '.join(k) for k in known)}.")
        both = 100 * (unseen[first] - unseen[second])
        pairs = both.dropna()
        by_target = pairs.groupby("target").mean()
        (low, high), (target_low, target_high) = interval(pairs), interval(by_target)
        rows.append(
            {
                "label": _label(first, second),
                "mean": pairs.mean(),
                "low": low,
                "high": high,
                "n": len(pairs),
                "missing": len(both) - len(pairs),
                "better": int((pairs > 0).sum()),
                "targets": len(by_target),
                "target_low": target_low,
                "target_high": target_high,
                "pairs": pairs.to_numpy(),
            }
        )
    return pd.DataFrame(rows)


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
    sentence on all that cannot be told from none, one on what could not be compared, and how many were looked at."""
    told = (table["n"] > 1) & ((table["low"] > 0) | (table["high"] < 0))
    sentences = [verdict(row) for _, row in table[told].iterrows()]
    even = table[(table["n"] > 1) & ~told]
    listed = [f"{r['label']} ({r['mean']:+.1f} [{r['low']:+.1f}, {r['high']:+.1f}])" for _, r in even.iterrows()]
    for what, labels in (
        ("Not distinguishable from no difference", listed),
        ("One pair only, so nothing can be said", table.loc[table["n"] == 1, "label"]),
        ("No pair with a score on both sides", table.loc[table["n"] == 0, "label"]),
    ):
        if len(labels):
            sentences.append(f"{what}: {', '.join(labels)}.")
    if len(table) > 1:
        sentences.append(f"{len(table)} differences were looked at; the 95 % intervals are of each one by itself.")
    return sentences


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """The table of ``paired`` as it is printed: intervals in brackets, one decimal."""

    def brackets(low: float, high: float) -> str:
        return f"[{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else "–"

    return pd.DataFrame(
        {
            "difference": table["label"],
            "mean": table["mean"].map(lambda m: f"{m:+.1f}" if np.isfinite(m) else "–"),
            "95 % interval": table.apply(lambda r: brackets(r["low"], r["high"]), axis=1),
            "better": table.apply(lambda r: f"{r['better']} of {r['n']}" if r["n"] else "–", axis=1),
            "95 % interval over targets": table.apply(lambda r: brackets(r["target_low"], r["target_high"]), axis=1),
        }
    )


def one_run(table: pd.DataFrame) -> pd.DataFrame:
    """The table of ``evaluate`` for readers: strategies by domains in per cent, the unseen one first, and what was picked."""
    unseen = table.loc[table["role"] == "target", "domain"].iloc[0]
    wide = 100 * table.pivot(index="strategy", columns="domain", values="accuracy").loc[table["strategy"].unique()]
    wide = wide[[unseen, *(d for d in wide if d != unseen)]].rename(columns={unseen: f"{unseen} (unseen)"})
    notes = table.drop_duplicates("strategy").set_index("strategy")["note"]
    return wide.assign(picked=notes).reset_index()


def answer(table: pd.DataFrame, label: str) -> str:
    """One sentence: what one average scores on the unseen domain and on source validation."""
    part = table[table["strategy"] == label]
    unseen, source = part[part["role"] == "target"].iloc[0], part.loc[part["role"] == "source", "accuracy"].mean()
    return (
        f"{label} ({unseen['note']}): {unseen['accuracy']:.1%} on the unseen domain {unseen['domain']} "
        f"({unseen['n']} images), {source:.1%} on source validation (mean over domains)."
    )


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


DEPLOYED = "deployed"  # the label under which a teacher's own average is scored


@dataclass(frozen=True)
class Recorded:
    """Runs with what ``evaluate`` measured on them. A run's student is called like its folder.

    labels  the strategies to compare; empty for all that were evaluated
    """

    runs: list[Run]
    labels: tuple[str, ...] = ()

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Long table: ``student, strategy, target, seed, domain, role, accuracy, nll, ece, n, note``."""
        tables = []
        for run in self._by_student():
            split = run.settings["split"]
            table = run.scores.assign(student=run.name, target=split["target"], seed=split["seed"])
            if self.labels:
                order = {label: i for i, label in enumerate([*self.labels, DEPLOYED])}
                table = table[table["strategy"].isin(order)].sort_values(
                    "strategy", key=lambda s: s.map(order), kind="stable"
                )
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def choices(self, run: Run) -> dict[str, Coefficients | NoWindow]:
        """What the compared strategies chose on one run; not what it deployed as a teacher."""
        chosen = run.choices
        return {label: chosen[label] for label in self.labels or chosen if label != DEPLOYED}

    def _by_student(self) -> list[Run]:
        order = self.students
        return sorted(self.runs, key=lambda run: order.index(run.name))

    @property
    def domains(self) -> Domains:
        return self.runs[0].split.domains

    @property
    def students(self) -> list[str]:
        """In the order of the runs, teacher first if there is one."""
        return sorted(dict.fromkeys(run.name for run in self.runs), key=lambda name: name != "teacher")

    @property
    def steps(self) -> int:
        return max(run.steps for run in self.runs)

    def about(self) -> str:
        """One sentence: what was trained, on what, how often."""
        targets, seeds = (sorted({run.settings["split"][key] for run in self.runs}) for key in ("target", "seed"))
        students = ", ".join(f"{n} ({self._example(n).settings['student']['name']})" for n in self.students)
        return (
            f"{len(self.runs)} recorded runs: {students}; each of {len(targets)} domains left out ({', '.join(targets)}) "
            f"with {len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))})."
        )

    def _example(self, name: str) -> Run:
        return next(run for run in self.runs if run.name == name)

    def caption(self) -> str:
        return (
            "Accuracy in % on the domain left out: mean over seeds per target, their mean, and its standard deviation over "
            "seeds. Nothing was chosen on the target. A dash: no window was found in at least one run."
        )

    def contrasts(self, baseline: str) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """Every strategy against the baseline within a student, then students against each other at the baseline and
        at the first averaging strategy that all of them have."""
        known = {n: list(self.scores.loc[self.scores["student"] == n, "strategy"].unique()) for n in self.students}
        known = {n: [s for s in names if s != DEPLOYED] for n, names in known.items()}
        within = [((n, s), (n, baseline)) for n, names in known.items() for s in names if s != baseline]
        pupils = [n for n in self.students if n != "teacher"]
        shared = [s for s in known[self.students[0]] if s != baseline and all(s in names for names in known.values())]
        averages = [s for s in shared if any(c.of == "mean" for c in self._coefficients(s))]
        between = [((b, s), (a, s)) for a, b in combinations(pupils, 2) for s in [baseline, *averages[:1]]]
        return within + between

    def _coefficients(self, strategy: str) -> list[Coefficients]:
        chosen = [run.choices.get(strategy) for run in self.runs]
        return [c for c in chosen if isinstance(c, Coefficients)]

    def picks(self) -> pd.DataFrame:
        """``student, strategy, target, seed, begin, end`` in steps of every window; NaN where none was found."""
        rows = []
        for run in self._by_student():
            curves = run.source_curves
            for label, choice in self.choices(run).items():
                row = {"student": run.name, "strategy": label, "target": run.settings["split"]["target"]}
                row |= {"seed": run.settings["split"]["seed"], "begin": np.nan, "end": np.nan}
                if isinstance(choice, Coefficients):
                    first, last = choice.window()
                    begin = curves.begins[first] - 1 if choice.of == "mean" else curves.ends[first] - 1
                    row |= {"begin": float(begin), "end": float(curves.ends[last])}
                rows.append(row)
        return pd.DataFrame(rows)

    def without_window(self) -> pd.DataFrame:
        """Strategies that found no window: ``student, strategy, target, seed, reason``; usually empty."""
        rows = [
            {
                "student": run.name,
                "strategy": label,
                "target": run.settings["split"]["target"],
                "seed": run.settings["split"]["seed"],
                "reason": str(choice),
            }
            for run in self._by_student()
            for label, choice in self.choices(run).items()
            if isinstance(choice, NoWindow)
        ]
        return pd.DataFrame(rows, columns=["student", "strategy", "target", "seed", "reason"])

    def reasons(self) -> pd.DataFrame:
        """``student, strategy, runs, reason``: strategies without a window, runs with the same reason in one row."""
        rows = []
        for (student, strategy, reason), part in self.without_window().groupby(
            ["student", "strategy", "reason"], sort=False
        ):
            of = sum(run.name == student for run in self.runs)
            which = ", ".join(f"{target} {seed}" for target, seed in zip(part["target"], part["seed"]))
            runs = f"all {of}" if len(part) == of else f"{len(part)} of {of}: {which}"
            reason = reason.split("found no window: ")[-1]
            rows.append({"student": student, "strategy": strategy, "runs": runs, "reason": reason})
        return pd.DataFrame(rows, columns=["student", "strategy", "runs", "reason"])

    def mapped(self) -> list[Run]:
        """The runs that have a window map."""
        return [run for run in self.runs if len(run.window_map)]

    def images(self, run: Run) -> int:
        """How many images of the unseen domain its accuracies are over."""
        return int(run.scores.loc[run.scores["role"] == "target", "n"].iloc[0])

    def label(self, run: Run) -> str:
        split = run.settings["split"]
        return f"{run.name}, unseen domain {split['target']}, seed {split['seed']}"

    def save(self, folder: str | Path, **tables: pd.DataFrame) -> None:
        """Write scores.csv, picks.csv and the given tables as csv into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in {"scores": self.scores, "picks": self.picks(), **tables}.items():
            table.drop(columns="pairs", errors="ignore").to_csv(folder / f"{name}.csv", index=False)


def collect(folder: str | Path, *, only: Sequence[str] = (), strategies: Sequence[str] = ()) -> Recorded:
    """Every finished and evaluated run below a folder, or those at ``only`` these places below it, in this order.

    strategies  labels to compare, default all that were evaluated
    Raises ``RunProblem`` when there is none, or when one of ``only`` was not evaluated with all of ``strategies``.
    """
    if not only:
        places = sorted(file.parent for file in Path(folder).rglob("settings.json"))
        runs = [load_run(place) for place in places if not place.name.endswith(".recording")]
        runs = sorted((r for r in runs if len(r.scores)), key=lambda r: (r.name, str(r.folder)))
        if not runs:
            raise RunProblem(
                f"No evaluated run below {folder}: train some with 02_distill, or call evaluate(run, ...)."
            )
        return Recorded(runs, tuple(strategies))
    runs = [load_run(Path(folder, place)) for place in only]
    for run in runs:
        known = set(run.scores["strategy"]) if len(run.scores) else set()
        missing = [label for label in strategies if label not in known]
        if missing or not known:
            raise RunProblem(f"{run.folder} was not evaluated with {', '.join(missing) or 'any strategy'}.")
    return Recorded(runs, tuple(strategies))

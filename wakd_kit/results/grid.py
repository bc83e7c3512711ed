"""When does averaging help? Every student of a study is one cell of a grid; its gain beside what should explain it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, product

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..averaging import Coefficients
from ..landscape.flatness import flatness
from ..landscape.neighbours import between, has_noise, noise
from ..runs.run import Run
from ..runs.store import RunProblem
from ..statistics import DASH, holm, rank_correlation
from .collect import Recorded, is_pretrained, place_of, recipe
from .differences import estimate, grid, points, printed_as
from .students import before_after, counted, gains, term

DIRECTIONS, FEWEST, ALL = 4, 8, "all"
SAID = {
    "dip": "dip of the source loss half way between neighbouring iterates, nats",
    "rise": "rise of the source loss in random directions, as far from the average as iterates are, nats",
    "relative": "distance of iterates from their average, over its distance from the start",
    "bounce": "bounce of iterates: 1 draws around a mean, 0 a drift",
    "spread": "distance of iterates from their average",
    "drift": "distance from first to last iterate, over that from the average",
}
MEASURES = tuple(SAID)
GAINS = {"unseen domains": "gain", "source validation": "source_gain"}  # what measures may explain, by where it is


def factors(run: Run) -> dict[str, object]:
    """What cells are told apart by in figures, from a run's settings: objective, learning rate, steps, start, schedule.

    Frozen BatchNorm goes with the start: without it averages get new statistics and single iterates keep theirs.
    """
    recipe = _recipe(run)
    told = {name: recipe[name] for name in ("objective", "learning rate", "steps", "start", "schedule")}
    told |= {"start": "pretrained"} if is_pretrained(run) else {}
    return told | ({"start": f"{told['start']}, frozen BatchNorm"} if recipe["batchnorm"] == "frozen" else {})


def _recipe(run: Run) -> dict[str, object]:
    """``collect.recipe``, with the objectives in words."""
    told = recipe(run)
    return {"objective": " + ".join(map(_objective, told.pop("objectives"))), **told}


def _by_split(study: Recorded, told: Callable[[Run], dict]) -> dict[str, dict[tuple, dict]]:
    """``{student: {(target, seed): told}}``; where no two students have one objective, it is called as the student is."""
    found: dict[str, dict[tuple, dict]] = {}
    for run in study.runs:
        found.setdefault(run.name, {})[tuple(place_of(run).values())] = told(run)
    objectives = {(name, recipe["objective"]) for name, runs in found.items() for recipe in runs.values()}
    if len({objective for _, objective in objectives}) == len(objectives) == len(found):
        return {name: {at: one | {"objective": name} for at, one in runs.items()} for name, runs in found.items()}
    return found


def _in_common(recipes: Iterable[dict]) -> dict[str, object]:
    """What recipes have; "0.001 or 0.01" of what they differ in, as where a search found another rate for each target."""
    first, *others = recipes
    differ = {name for other in others for name in _differ(first, other)}
    return first | {n: " or ".join(dict.fromkeys(_text(one.get(n)) for one in (first, *others))) for n in differ}


def _objective(spec: dict) -> str:
    return term(spec).removeprefix("1 ").replace(spec["name"], spec["name"].upper(), 1)


MANY = 24  # rows of a table that few read to its end


def measured(study: Recorded, average: str, *, progress: bool = False) -> pd.DataFrame:
    """``student, target, seed`` and what each run's iterates do in the window of this average: see ``noise``.

    ``dip`` is the mean over neighbours and source domains; ``rise`` the flatness of the average at ``spread``, how far
    iterates are from it, over ``DIRECTIONS`` random directions: how much of the dip is the valley's, and how much the way the
    noise points. Nothing of the target is read. Kept with each run. Runs that were not evaluated with it, or where it found
    no window or one of a single segment, have none of it.
    """
    if not any(average in run.choices for run in study.runs):
        raise RunProblem(f"{study.runs[0].folder} was not evaluated with {average}, nor was any other.")
    rows = []
    for run in tqdm(study.runs, disable=not progress, unit="run"):
        choice, row = run.choices.get(average), {"student": run.name, **place_of(run)}
        if isinstance(choice, Coefficients) and has_noise(run, choice):
            row |= noise(run, choice) | {"dip": between(run, choice)["dip"].mean()}
            flat = flatness(
                run, {average: choice}, radii=[row["spread"]], directions=DIRECTIONS, roles=("source",), name="rise"
            )
            row["rise"] = flat["increase"].mean()
        rows.append(row)
    return pd.DataFrame(rows, columns=["student", "target", "seed", *MEASURES])


def cells(study: Recorded, measures: pd.DataFrame, *, baseline: str, averages: Sequence[str]) -> pd.DataFrame:
    """A row per student and average: factors, the paired gain over the baseline with its interval, means of the measures.

    ``student, average``, the factors; ``before, after, gain, low, high, n`` on the unseen domain and ``source_gain,
    source_low, source_high`` on source validation, in per cent and points, as ``students.before_after``, ``p_holm`` corrected
    for all rows; ``dip``, ... as
    ``measured``, means over targets and seeds.
    """
    of_student = {name: _in_common(runs.values()) for name, runs in _by_split(study, factors).items()}
    means = measures.groupby("student")[list(MEASURES)].mean()
    tables = []
    for average in averages:
        table = before_after(study.scores, baseline=baseline, average=average)
        known = pd.DataFrame([of_student[name] for name in table["student"]])
        tables.append(
            pd.concat([table[["student"]].assign(average=average), known, table.drop(columns="student")], axis=1)
        )
    table = pd.concat(tables, ignore_index=True)
    table["p_holm"] = holm(table["p"])  # for all cells and averages, not those of one average alone
    return table.merge(means, left_on="student", right_index=True)


def explained(table: pd.DataFrame, *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Rank correlation over cells of the gain with each measure, with a 95 % bootstrap interval over cells.

    table  as ``cells`` returns
    ``average, start, on, measure, correlation, low, high, cells``: over all cells, and over those of each start where there are
    several, of the gain on unseen domains and on source validation, where measures were taken; no interval below ``FEWEST``
    cells, whose bootstrap collapses. Cells share teachers, images and starts: an interval that treats them as independent is
    on the narrow side.
    """
    rng, rows = np.random.default_rng(seed), []
    several = table["start"].unique() if table["start"].nunique() > 1 else ()
    for average, all_cells in table.groupby("average", sort=False):
        for start, (on, gain) in product((ALL, *several), GAINS.items()):
            part = all_cells if start == ALL else all_cells[all_cells["start"] == start]
            for measure in MEASURES:
                pairs = part[[measure, gain]].dropna().to_numpy()
                n = len(pairs)
                drawn = rank_correlation(*pairs[rng.integers(0, n, (draws, n))].T) if n >= FEWEST else np.array([])
                drawn = drawn[np.isfinite(drawn)]  # a draw of one cell alone has no order
                low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
                row = {"average": average, "start": start, "on": on, "measure": measure}
                rows.append(row | {"correlation": rank_correlation(*pairs.T), "low": low, "high": high, "cells": n})
    return pd.DataFrame(rows)


def printed_explained(table: pd.DataFrame) -> pd.DataFrame:
    """``explained`` as it is printed: a row per average, start and gain, a column per measure; starts of two cells are left out."""
    shown = table[table["correlation"].notna()]
    text = [
        f"{r.correlation:+.2f}" + (f" [{r.low:+.2f}, {r.high:+.2f}]" if np.isfinite(r.low) else "")
        for r in shown.itertuples()
    ]
    keys = ["average", "start", "on"]
    wide = shown.assign(text=text).pivot(index=keys, columns="measure", values="text")
    rows = pd.MultiIndex.from_frame(shown[keys].drop_duplicates())
    wide = wide.reindex(index=rows, columns=list(MEASURES))
    cells_of = shown.groupby(keys)["cells"].max()
    wide.insert(0, "cells", cells_of.reindex(wide.index))
    return wide.fillna("–").reset_index().rename_axis(columns=None)


def contrasts(study: Recorded, *, baseline: str, averages: Sequence[str]) -> pd.DataFrame:
    """Students whose settings differ in one thing alone on every split: what changing it does to the gain on unseen domains.

    ``average, factor, from, to, students``; ``gain_from, gain_to``: means over the ``n`` targets and seeds of both;
    ``difference``: of the gains, paired by target and seed, with its 95 % t interval ``low, high`` over pairs; points.
    ``p`` of its t test, ``p_holm`` corrected for all rows.
    """
    recipes = _by_split(study, _recipe)
    step, rows = grid(study.scores), []
    for average in averages:
        table = gains(study.scores, baseline=baseline, average=average)
        for one, other in combinations(study.students, 2):
            shared = [at for at in recipes[one] if at in recipes[other]]
            differ = [_differ(recipes[one][at], recipes[other][at]) for at in shared]
            if not differ or len(differ[0]) != 1 or any(names != differ[0] for names in differ):
                continue
            factor, at = differ[0][0], shared[0]
            if not _before(recipes[one][at].get(factor), recipes[other][at].get(factor)):
                one, other = other, one
            both = table[[one, other]].dropna()
            row = {"average": average, "factor": factor, "students": f"{one}, {other}"}
            row |= {
                side: _in_common(recipes[name][at] for at in shared).get(factor)
                for side, name in (("from", one), ("to", other))
            }
            row |= {side: _text(row[side]) for side in ("from", "to")}
            row |= {"gain_from": both[one].mean(), "gain_to": both[other].mean()}
            rows.append(row | estimate(both[other] - both[one], step=step, of="difference"))
    table = pd.DataFrame(rows, columns=_CONTRAST)
    return table.assign(p_holm=holm(table["p"]))


_CONTRAST = [
    *("average", "factor", "from", "to", "students", "gain_from"),
    *("gain_to", "difference", "low", "high", "p", "n"),
]


def folded(table: pd.DataFrame) -> str:
    """The title under which ``contrasts`` are folded where they are many; empty where they are not."""
    return f"All {len(table)} contrasts" if len(table) > MANY else ""


def _differ(first: dict, second: dict) -> list[str]:
    """Names of what differs. One that has no teacher differs from one that has by its objective."""
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    if "teacher" in names and None in (first["teacher"], second["teacher"]) and "objective" in names:
        names.remove("teacher")
    return names


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _before(a, b) -> bool:
    return a < b if all(isinstance(one, (int, float)) for one in (a, b)) else str(a) < str(b)


def findings(table: pd.DataFrame, correlations: pd.DataFrame, *, baseline: str) -> list[str]:
    """What the grid shows, in sentences, from its numbers alone."""
    sentences = []
    for average, part in table.groupby("average", sort=False):
        known = part[part["n"] > 0]
        if known.empty:
            sentences.append(f"{average} has no score beside {baseline} in any cell.")
            continue
        best, worst = known.loc[known["gain"].idxmax()], known.loc[known["gain"].idxmin()]
        sentences.append(f"{counted(known, average, baseline, 'cells')} Most: {_cell(best)}; least: {_cell(worst)}.")
    first = correlations[correlations["average"] == correlations["average"].iloc[0]].dropna(subset=["correlation"])
    first = first[first["start"] == ALL]
    unseen, source = (first[first["on"] == on] for on in GAINS)
    if len(unseen):
        r = unseen.loc[unseen["correlation"].abs().idxmax()]
        between = f" [{r['low']:+.2f}, {r['high']:+.2f}], bootstrap over cells" if np.isfinite(r["low"]) else ""
        same = source.set_index("measure")["correlation"].get(r["measure"])
        beside = "" if same is None else f", {same:+.2f} with that on source validation"
        sentences.append(
            f"Of {len(unseen)} measures, over {r['cells']} cells, the gain of {r['average']} on unseen domains goes most with this one: "
            f"{SAID[r['measure']]} (rank correlation {r['correlation']:+.2f}{between}{beside}). Neither the choice of the strongest "
            "nor that cells share teachers and images is in these numbers."
        )
    return sentences


def _cell(row: pd.Series) -> str:
    return f"{row['student']} {points(row)} (n = {row['n']:.0f})"


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """``cells`` as it is printed: intervals in brackets, one row per student and average."""
    columns = {"student": "student", "average": "average", "before": "before:.1f", "after": "after:.1f"}
    columns |= {
        "gain": "gain:+.1f low..high",
        "on source": "source_gain:+.1f source_low..source_high",
        "p, Holm": "p_holm:p",
    }
    columns |= {"n": "n", "dip": "dip:+.3f", "rise": "rise:+.3f", "relative": "relative:.2f", "bounce": "bounce:.2f"}
    return printed_as(table, columns)


def caption(study: Recorded, baseline: str) -> str:
    """What the numbers of ``printed`` are, and what chose the models behind them."""
    return (
        f"Accuracy in % on the domain left out, before is {baseline}; gains in points on it and on source validation, paired by "
        f"target and seed, with 95 % t intervals, n pairs. {SAID['dip'].capitalize()}; {SAID['rise']}; relative: {SAID['relative']}; "
        f"{SAID['bounce']}; all in the window of the first average. {DASH} {study.selection()}"
    )


def printed_contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """``contrasts`` as it is printed: gains with one decimal, the interval of their difference in brackets."""
    columns = {name: name for name in ("average", "factor", "from", "to", "students")}
    columns |= {"gain_from": "gain_from:+.1f", "gain_to": "gain_to:+.1f", "difference": "difference:+.1f low..high"}
    return printed_as(table, columns | {"n": "n", "p, Holm": "p_holm:p"})

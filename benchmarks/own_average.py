"""Is there an average that beats WAKD and EMA on unseen domains? Candidates over recordings that exist; choose on some studies, confirm on others.

A pool of averages is scored once per recording and kept in --out; a candidate picks one of them, or is one, from source curves and source validation alone. The rule, written before any number was seen: the candidate with the largest mean gain
over WAKD on the studies that choose is compared once, and it alone, with WAKD and with EMA on the studies that confirm; it is better if the paired 95 % t interval of
both differences lies above zero.

    python benchmarks/own_average.py runs/quickstart                              # all candidates: choose
    python benchmarks/own_average.py runs/annealed_digits --only "from 80 %"      # confirm one

2026-11-27: "from 80 %" was chosen (+0.40 [-0.15, +0.94] over WAKD, n = 16) and not confirmed (+0.13 [-0.17, +0.43], n = 24); reports/LOG.md has all.

`from 60 %` is WAKD as the studies have it, `EMA 0.99` the moving average; the others are in ``pool`` and ``RULES``.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import wakd_kit as wk
from wakd_kit.averaging import Coefficients
from wakd_kit.evaluation.scores import score_choices
from wakd_kit.runs.identity import of_recording
from wakd_kit.statistics import interval

BEGINS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
GAMMAS = (1.0, 2.0, 4.0, 8.0, 16.0)
REFERENCES = ("from 60 %", "EMA 0.99")


def plateau(curves) -> Coefficients:
    """From the first segment on whose iterate validates as well as those of the last 40 % do in the mean."""
    accuracy = np.asarray(curves.val_accuracy)
    level = accuracy[int(0.6 * len(accuracy)) :].mean()
    first = int(np.argmax(accuracy >= level))
    return wk.averaging.window(curves, begin=int(curves.begins[first] - 1), end=int(curves.ends[-1]))


def by_accuracy(curves, temperature: float) -> Coefficients:
    """Segments after a fifth of the run, weighed by exp(validation accuracy of their last iterate / temperature)."""
    accuracy = np.asarray(curves.val_accuracy)
    late = np.asarray(curves.begins) > 0.2 * curves.steps
    weights = np.where(late, np.exp((accuracy - accuracy.max()) / temperature) * curves.iterates, 0.0)
    return Coefficients(weights / weights.sum())


def trimmed(curves) -> Coefficients:
    """The last 60 % without the quarter of segments whose last iterate validates worst."""
    accuracy = np.asarray(curves.val_accuracy)
    late = np.asarray(curves.begins) > 0.4 * curves.steps
    kept = late & (accuracy >= np.quantile(accuracy[late], 0.25))
    weights = np.where(kept, curves.iterates, 0.0)
    return Coefficients(weights / weights.sum())


def pool(curves) -> dict[str, Coefficients]:
    """Every average that is scored, by what it is called."""
    wakd, ema = wk.averaging.wakd(curves, begin=0.6), wk.averaging.ema(curves, decay=0.99)
    return {
        **{f"from {begin:.0%}".replace("%", " %"): wk.averaging.wakd(curves, begin=begin) for begin in BEGINS},
        **{f"power {gamma:g}": wk.averaging.power(curves, gamma=gamma) for gamma in GAMMAS},
        "EMA 0.99": ema,
        "half and half": Coefficients((np.asarray(wakd) + np.asarray(ema)) / 2),
        "since the plateau": plateau(curves),
        "by accuracy, 3 points": by_accuracy(curves, 0.03),
        "by accuracy, 1 point": by_accuracy(curves, 0.01),
        "trimmed": trimmed(curves),
        "cosine from 60 %": wk.averaging.annealed(curves, shape="cosine", begin=0.6),
        "cosine from 40 %": wk.averaging.annealed(curves, shape="cosine", begin=0.4),
    }


def scored(place: Path, kept: Path, wanted: list[str]) -> pd.DataFrame:
    """Source accuracy and nll (mean over domains), their count, and accuracy on the unseen domain of averages of one run."""
    run = wk.load_run(place)
    file = kept / f"{place.parts[-3]}-{place.parts[-2]}-{place.name}-{of_recording(run)}.csv"
    known = pd.read_csv(file, index_col="strategy") if file.is_file() else pd.DataFrame()
    if missing := [name for name in wanted if name not in known.index]:
        averages = pool(run.source_curves)
        table = score_choices(run, {name: averages[name] for name in missing})
        source = table[table.role == "source"].groupby("strategy", sort=False)
        found = source.agg(accuracy=("accuracy", "mean"), nll=("nll", "mean"), n=("n", "sum"))
        found["target"] = table[table.role == "target"].set_index("strategy").accuracy
        kept.mkdir(parents=True, exist_ok=True)
        known = pd.concat([known, found]).rename_axis("strategy")
        known.to_csv(file)
    return known.loc[wanted]


def best_accuracy(source: pd.DataFrame) -> str:
    return source.accuracy.idxmax()


def least_nll(source: pd.DataFrame) -> str:
    return source.nll.idxmin()


def unless_it_objects(to: str):
    """``to``, unless another's source accuracy is more than a standard error better."""

    def pick(source: pd.DataFrame) -> str:
        accuracy = source.accuracy
        error = np.sqrt(accuracy[to] * (1 - accuracy[to]) / source.n[to])
        return accuracy.idxmax() if accuracy.max() > accuracy[to] + error else to

    return pick


RULES = {
    "begin by source accuracy": ("from", best_accuracy),
    "begin by source nll": ("from", least_nll),
    "60 % unless source objects": ("from", unless_it_objects("from 60 %")),
    "power by source nll": ("power", least_nll),
    "power 4 unless source objects": ("power", unless_it_objects("power 4")),
}  # how the names begin of those among which is picked, and the pick, which is given no column of the target


def needed(only: list[str], names: list[str]) -> list[str]:
    """Which of the pool has to be scored for these candidates, by default all of it."""
    begins = tuple(RULES[name][0] for name in only if name in RULES)
    return [n for n in names if not only or n in (*only, *REFERENCES) or (begins and n.startswith(begins))]


def candidates_of(table: pd.DataFrame, only: list[str]) -> pd.Series:
    """Accuracy on the unseen domain of averages, and of what every rule picks."""
    found = table.target.to_dict()
    for name, (begins, pick) in RULES.items():
        if not only or name in only:
            among = table[table.index.str.startswith(begins)]
            found[name] = among.target[pick(among.drop(columns="target"))]
    return pd.Series(found)


def compared(accuracy: pd.DataFrame, only: list[str]) -> pd.DataFrame:
    """Mean over runs (rows), and gains over both references in points, paired, with 95 % intervals; the largest over the first on top."""
    rows = []
    for name in [*REFERENCES, *only] if only else accuracy.columns:
        row = {"average": name, "accuracy": 100 * accuracy[name].mean(), "n": len(accuracy)}
        for reference in REFERENCES:
            gain = 100 * (accuracy[name] - accuracy[reference]).to_numpy()
            low, high = interval(gain) if np.ptp(gain) else (0.0, 0.0)
            row |= {f"- {reference}": gain.mean(), f"95 %, {reference}": f"[{low:+.2f}, {high:+.2f}]"}
        rows.append(row)
    return pd.DataFrame(rows).sort_values(f"- {REFERENCES[0]}", ascending=False).round(2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of studies' recordings: <split>/<student>")
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--students", nargs="+", default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/own_average"), help="where scores are kept")
    given = parser.parse_args()
    places = sorted(place.parent for runs in given.runs for place in runs.glob("*-s*/*/settings.json"))
    places = [place for place in places if given.students is None or place.name in given.students]
    if not places:
        parser.error(f"no recordings (*-s*/*/settings.json) in {', '.join(map(str, given.runs))}.")
    wanted = needed(given.only, list(pool(wk.load_run(places[0]).source_curves)))
    rows = [candidates_of(scored(place, given.out, wanted), given.only) for place in places]
    accuracy = pd.DataFrame(rows, index=[place.name for place in places])
    for role in [*dict.fromkeys(accuracy.index), "all"]:
        own = accuracy if role == "all" else accuracy.loc[[role]]
        print(f"\n{role}\n{compared(own, given.only).to_string(index=False)}", flush=True)

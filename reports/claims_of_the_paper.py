"""Do the WAKD paper's three claims (arXiv 2309.11446) hold in a study? From its scores; nothing is trained.

    wakd report digits_pretrained
    python reports/claims_of_the_paper.py reports/digits_pretrained --runs runs/digits_pretrained
    python reports/claims_of_the_paper.py reports/digits_pretrained --averages "WAKD late" SWAD EMA

Prints Markdown for reports/LOG.md. Differences are points on the unseen domain, paired by target and seed, with 95 % t
intervals over pairs, and over the means of the targets: pairs of one target are alike, so the second is the one for
the mean over domains like these. Each interval gets its own word; of fewer than three pairs, or targets, there is none.

(a) averaging improves distillation    an average minus the last iterate, minus best validation: above zero
(b) SWAD, SMA and WAKD are on par      each minus another: within the margin on both sides of zero
(c) WAKD needs no validation           WAKD minus what is chosen on validation: above minus the margin;
                                       with --runs also WAKD begun elsewhere minus it: how much would a validation be worth?
"""

import argparse
from collections.abc import Callable
from itertools import combinations
from math import isnan
from pathlib import Path

import pandas as pd
from tqdm import tqdm

import wakd_kit as wk
from wakd_kit.averaging import choose
from wakd_kit.results.differences import paired, printed_as
from wakd_kit.results.latex import markdown
from wakd_kit.evaluation.scores import score_choices
from wakd_kit.files import read_table

AVERAGES = ("WAKD", "SWAD", "SMA")
BEGINS = (0.05, 0.2, 0.4, 0.6, 0.8)
UNKNOWN = "–"  # too few pairs, or targets, for an interval


def table(scores: pd.DataFrame, contrasts: list, says: Callable[[float, float], str]) -> str:
    found = paired(scores, contrasts)
    left_out = [f", {n} left out" if n else "" for n in found["missing"]]
    found = found.assign(
        own=[says(*ends) for ends in zip(found["low"], found["high"])],
        means=[says(*ends) for ends in zip(found["target_low"], found["target_high"])],
        better=[f"{b} of {n}{out}" for b, n, out in zip(found["better"], found["n"], left_out)],
    )
    columns = {"difference": "label", "mean": "mean:+.1f", "95 %": "low..high", "": "own"}
    columns |= {"95 %, target means": "target_low..target_high", " ": "means", "better": "better", "p, Holm": "p_holm:p"}
    return markdown(printed_as(found, columns))


def improves(low: float, high: float) -> str:
    return "better" if low > 0 else "worse" if high < 0 else UNKNOWN if isnan(low) else "not told apart"


def on_par(margin: float) -> Callable[[float, float], str]:
    def says(low: float, high: float) -> str:
        if -margin < low and high < margin:
            return f"on par within {margin:g}"
        return "differ" if low > 0 or high < 0 else UNKNOWN if isnan(low) else "undecided"

    return says


def no_worse(margin: float) -> Callable[[float, float], str]:
    def says(low: float, high: float) -> str:
        if low > -margin:
            return "better" if low > 0 else f"not worse by {margin:g}"
        return "worse" if high < 0 else UNKNOWN if isnan(low) else "undecided"

    return says


def begun_elsewhere(runs: Path, student: str) -> pd.DataFrame:
    """Scores of WAKD from every begin, of this student's recordings."""
    tables = []
    for folder in tqdm(sorted(p.parent for p in runs.rglob("settings.json") if p.parent.name == student), unit="run"):
        run = wk.load_run(folder)
        wanted = [{"name": "wakd", "begin": b, "label": f"WAKD from {b:.0%}"} for b in BEGINS]
        scored = score_choices(run, choose(run.source_curves, wanted))
        split = run.settings["split"]
        tables.append(scored.assign(student=student, target=split["target"], seed=split["seed"]))
    return pd.concat(tables)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("report", type=Path, help="a rendered study's folder, with its scores.csv")
    options.add_argument("--runs", type=Path, help="its recordings")
    options.add_argument("--student", default="KD")
    options.add_argument(
        "--averages", nargs="+", default=AVERAGES, help="their labels, first the one without validation"
    )
    options.add_argument("--margin", type=float, default=1.0, help="points that count as on par")
    given = options.parse_args()
    scores, student = read_table(given.report / "scores.csv"), given.student
    free, *others = given.averages

    def against(first: str, second: str) -> tuple:
        return (student, first), (student, second)

    baselines = ("last", "best validation")
    print("(a)", table(scores, [against(a, b) for b in baselines for a in given.averages], improves), sep="\n\n")
    pairs = [against(*two) for two in combinations(given.averages, 2)]
    print("\n(b)", table(scores, pairs, on_par(given.margin)), sep="\n\n")
    chosen = [against(free, by_validation) for by_validation in ("best validation", *others)]
    print("\n(c)", table(scores, chosen, no_worse(given.margin)), sep="\n\n")
    if given.runs:
        scores = pd.concat([scores, begun_elsewhere(given.runs, student)])
        print("\n" + table(scores, [against(f"WAKD from {b:.0%}", free) for b in BEGINS], on_par(given.margin)))


if __name__ == "__main__":
    main()

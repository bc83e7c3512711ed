"""Do the WAKD paper's three claims (arXiv 2309.11446) hold in a study? From its scores; nothing is trained.

    wakd report digits_pretrained
    python reports/claims_of_the_paper.py reports/digits_pretrained --runs runs/digits_pretrained

Prints Markdown for reports/LOG.md. Differences are points on the unseen domain, paired by target and seed, with 95 % t
intervals over pairs and over target means.

(a) averaging improves distillation    an average minus the last iterate: the interval lies above zero
(b) SWAD, SMA and WAKD are on par      each minus another: the interval lies within the margin on both sides of zero
(c) WAKD needs no validation           WAKD minus what is chosen on validation: the interval lies above minus the margin;
                                       with --runs also WAKD begun elsewhere, as nothing but a validation could choose it
"""

import argparse
from itertools import combinations
from pathlib import Path

import pandas as pd
from tqdm import tqdm

import wakd_kit as wk
from wakd_kit.comparison import brackets, paired

AVERAGES, CHOSEN = ("WAKD", "SWAD", "SMA"), ("best validation", "SWAD", "SMA")
BEGINS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
HEAD = "| difference | mean | 95 % | 95 %, target means | better | p, Holm | |\n|---|---|---|---|---|---|---|"


def table(scores: pd.DataFrame, contrasts: list, says) -> str:
    rows = []
    for row in paired(scores, contrasts).to_dict("records"):
        own, means = brackets(row["low"], row["high"]), brackets(row["target_low"], row["target_high"])
        better = f"{row['better']} of {row['n']}"
        rows.append(
            f"| {row['label']} | {row['mean']:+.1f} | {own} | {means} | {better} | {row['p_holm']:.3f} | {says(row)} |"
        )
    return "\n".join([HEAD, *rows])


def improves(row: dict) -> str:
    return "better" if row["low"] > 0 else "worse" if row["high"] < 0 else "not told apart"


def on_par(margin: float):
    def says(row: dict) -> str:
        if -margin < row["low"] and row["high"] < margin:
            return f"on par within {margin:g}"
        return "differ" if row["low"] > 0 or row["high"] < 0 else "undecided"

    return says


def no_worse(margin: float):
    def says(row: dict) -> str:
        if row["low"] > -margin:
            return "better" if row["low"] > 0 else f"not worse by {margin:g}"
        return "worse" if row["high"] < 0 else "undecided"

    return says


def begun_elsewhere(runs: Path, student: str) -> pd.DataFrame:
    """Scores of the last iterate and of WAKD from every begin, of this student's recordings."""
    tables = []
    for folder in tqdm(sorted(p.parent for p in runs.rglob("settings.json") if p.parent.name == student), unit="run"):
        run = wk.load_run(folder)
        wanted = ["last", *({"name": "wakd", "begin": b, "label": f"WAKD from {b:.0%}"} for b in BEGINS)]
        scored = wk.evaluation.score_choices(run, wk.averaging.choose(run.source_curves, wanted))
        split = run.settings["split"]
        tables.append(scored.assign(student=student, target=split["target"], seed=split["seed"]))
    return pd.concat(tables)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("report", type=Path, help="a rendered study's folder, with its scores.csv")
    options.add_argument("--runs", type=Path, help="its recordings")
    options.add_argument("--student", default="KD")
    options.add_argument("--margin", type=float, default=1.0, help="points that count as on par")
    given = options.parse_args()
    scores, student = pd.read_csv(given.report / "scores.csv"), given.student

    def against(first: str, second: str) -> tuple:
        return (student, first), (student, second)

    print("(a)", table(scores, [against(a, "last") for a in AVERAGES], improves), sep="\n\n")
    print(
        "\n(b)", table(scores, [against(*two) for two in combinations(AVERAGES, 2)], on_par(given.margin)), sep="\n\n"
    )
    print("\n(c)", table(scores, [against("WAKD", c) for c in CHOSEN], no_worse(given.margin)), sep="\n\n")
    if given.runs:
        begun = begun_elsewhere(given.runs, student)
        print("\n" + table(begun, [against(f"WAKD from {b:.0%}", "last") for b in BEGINS], improves))


if __name__ == "__main__":
    main()

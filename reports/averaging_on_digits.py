"""Questions about averaging itself, answered from the runs of digits_full without training them again; soups train.

    wakd report digits_full
    python reports/averaging_on_digits.py valleys       # three loss valleys, two steering curves
    python reports/averaging_on_digits.py batchnorm     # four BatchNorm policies
    python reports/averaging_on_digits.py soups         # soups and ensembles against WAKD at equal training cost

Prints Markdown for reports/LOG.md: means, paired differences in points on the unseen domain, 95 % t intervals, n.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import torch

import wakd_kit as wk
from wakd_kit.averaging import NoWindow
from wakd_kit.results.differences import paired, printed_as
from wakd_kit.results.latex import markdown
from wakd_kit.runs.store import write_state

BEGIN = 0.6  # as in digits_full
VALLEYS = ("swad", "swad_published", "swad_wakd_repo")


def rows_of(run: wk.Run, table: pd.DataFrame) -> pd.DataFrame:
    split = run.settings["split"]
    return table.assign(student=run.name, target=split["target"], seed=split["seed"])


def valleys(folder: Path) -> pd.DataFrame:
    run = wk.load_run(folder)
    steering = (
        {"cross-entropy": "val_loss", "distillation loss": "val_kd_loss"}
        if run.settings["teacher"]
        else {"cross-entropy": "val_loss"}
    )
    wanted = [{"name": "last"}, {"name": "wakd", "begin": BEGIN}]
    wanted += [{"name": v, "loss": loss, "label": f"{v}, {name}"} for v in VALLEYS for name, loss in steering.items()]
    choices = wk.averaging.choose(run.source_curves, wanted)
    return rows_of(run, wk.evaluation.score_choices(run, choices))


def batchnorm(folder: Path) -> pd.DataFrame:
    run = wk.load_run(folder)
    wanted = ["last", {"name": "wakd", "begin": BEGIN}, "swad", {"name": "ema", "decay": 0.99}]
    choices = wk.averaging.choose(run.source_curves, wanted)
    tables = []
    for policy in ("last", "average", "recalibrate"):
        table = wk.evaluation.score_choices(run, choices, batchnorm=policy)
        tables.append(table.assign(strategy=table["strategy"] + f", {policy}"))
    return rows_of(run, pd.concat(tables))


def soups(folder: Path) -> pd.DataFrame:
    """One run of 1,200 steps against three of 400 from one initialisation, and two of 400 after a trunk of 400."""
    whole = wk.load_run(folder)
    split, teacher, s = whole.split, wk.load_run(folder.parent / "teacher"), whole.settings
    out = folder.parents[1].with_name("digits_soups") / folder.parent.name
    steps = s["steps"] // 3
    same = {n: s[n] for n in ("objectives", "segment_length", "batch_size", "learning_rate", "optimiser", "batchnorm")}

    def member(name: str, seed: int, weights: Path | None = None) -> wk.Run:
        model = wk.build_model(s["student"]["name"], split.classes, seed=s["seed"], weights=weights)
        where = {"save_to": out / name, "resume": True, "progress": False}
        return wk.train(model, split, teacher=teacher, steps=steps, seed=seed, declare=[], **same, **where)

    strangers = [member(f"scratch{k}", 1000 * (k + 1) + s["seed"]) for k in range(3)]
    trunk = member("trunk", 4000 + s["seed"])
    start = out / "trunk.safetensors"
    write_state(start, trunk.average(wk.averaging.last(trunk.source_curves)))
    branches = [member(f"branch{k}", 5000 + 1000 * k + s["seed"], start) for k in range(2)]
    choices = wk.averaging.choose(
        whole.source_curves, ["last", {"name": "wakd", "begin": BEGIN, "label": "WAKD, one run"}]
    )
    tables = [wk.evaluation.score_choices(whole, choices)]
    for name, members in (("3 x 400, same start", strangers), ("trunk 400 + 2 x 400", branches)):
        soup = wk.Soup(members)
        accuracy = soup.val_accuracy
        try:
            barrier = f"barrier {soup.check():.2f} nats"
        except NoWindow as reason:
            barrier = str(reason)
        print(f"{folder.parent.name} {name}: {barrier}", file=sys.stderr)
        tables.append(
            soup.evaluate(
                {
                    f"uniform soup, {name}": wk.averaging.uniform_soup(accuracy),
                    f"greedy soup, {name}": wk.averaging.greedy_soup(val_accuracy=accuracy, score=soup.score),
                    f"DiWA restricted, {name}": wk.averaging.diwa(accuracy, restrict=True, score=soup.score),
                    f"ensemble, {name}": "probs",
                }
            )
        )
    # the branches averaged over their whole second half as well: what soups and WAKD do together
    both = wk.Soup(branches, coefficients=[wk.averaging.wakd(r.source_curves, begin=0.5) for r in branches])
    tables.append(both.evaluate({"WAKD of both branches, averaged": wk.averaging.uniform_soup([0, 0])}))
    return rows_of(whole, pd.concat(tables))


def report(scores: pd.DataFrame, baseline: str) -> str:
    tables = []
    for student, part in scores.groupby("student", sort=False):
        others = [x for x in part["strategy"].unique() if x != baseline]
        gains = paired(part, [((student, x), (student, baseline)) for x in others]).assign(strategy=others)
        gains["better"] = [f"{better} of {n}" for better, n in zip(gains["better"], gains["n"])]
        accuracy = 100 * part[part["role"] == "target"].groupby("strategy")["accuracy"].mean().rename("accuracy")
        about = wk.comparison.summary(part)[["strategy", "n", "missing"]].merge(accuracy, on="strategy")
        both = about.merge(gains.drop(columns=["n", "missing"]), on="strategy", how="left").fillna({"better": ""})
        columns = {student: "strategy", "accuracy": "accuracy:.1f", f"minus {baseline}": "mean:+.1f", "95 %": "low..high"}
        tables.append(markdown(printed_as(both, columns | {"better": "better", "n": "n", "no window": "missing"})))
    return "\n\n".join(tables)


QUESTIONS = {"valleys": (valleys, "last"), "batchnorm": (batchnorm, "last, average"), "soups": (soups, "WAKD, one run")}

BETWEEN = {
    "valleys": [(f"{v}, distillation loss", f"{v}, cross-entropy") for v in VALLEYS]
    + [(f"{v}, cross-entropy", "swad, cross-entropy") for v in VALLEYS[1:]],
    "batchnorm": [
        (f"{s}, recalibrate", f"{s}, {policy}")
        for s in ("last", "wakd", "swad", "ema")
        for policy in ("average", "last")
    ],
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("question", choices=QUESTIONS)
    options.add_argument("--runs", type=Path, default=Path("runs/digits_full"))
    options.add_argument("--students", nargs="+", default=["KD"])
    options.add_argument("--seeds", type=int, nargs="+")
    options.add_argument("--cores", type=int, default=2)
    given = options.parse_args()
    function, baseline = QUESTIONS[given.question]
    folders = [
        p
        for p in sorted(given.runs.resolve().glob("*-s*"))
        if not given.seeds or int(p.name.split("-s")[1]) in given.seeds
    ]
    with ProcessPoolExecutor(given.cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        scores = pd.concat(pool.map(function, [p / student for student in given.students for p in folders]))
    scores.to_csv(given.runs.with_name(f"{given.question}.csv"), index=False)
    print(report(scores, baseline))
    for first, second in BETWEEN.get(given.question, ()):
        for student in given.students:
            if {first, second} <= set(scores.loc[scores["student"] == student, "strategy"]):
                row = paired(scores, [((student, first), (student, second))]).iloc[0]
                print("-", wk.comparison.verdict(row))


if __name__ == "__main__":
    main()

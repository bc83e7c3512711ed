"""Which rate, length and begin should the digits studies use? Chosen on source validation, on a seed no study reports.

One constant-rate run answers for every shorter one (its prefix) and every begin, so a setting costs a training per rate.
The target domain is never evaluated here.

    python benchmarks/recipe.py --target ink --seed 100 --out runs/recipe [--roles ViT mixer]
    python benchmarks/recipe.py --table runs/recipe
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

import wakd_kit as wk

BEGINS = (0.1, 0.2, 0.4, 0.6)
LENGTHS = (600, 1200)
RATES = {"teacher": (3e-3, 1e-2), "CE": (1e-3, 3e-3, 1e-2, 2e-2), "KD": (1e-3, 3e-3, 1e-2, 2e-2)}
RATES |= {"ViT": (3e-4, 1e-3, 3e-3), "mixer": (1e-3, 3e-3, 1e-2)}
MODEL = {
    "teacher": "resnet18_w16",
    "CE": "resnet10t_w16",
    "KD": "resnet10t_w16",
    "ViT": "vit_d64",
    "mixer": "mixer_d64",
}
WARMUP = {"ViT": 60, "mixer": 60}


def record(role: str, rate: float, split: wk.Split, folder: Path, teacher: wk.Run | None) -> wk.Run:
    torch.manual_seed(split.seed)
    return wk.train(
        wk.build_model(MODEL[role], split.classes),
        split,
        objectives=[{"name": "kd"}] if role == "KD" else [{"name": "ce"}],
        teacher=teacher if role == "KD" else None,
        steps=max(LENGTHS),
        segment_length=30,
        learning_rate=rate,
        warmup=WARMUP.get(role, 0),
        declare=[],
        seed=split.seed,
        save_to=folder / f"{role}-{rate:g}",
        resume=True,
        progress=False,
    )


def judge(run: wk.Run) -> list[dict]:
    score, rows = wk.source_score(run), []
    for steps in LENGTHS:
        for begin in (*BEGINS, None):
            first = steps - 1 if begin is None else int(begin * steps)
            if begin is None:
                coefficients = wk.averaging.Coefficients((run.source_curves.ends == steps).astype(float), of="end")
            else:
                coefficients = wk.averaging.window(run.source_curves, begin=first, end=steps)
            rows.append({"steps": steps, "begin": "last" if begin is None else begin, "val": score(coefficients)})
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--target")
    options.add_argument("--seed", type=int, default=100)
    options.add_argument("--out", type=Path, default=Path("runs/recipe"))
    options.add_argument("--roles", nargs="+", default=["teacher", "CE", "KD"], choices=[*RATES])
    options.add_argument("--table", type=Path)
    given = options.parse_args()
    if given.table:
        rows = pd.concat(pd.read_csv(file) for file in sorted(given.table.glob("*.csv")))
        mean = rows.groupby(["role", "rate", "steps", "begin"])["val"].mean().mul(100).unstack("begin")
        print(mean.round(1).to_string(), f"\n{rows['target'].nunique()} targets, mean source validation accuracy, %")
        return
    split = wk.leave_one_out(wk.load_domains("digits"), given.target, given.seed)
    folder, rows, teacher = given.out / given.target, [], None
    for role in given.roles:
        for rate in RATES[role]:
            run = record(role, rate, split, folder, teacher)
            rows += [{"role": role, "rate": rate, "target": given.target, **row} for row in judge(run)]
            pd.DataFrame(rows).to_csv(given.out / f"{given.target}-{'-'.join(given.roles)}.csv", index=False)
        if role == "teacher":
            best = max((r for r in rows if r["begin"] != "last"), key=lambda r: r["val"])
            teacher = wk.load_run(folder / f"teacher-{best['rate']:g}")
            window = wk.averaging.window(
                teacher.source_curves, begin=int(best["begin"] * best["steps"]), end=best["steps"]
            )
            teacher.deploy(window)


if __name__ == "__main__":
    main()

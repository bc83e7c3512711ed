"""Which rate, length and begin should a study use? Chosen on source validation, on a seed no study reports.

One constant-rate run answers for every shorter one (its prefix) and every begin, so a setting costs a training per rate.
The target domain is never evaluated here.

    python benchmarks/recipe.py --target ink --seed 100 --out runs/recipe [--roles ViT mixer]
    python benchmarks/recipe.py --target photo --benchmark pacs --size 64 --pretrained --out runs/recipe_pacs
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
RATES |= {"ViT": (5e-4, 1e-3, 2e-3), "mixer": (1e-3, 3e-3, 1e-2)}
PRETRAINED_RATES = dict.fromkeys(("teacher", "CE", "KD"), (1e-3, 3e-3, 1e-2))
MODEL = {"teacher": "resnet18_w16", "ViT": "vit_conv_d64", "mixer": "mixer_d64"}
WARMUP = {"ViT": 60, "mixer": 60}


def build(role: str, split: wk.Split, given: argparse.Namespace) -> torch.nn.Module:
    model = "resnet18_w24" if role == "teacher" and given.size == 64 else MODEL.get(role, "resnet10t_w16")
    model = {"teacher": given.teacher, "CE": given.student, "KD": given.student}.get(role) or model
    model += f".px{given.size or 32}" if given.pretrained else ""
    return wk.build_model(model, split.classes, pretrained=given.pretrained, seed=split.seed)


def record(role: str, rate: float, split: wk.Split, folder: Path, teacher: wk.Run | None, given) -> wk.Run:
    return wk.train(
        build(role, split, given),
        split,
        objectives=[{"name": "kd"}] if role == "KD" else [{"name": "ce"}],
        teacher=teacher if role == "KD" else None,
        steps=max(given.lengths),
        segment_length=given.segment,
        batch_size=given.batch,
        learning_rate=rate,
        warmup=WARMUP.get(role, 0),
        batchnorm="frozen" if given.pretrained else "recalibrate",
        precision="bfloat16" if given.size == 64 else "float32",
        declare=[],
        seed=split.seed,
        save_to=folder / f"{role}-{rate:g}",
        resume=True,
        progress=False,
    )


def judge(run: wk.Run, lengths: list[int]) -> list[dict]:
    score, rows = wk.source_score(run), []
    for steps in lengths:
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
    options.add_argument("--rates", nargs="+", type=float, help="learning rates of every role, instead of its own")
    options.add_argument(
        "--lengths", nargs="+", type=int, default=LENGTHS, help="steps, of the longest run and its prefixes"
    )
    options.add_argument("--segment", type=int, default=30, help="steps; begins have to fall on its ends")
    options.add_argument("--batch", type=int, default=64, help="images")
    options.add_argument("--teacher", help="its model, instead of resnet18_w16")
    options.add_argument("--student", help="the model of CE and KD, instead of resnet10t_w16")
    options.add_argument("--benchmark", default="digits")
    options.add_argument("--size", type=int, choices=[32, 64], help="of images, in pixels; default 32")
    options.add_argument("--pretrained", action="store_true", help="start from shipped weights, with frozen BatchNorm")
    options.add_argument("--table", type=Path)
    given = options.parse_args()
    if not (given.target or given.table):
        options.error("--target, a domain that is left out, or --table, a folder of results.")
    if given.table:
        if not (files := sorted(given.table.glob("*.csv"))):
            options.error(f"no tables in {given.table}: a run with --out {given.table} writes them.")
        rows = pd.concat(map(pd.read_csv, files))
        mean = rows.groupby(["role", "rate", "steps", "begin"])["val"].mean().mul(100).unstack("begin")
        print(mean.round(1).to_string(), f"\n{rows['target'].nunique()} targets, mean source validation accuracy, %")
        return
    domains = wk.load_domains(given.benchmark, **({"size": given.size} if given.size else {}))
    split = wk.leave_one_out(domains, given.target, given.seed)
    rates = RATES | PRETRAINED_RATES if given.pretrained else RATES
    for role in given.roles:
        build(role, split, given)  # a model or weights that are not there are told before the first training
    folder, rows, teacher = given.out / given.target, [], None
    for role in given.roles:
        for rate in given.rates or rates[role]:
            run = record(role, rate, split, folder, teacher, given)
            rows += [{"role": role, "rate": rate, "target": given.target, **row} for row in judge(run, given.lengths)]
            pd.DataFrame(rows).to_csv(given.out / f"{given.target}-{'-'.join(given.roles)}.csv", index=False)
        if role == "teacher":
            best = max((r for r in rows if r["begin"] != "last"), key=lambda r: r["val"])
            teacher = wk.load_run(folder / f"teacher-{best['rate']:g}")
            begin, end = int(best["begin"] * best["steps"]), best["steps"]
            window = wk.averaging.window(teacher.source_curves, begin=begin, end=end)
            chosen = wk.choose(teacher, ["swad"], split)["swad"] if given.pretrained else window
            if isinstance(chosen, wk.averaging.NoWindow):
                print(f"The teacher teaches as its best average from a begin, for SWAD says: {chosen}")
            teacher.deploy(window if isinstance(chosen, wk.averaging.NoWindow) else chosen)


if __name__ == "__main__":
    main()

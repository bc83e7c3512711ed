"""Where averages lie on the loss surface of digits runs: planes, flatness, barriers and curvature. Trains what is missing.

    python reports/landscape_on_digits.py [--targets sketch photo] [--seeds 0 1 2] [--out reports/landscape_on_digits]

Per target and seed: a teacher, a CE and a KD student by the quickstart recipe, and CE students that differ from the first in
the order of batches only, from another initialisation, from the same one, or after a shared trunk of 200 steps. Prints
Markdown for reports/LOG.md with 95 % t intervals over target x seed pairs; figures go to --out.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import wakd_kit as wk
from wakd_kit.landscape import findings
from wakd_kit.landscape import surface as landscape
from wakd_kit.plots import surface as landscape_figures
from wakd_kit.results.latex import markdown
from wakd_kit.runs.store import write_state
from wakd_kit.statistics import interval

RECIPE = {"segment_length": 30, "learning_rate": 0.01, "resume": True, "progress": False}
STRATEGIES = ["last", {"name": "wakd", "label": "WAKD", "begin": 0.6}, {"name": "swad", "label": "SWAD"}]
TRUNK = 210  # a segment end near a third of the run
MULTIPLES = (0.5, 1.0, 1.5, 2.0)


def recorded(where: Path, split: wk.Split, seed: int) -> dict[str, wk.Run]:
    """All runs of one target and seed, trained where they are not there yet."""

    def student(
        name: str, *, init: int = seed, order: int = seed, steps: int = 600, weights=None, **settings
    ) -> wk.Run:
        model = wk.build_model("resnet10t_w16", split.classes, seed=init, weights=weights)
        return wk.train(model, split, save_to=where / name, seed=order, steps=steps, **RECIPE, **settings)

    large = wk.build_model("resnet18_w16", split.classes, seed=seed)
    teacher = wk.train(large, split, save_to=where / "teacher", seed=seed, steps=600, **RECIPE)
    teacher.deploy(wk.averaging.wakd(teacher.source_curves, begin=0.6))
    runs = {"CE": student("CE"), "KD": student("KD", teacher=teacher, objectives=[{"name": "kd", "temperature": 5.0}])}
    runs["separate starts"] = student("separate", init=1000 + seed, order=1000 + seed)
    runs["same start, other batches"] = student("same", order=1000 + seed)
    trunk = student("trunk", steps=TRUNK)
    start = where / "trunk.safetensors"
    write_state(start, trunk.average(wk.averaging.last(trunk.source_curves)))
    for name, order in (("branch a", 2000 + seed), ("branch b", 3000 + seed)):
        runs[name] = student(name.replace(" ", "_"), order=order, weights=start)
    return runs


def barriers(runs: dict[str, wk.Run]) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Barriers between two runs' last iterates, and between their WAKD averages; and the lines themselves."""
    rows, lines = [], {}
    ce = runs["CE"]
    pairs = {
        "separate starts": (ce, runs["separate starts"]),
        "same start, other batches": (ce, runs["same start, other batches"]),
        f"shared trunk of {TRUNK} steps": (runs["branch a"], runs["branch b"]),
    }
    for pair, (first, second) in pairs.items():
        for label, settings in (("last", {}), ("WAKD", {"begin": 0.6})):
            strategy = getattr(wk.averaging, "last" if label == "last" else "wakd")
            a, b = ((run, strategy(run.source_curves, **settings)) for run in (first, second))
            line = landscape.line(first, a[1], b, size=11)
            lines[f"{pair}: {label}"] = line
            for role in ("source", "target"):
                rows.append({"pair": pair, "point": label, "role": role, "barrier": landscape.walled(line, role)[1]})
    return pd.DataFrame(rows), lines


def flat(run: wk.Run, choices: dict, directions: int) -> pd.DataFrame:
    """Flatness at multiples of the distance from the last iterate to the WAKD average; the radius is the multiple."""
    unit = findings.distance(run, choices["last"], choices["WAKD"])
    table = landscape.flatness(run, choices, radii=[m * unit for m in MULTIPLES], directions=directions)
    return table.assign(radius=np.round(table["radius"] / unit, 6))


def mean_and_interval(values: pd.Series) -> str:
    low, high = interval(values)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(low) else f"{values.mean():.3f}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--targets", nargs="+", default=["sketch", "photo"])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--directions", type=int, default=10)
    options.add_argument("--runs", type=Path, default=Path("runs/landscape_on_digits"))
    options.add_argument("--out", type=Path, default=Path("reports/landscape_on_digits"))
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    domains = wk.load_domains("digits")
    flatnesses, curvatures, walls = [], [], []
    for target in given.targets:
        for seed in given.seeds:
            split = wk.leave_one_out(domains, target, seed)
            runs = recorded(given.runs.resolve() / f"{target}-s{seed}", split, seed)
            where = {"target": target, "seed": seed}
            for name in ("CE", "KD"):
                run, first = runs[name], seed == given.seeds[0]
                choices = wk.choose(run, STRATEGIES)
                flatnesses.append(
                    flat(run, choices, given.directions).assign(student=name, run=f"{target} {seed}", **where)
                )
                if first:
                    begin = run.source_curves.ends == 360
                    corners = {label: choices[label] for label in ("last", "WAKD")}
                    corners["where WAKD begins"] = wk.averaging.Coefficients(begin, of="end")
                    if target == given.targets[0]:  # minutes each
                        curved = landscape.curvature(run, choices, top=3, max_images=200)
                        curvatures.append(curved.assign(student=name, **where))
                    plane = landscape.plane(run, corners, size=25, margin=0.4, marks={"SWAD": choices["SWAD"]})
                    for value in ("loss", "accuracy"):
                        figure, alt = landscape_figures.plane(plane, value=value)
                        figure.savefig(given.out / f"plane_{target}_{name}_{value}.png", dpi=144, bbox_inches="tight")
                        print(f"plane {target} {name}: {alt}\n", flush=True)
            wall, lines = barriers(runs)
            walls.append(wall.assign(**where))
            if seed == given.seeds[0]:
                landscape_figures.barriers(lines)[0].savefig(
                    given.out / f"barriers_{target}.png", dpi=144, bbox_inches="tight"
                )
    flatnesses, curvatures, walls = (pd.concat(tables, ignore_index=True) for tables in (flatnesses, curvatures, walls))
    for name, table in (("flatness", flatnesses), ("curvature", curvatures), ("barriers", walls)):
        table.to_csv(given.out / f"{name}.csv", index=False)
    for student, part in flatnesses.groupby("student"):
        landscape_figures.flatness(part)[0].savefig(given.out / f"flatness_{student}.png", dpi=144, bbox_inches="tight")
    print(tables_of(flatnesses, curvatures, walls))


def tables_of(flatnesses: pd.DataFrame, curvatures: pd.DataFrame, walls: pd.DataFrame) -> str:
    rows, labels = [], ("last", "WAKD", "SWAD")
    for (student, role, radius), part in flatnesses.groupby(["student", "role", "radius"]):
        wide = part.groupby(["target", "seed", "strategy"])["increase"].mean().unstack()
        own = {s: mean_and_interval(wide[s].dropna()) if s in wide else "–" for s in labels}
        paired = mean_and_interval(wide["WAKD"] - wide["last"])
        rows.append({"student": student, "role": role, "radius": radius, **own, "WAKD less last, paired": paired})
    bent = []
    top = curvatures[(curvatures["kind"] == "trace") | (curvatures["rank"] == 1)]
    for (student, role, kind), part in top.groupby(["student", "role", "kind"]):
        wide = part.groupby(["target", "seed", "strategy"])["value"].mean().unstack()
        own = {s: mean_and_interval(wide[s].dropna()) if s in wide else "–" for s in labels}
        what = "largest eigenvalue" if kind == "eigenvalue" else kind
        bent.append({"student": student, "role": role, "what": what, **own})
    between = []
    for (pair, point), part in walls.groupby(["pair", "point"], sort=False):
        own = {f"{r} barrier, nats": mean_and_interval(part.loc[part["role"] == r, "barrier"]) for r in ("source", "target")}
        between.append({"between": pair, "of": point, **own, "n": len(part) // 2})
    flat, curved, lines = (markdown(pd.DataFrame(found)) for found in (rows, bent, between))
    return "\n\n".join([flat, "First target and seed only:", curved, lines])


if __name__ == "__main__":
    main()

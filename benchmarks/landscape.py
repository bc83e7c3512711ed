"""A 25 x 25 plane of a digits run, source validation and target: seconds, what recalibration takes, and a cost model.

python benchmarks/landscape.py [--steps 400] [--size 25] [--repeat 3] [--curvature]

Processor seconds stand beside seconds on the clock: on a quiet machine their ratio is the number of workers.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import wakd_kit as wk
from wakd_kit.averaging import last, swad, wakd
from wakd_kit.evaluation.sweep import Point, Sweep


def record(folder: Path, steps: int) -> wk.Run:
    split = wk.leave_one_out(wk.load_domains("digits"), "sketch", 0)
    model = wk.build_model("resnet10t_w16", split.classes, seed=0)
    return wk.train(
        model,
        split,
        steps=steps,
        segment_length=max(1, steps // 40),
        learning_rate=0.01,
        declare=[],
        progress=False,
        save_to=folder,
    )


@contextlib.contextmanager
def clock(what: str, points: int) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(
        f"  {what:36} {wall:6.1f} s  {processor:6.1f} s of processor  {points / wall:6.1f} points/s  "
        f"{1e3 * wall / points:6.1f} ms a point  load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def seconds_per_point(run: wk.Run, roles: tuple[str, ...], batchnorm: str, points: int) -> tuple[int, float]:
    """Images scored at a point, and processor seconds for one."""
    sweep = Sweep(run, roles=roles, batchnorm=batchnorm)
    vector = sweep.locate(last(run.source_curves))
    list(sweep.scores([Point(vector)] * 4))
    start = time.process_time()
    list(sweep.scores([Point(vector)] * points))
    return sum(map(len, sweep.labels.values())), (time.process_time() - start) / points


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=400)
    options.add_argument("--size", type=int, default=25)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--curvature", action="store_true", help="flatness and curvature as well: minutes")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = record(Path(folder) / "run", given.steps)
        curves = run.source_curves
        corners = {"initial": "initial", "last": last(curves), "WAKD": wakd(curves, begin=0.5)}
        count, workers = given.size**2 + len(corners), Sweep(run).workers
        for i in range(given.repeat):
            for batchnorm in ("average", "recalibrate"):
                with clock(f"plane {given.size} x {given.size}, {batchnorm}, {workers} workers", count):
                    wk.landscape.plane(run, corners, size=given.size, batchnorm=batchnorm, name=f"{batchnorm}{i}")
        with clock("the same, read from the run", count):
            wk.landscape.plane(run, corners, size=given.size, batchnorm="recalibrate", name="recalibrate0")

        calibration = run.settings["batchnorm_batches"] * run.settings["batch_size"]
        for batchnorm in ("average", "recalibrate"):
            roles = (("target",), ("source",), ("source", "target"))
            images, seconds = zip(*(seconds_per_point(run, r, batchnorm, 40) for r in roles))
            slope, constant = np.polyfit(images, seconds, 1)
            extra = f", {calibration} images to recalibrate on" if batchnorm == "recalibrate" else ""
            print(
                f"  {batchnorm}: {1e3 * constant:.1f} ms + {1e6 * slope:.0f} microseconds per image of one core, from "
                f"{', '.join(f'{n} images {1e3 * s:.0f} ms' for n, s in zip(images, seconds))}{extra}",
                flush=True,
            )
        if given.curvature:
            choices = {"last": last(curves), "WAKD": wakd(curves, begin=0.5)}
            with contextlib.suppress(wk.averaging.NoWindow):
                choices["SWAD"] = swad(curves)
            count = len(choices) * (1 + 3 * 20)
            with clock(f"flatness of {len(choices)}, 3 radii, 20 directions", count):
                print(
                    wk.landscape.flatness(run, choices, radii=[1, 2, 4])
                    .groupby(["strategy", "radius", "role"])
                    .increase.mean()
                )
            with clock(f"curvature of {len(choices)}, 256 images", 4 * len(choices)):
                print(wk.landscape.curvature(run, choices).to_string())


if __name__ == "__main__":
    main()

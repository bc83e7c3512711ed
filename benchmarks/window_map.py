"""The full window map of a digits run: 40 segments, 820 windows, source validation and target. Time, and how it grows.

Prints beside it what no exact float32 map can beat on the machine it runs on: the operations of all forwards over the rate
of a large matrix product on all cores.

python benchmarks/window_map.py [--steps 400] [--policies average recalibrate]
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import wakd_kit as wk
from wakd_kit.models.device import cores, device


def record(folder: Path, steps: int, batchnorm: str) -> wk.Run:
    split = wk.leave_one_out(wk.load_domains("digits"), "sketch", 0)
    model = wk.build_model("resnet10t_w16", split.classes, seed=0)
    return wk.train(
        model,
        split,
        steps=steps,
        segment_length=max(1, steps // 40),
        learning_rate=0.01,
        batchnorm=batchnorm,
        declare=[],
        save_to=folder,
    )


def peak_rate(seconds: float = 2.0) -> float:
    """Float32 operations per second of a large matrix product on all cores, or on the accelerator that the map is made on."""
    a, b = torch.randn(2, 2048, 2048, device=device())
    torch.mm(a, b)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        torch.mm(a, b)[0, 0].item()  # waits for it
        done += 2 * 2048**3
    return done / (time.perf_counter() - start)


def operations(model: torch.nn.Module, size: int) -> int:
    """Float operations of one image's forward; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, size, size), maps=False)
    return counter.get_total_flops()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=400)
    options.add_argument("--policies", nargs="+", default=["average", "recalibrate"])
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for batchnorm in given.policies:
            run = record(Path(folder) / batchnorm, given.steps, batchnorm)
            images = sum(len(e) for e in run.split.val.values()) + len(run.split.target_for_testing_only)
            print(f"BatchNorm policy {batchnorm}: {images} images a window", flush=True)
            one, rate = operations(run.blank_model(), run.split.domains.size), peak_rate()
            bound = 820 * images * one / rate
            print(
                f"  {one / 1e6:.2f} MFLOP an image, matrix products run at {rate / 1e9:.0f} GFLOP/s: the forwards of 820 "
                f"windows take at least {bound:.1f} s here, recalibration not counted",
                flush=True,
            )
            for grid in (10, 20, 40):
                for workers in sorted({1, cores()}):
                    start = time.perf_counter()
                    windows = len(wk.window_map(run, grid=grid, workers=workers))
                    took = time.perf_counter() - start
                    print(
                        f"  {grid:3} segments {windows:4} windows {workers} worker(s): {took:6.1f} s, "
                        f"{1e3 * took / windows:5.1f} ms a window, {windows * images / took:7.0f} images/s",
                        flush=True,
                    )
            start = time.perf_counter()
            proxy = wk.window_map_proxy(run)
            took, exact = time.perf_counter() - start, run.window_map
            ranks = {
                c: proxy[f"{c}_proxy"].corr(exact[c], method="spearman")
                for c in ("val_accuracy", "oracle_target_accuracy")
            }
            print(
                f"  proxy: {took:.1f} s; Spearman with the exact map "
                + ", ".join(f"{c} {r:.2f}" for c, r in ranks.items())
            )


if __name__ == "__main__":
    main()

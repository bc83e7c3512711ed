"""Every strategy on one recorded ResNet-18 run of 64 segments: time to choose, time to average, peak memory.

The run is a real one, recorded in 64 steps at 32 px (its accuracy does not matter here). Scores of searching strategies
are replaced by a function of the coefficients, so that choosing is timed and not the forward passes of a search.

    python benchmarks/strategies.py
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import wakd_kit as wk
from wakd_kit.averaging import NoWindow

SETTINGS = {
    "wakd": {"begin": 0.1},
    "sma": {"start": 0.1},
    "swa": {"start": 0.5},
    "ema": {"decay": 0.9},
    "window": {"begin": 0.5},
    "eoa_wakd_repo": {"begin": 6},
}


def record(folder: Path) -> wk.Run:
    split = wk.leave_one_out(wk.load_domains("digits"), "sketch", 0)
    model = wk.build_model("resnet18", split.classes, seed=0)
    return wk.train(
        model, split, steps=64, segment_length=1, batch_size=8, learning_rate=1e-4, batchnorm="frozen", save_to=folder
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = record(Path(folder) / "run")
        curves, vector = run.source_curves, sum(t.numel() * 4 for t in run.segments.initial.values()) / 1e6
        rng = np.random.default_rng(0)
        # a curve with a valley, so that every strategy finds something
        loss = 0.5 + 0.5 * np.exp(-np.arange(64) / 8) + 0.004 * np.arange(64) + rng.normal(0, 0.01, 64)
        curves = wk.averaging.Curves(curves.iterates, val_loss=loss, val_accuracy=1 - loss / 2)
        slope = rng.normal(size=64)
        evaluations = {
            "score": lambda c: 0.5 + 0.1 * float(np.asarray(c) @ slope),
            "loss_and_gradient": lambda c: (float(np.asarray(c) @ slope), slope),
            "held_out_loss": lambda c: float(np.asarray(c) @ slope),
        }
        print(f"ResNet-18, one vector {vector:.0f} MB, 64 segments")
        print(f"{'strategy':16}{'choose ms':>11}{'segments':>10}{'average s':>11}{'s per segment':>15}{'peak MB':>9}")
        for name in wk.averaging.strategies:
            start = time.perf_counter()
            wanted = {"name": name, "label": name, **SETTINGS.get(name, {})}
            chosen = wk.averaging.choose(curves, [wanted], **evaluations)[name]
            choosing = time.perf_counter() - start
            if isinstance(chosen, NoWindow):
                print(f"{name:16}{1e3 * choosing:11.2f}  {chosen}")
                continue
            used = int(np.count_nonzero(chosen)) + (chosen.initial > 0)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            start = time.perf_counter()
            run.average(chosen)
            took = time.perf_counter() - start
            peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(f"{name:16}{1e3 * choosing:11.2f}{used:10d}{took:11.2f}{took / used:15.3f}{peak:9.0f}", flush=True)
        print("peak MB: growth of the process's highest resident memory; 0 once an earlier strategy needed as much")


if __name__ == "__main__":
    main()

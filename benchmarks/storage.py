"""The papers' setting recorded: 50,000 iterates of a ResNet-18 in 500 segments. Disk at its highest, and memory.

No network is trained: iterates are a random walk from the initial parameters, added and stored by the kit's own recorder
at full length, with WAKD and SWAD declared. Prints the largest size that the folder had after a segment, and the extra
resident memory; while a segment is merged or a checkpoint written, more is there.

    python benchmarks/storage.py [--steps 50000] [--most 56] [--storage float16_difference]
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import wakd_kit as wk
from wakd_kit.objectives import combine
from wakd_kit.runs.record import Checkpoint
from wakd_kit.runs.run import curves_from
from wakd_kit.runs.settings import Settings, edges_to_keep


def resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def held_mb() -> float:
    """What the process holds for itself now; pages of mapped files, which the system takes back at will, are not in it."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def settings(given) -> Settings:
    return Settings(declare=[{"name": "wakd", "begin": 0.1}, {"name": "swad"}], steps=given.steps)


def row(step: int, length: int, noise: float) -> dict:
    """A validation curve that falls, settles and rises a little, as in fine-tuning."""
    loss = 0.3 + np.exp(-step / 3000) + 2e-6 * step + noise
    curve = {"val_loss/a": loss, "val_accuracy/a": 1 - loss / 3, "val_loss_pooled": loss, "train_loss": loss}
    return {"step": step, "iterates": length, **curve}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=50_000)
    options.add_argument("--segment-length", type=int, default=100)
    options.add_argument("--most", type=int, default=56)
    options.add_argument("--storage", default="float16_difference")
    given = options.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = wk.build_model("resnet18", 7)
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-5)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()  # the moments exist, as they would in training
        checkpoint = Checkpoint(folder, model, optimiser, combine("ce"))
        recorder, rows = checkpoint.restore(given.storage)
        segments = recorder.segments
        move = [1e-4 * torch.randn_like(p) for p in model.parameters()]
        held, own = resident_mb(), held_mb()
        highest, most_held, adding, storing = 0, 0.0, 0.0, 0.0
        for step in range(1, given.steps + 1):
            with torch.no_grad():
                if step % 10 == 0:  # a walk: back and forth with drift, cheap enough to repeat 50,000 times
                    torch._foreach_add_(list(model.parameters()), move, alpha=float(rng.normal(0.1, 1)))
            start = time.perf_counter()
            recorder.add()
            adding += time.perf_counter() - start
            if step % given.segment_length == 0:
                start = time.perf_counter()
                rows.append(row(step, recorder.count, float(rng.normal(0, 0.005))))
                closed = recorder.close(step)
                segments.append(*closed)
                if len(segments) > given.most:
                    curves = curves_from(pd.DataFrame(rows), ["a"])
                    segments.shrink(given.most, edges_to_keep(curves, settings(given)))
                checkpoint.save(rows, segments, checkpoint.take(closed.end))
                most_held = max(most_held, held_mb())
                storing += time.perf_counter() - start
                highest = max(highest, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()))
        vector = 4 * sum(p.numel() for p in model.parameters()) / 1e6
        print(f"{given.steps} iterates, {len(rows)} segments recorded, {len(segments)} stored as {given.storage}")
        print(f"disk at its highest {highest / 1e9:.2f} GB (checkpoint and initial parameters included)")
        print(
            f"one parameter vector is {vector:.0f} MB. Beyond plain training, after each segment, the process held at most"
        )
        print(
            f"{most_held - own:.0f} MB more of its own; peak resident memory grew by {resident_mb() - held:.0f} MB, mapped files and"
        )
        print("what the allocator keeps included (MALLOC_MMAP_THRESHOLD_=131072 returns it at once)")
        print(f"adding {1e3 * adding / given.steps:.2f} ms an iterate, storing {storing / len(rows):.2f} s a segment")
        curves = curves_from(pd.DataFrame(rows), ["a"])
        for name in ("wakd", "swad"):
            coefficients = getattr(wk.averaging, name)(curves)
            used = np.flatnonzero(coefficients)
            begin, end = curves.begins[used[0]] - 1, curves.ends[used[-1]]
            kept = all(edge in segments.edges or edge == 0 for edge in (begin, end))
            print(f"{name}: steps {begin} to {end}, both edges stored: {kept}")


if __name__ == "__main__":
    main()

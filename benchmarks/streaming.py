"""What training on images that do not fit holds in memory, and what the thread that gathers them costs a step.

Images lie in a memory map, as `load_domains` leaves them. Memory is what the process has of its own after some batches, beside
the pages of the map, which the system takes back when it needs them; time is processor seconds of the whole process, a streamed
batch and one of images that lie still in turn, relative to a training step of ResNet-18 on it.

    python benchmarks/streaming.py [--images 4000] [--steps 40]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import wakd_kit as wk
from wakd_kit.data.augment import augment, views_from
from wakd_kit.data.batches import SourceBatches

SIDE, BATCH, EIGHTH = 224, 64, 8


def own() -> int:
    """Bytes that are this process's own, mapped files left out."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024


def seconds(action) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=4000)
    options.add_argument("--steps", type=int, default=40, help="the first two are left out")
    given = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shape, file = (given.images, SIDE, SIDE, 3), Path(folder) / "images.npy"
        written = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        for i in range(0, given.images, 500):
            written[i : i + 500] = np.random.default_rng(i).integers(0, 256, written[i : i + 500].shape, np.uint8)
        del written
        images, third = np.load(file, mmap_mode="c"), given.images // 3
        labels = np.arange(third) % 7
        arrays = {name: (images[third * i : third * (i + 1)], labels) for i, name in enumerate("abc")}
        split = wk.leave_one_out(wk.domains_from_arrays(arrays, tuple("1234567")), "c")
        data = sum(e.images.shape[0] for e in split.train.values()) * SIDE * SIDE * 3
        still, streamed = (
            SourceBatches(split, BATCH, "pooled", 0, torch.device("cpu"), streaming=how) for how in ("never", "always")
        )
        before, peak, took = own(), 0, {"streamed": [], "still": []}
        for step in range(1, given.steps + 1):
            took["streamed"].append(seconds(lambda step=step: streamed.batch(step)))
            peak = max(peak, own() - before)
        for step in range(1, given.steps + 1):
            took["still"].append(seconds(lambda step=step: still.batch(step)))
        model = wk.build_model("resnet18", 7, seed=0).to(memory_format=torch.channels_last)
        views, generator = views_from("photographs"), torch.Generator()

        def train():
            images, labels, _ = still.batch(1)
            x, labels = augment(images[:EIGHTH], views, generator), labels[:EIGHTH]
            torch.nn.functional.cross_entropy(model(x, maps=False).logits, labels).backward()

        train()
        step = 8 * statistics.median(seconds(train) for _ in range(3))  # an eighth of a batch, for it takes seconds
        shares = {name: statistics.mean(times[2:]) / step for name, times in took.items()}
        print(
            f"{data / 1e6:.0f} MB of images at {SIDE} px, batches of {BATCH} ({BATCH * SIDE * SIDE * 3 / 1e6:.1f} MB): own memory "
            f"grew by at most {peak / 1e6:.0f} MB, {peak / (BATCH * SIDE * SIDE * 3):.1f} batches, {peak / data:.1%} of them; a batch takes {shares['streamed']:.2%} of a "
            f"step streamed, {shares['still']:.2%} lying still"
        )


if __name__ == "__main__":
    main()

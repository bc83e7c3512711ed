"""Images a second that a network answers on one core, by how many it is asked at once; what the kit takes is marked.

Batch sizes take turns, and the fastest of their turns counts, in processor time.

python benchmarks/predict.py [--models tf_efficientnet_lite0 resnet18] [--sizes 64 96 224]
"""

import argparse
import time

import torch

import wakd_kit as wk
from wakd_kit.runs.network import at_once, predict

BATCH_SIZES = (8, 16, 32, 64, 128)


def rates(model: torch.nn.Module, size: int, turns: int) -> dict[int, float]:
    """{batch size: images per processor second}."""
    images = torch.randint(0, 256, (max(BATCH_SIZES), size, size, 3), dtype=torch.uint8)
    fastest = dict.fromkeys(sorted({*BATCH_SIZES, at_once((size, size), torch.device("cpu"))}), float("inf"))
    for _ in range(turns):
        for batch_size in fastest:
            begun = time.process_time()
            predict(model, images, batch_size=batch_size)
            fastest[batch_size] = min(fastest[batch_size], time.process_time() - begun)
    return {batch_size: len(images) / seconds for batch_size, seconds in fastest.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", nargs="+", default=["tf_efficientnet_lite0", "resnet18"])
    options.add_argument("--sizes", nargs="+", type=int, default=[64, 96, 224])
    options.add_argument("--turns", type=int, default=3)
    given = options.parse_args()
    torch.set_num_threads(1)
    for name in given.models:
        model = wk.build_model(name, 7).to(memory_format=torch.channels_last)
        for size in given.sizes:
            found, taken = rates(model, size, given.turns), at_once((size, size), torch.device("cpu"))
            said = "  ".join(f"{b}{'*' * (b == taken)}: {rate:.0f}" for b, rate in found.items())
            print(f"{name} at {size} px  {said}   {found[taken] / found[128]:.2f} times that of 128", flush=True)


if __name__ == "__main__":
    main()

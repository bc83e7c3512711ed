"""Which precision should the small backbones be pretrained in? Images per second of a training step, bfloat16 over float32.

    python benchmarks/precision.py [--seconds 3]

One thread, batch 128, channels_last, AdamW, no views: the network alone.
"""

import argparse
import time

import torch
import torch.nn.functional as F

import wakd_kit as wk
from wakd_kit.runs.pretrain import RECIPES

BATCH, CLASSES = 128, 199


def images_per_second(model: torch.nn.Module, size: int, *, bfloat16: bool, seconds: float) -> float:
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = torch.rand(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (BATCH,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = model(images).logits
        F.cross_entropy(logits.float(), labels).backward()
        optimiser.step()
        optimiser.zero_grad()

    for _ in range(3):
        step()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    return BATCH * steps / (time.perf_counter() - start)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3)
    given = options.parse_args()
    torch.set_num_threads(1)
    print("| backbone | float32, images/s | bfloat16 | ratio |\n|---|---|---|---|")
    for name, recipe in RECIPES.items():
        rates = [
            images_per_second(
                wk.build_model(recipe.model, CLASSES, seed=0), recipe.size, bfloat16=b, seconds=given.seconds
            )
            for b in (False, True)
        ]
        print(f"| {name} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[1] / rates[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()

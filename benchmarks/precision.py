"""Which precision should the small backbones be pretrained in? Images per second of a training step, bfloat16 over float32.

    python benchmarks/precision.py [--seconds 3]

One thread, batch 128, channels_last, AdamW, no views: the network alone. Both in turn, medians of the processor's seconds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

import wakd_kit as wk
from wakd_kit.runs.pretrain import RECIPES

BATCH, CLASSES = 128, 199


def stepper(model: torch.nn.Module, size: int, *, bfloat16: bool) -> Callable[[], float]:
    """A training step of a network, which returns the processor's seconds that it took."""
    model = model.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = torch.rand(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (BATCH,))

    def step() -> float:
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = model(images).logits
        F.cross_entropy(logits.float(), labels).backward()
        optimiser.step()
        optimiser.zero_grad()
        return time.process_time() - start

    return step


def images_per_second(steps: Sequence[Callable[[], float]], seconds: float) -> list[float]:
    """Of each, in turn, by the median step of so many seconds or of three."""
    for step in [*steps] * 3:
        step()
    took, end = [], time.perf_counter() + seconds * len(steps)
    while len(took) < 3 or time.perf_counter() < end:
        took.append([step() for step in steps])
    return [BATCH / statistics.median(column) for column in zip(*took)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3)
    given = options.parse_args()
    torch.set_num_threads(1)
    print("| backbone | float32, images/s | bfloat16 | ratio |\n|---|---|---|---|")
    for name, recipe in RECIPES.items():
        models = [wk.build_model(recipe.model, CLASSES, seed=0) for _ in range(2)]
        steps = [stepper(model, recipe.size, bfloat16=b) for model, b in zip(models, (False, True))]
        rates = images_per_second(steps, given.seconds)
        print(f"| {name} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[1] / rates[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()

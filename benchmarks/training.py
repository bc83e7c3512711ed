"""How much of a training is the networks? The share of train() that its forwards, backward and update are, and images per second.

    python benchmarks/training.py [--cases NAME ...] [--repeats 3] [--segments 1] [--device cpu] [--kernel fused]

pure   forward of the teacher, forward and backward of the student, distillation loss and update, on one batch that lies there
train  ``wakd_kit.train`` itself, per step: batches, views, losses, recording, validation and checkpoints included. What it
       costs to begin and to end is taken out: a training of some steps less one of fewer, both of whole segments

Each is measured in turn, ``repeats`` times, and ratios are of medians of this one run. On the CPU seconds are those of the
process on all its threads, for others may work beside it; on an accelerator they are wall seconds, and there ResNet-18 from
ResNet-50 and DeiT-Ti from DeiT-S are trained at 224 px as well. Images are noise: the numbers in them change no speed.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import wakd_kit as wk
from wakd_kit.data.domains import Split
from wakd_kit.models.arithmetic import autocast, computing
from wakd_kit.models.device import device as device_of
from wakd_kit.models.fold import frozen
from wakd_kit.objectives import kd
from wakd_kit.runs import train as training

CLASSES = 7


class Case(NamedTuple):
    """What is trained: student from teacher, on images of a side in batches, in a precision, ``held`` validation images."""

    student: str
    teacher: str
    side: int
    batch: int
    precision: str
    steps: int  # of a segment
    held: int  # validation images per 50 steps of 64 images, as in the data that it stands for


CASES = {
    "digits, 32 px": Case("resnet10t_w16", "resnet18_w16", 32, 64, "float32", 50, 541),
    "PACS, 96 px": Case("resnet18", "resnet18", 96, 16, "float32", 50, 1212),
}
LARGE = {
    f"{student} from {teacher}, 224 px, {batch}": Case(student, teacher, 224, batch, "bfloat16", 50, 1212)
    for student, teacher in (("resnet18", "resnet50"), ("deit_tiny_patch16_224", "deit_small_patch16_224"))
    for batch in (64, 256)
}


def seconds(device: torch.device) -> float:
    """Of this process on all its threads on the CPU, else wall seconds once the device is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def split_of(case: Case) -> Split:
    """Noise for three source domains, as many validation images for a segment's images as there would be."""
    held = max(12, round(case.held * case.steps * case.batch / (50 * 64) / 3))
    rng = np.random.default_rng(0)
    count = 5 * held  # a fifth is held out
    arrays = {
        name: (rng.integers(0, 256, (count, case.side, case.side, 3), dtype=np.uint8), np.arange(count) % CLASSES)
        for name in ("a", "b", "c")
    }
    arrays["target"] = tuple(part[:CLASSES] for part in arrays["a"])
    return wk.leave_one_out(wk.domains_from_arrays(arrays, tuple("1234567"), views="photographs"), "target", 0)


def models(case: Case) -> tuple[torch.nn.Module, torch.nn.Module]:
    sized = {"img_size": case.side} if "deit" in case.student else {}
    return tuple(wk.build_model(name, CLASSES, seed=0, **sized) for name in (case.student, case.teacher))


def pure(case: Case, device: torch.device, kernel: str, steps: int) -> float:
    """Seconds of a step of the networks alone."""
    student, teacher = (model.to(device, memory_format=torch.channels_last) for model in models(case))
    teacher = teacher.eval() if device.type == "cpu" else frozen(teacher.eval(), half=case.precision == "bfloat16")
    optimiser = torch.optim.Adam(student.train().parameters(), lr=1e-3, **{kernel: True})
    images = torch.rand(case.batch, 3, case.side, case.side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with autocast(device, case.precision):
            with torch.no_grad():
                taught = teacher(images, maps=False)
            output = student(images, maps=False)
        loss = kd(output._replace(logits=output.logits.float()), taught._replace(logits=taught.logits.float()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    with computing(device, case.precision, deterministic=False):
        for _ in range(2):
            step()
        start = seconds(device)
        for _ in range(steps):
            step()
        return (seconds(device) - start) / steps


def trained(case: Case, split, device: torch.device, segments: int) -> float:
    """Seconds of a step of ``train``, without those that beginning and ending take."""
    taken = []
    for count in (1, 1 + segments):
        student, teacher = models(case)
        with tempfile.TemporaryDirectory() as folder:
            start = seconds(device)
            wk.train(
                student, split, teacher=teacher, objectives="kd", steps=count * case.steps, segment_length=case.steps,
                batch_size=case.batch, precision=case.precision, batchnorm_batches=1, save_to=Path(folder) / "run",
                device=str(device), progress=False,
            )  # fmt: skip
            taken.append(seconds(device) - start)
    return (taken[1] - taken[0]) / (segments * case.steps)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cases", nargs="*", help="default all of the device")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--segments", type=int, default=1, help="segments of a case's steps that are measured")
    options.add_argument("--device", help="default the accelerator where there is one")
    options.add_argument("--kernel", choices=("fused", "foreach"), default="fused", help="of the update, in both")
    given = options.parse_args()
    device = device_of(given.device)
    torch.set_num_threads(1)
    training._kernel = lambda *_: given.kernel
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{name}, torch {torch.__version__}, updates {given.kernel}, {given.repeats} repeats")
    print("| case | pure, ms a step | train, ms a step | share | train, images/s |\n|---|---|---|---|---|")
    for label, case in (CASES if device.type == "cpu" else CASES | LARGE).items():
        if given.cases and not any(label.startswith(wanted) for wanted in given.cases):
            continue
        split, alone, whole = split_of(case), [], []
        for _ in range(given.repeats):
            alone.append(pure(case, device, given.kernel, case.steps * given.segments))
            whole.append(trained(case, split, device, given.segments))
        a, w = statistics.median(alone), statistics.median(whole)
        shares = sorted(one / other for one, other in zip(alone, whole))
        print(
            f"| {label}, {case.student} from {case.teacher}, {case.batch} | {1e3 * a:.1f} | {1e3 * w:.1f} | {a / w:.0%} "
            f"({shares[0]:.0%} to {shares[-1]:.0%}) | {case.batch / w:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

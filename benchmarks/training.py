"""How much of a training is the networks? The share of train() that its forwards, backward and update are, and images per second.

    python benchmarks/training.py [--cases NAME ...] [--segments 4] [--device cpu] [--kernel fused] [--together 4]

pure   forward of the teacher, forward and backward of the student, distillation loss and update, on one batch that lies there
train  ``wakd_kit.train`` itself, per step: batches, views, losses, recording, validation and checkpoints included; what it
       costs to begin, with its first segment, is left out

Both alternate segment by segment within one training, for a busy machine changes its pace by more than what is asked: a
segment is trained, then as many steps of the networks alone. On the CPU seconds are the processor's: of a thread for the
networks, of all threads (the one that writes included) for the training. On an accelerator they are wall seconds, and there
ResNet-18 from ResNet-50 and DeiT-Ti from DeiT-S are trained at 224 px as well. Images are noise: they change no speed.

--together  on an accelerator, so many trainings at one time beside one alone, each in a process of its own: images/s of all over one's
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import wakd_kit as wk
from wakd_kit.data.domains import Split
from wakd_kit.models.arithmetic import autocast
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
    "PACS, 96 px": Case("resnet18", "resnet18", 96, 16, "float32", 25, 1212),
}
LARGE = {
    f"{student} from {teacher}, 224 px, {batch}": Case(student, teacher, 224, batch, "bfloat16", 50, 1212)
    for student, teacher in (("resnet18", "resnet50"), ("deit_tiny_patch16_224", "deit_small_patch16_224"))
    for batch in (64, 256)
}


def clocks(device: torch.device) -> tuple[float, float]:
    """Seconds of this thread and of the process on the CPU, else wall seconds twice, once the device is done."""
    if device.type == "cpu":
        return time.thread_time(), time.process_time()
    torch.accelerator.synchronize()
    return (time.perf_counter(),) * 2


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


def alone(case: Case, device: torch.device, kernel: str) -> Callable[[], None]:
    """A step of the networks alone."""
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

    return step


def measure(case: Case, device: torch.device, kernel: str, segments: int) -> list[tuple[float, float]]:
    """(pure, train) seconds a step of every segment but the first."""
    step, found, left = alone(case, device, kernel), [], [0.0]

    def after_a_segment(row) -> None:
        begin, now = clocks(device)
        trained = now - left[0]
        for _ in range(case.steps):
            step()
        pure = clocks(device)[0] - begin
        # what the process did meanwhile beside this thread is the training's: its writer
        beside = clocks(device)[1] - now - pure if device.type == "cpu" else 0.0
        found.append((pure / case.steps, (trained + beside) / case.steps))
        left[0] = clocks(device)[1]

    student, teacher = models(case)
    with tempfile.TemporaryDirectory() as folder:
        wk.train(
            student, split_of(case), teacher=teacher, objectives="kd", steps=(1 + segments) * case.steps,
            segment_length=case.steps, batch_size=case.batch, precision=case.precision, save_to=Path(folder) / "run",
            device=str(device), progress=False, sink=after_a_segment, declare=[],
        )  # fmt: skip
    return found[1:]


def rate(case: Case, device: torch.device, kernel: str, segments: int) -> float:
    """Images a second of one training, validation and checkpoints included."""
    torch.set_num_threads(1)
    training.kernel_for = lambda *_: kernel
    return case.batch / statistics.median(train for _, train in measure(case, device, kernel, segments))


def together(count: int, *asked) -> float:
    """Images a second of so many trainings at one time."""
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        return sum(one.result() for one in [pool.submit(rate, *asked) for _ in range(count)])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cases", nargs="*", help="default all of the device")
    options.add_argument("--segments", type=int, default=4, help="how many are measured")
    options.add_argument("--device", help="default the accelerator where there is one")
    options.add_argument("--kernel", choices=("fused", "foreach"), default="fused", help="of the update, in both")
    options.add_argument("--together", type=int, default=1, metavar="N", help="trainings at one time, beside one alone")
    given = options.parse_args()
    device = device_of(given.device)
    if given.together > 1 and device.type == "cpu":
        options.error("--together asks how trainings share an accelerator; on the CPU seconds are the processor's.")
    torch.set_num_threads(1)
    training.kernel_for = lambda *_: given.kernel
    known = CASES if device.type == "cpu" else CASES | LARGE
    cases = {label: case for label, case in known.items() if label.startswith(tuple(given.cases or [""]))}
    if not cases:
        options.error(f"no case begins with {' or '.join(given.cases)}; there are: {'; '.join(known)}.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{name}, torch {torch.__version__}, updates {given.kernel}, medians of {given.segments} segments")
    print("| case | pure, ms a step | train, ms a step | share | train, images/s |\n|---|---|---|---|---|")
    for label, case in cases.items():
        asked = (case, device, given.kernel, given.segments)
        if given.together > 1:
            one, all_of_them = together(1, *asked), together(given.together, *asked)
            print(f"{label}: {all_of_them / one:.2f} times one's {one:.0f} images/s with {given.together}", flush=True)
            continue
        found = measure(*asked)
        pure, train = (statistics.median(column) for column in zip(*found))
        shares = sorted(one / other for one, other in found)
        print(
            f"| {label}, {case.student} from {case.teacher}, {case.batch} | {1e3 * pure:.1f} | {1e3 * train:.1f} | "
            f"{statistics.median(shares):.0%} ({shares[0]:.0%} to {shares[-1]:.0%}) | {case.batch / train:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""What recording costs: the share of a plain distillation step spent on adding an iterate to the open segment.

Both are timed in one run, alternating, so a busy machine disturbs them alike; medians over rounds. Closing a segment (writing
two vectors) happens once per segment and is shown per step of a segment of 100.

    python benchmarks/recording.py [--rounds 30] [--threads 1]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

import wakd_kit as wk
from wakd_kit.objectives import kd
from wakd_kit.runs.record import Recorder
from wakd_kit.runs.store import Segments

CASES = {  # student, teacher, image side, batch: perf of the kit's small student, and of the papers' ResNet-18
    "resnet10t_w16 at 32 px": ("resnet10t_w16", "resnet18_w16", 32, 64),
    "resnet18 at 64 px": ("resnet18", "resnet50", 64, 32),
    "resnet18 at 224 px": ("resnet18", "resnet50", 224, 8),
}


def timed(action) -> float:
    start = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(student_name: str, teacher_name: str, side: int, batch: int, rounds: int) -> dict[str, float]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student, teacher = (
        wk.build_model(n, 7).to(device, memory_format=torch.channels_last) for n in (student_name, teacher_name)
    )
    teacher.eval().requires_grad_(False)
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-4, foreach=True)
    images = torch.rand(batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)

    def step():
        with torch.no_grad():
            target = teacher(images, maps=False)
        loss = kd(student(images, maps=False), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    with tempfile.TemporaryDirectory() as folder:
        segments = Segments.create(Path(folder) / "segments", student.state_dict(), "float32")
        recorder = Recorder(student, segments)
        step(), recorder.add()  # warm up
        steps, adds = [], []
        for _ in range(rounds):
            steps.append(timed(step))
            adds.append(timed(recorder.add))
        closing = timed(lambda: segments.append(*recorder.close(recorder.count)))
    return {"step": statistics.median(steps), "add": statistics.median(adds), "close": closing}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=30)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{'case':26}{'KD step ms':>12}{'add ms':>9}{'share':>9}{'close ms':>10}{'share at 100 steps':>20}")
    for name, case in CASES.items():
        t = measure(*case, rounds=given.rounds)
        shares = t["add"] / t["step"], (t["add"] + t["close"] / 100) / t["step"]
        print(
            f"{name:26}{1e3 * t['step']:12.1f}{1e3 * t['add']:9.2f}{shares[0]:9.2%}{1e3 * t['close']:10.1f}{shares[1]:20.2%}",
            flush=True,
        )


if __name__ == "__main__":
    main()

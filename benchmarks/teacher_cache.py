"""What students after the first cost when what their teacher gives is kept: processor seconds relative to a student that asks it.

One teacher, a first student that fills the cache, then in turn a student that asks the teacher at every step and one that reads,
of the same objective, in one run: the machine disturbs both alike. The share is that of a reading student's seconds which go to
its teacher: load it, calibrate its BatchNorm, hash it, look for files, read them.

    python benchmarks/teacher_cache.py [--case digits] [--students 11] [--steps 100]         pacs96 needs WAKD_DATA
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

import wakd_kit as wk
from wakd_kit.runs import teacher as taught
from wakd_kit.runs import train as training

OBJECTIVES = ["kd", "dkd", "dist", "ls_kd", "nkd", "ttm", "rkd", "mse", "wsld", "cc", "uld"]
CASES = {  # benchmark and its options, target, teacher, student
    "digits": ("digits", {}, "sketch", "resnet18_w16", "resnet10t_w16"),
    "pacs96": ("pacs", {"size": 96}, "sketch", "resnet18_w24", "resnet10t_w16"),
}
spent = 0.0  # on the teacher, in the student that is trained now


@contextlib.contextmanager
def clock():
    global spent
    start = time.process_time()
    yield
    spent += time.process_time() - start


def clocked(owner, name: str) -> None:
    call = getattr(owner, name)

    def timed(*given, **settings):
        with clock():
            return call(*given, **settings)

    setattr(owner, name, timed)


def measure(case: str, students: int, steps: int, folder: Path) -> None:
    benchmark, options, target, large, small = CASES[case]
    split = wk.leave_one_out(wk.load_domains(benchmark, **options), target, seed=0)
    recipe = {"steps": steps, "segment_length": 50, "learning_rate": 0.01, "device": "cpu", "progress": False}
    os.environ["WAKD_CACHE"] = str(folder / "cache")  # decoded images stay where they are, teachers are this run's own
    model = wk.build_model(large, split.classes, seed=0)
    teacher = wk.train(model, split, save_to=folder / "teacher", **{**recipe, "steps": 20})
    teacher.deploy(wk.averaging.window(teacher.source_curves, begin=0))

    def student(name: str, objective: str, **settings) -> tuple[float, float]:
        global spent
        model, spent, start = wk.build_model(small, split.classes, seed=0), 0.0, time.process_time()
        given = {"objectives": objective, "teacher": folder / "teacher", "save_to": folder / name}
        wk.train(model, split, **recipe, **given, **settings)
        return time.process_time() - start, spent

    first, _ = student("first", ["kd", "rkd"])
    ratios, before, after = [], [], []
    for i, objective in zip(range(students), OBJECTIVES):
        asks, at_teacher = student(f"asks{i}", objective, teacher_cache=0.0)
        reads, reading = student(f"reads{i}", objective)
        ratios.append(reads / asks)
        before.append(at_teacher / asks)
        after.append(reading / reads)
    kept = sum(map(taught.bytes_of, taught.kept_folders(taught.teachers_folder())))
    print(
        f"{case:8}{large} -> {small}, {steps} steps, n = {len(ratios)}: relative time {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}); on the teacher {statistics.median(before):.0%} asking, "
        f"{statistics.median(after):.1%} reading (at most {max(after):.1%}); the first, which fills the cache with logits and "
        f"features, took {first:.1f} s; {kept / 1e6:.1f} MB",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--case", choices=tuple(CASES), default="digits")
    options.add_argument("--students", type=int, default=11)
    options.add_argument("--steps", type=int, default=100)
    given = options.parse_args()
    torch.set_num_threads(1)
    clocked(training, training.teacher_module.__name__)
    for name in ("__init__", "__exit__", "__call__", "validation", "features"):
        clocked(taught.Heard, name)
    with tempfile.TemporaryDirectory() as folder:
        measure(given.case, given.students, given.steps, Path(folder))


if __name__ == "__main__":
    main()

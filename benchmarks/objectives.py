"""What an objective costs: a whole distillation step with it, relative to the same step with kd.

Both steps are timed in one run, alternating, so a busy machine disturbs them alike; medians over rounds. A step is the
teacher's forward, the student's forward and backward, and the update of student and objective. Objectives that read maps
pay for keeping them. Memory is not measured. What an objective refuses a pair for stands in place of its numbers.

    python benchmarks/objectives.py [--rounds 10] [--threads 1] [--only kd rkd] [--case "resnet18 at 64 px"]

``--only`` takes objectives as a study has them: rkd, or {name: vkd, orthogonal_map: cayley}.
"""

import argparse
import statistics
import time

import torch
import yaml

import wakd_kit as wk
from wakd_kit.models.build import training_mode
from wakd_kit.objectives import combine, objectives

CASES = {  # student, teacher, image side: the kit's small student, the papers' ResNet-18, and as many features in both
    "resnet10t_w16 at 32 px": ("resnet10t_w16", "resnet18_w16", 32),
    "resnet18 at 64 px": ("resnet18", "resnet50", 64),
    "tf_efficientnet_lite0 at 96 px": ("tf_efficientnet_lite0", "tf_efficientnet_lite2", 96),
}
CLASSES, SOURCES = 7, 3
EXAMPLES = 5000  # training images, for what remembers them


def stepper(spec: dict, student_name: str, teacher, images, labels):
    """A function that does one step with this objective."""
    combined = combine({**spec, "schedule": None})
    student = wk.build_model(student_name, CLASSES, seed=0).to(images.device, memory_format=torch.channels_last)
    student = combined.extended(student, teacher).to(images.device, memory_format=torch.channels_last)
    maps = {who: combined.asks(who) for who in ("student", "teacher")}
    with torch.no_grad():
        ours, theirs = student.eval()(images[:2], maps=maps["student"]), teacher(images[:2], maps=maps["teacher"])
        combined.prepare(ours, theirs, steps=10**6, images=images[:2], sources=SOURCES)
    combined.to(images.device).learn_centres(teacher(images, maps=False).pooled, labels)
    combined.learn_examples(torch.arange(EXAMPLES, device=images.device) % CLASSES)
    index = torch.arange(len(images), device=images.device)
    domains = torch.eye(SOURCES, device=images.device)[index % SOURCES]
    known = {"index": index, "domains": domains, "images": images}
    optimiser = torch.optim.Adam([*student.parameters(), *combined.parameters()], lr=1e-4, foreach=True)
    training_mode(student, "recalibrate")
    steps = iter(range(1, 10**6))

    def step():
        with torch.no_grad():
            target = teacher(images, maps=maps["teacher"])
        loss, _ = combined(student(images, maps=maps["student"]), target, labels, step=next(steps), **known)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def timed(action) -> float:
    start = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(spec: dict, case: tuple[str, str, int], batch: int, rounds: int) -> tuple[float, float]:
    """Median seconds of a step with this objective, and of one with kd."""
    student_name, teacher_name, side = case
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = wk.build_model(teacher_name, CLASSES, seed=1).to(device, memory_format=torch.channels_last)
    teacher.eval().requires_grad_(False)
    images = torch.rand(batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % CLASSES
    steps = [stepper(n, student_name, teacher, images, labels) for n in (spec, {"name": "kd"})]
    for step in steps:  # warm up
        step()
    seconds = [[timed(step) for step in steps] for _ in range(rounds)]
    return tuple(statistics.median(column) for column in zip(*seconds))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--only", nargs="+", default=list(objectives))
    options.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    for case in given.case:
        print(f"{case}, batch {given.batch}\n  {'objective':16}{'step ms':>10}{'kd ms':>10}{'of kd':>8}")
        for name in given.only:
            spec = yaml.safe_load(name)
            spec = spec if isinstance(spec, dict) else {"name": spec}
            try:
                ours, kd = measure(spec, CASES[case], given.batch, given.rounds)
            except ValueError as refused:
                print(f"  {name:16}{'-':>10}  {refused}", flush=True)
                continue
            print(f"  {name:16}{1e3 * ours:10.1f}{1e3 * kd:10.1f}{ours / kd:8.2f}", flush=True)


if __name__ == "__main__":
    main()

"""What test_kills.py kills: a training, and what measures a run. Each process imports this and nothing of the tests' own."""

import os
import time
from pathlib import Path

import numpy as np

import wakd_kit as wk
from wakd_kit import files
from wakd_kit.runs import record as recording

STEPS, SEGMENT = 20, 2
DECLARED = ["wakd", {"name": "ema", "decay": 0.9}]


def small_split():
    rng = np.random.default_rng(0)
    domains = {name: (rng.integers(0, 255, (48, 16, 16, 3)).astype(np.uint8), np.arange(48) % 3) for name in "abc"}
    return wk.leave_one_out(wk.domains_from_arrays(domains, ("x", "y", "z")), "c", 0)


def train(arguments: list[str]) -> None:
    """The training that is killed, on a slow disk: half of the time something is being written beside it. It is given a
    folder and a file that gets a line for every step."""
    folder, log = arguments
    add, replace = recording.Recorder.add, os.replace

    def slowly(old, new):
        time.sleep(0.005)
        replace(old, new)

    files.os.replace = slowly

    def said(recorder):
        add(recorder)
        with open(log, "a") as lines:
            print(recorder.step, file=lines)

    recording.Recorder.add = said
    student = wk.build_model("resnet10t", 3, seed=0, channels=(4, 8, 8, 8), stem_width=4, layers=(1, 1, 0, 0))
    wk.train(
        student, small_split(), steps=STEPS, segment_length=SEGMENT, batch_size=8, most_stored=6, declare=DECLARED,
        batchnorm_batches=2, save_to=folder, resume=True, device="cpu", progress=False,
    )  # fmt: skip


def measure(arguments: list[str]) -> None:
    """All that is kept with a run: scores, choices and predictions, a window map, inner products, a table that grows."""
    from wakd_kit.evaluation.geometry import gram
    from wakd_kit.landscape.surface import plane

    (folder,), split = arguments, small_split()
    run = wk.load_run(Path(folder), split=split)
    choices = wk.choose(run, ["last", "uniform"])
    wk.evaluate(run, choices, split)
    gram(run)
    wk.window_map(run, split, grid=2, workers=1)
    corners = {str(i): wk.averaging.Coefficients(np.eye(len(run.table))[i], of="end") for i in (0, 4, -1)}
    while True:
        try:
            plane(run, corners, split, size=2, workers=1)
            return
        except recording.RunProblem as other:  # the same call by another process
            assert "being computed by another process" in str(other)
            time.sleep(0.05)

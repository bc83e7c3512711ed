"""A small training that is stopped after a step, by a process that dies, and goes on: what each mechanism's tests ask."""

import pandas as pd
import pytest
import torch

import wakd_kit as wk
from wakd_kit.runs import train as training

from ..conftest import SMALL


class Killed(BaseException):
    """No handler stops it, like a kill."""


def student(classes=3, **settings):
    return wk.build_model("resnet10t", classes, seed=0, **{**SMALL, **settings})


def quick(split, folder, model=None, **settings):
    """A run of 8 steps of 8 images."""
    given = {"steps": 8, "segment_length": 4, "batch_size": 8, "learning_rate": 1e-2, "declare": [], **settings}
    return wk.train(model or student(), split, save_to=folder, progress=False, device="cpu", **given)


def equal_runs(one, other):
    """Curves, but for the time taken, and every segment, to the last bit."""
    pd.testing.assert_frame_equal(*(r.table.drop(columns="seconds") for r in (one, other)), check_exact=True)
    assert one.segments.index == other.segments.index
    for k in range(len(one.segments)):
        for of in ("mean", "end"):
            left, right = (r.segments.read(k, of) for r in (one, other))
            assert all(torch.equal(left[n], right[n]) for n in left)


def stopped_and_resumed(split, folder, monkeypatch, *, after: int, model=student, **settings):
    """The run that was stopped after this step and went on; it equals the one that nobody stopped."""
    whole = quick(split, folder / "whole", model(), **settings)
    add, steps = training._Book.add, 0

    def dies(book, losses):
        nonlocal steps
        add(book, losses)
        steps += 1
        if steps == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training._Book, "add", dies)
        with pytest.raises(Killed):
            quick(split, folder / "cut", model(), **settings)
    resumed = quick(split, folder / "cut", model(), resume=True, **settings)
    equal_runs(whole, resumed)
    return resumed

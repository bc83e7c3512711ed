"""The runs that lessons look at: small networks on the digits, sketch left out, trained once on this machine and kept in the cache.

recorded("CE")        student of cross-entropy              recorded("KD")    the same student, distilled from "teacher"
recorded("teacher")   twice as wide, at a lower rate        recorded("self")  the same student, distilled from "CE"

A run that teaches does so with its WAKD average.

Recordings are made and not shipped: they take about a minute and a half for all four, need no network, are always in the format of today, and a megabyte
of parameters in a repository can be neither read nor reviewed. Numbers differ from machine to machine, for training amplifies the last digits of a sum: the last
iterate by points, averages by fewer. So one thread computes, and lessons compute every number that they say.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path

import filelock
import torch

from ..data.domains import cache_folder, leave_one_out, load_domains
from ..evaluation.choose import choose
from ..evaluation.scores import evaluate
from ..evaluation.windows import window_map
from ..fingerprints import of_function
from ..models.build import build_model
from ..names import UnknownName, did_you_mean
from ..objectives import ce, kd
from ..runs.identity import digest
from ..runs.run import Run
from ..runs.train import train

TARGET = "sketch"
RECIPE = {"steps": 300, "segment_length": 15, "batch_size": 32, "learning_rate": 0.01, "batchnorm_batches": 8}
STRATEGIES = ["last", {"name": "wakd", "begin": 0.6}, "swad", {"name": "ema", "decay": 0.98}]
KD = [{"name": "kd", "temperature": 4.0}]
RUNS = {  # name: (model, who teaches it, what differs from the recipe)
    "CE": ("resnet10t_w8", None, {}),
    "teacher": ("resnet10t_w16", None, {"learning_rate": 0.004}),
    "KD": ("resnet10t_w8", "teacher", {"objectives": KD}),
    "self": ("resnet10t_w8", "CE", {"objectives": KD}),
}


@functools.cache
def split_of_lessons():
    """The digits with sketch left out, seed 0."""
    return leave_one_out(load_domains("digits"), target=TARGET, seed=0)


@functools.cache
def recorded(name: str) -> Run:
    """One of the lessons' runs, evaluated; trained if it is not there yet. Raises ``UnknownName`` for none of them."""
    if name not in RUNS:
        raise UnknownName(did_you_mean("run", name, RUNS))
    model, teacher, settings = RUNS[name]
    taught = recorded(teacher) if teacher else None
    place = folder() / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{place}.lock"):  # two notebooks that ask at once train it once
        if not (place / "settings.json").exists():
            print(f"recording {name} for the lessons: once, some seconds", flush=True)
        split = split_of_lessons()
        student = build_model(model, split.classes, seed=0)
        with contextlib.redirect_stdout(io.StringIO()):
            recipe = {**RECIPE, **settings, "resume": True, "progress": False, "device": "cpu"}
            with _one_thread():
                run = train(student, split, teacher=taught, save_to=place, **recipe)
            if run.scores.empty:
                choices = choose(run, STRATEGIES, split)
                run.deploy(choices["wakd"])  # what it teaches with
                evaluate(run, choices, split)
    return run


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are taken in one order, whatever number of threads the session has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def windows(name: str = "CE") -> Run:
    """A run with the accuracy of its windows, ``windows().window_map``, made once as well."""
    run = recorded(name)
    with filelock.FileLock(f"{run.folder}.lock"):
        if run.window_map.empty:
            window_map(run, run.split, grid=10, workers=1)
    return run


def folder() -> Path:
    """Where they lie: ``$WAKD_CACHE/lessons/<digest of recipe, images and code>``, so that others are recorded beside them."""
    code = [of_function(of) for of in (windows, ce, kd)]  # with the defaults of settings
    return (
        cache_folder() / "lessons" / digest(json.dumps([RECIPE, RUNS, STRATEGIES, split_of_lessons().recipe, code]))[:8]
    )


def make_all() -> Path:
    """Make what is not there yet; returns the folder."""
    for name in RUNS:
        recorded(name)
    windows()
    return folder()

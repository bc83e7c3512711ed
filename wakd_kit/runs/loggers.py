"""Optional sinks of the curves that a run records anyway: TensorBoard, Weights & Biases, trackio. Never required.

    with tensorboard("events/watched") as sink:
        wk.train(student, split, sink=sink, save_to="runs/watched")

    with wandb("my-project", name="demo") as sink:
        replay(wk.load_run("runs/watched"), sink)

A sink is a function of one row of curves.csv. What is replayed from a run is what a training sends segment by segment:
source curves only, for there is nothing of the target in them. ``wakd log`` replays whole studies.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Mapping

from ..files import path_of
from .run import load_run
from .store import RunProblem

Sink = Callable[[Mapping[str, float]], None]


def replay(run, sink: Sink) -> None:
    """Send every recorded segment of a run to a sink, in order."""
    for row in run.table.to_dict("records"):
        sink(row)


def replay_all(
    folder: str | os.PathLike, *, to_tensorboard: str = "", to_wandb: str = "", to_trackio: str = ""
) -> Iterator[str]:
    """Send every run in or below a folder, finished or not, to event files or to projects; yields their names.

    to_tensorboard  folder of event files, one below it for each run, named as the run's own place below ``folder``
    to_wandb, to_trackio  a project that gets one run for each
    Raises ``RunProblem`` when there is no run.
    """
    folder = path_of(folder)
    places = sorted(file.parent for file in folder.rglob("settings.json") if (file.parent / "curves.csv").is_file())
    if not places:
        raise RunProblem(f"No recorded run in or below {folder}: give a run's folder, or one that holds runs.")
    for place in places:
        run, name = load_run(place), str(place.relative_to(folder) if place != folder else place.name)
        with contextlib.ExitStack() as stack:
            sinks = [stack.enter_context(tensorboard(path_of(to_tensorboard) / name))] if to_tensorboard else []
            sinks += [stack.enter_context(wandb(to_wandb, name=name, config=run.settings))] if to_wandb else []
            sinks += [stack.enter_context(trackio(to_trackio, name=name, config=run.settings))] if to_trackio else []
            for sink in sinks:
                replay(run, sink)
        yield name


def series(row: Mapping[str, float]) -> dict[str, float]:
    """The curves in a row: all but its step and its number of iterates, and what was not measured (not finite)."""
    return {n: float(v) for n, v in row.items() if n not in ("step", "iterates") and math.isfinite(v)}


@contextlib.contextmanager
def tensorboard(folder: str | os.PathLike) -> Iterator[Sink]:
    """A sink that writes TensorBoard event files into a folder, a scalar per curve: ``val_loss/ink`` is its tag.

    Needs the package ``tensorboard``. A training that is continued, continues its curves in the same folder.
    """
    _needs("tensorboard")
    from torch.utils.tensorboard import SummaryWriter  # an optional dependency

    with SummaryWriter(os.fspath(path_of(folder))) as writer:

        def sink(row: Mapping[str, float]) -> None:
            for name, value in series(row).items():
                writer.add_scalar(name, value, int(row["step"]))

        yield sink


@contextlib.contextmanager
def wandb(project: str, **options) -> Iterator[Sink]:
    """A sink that logs to Weights & Biases, as one run of a project.

    options  of ``wandb.init``, such as ``name="demo"``, ``config=run.settings``, ``mode="offline"``; to continue the curves
             of a training that was continued, the same ``id`` and ``resume="allow"``

    Needs the package ``wandb``, and an account unless ``mode`` is "offline".
    """
    _needs("wandb")
    import wandb as package  # an optional dependency

    with package.init(project=project, **options) as run:
        yield lambda row: run.log(series(row), step=int(row["step"]))


@contextlib.contextmanager
def trackio(project: str, **options) -> Iterator[Sink]:
    """A sink that logs to trackio, as one run of a project, in a database on this machine: ``trackio show`` is its page.

    options  of ``trackio.init``, such as ``name="demo"``, ``config=run.settings``, or ``space_id`` for one that others see; to
             continue the curves of a training that was continued, the same ``name`` and ``resume="allow"``

    Needs the package ``trackio``. Load of processors and accelerators is not logged unless asked for.
    """
    _needs("trackio")
    import trackio as package  # an optional dependency

    run = package.init(project=project, **{"embed": False, "auto_log_gpu": False, "auto_log_cpu": False, **options})
    try:
        yield lambda row: run.log(series(row), step=int(row["step"]))
    finally:
        run.finish()


def _needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"{package} is not installed, and nothing else needs it: pip install {package}.")

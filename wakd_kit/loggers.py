"""Optional sinks of the curves that a run records anyway: TensorBoard and Weights & Biases. Never required.

    with tensorboard("runs/demo/tensorboard") as sink:
        replay(wk.load_run("runs/demo"), sink)

A sink is a function of one row of curves.csv. What is replayed from a finished run is what a training sends segment by
segment: source curves only, for there is nothing of the target in them.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping

Sink = Callable[[Mapping[str, float]], None]


def replay(run, sink: Sink) -> None:
    """Send every recorded segment of a run to a sink, in order."""
    for row in run.table.to_dict("records"):
        sink(row)


def series(row: Mapping[str, float]) -> dict[str, float]:
    """The curves in a row: all but its step and its number of iterates, and what was not measured (not finite)."""
    return {n: float(v) for n, v in row.items() if n not in ("step", "iterates") and math.isfinite(v)}


@contextlib.contextmanager
def tensorboard(folder: str | os.PathLike) -> Iterator[Sink]:
    """A sink that writes TensorBoard event files into a folder, a scalar per curve: ``val_loss/ink`` is its tag.

    Needs the package ``tensorboard``. A training that is continued, continues its curves in the same folder.
    """
    from torch.utils.tensorboard import SummaryWriter  # an optional dependency

    with SummaryWriter(os.fspath(folder)) as writer:

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
    import wandb as package  # an optional dependency

    with package.init(project=project, **options) as run:
        yield lambda row: run.log(series(row), step=int(row["step"]))

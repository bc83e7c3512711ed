"""Processes of tests, forked from one that has imported everything and that all workers of a session share (decision 26).

Each would import torch, timm and matplotlib for seconds before it does anything. Who is started cold is named there.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from wakd_kit.reporting import warm
from wakd_kit.reporting.warm import ADDRESS, Forked

ROOT = Path(__file__).parent.parent
SHARED = "WAKD_TESTS_WARM"  # the environment variable that names it: what is to be started cold does not know it
CALL = "import importlib, sys; m, f = sys.argv[1].split(':'); sys.exit(getattr(importlib.import_module(m), f)(sys.argv[2:]))"


def share() -> contextlib.ExitStack:
    """Starts the session's warm process, which imports when it is asked first, and names it in this environment."""
    kept = contextlib.ExitStack()
    env, _ = kept.enter_context(warm.started(at_once=False))
    os.environ[SHARED] = env.get(ADDRESS, "")
    return kept


def shared() -> dict[str, str]:
    """The environment of who may ask the session's warm process; it names none where processes are not forked."""
    return {ADDRESS: os.environ.get(SHARED, "")}


def process(
    target: str, *arguments: object, cwd: Path | None = None, streams: Sequence[int] = (0, 1, 2)
) -> Forked | subprocess.Popen:
    """A process that calls ``target``, "module:function", with a list of strings; one of its own where none is forked."""
    env = {**os.environ, **shared(), "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    words = [str(argument) for argument in arguments]
    try:
        return Forked(target, words, cwd=cwd, env=env, streams=streams)
    except OSError:
        given = dict(zip(("stdin", "stdout", "stderr"), streams))
        return subprocess.Popen([sys.executable, "-c", CALL, target, *words], cwd=cwd, env=env, **given)


def ended(process: Forked | subprocess.Popen, seconds: float) -> bool:
    """Whether a process has ended, after waiting for that so long."""
    until = time.time() + seconds
    while process.poll() is None and time.time() < until:
        time.sleep(0.005)
    return process.poll() is not None


def report(words: list[str]) -> int:
    """A target: ``wakd report``, whose jobs and kernels are forked from where it was."""
    from wakd_kit.cli import main

    env = {ADDRESS: os.environ[ADDRESS]}
    warm.started = lambda **_: contextlib.nullcontext((env, []))
    return main(words)


if __name__ == "__main__":  # the kernel of ``lab``
    sys.exit(process(f"{warm.__name__}:kernel", *sys.argv[1:]).wait())

"""Waiting for what another process does: as long as a busy machine takes, and with what there is to say where it never comes."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

Given = TypeVar("Given")

# what hangs says so before CI's time is up; long forms wait for the work of many jobs
MINUTES = 60 if os.environ.get("WAKD_SLOW") else 10


def until(there: Callable[[], Given], why: Callable[[], object] = str, *, every: float = 0.05) -> Given:
    """What ``there`` gives, asked every so many seconds, once it is true; where it never is, what ``why`` gives is raised."""
    end = time.monotonic() + 60 * MINUTES
    while not (given := there()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {MINUTES} minutes: {why()}")
        time.sleep(every)
    return given

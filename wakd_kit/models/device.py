"""What this machine computes on: the device, and how many processor cores this process may use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device(given: str | torch.device | None = None) -> torch.device:
    """The device that was asked for; without one the GPU where there is one, else the processor."""
    import torch  # takes seconds, and a step of a study that only counts cores does not need it

    if given is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=given).cpu()  # torch knows devices that this machine has not
        return torch.device(given)
    except (RuntimeError, TypeError, AssertionError) as error:
        known = "'cpu'" + " or 'cuda'" * torch.cuda.is_available()
        raise ValueError(
            f"device is one that torch has here, such as {known}; got {given!r} ({str(error).splitlines()[0][:100]})."
        ) from error


def cores() -> int:
    """How many cores this process may use; all there are where the system cannot say, as on macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

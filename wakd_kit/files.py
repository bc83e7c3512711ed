"""Files that are never half of anything, and locks that end with their process. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO


def write_text(path: Path, text: str) -> None:
    """A text file that is either the old or the new one, never half of it."""
    write_with(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Like ``write_text`` for anything that can write itself to a path."""
    partial = path.with_name(path.name + ".part")
    write(partial)
    os.replace(partial, path)


def recording_folder(folder: Path) -> Path:
    """Where a run is recorded until it is complete."""
    return folder.with_name(folder.name + ".recording")


class Stopped(RuntimeError):
    """Work that could not go on; the message says where, why, and what is kept."""


class Held(Exception):
    """Another process holds a lock; the message is who."""


@contextlib.contextmanager
def locked(path: Path, *, wait: Callable[[str], None] | None = None, owner: str = "") -> Iterator[TextIO]:
    """Hold a lock of the operating system: it ends with its process, however that dies, and says meanwhile whose it is.

    wait   called once with who holds it, and then waited for; without it ``Held`` is raised within a quarter of a second
    owner  what the holder is doing, for others to read beside its process and machine
    """
    with open(path, "a+", encoding="utf-8") as lock:
        # who only asks, in ``holder``, has it for an instant: that is not reason enough to be turned away
        if not any(_taken(lock, fcntl.LOCK_EX, after) for after in (0, 0.02, 0.2)):
            if wait is None:
                raise Held(_read(lock))
            wait(_read(lock))
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}{owner and f', {owner},'} since {time.ctime()}")
        lock.flush()
        yield lock


def holder(path: Path) -> str | None:
    """Who holds a lock, or None when nobody does."""
    if not path.exists():
        return None
    with open(path, "a+", encoding="utf-8") as lock:
        # shared: two that ask at once do not take each other for a holder
        return None if _taken(lock, fcntl.LOCK_SH) else _read(lock)


def _taken(lock: TextIO, kind: int, after: float = 0) -> bool:
    time.sleep(after)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(lock: TextIO) -> str:
    lock.seek(0)
    return lock.read().strip()

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

    wait   called once with who holds it, and then waited for; without it ``Held`` is raised at once
    owner  what the holder is doing, for others to read beside its process and machine
    """
    with open(path, "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait is None:
                raise Held(_read(lock)) from None
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
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(lock)
        return None


def _read(lock: TextIO) -> str:
    lock.seek(0)
    return lock.read().strip()

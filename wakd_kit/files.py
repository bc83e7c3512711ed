"""Paths as they are given, files that are never half of anything, tables whose names stay text, locks that end with their process."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from io import FileIO
from pathlib import Path

import filelock

try:
    import fcntl  # for shared locks, which filelock has none of
except ImportError:  # Windows
    fcntl = None

NAMES = (
    "domain",
    "strategy",
    "role",
    "note",
    "group",
    "student",
    "target",
)  # columns that hold what somebody called something


def columns_of(domains: Sequence[str]) -> dict[str, str]:
    """The column of each domain in a table that has others: its name, or "domain mean" for one that is called ``mean``."""
    own = r"(domain )*(student|strategy|picked|mean|sd|se|n|missing|source|Avg|worst domain|part|images|rule|draws)"
    return {domain: f"domain {domain}" if re.fullmatch(own, domain) else domain for domain in domains}


def path_of(given: str | os.PathLike) -> Path:
    """A path as a user gives it; ``~`` is his home folder. Raises ``ValueError`` for what no file system takes."""
    try:
        path = Path(given).expanduser()
    except TypeError:
        raise ValueError(f"A path is text or a Path; got {given!r:.100}.") from None
    except RuntimeError:  # no HOME, and no such user
        raise ValueError(f"There is no home folder here for {str(given)!r}; write the whole path.") from None
    sizes = [len(part.encode(errors="replace")) for part in path.parts]
    if max(sizes, default=0) > 255 or sum(sizes) + len(sizes) > 4096:
        raise ValueError(
            f"{str(given)[:60] + '...'!r} is too long for a path: a name in it has at most 255 bytes, all of it 4,095."
        )
    return path


def made(folder: Path, instead: str) -> Path:
    """The folder, made where there is none. Raises ``ValueError`` with what to give ``instead`` where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be made ({error.strerror}); give another {instead}.") from error
    return folder


def room_for(file: Path, what: str) -> Path:
    """The path of a file that may be written, its folder made. Raises ``ValueError`` where it cannot be, and for a folder."""
    made(file.parent, f"place for the {what}")
    if file.is_dir():
        raise ValueError(f"{file} is a folder; name a file in it for the {what}.")
    return file


def write_text(path: Path, text: str) -> None:
    """A text file that is either the old or the new one, never half of it."""
    write_with(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Like ``write_text`` for anything that can write itself to a path. Two that write at once do not meet: the last one stays."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        write(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def together(place: Path, *, folder: bool) -> Iterator[Path]:
    """A folder to write in: all that is in it then comes beside the file ``place``, or into that ``folder``, or nothing does."""
    into = place if folder else place.parent
    partial = (into if into.exists() else into.parent) / f"{place.name}.{secrets.token_hex(4)}.part"
    partial.mkdir(parents=True)
    try:
        yield partial
        if not into.exists():
            os.replace(partial, into)
        else:
            for file in partial.iterdir():
                os.replace(file, into / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sweep(folder: Path, of: str = "*", *, idle: float = 0) -> None:
    """Delete what writers that were killed left in a folder, of files and folders with names like this: only while nobody writes
    them, or those that nobody has written to for so many seconds."""
    for partial in folder.glob(f"{of}.????????.part"):
        with contextlib.suppress(OSError):  # gone in this moment, or another user's
            if not idle or time.time() - partial.stat().st_mtime >= idle:
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()


DAY = 86_400.0  # what is kept between trainings may be written by any process of any machine, without a lock


def read_json(file: Path):
    """What a JSON file holds. Raises ``ValueError`` for one that was cut off."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} {UNREADABLE}") from error


def json_or_nothing(file: Path) -> dict:
    """What a file says; nothing where there is none, or where it is no JSON of ours: it is then written again."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# of a file that the kit wrote whole
UNREADABLE = "is cut off or was edited and cannot be read; put it back from a copy, or move it away."


def read_table(file: str | os.PathLike, text: Collection[str] = NAMES, *, float_precision: str | None = "round_trip"):
    """A csv as a DataFrame: names in the columns ``text`` come back as they were (NA, 0, 007, null), numbers to the last bit.

    An empty name stays "", a missing number is NaN. Raises ``ValueError`` for one that was cut off.
    """
    import pandas as pd  # a job that is done does not wait for it

    if not Path(file).read_bytes().endswith(b"\n"):  # the last row may be a part of one that looks whole
        raise ValueError(f"{file} {UNREADABLE}")
    try:
        columns = pd.read_csv(file, nrows=0).columns
        named = {name: str for name in columns if name in text}
        missing = {name: ["", "nan", "NaN"] for name in columns if name not in text}
        return pd.read_csv(
            file,
            dtype=named,
            keep_default_na=False,
            na_values=missing,
            float_precision=float_precision,
            encoding="utf-8",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} {UNREADABLE}") from error


def stamp(file: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written: its place on the disk, size and time; None where there is none."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def recording_folder(folder: Path) -> Path:
    """Where a run is recorded until it is complete. Raises ``ValueError`` for a folder without a name, "." or "/"."""
    if not folder.name:
        raise ValueError(f"No run is at {folder}, and none can be: name a folder for it, such as runs/mine.")
    return path_of(folder.with_name(folder.name + ".recording"))


class Stopped(RuntimeError):
    """Work that could not go on; the message says where, why, and what is kept."""


class Held(Exception):
    """Another process holds a lock; the message is who."""


class NoLocks(OSError):
    """The file system has no locks; the message says what to do."""


@contextlib.contextmanager
def locked(path: Path, *, wait: Callable[[str], None] | None = None, owner: str = "") -> Iterator[FileIO]:
    """Hold a lock of the operating system: it ends with its process, however that dies, and says meanwhile whose it is.

    wait   called once with who holds it, and then waited for; without it ``Held`` is raised within a quarter of a second
    owner  what the holder is doing, for others to read beside its process and machine

    It is a lock of the open file that is yielded: a child that inherits its descriptor holds it as well, and it ends with
    the last of the two.
    """
    while True:
        with open(path, "a+b", buffering=0) as lock:
            # who only asks, in ``holder``, has it for an instant: that is not reason enough to be turned away
            if not any(_taken(lock, after) for after in (0, 0.02, 0.2)):
                if wait is None:
                    raise Held(_said(lock))
                wait(_said(lock))
                filelock.lock_descriptor(lock.fileno())
            if not (path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())):
                continue  # who held it has moved or deleted it
            lock.truncate(0)
            # byte 0 is what Windows locks, and lets nobody else read
            who = f" process {os.getpid()} on {socket.gethostname()}{owner and f', {owner},'} since {time.ctime()}"
            lock.write(who.encode())
            yield lock
            return


def holder(path: Path) -> str | None:
    """Who holds a lock, or None when nobody does."""
    # to read: a colleague asks as well
    with contextlib.suppress(FileNotFoundError), open(path, "rb", buffering=0) as lock:
        # shared where there is such a lock: two that ask at once do not take each other for a holder
        if not _taken(lock, shared=fcntl is not None):
            return _said(lock)
    return None


def _taken(lock: FileIO, after: float = 0, *, shared: bool = False) -> bool:
    time.sleep(after)
    try:
        if not shared:
            return filelock.lock_descriptor(lock.fileno(), blocking=False)
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise NoLocks(
            f"{Path(lock.name).parent} is on a file system without locks ({os.strerror(error.errno)}), where two processes "
            "could write over each other; keep runs on another disk, or have it mounted with locks (NFS with lockd, Lustre "
            "with -o flock)."
        ) from None
    return True


def _said(lock: FileIO) -> str:
    lock.seek(1)
    return lock.read().decode() or "another process"

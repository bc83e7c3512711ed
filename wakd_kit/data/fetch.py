"""Fetching a published benchmark: ``wakd data get NAME``.

What is fetched lies in ``<folder>.download/`` until all of it is there, verified and unpacked; only then does the
benchmark's folder appear under its name. A download that was cut off continues where it stopped, and files put into
``<folder>.download/`` by hand are used like downloaded ones. The SHA-256 sum of everything used is kept in
``SHA256SUMS`` beside the folder: where nobody publishes a checksum, later downloads must have that of the first. To one
folder one process fetches at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from ..files import Held, NoLocks, locked, path_of, write_text
from .catalog import Benchmark, DataProblem, Download, Hub, config_file, data_folder, published
from .unpack import unpack, unpack_parquet

ATTEMPTS = 5  # in a row that bring no byte
PAUSE = 1.0  # seconds, before the second attempt that brings none
BUSY = (429, 500, 502, 503, 504)  # answers of a server that may serve it in a moment
CHUNK = 1 << 20
SUMS = "SHA256SUMS"
CARD = "README.md"  # of a repository on the hub: its header names the labels


def get_data(name: str, to: str | Path | None = None, *, say: Callable[[str], None] = print) -> Path:
    """Fetch, verify and unpack one published benchmark; returns its folder, laid out as domain/class/images.

    to  the folder that shall hold the domains; default is the benchmark's name in the data folder

    Raises ``UnknownName`` for no such benchmark and ``DataProblem``, with what to do by hand, for everything that keeps
    it from being complete: no network, a page instead of an archive, a wrong checksum, an archive that points outside,
    another process that is fetching it.
    """
    benchmark = published(name)
    target = _target(benchmark, to)
    downloads = target.with_name(f"{target.name}.download")
    by_hand = all((downloads / file.name).is_file() for file in benchmark.files)
    hub = None if by_hand else benchmark.hub
    wanted = hub.files if hub else benchmark.files
    _check_space(wanted, downloads)
    with contextlib.ExitStack() as alone:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            alone.enter_context(_alone(target.with_name(f"{target.name}.lock")))
            _target(benchmark, to)  # who was at it until now may have finished it
            downloads.mkdir(exist_ok=True)
        except Held as other:
            raise DataProblem(
                f"{benchmark.title} is being fetched to {target} by {other}: wait for it, or choose another place with --to."
            ) from None
        except OSError as error:
            raise DataProblem(
                f"{downloads} cannot be made ({error.strerror}); choose another place with --to."
            ) from None
        return _get(benchmark, hub, wanted, downloads, target, say)


def _get(
    benchmark: Benchmark,
    hub: Hub | None,
    wanted: tuple[Download, ...],
    downloads: Path,
    target: Path,
    say: Callable[[str], None],
) -> Path:
    """``get_data``, while nobody else is at it."""
    say(f"{benchmark.title}: {benchmark.paper}\nTerms of use: {benchmark.licence}")
    try:
        if hub:
            _from_hub(hub, downloads)
        else:
            for file in wanted:
                fetch(file, downloads)
    except (OSError, ImportError) as error:
        raise DataProblem(
            by_hand_instead(benchmark, target, " ".join(str(getattr(error, "reason", error)).split()).rstrip("."))
        ) from error
    sums = _verify(wanted, downloads, target, say)
    unpacked = downloads / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    files = {file.name: downloads / file.name for file in wanted}
    try:
        if hub:
            images = unpack_parquet(benchmark, list(files.values()), downloads / CARD, unpacked)
        else:
            images = unpack(benchmark, files, unpacked)
        os.replace(unpacked, target)
    except OSError as error:
        raise DataProblem(f"{benchmark.title} cannot be unpacked to {target} ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    _write_sums(sums, target)
    shutil.rmtree(downloads)
    say(f"{images} images in {target}")
    return target


@contextlib.contextmanager
def _alone(lock: Path, **settings) -> Iterator[None]:
    """Within it a lock is ``files.locked``, whose file is gone afterwards; nothing is where the file system has none."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(NoLocks):
            held.enter_context(locked(lock, **settings))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows deletes no file that is open
                lock.unlink()


def by_hand_instead(benchmark: Benchmark, target: Path, reason: str) -> str:
    """One sentence for a benchmark that cannot be fetched: where to get it, where it goes, how it is found."""
    domain, name = next(iter(benchmark.counts)), benchmark.classes[0]
    return (
        f"{benchmark.title} could not be fetched ({reason}): by hand, get {benchmark.where}, save it in "
        f"{target}.download/ and give the same command again, or unpack it yourself as {target}/{domain}/{name}/*.jpg; "
        f"{benchmark.name}:{target} then loads it, and {benchmark.name} alone does where WAKD_DATA or {config_file()} "
        f"names the folder that holds {benchmark.folders[0]}/."
    )


def _target(benchmark: Benchmark, to: str | Path | None) -> Path:
    if to is None and data_folder() is None:
        raise DataProblem(
            f"Where shall {benchmark.title} go? Give --to PATH, set WAKD_DATA to the folder for all benchmarks, or "
            f'write data = "/path" into {config_file()}.'
        )
    target = (data_folder() / benchmark.folders[0] if to is None else path_of(to)).resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataProblem(
            f"{target} is there already: see wakd data check {target}, or choose another place with --to."
        )
    return target


def _check_space(wanted: tuple[Download, ...], downloads: Path) -> None:
    sizes = {file.name: file.size or 0 for file in wanted}
    missing = sum(size for name, size in sizes.items() if not (downloads / name).is_file())
    existing = next(folder for folder in downloads.parents if folder.is_dir())
    needed, free = missing + sum(sizes.values()), shutil.disk_usage(existing).free
    if needed > free:
        raise DataProblem(
            f"The files and what they unpack to take about {needed / 1e9:.0f} GB, and {existing} has "
            f"{free / 1e9:.1f} GB free. Choose another place with --to."
        )


def _from_hub(hub: Hub, downloads: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError("the hub keeps it as parquet, which pandas reads with pyarrow: pip install pyarrow")
    from huggingface_hub import hf_hub_download

    for name in (CARD, *(file.name for file in hub.files)):
        try:
            hf_hub_download(hub.repository, name, repo_type="dataset", revision=hub.revision, local_dir=downloads)
        except Exception as error:  # beside its own errors the client lets those of its HTTP library through
            raise ConnectionError(f"{hub.repository} on the hub: {error}") from error


def fetch(file: Download, into: Path) -> Path:
    """Download one file into a folder unless it is there; a part that is there is continued.

    Raises ``OSError`` where no connection can be made, where it breaks off or the server is busy ``ATTEMPTS`` times without
    a new byte, with a pause that doubles between them, and for a web page where an archive should be.
    """
    final, part = into / file.name, into / f"{file.name}.part"
    if final.is_file():
        return final
    if file.url is None:
        raise FileNotFoundError(f"no host is known to serve {file.name} any more")
    fruitless = 0
    while True:
        before = _size(part)
        try:
            _continue(file, part)
            break
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless == ATTEMPTS:
                raise ConnectionError(
                    f"{file.url} broke off {ATTEMPTS} times at {_size(part)} bytes: {error}"
                ) from error
            time.sleep(PAUSE * (2**fruitless - 1))
    os.replace(part, final)
    _version(part).unlink(missing_ok=True)
    return final


def _continue(file: Download, part: Path) -> None:
    """Append to ``part`` what is missing, or begin again where the server cannot, or has another version by now."""
    request = urllib.request.Request(file.url, headers={"User-Agent": "wakd_kit"})
    have, version = _size(part), _version(part).read_text() if _version(part).is_file() else ""
    if have and (version or file.checksum):  # without either, two versions could be glued together unnoticed
        request.add_header("Range", f"bytes={have}-")
        if version:
            request.add_header("If-Range", version)
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
            return  # all of it was there
        if error.code in BUSY:
            raise ConnectionError(f"the server answers {error.code} {error.reason}") from error
        if error.code != 416:
            raise
        part.unlink()
        raise ConnectionError("the part that was there did not fit") from error
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise FileNotFoundError(
                f"{file.url} answers with a web page: it wants a click, is over its quota, or has moved"
            )
        if answer.status != 206:
            have = 0
        _version(part).write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        total = have + int(answer.headers["Content-Length"]) if answer.headers["Content-Length"] else None
        bar = tqdm(total=total, initial=have, desc=file.name, unit="B", unit_scale=True, disable=None)
        with open(part, "ab" if have else "wb") as out, bar:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) < total:
        raise ConnectionError(f"the connection closed at {_size(part)} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _version(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _verify(wanted: tuple[Download, ...], downloads: Path, target: Path, say: Callable[[str], None]) -> dict[str, str]:
    """SHA-256 by file; ``DataProblem`` for a file that is not what was published, or not what was used before."""
    known, sums = _read_sums(target), {}
    for file in wanted:
        path, key = downloads / file.name, f"{target.name}/{Path(file.name).name}"
        algorithm, _, expected = (file.checksum or f"sha256:{known.get(key, '')}").partition(":")
        source = file.recorded if file.checksum else f"{target.parent / SUMS}, at the first download,"
        found = _digest(path, algorithm)
        if expected and found != expected:
            refused = path.replace(path.with_name(f"{path.name}.refused"))
            raise DataProblem(
                f"{file.name} is refused: its {algorithm} is {found}, and {source} recorded {expected}. It is kept as "
                f"{refused}; get it again, or, if you trust it, unpack it yourself and see wakd data check."
            )
        sums[key] = found if algorithm == "sha256" else _digest(path, "sha256")
        if expected:
            say(f"{file.name}: {algorithm} as recorded by {source}")
        else:
            say(f"{file.name}: no checksum is published; sha256 {sums[key]} is kept in {SUMS} and compared next time")
    return sums


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as data:
        return hashlib.file_digest(data, algorithm).hexdigest()


def _read_sums(target: Path) -> dict[str, str]:
    file = target.parent / SUMS
    lines = file.read_text().splitlines() if file.is_file() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _write_sums(sums: dict[str, str], target: Path) -> None:
    file = target.parent / SUMS
    with _alone(file.with_name(f"{SUMS}.lock"), wait=lambda who: None):
        lines = [f"{digest}  {name}\n" for name, digest in sorted({**_read_sums(target), **sums}.items())]
        write_text(file, "".join(lines))

"""Images on disk as domain/class/images: listed, named when something is wrong, and decoded once into one array.

What is loaded is what ``PIL.Image.convert("RGB")`` gives, as in DomainBed, with one difference: Pillow clips 16-bit
greyscale at 255, which turns nearly every pixel white; here the upper eight bits are taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from .benchmarks import Benchmark, DataProblem
from .registry import did_you_mean

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"})
LAYOUT = "it should hold domain/class/images"
CLASSES = "it should be a folder, a tar or a zip of class/images"

Files = Mapping[str, Mapping[str, list[Path]]]  # domain -> class -> images


def list_classes(root: Path, domain: str, called: str) -> Files:
    """Every image in class below ``root``, as one domain. Raises ``DataProblem`` where there is no folder or no class."""
    if not root.is_dir():
        raise DataProblem(f"{called} is not there; {CLASSES}.")
    files = {c.name: _images_in(c) for c in sorted(root.iterdir()) if _is_visible_folder(c)}
    if not files:
        raise DataProblem(f"{root} has no class folders; {CLASSES}.")
    return {domain: files}


def list_images(root: Path, called: str) -> Files:
    """Every image in domain/class below ``root``, sorted by name; hidden folders and other files are left out.

    Raises ``DataProblem``, with ``called`` for the folder's name, where there is no folder, domain or class.
    """
    if not root.is_dir():
        raise DataProblem(f"{called} is not a folder; {LAYOUT}.")
    files = {
        domain.name: {c.name: _images_in(c) for c in sorted(domain.iterdir()) if _is_visible_folder(c)}
        for domain in sorted(root.iterdir())
        if _is_visible_folder(domain)
    }
    if not files:
        raise DataProblem(f"{root} has no domain folders; {LAYOUT}.")
    if not any(files.values()):
        raise DataProblem(f"The domain folders of {root} have no class folders; {LAYOUT}.")
    return files


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__"))


def _images_in(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))


def classes_of(files: Files, benchmark: Benchmark | None) -> tuple[str, ...]:
    return benchmark.classes if benchmark else tuple(sorted(set().union(*files.values())))


def layout_problems(files: Files, benchmark: Benchmark | None = None) -> list[str]:
    """What keeps a folder from being used: missing, empty or unknown domains and classes, counts that do not fit."""
    classes = classes_of(files, benchmark)
    found = {domain: sum(map(len, by_class.values())) for domain, by_class in files.items()}
    expected = benchmark.nearest_counts(found) if benchmark else {}
    problems = [f"domain {d!r} is missing" for d in expected if d not in files]
    for domain, by_class in files.items():
        if expected and domain not in expected:
            problems.append(did_you_mean("domain folder", domain, expected))
            continue
        missing = [c for c in classes if c not in by_class]
        problems += [f"domain {domain!r} has no class folder {c!r}" for c in missing]
        problems += [f"{domain}/{c} is no class of this benchmark" for c in by_class if c not in classes]
        problems += [f"{domain}/{c} holds no images" for c in by_class if not by_class[c]]
        if not missing and found[domain] != expected.get(domain, found[domain]):
            problems.append(
                f"domain {domain!r} has {found[domain]} images, the published benchmark has {expected[domain]}"
            )
    return problems


def read_images(
    path: str | os.PathLike,
    name: str,
    benchmark: Benchmark | None,
    cache: Path,
    size: int,
    *,
    domain: str | None = None,
):
    """Decode a folder, or map what was decoded before: ``(root, classes, {domain: (images, labels, originals)})``.

    domain  the folder, or an archive of it, holds classes of this one domain
    images (n, size, size, 3) uint8, labels (n,), originals (n,). Files of one domain and class that are identical byte
    for byte share an original, so that a split never puts one on each side. Raises ``DataProblem`` with every problem
    of the layout at once, or else with every file that cannot be read.
    """
    if not path:
        raise DataProblem(f"{name}: which folder? Write {name}:PATH; {CLASSES if domain else LAYOUT}.")
    root = given = Path(path).expanduser().resolve()
    if domain and given.is_file():
        root = _unpacked(given, cache)
    files = list_classes(root, domain, f"{name}:{path}") if domain else list_images(root, f"{name}:{path}")
    problems = layout_problems(files, benchmark)
    if problems:
        advice = f"If it is meant to be so, load it as folder:{root}, which asks for no counts." if benchmark else ""
        raise DataProblem(report(f"{name}:{root} is not complete", problems, advice))
    classes = classes_of(files, benchmark)
    listing = [f for by_class in files.values() for c in classes for f in by_class[c]]
    images, contents = _decode_once(name, root, listing, cache, size)
    arrays, start = {}, 0
    for domain, by_class in files.items():
        labels = np.repeat(np.arange(len(classes)), [len(by_class[c]) for c in classes])
        mine = slice(start, start + len(labels))
        first: dict[tuple, int] = {}
        originals = [first.setdefault(key, i) for i, key in enumerate(zip(labels, contents[mine]))]
        arrays[domain] = images[mine], labels, np.array(originals)
        start = mine.stop
    return given, classes, arrays


def _unpacked(archive: Path, cache: Path) -> Path:
    """The folder of class folders in an archive, unpacked below the cache once; another file of that name is another."""
    from .unpacking import unpack_classes  # which reads archives of every kind, and needs this module

    stat = archive.stat()
    key = hashlib.blake2b(f"{archive} {stat.st_size} {stat.st_mtime_ns}".encode(), digest_size=6).hexdigest()
    folder = cache / f"{archive.name.split('.')[0]}-{key}"
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        try:
            unpack_classes(archive, partial)
            try:
                os.replace(partial, folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _decode_once(name: str, root: Path, listing: list[Path], cache: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """All images as one memory-mapped (n, size, size, 3) uint8 array and a hash of each file (n,) uint64."""
    stats = [(str(f.relative_to(root)), *_length_and_time(f)) for f in listing]
    key = hashlib.blake2b(json.dumps([str(root), size, stats]).encode(), digest_size=8).hexdigest()
    stored = cache / f"{name}-{size}px-{key}.npy"
    hashes = stored.with_name(f"{stored.stem}.contents.npy")
    if not stored.exists():
        shape = (len(listing), size, size, 3)
        _check_space(cache, int(np.prod(shape)), size)
        partial = stored.with_name(f"{stored.stem}.{os.getpid()}.part.npy")
        try:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            outcomes = on_all_cores(_decode, f"decoding {name}", listing, np.asarray(array))
            unreadable = [f"{file}: {problem}" for (file, *_), problem in zip(stats, outcomes) if problem]
            if unreadable:
                raise DataProblem(report(f"{name}:{root} has unreadable images", unreadable))
            array.flush()
            os.replace(partial, stored)
        finally:
            partial.unlink(missing_ok=True)
    if not hashes.exists():
        contents = np.array(on_all_cores(content, f"comparing {name}", listing), dtype=np.uint64)
        write_atomically(hashes, lambda file: np.save(file, contents))
    # copy on write: an array that torch accepts, and whatever is done to it, the file stays as it is
    return np.load(stored, mmap_mode="c"), np.load(hashes)


def on_all_cores(function: Callable, label: str, *arguments: Iterable) -> list:
    """``map`` over threads, with a progress bar where somebody looks: Pillow and hashlib work outside the lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(function, *arguments)
        return list(tqdm(outcomes, total=len(arguments[0]), desc=label, unit=" images", disable=None, leave=False))


def _length_and_time(file: Path) -> tuple[int, int]:
    try:
        return file.stat().st_size, file.stat().st_mtime_ns
    except OSError:  # a link to nowhere; decoding it will say so
        return 0, 0


def _check_space(cache: Path, needed: int, size: int) -> None:
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise DataProblem(
            f"Decoded at {size} px these images take {needed / 1e9:.1f} GB, and {cache} has {free / 1e9:.1f} GB free. "
            "Pass a smaller size=, or cache= (or WAKD_CACHE) on a larger disk."
        )


def _decode(file: Path, out: np.ndarray) -> str | None:
    """Write the image into ``out`` (size, size, 3); what is wrong with it otherwise."""

    def write(image: Image.Image) -> None:
        out[...] = np.asarray(as_rgb(image).resize(out.shape[:2], Image.Resampling.BILINEAR))

    return trouble(file, write)


def trouble(file: Path, use: Callable[[Image.Image], None]) -> str | None:
    """Open the file, hand the image to ``use``, and say what went wrong, None if nothing did."""
    try:
        if file.stat().st_size == 0:
            return "zero bytes"
        with Image.open(file) as image:
            use(image)
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # for broken files Pillow raises nearly anything, from struct.error to SyntaxError
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return None


def as_rgb(image: Image.Image) -> Image.Image:
    """Three channels of eight bits; 16-bit greyscale keeps its upper eight, transparency is dropped."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def content(file: Path) -> int:
    """64 bits of a hash of the file's bytes: equal files have equal ones."""
    with open(file, "rb") as data:
        return int.from_bytes(hashlib.file_digest(data, lambda: hashlib.blake2b(digest_size=8)).digest(), "little")


def report(headline: str, problems: list[str], advice: str = "", most: int = 20) -> str:
    shown = [f"  - {problem}" for problem in problems[:most]]
    more = [f"  ... and {len(problems) - most} more"] if len(problems) > most else []
    return "\n".join([f"{headline}: {len(problems)} problem(s).", *shown, *more, *([advice] if advice else [])])


def write_atomically(path: Path, write: Callable) -> None:
    # two processes may build the same cache at once: each writes its own file, the last rename wins
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(partial, "wb") as file:
        write(file)
    os.replace(partial, path)

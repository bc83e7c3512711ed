"""Images on disk as domain/class/images: listed, named when something is wrong, and decoded once into one array.

What is loaded is what ``PIL.Image.convert("RGB")`` gives, as in DomainBed: pixels as they are stored, not turned by an
EXIF orientation. One thing differs: Pillow clips deep greyscale at 255, which turns nearly every pixel white; here the
upper eight bits of 16 are taken, floats from 0 to 1 become 0 to 255, and an image whose range is not known is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ..files import DAY, path_of, sweep, write_with
from ..names import did_you_mean
from .catalog import IMAGE_SUFFIXES, Benchmark, DataProblem
from .unpack import unpack_classes

LAYOUT = "it should hold domain/class/images"
CLASSES = "it should be a folder, a tar or a zip of class/images"

Files = Mapping[str, Mapping[str, list[Path]]]  # domain -> class -> images


def list_classes(root: Path, domain: str, called: str) -> Files:
    """Every image in class below ``root``, as one domain. Raises ``DataProblem`` where there is no folder or no class."""
    if not root.is_dir():
        raise DataProblem(f"{called} is not there; {CLASSES}.")
    files = {name: _files_in(folders, images=True) for name, folders in _named_folders(root).items()}
    if not files:
        raise DataProblem(f"{root} has no class folders; {CLASSES}.")
    return {domain: files}


def list_images(root: Path, called: str) -> Files:
    """Every image in domain/class below ``root``, sorted by name; hidden folders and other files are left out.

    Names that differ only in how Unicode writes an accent are one name (NFC). Raises ``DataProblem``, with ``called`` for
    the folder's name, where there is no folder, domain or class, or a folder's name is no text.
    """
    if not root.is_dir():
        raise DataProblem(f"{called} is not a folder; {LAYOUT}.")
    files = {
        domain: {name: _files_in(below, images=True) for name, below in _named_folders(*folders).items()}
        for domain, folders in _named_folders(root).items()
    }
    if not files:
        raise DataProblem(f"{root} has no domain folders; {LAYOUT}.")
    if not any(files.values()):
        raise DataProblem(f"The domain folders of {root} have no class folders; {LAYOUT}.")
    return files


def _named_folders(*above: Path) -> dict[str, list[Path]]:
    """The visible folders in these folders by name, sorted: one each, but where two names are one text."""
    found: dict[str, list[Path]] = {}
    for path in sorted(p for folder in above for p in folder.iterdir()):
        if path.is_dir() and not path.name.startswith((".", "__")):
            if printable(path.name) != path.name:
                raise DataProblem(f"The folder {printable(path)} has a name that is no UTF-8; rename it.")
            found.setdefault(unicodedata.normalize("NFC", path.name), []).append(path)
    return found


def _files_in(folders: Iterable[Path], *, images: bool) -> list[Path]:
    """The visible files, sorted, whose names end like those of images, or the others."""
    found = (f for folder in folders for f in folder.iterdir() if not f.name.startswith("."))
    return sorted(f for f in found if (f.suffix.lower() in IMAGE_SUFFIXES) == images)


def unlisted_images(files: Files, most: int = 20) -> list[Path]:
    """Files beside the listed ones that Pillow reads as images too; of each suffix it is asked about the first ``most``."""
    folders = {f.parent for by_class in files.values() for images in by_class.values() for f in images}
    by_suffix: dict[str, list[Path]] = {}
    for file in filter(Path.is_file, _files_in(folders, images=False)):
        by_suffix.setdefault(file.suffix.lower(), []).append(file)
    return [f for group in by_suffix.values() for f in group[:most] if trouble(f, lambda image: None) is None]


def deeper_images(files: Files) -> list[Path]:
    """Files named like images in folders inside those of classes, but for hidden ones: no listing reaches them."""
    folders = {f.parent for by_class in files.values() for images in by_class.values() for f in images}
    inside = (entry for folder in sorted(folders) for entry in os.scandir(folder) if entry.is_dir())
    below = (file for entry in inside if not entry.name.startswith((".", "__")) for file in Path(entry).rglob("*"))
    return [file for file in below if file.suffix.lower() in IMAGE_SUFFIXES]


def printable(path: str | os.PathLike) -> str:
    """A name as text, with escapes for bytes that are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def classes_of(files: Files, benchmark: Benchmark | None) -> tuple[str, ...]:
    """The classes that a benchmark has, or else all that a folder has, sorted."""
    return benchmark.classes if benchmark else tuple(sorted(set().union(*files.values())))


EVEN = "Every domain holds images of every class: add them, or move the folders of that class, or of that domain, elsewhere."


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
    """Decode a folder, or map what was decoded before: ``(root, classes, {domain: (images, labels, originals, attributes, hashes)})``.

    domain  the folder, or an archive of it, holds classes of this one domain
    images (n, size, size, 3) uint8, labels (n,), originals (n,), attributes (n,) of a benchmark whose files all name one, else None,
    hashes of the files (n,). Files of one domain and class that are identical byte
    for byte share an original, so that a split never puts one on each side. Raises ``DataProblem`` with every problem
    of the layout at once, or else with every file that cannot be read.
    """
    if not path:
        raise DataProblem(f"{name}: which folder? Write {name}:PATH; {CLASSES if domain else LAYOUT}.")
    root = given = path_of(path).resolve()
    if domain and given.is_file():
        root = _unpacked(given, cache)
    files = list_classes(root, domain, f"{name}:{path}") if domain else list_images(root, f"{name}:{path}")
    problems = layout_problems(files, benchmark)
    if problems:
        advice = f"If it is meant to be so, load it as folder:{root}, which asks for no counts." if benchmark else EVEN
        raise DataProblem(report(f"{name}:{root} is not complete", problems, advice))
    left_out = [printable(f.relative_to(root)) for f in unlisted_images(files)]
    if left_out:
        warnings.warn(
            f"{name}:{root} has images that are not loaded, for their names do not end like those of images: "
            f"{', '.join(left_out[:5])}{' and others' * (len(left_out) > 5)}; rename them to end in .png or .jpg.",
            stacklevel=5,  # who called load_domains
        )
    if deeper := deeper_images(files):
        warnings.warn(
            f"{name}:{root} has {len(deeper)} image(s) in folders inside those of classes, such as "
            f"{printable(deeper[0].relative_to(root))}; they are not loaded. Move them up to have them.",
            stacklevel=5,
        )
    classes = classes_of(files, benchmark)
    listing = [f for by_class in files.values() for c in classes for f in by_class[c]]
    images, contents = _decode_once(name, root, listing, cache, size)
    arrays, start = {}, 0
    known = {name: i for i, name in enumerate(benchmark.attributes if benchmark else ())}
    attributes = [known.get(f.name.partition("__")[0], -1) for f in listing]
    attributes = None if -1 in attributes else attributes
    for domain, by_class in files.items():
        labels = np.repeat(np.arange(len(classes)), [len(by_class[c]) for c in classes])
        mine = slice(start, start + len(labels))
        first: dict[tuple, int] = {}
        originals = [first.setdefault(key, i) for i, key in enumerate(zip(labels, contents[mine]))]
        arrays[domain] = (
            images[mine],
            labels,
            np.array(originals),
            attributes and np.array(attributes[mine], dtype=np.int64),
            contents[mine],
        )
        start = mine.stop
    return given, classes, arrays


def _unpacked(archive: Path, cache: Path) -> Path:
    """The folder of class folders in an archive, unpacked below the cache once; another file of that name is another."""
    key = hashlib.blake2b(f"{archive} {_stamp(archive)}".encode(errors="replace"), digest_size=6).hexdigest()
    folder = cache / f"{archive.name.split('.')[0]}-{key}"
    if not folder.is_dir():
        sweep(cache, idle=DAY)
        partial = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
        try:
            partial.mkdir()
            unpack_classes(archive, partial)
            os.replace(partial, folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was faster
                raise DataProblem(f"{no_cache(cache)} ({error.strerror or error}).") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _decode_once(name: str, root: Path, listing: list[Path], cache: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """All images as one memory-mapped (n, size, size, 3) uint8 array and a hash of each file (n,) uint64.

    Files are hashed again when anything about them has changed, and decoded again when a hash has. An array that was cut
    off is made again.
    """
    names = [printable(f.relative_to(root)) for f in listing]
    stamps = json.dumps([str(root), [(n, *_stamp(f)) for n, f in zip(names, listing)]])
    hashes = cache / f"{name}-{hashlib.blake2b(stamps.encode(), digest_size=8).hexdigest()}.contents.npy"
    contents = _stored(hashes, (len(listing),))
    if contents is None:
        contents = np.array(on_all_cores(_content_if_any, f"comparing {name}", listing), dtype=np.uint64)
    key = hashlib.blake2b(f"{root} {contents.tolist()}".encode(errors="replace"), digest_size=8).hexdigest()
    stored, shape = cache / f"{name}-{size}px-{key}-{DECODER}.npy", (len(listing), size, size, 3)

    def decode(partial: Path) -> None:
        _check_space(cache, int(np.prod(shape)), size)
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        outcomes = on_all_cores(_decode, f"decoding {name}", listing, np.asarray(array))
        unreadable = [f"{file}: {problem}" for file, problem in zip(names, outcomes) if problem]
        if unreadable:
            raise DataProblem(
                report(f"{name}:{root} has unreadable images", unreadable, "Replace these files, or take them out.")
            )
        array.flush()

    images = kept_array(stored, shape, decode)
    if not hashes.exists():  # after the images, so that nothing is kept of a folder that cannot be read
        keep(hashes, lambda partial: save(partial, np.save, contents))
    return images, np.asarray(contents)


DECODER = 3  # one more when ``as_rgb`` gives other pixels for the same file


def kept_array(file: Path, shape: tuple[int, ...], write: Callable[[Path], object]) -> np.ndarray:
    """An array of this shape in the cache, which ``write`` writes where there is none, or one that was cut off."""
    array = _stored(file, shape)
    if array is None:
        keep(file, write)
        array = _stored(file, shape)
    return array


def _stored(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """An array in the cache; None where there is none, and where it is no longer what was written."""
    try:
        # copy on write: an array that torch accepts, and whatever is done to it, the file stays as it is
        array = np.load(file, mmap_mode="c")
    except FileNotFoundError:
        return None
    except (ValueError, EOFError):  # cut off: a disk was full, a copy was stopped
        array = None
    if array is None or array.shape != shape:
        file.unlink()
        return None
    return array


def keep(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file of the cache. Raises ``DataProblem`` where the cache cannot be written to."""
    sweep(file.parent, idle=DAY)
    try:
        write_with(file, write)
    except OSError as error:
        raise DataProblem(f"{no_cache(file.parent)} ({error.strerror or error}).") from None


def no_cache(folder: str | os.PathLike) -> str:
    """The beginning of the sentence for a cache that cannot be written to."""
    return f"Decoded images cannot be kept in {folder}: set WAKD_CACHE, or cache=, to a folder that you may write to"


def save(file: Path, write: Callable, *arrays, **named) -> None:
    """``np.save`` or ``np.savez`` to a file of any name."""
    with open(file, "wb") as out:
        write(out, *arrays, **named)


def on_all_cores(function: Callable, label: str, *arguments: Iterable) -> list:
    """``map`` over threads, with a progress bar where somebody looks: Pillow and hashlib work outside the lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(function, *arguments)
        return list(tqdm(outcomes, total=len(arguments[0]), desc=label, unit=" images", disable=None, leave=False))


def _stamp(file: Path) -> tuple[int, ...]:
    """What changes with a file's content, and may change without it: size and time can be those of another file's."""
    try:
        stat = file.stat()
    except OSError:  # a link to nowhere; decoding it will say so
        return ()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _content_if_any(file: Path) -> int:
    try:
        return content(file)
    except OSError:  # decoding it will say so
        return 0


def _check_space(cache: Path, needed: int, size: int) -> None:
    sweep(cache, idle=DAY)
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
    """Three channels of eight bits; deep greyscale is scaled to them, transparency is dropped.

    Raises ``ValueError`` for greyscale of which nobody can say what is black and what is white.
    """
    depth = deep(image)
    if depth is None:
        return image.convert("RGB")
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if depth in ("12-bit", "16-bit"):
        grey = values.astype(np.int32) >> (8 if depth == "16-bit" else 4)
    elif depth == "signed 16-bit" and low >= 0:
        grey = values >> 7
    elif depth == "float" and low >= 0 and high <= 1:  # false for NaN
        grey = np.rint(values * 255)
    else:
        expects = {"float": "floats from 0 to 1", "signed 16-bit": "16 bits from 0 up"}.get(depth, "8 or 16 bits")
        raise ValueError(f"{depth} values from {low:g} to {high:g} have no known range; save it with {expects}")
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def deep(image: Image.Image) -> str | None:
    """How greyscale of more than eight bits is stored: "12-bit", "16-bit", "signed 16-bit", "32-bit", "float"; None for others."""
    if image.mode == "F":
        return "float"
    # Pillow widens 12 bits to 16, 16 to 32, and tells it only here
    stored = str(image.tile[0].args) if image.tile else ""
    if image.mode.startswith("I;16"):
        return "12-bit" if "I;12" in stored else "16-bit"
    if image.mode != "I":
        return None
    if "16S" in stored:
        return "signed 16-bit"
    return "16-bit" if ";16" in stored or image.format == "PPM" else "32-bit"


def content(file: Path) -> int:
    """64 bits of a hash of the file's bytes: equal files have equal ones."""
    with open(file, "rb") as data:
        return int.from_bytes(hashlib.file_digest(data, lambda: hashlib.blake2b(digest_size=8)).digest(), "little")


def report(headline: str, problems: list[str], advice: str = "", most: int = 20) -> str:
    """Problems under a headline, the first ``most`` of them, and what to do."""
    shown = [f"  - {problem}" for problem in problems[:most]]
    more = [f"  ... and {len(problems) - most} more"] if len(problems) > most else []
    return "\n".join([f"{headline}: {len(problems)} problem(s).", *shown, *more, *([advice] if advice else [])])

"""Benchmarks as domains of uint8 images, and leave-one-domain-out splits of them.

A benchmark is loaded by one word: ``digits`` (ships with the kit), ``pacs:PATH`` or ``folder:PATH`` (domain/class/images).
Images are decoded once into a uint8 array on disk and memory-mapped afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .registry import Registry, did_you_mean

benchmarks = Registry("benchmark")

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"})

PACS_COUNTS = {  # Li et al., "Deeper, Broader and Artier Domain Generalization", ICCV 2017
    "art_painting": 2048,
    "cartoon": 2344,
    "photo": 1670,
    "sketch": 3929,
}
PACS_CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")


class DataProblem(ValueError):
    """Images that are missing or unreadable; the message names each of them."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Some images of one domain: ``images`` (n, H, W, 3) uint8, ``labels`` (n,) int64, ``originals`` (n,) int64.

    Two images with the same original are renderings of the same thing and belong on the same side of a split.
    """

    images: np.ndarray
    labels: np.ndarray
    originals: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Examples:
        return Examples(self.images[index], self.labels[index], self.originals[index])


@dataclass(frozen=True, eq=False)
class Domains(Mapping):
    """A benchmark: a mapping from domain name to all its ``Examples``, with the class names they share.

    spec     what ``load_domains`` was called with ("digits", "pacs:..."), None for arrays made in memory
    options  its keyword arguments, so that a run can load the same data again
    views    default augmentation for this benchmark, a preset of ``wakd_kit.views``
    """

    spec: str | None
    classes: tuple[str, ...]
    examples: Mapping[str, Examples]
    options: Mapping[str, object]
    views: str = "photographs"

    def __getitem__(self, name: str) -> Examples:
        try:
            return self.examples[name]
        except KeyError:
            raise KeyError(did_you_mean("domain", name, self.examples)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def size(self) -> int:
        """Side of the square images in pixels."""
        return next(iter(self.examples.values())).images.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of every image and label: two runs with the same one saw the same data."""
        digest = hashlib.blake2b(digest_size=8)
        for name, examples in self.examples.items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(examples.labels))
            digest.update(np.ascontiguousarray(examples.images))
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Split:
    """Leave-one-domain-out: train and validate on the source domains, judge on the one left out.

    train, val  {source domain: Examples}; disjoint also by original
    target      name of the unseen domain; its images are reached only through ``target_for_testing_only``
    """

    domains: Domains
    target: str
    seed: int
    validation: float
    train: Mapping[str, Examples]
    val: Mapping[str, Examples]

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self.train)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.domains.classes

    @property
    def target_for_testing_only(self) -> Examples:
        """All images of the unseen domain: for final scores and labelled oracles, never for choosing anything."""
        return self.domains[self.target]

    @property
    def recipe(self) -> dict:
        """Plain values that rebuild this split, as recorded with a run."""
        return {
            "benchmark": self.domains.spec,
            "options": dict(self.domains.options),
            "target": self.target,
            "seed": self.seed,
            "validation": self.validation,
            "classes": list(self.classes),
            "fingerprint": self.domains.fingerprint,
        }


def leave_one_out(domains: Domains, target: str, seed: int = 0, *, validation: float = 0.2) -> Split:
    """Split a benchmark with ``target`` left out; 80/20 per source domain, stratified by class and by original.

    The split of a source domain depends on the seed and its name alone, so it is the same whichever domain is left
    out. Raises ``ValueError`` for an unknown target, or a class too small to have an image on both sides.
    """
    if target not in domains:
        raise ValueError(did_you_mean("target domain", target, domains))
    if not 0 < validation < 1:
        raise ValueError(
            f"validation is the fraction of each source domain held out, between 0 and 1; got {validation}."
        )
    if len(domains) < 2:
        raise ValueError(f"Leaving {target!r} out leaves no source domain; a benchmark needs at least two domains.")
    train, val = {}, {}
    for name, examples in domains.items():
        if name != target:
            held_out = _held_out(examples, name, seed, validation, domains.classes)
            train[name], val[name] = examples.take(np.flatnonzero(~held_out)), examples.take(np.flatnonzero(held_out))
    return Split(domains, target, seed, validation, train, val)


def _held_out(examples: Examples, domain: str, seed: int, fraction: float, classes: tuple[str, ...]) -> np.ndarray:
    held_out = np.zeros(len(examples), dtype=bool)
    for label, name in enumerate(classes):
        originals = np.unique(examples.originals[examples.labels == label])
        if len(originals) < 2:
            raise ValueError(
                f"Class {name!r} of domain {domain!r} has {len(originals)} image(s); "
                "a split needs at least two, one to train on and one to validate on."
            )
        rng = np.random.default_rng([seed, zlib.crc32(domain.encode()), label])
        chosen = rng.permutation(originals)[: min(max(round(fraction * len(originals)), 1), len(originals) - 1)]
        held_out |= np.isin(examples.originals, chosen) & (examples.labels == label)
    return held_out


def load_domains(spec: str, *, size: int | None = None, cache: str | os.PathLike | None = None, **options) -> Domains:
    """Load a benchmark by name: ``"digits"``, ``"pacs:PATH"``, ``"folder:PATH"``.

    size   side in pixels to which images are resized (both sides, as in DomainBed); default 224, digits are 32
    cache  folder for decoded arrays; default ``$WAKD_CACHE`` or ~/.cache/wakd_kit

    ``pacs`` without a path looks in ``$WAKD_DATA/PACS``. Raises ``DataProblem`` with every missing class folder,
    wrong count and unreadable image at once, before anything is trained.
    """
    name, _, path = spec.partition(":")
    loader = benchmarks.get(name)
    if size is not None and not 8 <= size <= 1024:
        raise ValueError(f"size is the side of an image in pixels, 8 to 1024; got {size}.")
    options = {**({} if size is None else {"size": size}), **options}
    return loader(path, cache=_cache_folder(cache), **options)


def domains_from_arrays(
    arrays: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...], *, views: str = "photographs"
) -> Domains:
    """A benchmark from arrays in memory: ``{domain: (images (n, H, W, 3) uint8, labels (n,))}``."""
    examples = {}
    for name, (images, labels, *originals) in arrays.items():
        images, labels = np.asarray(images), np.asarray(labels, dtype=np.int64)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] != images.shape[2]:
            raise ValueError(f"Images are (n, side, side, 3) uint8; domain {name!r} has {images.shape} {images.dtype}.")
        if labels.shape != images.shape[:1] or labels.min(initial=0) < 0 or labels.max(initial=0) >= len(classes):
            raise ValueError(f"Domain {name!r} needs one label from 0 to {len(classes) - 1} per image.")
        original = np.asarray(originals[0]) if originals else np.arange(len(labels))
        examples[name] = Examples(images, labels, original)
    return Domains(None, tuple(classes), examples, {}, views)


@benchmarks.register
def digits(path: str, *, cache: Path, size: int = 32, seed: int = 0) -> Domains:
    """The embedded benchmark: scikit-learn's handwritten digits as ink, photo, sketch and neon, 32 px, 10 classes."""
    from .digits import render_digits

    if path:
        raise ValueError(f"digits ships with the kit and takes no path; got {path!r}.")
    if size != 32:
        raise ValueError(f"digits are rendered at 32 px; got size={size}.")
    source = Path(__file__).with_name("digits.py").read_bytes()
    stored = cache / f"digits-{seed}-{hashlib.blake2b(source, digest_size=6).hexdigest()}.npz"
    if not stored.exists():
        rendered = render_digits(seed)
        flat = {f"{n}/{part}": a for n, arrays in rendered.items() for part, a in zip(_PARTS, arrays)}
        _write_atomically(stored, lambda file: np.savez(file, **flat))
    with np.load(stored) as arrays:
        names = dict.fromkeys(key.split("/")[0] for key in arrays.files)
        examples = {name: Examples(*(arrays[f"{name}/{part}"] for part in _PARTS)) for name in names}
    return Domains("digits", tuple("0123456789"), examples, {"seed": seed}, "digits")


_PARTS = ("images", "labels", "originals")


@benchmarks.register
def folder(path: str, *, cache: Path, size: int = 224) -> Domains:
    """Any benchmark laid out as domain/class/images; every domain must have every class."""
    return _image_folder("folder", path, cache, size)


@benchmarks.register
def pacs(path: str, *, cache: Path, size: int = 224) -> Domains:
    """PACS (Li et al., ICCV 2017): 9,991 images in 4 domains and 7 classes; names and counts are verified."""
    path = path or (os.environ.get("WAKD_DATA", "") and os.path.join(os.environ["WAKD_DATA"], "PACS"))
    if not path:
        raise DataProblem("Where is PACS? Write pacs:PATH, or set WAKD_DATA to the folder that holds PACS/.")
    return _image_folder("pacs", path, cache, size, counts=PACS_COUNTS, classes=PACS_CLASSES)


def _image_folder(benchmark, path, cache, size, *, counts=None, classes=None) -> Domains:
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise DataProblem(f"{benchmark}:{path} is not a folder; it should hold domain/class/images.")
    root = root.resolve()
    files = {
        domain.name: {c.name: _images_in(c) for c in sorted(domain.iterdir()) if _is_visible_folder(c)}
        for domain in sorted(root.iterdir())
        if _is_visible_folder(domain)
    }
    if not files:
        raise DataProblem(f"{root} has no domain folders; it should hold domain/class/images.")
    classes = tuple(classes or sorted(set().union(*files.values())))
    problems = _layout_problems(files, classes, counts)
    if problems:
        raise DataProblem(_report(f"{benchmark}:{root} is not complete", problems))
    listing = [f for by_class in files.values() for name in classes for f in by_class[name]]
    images = _decode_once(benchmark, root, listing, cache, size)
    examples, start = {}, 0
    for domain, by_class in files.items():
        labels = np.repeat(np.arange(len(classes)), [len(by_class[name]) for name in classes])
        examples[domain] = Examples(images[start : start + len(labels)], labels, np.arange(len(labels)))
        start += len(labels)
    return Domains(f"{benchmark}:{root}", classes, examples, {"size": size})


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__"))


def _images_in(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))


def _layout_problems(files, classes, counts) -> list[str]:
    problems = []
    if counts:
        problems += [f"domain {d!r} is missing" for d in counts if d not in files]
        problems += [did_you_mean("domain folder", d, counts) for d in files if d not in counts]
    for domain, by_class in files.items():
        missing = [c for c in classes if c not in by_class]
        problems += [f"domain {domain!r} has no class folder {c!r}" for c in missing]
        problems += [f"{domain}/{c} is no class of this benchmark" for c in by_class if c not in classes]
        problems += [f"{domain}/{c} holds no images" for c in by_class if not by_class[c]]
        found = sum(map(len, by_class.values()))
        if counts and not missing and found != counts.get(domain, found):
            problems.append(f"domain {domain!r} has {found} images, the published benchmark has {counts[domain]}")
    return problems


def _decode_once(benchmark: str, root: Path, listing: list[Path], cache: Path, size: int) -> np.ndarray:
    """All images as one memory-mapped (n, size, size, 3) uint8 array, decoded on the first call only."""
    stats = [(str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns) for f in listing]
    empty = [name for name, length, _ in stats if length == 0]
    if empty:
        raise DataProblem(_report(f"{benchmark}:{root} has unreadable images", [f"{n}: zero bytes" for n in empty]))
    key = hashlib.blake2b(json.dumps([str(root), size, stats]).encode(), digest_size=8).hexdigest()
    stored = cache / f"{benchmark}-{size}px-{key}.npy"
    if not stored.exists():
        shape = (len(listing), size, size, 3)
        partial = stored.with_name(f"{stored.stem}.{os.getpid()}.part.npy")
        cache.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                decode = lambda i: _decode(listing[i], root, size, array[i])  # noqa: E731
                unreadable = [problem for problem in pool.map(decode, range(len(listing))) if problem]
            array.flush()
            if unreadable:
                raise DataProblem(_report(f"{benchmark}:{root} has unreadable images", unreadable))
            os.replace(partial, stored)
        finally:
            partial.unlink(missing_ok=True)
    return np.load(stored, mmap_mode="r")


def _decode(file: Path, root: Path, size: int, out: np.ndarray) -> str | None:
    try:
        with Image.open(file) as image:
            out[...] = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        return f"{file.relative_to(root)}: {error}"
    return None


def _report(headline: str, problems: list[str], most: int = 20) -> str:
    shown = [f"  - {problem}" for problem in problems[:most]]
    more = [f"  ... and {len(problems) - most} more"] if len(problems) > most else []
    return "\n".join([f"{headline}: {len(problems)} problem(s).", *shown, *more])


def _cache_folder(cache: str | os.PathLike | None) -> Path:
    folder = Path(cache or os.environ.get("WAKD_CACHE") or Path.home() / ".cache" / "wakd_kit").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_atomically(path: Path, write: Callable) -> None:
    # two processes may build the same cache at once: each writes its own file, the last rename wins
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(partial, "wb") as file:
        write(file)
    os.replace(partial, path)

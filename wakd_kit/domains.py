"""Benchmarks as domains of uint8 images, and leave-one-domain-out splits of them.

A benchmark is loaded by one word: ``digits`` (ships with the kit), ``pacs:PATH`` or ``folder:PATH`` (domain/class/images).
Images are decoded once into a uint8 array on disk and memory-mapped afterwards.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .registry import Registry, UnknownName, did_you_mean

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

    def __repr__(self) -> str:
        return f"Examples({len(self)} images of {self.images.shape[1]} px)"

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
            raise UnknownName(did_you_mean("domain", name, self.examples)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {len(examples)}" for name, examples in self.items())
        return f"Domains({self.spec or 'in memory'}: {counts}; {len(self.classes)} classes, {self.size} px)"

    @property
    def size(self) -> int:
        """Side of the square images in pixels."""
        return next(iter(self.examples.values())).images.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of every image, label and original: two runs with the same one saw the same data and splits."""
        digest = hashlib.blake2b(digest_size=8)
        for name, examples in self.examples.items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(examples.labels))
            digest.update(np.ascontiguousarray(examples.originals))
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

    def __repr__(self) -> str:
        counts = ", ".join(f"{d} {len(self.train[d])} + {len(self.val[d])}" for d in self.sources)
        return f"Split(target {self.target}, seed {self.seed}; train + validation: {counts})"

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

    ``pacs`` without a path looks in ``$WAKD_DATA/PACS``. Raises ``UnknownName`` for no such benchmark, and
    ``DataProblem`` with every missing folder and wrong count at once, or else every image that cannot be read.
    """
    name, _, path = spec.partition(":")
    loader = benchmarks.get(name)
    if size is not None and not 8 <= size <= 1024:
        raise ValueError(f"size is the side of an image in pixels, 8 to 1024; got {size}.")
    options = {**({} if size is None else {"size": size}), **options}
    known = [n for n in inspect.signature(loader).parameters if n not in ("path", "cache")]
    for option in options:
        if option not in known:
            raise ValueError(did_you_mean(f"option of {name}", option, known))
    return loader(path, cache=_cache_folder(cache), **options)


def domains_from_arrays(
    arrays: Mapping[str, tuple[np.ndarray, ...]], classes: tuple[str, ...], *, views: str = "photographs"
) -> Domains:
    """A benchmark from arrays in memory: ``{domain: (images (n, side, side, 3) uint8, labels (n,))}``.

    A third array (n,) names the original of each image, for renderings that belong on one side of a split; without it
    every image is its own. Raises ``ValueError`` for shapes, sides or labels that do not fit.
    """
    if not arrays:
        raise ValueError("A benchmark needs at least one domain; got none.")
    examples = {name: _checked(name, arrays[name], len(classes)) for name in arrays}
    sides = {name: e.images.shape[1] for name, e in examples.items()}
    if len(set(sides.values())) > 1:
        raise ValueError(f"All domains share one image side; got {sides}.")
    return Domains(None, tuple(classes), examples, {}, views)


def _checked(name: str, arrays: tuple[np.ndarray, ...], classes: int) -> Examples:
    images, labels, *rest = (np.asarray(array) for array in arrays)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"Images are (n, side, side, 3) uint8; domain {name!r} has {images.shape} {images.dtype}.")
    labels = labels.astype(np.int64)
    if labels.shape != images.shape[:1] or labels.min(initial=0) < 0 or labels.max(initial=0) >= classes:
        raise ValueError(f"Domain {name!r} needs one label from 0 to {classes - 1} per image.")
    originals = rest[0].astype(np.int64) if rest else np.arange(len(labels))
    if originals.shape != labels.shape or len(np.unique([originals, labels], axis=1).T) != len(np.unique(originals)):
        raise ValueError(f"Domain {name!r} needs one original per image, and all images of one original in one class.")
    return Examples(images, labels, originals)


_PARTS = ("images", "labels", "originals")


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


@benchmarks.register
def folder(path: str, *, cache: Path, size: int = 224) -> Domains:
    """Any benchmark laid out as domain/class/images; every domain must have every class."""
    return _image_folder("folder", path, cache, size)


@benchmarks.register
def pacs(path: str, *, cache: Path, size: int = 224) -> Domains:
    """PACS (Li et al., ICCV 2017): 9,991 images in 4 domains and 7 classes; names and counts are verified."""
    if not path:
        if not os.environ.get("WAKD_DATA"):
            raise DataProblem("Where is PACS? Write pacs:PATH, or set WAKD_DATA to the folder that holds PACS/.")
        path = os.path.join(os.environ["WAKD_DATA"], "PACS")
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
    if not classes:
        raise DataProblem(f"The domain folders of {root} have no class folders; it should hold domain/class/images.")
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
    stats = [(str(f.relative_to(root)), *_length_and_time(f)) for f in listing]
    key = hashlib.blake2b(json.dumps([str(root), size, stats]).encode(), digest_size=8).hexdigest()
    stored = cache / f"{benchmark}-{size}px-{key}.npy"
    if not stored.exists():
        shape = (len(listing), size, size, 3)
        _check_space(cache, int(np.prod(shape)), size)
        partial = stored.with_name(f"{stored.stem}.{os.getpid()}.part.npy")
        try:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                outcomes = pool.map(_decode, listing, np.asarray(array))
                unreadable = [f"{name}: {problem}" for (name, *_), problem in zip(stats, outcomes) if problem]
            if unreadable:
                raise DataProblem(_report(f"{benchmark}:{root} has unreadable images", unreadable))
            array.flush()
            os.replace(partial, stored)
        finally:
            partial.unlink(missing_ok=True)
    # copy on write: an array that torch accepts, and whatever is done to it, the file stays as it is
    return np.load(stored, mmap_mode="c")


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
    try:
        if file.stat().st_size == 0:
            return "zero bytes"
        with Image.open(file) as image:
            out[...] = np.asarray(image.convert("RGB").resize(out.shape[:2], Image.Resampling.BILINEAR))
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # for broken files Pillow raises nearly anything, from struct.error to SyntaxError
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
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

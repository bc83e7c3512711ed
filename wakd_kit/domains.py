"""Benchmarks as domains of uint8 images, and leave-one-domain-out splits of them.

A benchmark is loaded by one word: ``digits`` (ships with the kit), ``pacs``, ``vlcs``, ``officehome``, ``terra`` or
``domainnet`` (from the data folder, or ``pacs:PATH``), ``folder:PATH`` (domain/class/images). Images are decoded once
into a uint8 array on disk and memory-mapped afterwards.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .benchmarks import DOMAINNET, OFFICE_HOME, PACS, TERRA, VLCS, Benchmark, DataProblem, locate
from .image_folder import read_images, write_atomically
from .registry import Registry, UnknownName, did_you_mean

__all__ = ["DataProblem", "Domains", "Examples", "Split", "domains_from_arrays", "leave_one_out", "load_domains"]

benchmarks = Registry("benchmark")


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
    target      name of the unseen domain, whose images are reached only through ``target_for_testing_only``; None where
                no domain was left out
    """

    domains: Domains
    target: str | None
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
        """All images of the unseen domain: for final scores and labelled oracles, never for choosing anything.

        Raises ``ValueError`` where no domain was left out."""
        if self.target is None:
            raise ValueError("No domain was left out of this split, so there is no unseen domain to test on.")
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


def leave_one_out(domains: Domains, target: str | None, seed: int = 0, *, validation: float = 0.2) -> Split:
    """Split a benchmark with ``target`` left out; 80/20 per source domain, stratified by class and by original.

    The split of a source domain depends on the seed and its name alone, so it is the same whichever domain is left
    out; with ``target=None`` none is, as for pretraining or for a student that is deployed. Raises ``ValueError`` for an
    unknown target, or a class too small to have an image on both sides.
    """
    if target is not None and target not in domains:
        raise ValueError(did_you_mean("target domain", target, domains))
    if not 0 < validation < 1:
        raise ValueError(
            f"validation is the fraction of each source domain held out, between 0 and 1; got {validation}."
        )
    if target is not None and len(domains) < 2:
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
                "a split needs at least two, one to train on and one to validate on (identical ones count once)."
            )
        rng = np.random.default_rng([seed, zlib.crc32(domain.encode()), label])
        chosen = rng.permutation(originals)[: min(max(round(fraction * len(originals)), 1), len(originals) - 1)]
        held_out |= np.isin(examples.originals, chosen) & (examples.labels == label)
    return held_out


def load_domains(spec: str, *, size: int | None = None, cache: str | os.PathLike | None = None, **options) -> Domains:
    """Load a benchmark by name: ``"digits"``, ``"pacs"``, ``"officehome:PATH"``, ``"folder:PATH"``.

    size   side in pixels to which images are resized (both sides, as in DomainBed); default 224, digits are 32
    cache  folder for decoded arrays; default ``$WAKD_CACHE`` or ~/.cache/wakd_kit

    A published benchmark without a path is looked for in the data folder (see ``wakd_kit.benchmarks``). Identical files
    of one domain and class stay on one side of every split. Raises ``UnknownName`` for no such benchmark, and
    ``DataProblem`` with every missing folder and wrong count at once, or else every image that cannot be read;
    ``wakd data check`` says more.
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
        write_atomically(stored, lambda file: np.savez(file, **flat))
    with np.load(stored) as arrays:
        names = dict.fromkeys(key.split("/")[0] for key in arrays.files)
        examples = {name: Examples(*(arrays[f"{name}/{part}"] for part in _PARTS)) for name in names}
    return Domains("digits", tuple("0123456789"), examples, {"seed": seed}, "digits")


@benchmarks.register
def folder(path: str, *, cache: Path, size: int = 224) -> Domains:
    """Any benchmark laid out as domain/class/images; every domain must have every class."""
    return _folder_of_images("folder", path, cache, size)


@benchmarks.register
def pacs(path: str, *, cache: Path, size: int = 224) -> Domains:
    """PACS (Li et al., ICCV 2017): 9,991 images in 4 domains and 7 classes; names and counts are verified."""
    return _folder_of_images("pacs", path, cache, size, PACS)


@benchmarks.register
def vlcs(path: str, *, cache: Path, size: int = 224) -> Domains:
    """VLCS (Fang et al., ICCV 2013): 10,729 images in 4 domains and 5 classes; names and counts are verified."""
    return _folder_of_images("vlcs", path, cache, size, VLCS)


@benchmarks.register
def officehome(path: str, *, cache: Path, size: int = 224) -> Domains:
    """Office-Home (Venkateswara et al., CVPR 2017): 15,588 images in 4 domains and 65 classes; verified as above."""
    return _folder_of_images("officehome", path, cache, size, OFFICE_HOME)


@benchmarks.register
def terra(path: str, *, cache: Path, size: int = 224) -> Domains:
    """TerraIncognita (Beery et al., ECCV 2018): 24,330 or 24,788 images of 4 camera traps in 10 classes; verified."""
    return _folder_of_images("terra", path, cache, size, TERRA)


@benchmarks.register
def domainnet(path: str, *, cache: Path, size: int = 224) -> Domains:
    """DomainNet, cleaned (Peng et al., ICCV 2019): 586,575 images in 6 domains and 345 classes; verified as above."""
    return _folder_of_images("domainnet", path, cache, size, DOMAINNET)


@benchmarks.register
def images(path: str, *, cache: Path, size: int = 64) -> Domains:
    """One domain: class/images in a folder, a tar or a zip, such as a part of ImageNet to pretrain on. No domain is left out."""
    root, classes, arrays = read_images(path, "images", None, cache, size, domain="images")
    return Domains(f"images:{root}", classes, {d: Examples(*a) for d, a in arrays.items()}, {"size": size})


def _folder_of_images(name: str, path: str, cache: Path, size: int, benchmark: Benchmark | None = None) -> Domains:
    root, classes, arrays = read_images(path or (benchmark and locate(benchmark)), name, benchmark, cache, size)
    return Domains(f"{name}:{root}", classes, {d: Examples(*a) for d, a in arrays.items()}, {"size": size})


def _cache_folder(cache: str | os.PathLike | None) -> Path:
    folder = Path(cache or os.environ.get("WAKD_CACHE") or Path.home() / ".cache" / "wakd_kit").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder

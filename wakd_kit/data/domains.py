"""Benchmarks as domains of uint8 images, and leave-one-domain-out splits of them.

A benchmark is loaded by one word: ``digits`` (ships with the kit), ``pacs``, ``vlcs``, ``officehome``, ``terra`` or
``domainnet`` (from the data folder, or ``pacs:PATH``), ``folder:PATH`` (domain/class/images). Images are decoded once
into a uint8 array on disk and memory-mapped afterwards.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..checks import explained
from ..files import path_of
from ..names import Bound, Registry, UnknownName, did_you_mean, is_number, is_whole, one_line, whole, within
from .catalog import BENCHMARKS, Benchmark, DataProblem, locate
from .folders import keep, kept_array, no_cache, read_images, save

__all__ = ["DataProblem", "Domains", "Examples", "Split", "domains_from_arrays", "leave_one_out", "load_domains"]

benchmarks = Registry("benchmark")


class Rows(np.lib.mixins.NDArrayOperatorsMixin):
    """Some rows of an array, read when they are asked for: images that lie on disk stay there.

    ``rows[...]`` gives arrays, ``len``, ``shape`` and ``dtype`` read nothing; whatever else an array can do is done on a
    copy of all of them.
    """

    def __init__(self, array: np.ndarray | Rows, index: np.ndarray):
        if isinstance(array, Rows):
            array, index = array.array, array.index[index]
        self.array, self.index = array, index
        self.shape, self.dtype, self.ndim = (len(index), *array.shape[1:]), array.dtype, array.ndim

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis or first is None or any(isinstance(one, list | np.ndarray) for one in rest):
            return np.asarray(self)[key]
        found = self.array[self.index[first]]
        return found[(slice(None), *rest) if found.ndim == self.ndim else tuple(rest)] if rest else found

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.array[self.index], dtype)

    def __array_ufunc__(self, function, method, *inputs, **settings):
        return getattr(function, method)(*(np.asarray(i) if isinstance(i, Rows) else i for i in inputs), **settings)

    def __getattr__(self, name: str):
        if name.startswith("__") or name in ("array", "index"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)


@dataclass(frozen=True, eq=False)
class Examples:
    """Some images of one domain: ``images`` (n, H, W, 3) uint8, ``labels`` (n,) int64, ``originals`` (n,) int64.

    The images of a split are ``Rows`` of those of its benchmark. Two images with the same original are renderings of the same thing and belong on the same side of a split.
    ``attributes`` (n,) int64, where a benchmark has them, are what may go with the label and is not it: places in ``Domains.attributes``.
    ``rows`` (n,) of a part are its places among all images of its domain.
    """

    images: np.ndarray | Rows
    labels: np.ndarray
    originals: np.ndarray
    attributes: np.ndarray | None = None
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Examples({len(self)} images of {self.images.shape[1]} px)"

    def take(self, index: np.ndarray) -> Examples:
        """Those at these places, in this order; their images are read when they are asked for."""
        attributes = None if self.attributes is None else self.attributes[index]
        rows = index if self.rows is None else self.rows[index]
        return Examples(Rows(self.images, index), self.labels[index], self.originals[index], attributes, rows)


@dataclass(frozen=True, eq=False)
class Domains(Mapping):
    """A benchmark: a mapping from domain name to all its ``Examples``, with the class names they share.

    spec     what ``load_domains`` was called with ("digits", "pacs:..."), None for arrays made in memory
    options  its keyword arguments, so that a run can load the same data again
    views    default augmentation for this benchmark, a preset of ``wakd_kit.data.augment``
    files    {domain: (n,) uint64}, a hash of the file of each image; None where they come from no files
    attributes  names of what images have beside their class, such as a colour; none where nothing is known
    of       {domain: contents of the domains whose images its own are, or were made of}, where it was made of others
    """

    spec: str | None
    classes: tuple[str, ...]
    examples: Mapping[str, Examples]
    options: Mapping[str, object]
    views: str = "photographs"
    files: Mapping[str, np.ndarray] | None = None
    attributes: tuple[str, ...] = ()
    of: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self):
        for name in (*self.examples, *self.classes, *self.attributes):
            one_line("name of a domain, class or attribute", name)
        for name, examples in self.examples.items():
            if not len(examples):
                raise ValueError(f"Domain {name!r} has no images; leave it out.")

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

    @property
    def kind(self) -> str:
        """Which loader it came from ("pacs", "folder", "digits"); empty for arrays made in memory."""
        return (self.spec or "").partition(":")[0]

    @cached_property
    def contents(self) -> dict[str, str]:
        """Per domain a short hash of what its images are, whatever their order, names, labels, folder or size in pixels.

        It is taken of the files, which are not read again for it, or of the pixels where there are none.
        """
        files = self.files or {name: [_content(image) for image in e.images] for name, e in self.examples.items()}
        return {
            name: hashlib.blake2b(np.sort(np.asarray(hashes, np.uint64)).astype("<u8"), digest_size=8).hexdigest()
            for name, hashes in files.items()
        }

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
                no domain was left out; several at once are called "photo+sketch"
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
        """Names of the source domains."""
        return tuple(self.train)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the domains that were left out: mostly one."""
        return unseen_in(self.target, self.domains)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; a label is a place among them."""
        return self.domains.classes

    @property
    def target_for_testing_only(self) -> Examples:
        """All images of the unseen domain, or of each of several one after the other: for final scores and labelled oracles, never
        for choosing anything.

        Raises ``ValueError`` where no domain was left out."""
        if self.target is None:
            raise ValueError("No domain was left out of this split, so there is no unseen domain to test on.")
        each = list(self.each_for_testing_only().values())
        parts = _PARTS if self.domains.attributes else _PARTS[:3]
        return each[0] if len(each) == 1 else Examples(*(np.concatenate([getattr(e, p) for e in each]) for p in parts))

    def each_for_testing_only(self) -> dict[str, Examples]:
        """``target_for_testing_only`` by unseen domain; empty where none was left out."""
        return {name: self.domains[name] for name in self.targets}

    def only(self, *sources: str | int | Sequence[str | int]) -> Split:
        """The same split with fewer source domains, in the order of the benchmark: those named here, or by place from 1.

        Raises ``ValueError`` for none, and for a domain that is no source of this split.
        """
        lists = (given if isinstance(given, Iterable) and not isinstance(given, str) else [given] for given in sources)
        named = [one for given in lists for one in given]
        kept = sources_among(self.sources, named)
        train, val = ({d: part[d] for d in kept} for part in (self.train, self.val))
        return replace(self, train=train, val=val)

    def whole(self) -> Split:
        """The same split with every image of its sources to train on. Validation parts stay what they are, and are then images that were
        trained on: how long to train is chosen before, on the split itself, as DomainBed's successors do (ERM++, arXiv 2304.01973)."""
        every = {name: self.domains[name] for name in self.train}
        return replace(self, train={name: part.take(np.arange(len(part))) for name, part in every.items()})

    @property
    def held_out(self) -> bool:
        """Whether validation parts are kept from training: not so of a ``whole`` split."""
        return any(len(part) < len(self.domains[name]) for name, part in self.train.items())

    @property
    def recipe(self) -> dict:
        """Plain values that rebuild this split, as recorded with a run; ``other_split`` compares two of them."""
        return {
            "benchmark": self.domains.spec,
            "options": dict(self.domains.options),
            "target": self.target,
            "seed": self.seed,
            "validation": self.validation,
            "classes": list(self.classes),
            "fingerprint": self.domains.fingerprint,
            "kind": self.domains.kind,
            "contents": dict(self.domains.contents),
            "sources": list(self.sources),
            **({} if self.held_out else {"whole": True}),
            **({"targets": list(self.targets)} if len(self.targets) > 1 else {}),
            **({"attributes": list(self.domains.attributes)} if self.domains.attributes else {}),
            **({"of": {name: list(of) for name, of in self.domains.of.items()}} if self.domains.of else {}),
        }


def sources_among(known: Sequence[str], asked: Sequence[str | int]) -> tuple[str, ...]:
    """Those of the known sources that are asked for by name or by place from 1, in their own order: an expert of "the second
    source" is one of another domain for each domain that is left out. Raises as ``Split.only`` does."""
    if not asked:
        raise ValueError(f"A split has at least one source domain; name some of {', '.join(known)}.")
    for one in asked:
        if is_whole(one) and not 1 <= one <= len(known):
            raise ValueError(f"There is no source {one}: they are 1 to {len(known)}, {', '.join(known)}.")
        if not is_whole(one) and one not in known:
            raise ValueError(did_you_mean("source domain", one, known))
    return tuple(name for place, name in enumerate(known, 1) if name in asked or place in asked)


def unseen_in(target: str | Sequence[str] | None, known: Collection[str]) -> tuple[str, ...]:
    """The domains that a target names, in the order of the benchmark: one, several ("photo+sketch", or a list), or none for None.

    Raises ``ValueError`` for one that is not known, and for several whose names hold a +, or are one domain's joined by it."""
    if target is None:
        return ()
    if not isinstance(target, str | int | list | tuple) or target in ([], ()):
        raise ValueError(f"target is a domain's name or a list of some, and None leaves none out; got {target!r}.")
    several = target.split("+") if isinstance(target, str) else target if isinstance(target, list | tuple) else [target]
    parts = [target] if isinstance(target, str) and target in known else list(several)
    if odd := [one for one in parts if not isinstance(one, str | int)]:
        raise ValueError(f"target is a domain's name or a list of some; got {odd[0]!r} among {target!r}.")
    for one in parts:
        if one not in known:
            raise ValueError(did_you_mean("target domain", one, known))
        if "+" in one and len(parts) > 1:
            raise ValueError(
                f"Several targets are joined by +, which the name {one!r} holds itself; rename that domain."
            )
    found = tuple(name for name in known if name in parts)
    if len(found) > 1 and (joined := "+".join(found)) in known:
        raise ValueError(f"Several targets are joined by +, and {joined!r} is a domain itself; rename that domain.")
    return found


def other_split(recorded: Mapping, given: Mapping, *, aside: Collection[str] = ()) -> str | None:
    """The first thing in which two recipes of splits differ, "fingerprint" for the images; None where they are one split.

    Where the images lie is no difference, nor is what an older recipe does not tell, or what is left ``aside``.
    """
    told = [{"whole": False, **recipe} for recipe in (recorded, given)]
    keys = ("whole", "target", "seed", "validation", "sources", "classes", "fingerprint")
    asked = (k for k in keys if k not in aside and all(k in recipe for recipe in told))
    return next((k for k in asked if told[0][k] != told[1][k]), None)


@explained
def leave_one_out(
    domains: Domains,
    target: str | Sequence[str] | None,
    seed: int = 0,
    *,
    validation: float = 0.2,
    only: str | int | Sequence[str | int] = (),
) -> Split:
    """Split a benchmark with ``target`` left out; 80/20 per source domain, stratified by class and by original.

    Several targets, ``["photo", "sketch"]`` or "photo+sketch", are left out at once, and judged on one by one.

    The split of a source domain depends on the seed and its name alone, so it is the same whichever domain is left
    out; with ``target=None`` none is, as for pretraining or for a student that is deployed. ``only`` keeps some of the sources, see
    ``Split.only``. Raises ``ValueError`` for an unknown target or source, or a class too small to have an image on both sides.

    >>> split = wk.leave_one_out(wk.load_domains("digits"), target="sketch", seed=0)
    >>> split.target, list(split.sources)
    ('sketch', ['ink', 'photo', 'neon'])
    """
    unseen = unseen_in(target, domains)
    target = "+".join(unseen) or None
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"The seed of a split is a whole number >= 0; got {seed!r}.")
    if isinstance(validation, bool) or not isinstance(validation, (int, float)) or not 0 < validation < 1:
        raise ValueError(
            f"validation is the fraction of each source domain held out, between 0 and 1; got {validation!r}."
        )
    if len(unseen) == len(domains):
        raise ValueError(
            f"Leaving {target!r} out leaves no source domain; a benchmark needs one more than are left out."
        )
    split = _split(domains, unseen, seed, validation, only)
    for name in unseen:
        if of := [s for s in split.sources if {*domains.of.get(name, ())} < {*domains.of.get(s, ())}]:
            raise ValueError(
                f"{name} would not be unseen: {', '.join(of)} are made of its images, too. Leave them out as well, or keep other "
                "sources by only=."
            )
    return split


def _split(domains: Domains, unseen: Sequence[str], seed: int, validation: float, only) -> Split:
    train, val = {}, {}
    for name, examples in domains.items():
        if name not in unseen:
            held_out = _held_out(examples, name, seed, validation, domains.classes)
            train[name], val[name] = examples.take(np.flatnonzero(~held_out)), examples.take(np.flatnonzero(held_out))
    split = Split(domains, "+".join(unseen) or None, seed, validation, train, val)
    if only is not None and (isinstance(only, str) or not hasattr(only, "__len__") or len(only)):
        split = split.only(only)
    if domains.files and unseen:
        shown = np.concatenate([domains.files[name] for name in split.sources])
        if copies := {name: n for name in unseen if (n := int(np.isin(domains.files[name], shown).sum()))}:
            said = " and ".join(f"{n} of the {len(domains[name])} images of {name}" for name, n in copies.items())
            warnings.warn(
                f"{said} lie in a source domain, too, byte for byte: not all that is unseen is. `wakd data check` lists them.",
                stacklevel=4,
            )
    return split


def split_of(recipe: Mapping, domains: Domains | None = None, *, sources: Sequence[str] = ()) -> Split:
    """The split that ``Split.recipe`` tells of, again; of other sources of its benchmark where some are named.

    domains  the benchmark, where it is at hand: loaded again otherwise
    """
    domains = domains or load_domains(recipe["benchmark"], **recipe["options"])
    unseen = unseen_in(recipe["target"], domains)
    split = _split(domains, unseen, recipe["seed"], recipe["validation"], sources or recipe["sources"])
    return split.whole() if recipe.get("whole") else split


def _held_out(examples: Examples, domain: str, seed: int, fraction: float, classes: tuple[str, ...]) -> np.ndarray:
    held_out = np.zeros(len(examples), dtype=bool)
    for label, name in enumerate(classes):
        rows = np.flatnonzero(examples.labels == label)
        originals = np.unique(examples.originals[rows])
        if len(originals) < 2:
            raise ValueError(
                f"Class {name!r} of domain {domain!r} has {len(originals)} image(s); "
                "a split needs at least two, one to train on and one to validate on (identical ones count once)."
            )
        rng = np.random.default_rng([seed, zlib.crc32(domain.encode()), label])
        chosen = rng.permutation(originals)[: min(max(round(fraction * len(originals)), 1), len(originals) - 1)]
        held_out[rows] = np.isin(examples.originals[rows], chosen)
    return held_out


def _content(image: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(image), digest_size=8).digest(), "little")


@explained
def load_domains(spec: str, *, size: int | None = None, cache: str | os.PathLike | None = None, **options) -> Domains:
    """Load a benchmark by name: ``"digits"``, ``"pacs"``, ``"officehome:PATH"``, ``"folder:PATH"``.

    size   side in pixels to which images are resized (both sides, as in DomainBed); default 224, of ``images`` 64; digits are 32
    cache  folder for decoded arrays; default ``$WAKD_CACHE`` or ~/.cache/wakd_kit

    A published benchmark without a path is looked for in the data folder (see ``wakd_kit.data.catalog``). Identical files
    of one domain and class stay on one side of every split. Raises ``UnknownName`` for no such benchmark, and
    ``DataProblem`` with every missing folder and wrong count at once, or else every image that cannot be read;
    ``wakd data check`` says more.

    >>> domains = wk.load_domains("digits")
    >>> list(domains), domains["ink"].images.shape[1:]
    (['ink', 'photo', 'sketch', 'neon'], (32, 32, 3))
    """
    name, _, path = spec.partition(":") if isinstance(spec, str) else (spec, "", "")
    loader = benchmarks.get(name)
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 8 <= size <= 1024):
        raise ValueError(f"size is the side of an image in pixels, a whole number from 8 to 1024; got {size!r}.")
    options = {**({} if size is None else {"size": size}), **options}
    known = [n for n in inspect.signature(loader).parameters if n not in ("path", "cache")]
    for option in options:
        if option not in known:
            raise ValueError(did_you_mean(f"option of {name}", option, known))
    found = loader(path, cache=cache_folder(cache), **options)
    if found.spec is None:  # of arrays, by a function of one's own: by it they are found again
        place = os.path.abspath(path) if os.path.exists(path) else path
        return replace(found, spec=f"{name}:{place}" if path else name, options=options)
    return found


@explained
def domains_from_arrays(
    arrays: Mapping[str, tuple[np.ndarray, ...]], classes: tuple[str, ...], *, views: str = "photographs"
) -> Domains:
    """A benchmark from arrays in memory: ``{domain: (images (n, side, side, 3) uint8, labels (n,))}``.

    A third array (n,) names the original of each image, for renderings that belong on one side of a split; without it
    every image is its own. Raises ``ValueError`` for shapes, sides or labels that do not fit.
    """
    if not arrays:
        raise ValueError("A benchmark needs at least one domain; got none.")
    if not isinstance(classes, Iterable):
        raise ValueError(
            f"classes are their names, in the order of the labels, such as ('dog', 'cat'); got {classes!r}."
        )
    for name in (*arrays, *classes):
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"Names of domains and classes are text; got {name!r}" + f", write '{name}'." * (name != "")
            )
    if len(set(classes)) < len(classes):
        raise ValueError(f"Classes have a name of their own each; got {tuple(classes)}.")
    examples = {name: _checked(name, arrays[name], len(classes)) for name in arrays}
    sides = {name: e.images.shape[1] for name, e in examples.items()}
    if len(set(sides.values())) > 1:
        raise ValueError(f"All domains share one image side; got {sides}.")
    return Domains(None, tuple(classes), examples, {}, views)


def _checked(name: str, arrays: tuple[np.ndarray, ...], classes: int) -> Examples:
    if not isinstance(arrays, list | tuple) or len(arrays) not in (2, 3):
        raise ValueError(
            f"Domain {name!r} is (images, labels), or (images, labels, originals); got {type(arrays).__name__}"
            + (f" of {len(arrays)}." if isinstance(arrays, list | tuple) else ".")
        )
    images, labels, *rest = (np.asarray(array) for array in arrays)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"Images are (n, side, side, 3) uint8; domain {name!r} has {images.shape} {images.dtype}.")
    labels = _whole(name, "labels", labels)
    if labels.shape != images.shape[:1] or labels.min(initial=0) < 0 or labels.max(initial=0) >= classes:
        raise ValueError(
            f"Domain {name!r} needs one label from 0 to {classes - 1} per image; got {labels.size} of {len(images)} images{f' as {labels.shape}' * (labels.ndim != 1)}, from "
            f"{labels.min(initial=0)} to {labels.max(initial=0)}."
        )
    originals = _whole(name, "originals", rest[0]) if rest else np.arange(len(labels))
    if originals.shape != labels.shape or len(np.unique([originals, labels], axis=1).T) != len(np.unique(originals)):
        raise ValueError(f"Domain {name!r} needs one original per image, and all images of one original in one class.")
    return Examples(images, labels, originals)


def _whole(name: str, what: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biuf" or not (np.isfinite(values) & (values == np.rint(values))).all():
        raise ValueError(
            f"The {what} of domain {name!r} are whole numbers; got {values.dtype} such as {values.flat[0]}."
        )
    return values.astype(np.int64)


_PARTS = ("images", "labels", "originals", "attributes")
_SHARES = Bound(
    "lists shares, such as [0.9, 0.8, 0.1]",
    lambda value: isinstance(value, list | tuple | np.ndarray) and all(map(is_number, value)),
)
_SET_ASIDE = Bound(
    "is the part of each class that is set aside, between 0 and 1", lambda value: is_number(value) and 0 < value < 1
)


@benchmarks.register
def digits(path: str, *, cache: Path, size: int = 32, seed: int = 0) -> Domains:
    """The embedded benchmark: scikit-learn's handwritten digits as ink, photo, sketch and neon, 32 px, 10 classes."""
    if path:
        raise ValueError(f"digits ships with the kit and takes no path; got {path!r}.")
    if size != 32:
        raise ValueError(f"digits are rendered at 32 px; got size={size}.")
    whole(0).each(seed=seed)

    def render() -> dict[str, tuple[np.ndarray, ...]]:
        from .digits import render_digits  # scikit-learn takes seconds, once

        return render_digits(seed)

    examples = _rendered_once(cache, f"digits-{seed}", ("digits.py",), render)
    return Domains("digits", tuple("0123456789"), examples, {"seed": seed}, "digits")


@benchmarks.register
def coloured_digits(
    path: str,
    *,
    cache: Path,
    size: int = 32,
    seed: int = 0,
    agree: Sequence[float] = (0.9, 0.8, 0.1),
    noise: float = 0.0,
) -> Domains:
    """Embedded, correlation shift: digits below 5 or not, in a colour that goes with the label in 90, 80 and 10 % of three domains."""
    if path or size != 32:
        raise ValueError(f"coloured_digits ships with the kit at 32 px and takes no path; got {path!r} at {size} px.")
    whole(0).each(seed=seed)
    _SHARES.each(agree=agree)
    within(0, 1).each(noise=noise)

    def render() -> dict[str, tuple[np.ndarray, ...]]:
        from .coloured import render_coloured

        return render_coloured(seed, agree, noise)

    called = f"coloured-{seed}-{'-'.join(map(str, agree))}-{noise}"
    examples = _rendered_once(cache, called, ("digits.py", "coloured.py"), render)
    options = {"seed": seed, "agree": [float(share) for share in agree], "noise": float(noise)}
    return Domains("coloured_digits", ("0 to 4", "5 to 9"), examples, options, "digits", attributes=("red", "green"))


@benchmarks.register
def corrupted(path: str, *, cache: Path, size: int | None = None, seed: int = 0, share: float = 0.25) -> Domains:
    """Corruption shift of any benchmark, ``corrupted:digits`` or ``corrupted:pacs:PATH``: its domains without a share of their
    images, and ``severity1`` to ``severity5`` of those that were set aside, a fifth each, corrupted in every way there is.

    To be left out at once, [severity1, severity2, severity3, severity4, severity5]; no original is in two domains. A network
    that learned from the whole benchmark has seen what is set aside here.
    """
    from .corrupted import CORRUPTIONS, SEVERITIES, corrupt  # torchvision

    whole(0).each(seed=seed)
    _SET_ASIDE.each(share=share)
    base, at = load_domains(path, cache=cache, **({} if size is None else {"size": size})), len(SEVERITIES)
    clean, aside = {}, []
    sides = {name: _held_out(e, f"corrupted {name}", seed, share, base.classes) for name, e in base.items()}
    if base.files:  # copies that lie elsewhere, too
        copies = np.concatenate([base.files[name][held] for name, held in sides.items()])
        sides = {name: np.isin(base.files[name], copies) for name in sides}
    for place, (name, examples) in enumerate(base.items()):
        held = sides[name]
        kept = examples.take(np.flatnonzero(~held))
        clean[name] = replace(kept, attributes=np.zeros(len(kept), dtype=np.int64), rows=None)
        aside.append(replace(part := examples.take(np.flatnonzero(held)), originals=part.originals + (place << 40)))
    images, labels, originals = (np.concatenate([getattr(e, name) for e in aside]) for name in _PARTS[:3])
    if base.files:
        files = np.concatenate([base.files[name][held] for name, held in sides.items()])
        _, first, places = np.unique(files, return_index=True, return_inverse=True)
        originals = originals[first[places]]
    rng, dealt = np.random.default_rng([seed, at]), np.empty(len(labels), dtype=int)
    for label in range(len(base.classes)):  # each class in equal parts, renderings of an original in one
        known, places = np.unique(originals[labels == label], return_inverse=True)
        dealt[labels == label] = ((rng.permutation(len(known)) + label) % at)[places]
    if twice := base.keys() & {f"severity{severity}" for severity in SEVERITIES}:
        raise ValueError(f"corrupted makes domains of its own called severity1 to severity5; rename {min(twice)!r}.")
    if len(np.unique(dealt)) < at:
        raise ValueError(
            f"share {share} sets {len(labels)} images aside, too few for {at} severities; take a larger one."
        )
    code = Path(__file__).with_name("corrupted.py").read_bytes()
    key = hashlib.blake2b(
        f"{base.fingerprint} {seed} {share} {dealt.tolist()}".encode() + code, digest_size=8
    ).hexdigest()
    shifted = {}
    for severity in SEVERITIES:
        mine, stored = dealt == severity - 1, cache / f"corrupted-{key}-{severity}.npy"

        def make(partial: Path, severity=severity, mine=mine) -> None:
            made = [corrupt(images[mine], name, severity, seed=seed) for name in CORRUPTIONS]
            save(partial, np.save, np.concatenate(made))

        pixels = kept_array(stored, (len(CORRUPTIONS) * int(mine.sum()), *images.shape[1:]), make)
        again = [np.tile(values[mine], len(CORRUPTIONS)) for values in (labels, originals)]
        kinds = np.repeat(np.arange(1, len(CORRUPTIONS) + 1), mine.sum())
        shifted[f"severity{severity}"] = Examples(pixels, *again, kinds)
    options = {"seed": seed, "share": share, **({} if size is None else {"size": size})}
    names = ("clean", *CORRUPTIONS)
    of = {name: [base.contents[name], *base.of.get(name, ())] for name in base}
    every = [content for contents in of.values() for content in contents]
    of |= {name: every for name in shifted}
    return Domains(
        f"corrupted:{base.spec}", base.classes, clean | shifted, options, base.views, attributes=names, of=of
    )


def _rendered_once(cache: Path, called: str, sources: Sequence[str], render: Callable) -> dict[str, Examples]:
    """What ``render`` draws, from the cache where it was drawn by the same code before."""
    code = b"".join(Path(__file__).with_name(source).read_bytes() for source in sources)
    stored = cache / f"{called}-{hashlib.blake2b(code, digest_size=6).hexdigest()}.npz"
    try:
        with np.load(stored) as file:
            flat = dict(file)
    except (FileNotFoundError, BadZipFile, ValueError, EOFError):  # not there, or cut off
        flat = {f"{n}/{part}": a for n, arrays in render().items() for part, a in zip(_PARTS, arrays)}
        keep(stored, lambda partial: save(partial, np.savez, **flat))
    names = dict.fromkeys(key.split("/")[0] for key in flat)
    return {n: Examples(*(flat[f"{n}/{part}"] for part in _PARTS if f"{n}/{part}" in flat)) for n in names}


@benchmarks.register
def folder(path: str, *, cache: Path, size: int = 224) -> Domains:
    """Any benchmark laid out as domain/class/images; every domain must have every class."""
    return _folder_of_images("folder", path, cache, size)


def _register_published(name: str) -> None:
    def load(path: str, *, cache: Path, size: int = 224) -> Domains:
        return _folder_of_images(name, path, cache, size, BENCHMARKS[name])

    load.__doc__ = BENCHMARKS[name].summary
    benchmarks.register(load, name=name)


for _name in BENCHMARKS:
    _register_published(_name)


@benchmarks.register
def images(path: str, *, cache: Path, size: int = 64) -> Domains:
    """One domain: class/images in a folder, a tar or a zip, such as a part of ImageNet to pretrain on. No domain is left out."""
    return _folder_of_images("images", path, cache, size, domain="images")


def _folder_of_images(
    name: str, path: str, cache: Path, size: int, benchmark: Benchmark | None = None, domain: str | None = None
) -> Domains:
    path = path or (benchmark and locate(benchmark))
    root, classes, arrays = read_images(path, name, benchmark, cache, size, domain=domain)
    examples = {d: Examples(*parts) for d, (*parts, _) in arrays.items()}
    files = {d: hashes for d, (*_, hashes) in arrays.items()}
    named = benchmark.attributes if benchmark and all(e.attributes is not None for e in examples.values()) else ()
    return Domains(f"{name}:{root}", classes, examples, {"size": size}, files=files, attributes=named)


def cache_folder(cache: str | os.PathLike | None = None) -> Path:
    """The folder of what is kept between trainings: this one, or ``$WAKD_CACHE``, or ~/.cache/wakd_kit; made where it is not there."""
    given = cache or os.environ.get("WAKD_CACHE") or "~/.cache/wakd_kit"
    try:
        folder = path_of(given)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise DataProblem(f"{no_cache(given)} ({getattr(error, 'strerror', None) or error}).") from None
    return folder

"""What a folder of images holds, compared with what it should: ``wakd data check PATH``.

Every file is read, hashed and decoded. ``problems`` keep ``load_domains`` from using the folder; ``notes`` do not, and
the first of them matter most: an image that is in two domains is trained on and tested on.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..files import path_of
from .catalog import BENCHMARKS, IMAGE_SUFFIXES, Benchmark, locate, published
from .domains import benchmarks
from .folders import (
    EVEN,
    Files,
    as_rgb,
    classes_of,
    content,
    deep,
    layout_problems,
    list_images,
    on_all_cores,
    printable,
    trouble,
    unlisted_images,
)

ORIENTATION = 0x0112  # the tag of EXIF
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".parquet"})

WHEN_LOADED = {  # kind of image -> what load_domains makes of it
    "CMYK": "converted from ink to RGB without a colour profile",
    "12-bit": "reduced to the upper eight bits",
    "16-bit": "reduced to the upper eight bits",
    "signed 16-bit": "of the values from 0 to 32767 the upper eight bits are taken",
    "float": "values from 0 to 1 become 0 to 255",
    "transparent": "transparency is dropped: such pixels show the colour stored under it",
    "greyscale": "the one channel is repeated three times",
    "palette": "looked up, nothing is lost",
    "black-and-white": "becomes 0 and 255 in three channels",
    "other-mode": "converted to RGB by Pillow, which may clip values",
}
TURNED = "sideways or mirrored (EXIF orientation), loaded as stored and not turned, as DomainBed does"


@dataclass(frozen=True)
class DataReport:
    """What ``check_data`` found.

    files    one row per image: domain, class, file (relative to root), problem (None if readable), kind (None for plain
             RGB), width, height, turned (whether EXIF says that it is shown otherwise than it is stored), content (a hash of
             the bytes, None if not readable)
    counts   images per class (rows) and domain (columns)
    usable   whether ``load_domains`` accepts the folder
    """

    root: Path
    benchmark: Benchmark | None
    files: pd.DataFrame
    counts: pd.DataFrame
    problems: list[str]
    notes: list[str]
    seconds: float

    @property
    def usable(self) -> bool:
        """Whether nothing was found that keeps the folder from being loaded."""
        return not self.problems

    def __str__(self) -> str:
        known = self.benchmark
        what = f"compared with {known.title} ({known.paper})" if known else "no published benchmark"
        lines = [
            f"{self.root}: {what}",
            f"{len(self.files)} images, {self.counts.shape[1]} domains, {self.counts.shape[0]} classes; "
            f"read and decoded in {self.seconds:.1f} s",
            "{} x {} pixels, medians of width and height".format(*self._sides()),
            "",
            *balance(self.counts, self.benchmark),
        ]
        for title, entries in ((f"{len(self.problems)} problem(s)", self.problems), ("notes", self.notes)):
            if entries:
                lines += ["", f"{title}:", *(f"  - {entry}" for entry in _some(entries, 200))]
        name = known.name if known else "folder"
        verdict = (
            [f'usable: load_domains("{name}:{self.root}")', *self._small(name)]
            if self.usable
            else ["not usable as it is"]
        )
        return printable("\n".join([*lines, "", *verdict]))

    def _sides(self) -> tuple[int, int]:
        """Width and height of the images that can be read, medians; 0 of none."""
        readable = self.files[self.files["problem"].isna()]
        return tuple(int(readable[side].median()) if len(readable) else 0 for side in ("width", "height"))

    def _small(self, name: str) -> list[str]:
        """What to do where images would be enlarged to more than twice their side."""
        size, side = inspect.signature(benchmarks.get(name)).parameters["size"].default, max(*self._sides(), 8)
        told = f"their {side} pixels become {size}; size={side}, image_size: {side} in a study, leaves them about as they are"
        return [told] * (2 * side < size)


def check_data(path: str | Path, benchmark: str | None = None) -> DataReport:
    """Read every image below ``path`` and compare what is there with what is expected.

    path       a folder of domain/class/images, or the name of a published benchmark in the data folder
    benchmark  what to compare with: a published benchmark's name, "folder" for none; None recognises one by its
               domains and classes

    Duplicates are files that are identical byte for byte. Raises ``DataProblem`` where there is nothing to check.
    """
    if str(path) in BENCHMARKS and not Path(path).is_dir():
        path, benchmark = locate(BENCHMARKS[str(path)]), benchmark or str(path)
    root = path_of(path).resolve()
    begun = time.perf_counter()
    listed = list_images(root, str(path))
    if benchmark is None:
        expected = recognise(listed)
    else:
        expected = None if benchmark == "folder" else published(benchmark)
    names = [(d, c, f) for d, by_class in listed.items() for c, images in by_class.items() for f in images]
    facts = on_all_cores(_examine, f"checking {root.name}", [f for *_, f in names]) if names else []
    files = pd.DataFrame(facts, columns=["problem", "kind", "width", "height", "turned", "content"], dtype=object)
    files = files.astype({"width": int, "height": int, "turned": bool})
    files.insert(0, "domain", [d for d, *_ in names])
    files.insert(1, "class", [c for _, c, _ in names])
    files.insert(2, "file", [printable(f.relative_to(root).as_posix()) for *_, f in names])
    classes = sorted({*classes_of(listed, expected), *(c for by_class in listed.values() for c in by_class)})
    counts = pd.DataFrame({d: [len(by_class.get(c, [])) for c in classes] for d, by_class in listed.items()}, classes)
    unreadable = files[files["problem"].notna()]
    problems = layout_problems(listed, expected)
    uneven = [EVEN] if problems and not expected else []
    problems += [f"{file}: {problem}" for file, problem in zip(unreadable["file"], unreadable["problem"])]
    notes = [
        *uneven,
        *_duplicates(files),
        *_single(files),
        *_kinds(files),
        *_stray(root, listed),
        *_uneven(counts, expected),
    ]
    if expected and expected.note and any("published benchmark has" in problem for problem in problems):
        notes.append(expected.note)
    return DataReport(root, expected, files, counts, problems, notes, time.perf_counter() - begun)


def recognise(listed: Mapping[str, Mapping[str, list]]) -> Benchmark | None:
    """The published benchmark whose domains and classes are mostly there; None if there is no such."""
    classes = set().union(*listed.values())

    def share(benchmark: Benchmark) -> float:
        return min(
            len(listed.keys() & benchmark.counts.keys()) / len(benchmark.counts),
            len(classes & set(benchmark.classes)) / len(benchmark.classes),
        )

    best = max(BENCHMARKS.values(), key=share)
    return best if share(best) > 0.5 else None


def _examine(file: Path) -> tuple[str | None, str | None, int, int, bool, str | None]:
    found: dict = {}

    def look(image: Image.Image) -> None:
        found["kind"], (found["width"], found["height"]) = _kind(image), image.size
        found["turned"] = image.getexif().get(ORIENTATION, 1) != 1
        if deep(image):
            as_rgb(image)  # says so where its range is not known
        # at an eighth of its side a JPEG is read to its last byte and transformed sparingly
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()

    problem = trouble(file, look)
    same = f"{content(file):016x}" if problem is None else None
    return problem, found.get("kind"), found.get("width", 0), found.get("height", 0), found.get("turned", False), same


def _kind(image: Image.Image) -> str | None:
    """A key of ``WHEN_LOADED``; None for eight-bit RGB."""
    if deep(image):
        return deep(image)
    stored = str(image.tile[0].args) if image.tile else ""  # Pillow opens 16-bit colour as RGB and tells it only here
    if ";16" in stored:
        return "16-bit"
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return "transparent"
    kinds = {"RGB": None, "CMYK": "CMYK", "L": "greyscale", "P": "palette", "1": "black-and-white"}
    return kinds.get(image.mode, "other-mode")


def _duplicates(files: pd.DataFrame) -> list[str]:
    """Identical files: first those in several domains, then those with two labels, then those inside a class."""
    readable = files[files["problem"].isna()]
    twins = readable[readable.duplicated("content", keep=False)]
    groups = [group for _, group in twins.groupby("content", sort=False)]
    across = [g for g in groups if g["domain"].nunique() > 1]
    labels = [g for g in groups if g["domain"].nunique() == 1 < g["class"].nunique()]
    within = [g for g in groups if g["domain"].nunique() == 1 == g["class"].nunique()]
    lines = []
    for found, consequence in (
        (across, "are in several domains: with one of them left out, they are trained on and tested on"),
        (labels, "have several labels in one domain: one is wrong, and they may be on both sides of a split"),
        (within, "are in one class: load_domains keeps each group on one side of every split"),
    ):
        if found:
            names = [" = ".join(group["file"]) for group in found]
            lines += [f"{len(found)} group(s) of identical images {consequence}:", *_some(names)]
    return lines


def _single(files: pd.DataFrame) -> list[str]:
    """Classes of which a domain has one image, so that it is no source."""
    different = files[files["problem"].isna()].groupby(["domain", "class"])["content"].nunique()
    named = [f"{domain}/{name}" for domain, name in different[different < 2].index]
    told = "that domain can be left out and be no source: a split needs two, one to validate on"
    return [f"{len(named)} class(es) of one image, {told}: {_named(named)}"] * bool(named)


def _some(entries: list[str], most: int = 20) -> list[str]:
    return entries[:most] + ([f"... and {len(entries) - most} more of these"] if len(entries) > most else [])


def _named(files: list[str], most: int = 5) -> str:
    return ", ".join(files[:most]) + (f" and {len(files) - most} more" if len(files) > most else "")


def _kinds(files: pd.DataFrame) -> list[str]:
    """Images that are not eight-bit RGB, and what becomes of them."""
    by_kind = files[files["problem"].isna()].groupby("kind")["file"].agg(list)
    turned = files["file"][files["turned"]].tolist()
    return [
        *(
            f"{len(by_kind[kind])} {kind} image(s), {what}: {_named(by_kind[kind])}"
            for kind, what in WHEN_LOADED.items()
            if kind in by_kind
        ),
        *([f"{len(turned)} image(s) {TURNED}: {_named(turned)}"] if turned else []),
    ]


def _stray(root: Path, files: Files) -> list[str]:
    """Files that are no image of a class, by what they are."""
    listed = {file for by_class in files.values() for images in by_class.values() for file in images}
    images = set(unlisted_images(files))
    found: dict[str, list[str]] = {}
    for file in sorted(root.rglob("*")):
        if file in listed or file.is_dir():
            continue
        relative = file.relative_to(root)
        if any(part.startswith((".", "__")) for part in relative.parts):
            what = "hidden file(s)"
        elif file in images:
            what = "image(s) whose names do not end like those of images"
        elif file.suffix.lower() in ARCHIVES:
            what = "archive(s)"
        elif file.suffix.lower() in IMAGE_SUFFIXES:
            what = "image(s) outside domain/class/"
        else:
            what = "stray file(s)"
        found.setdefault(what, []).append(relative.as_posix())
    return [f"{len(entries)} {what}, not loaded: {_named(entries)}" for what, entries in sorted(found.items())]


def _uneven(counts: pd.DataFrame, benchmark: Benchmark | None) -> list[str]:
    """Classes with another number of images than published, one line per domain, where that is known."""
    lines = []
    for domain, expected in benchmark.per_class.items() if benchmark else ():
        found = [counts.at[c, domain] if domain in counts else 0 for c in benchmark.classes]
        differ = [f"{c} {n} of {m}" for c, n, m in zip(benchmark.classes, found, expected) if n not in (0, m)]
        if differ:
            lines.append(f"images found of those published, {domain}: {', '.join(differ)}")
    return lines


def balance(counts: pd.DataFrame, benchmark: Benchmark | None = None, most: int = 80) -> list[str]:
    """The table of images per class and domain, with totals, what is published, and how uneven the classes are.

    Of more than ``most`` classes only the ten smallest are shown.
    """
    shown = counts if len(counts) <= most else counts.loc[counts.sum(axis=1).nsmallest(10).index]
    rows = [shown] if len(counts) else []
    summary = pd.DataFrame({"images": counts.sum()}).T
    if benchmark:
        form = benchmark.nearest_counts(counts.sum().to_dict())
        summary.loc["published"] = [form.get(d, 0) for d in counts.columns]
    smallest = counts.replace(0, np.nan).min()
    summary.loc["largest / smallest class"] = (counts.max() / smallest).round(1)
    table = pd.concat([*rows, summary]).map(lambda n: f"{n:g}" if n == n else "-")
    less = [f"(the 10 smallest of {len(counts)} classes)"] if len(counts) > most else []
    return [*less, *table.to_string().split("\n")]

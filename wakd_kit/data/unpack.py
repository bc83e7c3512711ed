"""From the files of a published benchmark to domain/class/images on disk.

Only images that belong to a class are written, at a place computed from their name: nothing an archive says decides
where a file goes, and one that points outside is refused as a whole.
"""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

import pandas as pd
import yaml
from tqdm import tqdm

from .catalog import IMAGE_SUFFIXES, Benchmark, DataProblem

BROKEN = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)

Files = Mapping[str, Path]  # name of a download -> where it lies
Places = Callable[[str], list[str]]  # member of an archive -> domain/class/image, none for what is left out


def unpack(benchmark: Benchmark, files: Files, into: Path) -> int:
    """Write every image of the benchmark's archives below ``into``; returns how many.

    Raises ``DataProblem`` for an archive that cannot be read, that holds links or names outside, two images in one
    place, or no image of this benchmark at all.
    """
    archives, places = ARRANGED.get(benchmark.name, _in_domain_and_class)(benchmark, files)
    count = sum(_unpack(archive, into, places) for archive in archives)
    if not count:
        domain, name = next(iter(benchmark.counts)), benchmark.classes[0]
        raise DataProblem(
            f"No {benchmark.title} in {', '.join(files)}: nothing in it is called .../{domain}/{name}/*.jpg."
        )
    return count


def unpack_classes(archive: Path, into: Path) -> int:
    """Write every image of an archive that is called .../class/image as ``into/class/image``; returns how many.

    Raises ``DataProblem`` as ``unpack`` does.
    """
    count = _unpack(archive, into, _in_class)
    if not count:
        raise DataProblem(f"{archive} holds no images in class folders: nothing in it is called .../class/*.jpg.")
    return count


def _unpack(archive: Path, into: Path, places: Places) -> int:
    count = 0
    try:
        for member, opened in tqdm(_members(archive), desc=archive.name, unit=" files", disable=None, leave=False):
            for place in places(member):
                with opened() as source:
                    _write(into / place, source)
                count += 1
    except FileExistsError as error:
        raise DataProblem(f"{archive} has two images for {Path(error.filename).relative_to(into)}.") from None
    except (RuntimeError, NotImplementedError) as error:  # a password, or a compression that Python does not know
        raise DataProblem(f"{archive} cannot be unpacked ({error}); unpack it yourself and give the folder.") from None
    except BROKEN as error:
        raise DataProblem(f"{archive} is no archive that can be read ({error}); remove it and get it again.") from None
    return count


def _visible_image(member: str) -> tuple[str, ...]:
    """The last three parts of a member's path, or fewer, where it is an image and no part is hidden; else none."""
    path = PurePosixPath(member)
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return path.parts[-3:] if path.suffix.lower() in IMAGE_SUFFIXES and not hidden else ()


def _in_class(member: str) -> list[str]:
    return ["/".join(parts[-2:])] if len(parts := _visible_image(member)) > 1 else []


def _write(file: Path, source: IO[bytes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "xb") as out:
        shutil.copyfileobj(source, out)


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Name of each file in a zip or tar, with / between folders, and how to open it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                _refuse_outside(archive, member.filename)
                if not member.is_dir():
                    yield member.filename.replace("\\", "/"), lambda member=member: opened.open(member)
    else:
        with tarfile.open(archive) as opened:
            for member in opened:
                _refuse_outside(archive, member.name)
                if member.isfile():
                    yield member.name, lambda member=member: opened.extractfile(member)
                elif not member.isdir():
                    raise DataProblem(f"{archive} is refused: its member {member.name!r} is a link or a device.")


def _refuse_outside(archive: Path, member: str) -> None:
    path = PurePosixPath(member.replace("\\", "/"))
    drive = any(part[1:2] == ":" for part in path.parts)  # of Windows
    if path.is_absolute() or ".." in path.parts or drive:
        raise DataProblem(f"{archive} is refused: its member {member!r} points outside the folder it is unpacked into.")


def _in_domain_and_class(benchmark: Benchmark, files: Files) -> tuple[list[Path], Places]:
    """Whatever is called .../domain/class/image: PACS, VLCS, Office-Home."""

    def places(member: str) -> list[str]:
        parts = _visible_image(member)
        fits = len(parts) == 3 and parts[0] in benchmark.counts and parts[1] in benchmark.classes
        return ["/".join(parts)] if fits else []

    return list(files.values()), places


def _listed(benchmark: Benchmark, files: Files) -> tuple[list[Path], Places]:
    """DomainNet, cleaned: of each zip only what its two lists name, one ``domain/class/image label`` a line."""
    lists = [path for name, path in files.items() if name.endswith(".txt")]
    kept = {line.rpartition(" ")[0] for path in lists for line in path.read_text().splitlines()}
    archives = [path for name, path in files.items() if name.endswith(".zip")]
    return archives, lambda member: [member] if member in kept else []


def _annotated(benchmark: Benchmark, files: Files) -> tuple[list[Path], Places]:
    """TerraIncognita: images lie in one folder; COCO annotations tell location and species, as DomainBed reads them."""
    placed: dict[str, set[str]] = {}
    for member, opened in _members(files["eccv_18_annotations.tar.gz"]):
        if not member.endswith(".json"):
            continue
        with opened() as source:
            table = json.load(source)
        species = {category["id"]: category["name"] for category in table["categories"]}
        images = {image["id"]: (f"location_{image['location']}", image["file_name"]) for image in table["images"]}
        for annotation in table["annotations"]:
            domain, file = images[annotation["image_id"]]
            file = PurePosixPath(file).name
            name = species[annotation["category_id"]]
            if domain in benchmark.counts and name in benchmark.classes:
                placed.setdefault(file, set()).add(f"{domain}/{name}/{file}")
    return [files["eccv_18_all_images_sm.tar.gz"]], lambda member: sorted(placed.get(PurePosixPath(member).name, ()))


SPAWRIOUS = {  # places of bulldog, dachshund, labrador and corgi in training, in test, and the one that all share
    "spawrious_o2o_easy": (("desert", "jungle", "dirt", "snow"), ("dirt", "snow", "desert", "jungle"), "beach"),
    "spawrious_o2o_medium": (("mountain", "beach", "dirt", "jungle"), ("jungle", "dirt", "beach", "snow"), "desert"),
    "spawrious_o2o_hard": (("jungle", "mountain", "snow", "desert"), ("mountain", "snow", "desert", "jungle"), "beach"),
}


def _by_place(benchmark: Benchmark, files: Files) -> tuple[list[Path], Places]:
    """Spawrious: .../part/place/breed/image, parts 0 and 1 for the two training domains and both for test, as its authors' loader
    has them; a file is called place__image, a test image also part."""
    found: dict[tuple[str, ...], list[str]] = {}
    for archive in files.values():
        for member, _ in _members(archive):
            if _visible_image(member) and len(parts := PurePosixPath(member).parts) > 3 and parts[-4] in ("0", "1"):
                found.setdefault(parts[-4:-1], []).append(member)
    train, test, shared = SPAWRIOUS[benchmark.name]
    placed: dict[str, list[str]] = {}
    for breed, own, changed in zip(("bulldog", "dachshund", "labrador", "corgi"), train, test):
        for part, domain, share in (("0", "train_97", 0.97), ("1", "train_87", 0.87)):
            total = len(found.get((part, own, breed), ()))
            many = int(share * total)
            takes = [(domain, own, slice(many), ""), (domain, shared, slice(total - many), "")]
            for into, place, which, mark in [*takes, ("test", changed, slice(None), f"{part}_")]:
                for member in sorted(found.get((part, place, breed), ()))[which]:
                    name = f"{into}/{breed}/{place}__{mark}{PurePosixPath(member).name}"
                    placed.setdefault(member, []).append(name)
    return list(files.values()), lambda member: placed.get(member, [])


def _by_attribute(benchmark: Benchmark, files: Files) -> tuple[list[Path], Places]:
    """CelebA: its lists tell the part and the attributes of each image; a file is called sex__image."""
    _, names, *rows = files["list_attr_celeba.txt"].read_text().splitlines()
    blond, male = (names.split().index(name) for name in ("Blond_Hair", "Male"))
    parts = dict(line.split() for line in files["list_eval_partition.txt"].read_text().splitlines())
    placed = {}
    for file, *values in (row.split() for row in rows):
        label, sex = benchmark.classes[values[blond] != "1"], benchmark.attributes[values[male] == "1"]
        placed[file] = f"{list(benchmark.counts)[int(parts[file])]}/{label}/{sex}__{file}"
    archives = [path for name, path in files.items() if name.endswith(".zip")]
    return archives, lambda member: [placed[name]] if (name := PurePosixPath(member).name) in placed else []


ARRANGED = {"domainnet": _listed, "terra": _annotated, "celeba": _by_attribute, **dict.fromkeys(SPAWRIOUS, _by_place)}


def unpack_parquet(benchmark: Benchmark, shards: list[Path], card: Path, into: Path) -> int:
    """Write the images that a Hugging Face data set embeds, byte for byte, below ``into``; returns how many.

    card  the repository's README.md, whose header names the labels. Rows hold image {bytes, path}, domain and label.

    Raises ``DataProblem`` for a card or a file that cannot be read, and for a class that is no part of the benchmark.
    """
    try:
        header = yaml.safe_load(card.read_text(encoding="utf-8").split("---\n")[1])
        features = {feature["name"]: feature["dtype"] for feature in header["dataset_info"]["features"]}
        labels = {int(i): name.replace(" ", "_") for i, name in features["label"]["class_label"]["names"].items()}
    except (LookupError, TypeError, AttributeError, ValueError, yaml.YAMLError):
        raise DataProblem(
            f"{card} does not name the classes of {benchmark.title}; remove it and get it again."
        ) from None
    row = 0
    for shard in shards:
        try:
            table = pd.read_parquet(shard, columns=["image", "domain", "label"])
        except (ValueError, OSError) as error:
            raise DataProblem(
                f"{shard} is no parquet that can be read ({error}); remove it and get it again."
            ) from None
        rows = zip(table["image"], table["domain"], table["label"])
        for image, domain, label in tqdm(rows, total=len(table), desc=shard.name, disable=None, leave=False):
            name = labels.get(label, label)
            if domain not in benchmark.counts or name not in benchmark.classes:
                raise DataProblem(f"{shard.name} holds {domain}/{name}, which is no part of {benchmark.title}.")
            file = into / domain / name / PurePosixPath(image["path"] or "").name
            if file.suffix.lower() not in IMAGE_SUFFIXES or file.exists():
                file = into / domain / name / f"{row:06d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image["bytes"])
            row += 1
    return row

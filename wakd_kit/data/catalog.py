"""The published benchmarks: what each one holds, where to get it, and where it lies on this machine.

Domains, classes, counts, sources and checksums are in catalog.toml. ``fetch`` gets what is listed there, ``check``
compares a folder with it, and ``load_domains("pacs")`` finds it in the data folder, which is

    the environment variable WAKD_DATA, or else
    data = "/path" in ~/.config/wakd/config.toml ($XDG_CONFIG_HOME/wakd/config.toml where that is set).

Domain generalisation papers resize every image to 224 x 224 pixels (Gulrajani and Lopez-Paz, "In Search
of Lost Domain Generalization", ICLR 2021, appendix D.1): that is ``load_domains``'s default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..files import path_of
from ..names import UnknownName, did_you_mean

_SUFFIXES = ".jpg .jpeg .jpe .jfif .jp2 .png .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .tga"
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())


class DataProblem(ValueError):
    """Images that are missing, unreadable or not what they should be; the message names each of them."""


@dataclass(frozen=True)
class Download:
    """One file of a benchmark's source, saved as ``name``.

    url       None for a file that no host is known to serve any more: it is used when it was fetched by hand
    size      bytes, None if not known
    checksum  ``sha256:...`` or ``md5:...``, None where none is published: then the first download's is kept
    recorded  who recorded the checksum
    """

    name: str
    url: str | None = None
    size: int | None = None
    checksum: str | None = None
    recorded: str = ""


@dataclass(frozen=True)
class Hub:
    """A data set repository on the Hugging Face hub at one revision; its files are parquet with embedded images."""

    repository: str
    revision: str
    files: tuple[Download, ...]


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark, laid out as domain/class/images.

    summary      the line of ``wakd list domains``
    folders      its names inside the data folder; the first is ours, others are accepted
    counts       {domain: images} that papers report; ``other_counts`` are further forms in circulation
    per_class    {domain: images of each class, in the order of ``classes``}, where known
    attributes   what an image has beside its class, if every file is called attribute__name
    where        how to get the files by hand: a clause that goes with "get"
    note         what explains counts that differ
    """

    name: str
    title: str
    summary: str
    paper: str
    folders: tuple[str, ...]
    counts: Mapping[str, int]
    classes: tuple[str, ...]
    licence: str
    where: str
    files: tuple[Download, ...]
    hub: Hub | None = None
    other_counts: tuple[Mapping[str, int], ...] = ()
    per_class: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    note: str = ""

    @property
    def images(self) -> int:
        """How many images papers report."""
        return sum(self.counts.values())

    def nearest_counts(self, found: Mapping[str, int]) -> Mapping[str, int]:
        """The published form that agrees with most of the counted domains."""
        return max((self.counts, *self.other_counts), key=lambda form: sum(found.get(d) == form[d] for d in form))


def published(name: str) -> Benchmark:
    """The benchmark of that name; ``UnknownName`` with the closest one otherwise."""
    if name not in BENCHMARKS:
        raise UnknownName(did_you_mean("published benchmark", name, BENCHMARKS))
    return BENCHMARKS[name]


def config_file() -> Path:
    """Where a user may write where his data are."""
    # where nobody knows the home folder "~" stays as it is, and no such file is there
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "wakd" / "config.toml"


def data_folder() -> Path | None:
    """The folder that holds the benchmarks' folders: ``WAKD_DATA``, else the config file's ``data``, else None.

    Raises ``DataProblem`` for a config file that is not TOML, has an unknown key, or whose ``data`` is no text.
    """
    if os.environ.get("WAKD_DATA"):
        return path_of(os.environ["WAKD_DATA"])
    file = config_file()
    if not file.is_file():
        return None
    try:
        settings = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise DataProblem(f'{file} is not TOML ({error}); it should read data = "/path/to/data".') from None
    for key in settings:
        if key != "data":
            raise DataProblem(f"{file}: {did_you_mean('setting', key, ['data'])}")
    if not isinstance(settings.get("data", ""), str):
        raise DataProblem(f'{file}: data is a path in quotes, as in data = "/path/to/data"; got {settings["data"]!r}.')
    return path_of(settings["data"]) if settings.get("data") else None


def locate(benchmark: Benchmark) -> Path:
    """Its folder inside the data folder; ``DataProblem`` says how to point there, or how to get it."""
    how = (
        f"Write {benchmark.name}:PATH, set WAKD_DATA to the folder that holds {benchmark.folders[0]}/ "
        f'(or data = "..." in {config_file()}), or get it: wakd data get {benchmark.name}.'
    )
    data = data_folder()
    if data is None:
        raise DataProblem(f"Where is {benchmark.title}? {how}")
    for folder in benchmark.folders:
        if (data / folder).is_dir():
            return data / folder
    raise DataProblem(f"{data} has no folder {' or '.join(f'{f}/' for f in benchmark.folders)}. {how}")


def _downloads(files: list[dict]) -> tuple[Download, ...]:
    return tuple(Download(**file) for file in files)


def _benchmark(name: str, facts: dict) -> Benchmark:
    """A table of catalog.toml: its keys are the fields, its lists tuples."""
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    plain["files"] = _downloads(facts["files"])
    plain["per_class"] = {domain: tuple(numbers) for domain, numbers in facts.get("per_class", {}).items()}
    if hub := facts.get("hub"):
        plain["hub"] = Hub(hub["repository"], hub["revision"], _downloads(hub["files"]))
    return Benchmark(name, **plain)


_FACTS = tomllib.loads(Path(__file__).with_name("catalog.toml").read_text(encoding="utf-8"))
BENCHMARKS: Mapping[str, Benchmark] = {name: _benchmark(name, facts) for name, facts in _FACTS.items()}

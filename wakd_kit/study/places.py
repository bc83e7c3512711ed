"""Where studies lie: their files, and the folders that they write. Standard library and YAML: nobody waits for torch here.

A shipped study writes below the checkout, or where one stands when the kit is installed; one's own beside its file:
``reports/<name>`` and ``runs/<name>``. Where a study wrote last is remembered below ``$WAKD_CACHE``, for ``wakd status``.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import yaml

from ..files import NoLocks, json_or_nothing, locked, path_of, write_text
from ..names import did_you_mean

PACKAGE = Path(__file__).parent.parent
INSTALLED = (PACKAGE / "notebooks").is_dir()  # from a wheel, which holds what lies beside the package in a checkout
NOTEBOOKS, REPORTS = ((PACKAGE if INSTALLED else PACKAGE.parent) / kind for kind in ("notebooks", "reports"))
SUFFIXES = (".yaml", ".yml")


def home() -> Path:
    """Where reports/ and runs/ of shipped studies are made, and where notebooks take themselves to lie: the checkout, or where
    one stands."""
    return Path.cwd() if INSTALLED else REPORTS.parent


class StudyProblem(ValueError):
    """A study file that cannot be run; the message says what came, what fits and what to do."""


def file_of(which: str | os.PathLike) -> Path:
    """The file of a study, given as such or by the name of one shipped under reports/."""
    path = path_of(which)
    if path.suffix not in SUFFIXES:
        shipped = {p.stem: p for p in REPORTS.glob("*.yaml")}
        if str(which) not in shipped:
            raise StudyProblem(f"{did_you_mean('study', str(which), shipped)} A file of your own ends in .yaml.")
        path = shipped[str(which)]
    if not path.is_file():
        raise StudyProblem(f"No study file at {path}. Give a .yaml, or a name of wakd list studies.")
    return path.absolute()


def name_of(file: Path) -> str:
    """What a study is called: as its file says, or as that is called."""
    with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # names are text
        return str((values if isinstance(values, dict) else {}).get("name") or file.stem)
    return file.stem


def beside(name: str, file: Path | None) -> Path:
    """The folder that holds a study's reports/ and runs/ unless it is told otherwise: its file's, or ``home`` for a shipped one,
    and for one that was recorded there before, also if its file was moved since."""
    if file is None or file.resolve().parent == REPORTS.resolve():
        return home()
    own, there = (folder / "runs" / name / "engine" for folder in (file.resolve().parent, home()))
    if own.is_dir() or not there.is_dir():
        return file.resolve().parent
    return file.resolve().parent if another_at(file, there) else home()  # it is another's


def another_at(file: Path, engine: Path) -> Path | None:
    """The file of another study that was planned last in a folder of recordings, whose ``engine`` this is, where it still lies."""
    known = json_or_nothing(engine / "study.json")
    other, own = Path(known.get("file", file)), file.resolve()
    return other if own not in (other, (engine / known.get("from_here", "")).resolve()) and other.is_file() else None


def remember(file: Path, out: Path, runs: Path) -> None:
    """Keep where a study writes; what cannot be kept is only not found later."""
    with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as held:
        _book().parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(NoLocks):  # then two that begin at once may forget one of them
            held.enter_context(locked(_book().with_suffix(".lock"), wait=lambda who: None))
        known = {name: places for name, places in json_or_nothing(_book()).items() if Path(name).is_file()}
        write_text(_book(), json.dumps(known | {str(file.resolve()): [str(out), str(runs)]}, indent=1))


def remembered(file: Path) -> tuple[Path, Path] | None:
    """(report folder, recordings) where a study wrote last; None where that is not known, or gone."""
    found = json_or_nothing(_book()).get(str(file.resolve()))
    return (Path(found[0]), Path(found[1])) if found and Path(found[1]).is_dir() else None


def _book() -> Path:
    return path_of(os.environ.get("WAKD_CACHE") or "~/.cache/wakd_kit") / "studies.json"

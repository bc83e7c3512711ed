"""Tables that take long: a csv in the run's folder that grows point by point and continues after a kill."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pandas as pd
from tqdm.auto import tqdm

from ..averaging import Coefficients, NoWindow
from ..files import Held, locked, read_json, sweep, write_text
from ..fingerprints import of_function
from ..names import one_line
from ..runs.identity import digest, same_split
from ..runs.store import RunProblem

KIT = "kit"  # the key of an identity that says which code of the kit computed the rows


class Growing:
    """An open table: what it is ``about``, how many points are ``done``, and ``append`` for the rows of the next one."""

    def __init__(self, file: BinaryIO, about: dict, columns: Iterable[str], rows_per_point: int):
        self._file, self._columns, self.about, self._rows = file, list(columns), about, rows_per_point
        file.seek(0)
        whole = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
        self.done = max(0, len(whole) - 1) // rows_per_point
        # a killed process may have left half a line, or some of a point's rows
        file.truncate(sum(map(len, whole[: 1 + self.done * rows_per_point])))
        if not whole:
            self._write([self._columns])

    def append(self, rows: Sequence[Mapping]) -> None:
        """The rows of one more point, handed to the operating system before this returns."""
        if len(rows) != self._rows:  # another count, and what continues would begin in the middle of a point
            raise ValueError(f"A point of this table has {self._rows} rows; got {len(rows)}.")
        self._write([[row[name] for name in self._columns] for row in rows])
        self.done += 1

    def _write(self, lines: Iterable[Sequence]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        self._file.write(text.getvalue().encode())
        self._file.flush()


def table_file(run, name: str) -> Path:
    """Where a run keeps a table of its loss landscape."""
    if not name or Path(name).name != name:
        raise ValueError(f"A table's name is a file name without a folder; got {name!r}.")
    return run.folder / "landscape" / f"{name}.csv"


def of_averages(choices: Iterable[Coefficients | NoWindow]) -> str:
    """A digest of what strategies chose, so that a table of their averages is known by what it was made of."""
    return digest(*(str(c) if isinstance(c, NoWindow) else json.dumps(c.plain, sort_keys=True) for c in choices))


@contextlib.contextmanager
def growing(
    file: Path,
    identity: Mapping,
    columns: Mapping[str, type],
    *,
    points: int,
    rows_per_point: int,
    about: Callable[[], dict] = dict,
) -> Iterator[Growing]:
    """The table in ``file``: continued if it is of the same ``identity``, splits by content, else it starts anew, with a warning.

    columns  {name: type}, as ``finished`` will read them
    points   how many it will have, with so many rows each
    about    called for a new table: what else to keep beside it, as plain values, in a .json of the same name

    Raises ``RunProblem`` while another process has it open.
    """
    for label in (label for key in ("choices", "corners", "marks") for label in identity.get(key, ())):
        one_line("label of a point", str(label))
    file.parent.mkdir(exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(file.with_suffix(".lock")))
        except Held as other:
            raise RunProblem(
                f"{file} is being computed by another process ({other}); wait for it, or give this one another name."
            ) from None
        sweep(file.parent, f"{file.stem}.json")
        table = held.enter_context(open(file, "ab+"))
        wanted, known = json.loads(json.dumps(identity)), _about(file)
        if known is not None:
            kept = known["identity"]
            if KIT not in kept:  # an older description does not tell
                wanted.pop(KIT, None)
            if "split" in kept.keys() & wanted.keys() and same_split(kept["split"], wanted["split"]):
                wanted["split"] = kept["split"]  # wherever its images lie now
        rows = points * rows_per_point
        differ = known and (
            _differing(known["identity"], wanted) or _differing({"rows": known["rows"]}, {"rows": rows})
        )
        if known is None or differ:
            if known is not None:
                warnings.warn(_difference(file, differ), stacklevel=5)
            known = {"identity": wanted, "rows": rows, **about()}
            # before the description, so that a kill in between leaves no rows of another one under it
            table.truncate(0)
            write_text(file.with_suffix(".json"), json.dumps(known))
        yield Growing(table, known, columns, rows_per_point)


def computed(
    file: Path,
    identity: Mapping,
    columns: Mapping[str, type],
    rows: Callable[[Growing], Iterable[Sequence[Mapping]]],
    *,
    points: int,
    unit: str = "point",
    progress: bool = False,
    **settings,
) -> pd.DataFrame:
    """The rows of a table, of which what is missing is computed first: ``rows(table)`` gives those of one point after the
    other, from ``table.done`` on. Rows of other code than that of now are computed anew. What else is said is for ``growing``, and
    what is raised is said there."""
    identity = {**identity, KIT: of_function(rows)}
    with growing(file, identity, columns, points=points, **settings) as table:
        for found in tqdm(rows(table), initial=table.done, total=points, unit=unit, disable=not progress):
            table.append(found)
    return finished(file, columns)[1]


def finished(file: Path, columns: Mapping[str, type]) -> tuple[dict, pd.DataFrame]:
    """What a table is about, and its rows, numbers to the last bit.

    Raises ``FileNotFoundError`` for none of that name, ``RunProblem`` while rows are missing.
    """
    about = _about(file)
    if about is None:
        raise FileNotFoundError(f"There is no {file.name} in {file.parent}.")
    if not is_finished(file):
        rows = max(0, _lines(file) - 1)
        raise RunProblem(
            f"{file} has {rows} of {about['rows']} rows; give the call that began it again, and it continues."
        )
    return about, pd.read_csv(file, dtype=str, keep_default_na=False).astype(dict(columns))


def is_finished(file: Path) -> bool:
    """Whether all rows of a table are there."""
    about = _about(file)
    return about is not None and _lines(file) > about["rows"]


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")  # a line that a kill cut short has none


def _about(file: Path) -> dict | None:
    beside = file.with_suffix(".json")
    return read_json(beside) if beside.exists() else None


def _differing(known: dict, wanted: dict) -> dict[str, tuple]:
    """{name: (what was, what is wanted)} where these differ, also in the order of what they name: rows follow it."""
    both = {key: (known.get(key), wanted.get(key)) for key in sorted(known.keys() | wanted.keys())}
    return {key: (a, b) for key, (a, b) in both.items() if a != b or (isinstance(a, dict) and [*a] != [*b])}


def _difference(file: Path, differ: Mapping[str, tuple]) -> str:
    if [*differ] == [KIT]:
        return f"{file} was computed by another version of the code: computed anew."
    key, (was, wanted) = next((key, both) for key, both in differ.items() if key != KIT)
    return f"{file} was of {key} {was!r}, this call is of {wanted!r}: computed anew."

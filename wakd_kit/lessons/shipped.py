"""Curves and windows of two of the lessons' runs as a small table of text: for lesson 04, which runs no network, and for its page.

tables()               {run: its curves and the accuracy of each of its windows}
write_page("w.html")   a page that asks which window one would pick, and then shows what each is worth; it runs in a browser alone

``python -m wakd_kit.lessons.shipped`` writes the table again from the runs on this machine.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..averaging import Curves, swad, wakd
from ..averaging.extent import plain_window
from ..files import path_of, read_json, write_text

TABLE = Path(__file__).with_name("windows.json")
PAGE = Path(__file__).with_name("windows.html")


def tables() -> dict[str, dict]:
    """{"CE": {...}, "KD": {...}}: ``curves`` (a ``Curves``), ``windows`` {(begin, end): (source, target accuracy)}, ``last`` (two accuracies)
    and ``images`` (of source validation, of the target)."""
    found = {}
    for name, told in read_json(TABLE).items():
        curves = Curves(told["iterates"], **{key: told[key] for key in ("val_loss", "val_accuracy", "train_loss")})
        windows = {(begin, end): (source, target) for begin, end, source, target in told["windows"]}
        found[name] = {"curves": curves, "windows": windows, "last": told["last"], "images": told["images"]}
    return found


def nearest(windows: dict, begin: int, end: int) -> tuple[int, int]:
    """The window of a table that is nearest to this one."""
    return min(windows, key=lambda window: abs(window[0] - begin) + abs(window[1] - end))


def picks(name: str) -> dict[str, tuple[int, int]]:
    """What strategies pick on one of the runs, as the nearest window of its table; one that picks no window is left out."""
    told = tables()[name]
    curves, windows = told["curves"], told["windows"]
    found = {"all of it": (0, curves.steps)}
    for label, strategy, settings in (("WAKD, last 40 %", wakd, {"begin": 0.6}), ("SWAD, loss valley", swad, {})):
        try:
            window = plain_window(curves, strategy(curves, **settings))
        except ValueError:
            continue
        found |= {label: window} if window else {}
    found = {label: nearest(windows, *window) for label, window in found.items()}
    return found | {"best on source validation": max(windows, key=lambda w: windows[w][0])}


def write_page(file: str | Path) -> Path:
    """Write the page of lesson 04: curves, two sliders, and what each window is worth once one was chosen. Returns the file."""
    told = {}
    for name, one in read_json(TABLE).items():
        ends = np.cumsum(one["iterates"]).tolist()
        told[name] = {**one, "ends": ends, "picks": {label: list(window) for label, window in picks(name).items()}}
    data = json.dumps(told, allow_nan=False).replace("<", "\\u003c")
    write_text(path_of(file), PAGE.read_text(encoding="utf-8").replace("/* data */", data))
    return path_of(file)


def write_table() -> None:
    """Write the table from the runs of this machine."""
    from .recordings import windows

    table = {}
    for name in ("CE", "KD"):
        run = windows(name)
        curves, split, scores = run.source_curves, run.split, run.scores
        last = scores[scores["strategy"] == "last"]
        rows = run.window_map[["begin", "end", "val_accuracy", "oracle_target_accuracy"]]
        table[name] = {
            "iterates": curves.iterates.tolist(),
            **{key: np.round(getattr(curves, key), 4).tolist() for key in ("train_loss", "val_loss", "val_accuracy")},
            "windows": [[int(b), int(e), round(s, 4), round(t, 4)] for b, e, s, t in rows.itertuples(index=False)],
            "last": [round(float(last[last["role"] == role]["accuracy"].mean()), 4) for role in ("source", "target")],
            "images": [sum(map(len, split.val.values())), len(split.target_for_testing_only)],
        }
    lines = (f'"{name}": {json.dumps(one)}' for name, one in table.items())
    write_text(TABLE, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write_table()

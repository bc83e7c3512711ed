"""What no test runs whole, benchmarks and scripts of reports and of the documentation: the names that they use are there."""

import ast
import contextlib
import json
import operator
import os
import pkgutil
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

import wakd_kit as wk

ROOT = Path(__file__).parent.parent
SCRIPTS = [file for folder in ("benchmarks", "reports", "docs/tools") for file in sorted((ROOT / folder).glob("*.py"))]


def strings(code: ast.AST) -> Iterator[str]:
    """All strings, with (0) for what is formatted into one."""
    for node in ast.walk(code):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "(0)" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def there(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def unknown(code: ast.AST) -> Iterator[str]:
    """What code uses of the package that is not there: imports, attributes of what it imports, both in strings of code, and python -m."""
    imported = {}
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    imported = {name: target for name, target in imported.items() if target.split(".")[0] == "wakd_kit"}
    yield from (target for target in imported.values() if not there(target))
    for node in ast.walk(code):
        name, _, rest = ast.unparse(node).partition(".") if isinstance(node, ast.Attribute) else ("", "", "")
        if name in imported and re.fullmatch(r"[\w.]+", rest) and there(imported[name]):
            try:
                operator.attrgetter(rest)(pkgutil.resolve_name(imported[name]))
            except AttributeError:
                yield f"{name}.{rest}"
    for text in strings(code):
        if re.fullmatch(r"wakd_kit(\.\w+)+(:\w+)?", text):
            yield from [text] * (not there(text))
        elif "wakd_kit" in text:
            with contextlib.suppress(SyntaxError):
                yield from unknown(ast.parse(text))


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.stem)
def test_every_name_of_the_package_that_a_script_uses_is_there(file):
    assert list(unknown(ast.parse(file.read_text(encoding="utf-8")))) == []


def test_names_that_are_gone_are_seen():
    code = """
import wakd_kit as wk
from wakd_kit import evaluation, report
from wakd_kit.runs import train as training
wk.train, wk.averaging.wakd(curves).sum(), wk.run.curves_from, evaluation.sweep, training.nothing.at_all
["-m", "wakd_kit.jobs"], "wakd_kit.study.jobs:main", f"import os\\nfrom wakd_kit import notebook\\nopen({file!r})"
"""
    gone = ["wakd_kit.report", "wk.run.curves_from", "training.nothing.at_all", "wakd_kit.jobs", "wakd_kit.notebook"]
    assert sorted({*unknown(ast.parse(code))}) == sorted([*gone, "wk.run", "training.nothing"])


def test_kept_scores_are_of_the_recording_that_is_there(bare, tmp_path, monkeypatch):
    scored = runpy.run_path(str(ROOT / "benchmarks" / "own_average.py"))["scored"]
    place, asked = shutil.copytree(bare, tmp_path / "runs" / "study" / "west-s0" / "CE"), []

    def score(run, choices):
        asked.append(list(choices))
        rows = [
            {"strategy": s, "role": r, "accuracy": 0.5, "nll": 1.0, "n": 9}
            for s in choices
            for r in ("source", "target")
        ]
        return pd.DataFrame(rows)

    monkeypatch.setitem(scored.__globals__, "score_choices", score)
    monkeypatch.setitem(scored.__globals__, "pool", lambda curves: {"from 60 %": None})
    for _ in range(2):
        assert scored(place, tmp_path / "kept", ["from 60 %"]).target.tolist() == [0.5]
    assert asked == [["from 60 %"]]
    settings = json.loads((place / "settings.json").read_text())
    (place / "settings.json").write_text(json.dumps({**settings, "seed": settings["seed"] + 1}))
    scored(place, tmp_path / "kept", ["from 60 %"])
    assert len(asked) == 2


def test_the_cost_of_every_objective_that_two_resnets_allow_can_be_measured():
    of = runpy.run_path(str(ROOT / "benchmarks" / "objectives.py"))
    student, teacher, side = of["CASES"]["resnet10t_w16 at 32 px"]
    teacher, refused = wk.build_model(teacher, of["CLASSES"], seed=1).eval(), set()
    for name in of["objectives"]:
        try:
            of["stepper"]({"name": name}, student, teacher, torch.rand(4, 3, side, side), torch.arange(4))()
        except ValueError:
            refused.add(name)
    assert refused == {"qkv_relations", "a2d", "vl2v"}  # attention, and a file


# with what each of the others starts and soon ends, on a small recording where it records one
LEAST = {"profiles": "--seeds 1", "predict": "--models resnet10t_w16 --sizes 32 --turns 1"}
LEAST |= {"landscape": "--size 2 --repeat 1", "window_map": "", "teacher_cache": "--students 1 --steps 2"}
LONG = {
    "engine": "--jobs 16 --noop 1",
    "precision": "--seconds 0.01",
    "quickstart": "--forked",
    "recipe": "--target ink --roles CE --rates 0.003 --lengths 40 --segment 4 --out {out}",
    "recording": "--rounds 1",
    "storage": "--steps 24 --segment-length 1 --most 20",
    "strategies": "",
    "streaming": "--images 64 --steps 3",
    "training": "--segments 1 --device cpu",
}
SKIP = pytest.mark.skipif("WAKD_SLOW" not in os.environ, reason="long form; set WAKD_SLOW=1")


@pytest.mark.parametrize("name", [*LEAST, *(pytest.param(name, marks=SKIP) for name in LONG)])
def test_a_benchmark_runs_to_its_end(name, copied, tmp_path, monkeypatch):
    main = runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))["main"]
    monkeypatch.setattr(sys, "argv", [name, *(LEAST | LONG)[name].format(out=tmp_path).split()])
    if name in ("landscape", "window_map"):
        monkeypatch.setitem(main.__globals__, "record", lambda *_: copied)
    main()


def test_every_benchmark_is_run_by_a_test():
    elsewhere = {"null_tables", "objectives", "own_average", "explorer"}  # the last takes a browser, and is run by hand
    assert {file.stem for file in (ROOT / "benchmarks").glob("*.py")} == {*LEAST, *LONG, *elsewhere}

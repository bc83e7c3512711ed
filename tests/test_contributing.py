"""What CONTRIBUTING.md shows is done: each diff is applied to a copy of the project, and the tests it names are run there."""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SECTIONS = {
    heading: text
    for heading, text in re.findall(
        r"^## Add (.+?)\n(.*?)(?=^## |\Z)", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S
    )
}


def shown(section: str) -> tuple[str, list[str]]:
    """The diff of a section, and the words of the pytest command below it."""
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", SECTIONS[section], re.M | re.S)
    (command,) = re.findall(r"^```\n\.venv/bin/python -m pytest (.*?)\n```$", SECTIONS[section], re.M | re.S)
    return diff, command.split()


def copied(to: Path) -> Path:
    """The project without what is recorded, rendered or installed."""
    to.mkdir()
    for name in ("wakd_kit", "tests", "notebooks", "docs", "reports"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", *OUTPUTS))
    for file in ROOT.iterdir():
        if file.is_file() and file.name != ".git":
            shutil.copy(file, to)
    return to


OUTPUTS = [folder.name for folder in (ROOT / "reports").iterdir() if folder.is_dir()]


def apply(diff: str, to: Path) -> None:
    done = subprocess.run(["git", "apply", "-"], input=diff, cwd=to, text=True, capture_output=True)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("section", SECTIONS)
def test_a_diff_is_short_and_applies_by_itself(section, tmp_path):
    diff, words = shown(section)
    assert diff.count("\n") <= 30
    assert all((ROOT / word).exists() or f"+++ b/{word}" in diff for word in words if word.endswith(".py"))
    folder = copied(tmp_path / "wakd_kit")
    apply(diff, folder)


@pytest.mark.slow
def test_what_is_added_passes_the_tests_that_are_named_and_is_in_the_style(tmp_path):
    folder, asked = copied(tmp_path / "wakd_kit"), {}
    for section in SECTIONS:
        diff, words = shown(section)
        apply(diff, folder)
        files = [word for word in words if word.endswith(".py")]
        # a file without -k is asked for whole
        asked |= {file: words[words.index("-k") + 1] if "-k" in words else Path(file).stem for file in files}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    python = partial(
        subprocess.run, cwd=folder, env=outside | {"PYTHONPATH": str(folder)}, text=True, capture_output=True
    )
    # all at once, since torch takes seconds to import
    chosen = ["-k", " or ".join(asked.values()), "--junit-xml=said.xml", "-p", "no:xdist"]
    done = python([sys.executable, "-m", "pytest", *asked, *chosen])
    cases = [*xml.parse(folder / "said.xml").iter("testcase")]
    for file, name in asked.items():
        module = file.removesuffix(".py").replace("/", ".")
        assert any(case.get("classname") == module and name in f"{module}{case.get('name')}" for case in cases), name
    assert not done.returncode, done.stdout
    for command in (["check"], ["format", "--check"]):
        done = python([sys.executable, "-m", "ruff", *command, "."])
        assert not done.returncode, done.stdout


def test_the_five_things_are_there():
    assert list(SECTIONS) == ["a strategy", "an objective", "a data set", "a figure", "a notebook"]

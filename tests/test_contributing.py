"""What CONTRIBUTING.md shows is done: each diff is applied to a copy of the project, and the tests it names are run there."""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml
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


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """Everything added to one copy, and what its tests said: {name of a test: whether it passed}."""
    folder = copied(tmp_path_factory.mktemp("added") / "wakd_kit")
    files, chosen = [], []
    for section in SECTIONS:
        diff, words = shown(section)
        apply(diff, folder)
        files += [word for word in words if word.endswith(".py")]
        # a file without -k is asked for whole
        chosen += [words[words.index("-k") + 1]] if "-k" in words else [Path(files[-1]).stem]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *files,
        "-k",
        " or ".join(chosen),
        "--junit-xml=said.xml",
        "-p",
        "no:xdist",
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    cases = xml.parse(folder / "said.xml").iter("testcase")
    passed = {f"{case.get('classname')}::{case.get('name')}": not list(case) for case in cases}
    return folder, passed, done.stdout


@pytest.mark.parametrize("section", SECTIONS)
def test_a_diff_is_short_and_applies_by_itself(section, tmp_path):
    diff, words = shown(section)
    assert diff.count("\n") <= 30
    assert all((ROOT / word).exists() or f"+++ b/{word}" in diff for word in words if word.endswith(".py"))
    folder = copied(tmp_path / "wakd_kit")
    apply(diff, folder)


@pytest.mark.parametrize("section", SECTIONS)
def test_what_is_added_passes_the_tests_that_are_named(section, added):
    _, passed, said = added
    _, words = shown(section)
    for file in (word for word in words if word.endswith(".py")):
        module, chosen = (
            file.removesuffix(".py").replace("/", "."),
            words[words.index("-k") + 1] if "-k" in words else "",
        )
        mine = {name: fine for name, fine in passed.items() if name.startswith(f"{module}::") and chosen in name}
        assert mine and all(mine.values()), said


def test_what_is_added_is_in_the_style(added):
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=added[0], text=True, capture_output=True
        )
        assert not done.returncode, done.stdout


def test_the_five_things_are_there():
    assert list(SECTIONS) == ["a strategy", "an objective", "a data set", "a figure", "a notebook"]

"""What the explorer looks at, made once: two small runs with images of their own, and the finished run with a window map."""

import shutil

import pytest

import wakd_kit as wk

from ..conftest import once
from ..lab import two_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The runs east/student, which has a window map, and north/student, in a folder of this module's own."""
    made = once(tmp_path_factory, "two runs", two_runs) / "runs"
    return shutil.copytree(made, tmp_path_factory.mktemp("explored") / "runs")


@pytest.fixture(scope="session")
def with_map(bare, split, tmp_path_factory):
    """A copy of the finished run with an exact window map and nothing else measured; nobody writes into it."""
    folder = shutil.copytree(bare, tmp_path_factory.mktemp("mapped") / "copied")
    wk.window_map(wk.load_run(folder, split=split), workers=1)
    return folder


@pytest.fixture
def mapped(with_map, split, tmp_path):
    """A run with an exact window map and nothing else measured."""
    return wk.load_run(shutil.copytree(with_map, tmp_path / "copied"), split=split)

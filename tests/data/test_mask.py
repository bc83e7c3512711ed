"""A mask names images by file or by digest, and accuracies are told apart by it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import wakd_kit as wk
from wakd_kit.data.catalog import DataProblem
from wakd_kit.data.mask import digest, parts_of
from wakd_kit.evaluation.predictions import Predicted
from wakd_kit.results import protocol

from ..conftest import once, small_images


@pytest.fixture
def domains(tmp_path_factory):
    return wk.load_domains(f"folder:{once(tmp_path_factory, 'images', small_images)}", size=16)


def mask(folder, *rows: str, head: str = "image,part"):
    file = folder / "mask.csv"
    file.write_text("\n".join([head, *rows]))
    return file


def test_images_are_named_by_file_or_by_digest_wherever_the_folder_lies(domains, tmp_path):
    root = domains.spec.partition(":")[2]
    moved = shutil.copytree(root, tmp_path / "moved")
    by_digest = f"{digest(moved / 'north' / 'b' / '3.png')},out"
    parts = parts_of(domains, mask(tmp_path, "north/a/0.png,in", by_digest))
    files = [f"{label}/{f.name}" for label in "ab" for f in sorted((moved / "north" / label).iterdir())]
    told = dict(zip(files, parts["north"]))
    assert told.pop("a/0.png") == "in" and told.pop("b/3.png") == "out" and set(told.values()) == {""}
    assert set(parts) == {"north", "east", "south"} and not any(parts["east"])


@pytest.mark.parametrize(
    "rows, sentence",
    [
        (["north/a/none.png,in"], "names 'north/a/none.png', which is no file below"),
        (["notes.txt,in"], "names 'notes.txt', which is no image of folder:"),
        (["0123456789ABCDEF,in", "0000000000000000,out"], "names 2 images, and none of them is one of folder:"),
        (["north/a/0.png,in", "north/a/0.png,out"], "puts north/a/0.png into 'in' and into 'out'"),
    ],
)
def test_a_mask_that_does_not_fit_is_a_sentence(domains, tmp_path, rows, sentence):
    Path(domains.spec.partition(":")[2], "notes.txt").write_text("no image")
    with pytest.raises(DataProblem, match=sentence):
        parts_of(domains, mask(tmp_path, *rows))
    with pytest.raises(DataProblem, match="has the columns image and part; got file, part"):
        parts_of(domains, mask(tmp_path, head="file,part"))
    with pytest.raises(DataProblem, match="come from none"):
        parts_of(wk.load_domains("digits"), tmp_path / "mask.csv")
    with pytest.raises(DataProblem, match="no table that can be read"):
        parts_of(domains, tmp_path / "nowhere.csv")


def test_accuracy_apart_by_hand(domains, tmp_path):
    """The first four images of the unseen domain are in, the next four out: three right of one, one of the other."""
    labels = domains["north"].labels
    classes = np.where(np.isin(np.arange(len(labels)), [3, 5, 6, 7]), 1 - labels, labels)
    predicted = {"north": Predicted("target", labels, classes, np.ones(len(labels)))}
    predicted["east"] = Predicted("source", labels, classes, np.ones(len(labels)))
    one = SimpleNamespace(run=SimpleNamespace(name="KD"), target="north", seed=0, by_strategy={"last": predicted})
    root = domains.spec.partition(":")[2]
    listed = sorted(parts_of(domains, mask(tmp_path))["north"].tolist())
    assert set(listed) == {""}
    files = [
        f"north/{label}/{name}"
        for label in "ab"
        for name in sorted(p.name for p in (tmp_path / root / "north" / label).iterdir())
    ]
    rows = [f"{file},{'in' if i < 4 else 'out'}" for i, file in enumerate(files[:8])]
    table = protocol.by_part([one], domains, mask(tmp_path, *rows)).set_index("part")
    assert table.loc["in", ["north", "mean", "n", "images"]].tolist() == [75, 75, 1, 4]
    assert table.loc["out", ["north", "images"]].tolist() == [25, 4]
    assert protocol.by_part([], domains, mask(tmp_path, *rows)).empty
    predicted["north"] = Predicted("target", labels, np.full_like(labels, -1), np.full(len(labels), np.nan))
    assert protocol.by_part([one], domains, mask(tmp_path, *rows))["mean"].isna().all(), "it diverged"

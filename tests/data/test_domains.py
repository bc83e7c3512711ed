"""Benchmarks and splits: what is on disk is what is loaded, and an unseen domain stays unseen."""

import io
import os
import re
import shutil
import zipfile
from collections import Counter, namedtuple
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from wakd_kit.data import domains as loading
from wakd_kit.data import folders as module
from wakd_kit.data.catalog import BENCHMARKS
from wakd_kit.data.domains import DataProblem, domains_from_arrays, leave_one_out, load_domains, other_split
from wakd_kit.names import UnknownName

PACS = BENCHMARKS["pacs"]


def colour(domain: int, label: int) -> tuple[int, int, int]:
    return 40 + 60 * domain, 20 + 50 * label, 128


def lay_out(root, domains=("left", "right"), classes=("x", "y"), each=3, side=40, suffix="png"):
    """domain/class/images on disk, each image one colour that tells domain and class."""
    for d, domain in enumerate(domains):
        for c, name in enumerate(classes):
            folder = root / domain / name
            folder.mkdir(parents=True)
            for i in range(each):
                Image.new("RGB", (side, side - 8), colour(d, c)).save(folder / f"{i}.{suffix}")
    return root


def told_apart(root):
    """The same folder with another grey in every image."""
    for i, file in enumerate(sorted(root.rglob("*.png"))):
        Image.fromarray(np.full((32, 40, 3), 7 * i, np.uint8)).save(file)
    return root


# ---- folders of images


def test_folder_gives_each_image_its_domain_and_class(tmp_path):
    found = load_domains(f"folder:{lay_out(tmp_path / 'data')}", size=16)
    assert list(found) == ["left", "right"] and found.classes == ("x", "y")
    for d, domain in enumerate(found.values()):
        assert domain.images.shape == (6, 16, 16, 3) and domain.images.dtype == np.uint8
        assert domain.labels.tolist() == [0, 0, 0, 1, 1, 1]
        for image, label in zip(domain.images, domain.labels):
            np.testing.assert_array_equal(image, np.broadcast_to(colour(d, label), image.shape))


def test_two_sizes_of_one_folder_live_side_by_side(tmp_path):
    root = lay_out(tmp_path / "data")
    for size in (16, 24, 16):
        loaded = load_domains(f"folder:{root}", size=size)
        assert loaded.size == size and loaded["left"].images.shape[1:] == (size, size, 3)
        assert load_domains(loaded.spec, **loaded.options).fingerprint == loaded.fingerprint


def test_images_are_decoded_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    root, decoded = lay_out(tmp_path / "data"), []
    decode = module._decode
    monkeypatch.setattr(module, "_decode", lambda file, out: decoded.append(file) or decode(file, out))
    first = load_domains(f"folder:{root}", size=16)
    assert len(decoded) == 12
    again = load_domains(f"folder:{root}", size=16)
    assert len(decoded) == 12 and again.fingerprint == first.fingerprint
    Image.new("RGB", (40, 40), (1, 2, 3)).save(root / "right" / "y" / "2.png")
    changed = load_domains(f"folder:{root}", size=16)
    assert len(decoded) == 24 and changed["right"].images[5, 0, 0].tolist() == [1, 2, 3]


def test_files_put_in_each_others_place_are_seen_though_size_and_time_are_the_same(tmp_path):
    root = lay_out(tmp_path / "data", suffix="bmp")
    for file in root.rglob("*.bmp"):
        os.utime(file, (1e9, 1e9))
    first = load_domains(f"folder:{root}", size=16)
    (root / "left" / "x").rename(root / "left" / "z")
    (root / "left" / "y").rename(root / "left" / "x")
    (root / "left" / "z").rename(root / "left" / "y")
    again = load_domains(f"folder:{root}", size=16)
    assert again["left"].images[0, 0, 0].tolist() == list(colour(0, 1)) and again.fingerprint != first.fingerprint


@pytest.mark.parametrize(("touched", "reads"), [(False, "content"), (True, "_decode")])
def test_the_second_time_nothing_is_read_and_files_only_touched_are_not_decoded(tmp_path, monkeypatch, touched, reads):
    root = lay_out(tmp_path / "data")
    first = load_domains(f"folder:{root}", size=16)
    for file in root.rglob("*.png") if touched else ():
        os.utime(file, (1e9, 1e9))
    monkeypatch.setattr(module, reads, lambda *_: pytest.fail("again"))
    assert load_domains(f"folder:{root}", size=16).fingerprint == first.fingerprint


@pytest.mark.parametrize("bytes_left", [0, 20, 500])
def test_a_file_of_the_cache_that_was_cut_off_is_made_again(tmp_path, monkeypatch, bytes_left):
    scans = load_digits()
    few = type(scans)(**{**scans, "target": scans.target[::16], "images": scans.images[::16]})
    monkeypatch.setattr("wakd_kit.data.digits.load_digits", lambda: few)
    root, cache = lay_out(tmp_path / "data"), tmp_path / "cache"
    specs = {f"folder:{root}": {"size": 16}, "digits": {}}
    first = {spec: load_domains(spec, cache=cache, **options).fingerprint for spec, options in specs.items()}
    kept = sorted(cache.iterdir())
    for file in kept:
        os.truncate(file, min(bytes_left, file.stat().st_size - 1))
    assert first == {spec: load_domains(spec, cache=cache, **options).fingerprint for spec, options in specs.items()}
    assert sorted(cache.iterdir()) == kept


def test_without_a_place_for_decoded_images_the_setting_is_named(tmp_path, monkeypatch):
    root = lay_out(tmp_path / "data")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        DataProblem, match=r"cannot be kept in .*file/cache: set WAKD_CACHE, or cache=.*Not a directory"
    ):
        load_domains(f"folder:{root}", cache=tmp_path / "file" / "cache")
    monkeypatch.delenv("WAKD_CACHE")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where HOME is not set and nobody knows the user
    for use in (lambda: load_domains(f"folder:{root}"), lambda: load_domains("digits")):
        with pytest.raises(DataProblem, match=r"set WAKD_CACHE, or cache=, .*\(There is no home folder here"):
            use()
    monkeypatch.setattr(
        module, "write_with", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(DataProblem, match=r"set WAKD_CACHE, or cache=.*\(Permission denied\)\.$"):
        load_domains(f"folder:{root}", cache=tmp_path / "cache", size=16)


def test_what_killed_writers_left_in_the_cache_goes_after_a_day(tmp_path, monkeypatch):
    root, cache = lay_out(tmp_path / "data"), tmp_path / "cache"
    cache.mkdir()
    old, new = (cache / f"folder-16px.npy.0123456{i}.part" for i in range(2))
    unpacked = cache / "images-1.01234567.part"
    (unpacked / "class").mkdir(parents=True)
    for file in (old, new):
        file.write_text("x")
    for left in (old, unpacked):
        os.utime(left, (1, 1))
    load_domains(f"folder:{root}", cache=cache, size=16)
    assert sorted(cache.glob("*.part")) == [new]


def test_writing_into_loaded_images_leaves_the_cache_alone(tmp_path):
    root = lay_out(tmp_path / "data")
    load_domains(f"folder:{root}", size=16)["left"].images[:] = 0
    assert load_domains(f"folder:{root}", size=16)["left"].images.max() > 0


def test_files_that_are_no_images_of_a_class_are_left_out(tmp_path):
    root = lay_out(tmp_path / "data")
    (root / "left" / "x" / "notes.txt").write_text("a stray file")
    (root / "left" / "x" / ".hidden.png").write_bytes(b"")
    (root / "README.md").write_text("beside the domains")
    (root / "__MACOSX" / "x").mkdir(parents=True)
    found = load_domains(f"folder:{root}", size=16)
    assert list(found) == ["left", "right"] and len(found["left"]) == 6


def test_images_of_other_modes_are_loaded_as_eight_bit_rgb(tmp_path):
    root = tmp_path / "data"
    grey16 = Image.fromarray(np.full((20, 20), 200 * 257, np.uint16))
    modes = {
        "ink.jpg": Image.new("CMYK", (20, 20), (0, 255, 255, 0)),
        "grey16.png": grey16,
        "grey16.tif": grey16,
        "grey.png": Image.new("L", (20, 20), 77),
        "glass.png": Image.new("RGBA", (20, 20), (10, 20, 30, 0)),
    }
    for domain in ("a", "b"):
        (root / domain / "x").mkdir(parents=True)
        for name, image in modes.items():
            image.save(root / domain / "x" / name)
    loaded = load_domains(f"folder:{root}", size=16)["a"]
    found = dict(zip(sorted(modes), loaded.images[:, 8, 8].tolist()))
    assert found["grey16.png"] == found["grey16.tif"] == [200] * 3, "Pillow alone would make them white"
    assert found["grey.png"] == [77] * 3 and found["glass.png"] == [10, 20, 30]
    np.testing.assert_allclose(found["ink.jpg"], [255, 0, 0], atol=3)


def test_identical_files_of_one_class_are_never_on_both_sides_of_a_split(tmp_path):
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for domain in ("a", "b"):
        for label in ("x", "y"):
            (root / domain / label).mkdir(parents=True)
            for i in range(10):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(root / domain / label / f"{i}.png")
    plain = load_domains(f"folder:{root}", size=16)
    assert plain["a"].originals.tolist() == list(range(20)), "without duplicates every image is its own"
    for i in range(5):
        shutil.copy(root / "a" / "x" / f"{i}.png", root / "a" / "x" / f"copy{i}.png")
        shutil.copy(root / "a" / "x" / f"{i}.png", root / "b" / "x" / f"copy{i}.png")  # another domain: apart
    shutil.copy(root / "b" / "x" / "0.png", root / "b" / "y" / "other_label.png")
    doubled = load_domains(f"folder:{root}", size=16)
    assert len(set(doubled["a"].originals)) == 20
    assert doubled["b"].originals.tolist() == list(range(26)), "an original has one label"
    for seed in range(8):
        split = leave_one_out(doubled, "b", seed)
        train, val = ({image.tobytes() for image in side["a"].images} for side in (split.train, split.val))
        assert not train & val and len(train | val) == 20


def test_every_missing_class_folder_is_named_at_once(tmp_path):
    root = lay_out(tmp_path / "data", domains=("a", "b", "c"))
    shutil.rmtree(root / "b" / "y")
    for image in (root / "c" / "x").iterdir():
        image.unlink()
    with pytest.raises(DataProblem) as problem:
        load_domains(f"folder:{root}", size=16)
    assert "2 problem(s)" in str(problem.value)
    assert "domain 'b' has no class folder 'y'" in str(problem.value)
    assert "add them, or move the folders of that class" in str(problem.value)
    assert "c/x holds no images" in str(problem.value)


def test_every_unreadable_image_is_named_at_once_and_nothing_is_cached(tmp_path):
    root, cache = lay_out(tmp_path / "data", suffix="jpg", side=64), tmp_path / "cache"
    (root / "left" / "x" / "0.jpg").write_bytes(b"")
    (root / "left" / "y" / "1.jpg").write_text("this is text")
    whole = root / "right" / "y" / "2.jpg"
    Image.effect_noise((64, 64), 80).convert("RGB").save(whole)
    whole.write_bytes(whole.read_bytes()[:-200])
    os.symlink(root / "nowhere.jpg", root / "right" / "x" / "link.jpg")
    with pytest.raises(DataProblem) as problem:
        load_domains(f"folder:{root}", size=16, cache=cache)
    report = str(problem.value)
    assert "4 problem(s)" in report and str(root / "left") not in report
    assert "left/x/0.jpg: zero bytes" in report
    assert "left/y/1.jpg: not an image" in report
    assert "right/y/2.jpg: image file is truncated" in report
    assert "right/x/link.jpg: No such file or directory\n" in report
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: (p / "domain").mkdir(parents=True)])
def test_a_folder_that_is_no_benchmark_is_told_its_layout(tmp_path, make):
    make(tmp_path / "data")
    with pytest.raises(DataProblem, match="should hold domain/class/images"):
        load_domains(f"folder:{tmp_path / 'data'}")


# ---- classes without domains


def class_folders(root):
    return lay_out(root / "all", domains=("left",)) / "left"


def test_a_folder_of_classes_is_one_domain(tmp_path):
    found = load_domains(f"images:{class_folders(tmp_path)}", size=16)
    assert list(found) == ["images"] and found.classes == ("x", "y")
    assert found["images"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert load_domains(found.spec, **found.options).fingerprint == found.fingerprint


@pytest.mark.parametrize("kind", ["tar", "gztar", "zip"])
def test_an_archive_of_classes_is_what_its_folder_is(tmp_path, monkeypatch, kind):
    folder = class_folders(tmp_path)
    (folder / "x" / "notes.txt").write_text("no image")
    (folder / "x" / ".hidden.png").write_bytes(b"no image")
    archive = shutil.make_archive(
        tmp_path / "some", kind, tmp_path / "all"
    )  # left/x/0.png: above the class may be more
    first = load_domains(f"images:{archive}", size=16)
    assert first.fingerprint == load_domains(f"images:{folder}", size=16).fingerprint
    assert first.spec == f"images:{archive}"
    monkeypatch.setattr("wakd_kit.data.unpack.unpack_classes", lambda *_: pytest.fail("unpacked a second time"))
    assert load_domains(first.spec, **first.options).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: None, "is not there; it should be a folder, a tar or a zip of class/images"),
        (lambda p: p.mkdir(), "has no class folders; it should be"),
        (lambda p: p.write_bytes(b"nothing"), "is no archive that can be read"),
        (
            lambda p: shutil.move(shutil.make_archive(str(p), "tar", p.parent, "none"), p),
            "holds no images in class folders",
        ),
    ],
)
def test_what_holds_no_classes_is_told_the_layout(tmp_path, make, sentence):
    (tmp_path / "none").mkdir()
    make(tmp_path / "data")
    with pytest.raises(DataProblem, match=sentence):
        load_domains(f"images:{tmp_path / 'data'}", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def windows_zip(file, *, method=0, flag=0):
    """A zip as Windows makes them, with \\ between folders; ``method`` and ``flag`` are written into its headers."""
    with zipfile.ZipFile(file, "w") as out:
        for name in ("cat", "dog"):
            for i in range(2):
                data = io.BytesIO()
                Image.new("RGB", (20, 20), (50 * i, 0, 0)).save(data, "PNG")
                out.writestr(zipfile.ZipInfo(f"root\\{name}\\{i}.png"), data.getvalue())
    data = bytearray(file.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + flags] |= flag
            data[at + flags + 2] = method
    file.write_bytes(data)
    return file


def test_a_zip_with_backslashes_is_read_and_one_that_python_cannot_unpack_is_a_sentence(tmp_path):
    found = load_domains(f"images:{windows_zip(tmp_path / 'windows.zip')}", size=16)
    assert found.classes == ("cat", "dog") and len(found["images"]) == 4
    for settings, why in (({"method": 9}, "compression"), ({"flag": 1}, "password required")):
        archive = windows_zip(tmp_path / f"{why}.zip", **settings)
        with pytest.raises(
            DataProblem, match=f"cannot be unpacked \\(.*{why}.*; unpack it yourself and give the folder"
        ):
            load_domains(f"images:{archive}", cache=tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())


def test_a_full_disk_is_noticed_before_decoding(tmp_path, monkeypatch):
    root = lay_out(tmp_path / "data")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage(10, 9, 1))
    with pytest.raises(DataProblem, match="smaller size=, or cache="):
        load_domains(f"folder:{root}", size=16)


# ---- PACS


def test_pacs_wants_its_domains_classes_and_counts(tmp_path, monkeypatch):
    root = lay_out(tmp_path / "PACS", domains=("art_painting", "cartoon", "photos"), classes=PACS.classes, each=1)
    (root / "cartoon" / "horse").rename(root / "cartoon" / "mare")
    with pytest.raises(DataProblem) as problem:
        load_domains(f"pacs:{root}", size=16)
    for line in (
        "domain 'photo' is missing",
        "domain 'sketch' is missing",
        "Unknown domain folder 'photos'. Did you mean 'photo'?",
        "domain 'cartoon' has no class folder 'horse'",
        "cartoon/mare is no class of this benchmark",
        "domain 'art_painting' has 7 images, the published benchmark has 2048",
    ):
        assert line in str(problem.value)


@pytest.fixture
def no_data_folder(monkeypatch, tmp_path):
    """Neither WAKD_DATA nor a config file, whatever the user has."""
    monkeypatch.delenv("WAKD_DATA", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_published_benchmark_is_found_by_its_name(name, tmp_path, monkeypatch, no_data_folder):
    real = BENCHMARKS[name]
    small = replace(real, classes=real.classes[:2], counts=dict.fromkeys(real.counts, 6))
    monkeypatch.setitem(BENCHMARKS, name, small)
    with pytest.raises(DataProblem, match=f"Where is {real.title}.*set WAKD_DATA.*wakd data get {name}"):
        load_domains(name, size=16)
    monkeypatch.setenv("WAKD_DATA", str(tmp_path))
    with pytest.raises(DataProblem, match=f"has no folder {real.folders[0]}/"):
        load_domains(name, size=16)
    for folder in real.folders:  # ours, and the one of DomainBed's download script
        root = lay_out(tmp_path / folder, domains=real.counts, classes=small.classes, each=3)
        loaded = load_domains(name, size=16)
        assert loaded.spec == f"{name}:{root}" and loaded.classes == small.classes
        assert load_domains(f"{name}:{root}", size=16).fingerprint == loaded.fingerprint
        shutil.rmtree(root)


def test_both_forms_of_terra_are_accepted_and_no_third(tmp_path, monkeypatch):
    real = BENCHMARKS["terra"]
    small = replace(real, counts=dict.fromkeys(real.counts, 20), other_counts=(dict.fromkeys(real.counts, 30),))
    monkeypatch.setitem(BENCHMARKS, "terra", small)
    for each in (2, 3):
        root = lay_out(tmp_path / str(each), domains=real.counts, classes=real.classes, each=each)
        assert len(load_domains(f"terra:{root}", size=16)["location_38"]) == 10 * each
    (root / "location_38" / "cat" / "1.png").unlink()
    with pytest.raises(
        DataProblem, match=r"1 problem.*\n.*'location_38' has 29 images, the published benchmark has 30"
    ):
        load_domains(f"terra:{root}", size=16)


def test_the_real_pacs_is_complete(pacs_path, tmp_path, monkeypatch):
    """All of its files, and the images of every fifth; each of them is opened by ``check_data`` (test_check.py)."""
    files = {folder: sorted(folder.iterdir()) for folder in sorted(pacs_path.glob("*/*")) if folder.is_dir()}
    counts, fewer = Counter(), Counter()
    for folder, images in files.items():
        counts[folder.parent.name] += len(images)
        fewer[folder.parent.name] += len(images[::5])
        part = tmp_path / "PACS" / folder.relative_to(pacs_path)
        part.mkdir(parents=True)
        for image in images[::5]:
            (part / image.name).symlink_to(image)
    assert counts == PACS.counts and counts.total() == 9991
    monkeypatch.setitem(BENCHMARKS, "pacs", replace(PACS, counts=dict(fewer)))
    pacs = load_domains(f"pacs:{tmp_path / 'PACS'}", size=32)
    assert {name: len(examples) for name, examples in pacs.items()} == fewer and pacs.classes == PACS.classes
    assert all(set(examples.labels) == set(range(7)) for examples in pacs.values())
    assert all(examples.images.std() > 10 for examples in pacs.values())


# ---- names and options


def test_an_unknown_benchmark_is_told_the_nearest():
    with pytest.raises(UnknownName) as problem:
        load_domains("digts")
    assert str(problem.value) == (
        "Unknown benchmark 'digts'. Did you mean 'digits'? "
        "Known: celeba, coloured_digits, corrupted, digits, domainnet, folder, images, officehome, pacs, spawrious_o2o_easy, spawrious_o2o_hard, spawrious_o2o_medium, terra, vlcs. One of your own: --plugin FILE.py, or plugins: in "
        "a study."
    )


@pytest.mark.parametrize(
    ("spec", "options", "sentence"),
    [
        ("digits", {"sed": 1}, "Unknown option of digits 'sed'. Did you mean 'seed'?"),
        ("digits", {"size": 64}, "rendered at 32 px; got size=64"),
        ("digits:here", {}, "takes no path"),
        ("folder:x", {"size": 4}, "8 to 1024; got 4"),
        ("folder:x", {"size": "64"}, "a whole number from 8 to 1024; got '64'"),
        ("folder", {}, "folder: which folder? Write folder:PATH"),
    ],
)
def test_options_that_do_not_fit_are_a_sentence(spec, options, sentence):
    with pytest.raises(ValueError) as problem:
        load_domains(spec, **options)
    assert sentence in str(problem.value)


def test_digits_come_from_the_cache_the_second_time(tmp_path, monkeypatch):
    first = load_domains("digits", cache=tmp_path)
    monkeypatch.setattr("wakd_kit.data.digits.render_digits", lambda seed: pytest.fail("rendered again"))
    again = load_domains("digits", cache=tmp_path)
    assert again.fingerprint == first.fingerprint and list(again) == ["ink", "photo", "sketch", "neon"]
    assert again.views == "digits", "a digit must not be flipped"


def test_an_unknown_domain_is_told_the_nearest(domains):
    with pytest.raises(KeyError, match="Did you mean 'north'") as problem:
        domains["nort"]
    assert not str(problem.value).startswith('"')
    assert "nort" not in domains and domains.get("nort") is None


def test_what_is_printed_of_a_benchmark_is_one_line(domains, split):
    assert repr(domains) == "Domains(in memory: north 80, east 80, south 80, west 80; 4 classes, 16 px)"
    assert repr(split).startswith("Split(target west, seed 0; train + validation: north 64 + 16,")
    assert repr(domains["north"]) == "Examples(80 images of 16 px)"


# ---- arrays in memory

IMAGES, LABELS = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "at least one domain"),
        ({"a": (IMAGES, LABELS), "b": (IMAGES[:0], LABELS[:0])}, "Domain 'b' has no images; leave it out."),
        ({"a": (IMAGES.astype(float), LABELS)}, "'a' has (4, 8, 8, 3) float64"),
        ({"a": (IMAGES[:, :4], LABELS)}, "'a' has (4, 4, 8, 3) uint8"),
        ({"a": (IMAGES, LABELS + 1)}, "'a' needs one label from 0 to 1"),
        ({"a": (IMAGES, LABELS[:3])}, "'a' needs one label from 0 to 1"),
        ({"a": (IMAGES, LABELS), "b": (IMAGES[:, :4, :4], LABELS)}, "share one image side; got {'a': 8, 'b': 4}"),
        ({"a": (IMAGES, LABELS, [0, 1, 2])}, "one original per image"),
        ({"a": (IMAGES, LABELS, [0, 0, 1, 2])}, "all images of one original in one class"),
    ],
)
def test_arrays_that_do_not_fit_are_a_sentence(arrays, sentence):
    with pytest.raises(ValueError) as problem:
        domains_from_arrays(arrays, ("x", "y"))
    assert sentence in str(problem.value)


@pytest.mark.parametrize(
    ("labels", "classes", "name", "sentence"),
    [
        (LABELS + 0.7, "xy", "a", "The labels of domain 'a' are whole numbers; got float64 such as 0.7."),
        (np.where(LABELS == 0, np.nan, 1), "xy", "a", "are whole numbers; got float64 such as nan"),
        (np.array(list("xyxy")), "xy", "a", "are whole numbers; got <U1 such as x"),
        (LABELS, "xy", 0, "Names of domains and classes are text; got 0, write '0'."),
        (LABELS, [0, 1], "a", "Names of domains and classes are text; got 0, write '0'."),
        (LABELS, "xx", "a", "Classes have a name of their own each; got ('x', 'x')."),
    ],
)
def test_labels_are_whole_numbers_and_names_are_text(labels, classes, name, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        domains_from_arrays({name: (IMAGES, labels)}, classes)
    assert (
        domains_from_arrays({"a": (IMAGES, LABELS.astype(float))}, ("x", "y"))["a"].labels.tolist() == LABELS.tolist()
    )


@pytest.mark.parametrize("target", [[], (), {"photo"}, np.array(["photo"])], ids=str)
def test_a_target_that_names_no_domain_leaves_not_silently_none_out(target):
    with pytest.raises(ValueError, match="target is a domain's name or a list of some, and None leaves none out"):
        leave_one_out(load_domains("digits"), target)


def test_domains_called_0_15_or_na_are_split_like_others():
    arrays = {name: (IMAGES, LABELS) for name in ("0", "15", "NA")}
    domains = domains_from_arrays(arrays, ("x", "y"))
    for target in domains:
        split = leave_one_out(domains, target)
        assert set(split.sources) == {"0", "15", "NA"} - {target} and list(split.recipe["contents"]) == [
            "0",
            "15",
            "NA",
        ]
    with pytest.raises(ValueError, match=r"Unknown target domain 15\. Did you mean '15'\?"):
        leave_one_out(domains, 15)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_fingerprint_tells_data_apart_by_one_value(part):
    arrays = [IMAGES.copy(), LABELS.copy(), np.arange(4)]
    before = domains_from_arrays({"a": arrays}, ("x", "y")).fingerprint
    assert domains_from_arrays({"a": arrays}, ("x", "y")).fingerprint == before
    arrays[part].flat[-1] = {0: 1, 1: 0, 2: 9}[part]
    assert domains_from_arrays({"a": arrays}, ("x", "y")).fingerprint != before


# ---- splits


@pytest.fixture(scope="module")
def renderings():
    """Three domains; every original comes twice; class k has 10, 20 or 25 originals; pixel values tell each image."""

    def domain(first):
        originals = np.repeat(np.arange(55), 2)
        labels = np.repeat([0] * 10 + [1] * 20 + [2] * 25, 2)
        serial = first + np.arange(110)
        images = np.zeros((110, 8, 8, 3), np.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = serial // 200, serial % 200
        shuffle = np.random.default_rng(first).permutation(110)
        return images[shuffle], labels[shuffle], originals[shuffle]

    return domains_from_arrays({name: domain(1000 * i) for i, name in enumerate("pqr")}, ("x", "y", "z"))


def serials(examples):
    return (examples.images[:, 0, 0, 0].astype(int) * 200 + examples.images[:, 0, 0, 1]).tolist()


def test_train_and_validation_share_no_original_and_lose_no_image(renderings):
    split = leave_one_out(renderings, "r")
    assert split.sources == ("p", "q")
    for name in split.sources:
        train, val = split.train[name], split.val[name]
        assert not set(train.originals) & set(val.originals)
        assert sorted(serials(train) + serials(val)) == sorted(serials(renderings[name]))


@pytest.mark.parametrize("fraction", [0.2, 0.33])
def test_split_is_stratified_by_class_within_one_original(renderings, fraction):
    split = leave_one_out(renderings, "r", validation=fraction)
    for name in split.sources:
        held_out = np.bincount(split.val[name].labels, minlength=3) / 2
        assert np.abs(held_out - fraction * np.array([10, 20, 25])).max() <= 1
        if fraction == 0.2:
            assert held_out.tolist() == [2, 4, 5], "80/20 is exact where it can be"


def test_images_keep_their_labels_through_a_split(renderings):
    labels = {s: label for e in renderings.values() for s, label in zip(serials(e), e.labels)}
    split = leave_one_out(renderings, "p", seed=3)
    for examples in [*split.train.values(), *split.val.values()]:
        assert [labels[s] for s in serials(examples)] == examples.labels.tolist()


def test_a_source_domain_is_split_the_same_whichever_domain_is_left_out(renderings):
    p, r = leave_one_out(renderings, "p", seed=5), leave_one_out(renderings, "r", seed=5)
    assert serials(p.train["q"]) == serials(r.train["q"]) and serials(p.val["q"]) == serials(r.val["q"])


def test_split_is_a_function_of_its_seed(renderings):
    one, again, other = (leave_one_out(renderings, "r", seed=seed) for seed in (1, 1, 2))
    assert serials(one.val["p"]) == serials(again.val["p"]) != serials(other.val["p"])
    assert set(one.val["p"].originals) != set(one.val["q"].originals), "domains are drawn apart"


def test_the_target_is_reached_under_its_one_name_only(renderings):
    split = leave_one_out(renderings, "q")
    unseen = set(serials(split.target_for_testing_only))
    assert len(unseen) == 110
    for examples in [*split.train.values(), *split.val.values()]:
        assert not unseen & set(serials(examples))
    assert "q" not in split.train and "q" not in split.val


def test_no_domain_need_be_left_out(renderings):
    split = leave_one_out(renderings, None, seed=4)
    assert set(split.sources) == {"p", "q", "r"} and split.recipe["target"] is None
    assert serials(split.val["p"]) == serials(leave_one_out(renderings, "q", seed=4).val["p"])
    with pytest.raises(ValueError, match="No domain was left out"):
        len(split.target_for_testing_only)


def test_recipe_rebuilds_the_split(renderings):
    split = leave_one_out(renderings, "q", seed=4, validation=0.3)
    recipe = split.recipe
    again = leave_one_out(renderings, recipe["target"], recipe["seed"], validation=recipe["validation"])
    assert serials(again.val["p"]) == serials(split.val["p"]) and again.recipe == recipe


def test_a_split_with_fewer_sources_says_so_and_is_another_split(renderings):
    split = leave_one_out(renderings, "q", seed=4)
    fewer = split.only("r")
    assert fewer.sources == ("r",) and serials(fewer.train["r"]) == serials(split.train["r"])
    assert fewer.recipe == {**split.recipe, "sources": ["r"]} and split.only("r", "p").recipe == split.recipe
    assert other_split(split.recipe, fewer.recipe) == "sources"
    assert fewer.target_for_testing_only is split.target_for_testing_only
    assert split.only(2).recipe == fewer.recipe == leave_one_out(renderings, "q", seed=4, only=["r"]).recipe
    assert split.only(1, "r").recipe == split.recipe and leave_one_out(renderings, "p", seed=4, only=[1]).sources == (
        "q",
    )
    with pytest.raises(ValueError, match=r"There is no source 3: they are 1 to 2, p, r\."):
        split.only(3)
    with pytest.raises(ValueError, match=r"Unknown source domain 'q'\. .*Known: p, r"):
        split.only("q")
    with pytest.raises(ValueError, match="at least one source domain; name some of p, r"):
        split.only()


def test_recipes_are_compared_by_content_and_what_an_older_one_does_not_tell_is_no_difference(tmp_path, renderings):
    told_apart(lay_out(tmp_path / "here"))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    here, there = (leave_one_out(load_domains(f"folder:{tmp_path / p}", size=16), "left") for p in ("here", "there"))
    assert here.recipe != there.recipe and other_split(here.recipe, there.recipe) is None
    older = {k: v for k, v in here.recipe.items() if k not in ("kind", "contents", "sources")}
    assert other_split(older, there.recipe) is None
    for key, other in (("seed", 1), ("target", "right"), ("fingerprint", "0"), ("validation", 0.5)):
        assert other_split({**older, key: other}, there.recipe) == key
        assert other_split({**older, key: other}, there.recipe, aside=[key]) is None
    assert other_split(older, there.whole().recipe) == "whole"
    assert other_split(older, there.whole().recipe, aside=["whole"]) is None


def test_contents_tell_images_apart_and_nothing_else(tmp_path, monkeypatch, renderings):
    root = told_apart(lay_out(tmp_path / "data"))
    first = load_domains(f"folder:{root}", size=16)
    assert first.kind == "folder" and len(set(first.contents.values())) == 2
    monkeypatch.setattr(module, "content", None)  # no file is read again for it
    assert load_domains(f"folder:{root}", size=16).contents == first.contents
    monkeypatch.undo()
    assert load_domains(f"folder:{root}", size=24).contents == first.contents
    (root / "left").rename(root / "renamed")
    (root / "renamed" / "x" / "0.png").rename(root / "renamed" / "y" / "another.png")
    moved = load_domains(f"folder:{shutil.move(root, tmp_path / 'moved')}", size=16)
    assert moved.contents == {"renamed": first.contents["left"], "right": first.contents["right"]}
    Image.new("RGB", (40, 32)).save(tmp_path / "moved" / "right" / "x" / "0.png", compress_level=1)
    assert load_domains(f"folder:{tmp_path / 'moved'}", size=16).contents["right"] != first.contents["right"]

    assert renderings.kind == "" and set(renderings.contents) == set(renderings)
    images, labels, originals = (getattr(renderings["p"], part) for part in ("images", "labels", "originals"))
    again = domains_from_arrays({"z": (images[::-1], labels[::-1], originals[::-1])}, renderings.classes)
    assert again.contents["z"] == renderings.contents["p"]


def test_splits_that_cannot_be_made_are_a_sentence(renderings):
    with pytest.raises(ValueError, match=r"Unknown target domain 's'\. .*Known: p, q, r"):
        leave_one_out(renderings, "s")
    for seed in (-1, 0.5, "0"):
        with pytest.raises(ValueError, match=f"seed of a split is a whole number >= 0; got {seed!r}"):
            leave_one_out(renderings, "p", seed)
    with pytest.raises(ValueError, match=r"between 0 and 1; got '0\.2'"):
        leave_one_out(renderings, "p", validation="0.2")
    with pytest.raises(ValueError, match="between 0 and 1; got 1"):
        leave_one_out(renderings, "p", validation=1)
    lonely = domains_from_arrays({"a": (IMAGES, LABELS), "b": (IMAGES[:3], LABELS[:3])}, ("x", "y"))
    with pytest.raises(ValueError, match=r"Class 'y' of domain 'b' has 1 image\(s\); a split needs at least two"):
        leave_one_out(lonely, "a")
    with pytest.raises(ValueError, match="no source domain"):
        leave_one_out(domains_from_arrays({"a": (IMAGES, LABELS)}, ("x", "y")), "a")


# ---- several at once


def test_several_domains_are_left_out_at_once_in_the_order_of_the_benchmark(renderings):
    split, one = leave_one_out(renderings, ["r", "p"], seed=4), leave_one_out(renderings, "p", seed=4)
    assert (split.target, split.targets, split.sources) == ("p+r", ("p", "r"), ("q",))
    assert (
        serials(split.val["q"]) == serials(one.val["q"])
        and leave_one_out(renderings, "r+p", seed=4).recipe == split.recipe
    )
    assert list(split.each_for_testing_only()) == ["p", "r"] and split.each_for_testing_only()["r"] is renderings["r"]
    assert serials(split.target_for_testing_only) == [*serials(renderings["p"]), *serials(renderings["r"])]
    assert split.recipe["targets"] == ["p", "r"] and "targets" not in one.recipe  # as recordings of one have it
    for wrong, sentence in ((["p", "s"], "Unknown target domain 's'"), (["p", "q", "r"], "leaves no source domain")):
        with pytest.raises(ValueError, match=sentence):
            leave_one_out(renderings, wrong)
    named = domains_from_arrays(
        {name: (e.images, e.labels) for name, e in zip(["+9", "8", "7"], renderings.values())}, renderings.classes
    )
    assert leave_one_out(named, "+9").targets == ("+9",)
    with pytest.raises(ValueError, match="joined by"):
        leave_one_out(named, ["+9", "8"])
    arrays = {name: (e.images, e.labels) for name, e in zip(["a", "a+b", "b"], renderings.values())}
    joined = domains_from_arrays({**arrays, "c": arrays["a"]}, renderings.classes)
    with pytest.raises(ValueError, match=r"'a\+b' is a domain itself; rename that domain"):
        leave_one_out(joined, ["a", "b"])
    assert leave_one_out(joined, "a+b").targets == ("a+b",)


@pytest.mark.parametrize(
    "only, sources", [("p", ["p"]), (1, ["p"]), (["p"], ["p"]), ((), ["p", "r"]), (None, ["p", "r"])]
)
def test_a_single_source_need_not_stand_in_a_list(renderings, only, sources):
    assert [*leave_one_out(renderings, "q", only=only).sources] == sources
    if only:
        assert [*leave_one_out(renderings, "q").only(only).sources] == sources
    with pytest.raises(ValueError, match="There is no source 0: they are 1 to 2"):
        leave_one_out(renderings, "q", only=0)


def test_a_benchmark_of_ones_own_is_known_by_its_name(monkeypatch, tmp_path):
    found = {name: (np.full((4, 8, 8, 3), 9, np.uint8), np.array([0, 1, 0, 1])) for name in ("a", "b")}
    own = type(loading.benchmarks)("benchmark")
    monkeypatch.setattr(loading, "benchmarks", own)

    @own.register
    def mine(path, *, cache, size=8):
        return domains_from_arrays(found, ("x", "y"))

    assert load_domains("mine").spec == "mine" and load_domains("mine", size=8).options == {"size": 8}
    assert load_domains(f"mine:{tmp_path}").spec == f"mine:{tmp_path}" and load_domains("mine:x").spec == "mine:x"


@pytest.mark.parametrize(
    "arrays, classes, said",
    [
        ({"a": (np.zeros((4, 8, 8, 3), np.uint8),)}, ("x", "y"), "got tuple of 1"),
        ({"a": np.zeros((4, 8, 8, 3), np.uint8)}, ("x", "y"), "got ndarray"),
        ({"a": (np.zeros((4, 8, 8, 3), np.uint8), np.zeros((4, 1), int))}, ("x", "y"), r"4 of 4 images as \(4, 1\)"),
        ({"a": (np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int))}, 2, "classes are their names"),
    ],
)
def test_arrays_that_are_no_domains_are_a_sentence(arrays, classes, said):
    with pytest.raises(ValueError, match=said):
        domains_from_arrays(arrays, classes)

"""``wakd data check``: every planted fault is named, nothing is named that is not there."""

import os
import shutil
import struct
import unicodedata
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFile, TiffImagePlugin

from wakd_kit.cli import main
from wakd_kit.data.catalog import BENCHMARKS, DataProblem
from wakd_kit.data.check import WHEN_LOADED, balance, check_data
from wakd_kit.data.domains import leave_one_out, load_domains
from wakd_kit.data.folders import as_rgb
from wakd_kit.plots.one_run import write_sheet

PACS = BENCHMARKS["pacs"]
SIGNED = TiffImagePlugin.ImageFileDirectory_v2()
SIGNED[339] = 2


def noise(seed: int, side: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def lay_out(root, domains, classes, each: int = 3):
    """domain/class/0.jpg ..., every image another one."""
    seed = iter(range(10**6))
    for domain in domains:
        for name in classes:
            (root / domain / name).mkdir(parents=True)
            for i in range(each):
                noise(next(seed)).save(root / domain / name / f"{i}.jpg", quality=90)
    return root


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    """A square of greyscale, two pixels in three bytes, which Pillow reads and does not write."""
    pairs, side = values.reshape(-1, 2), int(len(values) ** 0.5)
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs.tolist())
    tags = {256: side, 257: side, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: side, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    return head + packed + struct.pack("<H", len(tags)) + entries + bytes(4)


def plant(root) -> dict[str, str]:
    """The faults of the issue in a copy of PACS: what the report has to say of each."""
    first = {d: {c: sorted((root / d / c).iterdir())[0] for c in PACS.classes} for d in PACS.counts}
    shutil.rmtree(root / "cartoon" / "guitar")
    first["photo"]["dog"].write_bytes(b"")
    whole = first["photo"]["horse"].read_bytes()
    first["photo"]["horse"].write_bytes(whole[: len(whole) * 2 // 3])
    Image.open(first["sketch"]["house"]).convert("CMYK").save(root / "sketch" / "house" / "ink.jpg")
    Image.fromarray(np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * 28).save(root / "sketch" / "dog" / "deep.png")
    noise(7).convert("RGBA").save(root / "sketch" / "dog" / "glass.png")
    noise(8).convert("L").save(root / "sketch" / "dog" / "grey.png")
    shutil.copy(first["art_painting"]["person"], root / "photo" / "person" / "stolen.jpg")
    shutil.copy(first["art_painting"]["dog"], root / "art_painting" / "dog" / "zz_again.jpg")
    shutil.copy(first["art_painting"]["house"], root / "art_painting" / "elephant" / "mislabelled.jpg")
    (root / "photo" / "giraffe" / "readme.txt").write_text("a stray text file")
    (root / ".DS_Store").write_bytes(b"hidden")
    (root / "PACS.zip").write_bytes(b"an archive")
    noise(9).save(root / "photo" / "loose.png")
    (root / "watercolour").mkdir()
    relative = {d: {c: f.relative_to(root).as_posix() for c, f in by_class.items()} for d, by_class in first.items()}
    return {
        "problems": [
            "domain 'cartoon' has no class folder 'guitar'",
            f"{relative['photo']['dog']}: zero bytes",
            f"{relative['photo']['horse']}: image file is truncated",
            "Unknown domain folder 'watercolour'.",
        ],
        "notes": [
            "1 group(s) of identical images are in several domains",
            f"{relative['art_painting']['person']} = photo/person/stolen.jpg",
            "1 group(s) of identical images have several labels",
            "art_painting/elephant/mislabelled.jpg",
            "1 group(s) of identical images are in one class",
            f"{relative['art_painting']['dog']} = art_painting/dog/zz_again.jpg",
            "1 CMYK image(s), converted from ink to RGB without a colour profile: sketch/house/ink.jpg",
            "1 16-bit image(s), reduced to the upper eight bits: sketch/dog/deep.png",
            "1 transparent image(s), transparency is dropped",
            "1 greyscale image(s), the one channel is repeated three times: sketch/dog/grey.png",
            "1 stray file(s), not loaded: photo/giraffe/readme.txt",
            "1 hidden file(s), not loaded: .DS_Store",
            "1 archive(s), not loaded: PACS.zip",
            "1 image(s) outside domain/class/, not loaded: photo/loose.png",
        ],
    }


@pytest.fixture(params=["artificial", "real"])
def pacs_copy(request, tmp_path):
    """A folder like PACS: 84 images of noise, or 140 sampled from the real one."""
    root = tmp_path / "PACS"
    if request.param == "artificial":
        return lay_out(root, PACS.counts, PACS.classes)
    real, rng = request.getfixturevalue("pacs_path"), np.random.default_rng(0)
    for domain in PACS.counts:
        for name in PACS.classes:
            (root / domain / name).mkdir(parents=True)
            for file in rng.choice(sorted((real / domain / name).iterdir()), 5, replace=False):
                shutil.copy(file, root / domain / name / file.name)
    return root


def test_every_planted_fault_is_named_and_nothing_else(pacs_copy, capsys):
    before = check_data(pacs_copy)
    counts = [
        f"domain {d!r} has {n} images, the published benchmark has {PACS.counts[d]}"
        for d, n in before.counts.sum().items()
    ]
    assert before.problems == counts, "a sample is not the whole; nothing else is wrong with it"
    assert all(line.startswith("images found of those published") for line in before.notes)
    expected = plant(pacs_copy)
    assert main(["data", "check", str(pacs_copy)]) == 1
    said = capsys.readouterr().out
    after = check_data(pacs_copy)
    for line in expected["problems"]:
        assert line in said and sum(line in problem for problem in after.problems) == 1, line
    for line in expected["notes"]:
        assert line in said and sum(line in note for note in after.notes) == 1, line
    rest = [p for p in after.problems if not any(p.startswith(line) for line in expected["problems"])]
    assert all("the published benchmark has" in p for p in rest), "a sample is not the whole"
    assert not after.usable and "not usable as it is" in said


def test_what_is_a_problem_is_what_load_domains_refuses(tmp_path):
    root = lay_out(tmp_path / "data", ("a", "b"), ("x", "y"))
    shutil.copy(root / "a" / "x" / "0.jpg", root / "b" / "y" / "twin.jpg")
    noise(1).convert("CMYK").save(root / "a" / "x" / "ink.jpg")
    (root / "a" / "x" / "notes.txt").write_text("stray")
    report = check_data(root)
    assert report.usable and len(report.notes) == 4 and len(load_domains(f"folder:{root}", size=16)["b"]) == 7
    (root / "a" / "x" / "1.jpg").write_bytes(b"")
    assert check_data(root).problems == ["a/x/1.jpg: zero bytes"]
    with pytest.raises(DataProblem, match=r"a/x/1.jpg: zero bytes"):
        load_domains(f"folder:{root}", size=16)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_found_wherever_it_ends(tmp_path, progressive):
    """Decoding at an eighth of the size finds exactly what decoding in full finds."""
    noise(0, 64).save(tmp_path / "whole.jpg", progressive=progressive)
    whole = (tmp_path / "whole.jpg").read_bytes()
    ends = np.linspace(1, len(whole) - 3, 40, dtype=int)
    root = tmp_path / "data"
    for domain in ("a", "b"):
        (root / domain / "x").mkdir(parents=True)
        for end in (*ends, len(whole)):
            (root / domain / "x" / f"{end:06d}.jpg").write_bytes(whole[:end])
    found = check_data(root).files.query("domain == 'a'").set_index("file")["problem"]
    for file, problem in found.items():
        try:
            with Image.open(root / file) as image:
                image.load()
            assert problem is None, file
        except OSError:
            assert problem, file
    assert found.isna().sum() == 1 and not ImageFile.LOAD_TRUNCATED_IMAGES


def test_every_kind_of_image_is_told_apart(tmp_path):
    root = tmp_path / "data"
    palette, glass = noise(0).quantize(16), noise(5).convert("RGBA")
    glass.putalpha(noise(6).convert("1").convert("L"))
    deep = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48)
    files = {
        "CMYK": {"a.jpg": noise(1).convert("CMYK"), "b.tif": noise(2).convert("CMYK")},
        "16-bit": {"a.png": Image.fromarray(deep), "b.tif": Image.fromarray(deep + 1)},
        "transparent": {
            "a.png": noise(3).convert("RGBA"),
            "b.png": noise(4).convert("LA"),
            "d.gif": glass,
        },
        "greyscale": {"a.jpg": noise(6).convert("L"), "b.png": noise(7).convert("L")},
        "palette": {"a.png": palette, "b.gif": noise(8).quantize(8)},
        "black-and-white": {"a.png": noise(9).convert("1")},
        "float": {"a.tif": Image.fromarray(deep.astype(np.float32) / 48**2)},
        "signed 16-bit": {"a.tif": Image.fromarray(deep + 2)},
        "other-mode": {"a.tif": noise(15).convert("LAB"), "b.jpg": noise(10).convert("YCbCr")},
        "plain": {"a.jpg": noise(11), "b.png": noise(12), "c.bmp": noise(13), "d.webp": noise(14)},
    }
    for kind, images in files.items():
        for name, image in images.items():
            (root / "d" / kind).mkdir(parents=True, exist_ok=True)
            image.save(root / "d" / kind / name, **({"tiffinfo": SIGNED} if kind == "signed 16-bit" else {}))
    twelve = root / "d" / "12-bit" / "a.tif"
    twelve.parent.mkdir()
    twelve.write_bytes(tiff_of_12_bits(np.tile(np.linspace(0, 4095, 48).astype(int), 48)))
    palette.save(root / "d" / "transparent" / "c.png", transparency=3)
    report = check_data(root)
    assert report.files["problem"].isna().all()
    with Image.open(twelve) as image:
        assert np.asarray(as_rgb(image))[0, [0, 24, -1], 0].tolist() == [0, 130, 255]
    found = {kind: set(group["kind"]) for kind, group in report.files.groupby("class")}
    assert found.pop("plain") == {None}
    # a JPEG in YCbCr is how every JPEG is stored: it opens as RGB
    assert found.pop("other-mode") == {"other-mode", None}
    assert found == {kind: {kind} for kind in found} and {*found, "other-mode"} == set(WHEN_LOADED)


def test_what_is_loaded_otherwise_than_it_is_shown_is_said_and_load_does_so(tmp_path):
    """Deep greyscale is scaled where its range is known and refused where it is not; nothing is turned."""
    root, ramp = tmp_path / "data", np.tile(np.linspace(0, 1, 32), (32, 1))
    lay_out(root, ("a", "b"), ("x",), each=1)
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "f.tif": Image.fromarray(ramp.astype(np.float32)),
        "s.tif": Image.fromarray((ramp * 32767).astype(np.uint16)),
        "u.pgm": Image.fromarray((ramp * 65535).astype(np.uint16)),
        "u.tif": Image.fromarray((ramp * 65535).astype(np.uint16)),
        "z.jpg": Image.fromarray(np.repeat((255 * ramp).astype(np.uint8)[..., None], 3, 2)),
    }
    for name, image in files.items():
        extra = {"tiffinfo": SIGNED} if name == "s.tif" else {"exif": turned, "quality": 100} if name == "z.jpg" else {}
        image.save(root / "a" / "x" / name, **extra)
    for image in load_domains(f"folder:{root}", size=32)["a"].images[1:]:
        np.testing.assert_allclose(image, 255 * ramp[..., None].repeat(3, 2), atol=2)
    report = check_data(root)
    for kind, name in (("float", "f.tif"), ("signed 16-bit", "s.tif"), ("16-bit", "u.pgm, a/x/u.tif")):
        assert any(kind in note and WHEN_LOADED[kind] in note and note.endswith(name) for note in report.notes), kind
    assert report.usable and "1 image(s) sideways or mirrored (EXIF orientation), loaded as stored" in str(report)

    Image.fromarray((ramp * 65535).astype(np.int32)).save(root / "a" / "x" / "i.tif")
    Image.fromarray((ramp * 255).astype(np.float32)).save(root / "a" / "x" / "f.tif")
    Image.fromarray((ramp * 65535).astype(np.uint16)).save(root / "a" / "x" / "s.tif", tiffinfo=SIGNED)
    expected = [
        "a/x/f.tif: float values from 0 to 255 have no known range; save it with floats from 0 to 1",
        "a/x/i.tif: 32-bit values from 0 to 65535 have no known range; save it with 8 or 16 bits",
        "a/x/s.tif: signed 16-bit values from -3",
    ]
    problems = check_data(root).problems
    assert len(problems) == 3 and all(p.startswith(line) for p, line in zip(problems, expected))
    with pytest.raises(DataProblem) as refused:
        load_domains(f"folder:{root}", size=32)
    assert all(problem in str(refused.value) for problem in problems)


def test_images_in_folders_inside_those_of_classes_are_counted_when_a_folder_is_loaded(tmp_path):
    root = lay_out(tmp_path / "data", ("a", "b"), ("x",), each=2)
    for inside in ("day 1/y", ".hidden"):
        (root / "a" / "x" / inside).mkdir(parents=True)
        noise(1).save(root / "a" / "x" / inside / "deep.png")
    with pytest.warns(
        UserWarning, match=r"1 image\(s\) in folders inside .*, such as a/x/day 1/y/deep.png; they are not"
    ):
        assert len(load_domains(f"folder:{root}", size=16)["a"]) == 2


@pytest.mark.parametrize("size", [(7, 7), (100, 5), (1, 1)], ids=str)
def test_a_small_jpeg_is_one(tmp_path, size):
    root = lay_out(tmp_path / "data", ("a", "b"), ("x",), each=2)
    noise(1).resize(size).save(root / "a" / "x" / "small.jpg")
    assert check_data(root).usable and len(load_domains(f"folder:{root}", size=16)["a"]) == 3


def test_images_of_the_unseen_domain_that_lie_in_a_source_are_counted(tmp_path):
    root = lay_out(tmp_path / "data", ("a", "b", "c"), ("x", "y"), each=3)
    shutil.copy(root / "a" / "x" / sorted(os.listdir(root / "a" / "x"))[0], root / "b" / "x" / "again.png")
    domains = load_domains(f"folder:{root}", size=16)
    with pytest.warns(UserWarning, match="1 of the 6 images of a lie in a source domain, too, byte for byte"):
        leave_one_out(domains, "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        leave_one_out(domains, "a", only=["c"])
        leave_one_out(domains, "c")


def test_images_that_are_not_loaded_for_their_names_are_said_by_check_and_by_load(tmp_path):
    root = lay_out(tmp_path / "data", ("a", "b"), ("x",), each=1)
    for suffix, kind in ((".jfif", "JPEG"), (".JPE", "JPEG"), (".jp2", "JPEG2000"), (".pgm", "PPM"), (".tga", "TGA")):
        noise(1).convert("L").save(root / "a" / "x" / f"loaded{suffix}", kind)
    for name in ("bare", "odd.image"):
        noise(2).save(root / "a" / "x" / name, "PNG")
    (root / "a" / "x" / "notes.txt").write_text("no image")
    with pytest.warns(UserWarning, match=r"images that are not loaded, .*: a/x/bare, a/x/odd.image; rename"):
        loaded = load_domains(f"folder:{root}", size=16)
    assert len(loaded["a"]) == 6
    report = check_data(root)
    assert len(report.files) == 7 and report.usable
    assert "2 image(s) whose names do not end like those of images, not loaded: a/x/bare, a/x/odd.image" in report.notes
    assert "1 stray file(s), not loaded: a/x/notes.txt" in report.notes


def test_names_of_folders_are_text_whatever_wrote_them(tmp_path):
    """An accent may be a letter of its own (macOS) or not; a name that is no UTF-8 is refused by load as by check."""
    root = tmp_path / "data"
    for n, (domain, form) in enumerate((("a", "NFC"), ("b", "NFD"))):
        (root / domain / unicodedata.normalize(form, "café")).mkdir(parents=True)
        for i in range(2):
            noise(2 * n + i).save(root / domain / unicodedata.normalize(form, "café") / f"{i}.png")
    assert check_data(root).usable and load_domains(f"folder:{root}", size=16).classes == ("caf\u00e9",)
    shutil.move(root / "b" / "cafe\u0301", root / "a" / "cafe\u0301")  # both in one domain: one class all the same
    (root / "b").rmdir()
    assert len(load_domains(f"folder:{root}", size=16)["a"]) == 4
    odd = root / "a" / "caf\u00e9" / os.fsdecode(b"\xe9.png")
    noise(1).save(odd)
    assert " = a/caf\u00e9/\\xe9.png" in str(check_data(root)), "printed with an escape"
    assert len(load_domains(f"folder:{root}", size=16)["a"]) == 5
    (root / os.fsdecode(b"caf\xe9") / "x").mkdir(parents=True)
    for use in (check_data, lambda p: load_domains(f"folder:{p}")):
        with pytest.raises(DataProblem, match=r"caf\\xe9 has a name that is no UTF-8; rename it"):
            use(root)


def test_sixteen_bit_colour_is_seen_though_pillow_opens_it_as_rgb(tmp_path):
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(48)) for _ in range(8))  # 8 pixels of three 16-bit channels
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    file = tmp_path / "data" / "d" / "x" / "deep.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert check_data(tmp_path / "data").files["kind"].tolist() == ["16-bit"]


def test_duplicates_are_grouped_by_content_alone(tmp_path):
    """Against the slow obvious reference: compare every file with every other."""
    root, rng = lay_out(tmp_path / "data", ("a", "b", "c"), ("x", "y"), each=4), np.random.default_rng(1)
    files = sorted(root.rglob("*.jpg"))
    for i in range(9):
        source, beside = rng.choice(files, 2, replace=False)
        shutil.copy(source, beside.with_name(f"copy{i}.jpg"))
    (root / "a" / "x" / "empty1.jpg").write_bytes(b"")
    (root / "b" / "x" / "empty2.jpg").write_bytes(b"")  # empty files are unreadable, not identical images
    contents = {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*.jpg") if f.stat().st_size}
    groups = {" = ".join(sorted(n for n in contents if contents[n] == contents[name])) for name in contents}
    expected = {group for group in groups if " = " in group}
    found = {note for note in check_data(root).notes if " = " in note}
    assert found == expected and len(expected) > 2


def test_the_real_pacs_is_usable_and_free_of_duplicates(pacs_path):
    report = check_data(pacs_path)
    assert report.usable and not report.notes and len(report.files) == 9991
    assert report.counts.sum().to_dict() == PACS.counts
    assert report.files["content"].nunique() == 9991
    assert Counter(zip(report.files["width"], report.files["height"])).keys() == {(227, 227)}


# ---- which benchmark, which folder


def test_a_benchmark_is_recognised_by_most_of_its_domains_and_classes(tmp_path):
    root = lay_out(tmp_path / "some", ("photo", "sketch", "cartoon"), PACS.classes[:5], each=1)
    assert check_data(root).benchmark is PACS
    assert "domain 'art_painting' is missing" in check_data(root).problems
    assert check_data(root, "folder").usable, "nothing is expected of a folder but the same classes everywhere"
    other = lay_out(tmp_path / "other", ("photo", "sketch", "clipart"), ("a", "b"), each=1)
    assert check_data(other).benchmark is None
    assert "domain 'VOC2007' is missing" in check_data(other, "vlcs").problems


def test_a_name_stands_for_the_folder_in_the_data_folder(tmp_path, monkeypatch, capsys):
    lay_out(tmp_path / "PACS", PACS.counts, PACS.classes, each=1)
    monkeypatch.setenv("WAKD_DATA", str(tmp_path))
    assert main(["data", "check", "pacs"]) == 1
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'PACS'}: compared with PACS")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("check nowhere", "nowhere is not a folder; it should hold domain/class/images."),
        ("check . --benchmark pcs", "Unknown published benchmark 'pcs'. Did you mean 'pacs'?"),
    ],
)
def test_what_cannot_be_checked_is_a_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    lay_out(tmp_path / "here", ("a",), ("x",), each=1)
    monkeypatch.chdir(tmp_path / "here")
    assert main(["data", *arguments.split()]) == 2
    assert capsys.readouterr().err.startswith(f"wakd data: {sentence}")


def test_a_class_that_is_empty_or_only_in_one_domain_is_a_problem(tmp_path):
    root = lay_out(tmp_path / "data", ("a", "b"), ("x", "y"))
    (root / "a" / "z").mkdir()
    assert sorted(check_data(root).problems) == ["a/z holds no images", "domain 'b' has no class folder 'z'"]
    assert "add them, or move the folders of that class" in str(check_data(root))
    assert check_data(root).counts.loc["z"].tolist() == [0, 0]


# ---- what is shown


def test_balance_shows_counts_published_numbers_and_unevenness():
    counts = pd.DataFrame({"art_painting": [8, 2, 0], "other": [1, 1, 1]}, ["dog", "house", "person"])
    rows = {line.rsplit(maxsplit=2)[0]: line.split()[-2:] for line in balance(counts, PACS)[1:]}
    assert rows["images"] == ["10", "3"] and rows["published"] == ["2048", "0"]
    assert rows["dog"] == ["8", "1"] and rows["largest / smallest class"] == ["4", "1"]
    many = pd.DataFrame({"d": np.arange(100, 0, -1)}, [f"class{i}" for i in range(100)])
    lines = balance(many)
    assert lines[0] == "(the 10 smallest of 100 classes)" and lines[2].split() == ["class99", "1"] and len(lines) == 14


def test_a_contact_sheet_is_a_png_that_shows_what_is_there(tmp_path, capsys):
    root = lay_out(tmp_path / "data", ("a", "b"), ("x", "y"))
    shutil.rmtree(root / "b" / "y")
    for file in (root / "a" / "x").iterdir():
        file.write_bytes(b"")
    sheet = tmp_path / "sheets" / "sheet.png"
    assert main(["data", "check", str(root), "--sheet", str(sheet)]) == 1
    assert f"{sheet}: One image per class of 2 domains (a, b), grey where there is none." in capsys.readouterr().out
    with Image.open(sheet) as image:
        assert image.format == "PNG" and "2 domains" in image.info["Description"]
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    grey = (pixels == 200).all(axis=1).mean()
    write_sheet(check_data(lay_out(tmp_path / "whole", ("a", "b"), ("x", "y"))), tmp_path / "whole.png")
    whole = np.asarray(Image.open(tmp_path / "whole.png").convert("RGB")).reshape(-1, 3)
    assert grey > 0.1 > 100 * (whole == 200).all(axis=1).mean()
    classes = tuple(f"class{i}" for i in range(14))
    write_sheet(check_data(lay_out(tmp_path / "many", ("a",), classes)), tmp_path / "many.png")
    with Image.open(tmp_path / "many.png") as many, Image.open(tmp_path / "whole.png") as few:
        assert many.width > few.width + 11 * 0.72 * 150, "a column of each class"


def test_many_faults_of_one_kind_are_counted_not_listed(tmp_path):
    root = lay_out(tmp_path / "data", ("a", "b"), ("x",), each=40)
    for file in (root / "a" / "x").iterdir():
        shutil.copy(file, root / "b" / "x" / f"of_{file.name}")
        (file.with_suffix(".txt")).write_text("stray")
    report = check_data(root)
    assert report.notes[0].startswith("40 group(s)") and report.notes[21] == "... and 20 more of these"
    assert any(
        note.startswith("40 stray file(s), not loaded: ") and note.endswith("and 35 more") for note in report.notes
    )


@pytest.mark.parametrize("side, said", [(48, True), (120, False)])
def test_images_that_loading_would_enlarge_much_are_told_with_their_size(tmp_path, side, said):
    """A median, of those that can be read."""
    for name, width in (("a", side), ("b", side), ("c", 500)):
        (tmp_path / name / "x").mkdir(parents=True)
        Image.new("RGB", (width, side - 8), (width % 256, 0, ord(name))).save(tmp_path / name / "x" / "0.png")
    text = str(check_data(tmp_path))
    assert f"\n{side} x {side - 8} pixels, medians of width and height\n" in text
    told = f"their {side} pixels become 224; size={side}, image_size: {side} in a study, leaves them about as they are"
    assert text.endswith(f'usable: load_domains("folder:{tmp_path}")' + f"\n{told}" * said)
    load_domains(f"folder:{tmp_path}", size=side)
    (tmp_path / "a" / "x" / "0.png").write_bytes(b"")
    (tmp_path / "c" / "x" / "0.png").write_bytes(b"")
    assert f"\n{side} x {side - 8} pixels" in str(check_data(tmp_path)) and told not in str(check_data(tmp_path))


def test_a_class_of_one_image_is_noted(tmp_path):
    for name, count in (("a/x", 3), ("a/y", 1), ("b/x", 2), ("b/y", 2)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (50 * i, len(name), ord(name[2]))).save(tmp_path / name / f"{i}.png")
    report = check_data(tmp_path)
    assert report.usable and [note for note in report.notes if "of one image" in note] == [
        "1 class(es) of one image, that domain can be left out and be no source: a split needs two, one to validate on: a/y"
    ]

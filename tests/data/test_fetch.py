"""``wakd data get`` against a server on this machine: resumes, refuses what is wrong, and says what to do by hand."""

import hashlib
import io
import json
import shutil
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wakd_kit.cli import main
from wakd_kit.data import fetch as module
from wakd_kit.data import unpack as unpacking
from wakd_kit.data.catalog import BENCHMARKS, DataProblem, Download, Hub
from wakd_kit.data.domains import load_domains
from wakd_kit.data.fetch import SUMS, fetch, get_data
from wakd_kit.data.unpack import SPAWRIOUS


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files`` with ranges, ETags and If-Range, and does what ``server`` asks it to do wrong."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        s = self.server
        s.log.append((self.path, self.headers.get("Range")))
        if self.path not in s.files:
            return self.send_error(404)
        if s.busy:
            return self.send_error(s.busy.pop())
        data, begin = s.files[self.path], 0
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        asked, version = self.headers.get("Range"), self.headers.get("If-Range")
        if s.ranges and asked and version in (None, etag):
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", s.types.get(self.path, "application/octet-stream"))
        self.send_header("Content-Length", str(len(data) - begin))
        self.send_header("X-Repo-Commit", s.commit)
        if s.etags:
            self.send_header("ETag", etag)
        self.end_headers()
        if body:
            breaks = s.breaks.pop(0) if s.breaks else len(data)
            self.wfile.write(data[begin:][:breaks])

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    """Set ``files`` {path: bytes}, ``breaks`` (bytes each answer ends after), ``busy`` (answers before), ``ranges``, ``etags``; read ``log``."""
    monkeypatch.setattr(module, "PAUSE", 0.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.types, server.breaks, server.busy, server.log = {}, {}, [], [], []
    server.ranges, server.etags, server.commit = True, True, ""
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def offered(server, data: bytes, name: str = "file.zip", **settings) -> Download:
    server.files[f"/{name}"] = data
    return Download(name, f"{server.url}/{name}", **settings)


DATA = np.random.default_rng(0).bytes(300_000)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


# ---- one file


def test_a_file_is_fetched_once(server, tmp_path):
    file = offered(server, DATA)
    assert fetch(file, tmp_path).read_bytes() == DATA
    fetch(file, tmp_path)
    assert server.log == [("/file.zip", None)] and [f.name for f in tmp_path.iterdir()] == ["file.zip"]


def test_a_connection_that_breaks_is_continued_where_it_stopped(server, tmp_path):
    server.breaks = [100_000, 0, 50_000]
    assert fetch(offered(server, DATA), tmp_path).read_bytes() == DATA
    assert [asked for _, asked in server.log] == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    server.busy = [503, 429]
    assert fetch(offered(server, DATA), tmp_path).read_bytes() == DATA and len(server.log) == 3
    server.busy = [500] * module.ATTEMPTS
    with pytest.raises(
        OSError, match=rf"broke off {module.ATTEMPTS} times at 0 bytes: the server answers 500 Internal"
    ):
        fetch(offered(server, DATA, "other.zip"), tmp_path)


def test_a_download_that_was_given_up_is_continued_the_next_time(server, tmp_path):
    server.breaks = [70_000] + [0] * module.ATTEMPTS
    file = offered(server, DATA)
    with pytest.raises(OSError, match=rf"broke off {module.ATTEMPTS} times at 70000 bytes: .*70000 of 300000"):
        fetch(file, tmp_path)
    assert (tmp_path / "file.zip.part").read_bytes() == DATA[:70_000] and not (tmp_path / "file.zip").exists()
    server.log.clear()
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert server.log == [("/file.zip", "bytes=70000-")] and [f.name for f in tmp_path.iterdir()] == ["file.zip"]


@pytest.mark.parametrize("ranges, etags", [(False, True), (True, False), (False, False)])
def test_where_resuming_is_not_possible_or_not_safe_it_begins_again(server, tmp_path, ranges, etags):
    server.ranges, server.etags, server.breaks = ranges, etags, [100_000]
    assert fetch(offered(server, DATA), tmp_path).read_bytes() == DATA
    assert len(server.log) == 2 and (server.log[1][1] is None) == (not etags), "nothing tells two versions apart"


def test_a_published_checksum_makes_resuming_safe_without_versions(server, tmp_path):
    server.etags, server.breaks = False, [100_000]
    assert fetch(offered(server, DATA, checksum=sha256(DATA)), tmp_path).read_bytes() == DATA
    assert server.log[1][1] == "bytes=100000-"


def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old_part(server, tmp_path):
    server.breaks = [100_000] + [0] * module.ATTEMPTS
    with pytest.raises(OSError):
        fetch(offered(server, DATA), tmp_path)
    other = np.random.default_rng(1).bytes(200_000)
    assert fetch(offered(server, other), tmp_path).read_bytes() == other


def test_a_part_that_is_complete_needs_no_byte_more(server, tmp_path):
    server.breaks = [100_000] + [0] * module.ATTEMPTS
    file = offered(server, DATA)
    with pytest.raises(OSError):
        fetch(file, tmp_path)
    (tmp_path / "file.zip.part").write_bytes(DATA)  # killed after the last byte
    assert fetch(file, tmp_path).read_bytes() == DATA
    (tmp_path / "file.zip").rename(tmp_path / "file.zip.part")
    with open(tmp_path / "file.zip.part", "ab") as part:
        part.write(b"more than there is")
    assert fetch(replace(file, checksum=sha256(DATA)), tmp_path).read_bytes() == DATA


def test_a_web_page_is_no_archive(server, tmp_path):
    file = offered(server, b"<html>Too many users have viewed this file</html>")
    server.types["/file.zip"] = "text/html; charset=utf-8"
    with pytest.raises(OSError, match="answers with a web page: it wants a click, is over its quota, or has moved"):
        fetch(file, tmp_path)
    assert not list(tmp_path.iterdir())


# ---- a benchmark


def image(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


def images(benchmark, each: int = 2) -> dict[str, bytes]:
    """{domain/class/file: JPEG}"""
    names = [f"{d}/{c}/{i}.jpg" for d in benchmark.counts for c in benchmark.classes for i in range(each)]
    return {name: image(seed) for seed, name in enumerate(names)}


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, to in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, to
            archive.addfile(member)
    return out.getvalue()


def unpacked(folder) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def offer(server, monkeypatch):
    """``offer(name, {file: bytes})``: the benchmark, cut down to two images of two classes, served from here."""

    def offer(name: str, files: dict[str, bytes], **settings):
        real = BENCHMARKS[name]
        small = replace(
            real,
            counts=dict.fromkeys(real.counts, 4),
            classes=real.classes[:2],
            per_class={},
            hub=None,
            files=tuple(offered(server, data, file, **settings) for file, data in files.items()),
        )
        monkeypatch.setitem(BENCHMARKS, name, small)
        return small

    monkeypatch.delenv("WAKD_DATA", raising=False)
    return offer


@pytest.fixture
def said():
    lines = []
    return SimpleNamespace(lines=lines, say=lines.append, text=lambda: "\n".join(lines))


def small(name: str):
    return replace(BENCHMARKS[name], classes=BENCHMARKS[name].classes[:2])


@pytest.mark.parametrize(
    "name, above, pack",
    [("pacs", "kfold/", zipped), ("vlcs", "VLCS/", tarred), ("officehome", "OfficeHomeDataset_10072016/", zipped)],
)
def test_an_archive_becomes_domains_and_classes_that_load(offer, tmp_path, monkeypatch, capsys, name, above, pack):
    wanted = images(small(name))
    extra = {f"{above}README.txt": b"", f"__MACOSX/{next(iter(wanted))}": b"x", f"{above}.DS_Store": b"x"}
    benchmark = offer(name, {"all.archive": pack({**{above + n: data for n, data in wanted.items()}, **extra})})
    monkeypatch.setenv("WAKD_DATA", str(tmp_path))
    assert main(["data", "get", name]) == 0
    folder = tmp_path / benchmark.folders[0]
    assert unpacked(folder) == wanted and sorted(f.name for f in tmp_path.iterdir()) == sorted([SUMS, folder.name])
    out = capsys.readouterr().out
    assert f"{len(wanted)} images in {folder}" in out and f'usable: load_domains("{name}:{folder}")' in out
    assert "Terms of use: " in out
    assert sum(map(len, load_domains(name, size=16).values())) == len(wanted)


def test_get_says_so_when_what_it_got_is_not_the_whole_benchmark(offer, tmp_path, capsys):
    wanted = images(small("pacs"), each=1)
    offer("pacs", {"PACS.zip": zipped(wanted)})
    assert main(["data", "get", "pacs", "--to", str(tmp_path / "P")]) == 1
    assert "domain 'photo' has 2 images, the published benchmark has 4" in capsys.readouterr().out


def test_domainnet_keeps_what_the_cleaned_lists_name(offer, said, tmp_path):
    wanted = images(small("domainnet"))
    lists = {d: [n for n in wanted if n.startswith(f"{d}/")] for d in BENCHMARKS["domainnet"].counts}
    files = {}
    for domain, names in lists.items():
        twin = {f"{domain}/{BENCHMARKS['domainnet'].classes[0]}/duplicate.jpg": image(999)}
        files[f"{domain}_train.txt"] = "".join(f"{n} 0\n" for n in names[:1]).encode()
        files[f"{domain}_test.txt"] = "".join(f"{n} 1\n" for n in names[1:]).encode()
        files[f"{domain}.zip"] = zipped({**{n: wanted[n] for n in names}, **twin})
    offer("domainnet", files)
    assert unpacked(get_data("domainnet", tmp_path / "D", say=said.say)) == wanted


def test_terra_is_sorted_by_its_annotations(offer, said, tmp_path):
    table = {"categories": [{"id": 3, "name": "bird"}, {"id": 5, "name": "bobcat"}, {"id": 6, "name": "car"}]}
    seen = [("a", 38, 3), ("b", "38", 5), ("c", 100, 3), ("d", 1, 3), ("e", 43, 6), ("f", 46, 3), ("f", 46, 5)]
    table["images"] = [{"id": i, "file_name": f"{i}.jpg", "location": at} for i, at, _ in dict.fromkeys(seen)]
    table["annotations"] = [{"image_id": i, "category_id": kind} for i, _, kind in seen]
    pictures = {f"eccv_18_all_images_sm/{i}.jpg": image(n) for n, i in enumerate("abcdefg")}
    half = {**table, "annotations": table["annotations"][:2]}, {**table, "annotations": table["annotations"][1:]}
    folder = "eccv_18_annotation_files/"
    notes = {f"{folder}{i}_annotations.json": json.dumps(part).encode() for i, part in enumerate(half)}
    offer(
        "terra",
        {"eccv_18_annotations.tar.gz": tarred(notes), "eccv_18_all_images_sm.tar.gz": tarred(pictures)},
    )
    found = unpacked(get_data("terra", tmp_path / "T", say=said.say))
    at = {
        "location_38/bird/a.jpg": "a",
        "location_38/bobcat/b.jpg": "b",
        "location_100/bird/c.jpg": "c",
        "location_46/bird/f.jpg": "f",
        "location_46/bobcat/f.jpg": "f",
    }
    assert found == {place: pictures[f"eccv_18_all_images_sm/{i}.jpg"] for place, i in at.items()}


@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
def test_spawrious_is_sorted_by_place_as_its_authors_take_it(offer, said, tmp_path, monkeypatch, level):
    name = f"spawrious_o2o_{level}"
    real = BENCHMARKS[name]
    train, test, shared = SPAWRIOUS[name]
    breeds = ("bulldog", "dachshund", "labrador", "corgi")
    wanted, members = {}, {}
    for part, domain, own, rest in (("0", "train_97", 97, 3), ("1", "train_87", 87, 13)):
        for breed, place, changed in zip(breeds, train, test):
            for here in (place, shared, changed):
                for i in range(100):
                    members[f"spawrious224/{part}/{here}/{breed}/{i:03}.png"] = f"{part} {here} {breed} {i}".encode()
            for here, many in ((place, own), (shared, rest)):
                wanted |= {
                    f"{domain}/{breed}/{here}__{i:03}.png": f"{part} {here} {breed} {i}".encode() for i in range(many)
                }
            wanted |= {
                f"test/{breed}/{changed}__{part}_{i:03}.png": f"{part} {changed} {breed} {i}".encode()
                for i in range(100)
            }
    members["spawrious224/domain_adaptation_ds/snow/corgi/0.png"] = b"not of it"
    small = offer(name, {f"spawrious224__o2o_{level}.tar.gz": tarred(members)})
    monkeypatch.setitem(BENCHMARKS, name, replace(small, classes=real.classes))
    assert unpacked(get_data(name, tmp_path / "S", say=said.say)) == wanted
    assert {len([n for n in wanted if n.startswith(d)]) for d in ("train_97", "train_87")} == {400}
    assert sum(real.counts.values()) == 12672 * 4 and len(wanted) == 1600


def test_celeba_is_sorted_by_its_lists_and_its_attribute_goes_with_every_image(offer, said, tmp_path, monkeypatch):
    rows, parts, pictures = [], [], {}
    for i in range(24):
        file, blond, male, part = f"{i:06}.jpg", (-1, 1)[i % 2], (-1, 1)[i // 2 % 2], i // 4 % 3
        rows.append(f"{file} -1  {blond} {male}  1")
        parts.append(f"{file} {part}")
        pictures[f"img_align_celeba/{file}"] = image(i)
    lists = {
        "list_attr_celeba.txt": "\n".join(["24", "Bald Blond_Hair Male Young", *rows]),
        "list_eval_partition.txt": "\n".join(parts),
    }
    small = offer(
        "celeba", {**{n: text.encode() for n, text in lists.items()}, "img_align_celeba.zip": zipped(pictures)}
    )
    monkeypatch.setitem(BENCHMARKS, "celeba", replace(small, counts=dict.fromkeys(small.counts, 8)))
    folder = get_data("celeba", tmp_path / "C", say=said.say)
    assert unpacked(folder)["train/blond/female__000001.jpg"] == pictures["img_align_celeba/000001.jpg"]
    assert unpacked(folder)["valid/other/male__000006.jpg"] == pictures["img_align_celeba/000006.jpg"]
    domains = load_domains(f"celeba:{folder}", size=16)
    assert domains.attributes == ("female", "male") and len(domains["test"]) == 8
    for examples in domains.values():
        assert sorted(zip(examples.labels, examples.attributes)) == [
            (c, a) for c in (0, 1) for a in (0, 1) for _ in (0, 1)
        ]
    (folder / "test" / "blond" / "female__000009.jpg").rename(folder / "test" / "blond" / "9.jpg")
    assert load_domains(f"celeba:{folder}", size=16).attributes == ()  # of somebody's own layout nothing is known


def test_two_do_not_fetch_to_one_folder_at_once(server, offer, tmp_path):
    offer("pacs", {"PACS.zip": zipped(images(small("pacs")))})
    refused = []

    def another(line: str) -> None:
        if not refused:
            with pytest.raises(
                DataProblem, match=r"PACS is being fetched to .*PACS by process \d+ .*: wait for it, or"
            ) as it:
                get_data("pacs", tmp_path / "PACS", say=lambda line: None)
            refused.append(it)

    get_data("pacs", tmp_path / "PACS", say=another)
    assert refused and len(server.log) == 1
    assert sorted(f.name for f in tmp_path.iterdir()) == ["PACS", SUMS]


def test_who_waited_until_another_had_finished_is_told_that_it_is_there(offer, tmp_path, monkeypatch):
    offer("pacs", {"PACS.zip": zipped(images(small("pacs")))})
    space = module._check_space

    def meanwhile(*given) -> None:
        monkeypatch.setattr(module, "_check_space", space)
        get_data("pacs", tmp_path / "PACS", say=lambda line: None)

    monkeypatch.setattr(module, "_check_space", meanwhile)
    with pytest.raises(DataProblem, match="is there already"):
        get_data("pacs", tmp_path / "PACS", say=lambda line: None)
    assert len(unpacked(tmp_path / "PACS")) == 16 and len(list(tmp_path.iterdir())) == 2


def test_sums_of_several_that_are_fetched_at_once_are_all_kept(tmp_path, monkeypatch):
    read = module._read_sums
    monkeypatch.setattr(module, "_read_sums", lambda target: (read(target), time.sleep(0.02))[0])
    each = [threading.Thread(target=module._write_sums, args=({f"{n}/a": "0"}, tmp_path / str(n))) for n in range(6)]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    assert list(read(tmp_path / "0")) == [f"{n}/a" for n in range(6)] and len(list(tmp_path.iterdir())) == 1


# ---- what is refused


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_wrong_checksum_is_refused_and_said(server, offer, said, tmp_path, algorithm):
    good = zipped(images(small("pacs")))
    checksum = f"{algorithm}:{hashlib.new(algorithm, good).hexdigest()}"
    offer("pacs", {"PACS.zip": good}, checksum=checksum, recorded="somebody")
    server.files["/PACS.zip"] = bad = good[:-1] + b"!"
    with pytest.raises(DataProblem) as problem:
        get_data("pacs", tmp_path / "PACS", say=said.say)
    for part in ("PACS.zip is refused", hashlib.new(algorithm, bad).hexdigest(), f"somebody recorded {checksum[-32:]}"):
        assert part.split()[-1] in str(problem.value) and part.split()[0] in str(problem.value)
    assert not (tmp_path / "PACS").exists()
    assert (tmp_path / "PACS.download" / "PACS.zip.refused").read_bytes() == bad
    server.files["/PACS.zip"] = good
    assert len(unpacked(get_data("pacs", tmp_path / "PACS", say=said.say))) == 16
    assert f"PACS.zip: {algorithm} as recorded by somebody" in said.text()


def test_without_a_published_checksum_the_first_one_counts(server, offer, said, tmp_path):
    first = zipped(images(small("pacs")))
    offer("pacs", {"PACS.zip": first})
    get_data("pacs", tmp_path / "PACS", say=said.say)
    digest = hashlib.sha256(first).hexdigest()
    assert f"no checksum is published; sha256 {digest} is kept in {SUMS}" in said.text()
    assert (tmp_path / SUMS).read_text() == f"{digest}  PACS/PACS.zip\n"
    shutil.rmtree(tmp_path / "PACS")
    get_data("pacs", tmp_path / "PACS", say=said.say)
    assert "sha256 as recorded by" in said.lines[-2]
    shutil.rmtree(tmp_path / "PACS")
    server.files["/PACS.zip"] = zipped(images(small("pacs"), each=3))
    with pytest.raises(DataProblem, match=rf"PACS.zip is refused: its sha256 is .*{SUMS}, at the first download"):
        get_data("pacs", tmp_path / "PACS", say=said.say)
    assert not (tmp_path / "PACS").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../outside.jpg",
        "kfold/../../photo/dog/1.jpg",
        "/photo/dog/1.jpg",
        "..\\photo\\dog\\1.jpg",
        "C:\\dog\\1.jpg",
        "x/D:1.jpg",
    ],
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_that_points_outside_is_refused(offer, said, tmp_path, name, pack):
    offer("pacs", {"PACS.zip": pack({**images(small("pacs")), name: image(0)})})
    with pytest.raises(DataProblem, match=r"PACS.zip is refused: its member .* points outside the folder"):
        get_data("pacs", tmp_path / "in" / "PACS", say=said.say)
    left = {f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file()}
    assert left == {"in/PACS.download/PACS.zip"}


def test_an_archive_with_links_is_refused(offer, said, tmp_path):
    wanted = images(small("vlcs"))
    offer("vlcs", {"VLCS.tar.gz": tarred(wanted, links={"VLCS/Caltech101/bird/link.jpg": "/etc/passwd"})})
    with pytest.raises(DataProblem, match=r"its member 'VLCS/Caltech101/bird/link.jpg' is a link or a device"):
        get_data("vlcs", tmp_path / "VLCS", say=said.say)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda files: tarred(files)[:-400], "is no archive that can be read"),
        (lambda files: b"neither zip nor tar" * 100, "is no archive that can be read"),
        (lambda files: zipped({"kfold/notes.txt": b""}), r"No PACS in PACS.zip: nothing in it is called .*/dog/\*.jpg"),
        (
            lambda files: zipped({**files, **{f"again/{n}": d for n, d in files.items()}}),
            "has two images for art_painting/",
        ),
    ],
)
def test_what_cannot_be_unpacked_is_a_sentence(offer, said, tmp_path, make, sentence):
    offer("pacs", {"PACS.zip": make(images(small("pacs")))})
    with pytest.raises(DataProblem, match=sentence):
        get_data("pacs", tmp_path / "PACS", say=said.say)
    assert not (tmp_path / "PACS").exists() and not (tmp_path / "PACS.download" / "unpacked").exists()


# ---- by hand


def test_files_put_there_by_hand_need_no_network(server, offer, said, tmp_path):
    wanted = images(small("pacs"))
    benchmark = offer("pacs", {"PACS.zip": zipped(wanted)})
    server.files.clear()
    with pytest.raises(DataProblem, match=r"could not be fetched \(HTTP Error 404|could not be fetched \(Not Found"):
        get_data("pacs", tmp_path / "PACS", say=said.say)
    (tmp_path / "PACS.download" / "PACS.zip").write_bytes(zipped(wanted))
    assert unpacked(get_data("pacs", tmp_path / "PACS", say=said.say)) == wanted
    assert benchmark.where in BENCHMARKS["pacs"].where


@pytest.mark.parametrize("name", BENCHMARKS)
def test_offline_it_says_what_to_do_by_hand(name, monkeypatch, tmp_path, capsys):
    def nowhere(*arguments, **settings):
        raise OSError("Name or service not known")

    monkeypatch.setattr(module.urllib.request, "urlopen", nowhere)
    monkeypatch.setattr(module, "_from_hub", nowhere)
    monkeypatch.setenv("WAKD_DATA", str(tmp_path))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage(10**12, 0, 10**12))
    assert main(["data", "get", name]) == 2
    said = capsys.readouterr().err
    benchmark = BENCHMARKS[name]
    folder = tmp_path / benchmark.folders[0]
    assert said.startswith(
        f"wakd data: {benchmark.title} could not be fetched (Name or service not known): by hand, get "
    )
    for part in (benchmark.where, f"{folder}.download/", f"{folder}/{next(iter(benchmark.counts))}/", "WAKD_DATA"):
        assert part in said
    assert said.count("\n") == 1


def test_what_is_there_is_never_overwritten(offer, said, tmp_path):
    offer("pacs", {"PACS.zip": zipped(images(small("pacs")))})
    (tmp_path / "PACS" / "photo").mkdir(parents=True)
    with pytest.raises(
        DataProblem, match=r"PACS is there already: see wakd data check .*PACS, or choose another place"
    ):
        get_data("pacs", tmp_path / "PACS", say=said.say)


def test_a_place_is_needed_before_anything_is_fetched(monkeypatch, tmp_path):
    monkeypatch.delenv("WAKD_DATA", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(DataProblem, match="Where shall Office-Home go"):
        get_data("officehome")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage(10**10, 0, 10**10))
    with pytest.raises(DataProblem, match=r"take about 37 GB, and .* has 10.0 GB free"):
        get_data("domainnet", tmp_path / "none" / "yet")
    assert not (tmp_path / "none").exists()


# ---- the hub

CARD = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: domain
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': Alarm Clock
          '1': Backpack
---
# Office-Home
"""


def rows(each: int = 2) -> tuple[pd.DataFrame, dict[str, bytes]]:
    wanted = images(small("officehome"), each)
    table = [
        {"image": {"bytes": data, "path": name.split("/")[2]}, "domain": name.split("/")[0], "label": label}
        for name, data in wanted.items()
        for label in [small("officehome").classes.index(name.split("/")[1])]
    ]
    return pd.DataFrame(table), wanted


@pytest.fixture
def hub(server, offer, monkeypatch):
    """Office-Home on a hub of our own; ``hub(shards)`` with the bytes of two files."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    def hub(shards: list[bytes]):
        server.commit = revision = "2a083645e3177afbd91ba4fa2651238f8994d335"
        names = [f"data/train-{i}.parquet" for i in range(len(shards))]
        contents = dict(zip(names, shards)) | {"README.md": CARD.encode(), "other.bin": b"not wanted"}
        for name, data in contents.items():
            server.files[f"/datasets/some/office/resolve/{revision}/{name}"] = data
        downloads = tuple(Download(n, size=len(d), checksum=sha256(d), recorded="us") for n, d in zip(names, shards))
        office = offer("officehome", {})
        office = replace(office, hub=Hub("some/office", revision, downloads), files=(Download("by hand.zip"),))
        monkeypatch.setitem(BENCHMARKS, "officehome", office)

    return hub


def pickled(table: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    table.to_pickle(out)
    return out.getvalue()


@pytest.fixture
def pickles_for_parquet(monkeypatch):
    """Everything but the format: where pyarrow is not installed."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(unpacking.pd, "read_parquet", lambda file, columns: pd.read_pickle(file)[columns])


def test_images_come_from_the_hub_byte_for_byte(server, hub, said, tmp_path, pickles_for_parquet):
    table, wanted = rows()
    hub([pickled(table[:5]), pickled(table[5:])])
    assert unpacked(get_data("officehome", tmp_path / "OH", say=said.say)) == wanted
    assert not any(path.endswith("other.bin") for path, _ in server.log)
    assert said.text().count("sha256 as recorded by us") == 2


def test_names_that_are_missing_or_taken_become_numbers(hub, said, tmp_path, pickles_for_parquet):
    table, wanted = rows()
    table["image"] = [
        {**image, "path": [None, "same.jpg", "same.jpg", "no suffix"][i % 4]} for i, image in enumerate(table["image"])
    ]
    hub([pickled(table)])
    found = unpacked(get_data("officehome", tmp_path / "OH", say=said.say))
    assert sorted(found.values()) == sorted(wanted.values()) and all(name.endswith(".jpg") for name in found)


def test_a_hub_file_that_is_not_the_published_one_is_refused(server, hub, said, tmp_path, pickles_for_parquet):
    table, _ = rows()
    hub([pickled(table)])
    (path,) = [p for p in server.files if p.endswith(".parquet")]
    server.files[path] = pickled(table[:3])
    with pytest.raises(DataProblem, match=r"data/train-0.parquet is refused: its sha256 is .*us recorded"):
        get_data("officehome", tmp_path / "OH", say=said.say)


def test_a_hub_that_holds_something_else_is_told(hub, said, tmp_path, pickles_for_parquet):
    table, _ = rows()
    hub([pickled(table.assign(domain="Real_World"))])
    with pytest.raises(DataProblem, match=r"holds Real_World/Alarm_Clock, which is no part of Office-Home"):
        get_data("officehome", tmp_path / "OH", say=said.say)


def test_a_hub_that_does_not_answer_is_told_with_what_to_do(server, hub, said, tmp_path, pickles_for_parquet):
    table, _ = rows()
    hub([pickled(table)])
    server.files.clear()
    with pytest.raises(DataProblem, match=r"Office-Home could not be fetched \(.*\): by hand, get OfficeHomeDataset_"):
        get_data("officehome", tmp_path / "OH", say=said.say)


def test_without_pyarrow_it_says_so_before_downloading(server, hub, said, tmp_path, monkeypatch):
    table, _ = rows()
    hub([pickled(table)])
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataProblem, match=r"pandas reads with pyarrow: pip install pyarrow\): by hand, get"):
        get_data("officehome", tmp_path / "OH", say=said.say)
    assert not server.log


def test_real_parquet_is_read(hub, said, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table, wanted = rows()
    out = io.BytesIO()
    table.to_parquet(out)
    hub([out.getvalue()])
    assert unpacked(get_data("officehome", tmp_path / "OH", say=said.say)) == wanted

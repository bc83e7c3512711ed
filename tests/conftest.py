"""Shared fixtures: a benchmark of coloured patterns in memory, one finished run on it, and PACS where it is at hand."""

import gc
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

# on shared cores more threads wait for each other; read when torch is imported, here and in every process a test starts
os.environ.setdefault("OMP_NUM_THREADS", "1")

import filelock
import numpy as np
import pytest
from PIL import Image

import wakd_kit as wk  # as good as nothing until a name of it is used: torch is imported by tests, not by who only starts workers
from wakd_kit import plugins

from . import forked

# a grammar of IRIs that jsonschema, which nbformat imports, does without where it is missing; it takes seconds to compile
sys.modules.setdefault("rfc3987_syntax", None)

gc.disable()  # until all is imported and collected, none of which is ever garbage

# who asks for one of these runs a study, a browser, another Python or a real benchmark
SLOW = {"finished", "chromium", "edited", "pacs_path"}
LISTED = Path(__file__).with_name("slow.txt")


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:  # one for all workers
        config.add_cleanup(forked.share().close)


@pytest.hookimpl(tryfirst=True)  # before -m "not slow" leaves them out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes long begins first: at the end workers take short tests from each other."""
    listed = {line for line in LISTED.read_text().splitlines() if not line.startswith("#")}
    names = {item: item.nodeid.partition("[")[0] for item in items}
    for item, name in names.items():
        if SLOW & set(item.fixturenames) or {name, name.partition("::")[0]} & listed:
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    whole = {str(Path(argument).resolve()) for argument in config.args} == {str(LISTED.parent)}
    if whole and (gone := listed - {*names.values(), *(name.partition("::")[0] for name in names.values())}):
        raise pytest.UsageError(f"{LISTED.name} names what is no test: {', '.join(sorted(gone))}")


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills once for all processes of a session: the first that asks does it, others wait for it.

    Nobody writes into it; a test that has to takes a copy.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made" / name
    folder.parent.mkdir(exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if not Path(f"{folder}.whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            Path(f"{folder}.whole").touch()
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Decoded data goes to a folder of this session, whatever the user's settings are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAKD_CACHE", str(once(tmp_path_factory, "cache", lambda folder: None)))
        patch.delenv("WAKD_WEIGHTS", raising=False)
        yield


@pytest.fixture(autouse=True)
def own_plugins(monkeypatch):
    """What a test names to the processes that it starts is named to none of another test."""
    monkeypatch.setenv(plugins.NAMED, "")


def one_image(n: int = 16) -> float:
    """By how much two accuracies on ``n`` images may differ that are of one network, computed in two ways: where two
    classes tie, the last bit decides. 16 are the validation images of a source domain."""
    return 1.001 / n


def patterns(domain: int, per_class: int = 20, classes: int = 4, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, side, side, 3) and labels (n,): a pattern per class, a colour per domain, noise per image."""
    pattern = np.random.default_rng(7).uniform(0, 1, (classes, side // 4, side // 4)).repeat(4, 1).repeat(4, 2)
    rng = np.random.default_rng([7, domain])
    labels = np.arange(per_class * classes) % classes
    colour = rng.uniform(0.3, 1, 3)
    images = 200 * pattern[labels][..., None] * colour + rng.normal(0, 25, (len(labels), side, side, 3))
    return images.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def domains():
    """Four domains of 80 images, 16 px, 4 classes."""
    arrays = {name: patterns(i) for i, name in enumerate(("north", "east", "south", "west"))}
    return wk.domains_from_arrays(arrays, ("a", "b", "c", "d"))


@pytest.fixture(scope="session")
def split(domains):
    return wk.leave_one_out(domains, "west", seed=0)


# of a resnet10t that tests train: two blocks of four, for a step takes as long as it has tensors
SMALL = {"channels": (4, 8, 8, 8), "stem_width": 4, "layers": (1, 1, 0, 0)}


@pytest.fixture(scope="session")
def run(split, tmp_path_factory):
    """A finished run of 24 steps in segments that end at steps 2, 4, 8, 12, ..., 24."""
    student = wk.build_model("resnet10t", split.classes, seed=0, **SMALL)
    return wk.train(
        student,
        split,
        steps=24,
        segment_length=4,
        batch_size=16,
        learning_rate=3e-2,
        batchnorm_batches=4,
        declare=[{"name": "wakd", "begin": 0.1}, "swad"],
        save_to=tmp_path_factory.mktemp("runs") / "student",
        device="cpu",
        progress=False,
    )


MEASURED = shutil.ignore_patterns("scores.csv", "choices.json", "predictions.npz", "window_map.csv")


@pytest.fixture(scope="session")
def bare(run, tmp_path_factory):
    """The folder of the finished run as training left it; nobody writes into it."""
    return shutil.copytree(run.folder, tmp_path_factory.mktemp("bare") / "copied", ignore=MEASURED)


@pytest.fixture
def copied(bare, split, tmp_path):
    """The finished run in a folder of its own, with nothing measured yet, for tests that write into it."""
    return wk.load_run(shutil.copytree(bare, tmp_path / "copied"), split=split)


@pytest.fixture(scope="session")
def pacs_path() -> Path:
    path = Path(os.environ.get("WAKD_DATA", "")) / "PACS"
    if not os.environ.get("WAKD_DATA") or not path.is_dir():
        pytest.skip("PACS is not here: set WAKD_DATA to the folder that holds PACS/")
    return path


TINY = """
name: tiny
title: A tiny study
about: Made by a test & nothing to learn from.
benchmark: folder:{images}
image_size: 16
targets: [north, east]
seeds: [0]
teacher: &short
  model: resnet10t
  model_settings: {{channels: [4, 8, 8, 8], stem_width: 4, layers: [1, 1, 0, 0]}}
  steps: 6
  segment_length: 2
  batch_size: 8
common: *short
students:
  KD: {{objectives: [{{name: kd}}]}}
strategies: [last, {{name: wakd, label: WAKD, begin: 0.5}}, {{name: swad, label: SWAD}}]
window_map: {{grid: 2, seeds: [0], students: [KD]}}
landscape: {{targets: [north], size: 3, radii: [1.0], directions: 2}}
"""


def small_images(folder: Path) -> Path:
    """A folder of three domains of two classes, 72 images of 16 px."""
    for i, domain in enumerate(("north", "east", "south")):
        for n, (image, label) in enumerate(zip(*patterns(i, per_class=12, classes=2))):
            file = folder / domain / "ab"[label] / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return folder


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory) -> str:
    """A study as YAML: three domains of two classes as 72 small images, one teacher and one student of 6 steps each."""
    return TINY.format(images=once(tmp_path_factory, "images", small_images))


@pytest.fixture(scope="session")
def finished(tiny_study, tmp_path_factory) -> Path:
    """The tiny study, run, its notebooks in this process: the folder that holds tiny.yaml, report/ and runs/. Of the
    students, whose figures are the same, one is drawn."""

    def make(folder: Path) -> None:
        from wakd_kit.reporting import execute as notebook
        from wakd_kit.reporting import render
        from wakd_kit.study.run import run_study

        from .notebooks import execute

        def drawn_once(source: Path, out: Path, *given, **settings) -> Path:
            with pytest.MonkeyPatch.context() as here:
                if out.stem == "east-s0-KD":
                    here.setattr(render, "show", lambda figure, alt, **_: None)
                return execute(source, out, *given, **settings)

        (folder / "tiny.yaml").write_text(tiny_study)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(notebook, "execute", drawn_once)
            folders = {"out": folder / "report", "runs": folder / "runs"}
            run_study(folder / "tiny.yaml", engine="sequential", say=lambda line: None, **folders)

    return once(tmp_path_factory, "study", make)


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium, one for the session; tests that need it are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    playwright.expect.set_options(timeout=60_000)  # of milliseconds, on a busy machine
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def look(chromium):
    """Opens a page in a browser: what it asked for beside itself, errors, (alt, pixels) of images, widths on screens."""

    def opened(page: Path) -> dict:
        view = chromium.new_page(viewport={"width": 1280, "height": 900})
        asked, errors = [], []
        view.on("request", lambda request: asked.append(request.url))
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        view.goto(page.as_uri(), wait_until="load")
        images = view.eval_on_selector_all("img", "all => all.map(i => [i.alt, i.naturalWidth])")
        widths = []
        for width in (1920, 1280, 400):
            view.set_viewport_size({"width": width, "height": 900})
            widths.append(view.evaluate("document.documentElement.scrollWidth"))
        view.close()
        assert page.as_uri() in asked
        asked = [url for url in asked if url != page.as_uri() and not url.startswith("data:")]
        return {"asked": asked, "errors": errors, "images": images, "widths": widths}

    return opened

"""Installed from a wheel, the kit works in an empty folder: its notebooks and studies are inside, reports land where one stands."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STUDY = """
benchmark: digits
targets: [sketch]
seeds: [0]
teacher:
students:
  CE: {objectives: [{name: ce}], teacher: null, model: resnet10t}
common: {model_settings: {channels: [4, 8, 8, 8], stem_width: 4, layers: [1, 1, 0, 0]}, steps: 2, segment_length: 1, batch_size: 8}
strategies: [last, {name: wakd, label: WAKD, begin: 1}]
landscape: {students: []}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built without a network from a copy of the checkout, where nothing of an older build lies about."""
    folder = tmp_path_factory.mktemp("wheel")
    source, kept = folder / "source", ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
    for name in ("wakd_kit", "notebooks", "reports"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in kept:
        shutil.copy(ROOT / name, source)
    said(sys.executable, "-m", "pip", "wheel", source, "--no-deps", "--no-build-isolation", "--no-index", "-w", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs the installed ``wakd`` in an empty folder; the environment has this one's libraries, and not this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    said(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    there = Path(said(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # the folder of libraries and not what its own .pth files add, among which is the editable install
    (there / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    (folder / "venv" / "share").symlink_to(Path(sys.prefix) / "share")  # nbconvert's templates
    (folder / "here").mkdir()

    def wakd(*words: str) -> str:
        return said(python, "-m", "wakd_kit", *words, cwd=folder / "here")

    def each(*commands: list[str]) -> list[list[str]]:
        """Several commands in one process, which imports torch once: the lines that each of them says."""
        code = (
            "import json, sys; from wakd_kit.cli import main\n"
            "for command in json.loads(sys.argv[1]): assert main(command) == 0; print(chr(12))"
        )
        *said_by, _ = said(python, "-c", code, json.dumps(commands), cwd=wakd.here).split("\f\n")
        return [lines.splitlines() for lines in said_by]

    wakd.each = each
    wakd.here, package = folder / "here", there / "wakd_kit"
    assert Path(said(python, "-c", "import wakd_kit; print(wakd_kit.__file__)", cwd=folder).strip()).parent == package
    files = contents(package)
    yield wakd
    assert contents(package) == files  # nothing is written there


def contents(package: Path) -> set[Path]:
    return {file for file in package.rglob("*") if "__pycache__" not in file.parts}


def said(*command: object, cwd: Path | None = None) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_holds_every_file_that_the_package_reads(wheel):
    held = {name.removeprefix("wakd_kit/") for name in zipfile.ZipFile(wheel).namelist()}
    tracked = {f.relative_to(ROOT / "wakd_kit").as_posix() for f in (ROOT / "wakd_kit").rglob("*") if f.is_file()}
    assert {name for name in tracked if "__pycache__" not in name} <= held
    assert {f"notebooks/{f.name}" for f in (ROOT / "notebooks").glob("*.ipynb")} <= held
    assert {f"reports/{f.name}" for f in (ROOT / "reports").glob("*.yaml")} <= held
    assert not [name for name in held if name.startswith(("tests", "reports/")) and not name.endswith(".yaml")]


@pytest.fixture(scope="module")
def commands(installed) -> dict[str, list[str]]:
    """What ``wakd report`` says of a study in the empty folder, and other commands in another process after it."""
    (installed.here / "two.yaml").write_text(STUDY)
    small = [
        "model=resnet10t",
        'model_settings={"channels": [4, 8, 8, 8], "stem_width": 4, "layers": [1, 1, 0, 0]}',
        "steps=2",
    ]
    small += ["segment_length=1", 'strategies=["last"]', 'deploy={"name": "last"}']
    given = [word for setting in small for word in ("-p", setting)]
    asked = {
        "list": ["list", "studies"],
        "notebook": ["notebook", "01_train_teacher", "teacher.ipynb", *given],
        "planned": ["report", "two.yaml", "--dry-run"],
        "status": ["status", "two.yaml"],
    }
    report = installed("report", "two.yaml", "--cores", "1").splitlines()
    return {"report": report, **dict(zip(asked, installed.each(*asked.values()), strict=True))}


def test_studies_and_notebooks_are_found_and_land_where_one_stands(installed, commands):
    listed = [line.split()[0] for line in commands["list"]]
    assert listed == sorted(f.stem for f in (ROOT / "reports").glob("*.yaml"))
    assert commands["notebook"][-1].endswith("teacher.html") and (installed.here / "teacher.html").is_file()
    assert (installed.here / "runs" / "explore" / "teacher" / "settings.json").is_file()


def test_a_study_is_run_in_an_empty_folder(installed, commands):
    assert "report: " in commands["report"][-1]
    assert "0 of 2 notebooks to do" in commands["planned"][-1] and "2 done" in "".join(commands["status"])
    for name in ("reports/two/index.html", "reports/index.html", "runs/two/sketch-s0/CE/scores.csv"):
        assert (installed.here / name).is_file(), name

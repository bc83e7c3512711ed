"""The project's own promises: one list of dependencies, notebooks without outputs, files that stay readable."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_file_installs_what_pyproject_declares():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    python = next(Requirement(d) for d in conda if d.startswith("python"))
    assert str(python.specifier) == PROJECT["requires-python"]
    # everything but Python itself comes through pip from pyproject, so names and bounds cannot drift apart
    assert {Requirement(d).name for d in conda} == {"python", "pip"}
    (editable,) = pip
    path, extras = re.fullmatch(r"-e (.+)\[(.+)\]", editable).groups()
    assert (ROOT / path).resolve() == ROOT
    assert set(extras.split(",")) == set(PROJECT["optional-dependencies"])
    assert environment["channels"][-1] == "nodefaults"


def test_every_dependency_has_a_lower_bound():
    extras = [d for group in PROJECT["optional-dependencies"].values() for d in group]
    for text in [*PROJECT["dependencies"], *extras]:
        assert any(s.operator == ">=" for s in Requirement(text).specifier), text


def test_the_lock_is_of_these_dependencies_and_names_the_public_index_alone():
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    (own,) = [package for package in lock["package"] if package["source"] == {"editable": "."}]
    asked = {(r.name, str(r.specifier)) for r in map(Requirement, PROJECT["dependencies"])}
    for group in PROJECT["optional-dependencies"].values():
        asked |= {(r.name, str(r.specifier)) for r in map(Requirement, group)}
    assert {(item["name"], item["specifier"]) for item in own["metadata"]["requires-dist"]} == asked, "uv lock"
    others = [package for package in lock["package"] if package is not own]
    assert {package["source"]["registry"] for package in others} == {"https://pypi.org/simple"}
    files = [file for package in others for file in [*package.get("wheels", []), *filter(None, [package.get("sdist")])]]
    assert all(file["url"].startswith("https://files.pythonhosted.org/packages/") for file in files)
    assert all(file["hash"].startswith("sha256:") for file in files)


def test_imports_are_declared():
    installed_as = {
        "sklearn": "scikit-learn",
        "PIL": "pillow",
        "yaml": "pyyaml",
        "curvlinops": "curvlinops-for-pytorch",
    }
    come_with = {
        "pillow": "torchvision",
        "ipython": "jupyterlab",
        "nbformat": "nbconvert",
        "nbclient": "papermill",
        "jinja2": "nbconvert",
        "ipykernel": "jupyterlab",
        "jupyter_client": "jupyterlab",
        "traitlets": "ipywidgets",
        "huggingface_hub": "timm",
        "contourpy": "matplotlib",
    }
    declared = {Requirement(d).name for d in PROJECT["dependencies"]}
    declared |= {name for name, parent in come_with.items() if parent in declared}
    for extra in ("onnx", "loggers", "trackio"):  # imported where they are used
        declared |= {Requirement(d).name for d in PROJECT["optional-dependencies"][extra]}
    found = set()
    for file in (ROOT / "wakd_kit").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {name.split(".")[0] for name in names}
    import sys

    third_party = {installed_as.get(n, n).lower() for n in found if n not in sys.stdlib_module_names}
    assert third_party - declared == set()


@pytest.mark.parametrize(
    "room", sorted(file.parent for file in (ROOT / "wakd_kit").glob("*/__init__.py")), ids=lambda r: r.name
)
def test_the_readme_names_every_file_of_a_room_beside_it(room):
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("```\nwakd_kit/")[1].split("```")[0]
    lines = tree.split(f"\n  {room.name}/")[1].split("/ ")[0]  # up to the next room
    files = {file.stem for file in room.glob("*.py")} - {"__init__"}
    assert files == files & set(lines.split()), (
        f"README's line of {room.name}/ lacks {sorted(files - set(lines.split()))}"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_are_committed_clean_and_only_call_the_package(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert "parameters" in code[0]["metadata"]["tags"]
    for cell in code:
        tree = ast.parse("".join(cell["source"]))
        assert not any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)) for node in ast.walk(tree))
    assert cells[0]["source"][0].startswith("# ") and "?" in cells[0]["source"][0]


def test_no_data_set_or_weights_are_committed():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    if tracked == [""]:
        pytest.skip("no git checkout")
    assert not [f for f in tracked if Path(f).suffix in (".jpg", ".jpeg", ".npy", ".pt", ".pth")]


def test_averaging_never_imports_torch():
    for file in (ROOT / "wakd_kit" / "averaging").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = (
                [n.name for n in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            )
            assert "torch" not in {name.split(".")[0] for name in names}, file.name

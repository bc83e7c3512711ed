"""Files of one's own that declare things: known to kernels and studies, and an edited one never answers with an old run."""

import subprocess
import sys

import pytest

from wakd_kit import fingerprints, plugins
from wakd_kit.averaging import Curves, strategies
from wakd_kit.models.build import build_model, declares
from wakd_kit.objectives import objectives
from wakd_kit.runs.identity import of_objectives
from wakd_kit.study.jobs import Place
from wakd_kit.study.places import StudyProblem
from wakd_kit.study.plan import plan
from wakd_kit.study.specification import load_study

PLUGIN = '''
import timm
import torch.nn.functional as F

from wakd_kit.averaging import Coefficients, strategies
from wakd_kit.objectives import objectives

SHARPER = 2.0


@objectives.declare(kind="logits", needs="labels", source="a test")
def sharp_loss(student, teacher, labels):
    """Cross-entropy of sharper logits."""
    return F.cross_entropy(SHARPER * student.logits, labels)


@strategies.register
def final_two(curves, **series):
    """The last two segments."""
    import numpy as np

    weights = np.zeros(len(curves))
    weights[-2:] = 0.5
    return Coefficients(weights, strategy="final_two", note="the last two")


@timm.models.register_model
def tiny_own(pretrained=False, **settings):
    """A model of one's own."""
    return timm.create_model("resnet10t", channels=(4, 8, 8, 8), stem_width=4, **settings)
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plugin's file; what it declares and names is gone after the test."""
    monkeypatch.setattr(plugins, "_loaded", {})
    for registry in (objectives, strategies):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(objectives, "_about", dict(objectives._about))
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    yield file
    sys.modules.pop("wakd_plugin_mine", None)


def test_what_a_plugin_declares_is_known_here_and_named_to_other_processes(plugin):
    assert "sharp_loss" not in objectives
    plugins.use(str(plugin))
    assert "sharp_loss" in objectives and strategies.get("final_two")(Curves([2, 2, 2])).tolist() == [0, 0.5, 0.5]
    assert build_model("tiny_own", 3, seed=0).spec["name"] == "tiny_own"
    assert declares("wakd_plugin_mine", "tiny_own") and not declares("wakd_plugin_mine", "resnet10t_w16")
    assert plugins.named() == [str(plugin)]


def test_a_module_that_is_not_timms_is_a_sentence_in_python_and_in_a_study(plugin):
    plugin.write_text("""
from timm.models import register_model
from torch import nn

class TinyNet(nn.Module):
    pass

@register_model
def tiny_net(pretrained=False, **settings):
    return TinyNet()
""")
    plugins.use(str(plugin))
    sentence = "build_model asks a TinyNet for 'feature_info', which it does not have.* in an Adapter"
    with pytest.raises(ValueError, match=sentence):
        build_model("tiny_net", 3)
    study = plugin.with_name("own.yaml")
    study.write_text(
        "benchmark: digits\nseeds: [0]\nplugins: [mine.py]\ncommon: {model: tiny_net}\n"
        "students: {A: {objectives: [ce]}}\nstrategies: [last]\n"
    )
    with pytest.raises(StudyProblem, match=sentence):
        plan(load_study(study), Place(plugin.parent / "report", plugin.parent / "runs"))


def test_a_folder_of_any_name_reaches_the_processes_that_are_started_from_here(plugin):
    file = plugin.parent / "a:b; c" / "mine.py"
    file.parent.mkdir()
    plugin.rename(file)
    plugins.use(str(file))
    asks = "from wakd_kit import plugins; plugins.load(); print(plugins.named())"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True)
    assert done.stdout.strip() == str([str(file)]), done.stderr


def test_one_that_is_named_by_hand_is_known(plugin, monkeypatch):
    monkeypatch.setenv(plugins.NAMED, str(plugin))
    plugins.load()
    assert "sharp_loss" in objectives and plugins.named() == [str(plugin)]


def test_an_edited_plugin_is_imported_again_and_is_another_objective(plugin):
    from wakd_kit.objectives import combine

    def code() -> str:
        return of_objectives(combine(["sharp_loss"]))["sharp_loss"]

    plugins.use(str(plugin))
    first, told = code(), fingerprints.of_plugins([str(plugin)])
    plugins.use(str(plugin))
    assert code() == first
    plugin.write_text("# a comment\n" + PLUGIN)
    plugins.use(str(plugin))
    assert code() == first and fingerprints.of_plugins([str(plugin)]) == told
    plugin.write_text(PLUGIN.replace("SHARPER = 2.0", "SHARPER = 3.0"))
    plugins.use(str(plugin))
    assert code() != first, "a number that the loss reads is part of it"
    assert fingerprints.of_plugins([str(plugin)]).keys() == told.keys() == {"plugin wakd_plugin_mine"}
    assert fingerprints.of_plugins([str(plugin)]) != told


def test_what_a_plugin_imports_is_its_code(tmp_path, monkeypatch):
    """Beside it by name or within its package, directly or through others; of libraries nothing."""
    monkeypatch.syspath_prepend(tmp_path)
    files = {
        "own_deep.py": "SLOPE = 0.1\n",
        "own_pack/__init__.py": "",
        "own_pack/layers.py": "def act(x):\n    from own_deep import SLOPE\n    return SLOPE * x\n",
        "own_pack/models.py": "import json, torch.nn\nfrom .layers import act\nfrom none import nothing\n",
        "own_file.py": "import own_pack.layers\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    named = ["own_pack.models", str(tmp_path / "own_file.py"), "own_pack"]

    def now() -> dict[str, str]:
        return fingerprints.of_plugins(named)

    first = now()
    assert now() == first and [*map(len, map(plugins.helpers, named))] == [2, 3, 1]
    assert len(first) == 6 and sum(name.startswith(fingerprints.IMPORTS) for name in first) == 3
    (tmp_path / "own_deep.py").write_text("# edited\nSLOPE = 0.1\n")
    assert now() == first
    (tmp_path / "own_deep.py").write_text("SLOPE = 0.90\n")
    changed = {name for name, digest in now().items() if digest != first[name]}
    assert changed == {name for name in first if name.startswith(fingerprints.IMPORTS)}
    (tmp_path / "own_pack/layers.py").write_text("from . import models\n")
    assert len(plugins.helpers("own_pack.models")) == 2, "with the package itself, and in a circle"
    for odd in (b"\xef\xbb\xbfx = 1\n", b"# -*- coding: latin-1 -*-\n# \xe9\n", b"print 'Python 2'\n", b"\xff\x00"):
        (tmp_path / "own_deep.py").write_bytes(odd)
        (tmp_path / "own_pack/layers.py").write_text("from own_deep import SLOPE\n")
        assert len({*now()}) == 6, "what its importer may catch is no reason to stop"
    assert not {"own_pack.layers", "own_pack.models", "own_deep"} & {*sys.modules}, "nothing is imported for it"


def test_an_edited_module_of_a_package_is_imported_again(plugin, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import losses\n")
    (package / "losses.py").write_text(PLUGIN.replace("tiny_own", "tiny_packed"))
    plugins.use("own_package")
    assert sys.modules["own_package.losses"].SHARPER == 2
    (package / "losses.py").write_text("# edited\n" + PLUGIN.replace("SHARPER = 2.0", "SHARPER = 3.0"))
    plugins.use("own_package")
    assert sys.modules["own_package"].losses.SHARPER == 3 and objectives.get("sharp_loss").__globals__["SHARPER"] == 3
    (package / "losses.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match="plugin own_package: ZeroDivisionError"):
        plugins.use("own_package")
    assert sys.modules["own_package"].losses.SHARPER == 3, "what was there stays"
    for name in ("no_package.losses", "own_package.losess"):
        with pytest.raises(FileNotFoundError, match=f"No plugin at {name}"):
            plugins.use(name)
    (package / "__init__.py").write_text("import nothing_of_that_name\n")
    for module in ("own_package", "own_package.losses"):
        sys.modules.pop(module)
    with pytest.raises(
        ValueError, match=r"plugin own_package\.losses: ModuleNotFoundError: No module named .nothing_of"
    ):
        plugins.use("own_package.losses")


def test_a_study_names_its_plugins_beside_its_file(plugin):
    study = plugin.with_name("own.yaml")
    study.write_text(
        "seeds: [0]\nstudents: {A: {objectives: [{name: sharp_loss}]}}\nstrategies: [last, final_two]\nplugins: [mine.py]\n"
    )
    assert load_study(study).plugins == [str(plugin)] and "sharp_loss" in objectives
    assert plugins.named() == [], "to its own jobs, and not to those of the next study"
    study.write_text(study.read_text().replace("mine.py", "others.py"))
    with pytest.raises(StudyProblem, match=r"own\.yaml: No plugin at .*others\.py\. It is a file that ends in \.py"):
        load_study(study)


def test_a_plugin_that_cannot_be_imported_is_a_sentence(plugin):
    plugin.write_text("import nothing_of_that_name\n")
    with pytest.raises(
        ValueError, match=r"plugin .*mine\.py: ModuleNotFoundError: No module named 'nothing_of_that_name'"
    ):
        plugins.use(str(plugin))
    assert plugins.named() == [] and "wakd_plugin_mine" not in sys.modules
    with pytest.raises(FileNotFoundError, match="No plugin at no_such_module_at_all"):
        plugins.use("no_such_module_at_all")
    plugin.write_text("import sys\n\nsys.exit('no accelerator')\n")
    with pytest.raises(ValueError, match=r"plugin .*mine\.py: SystemExit: no accelerator"):
        plugins.use(str(plugin))


def test_who_uses_none_imports_none_of_those_that_the_environment_names(plugin, monkeypatch):
    monkeypatch.setenv(plugins.NAMED, str(plugin.with_name("gone.py")))
    plugins.use()
    assert plugins.known() == plugins.named() == [str(plugin.with_name("gone.py"))]


def test_a_kernel_knows_what_the_study_s_plugin_declares(plugin, tmp_path):
    import nbformat

    from wakd_kit.reporting import execute

    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("from wakd_kit.objectives import get\nprint(get('sharp_loss').__module__)")]
    )
    nbformat.write(book, tmp_path / "asks.ipynb")
    done, told = tmp_path / "done.ipynb", plugins.naming(str(plugin))
    assert "wakd_plugin_mine" in execute.execute(tmp_path / "asks.ipynb", done, checked=True, env=told).read_text()
    assert plugins.named() == [], "only to that kernel"
    # what fails before the first cell is said by it
    plugin.write_text("import nothing_of_that_name\n")
    with pytest.raises(execute.NotebookFailed, match=r"In \[1\], ValueError: plugin .*mine\.py: ModuleNotFoundError"):
        execute.execute(tmp_path / "asks.ipynb", done, checked=True, env=told)
    plugin.unlink()
    with pytest.raises(
        execute.NotebookFailed, match=r"In \[1\], FileNotFoundError: No plugin at .*mine\.py\. It is a file"
    ):
        execute.execute(tmp_path / "asks.ipynb", done, checked=True, env=told)

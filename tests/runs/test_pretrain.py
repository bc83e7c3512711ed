"""Backbones are pretrained by one command, their files are what their cards say, and models start from them."""

import json
import shutil

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import wakd_kit as wk
from wakd_kit.cli import main
from wakd_kit.evaluation.export import export
from wakd_kit.models import weights as pretrained
from wakd_kit.models.weights import SMALL
from wakd_kit.objectives import combine
from wakd_kit.runs.pretrain import RECIPES, pretrain, write_weights
from wakd_kit.study.jobs import Place
from wakd_kit.study.places import StudyProblem
from wakd_kit.study.plan import plan
from wakd_kit.study.specification import load_study

from ..conftest import patterns

NAME = "resnet10t_w16.px32"
WORDS = {"data": "patterns", "licence": "none needed"}


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Two class folders of 24 images."""
    root = tmp_path_factory.mktemp("classes")
    for n, (image, label) in enumerate(zip(*patterns(0, per_class=24, classes=2))):
        (root / "ab"[label]).mkdir(exist_ok=True)
        Image.fromarray(image).save(root / "ab"[label] / f"{n}.png")
    return root


def few(classes, folder):
    return pretrain(NAME, classes, save_to=folder, steps=4, segment_length=2, batch_size=8, warmup=1)


@pytest.fixture(scope="module")
def run(classes, tmp_path_factory):
    return few(classes, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def weights(run, tmp_path, monkeypatch):
    """The folder of shipped weights, with one that four steps made."""
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    monkeypatch.delenv("WAKD_WEIGHTS", raising=False)
    return write_weights(run, NAME, tmp_path / "weights", **WORDS), tmp_path / "weights"


def test_the_same_call_makes_the_same_weights_and_accepts_what_it_finished(run, classes, tmp_path):
    first, second = (r.average(wk.averaging.last(r.source_curves)) for r in (run, few(classes, tmp_path / "again")))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert len(first) > 40 and few(classes, tmp_path / "again").steps == 4


def test_a_tenth_of_each_class_is_held_out_and_no_domain_is_left_out(run):
    assert run.settings["split"]["target"] is None
    assert len(run.split.val["images"]) == 4 and len(run.split.train["images"]) == 44


def test_the_card_describes_the_file(weights, run):
    card, folder = weights
    file = folder / f"{NAME}.safetensors"
    assert card == json.loads((folder / f"{NAME}.safetensors.json").read_text())
    assert (card["sha256"], card["bytes"]) == (pretrained.sha256(file), file.stat().st_size)
    tensors = load_file(file)
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    model = wk.build_model("resnet10t_w16", 2, weights=file)
    expected = wk.evaluate_model(model, run.split).iloc[0]
    assert card["held_out"] == {m: pytest.approx(expected[m]) for m in ("accuracy", "nll", "ece", "n")}
    assert card["input"]["size"] == 32 and card["input"]["mean"] == pytest.approx(model.mean.flatten().tolist())
    assert card["recipe"]["steps"] == 4 and card["data"]["what"] == "patterns" and card["environment"]["seconds"] > 0
    assert (
        str(run.folder) not in json.dumps(card) and "/" not in card["data"]["what"]
    )  # no path of the machine it was made on


def test_a_model_starts_from_shipped_weights_and_says_so(weights, split, tmp_path):
    card, folder = weights
    model = wk.build_model(NAME, 5, pretrained=True, seed=0)
    shipped = load_file(folder / f"{NAME}.safetensors")
    for key, value in model.model.state_dict().items():
        if not key.startswith("fc."):
            torch.testing.assert_close(value, shipped[key].to(value.dtype), rtol=0, atol=0)
    assert model.spec["started_from"] == f"shipped {NAME} (SHA-256 {card['sha256'][:12]})"
    assert wk.build_model("resnet10t_w16", 5, pretrained=True).spec["started_from"] == model.spec["started_from"]
    scratch = wk.build_model(NAME, 5, seed=0)  # the name alone is the architecture
    assert "started_from" not in scratch.spec and not torch.equal(
        scratch.model.conv1[0].weight, model.model.conv1[0].weight
    )


def test_a_run_says_what_it_started_from_and_is_read_without_the_file(weights, split, tmp_path):
    student = wk.build_model(NAME, split.classes, pretrained=True, input_size=32, seed=0)
    run = wk.train(
        student, split, steps=2, segment_length=1, batch_size=8, batchnorm="frozen", save_to=tmp_path / "run"
    )
    assert f"started from shipped {NAME}" in run.summary()
    shutil.rmtree(weights[1])
    again = wk.load_run(tmp_path / "run").model(wk.averaging.last(run.source_curves), split=split)
    assert torch.equal(
        again.model.fc.weight, run.average(wk.averaging.last(run.source_curves), split=split)["model.fc.weight"]
    )


def test_statistics_that_are_frozen_are_the_pretrained_ones_in_training_averages_and_after_export(
    weights, split, tmp_path
):
    """The paper's policy, end to end: neither training nor averaging touches what the backbone was pretrained with."""
    student = wk.build_model(NAME, split.classes, pretrained=True, input_size=32, seed=0)
    run = wk.train(student, split, steps=4, segment_length=1, batch_size=8, batchnorm="frozen", save_to=tmp_path / "r")
    shipped = {n: t.float() for n, t in load_file(weights[1] / f"{NAME}.safetensors").items()}
    window = wk.averaging.window(run.source_curves, begin=1, end=4)
    export(run, window, tmp_path / "student.safetensors", split=split, scores=False)
    averaged = {n.removeprefix("model."): t for n, t in run.average(window, split=split).items()}
    running = [n for n in shipped if "running" in n]
    assert running
    for state in (averaged, load_file(tmp_path / "student.safetensors")):
        assert all(torch.equal(state[n], shipped[n]) for n in running)
        assert not torch.equal(state["conv1.0.weight"], shipped["conv1.0.weight"])


def test_images_of_another_size_than_it_was_pretrained_at_are_a_sentence(weights, split, tmp_path):
    side = split.domains.size
    assert side != 32
    student = wk.build_model(NAME, split.classes, pretrained=True)
    resized = wk.build_model(NAME, split.classes, pretrained=True, input_size=48)  # to a third size
    own = wk.build_model(
        "resnet10t_w16", split.classes, weights=weights[1] / f"{NAME}.safetensors"
    )  # its card beside it
    for model, seen in ((student, side), (resized, 48), (own, side)):
        with pytest.raises(ValueError, match=rf"was pretrained at 32 px and would see {seen} px\. .*input_size=32"):
            wk.train(model, split, steps=2, save_to=tmp_path / "run")


def test_a_file_that_is_not_the_one_of_its_card_is_refused(weights):
    file = weights[1] / f"{NAME}.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"is not the file of its card: its SHA-256 is .*Install wakd_kit again"):
        wk.build_model(NAME, 5, pretrained=True)
    file.unlink()
    with pytest.raises(ValueError, match="does not lie beside its card"):
        wk.build_model(NAME, 5, pretrained=True)


def test_a_size_that_does_not_ship_is_told_those_that_do(weights):
    _, folder = weights
    with pytest.raises(ValueError, match=rf"Unknown pretrained weights 'resnet10t_w16.px48'. Did you mean '{NAME}'\?"):
        wk.build_model("resnet10t_w16.px48", 5, pretrained=True)
    for file in folder.iterdir():
        shutil.copy(file, folder / file.name.replace("px32", "px64"))
    with pytest.raises(ValueError, match=r"Known: resnet10t_w16.px32, resnet10t_w16.px64. The ending is the size"):
        wk.build_model("resnet10t_w16", 5, pretrained=True)
    with pytest.raises(ValueError, match=r"none ship with the kit\. Pass weights='FILE', or make them: wakd pretrain"):
        wk.build_model("vit_d64", 5, pretrained=True)


def test_a_folder_of_ones_own_comes_before_the_hub(weights, tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    torch.save(wk.build_model("resnet10t", 7, seed=3).model.state_dict(), own / "resnet10t.pth")
    monkeypatch.setenv("WAKD_WEIGHTS", str(own))
    model = wk.build_model("resnet10t", 5, pretrained=True)
    said = f"resnet10t.pth in WAKD_WEIGHTS (SHA-256 {pretrained.sha256(own / 'resnet10t.pth')[:12]})"
    assert model.spec["started_from"] == said and "pretrained_size" not in model.spec
    torch.testing.assert_close(
        model.model.conv1[0].weight, wk.build_model("resnet10t", 7, seed=3).model.conv1[0].weight
    )


def test_a_shipped_name_in_ones_own_folder_is_no_silent_choice(weights, tmp_path, monkeypatch):
    own = tmp_path / "own"
    shutil.copytree(weights[1], own)
    monkeypatch.setenv("WAKD_WEIGHTS", str(own))
    assert wk.build_model(NAME, 5, pretrained=True).spec["started_from"].startswith("shipped")  # the same file
    (own / f"{NAME}.safetensors").write_bytes(b"of my own")
    with pytest.raises(
        ValueError, match=rf"{NAME} ships with the kit, and {NAME}\.safetensors in WAKD_WEIGHTS is another"
    ):
        wk.build_model(NAME, 5, pretrained=True)


def test_weights_that_saw_images_normalised_otherwise_are_refused(weights):
    card, folder = weights
    card["input"]["mean"] = [0.5, 0.5, 0.5]
    (folder / f"{NAME}.safetensors.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"normalised with mean \[0\.5 0\.5 0\.5\], and this timm gives it \[0\.485"):
        wk.build_model(NAME, 5, pretrained=True)


def test_a_file_of_ones_own_is_known_by_what_is_in_it(weights, tiny_study, tmp_path):
    file = tmp_path / "own.safetensors"
    shutil.copy(weights[1] / f"{NAME}.safetensors", file)
    values = yaml.safe_load(tiny_study) | {"window_map": {}, "landscape": {"students": []}}
    values["students"] = {"KD": {"model": "resnet10t_w16", "model_settings": {}, "weights": str(file)}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))

    def planned() -> str:
        return plan(load_study(tmp_path / "tiny.yaml"), Place(tmp_path / "report", tmp_path / "runs"))[1].given[
            "weights"
        ]

    first = planned()
    assert first == f"own.safetensors (SHA-256 {pretrained.sha256(file)[:12]})"
    assert wk.build_model("resnet10t_w16", 5, weights=file).spec["started_from"] == first
    state = load_file(file)
    save_file({name: 2 * tensor for name, tensor in state.items()}, file)
    assert planned() != first  # so what was recorded from the other file is out of date


def problems_of(found: dict[str, dict], *, held_out: int) -> list[str]:
    """What of a folder of weights does not fit its cards, its models or the package."""
    problems = [f"{name} has no recipe" for name in found if name not in RECIPES]
    if sum(card["bytes"] for card in found.values()) > 12e6:
        problems.append("more than 12 MB")
    for name, card in found.items():
        wk.build_model(
            name, 7, pretrained=True
        )  # which refuses another file than the card's, and another normalisation
        if name != f"{card['model']['name']}.px{card['input']['size']}":
            problems.append(f"{name} is called otherwise on its card")
        recipe = {"seed": 0, **RECIPES[name].training(card["data"]["training_images"])}
        recipe["objectives"] = combine(recipe["objectives"]).specs
        differ = [setting for setting, value in card["recipe"].items() if value != recipe[setting]]
        if differ:
            problems.append(f"{name} was trained otherwise than by its recipe: {', '.join(differ)}")
        if card["held_out"]["n"] < held_out:
            problems.append(f"{name} was tested on {card['held_out']['n']} images")
        if any(word in json.dumps(card) for word in ("/home", "/work", "/tmp", "/root")):
            problems.append(f"{name} names a path")
    return problems


def test_a_card_that_does_not_fit_is_found(weights):
    card, folder = weights
    short = f"{NAME} was trained otherwise than by its recipe: steps, batch_size"
    assert problems_of(pretrained.shipped(), held_out=4) == [short]
    assert problems_of(pretrained.shipped(), held_out=1000) == [short, f"{NAME} was tested on 4 images"]
    card["model"]["name"], card["data"]["what"], card["bytes"] = "resnet18", "/home/me/images", 20_000_000
    (folder / f"{NAME}.safetensors.json").write_text(json.dumps(card))
    assert problems_of(pretrained.shipped(), held_out=4) == [
        "more than 12 MB",
        f"{NAME} is called otherwise on its card",
        short,
        f"{NAME} names a path",
    ]


def test_what_ships_is_what_its_card_says_and_fits_its_model():
    if not pretrained.shipped():
        pytest.skip("no weights ship with the package yet")
    assert problems_of(pretrained.shipped(), held_out=1000) == []


def test_recipes_are_of_small_models_and_an_unknown_one_is_told_the_nearest():
    for name, recipe in RECIPES.items():
        assert name == f"{recipe.model}.px{recipe.size}" and recipe.model in SMALL
        settings = recipe.training(36_000)
        assert settings["steps"] == round(recipe.epochs * 36_000 / recipe.batch_size) > 10 * settings["warmup"]
        short = recipe.training(36_000, steps=20)
        assert (short["steps"], short["segment_length"], short["warmup"]) == (20, 1, 1)
    with pytest.raises(ValueError, match=r"Unknown recipe 'resnet10t_w16.px46'. Did you mean 'resnet10t_w16.px64'\?"):
        pretrain("resnet10t_w16.px46", "nowhere")


def test_a_study_knows_its_weights_before_anything_runs(weights, tiny_study, tmp_path):
    def planned(model, size=32):
        values = yaml.safe_load(tiny_study) | {"image_size": size, "window_map": {}, "landscape": {"students": []}}
        values["students"] = {"KD": {"model": model, "model_settings": {}, "pretrained": True}}
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
        return plan(load_study(tmp_path / "tiny.yaml"), Place(tmp_path / "report", tmp_path / "runs"))

    teacher, student = planned(NAME)[:2]
    assert student.given["weights"] == f"shipped {NAME} (SHA-256 {weights[0]['sha256'][:12]})"
    assert "weights" not in teacher.given  # what starts from scratch does not depend on what ships
    with pytest.raises(StudyProblem, match="was pretrained at 32 px and would see 48 px"):
        planned(NAME, size=48)
    with pytest.raises(StudyProblem, match=r"KD: Unknown pretrained weights 'resnet10t_w16\.px48'"):
        planned("resnet10t_w16.px48")
    with pytest.raises(ValueError, match=r"Unknown model 'resnet10t_w16\.small'"):
        wk.build_model("resnet10t_w16.small", 5)


def test_a_batch_of_another_size_is_as_many_epochs(classes, monkeypatch):
    asked = []
    monkeypatch.setattr("wakd_kit.runs.pretrain.train", lambda *_, **settings: asked.append(settings))
    for size in (8, 4):
        pretrain(NAME, classes, batch_size=size)
    long, twice = asked
    assert twice["steps"] == 2 * long["steps"] and twice["warmup"] > long["warmup"]


def test_one_command_pretrains_and_writes(classes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["pretrain", NAME, str(classes), "steps=2", "segment_length=1", "batch_size=8", "warmup=1"]
    assert main([*command, "--to", "out", "--data", "patterns", "--licence", "none"]) == 0
    said = capsys.readouterr().out
    assert "runs/pretrain/resnet10t_w16.px32" in said and "2 classes after 2 steps of 8" in said
    assert (tmp_path / "out" / f"{NAME}.safetensors").is_file()
    assert main(["pretrain", "resnet10t_w16.px46", str(classes)]) == 2
    assert "Did you mean" in capsys.readouterr().err
    assert main(["pretrain", NAME, str(classes), "learning_rat=1"]) == 2
    assert "Unknown setting of train 'learning_rat'. Did you mean 'learning_rate'?" in capsys.readouterr().err

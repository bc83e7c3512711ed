"""run.average against one-hot parameters, for every registered strategy, whatever the parameters are called."""

import json
import random
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import wakd_kit as wk
from wakd_kit import files
from wakd_kit.averaging import strategies
from wakd_kit.cli import main
from wakd_kit.explorer import pages
from wakd_kit.runs.run import FORMAT, Run
from wakd_kit.runs.store import RunProblem, Segments, read_state

from ..conftest import SMALL, patterns, small_images

SEGMENTS = 24
SETTINGS = {
    "wakd": {"begin": 0.25},
    "sma": {"start": 8},
    "swa": {"start": 0.5},
    "eoa_wakd_repo": {"begin": 9, "frequency": 8},
}


def one_hot_run(folder, *, storage="float32", names=("a.weight", "b.bias")):
    """A run whose segment k has mean e_k and last iterate e_k in either tensor, and initial parameters -1."""
    folder.mkdir()
    eye = torch.eye(SEGMENTS)
    # uneven segments, among them one of a single iterate at step 9, where eoa_wakd_repo wants to begin
    iterates = [4, 4, 1] + [3] + [4] * (SEGMENTS - 4)
    ends = np.cumsum(iterates)
    segments = Segments.create(folder / "segments", {n: -torch.ones(SEGMENTS) for n in names}, storage)
    for k, (count, end) in enumerate(zip(iterates, ends)):
        state = {n: eye[k].clone() for n in names}
        segments.append(state, state, int(end - count + 1), int(end))
    loss = 0.4 + np.abs(np.arange(SEGMENTS) - 9) * 0.02
    table = pd.DataFrame(
        {"step": ends, "iterates": iterates, "train_loss": loss, "val_loss/s": loss, "val_kd_loss": loss}
    )
    table["val_accuracy/s"], table["val_loss_pooled"] = 1 - loss, loss
    table.to_csv(folder / "curves.csv", index=False)
    settings = {"format": FORMAT, "storage": storage, "batchnorm": "average", "steps": int(ends[-1]), "seed": 0}
    settings |= {"split": {"sources": ["s"], "target": "t"}, "student": {"name": "none"}}
    (folder / "settings.json").write_text(json.dumps(settings))
    return wk.load_run(folder)


def chosen(run, name):
    slope = np.linspace(1, -1, SEGMENTS)
    evaluations = {
        "score": lambda c: 0.6 + 0.01 * float(np.asarray(c) @ slope),
        "loss_and_gradient": lambda c: (1 + float(np.asarray(c) @ slope), slope),
        "held_out_loss": lambda c: 1 + float(np.asarray(c) @ slope),
    }
    (coefficients,) = wk.averaging.choose(
        run.source_curves, [{"name": name, **SETTINGS.get(name, {})}], **evaluations
    ).values()
    assert not isinstance(coefficients, Exception), coefficients
    return coefficients


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return one_hot_run(tmp_path_factory.mktemp("onehot") / "run")


@pytest.mark.parametrize("name", strategies)
def test_one_hot_parameters_reveal_the_coefficients(run, name):
    coefficients = chosen(run, name)
    for tensor in run.average(coefficients).values():
        assert np.allclose(tensor.numpy(), sum(coefficients.parts.values()) - coefficients.initial, atol=1e-6)


@pytest.mark.parametrize("name", strategies)
def test_what_parameters_are_called_changes_nothing(run, name, tmp_path):
    shuffled = random.Random(0).sample(["z", "m.0", "a", "k.k"], 4)
    other = one_hot_run(tmp_path / "run", names=tuple(shuffled))
    a, b = chosen(run, name), chosen(other, name)
    assert np.array_equal(a, b)
    first = next(iter(run.average(a).values()))
    assert all(torch.equal(first, tensor) for tensor in other.average(b).values())


@pytest.mark.parametrize("keep", [5, 11, 23])
def test_merged_storage_holds_windows_with_kept_edges_exactly(tmp_path, keep):
    run = one_hot_run(tmp_path / "run")
    edge = int(run.table["step"][keep])
    run.segments.shrink(4, keep={edge})
    merged = Run(run.folder)
    assert len(merged.segments) <= 5 and edge in merged.segments.edges
    if keep < SEGMENTS - 1:
        window = wk.averaging.window(run.source_curves, begin=edge)
        assert np.allclose(merged.average(window, exact=True)["b.bias"].numpy(), window, atol=1e-7)
    uniform = wk.averaging.uniform(run.source_curves)
    assert np.allclose(merged.average(uniform, exact=True)["b.bias"].numpy(), uniform, atol=1e-7)
    first = wk.averaging.Coefficients(np.eye(SEGMENTS)[0])
    with pytest.raises(RunProblem):
        merged.average(first, exact=True)


def test_half_precision_differences_read_back_close(tmp_path):
    run = one_hot_run(tmp_path / "run", storage="float16_difference")
    uniform = wk.averaging.uniform(run.source_curves)
    assert np.allclose(run.average(uniform)["a.weight"].numpy(), uniform, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.ones(3) / 3, "3 coefficients for 24 segments"),
        (np.ones(SEGMENTS), "sum to 1; got sum 24"),
        (np.r_[-1, 2, np.zeros(SEGMENTS - 2)], "non-negative"),
        (np.full(SEGMENTS, np.nan), "sum to 1"),
    ],
)
def test_coefficients_that_are_none_are_refused(run, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        run.average(values)


def test_deployed_coefficients_come_back_as_they_were(tmp_path):
    run = one_hot_run(tmp_path / "run")
    assert np.array_equal(run.deployed, wk.averaging.last(run.source_curves)) and run.deployed.of == "end"
    wanted = wk.averaging.wise_ft(run.source_curves, alpha=0.25)
    run.deploy(wanted)
    again = wk.load_run(run.folder).deployed
    assert np.array_equal(again, wanted) and (again.of, again.initial, again.note) == (
        wanted.of,
        wanted.initial,
        wanted.note,
    )
    run.withdraw()
    assert np.array_equal(wk.load_run(run.folder).deployed, wk.averaging.last(run.source_curves))
    run.withdraw()


def test_half_precision_refuses_what_would_multiply_its_rounding(tmp_path):
    run = one_hot_run(tmp_path / "run", storage="float16_difference")
    far = wk.averaging.extrapolate(run.source_curves, amount=15)
    with pytest.raises(RunProblem, match=r"31 in absolute sum, and run is stored in half precision.*beyond 20"):
        run.average(far)
    run.average(wk.averaging.extrapolate(run.source_curves, amount=5))


def test_a_summary_is_computed_from_the_recording(split, tmp_path):
    model = wk.build_model("resnet10t_w16", split.classes, seed=0)
    settings = {"steps": 12, "segment_length": 2, "batch_size": 8, "most_stored": 4, "declare": [], "edges": [2]}
    run = wk.train(model, split, save_to=tmp_path / "run", progress=False, device="cpu", **settings)
    run.table["seconds"] = 2.0
    run.segments.index.pop()  # as if two had been merged
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    sentence = run.summary()
    assert sentence.startswith(
        f"resnet10t_w16 ({millions:.2f} million parameters): 12 steps of 8 images in 12 s, 8 images"
    )
    size = sum(f.stat().st_size for f in run.folder.rglob("*") if f.is_file()) / 1e6
    assert sentence.endswith(f"6 segments recorded, stored as {len(run.segments)}, {size:.1f} MB on disk.")


def test_choices_are_remembered_with_their_reasons(tmp_path):
    run = one_hot_run(tmp_path / "run")
    run.remember_choices({"a": wk.averaging.wakd(run.source_curves), "b": wk.averaging.NoWindow("because")})
    run.remember_choices({"a": wk.averaging.last(run.source_curves)})
    assert run.choices["a"].of == "end" and str(run.choices["b"]) == "because"


def test_a_teacher_without_a_window_is_not_deployed_as_something_else(tmp_path):
    run = one_hot_run(tmp_path / "run")
    with pytest.raises(wk.averaging.NoWindow, match="because"):
        run.deploy(wk.averaging.NoWindow("because"))
    assert not (run.folder / "deployed.json").exists()


def test_a_curve_that_was_not_recorded_is_an_outcome_and_an_unknown_one_an_error(run):
    alone = wk.averaging.Curves([1, 1, 1], val_loss=[3, 1, 2])
    (choice,) = wk.averaging.choose(alone, [{"name": "swad", "loss": "val_kd_loss"}]).values()
    assert isinstance(choice, wk.averaging.NoWindow) and "no 'val_kd_loss' curve; it has val_loss" in str(choice)
    with pytest.raises(ValueError, match="Did you mean 'val_loss'"):
        wk.averaging.choose(alone, [{"name": "swad", "loss": "val_los"}])


class Own(nn.Module):
    """A student of one's own, whose parameters are called body.weight and body.bias."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)

    def forward(self, images):
        return self.body(images.mean((2, 3)))


def quick(student, split, folder, **settings):
    known = {
        "steps": 4,
        "segment_length": 2,
        "batch_size": 8,
        "batchnorm_batches": 2,
        "device": "cpu",
        "progress": False,
    }
    return wk.train(student, split, save_to=folder, **{**known, **settings})


def tiny(split, **settings):
    return wk.build_model("resnet10t", len(split.classes), seed=0, **SMALL, **settings)


@pytest.fixture(scope="module")
def own(split, tmp_path_factory):
    return quick(Own(), split, tmp_path_factory.mktemp("own") / "run")


def test_an_own_module_comes_back_as_the_sentence_says(own, split, tmp_path):
    last = wk.averaging.last(own.source_curves)
    with pytest.raises(RunProblem, match=r"template=model\) with one built the same way"):
        wk.load_run(own.folder, split=split).model(last)
    again = wk.load_run(own.folder, split=split, template=Own()).model(last)
    expected = own.model(last)
    assert isinstance(again.model, Own)
    with pytest.raises(RunProblem, match=r"template is no student of .*Build it the same way"):
        wk.load_run(own.folder, split=split, template=tiny(split))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), expected.parameters(), strict=True))
    wk.export(own, last, tmp_path / "own.safetensors", split=split, scores=False)
    Own().load_state_dict(read_state(tmp_path / "own.safetensors"))
    loaded = wk.load_run(own.folder, split=split, template=Own())
    wk.window_map(loaded, grid=2)
    assert pages.page(loaded, tmp_path / "own.html").is_file()
    with pytest.raises(ValueError, match=r"export it as \.safetensors or \.onnx\.$"):
        wk.export(own, last, tmp_path / "own", split=split, scores=False)
    taught = quick(tiny(split), split, tmp_path / "taught", objectives="kd", teacher=again)
    assert taught.settings["teacher"]["run"] == "run"


def test_what_becomes_of_the_students_module_later_is_nothing_to_its_run(split, tmp_path):
    student = tiny(split)
    run = quick(student, split, tmp_path / "run")
    x = torch.rand(2, 3, 16, 16)
    before = run.model()(x).logits
    with torch.no_grad():
        student.mean.add_(0.5)
        for tensor in student.state_dict().values():
            tensor.zero_()
    student.model.fc = nn.Linear(8, 9)
    assert torch.equal(run.model()(x).logits, before)
    kept = {id(tensor) for tensor in (*run.blank_model().parameters(), *run._template.parameters())}
    assert not kept & {id(tensor) for tensor in student.parameters()}
    assert {p.device.type for p in run._template.parameters()} == {"meta"}, "a run keeps no network in memory"


def test_tied_parameters_stay_tied(split, tmp_path):
    class Tied(Own):
        def __init__(self):
            super().__init__()
            self.again = self.body

    run = quick(Tied(), split, tmp_path / "run")
    model = run.model().model
    assert model.again.weight is model.body.weight and model.body.weight.requires_grad


def test_a_loaded_run_averages_as_a_fresh_one_and_draws_nothing(split, tmp_path):
    run = quick(tiny(split), split, tmp_path / "run")
    loaded = wk.load_run(run.folder, split=split)
    before = torch.get_rng_state()
    uniform = wk.averaging.uniform(run.source_curves)
    fresh, again = run.average(uniform), loaded.average(uniform)
    assert torch.equal(torch.get_rng_state(), before)
    assert [name for name in fresh if not torch.equal(fresh[name], again[name])] == []
    formats = [
        p.is_contiguous(memory_format=torch.channels_last) for p in loaded.blank_model().parameters() if p.ndim == 4
    ]
    assert all(formats) and formats


@pytest.mark.parametrize("precision", [np.float16, np.float32, np.float64])
def test_coefficients_in_any_precision_are_used_kept_and_read_back(tmp_path, precision):
    run = one_hot_run(tmp_path / "run")
    weights = np.random.default_rng(0).uniform(0.1, 1, SEGMENTS)
    given = (weights / weights.sum()).astype(precision)
    exact = given.astype(np.float64) / given.astype(np.float64).sum()
    assert np.allclose(run.average(given)["b.bias"].numpy(), exact, atol=1e-7)
    run.remember_choices({"mine": given})
    run.deploy(given)
    for read in (run.choices["mine"], run.deployed):
        assert np.allclose(read, exact, atol=1e-12) and abs(read.sum() - 1) < 1e-9
    with pytest.raises(ValueError, match="sum to 1"):
        run.average(given * precision(0.99))


def test_a_run_that_was_poisoned_by_single_precision_is_read_again(tmp_path):
    run = one_hot_run(tmp_path / "run")
    poisoned = {"values": np.full(SEGMENTS, (1 + 5e-7) / SEGMENTS).tolist()}
    (run.folder / "choices.json").write_text(json.dumps({"mine": poisoned}))
    (run.folder / "deployed.json").write_text(json.dumps(poisoned))
    assert np.allclose(run.choices["mine"], 1 / SEGMENTS) and np.allclose(run.deployed, 1 / SEGMENTS)


def test_a_kept_average_answers_for_its_own_settings_alone(split, tmp_path):
    declare = [{"name": "ema", "decay": 0.5}]
    run = quick(Own(), split, tmp_path / "run", steps=120, segment_length=60, declare=declare, learning_rate=0.1)
    curves = run.source_curves
    kept = read_state(run.folder / "running" / "0.safetensors")["model.body.weight"]

    def averaged(coefficients):
        return run.average(coefficients)["model.body.weight"]

    assert torch.equal(averaged(wk.averaging.ema(curves, decay=0.5)), kept)
    run.deploy(wk.averaging.ema(curves, decay=0.5))
    assert torch.equal(averaged(run.deployed), kept)
    others = wk.averaging.window(curves, begin=60), wk.averaging.ema(curves, decay=0.4), np.array([0.0, 1.0])
    second = run.segments.read(1, "mean")["model.body.weight"]
    for coefficients in others:
        assert np.allclose(coefficients, wk.averaging.ema(curves, decay=0.5), 0, 1e-12), "they look the same"
        assert torch.allclose(averaged(coefficients), second) and not torch.equal(averaged(coefficients), kept)
    index = json.loads((run.folder / "running" / "index.json").read_text())
    before = [{key: value for key, value in entry.items() if key != "strategy"} for entry in index]
    (run.folder / "running" / "index.json").write_text(json.dumps(before))
    assert torch.equal(averaged(wk.averaging.ema(curves, decay=0.5)), kept), "recordings of before are read"
    assert torch.allclose(averaged(wk.averaging.window(curves, begin=60)), second)


def test_domains_and_labels_called_as_numbers_or_nothing_stay_what_they_are(tmp_path):
    names = ("0", "15", "NA")
    domains = wk.domains_from_arrays({name: patterns(i) for i, name in enumerate(names)}, ("a", "b", "c", "d"))
    split = wk.leave_one_out(domains, "15", seed=0)
    run = quick(Own(), split, tmp_path / "run")
    for coefficients in (wk.averaging.last(run.source_curves), wk.averaging.uniform(run.source_curves)):
        table = wk.evaluate(run, {"null": coefficients, "007": coefficients}, split)
    scores = wk.load_run(run.folder, split=split).scores
    assert sorted(scores["domain"].unique()) == ["0", "15", "NA"] and set(scores["strategy"]) == {"null", "007"}
    columns = ["strategy", "domain", "role"]
    assert len(scores) == 6 and scores.set_index(columns).nll.equals(table.set_index(columns).nll)
    wk.window_map(run, split, workers=1)
    assert {"val_accuracy/0", "val_accuracy/NA"} <= set(run.window_map.columns)


def test_choices_are_read_once_until_they_change(run, tmp_path, monkeypatch):
    run = wk.load_run(shutil.copytree(run.folder, tmp_path / "run"))
    run.remember_choices({"a": wk.averaging.last(run.source_curves)})
    read, asked = files.read_json, []
    monkeypatch.setattr("wakd_kit.runs.run.read_json", lambda file: asked.append(file) or read(file))
    assert run.choices.keys() == run.choices.keys() and len(asked) == 1
    run.choices.clear()
    wk.load_run(run.folder).remember_choices({"b": wk.averaging.last(run.source_curves)})
    assert {"a", "b"} <= run.choices.keys()


@pytest.mark.parametrize(
    "words, instead",
    [(["average", "--strategy", "last", "--export", "x.onnx"], "wk.export("), (["explore"], "wk.window_map(run)")],
)
def test_a_command_says_what_to_do_with_an_own_module(own, tmp_path, capsys, words, instead):
    folder = shutil.copytree(own.folder, tmp_path / "run", ignore=shutil.ignore_patterns("window_map.csv"))
    assert main([words[0], str(folder), *words[1:]]) != 0
    said = capsys.readouterr().err
    assert f"run = wk.load_run({str(folder)!r}, template=model)" in said and instead in said


def test_a_split_of_fewer_sources_is_loaded_as_such(tmp_path):
    folder = small_images(tmp_path / "images")
    split = wk.leave_one_out(wk.load_domains(f"folder:{folder}", size=16), "south", seed=0)
    run = quick(tiny(split), split.only("east"), tmp_path / "run")
    assert wk.load_run(run.folder).split.sources == ("east",)
    with pytest.raises(
        RunProblem, match=r"was trained with sources \['east'\], this split has sources \['east', 'north'\]"
    ):
        run.check_split(split)
    larger = wk.leave_one_out(wk.load_domains(f"folder:{folder}", size=32), "south", seed=0).only("east")
    with pytest.raises(RunProblem, match=r"was trained with images of 16 px, this split has 32 px; use run\.split\.$"):
        run.check_split(larger)

"""run.average against one-hot parameters, for every registered strategy, whatever the parameters are called."""

import json
import random

import numpy as np
import pandas as pd
import pytest
import torch

import wakd_kit as wk
from wakd_kit.averaging import strategies
from wakd_kit.recording import RunProblem, Segments
from wakd_kit.run import FORMAT, Run

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
        assert np.allclose(tensor.numpy(), np.asarray(coefficients) - coefficients.initial, atol=1e-7)


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

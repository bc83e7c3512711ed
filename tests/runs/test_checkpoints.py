"""Checkpoints of other code as a run: what they average to, what a file may hold, what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

import wakd_kit as wk
from wakd_kit.results.students import objectives_of
from wakd_kit.runs import checkpoints
from wakd_kit.runs.store import RunProblem

from ..conftest import SMALL


def network():
    return wk.build_model("resnet10t", 4, seed=0, **SMALL)


@pytest.fixture(scope="module")
def trained(split, tmp_path_factory):
    """A recording of six segments of one iterate, and its iterates as other code would have saved them."""
    folder = tmp_path_factory.mktemp("theirs")
    run = wk.train(
        network(), split, steps=6, segment_length=1, batch_size=8, learning_rate=1e-2, save_to=folder / "run", progress=False, device="cpu"
    )  # fmt: skip
    files = []
    for k in range(6):
        state = {name.removeprefix("model."): tensor for name, tensor in run.segments.read(k, "end").items()}
        files.append(folder / f"{k}.pt")
        torch.save(
            {"epoch": k, "state_dict": {f"module.{n}": t for n, t in state.items()}, "state_dict_ema": {}}, files[-1]
        )
    return run, files


def record(split, files, folder, model=None, **settings):
    return wk.record_checkpoints(
        model or network(), split, files, save_to=folder, progress=False, device="cpu", **settings
    )


def test_they_answer_as_the_recording_of_the_same_iterates(split, trained, tmp_path):
    ours, files = trained
    run = record(split, files, tmp_path / "run", batch_size=8)
    assert run.complete and len(run.segments) == 6 and run.table["train_loss"].isna().all()
    measured = [c for c in ours.table if c.startswith("val_")]
    np.testing.assert_allclose(run.table[measured], ours.table[measured], rtol=1e-5)
    wanted = [
        "last",
        "best_val",
        {"name": "wakd", "begin": 0.5},
        "uniform",
        "sma",
        "wise_ft",
        {"name": "ema", "decay": 0.5},
    ]
    first, second = wk.choose(ours, wanted), wk.choose(run, wanted)
    for label in first:
        assert np.array_equal(first[label], second[label]), label
        before, after = ours.average(first[label]), run.average(second[label])
        assert all(torch.allclose(before[n], after[n], atol=1e-6) for n in before), label
    scores = [wk.evaluate(one, found, split)["accuracy"].to_numpy() for one, found in ((ours, first), (run, second))]
    assert np.array_equal(*scores)
    assert objectives_of(run) == "by other code" and "seen" in run.settings


def test_a_module_of_ones_own_with_a_model_inside(split, tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))

        def forward(self, images):
            return self.model(images)

    states = [{n: torch.randn_like(t) for n, t in Own().state_dict().items()} for _ in range(3)]
    torch.save(states[0], tmp_path / "first.pt")
    torch.save({f"_orig_mod.{n}": t for n, t in states[1].items()}, tmp_path / "second.pt")
    given = [tmp_path / "first.pt", tmp_path / "second.pt", states[2]]
    run = record(split, given, tmp_path / "run", Own(), batchnorm="average")
    found = run.average(wk.choose(run, ["uniform"])["uniform"])
    for name in states[0]:
        assert torch.allclose(found[f"model.{name}"], sum(state[name] for state in states) / 3, atol=1e-6)


def test_what_is_there_is_loaded_where_the_checkpoints_are_the_same(split, trained, tmp_path):
    _, files = trained
    run = record(split, files, tmp_path / "run")
    wk.evaluate(run, wk.choose(run, ["last"]), split)
    assert (record(split, files, tmp_path / "run", resume=True).folder / "scores.csv").exists()
    with pytest.raises(RunProblem, match="checkpoints="):
        record(split, files[:5], tmp_path / "run", resume=True)
    with pytest.raises(FileExistsError, match="already holds a run"):
        record(split, files, tmp_path / "run")


def test_what_cannot_be_recorded_is_a_sentence_before_anything_is(split, trained, tmp_path):
    _, files = trained
    broken = {name: tensor.clone() for name, tensor in network().model.state_dict().items()}
    broken["fc.bias"][0] = torch.nan
    seen = wk.leave_one_out(split.domains, "north", 0)
    learned = record(seen, files, tmp_path / "learned").model()
    for model, given, said in (
        (None, files[:1], "a list of at least two files or state dicts"),
        (None, files[0], "a list of at least two files or state dicts"),
        (None, [*files, tmp_path / "none.pt"], "none.pt holds no weights that can be read"),
        (
            wk.build_model("resnet10t", 4, **{**SMALL, "stem_width": 8}),
            files,
            "0.pt is no checkpoint of resnet10t: of 'bn1.bias' its shape is",
        ),
        (None, [files[0], broken], "state dict 2 holds what is no number in 'fc.bias'"),
        (wk.build_model("resnet10t", 5, seed=0, **SMALL), files, "Student gives 5 classes, the data has 4"),
        (learned, files, "The student, .* was trained on .west., the domain that should be unseen"),
    ):
        with pytest.raises(ValueError, match=said):
            record(split, given, tmp_path / "run", model)
        assert not list(tmp_path.glob("run*")), said


def test_one_that_was_killed_begins_anew(split, trained, tmp_path, monkeypatch):
    calls = iter([False, True])

    def dies(self, model):
        if next(calls):
            raise KeyboardInterrupt
        return measured(self, model)

    measured = checkpoints.SourceValidation.__call__
    with monkeypatch.context() as here:
        here.setattr(checkpoints.SourceValidation, "__call__", dies)
        with pytest.raises(KeyboardInterrupt):
            record(split, trained[1], tmp_path / "run")
    assert (tmp_path / "run.recording" / "segments").is_dir()
    assert len(record(split, trained[1], tmp_path / "run").segments) == 6


def test_over_a_training_that_was_not_finished_it_says_so(split, trained, tmp_path):
    unfinished = tmp_path / "run.recording"
    unfinished.mkdir()
    (unfinished / "checkpoint.pt").touch()
    (unfinished / "settings.json").write_text((trained[0].folder / "settings.json").read_text())
    for resume, said in ((False, "was started before and is not finished"), (True, "was recorded with")):
        with pytest.raises(RunProblem, match=said):
            record(split, trained[1], tmp_path / "run", resume=resume)


def test_files_in_the_order_of_their_names_as_text_are_refused(split, trained, tmp_path):
    for k, file in enumerate(trained[1]):
        (tmp_path / f"step{2 * k}.pt").write_bytes(file.read_bytes())  # step0, step10, step2, ...
    with pytest.raises(ValueError, match=r"step10\.pt comes before step2\.pt there, as names sort"):
        record(split, sorted(tmp_path.glob("*.pt")), tmp_path / "run")
    assert record(split, sorted(tmp_path.glob("*.pt")), tmp_path / "said", steps=range(1, 7)).complete
    ordered = sorted(tmp_path.glob("*.pt"), key=lambda file: int(file.stem[4:]))
    run = record(split, (file for file in ordered), tmp_path / "run")
    assert len(run.segments) == 6 and run.summary().count("6 checkpoints of other code") == 1


@pytest.mark.parametrize(
    "names", [["epoch1_acc0.93", "epoch2_acc0.91"], ["step0100-0.9", "step0200-0.7"], ["1_b10", "2_b2"], ["b", "a"]]
)
def test_files_in_the_order_of_their_numbers_are_taken(names):
    checkpoints._refuse_order_of_text([f"x/{name}.pt" for name in names])


def test_what_exported_files_have_seen_is_asked(split, trained, tmp_path):
    ours = trained[0]
    for name in ("a", "b"):
        wk.export(ours, wk.averaging.last(ours.source_curves), tmp_path / f"{name}.safetensors")
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    other = wk.leave_one_out(split.domains, split.sources[0], 0)
    with pytest.raises(ValueError, match=rf"network of .*a.safetensors, .* was trained on '{split.sources[0]}'"):
        record(other, files, tmp_path / "run")
    assert record(split, files, tmp_path / "run").complete


@pytest.mark.parametrize(
    "given, got", [([network()] * 2, "got 2, of Tap"), ([{}], "got 1, of dict"), (7, "got 1, of int")]
)
def test_what_is_no_list_of_checkpoints_is_a_short_sentence(split, tmp_path, given, got):
    with pytest.raises(ValueError, match=got) as error:
        record(split, given, tmp_path / "run")
    assert len(str(error.value)) < 200


def test_steps_of_that_training_are_those_of_the_run(split, trained, tmp_path):
    at = [10, 20, 40, 50, 60, 100]
    run = record(split, trained[1], tmp_path / "run", steps=at)
    assert [*run.table["step"]] == [*run.segments.edges] == at and run.complete
    assert [*run.source_curves.iterates] == [10, 10, 20, 10, 10, 40]
    assert np.allclose(wk.averaging.wakd(run.source_curves, begin=40), [0, 0, 0, 1 / 6, 1 / 6, 4 / 6])
    mean = run.average(wk.averaging.wakd(run.source_curves, begin=40))["model.fc.weight"]
    ends = [torch.load(trained[1][k])["state_dict"]["module.fc.weight"] for k in (3, 4, 5)]
    torch.testing.assert_close(mean, (ends[0] + ends[1] + 4 * ends[2]) / 6)
    assert record(split, trained[1], tmp_path / "run", steps=at, resume=True).steps == 100
    with pytest.raises(RunProblem, match="was recorded with"):
        record(split, trained[1], tmp_path / "run", steps=[10, 20, 30, 50, 60, 100], resume=True)


@pytest.mark.parametrize("steps", [[1, 2], [0, 1, 2, 3, 4, 5], [1, 3, 2, 4, 5, 6], [1.5, 2, 3, 4, 5, 6], 7, "abcdef"])
def test_what_are_no_steps_is_a_sentence(split, trained, tmp_path, steps):
    with pytest.raises(
        ValueError, match="steps are whole numbers from 1 on, ascending, one for each of the 6 checkpoints"
    ):
        record(split, trained[1], tmp_path / "run", steps=steps)
    assert not (tmp_path / "run.recording").exists()


def test_with_its_teacher_the_distillation_loss_is_recorded(split, trained, tmp_path):
    teacher = wk.build_model("resnet10t", 4, seed=5, **SMALL)
    run = record(split, trained[1], tmp_path / "run", teacher=teacher)
    taught = wk.train(
        network(), split, teacher=teacher, objectives="kd", steps=1, segment_length=1, save_to=tmp_path / "ours", progress=False, device="cpu"
    )  # fmt: skip
    last = run.segments.read(0, "end")
    assert run.table["val_kd_loss"].gt(0).all() and run.settings["teacher"] == taught.settings["teacher"]
    model = taught.blank_model()
    model.load_state_dict(last)
    taught_logits = torch.cat([checkpoints.predict(teacher, e.images) for e in split.val.values()])
    loss = checkpoints.SourceValidation(split, taught_logits, checkpoints.combine("kd"))(model)["val_kd_loss"]
    assert run.table["val_kd_loss"][0] == pytest.approx(loss)
    assert not isinstance(
        wk.choose(run, [{"name": "best_val", "by": "val_kd_loss"}])["best_val"], wk.averaging.NoWindow
    )

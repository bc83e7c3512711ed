"""What a vision-language teacher gave, kept in a file: the loss by hand, both stages of a training, and files that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import wakd_kit as wk
from wakd_kit.data.batches import learnt_from
from wakd_kit.models.weights import sha256
from wakd_kit.objectives import combine, write_embeddings
from wakd_kit.objectives.combining import refuse_settings
from wakd_kit.objectives.shift import VL2V
from wakd_kit.runs import record as recording
from wakd_kit.runs.store import RunProblem

from ..conftest import SMALL
from ..runs.test_train import Killed, dies_after, equal_runs

WIDTH = 6


def drawn(split, domains=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = {d: torch.randn(len(split.domains[d]), WIDTH, generator=generator) for d in domains or split.sources}
    return images, torch.randn(len(split.classes), WIDTH, generator=generator)


@pytest.fixture
def file(split, tmp_path):
    images, text = drawn(split)
    write_embeddings(tmp_path / "clip.safetensors", images, text, classes=split.classes, scale=7.0)
    return str(tmp_path / "clip.safetensors")


def student(split):
    return wk.build_model("resnet10t", split.classes, seed=0, **SMALL)


def trained(split, folder, file, model=None, **settings):
    settings = {"steps": 6, "segment_length": 2, "batch_size": 8, "learning_rate": 1e-2, "declare": [], **settings}
    return wk.train(
        model or student(split),
        split,
        objectives=[{"name": "vl2v", "embeddings": file}],
        batchnorm="frozen",
        save_to=folder,
        progress=False,
        device="cpu",
        **settings,
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_is_the_cosines_with_the_images_and_the_names_own_embedding(split, file, share):
    images, text = drawn(split)
    objective = VL2V(embeddings=file)
    labels, rows, classes = learnt_from(split)
    objective.learn_examples(labels, rows, classes)
    index = torch.tensor([0, len(labels) - 1, 5])
    z = torch.randn(3, WIDTH, requires_grad=True)
    shown = combine([{"name": "vl2v", "embeddings": file}]).extended(student(split), None)(torch.rand(3, 3, 16, 16))
    found = objective(shown._replace(parts=(z,)), None, labels[index], index=index, share=share)
    expected = 0
    for row, place in zip(z.detach().double().numpy(), index.tolist()):
        domain = next(iter(rows))
        while place >= len(rows[domain]):  # the slow way: which domain's which image is it?
            place -= len(rows[domain])
            domain = list(rows)[list(rows).index(domain) + 1]
        of = rows[domain]
        own, label = images[domain][of[place]].double().numpy(), split.domains[domain].labels[of[place]]
        near = [float(row @ v / np.linalg.norm(row) / np.linalg.norm(v)) for v in (own, text[label].double().numpy())]
        expected -= (share * near[0] + (1 - share) * near[1]) / 3
    assert found.item() == pytest.approx(expected, abs=1e-6)
    found.backward()
    assert z.grad.isfinite().all() and z.grad.abs().sum() > 0


def test_the_deployed_classifier_is_the_names_embeddings(split, file):
    model = combine([{"name": "vl2v", "embeddings": file}]).extended(student(split), None, seed=3).eval()
    output = model(torch.rand(4, 3, 16, 16))
    z, text = output.parts[0].detach(), drawn(split)[1]
    by_hand = 7.0 * torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(text, dim=1).T
    torch.testing.assert_close(output.logits, by_hand)
    assert model.spec["settings"]["deployed"]["of"] == sha256(Path(file))[:16]
    rebuilt = wk.build_model("resnet10t", split.classes, **SMALL, deployed=model.spec["settings"]["deployed"])
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(
        rebuilt.eval()(torch.full((1, 3, 16, 16), 0.5)).logits, model(torch.full((1, 3, 16, 16), 0.5)).logits
    )


def test_two_stages_train_the_projector_and_then_the_backbone(split, tmp_path, file):
    first = trained(split, tmp_path / "first", file, freeze="backbone")
    second = trained(split, tmp_path / "second", file, first.model(), freeze="head")
    states = [student(split).state_dict(), *(r.average(wk.choose(r, ["last"])["last"]) for r in (first, second))]
    start, one, two = ({k.removeprefix("tap."): v for k, v in s.items()} for s in states)
    moved = [
        {k for k in b if k in a and b[k].is_floating_point() and not torch.equal(a[k], b[k])}
        for a, b in ((start, one), (one, two))
    ]
    assert moved[0] == set() and not torch.equal(one["tail.projector.weight"], trained_at_first(split, file))
    assert "model.layer1.0.conv1.weight" in moved[1] and not {k for k in moved[1] if k.startswith(("tail", "model.fc"))}
    assert second.table["train_loss"].between(-1, 1).all()


def trained_at_first(split, file):
    return combine([{"name": "vl2v", "embeddings": file}]).extended(student(split), None).tail.projector.weight


def test_a_stopped_run_goes_on_bit_for_bit(split, tmp_path, file, monkeypatch):
    whole = trained(split, tmp_path / "whole", file)
    with monkeypatch.context() as patch:
        patch.setattr(recording.Recorder, "add", dies_after(3, recording.Recorder.add))
        with pytest.raises(Killed):
            trained(split, tmp_path / "cut", file)
    equal_runs(whole, trained(split, tmp_path / "cut", file, resume=True))


def test_other_embeddings_are_another_student(split, tmp_path, file):
    trained(split, tmp_path / "run", file)
    images, text = drawn(split, seed=1)
    write_embeddings(file, images, text, classes=split.classes, scale=7.0)
    with pytest.raises(RunProblem, match="was recorded with"):
        trained(split, tmp_path / "run", file, resume=True)


def test_a_file_is_known_by_what_is_in_it_and_not_by_its_name(split, tmp_path, file):
    first = trained(split, tmp_path / "first", file, freeze="backbone")
    renamed = str(Path(file).rename(tmp_path / "renamed.safetensors"))
    equal_runs(first, trained(split, tmp_path / "first", renamed, freeze="backbone", resume=True))
    trained(split, tmp_path / "second", renamed, first.model(), freeze="head")


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"share": 2.0}, "share of vl2v is from 0 to 1; got 2.0"),
        ({"schedule": {"of": "share", "first": 3.0}}, "share of vl2v is from 0 to 1; got 3.0"),
        ({"embeddings": 5}, "'5' holds none"),
    ],
)
def test_settings_that_cannot_be_are_refused_where_they_are_listed(file, settings, said):
    refuse_settings([{"name": "vl2v", "embeddings": file}])
    with pytest.raises(ValueError, match=said):
        refuse_settings([{"name": "vl2v", "embeddings": file, **settings}])


def test_only_source_images_are_needed(split, file):
    assert {name for name in load_file(file) if name != "text"} == {f"image/{domain}" for domain in split.sources}


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda i, t, c: (i, t, c[::-1]), "has embeddings of the names"),
        (lambda i, t, c: ({d: v for d, v in i.items() if d != min(i)}, t, c), "has none of the images of"),
        (lambda i, t, c: ({d: v[:3] for d, v in i.items()}, t, c), "has 3 of the images of"),
        (lambda i, t, c: (i, t[:-1], c[:-1]), "There are embeddings of 3 names, and the student tells 4 classes apart"),
    ],
)
def test_a_file_of_something_else_is_refused_before_anything_is_recorded(split, tmp_path, change, said):
    images, text, classes = change(*drawn(split), list(split.classes))
    write_embeddings(tmp_path / "other.safetensors", images, text, classes=classes)
    with pytest.raises(ValueError, match=said):
        trained(split, tmp_path / "run", str(tmp_path / "other.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["other.safetensors"]


def test_embeddings_that_are_none_say_so(split, tmp_path):
    (tmp_path / "text.safetensors").write_text(json.dumps({"no": "tensors"}))
    for name in ("text.safetensors", "missing.safetensors"):
        with pytest.raises(ValueError, match="none can be made up"):
            trained(split, tmp_path / "run", str(tmp_path / name))
    text = drawn(split)[1]
    with pytest.raises(ValueError, match="Embeddings are \\(n, width\\)"):
        write_embeddings(tmp_path / "odd.safetensors", {"ink": torch.zeros(3, 2)}, text, classes=split.classes)


def test_a_second_stage_of_other_embeddings_or_of_another_part_is_refused(split, tmp_path, file, run):
    first = trained(split, tmp_path / "first", file, freeze="backbone")
    images, text = drawn(split, seed=2)
    write_embeddings(tmp_path / "other.safetensors", images, text, classes=split.classes)
    with pytest.raises(ValueError, match=r"vl2v adds a part to the student, which has another already: .*text_head"):
        trained(split, tmp_path / "second", str(tmp_path / "other.safetensors"), first.model())
    with pytest.raises(ValueError, match="dho adds a part to the student, which has another already"):
        wk.train(
            first.model(), split, objectives="dho", teacher=run, steps=2, save_to=tmp_path / "third", progress=False
        )
    assert not (tmp_path / "second").exists() and not (tmp_path / "third").exists()

"""Students that keep a part of their objective: recorded, averaged, rebuilt and resumed with it."""

import copy
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import wakd_kit as wk
from tests.families import images, tiny
from wakd_kit.data.augment import to_float
from wakd_kit.models.build import build_model
from wakd_kit.models.tails import ALPHAS, BETAS, Deployed, choose_mixture, mixed, with_reused_head, with_two_heads
from wakd_kit.objectives import CRDMemory, combine
from wakd_kit.runs import prepare as preparing
from wakd_kit.runs import record as recording
from wakd_kit.runs.identity import difference, structure

from ..conftest import SMALL, one_image


def student(seed=0):
    return build_model("resnet10t", 4, seed=seed, **SMALL)


def quick(split, folder, objectives, teacher, **settings):
    settings = {"steps": 6, "segment_length": 2, "batch_size": 8, "learning_rate": 1e-2, "declare": [], **settings}
    return wk.train(
        student(),
        split,
        objectives=objectives,
        teacher=teacher,
        save_to=folder,
        progress=False,
        device="cpu",
        batchnorm_batches=2,
        **settings,
    )


@pytest.fixture(scope="module")
def runs(run, split, tmp_path_factory):
    """A student of 6 steps for each objective that deploys a part, taught by the shared run."""
    folder = tmp_path_factory.mktemp("deployed")
    return {name: quick(split, folder / name, name, run) for name in ("simkd", "dho")}


TENSORS = {
    "simkd": {"tail.projector.0.weight", "tail.projector.7.weight", "tail.classifier.weight"},
    "dho": {"tail.head.weight", "tail.alpha", "tail.beta"},
}


@pytest.mark.parametrize("name", TENSORS)
def test_averages_cover_the_deployed_part(runs, split, name):
    recorded = runs[name]
    state = recorded.average(np.full(3, 1 / 3))
    assert TENSORS[name] <= state.keys()
    means = [recorded.segments.read(k, "mean") for k in range(3)]
    for key in TENSORS[name]:
        torch.testing.assert_close(state[key], sum(m[key].double() for m in means).float() / 3)
    moving = {"simkd": "tail.projector.0.weight", "dho": "tail.head.weight"}[name]
    assert not torch.equal(means[0][moving], means[2][moving])
    assert any(key.startswith("tap.model.") for key in state)


@pytest.mark.parametrize("name", TENSORS)
def test_a_run_rebuilds_its_student_from_what_it_recorded(runs, split, name):
    loaded = wk.load_run(runs[name].folder, split=split)  # no template: built from settings.json
    model = loaded.model(np.full(3, 1 / 3))
    assert isinstance(model, Deployed) and loaded.settings["student"]["settings"]["deployed"]["tail"]
    x = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(model(x).logits, runs[name].model(np.full(3, 1 / 3))(x).logits)
    assert model(x, maps=False).maps == () and len(model(x).maps) == 4
    table = wk.evaluate(loaded, {"all": wk.averaging.uniform(loaded.source_curves)}, split)
    assert np.isfinite(table["nll"]).all() and len(table) == 4


@pytest.mark.parametrize("name", [*TENSORS, "crd_memory", "kdpp", "ofa"])
def test_a_killed_run_continues_with_its_part_bit_for_bit(runs, run, split, tmp_path, name, monkeypatch):
    whole = runs.get(name) or quick(split, tmp_path / "whole", name, run)

    add, calls = recording.Recorder.add, []

    def dies(recorder):
        calls.append(0)
        if len(calls) == 5:
            raise KeyboardInterrupt
        add(recorder)

    monkeypatch.setattr(recording.Recorder, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        quick(split, tmp_path / "again", name, run)
    monkeypatch.setattr(recording.Recorder, "add", add)
    again = quick(split, tmp_path / "again", name, run, resume=True)
    for key, tensor in whole.segments.read(2, "end").items():
        assert torch.equal(again.segments.read(2, "end")[key], tensor), key
    shutil.rmtree(again.folder)


@pytest.mark.parametrize("name", TENSORS)
def test_a_pretrained_student_that_resizes_its_images_keeps_its_size_behind_a_part(run, split, tmp_path, name):
    pretrained = build_model("resnet10t", split.classes, seed=0, input_size=32, **SMALL)
    pretrained.spec["pretrained_size"] = 32
    brief = {"steps": 2, "segment_length": 2, "batch_size": 8, "batchnorm_batches": 2, "save_to": tmp_path / "run"}
    trained = wk.train(pretrained, split, objectives=name, teacher=run, progress=False, device="cpu", **brief)
    assert trained.model(split=split).size == (32, 32)


# ---- SimKD


def test_simkd_predicts_with_the_teachers_classifier_on_the_projected_map(run):
    teacher, plain = run.model(), student()
    deployed = combine("simkd").extended(plain, teacher, seed=3)
    output = deployed.eval()(images())
    (projected,) = output.parts
    own = teacher.model.get_classifier()
    assert torch.allclose(output.logits, F.linear(projected.mean((2, 3)), own.weight, own.bias), atol=1e-6)
    assert projected.shape[1] == own.in_features
    assert not any(p.requires_grad for p in deployed.tail.classifier.parameters())
    again = combine("simkd").extended(student(), teacher, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(deployed.state_dict().values(), again.state_dict().values()))


def test_a_finer_map_is_averaged_to_the_teachers_size_before_the_projector():
    finer, teacher = tiny("vit"), tiny("resnet")  # tokens of 8 px beside a stride of 32
    deployed = with_reused_head(finer, teacher).eval()
    assert deployed.spec["settings"]["deployed"]["finer"] == 4
    output, own = deployed(images()), finer.eval()(images())
    assert own.maps[-1].shape[-2:] == (4, 4)
    assert output.parts[0].shape[-2:] == teacher.eval()(images()).maps[-1].shape[-2:] == (1, 1)
    assert torch.allclose(output.parts[0], deployed.tail.projector(own.maps[-1].mean((2, 3), keepdim=True)), atol=1e-5)


def test_the_teachers_classifier_does_not_move(runs, run):
    kept = runs["simkd"].segments.read(2, "end")["tail.classifier.weight"]
    assert torch.equal(kept, run.model().model.get_classifier().weight)


@pytest.mark.parametrize("family", ["mobilenet", "convnext", "vit", "mixer"])
def test_a_teacher_whose_classifier_reads_something_else_is_a_sentence(family):
    with pytest.raises(ValueError, match="does not classify the plain mean of its last map by one linear layer"):
        with_reused_head(tiny("resnet"), tiny(family))


def test_deployed_parts_need_a_timm_student_and_are_one(run):
    linear = wk.models.as_tap(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 4)))
    with pytest.raises(ValueError, match="simkd adds a part to a timm model; Sequential is none"):
        combine("simkd").extended(linear, run.model())
    with pytest.raises(ValueError, match="simkd and dho each deploy a part of their own; list one"):
        combine(["simkd", "dho"]).extended(student(), run.model())
    with pytest.raises(ValueError, match=r"factor is a whole number >= 1; got 0\.5"):
        combine({"name": "simkd", "factor": 0.5}).extended(student(), run.model())
    with pytest.raises(ValueError, match=r"factor of simkd is at most the teacher's 8 features; got 9\."):
        combine({"name": "simkd", "factor": 9}).extended(student(), run.model())
    assert combine("kd").extended(linear, run.model()) is linear


def test_a_student_goes_on_under_the_teacher_whose_classifier_it_has(runs, run, split):
    other = copy.deepcopy(run.model())
    with torch.no_grad():
        other.model.get_classifier().weight.add_(1.0)
    going_on = combine("simkd")
    with pytest.raises(ValueError, match="simkd adds a part to the student, which has another already"):
        going_on.extended(runs["simkd"].model(split=split), other)
    kept = runs["simkd"].model(split=split)
    assert going_on.extended(kept, run.model()) is kept
    del kept.spec["settings"]["deployed"]["of"]  # as recorded before
    before = Deployed(kept.tap, kept.spec["settings"]["deployed"])
    assert going_on.extended(before, other) is before
    assert structure(before) == structure(kept)


def test_a_recording_that_does_not_say_whose_classifier_it_has_is_continued(runs):
    said = runs["simkd"].settings
    unsaid = copy.deepcopy(said)
    del unsaid["student"]["settings"]["deployed"]["of"]
    assert difference(unsaid, said) is None and difference(said, said) is None
    unsaid["student"]["settings"]["deployed"]["of"] = "another"
    assert "student=" in difference(unsaid, said)


def test_without_a_teacher_the_sentence_is_the_usual_one(split, tmp_path):
    with pytest.raises(ValueError, match=r"The objectives \['simkd'\] learn from a teacher; pass teacher="):
        quick(split, tmp_path / "none", "simkd", None)


# ---- DHO


def test_two_heads_are_mixed_as_probabilities():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    alpha, beta = torch.tensor(0.3, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    expected = 0.3 * a.softmax(1) + 0.7 * (b / 2).softmax(1)
    torch.testing.assert_close(mixed(a, b, alpha, beta).exp(), expected)
    torch.testing.assert_close(mixed(a, b, alpha * 0, beta).exp(), (b / 2).softmax(1))
    torch.testing.assert_close(mixed(a, b, alpha * 0 + 1, beta).exp(), a.softmax(1))


def test_the_mixture_is_the_best_on_source_validation(split):
    model = with_two_heads(student(), tiny("resnet"))
    with torch.no_grad():  # heads that disagree about half the images
        model.tail.head.weight.normal_(generator=torch.Generator().manual_seed(4))
    choose_mixture(model, split.val.values())
    found = round(model.tail.alpha.item(), 6), model.tail.beta.item()

    def accuracy(alpha, beta):
        right = []
        for examples in split.val.values():
            with torch.no_grad():
                heads = [z.double() for z in model.eval()(to_float(torch.as_tensor(examples.images))).parts]
            p = alpha * heads[0].softmax(1) + (1 - alpha) * (heads[1] / beta).softmax(1)
            right.append((p.argmax(1).numpy() == examples.labels).mean())
        return np.mean(right)

    every = {(round(a, 6), b): accuracy(a, b) for a in ALPHAS for b in BETAS}
    assert every[found] == pytest.approx(max(every.values()), abs=one_image())
    assert max(every.values()) > min(every.values())
    plain = student()
    before = {n: t.clone() for n, t in plain.state_dict().items()}
    choose_mixture(plain, split.val.values())
    assert all(torch.equal(t, before[n]) for n, t in plain.state_dict().items())


def test_choosing_the_mixture_never_sees_the_target(split, monkeypatch, run, tmp_path):
    seen = []
    monkeypatch.setattr("wakd_kit.runs.train.choose_mixture", lambda model, parts: seen.append([*parts]))
    quick(split, tmp_path / "run", "dho", run)
    assert len(seen) == 3 and all(p is e for parts in seen for p, e in zip(parts, split.val.values(), strict=True))


# ---- centres and sampling reach the loop


def test_class_centres_come_from_source_training_images_alone(split, run, tmp_path, monkeypatch):
    read, outputs = [], preparing.outputs

    def spy(model, pictures, *, maps):
        read.append(np.asarray(pictures).copy())
        return outputs(model, pictures, maps=maps)

    monkeypatch.setattr(preparing, "outputs", spy)
    preparing.source_features(run.model(), split)
    given = np.concatenate([e.images for e in split.train.values()])
    assert np.array_equal(np.concatenate(read), given)
    monkeypatch.setattr(preparing, "outputs", outputs)
    recorded = quick(split, tmp_path / "kdpp", ["kd", "kdpp"], run)
    assert np.isfinite(recorded.table["train/kdpp"]).all()


def test_what_remembers_examples_is_told_which_they_are(split, run, tmp_path, monkeypatch):
    forward, told = CRDMemory.forward, []

    def spy(self, student, teacher, labels=None, *, index):
        if self.training:
            told.append(torch.equal(self.labels[index], labels) and len(self.labels) == n)
        return forward(self, student, teacher, labels, index=index)

    n = sum(len(e) for e in split.train.values())
    monkeypatch.setattr(CRDMemory, "forward", spy)
    quick(split, tmp_path / "run", "crd_memory", run)
    assert told == [True] * 6


@pytest.mark.parametrize(
    "objectives", ["fitnet", "reviewkd", "ofa", "vid", "crd_memory", ["ce", {"name": "xded", "weight": 5}]]
)
def test_objectives_on_maps_train_and_their_heads_are_not_deployed(split, run, tmp_path, objectives):
    settings = {"sampling": "classes"} if isinstance(objectives, list) else {}
    recorded = quick(split, tmp_path / "run", objectives, run, **settings)
    assert np.isfinite(recorded.table["train_loss"]).all()
    assert recorded.average(np.full(3, 1 / 3)).keys() == student().state_dict().keys()


def test_a_student_with_a_part_of_its_own_is_exported_as_onnx_only(runs, tmp_path):
    with pytest.raises(ValueError, match=r"deploys a part that is not timm's \(reused_head\).* export it as \.onnx"):
        wk.export(runs["simkd"], np.full(3, 1 / 3), tmp_path / "student.safetensors", scores=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["simkd", "dho"])
def test_a_part_is_built_where_the_student_is(name):
    elsewhere = student().to("meta")  # stands for an accelerator
    extended = combine(name).extended(elsewhere, student(1), seed=0)
    assert {p.device.type for p in extended.parameters()} == {"meta"}

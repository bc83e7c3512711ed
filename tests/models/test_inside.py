"""Parts inside a student: what they do to maps, that nothing else changes, and that every copy carries them."""

import numpy as np
import pytest
import torch

import wakd_kit as wk
from wakd_kit.models.build import training_mode
from wakd_kit.models.fold import folded
from wakd_kit.models.inside import MixStyle, style_of

from ..conftest import SMALL
from ..runs.stopped import quick, stopped_and_resumed
from ..runs.victims import small_split

UNISTYLE = {"after": [0, 1], "name": "unistyle"}
WIDE = {**SMALL, "layers": (1, 1, 1, 1)}


def student(**settings):
    return wk.build_model("resnet10t", 3, seed=0, **{**WIDE, **settings})


@pytest.fixture(scope="module")
def split():
    return small_split()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_no_style_is_left_after_the_stages_in_training_and_after_it(mode):
    plain, without = (student(inside=inside) for inside in (None, UNISTYLE))
    assert plain.state_dict().keys() == without.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), without.state_dict().values()))
    images = torch.rand(4, 3, 64, 64)
    maps, theirs = (getattr(model, mode)()(images).maps for model in (without, plain))
    for stage, (one, other) in enumerate(zip(maps, theirs)):
        styled = one.mean((2, 3)).abs().max() < 1e-5 and (one.var((2, 3)) - 1).abs().max() < 1e-2
        assert styled == (stage in UNISTYLE["after"]), stage
        if stage == 0:  # what is left is the map, moved and scaled
            mean, deviation = other.mean((2, 3), keepdim=True), (other.var((2, 3), keepdim=True) + 1e-6).sqrt()
            torch.testing.assert_close(one, (other - mean) / deviation, rtol=1e-4, atol=1e-5)


def test_styles_are_mixed_with_those_of_another_image_in_training_alone():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, 8, 8, generator=rng) * (0.5 + torch.rand(6, 5, 1, 1, generator=rng))
    x += torch.randn(6, 5, 1, 1, generator=rng)
    x.requires_grad_()
    always = MixStyle(p=1.0, alpha=0.4)
    assert always.eval()(x) is x
    with torch.random.fork_rng():
        torch.manual_seed(3)
        mixed = always.train()(x)
        torch.manual_seed(3)
        own = torch.distributions.Beta(torch.full((6, 1, 1, 1), 0.4), torch.full((6, 1, 1, 1), 0.4)).sample()
        torch.rand(())
        other = torch.randperm(6)
        torch.manual_seed(3)
        torch.testing.assert_close(MixStyle(p=0.0).train()(x), x)
    mean, deviation = style_of(x, 1e-6)
    for got, whole in zip(style_of(mixed, 1e-6), (mean, deviation)):
        torch.testing.assert_close(got, own * whole + (1 - own) * whole[other], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(_share_of_steps(0.3), 0.3, atol=4 * (0.21 / 400) ** 0.5)


def test_one_position_has_no_deviation_and_is_a_number():
    mean, deviation = style_of(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), 1e-6)
    assert mean.flatten().tolist() == [3, 4] and deviation.flatten().tolist() == pytest.approx([1e-3, 1e-3])


def _share_of_steps(p):
    """In how many of 400 steps something is mixed."""
    x = torch.arange(32.0).view(8, 1, 2, 2).square()
    sometimes = MixStyle(p=p, alpha=1.0).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return np.mean([not torch.allclose(sometimes(x), x, rtol=1e-4) for _ in range(400)])


def test_a_student_without_style_is_recorded_loaded_folded_and_exported_as_it_is(split, tmp_path):
    run = quick(
        split, tmp_path / "run", student(inside=UNISTYLE), steps=4, objectives=["ce", "xded"], sampling="classes"
    )
    assert run.settings["student"]["settings"]["inside"] == UNISTYLE
    coefficients = wk.averaging.uniform(run)
    model = wk.load_run(run.folder).model(coefficients, split=split)
    images = torch.rand(3, 3, 16, 16)
    maps = model(images).maps
    assert maps[0].mean((2, 3)).abs().max() < 1e-5
    plain = student().eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits = model(images).logits
        assert not torch.allclose(plain(images).logits, logits, atol=1e-3)
        twin, pairs = folded(model)
        assert pairs and twin is not model
    with pytest.raises(
        ValueError, match=r"not timm's \(unistyle\), so timm could not load its weights: export it as .onnx"
    ):
        wk.export(run, coefficients, tmp_path / "state.safetensors", split=split, scores=False)


def test_a_graph_of_a_student_without_style_computes_the_same_logits(split, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    run, images = quick(split, tmp_path / "run", student(inside=UNISTYLE), steps=4), torch.rand(3, 3, 16, 16)
    wk.export(run, wk.averaging.last(run), tmp_path / "s.onnx", split=split, scores=False)
    session = runtime.InferenceSession(tmp_path / "s.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        logits = run.model(wk.averaging.last(run), split=split)(images).logits
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], logits, rtol=1e-3, atol=1e-4)


def test_mixed_styles_resume_bit_equal_and_are_exported_as_timms_own(split, tmp_path, monkeypatch):
    mixing = {"after": [0], "name": "mixstyle", "p": 0.8}
    run = stopped_and_resumed(split, tmp_path, monkeypatch, after=5, model=lambda: student(inside=mixing))
    card = wk.export(run, wk.averaging.last(run), tmp_path / "state.safetensors", split=split, scores=False)
    loaded = student(weights=card.with_name("state.safetensors")).eval()
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images).logits, run.model(wk.averaging.last(run), split=split)(images).logits)
    other = quick(split, tmp_path / "plain", student())
    assert other.settings["identity"]["structure"] != run.settings["identity"]["structure"]


def test_frozen_batchnorm_leaves_the_mixing_on():
    model = student(inside={"after": [1], "name": "mixstyle"})
    training_mode(model, "frozen")
    assert all(module.training for module in model.modules() if isinstance(module, MixStyle))


@pytest.mark.parametrize(
    ("name", "inside", "sentence"),
    [
        ("vit_d64", UNISTYLE, r"Stages of vit_d64 are no sequences of layers on maps \(Block\)"),
        (
            "resnet10t",
            {"after": [4], "name": "unistyle"},
            r"lists stages of resnet10t, from 0 to 3, each once; got \[4\]",
        ),
        ("resnet10t", {"after": [], "name": "unistyle"}, "from 0 to 3"),
        ("resnet10t", {"after": [1, 1], "name": "unistyle"}, "each once"),
        ("resnet10t", {"after": [0], "name": "unistyles"}, "is one of 'unistyle', 'mixstyle'; got 'unistyles'"),
        ("resnet10t", {"after": [0], "name": "mixstyle", "q": 1}, "Unknown setting of mixstyle 'q'"),
        ("resnet10t", {"after": [0], "name": "mixstyle", "p": 2}, "p is a number from 0 to 1; got 2"),
        ("resnet10t", ["unistyle"], "inside is a dictionary such as"),
    ],
)
def test_what_cannot_be_inside_is_a_sentence(name, inside, sentence):
    with pytest.raises(ValueError, match=sentence):
        wk.build_model(name, 3, inside=inside)

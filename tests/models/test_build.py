"""One forward for logits, pooled feature and maps; weights from a file; BatchNorm statistics after averaging."""

import copy

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from wakd_kit.models.build import (
    LogitsTap,
    Tap,
    as_tap,
    batchnorms,
    build_model,
    frozen_parts,
    in_eval,
    recalibrate,
    training_mode,
)

MODELS = ("resnet10t_w16", "vit_d64", "vit_conv_d64", "mixer_d64", "resnet18")


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def taps():
    return {name: build_model(name, 5, seed=0).eval() for name in MODELS}


# ---- the tap


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_tap_gives_the_logits_of_the_plain_model_on_normalised_images(taps, images, name):
    tap = taps[name]
    config = tap.model.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    plain = tap.model((images - mean) / std)
    output = tap(images)
    assert torch.equal(output.logits, plain)
    assert torch.equal(tap.model.get_classifier()(output.pooled), plain)
    without = tap(images, maps=False)
    assert torch.equal(without.logits, plain) and without.maps == ()
    assert tap.classes == 5


def test_models_are_normalised_each_in_its_own_way(taps):
    assert taps["vit_d64"].mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert taps["resnet18"].mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("resnet10t_w16", [(16, 8, 8), (32, 4, 4), (64, 2, 2), (128, 1, 1)]),
        ("resnet18", [(64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)]),
        ("vit_d64", [(64, 8, 8)] * 4),
        ("vit_conv_d64", [(64, 4, 4)] * 4),
        ("mixer_d64", [(64, 8, 8)] * 4),
    ],
)
def test_maps_come_coarse_last(taps, images, name, shapes):
    assert [tuple(m.shape[1:]) for m in taps[name](images).maps][-4:] == shapes


def test_a_built_model_is_timms_own_with_these_settings():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        plain = timm.create_model("resnet18", num_classes=6, channels=(8, 8, 8, 8), drop_rate=0.1)
    tap = build_model("resnet18", list("abcdef"), seed=3, channels=(8, 8, 8, 8), drop_rate=0.1)
    same_state(tap.model.state_dict(), plain.state_dict())
    assert tap.model.drop_rate == 0.1


def test_a_seeded_model_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    build_model("resnet10t_w16", 3, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_any_module_becomes_a_tap(images):
    timm_model = timm.create_model("resnet10t", num_classes=3, channels=(4, 4, 4, 4), stem_width=4).eval()
    assert isinstance(as_tap(timm_model), Tap) and len(as_tap(timm_model)(images).maps) == 4
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    tap = as_tap(plain)
    assert isinstance(tap, LogitsTap) and as_tap(tap) is tap
    assert torch.equal(tap(images, maps=False).logits, plain(images)) and tap(images).maps == ()


def test_a_module_that_gives_no_logits_is_named(images):
    with pytest.raises(TypeError, match=r"Identity returned Tensor; expected \(n, classes\) logits"):
        as_tap(nn.Identity())(images)


# ---- names and settings


def test_an_unknown_model_is_told_the_nearest():
    with pytest.raises(ValueError, match=r"^Unknown model 'resnet10t_w61'\. Did you mean 'resnet10t_w16'\?$"):
        build_model("resnet10t_w61", 5)


@pytest.mark.parametrize(
    ("name", "classes", "settings", "sentence"),
    [
        ("resnet18", 1, {}, "at least two classes; got 1"),
        ("resnet18", 5, {"depht": 3}, r"resnet18 does not take these settings \['depht'\]"),
        ("vit_d64", 5, {"num_heads": 3}, r"vit_d64 cannot be built with .*'num_heads': 3.*dim should be divisible by num_heads"),
        ("vit_d64", 5, {"act_layer": "nope"}, r"vit_d64 cannot be built with .*'act_layer': 'nope'"),
        ("convnext_atto", 5, {"depths": [1, 1, 1]}, r"convnext_atto cannot be built with {'depths': \[1, 1, 1\]}: IndexError"),
        ("resnet10t_w8", 5, {"stem_width": -8}, "resnet10t_w8 cannot be built with .*'stem_width': -8"),
        ("resnet10t_w8", 5, {"features_only": True}, "build_model asks a FeatureListNet for 'forward_features', which it does not have"),
        ("resnet10t_w8", 5, {"seed": "x"}, r"^seed is a whole number >= 0 and below 2\^63; got 'x'\.$"),
        *(
            ("resnet10t_w8", 5, {"deployed": part}, r"deployed is what a run recorded of it, {\"tail\": one of reused_head, .*; got ")
            for part in ({"tail": "x"}, {}, 3, {"tail": "two_heads", "x": 1}, {"tail": []})
        ),
        ("resnet18.nonsense", 5, {}, "Invalid pretrained tag"),
        ("vit_conv_d64", 5, {"patch_size": 4}, "its stem, not patch_size, makes a token of every 8 px"),
        (
            "resnet18_w32",
            5,
            {"pretrained": True},
            "no published weights fit it, and none ship with the kit. Pass weights='FILE'",
        ),
        ("resnet18d_nope", 5, {}, "Unknown model"),
        *(
            ("resnet10t_w8", 5, {"input_size": size}, r"to a side in pixels, or to height and width, all >= 1; got ")
            for size in ("64", 64.0, True, 0, -3, (64,), [64, 0], {})
        ),
        ("vit_d64", 5, {"input_size": 64}, r"vit_d64 is built for images of 32 x 32 px and computes on no others; got input_size=64"),
        ("vit_conv_d64", 5, {"input_size": [32, 64]}, r"Leave it out, or build it for those: img_size=\[32, 64\]"),
        ("mixer_d64", 5, {"input_size": 16}, "mixer_d64 is built for images of 32 x 32 px"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_built_are_a_sentence(name, classes, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_model(name, classes, **settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("resnet10t_w8", {"input_size": (48, 64)}),
        ("vit_d64", {"input_size": 32}),
        ("vit_d64", {"input_size": 64, "img_size": 64}),
        ("vit_d64", {"input_size": 64, "dynamic_img_size": True}),
        ("mixer_d64", {"input_size": 64, "img_size": 64}),
        ("vit_d64", {"input_size": None}),
    ],
)
def test_a_size_that_a_model_computes_on_is_taken(name, settings):
    tap, size = build_model(name, 5, seed=0, **settings).eval(), settings["input_size"] or 32
    assert tap.size == (size if isinstance(size, tuple) else (size, size))
    assert tap(torch.rand(2, 3, 40, 40)).logits.shape == (2, 5)


def test_without_a_network_pretrained_says_how_to_go_on(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ConnectionError, match=r"Could not fetch .* resnet18 .* build_model\('resnet18', ..., weights='FILE"
    ):
        build_model("resnet18", 5, pretrained=True)


# ---- weights from a file


def save(state, file):
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    return file


def same_state(found, expected, but=()):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert name.startswith(tuple(but)) or torch.equal(found[name], tensor), name


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["resnet10t_w16", "vit_d64", "vit_conv_d64", "mixer_d64"])
def test_weights_of_as_many_classes_are_taken_whole(tmp_path, taps, name, suffix):
    file = save(taps[name].model.state_dict(), tmp_path / f"weights{suffix}")
    tap = build_model(name, 5, weights=file, seed=1)
    same_state(tap.model.state_dict(), taps[name].model.state_dict())
    assert tap.spec["weights"] == str(file) and "state_dict" not in tap.model.pretrained_cfg


@pytest.mark.parametrize(("name", "classifier"), [("resnet10t_w16", "fc."), ("vit_d64", "head.")])
def test_weights_of_other_classes_get_a_new_classifier(tmp_path, taps, images, name, classifier):
    file = save(taps[name].model.state_dict(), tmp_path / "weights.safetensors")
    tap = build_model(name, 3, weights=file, seed=1)
    same_state(tap.model.state_dict(), taps[name].model.state_dict(), but=[classifier])
    assert tap.classes == 3 and tap.eval()(images).logits.shape == (4, 3)


def test_weights_without_a_classifier_get_one(tmp_path, taps, images):
    body = {n: t for n, t in taps["resnet10t_w16"].model.state_dict().items() if not n.startswith("fc.")}
    tap = build_model("resnet10t_w16", 3, weights=save(body, tmp_path / "body.pth"))
    same_state({n: t for n, t in tap.model.state_dict().items() if n in body}, body)
    assert tap.eval()(images).logits.shape == (4, 3)


def test_the_state_of_an_averaged_student_is_a_weights_file(tmp_path, taps):
    file = save(taps["resnet10t_w16"].state_dict(), tmp_path / "average.safetensors")
    same_state(build_model("resnet10t_w16", 5, weights=file).state_dict(), taps["resnet10t_w16"].state_dict())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda f, own: f.write_text("no weights"), "holds no weights that can be read"),
        (lambda f, own: torch.save({"epoch": 3}, f), "holds no tensors"),
        (lambda f, own: torch.save({"other.weight": torch.zeros(3)}, f), "does not fit resnet10t_w16: .*Missing key"),
        (lambda f, own: torch.save({**own, "extra": torch.zeros(3)}, f), "does not fit .*Unexpected key.*extra"),
        (lambda f, own: torch.save({**own, "conv1.0.weight": torch.zeros(3)}, f), "does not fit resnet10t_w16"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_named(tmp_path, taps, make, sentence):
    file = tmp_path / "weights.pth"
    make(file, taps["resnet10t_w16"].model.state_dict())
    with pytest.raises(ValueError, match=sentence) as problem:
        build_model("resnet10t_w16", 3, weights=file)
    assert str(file) in str(problem.value) and len(str(problem.value)) < 500


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No weights file at .*nowhere.pth"):
        build_model("resnet10t_w16", 3, weights=tmp_path / "nowhere.pth")


# ---- BatchNorm


@pytest.fixture
def noisy():
    """A small net in training mode, with dropout and stochastic depth."""
    settings = {"channels": (8, 8, 8, 8), "stem_width": 8, "drop_rate": 0.5, "drop_path_rate": 0.5}
    return build_model("resnet10t", 3, seed=0, **settings).train()


def first_inputs(model, batches):
    """What the first BatchNorm layer sees, batch by batch."""
    convolution = model.model.conv1[0]
    with torch.no_grad():
        return [convolution((b - model.mean) / model.std) for b in batches]


def test_recalibrated_statistics_are_those_of_the_batches(noisy):
    batches = list(torch.rand(5, 8, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    recalibrate(noisy, batches)
    layer, seen = batchnorms(noisy)[0], first_inputs(noisy, batches)
    # of equal batches: the mean is that of all images together; the variance is the mean of the batches' variances,
    # which leaves out how far the batches' means lie apart
    torch.testing.assert_close(layer.running_mean, torch.cat(seen).mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    of_batches = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(layer.running_var, of_batches, rtol=1e-5, atol=1e-7)


def test_recalibration_is_not_disturbed_by_dropout_or_by_what_was_there(noisy):
    batches = list(torch.rand(3, 8, 3, 32, 32))
    one = {n: t.clone() for n, t in recalibrate(noisy, batches).state_dict().items()}
    for layer in batchnorms(noisy):
        layer.running_mean.fill_(7)
    same_state(recalibrate(noisy, batches).state_dict(), one)


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small_035", "efficientvit_b0", "resnet10t_w8"])
def test_statistics_behind_the_pooling_are_those_of_the_batches_too(name):
    tap, batches = build_model(name, 4, seed=0), [torch.rand(4, 3, 64, 64) * share for share in (0.3, 0.6, 1)]
    plain = copy.deepcopy(tap).eval()
    for layer in batchnorms(plain):
        layer.reset_running_stats()
        layer.train().momentum = None  # torch's own cumulative mean
    with torch.no_grad():
        [plain.model(plain.normalised(images)) for images in batches]
    same_state(recalibrate(tap, batches).state_dict(), plain.state_dict())


def test_a_number_in_what_is_frozen_is_a_whole_one():
    tap = build_model("vit_d64", 4, depth=11, seed=0)
    with frozen_parts(tap, ["blocks.1"], "frozen"):
        still = {name for name, p in tap.named_parameters() if not p.requires_grad}
    assert still and still == {name for name, _ in tap.named_parameters() if name.startswith("model.blocks.1.")}


def test_recalibration_leaves_parameters_modes_and_momentum(noisy):
    batchnorms(noisy)[1].eval()
    batchnorms(noisy)[1].momentum = 0.3
    before = {n: p.clone() for n, p in noisy.named_parameters()}
    modes = [m.training for m in noisy.modules()]
    recalibrate(noisy, [torch.rand(4, 3, 32, 32)])
    assert [layer.momentum for layer in batchnorms(noisy)][:3] == [0.1, 0.3, 0.1]
    assert [m.training for m in noisy.modules()] == modes
    same_state(dict(noisy.named_parameters()), before)


def test_recalibration_that_fails_puts_momentum_and_modes_back(noisy):
    with pytest.raises(RuntimeError):
        recalibrate(noisy, [torch.rand(4, 5, 32, 32)])
    assert {layer.momentum for layer in batchnorms(noisy)} == {0.1} and all(m.training for m in noisy.modules())
    with pytest.raises(ValueError, match="needs source images; got none"):
        recalibrate(noisy, [])


def test_a_model_without_batchnorm_needs_no_recalibration(taps):
    before = {n: t.clone() for n, t in taps["vit_d64"].state_dict().items()}
    recalibrate(taps["vit_d64"], iter([torch.full((2, 3, 32, 32), torch.nan)]))
    same_state(taps["vit_d64"].state_dict(), before)


@pytest.mark.parametrize(
    ("policy", "moves"), [("frozen", False), ("recalibrate", True), ("average", True), ("last", True)]
)
def test_only_frozen_batchnorm_keeps_its_statistics_in_training(noisy, images, policy, moves):
    before = batchnorms(noisy)[0].running_mean.clone()
    training_mode(noisy, policy)
    noisy(images)
    assert torch.equal(batchnorms(noisy)[0].running_mean, before) is not moves
    assert noisy.training and any(isinstance(m, nn.Conv2d) and m.training for m in noisy.modules())


def test_in_eval_gives_every_layer_its_mode_back(noisy):
    training_mode(noisy, "frozen")
    modes = [m.training for m in noisy.modules()]
    assert True in modes and False in modes
    with pytest.raises(KeyError), in_eval(noisy):
        assert not any(m.training for m in noisy.modules())
        raise KeyError
    assert [m.training for m in noisy.modules()] == modes


def test_settings_of_an_adapter_need_its_read():
    module = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    with pytest.raises(TypeError, match="mean and size of a module go with read="):
        as_tap(module, mean=(0.5, 0.5, 0.5), size=16)


@pytest.mark.parametrize(
    "wrap", [lambda tap: torch.compile(tap, backend="eager"), nn.DataParallel], ids=["compiled", "parallel"]
)
def test_a_tap_inside_a_wrapper_is_refused_in_a_sentence(wrap):
    with pytest.raises(TypeError, match=r"wraps a tap.*Hand over the tap itself; to compile it, call tap.compile\(\)"):
        as_tap(wrap(build_model("resnet10t_w16", 3, seed=0)))


@pytest.mark.parametrize("module", [lambda: timm.create_model("resnet10t", num_classes=3), lambda: nn.Flatten()])
def test_a_compiled_module_is_refused_before_it_is_tapped(module):
    with pytest.raises(TypeError, match=r"OptimizedModule is a compiled module.*Hand over the module itself"):
        as_tap(torch.compile(module(), backend="eager"))


@pytest.mark.parametrize("name, classes", [(7, 3), ("resnet10t", 7.0), ("resnet10t", "abc")])
def test_what_is_no_name_or_no_classes_is_a_sentence(name, classes):
    with pytest.raises(
        ValueError, match="build_model takes the name of a model and the number of classes, or their names"
    ):
        build_model(name, classes)


def test_a_student_with_a_part_of_its_objective_is_no_weights_of_a_timm_model(tmp_path):
    tap = build_model("resnet10t_w16", 3, seed=0)
    torch.save({f"tap.{n}": t for n, t in tap.state_dict().items()} | {"tail.w": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="a part that its objective deploys with it"):
        build_model("resnet10t_w16", 3, weights=tmp_path / "w.pt")


def test_a_tap_is_compiled_in_place_and_nothing_else():
    tap = build_model("resnet10t_w16", 3, seed=0)
    names, images = list(tap.state_dict()), torch.rand(2, 3, 32, 32)
    with torch.no_grad(), in_eval(tap):
        expected = tap(images).logits
        tap.compile(backend="eager")
        assert torch.allclose(as_tap(tap)(images).logits, expected, atol=1e-5)
    assert list(tap.state_dict()) == names
    tap.model = torch.compile(tap.model, backend="eager")
    with pytest.raises(TypeError, match=r"call tap.compile\(\)"):
        as_tap(tap)


def test_weights_are_read_and_never_run(tmp_path, monkeypatch):
    class Harmful:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Harmful()}, tmp_path / "w.pth")
    asked, load = [], timm.models.load_state_dict
    monkeypatch.setattr(timm.models, "load_state_dict", lambda *a, **k: asked.append(k) or load(*a, **k))
    with pytest.raises(ValueError, match="holds no weights that can be read"):
        build_model("resnet10t_w16", 3, weights=tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()
    assert asked == [{"weights_only": True}], "the default of the oldest timm is to run what is in the file"


def test_recalibration_is_a_cumulative_mean_of_a_layer_that_is_used_twice_as_well():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

        def forward(self, images, maps=False):
            return self.norm(self.second(self.norm(self.first(images))))

    torch.manual_seed(0)
    model, batches = Twice(), [torch.rand(5, 3, 8, 8) for _ in range(3)]
    other = copy.deepcopy(model).eval()
    other.norm.momentum = None  # torch's own cumulative mean
    other.norm.train()
    with torch.no_grad():
        for images in batches:
            other(images)
    recalibrate(model, batches)
    assert torch.equal(model.norm.running_mean, other.norm.running_mean)
    assert torch.equal(model.norm.running_var, other.norm.running_var) and model.norm.momentum == 0.1
    assert not model.norm._forward_pre_hooks

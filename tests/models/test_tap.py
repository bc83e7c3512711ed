"""One forward of any timm model, seen alike: families of three and four stages, of one resolution, distilled, resized."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from tests.families import TINY, images, tiny
from wakd_kit.models.build import LogitsTap, Output, Tap, as_tap, build_model
from wakd_kit.models.fold import frozen
from wakd_kit.models.tap import Adapter, fixed_size, shapes_of, stages_of

# families with other than four stages or other classifiers, as small as they come
ODD = {
    "levit_128s": 3,
    "visformer_tiny": 3,
    "efficientvit_m0": 3,
    "deit_tiny_distilled_patch16_224": 4,
    "gmlp_ti16_224": 4,
    "dla34": 4,
    "repvit_m0_9": 4,
    "resnetv2_50": 4,
}


def plain(tap, x):
    return tap.model((x - tap.mean) / tap.std)


@pytest.mark.parametrize("family", TINY)
@torch.no_grad()
def test_six_families_give_the_logits_of_the_plain_model_and_four_maps(family):
    tap = tiny(family).eval()
    output = tap(images())
    assert torch.equal(output.logits, plain(tap, images()))
    assert output.pooled.shape == (6, tap.model.head_hidden_size)
    assert len(output.maps) == 4 and all(m.ndim == 4 and len(m) == 6 for m in output.maps)
    sizes = [m.shape[2] for m in output.maps]
    assert sizes == sorted(sizes, reverse=True), "coarse last"
    without = tap(images(), maps=False)
    assert torch.equal(without.logits, output.logits) and without.maps == ()


@pytest.mark.parametrize("family", TINY)
def test_shapes_are_known_without_computing_anything(family):
    tap, state = tiny(family).train(), torch.random.get_rng_state()
    before = {n: t.clone() for n, t in tap.state_dict().items()}
    shapes = shapes_of(tap, 32, images=6)
    assert tap.training and torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in tap.state_dict().items()), "statistics did not move"
    real = tap.eval()(images())
    assert [m.shape for m in shapes.maps] == [m.shape for m in real.maps]
    assert shapes.pooled.shape == real.pooled.shape and shapes.logits.shape == real.logits.shape
    assert {t.device.type for t in (shapes.logits, shapes.pooled, *shapes.maps)} == {"meta"}


@pytest.mark.parametrize("name", ODD)
def test_families_with_three_stages_or_other_classifiers_are_tapped_too(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=5)
    tap = Tap(model.eval(), {"name": name})
    shapes = shapes_of(tap, 224)
    assert shapes.logits.shape == (2, 5) and shapes.pooled.shape == (2, model.head_hidden_size)
    assert len(shapes.maps) == ODD[name] and all(m.ndim == 4 for m in shapes.maps)


@pytest.mark.parametrize(
    ("count", "stages"),
    [
        (3, [0, 1, 2]),
        (4, [0, 1, 2, 3]),
        (5, [1, 2, 3, 4]),
        (12, [1, 3, 9, 11]),  # OFA-KD's for DeiT and ResMLP
        (24, [3, 7, 19, 23]),
        (8, [0, 2, 6, 7]),
    ],
)
def test_stages_of_models_of_one_resolution_follow_swin(count, stages):
    assert stages_of(count) == stages


def test_maps_of_a_deep_vit_are_those_of_the_chosen_blocks():
    tap = build_model("vit_tiny_patch16_224", 3, img_size=32, patch_size=8, embed_dim=16, depth=12, num_heads=2).eval()
    with torch.no_grad():
        every = tap.model.forward_intermediates((images() - tap.mean) / tap.std, intermediates_only=True)
        maps = tap(images()).maps
    assert len(every) == 12 and all(torch.equal(m, every[i]) for m, i in zip(maps, (1, 3, 9, 11)))


def test_distilled_training_gives_the_mean_of_both_heads():
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    tap = build_model("deit_tiny_distilled_patch16_224", 5, seed=0, **settings)
    expected = tap.eval()(images()).logits
    tap.model.set_distilled_training(True)
    assert isinstance(plain(tap.train(), images()), tuple)
    assert torch.allclose(tap(images()).logits, expected, atol=1e-6)


# ---- input size


def test_a_model_of_one_input_size_gets_its_images_resized():
    tap = tiny("vit").eval()
    assert tap.size == (32, 32)
    larger = torch.rand(2, 3, 48, 48)
    smaller = F.interpolate(larger, (32, 32), mode="bilinear", antialias=True)
    assert torch.equal(tap(larger).logits, plain(tap, smaller))
    assert not torch.allclose(tap(larger).logits, plain(tap, F.interpolate(larger, (32, 32))), atol=1e-4)


def test_a_convolutional_model_takes_images_as_they_come_unless_it_is_told():
    assert tiny("resnet").size is None
    tap = build_model("resnet10t", 5, seed=0, input_size=64, channels=(4, 4, 8, 8), stem_width=4).eval()
    assert tap.size == (64, 64) and tap.spec["settings"]["input_size"] == 64
    assert tap(images()).maps[-1].shape[2:] == (2, 2)
    again = build_model(tap.spec["name"], 5, **tap.spec["settings"])
    assert again.size == (64, 64)


@pytest.mark.parametrize(
    ("name", "settings", "size"),
    [
        ("mixer_any", {"img_size": 16, "patch_size": 4, "embed_dim": 8, "num_blocks": 2}, (16, 16)),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True, "depth": 1}, None),
        ("twins_svt_small", {}, (224, 224)),
        ("convnext_atto", {}, None),
    ],
)
def test_which_models_have_one_size(name, settings, size):
    with torch.device("meta"):
        model = timm.create_model(name, **settings)
    assert fixed_size(model) == size


def test_a_teacher_sees_its_own_normalisation_and_size():
    teacher = build_model(
        "vit_tiny_patch16_224", 5, img_size=48, patch_size=8, embed_dim=16, depth=1, num_heads=1, seed=0
    )
    x = F.interpolate(images(), (48, 48), mode="bilinear", antialias=True)
    assert torch.equal(teacher.eval()(images()).logits, teacher.model((x - 0.5) / 0.5))


# ---- any module


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.early, self.late = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 6, 3, stride=2)
        self.head = nn.Linear(6, 5)


def read(model, x):
    early = model.early(x)
    late = model.late(early.relu())
    return Output(model.head(late.mean((2, 3))), late.mean((2, 3)), (early, late))


def test_any_module_is_read_through_three_lines():
    tap = as_tap(Body(), read, mean=(0.5,) * 3, std=(0.25,) * 3, size=16)
    assert isinstance(tap, Adapter) and as_tap(tap) is tap
    x = F.interpolate(images(), (16, 16), mode="bilinear", antialias=True)
    output, expected = tap(images()), read(tap.model, (x - 0.5) / 0.25)
    assert torch.equal(output.logits, expected.logits) and [m.shape[1] for m in output.maps] == [4, 6]
    assert tap(images(), maps=False).maps == ()
    assert [m.shape[1:] for m in shapes_of(tap, 32).maps] == [m.shape[1:] for m in output.maps]


def test_a_module_that_gives_logits_needs_no_lines():
    assert isinstance(as_tap(nn.Sequential(nn.Flatten(), nn.Linear(48, 3))), LogitsTap)


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "efficientvit_b0", "lowformer_b0", "resnet18"])
@pytest.mark.parametrize("maps", [True, False])
def test_a_training_step_moves_statistics_as_it_does_without_the_tap(name, maps):
    tap = build_model(name, 5, seed=0).train()
    plain = timm.create_model(name, num_classes=5).train()
    plain.load_state_dict(tap.model.state_dict())
    views = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    output = tap(views, maps=maps)
    (output.logits.sum() + output.pooled.sum()).backward()
    plain(tap.normalised(views))
    for part, wanted in plain.state_dict().items():
        assert torch.equal(tap.model.state_dict()[part], wanted), part


# ---- compiled, and the papers' models


@pytest.mark.parametrize("family", TINY)
def test_a_tapped_student_is_traced_whole(family):
    tap = tiny(family).eval()
    torch._dynamo.reset()
    compiled = torch.compile(tap, fullgraph=True, backend="eager")
    output, expected = compiled(images()), tap(images())
    assert torch.allclose(output.logits, expected.logits, atol=1e-6) and len(output.maps) == len(expected.maps)


PAPERS = [
    "resnet50",
    "resnet18",
    "deit_small_patch16_224",
    "deit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_b16_224",
    "mobilenetv2_100",
    "convnext_tiny",
    "resmlp_12_224",
]


@pytest.mark.parametrize("name", PAPERS)
def test_models_of_the_papers_are_known_to_timm_and_can_be_tapped(name):
    with torch.device("meta"):
        tap = Tap(timm.create_model(name, num_classes=7).eval(), {"name": name})
    shapes = shapes_of(tap, 224)
    assert shapes.logits.shape == (2, 7) and len(shapes.maps) == 4


@pytest.mark.parametrize("settings", [{}, {"qk_norm": True}])
@torch.no_grad()
def test_attention_is_what_a_transformers_blocks_compute_with(settings):
    name, small = TINY["vit"]
    tap = build_model(name, 5, **small, **settings).eval()
    for part in tap.model.modules():
        if isinstance(part, nn.LayerNorm):
            part.weight.copy_(torch.rand_like(part.weight) + 0.5)
    output, plainly = tap(images(), maps="attention"), tap(images())
    assert torch.equal(output.logits, plainly.logits) and plainly.attention == () and len(output.maps) == 4
    assert [joint.shape for joint in output.attention] == [(6, 3, 2, 17, 8)] * 4
    seen = {}
    block = tap.model.blocks[2].attn
    with block.register_forward_hook(lambda _, given, gives: seen.update(gives=gives)):
        tap(images())
    q, k, v = output.attention[2].unbind(1)
    heads = (q @ k.mT / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(block.proj(heads.transpose(1, 2).flatten(2)), seen["gives"], rtol=1e-4, atol=1e-5)
    twin = frozen(tap, half=True)
    with torch.autocast("cpu", torch.bfloat16):
        half = twin(images(), maps="attention").attention
    assert [joint.shape for joint in half] == [(6, 3, 2, 17, 8)] * 4 and half[0].dtype == torch.bfloat16
    torch.testing.assert_close(half[0].float(), output.attention[0], rtol=0.05, atol=0.05)


def test_a_network_that_keeps_what_it_computed_is_folded_again_and_again():
    tap = build_model("levit_128s", 4, seed=0).eval()
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        for twin in (frozen(tap, half=False), frozen(tap, half=False)):
            torch.testing.assert_close(twin(x).logits, tap(x).logits, rtol=1e-4, atol=1e-5)


def test_reading_attention_leaves_nothing_behind():
    tap = tiny("vit").eval()
    with pytest.raises(RuntimeError):
        tap(torch.rand(2, 4, 32, 32), maps="attention")
    tap(images(), maps="attention")
    assert not any(module._forward_hooks for module in tap.modules())


@pytest.mark.parametrize("family", [family for family in TINY if family != "vit"])
@torch.no_grad()
def test_networks_that_attend_another_way_or_not_at_all_have_none_to_read(family):
    assert tiny(family).eval()(images(), maps="attention").attention == ()


@torch.no_grad()
def test_attention_within_parts_of_an_image_is_not_taken_for_that_of_images():
    tap = build_model("mobilevit_xxs", 5).eval()
    assert tap(images(2), maps="attention").attention == ()


@torch.no_grad()
def test_attention_is_read_of_a_compiled_network_too():
    """Also where it has answered without."""
    tap = tiny("vit").eval()
    torch._dynamo.reset()
    compiled = torch.compile(tap, dynamic=False, backend="eager")
    compiled(images())
    found, expected = (model(images(), maps="attention").attention for model in (compiled, tap))
    assert len(found) == 4 and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected))
    assert compiled(images()).attention == ()

"""A smaller network that starts as a part of a larger one: whole blocks, channels that match from layer to layer, and what does not nest."""

import pytest
import torch

import wakd_kit as wk
from wakd_kit.models.inherit import evenly, inherited, places

from ..conftest import SMALL

WIDE = {**SMALL, "channels": (8, 16, 16, 16), "stem_width": 8}


def resnet(classes=4, seed=0, **settings):
    return wk.build_model("resnet10t", classes, seed=seed, **{**SMALL, **settings})


def vit(depth, classes=4, seed=0, **settings):
    settings = {"embed_dim": 16, "num_heads": 2, "img_size": 16, "patch_size": 8, **settings}
    return wk.build_model("vit_tiny_patch16_224", classes, seed=seed, depth=depth, **settings)


def test_places_are_evenly_spaced_from_the_first():
    assert evenly(6, 12) == [0, 2, 4, 6, 8, 10] and evenly(4, 6) == [0, 1, 3, 4] and evenly(3, 3) == [0, 1, 2]


def test_every_second_block_of_a_transformer_is_whole():
    large, student = vit(4), vit(2, seed=1)
    inherited(student, large, "blocks")
    theirs = large.state_dict()
    for name, value in student.state_dict().items():
        there = name.replace("blocks.1.", "blocks.2.")
        assert torch.equal(value, theirs[there]), name
    # by hand: the student is the larger network without its blocks 1 and 3
    x = torch.rand(2, 3, 16, 16)
    del large.model.blocks[3], large.model.blocks[1]
    torch.testing.assert_close(student.eval()(x, maps=False).logits, large.eval()(x, maps=False).logits, rtol=0, atol=0)


def test_channels_match_from_layer_to_layer():
    """Channels of the larger network that nobody keeps are silenced in it: then both are the same function."""
    large, student = resnet(seed=3, **{k: v for k, v in WIDE.items() if k != "layers"}).eval(), resnet().eval()
    inherited(student, large, "channels")
    assert torch.equal(student.model.layer1[0].conv2.weight, large.model.layer1[0].conv2.weight[::2, ::2])
    with torch.no_grad():
        for module in large.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight[1::2] = 0
                module.bias[1::2] = 0
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(student(x).logits, large(x).logits)
    torch.testing.assert_close(student(x).pooled, large(x).pooled[:, ::2])


def test_blocks_and_channels_at_once_and_a_stage_s_first_block_stays_first():
    large, student = (
        resnet(layers=(3, 2, 0, 0), **{k: v for k, v in WIDE.items() if k != "layers"}),
        resnet(layers=(2, 1, 0, 0)),
    )
    inherited(student, large, "both")
    assert torch.equal(student.model.layer1[1].conv1.weight, large.model.layer1[1].conv1.weight[::2, ::2])
    assert torch.equal(
        student.model.layer2[0].downsample[1].weight, large.model.layer2[0].downsample[1].weight[::2, ::2]
    )


def test_a_classifier_for_other_classes_starts_as_it_was_built():
    student, built = vit(2, classes=7, seed=1), vit(2, classes=7, seed=1)
    inherited(student, vit(4, classes=4), "blocks")
    assert torch.equal(student.model.head.weight, built.model.head.weight)
    assert not torch.equal(student.model.blocks[0].mlp.fc1.weight, built.model.blocks[0].mlp.fc1.weight)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128s"])
def test_a_classifier_of_several_modules_starts_as_it_was_built(name):
    settings = {"deit": {"embed_dim": 16, "num_heads": 2, "img_size": 16, "patch_size": 8, "depth": 2}}.get(
        name[:4], {}
    )
    student, built, large = (wk.build_model(name, classes, seed=classes, **settings) for classes in (3, 3, 4))
    for module in large.modules():  # as trained
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.fill_(1.0)
    inherited(student, large, "channels")
    heads = [(key, value) for key, value in built.state_dict().items() if key.startswith("model.head")]
    assert len(heads) > 2 and all(torch.equal(value, student.state_dict()[key]) for key, value in heads)


def test_the_small_networks_that_ship_nest():
    for large, small, by in (
        ("resnet18_w32", "resnet18_w16", "channels"),
        ("resnet18_w24", "resnet18_w16", "channels"),
    ):
        student = wk.build_model(small, 4, seed=0, inherit=wk.build_model(large, 4, seed=1), by=by)
        assert student.spec["started_from"] == f"{large}, by {by}"


def test_a_run_hands_its_average_on_and_what_it_has_seen(run, domains, tmp_path):
    narrow = {**SMALL, "channels": (2, 4, 4, 4)}
    student = wk.build_model("resnet10t", 4, seed=1, **narrow, inherit=run, by="channels")
    assert student.spec["started_from"] == "student, by channels"
    assert torch.equal(student.model.layer1[0].conv2.weight, run.model().model.layer1[0].conv2.weight[::2, ::2])
    with pytest.raises(ValueError, match="The student, or a model that it learned from, was trained on 'north'"):
        wk.train(student, wk.leave_one_out(domains, "north", seed=0), steps=2, batch_size=8, save_to=tmp_path / "leak")


def test_a_model_starts_from_one_place():
    with pytest.raises(ValueError, match="inherit and weights both say where the model starts"):
        wk.build_model("resnet10t", 4, **SMALL, inherit=resnet(), weights="w.safetensors")
    for given in ("runs/wide", 5):
        with pytest.raises(ValueError, match=rf"inherit is a network, or a run of one; got {given!r}"):
            wk.build_model("resnet10t", 4, **SMALL, inherit=given)
    with pytest.raises(ValueError, match="by is one of 'blocks', 'channels', 'both'; got 'halves'"):
        wk.build_model("resnet10t", 4, **SMALL, by="halves")


def test_a_bare_network_hands_its_part_on_as_a_tapped_one_does():
    bare = resnet()
    student = wk.build_model("resnet10t", 4, **SMALL, inherit=bare.model)
    same = wk.build_model("resnet10t", 4, **SMALL, inherit=bare)
    assert all(torch.equal(a, b) for a, b in zip(student.state_dict().values(), same.state_dict().values()))


@pytest.mark.parametrize(
    "small, large, by, sentence",
    [
        (lambda: resnet(), lambda: resnet(**WIDE), "blocks", "does not nest by blocks: model.conv1.0.weight is"),
        (lambda: resnet(layers=(2, 1, 0, 0)), lambda: resnet(), "blocks", "larger network has nothing like model.layer1.1.conv1.weight"),
        (lambda: resnet(**WIDE), lambda: resnet(), "channels", "does not nest: model.conv1.0.weight is .*, and only"),
        (lambda: vit(2), lambda: vit(2, embed_dim=32), "channels", "of attention, whose heads are no channels"),
        (lambda: vit(2), lambda: vit(4, num_heads=4), "blocks", r"blocks\.0\.attn has 2 heads, the larger network 4: each is of other"),
        (lambda: vit(2), lambda: resnet(), "both", "larger network has nothing like model.cls_token"),
        (lambda: vit(2), lambda: vit(2, img_size=32), "channels", "pos_embed is of 5 tokens, and of 17 in the larger network"),
        (lambda: resnet(), lambda: resnet(), "halves", "by is one of 'blocks', 'channels', 'both'; got 'halves'"),
    ],
)  # fmt: skip
def test_what_does_not_nest_is_a_sentence(small, large, by, sentence):
    with pytest.raises(ValueError, match=sentence):
        inherited(small(), large(), by)


def test_places_are_read_off_shapes_alone():
    ours = {"a.0.w": (2, 3), "a.1.w": (2, 3)}
    theirs = {f"a.{i}.w": (4, 3) for i in range(4)}
    assert places(ours, theirs, "both") == {"a.0.w": ("a.0.w", [[0, 2], None]), "a.1.w": ("a.2.w", [[0, 2], None])}


def test_groups_of_several_channels_are_not_halved():
    wide = wk.build_model("resnext50_32x4d", 3, seed=0)
    with pytest.raises(ValueError, match=r"layer1\.0\.conv2 has 16 groups of channels, the larger network 32"):
        wk.build_model("resnext50_32x4d", 3, seed=1, cardinality=16, inherit=wide)
    assert wk.build_model("mobilenetv2_050", 3, inherit=wk.build_model("mobilenetv2_100", 3, seed=0)).spec[
        "started_from"
    ]

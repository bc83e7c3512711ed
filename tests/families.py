"""Tiny models of six families, as student and as teacher, and what they give on a few images."""

import functools

import torch
from torch import Tensor

from wakd_kit.models.build import build_model
from wakd_kit.models.tap import Tap

SIDE, CLASSES = 32, 5
TINY = {
    "resnet": ("resnet10t", {"channels": (8, 8, 16, 16), "stem_width": 8}),
    "mobilenet": ("mobilenetv2_035", {}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 24)}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "patch_size": 2, "window_size": 2, "embed_dim": 8, "depths": (1,) * 4, "num_heads": (1,) * 4},
    ),
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2}),
    "mixer": ("mixer_any", {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_blocks": 4}),
}


def tiny(family: str, *, seed: int = 0, classes: int = CLASSES) -> Tap:
    """A model whose classifier says something: timm begins some of them at zero."""
    name, settings = TINY[family]
    tap = build_model(name, classes, seed=seed, **settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tap.model.get_classifier().parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return tap


@functools.cache
def images(count: int = 6) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def labels(count: int = 6) -> Tensor:
    return torch.arange(count) // 2 % CLASSES

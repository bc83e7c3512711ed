"""Models by name: small ones for 32 and 64 px, and the teacher-student pairs of the papers."""

from __future__ import annotations

from timm.layers import HybridEmbed
from timm.models import MlpMixer, VisionTransformer, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer_hybrid import ConvStem

# every name that is not here is timm's own
SMALL = {
    "resnet10t_w16": ("resnet10t", {"channels": (16, 32, 64, 128), "stem_width": 16}),
    "resnet18_w16": ("resnet18", {"channels": (16, 32, 64, 128)}),
    "resnet18_w24": ("resnet18", {"channels": (24, 48, 96, 192)}),
    "resnet18_w32": ("resnet18", {"channels": (32, 64, 128, 256)}),
    "vit_d64": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4}),
    "vit_conv_d64": ("vit_conv_any", {"img_size": 32, "embed_dim": 64, "depth": 4, "num_heads": 4}),
    "mixer_d64": ("mixer_any", {"img_size": 32, "patch_size": 4, "embed_dim": 64, "num_blocks": 4}),
}

# (teacher, student) as timm calls them; OFA-KD's students Swin-Nano and Swin-Pico are its own and not among them
WAKD_PAIRS = (("resnet50", "resnet18"), ("deit_small_patch16_224", "deit_tiny_patch16_224"))
OFA_PAIRS = (
    ("deit_tiny_patch16_224", "resnet18"),
    ("swin_tiny_patch4_window7_224", "resnet18"),
    ("mixer_b16_224", "resnet18"),
    ("deit_tiny_patch16_224", "mobilenetv2_100"),
    ("swin_tiny_patch4_window7_224", "mobilenetv2_100"),
    ("mixer_b16_224", "mobilenetv2_100"),
    ("resnet50", "deit_tiny_patch16_224"),
    ("convnext_tiny", "deit_tiny_patch16_224"),
    ("mixer_b16_224", "deit_tiny_patch16_224"),
    ("convnext_tiny", "resmlp_12_224"),
    ("swin_tiny_patch4_window7_224", "resmlp_12_224"),
)
PAIRS = {"wakd": WAKD_PAIRS, "ofa": OFA_PAIRS}

HALF = (0.5, 0.5, 0.5)
_at_32 = {"num_classes": 1000, "input_size": (3, 32, 32), "fixed_input_size": True, "mean": HALF, "std": HALF}
default_cfgs = generate_default_cfgs(
    {
        "mixer_any": {**_at_32, "first_conv": "stem.proj", "classifier": "head"},
        "vit_conv_any": {**_at_32, "first_conv": "patch_embed.backbone.0.conv", "classifier": "head"},
    }
)


@register_model
def mixer_any(pretrained: bool = False, **settings) -> MlpMixer:
    """timm's MLP-Mixer in any size: its own entry points fix patch size, width and depth."""
    return build_model_with_cfg(MlpMixer, "mixer_any", pretrained, **settings)


@register_model
def vit_conv_any(pretrained: bool = False, **settings) -> VisionTransformer:
    """timm's ViT behind its stem of three stride-2 convolutions, in any size: a token per 8 px.

    Early convolutions make transformers easier to train (Xiao et al. 2021, arXiv 2106.14881). They bring two BatchNorms along.
    """
    if "patch_size" in settings:
        raise TypeError("its stem, not patch_size, makes a token of every 8 px.")
    return build_model_with_cfg(VisionTransformer, "vit_conv_any", pretrained, embed_layer=_conv_stem, **settings)


def _conv_stem(img_size: int, in_chans: int, embed_dim: int, **settings) -> HybridEmbed:
    settings = {name: settings[name] for name in ("bias", "device", "dtype") if name in settings}
    stem = ConvStem(in_chans, channels=(embed_dim // 4, embed_dim // 2, embed_dim))
    return HybridEmbed(stem, img_size, patch_size=1, in_chans=in_chans, embed_dim=embed_dim, proj=False, **settings)

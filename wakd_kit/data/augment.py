"""Augmented views of a batch, drawn on the device that trains: one affine resampling and one colour matrix per image.

The recipe is DomainBed's (random resized crop, flip, colour jitter, grey), applied to the whole batch at once with a
different draw per image. It differs from torchvision's in these ways: the colour operations are composed into a single
matrix, in a fixed order, clamped once at the end instead of after each of them; hue turns in YIQ instead of HSV; a crop
that would be wider or higher than the image is cut to it; rotation is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import did_you_mean

# rows of RGB -> luma and the two chroma axes of YIQ, in which a hue change is a rotation
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = torch.linalg.inv(_YIQ)


@dataclass(frozen=True)
class Views:
    """How strongly views vary. All ranges are per image; 0 switches a variation off.

    scale       area of the crop as a fraction of the image, (low, high)
    ratio       aspect ratio (width / height) of the crop, (low, high), log-uniform
    rotation    largest rotation in degrees
    flip        probability of a horizontal flip
    brightness, contrast, saturation   factors drawn from 1 +- this
    hue         largest hue rotation as a fraction of the full circle
    gray        probability of dropping colour

    Raises ``ValueError`` for a range that makes no sense.
    """

    scale: tuple[float, float] = (0.7, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    rotation: float = 0.0
    flip: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.3
    gray: float = 0.1

    def __post_init__(self):
        for name, most in (("scale", 1.0), ("ratio", math.inf)):
            pair = getattr(self, name)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most:
                raise ValueError(f"{name} is (low, high) with 0 < low <= high{' <= 1' * (most == 1)}; got {pair!r}.")
        limits = {"rotation": 180, "hue": 0.5, "flip": 1, "gray": 1, "brightness": 1, "contrast": 1, "saturation": 1}
        for name, most in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise ValueError(f"{name} is a number from 0 to {most}; got {value!r}.")

    def settings(self) -> dict:
        """Plain values: ``views_from(settings)`` is the same again."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


PRESETS = {
    "photographs": Views(),  # DomainBed, Gulrajani & Lopez-Paz 2021, datasets.py
    "digits": Views(scale=(0.8, 1.0), ratio=(0.9, 1.1), rotation=8.0, flip=0.0, hue=0.1),  # a flipped 2 is no 2
    "none": Views(scale=(1, 1), ratio=(1, 1), flip=0, brightness=0, contrast=0, saturation=0, hue=0, gray=0),
}


def views_from(setting: str | dict | Views) -> Views:
    """A ``Views`` from a preset's name, a dictionary of its fields, or itself."""
    if isinstance(setting, Views):
        return setting
    if isinstance(setting, str):
        if setting not in PRESETS:
            raise ValueError(did_you_mean("views preset", setting, PRESETS))
        return PRESETS[setting]
    if not isinstance(setting, Mapping):
        raise ValueError(
            f"views is a preset ({', '.join(PRESETS)}) or a dictionary of fields of Views; got {setting!r}."
        )
    unknown = [name for name in setting if name not in Views.__dataclass_fields__]
    if unknown:
        raise ValueError(did_you_mean("views setting", unknown[0], Views.__dataclass_fields__))
    return Views(**{k: tuple(v) if isinstance(v, list) else v for k, v in setting.items()})


def to_float(images: Tensor) -> Tensor:
    """(n, H, W, 3) uint8 to (n, 3, H, W) float32 in [0, 1]; the memory stays as it lay, which is channels_last."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def augment(images: Tensor, views: Views, generator: torch.Generator) -> Tensor:
    """One random view of each image: (n, H, W, 3) uint8 in, (n, 3, H, W) float32 in [0, 1] out, channels_last.

    Every draw comes from ``generator`` (on the images' device), so a seeded generator repeats the views exactly.
    """
    x = to_float(images)
    n = len(x)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator, device=x.device, dtype=x.dtype) * (high - low) + low

    area, ratio = uniform(*views.scale), uniform(*map(math.log, views.ratio)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    angle = uniform(-views.rotation, views.rotation) * (math.pi / 180)
    mirror = torch.where(uniform(0, 1) < views.flip, -1.0, 1.0).to(x.dtype)
    shift_x, shift_y = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    affine = torch.stack(
        [
            torch.stack([width * angle.cos() * mirror, -height * angle.sin(), shift_x], 1),
            torch.stack([width * angle.sin() * mirror, height * angle.cos(), shift_y], 1),
        ],
        1,
    )
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    jitter = [uniform(1 - s, 1 + s) for s in (views.brightness, views.contrast, views.saturation)]
    matrix, offset = _colour(x, *jitter, uniform(-views.hue, views.hue) * (2 * math.pi), uniform(0, 1) < views.gray)
    x = torch.baddbmm(offset, matrix, x.flatten(2)).view_as(x)
    return x.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def _colour(x: Tensor, brightness, contrast, saturation, hue, gray) -> tuple[Tensor, Tensor]:
    """The composed colour change of each image: ``x -> matrix @ x + offset``, (n, 3, 3) and (n, 3, 1)."""
    yiq, rgb = _YIQ.to(x.device), _RGB.to(x.device)
    chroma = torch.where(gray, torch.zeros_like(saturation), saturation)
    turn = torch.zeros(len(x), 3, 3, device=x.device, dtype=x.dtype)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = chroma * hue.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -chroma * hue.sin(), chroma * hue.sin()
    matrix = rgb @ turn @ yiq * (brightness * contrast)[:, None, None]
    # contrast pulls towards the mean luma of the (brightened) image, as torchvision's adjust_contrast does
    luma = torch.einsum("c,nc->n", yiq[0], x.mean((2, 3))) * brightness
    offset = ((1 - contrast) * luma)[:, None, None].expand(-1, 3, 1)
    return matrix, offset


def calibration_views(split, views: Views, batches: int, batch_size: int, *, seed: int, device) -> list[Tensor]:
    """At most ``batches`` full batches of augmented source training images, pooled over domains; the same for a seed.

    Full ones only: BatchNorm weighs batches alike, and has no variance for a batch of one.
    """
    examples = list(split.train.values())
    sizes = np.array([len(e) for e in examples])
    rng = np.random.default_rng([seed, 0xBA7C])
    total = min(batches, int(sizes.sum()) // batch_size) * batch_size
    chosen = np.sort(rng.permutation(sizes.sum())[:total])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    parts = [e.images[chosen[(chosen >= a) & (chosen < b)] - a] for e, a, b in zip(examples, starts, starts[1:])]
    images = torch.from_numpy(np.concatenate(parts)[rng.permutation(total)]).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    return [augment(batch, views, generator) for batch in images.split(batch_size)]

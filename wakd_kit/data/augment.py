"""Augmented views of a batch, made on the device that trains: one affine resampling and one colour matrix per image.

The recipe is DomainBed's (random resized crop, flip, colour jitter, grey), applied to the whole batch at once with a
different draw per image. It differs from torchvision's in these ways: the colour operations are composed into a single
matrix, in a fixed order, clamped once at the end instead of after each of them; hue turns in YIQ instead of HSV; a crop
that would be wider or higher than the image is cut to it; it is cut of the square that images are resized to when they are
loaded, so that its ratio is that of the square (DomainBed crops what is not square, OfficeHome say, as it was); rotation is ours.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import did_you_mean, is_number
from .mixing import Mix, drawn_mix

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
            two = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(is_number, pair))
            if not two or not 0 < pair[0] <= pair[1] <= most:
                raise ValueError(f"{name} is (low, high) with 0 < low <= high{' <= 1' * (most == 1)}; got {pair!r}.")
            object.__setattr__(self, name, tuple(pair))
        limits = {"rotation": 180, "hue": 0.5, "flip": 1, "gray": 1, "brightness": 1, "contrast": 1, "saturation": 1}
        for name, most in limits.items():
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= most:
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


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device; the host does not wait for the copy, which is pinned where the device is CUDA's."""
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.requires_grad:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_float(images: Tensor) -> Tensor:
    """(n, H, W, 3) uint8 to (n, 3, H, W) float32 in [0, 1]; the memory stays as it lay, which is channels_last."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def augment(
    images: Tensor, views: Views, generator: torch.Generator, *, strengths: Tensor | None = None, view=None
) -> Tensor:
    """One random view of each image: (n, H, W, 3) uint8 in, (n, 3, H, W) float32 in [0, 1] out, channels_last.

    Every draw comes from ``generator``, so a seeded generator repeats the views exactly; one of the CPU draws the same
    views of images on every device. ``strengths`` are those of ``drawn``; ``view`` stands in for ``viewed``: the same, compiled.
    """
    return (view or viewed)(images, *_on(images.device, drawn(len(images), views, generator, strengths=strengths)))


def drawn(n: int, views: Views, generator: torch.Generator, *, strengths: Tensor | None = None) -> tuple[Tensor, ...]:
    """What ``viewed`` does to each of n images, on the generator's device: how they are resampled (n, 2, 3), the change of
    their colours (n, 3, 3), their brightness (n,), the share of their mean luma (n,), and what luma is (3,).

    ``strengths`` (7,), of ``VARIATIONS``, are those of the views times a number each, which gradients reach.
    """
    device = torch.device("cpu") if generator is None else generator.device
    low, span = (bound.to(device) for bound in _ranges(views))
    draws = torch.rand(len(low), n, generator=generator, device=device, dtype=torch.float32) * span + low
    if strengths is not None:
        draws = _strengthened(draws, strengths)
    area, ratio, angle, flip, shift_x, shift_y, brightness, contrast, saturation, hue, gray = draws

    ratio, angle = ratio.exp(), angle * (math.pi / 180)
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    mirror = torch.where(flip < views.flip, -1.0, 1.0).to(draws.dtype)
    cos, sin = angle.cos(), angle.sin()
    across = (width * cos * mirror, -height * sin, shift_x * (1 - width))
    down = (width * sin * mirror, height * cos, shift_y * (1 - height))
    affine = torch.stack([*across, *down], 1).view(n, 2, 3)
    colour = _colour(brightness, contrast, saturation, hue * (2 * math.pi), gray < views.gray)
    return affine, colour, brightness, 1 - contrast, _YIQ[0].to(device)


def _strengthened(draws: Tensor, strengths: Tensor) -> Tensor:
    """Draws that are so many times as far from no change, where that is a view: of a twentieth of an image, of no colour."""
    rows, none, least = zip(*VARIATIONS.values())
    none, least = (draws.new_tensor(column)[:, None] for column in (none, least))
    moved = torch.maximum(none + strengths[:, None] * (draws[[*rows]] - none), least)
    return draws.index_copy(0, torch.tensor(rows, device=draws.device), moved)


def _colour(brightness, contrast, saturation, hue, gray) -> Tensor:
    """The composed colour change of each image but for what contrast adds, (n, 3, 3)."""
    yiq, rgb = _YIQ.to(hue.device), _RGB.to(hue.device)
    chroma = saturation.masked_fill(gray, 0)
    cos, sin = chroma * hue.cos(), chroma * hue.sin()
    turn = hue.new_zeros(len(hue), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = cos
    turn[:, 1, 2], turn[:, 2, 1] = -sin, sin
    return rgb @ turn @ yiq * (brightness * contrast)[:, None, None]


# which draw varies it, what leaves an image as it is, and the least that it can be
VARIATIONS = {
    "scale": (0, 1.0, 0.05),
    "ratio": (1, 0.0, -math.inf),
    "rotation": (2, 0.0, -math.inf),
    "brightness": (6, 1.0, 0.0),
    "contrast": (7, 1.0, 0.0),
    "saturation": (8, 1.0, 0.0),
    "hue": (9, 0.0, -math.inf),
}


@functools.cache
def _ranges(views: Views) -> tuple[Tensor, Tensor]:
    """The lowest value of each draw and how far it reaches, (11, 1) each."""
    jitter = [(1 - s, 1 + s) for s in (views.brightness, views.contrast, views.saturation)]
    ranges = [
        views.scale,
        tuple(map(math.log, views.ratio)),
        (-views.rotation, views.rotation),
        (0, 1),
        (-1, 1),
        (-1, 1),
    ]
    ranges += [*jitter, (-views.hue, views.hue), (0, 1)]
    columns = [[low for low, _ in ranges], [high - low for low, high in ranges]]
    low, span = torch.tensor(columns, dtype=torch.float32)[..., None]
    return low, span


def _on(device: torch.device, parts: tuple[Tensor, ...]) -> Sequence[Tensor]:
    """Small tensors on the device, in one copy."""
    if parts[0].device == device:
        return parts
    whole = upload(torch.cat([part.flatten() for part in parts]), device).split([part.numel() for part in parts])
    return [part.view(like.shape) for part, like in zip(whole, parts)]


def viewed(images: Tensor, affine: Tensor, colour: Tensor, brightness: Tensor, pulled: Tensor, luma: Tensor) -> Tensor:
    """Images (n, H, W, 3) uint8 as ``drawn`` says, on one device: (n, 3, H, W) float32, channels_last."""
    x = to_float(images)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # contrast pulls towards the mean luma of the (brightened) image, as torchvision's adjust_contrast does
    mean = torch.einsum("c,nc->n", luma, x.mean((2, 3))) * brightness
    offset = (pulled * mean)[:, None, None].expand(-1, 3, 1)
    x = torch.baddbmm(offset, colour, x.flatten(2)).view_as(x)
    return x.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def mixed(x: Tensor, labels: Tensor, mix: Mix, rng: np.random.Generator, classes: int) -> tuple[Tensor, Tensor]:
    """Views (n, 3, H, W) and labels (n,) mixed: of the same shape, and (n, classes) unless they stay each image's own."""
    n, _, *size = x.shape
    partner, own, of_pixels = drawn_mix(n, size, mix, rng)
    partner, own, of_pixels = (upload(torch.from_numpy(part), x.device) for part in (partner, own, of_pixels))
    of_pixels, own = of_pixels.to(x.dtype)[:, None], own.to(x.dtype)[:, None]
    both = x * of_pixels + x[partner] * (1 - of_pixels)
    if mix.labels == "mixed":
        labels = F.one_hot(labels, classes).to(x.dtype)
        labels = own * labels + (1 - own) * labels[partner]
    return both.contiguous(memory_format=torch.channels_last), labels


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
    generator = torch.Generator().manual_seed(seed)
    return [augment(batch, views, generator) for batch in images.split(batch_size)]

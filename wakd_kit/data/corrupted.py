"""Common corruptions at five severities (Hendrycks and Dietterich 2019, arXiv 1903.12261), by torch and torchvision.

Strengths are those of CIFAR-10-C for images of up to 64 pixels and of ImageNet-C for larger ones. Eight that need no picture of
frost, no ImageMagick and no library that nobody keeps: docs/decisions/0039.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

SEVERITIES = (1, 2, 3, 4, 5)


def _blur(x: Tensor, sigma: float, g: torch.Generator) -> Tensor:
    return vision.gaussian_blur(x, [2 * int(np.ceil(4 * sigma)) + 1] * 2, [sigma, sigma])


def _impulse(x: Tensor, amount: float, g: torch.Generator) -> Tensor:
    hit, salt = (torch.rand(x.shape, generator=g) < share for share in (amount, 0.5))
    return torch.where(hit, salt.to(x), x)


def _brighter(x: Tensor, by: float, g: torch.Generator) -> Tensor:
    value = x.amax(1, keepdim=True)  # of HSV: hue and saturation stay
    return torch.where(value > 0, x / value.clamp(min=1e-6), 1) * (value + by).clamp(max=1)


def _paler(x: Tensor, to: float, g: torch.Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return mean + to * (x - mean)


def _coarser(x: Tensor, to: float, g: torch.Generator) -> Tensor:
    """By PIL's box, as published: it takes whole pixels, where averages over areas would blur at the mildest severity, too."""
    whole = x.shape[:1:-1]  # width, height

    def coarser(image: Tensor) -> Tensor:
        small = vision.to_pil_image(image).resize([int(side * to) for side in whole], Image.Resampling.BOX)
        return vision.pil_to_tensor(small.resize(whole, Image.Resampling.BOX))

    return _as_bytes(coarser, x)


def _jpeg(x: Tensor, quality: int, g: torch.Generator) -> Tensor:
    return _as_bytes(lambda image: vision.jpeg(image, quality), x)


def _as_bytes(change: Callable, x: Tensor) -> Tensor:
    return torch.stack([change(image) for image in (255 * x).round().byte()]).float() / 255


# name: what is done to (n, 3, H, W) in [0, 1], its strength at severities 1 to 5 for small images, and for large ones
CORRUPTIONS: dict[str, tuple[Callable, tuple, tuple]] = {
    "gaussian noise": (
        lambda x, sd, g: x + sd * torch.randn(x.shape, generator=g), (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)
    ),
    "shot noise": (lambda x, c, g: torch.poisson(x * c, generator=g) / c, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse noise": (_impulse, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian blur": (_blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)),
    "brightness": (_brighter, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_paler, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": (_coarser, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (_jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}  # fmt: skip


def corrupt(images: np.ndarray, name: str, severity: int, *, seed: int = 0) -> np.ndarray:
    """Images (n, side, side, 3) uint8, each corrupted as ``CORRUPTIONS`` has it; the same seed gives the same noise."""
    change, small, large = CORRUPTIONS[name]
    strength = (small if images.shape[1] <= 64 else large)[severity - 1]
    generator = torch.Generator().manual_seed(seed)
    out = np.empty_like(images)
    for start in range(0, len(images), 256):
        x = torch.from_numpy(np.array(images[start : start + 256])).permute(0, 3, 1, 2).float() / 255
        x = change(x, strength, generator).clamp(0, 1)
        out[start : start + 256] = (255 * x).round().byte().permute(0, 2, 3, 1).numpy()
    return out

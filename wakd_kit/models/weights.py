"""Where pretrained weights come from: small backbones that ship with the package, a folder of your own, timm's hub.

A shipped file is ``weights/<name>.safetensors`` (half precision) with its card ``<name>.safetensors.json`` beside it, called
like timm's: ``resnet10t_w16.px64`` is the model ``resnet10t_w16`` pretrained at 64 px. ``wakd pretrain`` makes them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..files import path_of, stamp
from ..names import did_you_mean

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

WEIGHTS = Path(__file__).with_name("shipped")
ENDINGS = (".safetensors", ".pth", ".bin")


@dataclass(frozen=True)
class Found:
    """A file of weights, where it is from in words, and the card that ``wakd pretrain`` wrote of it, if it did."""

    file: Path
    origin: str
    card: dict = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """The side in pixels that the weights were trained at, where that is known."""
        return self.card["input"]["size"] if self.card else None


def shipped() -> dict[str, dict]:
    """``{name: card}`` of the weights that ship with the package."""
    return {_named(file): json.loads(file.read_text(encoding="utf-8")) for file in sorted(WEIGHTS.glob("*.json"))}


def _named(card: Path) -> str:
    return card.name.removesuffix(".safetensors.json")


def find(name: str) -> Found | None:
    """Weights of this name on this machine: shipped, else ``<name>.safetensors``, .pth or .bin in ``$WAKD_WEIGHTS``; None when
    there are none, and timm's hub has to be asked.

    Raises ``ValueError`` for a shipped file that is not the one its card describes, for one in ``$WAKD_WEIGHTS`` of the same
    name, and for a small model that ships for several sizes when none is named, or for none.
    """
    cards, own = shipped(), _in_folder(name)
    if name in cards:
        found = _checked(name, cards[name])
        if own and sha256(own) != cards[name]["sha256"]:
            raise ValueError(
                f"{name} ships with the kit, and {own.name} in WAKD_WEIGHTS is another file. Rename yours, or pass weights='FILE'."
            )
        return found
    if own:
        return Found(own, f"{own.name} in WAKD_WEIGHTS (SHA-256 {sha256(own)[:12]})", card_of(own))
    model = name.partition(".")[0]
    if model in SMALL:
        sizes = [other for other in cards if other.startswith(f"{model}.")]
        if name == model and len(sizes) == 1:
            return find(sizes[0])
        if sizes:
            raise ValueError(
                f"{did_you_mean('pretrained weights', name, sizes)} The ending is the size they were trained at."
            )
        raise ValueError(
            f"{model} is smaller than timm's {SMALL[model][0]}: no published weights fit it, and none ship with the kit. Pass "
            "weights='FILE', or make them: wakd pretrain."
        )
    return None


def from_file(file: str | os.PathLike) -> Found:
    """Weights in a file of one's own, known by what is in it. Raises ``FileNotFoundError`` when it is not there."""
    file = path_of(file)
    if not file.is_file():
        raise FileNotFoundError(f"No weights file at {file}. Give a file that ends in {', '.join(ENDINGS)}.")
    return Found(file, f"{file.name} (SHA-256 {sha256(file)[:12]})", card_of(file))


def _in_folder(name: str) -> Path | None:
    folder = os.environ.get("WAKD_WEIGHTS")
    files = [path_of(folder) / f"{name}{ending}" for ending in ENDINGS] if folder else []
    return next((file for file in files if file.is_file()), None)


def _checked(name: str, card: dict) -> Found:
    file = WEIGHTS / f"{name}.safetensors"
    if not file.is_file():
        raise ValueError(f"{file.name} does not lie beside its card; install wakd_kit again.")
    digest = sha256(file)
    if digest != card["sha256"]:
        raise ValueError(
            f"{file.name} is not the file of its card: its SHA-256 is {digest[:12]}..., the card says {card['sha256'][:12]}... "
            "Install wakd_kit again, or pass weights='FILE' to use a file of your own."
        )
    return Found(file, f"shipped {name} (SHA-256 {digest[:12]})", card)


def card_of(file: Path) -> dict:
    """The card of ``wakd pretrain`` beside a file of weights; empty when there is none."""
    known = _beside(file)
    return known if "held_out" in known else {}


def provenance_of_file(file: Path) -> dict:
    """What the card beside a file of weights, of ``export`` or ``wakd pretrain``, says of its training; empty for no card.

    Raises ``ValueError`` when the file is not the one that its card describes.
    """
    card = _beside(file)
    if "sha256" in card and sha256(file) != card["sha256"]:
        raise ValueError(
            f"{file} is not the file that its card describes ({file.name}.json beside it): export it again, or move one away."
        )
    origin = {"file": file.name, "strategy": card.get("strategy", ""), "note": card.get("picked", "")}
    if "fingerprint" in card.get("data", {}) and "sources" in card["data"]:
        origin["split"] = card["data"]
    if "seen" in card:
        origin["seen"] = card["seen"]
    return origin if origin.keys() & {"split", "seen"} else {}


def _beside(file: Path) -> dict:
    card = file.with_name(f"{file.name}.json")
    known = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    return known if isinstance(known, dict) else {}


def check_normalisation(name: str, card: dict, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises ``ValueError`` when a model normalises its images otherwise than its card says: timm's defaults may change."""
    for part, ours in (("mean", mean), ("std", std)):
        if card and not np.allclose(ours, card["input"][part], atol=1e-3):
            raise ValueError(
                f"{name} was pretrained on images normalised with {part} {np.round(card['input'][part], 3)}, and this timm gives it "
                f"{np.round(ours, 3)}. Install timm {card['environment']['packages']['timm']}."
            )


def check_size(name: str, trained_at: int | None, resized_to: tuple[int, int] | None, size: int) -> None:
    """Small backbones are pretrained at one size, and what they know of edges and strokes does not carry over to another.

    trained_at  side in pixels, None where nothing is known;  resized_to  what the model resizes its images to, if it does
    size        side of the images. Raises ``ValueError`` when the model would see another size than it was trained at
    """
    seen = resized_to[0] if resized_to else size
    if trained_at and seen != trained_at:
        raise ValueError(
            f"{name} was pretrained at {trained_at} px and would see {seen} px. Take weights for {seen} px (wakd list weights), "
            f"load the images at {trained_at} px, or say build_model(..., input_size={trained_at}) to resize them."
        )


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return _sha256(file, stamp(file))


@functools.cache  # a plan of a thousand jobs asks for the same few
def _sha256(file: Path, _) -> str:
    with open(file, "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()

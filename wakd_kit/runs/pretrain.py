"""Small backbones pretrained on a folder of classes, and made into weights that ship with the package.

    wakd pretrain resnet10t_w16.px64 tiny-imagenet-subset.tar --to wakd_kit/weights

It is ``train`` on a split that leaves no domain out, so it is deterministic, resumable and logged like any training.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, replace
from pathlib import Path

from ..averaging import last
from ..checks import explained, fitted
from ..data.augment import Views
from ..data.domains import leave_one_out, load_domains
from ..files import made, read_json, write_text
from ..models.build import build_model
from ..models.device import device
from ..models.weights import sha256
from ..names import did_you_mean
from .identity import normalisation, seen_according_to
from .network import predict
from .run import Run
from .settings import FITS
from .store import write_state
from .train import train
from .validate import scores

HELD_OUT = 0.1
VIEWS = Views(scale=(0.4, 1.0), brightness=0.2, contrast=0.2, saturation=0.2, hue=0.0, gray=0.05)
TRAINED_WITH = sorted(inspect.signature(train).parameters.keys() - {"student", "split", "seed", "save_to", "resume"})


@dataclass(frozen=True)
class Recipe:
    """How one backbone is pretrained: cross-entropy with label smoothing, AdamW, a warm-up and half a cosine to zero.

    Views vary the crop more and colour less than DomainBed's: networks this small underfit, and hue is a thing to learn.
    """

    model: str
    size: int
    epochs: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    batch_size: int = 128
    warmup: float = 0.05  # of all steps
    label_smoothing: float = 0.1
    precision: str = "bfloat16"  # faster for these CNNs where the processor has it, see benchmarks/precision.py

    def training(self, images: int, *, steps: int | None = None) -> dict:
        """Settings of ``train`` for this many training images, or for this many steps."""
        steps = steps or max(20, round(self.epochs * images / self.batch_size))
        return {
            "objectives": [{"name": "ce", "label_smoothing": self.label_smoothing}],
            "steps": steps,
            "segment_length": max(1, steps // 20),
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "optimiser": "adamw",
            "weight_decay": self.weight_decay,
            "schedule": "cosine",
            "warmup": round(self.warmup * steps),
            "views": VIEWS.settings(),
            "batchnorm": "last",
            "precision": self.precision,
            "declare": ["last"],
            "most_stored": 16,
        }


RECIPES = {
    "resnet10t_w16.px32": Recipe("resnet10t_w16", 32, epochs=20),
    "resnet18_w16.px32": Recipe("resnet18_w16", 32, epochs=20),
    "vit_conv_d64.px32": Recipe("vit_conv_d64", 32, epochs=20, learning_rate=1e-3, precision="float32"),
    "resnet10t_w16.px64": Recipe("resnet10t_w16", 64, epochs=20),
    "resnet18_w24.px64": Recipe("resnet18_w24", 64, epochs=20),
}


def recipe_of(name: str) -> Recipe:
    """The recipe of this name. Raises ``ValueError`` with the closest one."""
    if name not in RECIPES:
        raise ValueError(did_you_mean("recipe", name, RECIPES))
    return RECIPES[name]


@explained
def pretrain(name: str, images: str | Path, *, save_to: str | Path | None = None, seed: int = 0, **changes) -> Run:
    """Pretrain a backbone by its recipe on class/images, a folder or an archive; a tenth of each class is held out.

    changes  other settings of ``train``, such as steps=20; warm-up and segments follow the steps, and those the batch size
    A killed run continues with the same call. The default folder is runs/pretrain/<name>.
    """
    recipe = recipe_of(name)
    if "batch_size" in changes:
        recipe = replace(recipe, batch_size=fitted("batch_size", changes["batch_size"], FITS.batch_size))
    for setting in changes:
        if setting not in TRAINED_WITH:
            raise ValueError(did_you_mean("setting of train", setting, TRAINED_WITH))
    steps = fitted("steps", changes["steps"], FITS.steps) if "steps" in changes else None
    split = leave_one_out(load_domains(f"images:{images}", size=recipe.size), None, seed, validation=HELD_OUT)
    student = build_model(recipe.model, split.classes, seed=seed)
    settings = {**recipe.training(len(split.train["images"]), steps=steps), **changes}
    return train(student, split, **settings, seed=seed, save_to=save_to or Path("runs/pretrain", name), resume=True)


def write_weights(run: Run, name: str, folder: str | Path, *, data: str, licence: str) -> dict:
    """Write the last iterate in half precision as ``<folder>/<name>.safetensors`` with its card; returns the card.

    data, licence  what the images are, and under which terms they are given, in words
    The accuracy on the card is that of the file, read back: half precision included, on the images held out.
    """
    recipe, folder = recipe_of(name), Path(folder)
    made(folder, "folder for the weights")
    file = folder / f"{name}.safetensors"
    state = run.model(last(run.source_curves)).model.state_dict()
    write_state(file, {key: value.half() if value.is_floating_point() else value for key, value in state.items()})
    held_out = next(iter(run.split.val.values()))
    logits = predict(build_model(recipe.model, run.split.classes, weights=file).to(device()), held_out.images)
    measured = {**scores(logits, held_out.labels), "n": len(held_out)}
    environment = read_json(run.folder / "environment.json")
    tap = build_model(recipe.model, 2)
    about = (
        f"{recipe.model} at {recipe.size} px: {100 * measured['accuracy']:.1f} % of {len(held_out)} held-out images of {len(run.split.classes)} "
        f"classes after {run.steps} steps of {run.settings['batch_size']} in {environment['seconds']:.0f} s"
    )
    recorded = "objectives steps batch_size learning_rate optimiser weight_decay schedule warmup precision seed views"
    card = {
        "about": about,
        "model": {"name": recipe.model, "parameters": sum(p.numel() for p in tap.parameters())},
        "input": normalisation(tap) | {"size": recipe.size, "range": [0, 1]},
        "data": {
            "what": data,
            "licence": licence,
            "training_images": len(run.split.train["images"]),
            "fingerprint": run.settings["split"]["fingerprint"],
            "classes": list(run.split.classes),
        },
        "seen": seen_according_to(run.settings),
        "recipe": {setting: run.settings[setting] for setting in recorded.split()},
        "held_out": measured,
        "environment": environment,
        "dtype": "float16",
        "bytes": file.stat().st_size,
        "sha256": sha256(file),
    }
    write_text(folder / f"{name}.safetensors.json", json.dumps(card, indent=1) + "\n")
    return card

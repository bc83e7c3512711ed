"""An average for use elsewhere: parameters or a folder that timm loads, or an ONNX graph, and a card that says what they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..averaging import NoWindow
from ..checks import explained
from ..data.domains import Split
from ..files import made, path_of, read_json, together, write_text, write_with
from ..models.build import build_model
from ..models.weights import HUB_CARD, HUB_WEIGHTS, card_beside, from_file, provenance_of_file, sha256
from ..runs.identity import normalisation, seen_according_to
from ..runs.store import write_state
from . import hub
from .scores import score_choices

FORMATS = (".safetensors", ".onnx")


@explained
def export(run, coefficients, file: str | os.PathLike, *, split: Split | None = None, scores: bool = True) -> Path:
    """Write an averaged student and, beside it, its card ``<file>.json``; returns the card's path.

    file    ``.safetensors``: the bare timm model's parameters, for ``timm.create_model(...).load_state_dict`` or
            ``build_model(weights=file)``; of a module of one's own that one's, for its ``load_state_dict``. ``.onnx``: a graph from (n, 3, height, width) images in [0, 1], normalisation
            included, to (n, classes) logits; needs ``onnxscript``. Without an ending: a folder of model.safetensors,
            config.json and README.md, for ``timm.create_model("local-dir:FOLDER", pretrained=True)``, and as such ready to be
            pushed: ``huggingface_hub.upload_folder(folder_path=..., repo_id=...)``; its card is wakd_kit.json inside
    scores  evaluate it on every domain, for the card

    The card holds model, classes, input size and normalisation, strategy and coefficients, the data and split it was
    trained on, and its scores, target included: they describe, and nothing was chosen by them. ``input`` says what is to be
    done to images: of a graph that normalises, its mean and std stand under "inside the graph". Model, classes, input and
    strategy are in the file's own metadata, too, as JSON under "wakd_kit".

    Raises ``ValueError`` for another ending, ``NoWindow`` when that is what was given and ``ImportError`` without
    ``onnxscript``, each before anything is computed; ``ValueError`` as well where timm would make another network of the folder.
    File and card come together, or neither does.
    """
    if isinstance(coefficients, NoWindow):
        raise coefficients
    file = path_of(file)
    if file.suffix not in (*FORMATS, ""):
        raise ValueError(
            f"An average is exported as {' or '.join(FORMATS)}, or without an ending as a folder; got {file.name!r}."
        )
    if (
        not file.suffix
        and file.exists()
        and not (file / hub.CONFIG).is_file()
        and (file.is_file() or any(file.iterdir()))
    ):
        raise ValueError(f"{file} is there and no exported folder; give another name.")
    if file.suffix == ".onnx":
        _need_onnx()
    elif parts := _not_timms(run.settings["student"].get("settings", {})):
        raise ValueError(
            f"This student deploys a part that is not timm's ({parts}), so timm could not load its weights: export it "
            "as .onnx, or use run.model(coefficients)."
        )
    environment = run.folder / "environment.json"
    origin = read_json(environment) if environment.exists() else None
    split = split or run.split
    model, size = run.model(coefficients, split=split), split.domains.size
    made(file.parent, "place for the export")
    normalised = normalisation(model)
    shown = {"size": size, "range": [0, 1]}
    if file.suffix == ".onnx":
        shown |= {"normalisation": "inside the graph", "inside the graph": normalised} if normalised else {}
    else:
        # without its tap the network gets images of its own size
        shown["size"] = (normalised.pop("size", None) or [size])[0]
        shown |= {"normalisation": "to be done: (image - mean) / std", **normalised} if normalised else {}
    short = {
        "model": run.settings["student"]["name"],
        "classes": list(split.classes),
        "input": shown,
        "strategy": getattr(coefficients, "strategy", "") or "given coefficients",
    }
    table = score_choices(run, {"average": coefficients}, split).drop(columns=["strategy", "note"]) if scores else None
    notes = {"note": "", "chosen_by": "", "of": "mean", "initial": 0.0} | getattr(coefficients, "plain", {})
    card = {
        "model": run.settings["student"],
        **{name: short[name] for name in ("input", "classes", "strategy")},
        "picked": notes["note"],
        **{
            name: notes[name]
            for name in ("chosen_by", "of", "initial", "ends", "signed", "recalibrated")
            if name in notes
        },
        "segment_ends": [int(step) for step in run.table["step"]],
        "coefficients": np.asarray(coefficients, dtype=np.float64).tolist(),
        "batchnorm": run.settings["batchnorm"],
        "data": run.settings["split"],
        "seen": seen_according_to(run.settings),
        "objectives": run.settings["objectives"],
        "scores": None if table is None else table.to_dict("records"),
        "environment": origin,
    }
    hubs = not file.suffix
    card_name = HUB_CARD if hubs else f"{file.name}.json"
    with together(file, folder=hubs) as aside:
        weights = aside / (HUB_WEIGHTS if hubs else file.name)
        if file.suffix == ".onnx":
            _write_onnx(model, size, weights, short)
        else:
            write_state(weights, getattr(model, "model", model).state_dict())
            state, said = load_file(weights), {"format": "pt", "wakd_kit": json.dumps(short)}
            write_with(weights, lambda part: save_file(state, part, metadata=said))
        if hubs:
            hub.write_config(model, aside / hub.CONFIG, card)
            hub.load_again(aside, model, size)
            hub.write_card(aside / hub.CARD, card)
        write_text(aside / card_name, json.dumps({**card, "sha256": sha256(weights)}, indent=1))
    return (file if hubs else file.parent) / card_name


def card_of_export(file: str | os.PathLike) -> dict:
    """What the card beside a ``.safetensors`` file that ``export`` wrote says of it. Raises ``ValueError`` for any other file."""
    file = path_of(file)
    card = card_beside(file)
    if file.suffix != ".safetensors" or not card.keys() >= {"model", "classes", "data"}:
        raise ValueError(
            f"{file} cannot teach: a teacher is a run's folder, or a .safetensors file that wakd average --export wrote, with its "
            f"card {file.name}.json beside it."
        )
    provenance_of_file(from_file(file).file)  # it is there, and the one that its card describes
    return card


def exported(file: Path) -> nn.Module:
    """The network of an exported file, built as its card says; it knows what it was trained on. Raises what ``card_of_export`` does."""
    card = card_of_export(file)
    return build_model(card["model"]["name"], card["classes"], weights=file, **card["model"]["settings"])


def _not_timms(built_with: dict) -> str:
    """What a student has that timm's network of this name would answer without; empty for what acts in training alone."""
    inside = built_with.get("inside", {}).get("name")
    return built_with.get("deployed", {}).get("tail") or (inside if inside != "mixstyle" else "") or ""


def _need_onnx() -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError("ONNX export needs onnxscript: pip install onnxscript.") from None


class Logits(nn.Module):
    """A tap as a plain network: images in, logits out. What is exported, and what a Hessian is taken of."""

    def __init__(self, tap: nn.Module):
        super().__init__()
        self.tap = tap

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, classes) logits of (n, 3, height, width) images in [0, 1]."""
        return self.tap(images, maps=False).logits


def _write_onnx(model: nn.Module, size: int, path: Path, short: dict) -> None:
    program = torch.onnx.export(
        Logits(model).eval(),
        (torch.zeros(2, 3, size, size),),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: "n"}},
        dynamo=True,
        verbose=False,
    )
    program.model.metadata_props["wakd_kit"] = json.dumps(short)
    program.save(path)

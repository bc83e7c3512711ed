"""An average as the folder that timm and its hub know a model by: config.json, model.safetensors, README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import timm
from torch import nn

from ..files import write_text
from ..models.build import SMALL, declares
from ..models.tap import Tap

KITS = {"input_size", "inside", "deployed"}  # settings that build_model keeps to itself
CONFIG, CARD = "config.json", "README.md"


def write_config(tap: nn.Module, file: Path, card: Mapping) -> None:
    """Write what timm builds the network of, and how it wants its images: squeezed to its size, then normalised.

    Its format is that of timm's hub. Raises ``ValueError`` where a network is none of timm's.
    """
    if not isinstance(tap, Tap):
        raise ValueError("This student is no timm model, so timm could not build it: export it as .onnx.")
    _, narrow = SMALL.get(card["model"]["name"].partition(".")[0], ("", {}))
    settings = {**narrow, **card["model"].get("settings", {})}
    known, side = tap.model.pretrained_cfg, card["input"]["size"]
    seen = {name: known.get(name) for name in ("first_conv", "classifier", "fixed_input_size")}
    seen |= {"num_classes": len(card["classes"]), "input_size": [3, side, side], "mean": card["input"]["mean"]}
    seen |= {"std": card["input"]["std"], "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}
    said = {"architecture": known["architecture"], "num_classes": len(card["classes"]), "label_names": card["classes"]}
    said |= {"num_features": tap.model.num_features, "pretrained_cfg": seen}
    said["model_args"] = {name: value for name, value in settings.items() if name not in KITS}
    write_text(file, json.dumps(said, indent=2))


def load_again(folder: Path) -> nn.Module:
    """The network, as anybody's ``timm.create_model`` makes it of the folder."""
    return timm.create_model(f"local-dir:{folder}", pretrained=True)


def write_card(file: Path, card: Mapping) -> None:
    """Write a model card in the hub's format: what it is, how it is used, and its scores as ``model-index``.

    No licence is claimed: that is for who publishes it, by the terms of the images and of the weights it started from.
    """
    from huggingface_hub import EvalResult, ModelCardData

    name, data = card["model"]["name"], card["data"]
    benchmark = str(data["benchmark"] or "a benchmark").partition(":")[0]  # without where it lies here
    scores = card["scores"] or []
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=benchmark,
            dataset_name=f"{benchmark}, {row['domain']}",
            dataset_config=row["domain"],
            dataset_split="unseen" if row["role"] == "target" else "validation",
            metric_type="accuracy",
            metric_value=round(float(row["accuracy"]), 4),
        )
        for row in scores
    ]
    tags = ["image-classification", "timm", "domain-generalization", "weight-averaging", "wakd_kit"]
    head = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=tags,
        model_name=f"{name}-{card['strategy']}",
        eval_results=results or None,
    )
    write_text(file, f"---\n{head.to_yaml()}\n---\n\n{_body(card, benchmark)}")


def _body(card: Mapping, benchmark: str) -> str:
    name, data, side = card["model"]["name"], card["data"], card["input"]["size"]
    own = declares("wakd_kit.models.build", name)
    lines = [
        f"# {name}, {card['strategy']}",
        "",
        f"An average of parameters along one training, by wakd_kit: {card['picked'] or card['strategy']}. Trained on the domains "
        f"{', '.join(map(str, data.get('sources', [])))} of {benchmark}"
        + (f"; {data['target']} was not seen." if data.get("target") else "."),
        "",
        "```python",
        *["import wakd_kit.models.build  # declares it to timm"] * own,
        "import timm",
        "",
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # or "hf-hub:NAME/REPOSITORY"',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        "```",
        "",
        f"Images are squeezed to {side} x {side} pixels. Classes, in their order: {', '.join(card['classes'])}.",
        "",
    ]
    if card["scores"]:
        lines += ["| domain | | images | accuracy, % |", "|---|---|---|---|"]
        lines += [
            f"| {row['domain']} | {'unseen' if row['role'] == 'target' else 'validation images of a source'} | {row['n']} | "
            f"{100 * row['accuracy']:.1f} |"
            for row in card["scores"]
        ]
        lines += [
            "",
            f"Scores describe; the average was chosen by {card['chosen_by'] or 'who gave its coefficients'}.",
            "",
        ]
    return "\n".join(lines)

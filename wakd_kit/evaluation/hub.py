"""An average as the folder that timm and its hub know a model by: config.json, model.safetensors, README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import nn

from .. import plugins
from ..files import write_text
from ..models.build import SMALL
from ..models.tap import Tap, in_eval

KITS = {"input_size", "inside", "deployed"}  # settings that build_model keeps to itself
CONFIG, CARD = "config.json", "README.md"


def write_config(tap: nn.Module, file: Path, card: Mapping) -> None:
    """Write what timm builds the network of, and how it wants its images: squeezed to its size, then normalised.

    Its format is that of timm's hub. Raises ``ValueError`` where a network is none of timm's.
    """
    if not isinstance(tap, Tap):
        raise ValueError(
            "This student is no timm model, so timm could not build it: export it as .safetensors or .onnx."
        )
    architecture, narrow = _built_by(card["model"]["name"])
    settings = {**narrow, **card["model"].get("settings", {})}
    known, side = tap.model.pretrained_cfg, card["input"]["size"]
    seen = {name: known.get(name) for name in ("first_conv", "classifier", "fixed_input_size")}
    seen |= {"num_classes": len(card["classes"]), "input_size": [3, side, side], "mean": card["input"]["mean"]}
    seen |= {"std": card["input"]["std"], "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}
    said = {"architecture": architecture, "num_classes": len(card["classes"]), "label_names": card["classes"]}
    said |= {"num_features": tap.model.num_features, "pretrained_cfg": seen}
    said["model_args"] = {name: value for name, value in settings.items() if name not in KITS}
    write_text(file, json.dumps(said, indent=2))


def load_again(folder: Path, tap: Tap, side: int) -> None:
    """Raises ``ValueError`` where ``timm.create_model`` makes another network of the folder, or none: a model of one's own may build
    what its settings do not say."""
    images = torch.rand(8, 3, side, side, generator=torch.Generator().manual_seed(0)).to(tap.mean.device)
    try:
        again = timm.create_model(f"local-dir:{folder}", pretrained=True).to(images.device).eval()
        with torch.no_grad(), in_eval(tap):
            logits, expected = again(tap.normalised(images)), tap(images, maps=False).logits
        close = 1e-3 * float(expected.std().nan_to_num())
        same, why = torch.allclose(logits, expected, rtol=1e-3, atol=close, equal_nan=True), "its logits are others"
    except Exception as error:  # whatever a declaration of one's own raises
        same, why = False, " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if not same:
        raise ValueError(
            f"timm does not make the network that was trained of a folder of {tap.spec['name']} ({why}): export it as .onnx or "
            ".safetensors."
        )


def _built_by(name: str) -> tuple[str, dict]:
    """The name that timm builds a model by, and the settings that our name for it stands for."""
    name = name.partition(".")[0]
    return SMALL.get(name, (name, {}))


def _declared(name: str) -> list[str]:
    """The lines that declare a model to timm, none for its own."""
    module = timm.model_entrypoint(_built_by(name)[0]).__module__
    plugin = {plugins.module_of(plugin): Path(plugin).name for plugin in plugins.known()}.get(module)
    if plugin:
        return ["from wakd_kit import plugins", "", f'plugins.use("{plugin}")  # declares it to timm']
    if module == "__main__":
        return [f"# declare {name} to timm first, as it was where it was trained"]
    return [f"import {module}  # declares it to timm"] * (not module.startswith("timm."))


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
    lines = [
        f"# {name}, {card['strategy']}",
        "",
        f"An average of parameters along one training, by wakd_kit: {card['picked'] or card['strategy']}. Trained on the domains "
        f"{', '.join(map(str, data.get('sources', [])))} of {benchmark}"
        + (f"; {data['target']} was not seen." if data.get("target") else "."),
        "",
        "```python",
        *_declared(name),
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
            f"Scores describe. How the average was chosen: {card['chosen_by'] or 'its coefficients were given'}.",
            "",
        ]
    return "\n".join(lines)

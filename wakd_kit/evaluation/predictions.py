"""What averages of a run predicted, image by image: kept with the run, so that no image is evaluated twice.

``predictions.npz`` holds the labels of every domain that was scored ("source/ink", "target/sketch"), what each average
predicted there ("target/sketch/WAKD": class and confidence), of which coefficients ("of/WAKD") and of which recording.
Logits are not kept: the class and its probability are all that calibration, agreement and churn need, and a hundredth of
their size on DomainNet.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..averaging import Coefficients
from ..files import write_with
from ..runs.identity import digest, of_recording
from ..runs.store import RunProblem

PREDICTION = np.dtype([("label", "<i4"), ("confidence", "<f4")])


@dataclass(frozen=True)
class Predicted:
    """One average on one domain: (n,) true ``labels``, predicted ``classes`` and their probability, ``confidence``.

    role  "source" (its validation part) or "target" (the whole unseen domain)
    """

    role: str
    labels: np.ndarray
    classes: np.ndarray
    confidence: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """(n,) whether the predicted class is the true one."""
        return self.classes == self.labels

    @property
    def diverged(self) -> bool:
        """Whether it is of an average that diverged, which predicts no class and has no accuracy."""
        return bool((self.classes < 0).any())


def predicted(logits: Tensor, labels: np.ndarray, role: str) -> Predicted:
    """``Predicted`` of (n, classes) logits; class -1 and no confidence where they are no numbers."""
    confidence, classes = F.softmax(logits.double(), dim=1).max(1)
    classes[confidence.isnan()] = -1
    return Predicted(role, np.asarray(labels), classes.numpy(), confidence.numpy())


def keep(run, found: Mapping[str, Mapping[str, Predicted]]) -> None:
    """Add what averages predicted, ``{strategy: {domain: Predicted}}``, to those kept with the run; the newest stand.

    Those averages are in ``run.choices``. Called while ``record.measuring`` holds the run.
    """
    arrays, choices = _read(run), run.choices
    for strategy, by_domain in found.items():
        arrays[f"of/{strategy}"] = np.array(digest(choices[strategy].identity))
        for domain, p in by_domain.items():
            arrays[f"{p.role}/{domain}"] = p.labels.astype("<i4")
            rows = np.empty(len(p.labels), PREDICTION)
            rows["label"], rows["confidence"] = p.classes, p.confidence
            arrays[f"{p.role}/{domain}/{strategy}"] = rows
    arrays["recording"] = np.array(of_recording(run))
    write_with(_file(run), lambda path: _write(path, arrays))


def kept(run) -> dict[str, dict[str, Predicted]]:
    """``{strategy: {domain: Predicted}}`` of all that was kept, as far as ``run.choices`` still holds those coefficients."""
    arrays, found = _read(run), {}
    scored = [name for name, rows in arrays.items() if rows.dtype != PREDICTION and not name.startswith("of/")]
    for strategy, choice in run.choices.items():
        if not isinstance(choice, Coefficients) or not _is_of(arrays.get(f"of/{strategy}"), choice):
            continue
        found[strategy] = {}
        for name in [name for name in scored if f"{name}/{strategy}" in arrays]:
            role, domain = name.split("/", 1)
            rows = arrays[f"{name}/{strategy}"]
            found[strategy][domain] = Predicted(role, arrays[name], rows["label"], rows["confidence"])
    return found


def _is_of(kept: np.ndarray | None, choice: Coefficients) -> bool:
    """Whether what was kept was predicted with this choice. Files of older versions hold its numbers alone."""
    if kept is None or kept.dtype.kind == "U":
        return str(kept) == digest(choice.identity)
    numbers = [choice.of == "end", choice.initial, *choice, *(() if choice.ends is None else choice.ends)]
    return np.array_equal(kept, numbers)


def _file(run) -> Path:
    return run.folder / "predictions.npz"


def _read(run) -> dict[str, np.ndarray]:
    """Everything that was kept of this recording; nothing where it was kept of another, such as a part of this one."""
    if not _file(run).exists():
        return {}
    try:
        with np.load(_file(run)) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as problem:
        raise RunProblem(
            f"{_file(run)} cannot be read ({type(problem).__name__}): it was cut short or changed. Delete it, and what it "
            "held is predicted again."
        ) from problem
    # files of older versions do not say
    return arrays if str(arrays.pop("recording", of_recording(run))) == of_recording(run) else {}


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # given a name, numpy would add a suffix to it
        np.savez_compressed(file, **arrays)

"""What is measured while training: scores of logits, and the source-validation curves of the current iterate."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.domains import Split
from ..objectives import Combined, kd
from .network import predict

METRICS = ("accuracy", "nll", "ece")


def scores(logits: Tensor, labels: np.ndarray | Tensor) -> dict[str, float]:
    """``accuracy`` (fraction), ``nll`` (nats per example) and ``ece`` (fraction) of (n, classes) logits.

    All three are NaN where a logit is no number: its largest class would be the first one, and score as if it were chosen.
    """
    labels = torch.as_tensor(labels)
    if not torch.isfinite(logits).all():
        return dict.fromkeys(METRICS, np.nan)
    probs = F.softmax(logits.double(), dim=1)
    return {
        "accuracy": accuracy(logits, labels),
        "nll": F.cross_entropy(logits.double(), labels).item(),
        "ece": calibration_error(probs, labels),
    }


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The fraction whose largest logit, (n, classes), is their label's; NaN where a logit is no number, see ``scores``."""
    return (logits.argmax(1) == labels).double().mean().item() if torch.isfinite(logits).all() else np.nan


def calibration_error(probs: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    """Expected calibration error: |confidence - accuracy| in equal-width confidence bins, weighted by their share.

    Guo et al. 2017, arXiv 1706.04599, section 2: bins are (0, 1/15], (1/15, 2/15], ...
    """
    confidence, predicted = probs.max(1)
    correct = (predicted == labels).double()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, confidence.double() - correct)
    return gap.abs().sum().item() / len(labels)


class SourceValidation:
    """Source curves of the current iterate: cross-entropy and accuracy per domain, and the distillation loss.

    taught  the teacher's logits (n, classes) of the validation images, domain after domain: it never changes and they are not
            augmented, so ``teacher.Heard`` has computed them once; None without a teacher
    """

    def __init__(self, split: Split, taught: Tensor | None, combined: Combined):
        self.examples = dict(split.val)
        temperatures = [spec["temperature"] for spec in combined.specs if spec["name"] == "kd"]
        self.temperature = temperatures[0] if temperatures else 5.0
        self.taught = taught

    def __call__(self, student: nn.Module) -> dict[str, float]:
        logits = {d: predict(student, e.images) for d, e in self.examples.items()}
        by_domain = {d: scores(z, self.examples[d].labels) for d, z in logits.items()}
        sizes = [len(e) for e in self.examples.values()]
        row = {f"val_loss/{d}": s["nll"] for d, s in by_domain.items()}
        row |= {f"val_accuracy/{d}": s["accuracy"] for d, s in by_domain.items()}
        row["val_loss_pooled"] = float(np.average([s["nll"] for s in by_domain.values()], weights=sizes))
        if self.taught is not None:
            student_logits = torch.cat(list(logits.values()))
            row["val_kd_loss"] = kd(student_logits.double(), self.taught.double(), temperature=self.temperature).item()
        return row

    def accuracy(self, row: dict) -> float:
        """The mean accuracy over source domains in a row that this gave."""
        return float(np.mean([row[f"val_accuracy/{d}"] for d in self.examples]))

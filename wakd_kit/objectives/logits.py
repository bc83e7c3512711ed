"""Objectives on logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .registry import objectives


def logits_of(output) -> Tensor:
    """Logits of an ``Output`` or of a bare tensor, in float32 or better.

    bf16 is no place for a loss: T^2 KL evaluated in it near the optimum comes out negative.
    """
    logits = output if isinstance(output, Tensor) else output.logits
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


@objectives.declare(kind="labels", needs="labels", source="cross-entropy with the labels")
def ce(student, teacher, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the student's logits with the labels, nats per example. The teacher is not used.

    label_smoothing  share of each label spread evenly over all classes, from 0 up to, not including, 1
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is from 0 up to, not including, 1; got {label_smoothing}.")
    return F.cross_entropy(logits_of(student), labels, label_smoothing=label_smoothing)


@objectives.declare(kind="logits", needs="teacher", source="Hinton et al. 2015, arXiv 1503.02531, section 2")
def kd(student, teacher, labels: Tensor | None = None, *, temperature: float = 5.0) -> Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``, summed over classes, mean over the batch, in nats.

    No labels and no cross-entropy: alone this is the pure-KL objective of the WAKD paper (arXiv 2309.11446, section 3),
    whose temperature is the default. The teacher is detached here, so its graph need not be cut by the caller.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is a positive number; got {temperature}.")
    log_student = F.log_softmax(logits_of(student) / temperature, dim=1)
    log_teacher = F.log_softmax(logits_of(teacher).detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)

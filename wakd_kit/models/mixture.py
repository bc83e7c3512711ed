"""How a student of two heads mixes them: chosen on source validation, and part of its state from then on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ..data.augment import to_float
from ..data.domains import Examples
from .tails import Deployed, TwoHeads, mixed
from .tap import in_eval

ALPHAS = [i / 20 for i in range(21)]
BETAS = [0.5, 1.0, 2.0]


@torch.no_grad()
def choose_mixture(
    student: nn.Module, validation: Iterable[Examples], *, batch_size: int = 128
) -> dict[str, Tensor] | None:
    """Set alpha and beta of a student of two heads to the pair with the best accuracy on these examples, in place; returns
    what the two were before, by their names in the ``state_dict``.

    DHO's grid for alpha, 0 to 1 by 0.05 (arXiv 2505.07675); domains weigh the same, the lower negative log-likelihood
    decides between equals. Any other student is left alone: None. Meant for source validation: scores on the same images
    afterwards are slightly optimistic, as they are for everything that was chosen there.
    """
    if not isinstance(student, Deployed) or not isinstance(student.tail, TwoHeads):
        return None
    device = student.tail.alpha.device
    parts = []
    with in_eval(student):
        for examples in validation:
            images = np.ascontiguousarray(examples.images)
            starts = range(0, len(images), batch_size)
            batches = [to_float(torch.from_numpy(images[i : i + batch_size]).to(device)) for i in starts]
            heads = [torch.cat(z).double() for z in zip(*(student(x, maps=False).parts for x in batches))]
            parts.append((*heads, torch.from_numpy(examples.labels).to(device)))
    grid = [torch.tensor(pair, dtype=torch.float64, device=device) for pair in ((a, b) for a in ALPHAS for b in BETAS)]
    best = max(grid, key=lambda pair: _quality(parts, *pair))
    before = {f"tail.{name}": getattr(student.tail, name).clone() for name in ("alpha", "beta")}
    student.tail.alpha.copy_(best[0])
    student.tail.beta.copy_(best[1])
    return before


def _quality(parts: list[tuple[Tensor, Tensor, Tensor]], alpha: Tensor, beta: Tensor) -> tuple[float, float]:
    """Mean accuracy over domains, and minus the mean negative log-likelihood."""
    by_domain = []
    for z_labels, z_teacher, labels in parts:
        log_p = mixed(z_labels, z_teacher, alpha, beta)
        right = (log_p.argmax(1) == labels).double().mean()
        by_domain.append((right, log_p.gather(1, labels[:, None]).mean()))
    return tuple(torch.stack(values).mean().item() for values in zip(*by_domain))

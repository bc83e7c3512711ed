"""Objectives with parameters or state of their own: modules, saved and resumed with the run."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import not_negative, positive
from .base import logit_pair
from .logits import tempered_kl
from .registry import objectives


@objectives.declare(
    name="ctkd",
    kind="logits",
    needs="teacher",
    source="CTKD, Li et al. 2023, arXiv 2211.16231",
    weight=0.9,
    schedule={"of": "reversal", "end": 10 / 240, "shape": "cosine"},
)
class CTKD(nn.Module):
    """``kd`` at a learned temperature, ``T = lowest + span sigmoid(theta)``, which is trained to make the loss larger.

    One temperature for all examples ("Global-T"); T^2 is the learned one too. The optimiser of the student trains
    theta on the reversed gradient, ``reversal`` times; the curriculum raises that from 0 to 1 over the first 10 of 240
    epochs, which is the default schedule. As published theta begins at 1, so T at 15.6, and the weight is for 0.1
    ``ce`` beside it.
    """

    watched = ("temperature",)

    def __init__(self, *, lowest: float = 1.0, span: float = 20.0):
        super().__init__()
        positive(lowest=lowest, span=span)
        self.lowest, self.span = lowest, span
        self.theta = nn.Parameter(torch.ones(()))

    @property
    def temperature(self) -> Tensor:
        return self._at(self.theta.detach())

    def _at(self, theta: Tensor) -> Tensor:
        return self.lowest + self.span * theta.sigmoid()

    def forward(self, student, teacher, labels: Tensor | None = None, *, reversal: float = 1.0) -> Tensor:
        """``T^2 KL(teacher || student)`` at the learned temperature, mean over the batch, in nats."""
        not_negative(reversal=reversal)
        fixed = self.theta.detach()
        theta = fixed - reversal * (self.theta - fixed)  # the same value; its gradient is turned round
        return tempered_kl(*logit_pair(student, teacher), self._at(theta))


@objectives.declare(
    name="taid", kind="logits", needs="progress teacher", source="TAID, Shing et al. 2025, arXiv 2501.16937"
)
class TAID(nn.Module):
    """Cross-entropy with ``softmax((1 - t) student + t teacher)``, the student detached there; t grows over the run.

    t goes from ``start`` to ``end`` in a straight line, and ahead of it by ``alpha sigmoid(m) (1 - t)`` a step, where
    m is the moving average, with ``beta``, of the relative fall of the loss. The first step only remembers its loss.
    In nats, mean over the batch. As published it is a cross-entropy, whose value moves with t; the paper writes a
    divergence, with the same gradient. Theirs counts steps from 0, so its line is one step behind. t moves in training
    mode alone.
    """

    watched = ("t",)

    def __init__(self, *, start: float = 0.4, end: float = 1.0, alpha: float = 5e-4, beta: float = 0.99):
        super().__init__()
        if not 0 <= start < end <= 1:
            raise ValueError(f"taid goes from start to a larger end within 0 and 1; got {start} and {end}.")
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} of taid is from 0 to 1; got {value}.")
        self.start, self.end, self.alpha, self.beta = start, end, alpha, beta
        self.register_buffer("t", torch.tensor(start, dtype=torch.float32))
        self.register_buffer("previous_loss", torch.tensor(torch.inf))
        self.register_buffer("momentum", torch.tensor(0.0))

    def forward(self, student, teacher, labels: Tensor | None = None, *, progress: float) -> Tensor:
        """The cross-entropy at the present t, which then moves on."""
        z_s, z_t = logit_pair(student, teacher)
        target = F.softmax((1 - self.t) * z_s.detach() + self.t * z_t, dim=1)
        loss = -(target * F.log_softmax(z_s, dim=1)).sum(1).mean()
        if self.training:
            self._advance(loss.detach(), progress)
        return loss

    def _advance(self, loss: Tensor, progress: float) -> None:
        known = self.previous_loss.isfinite()
        fall = (self.previous_loss - loss) / (self.previous_loss + 1e-15)
        momentum = self.beta * self.momentum + (1 - self.beta) * fall
        line = self.start + (self.end - self.start) * progress
        ahead = self.t + self.alpha * momentum.sigmoid() * (1 - self.t)
        # where(), not if: a branch on a value would make the device wait for it at every step
        self.t.copy_(torch.where(known, ahead.clamp(min=line).clamp(max=self.end), self.t))
        self.momentum.copy_(torch.where(known, momentum, self.momentum))
        self.previous_loss.copy_(loss)

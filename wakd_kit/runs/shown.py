"""What a step shows its networks: views of its images, mixed where that is asked for, and the labels that go with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import make
from ..data.augment import VARIATIONS, Views, augment, mixed, viewed
from ..data.mixing import Learned, Mix, second_from
from ..models.arithmetic import autocast, compiled
from ..models.build import in_eval
from .settings import Settings


class Shown:
    """``x, labels = shown(images, labels, generator)``: views (n, 3, H, W) of images (n, H, W, 3) uint8.

    With a second batch that lies behind the first, (2n, 3, H, W), and labels are a pair, of the first and of the second. It goes
    through both networks with the first, so BatchNorm sees both together while it is trained; ``teacher`` is asked where it
    picks or views are learned, and so is the student, in eval mode, so that nothing of it moves.
    """

    def __init__(self, views: Views, settings: Settings, student: nn.Module, teacher: nn.Module | None, classes: int):
        self.views, self.settings, self.student, self.teacher, self.classes = views, settings, student, teacher, classes
        self.mix = settings.mix and make(Mix, settings.mix)
        self.second = settings.second and second_from(settings.second)
        self.learned = LearnedViews(views, self.second) if isinstance(self.second, Learned) else None
        device = next(student.parameters()).device
        self.view = compiled(viewed, device) if settings.compile else viewed

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | tuple]:
        x = augment(images, self.views, generator, view=self.view)
        if not (self.mix or self.second):
            return x, labels
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        first = mixed(x, labels, self.mix, rng, self.classes) if self.mix else (x, labels)
        if not self.second:
            return first
        second = self._learned(images, labels, generator) if self.learned else self._second(x, labels, rng)
        return torch.cat([first[0], second[0]]), (first[1], second[1])

    def _second(self, x: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        pick = self.second.pick
        pool = [mixed(x, labels, self.second, rng, self.classes) for _ in range(self.second.pool if pick else 1)]
        images, soft = map(torch.cat, zip(*pool))
        if pick is None:
            return images, soft
        kept = self._worth(images).argsort(stable=True)[-len(x) :]
        return images[kept], soft[kept]

    def _learned(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Strengths take a step for these images, then other views of them are drawn."""
        of_student, of_teacher = (F.cross_entropy(z, labels) for z in self._asked(self.learned(images, generator)))
        self.learned.descend(of_teacher - self.second.weight * of_student)
        with torch.no_grad():
            return self.learned(images, generator), labels

    @torch.no_grad()
    def _worth(self, images: Tensor) -> Tensor:
        """The entropy or divergence (n,) by which images are picked."""
        logits = self._asked(images)
        if self.second.pick != "divergence":
            log_p = F.log_softmax(logits[0], dim=1)
            return -(log_p.exp() * log_p).sum(1)
        log_s, log_t = (F.log_softmax(z / self.second.temperature, dim=1) for z in logits)
        return (log_t.exp() * (log_t - log_s)).sum(1)

    def _asked(self, images: Tensor) -> list[Tensor]:
        """Logits (n, classes) of whom the second batch asks."""
        logits = []
        for who in self.second.asks:
            model = getattr(self, who)
            with in_eval(model), autocast(images.device, self.settings.precision):
                logits.append(model(images, maps=False).logits.float())
        return logits


class LearnedViews:
    """``x = learned(images, generator)``: views (n, 3, H, W) of images (n, H, W, 3) uint8, of strengths that ``descend`` moves."""

    def __init__(self, views: Views, setting: Learned):
        self.views, self.reach = views, setting.reach
        self.parameters = torch.zeros(len(VARIATIONS), requires_grad=True)  # on the CPU, where views are drawn
        self.optimiser = torch.optim.Adam([self.parameters], lr=setting.learning_rate)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return augment(images, self.views, generator, strengths=self.strengths())

    def strengths(self) -> Tensor:
        """Of ``VARIATIONS``, (7,): times those of the views."""
        return self.reach ** self.parameters.tanh()

    def descend(self, loss: Tensor) -> None:
        """One step down a loss of views; no gradient goes to the networks that gave it."""
        (self.parameters.grad,) = torch.autograd.grad(loss, [self.parameters])
        self.optimiser.step()

    def columns(self) -> dict[str, float]:
        """Strengths as they are now, for curves.csv."""
        return {f"views/{name}": value for name, value in zip(VARIATIONS, self.strengths().tolist())}

    def state_dict(self) -> dict:
        """Tensors that a killed run continues with."""
        return {"parameters": self.parameters.detach(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from there."""
        with torch.no_grad():
            self.parameters.copy_(state["parameters"])
        self.optimiser.load_state_dict(state["optimiser"])

"""What a step shows its networks: views of its images, mixed where that is asked for, and the labels that go with them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import make
from ..data.augment import Views, augment, mixed, viewed
from ..data.mixing import Mix, Second
from ..models.arithmetic import autocast, compiled
from ..models.build import in_eval
from .settings import Settings


class Shown:
    """``x, labels = shown(images, labels, generator)``: views (n, 3, H, W) of images (n, H, W, 3) uint8.

    With a second batch that lies behind the first, (2n, 3, H, W), and labels are a pair, of the first and of the second. It goes
    through both networks with the first, so BatchNorm sees both together while it is trained; ``teacher`` is asked where it
    picks, and so is the student, in eval mode, so that nothing of it moves.
    """

    def __init__(self, views: Views, settings: Settings, student: nn.Module, teacher: nn.Module | None, classes: int):
        self.views, self.settings, self.student, self.teacher, self.classes = views, settings, student, teacher, classes
        self.mix = settings.mix and make(Mix, settings.mix)
        self.second = settings.second and make(Second, settings.second)
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
        second = self._second(x, labels, rng)
        return torch.cat([first[0], second[0]]), (first[1], second[1])

    def _second(self, x: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        pick = self.second.pick
        pool = [mixed(x, labels, self.second, rng, self.classes) for _ in range(self.second.pool if pick else 1)]
        images, soft = map(torch.cat, zip(*pool))
        if pick is None:
            return images, soft
        kept = self._worth(images).argsort(stable=True)[-len(x) :]
        return images[kept], soft[kept]

    @torch.no_grad()
    def _worth(self, images: Tensor) -> Tensor:
        """The entropy or divergence (n,) by which images are picked."""
        pick, logits = self.second.pick, {}
        asked = {"student": (self.student,), "teacher": (self.teacher,), "divergence": (self.student, self.teacher)}[
            pick
        ]
        for model in asked:
            with in_eval(model), autocast(images.device, self.settings.precision):
                logits[model] = model(images, maps=False).logits.float()
        if pick != "divergence":
            log_p = F.log_softmax(logits[asked[0]], dim=1)
            return -(log_p.exp() * log_p).sum(1)
        log_s, log_t = (F.log_softmax(logits[model] / self.second.temperature, dim=1) for model in asked)
        return (log_t.exp() * (log_t - log_s)).sum(1)

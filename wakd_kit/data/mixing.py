"""Images of a batch beside its plain views: mixed of two, mixup and CutMix, or in views whose strengths are learned.

Here are settings, and the draws of mixes, which ``augment.mixed`` carries out. Every draw comes from a generator that the
step seeds, so mixes are a function of the run's seed and the step, like views. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from ..checks import make
from ..names import NOT_NEGATIVE, POSITIVE, at_least, whole, within


@dataclass(frozen=True)
class Mix:
    """How images of a batch are mixed.

    name         "mixup": each image is ``lam`` of itself and ``1 - lam`` of another (Zhang et al. 2018, arXiv 1710.09412);
                 "cutmix": a box of it is another's, and ``lam`` is the area that is left (Yun et al. 2019, arXiv 1905.04899)
    alpha        ``lam`` is drawn from Beta(alpha, alpha); CutMix's box has the area ``1 - lam`` where it does not leave the image
    share        of the batch that is mixed; the rest stays as it is
    per          one ``lam`` (and box) for the "batch", as both papers' code has it, or one for each "example"
    labels       "mixed" as the images are, so soft; or each image's "own": the released WAKD trainer mixes images alone
    replacement  MIX-KD's released code draws the places that stay pure with replacement, so that fewer do:
                 ``1 - (1 - 1/n)^(int((1 - share) n))`` of them
    apart        no image is mixed with itself, as CutMixPick's code has it
    """

    name: Literal["mixup", "cutmix"]
    alpha: Annotated[float, POSITIVE] = 1.0
    share: Annotated[float, POSITIVE, within(0, 1)] = 1.0
    per: Literal["batch", "example"] = "batch"
    labels: Literal["mixed", "own"] = "mixed"
    replacement: bool = False
    apart: bool = False


@dataclass(frozen=True)
class Second(Mix):
    """A second batch, mixed of the same views; objectives ``on: mixed`` learn from it.

    pick         CutMixPick (Wang et al. 2022, arXiv 2012.02909): of ``pool`` such batches, as many images as a batch has are
                 kept, those with the largest entropy of the "student" or the "teacher", or the largest "divergence", KL of teacher
                 to student at ``temperature``; by default one batch is mixed and all of it is kept
    """

    pick: Literal["student", "teacher", "divergence"] | None = None
    pool: Annotated[int, whole(2)] = 2
    temperature: Annotated[float, POSITIVE] = 4.0

    @property
    def asks(self) -> tuple[str, ...]:
        """Whom a step asks which images it has."""
        return {None: (), "divergence": ("student", "teacher")}.get(self.pick, (self.pick,))


@dataclass(frozen=True)
class Learned:
    """A second batch of other views of the same images, of strengths that are learned so that the teacher knows what they show
    and the student does not (TST, Shao et al. 2023, arXiv 2212.05422); objectives ``on: mixed`` learn from it.

    reach          strengths are ``reach ** tanh(parameter)`` times those of the run's own views, and 1 at the start
    weight         of the student: parameters descend ``CE(teacher) - weight CE(student)``, both in eval mode
    learning_rate  of Adam, a step with every batch
    """

    name: Literal["learned"]
    reach: Annotated[float, at_least(1)] = 3.0
    weight: Annotated[float, NOT_NEGATIVE] = 1.0
    learning_rate: Annotated[float, POSITIVE] = 0.01

    asks = ("student", "teacher")


def second_from(given: Mapping) -> Second | Learned:
    """The second batch that a setting says; raises as ``checks.make``."""
    return make(Learned if given.get("name") == "learned" else Second, given)


def drawn_mix(n: int, size, mix: Mix, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whom each of n images is mixed with (n,), the share of it that stays its own (n,), and that of each of its pixels,
    (n, H, W), or (n, 1, 1) where they are alike."""
    partner = rng.permutation(n)
    while mix.apart and (partner == np.arange(n)).any():
        partner = rng.permutation(n)
    count = 1 if mix.per == "batch" else n
    own = rng.beta(mix.alpha, mix.alpha, count)
    of_pixels = own[:, None, None]
    if mix.name == "cutmix":
        of_pixels = ~boxes(1 - own, size, rng)
        own = of_pixels.mean((1, 2))
    pure = (
        rng.integers(n, size=int((1 - mix.share) * n))
        if mix.replacement
        else rng.permutation(n)[round(mix.share * n) :]
    )
    own, of_pixels = (np.repeat(part.astype(np.float32), n // count, 0) for part in (own, of_pixels))
    own[pure], of_pixels[pure] = 1, 1
    return partner, own, of_pixels


def boxes(areas: np.ndarray, size, rng: np.random.Generator) -> np.ndarray:
    """True inside a box of each of these shares of an image, (count, H, W): centred anywhere, cut off at the edges."""
    inside = []
    for side in size:
        half, centre = (side * np.sqrt(areas)).astype(int) // 2, rng.integers(side, size=len(areas))
        places = np.arange(side)
        inside.append((places >= (centre - half)[:, None]) & (places < (centre + half)[:, None]))
    return inside[0][:, :, None] & inside[1][:, None, :]

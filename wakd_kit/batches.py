"""Which examples a step sees, and every random draw it makes: both are functions of the run's seed and the step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .domains import Split

IMAGES_OF_A_CLASS = 16


def seed_step(generator: torch.Generator, seed: int, step: int) -> None:
    """Make every draw of a step (views, dropout) a function of the run's seed and the step, on any machine state."""
    views, model = np.random.SeedSequence([seed, step]).generate_state(2, np.uint64)
    generator.manual_seed(int(views >> 1))
    torch.manual_seed(int(model >> 1))


class SourceBatches:
    """Batches of source training images; which examples step t sees depends on the seed and t alone, so a resumed run
    sees what an uninterrupted one would have. Every epoch is a permutation: each example comes once before any comes twice.

    sampling  "pooled": one epoch over all domains together; "balanced": as many of each domain in every batch (the first
              domains one more where ``size`` does not divide), each domain in epochs of its own; "classes": as many of
              each of a few classes, 16 as XDED has them (arXiv 2211.14058) unless that leaves fewer than two classes
              or there are not so many, spread over the domains. Classes come in epochs, and so do the images of a
              class in a domain
    """

    def __init__(self, split: Split, size: int, sampling: str, seed: int, device: torch.device):
        parts = list(split.train.values())
        self.images = torch.from_numpy(np.concatenate([e.images for e in parts])).to(device)
        self.labels = torch.from_numpy(np.concatenate([e.labels for e in parts])).to(device)
        starts = np.cumsum([0, *(len(e) for e in parts)])
        self.pools = [np.arange(a, b) for a, b in zip(starts, starts[1:])]
        self.size, self.seed, self.sampling = size, seed, sampling
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        if sampling == "pooled":
            self.pools = [np.concatenate(self.pools)]
        elif sampling == "classes":
            self._by_class(np.concatenate([e.labels for e in parts]))
            return
        self.shares = _even(size, len(self.pools))
        if not min(self.shares):
            raise ValueError(
                f"batch_size {size} is less than the {len(self.pools)} source domains that balanced sampling draws from."
            )

    def _by_class(self, labels: np.ndarray) -> None:
        """One pool per class and domain; the last pool holds the classes themselves."""
        classes = np.unique(labels)
        if self.size < 2:
            raise ValueError(f"Sampling by classes has at least two images in a batch; got batch_size {self.size}.")
        self.at_once = min(len(classes), max(self.size // IMAGES_OF_A_CLASS, 2))
        of_a_class = -(-self.size // self.at_once)
        pools, self.cells = [], {}
        for which in classes:
            found = [pool[labels[pool] == which] for pool in self.pools]
            shares = _even(of_a_class, len(found))
            self.cells[int(which)] = [(len(pools) + i, share) for i, share in enumerate(shares)]
            pools += found
        self.pools = [*pools, classes]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (n, H, W, 3) uint8 and labels (n,) of a step, on the device."""
        index = self.index(step)
        return self.images[index], self.labels[index]

    def index(self, step: int) -> Tensor:
        """Which of all source training images a step sees, (n,), on the device."""
        if self.sampling == "classes":
            index = self._of_classes(step)
        else:
            parts = [self._take(p, (step - 1) * share, step * share) for p, share in enumerate(self.shares)]
            index = np.concatenate(parts)
        return torch.from_numpy(index).to(self.images.device)

    def _of_classes(self, step: int) -> np.ndarray:
        places = range((step - 1) * self.at_once, step * self.at_once)
        last = len(self.pools) - 1
        found = []
        for place, which in zip(places, self._take(last, places.start, places.stop)):
            before = place // len(self.cells)  # how often this class was shown until now
            found += [self._take(c, before * share, (before + 1) * share) for c, share in self.cells[int(which)]]
        return np.concatenate(found)[: self.size]

    def _take(self, which: int, first: int, stop: int) -> np.ndarray:
        """Places ``first`` to ``stop`` in the endless sequence of a pool's epochs."""
        pool = self.pools[which]
        if first == stop:
            return pool[:0]
        epochs = range(first // len(pool), (stop - 1) // len(pool) + 1)
        order = np.concatenate([self._order(which, epoch) for epoch in epochs])
        start = first - epochs[0] * len(pool)
        return pool[order[start : start + stop - first]]

    def _order(self, which: int, epoch: int) -> np.ndarray:
        if (which, epoch) not in self._orders:
            # this pool's earlier epochs are over; other pools are in epochs of their own
            self._orders = {key: o for key, o in self._orders.items() if key[0] != which or key[1] >= epoch - 1}
            rng = np.random.default_rng([self.seed, which, epoch])
            self._orders[which, epoch] = rng.permutation(len(self.pools[which]))
        return self._orders[which, epoch]


def _even(size: int, parts: int) -> list[int]:
    """``size`` in whole numbers that differ by one at most, the larger ones first."""
    share, rest = divmod(size, parts)
    return [share + (i < rest) for i in range(parts)]

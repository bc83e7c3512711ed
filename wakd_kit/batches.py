"""Which examples a step sees, and every random draw it makes: both are functions of the run's seed and the step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .domains import Split


def seed_step(generator: torch.Generator, seed: int, step: int) -> None:
    """Make every draw of a step (views, dropout) a function of the run's seed and the step, on any machine state."""
    views, model = np.random.SeedSequence([seed, step]).generate_state(2, np.uint64)
    generator.manual_seed(int(views >> 1))
    torch.manual_seed(int(model >> 1))


class SourceBatches:
    """Batches of source training images; which examples step t sees depends on the seed and t alone, so a resumed run
    sees what an uninterrupted one would have. Every epoch is a permutation: each example comes once before any comes twice.

    sampling  "pooled": one epoch over all domains together; "balanced": as many of each domain in every batch (the first
              domains one more where ``size`` does not divide), each domain in epochs of its own
    """

    def __init__(self, split: Split, size: int, sampling: str, seed: int, device: torch.device):
        parts = list(split.train.values())
        self.images = torch.from_numpy(np.concatenate([e.images for e in parts])).to(device)
        self.labels = torch.from_numpy(np.concatenate([e.labels for e in parts])).to(device)
        lengths = [len(e) for e in parts]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        pools = [np.arange(a, b) for a, b in zip(starts, starts[1:])]
        self.pools = pools if sampling == "balanced" else [np.concatenate(pools)]
        share, rest = divmod(size, len(self.pools))
        if not share:
            raise ValueError(
                f"batch_size {size} is less than the {len(self.pools)} source domains that balanced sampling draws from."
            )
        self.shares = [share + (i < rest) for i in range(len(self.pools))]
        self.seed = seed
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (n, H, W, 3) uint8 and labels (n,) of a step, on the device."""
        index = np.concatenate([self._from_pool(p, step) for p in range(len(self.pools))])
        index = torch.from_numpy(index).to(self.images.device)
        return self.images[index], self.labels[index]

    def _from_pool(self, which: int, step: int) -> np.ndarray:
        pool, share = self.pools[which], self.shares[which]
        first, stop = (step - 1) * share, step * share  # places in the endless sequence of this pool's epochs
        epochs = range(first // len(pool), (stop - 1) // len(pool) + 1)
        order = np.concatenate([self._order(which, epoch) for epoch in epochs])
        start = first - epochs[0] * len(pool)
        return pool[order[start : start + share]]

    def _order(self, which: int, epoch: int) -> np.ndarray:
        if (which, epoch) not in self._orders:
            # this pool's earlier epochs are over; other pools are in epochs of their own
            self._orders = {key: o for key, o in self._orders.items() if key[0] != which or key[1] >= epoch - 1}
            rng = np.random.default_rng([self.seed, which, epoch])
            self._orders[which, epoch] = rng.permutation(len(self.pools[which]))
        return self._orders[which, epoch]

"""Which examples a step sees, and every random draw it makes: both are functions of the run's seed and the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .augment import upload
from .domains import Split

IMAGES_OF_A_CLASS = 16
CPU = torch.device("cpu")


def seed_step(generator: torch.Generator, seed: int, step: int, device: torch.device = CPU) -> None:
    """Make every draw of a step (views, dropout on the CPU and the device) a function of the run's seed and the step, on
    any machine state."""
    views, model = (int(word >> 1) for word in np.random.SeedSequence([seed, step]).generate_state(2, np.uint64))
    generator.manual_seed(views)
    if device.type in (
        "cpu",
        "cuda",
    ):  # the same draws as after torch.manual_seed, which asks every backend, for 0.2 ms
        torch.default_generator.manual_seed(model)
    if device.type == "cuda":
        at = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[at].manual_seed(model)
    elif device.type != "cpu":
        torch.manual_seed(model)


class SourceBatches:
    """Batches of source training images; which examples step t sees depends on the seed and t alone, so a resumed run
    sees what an uninterrupted one would have. Every epoch is a permutation: each example comes once before any comes twice.

    sampling  "pooled": one epoch over all domains together; "balanced": as many of each domain, each domain in epochs of
              its own; "classes": as many of each of a few classes, 16 as XDED has them (arXiv 2211.14058) unless that
              leaves fewer than two classes or there are not so many, spread over the domains. Classes come in epochs,
              and so do the images of a class in a domain. What does not divide is dealt like cards, on from step to
              step, so that over a run each domain has its share to within one image

    Images on the CPU stay where they are; on another device they lie whole.
    """

    def __init__(self, split: Split, size: int, sampling: str, seed: int, device: torch.device):
        parts = list(split.train.values())
        self.images = SourceImages([e.images for e in parts], device)
        labels = np.concatenate([e.labels for e in parts])
        self.labels = torch.from_numpy(labels).to(device)
        starts = np.cumsum([0, *(len(e) for e in parts)])
        self.pools = [np.arange(a, b) for a, b in zip(starts, starts[1:])]
        self.domains = len(self.pools)
        self.size, self.seed, self.sampling, self.device = size, seed, sampling, device
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        if sampling == "pooled":
            self.pools = [np.concatenate(self.pools)]
        elif sampling == "classes":
            self._by_class(labels)
        elif size < self.domains:
            raise ValueError(
                f"batch_size {size} is less than the {self.domains} source domains that balanced sampling draws from."
            )

    def _by_class(self, labels: np.ndarray) -> None:
        """One pool per class and domain; the last pool holds the classes themselves, as places in their order."""
        classes = np.unique(labels)
        if self.size < 2:
            raise ValueError(f"Sampling by classes has at least two images in a batch; got batch_size {self.size}.")
        self.at_once = min(len(classes), max(self.size // IMAGES_OF_A_CLASS, 2))
        cells = [pool[labels[pool] == which] for which in classes for pool in self.pools]
        self.pools = [*cells, np.arange(len(classes))]
        self._more = (0, np.zeros(len(classes), dtype=int))

    def index(self, step: int) -> Tensor:
        """Which of all source training images a step sees, (n,), on the device."""
        if self.sampling == "classes":
            index = self._of_classes(step)
        else:
            index = self._dealt(range(len(self.pools)), (step - 1) * self.size, step * self.size)
        return upload(torch.from_numpy(index), self.device)

    def _dealt(self, pools: Sequence[int], first: int, stop: int) -> np.ndarray:
        """Cards ``first`` to ``stop`` of an endless deal, one to each of some pools in turn."""
        counts = [(_turns(first, len(pools), i), _turns(stop, len(pools), i)) for i in range(len(pools))]
        return np.concatenate([self._take(pool, *count) for pool, count in zip(pools, counts)])

    def _of_classes(self, step: int) -> np.ndarray:
        classes, last = len(self.pools[-1]), len(self.pools) - 1
        places = range((step - 1) * self.at_once, step * self.at_once)
        found = []
        for place, which in zip(places, self._take(last, places.start, places.stop)):
            epoch = place // classes  # how often this class was shown until now
            shown = epoch * (self.size // self.at_once) + self._extras(epoch)[which]
            count = self.size // self.at_once + self._extra(place)
            # the first card of each class goes to another domain
            cells = [which * self.domains + (which + i) % self.domains for i in range(self.domains)]
            found.append(self._dealt(cells, shown, shown + count))
        return np.concatenate(found)

    def _extra(self, place):
        """Whether a class has one image more at this place, where the classes of a batch do not divide it: 0 or 1."""
        rest = self.size % self.at_once
        return (place + 1) * rest // self.at_once - place * rest // self.at_once

    def _extras(self, epoch: int) -> np.ndarray:
        """How many images more each class had in all epochs of classes before this one."""
        if self.size % self.at_once == 0 or epoch < self._more[0]:
            self._more = (0, np.zeros_like(self._more[1]))
        classes = len(self._more[1])
        for past in range(self._more[0], epoch if self.size % self.at_once else 0):
            more = np.zeros(classes, dtype=int)
            more[self._order(len(self.pools) - 1, past)] = self._extra(past * classes + np.arange(classes))
            self._more = (past + 1, self._more[1] + more)
        return self._more[1]

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


def _turns(cards: int, players: int, player: int) -> int:
    """How many of the first ``cards`` a player has, dealt in turn."""
    return (cards + players - 1 - player) // players


class SourceImages:
    """All source training images in the order of their domains: ``images[index]`` is (n, H, W, 3) uint8 on the device."""

    def __init__(self, parts: list, device: torch.device):
        self.parts, self.device = parts, device
        self.ends = np.cumsum([len(part) for part in parts])
        self.whole = None
        if device.type != "cpu":
            self.whole = torch.empty((self.ends[-1], *parts[0].shape[1:]), dtype=torch.uint8, device=device)
            for part, end in zip(parts, self.ends):
                for i in range(0, len(part), 1024):
                    rows = torch.from_numpy(np.ascontiguousarray(part[i : i + 1024]))
                    self.whole[end - len(part) + i :][: len(rows)] = rows.to(device)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: Tensor) -> Tensor:
        if self.whole is not None:
            return self.whole[index]
        index = index.numpy()
        found = np.empty((len(index), *self.parts[0].shape[1:]), np.uint8)
        which = np.searchsorted(self.ends, index, side="right")
        for number, (part, end) in enumerate(zip(self.parts, self.ends)):
            mine = which == number
            found[mine] = part[index[mine] - (end - len(part))]
        return torch.from_numpy(found)

"""Which examples a step sees, and every random draw it makes: both are functions of the run's seed and the step."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

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
    seed_device(device, model)


def seed_device(device: torch.device, seed: int) -> None:
    """Seed what draws without a generator of its own on the CPU and on this device: as ``torch.manual_seed``, which seeds all
    devices and asks every backend, for 0.2 ms."""
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        at = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[at].manual_seed(seed)


def learnt_from(split: Split) -> tuple[Tensor, dict[str, np.ndarray], tuple[str, ...]]:
    """Of the images that are trained on, in the order of ``index``: labels (n,), {domain: rows among all of its images}, and the
    names of the classes."""
    labels = np.concatenate([e.labels for e in split.train.values()])
    return torch.from_numpy(labels), {d: e.rows for d, e in split.train.items()}, split.classes


class SourceBatches:
    """Batches of source training images; which examples step t sees depends on the seed and t alone, so a resumed run
    sees what an uninterrupted one would have. Every epoch is a permutation: each example comes once before any comes twice.

    ``sources`` (images, sources) is 1 where a training image is of a source domain.

    sampling  "pooled": one epoch over all domains together; "balanced": as many of each domain, each domain in epochs of
              its own; "classes": as many of each of a few classes, 16 as XDED has them (arXiv 2211.14058) unless that
              leaves fewer than two classes or there are not so many, spread over the domains. Classes come in epochs,
              and so do the images of a class in a domain. What does not divide is dealt like cards, on from step to
              step, so that over a run each domain has its share to within one image, by classes one of each class; "turns": every batch of one domain,
              domain after domain, each in epochs of its own; {"name": "gap"}: each image's domain is drawn by shares that
              ``share`` gives, each domain in epochs of its own. What a step sees depends on those of all steps before, too

    Images on the CPU stay where they are; on another device they lie whole, unless they are too many for it or ``streaming``
    is "always": then a thread gathers and pins those of the next steps. The batches are the same.
    """

    def __init__(
        self, split: Split, size: int, sampling: str | dict, seed: int, device: torch.device, *, streaming: str = "auto"
    ):
        parts = list(split.train.values())
        images = [e.images for e in parts]
        self.streamed = streams(images, device, streaming)
        self.images = SourceImages(images, device, streamed=self.streamed)
        self._ahead = Ahead(self._gathered) if self.streamed else None
        labels = np.concatenate([e.labels for e in parts])
        self.labels = torch.from_numpy(labels).to(device)
        starts = np.cumsum([0, *(len(e) for e in parts)])
        self.pools = [np.arange(a, b) for a, b in zip(starts, starts[1:])]
        self.domains = len(self.pools)
        self.sources = torch.eye(self.domains, device=device).repeat_interleave(
            torch.from_numpy(np.diff(starts)).to(device), 0
        )
        self.size, self.seed, self.sampling, self.device = size, seed, sampling, device
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._shares: list[tuple[int, np.ndarray]] = []
        self._drawn = [np.zeros(self.domains, int)]  # images of each domain, until each step
        if sampling == "pooled":
            self.pools = [np.concatenate(self.pools)]
        elif sampling == "classes":
            self._by_class(labels)
        elif sampling == "balanced" and size < self.domains:
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

    def batch(self, step: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What a step sees, on the device: images (n, H, W, 3) uint8, labels (n,), and their ``index`` and ``domains``."""
        if self._ahead:
            images, index = (tensor.to(self.device, non_blocking=True) for tensor in self._ahead(step))
        else:
            index = self.index(step)
            images = self.images[index]
        return images, self.labels[index], {"index": index, "domains": self.sources[index]}

    def _gathered(self, step: int) -> tuple[Tensor, Tensor]:
        places = self._places(step)
        return tuple(pinned(tensor, self.device) for tensor in (self.images.gathered(places), torch.from_numpy(places)))

    def index(self, step: int) -> Tensor:
        """Which of all source training images a step sees, (n,), on the device."""
        return upload(torch.from_numpy(self._places(step)), self.device)

    def _places(self, step: int) -> np.ndarray:
        if self.sampling == "classes":
            return self._of_classes(step)
        if self.sampling == "turns":
            turn, which = divmod(step - 1, self.domains)
            return self._take(which, turn * self.size, (turn + 1) * self.size)
        if self._shares:
            before, after = self._counts(step - 1), self._counts(step)
            return np.concatenate([self._take(which, *count) for which, count in enumerate(zip(before, after))])
        return self._dealt(range(len(self.pools)), (step - 1) * self.size, step * self.size)

    def share(self, step: int, shares: np.ndarray) -> None:
        """From the step after this one on, domains are drawn by these shares (sources,)."""
        if self._ahead:
            self._ahead.forget()
        self._shares = [*(past for past in self._shares if past[0] < step), (step, shares)]
        del self._drawn[step + 1 :]

    def _counts(self, step: int) -> np.ndarray:
        """How many images of each domain were drawn in all steps until this one."""
        while len(self._drawn) <= step:
            at = len(self._drawn)
            shares = next(shares for begin, shares in reversed(self._shares) if begin < at)
            found = np.random.default_rng([self.seed, 0xDD, at]).multinomial(self.size, shares)
            self._drawn.append(self._drawn[-1] + found)
        return self._drawn[step]

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
            order = rng.permutation(len(self.pools[which]))
            if self.sampling == "classes" and which == len(self.pools) - 1:
                order = self._going_on(which, epoch, order)
            self._orders[which, epoch] = order
        return self._orders[which, epoch]

    def _going_on(self, which: int, epoch: int, order: np.ndarray) -> np.ndarray:
        """An epoch of classes that goes on with others than those that the epoch before left in the batch between them."""
        left = epoch * len(order) % self.at_once  # none in one of at_once epochs, where this ends
        if not left:
            return order
        others = np.flatnonzero(~np.isin(order, self._order(which, epoch - 1)[-left:]))[: self.at_once - left]
        return np.concatenate([order[others], np.delete(order, others)])


def _turns(cards: int, players: int, player: int) -> int:
    """How many of the first ``cards`` a player has, dealt in turn."""
    return (cards + players - 1 - player) // players


SHARE = 0.5  # of the memory that a device has free, or the host has, which images may take


def streams(parts: Sequence, device: torch.device, wanted: str = "auto") -> bool:
    """Whether images are gathered step by step ahead of the loop: where it is wanted, or they exceed a share of what is free
    on the device, as far as it is this process's, of the memory there is on the CPU."""
    taken = sum(math.prod(part.shape) for part in parts)
    return wanted == "always" or (wanted == "auto" and taken > SHARE * room(device) / (_sharing(device) or 1))


def _sharing(device: torch.device) -> int:
    """How many trainings of a study are on this device at one time, see ``study.jobs.one_gpu``; 0 outside of a study."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return os.environ.get("WAKD_GPUS", "").split(",").count(given) if given and device.type == "cuda" else 0


def room(device: torch.device) -> float:
    """Bytes of memory: free ones on a CUDA device, all of the host elsewhere, as far as the system says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return math.inf


class Ahead:
    """What a function gives for whole numbers that are asked for one after the other, made by one thread some of them ahead."""

    def __init__(self, make: Callable[[int], object], count: int = 2):
        self.make, self.count, self.thread = make, count, ThreadPoolExecutor(1, "wakd-images")
        self.begun: dict[int, Future] = {}

    def __call__(self, number: int):
        wanted = range(number, number + self.count + 1)
        for passed in self.begun.keys() - set(wanted):
            self.begun.pop(passed).cancel()
        for one in wanted:
            if one not in self.begun:
                self.begun[one] = self.thread.submit(self.make, one)
        return self.begun.pop(number).result()

    def forget(self) -> None:
        """What was made ahead is made again: it is not what it was going to be."""
        for future in self.begun.values():
            future.cancel() or future.exception()  # being made: waited for
        self.begun.clear()


def uploaded(images, device: torch.device, size: int) -> Iterator[Tensor]:
    """Images (n, H, W, 3) uint8 in batches of at most ``size`` on the device, none of them copied as a whole; of those on the
    host, the next batches are gathered and pinned while the device works."""

    def part(number: int) -> Tensor:
        return pinned(torch.as_tensor(images[number * size : (number + 1) * size]), device)

    take = part if device.type == "cpu" or isinstance(images, Tensor) else Ahead(part)
    for number in range(-(-len(images) // size)):
        yield take(number).to(device, non_blocking=True)


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host where a CUDA device can fetch it while the host goes on; as it is for other devices."""
    return tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor


class SourceImages:
    """All source training images in the order of their domains: ``images[index]`` is (n, H, W, 3) uint8 on the device.

    They lie whole on a device other than the CPU, unless they are streamed.
    """

    def __init__(self, parts: list, device: torch.device, *, streamed: bool = False):
        self.parts, self.device = parts, device
        self.ends = np.cumsum([len(part) for part in parts])
        self.whole = None
        if device.type != "cpu" and not streamed:
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
        return upload(self.gathered(index.cpu().numpy()), self.device)

    def gathered(self, index: np.ndarray) -> Tensor:
        """The same on the host, read from where they are: memory maps stay such."""
        found = np.empty((len(index), *self.parts[0].shape[1:]), np.uint8)
        which = np.searchsorted(self.ends, index, side="right")
        for number, (part, end) in enumerate(zip(self.parts, self.ends)):
            mine = which == number
            found[mine] = part[index[mine] - (end - len(part))]
        return torch.from_numpy(found)

"""The only way from an average of a run to a network that can be called: where a run and a split meet.

    network = Network(run, split, roles=("source",))        # refuses a split that the run was not trained on
    model = network.take(coefficients)                      # averaged, its BatchNorm as the policy says, on the device
    logits = network.outputs()                              # {domain: (n, classes)}

Scores, searches, soups, window maps and landscapes go through it, so that none of them can judge a run by its unseen domain.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..data.augment import to_float
from ..data.batches import streams, uploaded
from ..data.domains import Examples, Rows, Split
from ..models.build import BATCHNORM_POLICIES, as_tap, batchnorms, in_eval, recalibrate
from ..models.device import device as device_of
from ..names import UnknownName, did_you_mean
from .store import State


@torch.inference_mode()
def predict(model: nn.Module, images: np.ndarray | Tensor, *, batch_size: int | None = None) -> Tensor:
    """Logits (n, classes) in float32 on the CPU of (n, H, W, 3) uint8 images, in eval mode; the model is left as it was."""
    model = as_tap(model)
    on = next((p.device for p in model.parameters()), torch.device("cpu"))
    with in_eval(model):
        size = getattr(model, "size", None) or images.shape[1:3]  # that the network computes on
        parts = uploaded(images, on, batch_size or at_once(size, on))
        return torch.cat([model(to_float(part), maps=False).logits.float() for part in parts]).cpu()


def at_once(size: tuple[int, int], on: torch.device) -> int:
    """How many images of (H, W) pixels are predicted at once: 128, on the CPU as many as leave what lies between two layers in
    its cache, see ``benchmarks/predict.py``."""
    return 128 if on.type != "cpu" else min(128, max(8, 2**18 // math.prod(size)))


def scored_domains(split: Split, roles: tuple[str, ...] = ("source", "target")) -> list[tuple[str, str, Examples]]:
    """(domain, role, examples) of what a model is judged on: source validation parts, then all of what was left out. Raises
    ``UnknownName`` for a role that is neither."""
    for role in roles:
        if role not in ("source", "target"):
            raise UnknownName(did_you_mean("role", role, ("source", "target")))
    found = [(name, "source", examples) for name, examples in split.val.items()] if "source" in roles else []
    unseen = split.each_for_testing_only() if "target" in roles else {}
    return found + [(name, "target", examples) for name, examples in unseen.items()]


def policy_of(run, batchnorm: str | None) -> str:
    """What happens to running statistics: as asked, or as the run has it. Raises ``ValueError`` for a policy that there is not."""
    policy = batchnorm or run.settings["batchnorm"]
    if policy not in BATCHNORM_POLICIES:
        raise ValueError(did_you_mean("BatchNorm policy", policy, BATCHNORM_POLICIES))
    return policy


class Network:
    """A run's student on its device, in eval mode: averages are put into it one after the other, images stay where they are.

    split      default the run's own
    roles      what it is judged on: "source" validation parts, the unseen "target", or both
    batchnorm  policy for running statistics, default the run's. Under ``recalibrate`` they are recomputed for every average
               on the run's calibration batches; a single raw iterate keeps those it was trained with, unless the policy
               is given here
    device     what computes, default the GPU where there is one
    others     runs that are merged with this one: the split is of the sources of all of them

    ``parts`` lists (domain, role, examples), ``roles`` and ``labels`` are by domain.
    Raises ``RunProblem`` for a split that the run was not trained on, whatever the policy and the architecture.
    """

    def __init__(
        self,
        run,
        split: Split | None = None,
        *,
        roles: tuple[str, ...] = ("source", "target"),
        batchnorm: str | None = None,
        others: Sequence = (),
        device: str | torch.device | None = None,
    ):
        self.policy = policy_of(run, batchnorm)
        self.run, self.split, self.others = run, split or run.split, tuple(others)
        run.check_split(self.split, others=self.others)
        self._raw_keep_theirs = batchnorm is None
        self.device = device_of(device)
        self.model = run.blank_model().to(self.device, memory_format=torch.channels_last)
        self.parts = scored_domains(self.split, roles)
        self.roles = {domain: role for domain, role, _ in self.parts}
        self.labels = {domain: torch.as_tensor(examples.labels) for domain, _, examples in self.parts}

    @functools.cached_property
    def batches(self) -> list[Tensor]:
        """The calibration batches; none where nothing is recalibrated."""
        calibrates = self.policy == "recalibrate" and batchnorms(self.model)
        return self.run.calibration_batches(self.split, self.device, others=self.others) if calibrates else []

    @functools.cached_property
    def images(self) -> dict[str, Tensor | Rows]:
        """(n, H, W, 3) uint8 of each domain on the device, for what asks again and again; where they are if they do not fit."""
        if streams([e.images for _, _, e in self.parts], self.device):
            return {d: e.images for d, _, e in self.parts}
        return {d: torch.as_tensor(np.ascontiguousarray(e.images)).to(self.device) for d, _, e in self.parts}

    def average(self, coefficients, run=None) -> State:
        """An average of the run (or of another) as ``load`` wants it: averaged statistics where they are recalibrated anyway."""
        policy = "average" if self.policy == "recalibrate" else self.policy
        return (run or self.run).average(coefficients, batchnorm=policy)

    def take(self, coefficients) -> nn.Module:
        """The network with an average of the run in it, as ``run.model`` would build it anew."""
        raw = self._raw_keep_theirs and self.run.is_raw(coefficients)
        return self.load(self.average(coefficients), raw=raw)

    def load(self, state: State, *, raw: bool = False) -> nn.Module:
        """The network with these parameters and buffers. ``raw``: its statistics are its own, and stay."""
        self.model.load_state_dict(state)
        return self.settle(self.model, raw=raw)

    def settle(self, model: nn.Module, *, raw: bool = False) -> nn.Module:
        """Running statistics as the policy wants them, in place."""
        return recalibrate(model, self.batches) if self.batches and not raw else model

    def outputs(self) -> dict[str, Tensor]:
        """{domain: (n, classes)} logits of what is in the network now."""
        return {domain: predict(self.model, images) for domain, images in self.images.items()}

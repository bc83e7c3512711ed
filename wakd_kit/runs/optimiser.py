"""The optimiser of a training: torch's, its rate at every step, and Lookahead's pull-back between two iterates."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..models.build import batchnorms
from ..objectives import Combined
from .settings import Settings, stepping

OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def set_learning_rate(optimiser: torch.optim.Optimizer, settings: Settings, step: int) -> None:
    """Constant, or half a cosine from the learning rate to zero over the run; times a rising line during warm-up."""
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * (step - 1) / settings.steps))
    if step <= settings.warmup:
        rate *= step / settings.warmup
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("rate", 1.0)


def optimiser_for(student: nn.Module, combined: Combined, settings: Settings, kernel: str) -> torch.optim.Optimizer:
    """What updates student and objectives, by this kernel; a group of its own for each rate that objectives have, beside the student's."""
    # the student's come first, so a checkpoint of objectives without parameters stays what it was
    trained = [p for p in (*student.parameters(), *combined.parameters()) if p.requires_grad]
    rates = {p: part.rate for part in combined.parts.values() if hasattr(part, "rate") for p in part.parameters()}
    if {*rates.values()} - {1.0}:
        groups = {rate: [p for p in trained if rates.get(p, 1.0) == rate] for rate in (1.0, *rates.values())}
        trained = [{"params": parameters, "rate": rate} for rate, parameters in groups.items() if parameters]
    stepped = stepping(settings)
    extra = {"momentum": settings.momentum} if stepped.name == "sgd" else {}
    made = OPTIMISERS[stepped.name](
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, **{kernel: True}, **extra
    )
    return pulled_back(made, stepped.pull_back, stepped.every)


def pulled_back(optimiser: torch.optim.Optimizer, share: float, every: int) -> torch.optim.Optimizer:
    """The same optimiser, after whose every ``every`` steps parameters keep this share of the way that those took them.

    slow <- slow + share (parameters - slow), as Lookahead (Zhang et al. 2019, arXiv 1907.08610), Reptile and Fish have it; moments
    are carried on, buffers are left alone. At the end of such a round parameters are the slow weights, so a checkpoint that is
    written there needs no others.
    """
    if share == 1:
        return optimiser
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    slow, taken = [torch.empty_like(p) for p in parameters], 0

    def before(*_) -> None:
        if taken % every == 0:
            torch._foreach_copy_(slow, parameters)

    @torch.no_grad()
    def after(*_) -> None:
        nonlocal taken
        taken += 1
        if taken % every == 0:
            way = torch._foreach_sub(parameters, slow)
            torch._foreach_mul_(way, share)
            torch._foreach_add_(slow, way)
            torch._foreach_copy_(parameters, slow)

    optimiser.register_step_pre_hook(torch.no_grad()(before))
    optimiser.register_step_post_hook(after)
    return optimiser


def update(
    optimiser: torch.optim.Optimizer, student: nn.Module, combined: Combined, taught: Callable[[], tuple], rho: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """One update of what ``taught`` gives, the loss and its terms, and those.

    With ``rho``, SAM (Foret et al. 2021, arXiv 2010.01412, algorithm 1 without weight decay in the ascent; as davda54/sam): the
    gradient is taken at ``parameters + rho g / |g|``, of the same images, over all parameters together, and the update is made from where
    they were. That second pass leaves BatchNorm's statistics and what objectives remember alone, and draws dropout anew.
    """
    loss, terms = taught()
    optimiser.zero_grad()
    loss.backward()
    if rho:
        with _highest_near(optimiser, rho), _remembering_nothing(student, combined):
            optimiser.zero_grad()
            taught()[0].backward()
    optimiser.step()
    return loss, terms


@contextlib.contextmanager
def _highest_near(optimiser: torch.optim.Optimizer, rho: float) -> Iterator[None]:
    """Within it, parameters are ``rho`` along their gradient; afterwards they are where they were."""
    moved = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    with torch.no_grad():
        before, gradients = [p.clone() for p in moved], [p.grad for p in moved]
        length = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_add_(moved, torch._foreach_mul(gradients, rho / (length + 1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(moved, before)


@contextlib.contextmanager
def _remembering_nothing(student: nn.Module, combined: Combined) -> Iterator[None]:
    """Within it, forwards change no running statistics, of networks of objectives either, and no state of objectives."""
    layers = [layer for model in (student, combined) for layer in batchnorms(model) if layer.training]
    combined.eval()
    for layer in layers:
        layer.train().track_running_stats = False
    try:
        yield
    finally:
        combined.train()
        for layer in layers:
            layer.track_running_stats = True


def kernel_for(student: nn.Module, combined: Combined, settings: Settings, device: torch.device) -> str:
    """Which of torch's two kernels updates: "fused", one pass over everything, where there is one for these parameters on
    this device; else "foreach". They round differently."""
    parameters = [p for p in (*student.parameters(), *combined.parameters()) if p.requires_grad]
    probes = {(p.dtype, p.layout): nn.Parameter(torch.zeros(1, dtype=p.dtype, device=device)) for p in parameters}
    # the fused one goes through memory as it lies, and takes no parameter that overlaps itself or has holes
    if any(torch.empty_like(p).stride() != p.stride() for p in parameters):
        return "foreach"
    try:
        optimiser = OPTIMISERS[stepping(settings).name](probes.values(), lr=0.0, fused=True)
        for probe in probes.values():
            probe.grad = torch.zeros_like(probe)
        optimiser.step()
    except RuntimeError:
        return "foreach"
    return "fused"

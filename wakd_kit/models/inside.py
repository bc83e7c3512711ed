"""Parts without parameters inside a student, after some of its stages: what an image's style is there, taken away or mixed.

    build_model("resnet18", 7, inside={"after": [0, 1], "name": "unistyle"})     XDED's student: after layer1 and layer2

They are modules of the network, so whatever copies, compiles, folds or exports it carries them; names of parameters stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.fx
from torch import Tensor, nn

from ..names import did_you_mean, is_whole, one_of, positive, within
from .tap import Tap, shapes_of


class UniStyle(nn.Module):
    """``(x - mean) / standard deviation`` of every channel of every image, in training and after it (XDED, Lee et al. 2022, arXiv
    2211.14058, section 3.3, which calls it whitening in its code): no style is left, and none is put in its place."""

    def __init__(self, *, eps: float = 1e-6):
        positive(eps=eps)
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, channels, height, width), of mean 0 and deviation 1 each."""
        mean, deviation = style_of(x, self.eps)
        return (x - mean) / deviation


class MixStyle(nn.Module):
    """Mean and deviation of every channel mixed with those of another image of the batch, in training alone (Zhou et al. 2021,
    arXiv 2104.02008): ``lam`` of its own, from Beta(alpha, alpha) for each image, in a share ``p`` of the steps. Styles are not
    differentiated. Draws are those of the step, as dropout's."""

    def __init__(self, *, p: float = 0.5, alpha: float = 0.1, eps: float = 1e-6):
        positive(alpha=alpha, eps=eps)
        within(0, 1).each(p=p)
        super().__init__()
        self.p, self.alpha, self.eps = p, alpha, eps

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, channels, height, width) of other styles; as they are in eval mode."""
        if not self.training or x.is_meta:  # shapes do not depend on it
            return x
        mean, deviation = (part.detach() for part in style_of(x, self.eps))
        alpha = x.new_full((len(x), 1, 1, 1), self.alpha, dtype=torch.float32)
        own = torch.distributions.Beta(alpha, alpha, validate_args=False).sample()
        own = torch.where(torch.rand((), device=x.device) < self.p, own, torch.ones_like(own)).to(x.dtype)
        other = torch.randperm(len(x), device=x.device)
        mixed = [own * part + (1 - own) * part[other] for part in (mean, deviation)]
        return (x - mean) / deviation * mixed[1] + mixed[0]


class Perturbed(nn.Module):
    """Mean and deviation of every channel moved by learned numbers, the same for all images; by nothing at first: CCFP's learnable
    domain perturbation (Li et al. 2023, ICCV; hackmebroo/CCFP@10b0dfc8)."""

    def __init__(self, channels: int, *, eps: float = 1e-6):
        super().__init__()
        self.eps, self.gamma, self.beta = eps, nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, channels, height, width) of the moved styles."""
        mean, deviation = style_of(x, self.eps)
        gamma, beta = self.gamma[:, None, None], self.beta[:, None, None]
        return (x - mean) / deviation * (deviation + gamma) + mean + beta


STYLES = {"unistyle": UniStyle, "mixstyle": MixStyle}


@torch.fx.wrap  # a step of its own where a network is traced
def style_of(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (n, channels, 1, 1) over the positions of maps; one position deviates by nothing."""
    variance = x.var((2, 3), keepdim=True, correction=min(x.shape[2] * x.shape[3] - 1, 1))
    return x.mean((2, 3), keepdim=True), (variance + eps).sqrt()


def put_inside(tap: Tap, inside: Mapping) -> Tap:
    """The tap with such a part after each of these stages, counted as its maps, from 0; ``spec`` says so.

    Raises ``ValueError`` for a model whose stages are no sequences of layers on maps, and for settings that do not fit.
    """
    if not isinstance(inside, Mapping) or {"after", "name"} - inside.keys():
        raise ValueError(f'inside is a dictionary such as {{"after": [0, 1], "name": "unistyle"}}; got {inside!r}.')
    settings = {key: value for key, value in inside.items() if key not in ("after", "name")}
    one_of("name of what is inside", inside["name"], STYLES)
    kind, after = STYLES[inside["name"]], inside["after"]
    for key in settings:
        if key not in (known := kind.__init__.__kwdefaults__):
            raise ValueError(did_you_mean(f"setting of {inside['name']}", key, known))
    count = len(tap.stages)
    fits = isinstance(after, list | tuple) and after and all(is_whole(stage) and 0 <= stage < count for stage in after)
    if not fits or len({*after}) < len(after):
        raise ValueError(f"after lists stages of {tap.spec['name']}, from 0 to {count - 1}, each once; got {after!r}.")
    after_stages(tap, after, inside["name"], lambda _: kind(**settings))
    tap.spec["settings"] = {**tap.spec.get("settings", {}), "inside": {**inside, "after": [*map(int, after)]}}
    return tap


def after_stages(tap: Tap, stages: Iterable[int], name: str, make: Callable[[int], nn.Module]) -> list[nn.Module]:
    """What ``make(channels)`` gives, put after each of these stages of a tap under this name."""
    features, made = [dict(feature) for feature in tap.model.feature_info], []
    for stage in stages:
        feature = features[tap.stages[stage]]
        module = tap.model.get_submodule(feature["module"])
        if not isinstance(module, nn.Sequential):
            raise ValueError(
                f"Stages of {tap.spec['name']} are no sequences of layers on maps ({type(module).__name__}), so nothing can be put after "
                "one: take a ResNet or an EfficientNet."
            )
        made.append(make(feature["num_chs"]))
        module.add_module(name, made[-1])
    shapes_of(tap, (tap.size or (64, 64))[0])  # a stage that gives no maps says so here
    return made

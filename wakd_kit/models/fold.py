"""BatchNorm folded into the convolutions before it: a twin of a network in eval mode that does less, and answers the same."""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterable

import torch
import torch.fx
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .tap import LogitsTap, Tap


@torch.no_grad()
def frozen(model: nn.Module, *, half: bool) -> nn.Module:
    """A twin of a model that is only asked, in eval mode: BatchNorm folded and, with ``half``, what convolutions and linear
    layers hold in bfloat16, which is what autocast makes of it at every step. The model itself stays as it is."""
    twin, pairs = folded(model)
    fold(pairs)
    if twin is model:
        twin = copy.deepcopy(model, memo={id(t): t for t in (*model.parameters(), *model.buffers())}).eval()
    for module in twin.modules():
        if half and type(module) in (nn.Conv2d, nn.Linear):
            for name, tensor in [(n, t) for n, t in module._parameters.items() if t is not None]:
                module._parameters[name] = nn.Parameter(tensor.bfloat16(), requires_grad=False)
    return twin


@torch.no_grad()
def fold(pairs: Iterable[tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]]) -> None:
    """Bring a twin's convolutions up to what is in the model now."""
    for convolution, norm, folded in pairs:
        weight, bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        folded.weight.copy_(weight)
        folded.bias.copy_(bias)


def folded(model: nn.Module) -> tuple[nn.Module, list[tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]]]:
    """A twin of the model whose convolutions take over the BatchNorm that follows them, and what to fold into which.

    Everything else of the twin is the model's own tensors, so it follows when those are overwritten. A model that
    torch.fx cannot trace, or that has no such pair, is its own twin. A pair is folded where the network calls each of the
    two exactly once, reads their parameters nowhere else and hooks nothing to them, and the BatchNorm keeps statistics.
    """
    network = model.model if isinstance(model, (Tap, LogitsTap)) else None  # others may call parts of it, in any order
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    try:  # what a network keeps of a pass, such as attention biases, is the tracer's here: a copy of it is traced
        nodes = list(torch.fx.Tracer().trace(copy.deepcopy(network, memo=dict(shared))).nodes)
    except Exception:  # tracing fails in as many ways as there are models; plain evaluation is always right
        return model, []
    called = collections.Counter(network.get_submodule(n.target) for n in nodes if n.op == "call_module")
    read = {network.get_submodule(n.target.rpartition(".")[0]) for n in nodes if n.op == "get_attr"}

    def once(node, kind: type[nn.Module]) -> nn.Module | None:
        """The module that a node of the graph calls, if it is of this kind and nothing else uses it."""
        if not isinstance(node, torch.fx.Node) or node.op != "call_module":
            return None
        module = network.get_submodule(node.target)
        hooks = module._forward_pre_hooks or module._forward_hooks  # the older weight and spectral norm are such
        return module if type(module) is kind and called[module] == 1 and module not in read and not hooks else None

    replaced, found = shared, []
    for node in nodes:
        before = node.args[0] if node.args else None
        norm, convolution = once(node, nn.BatchNorm2d), once(before, nn.Conv2d)
        if norm is None or convolution is None or norm.running_mean is None or len(before.users) > 1:
            continue
        folded = copy.deepcopy(convolution)
        folded.bias = nn.Parameter(torch.zeros_like(norm.running_mean))
        replaced |= {id(convolution): folded, id(norm): nn.Identity()}
        found.append((convolution, norm, folded))
    return (copy.deepcopy(model, memo=replaced).eval() if found else model), found

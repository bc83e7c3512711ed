"""Queries, keys and values of a transformer, read while it answers; its parameters and their names stay as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from timm.layers import Attention
from torch import Tensor, nn


@contextlib.contextmanager
def attention_of(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list that fills, while the model answers within the block, with (n, 3, heads, tokens, width) for each of its blocks, the
    first first: queries and keys as they are multiplied, before they are scaled, and values. Only timm's own self-attention
    over all tokens is read; the list stays empty in convolutional networks and in those of windows, such as Swin."""
    found: list[Tensor] = []

    def keep(attention: Attention, joint: Tensor) -> None:
        n, tokens, _ = joint.shape
        q, k, v = joint.reshape(n, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        found.append(torch.stack([attention.q_norm(q), attention.k_norm(k), v], 1))

    with contextlib.ExitStack() as hooks:
        for part in model.modules():
            if type(part) is Attention:
                hooks.callback(part.qkv.register_forward_hook(lambda _, __, out, a=part: keep(a, out)).remove)
        yield found

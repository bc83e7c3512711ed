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
    first first: queries and keys as they are multiplied, before they are scaled, and values. Only timm's plain self-attention
    is read, that of ViT and DeiT; the list stays empty in networks that compute theirs another way, such as Swin, BEiT and
    EVA, and in convolutional ones. Where attention is over parts of an image (MobileViT) there are more rows than images."""
    found: list[Tensor] = []

    def keep(attention: Attention, joint: Tensor) -> None:
        n, tokens, _ = joint.shape
        joint = joint.reshape(n, tokens, 3, attention.num_heads, -1).permute(0, 2, 3, 1, 4)
        if not type(attention.q_norm) is type(attention.k_norm) is nn.Identity:  # else nothing is copied
            q, k, v = joint.unbind(1)
            joint = torch.stack([attention.q_norm(q).to(v), attention.k_norm(k).to(v), v], 1)
        found.append(joint)

    with contextlib.ExitStack() as hooks:
        for part in model.modules():
            if type(part) is Attention:
                hooks.callback(part.qkv.register_forward_hook(lambda _, __, out, a=part: keep(a, out)).remove)
        yield found

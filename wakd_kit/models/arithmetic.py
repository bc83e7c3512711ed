"""How numbers are computed where there is a choice: which arithmetic, which kernels, compiled or not, the same twice or not.

Whoever imports this has float32 that is float32: torch by itself lets a CUDA device round the products of convolutions to 10
bits. A training may ask for that by name, and whoever wants it elsewhere sets ``torch.backends.cudnn.allow_tf32`` afterwards.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator

import torch

from ..data.batches import seed_device

torch.backends.cudnn.allow_tf32 = False


@contextlib.contextmanager
def own_draws(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """What is drawn inside, from this seed, moves no stream outside, of the CPU or of this device; no other device is touched."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if seed is not None:
            seed_device(device, seed)
        yield


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Forwards in bfloat16 where that is the precision; otherwise nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@contextlib.contextmanager
def computing(device: torch.device, precision: str, *, deterministic: bool) -> Iterator[None]:
    """torch's own settings for a training on a device; afterwards they are what they were.

    tf32           products of float32 are rounded to 10 bits where the device can; under no other precision are they
    deterministic  only kernels that give the same bits twice; torch names an operation that has none
    Otherwise CUDA's convolutions try their kernels once for every shape and take the fastest.
    """
    cudnn, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    before = cudnn.allow_tf32, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        cudnn.allow_tf32 = precision == "tf32"
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first product
            torch.use_deterministic_algorithms(True)
        cudnn.benchmark = device.type == "cuda" and not deterministic
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        cudnn.allow_tf32, cudnn.benchmark, algorithms = before
        torch.use_deterministic_algorithms(algorithms, warn_only=warns)


def compiled(function: Callable, device: torch.device) -> Callable:
    """A module or a function compiled for one shape; on CUDA as a graph, which the host launches at once."""
    return torch.compile(function, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)


def check_compiles(device: torch.device) -> None:
    """Raises ``ValueError`` where nothing can be compiled for lack of a compiler."""
    names = [os.environ.get("CXX"), "g++", "clang++", "cl"]
    if device.type == "cpu" and not any(shutil.which(name) for name in names if name):
        raise ValueError(
            "compile=True needs a C++ compiler on the CPU, and there is none: install g++, or leave it out."
        )

"""A linear classifier on tiny images: its loss, gradient and Hessian are known in closed form."""

from pathlib import Path

import numpy as np
from torch import nn

import wakd_kit as wk


def trained(folder: Path) -> wk.Run:
    """A finished run of six steps: 4 px, 3 classes, 147 parameters, two source domains and a target."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    arrays = {name: (rng.integers(0, 256, (30, 4, 4, 3)).astype(np.uint8), labels) for name in "abc"}
    split = wk.leave_one_out(wk.domains_from_arrays(arrays, ("x", "y", "z")), "c", 0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    return wk.train(
        network,
        split,
        steps=6,
        segment_length=2,
        batch_size=8,
        views="none",
        save_to=folder,
        progress=False,
        device="cpu",
    )


def third_order(run: wk.Run, domain: str, step: np.ndarray) -> float:
    """The most that terms of third order and beyond add to the mean loss along a step (p,).

    Along logits that move by z the third derivative of a cross-entropy is a third central moment, of values that lie
    within max z - min z: at most that cubed over 6 sqrt(3), and a sixth of it counts.
    """
    examples = run.split.val.get(domain, run.split.target_for_testing_only)
    images = np.asarray(examples.images).transpose(0, 3, 1, 2).reshape(len(examples), -1) / 255
    moved = images @ step[: 3 * 48].reshape(3, 48).T + step[3 * 48 :]
    return float((np.ptp(moved, axis=1) ** 3).mean() / (6 * np.sqrt(3)) / 6)


def expansion(run: wk.Run, coefficients, domain: str) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, gradient (p,) and Hessian (p, p) of the mean cross-entropy on what models are judged on in a domain."""
    split, state = run.split, run.average(coefficients)
    examples = split.val.get(domain, split.target_for_testing_only)
    images = np.asarray(examples.images).transpose(0, 3, 1, 2).reshape(len(examples), -1) / 255
    weight, bias = (state[f"model.1.{name}"].double().numpy() for name in ("weight", "bias"))
    logits = images @ weight.T + bias
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    targets = np.eye(3)[examples.labels]
    errors = probs - targets
    gradient = np.concatenate([(errors.T @ images).flatten(), errors.sum(axis=0)]) / len(images)
    hessian = np.zeros((len(gradient), len(gradient)))
    for x, p in zip(images, probs):
        # logits = J theta: class k reads the pixels through row k of the weight and adds its bias
        jacobian = np.concatenate([np.kron(np.eye(3), x), np.eye(3)], axis=1)
        hessian += jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian / len(images)
    return float(-np.log(probs[targets == 1]).mean()), gradient, hessian

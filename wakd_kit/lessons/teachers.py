"""Exercises on teaching: lessons 01, 07 and 08."""

from __future__ import annotations

import numpy as np

from .exercises import exercise, function, number, values

# ---- 01: beyond the label


@exercise(
    "01.1",
    """
    import numpy as np
    def answer(logits, temperature):
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
        return powers / powers.sum(axis=1, keepdims=True)
    """,
)
def softmax(answer):
    """A function of logits (n, classes) and a temperature."""
    if wrong := function(answer, "answer = softmax, without calling it"):
        return wrong
    z = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]])
    powers = np.exp(z / 4)
    right = powers / powers.sum(axis=1, keepdims=True)
    given = np.asarray(answer(z.copy(), 4.0), dtype=float)
    if given.shape == right.shape:
        if np.allclose(given.sum(), 1) and not np.allclose(given.sum(axis=1), 1):
            return "all probabilities together sum to 1, and each row should: sum over classes alone, axis=1, keepdims=True."
        at_one = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        sharper = np.exp(4 * z) / np.exp(4 * z).sum(axis=1, keepdims=True)
        if np.allclose(given, at_one):
            return "these are the probabilities at T = 1, whatever T is: logits are divided by T before exp."
        if np.allclose(given, sharper):
            return "a higher T should make probabilities more even; yours become sharper: divide logits by T, do not multiply."
    if wrong := values(given, right, what="probabilities of two rows at T = 4"):
        return wrong
    with np.errstate(all="ignore"):
        far = np.asarray(answer(np.array([[1000.0, 0.0]]), 1.0), dtype=float)
    if not np.all(np.isfinite(far)):
        return "exp(1000) is infinite, and inf / inf no number: subtract the largest logit of each row first, which changes nothing else."
    return None


@exercise("01.2", "answer = 4**2")
def forgotten_factor(answer):
    """Which factor of the rate makes up for T squared at T = 4."""
    if answer == 4:
        return "T enters twice: dividing logits by T makes one factor, and the difference of the two softer distributions another."
    if answer in (1 / 4, 1 / 16):
        return "the gradient without the factor is smaller, so the rate has to be larger."
    return number(answer, 16, hint="compare the gradients with and without the factor of the formula")


@exercise(
    "01.3",
    """
    def answer(student, teacher, labels=None):
        p, q = (teacher / 4).softmax(1), (student / 4).log_softmax(1)
        return 4**2 * (p * (p.log() - q)).sum(1).mean()
    """,
)
def own_objective(answer):
    """KL from teacher to student at T = 4, times 16, as ``kd`` has it."""
    import torch

    from ..objectives import get

    if wrong := function(answer, "answer = my_kd, without calling it"):
        return wrong
    student, teacher = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)).unbind()
    student = (2 * student).requires_grad_()
    given = answer(student, 3 * teacher, None)
    if not isinstance(given, torch.Tensor) or given.ndim:
        return f"a batch has one loss, a tensor without dimensions; got {tuple(given.shape) if isinstance(given, torch.Tensor) else given!r}."
    if not given.requires_grad:
        return "no gradient reaches the student: stay with tensors, without detach, item or numpy."
    kd, value = get("kd"), float(given.detach())
    right = float(kd(student.detach(), 3 * teacher, temperature=4.0))
    other = float(kd(3 * teacher, student.detach(), temperature=4.0))
    for factor, said in {
        1 / 16: "the factor of T squared is missing",
        6: "it is summed over the batch; take the mean over examples",
        1
        / 5: 'it is averaged over classes as well: sum over classes, then the mean over examples (F.kl_div needs reduction="batchmean")',
        1
        / 80: 'it is averaged over classes as well, and the factor of T squared is missing (F.kl_div needs reduction="batchmean")',
    }.items():
        if abs(value / right - factor) < 1e-3 * factor:
            return f"{said}."
    if abs(value / other - 1) < 1e-3:
        return (
            "this is the divergence from the student to the teacher: the teacher's probabilities weigh, p log(p / q)."
        )
    return number(
        value,
        right,
        within=1e-3,
        hint=f"kd gives {right:.4g} nats on this batch: p log(p / q), summed over classes, averaged over examples, times T squared",
    )

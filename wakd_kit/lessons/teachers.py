"""Exercises on teaching: lessons 01, 07 and 08."""

from __future__ import annotations

import numpy as np

from ..names import is_number
from .exercises import exercise, function, known_mistake, number, values

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
        far = np.asarray(answer(np.array([[1000.0, 0.0], [0.0, 0.0]]), 1.0), dtype=float)
    if far.shape != (2, 2) or not np.allclose(far, [[1, 0], [0.5, 0.5]]):
        return "logits of 1000 and 0 have probabilities 1 and 0. exp(1000) is infinite, exp(-1000) zero, and neither inf / inf nor 0 / 0 is a number: subtract the largest logit of each row first, which changes nothing else."
    return None


@exercise("01.2", "answer = 4**2")
def forgotten_factor(answer):
    """Which factor of the rate makes up for T squared at T = 4."""
    smaller = "the gradient without the factor is smaller, so the rate has to be larger."
    said = {
        4: "T enters twice: dividing logits by T makes one factor, and the difference of the two softer distributions another.",
        1 / 4: smaller,
        1 / 16: smaller,
    }
    return known_mistake(answer, said) or number(
        answer, 16, hint="compare the gradients with and without the factor of the formula"
    )


@exercise(
    "01.3",
    """
    def answer(student, teacher, labels=None):
        p, q = (teacher.logits / 4).softmax(1), (student.logits / 4).log_softmax(1)
        return 4**2 * (p * (p.log() - q)).sum(1).mean()
    """,
)
def own_objective(answer):
    """KL from teacher to student at T = 4, times 16, as ``kd`` has it."""
    import torch

    from ..models.tap import Output
    from ..objectives import get

    if wrong := function(answer, "answer = my_kd, without calling it"):
        return wrong
    student, teacher = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)).unbind()
    student = (2 * student).requires_grad_()
    given = answer(*(Output(logits, pooled=logits) for logits in (student, 3 * teacher)), None)
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


# ---- 07: self-distillation


@exercise(
    "07.1",
    """
    def answer(d, penalty, alpha, k):
        a = d / (d + penalty)
        b = a
        for _ in range(k - 1):
            b = a * (alpha + (1 - alpha) * b)
        return b
    """,
)
def generations(answer):
    """B_k of one eigenvalue."""
    if wrong := function(answer, "answer = shrink, without calling it"):
        return wrong
    a, alpha = 2 / 2.5, 0.3
    three = a * (alpha + (1 - alpha) * a * (alpha + (1 - alpha) * a))
    four = a * (alpha + (1 - alpha) * three)
    given = float(answer(2.0, 0.5, alpha, 3))
    if np.isclose(given, four):
        return "that is one generation too many: k = 1 is the first fit, A itself."
    if np.isclose(given, a**3):
        return "that is alpha = 0: the share of the labels is missing in each step."
    if np.isclose(given, a * (1 - alpha + alpha * a * (1 - alpha + alpha * a))):
        return "alpha is the share of the labels, 1 - alpha that of the one before; yours has them the other way round."
    return number(
        given,
        three,
        within=1e-6,
        hint="for d = 2, penalty 0.5 and alpha 0.3 A is 0.8; apply the recursion twice for k = 3",
    )


@exercise("07.2", "answer = 0.1 / 0.25")
def limit(answer):
    """lambda / alpha."""
    said = {0.025: "distillation shrinks more, so the penalty is larger: divide by alpha, do not multiply."}
    return known_mistake(answer, said) or number(answer, 0.4, hint="the limit is ridge regression with lambda / alpha")


@exercise("07.3", "def answer(g, h, y):\n    return ((y - h) @ (g - h)) / ((g - h) @ (g - h))")
def best_alpha(answer):
    """<y - h, g - h> / |g - h|^2."""
    if wrong := function(answer, "answer = best_alpha, without calling it"):
        return wrong
    g, h, y = np.array([1.0, 2, 0, 3]), np.array([0.0, 1, 1, 1]), np.array([0.5, 2, 0.5, 2])
    right, given = 4 / 7, float(answer(g, h, y))
    if np.isclose(given, 1 - right):
        return "that is the share of h; alpha is the share of g."
    if np.isclose(given, 4 / np.sqrt(7)):
        return "divide by the square of the length of g - h, not by its length."
    return number(given, right, within=1e-6, hint="set the derivative of |alpha g + (1 - alpha) h - y| squared to zero")


# ---- 08: the capacity gap


@exercise(
    "08.1",
    """
    import numpy as np
    c = 1 / np.sqrt(1 + np.arange(60))
    answer = 8 / 200 * (c[8:60] ** 2).sum()
    """,
)
def beyond_grasp(answer):
    """s / N times the squares from s to m."""
    squares = 1 / (1 + np.arange(60))
    right = 8 / 200 * squares[8:].sum()
    if is_number(answer):
        if np.isclose(answer, squares[8:].sum(), rtol=0.01):
            return "that is the whole tail, which the student cannot have in any case; asked for is what arrives as noise, s / N of it."
        if np.isclose(answer, 8 / 200 * squares.sum(), rtol=0.01):
            return "the first 8 terms are within the student's grasp: sum from j = s on."
        if np.isclose(answer, 8 / 200 * np.sqrt(squares)[8:].sum(), rtol=0.01):
            return "the coefficients are squared in the sum."
    return number(answer, right, within=0.01, hint="8 / 200 times the sum of 1 / (1 + j) for j from 8 to 59")


@exercise("08.2", 'answer = "inputs"')
def what_helps(answer):
    """Inputs: a larger teacher adds to what is beyond the student's grasp."""
    if answer == "teacher":
        return "its new terms are all beyond the student's 8, so they only add to the last sum; more inputs divide that sum by two."
    return None if answer == "inputs" else f'choose one of "inputs" and "teacher"; got {answer!r}.'


@exercise(
    "08.3",
    """
    import numpy as np
    def answer(features, said, penalty):
        square = features.T @ features + penalty * np.eye(features.shape[1])
        return np.linalg.solve(square, features.T @ said)
    """,
)
def ridge(answer):
    """(F^T F + lambda I)^-1 F^T t."""
    if wrong := function(answer, "answer = ridge, without calling it"):
        return wrong
    rng = np.random.default_rng(0)
    features, said = rng.normal(size=(12, 3)), rng.normal(size=12)
    square, onto = features.T @ features, features.T @ said
    given = np.asarray(answer(features.copy(), said.copy(), 2.0), dtype=float)
    if given.shape == (3,):
        if np.allclose(given, np.linalg.solve(square, onto)):
            return "that is least squares: the penalty changes nothing in it."
        if np.allclose(given, np.linalg.solve(square + 2, onto)):
            return "the penalty is added to every entry; it belongs on the diagonal alone, penalty * np.eye(s)."
        if np.allclose(given, np.linalg.solve(square / 12 + 2 * np.eye(3), onto / 12)):
            return "the squares are averaged over inputs here, so the penalty weighs N times as much as was asked for."
    return values(given, np.linalg.solve(square + 2 * np.eye(3), onto), what="coefficients")

"""Exercises on averages: lessons 00, 03, 04 and 05."""

from __future__ import annotations

import numpy as np

from .exercises import exercise, function, number, values

# ---- 00: why averages help


@exercise("00.1", "def answer(path, n):\n    return path[-n:].mean(axis=0)")
def mean_of_last(answer):
    """A function of a path (steps, dimensions) and n."""
    if wrong := function(answer, "answer = mean_of_last, without calling it"):
        return wrong
    path = np.random.default_rng(3).normal(size=(9, 2)).cumsum(axis=0)
    given = np.asarray(answer(path.copy(), 4), dtype=float)
    if given.shape == ():
        return "it returns one number: average over steps alone, axis=0, so that a point with every dimension is left."
    if given.shape == (2,) and np.allclose(given, path[:4].mean(axis=0)):
        return "these are the first n iterates, where training had only begun; the last n are path[-n:]."
    if given.shape == (2,) and np.allclose(given, path.mean(axis=0)):
        return "it averages every iterate, whatever n is."
    return values(given, path[-4:].mean(axis=0), what="the average of a path of 9 steps with n=4")


@exercise("00.2", "rate, b = 0.5, 1.0\nanswer = 10 * (2 - rate * b) / (rate * b)")
def iterates_for_a_tenth(answer):
    """How many correlated iterates make a tenth of the variance."""
    if isinstance(answer, int | float) and round(answer) == 10:
        return "ten would do if iterates were independent, but neighbours are alike: set the two variances in the ratio 1 to 10 and solve for n."
    return number(
        answer, 30, within=0.02, hint="set the variance of one to ten times that of the average and solve for n"
    )


@exercise(
    "00.3",
    """
    import numpy as np
    angles = np.linspace(0, np.pi, 1001)
    middle = np.array([np.cos(angles), np.sin(angles)]).mean(axis=1)
    answer = ((middle**2).sum() - 1) ** 2
    """,
)
def ring(answer):
    """The loss in the middle of half a ring: mean height 2 / pi."""
    if isinstance(answer, int | float) and answer == 0:
        return "every iterate has loss 0, and still their average has not: it lies inside the ring, because a ring is not convex."
    return number(
        answer,
        (4 / np.pi**2 - 1) ** 2,
        within=0.02,
        hint="find the point in the middle first: its height is the mean of sin over half a turn",
    )


# ---- 03: by hand


@exercise(
    "03.1",
    """
    import numpy as np
    def answer(iterates, k):
        c = np.zeros(len(iterates))
        c[-k:] = iterates[-k:]
        return c / c.sum()
    """,
)
def equal_iterates(answer):
    """Coefficients in proportion to how many iterates a segment holds."""
    if wrong := function(answer, "answer = coefficients_of, without calling it"):
        return wrong
    iterates = np.array([10, 10, 10, 30, 10])
    given = np.asarray(answer(iterates.copy(), 3), dtype=float)
    if given.shape == (3,):
        return "one coefficient per segment is asked for: those before the last k are 0, and not left out."
    if given.shape == (5,) and not np.isclose(given.sum(), 1):
        return f"coefficients sum to 1; yours sum to {given.sum():.4g}."
    if given.shape == (5,) and np.allclose(given[-3:], 1 / 3):
        return "each segment weighs a third here, so an iterate of a long segment weighs less than one of a short one: weigh by iterates."
    return values(given, [0, 0, 0.2, 0.6, 0.2], what="coefficients of segments of 10, 10, 10, 30, 10 iterates, k = 3,")


@exercise("03.2", "answer = (2**2, (1**2 + 3**2) / 2)")
def stale_variance(answer):
    """(w of the average)^2 and the mean of w^2."""
    given = np.asarray(answer, dtype=float)
    if given.shape != (2,):
        return f"two numbers in brackets are asked for; got {answer!r}."
    if np.allclose(given, (5, 4)):
        return (
            "the other way round: first of the averaged network, whose w is 2, then the mean of the running variances."
        )
    if np.isclose(given[0], 5):
        return "the averaged network has one w, the mean of both, and the variance of w u is w squared: first average, then square."
    return values(given, (4, 5), what="variances")


@exercise(
    "03.3",
    """
    import numpy as np
    def answer(curves):
        best = np.argsort(curves.val_loss, kind="stable")[:5]
        c = np.zeros(len(curves))
        c[best] = curves.iterates[best]
        return c / c.sum()
    """,
)
def own_strategy(answer):
    """The five segments of lowest validation loss."""
    from ..averaging import Curves

    if wrong := function(answer, "answer = my_strategy, without calling it"):
        return wrong
    loss = np.array([9, 8, 3, 7, 2, 1, 6, 4, 5, 10.0])
    curves = Curves([5] * 9 + [15], val_loss=loss, val_accuracy=1 - loss / 20, train_loss=loss[::-1])
    given = np.asarray(answer(curves), dtype=float)
    right = np.isin(loss, [1, 2, 3, 4, 5]) / 5
    if given.shape == (10,) and not np.isclose(given.sum(), 1):
        return f"coefficients sum to 1; yours sum to {given.sum():.4g}."
    if given.shape == (10,) and np.array_equal(given > 0, loss > 5):
        return "these are the five of highest loss; sort the other way."
    if given.shape == (10,) and np.array_equal(given > 0, loss[::-1] <= 5):
        return "these are the five of lowest training loss, which says little of images that were not trained on; take val_loss."
    return values(given, right, what="coefficients of ten segments")

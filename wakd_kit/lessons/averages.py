"""Exercises on averages: lessons 00, 03, 04 and 05."""

from __future__ import annotations

import numpy as np

from ..names import is_number
from .exercises import exercise, fraction, function, known_mistake, number, values

# ---- 00: why averages help


@exercise("00.1", "def answer(path, n):\n    return path[-n:].mean(axis=0)")
def mean_of_last(answer):
    """A function of a path (steps, dimensions) and n."""
    if wrong := function(answer, "answer = mean_of_last, without calling it"):
        return wrong
    path = np.random.default_rng(3).normal(size=(11, 2)).cumsum(axis=0)
    given = np.asarray(answer(path.copy(), 4), dtype=float)
    if given.shape == ():
        return "it returns one number: average over steps alone, axis=0, so that a point with every dimension is left."
    if given.shape == (2,) and np.allclose(given, path[:4].mean(axis=0)):
        return "these are the first n iterates, where training had only begun; the last n are path[-n:]."
    if given.shape == (2,) and np.allclose(given, path.mean(axis=0)):
        return "it averages every iterate, whatever n is."
    return values(given, path[-4:].mean(axis=0), what="the average of a path of 11 steps with n=4")


@exercise("00.2", "rate, b = 0.5, 1.0\nanswer = 10 * (2 - rate * b) / (rate * b)")
def iterates_for_a_tenth(answer):
    """How many correlated iterates make a tenth of the variance."""
    if is_number(answer) and round(answer) == 10:
        return "ten would do if iterates were independent, but neighbours are alike: set the two variances in the ratio 1 to 10 and solve for n."
    return number(  # 29 by the whole sum, 3 / n - 4 / n^2
        answer, 30, within=0.05, hint="set the variance of one to ten times that of the average and solve for n"
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
    if is_number(answer) and answer == 0:
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
    loss = np.array([9, 8, 3, 7, 2, 10, 6, 4, 5, 1.0])
    curves = Curves([5] * 9 + [15], val_loss=loss, val_accuracy=np.roll(1 - loss / 20, 1), train_loss=loss[::-1])
    given = np.asarray(answer(curves), dtype=float)
    lowest = loss <= 5
    right = lowest * curves.iterates / curves.iterates[lowest].sum()
    if given.shape == (10,) and not np.isclose(given.sum(), 1):
        return f"coefficients sum to 1; yours sum to {given.sum():.4g}."
    if given.shape == (10,) and np.allclose(given, lowest / 5):
        return (
            "each segment weighs a fifth here, and the last one holds three times as many iterates: weigh by iterates."
        )
    if given.shape == (10,) and np.array_equal(given > 0, loss > 5):
        return "these are the five of highest loss; sort the other way."
    if given.shape == (10,) and np.array_equal(given > 0, loss[::-1] <= 5):
        return "these are the five of lowest training loss, which says little of images that were not trained on; take val_loss."
    if given.shape == (10,) and np.array_equal(given > 0, np.roll(lowest, 1)):
        return "these are the five of highest validation accuracy, which is another curve; take val_loss."
    return values(given, right, what="coefficients of ten segments")


# ---- 04: which window


@exercise("04.1", "answer = (180, 300)")
def picked(answer):
    """A window of CE whose average source validation rates within two standard errors of the best."""
    from .shipped import nearest, tables

    told = tables()["CE"]
    given = np.asarray(answer, dtype=float)
    if given.shape != (2,) or not 0 <= given[0] < given[1] <= told["curves"].steps or (given % 1).any():
        return f"give two steps, (begin, end), whole numbers with 0 <= begin < end <= {told['curves'].steps}; got {answer!r}."
    windows = told["windows"]
    window, cell = nearest(windows, *given), min(end - begin for begin, end in windows)
    if np.abs(given - window).max() > cell / 2 or given[1] - given[0] < cell / 2:
        return f"the table knows windows of whole {cell} steps, such as {window}; what one of {int(given[1] - given[0])} steps is worth it cannot tell."
    own, best = windows[window][0], max(source for source, _ in windows.values())
    error = np.sqrt(best * (1 - best) / told["images"][0])
    if own >= best - 2 * error:
        return None
    whole = windows.get((window[0], told["curves"].steps), (own,))[0]
    if window[1] < 0.9 * told["curves"].steps or (window[1] < told["curves"].steps and whole >= best - 2 * error):
        why = "it ends while accuracy still rises, and leaves out the best iterates"
    else:
        why = "it reaches back to where the network knew less"
    return f"{why}: source validation gives it {own:.1%}, and {best:.1%} to the best window."


@exercise(
    "04.2",
    """
    import numpy as np
    def answer(losses, r):
        first = last = int(np.argmin(losses))
        limit = (1 + r) * losses[first]
        while first > 0 and losses[first - 1] <= limit:
            first -= 1
        while last + 1 < len(losses) and losses[last + 1] <= limit:
            last += 1
        return first, last
    """,
)
def valley(answer):
    """The run of segments around the lowest loss that stays within the tolerance."""
    if wrong := function(answer, "answer = valley, without calling it"):
        return wrong
    losses = np.array([9.0, 1.2, 5.0, 1.25, 1.1, 1.0, 1.29, 1.31, 1.2])
    given = np.asarray(answer(losses.copy(), 0.3), dtype=float)
    if given.shape == (2,) and given.tolist() == [1, 8]:
        return "these are the first and last segments below the limit, but between them the loss rises above it: walk from the lowest outwards and stop."
    if given.shape == (2,) and given.tolist() == [3, 7]:
        return "the last one is given as a place behind the valley, as slices have it; asked for is the last segment inside."
    if wrong := values(given, [3, 6], what="(first, last) for 9, 1.2, 5, 1.25, 1.1, 1.0, 1.29, 1.31, 1.2 and r = 0.3"):
        return wrong
    for losses, r, (first, last), why in (
        ([1.0, 9, 1.1, 1.2, 1.1], 0.3, (0, 0), "the valley is the one that the lowest loss lies in, not the longest"),
        ([2.5, 2, 2.5], 0.3, (0, 2), "the limit is (1 + r) times the lowest loss"),
        ([3.0, 2, 1], 4.0, (0, 2), "the walk stops where the segments do"),
    ):
        given = np.asarray(answer(np.array(losses), r), dtype=float)
        if given.shape != (2,) or given.tolist() != [first, last]:
            return f"for {losses} and r = {r:g} it is ({first}, {last}): {why}; got {given.tolist()}."
    return None


@exercise(
    "04.3",
    """
    from wakd_kit.lessons.shipped import tables
    windows = tables()["CE"]["windows"]
    honest = max(windows, key=lambda window: windows[window][0])
    answer = 100 * (max(target for _, target in windows.values()) - windows[honest][1])
    """,
)
def regret(answer):
    """What the unseen domain loses by an honest choice."""
    from .shipped import tables

    windows = tables()["CE"]["windows"]
    source, target = np.array(list(windows.values())).T
    costs = np.unique(
        100 * (target.max() - target[source == source.max()])
    )  # windows that tie: each is an honest choice
    if is_number(answer):
        costs = sorted(costs, key=lambda cost: abs(cost - answer))
    if is_number(answer) and np.isclose(answer, 100 * (source.max() - target.max()), atol=0.05):
        return "that is how much lower the best accuracy is on the unseen domain; asked for is what another choice would give there."
    hint = "best target accuracy of all windows, minus that of the window with the best source accuracy"
    wrong = [fraction(answer, cost) or number(answer, cost, within=0.02, hint=hint) for cost in costs]
    return None if None in wrong else next((said for said in wrong if "fraction" in said), wrong[0])


# ---- 05: the loss around


@exercise("05.1", "answer = 1.9 - (2.0 + 1.0) / 2")
def barrier_of_a_line(answer):
    """The largest distance above the straight line between the ends."""
    said = {
        0: "the highest point is the beginning, but a barrier is measured from the line between both ends, which falls from 2.0 to 1.0.",
        0.2: "that is from the dip at t = 0.25 up to t = 0.5; a barrier is measured from the straight line between both ends.",
        0.9: "that is from the lower end; at t = 0.5 the straight line between the ends is at 1.5.",
    }
    return known_mistake(answer, said) or number(
        answer, 0.4, hint="subtract (1 - t) 2.0 + t 1.0 from the loss at each t, and take the largest"
    )


@exercise("05.2", "def answer(b, s):\n    return b * s**2 / 2")
def dip(answer):
    """b s^2 / 2."""
    if wrong := function(answer, "answer = dip, without calling it"):
        return wrong
    given = float(answer(3.0, 5.0))
    if np.isclose(given, -37.5):
        return "the size is right; how far it dips is asked as a positive number."
    if np.isclose(given, 75):
        return "the loss of one end is b s^2 / 2, and so is the line between both: it is not their sum."
    return number(given, 37.5, hint="at b = 3 and s = 5 both ends lie at L0 + 37.5, and half way between them is x = 0")


@exercise(
    "05.3",
    """
    import numpy as np
    def answer(a, b, c):
        u = (b - a) / np.linalg.norm(b - a)
        v = (c - a) - ((c - a) @ u) * u
        return u, v / np.linalg.norm(v)
    """,
)
def axes_of_a_plane(answer):
    """Gram-Schmidt of b - a and c - a."""
    if wrong := function(answer, "answer = axes, without calling it"):
        return wrong
    a, b, c = np.array([1.0, 0, 0, 2]), np.array([1.0, 2, 0, 2]), np.array([1.0, 1, 3, 6])
    u, v = (np.asarray(one, dtype=float) for one in answer(a.copy(), b.copy(), c.copy()))
    if u.shape == (4,) and np.allclose(u, b - a):
        return "u has the length of the way from a to b; divide by it."
    if wrong := values(u, [0, 1, 0, 0], what="u"):
        return wrong
    if v.shape == (4,) and abs(v @ u) > 1e-9:
        return f"u and v are not at a right angle (their product is {v @ u:.3g}): take from c - a its part along u."
    return values(v, [0, 0, 0.6, 0.8], what="v")

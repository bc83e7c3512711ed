"""Exercises on judging: lessons 02, 06 and 09."""

from __future__ import annotations

import numpy as np

from ..names import is_number
from ..statistics import holm, interval
from .exercises import exercise, fraction, function, known_mistake, number, values

# ---- 02: an unseen domain


@exercise("02.1", "answer = 4 * 5 * (1 + 2)")
def trainings(answer):
    """Four targets, five seeds, three networks each."""
    said = {
        20: "that is how many times the split is made; each time a teacher and two students are trained.",
        40: "a teacher has to be trained for each target and seed too: one that has seen the target would tell the student about it.",
        60 / 4: "each domain is left out once, and every time everything is trained anew.",
        44: "a teacher for each target is not enough: another seed is another split, whose validation images an old teacher was trained on.",
    }
    return known_mistake(answer, said) or number(answer, 60, hint="count targets, seeds and networks")


@exercise("02.2", "import math\nanswer = 100 * math.sqrt(0.6 * 0.4 / 898)")
def standard_error(answer):
    """Of 60 % on 898 images, in points."""
    right = 100 * np.sqrt(0.24 / 898)
    if wrong := fraction(answer, right):
        return wrong
    if is_number(answer) and abs(answer - right**2 / 100) < 1e-3:
        return "that is the variance; take its root."
    return number(answer, right, within=0.03, hint="it is 100 times the root of A (1 - A) / n")


@exercise(
    "02.3",
    """
    import numpy as np
    right = np.random.default_rng(0).binomial(898, 0.6, (2000, 55))
    answer = 100 * (right.max(axis=1).mean() / 898 - 0.6)
    """,
)
def best_of_many(answer):
    """E max of 55 binomials, above their mean."""
    draws = np.random.default_rng(0).binomial(898, 0.6, (2000, 55)) / 898
    right = 100 * (draws.max(axis=1).mean() - 0.6)
    if wrong := fraction(answer, right):
        return wrong
    if is_number(answer) and abs(answer) < 0.2:
        return "on average over all 55 that is right, but the best of them is reported: take the maximum of each row before the mean."
    if is_number(answer) and abs(answer - 100 * (draws.max() - 0.6)) < 0.1:
        return "that is the best of all 2000 studies together; each has its own best of 55, of which the mean is asked for."
    if is_number(answer) and 50 < answer < 70:
        return "that is the accuracy itself; asked for is by how much it is too high, in points above 60."
    return number(
        answer, right, within=0.05, hint="maximum over the 55 networks, mean over the 2000 studies, minus 60 %"
    )


# ---- 09: what n buys


@exercise(
    "09.1",
    """
    import numpy as np
    from scipy.stats import t
    d = np.array([1.0, 6.0, 3.0, 8.0])
    half = t.ppf(0.975, 3) * d.std(ddof=1) / np.sqrt(4)
    answer = (d.mean() - half, d.mean() + half)
    """,
)
def own_interval(answer):
    """Student's interval of four gains."""
    gains = np.array([1.0, 6.0, 3.0, 8.0])
    given, right = np.asarray(answer, dtype=float), np.array(interval(gains))
    if given.shape != (2,):
        return f"two numbers are asked for, (low, high); got {answer!r}."
    half, error = (given[1] - given[0]) / 2, gains.std(ddof=1) / 2
    if np.isclose(half, 2.7764 * error, rtol=0.002):
        return "t has n - 1 degrees of freedom, 3 for four gains, since their mean is taken from them: 3.18, not 2.78."
    if np.isclose(half, 1.96 * error, rtol=0.01):
        return "1.96 is of the normal distribution; with four values s itself is uncertain, and t with 3 degrees of freedom is 3.18."
    if np.isclose(half, np.ptp(right) / 2 * np.sqrt(3 / 4), rtol=0.002):
        return "the deviation of a sample divides by n - 1: np.std(..., ddof=1)."
    if np.isclose(half, np.ptp(right), rtol=0.01):
        return "that is the spread of single gains; that of their mean is smaller by the root of n."
    return values(given, right, within=0.01, what="the interval")


@exercise("09.2", "answer = 20 * 4**2")
def four_times_narrower(answer):
    """Sixteen times the pairs for a quarter of the width."""
    said = {80: "width falls with the root of n: four times the pairs give half the width."}
    return known_mistake(answer, said) or number(
        answer,
        300,  # 320 by the root of n alone; t, which falls from 2.09 to 1.97 with n, takes a tenth off: 284
        within=0.1,
        hint="the width goes with t / root of n, so a quarter of it takes about 4 squared times the pairs",
    )


@exercise(
    "09.3",
    """
    import numpy as np
    def answer(p):
        p = np.asarray(p, dtype=float)
        order, m = np.argsort(p), len(p)
        adjusted = np.empty(m)
        adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(m, 0, -1)))
        return adjusted
    """,
)
def own_holm(answer):
    """Holm's adjusted p values, in the order they came in."""
    if wrong := function(answer, "answer = my_holm, without calling it"):
        return wrong
    p = np.array([0.04, 0.01, 0.7, 0.03, 0.6])
    right, given = holm(p), np.asarray(answer(p.copy()), dtype=float)
    if given.shape == p.shape:
        capped = np.minimum(1, given)
        if np.allclose(capped, right) and given.max() > 1:
            return "a probability is at most 1: the formula has min(1, ...)."
        if np.allclose(capped, np.minimum(1, 5 * p)):
            return "every p times m is Bonferroni's correction; Holm's multiplies the i-th smallest by m - i + 1."
        if np.allclose(capped, np.sort(right)):
            return "these are the right numbers in the order of p; give them back in the order that they came in."
        by_rank = p * (5 - np.argsort(np.argsort(p)))
        if np.allclose(capped, np.minimum(1, by_rank)):
            return "a larger p has a smaller adjusted one here: each is at least the one before it, np.maximum.accumulate in sorted order."
    return values(given, right, what="adjusted p of 0.04, 0.01, 0.7, 0.03, 0.6")


# ---- 06: calibration


@exercise(
    "06.1",
    """
    import numpy as np
    def answer(confidence, correct, bins):
        bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
        gaps = [abs(correct[bin_of == b].sum() - confidence[bin_of == b].sum()) for b in range(bins)]
        return sum(gaps) / len(confidence)
    """,
)
def own_ece(answer):
    """Expected calibration error."""
    if wrong := function(answer, "answer = ece, without calling it"):
        return wrong
    confidence = np.array([0.95, 0.92, 0.98, 0.99, 0.55, 0.58, 1.0])
    correct = np.array([1, 1, 1, 1, 1, 1, 0])  # the last by itself would be 1 off, with the four before it 0.84
    right = (abs(4 - 4.84) + abs(2 - 1.13)) / 7
    given = float(answer(confidence.copy(), correct.copy(), 10))
    if np.isclose(given, abs(correct.mean() - confidence.mean())):
        return "gaps are taken bin by bin, and each without its sign (abs): too sure and too modest would cancel."
    if np.isclose(given, (0.84 / 5 + 0.87 / 2) / 2):
        return "bins weigh by how many images they hold, |B| / n; yours weigh the same."
    if np.isclose(given, (0.84 / 5 + 0.87 / 2) / 10):
        return "the gaps are averaged over bins, empty ones too; weigh each by |B| / n."
    if np.isnan(given):
        return "an empty bin has no mean: leave it out, or work with sums."
    return number(
        given, right, hint=f"seven images in ten bins give {right:.4f}; is a confidence of exactly 1 in the last bin?"
    )


@exercise(
    "06.2",
    """
    import numpy as np
    def answer(logits, labels):
        temperatures, losses = np.geomspace(0.25, 4, 81), []
        for t in temperatures:
            z = logits / t
            z = z - z.max(axis=1, keepdims=True)
            log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
            losses.append(-log_p[np.arange(len(labels)), labels].mean())
        return temperatures[np.argmin(losses)]
    """,
)
def own_fit(answer):
    """The temperature of least loss."""
    if wrong := function(answer, "answer = fit, without calling it"):
        return wrong
    rng = np.random.default_rng(0)
    z = rng.normal(size=(800, 4))
    labels = (z + rng.gumbel(size=z.shape)).argmax(1)  # so z is calibrated
    right, given = 2.0, float(answer(2 * z, labels))
    if abs(given - 0.5) < 0.12:
        return "these logits are twice as large as they should be, so T is about 2; yours is its inverse: logits are divided by T."
    if np.isclose(given, 0.25) or np.isclose(given, 4):
        return f"{given:g} is the end of the grid: is it the least loss that you take, and the log-probability of the true class?"
    return number(
        given, right, within=0.15, hint="these logits are twice those that the labels were drawn from, so T is about 2"
    )


@exercise("06.3", "answer = (0.5, False)")
def knows_nothing(answer):
    """Half, and no."""
    if not isinstance(answer, tuple | list) or len(answer) != 2 or not isinstance(answer[1], bool | np.bool_):
        return f"two things are asked for, a number and True or False; got {answer!r}."
    confidence, good = answer
    if good:
        return "such a network knows nothing and says so: calibrated, and useless. ECE says nothing about accuracy."
    return number(confidence, 0.5, hint="it is right half the time, so that is what it should promise")

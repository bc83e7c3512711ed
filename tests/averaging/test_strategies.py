"""Averaging strategies against a slow reference on random curves, small cases by hand, and properties over all."""

import ast
import copy
import inspect
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from wakd_kit import averaging
from wakd_kit.averaging import Coefficients, Curves, NoWindow, as_curves, choose, choosing, settings_of, strategies
from wakd_kit.averaging.profiles import leaning
from wakd_kit.names import UnknownName

from ..reference import averaging as slow

SETTINGS = {"sma": {"start": 0.2}, "lawa": {"k": 1}}  # where a default does not fit a short run
BEYOND = ("bema", "extrapolate")  # no averages in the strict sense
NEEDED = {"eoa_wakd_repo": {"begin": 1}}


def position_score(seed):
    """A deterministic accuracy in (0, 1) of any coefficients, the initial parameters' share left out."""
    direction = np.random.default_rng(seed).normal(size=400)

    def score(coefficients):
        values = np.asarray(coefficients)
        return float(1 / (1 + np.exp(-10 * (values @ direction[: len(values)]))))

    return score


def quadratic(count, seed):
    """A convex loss of the coefficients and its gradient."""
    rng = np.random.default_rng(seed)
    root, target = rng.normal(size=(count, count)) / np.sqrt(count), rng.dirichlet(np.ones(count))

    def loss_and_gradient(coefficients):
        residual = root @ (np.asarray(coefficients) - target)
        return float(residual @ residual), 2 * root.T @ residual

    return loss_and_gradient


def evaluations(strategy, count):
    """What this strategy asks to have evaluated."""
    fit = quadratic(count, seed=1)
    offered = {
        "score": position_score(2),
        "loss_and_gradient": fit,
        "held_out_loss": lambda coefficients: fit(coefficients)[0] + 0.1 * float(np.asarray(coefficients)[0]),
    }
    return {name: offered[name] for name in offered.keys() & inspect.signature(strategy).parameters.keys()}


def random_losses(rng, count):
    kind = rng.integers(4)
    falling = np.exp(-np.arange(count) / rng.uniform(1, 8)) + rng.normal(0, 0.05, count) + 0.5
    if kind == 1:
        falling[rng.integers(count) :] += rng.uniform(0, 1.5)
    if kind == 2:
        falling = rng.uniform(0, 1, count)
    if kind == 3:
        falling = np.round(falling, 1)  # ties
    return np.abs(falling).tolist()


def random_segments(rng, most=8, longest=9):
    return rng.integers(1, longest, size=rng.integers(1, most + 1)).tolist()


def random_curves(seed=0, count=12, uneven=True):
    rng = np.random.default_rng(seed)
    iterates = rng.integers(1, 30, count) if uneven else np.full(count, 20)
    iterates[0] = 1
    losses = random_losses(rng, count)
    return Curves(
        iterates=iterates,
        train_loss=losses,
        val_loss=np.concatenate([np.sort(losses[: count // 2])[::-1], np.sort(losses[count // 2 :])]),
        val_loss_pooled=losses,
        val_accuracy=rng.uniform(0.2, 0.9, count),
        val_kd_loss=losses,
    )


def arguments(name, curves):
    return {**SETTINGS.get(name, {}), **NEEDED.get(name, {}), **evaluations(strategies.get(name), len(curves))}


def equal(coefficients, expected):
    np.testing.assert_allclose(np.asarray(coefficients), expected, rtol=0, atol=1e-9)


def equal_or_none(strategy, expected):
    """The same coefficients, or no window where the reference found none."""
    if expected is None:
        with pytest.raises(NoWindow, match="found no window"):
            strategy()
        return 0
    equal(strategy(), expected)
    return 1


# --- against the slow reference, on random curves ---------------------------------------------------------------


def test_valleys_equal_the_reference():
    rng = np.random.default_rng(0)
    found = np.zeros(3, dtype=int)
    for _ in range(400):
        losses = random_losses(rng, rng.integers(1, 40))
        nc, nt = (int(n) for n in rng.integers(1, 8, 2)) if rng.random() < 0.5 else (3, 6)
        ratio = float(rng.choice([0.0, 0.1, 0.3, 0.6]))
        settings = {"n_converge": nc, "n_tolerance": nt}
        iterates = random_segments(rng, most=1, longest=5) * len(losses)
        iterates[rng.integers(len(losses))] = 1

        found += [
            equal_or_none(
                lambda: averaging.swad(val_loss=losses, iterates=iterates, tolerance_ratio=ratio, **settings),  # noqa: B023
                slow.swad_algorithm_1(iterates, losses, nc, nt, ratio),
            ),
            equal_or_none(
                lambda: averaging.swad_published(val_loss=losses, tolerance_ratio=ratio, **settings),  # noqa: B023
                slow.swad_published(losses, nc, nt, ratio),
            ),
            equal_or_none(
                lambda: averaging.swad_wakd_repo(val_loss=losses, tolerance_ratio=1 + ratio, **settings),  # noqa: B023
                slow.swad_wakd_repo(losses, nc, nt, 1 + ratio),
            ),
        ]
    assert (found > 200).all() and (found < 400).all(), "curves with and without a valley were both drawn"


def test_windows_equal_the_reference():
    rng = np.random.default_rng(1)
    empty = 0
    for _ in range(300):
        iterates = random_segments(rng)
        begin, end = sorted(int(step) for step in rng.integers(0, sum(iterates) + 1, 2))
        expected = slow.mean_of_whole_segments(iterates, begin, end)
        if expected is None:
            empty += 1
            with pytest.raises(ValueError, match=r"whole segment|nothing to average"):
                averaging.window(iterates=iterates, begin=begin, end=end)
        else:
            equal(averaging.window(iterates=iterates, begin=begin, end=end), expected)
        after = slow.mean_of_whole_segments(iterates, begin, sum(iterates))
        if after is not None:
            equal(averaging.wakd(iterates=iterates, begin=begin), after)
        equal(averaging.uniform(iterates=iterates), slow.mean_of_whole_segments(iterates, 0, sum(iterates)))
    assert 0 < empty < 300


def test_ema_equals_the_reference_on_uneven_segments():
    rng = np.random.default_rng(2)
    for _ in range(200):
        iterates, decay = random_segments(rng), float(rng.choice([0, 0.5, 0.9, 0.999, 1]))
        power, gamma = rng.uniform(0.3, 1), rng.uniform(0.5, 5)
        first = int(rng.integers(len(iterates)))
        begin = sum(iterates[:first])

        equal(averaging.ema(iterates=iterates, decay=decay, begin=begin), slow.ema(iterates, begin, lambda t: decay)[0])  # noqa: B023
        timm = lambda t: max(0.0, min(decay, 1 - (1 + t / gamma) ** -power))  # noqa: B023, E731
        warmed = averaging.ema(iterates=iterates, decay=decay, warmup=True, warmup_gamma=gamma, warmup_power=power)
        equal(warmed, slow.ema(iterates, 0, timm)[0])
        expected, initial = slow.ema(iterates, 0, lambda t: decay, initial=True)  # noqa: B023
        kept = averaging.ema(iterates=iterates, decay=decay, from_initial=True)
        equal(kept, expected)
        assert kept.initial == pytest.approx(initial, abs=1e-9)


def test_power_equals_the_reference_on_uneven_segments():
    rng = np.random.default_rng(9)
    for _ in range(100):
        iterates, gamma = random_segments(rng), float(rng.choice([0, 0.5, 1, 3.56, 16.97]))
        begin = sum(iterates[: int(rng.integers(len(iterates)))])
        equal(averaging.power(iterates=iterates, gamma=gamma, begin=begin), slow.power(iterates, begin, gamma))


@pytest.mark.parametrize(
    "shape, rate",
    [
        ("linear", lambda x: 1 - x),
        ("cosine", lambda x: 0.5 + 0.5 * np.cos(np.pi * x)),
        ("1-sqrt", lambda x: 1 - np.sqrt(x)),
        ([1, 0.5, 0], lambda x: 1 - x),
        ([1, 1, 0.2, 0], lambda x: [1, 1 - 2.4 * (x - 1 / 3), 0.2 - 0.6 * (x - 2 / 3)][min(2, int(3 * x + 1e-9))]),
    ],
    ids=["linear", "cosine", "1-sqrt", "list of 3", "list of 4"],
)
def test_annealed_is_the_run_whose_updates_were_taken_at_a_decaying_rate(shape, rate):
    rng = np.random.default_rng(10)
    for _ in range(30):
        iterates = random_segments(rng, most=8)
        begin = sum(iterates[: int(rng.integers(len(iterates)))])
        ours = averaging.annealed(iterates=iterates, shape=shape, begin=begin)
        np.testing.assert_allclose(np.asarray(ours), slow.decayed(iterates, begin, rate), rtol=0, atol=1e-12)


def test_bema_equals_the_published_update():
    rng = np.random.default_rng(11)
    for _ in range(60):
        iterates = random_segments(rng)
        begin = sum(iterates[: int(rng.integers(len(iterates)))])
        constants = dict(
            ema_power=rng.uniform(0, 1), bias_power=rng.uniform(0, 1), lag=rng.uniform(0, 20), multiplier=1.5
        )
        ours = averaging.bema(iterates=iterates, begin=begin, **constants)
        expected, initial = slow.bema(iterates, begin, None, **constants)
        equal(ours.parts["mean"] + ours.parts["end"], expected)
        assert ours.initial == pytest.approx(initial, abs=1e-9)
        assert ours.magnitude > 1 - 1e-9 and ours.signed
        # sampled at segment ends: the same run with seven steps per segment
        epochs, every = int(rng.integers(2, 12)), int(rng.integers(1, 4))
        if every <= epochs:
            sampled = averaging.bema(iterates=[7] * epochs, every=7 * every, **constants)
            expected, initial = slow.bema([7] * epochs, 0, 7 * every, **constants)
            equal(sampled.parts["end"], expected)
            assert not sampled.parts["mean"].any() and sampled.initial == pytest.approx(initial, abs=1e-9)


def test_extrapolation_by_hand():
    found = averaging.extrapolate(iterates=[1, 1, 2, 4], between=(1, 4), amount=0.5)
    equal(found, [0, -1 / 6, -1 / 3, 1.5])
    assert found.magnitude == pytest.approx(2) and found.signed
    equal(averaging.extrapolate(iterates=[5] * 8, amount=0), averaging.wakd(iterates=[5] * 8, begin=0.75))
    assert averaging.extrapolate(iterates=[2] * 4, between=(1, 5), amount=1).note == (
        "segment 4, iterates 7-8 (between=5 lies inside segment 3), and 1 beyond them from segments 2-3, iterates 3-6 "
        "(between=1 lies inside segment 1)"
    )


def test_annealed_by_a_line_is_the_plain_mean():
    curves = random_curves(3)
    equal(averaging.annealed(curves, shape="linear", begin=0.3), averaging.wakd(curves, begin=0.3))
    equal(averaging.power(curves, gamma=0, begin=0.3), averaging.wakd(curves, begin=0.3))


@pytest.mark.parametrize("length, gamma", [(0.05, 16.97), (0.10, 6.94), (0.15, 3.56), (0.20, 1.83), (0.25, 0.72)])
def test_lengths_of_power_profiles_are_those_of_edm2(length, gamma):
    assert averaging.gamma_of(length) == pytest.approx(gamma, abs=5e-3)
    curves = as_curves(iterates=[1] * 4000)
    profile = averaging.power(curves, sigma_rel=length)
    assert averaging.relative_length(curves, profile) == pytest.approx(length, rel=1e-3)
    equal(profile, averaging.power(curves, gamma=averaging.gamma_of(length)))


def test_the_length_of_any_average():
    curves = as_curves(iterates=[10, 30, 60])
    one = averaging.uniform(curves)
    assert averaging.relative_length(curves, one) == pytest.approx(np.arange(100).std() / 100)
    assert averaging.relative_length(curves, averaging.last(curves)) == 0
    for alpha, length in ((0, 0), (0.5, 0.5), (0.75, 0.1875**0.5)):  # of two points, a run apart
        assert averaging.relative_length(curves, averaging.wise_ft(curves, alpha=alpha)) == pytest.approx(length)
    each = as_curves(iterates=[1] * 1000)
    started, steps = averaging.ema(each, decay=0.999, from_initial=True), np.arange(1001)
    weights = np.array([started.initial, *started])
    spread = np.sqrt(weights @ (steps - weights @ steps) ** 2) / 1000
    assert averaging.relative_length(each, started) == pytest.approx(spread) == pytest.approx(0.3592, abs=1e-4)
    both = Coefficients([0, 0, 0.5], ends=[0.5, 0, 0])
    assert averaging.relative_length(curves, both) == pytest.approx(np.std([*[10] * 60, *range(41, 101)]) / 100)
    with pytest.raises(ValueError, match="bema has signed coefficients: it is no average"):
        averaging.relative_length(curves, averaging.bema(curves))
    short = averaging.ema(
        iterates=[1] * 5000, decay=0.99
    )  # a geometric tail has the deviation sqrt(decay) / (1 - decay)
    assert averaging.relative_length(as_curves(iterates=[1] * 5000), short) == pytest.approx(0.99**0.5 / 0.01 / 5000)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "ema", "decay": 0.9, "begin": 3},
        {"name": "power", "gamma": 2.5},
        {"name": "power", "sigma_rel": 0.1, "begin": 4},
        {"name": "annealed", "shape": "cosine", "begin": 5},
        {"name": "annealed", "shape": [1, 1, 0.5, 0], "begin": 0},
    ],
    ids=str,
)
def test_what_a_run_keeps_step_by_step_is_what_the_strategy_says(spec):
    settings = {key: value for key, value in spec.items() if key != "name"}
    said = strategies.get(spec["name"])(iterates=[1] * 30, **settings)
    recurrence = averaging.RECURRENCES[spec["name"]](30, **settings)
    kept = np.zeros(30)
    for step, decay in enumerate(recurrence.decays, start=recurrence.begin):
        kept = decay * kept + (1 - decay) * np.eye(30)[step]
    np.testing.assert_allclose(np.asarray(said), kept, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "spec, left",
    [
        ({"name": "ema", "decay": 0.98, "warmup": True, "warmup_power": 1}, 0.05),
        ({"name": "power", "sigma_rel": 0.05}, 0.05),
        ({"name": "power", "gamma": 1}, 0.1),
        ({"name": "annealed", "shape": "cosine", "begin": 0.25}, 0.25),
        (
            {"name": "annealed", "shape": "1-sqrt", "begin": 0},
            0.55,
        ),
    ],
)
def test_how_the_weight_leans_within_segments_is_nearly_that_of_the_iterates(spec, left):
    iterates = [*[10] * 12, 5, 15, *[10] * 6]
    name, settings = spec["name"], {key: value for key, value in spec.items() if key != "name"}
    found = leaning(as_curves(iterates=iterates), strategies.get(name)(iterates=iterates, **settings))
    each, parts = np.asarray(strategies.get(name)(iterates=[1] * 200, **settings)), []
    for lean, own in zip(found, np.split(each, np.cumsum(iterates)[:-1])):
        steps = np.arange(len(own)) - (len(own) - 1) / 2
        parts.append((abs(own.sum() * lean - own @ steps), abs(own @ steps)))
    wrong, without = np.sum(parts, axis=0)
    assert wrong < left * without
    assert not leaning(as_curves(iterates=iterates), strategies.get("wakd")(iterates=iterates, begin=0.3)).any()


def test_lawa_over_a_share_of_the_run():
    equal(averaging.lawa(iterates=[5] * 20, share=0.25), averaging.lawa(iterates=[5] * 20, k=5))
    equal(averaging.lawa(iterates=[10, 10, 1, 1], share=0.1), averaging.lawa(iterates=[10, 10, 1, 1], k=3))


def test_sampled_averages_equal_the_reference():
    rng = np.random.default_rng(3)
    for _ in range(100):
        epochs, k = int(rng.integers(1, 30)), int(rng.integers(1, 8))
        start, period = int(rng.integers(1, epochs + 1)), int(rng.integers(1, 5))
        equal(averaging.swa(iterates=[1] * epochs, start=start, period=period), slow.swa(epochs, start, period))
        # the same run with seven steps per epoch: only the unit of the settings changes
        scaled = averaging.swa(iterates=[7] * epochs, start=7 * start, period=7 * period)
        equal(scaled, slow.swa(epochs, start, period))
        if k <= epochs:
            equal(averaging.lawa(iterates=random_segments(rng, 1) * epochs, k=k), slow.lawa([1] * epochs, k))


def test_searches_equal_the_reference():
    rng = np.random.default_rng(4)
    for seed in range(150):
        score, count = position_score(seed), int(rng.integers(1, 25))
        accuracies = np.round(rng.uniform(0, 1, count), 1)
        accuracies[0] += 0.1 * (accuracies[0] == 0)
        accuracies = accuracies.tolist()
        equal(averaging.iidmax(val_accuracy=accuracies, score=score), slow.iidmax(accuracies, score))

        start, frequency = int(rng.integers(0, count + 2)), int(rng.integers(1, 6))
        for variant in ("published", "ermpp", "diwa"):
            chosen = averaging.sma(
                iterates=[1] * count, score=score, start=start, frequency=frequency, exact=variant
            )  # fmt: skip
            equal([*chosen, chosen.initial], slow.sma(count, start, frequency, score, variant))
        iterates = random_segments(rng)
        start = int(rng.integers(0, sum(iterates) - iterates[-1] + 1))
        equal(averaging.sma(iterates=iterates, score=score, start=start), slow.sma_from_next(iterates, start, score))


@pytest.mark.parametrize("exact, start", [("published", 100), ("diwa", 100), ("ermpp", 600)])
def test_sma_as_a_code_counts_starts_where_that_code_does(exact, start):
    curves = Curves([98, 1, 1, 498, 1, 1, 200])  # with edges around 100 and 600
    averages = []
    averaging.sma(curves, score=lambda average: averages.append(average) or 0.0, exact=exact)
    begin = start if exact == "diwa" else start - 1
    assert curves.begins[np.flatnonzero(averages[-1])[0]] == begin
    equal(
        averages[-1],
        averaging.sma(curves, score=lambda average: average[-1] * (average[-1] < 1), exact=exact, start=start),
    )


def test_soups_equal_the_reference():
    rng = np.random.default_rng(5)
    for seed in range(100):
        accuracies = np.round(rng.uniform(0, 1, rng.integers(1, 12)), 1).tolist()
        bonus = position_score(seed)

        def score(w, accuracies=accuracies, bonus=bonus):
            """Alone, a member scores its own accuracy; mixtures are rounded so that ties happen."""
            w = np.asarray(w)
            return accuracies[int(np.argmax(w))] if w.max() == 1 else round(float(w @ accuracies) + bonus(w) / 5, 1)

        greedy = averaging.greedy_soup(val_accuracy=accuracies, score=score)
        equal(greedy, slow.greedy(accuracies, score, ties="later"))
        assert greedy.of == "end"
        restricted = averaging.diwa(accuracies, restrict=True, score=score)
        equal(restricted, slow.greedy(accuracies, score, ties="earlier"))


# --- small cases by hand ------------------------------------------------------------------------------------------


def test_swad_by_hand():
    losses = [5, 3, 1, 1.1, 1.2, 9, 1.2, 9, 9, 9]
    # lowest of three from segment 3; threshold 1.1 * 1.3 = 1.43; one bad segment is tolerated, two in a row end it
    coefficients = averaging.swad(val_loss=losses, n_converge=3, n_tolerance=2, tolerance_ratio=0.3)
    equal(coefficients, [0, 0, 0.2, 0.2, 0.2, 0.2, 0.2, 0, 0, 0])
    assert coefficients.note == "segments 3-7, iterates 3-7, threshold 1.43"
    uneven = averaging.swad(val_loss=losses, n_tolerance=2, iterates=[1, 1, 1, 3, 1, 1, 4, 1, 1, 1])
    equal(uneven, [0, 0, 0.1, 0.3, 0.1, 0.1, 0.4, 0, 0, 0])


def test_segments_weigh_by_their_iterates_only_where_it_says_so():
    uneven = {"val_loss": [2, 1, 1, 1], "val_accuracy": [0.1, 0.9, 0.5, 0.5], "iterates": [1, 1, 2, 4]}
    equal(averaging.swad(**uneven), [0, 1 / 7, 2 / 7, 4 / 7])
    equal(averaging.swad_published(**uneven, n_tolerance=3), [0, 0, 1 / 2, 1 / 2])
    equal(averaging.swad_wakd_repo(**uneven), [1 / 4] * 4)
    equal(averaging.iidmax(**uneven, score=lambda c: c.window()[1]), [0, 1 / 3, 1 / 3, 1 / 3])


def test_swad_published_counts_segments_again():
    # Found at segment 3, when the queue of six holds 1-3: 2 and 3 join, the first admissible one is skipped. Segment 1
    # then heads the queue at validations 4, 5 and 6, then 2 to 5 in turn, and 6 to 10 join when the run ends.
    coefficients = averaging.swad_published(val_loss=[1.0, 1.1, 1.2, 1.1, 1.2, 1.1, 1.2, 1.1, 1.2, 1.1])
    equal(coefficients * 14, [3, 1 + 1, 1 + 1, 1, 1, 1, 1, 1, 1, 1])
    assert "some counted 3 times" in coefficients.note


def test_swad_wakd_repo_starts_one_early():
    coefficients = averaging.swad_wakd_repo(val_loss=[5, 3, 1, 1.1, 1.2, 1.3])
    equal(coefficients, [0, 0.2, 0.2, 0.2, 0.2, 0.2])


def test_the_loss_that_steers_is_a_setting():
    series = {"val_loss": [3, 2, 1, 1, 1, 1], "val_kd_loss": [1, 1, 1, 1, 1, 1], "val_loss_pooled": [3, 1, 1, 1, 1, 1]}
    starts = {loss: averaging.swad(**series, loss=loss).window()[0] for loss in series}
    assert starts == {"val_loss": 2, "val_kd_loss": 0, "val_loss_pooled": 1}
    assert averaging.best_val(**series, by="val_loss").window() == (2, 2)
    assert averaging.best_val(val_accuracy=[0.1, 0.8, 0.8]).window() == (1, 1)
    with pytest.raises(ValueError, match="loss is one of 'val_loss'"):
        averaging.swad(val_accuracy=[0.1] * 6, loss="val_accuracy")
    with pytest.raises(ValueError, match="by is one of"):
        averaging.best_val(train_loss=[1, 2], by="train_loss")
    with pytest.raises(ValueError, match=r"no 'val_accuracy' curve; it has val_loss"):
        averaging.best_val(val_loss=[1, 2])


def test_wakd_begins_after_a_step_or_fraction():
    segments = {"iterates": [50] * 20}
    tenth = averaging.wakd(**segments, begin=0.1)
    equal(tenth, [0, 0] + [1 / 18] * 18)
    assert tenth.note == "segments 3-20, iterates 101-1000"
    equal(averaging.wakd(**segments, begin=100), tenth)
    equal(averaging.wakd(iterates=[500] * 10), [0] + [1 / 9] * 9)  # 5,000 steps: the paper's tenth
    equal(averaging.wakd(**segments), averaging.wakd(**segments, begin=0.6))
    inside = averaging.wakd(**segments, begin=101)
    equal(inside, [0, 0, 0] + [1 / 17] * 17)
    assert inside.note.endswith("(begin=101 lies inside segment 3)")
    equal(averaging.wakd(iterates=[1] * 100, begin=0.29), [0] * 29 + [1 / 71] * 71)  # 0.29 * 100 < 29 in floats


def test_defaults_fit_the_run_and_are_the_papers_where_the_steps_are():
    assert averaging.PUBLISHED == {"wakd": {"begin": 0.1}, "ema": {"decay": 0.999}, "sma": {"start": 100}}
    for steps in (6_000, 50_000):
        assert {name: averaging.fitting(name, steps) for name in averaging.PUBLISHED} == averaging.PUBLISHED
    short = {"iterates": [30] * 20}
    equal(averaging.ema(**short), averaging.ema(**short, decay=0.99))
    equal(averaging.ema(iterates=[1, 1]), [0, 1])  # nothing shorter than its last iterate
    score = {"score": lambda c: float(np.flatnonzero(c)[0])}  # the first segment that is averaged
    assert (
        averaging.sma(**short, **score).window()[0] == 2 and averaging.sma(iterates=[1] * 9, **score).window()[0] == 0
    )
    published = averaging.wakd(
        iterates=[1] * 10, exact="published"
    )  # as long as the paper's is wide: its begin is a tenth
    equal(published, averaging.wakd(iterates=[1] * 10, begin=0.1, exact="published"))


def test_a_memory_longer_than_the_run_is_said():
    note = averaging.ema(iterates=[30] * 20, decay=0.999).note
    assert (
        note == "segments 1-20, iterates 1-600, decay 0.999; too long for this run: 55% of it is iterate 1"
    )  # 0.999^599
    assert "too long" not in averaging.ema(iterates=[30] * 20, decay=0.99).note
    initial = averaging.ema(iterates=[30] * 20, decay=0.999, from_initial=True)
    assert f"{initial.initial:.0%} of it is the initial parameters" in initial.note


def test_wakd_as_published_counts_its_begin():
    equal(averaging.wakd(iterates=[1, 1, 1, 1], begin=2, exact="published"), [0, 1 / 3, 1 / 3, 1 / 3])
    equal(averaging.wakd(iterates=[4, 1, 5], begin=6, exact="published"), [0, 0, 1])
    with pytest.raises(ValueError, match=r"iterate 5, which lies inside segment 1.*edge after step 4 when training"):
        averaging.wakd(iterates=[5, 5], begin=5, exact="published")
    with pytest.raises(ValueError, match=r"run has iterates 1-10"):
        averaging.wakd(iterates=[5, 5], begin=11, exact="published")


def test_ema_by_hand():
    equal(averaging.ema(iterates=[1, 1, 1], decay=0.9), [0.81, 0.09, 0.1])
    equal(averaging.ema(iterates=[2, 1], decay=0.9), [0.9, 0.1])
    equal(averaging.ema(iterates=[1, 3, 2], decay=0.0), [0, 0, 1])
    # with gamma = power = 1 the warm-up is the plain mean, while it stays below decay
    equal(averaging.ema(iterates=[2, 1, 1], decay=1.0, warmup=True, warmup_power=1), [0.5, 0.25, 0.25])
    started = averaging.ema(iterates=[1, 1], decay=0.5, from_initial=True)
    assert (started.tolist(), started.initial) == ([0.25, 0.5], 0.25)


def test_schedules_say_which_they_are():
    segments = {"iterates": [10] * 8}
    of = {
        "last": "end",
        "uniform": "mean",
        "wakd": "mean",
        "ema": "mean",
        "swa": "end",
        "lawa": "end",
        "wise_ft": "end",
    }
    assert {name: strategies.get(name)(**segments).of for name in of} == of
    assert averaging.swa(**segments, start=0.5, period=20).note == "iterates 40, 60, 80 (3 in all)"
    assert averaging.last(**segments).note == "iterate 80"
    equal(averaging.swa(**segments, start=0.75), [0] * 5 + [1 / 3] * 3)
    assert averaging.wise_ft(**segments, alpha=0.25).initial == 0.75


def test_sma_scores_each_checkpoint_once_and_keeps_the_earliest_best():
    seen = []

    def score(coefficients):
        seen.append(coefficients)
        return 0.5

    chosen = averaging.sma(iterates=[50] * 20, score=score, start=100)
    equal(chosen, [0, 0, 1] + [0] * 17)
    assert len(seen) == 18 and {coefficients.of for coefficients in seen} == {"mean"}
    seen.clear()
    averaging.sma(iterates=[50] * 20, score=score, start=100, frequency=300)
    assert [coefficients.window() for coefficients in seen] == [(2, 5), (2, 11), (2, 17), (2, 19)]


def test_sma_as_published_needs_its_edges():
    flat = {"score": lambda coefficients: 0.5, "exact": "published"}
    with pytest.raises(ValueError, match=r"iterate 99, which lies inside segment 2.*edge after step 98"):
        averaging.sma(iterates=[50] * 4, start=100, **flat)
    rising = {**flat, "score": lambda coefficients: coefficients.window()[1]}
    equal(averaging.sma(iterates=[98, 2, 100], start=100, **rising) * 102, [0, 2, 100])
    equal(averaging.sma(iterates=[98, 1, 1, 100], start=100, **{**rising, "exact": "diwa"}) * 102, [0, 0, 2, 100])
    with pytest.raises(ValueError, match="needs iterate 100, which lies inside"):
        averaging.sma(iterates=[99, 2, 100], start=100, **{**rising, "exact": "diwa"})
    with pytest.raises(ValueError, match="needs iterate 1, which lies inside segment 1"):
        averaging.sma(iterates=[50] * 4, start=51, frequency=50, **flat)
    early = averaging.sma(iterates=[50] * 4, start=201, **flat)
    assert early.of == "end" and early.note == "iterate 50 alone, before the start at 201: no average"


def test_learned_finds_the_minimum_of_a_convex_loss():
    for seed in range(5):
        fit = quadratic(6, seed)
        loss = lambda coefficients, fit=fit: fit(coefficients)[0]  # noqa: E731
        found = averaging.learned(
            iterates=[3, 1, 4, 1, 5, 9], loss_and_gradient=fit, held_out_loss=loss, rounds=2000, patience=500
        )  # fmt: skip
        assert loss(found) < 1e-4 * loss(averaging.uniform(iterates=[3, 1, 4, 1, 5, 9]))


def test_learned_stops_on_the_held_out_half():
    fit = quadratic(6, seed=3)
    calls = []

    def rising(coefficients):
        calls.append(coefficients)
        return float(len(calls))

    settings = {"loss_and_gradient": fit, "held_out_loss": rising, "begin": 2, "patience": 4}
    stopped = averaging.learned(iterates=[1] * 6, **settings)
    equal(stopped, averaging.wakd(iterates=[1] * 6, begin=2))  # uniform was the best on the held-out half
    assert len(calls) == 5
    equal(averaging.learned(iterates=[1] * 6, **{**settings, "held_out_loss": lambda c: 0.5}), stopped)
    with pytest.raises(ValueError, match=r"one derivative per segment, \(6,\)") as error:
        averaging.learned(iterates=[1] * 6, **{**settings, "loss_and_gradient": lambda c: (1.0, [1.0])})
    assert not isinstance(error.value, NoWindow)


@pytest.mark.parametrize("found", [(np.nan, np.zeros(6)), (np.inf, np.zeros(6)), (1.0, np.full(6, np.nan))], ids=str)
def test_learned_has_no_window_where_training_diverged_and_others_have_theirs(found):
    fit = {"loss_and_gradient": lambda c: found, "held_out_loss": lambda c: 0.5}
    chosen = choose(as_curves(iterates=[1] * 6), ["last", "learned"], **fit)
    assert isinstance(chosen["learned"], NoWindow) and "segments 1-6, iterates 1-6: it cannot" in str(chosen["learned"])
    assert isinstance(chosen["last"], Coefficients)


def test_ensemble_combines_predictions():
    logits = np.random.default_rng(0).normal(size=(3, 5, 4))
    probs = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(averaging.ensemble(logits), probs.mean(axis=0))
    summed = averaging.ensemble(logits, combine="logits")
    np.testing.assert_allclose(summed, probs.prod(axis=0) / probs.prod(axis=0).sum(axis=1, keepdims=True))
    assert np.isfinite(averaging.ensemble(logits * 1e4)).all()
    with pytest.raises(ValueError, match=r"shape \(runs, examples, classes\).*got shape \(5, 4\)"):
        averaging.ensemble(logits[0])
    with pytest.raises(ValueError, match="not all finite"):
        averaging.ensemble(logits * np.nan)
    with pytest.raises(ValueError, match="combine is one of 'probs', 'logits'"):
        averaging.ensemble(logits, combine="votes")


def test_a_barrier_is_explained():
    midpoints = np.full((3, 3), np.nan)
    midpoints[0, 1] = 0.42
    assert averaging.check_barrier([0.3, 0.5, 0.4], midpoints) == pytest.approx(0.02)
    assert averaging.check_barrier([0.3, 0.5], np.full((2, 2), np.nan)) == 0
    midpoints[1, 2] = 2.9
    with pytest.raises(NoWindow, match=r"Runs 2 and 3 do not share a start: midpoint loss 2.9 vs 0.4 and 0.4"):
        averaging.check_barrier([0.4, 0.4, 0.4], midpoints)
    with pytest.raises(ValueError, match="midpoints of shape"):
        averaging.check_barrier([0.4, 0.4], midpoints)


# --- properties over the whole registry ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", strategies)
@pytest.mark.parametrize("seed, uneven", [(0, True), (1, False), (7, True)])
def test_coefficients_are_a_distribution_over_segments(name, seed, uneven):
    curves = random_curves(seed, uneven=uneven)
    strategy, settings = strategies.get(name), arguments(name, curves)
    before = copy.deepcopy(curves.val_loss)
    coefficients = strategy(curves, **settings)
    assert isinstance(coefficients, Coefficients)
    assert coefficients.dtype == np.float64 and coefficients.shape == (len(curves),)
    parts = np.concatenate([*coefficients.parts.values(), [coefficients.initial]])
    assert parts.sum() == pytest.approx(1, abs=1e-12) and coefficients.magnitude == pytest.approx(np.abs(parts).sum())
    assert coefficients.signed == (name in BEYOND)
    assert coefficients.signed or (parts.min() >= 0 and coefficients.ends is None)
    assert coefficients.strategy == name and coefficients.note
    assert not coefficients.flags.writeable
    again = strategy(curves, **settings)
    assert coefficients.tobytes() == again.tobytes() and coefficients.note == again.note
    np.testing.assert_array_equal(curves.val_loss, before)


@pytest.mark.parametrize("name", strategies)
def test_curves_a_run_and_bare_lists_say_the_same(name):
    curves = random_curves(3)
    settings = arguments(name, curves)
    bare = {series: getattr(curves, series).tolist() for series in ("iterates", "val_loss", "val_accuracy")}

    class SourceOnly:
        """A run that tells whoever reads anything but its source curves."""

        def __getattr__(self, asked):
            if asked == "source_curves":
                return curves
            raise AssertionError(f"a strategy read {asked}")

    expected = strategies.get(name)(curves, **settings)
    equal(strategies.get(name)(**bare, **settings), expected)
    equal(strategies.get(name)(SourceOnly(), **settings), expected)


@pytest.mark.parametrize("name", strategies)
def test_the_target_cannot_be_reached(name):
    curves = random_curves(3)
    settings = arguments(name, curves)
    with pytest.raises(TypeError, match="'target_accuracy' asks for the target domain"):
        strategies.get(name)(val_loss=[1, 2], val_accuracy=[1, 1], target_accuracy=[1, 0], **settings)
    for steering in {"loss", "by"} & settings_of(name).keys():
        with pytest.raises(ValueError, match="asks for the target domain"):
            strategies.get(name)(curves, **{steering: "target_loss"}, **settings)


@pytest.mark.parametrize("name", strategies)
def test_a_single_segment_has_an_outcome(name):
    curves = Curves([5], val_loss=[0.7], val_accuracy=[0.5])
    settings = {**arguments(name, curves), **({"start": 0} if name == "sma" else {})}
    settings |= {"begin": 0} if name in ("wakd", "learned") else {}
    if name in ("swad", "swad_published", "swad_wakd_repo"):
        with pytest.raises(NoWindow, match=rf"{name} found no window: 1 segment, fewer than the \d it needs"):
            strategies.get(name)(curves, **settings)
    elif name == "eoa_wakd_repo":
        with pytest.raises(ValueError, match="inside segment 1, iterates 1-5"):
            strategies.get(name)(curves, **settings)
    elif name == "extrapolate":
        with pytest.raises(ValueError, match=r"inside the last segment \(steps 1-5\)"):
            strategies.get(name)(curves, **settings)
    else:
        coefficients = strategies.get(name)(curves, **settings)
        total = sum(float(part.sum()) for part in coefficients.parts.values())
        assert len(coefficients) == 1 and total + coefficients.initial == pytest.approx(1)


@pytest.mark.parametrize("name", strategies)
def test_nothing_recorded_is_a_sentence(name):
    with pytest.raises(ValueError, match="Curves need at least one segment; got none"):
        strategies.get(name)(val_loss=[], **arguments(name, [0]))
    with pytest.raises(TypeError, match="Nothing to average over: give a run's curves"):
        strategies.get(name)(**arguments(name, [0]))


READS = {
    "best_val": "val_accuracy", "swad": "val_loss", "swad_published": "val_loss", "swad_wakd_repo": "val_loss",
    "eoa_wakd_repo": "val_accuracy", "iidmax": "val_accuracy", "greedy_soup": "val_accuracy",
}  # fmt: skip


@pytest.mark.parametrize("name", strategies)
def test_a_diverged_curve_has_no_window_for_those_who_read_it(name):
    values = [0.9, 0.8, 0.7, np.nan, 0.7, 0.7, 0.7, 0.7]
    curves = Curves([1] * 8, val_loss=values, val_accuracy=values)
    if name in READS:
        with pytest.raises(NoWindow, match=rf"{READS[name]} is nan at segment 4 of 8: training diverged there"):
            strategies.get(name)(curves, **arguments(name, curves))
    else:
        assert len(strategies.get(name)(curves, **arguments(name, curves))) == 8


VALLEYS = ["swad", "swad_published", "swad_wakd_repo"]


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("name", VALLEYS)
def test_what_comes_after_the_valley_ended_is_not_read(name, broken):
    ended = [3, 2, 1, 1.1, 1.2] + [9] * 11
    assert np.array_equal(strategies.get(name)(val_loss=[*ended, broken]), strategies.get(name)(val_loss=[*ended, 9]))
    for open_still in ([3, 2, 1, 1.1, 1.2, broken], [3, 2, 1, 1.1, 1.2, 9, 9, broken, 9, 9, 9, 9, 9]):
        with pytest.raises(NoWindow, match="training diverged there"):
            strategies.get(name)(val_loss=open_still)


def test_a_run_that_diverged_at_once_is_not_told_to_be_cut():
    with pytest.raises(NoWindow, match=r"segment 1 of 3: training diverged there. Lower the learning rate\.$"):
        averaging.swad(val_loss=[np.inf, 1, 1])
    with pytest.raises(NoWindow, match=r"cut the curves before it with curves\[:2\]"):
        averaging.swad(val_loss=[2, 1, np.nan])


def test_no_window_says_where_the_loss_is_lowest():
    with pytest.raises(
        NoWindow, match="is lowest at segment 6 of 7, and no segment it may start from is the lowest of 3"
    ):
        averaging.swad(val_loss=[5, 4, 4.5, 3, 3.5, 2, 2.5])
    with pytest.raises(NoWindow, match="is lowest at segment 1 of 4"):
        averaging.swad_wakd_repo(val_loss=[1, 2, 1.9, 1.8])


def test_the_multiplier_of_the_wakd_repository_is_no_increment():
    with pytest.raises(ValueError, match=r"the multiplier of the valley's loss, 1.3 for swad's 0.3: .* >= 1; got 0.3"):
        averaging.swad_wakd_repo(val_loss=[3, 2, 1, 1, 1], tolerance_ratio=0.3)


@pytest.mark.parametrize("name", VALLEYS)
def test_a_loss_that_never_converges_is_no_window(name):
    falling = np.linspace(2, 1, 20)
    with pytest.raises(NoWindow) as outcome:
        strategies.get(name)(val_loss=falling)
    assert str(outcome.value) == (
        f"{name} found no window: validation loss fell to the last of 20 segments (n_converge=3). "
        "Train longer, or use wakd(begin=...)."
    )


@pytest.mark.parametrize("name", ["swad", "swad_published", "swad_wakd_repo"])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.7])
def test_a_constant_loss_is_a_valley_from_the_start(name, value):
    coefficients = strategies.get(name)(val_loss=[value] * 20)
    assert coefficients.window() == (0, 19)


def test_a_constant_loss_is_within_its_own_threshold_despite_rounding():
    assert np.mean([0.35] * 3) < 0.35
    assert averaging.swad(val_loss=[0.35] * 20, tolerance_ratio=0.0, n_tolerance=1).window() == (0, 19)


def test_accuracies_of_zero_have_no_window():
    with pytest.raises(NoWindow, match="accuracy is 0 at the first segment"):
        averaging.iidmax(val_accuracy=[0, 0.5], score=lambda coefficients: 0.5)
    with pytest.raises(NoWindow, match="each of its 2 averages scored 0"):
        averaging.iidmax(val_accuracy=[0.5, 0.5], score=lambda coefficients: 0.0)
    with pytest.raises(NoWindow, match="score is nan"):
        averaging.sma(iterates=[1, 1], start=0, score=lambda coefficients: float("nan"))


BAD = [
    ("swad", {"n_converge": 0}, r"n_converge counts segments .*: a whole number >= 1; got 0"),
    ("swad_published", {"n_tolerance": 2.5}, r"n_tolerance counts .*got 2.5"),
    ("swad_wakd_repo", {"tolerance_ratio": -1}, r"tolerance_ratio is the multiplier .*>= 1; got -1"),
    ("swad", {"tolerance_ratio": float("nan")}, r"got nan"),
    ("swad", {"loss": "val_los"}, r"Unknown curve 'val_los'. Did you mean 'val_loss'\?"),
    ("ema", {"decay": 1.5}, r"decay is .* in \[0, 1\]; got 1.5"),
    ("ema", {"warmup_gamma": 0}, "warmup_gamma divides the step"),
    ("ema", {"from_initial": True, "begin": 0.5}, "begin has to be 0"),
    ("wakd", {"begin": -1}, r"begin is a step as an int >= 0, or a fraction .*; got -1"),
    ("wakd", {"begin": 5000.0}, r"fraction of the run as a float in \[0, 1\]; got 5000.0"),
    ("wakd", {"begin": True}, "got True"),
    ("wakd", {"begin": 5000}, "begin=5000 leaves nothing to average: this run has 40 steps"),
    ("wakd", {"begin": 40}, "begin=40 leaves nothing to average"),
    ("wakd", {"begin": 1.0}, "begin=1.0 leaves nothing to average"),
    ("wakd", {"exact": "exactly"}, r"exact is one of None, 'published'; got 'exactly'"),
    ("window", {"end": 41}, "end=41 lies beyond this run of 40 steps"),
    ("window", {"begin": 10, "end": 10}, "No whole segment lies between begin=10 and end=10"),
    ("swa", {"start": 41}, "start=41 lies beyond this run of 40 steps"),
    ("swa", {"period": 0}, "period counts steps between samples"),
    ("swa", {"start": 5, "period": 7}, r"needs iterate 12, which lies inside segment 3, iterates 11-15.*after step 12"),
    ("lawa", {"k": 9}, "last k=9 segment ends; this run has 8"),
    ("bema", {"lag": -1}, "lag is a constant of the published schedule: a number >= 0; got -1"),
    ("bema", {"lag": 0, "multiplier": 0}, "lag and multiplier are both 0"),
    ("bema", {"every": 7}, "needs iterate 7, which lies inside segment 2"),
    ("bema", {"every": 50}, r"bema\(begin=0, every=50\) never updates its average in 40 steps"),
    ("bema", {"begin": 3}, "needs iterate 3, which lies inside segment 1"),
    ("bema", {"begin": 50}, r"bema\(begin=50\) asks for iterate 50, and this run has iterates 1-40"),
    ("wakd", {"begin": 0, "exact": "published"}, "asks for iterate 0, and this run has iterates 1-40"),
    ("eoa_wakd_repo", {"begin": 41}, "asks for iterate 41, and this run has iterates 1-40"),
    ("extrapolate", {"between": 0.5}, r"between is where the early and the late part begin, such as \(0.5, 0.75\); got 0.5"),
    ("extrapolate", {"between": (0.5, 0.5)}, "No whole segment lies between 0.5 and 0.5"),
    ("extrapolate", {"amount": -1}, "amount is how far beyond the late mean to go: a number >= 0; got -1"),
    ("lawa", {"share": 0.1}, r"last 4 of 40 steps, and only one segment ends there. Choose a share above 0.125"),
    ("lawa", {"share": 5}, r"share is the last part of the run: a number in \[0, 1\]; got 5"),
    ("power", {"gamma": -1}, r"gamma is the exponent of the profile: a number >= 0; got -1"),
    ("power", {"sigma_rel": 0.3}, r"sigma_rel is a length relative to the run: a number in \[0, 0.28"),
    ("power", {"sigma_rel": 0}, "sigma_rel=0 is no average but the last iterate"),
    ("power", {"sigma_rel": 0.1, "gamma": 1}, "one length said twice; got gamma=1 and sigma_rel=0.1"),
    ("annealed", {"shape": "cosin"}, r"Unknown shape of a decaying rate 'cosin'. Did you mean 'cosine'\?"),
    ("annealed", {"shape": [1, 0.5]}, r"fall from 1 to 0, such as \[1, 0.3, 0\]; got \[1, 0.5\]"),
    ("annealed", {"shape": [1, 0, 0.5, 0]}, "fall from 1 to 0"),
    ("annealed", {"shape": ["a", 0]}, "fall from 1 to 0"),
    ("lawa", {"k": 0}, r"k counts checkpoints .* >= 1; got 0"),
    ("wise_ft", {"alpha": 2}, r"alpha is the share of the last iterate: a number in \[0, 1\]; got 2"),
    ("sma", {"start": 100}, "start=100 leaves nothing to average: this run has 40 steps"),
    ("sma", {"frequency": 0, "start": 0}, "frequency counts steps between checkpoints"),
    ("learned", {"patience": 0}, "patience counts rounds"),
    ("learned", {"rate": 0}, "rate=0 would leave the coefficients uniform"),
    ("eoa_wakd_repo", {"begin": 5}, r"lies inside segment 1, .* Declare an edge after step 4 when training\.$"),
    ("wakd", {"begin": 5, "exact": "published"}, "Declare an edge after step 4 when training, or leave out exact=."),
]  # fmt: skip


@pytest.mark.parametrize("name, settings, sentence", BAD)
def test_bad_settings_are_a_sentence(name, settings, sentence):
    curves = Curves([5] * 8, val_loss=np.linspace(2, 1, 8), val_accuracy=np.linspace(0, 1, 8))
    with pytest.raises(ValueError, match=sentence) as error:
        strategies.get(name)(curves, **{**evaluations(strategies.get(name), 8), **settings})
    assert not isinstance(error.value, NoWindow)


# --- choosing several, and what they return -----------------------------------------------------------------------


@pytest.mark.parametrize("name, setting", [("wakd", "begin"), ("ema", "begin"), ("sma", "start")])
def test_a_begin_inside_the_last_segment_is_no_window(name, setting):
    curves = Curves([5] * 8, val_loss=np.linspace(2, 1, 8), val_accuracy=np.linspace(0, 1, 8))
    wanted = {"name": name, setting: 39}
    (found,) = averaging.choose(curves, [wanted], score=lambda c: 0.5).values()
    assert isinstance(found, NoWindow)
    assert re.search(rf"{setting}=39 lies inside the last segment \(steps 36-40\).*Choose {setting} <= 35", str(found))


def test_choose_answers_in_order_and_keeps_the_reasons():
    curves = Curves([50] * 20, val_loss=np.linspace(2, 1, 20), val_accuracy=np.linspace(0.5, 0.9, 20))
    wanted = [
        {"name": "wakd", "begin": 0.5},
        "swad",
        {"name": "wakd"},
        {"name": "sma", "label": "SMA (ours)"},
        "last",
    ]
    chosen = choose(curves, wanted, score=lambda coefficients: 0.5)
    assert list(chosen) == ["wakd(begin=0.5)", "swad", "wakd", "SMA (ours)", "last"]
    assert isinstance(chosen["swad"], NoWindow) and "fell to the last of 20" in str(chosen["swad"])
    equal(chosen["wakd(begin=0.5)"], averaging.wakd(curves, begin=0.5))
    assert chosen["SMA (ours)"].strategy == "sma"
    assert list(choose(curves, "last")) == ["last"]


def test_choose_gives_learned_what_it_needs():
    curves, fit = random_curves(), quadratic(12, seed=0)
    chosen = choose(curves, ["learned"], loss_and_gradient=fit, held_out_loss=lambda coefficients: fit(coefficients)[0])
    assert chosen["learned"].strategy == "learned"


def test_choose_checks_everything_before_it_starts():
    curves = random_curves()
    started = []

    def score(coefficients):
        started.append(coefficients)
        return 0.5

    refused = [
        (["iidmax", "swat"], UnknownName, r"^Unknown strategy 'swat'. Did you mean 'swa'\?"),
        (
            ["iidmax", {"name": "wakd", "begn": 1}],
            UnknownName,
            r"^Unknown setting of wakd 'begn'. Did you mean 'begin'",
        ),
        (["iidmax", {"name": "uniform", "begin": 1}], UnknownName, "^uniform has no settings; got 'begin'"),
        ([{"name": "last", "begin": 0.1}], UnknownName, "^Unknown setting of last 'begin'. Known: recalibrated"),
        (["iidmax", {"name": "uniform", "score": 1}], UnknownName, "^uniform has no settings"),
        (["iidmax", {"begin": 1}], ValueError, "a name or a dict with a 'name'"),
        (["iidmax", {"name": "ema", "warmup": "no"}], ValueError, "^warmup of ema is true or false; got 'no'"),
        (["iidmax", "last", "last"], ValueError, "called 'last'; give one of them another 'label'"),
        (["iidmax", "learned"], ValueError, "got no loss_and_gradient|got no held_out_loss"),
    ]
    for wanted, error, sentence in refused:
        with pytest.raises(error, match=sentence):
            choose(curves, wanted, score=score)
    with pytest.raises(ValueError, match=r"sma scores candidate averages on source validation and got no score"):
        choose(curves, ["last", "sma"])
    with pytest.raises(ValueError, match="begin=9999 leaves nothing"):
        choose(curves, ["last", {"name": "wakd", "begin": 9999}])
    with pytest.raises(ValueError, match=r"diwa\(restrict=True\) scores candidate averages"):
        averaging.diwa([0.5, 0.6], restrict=True)
    assert not started


def test_iidmax_takes_any_score():
    """A negated loss, say; 0 is no accuracy to refuse where others scored less."""
    nll = iter([-0.9, -0.2, 0.0, -0.3])
    equal(averaging.iidmax(val_accuracy=[0.5, 0.4, 0.4, 0.4], score=lambda c: next(nll)), [1 / 3, 1 / 3, 1 / 3, 0])
    equal(averaging.iidmax(val_accuracy=[0.5, 0.4], score=lambda c: -len(np.flatnonzero(c))), [1, 0])


def test_what_decides_a_strategy_of_ones_own_is_no_schedule(monkeypatch):
    monkeypatch.setattr(strategies, "_entries", dict(strategies._entries))

    @strategies.register
    def mine(curves):
        return averaging.best_val(curves)

    assert choosing.chosen_by("mine") == "a rule of its own, which may read source validation"
    settled = {name for name in strategies if choosing.chosen_by(name) == choosing.SCHEDULE}
    assert settled == {
        "last",
        "uniform",
        "window",
        "wakd",
        "ema",
        "power",
        "annealed",
        "swa",
        "lawa",
        "wise_ft",
        *BEYOND,
    }


@pytest.fixture
def own(monkeypatch):
    """Registers a strategy for one test, which returns what it is told to."""
    monkeypatch.setattr(strategies, "_entries", dict(strategies._entries))

    def declare(name, answer):
        strategies.register(lambda curves, *, begin=0.5, score=None: answer(curves, score), name=name)

    return declare


QUARTERS = np.full(4, 0.25)


def test_a_strategy_of_ones_own_is_named_with_its_settings(own):
    """Whether it returns an array or ``Coefficients`` that say less; what it says itself stays."""
    own("plain", lambda curves, _: QUARTERS)
    own("ends", lambda curves, _: Coefficients(QUARTERS, of="end", note="ends"))
    own("known", lambda curves, _: averaging.uniform(curves))
    late = {"name": "ends", "label": "late", "begin": 0.8}
    chosen = choose(Curves([1] * 4), ["plain", {**late, "name": "plain", "label": "x"}, "ends", late, "known"])
    assert {label: (c.strategy, c.of, c.note) for label, c in chosen.items()} == {
        "plain": ("plain", "mean", "coefficients of its own"),
        "x": ("plain", "mean", "coefficients of its own (begin=0.8)"),
        "ends": ("ends", "end", "ends"),
        "late": ("ends", "end", "ends (begin=0.8)"),
        "known": ("uniform", "mean", "segments 1-4, iterates 1-4"),
    }


@pytest.mark.parametrize(
    "answer, sentence",
    [
        (lambda curves, _: curves.vall_loss, r"'mine' stopped on curves of 4 segments, AttributeError: .*'vall_loss'"),
        (lambda curves, _: QUARTERS[:3] / 0.75, r"'mine' returned 3 coefficients for 4 segments; return one each\.$"),
        (lambda curves, _: Coefficients([1]), r"'mine' returned 1 coefficients for 4 segments; return one each\.$"),
        (lambda curves, _: np.ones(4), r"'mine': Coefficients are non-negative and sum to 1; got .* sum 4\.0\.$"),
        (lambda curves, _: {"a": 1}, r"'mine': float\(\) argument must be"),
    ],
)
def test_a_strategy_of_ones_own_is_named_where_it_stops(own, answer, sentence):
    own("mine", answer)
    with pytest.raises(ValueError, match=f"^Strategy {sentence}"):
        choose(Curves([1] * 4), ["last", "mine"])


def test_what_a_strategy_of_ones_own_or_an_evaluation_says_is_left_as_it_is(own):
    def refuses(curves, score):
        raise ValueError("begin is up to 1.")

    own("refuses", refuses)
    own("scores", lambda curves, score: score(Coefficients(QUARTERS)))
    with pytest.raises(ValueError, match=r"^begin is up to 1\.$"):
        choose(Curves([1] * 4), ["refuses"])
    with pytest.raises(MemoryError, match=r"^of a device$"):
        choose(Curves([1] * 4), ["scores"], score=lambda c: (_ for _ in ()).throw(MemoryError("of a device")))


def test_settings_of_a_strategy_are_its_signature():
    assert settings_of("wakd") == {"begin": None, "exact": None}
    assert settings_of("wakd", 600) == {"begin": 0.6, "exact": None}
    assert settings_of("sma") == {"start": None, "frequency": None, "exact": None}
    assert settings_of("iidmax") == {}


def test_a_misspelt_setting_or_series_is_named():
    with pytest.raises(TypeError, match=r"Unknown setting or series 'val_los'. Did you mean 'val_loss'\?"):
        averaging.swad(val_los=[1, 2, 3])
    with pytest.raises(TypeError, match="Unknown setting or series 'n_tolerence'"):
        averaging.swad(random_curves(), n_tolerence=3)
    with pytest.raises(TypeError, match="Give a run's curves or bare series, not both"):
        averaging.swad(random_curves(), val_loss=[1, 2, 3])
    with pytest.raises(TypeError, match=r"Expected a run's source curves, got list; use run.source_curves"):
        averaging.swad([1, 2, 3])
    with pytest.raises(ValueError, match="val_accuracy has 2 values for 3 segments"):
        as_curves(val_loss=[1, 2, 3], val_accuracy=[1, 2])


def test_coefficients_keep_their_notes():
    coefficients = averaging.wise_ft(iterates=[1, 1], alpha=0.5)
    for copied in (copy.deepcopy(coefficients), pickle.loads(pickle.dumps(coefficients)), coefficients[:]):
        equal(copied, [0, 0.5])
        notes = (copied.of, copied.initial, copied.strategy, copied.note)
        assert notes == ("end", 0.5, "wise_ft", "iterate 2 at 0.5, initial parameters at 0.5")
    assert type(coefficients * 2) is np.ndarray
    assert isinstance(coefficients.sum(), float)
    with pytest.raises(ValueError, match="read-only"):
        coefficients[0] = 1
    with pytest.raises(ValueError, match=r"non-negative and sum to 1; got minimum -1"):
        Coefficients([2, -1])
    with pytest.raises(ValueError, match=r"sum 0\.5"):
        Coefficients([0.25, 0.25])
    with pytest.raises(NoWindow, match="Only the initial parameters"):
        averaging.wise_ft(iterates=[1, 1], alpha=0).window()


def test_curves_are_cut_from_the_front():
    curves = random_curves()
    cut = curves[:5]
    assert len(cut) == 5 and cut.steps == curves.iterates[:5].sum()
    np.testing.assert_array_equal(cut.val_loss, curves.val_loss[:5])
    np.testing.assert_array_equal(curves.begins, curves.ends - curves.iterates + 1)
    with pytest.raises(TypeError, match="cut from the front"):
        curves[2:]
    with pytest.raises(ValueError, match="whole number of iterates >= 1"):
        Curves([1, 0])


def test_averaging_imports_numpy_and_nothing_heavier():
    imported = set()
    for path in Path(averaging.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
            elif isinstance(node, ast.ImportFrom) and node.level > 1:
                assert node.module == "names", f"{path.name} imports wakd_kit.{node.module}"
    assert imported - set(sys.stdlib_module_names) == {"numpy"}

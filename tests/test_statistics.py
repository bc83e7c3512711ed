"""Intervals and tests against scipy, plain loops and published examples."""

from itertools import combinations, permutations, product
from math import factorial

import numpy as np
import pytest
import scipy.stats

from wakd_kit.statistics import (
    FEWEST,
    bootstrap_interval,
    cliques,
    friedman_p,
    holm,
    interval,
    p_value,
    pairs_to_tell,
    rank_correlation,
    rank_methods,
)

VALUES = [np.random.default_rng(n).normal(0.3, 1, n) for n in (3, 5, 20)]


# ---- Student's t


@pytest.mark.parametrize("values", VALUES, ids=len)
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_and_its_p_are_those_of_scipy(values, level):
    theirs = scipy.stats.ttest_1samp(values, 0)
    assert interval(values, level=level) == pytest.approx(tuple(theirs.confidence_interval(level)), rel=1e-9)
    assert p_value(values) == pytest.approx(theirs.pvalue, rel=1e-9)


@pytest.mark.parametrize("values", VALUES, ids=len)
def test_an_interval_that_ends_at_zero_has_the_p_of_its_level(values):
    low, _ = interval(values, level=0.9)
    assert p_value(values - low) == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize("few", [[], [1.0], [1.5, 1.5], [1.0, 2.0]], ids=str)
def test_fewer_than_three_values_say_nothing(few):
    assert FEWEST == 3
    for step in (0, 0.1):
        assert np.isnan([*interval(few, step=step), p_value(few, step=step), *bootstrap_interval([few])]).all()


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_the_pairs_that_a_difference_takes_are_those_of_published_tables(effect, pairs):
    """Matched pairs, two-sided 5 %, power 80 %, by the effects that Cohen calls small, medium and large (G*Power 3.1)."""
    assert pairs_to_tell(3 * effect, [-3.0, 0.0, 3.0]) == pairs_to_tell(-effect, [6.0, 7.0, 8.0]) == pairs


def test_the_pairs_that_a_difference_takes_find_it_so_often_and_one_pair_less_does_not():
    rng = np.random.default_rng(0)
    n = int(pairs_to_tell(1.0, [-1.5, 0.0, 1.5], power=0.6))
    found = [
        np.mean(scipy.stats.ttest_1samp(rng.normal(1, 1.5, (40_000, m)), 0, axis=1).pvalue < 0.05) for m in (n, n - 1)
    ]
    assert found[0] > 0.6 - 0.005 and found[1] < 0.6 + 0.005, (n, found)


def test_pairs_whose_spread_is_not_known_and_a_difference_of_none_take_no_number():
    assert np.isnan(
        [pairs_to_tell(1, [1.0, 2.0]), pairs_to_tell(1, [1.0] * 3), pairs_to_tell(0, [1.0, 2.0, 3.0])]
    ).all()
    assert 1e9 < pairs_to_tell(0.001, [-30.0, 0.0, 30.0]) < 1e10, "and takes no memory"
    assert pairs_to_tell(1e-300, [-30.0, 0.0, 30.0]) == np.inf
    for chances in ({"power": 1.0}, {"power": np.nan}, {"level": 95}):
        with pytest.raises(ValueError, match="are chances between 0 and 1; got level="):
            pairs_to_tell(1, [0.0, 1.0, 2.0], **chances)
    assert pairs_to_tell(1, [0.0] * 3, step=np.sqrt(6)) == 10 and pairs_to_tell(1e3, [0.0, 1.0, 2.0]) == FEWEST


def test_equal_values_are_no_certainty():
    same = [100 * (a - b) for a, b in ((0.53, 0.5), (0.63, 0.6), (0.33, 0.3))]  # 3, but for the last bits
    assert np.isnan([*interval(same), p_value(same), *bootstrap_interval([same])]).all(), "their spread is not known"
    # on a grid of 0.5: a sd of 0.5 / sqrt(6), t(.975, 2) = 4.302653
    low, high = interval(same, step=0.5)
    assert (low, high) == pytest.approx((3 - 4.302653 * 0.5 / np.sqrt(18), 3 + 4.302653 * 0.5 / np.sqrt(18)), abs=1e-5)
    assert p_value(same, step=0.5) == pytest.approx(2 * scipy.stats.t.sf(3 * np.sqrt(18) / 0.5, 2))
    assert p_value([0.0] * 3, step=0.5) == 1 and interval([0.0] * 3, step=0.5)[0] < 0


def test_a_grid_that_is_finer_than_the_spread_changes_nothing():
    values = VALUES[1]
    assert p_value(values, step=0.1) == p_value(values) and interval(values, step=0.1) == interval(values)


# ---- bootstrap


def all_means(clusters):
    """The mean of every resample there is, in two stages, and its probability."""
    means, chances = [], []
    for drawn in product(clusters, repeat=len(clusters)):
        every = list(product(*(product(values, repeat=len(values)) for values in drawn)))
        means += [np.mean([v for part in values for v in part]) for values in every]
        chances += [len(clusters) ** -len(clusters) / len(every)] * len(every)
    return np.array(means), np.array(chances)


@pytest.mark.parametrize(
    "clusters",
    [
        [[1.0, 2.0], [5.0, 9.0]],
        [[0.0, 1.0, 5.0]],
        [[1.0], [2.0], [4.0], [8.0]],
        [[1.0, 2.0, 3.0], [9.0]],
    ],
    ids=["two stages", "one cluster", "one value each", "unequal sizes"],
)
def test_the_bootstrap_draws_from_all_resamples_of_targets_and_of_seeds_within_them(clusters):
    means, chances = all_means(clusters)
    for level in (0.5, 0.9):
        low, high = bootstrap_interval(clusters, level=level, resamples=40_000)
        for end, share in ((low, 0.5 - level / 2), (high, 0.5 + level / 2)):
            below, up_to = chances[means < end - 1e-9].sum(), chances[means <= end + 1e-9].sum()
            assert below - 0.02 < share < up_to + 0.02


def test_targets_of_unequal_size_are_resampled_with_their_own_values():
    low, high = bootstrap_interval([[2.0, 2.0, 2.0], [1.0]])
    assert (low, high) == (1, 2), "nothing is drawn from where a short target was padded"
    assert bootstrap_interval([[1.0, 3.0, 4.0], []]) == bootstrap_interval([[1.0, 3.0, 4.0]]), "an empty target is none"


def test_the_bootstrap_is_repeatable():
    clusters = [VALUES[1], VALUES[2]]
    assert bootstrap_interval(clusters) == bootstrap_interval(clusters)
    assert bootstrap_interval(clusters) != bootstrap_interval(clusters, seed=1)
    assert np.isnan(bootstrap_interval([])).all()


def test_the_bootstrap_of_one_cluster_agrees_with_scipys_percentile_interval():
    theirs = scipy.stats.bootstrap((VALUES[2],), np.mean, method="percentile", n_resamples=20_000, rng=0)
    mine = bootstrap_interval([VALUES[2]], resamples=20_000)
    assert mine == pytest.approx(tuple(theirs.confidence_interval), abs=0.03)


# ---- Holm


def test_holm_by_hand():
    # sorted: 4 x .01, max(3 x .02, .04), max(2 x .03, .06), max(.04, .06)
    assert holm([0.04, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([]).tolist() == []


def test_holm_counts_nothing_that_is_not_known():
    adjusted = holm([np.nan, 0.01, np.nan, 0.04])
    assert np.isnan(adjusted[[0, 2]]).all() and adjusted[[1, 3]].tolist() == pytest.approx([0.02, 0.04])


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_the_step_down_procedure_rejects(seed):
    p = np.random.default_rng(seed).uniform(0, 0.06, 7)
    for level in (0.01, 0.05, 0.1):
        rejected = set()
        for step, i in enumerate(np.argsort(p)):
            if p[i] > level / (len(p) - step):
                break
            rejected.add(i)
        assert set(np.flatnonzero(holm(p) <= level)) == rejected


# ---- ranks


def test_the_rank_correlation_is_scipys_and_none_where_there_is_no_order():
    a, b = np.random.default_rng(0).integers(0, 5, (2, 30))  # with ties
    assert rank_correlation(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert np.isnan(rank_correlation([1, 2], [1, 2])) and np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


@pytest.mark.parametrize("shape", [(2, 3), (4, 3), (12, 5)])
@pytest.mark.parametrize("digits", [6, 0], ids=["no ties", "ties"])
def test_friedmans_statistic_is_scipys(shape, digits):
    scores = np.random.default_rng(sum(shape)).normal(0, 1.5, shape).round(digits)
    found = rank_methods(scores)
    assert found.statistic == pytest.approx(scipy.stats.friedmanchisquare(*scores.T).statistic, rel=1e-9)
    expected = np.mean(
        [[1 + sum(o > s for o in row) + (sum(o == s for o in row) - 1) / 2 for s in row] for row in scores], 0
    )
    assert found.mean == pytest.approx(expected) and found.blocks == shape[0]


def test_the_example_of_demsar_has_his_numbers():
    """JMLR 7, table 6 (C4.5 and its variants on 14 data sets): ranks 3.143, 2.000, 2.893, 1.964; F 3.69; CD 1.25."""
    scores = np.array(
        [
            (0.763, 0.768, 0.771, 0.798),
            (0.599, 0.591, 0.590, 0.569),
            (0.954, 0.971, 0.968, 0.967),
            (0.628, 0.661, 0.654, 0.657),
            (0.882, 0.888, 0.886, 0.898),
            (0.936, 0.931, 0.916, 0.931),
            (0.661, 0.668, 0.609, 0.685),
            (0.583, 0.583, 0.563, 0.625),
            (0.775, 0.838, 0.866, 0.875),
            (1.000, 1.000, 1.000, 1.000),
            (0.940, 0.962, 0.965, 0.962),
            (0.619, 0.666, 0.614, 0.669),
            (0.972, 0.981, 0.9751, 0.975),
            (0.957, 0.978, 0.946, 0.970),
        ]
    )
    found = rank_methods(scores)
    assert found.mean == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    # he does not correct for ties: 12 n / (k (k + 1)) (sum R^2 - k (k + 1)^2 / 4) = 9.28, and F(3, 39) = 3.69
    plain = 12 * 14 / 20 * ((found.mean**2).sum() - 25)
    assert plain == pytest.approx(9.28, abs=0.01)
    assert found.statistic > plain, "correcting for ties makes it larger"
    assert found.difference == pytest.approx(2.569 * np.sqrt(20 / (6 * 14)), abs=1e-3)
    f = 13 * found.statistic / (14 * 3 - found.statistic)
    assert found.p == pytest.approx(scipy.stats.f.sf(f, 3, 39), abs=0.003), "he takes the F distribution, we all tables"


def test_the_critical_difference_is_nemenyis_at_another_level():
    scores = np.random.default_rng(0).normal(size=(14, 4))
    assert rank_methods(scores, level=0.9).difference == pytest.approx(2.291 * np.sqrt(20 / (6 * 14)), abs=1e-3)


def test_methods_that_never_differ_and_methods_that_always_do():
    assert rank_methods(np.ones((4, 3))).p == 1
    always = rank_methods(np.tile([3.0, 2.0, 1.0], (4, 1)))
    assert always.mean.tolist() == [1, 2, 3] and always.p == pytest.approx(1 / 6**3)


def slow_friedman(ranks):
    """The share of all tables, each block in every order, whose statistic is at least this one."""
    orders = [list(permutations(block)) for block in ranks]
    seen = (ranks.sum(0) ** 2).sum()
    return np.mean([(np.sum(table, 0) ** 2).sum() >= seen - 1e-9 for table in product(*orders)])


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 3), (4, 2), (6, 2), (2, 4), (3, 4), (2, 5)], ids=str)
@pytest.mark.parametrize("digits", [6, 0], ids=["no ties", "ties"])
def test_friedmans_p_is_the_share_of_all_tables_where_blocks_are_few(shape, digits):
    for seed in range(3):
        scores = np.random.default_rng([*shape, seed]).normal(0, 1, shape).round(digits)
        ranks = scipy.stats.rankdata(-scores, axis=1)
        assert rank_methods(scores).p == pytest.approx(slow_friedman(ranks), abs=1e-12)


@pytest.mark.parametrize(("n", "k"), [(2, 2), (2, 3), (3, 2), (4, 2), (4, 3), (2, 6)])
def test_blocks_that_agree_are_as_likely_as_there_are_orders(n, k):
    assert rank_methods(np.tile(np.arange(k, 0, -1.0), (n, 1))).p == pytest.approx(factorial(k) ** -(n - 1.0))


@pytest.mark.parametrize(("n", "k"), [(12, 6), (40, 4), (5, 8), (3, 20)])
def test_where_blocks_are_many_friedmans_p_is_that_of_drawn_tables(n, k):
    """Against 20,000 drawn tables: 4 standard errors of their share, and 0.004 for an F that is an approximation."""
    rng = np.random.default_rng([n, k])
    drawn = rng.permuted(np.broadcast_to(np.arange(k), (20_000, n, k)), axis=2).sum(axis=1)
    sums = ((drawn - drawn.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    for share in (0.5, 0.05, 0.01):
        table = min((rng.permuted(np.broadcast_to(np.arange(k), (n, k)), axis=1) for _ in range(300)),
                    key=lambda t: abs(((t.sum(0) - t.sum(0).mean()) ** 2).sum() - np.quantile(sums, 1 - share)))  # fmt: skip
        seen = ((table.sum(0) - table.sum(0).mean()) ** 2).sum()
        expected = (sums >= seen).mean()
        assert rank_methods(-table).p == pytest.approx(expected, abs=0.004 + 4 * np.sqrt(share / 20_000))


def test_a_p_that_is_approximated_is_never_zero():
    assert friedman_p(4, 8, 4 * 7) == pytest.approx(factorial(8) ** -3.0)


@pytest.mark.parametrize(("n", "k", "difference"), [(2, 2, None), (4, 2, 2), (5, 2, 2), (6, 2, None), (4, 3, None)])
def test_two_methods_on_few_blocks_are_told_apart_only_where_friedman_tells_them(n, k, difference):
    """Nemenyi's difference on four blocks of two is 0.98: two that agree four times, p 1/8, would be told apart."""
    found = rank_methods(np.tile(np.arange(k, 0, -1.0), (n, 1)))
    nemenyi = scipy.stats.studentized_range.ppf(0.95, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n))
    assert found.difference == pytest.approx(difference or nemenyi)
    assert (found.difference <= np.ptp(found.mean)) == (found.p < 0.05)


@pytest.mark.parametrize("scores", [np.ones((1, 3)), np.ones((3, 1)), np.ones(3), [[1, np.nan], [1, 2]]])
def test_too_few_scores_to_rank_are_a_sentence(scores):
    with pytest.raises(
        ValueError, match="Ranks need a finite score of at least two methods on at least two blocks; got "
    ):
        rank_methods(scores)


# ---- cliques


def slow_cliques(ranks, difference):
    """Every set in which all pairs are close, that is part of no larger one."""
    close = [
        set(some)
        for size in range(2, len(ranks) + 1)
        for some in combinations(range(len(ranks)), size)
        if max(ranks[i] for i in some) - min(ranks[i] for i in some) < difference
    ]
    return [s for s in close if not any(s < other for other in close)]


@pytest.mark.parametrize("seed", range(6))
def test_cliques_are_the_largest_groups_that_cannot_be_told_apart(seed):
    ranks = np.random.default_rng(seed).uniform(1, 6, 6)
    for difference in (0.3, 1.2, 2.5, 9):
        found = cliques(ranks, difference)
        assert sorted(map(sorted, found)) == sorted(map(sorted, slow_cliques(ranks, difference)))
        assert all(list(group) == sorted(group, key=lambda i: ranks[i]) for group in found)
        assert [ranks[group[0]] for group in found] == sorted(ranks[group[0]] for group in found)


def test_ranks_exactly_the_critical_difference_apart_are_told_apart():
    assert cliques([1.0, 2.0], 1.0) == [] and cliques([1.0, 2.0], 1.1) == [[0, 1]]
    assert 1.9 - 1.6 < 0.3 and cliques([1.6, 1.9], 0.3) == [], "however means of ranks were rounded"


def test_equal_gains_are_ties_where_floats_break_them():
    """Two students who gain 5 of 449 images on each of nine blocks, from other levels."""
    gains = np.array([[100 * 304 / 449 - 100 * 299 / 449, 100 * 246 / 449 - 100 * 241 / 449]] * 9)
    assert gains[0, 0] != gains[0, 1] and rank_methods(gains).p == 1

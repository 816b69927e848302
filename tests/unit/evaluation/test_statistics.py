"""Intervals and tests against published values, brute force, and what they promise."""

import math
from itertools import chain, combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.statistics import (
    Interval,
    hierarchical_bootstrap,
    holm,
    macro_interval,
    mcnemar,
    paired_bootstrap,
    paired_t,
    sign_flip_test,
    wilson,
)
from tests.helpers.draws import examples

FEW = examples(25)

probabilities = st.floats(0, 1)
numbers = st.lists(st.floats(-5, 5), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_intervals(hits, total, low, high):
    assert wilson(hits, total) == pytest.approx((low, high), abs=5e-5)


@FEW
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_limits_are_where_the_score_test_stops_rejecting(counts):
    hits, total = counts
    interval = wilson(hits, total, 0.9)
    assert 0 <= interval.low <= hits / total <= interval.high <= 1
    for limit in interval:
        if 0 < limit < 1:
            z = (hits / total - limit) / math.sqrt(limit * (1 - limit) / total)
            assert abs(z) == pytest.approx(1.6448536269514722, rel=1e-6)
    other = wilson(total - hits, total, 0.9)
    assert interval == pytest.approx((1 - other.high, 1 - other.low))


def test_without_trials_nothing_is_known():
    assert wilson(0, 0) == (0, 1)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.6])
def test_wilson_covers(share):
    """Exactly, by the binomial distribution and not by simulation."""
    total = 60
    covered = sum(
        math.comb(total, hits) * share**hits * (1 - share) ** (total - hits)
        for hits in range(total + 1)
        if share in wilson(hits, total)
    )
    assert 0.92 < covered < 0.98


@pytest.mark.parametrize(
    ("probability", "freedom", "value"),
    [
        # Tables of Student's t, as in Abramowitz and Stegun, table 26.10.
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 3, 3.182),
        (0.975, 4, 2.776),
        (0.975, 5, 2.571),
        (0.95, 2, 2.920),
        (0.95, 5, 2.015),
        (0.995, 4, 4.604),
        (0.99, 7, 2.998),
        (0.9, 10, 1.372),
        (0.975, 30, 2.042),
        (0.975, 120, 1.980),
    ],
)
def test_student_t_against_the_tables(probability, freedom, value):
    """The interval reaches as far from the mean as the table's t times the standard error."""
    values = np.arange(freedom + 1.0)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    found = paired_t(values, 2 * probability - 1)
    assert (found.interval.high - found.mean) / error == pytest.approx(value, abs=5e-4)
    assert (found.mean - found.interval.low) / error == pytest.approx(value, abs=5e-4)


def test_student_on_his_own_data():
    """Student 1908: the extra hours of sleep that one drug gave over another, ten patients."""
    hours = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    found = paired_t(hours)
    assert found.mean == pytest.approx(1.58)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert found.interval == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


@FEW
@given(numbers.filter(lambda values: len(values) > 1), st.floats(0.5, 0.99))
def test_an_interval_excludes_zero_just_when_p_is_small(values, confidence):
    found = paired_t(values, confidence)
    if found.p is None:
        assert 0 in found.interval
    elif abs(found.p - (1 - confidence)) > 1e-9 and np.std(values) > 1e-9:
        assert (0 in found.interval) == (found.p > 1 - confidence)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("value", [0.0, 0.5, 0.1, -1 / 3])
def test_without_spread_there_is_no_interval_and_no_test(value, number):
    """Not p = 0: however often one value is repeated, it is one value."""
    values = [value] * number
    assert paired_t(values) == (pytest.approx(value), Interval(-math.inf, math.inf), None)
    assert sign_flip_test(values) == (1 if value == 0 else 2 / 2**number)


@pytest.mark.parametrize("spread", [1e-3, 1e-9])
def test_a_small_spread_is_one(spread):
    found = paired_t([0.1 - spread, 0.1, 0.1 + spread])
    # Of two degrees of freedom p is 1 - t / sqrt(2 + t^2), and t large here.
    assert found.p == pytest.approx((spread / 0.1) ** 2 / 3, rel=1e-3, abs=1e-15)
    half = 4.302652729911275 * spread / math.sqrt(3)
    assert found.interval == pytest.approx((0.1 - half, 0.1 + half))


@pytest.mark.parametrize("seeds", [3, 5])
def test_student_covers_where_a_bootstrap_of_few_seeds_does_not(seeds):
    rng = np.random.default_rng(seeds)
    covered, by_bootstrap, trials = 0, 0, 600
    for _ in range(trials):
        values = rng.normal(0.3, 1, seeds)
        covered += 0.3 in paired_t(values).interval
        by_bootstrap += 0.3 in paired_bootstrap(values, seed=0, samples=300)
    assert 0.925 < covered / trials < 0.975
    assert by_bootstrap / trials < 0.9


@FEW
@given(numbers)
def test_sign_flips_by_enumeration(values):
    sums = [abs(math.fsum(s * v for s, v in zip(signs, values, strict=True)))
            for signs in product((1, -1), repeat=len(values))]  # fmt: skip
    observed, slack = abs(math.fsum(values)), 1e-12 * sum(map(abs, values))
    strict = sum(s > observed + slack for s in sums) / len(sums)
    loose = sum(s >= observed - 2 * slack for s in sums) / len(sums)
    assert strict <= sign_flip_test(values) <= loose
    assert sign_flip_test(values) >= 2 / 2 ** len(values)


def test_fishers_plants():
    """Darwin's fifteen pairs of plants; Fisher counted 1,726 of 32,768 signs (sections 17, 21)."""
    eighths = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sign_flip_test(eighths, samples=40_000) == pytest.approx(1726 / 32768, abs=0.004)


def test_sign_flips_reject_as_often_as_they_may():
    rng = np.random.default_rng(0)
    rejected = [sign_flip_test(rng.normal(size=6)) <= 2 / 64 for _ in range(2000)]
    assert np.mean(rejected) == pytest.approx(2 / 64, abs=0.012)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1), (5, 5, 1), (6, 5, 1), (0, 5, 2 / 32), (1, 9, 22 / 1024), (9, 1, 22 / 1024)],
)
def test_mcnemar_by_hand(only_a, only_b, p):
    assert mcnemar(only_a, only_b) == pytest.approx(p)


@FEW
@given(st.integers(0, 6), st.integers(0, 6))
def test_mcnemar_is_the_sign_flip_test_of_the_questions_that_differ(only_a, only_b):
    if only_a + only_b:
        by_signs = sign_flip_test([1.0] * only_a + [-1.0] * only_b)
        assert mcnemar(only_a, only_b) == pytest.approx(by_signs)


def test_mcnemar_of_many_questions():
    assert mcnemar(4000, 4000) == 1
    assert mcnemar(5000, 1000) < 1e-300
    z = (400 - 1) / math.sqrt(6000)  # with Edwards' correction for continuity
    assert mcnemar(3200, 2800) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)


def test_holm_by_hand():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({}) == {}


@FEW
@given(st.lists(probabilities, min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(values):
    """A hypothesis falls at a level if every set of hypotheses it belongs to falls."""
    adjusted = holm({str(n): p for n, p in enumerate(values)})
    places = range(len(values))
    for n in places:
        sets = chain.from_iterable(combinations(places, k) for k in range(1, len(values) + 1))
        closed = max(min(1, len(s) * min(values[m] for m in s)) for s in sets if n in s)
        assert adjusted[str(n)] == pytest.approx(closed)


def all_resamples(rows):
    """Mean of every one of the N^N ways to draw N rows."""
    return sorted(np.mean(drawn) for drawn in product(rows, repeat=len(rows)))


def test_paired_bootstrap_against_every_resample():
    values = [0.0, 1.0, -0.5, 3.0, 0.25]
    expected = np.quantile(all_resamples(values), [0.05, 0.95])
    found = paired_bootstrap(values, seed=0, samples=40_000, confidence=0.9)
    assert found == pytest.approx(expected, abs=0.03)


def test_clusters_are_drawn_whole():
    """Items that say the same thing ten times are one item, and differing sizes weigh."""
    values = np.random.default_rng(0).normal(size=12)
    alone = paired_bootstrap(values, seed=1)
    names = [f"document {n}" for n in range(12) for _ in range(10)]
    tenfold = paired_bootstrap(np.repeat(values, 10), names, seed=1)
    assert tenfold == pytest.approx(alone, abs=1e-9)
    ignored = paired_bootstrap(np.repeat(values, 10), seed=1)
    assert ignored.high - ignored.low < 0.5 * (alone.high - alone.low)
    assert paired_bootstrap([1.0, 1.0, 1.0], ["a", "a", "b"], seed=0) == (1, 1)


def test_bootstraps_are_functions_of_their_seed():
    values = list(range(20))
    one, same, other = (paired_bootstrap(values, seed=s, samples=200) for s in (1, 1, 2))
    assert one == same != other


def test_macro_interval_weighs_categories_equally():
    rng = np.random.default_rng(3)
    categories = [rng.random(900) < 0.9, rng.random(100) < 0.3, rng.random(50) < 0.5]
    interval = macro_interval(categories, samples=4000)
    shares = [np.mean(c) for c in categories]
    error = math.sqrt(sum(s * (1 - s) / len(c) for s, c in zip(shares, categories, strict=True)))
    center = float(np.mean(shares))
    half = 1.96 * error / 3
    assert interval == pytest.approx((center - half, center + half), abs=0.006)


def test_macro_interval_keeps_to_its_strata():
    assert macro_interval([[1.0] * 5, [0.0] * 50]) == (0.5, 0.5)


def test_hierarchical_bootstrap_against_its_variance():
    """Owen 2007: (1 - 1/n) of each way's variance, and nearly no more where nothing interacts."""
    rng = np.random.default_rng(4)
    seeds, documents = rng.normal(size=(30, 1)), rng.normal(size=(1, 80))
    interval = hierarchical_bootstrap(seeds + documents, seed=0, samples=4000)
    error = math.sqrt(np.var(seeds) / 30 + np.var(documents) / 80)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert float(np.mean(seeds + documents)) in interval


def test_documents_stay_uncertain_however_many_seeds_there_are():
    values = np.tile(np.random.default_rng(5).normal(size=(1, 40)), (200, 1))
    crossed = hierarchical_bootstrap(values, seed=0, samples=2000)
    expected = 2 * 1.96 * math.sqrt(np.var(values[0]) / 40)
    assert crossed.high - crossed.low == pytest.approx(expected, rel=0.08)


def test_hierarchical_outcome_is_the_mean_of_the_sets_ratios():
    values = np.array([[2.0, 2.0, 9.0, 9.0, 9.0]] * 3)
    sizes, strata = [1.0, 1.0, 3.0, 3.0, 3.0], ["a", "a", "b", "b", "b"]
    options = {"sizes": sizes, "seed": 0, "samples": 200}
    assert hierarchical_bootstrap(values, strata=strata, **options) == pytest.approx((2.5, 2.5))
    free = hierarchical_bootstrap(values, **options)
    assert free.low < 31 / 11 < free.high


def test_hierarchical_bootstrap_covers():
    """Seeds and documents both drawn from populations, enough of each."""
    rng, covered = np.random.default_rng(6), 0
    for _ in range(150):
        table = rng.normal(size=(12, 1)) + rng.normal(size=(1, 25)) + rng.normal(size=(12, 25))
        covered += 0.0 in hierarchical_bootstrap(table, seed=0, samples=400)
    assert 0.87 < covered / 150 < 0.99

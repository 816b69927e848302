"""How sure a number is: intervals and tests for accuracies and for runs of a few seeds.

Every draw comes from a seed that the caller gives, so that a report is a function of its input.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT_SIGNS = 12
"""Up to so many differences `sign_flip_test` goes through all signs."""
CHUNK = 2_000_000
"""Numbers drawn at a time, which bounds the memory of a bootstrap."""

_Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Both limits belong to it."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


def wilson(hits: int, total: int, confidence: float = 0.95) -> Interval:
    """Interval of a probability of which `hits` of `total` independent trials came true.

    Without trials it is 0 to 1. Source: Wilson, JASA 22 (1927); recommended for any `total` by
    Brown, Cai and DasGupta, Statistical Science 16 (2001).
    """
    assert 0 <= hits <= total
    if total == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / total, z * z / total
    center = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # At the ends the limit is 0 or 1 but for rounding.
    low = 0.0 if hits == 0 else center - half
    return Interval(low, 1.0 if hits == total else center + half)


def macro_interval(
    categories: Sequence[Sequence[float]],
    *,
    seed: int = 0,
    samples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Interval of macro accuracy: the plain mean over categories of each one's mean.

    A stratified percentile bootstrap: the questions of each category are drawn anew from itself.

    Args:
        categories: score of every question, 0 to 1, by category; none of them empty.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), sections 8.3 and 13.3.
    """
    rng = np.random.default_rng(seed)
    means = np.zeros(samples)
    for scores in categories:
        column = np.asarray(scores, dtype=np.float64)[:, None]
        means += _resample(column, rng, samples)[:, 0] / (len(column) * len(categories))
    return _percentiles(means, confidence)


def paired_bootstrap(
    differences: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int,
    samples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Interval of the mean of paired differences, by the percentile bootstrap.

    Args:
        differences: (N,), what one system scored on an item less what the other did.
        clusters: (N,), what items belong to that are not independent of each other (a document, a
            subject); given that, whole clusters are drawn.

    Source: Efron and Tibshirani (1993), section 13.3; for clusters Davison and Hinkley, Bootstrap
    Methods and their Application (1997), section 3.8.
    """
    values = np.asarray(differences, dtype=np.float64)
    assert values.ndim == 1
    assert values.size
    counted = np.stack([values, np.ones_like(values)], axis=1)
    if clusters is not None:
        places = {name: n for n, name in enumerate(dict.fromkeys(clusters))}
        sums = np.zeros((len(places), 2))
        np.add.at(sums, [places[name] for name in clusters], counted)
        counted = sums
    totals = _resample(counted, np.random.default_rng(seed), samples)
    return _percentiles(totals[:, 0] / totals[:, 1], confidence)


def hierarchical_bootstrap(
    values: ArrayLike,
    *,
    sizes: ArrayLike | None = None,
    strata: Sequence[Hashable] | None = None,
    seed: int,
    samples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Interval of a mean over seeds and documents when both would be others another time.

    Seeds are drawn anew, and documents are drawn anew, the same ones for every seed, because all
    runs read the same held-out documents: the two are crossed, not nested. Drawing documents for
    each seed by itself would let their share of the variance shrink with the number of seeds. With
    few seeds it is too narrow (with three by 1 - sqrt(2/3), and more for want of the t
    distribution's tails): read it beside `paired_t`.

    Args:
        values: (S, D), of every seed and document.
        sizes: (D,), what the sum of values is divided by (bytes); none: the number of documents.
        strata: (D,), the set of each document; documents are drawn within theirs, and the outcome
            is the plain mean over sets of the sets' ratios.

    Source: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007).
    """
    table = np.asarray(values, dtype=np.float64)
    seeds, documents = table.shape
    weights = np.ones(documents) if sizes is None else np.asarray(sizes, dtype=np.float64)
    names = np.zeros(documents) if strata is None else np.asarray(strata)
    sets = [np.flatnonzero(names == name) for name in np.unique(names)]
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds
    outcomes = np.zeros(samples)
    for members in sets:
        columns = np.concatenate([table[:, members], weights[None, members]]).T  # (D, S + 1)
        totals = _resample(columns, rng, samples)
        outcomes += (drawn * totals[:, :-1]).sum(1) / totals[:, -1] / len(sets)
    return _percentiles(outcomes, confidence)


def _resample(rows: _Floats, rng: np.random.Generator, samples: int) -> _Floats:
    """(samples, K): sums of N rows drawn with replacement from (N, K)."""
    number = len(rows)
    totals = np.empty((samples, rows.shape[1]))
    step = max(1, CHUNK // number)
    for first in range(0, samples, step):
        drawn = rng.integers(number, size=(min(step, samples - first), number), dtype=np.int32)
        for column, values in enumerate(rows.T):
            totals[first : first + step, column] = values[drawn].sum(1)
    return totals


def _percentiles(outcomes: _Floats, confidence: float) -> Interval:
    low, high = np.quantile(outcomes, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


class PairedT(NamedTuple):
    """What a few paired differences say of their mean.

    Attributes:
        mean: of the differences.
        interval: of the mean; without limits where the differences have no spread.
        p: two-sided, of no difference; None, that is not defined, where they have none.
    """

    mean: float
    interval: Interval
    p: float | None


def paired_t(differences: ArrayLike, confidence: float = 0.95) -> PairedT:
    """Student's interval and test for the mean of paired differences, one per seed.

    For a handful of seeds, which a bootstrap would take for the whole population. Exact if the
    differences are normal. Source: Student, Biometrika 6 (1908).

    Where there is one difference, or all are the same, nothing tells how far another would lie from
    the mean: t would be a division by 0 and its p 0, which no test of a finite sample may give
    (Phipson and Smyth, 2010). R's `t.test` refuses such data as "essentially constant", by the same
    bound for what is rounding.
    """
    values = np.asarray(differences, dtype=np.float64)
    number, mean = len(values), float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(number) if number > 1 else 0.0
    if error <= 10 * np.finfo(np.float64).eps * abs(mean):
        return PairedT(mean, Interval(-math.inf, math.inf), None)
    half = student_t_quantile((1 + confidence) / 2, number - 1) * error
    p = max(0.0, 1 - student_t_within(abs(mean) / error, number - 1))
    return PairedT(mean, Interval(mean - half, mean + half), p)


def student_t_within(t: float, freedom: int) -> float:
    """Probability that Student's t lies within -t and t.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    assert t >= 0
    assert freedom >= 1
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    if odd:
        return (angle + math.sin(angle) * total) * 2 / math.pi
    return math.sin(angle) * total


def student_t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t stays below with a probability between 0 and 1."""
    assert 0 < probability < 1
    if probability < 0.5:
        return -student_t_quantile(1 - probability, freedom)
    within = 2 * probability - 1
    low, high = 0.0, 1.0
    while student_t_within(high, freedom) < within:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        if student_t_within(middle, freedom) < within:
            low = middle
        else:
            high = middle
    return high


def sign_flip_test(differences: ArrayLike, *, seed: int = 0, samples: int = 20_000) -> float:
    """Two-sided p of paired differences that are symmetric about 0: would other signs do as well?

    Exact up to `EXACT_SIGNS` differences, by all 2^n signs, so that it cannot be less than
    2 / 2^n; beyond that from `samples` random ones, the observed one among them. Source: Fisher,
    The Design of Experiments (1935), section 21; Phipson and Smyth (2010) for the random ones.
    """
    values = np.asarray(differences, dtype=np.float64)
    number = len(values)
    if number <= EXACT_SIGNS:
        signs = np.array(list(product((1.0, -1.0), repeat=number)))
    else:
        signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(samples, number))
        signs[0] = 1.0
    sums = np.abs(signs @ values)
    # Sums of the same numbers in another order may differ by rounding.
    reached = abs(values.sum()) - 1e-12 * np.abs(values).sum()
    return float(np.mean(sums >= reached))


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p that two systems are right equally often.

    Args:
        only_a: questions that only the first answers rightly.
        only_b: questions that only the second does.

    Source: McNemar, Psychometrika 12 (1947), with the binomial distribution itself.
    """
    assert only_a >= 0
    assert only_b >= 0
    total = only_a + only_b
    ways, tail = 1, 0
    for n in range(min(only_a, only_b) + 1):
        tail += ways
        ways = ways * (total - n) // (n + 1)
    # Divided as integers: 2^total is no float where there are many questions.
    return min(1.0, 2 * tail / 2**total)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p of each of several tests: those below a level may be wrong in any with no more
    than that probability.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}

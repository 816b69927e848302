"""Intervals and tests for accuracies and for runs of a few seeds.

The caller gives the seed of every draw, so that a report is a function of its input.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK = 2_000_000
"""Numbers drawn at once; bounds the memory of a bootstrap."""

_Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A closed interval."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


def wilson(hits: int, total: int, confidence: float = 0.95) -> Interval:
    """Interval of a probability after `hits` successes in `total` independent trials.

    Without trials the interval is 0 to 1. Source: Wilson, JASA 22 (1927); recommended for any
    `total` by Brown, Cai and DasGupta, Statistical Science 16 (2001).
    """
    assert 0 <= hits <= total
    if total == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / total, z * z / total
    center = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # At 0 and 1 rounding would move the limit.
    low = 0.0 if hits == 0 else center - half
    return Interval(low, 1.0 if hits == total else center + half)


def macro_interval(
    categories: Sequence[Sequence[float]],
    *,
    seed: int = 0,
    samples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Interval of macro accuracy: the unweighted mean over categories of each category's mean.

    A stratified percentile bootstrap: questions are resampled within their category.

    Args:
        categories: scores of the questions, 0 to 1, by category; no category is empty.

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
        differences: (N,), score of one system minus score of the other, by item.
        clusters: (N,), cluster of each item (a document, a subject) where items of one cluster are
            not independent; whole clusters are then resampled.

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
    """Interval of a mean over seeds and documents that are both samples of a population.

    Seeds and documents are resampled independently, and every seed gets the same documents,
    because all runs read the same held-out documents: the two are crossed, not nested. Resampling
    documents for each seed would shrink their share of the variance with the number of seeds. With
    few seeds the interval is too narrow (with three by 1 - sqrt(2/3), and further because it lacks
    the tails of the t distribution): report it together with `paired_t`.

    Args:
        values: (S, D), by seed and document.
        sizes: (D,), bytes by which the sum of values is divided; None: the number of documents.
        strata: (D,), the set of each document; documents are resampled within their set, and the
            outcome is the unweighted mean over sets of the ratio of each set.

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
    """Mean of a few paired differences.

    Attributes:
        mean: of the differences.
        interval: of the mean; without limits where the differences have no spread.
        p: two-sided, of no difference; None (not defined) where the differences have no spread.
    """

    mean: float
    interval: Interval
    p: float | None


def paired_t(differences: ArrayLike, confidence: float = 0.95) -> PairedT:
    """Student's interval and test for the mean of paired differences, one per seed.

    Exact if the differences are normal, also for a handful of seeds, for which a bootstrap is too
    narrow. Source: Student, Biometrika 6 (1908).

    One difference, or several equal ones, have no spread: t would be a division by 0 and p would be
    0, which no test of a finite sample may give (Phipson and Smyth, 2010). R's `t.test` refuses
    such data as "essentially constant", with the same bound for rounding.
    """
    values = np.asarray(differences, dtype=np.float64)
    number, mean = len(values), float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(number) if number > 1 else 0.0
    if error <= 10 * np.finfo(np.float64).eps * abs(mean):
        return PairedT(mean, Interval(-math.inf, math.inf), None)
    found = _scipy_stats().ttest_1samp(values, 0.0)
    low, high = found.confidence_interval(confidence)
    return PairedT(mean, Interval(float(low), float(high)), float(found.pvalue))


def sign_flip_test(differences: ArrayLike, *, seed: int = 0, samples: int = 20_000) -> float:
    """Two-sided p of paired differences that are symmetric about 0, by flipping their signs.

    Exact where `samples` reach all 2^n signs, so that p is at least 2 / 2^n; else from `samples`
    random ones. Source: Fisher, The Design of Experiments (1935), section 21; Phipson and Smyth
    (2010) for random signs.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return 1.0
    found = _scipy_stats().permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        n_resamples=samples,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p that two systems answer equally many questions correctly.

    Args:
        only_a: questions that only the first system answers correctly.
        only_b: questions that only the second system answers correctly.

    Source: McNemar, Psychometrika 12 (1947), with the binomial distribution itself.
    """
    total = only_a + only_b
    return float(_scipy_stats().binomtest(only_a, total).pvalue) if total else 1.0


def _scipy_stats() -> Any:
    try:
        from scipy import stats  # takes a second to import
    except ImportError:
        raise ValueError(
            "tests of significance need scipy; install the extra: pip install -e '.[eval]'"
        ) from None
    return stats


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p of each of several tests: rejecting those below a level bounds the probability of
    any false rejection by that level.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}

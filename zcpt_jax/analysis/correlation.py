"""Rank correlation, and confidence intervals of means over seeds."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean over seeds and its 95 % confidence interval.

    Attributes:
      mean: mean of the values.
      low: lower end, NaN with a single value.
      high: upper end, NaN with a single value.
      seeds: number of values.
    """

    mean: float
    low: float
    high: float
    seeds: int


def spearman(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Return Spearman's rank correlation, 0 if one of the two is constant.

    Pairs with a NaN are left out; minus infinity is the lowest rank.
    """
    return _correlate(stats.spearmanr, a, b)


def kendall(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Return Kendall's tau-b, with the conventions of :func:`spearman`."""
    return _correlate(stats.kendalltau, a, b)


def _correlate(
    measure: Any,
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
) -> float:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    known = ~(np.isnan(x) | np.isnan(y))
    # Ranks replace the values, because differences of infinities are undefined.
    x, y = (stats.rankdata(v[known]) for v in (x, y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant input, for which we return 0
        value = float(measure(x, y).statistic) if len(x) > 1 else np.nan
    return 0.0 if np.isnan(value) else value


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean and its 95 % confidence interval by Student's t."""
    array = np.asarray(values, np.float64)
    mean, count = float(array.mean()), len(array)
    if count < 2:
        return Interval(mean, np.nan, np.nan, count)
    error = float(array.std(ddof=1)) / count**0.5
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    return Interval(mean, mean - reach, mean + reach, count)

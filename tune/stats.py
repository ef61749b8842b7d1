"""What a few seeds say: the noise of a seed, a bound below which a mean hardly lies, and a paired test.

Three seeds tell little about the spread of a configuration, so that by their own deviation alone a configuration whose
seeds happen to agree looks certain. As `limma` does for genes (Smyth 2004, Linear models and empirical Bayes methods,
https://doi.org/10.2202/1544-6115.1027), each configuration's variance is therefore drawn towards the one that all
configurations share. limma estimates how strongly; here it is four degrees of freedom at most, since a search has tens
of configurations and not thousands. The trade-off: one that really is noisier than the others is judged too mildly.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

PRIOR_DF = 4
"""Weight of the shared variance, in degrees of freedom: that of five seeds."""
CONFIDENCE = 0.95
"""One-sided, of `lower_bound`."""
_NO_SPREAD = 1e-12
"""Deviations of fractions under this are rounding."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How much the seed alone moves a score, over all configurations of a search."""

    variance: float
    """Of one seed's score."""
    df: int
    """Degrees of freedom that it was estimated with: seeds less configurations."""


def mean(scores: Sequence[float]) -> float:
    """Arithmetic mean. Raises ValueError where there is no score."""
    if not scores:
        raise ValueError("a mean of no score was asked for; expected one score or more")
    return math.fsum(scores) / len(scores)


def sd(scores: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1); None with fewer than two scores."""
    if len(scores) < 2:
        return None
    return math.sqrt(_squares(scores) / (len(scores) - 1))


def _squares(scores: Sequence[float]) -> float:
    middle = mean(scores)
    return math.fsum((score - middle) ** 2 for score in scores)


def pooled_noise(scores: Iterable[Sequence[float]]) -> Noise | None:
    """The variance within configurations, from the scores of each; None where none has two seeds."""
    several = [values for values in scores if len(values) >= 2]
    if not several:
        return None
    df = sum(len(values) - 1 for values in several)
    return Noise(variance=math.fsum(map(_squares, several)) / df, df=df)


def moderated_variance(scores: Sequence[float], noise: Noise) -> tuple[float, int]:
    """The variance of a seed of this configuration, and its degrees of freedom:

        s² = (ν₀·s₀² + νᵢ·sᵢ²) / (ν₀ + νᵢ)

    with s₀² the shared variance, ν₀ its weight, sᵢ² the configuration's own and νᵢ its seeds less one.
    """
    prior, own = min(PRIOR_DF, noise.df), len(scores) - 1
    return (prior * noise.variance + _squares(scores)) / (prior + own), prior + own


def lower_bound(scores: Sequence[float], noise: Noise | None) -> float | None:
    """Where the true mean lies above with 95 % confidence; None where the noise is not known.

    It is a bound for one configuration. The best of many is favoured by having been picked, and so is its bound.
    """
    if noise is None or not scores:
        return None
    from scipy import stats

    variance, df = moderated_variance(scores, noise)
    return mean(scores) - float(stats.t.ppf(CONFIDENCE, df)) * math.sqrt(variance / len(scores))


def paired_p(first: Mapping[int, float], second: Mapping[int, float]) -> float | None:
    """Two-sided paired t-test over the seeds that both have; None with fewer than two.

    The same seed draws the same order and the same new weights, which is what pairs them. Not corrected for the number
    of configurations that are compared.

    Args:
        first: score by seed.
        second: the same of the other configuration.
    """
    common = sorted(first.keys() & second.keys())
    if len(common) < 2:
        return None
    differences = [first[seed] - second[seed] for seed in common]
    if (sd(differences) or 0.0) < _NO_SPREAD:  # t would be a number divided by zero
        return 1.0 if abs(mean(differences)) < _NO_SPREAD else 0.0
    from scipy import stats

    result = stats.ttest_rel([first[seed] for seed in common], [second[seed] for seed in common])
    return float(result.pvalue)

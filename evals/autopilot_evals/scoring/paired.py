"""Two agents over the same cases: how far apart they are, and whether that is more than luck."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, inf
from typing import NamedTuple

import numpy as np

DRAWS = 10_000
"""Resamples behind an interval: its ends then move by about a hundredth of its width."""


class Pair(NamedTuple):
    """One case that both agents were given.

    Attributes:
        cluster: What it shares with others: the run it comes from.
        first: What the first agent scored; higher is better.
        second: What the second one did.
    """

    cluster: str
    first: float
    second: float


@dataclass(frozen=True)
class Comparison:
    """The second agent against the first.

    Attributes:
        first: Mean score of the first agent.
        difference: Mean of the second minus the first.
        difference_95: Its 95 % interval; all numbers where there is one cluster only.
        ahead: Clusters in which the second agent scores more.
        behind: Clusters in which it scores less.
        level: Clusters in which both score the same.
        p: Of the sign test over clusters: how often chance alone would be as one-sided.
    """

    cases: int
    clusters: int
    first: float
    second: float
    difference: float
    difference_95: tuple[float, float]
    ahead: int
    behind: int
    level: int
    p: float


def compare(pairs: Sequence[Pair], *, seed: int = 0, draws: int = DRAWS) -> Comparison:
    """Hold a second agent against a first one, paired by case and clustered by run.

    The interval is a percentile bootstrap that draws whole clusters, since cases of one run
    resemble each other (Davison and Hinkley 1997, "Bootstrap Methods and their Application",
    section 3.8). It is too narrow for a handful of clusters; the sign test holds for any number,
    and where every case is a cluster of its own it is McNemar's exact test.

    Args:
        pairs: The cases.
        seed: The same seed draws the same resamples.
        draws: How many resamples.

    Raises:
        ValueError: There is no case.
    """
    if not pairs:
        raise ValueError("two agents cannot be compared without a case")
    by_cluster: dict[str, list[float]] = {}
    for pair in pairs:
        by_cluster.setdefault(pair.cluster, []).append(pair.second - pair.first)
    sums = np.array([sum(differences) for differences in by_cluster.values()])
    sizes = np.array([len(differences) for differences in by_cluster.values()])
    ahead, behind = int((sums > 0.0).sum()), int((sums < 0.0).sum())
    return Comparison(
        cases=len(pairs),
        clusters=len(sums),
        first=sum(pair.first for pair in pairs) / len(pairs),
        second=sum(pair.second for pair in pairs) / len(pairs),
        difference=float(sums.sum() / sizes.sum()),
        difference_95=_bootstrap(sums, sizes, seed, draws),
        ahead=ahead,
        behind=behind,
        level=len(sums) - ahead - behind,
        p=sign_test(ahead, behind),
    )


def _bootstrap(
    sums: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    sizes: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    seed: int,
    draws: int,
) -> tuple[float, float]:
    if len(sums) < 2:
        return -inf, inf
    drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def sign_test(ahead: int, behind: int) -> float:
    """How often a fair coin falls at least as one-sided; 1 without a difference.

    Two-sided and exact; Conover 1999, "Practical Nonparametric Statistics", section 3.4.

    >>> sign_test(5, 0), sign_test(2, 2)
    (0.0625, 1.0)
    """
    thrown = ahead + behind
    tail = sum(comb(thrown, heads) for heads in range(min(ahead, behind) + 1))
    return min(1.0, 2.0 * tail / float(2**thrown))


def pass_all(outcomes: Mapping[str, Sequence[bool]], k: int) -> float:
    """The chance that an agent succeeds in all of ``k`` tries at a task: pass^k, over all tasks.

    The share of the ways to draw k of a task's tries, without putting back, that are all successes;
    unbiased for any number of tries. Yao et al. 2024, tau-bench, arXiv:2406.12045, section 2.
    An agent that succeeds now and then looks ever better by pass@k, and ever worse by this.

    Args:
        outcomes: By task, whether each try succeeded.
        k: Tries; at most as many as the task with the fewest has.

    Raises:
        ValueError: There is no task, or one with fewer tries.

    >>> pass_all({"a": [True, True, False, False]}, 2)
    0.16666666666666666
    """
    fewest = min((len(tries) for tries in outcomes.values()), default=0)
    if not 1 <= k <= fewest:
        raise ValueError(f"pass^{k} needs tasks with at least {k} tries each, not {fewest}")
    shares = [comb(sum(tries), k) / comb(len(tries), k) for tries in outcomes.values()]
    return sum(shares) / len(shares)

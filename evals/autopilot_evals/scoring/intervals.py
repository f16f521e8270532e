"""How far a measured share can be trusted."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

Z_95 = 1.959964


class Interval(NamedTuple):
    """A share with its 95 % interval, and the number of independent cases it is worth."""

    share: float
    low: float
    high: float
    effective_n: float


def wilson(hits: float, cases: float, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a share, which stays within 0 and 1 and holds for few cases.

    Wilson 1927, J. Am. Stat. Assoc. 22, 209-212. Without a case it is all of 0 to 1.

    >>> low, high = wilson(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    if cases <= 0:
        return 0.0, 1.0
    share = hits / cases
    bend = 1.0 + z * z / cases
    middle = (share + z * z / (2.0 * cases)) / bend
    reach = z * sqrt(share * (1.0 - share) / cases + z * z / (4.0 * cases * cases)) / bend
    return max(0.0, middle - reach), min(1.0, middle + reach)


def clustered(outcomes: Sequence[tuple[str, bool]]) -> Interval:
    """The share of hits among cases that come in clusters, as events of one run do.

    Cases of one cluster resemble each other, so they count for fewer than they are: the variance
    between clusters over the binomial one is the design effect, and Wilson's interval is taken at
    cases over design effect, between the number of clusters and the number of cases. Where all or
    none hit, the variance tells nothing and each cluster counts once.

    Kish 1965, "Survey Sampling", section 8.2; Korn and Graubard 1998, Survey Methodology 24.

    Args:
        outcomes: The cluster of each case, and whether it was a hit.

    >>> clustered([("a", True), ("a", True), ("b", False), ("b", False)]).effective_n
    2.0
    """
    cases = len(outcomes)
    if not cases:
        return Interval(float("nan"), 0.0, 1.0, 0.0)
    hits = sum(hit for _, hit in outcomes)
    share = hits / cases
    clusters: dict[str, float] = {}
    for cluster, hit in outcomes:
        clusters[cluster] = clusters.get(cluster, 0.0) + (hit - share)
    count = len(clusters)
    effective = float(count)
    if count > 1 and 0 < hits < cases:
        between = sum(off * off for off in clusters.values()) * count / (count - 1)
        effect = between / cases**2 / (share * (1.0 - share) / cases)
        effective = (
            min(max(cases / effect, float(count)), float(cases)) if effect > 0.0 else float(cases)
        )
    low, high = wilson(share * effective, effective)
    return Interval(share, low, high, effective)

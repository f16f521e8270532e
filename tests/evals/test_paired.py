"""Paired comparison of two agents, against figures worked out by hand."""

import math
from itertools import product

import pytest

from autopilot_evals.scoring.paired import Pair, compare, pass_all, sign_test


def test_a_comparison_gives_both_means_their_difference_and_who_leads_in_which_cluster() -> None:
    pairs = [
        Pair("a", 0.0, 1.0),
        Pair("a", 1.0, 1.0),
        Pair("b", 1.0, 0.0),
        Pair("c", 0.0, 1.0),
        Pair("d", 1.0, 1.0),
    ]
    found = compare(pairs)
    assert (found.cases, found.clusters) == (5, 4)
    assert (found.first, found.second) == (0.6, 0.8)
    assert found.difference == pytest.approx(0.2)
    assert (found.ahead, found.behind, found.level) == (2, 1, 1)
    assert found.p == 1.0


def test_the_interval_is_that_of_all_ways_to_draw_the_clusters() -> None:
    differences = {"a": (1.0, 0.0), "b": (-1.0,), "c": (0.5,), "d": (0.25,)}
    pairs = [Pair(name, 0.0, one) for name, ones in differences.items() for one in ones]
    ways = []
    for drawn in product(differences.values(), repeat=4):
        cases = [one for ones in drawn for one in ones]
        ways.append(sum(cases) / len(cases))
    ways.sort()
    low, high = compare(pairs, draws=200_000).difference_95
    assert low == pytest.approx(ways[round(0.025 * len(ways))], abs=0.02)
    assert high == pytest.approx(ways[round(0.975 * len(ways))], abs=0.02)


def test_cases_of_one_cluster_do_not_make_the_interval_narrower() -> None:
    apart = [Pair(str(run), 0.0, float(run % 2)) for run in range(10)]
    many = [pair for pair in apart for _ in range(20)]
    assert compare(many).difference_95 == compare(apart).difference_95


def test_the_same_seed_draws_the_same_interval_and_another_seed_another() -> None:
    pairs = [Pair(str(run), 0.0, math.sin(run)) for run in range(12)]
    assert compare(pairs, seed=1) == compare(pairs, seed=1)
    assert compare(pairs, seed=1).difference_95 != compare(pairs, seed=2).difference_95


def test_one_cluster_bounds_nothing_and_no_case_is_refused() -> None:
    alone = compare([Pair("a", 0.0, 1.0), Pair("a", 0.0, 1.0)])
    assert alone.difference_95 == (-math.inf, math.inf)
    assert alone.p == 1.0
    with pytest.raises(ValueError, match="without a case"):
        compare([])


def test_an_agent_against_itself_differs_by_nothing() -> None:
    found = compare([Pair(str(run), 0.3 * run, 0.3 * run) for run in range(6)])
    assert (found.difference, found.difference_95, found.p) == (0.0, (0.0, 0.0), 1.0)


@pytest.mark.parametrize(
    ("ahead", "behind", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 2 / 64), (1, 7, 2 * 9 / 256), (10, 0, 2 / 1024)],
)
def test_the_sign_test_counts_the_throws_of_a_fair_coin(ahead: int, behind: int, p: float) -> None:
    assert sign_test(ahead, behind) == pytest.approx(p)
    assert sign_test(behind, ahead) == pytest.approx(p)


def test_succeeding_every_time_is_the_share_of_draws_without_a_failure() -> None:
    tries = {"a": [True, True, True, False], "b": [True] * 4}
    assert pass_all(tries, 1) == pytest.approx((0.75 + 1.0) / 2)
    assert pass_all(tries, 2) == pytest.approx((3 / 6 + 1.0) / 2)
    assert pass_all(tries, 4) == pytest.approx((0.0 + 1.0) / 2)


@pytest.mark.parametrize("k", [0, 3])
def test_more_tries_than_there_were_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="tries"):
        pass_all({"a": [True, True, True], "b": [True, False]}, k)

"""The rules of others do what their descriptions say, weaknesses included."""

import math
import random
from collections.abc import Iterable

import pytest

from autopilot.schema import Row
from autopilot_evals.baselines import RULES, alarms_of
from autopilot_evals.baselines.base import QUIET_ROWS


def noisy(rows: int = 400, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    return [
        Row(s, {"loss": 2.0 + 0.02 * rng.gauss(0, 1), "grad_norm": 1.0 + 0.05 * rng.gauss(0, 1)})
        for s in range(rows)
    ]


def raised(rows: list[Row], steps: Iterable[int], factor: float) -> list[Row]:
    at = set(steps)
    return [
        row._replace(values={**row.values, "loss": factor * row.values["loss"]})
        if row.step in at
        else row
        for row in rows
    ]


def steps_of(name: str, rows: list[Row]) -> list[int]:
    return [alarm.step for alarm in alarms_of(RULES[name](), rows)]


@pytest.mark.parametrize("name", sorted(set(RULES) - {"ema_z_score"}))
def test_quiet_on_gaussian_noise(name: str) -> None:
    assert steps_of(name, noisy()) == []


def test_a_limit_on_the_gradient_cries_wolf_on_gaussian_noise() -> None:
    assert len(steps_of("ema_z_score", noisy())) > 1


@pytest.mark.parametrize(
    ("name", "factor", "steps"),
    [
        ("six_sigma", 2.0, [300]),
        ("rolling_mad", 2.0, [300]),
        ("running_mean_factor", 3.0, [304]),
        ("first_maximum", 12.0, [300]),
        ("page_hinkley", 20.0, [301]),
        ("not_a_number", math.nan, [300]),
    ],
)
def test_finds_what_it_is_made_for(name: str, factor: float, steps: list[int]) -> None:
    assert steps_of(name, raised(noisy(), range(300, 310), factor))[:1] == steps


@pytest.mark.parametrize("name", ["running_mean_factor", "first_maximum", "page_hinkley"])
def test_blind_to_a_spike_that_does_not_double_the_loss(name: str) -> None:
    assert steps_of(name, raised(noisy(), range(300, 310), 1.5)) == []


def test_a_window_that_took_in_a_nan_is_blind() -> None:
    rows = raised(raised(noisy(), [280], math.nan), range(300, 310), 2.0)
    assert steps_of("six_sigma", rows) == []


def test_a_rule_that_goes_on_firing_raised_one_alarm() -> None:
    rows = raised(noisy(), [*range(300, 305), *range(306 + QUIET_ROWS, 309 + QUIET_ROWS)], math.nan)
    assert steps_of("not_a_number", rows) == [300, 306 + QUIET_ROWS]

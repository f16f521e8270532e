"""Spikes of one row, spikes that turn into a blow-up, and rewards that sink within their swings."""

import random

import pytest
from detectors.streams import changed, healthy, run

from autopilot.control.observation import Observation
from autopilot.detectors.collapse import Collapse
from autopilot.detectors.grad_alarm import GradAlarm
from autopilot.detectors.loss_alarm import LossAlarm
from autopilot.schema import Row


def scaled(factors: dict[int, float], rows: int = 400, seed: int = 1) -> list[Row]:
    return [
        changed(row, loss=row.values["loss"] * factors.get(row.step, 1.0))
        for row in healthy(seed, rows)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_row_of_many_times_the_course_is_reported_and_nobody_acts(seed: int) -> None:
    rows = scaled({200: 6.0}, seed=seed)
    assert [(f.kind, f.step) for f in run(LossAlarm(), rows)] == [("loss_spike", 200)]
    observation = Observation()
    for row in rows:
        observation.read(row)
    (episode,) = observation.episodes.values()
    assert (episode.status, episode.diagnosis) == ("closed", "benign")


def test_a_leap_around_zero_is_no_multiple_of_anything() -> None:
    rng = random.Random(0)
    rows = [Row(s, {"loss": 0.1 * rng.gauss(0, 1) + 2.0 * (s == 300)}) for s in range(400)]
    assert run(LossAlarm(), rows) == []


def test_a_spike_that_blows_up_is_a_divergence_at_once() -> None:
    factors = {200 + i: 5.0 * 3.0 ** max(i - 4, 0) for i in range(12)}
    found = run(LossAlarm(), scaled(factors))
    assert [(f.kind, f.step) for f in found][:2] == [("loss_spike", 200), ("divergence", 207)]


@pytest.mark.parametrize("factor", [2.0, 9.0])
def test_in_the_first_rows_less_than_tenfold_may_be_noise(factor: float) -> None:
    assert run(LossAlarm(), [Row(s, {"loss": factor if s == 20 else 1.0}) for s in range(60)]) == []


def test_in_the_first_rows_tenfold_is_a_spike_wherever_the_run_began() -> None:
    rows = [Row(s, {"loss": 14.0 if s == 24 else max(12.0 - 4 * s, 0.13)}) for s in range(60)]
    assert [(f.kind, f.step) for f in run(LossAlarm(), rows)] == [("loss_spike", 24)]


def test_one_noisy_row_of_the_loss_does_not_make_loud_gradients_an_alarm() -> None:
    loud = [changed(r, grad_norm=9.0) if 200 <= r.step < 210 else r for r in healthy(2, 260)]
    once = [changed(r, loss=1.2 * r.values["loss"]) if r.step == 204 else r for r in loud]
    assert run(GradAlarm(), once) == []
    twice = [changed(r, loss=1.2 * r.values["loss"]) if r.step in (204, 205) else r for r in loud]
    assert [(f.kind, f.step) for f in run(GradAlarm(), twice)] == [("grad_spike", 205)]


def swinging(fall: float, seed: int = 0) -> list[Row]:
    """Rewards that swing by a third of all they gained, and fall by some after 120 episodes."""
    rng = random.Random(seed)
    return [
        Row(s, {"val_accuracy": min(5.0 * s, 300.0) + 60.0 * rng.gauss(0, 1) - fall * (s >= 120)})
        for s in range(200)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_a_reward_that_sinks_within_its_swings_is_found(seed: int) -> None:
    assert run(Collapse(), swinging(0.0, seed)) == []
    found = run(Collapse(), swinging(180.0, seed))
    assert found[0].kind == "collapse"
    assert 120 < found[0].step <= 135
    assert 115 <= found[0].evidence[0].step <= 130


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (0.001, -5.0)])
def test_the_unit_and_origin_of_a_reward_do_not_matter(scale: float, shift: float) -> None:
    rows = swinging(180.0)
    other = [changed(r, val_accuracy=scale * r.values["val_accuracy"] + shift) for r in rows]
    steps = [f.step for f in run(Collapse(), rows)]
    assert [f.step for f in run(Collapse(), other)] == steps

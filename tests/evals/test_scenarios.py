"""The scenarios: what they declare, and that seeds alone decide what they do."""

import math

import pytest
import torch

from autopilot_evals.scenarios import ALL, SCENARIOS, Scenario, Setup
from autopilot_evals.scenarios.benign import data_stall
from autopilot_evals.scenarios.moves import REFLEXES
from autopilot_evals.scenarios.once import once
from autopilot_evals.scenarios.sick.data_repeat import Sampler
from autopilot_evals.scenarios.sick.noisy_shard import NOISY, SOURCES, Shards

SHORT = 100
SICK = [scenario for scenario in ALL if scenario.family != "benign"]
BENIGN = [scenario for scenario in ALL if scenario.family == "benign"]

each = pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)
each_sick = pytest.mark.parametrize("scenario", SICK, ids=lambda scenario: scenario.name)


def run(setup: Setup, steps: int) -> list[float]:
    """Train without a session; returns every loss."""
    losses = []
    for step in range(steps):
        setup.before_step(step)
        loss = setup.loss(setup.batches[step])
        setup.backward(loss)
        setup.update()
        losses.append(float(loss.item()))
    return losses


def weights(setup: Setup) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in setup.model.parameters()])


def test_there_are_many_and_a_third_of_them_is_healthy() -> None:
    assert len(SCENARIOS) == len(ALL) >= 22
    assert len(BENIGN) >= len(ALL) / 3
    for family in (SICK, BENIGN):
        assert {scenario.split for scenario in family} == {"development", "held_out"}


@each
def test_what_helps_and_what_harms_is_declared(scenario: Scenario) -> None:
    assert scenario.acceptable
    assert scenario.harmful
    assert not set(scenario.acceptable) & set(scenario.harmful)
    assert ("nothing" in scenario.acceptable) == (scenario.family == "benign")
    names = [move.name for move in scenario.moves]
    assert len(set(names)) == len(names)
    assert set(REFLEXES) <= set(scenario.moves)
    assert 0 < scenario.delay < 0.8 * scenario.steps
    assert scenario.smoke_steps <= scenario.steps


@each
def test_the_seed_alone_decides_what_is_trained(scenario: Scenario) -> None:
    one, same, other = (scenario.build(seed, "sick", SHORT) for seed in (1, 1, 2))
    later = one.batches[9]
    for cursor in (3, 0, 9):
        mine, theirs = one.batches[cursor], same.batches[cursor]
        assert torch.equal(mine.inputs, theirs.inputs)
        assert torch.equal(mine.targets, theirs.targets)
        assert mine.source == theirs.source
    assert torch.equal(later.inputs, one.batches[9].inputs)
    assert torch.equal(weights(one), weights(same))
    assert one.fault_step == same.fault_step
    assert not torch.equal(one.batches[3].inputs, other.batches[3].inputs)
    assert run(one, 4) == run(same, 4)
    assert math.isfinite(one.evaluate())
    assert len(one.batches) >= 4 * SHORT


@each_sick
def test_the_fault_changes_the_training_and_the_reference_is_free_of_it(scenario: Scenario) -> None:
    sick, reference = (scenario.build(0, arm, SHORT) for arm in ("sick", "reference"))
    steps = 90
    before = sick.fault_step or 0
    assert before + 5 <= steps
    if scenario.name in ("overfit", "stale-second-moment"):  # theirs is there from the start
        before = 0
    assert run(sick, before) == run(reference, before)
    if before:
        assert torch.equal(weights(sick), weights(reference))
    for setup in (sick, reference):
        _go_on(setup, before, steps)
    assert not torch.equal(weights(sick), weights(reference))
    assert weights(reference).isfinite().all()


def _go_on(setup: Setup, begin: int, end: int) -> None:
    for step in range(begin, end):
        setup.before_step(step)
        setup.backward(setup.loss(setup.batches[step]))
        setup.update()


@each
def test_seeds_vary_what_should_not_matter(scenario: Scenario) -> None:
    seen = set()
    for seed in range(6):
        if scenario.name == "fine-tuning" and seed > 1:
            break  # each of its seeds trains a model first
        setup = scenario.build(seed, "sick", scenario.steps)
        size = sum(p.numel() for p in setup.model.parameters())
        seen.add((size, tuple(setup.batches[0].inputs.shape), setup.fault_step))
    assert len(seen) > 1


def test_a_fault_that_strikes_once_does_not_come_back_with_the_same_step() -> None:
    struck = []
    before_step = once(3, lambda: struck.append(1), lasts=2)
    for step in (0, 1, 2, 3, 1, 2, 3, 4, 5):
        before_step(step)
    assert len(struck) == 2


def test_a_stuck_sampler_repeats_until_it_is_mended() -> None:
    sampler = Sampler(ALL[0].build(0, "sick", SHORT).batches, few=3)
    assert not torch.equal(sampler[4].inputs, sampler[1].inputs)
    sampler.set(0.0)
    assert torch.equal(sampler[4].inputs, sampler[1].inputs)
    sampler.set(1.0)
    assert not torch.equal(sampler[4].inputs, sampler[1].inputs)


def test_a_shard_that_is_excluded_does_not_come_any_more() -> None:
    shards = Shards(0, 200, noisy=NOISY)
    assert {shards[i].source for i in range(40)} == set(SOURCES)
    shards.set(NOISY)
    assert {shards[i].source for i in range(40)} == set(SOURCES) - {NOISY}


def test_a_stall_changes_no_batch() -> None:
    slow = data_stall.build(0, "sick", SHORT).batches
    assert isinstance(slow, data_stall.Slow)
    cursor = slow.span.start
    assert torch.equal(slow[cursor].inputs, slow.batches[cursor].inputs)

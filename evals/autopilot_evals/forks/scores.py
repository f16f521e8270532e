"""Scores of forks: how much of what could be saved an agent saves, and what it costs if healthy.

The best move of a menu is the one with the best *mean over seeds*, never the best of each seed: of
several noisy figures the smallest is below the truth. Differences are paired by run: all arms of a
seed are the same run up to the decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt
from statistics import mean, median, stdev

from autopilot.errors import AutopilotError
from autopilot_evals.baselines.reference import ALWAYS, NEVER, RANDOM
from autopilot_evals.forks.flight import ALONE, PILOTED, Outcome
from autopilot_evals.scenarios.base import Family, Scenario, Split
from autopilot_evals.scoring.decisions import Grade, Sets
from autopilot_evals.scoring.intervals import Interval, clustered

_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 0.975 for 1 to 10 degrees of freedom."""
_Z_95 = 1.959964


@dataclass(frozen=True)
class Arm:
    """One arm of a scenario, over all seeds.

    Attributes:
        loss: Mean held-out loss, in nats.
        gain: Mean of what it saves over doing nothing, in nats; negative where it costs.
        gain_95: Its 95 % interval, paired by seed.
    """

    name: str
    loss: float
    gain: float
    gain_95: tuple[float, float]


@dataclass(frozen=True)
class ScenarioScore:
    """One agent in one scenario, over all seeds.

    Attributes:
        arms: Doing nothing, then every move of the menu.
        oracle: The best of them.
        agent: The agent's own arm.
        gain: Share of what the oracle saves that the agent saves; None where nothing is sick.
        gain_95: Its interval, for the headroom that was found.
        regret: What the agent ends above the oracle, in nats.
        worst: The worst run's loss over that of the same run left alone, minus 1.
        interventions: How many in each run.
        undone: How many of them a failed canary took back.
        asked: Runs in which the agent asked a person, of whom there was none.
        answers: What it did first in each run; ``nothing`` where it did nothing.
        grades: What the scenario says of these answers.
        named: Runs in which it acted and named the cause that the scenario names.
        found: Runs left alone of which the run's own triage named it.
    """

    scenario: str
    family: Family
    split: Split
    seeds: int
    arms: tuple[Arm, ...]
    oracle: Arm
    agent: Arm
    gain: float | None
    gain_95: tuple[float, float] | None
    regret: float
    worst: float
    interventions: tuple[int, ...]
    undone: int
    asked: int
    answers: tuple[str, ...]
    grades: tuple[Grade, ...]
    named: int
    found: int


@dataclass(frozen=True)
class Summary:
    """One agent, or one habit, over all scenarios of a split.

    Attributes:
        median_gain: Over the sick scenarios.
        mean_gain: The same, each gain held between -1 and 1.
        harmed: Sick scenarios that it left worse off than doing nothing.
        sick: How many there are.
        left_alone: Share of healthy runs without an intervention.
        left_alone_95: Its interval, clustered by scenario.
        worst: The worst healthy run's loss over that of the same run left alone, minus 1.
        healthy: How many healthy runs there are.
    """

    name: str
    median_gain: float
    mean_gain: float
    harmed: int
    sick: int
    left_alone: float
    left_alone_95: tuple[float, float]
    worst: float
    healthy: int


def score(scenario: Scenario, outcomes: Sequence[Outcome], agent: str) -> ScenarioScore:
    """Score an agent in one scenario.

    Args:
        scenario: Which.
        outcomes: Of every arm and seed of it.
        agent: The agent's name.

    Raises:
        AutopilotError: The arms of a seed are not the same run up to the decision.
    """
    by_arm = _by_arm(scenario, outcomes)
    alone = by_arm[ALONE]
    arms = [_arm(ALONE, alone, alone)]
    arms += [_arm(move.name, by_arm[move.name], alone) for move in scenario.moves]
    oracle = min(arms, key=lambda arm: arm.loss)
    flown = by_arm[PILOTED + agent]
    own = _arm(agent, flown, alone)
    answers = tuple(o.applied[0].answer if o.applied else "nothing" for o in flown.values())
    sets = Sets(frozenset(scenario.acceptable), frozenset(), frozenset(scenario.harmful))
    low, high = own.gain_95
    sick = scenario.family != "benign" and oracle.gain > 0.0
    return ScenarioScore(
        scenario=scenario.name,
        family=scenario.family,
        split=scenario.split,
        seeds=len(alone),
        arms=tuple(arms),
        oracle=oracle,
        agent=own,
        gain=own.gain / oracle.gain if sick else None,
        gain_95=(low / oracle.gain, high / oracle.gain) if sick else None,
        regret=own.loss - oracle.loss,
        worst=_worst(flown, alone),
        interventions=tuple(len(o.applied) for o in flown.values()),
        undone=sum(one.undone for o in flown.values() for one in o.applied),
        asked=sum(bool(o.asked) for o in flown.values()),
        answers=answers,
        grades=tuple(sets.grade(answer) for answer in answers),
        named=sum(bool(o.applied) and o.applied[0].cause == scenario.cause for o in flown.values()),
        found=sum(scenario.cause in o.found for o in alone.values()),
    )


def summarise(agent: str, scores: Sequence[ScenarioScore]) -> Summary:
    """Sum up an agent over scenarios."""
    healthy = [(s.scenario, not n) for s in scores if s.gain is None for n in s.interventions]
    worst = max((s.worst for s in scores if s.gain is None), default=nan)
    gains = [s.gain for s in scores if s.gain is not None]
    return _summary(agent, gains, clustered(healthy), worst, len(healthy))


def habit(move: str, scores: Sequence[ScenarioScore]) -> Summary:
    """Sum up making the same move everywhere, sick or not, at the decision step.

    Args:
        move: One that is on every menu, or ``no-op``, which is never to act.
        scores: Of any agent.
    """
    made = [(s, next(arm for arm in s.arms if arm.name == move)) for s in scores]
    healthy = [(s, arm) for s, arm in made if s.gain is None]
    alone = [(s.scenario, move == ALONE) for s, _ in healthy for _ in range(s.seeds)]
    gains = [arm.gain / s.oracle.gain for s, arm in made if s.gain is not None]
    worst = max((arm.loss / s.arms[0].loss - 1.0 for s, arm in healthy), default=nan)
    name = NEVER if move == ALONE else f"{ALWAYS} {move}"
    return _summary(name, gains, clustered(alone), worst, len(alone))


def acting_rate(scores: Sequence[ScenarioScore]) -> float:
    """Share of an agent's runs, sick and healthy together, in which it acted."""
    return mean(bool(count) for s in scores for count in s.interventions)


def by_chance(rate: float, scores: Sequence[ScenarioScore]) -> Summary:
    """Sum up what chance would do: expected values, nothing is drawn.

    In a run, sick or healthy alike, it acts with this probability, and then makes any move of the
    scenario's menu, each as likely, at the decision step.

    Args:
        rate: Probability of acting in a run; that of an agent under test, over all its runs.
        scores: Of any agent.
    """
    drawn = [(s, rate * mean(arm.gain for arm in s.arms[1:])) for s in scores]
    gains = [gain / s.oracle.gain for s, gain in drawn if s.gain is not None]
    healthy = [(s, gain) for s, gain in drawn if s.gain is None]
    worst = max((0.0 - gain / s.arms[0].loss for s, gain in healthy), default=nan)
    spared = 1.0 - rate if healthy else nan
    alone = Interval(spared, spared, spared, inf)
    return _summary(RANDOM, gains, alone, worst, sum(s.seeds for s, _ in healthy))


def _summary(
    name: str, gains: Sequence[float], left_alone: Interval, worst: float, healthy: int
) -> Summary:
    return Summary(
        name=name,
        median_gain=median(gains) if gains else nan,
        mean_gain=mean(max(-1.0, min(1.0, gain)) for gain in gains) if gains else nan,
        harmed=sum(gain < 0.0 for gain in gains),
        sick=len(gains),
        left_alone=left_alone.share,
        left_alone_95=(left_alone.low, left_alone.high),
        worst=worst,
        healthy=healthy,
    )


def _by_arm(scenario: Scenario, outcomes: Sequence[Outcome]) -> dict[str, dict[int, Outcome]]:
    found: dict[str, dict[int, Outcome]] = {}
    before: dict[int, set[str]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.arm, {})[outcome.seed] = outcome
        if not outcome.arm.startswith(PILOTED):
            before.setdefault(outcome.seed, set()).add(outcome.before)
    differing = [seed for seed, digests in before.items() if len(digests) > 1]
    if differing:
        raise AutopilotError(
            f"{scenario.name}, seed {differing[0]}: its arms are not the same run up to the "
            "decision; results of different machines cannot be compared: begin with a new --out"
        )
    return found


def _arm(name: str, flown: Mapping[int, Outcome], alone: Mapping[int, Outcome]) -> Arm:
    saved = [alone[seed].val_loss - outcome.val_loss for seed, outcome in flown.items()]
    loss = mean(outcome.val_loss for outcome in flown.values())
    return Arm(name, loss, mean(saved), paired(saved))


def _worst(flown: Mapping[int, Outcome], alone: Mapping[int, Outcome]) -> float:
    return max(o.val_loss / alone[seed].val_loss - 1.0 for seed, o in flown.items())


def paired(differences: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of a mean difference; all numbers where there is one pair only.

    >>> low, high = paired([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    count = len(differences)
    if count < 2:
        return -inf, inf
    reach = _t_95(count - 1) * stdev(differences) / sqrt(count)
    middle = mean(differences)
    return middle - reach, middle + reach


def _t_95(freedom: int) -> float:
    """Abramowitz and Stegun 1964, 26.7.5, where the table ends."""
    if freedom <= len(_T_95):
        return _T_95[freedom - 1]
    z, n = _Z_95, float(freedom)
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n * n)

"""How much an agent saves in real trainings, and what it costs where nothing is wrong.

Every scenario is trained once for each seed left alone, with the agent aboard, and with every move
of its menu; see :mod:`autopilot_evals.forks`. Seeds vary what should not matter: weights, batches,
widths, batch sizes, the step of the fault, how often snapshots are taken.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Literal

import autopilot
import autopilot_evals
import autopilot_trainer
from autopilot.errors import BadInput
from autopilot.policy import read_policy
from autopilot.ports import Agent, Consulting
from autopilot.schema import Consultation, Usage
from autopilot_evals.baselines.pilots import PILOTS
from autopilot_evals.forks import ALONE, PILOTED, Outcome, fly
from autopilot_evals.forks.cadence import default_policy
from autopilot_evals.forks.scores import (
    ScenarioScore,
    Summary,
    acting_rate,
    by_chance,
    habit,
    score,
    summarise,
)
from autopilot_evals.scenarios import SCENARIOS, Move, Scenario
from autopilot_evals.scenarios.moves import REFLEXES
from autopilot_evals.scoring.usage import Metered, card_of, total
from autopilot_evals.suites.engines import Engine
from autopilot_evals.suites.results import (
    Origin,
    Results,
    deciding_digest,
    digest_of,
    folder_of,
    origin_of,
)

TARGET_GAIN = 0.8
TARGET_LEFT_ALONE = 0.95
TARGET_HARM = 0.005

Part = Literal["all", "development", "held_out"]
MakeAgent = Callable[[str], Agent]
Told = Callable[[int, int], None]
"""Told how many trainings are done, and of how many."""


@dataclass(frozen=True)
class Task:
    """One training to do: of an agent, of a move, or left alone where neither is named."""

    scenario: Scenario
    seed: int
    agent: str | None = None
    move: Move | None = None

    @property
    def arm(self) -> str:
        """What its outcome calls it."""
        if self.agent is not None:
            return PILOTED + self.agent
        return ALONE if self.move is None else self.move.name


class Flown(Outcome):
    """What came of one training, and what its agent's models were asked where it has any."""

    consultations: tuple[Consultation, ...] = ()

    @property
    def spent(self) -> Usage | None:
        """What asking took; None where no model was asked."""
        return total(one.usage for one in self.consultations)


@dataclass(frozen=True)
class SandboxReport:
    """The tables of a sandbox suite.

    Attributes:
        scores: By agent, one for each scenario.
        summaries: By part of the scenarios: the agents, habits of acting always alike, chance at
            the rate of the first agent, then agents of others.
        steps: Steps trained, in all.
        seconds: Processor time of the trainings together.
    """

    scores: dict[str, tuple[ScenarioScore, ...]]
    summaries: dict[Part, tuple[Summary, ...]]
    steps: int
    seconds: float


def chosen(names: Sequence[str]) -> tuple[Scenario, ...]:
    """Scenarios by name; all of them where none is named.

    Raises:
        BadInput: There is none of that name.
    """
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        known = ", ".join(SCENARIOS)
        raise BadInput(f"--scenario {unknown[0]}: no such scenario; known: {known}")
    return tuple(SCENARIOS[name] for name in dict.fromkeys(names or SCENARIOS))


def tasks(scenarios: Sequence[Scenario], agents: Sequence[str], seeds: int) -> tuple[Task, ...]:
    """Every training that the suite needs, scenario by scenario."""
    return tuple(
        task
        for scenario in scenarios
        for seed in range(seeds)
        for task in (
            Task(scenario, seed),
            *(Task(scenario, seed, agent=agent) for agent in agents),
            *(Task(scenario, seed, move=move) for move in scenario.moves),
        )
    )


def fly_all(
    wanted: Sequence[Task],
    make_agent: MakeAgent,
    results: Results,
    *,
    engine: Engine,
    told: Told | None = None,
) -> Iterator[Flown]:
    """Do every training, and give each outcome as it comes.

    What ``results`` holds from before is not trained again, unless code that it came of has
    changed since.

    Args:
        wanted: The trainings.
        make_agent: Makes an agent of its name, in the process that trains.
        results: Where outcomes are kept.
        engine: Where they are trained.
        told: Told of the progress of what has to be trained.
    """
    training = _training_digest()
    origins = {name: _origin(make_agent, name) for name in {task.agent for task in wanted}}
    deciding = {
        name: ":".join(filter(None, (deciding_digest(name), origin.model, origin.prompt_sha)))
        for name, origin in origins.items()
    }
    keys = {
        f"sandbox:{task.scenario.name}:{task.scenario.steps}:{task.seed}:{task.arm}:{training}:"
        f"{_own_digest(task.scenario)}:{deciding[task.agent]}": task
        for task in wanted
    }
    known = {key: results.find(key) for key in keys}
    yield from (Flown.model_validate(value) for value in known.values() if value is not None)
    left = {key: task for key, task in keys.items() if known[key] is None}
    flown = engine.each(partial(_train, make_agent), left)
    for done, (key, outcome) in enumerate(flown, start=1):
        results.add(key, outcome.model_dump(mode="json"), origins[left[key].agent])
        if told is not None:
            told(done, len(left))
        yield outcome


def _origin(make_agent: MakeAgent, name: str | None) -> Origin:
    agent = make_agent(name) if name is not None else None
    return origin_of(agent, default_policy(agent))


def _train(make_agent: MakeAgent, task: Task) -> Flown:
    # That a move has no effect, and so cannot be read back, is what some scenarios are about.
    logging.getLogger("autopilot.trainer").setLevel(logging.ERROR)
    agent = make_agent(task.agent) if task.agent is not None else None
    meter = Metered(agent) if isinstance(agent, Consulting) else None
    outcome = fly(task.scenario, task.seed, agent=meter or agent, move=task.move)
    asked = meter.asked() if meter is not None else ()
    return Flown.model_validate({**outcome.model_dump(), "consultations": asked})


def report(
    scenarios: Sequence[Scenario], outcomes: Sequence[Outcome], agents: Sequence[str]
) -> SandboxReport:
    """Score what was flown.

    Raises:
        AutopilotError: Outcomes of one seed come of different trainings.
    """
    by_scenario: dict[str, list[Outcome]] = {scenario.name: [] for scenario in scenarios}
    for outcome in outcomes:
        by_scenario[outcome.scenario].append(outcome)
    scores = {
        agent: tuple(score(one, by_scenario[one.name], agent) for one in scenarios)
        for agent in agents
    }
    parts: tuple[Part, ...] = ("all", "development", "held_out")
    summaries = {part: _summaries(scores, part) for part in parts}
    return SandboxReport(
        scores=scores,
        summaries={part: lines for part, lines in summaries.items() if lines},
        steps=sum(outcome.executed for outcome in outcomes),
        seconds=sum(outcome.seconds for outcome in outcomes),
    )


def _summaries(scores: dict[str, tuple[ScenarioScore, ...]], part: Part) -> tuple[Summary, ...]:
    parted = {
        agent: [one for one in all_of_it if part in ("all", one.split)]
        for agent, all_of_it in scores.items()
    }
    tested = {agent: own for agent, own in parted.items() if agent not in PILOTS}
    name, first = next(iter((tested or parted).items()))
    if not first:
        return ()
    habits = (ALONE, *(move.name for move in REFLEXES))
    return (
        *(summarise(agent, own) for agent, own in tested.items()),
        *(habit(move, first) for move in habits),
        by_chance(acting_rate(scores[name]), first),
        *(
            summarise(f"{agent}, unguarded", own)
            for agent, own in parted.items()
            if agent in PILOTS
        ),
    )


def verdict(line: Summary) -> dict[str, bool]:
    """Which targets an agent reaches; one that nothing was measured for is not reached."""
    return {
        "median_gain": line.median_gain >= TARGET_GAIN,
        "left_alone": line.left_alone >= TARGET_LEFT_ALONE,
        "harm": line.worst <= TARGET_HARM,
    }


def misses(scores: Sequence[ScenarioScore]) -> list[tuple[ScenarioScore, str]]:
    """Scenarios in which an agent falls short, each with how; nothing is asked of a reference."""
    found = []
    for one in scores:
        if one.agent.name in PILOTS:
            continue
        if one.gain is None:
            touched = sum(count > 0 for count in one.interventions)
            if touched:
                words = (
                    f"acted in {touched} of {one.seeds} healthy runs, the worst {one.worst:+.1%}"
                )
                found.append((one, words))
        elif one.gain < TARGET_GAIN:
            found.append((one, f"gained {one.gain:.0%} of what {one.oracle.name!r} gains"))
    return found


def as_json(found: SandboxReport) -> dict[str, object]:
    """The report as plain values."""
    return {
        "suite": "sandbox",
        "policy": read_policy(None).digest(),
        "target": {
            "median_gain": TARGET_GAIN,
            "left_alone": TARGET_LEFT_ALONE,
            "harm": TARGET_HARM,
            "reached": {line.name: verdict(line) for line in _agents_lines(found)},
        },
        "summaries": {
            part: [_plain(line) for line in lines] for part, lines in found.summaries.items()
        },
        "scenarios": {
            agent: [_plain(one) for one in scores] for agent, scores in found.scores.items()
        },
        "misses": {
            agent: [{"scenario": one.scenario, "how": how} for one, how in misses(scores)]
            for agent, scores in found.scores.items()
        },
        "steps": found.steps,
        "seconds": found.seconds,
    }


def flown_by(agents: Sequence[Agent], outcomes: Sequence[Flown]) -> list[dict[str, object]]:
    """Who flew, under which policy, and what all flights of each took, as plain values."""
    spent = {
        agent.name: total(one.spent for one in outcomes if one.arm == PILOTED + agent.name)
        for agent in agents
    }
    return [
        {
            **asdict(card_of(agent)),
            "policy": default_policy(agent).digest(),
            "spent": used.model_dump() if (used := spent[agent.name]) is not None else None,
        }
        for agent in agents
    ]


def _agents_lines(found: SandboxReport) -> list[Summary]:
    return [line for line in found.summaries["all"] if line.name in found.scores]


def _plain(line: Summary | ScenarioScore) -> dict[str, object]:
    return {name: _finite(value) for name, value in asdict(line).items()}


def _finite(value: object) -> object:
    """Without NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _training_digest() -> str:
    """Of the code that all trainings share, and of the default policy with its reflexes."""
    evals, trainer = folder_of(autopilot_evals), folder_of(autopilot_trainer)
    return digest_of(
        [
            *sorted((evals / "scenarios").glob("*.py")),
            *(evals / "forks" / name for name in ("flight.py", "lockstep.py")),
            *sorted(trainer.rglob("*.py")),
            folder_of(autopilot) / "policy.py",
        ]
    )


def _own_digest(scenario: Scenario) -> str:
    """Of the file that a scenario stands in."""
    return digest_of([Path(inspect.getfile(scenario.build))])

"""Forks and the sandbox: real trainings, lock-step flights, scores, resuming, the command line."""

import hashlib
import json
import math
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autopilot.cli import main
from autopilot.errors import AutopilotError
from autopilot.policy import read_policy
from autopilot.schema import (
    Consultation,
    NoProposal,
    Note,
    Proposal,
    ProposalRecord,
    ScaleLR,
    Usage,
    Window,
)
from autopilot_agents.known import make_agent
from autopilot_agents.rules import ObserveAgent, RuleAgent
from autopilot_evals.forks import Applied, Outcome, fly
from autopilot_evals.forks.scores import (
    ScenarioScore,
    acting_rate,
    by_chance,
    habit,
    score,
    summarise,
)
from autopilot_evals.scenarios import SCENARIOS, Arm, Batch, Move, Scenario, Setup
from autopilot_evals.scenarios.moves import BACK_AND_FOLLOW_PLAN, HALVE, TENTH
from autopilot_evals.suites import sandbox
from autopilot_evals.suites.engines import Processes
from autopilot_evals.suites.results import Results

HEALTHY = replace(SCENARIOS["healthy"], steps=150, delay=60)
JUMP = replace(SCENARIOS["schedule-jump"], steps=240)


def timeless(outcome: Outcome) -> Outcome:
    return outcome.model_copy(update={"seconds": 0.0, "arm": ""})


def test_a_fork_that_does_nothing_is_the_run_left_alone_bit_for_bit() -> None:
    alone = timeless(fly(HEALTHY, 3))
    noted = Move("a note", (Note(text="nothing to do"),))
    assert timeless(fly(HEALTHY, 3, move=noted)) == alone
    assert timeless(fly(HEALTHY, 3, agent=ObserveAgent())) == alone
    assert timeless(fly(HEALTHY, 3, move=HALVE)).whole != alone.whole


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_the_run_left_alone_is_the_loop_without_any_session() -> None:
    setup = HEALTHY.build(3, "sick", HEALTHY.steps)
    digest, main_steps = hashlib.sha256(), 120
    for step in range(HEALTHY.steps):
        if step >= main_steps:
            setup.optimizer.param_groups[0]["lr"] = setup.schedule(main_steps) * (
                1.0 - (step - main_steps) / (HEALTHY.steps - main_steps)
            )
        loss = setup.loss(setup.batches[step])
        setup.backward(loss)
        setup.update()
        digest.update(struct.pack("<d", loss.item()))
    final = setup.evaluate()
    outcome = fly(HEALTHY, 3)
    assert (outcome.whole, outcome.val_loss) == (digest.hexdigest()[:16], final)
    assert outcome.executed == HEALTHY.steps


def test_the_same_seed_gives_the_same_flight_with_its_interventions() -> None:
    first, second = (fly(JUMP, 0, agent=RuleAgent()) for _ in range(2))
    assert timeless(first) == timeless(second)
    assert [one.answer for one in first.applied] == ["rollback+set_lr"]
    assert first.applied[0].cause == "schedule_fault"
    assert timeless(fly(JUMP, 1, agent=RuleAgent())) != timeless(first)


@pytest.mark.parametrize(
    ("name", "steps", "answer"),
    [
        ("weight-decay", 120, "set_optimizer"),
        ("noisy-shard", 240, "set_knob"),
        ("post-norm-collapse", 240, "rollback+scale_lr"),
    ],
)
def test_the_fault_is_named_and_mended_and_the_model_is_better_for_it(
    name: str, steps: int, answer: str
) -> None:
    scenario = replace(SCENARIOS[name], steps=steps, delay=steps // 2)
    mended = fly(scenario, 0, agent=RuleAgent())
    assert [one.answer for one in mended.applied] == [answer]
    assert mended.applied[0].cause == scenario.cause
    assert not mended.applied[0].undone
    assert mended.val_loss < fly(scenario, 0).val_loss


def test_all_arms_are_one_run_up_to_the_decision_and_cost_the_same() -> None:
    arms = [fly(JUMP, 2), *(fly(JUMP, 2, move=move) for move in (TENTH, BACK_AND_FOLLOW_PLAN))]
    assert len({arm.before for arm in arms}) == 1
    assert len({arm.whole for arm in arms}) == 3
    assert {arm.executed for arm in arms} == {JUMP.steps}
    alone, tenth, back = (arm.val_loss for arm in arms)
    assert back < alone - 0.1
    assert back < tenth - 0.1


class Spied(Sequence[Batch]):
    """Batches that note the learning rate in force, seen after the session's own hook."""

    def __init__(self, setup: Setup, seen: list[float]) -> None:
        self.setup, self.seen, self.hooked = setup, seen, False

    def __len__(self) -> int:
        return len(self.setup.batches)

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        if not self.hooked:
            self.hooked = True
            self.setup.optimizer.register_step_pre_hook(
                lambda optimizer, *_: self.seen.append(optimizer.param_groups[0]["lr"])
            )
        return self.setup.batches[cursor]


def test_the_cool_down_has_the_same_learning_rates_whatever_was_done_before() -> None:
    seen: list[float] = []

    def build(seed: int, arm: Arm, steps: int) -> Setup:
        setup = SCENARIOS["schedule-jump"].build(seed, arm, steps)
        return replace(setup, batches=Spied(setup, seen))

    spied = replace(JUMP, build=build)
    courses = []
    for move in (None, TENTH, BACK_AND_FOLLOW_PLAN):
        seen.clear()
        fly(spied, 0, move=move)
        courses.append(tuple(seen))
    cool = int(0.2 * JUMP.steps)
    ends = {course[-cool:] for course in courses}
    assert len(ends) == 1
    end = ends.pop()
    assert end[0] == JUMP.build(0, "reference", JUMP.steps).schedule(JUMP.steps - cool)
    assert list(end) == sorted(end, reverse=True)
    assert 0 < end[-1] < 0.05 * end[0]
    assert len({course[-cool - 1] for course in courses}) == 3


class Meddler:
    """Halves the learning rate of every run with an episode, and asks to stop a healthy one."""

    name = "meddler"

    def propose(self, window: Window) -> Proposal | NoProposal:
        assert window.episode is not None
        return Proposal(interventions=(ScaleLR(factor=0.5),), episode=window.episode.id)


def test_what_the_policy_asks_a_person_about_is_not_done() -> None:
    outcome = fly(JUMP, 0, agent=Meddler())
    assert outcome.asked[0] == "scale_lr"
    assert outcome.applied == ()
    assert outcome.whole == fly(JUMP, 0).whole


def test_a_move_that_the_run_cannot_make_is_an_error() -> None:
    unknown = Move("a knob", (SCENARIOS["data-repeat"].moves[-2].interventions[0],))
    with pytest.raises(AutopilotError, match="set_knob is not supported"):
        fly(HEALTHY, 0, move=unknown)


# --- scores ---------------------------------------------------------------------------------------


def outcome(arm: str, seed: int, loss: float, **more: Any) -> Outcome:
    fields = {"scenario": "made-up", "executed": 100, "decided_at": 10, "whole": f"{arm}{seed}"}
    return Outcome(arm=arm, seed=seed, val_loss=loss, before=f"b{seed}", **(fields | more))


def acted(answer: str) -> tuple[Applied, ...]:
    return (Applied(step=12, answer=answer, cause="lr_too_high", undone=False),)


def made_up(family: Any = "damaged") -> Scenario:
    return replace(
        SCENARIOS["lr-too-high"],
        name="made-up",
        family=family,
        moves=(HALVE, TENTH),
        acceptable=("rollback+scale_lr",) if family == "damaged" else ("nothing",),
        harmful=("scale_lr",),
    )


def flown(losses: dict[str, tuple[float, ...]]) -> list[Outcome]:
    return [
        outcome(arm, seed, loss, applied=acted("scale_lr") if "agent" in arm and seed else ())
        for arm, all_of_it in losses.items()
        for seed, loss in enumerate(all_of_it)
    ]


def scored(family: str, losses: dict[str, tuple[float, ...]]) -> ScenarioScore:
    return score(made_up(family), flown(losses), "rules")


def test_the_best_move_is_the_one_with_the_best_mean_and_not_the_best_of_each_seed() -> None:
    found = scored(
        "damaged",
        {
            "no-op": (3.0, 3.0, 3.0),
            "lr x 0.5": (2.0, 2.9, 2.9),
            "lr x 0.1": (2.5, 2.5, 2.5),
            "agent:rules": (2.6, 2.6, 2.6),
        },
    )
    assert found.oracle.name == "lr x 0.1"
    assert found.gain == pytest.approx(0.8)
    assert found.gain_95 == pytest.approx((0.8, 0.8))
    assert found.regret == pytest.approx(0.1)
    assert found.interventions == (0, 1, 1)
    assert found.answers == ("nothing", "scale_lr", "scale_lr")
    assert found.grades == ("unlisted", "harmful", "harmful")
    assert found.named == 2


def test_what_acting_costs_a_healthy_run_is_its_worst_and_never_an_average() -> None:
    found = scored(
        "benign",
        {
            "no-op": (2.0, 2.0),
            "lr x 0.5": (2.2, 2.2),
            "lr x 0.1": (2.1, 2.3),
            "agent:rules": (2.0, 2.1),
        },
    )
    assert found.gain is None
    assert found.worst == pytest.approx(0.05)
    line = summarise("rules", [found])
    assert (line.sick, line.healthy, line.left_alone) == (0, 2, 0.5)
    assert line.worst == pytest.approx(0.05)
    assert sandbox.verdict(line) == {"median_gain": False, "left_alone": False, "harm": False}
    assert habit("lr x 0.5", [found]).worst == pytest.approx(0.1)
    assert habit("no-op", [found]).left_alone == 1.0
    assert habit("no-op", [found]).name == "never"
    assert "1 of 2" in sandbox.misses([found])[0][1]


def test_chance_acts_as_often_as_the_agent_and_makes_any_move_of_the_menu() -> None:
    sick = scored(
        "damaged",
        {
            "no-op": (3.0, 3.0),
            "lr x 0.5": (2.0, 2.0),
            "lr x 0.1": (3.5, 3.5),
            "agent:rules": (2.0, 2.0),
        },
    )
    healthy = scored(
        "benign",
        {
            "no-op": (2.0, 2.0),
            "lr x 0.5": (2.2, 2.2),
            "lr x 0.1": (2.6, 2.6),
            "agent:rules": (2.0, 2.0),
        },
    )
    calm = replace(healthy, interventions=(0, 0))
    assert (acting_rate([sick, calm]), acting_rate([sick, healthy])) == (0.25, 0.5)
    line = by_chance(0.25, [sick, calm])
    assert line.name == "random at our rate"
    assert line.median_gain == pytest.approx(0.25 * (1.0 - 0.5) / 2)
    assert (line.sick, line.harmed, line.healthy) == (1, 0, 2)
    assert line.left_alone == 0.75
    assert line.left_alone_95 == (0.75, 0.75)
    assert line.worst == pytest.approx(0.25 * (0.2 + 0.6) / 2 / 2.0)
    assert math.isnan(by_chance(0.25, [sick]).left_alone)


def test_arms_of_different_trainings_are_never_compared() -> None:
    losses = dict.fromkeys(("no-op", "lr x 0.5", "lr x 0.1", "agent:rules"), (2.0,))
    outcomes = flown(losses)
    outcomes[1] = outcomes[1].model_copy(update={"before": "other"})
    with pytest.raises(AutopilotError, match="not the same run"):
        score(made_up(), outcomes, "rules")


# --- the suite ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_evaluation_goes_on_where_it_stopped_and_processes_change_nothing(
    tmp_path: Path,
) -> None:
    tiny = replace(HEALTHY, steps=80, delay=30, moves=(HALVE, TENTH))
    wanted = sandbox.tasks([tiny], ["observe"], 2)
    assert len(wanted) == 8
    told: list[tuple[int, int]] = []

    def go(out: Path, jobs: int) -> list[Outcome]:
        told.clear()
        results = Results(out)
        outcomes = sandbox.fly_all(
            wanted, make_agent, results, engine=Processes(jobs), told=lambda *now: told.append(now)
        )
        return sorted((o.model_copy(update={"seconds": 0.0}) for o in outcomes), key=str)

    out = tmp_path / "sandbox.jsonl"
    first = go(out, 1)
    assert told == [(done, 8) for done in range(1, 9)]
    lines = out.read_text().splitlines()
    out.write_text("\n".join(lines[:5]) + "\n" + lines[5][:50])
    assert go(out, 1) == first
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert go(tmp_path / "other.jsonl", 2) == first


class Billed(RuleAgent):
    """The rule agent, as if each of its answers were a model's."""

    name = "billed"
    model = "oracle-1"
    prompt_sha = "5eed"

    def __init__(self) -> None:
        self._asked: list[Consultation] = []

    def propose(self, window: Window) -> Proposal | NoProposal:
        self._asked.append(self._consultation())
        return super().propose(window)

    def known(self, window: Window) -> None:
        return None

    def review(self, record: ProposalRecord, window: Window) -> Consultation:
        return self._consultation()

    def consultations(self) -> list[Consultation]:
        asked, self._asked = self._asked, []
        return asked

    def _consultation(self) -> Consultation:
        return Consultation(
            purpose="diagnose",
            model=self.model,
            host="example.org",
            prompt="diagnose@1",
            prompt_sha=self.prompt_sha,
            outcome="proposal",
            usage=Usage(calls=2, input_tokens=1000, price_usd=0.01, seconds=1.0),
        )


def test_a_flight_says_which_model_it_came_of_and_what_that_took(tmp_path: Path) -> None:
    out, wanted = tmp_path / "out.jsonl", [sandbox.Task(JUMP, 0, agent="billed")]

    def go() -> sandbox.Flown:
        flights = sandbox.fly_all(wanted, lambda _: Billed(), Results(out), engine=Processes(1))
        (flight,) = flights
        return flight

    flight = go()
    assert flight.spent is not None
    asked = flight.spent.calls // 2
    assert asked >= 1
    assert flight.spent.price_usd == pytest.approx(0.01 * asked)
    (row,) = map(json.loads, out.read_text().splitlines())
    assert (row["origin"]["agent"], row["origin"]["model"]) == ("billed", "oracle-1")
    assert row["origin"]["policy"] == read_policy(None).digest()
    assert go() == flight
    (told,) = sandbox.flown_by([Billed()], [flight])
    assert (told["model"], told["prompt_sha"]) == ("oracle-1", "5eed")
    assert told["spent"] == flight.spent.model_dump()
    (free,) = sandbox.flown_by([RuleAgent()], [flight])
    assert free["spent"] is None


def evaluate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["autopilot", "eval", "sandbox", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_the_command_trains_scores_and_tells_the_targets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(SCENARIOS, JUMP.name, JUMP)  # as long as a rescue takes, and no longer
    words = ("--scenario", JUMP.name, "--seeds", "1", "--jobs", "1")
    words += ("--agent", "rules", "--agent", "observe", "--out", str(tmp_path / "out.jsonl"))
    code, out, err = evaluate(capsys, monkeypatch, *words, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    rules, observe = (found["scenarios"][name][0] for name in ("rules", "observe"))
    assert rules["oracle"]["name"] == "go back, follow the plan"
    assert rules["gain"] > 0.8
    assert rules["grades"] == ["acceptable"]
    assert (observe["gain"], observe["interventions"]) == (0.0, [0])
    assert found["target"]["reached"]["observe"]["median_gain"] is False
    assert [miss["scenario"] for miss in found["misses"]["observe"]] == ["schedule-jump"]
    code, out, err = evaluate(capsys, monkeypatch, *words)
    assert (code, err) == (0, "")
    assert "best move" in out
    assert "observe falls short in schedule-jump" in out
    assert "observe: targets missed" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(("--scenario", "nonsense"), "lr-too-high"), (("--agent", "nobody"), "nobody")],
)
def test_a_wrong_name_is_one_clear_line(
    words: tuple[str, ...],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, out, err = evaluate(capsys, monkeypatch, *words)
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1

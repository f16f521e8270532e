"""The pilot's loop, over the real control plane and without the network."""

import dataclasses
from collections.abc import Callable, Sequence

import pytest
from control.bench import ASKING, KIM, OPEN, RULES, Bench

from autopilot.control import PlaneRun
from autopilot.errors import Unreachable
from autopilot.loop import Autopilot
from autopilot.schema import (
    Event,
    NoProposal,
    Note,
    Pause,
    Proposal,
    ProposalRecord,
    ScaleLR,
    SetLR,
    Window,
)
from autopilot_agents.rules import ObserveAgent, RuleAgent


class BenchRun(PlaneRun):
    """The run on the bench, as the agent ``rules`` reaches it until it is gone."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.plane, RULES)
        self.gone = False

    def events(self, after: int, *, wait: float = 0.0) -> Sequence[Event]:
        if self.gone:
            raise Unreachable("gone")
        return super().events(after)


@dataclasses.dataclass
class Person:
    """An approver that only remembers what it was shown."""

    offered: list[str] = dataclasses.field(default_factory=list)
    withdrawn: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    windows: list[Window] = dataclasses.field(default_factory=list)

    def offer(self, record: ProposalRecord, window: Window) -> None:
        self.offered.append(record.id)
        self.windows.append(window)

    def withdraw(self, proposal_id: str, reason: str) -> None:
        self.withdrawn.append((proposal_id, reason))


@dataclasses.dataclass
class Says:
    """An agent that always gives the same answer, and remembers how often it was asked."""

    answer: Callable[[Window], Proposal | NoProposal]
    name: str = "says"
    asked: int = 0

    def propose(self, window: Window) -> Proposal | NoProposal:
        self.asked += 1
        return self.answer(window)


def test_nothing_happens_where_nothing_is_wrong() -> None:
    bench = Bench(OPEN)
    agent = Says(lambda window: Proposal(interventions=(Pause(),)))
    pilot = Autopilot(BenchRun(bench), agent)
    bench.rows(50)
    pilot.look()
    assert agent.asked == 0
    assert bench.plane.proposals() == []
    assert bench.plane.info().pilot is not None


def test_an_open_episode_is_proposed_for_once() -> None:
    bench = Bench(OPEN)
    pilot = Autopilot(BenchRun(bench), RuleAgent())
    episode = bench.break_schedule()
    pilot.look()
    pilot.look()
    (record,) = bench.plane.proposals()
    assert record.proposal.interventions == (SetLR(value="plan"),)
    assert (record.proposal.episode, record.status) == (episode, "queued")
    bench.apply()
    pilot.look()
    assert len(bench.plane.proposals()) == 1


def test_a_pilot_that_starts_again_goes_on_from_the_journal() -> None:
    bench = Bench(ASKING.format(on_expiry="nothing"))
    bench.break_schedule()
    Autopilot(BenchRun(bench), RuleAgent()).look()
    person = Person()
    Autopilot(BenchRun(bench), RuleAgent(), person).look()
    assert [record.id for record in bench.plane.proposals()] == ["P1"]
    assert person.offered == ["P1"]


def test_a_fault_of_the_agent_is_told_and_is_no_action(caplog: pytest.LogCaptureFixture) -> None:
    def broken(window: Window) -> Proposal:
        raise RuntimeError("no idea")

    bench = Bench(OPEN)
    bench.break_schedule()
    Autopilot(BenchRun(bench), Says(broken)).look()
    assert bench.plane.proposals() == []
    (told,) = [e for e in bench.plane.events(0) if e.kind == "no_proposal"]
    assert told.body["no_proposal"]["kind"] == "fault"
    assert "no idea" in told.body["no_proposal"]["reason"]
    assert "no idea" in caplog.text


def test_why_nothing_is_proposed_is_journaled_once() -> None:
    bench = Bench(OPEN)
    bench.break_schedule()
    pilot = Autopilot(BenchRun(bench), ObserveAgent())
    for _ in range(5):
        bench.rows(10, lr=0.0)
        pilot.look()
    assert bench.kinds().count("no_proposal") == 1


def test_what_the_policy_denies_is_not_asked_again_and_again() -> None:
    bench = Bench('default = "deny"\n')
    bench.break_schedule()
    pilot = Autopilot(BenchRun(bench), RuleAgent())
    for _ in range(5):
        pilot.look()
    assert [record.status for record in bench.plane.proposals()] == ["denied"]


def test_a_stale_proposal_is_thought_over_again() -> None:
    bench = Bench(OPEN)
    bench.break_schedule()
    stale = Says(lambda w: Proposal(interventions=(Note(text="x"),), state_version=99))
    pilot = Autopilot(BenchRun(bench), stale)
    pilot.look()
    assert bench.plane.proposals() == []
    bench.rows(10, lr=0.0)
    pilot.look()
    assert stale.asked == 2


def test_what_waits_is_taken_to_the_person_and_withdrawn_when_settled_elsewhere() -> None:
    bench = Bench(ASKING.format(on_expiry="nothing"))
    person = Person()
    pilot = Autopilot(BenchRun(bench), RuleAgent(), person)
    bench.break_schedule()
    pilot.look()
    pilot.look()
    assert person.offered == ["P1"]
    assert person.windows[0].episode is not None
    record = bench.plane.proposal("P1")
    bench.plane.decide("P1", "deny", actor=KIM, digest=record.digest)
    pilot.look()
    assert person.withdrawn == [("P1", f"denied by {KIM}")]
    pilot.look()
    assert person.offered == ["P1"], "what a person denied is not asked again"


def test_what_another_agent_proposed_is_taken_to_the_person_too() -> None:
    bench = Bench(ASKING.format(on_expiry="nothing"))
    person = Person()
    pilot = Autopilot(BenchRun(bench), RuleAgent(), person)
    bench.propose(ScaleLR(factor=0.5), actor="agent:other")
    pilot.look()
    assert person.offered == ["P1"]
    bench.clock.time += 61
    bench.plane.tick()
    pilot.look()
    assert person.withdrawn == [("P1", "expired by system")]


def test_it_ends_with_the_run_and_withdraws_what_waits() -> None:
    bench = Bench(ASKING.format(on_expiry="nothing"))
    person = Person()
    pilot = Autopilot(BenchRun(bench), RuleAgent(), person)
    bench.break_schedule()
    pilot.look()
    bench.plane.end("ended", "done")
    pilot.fly()
    assert pilot.ended
    assert person.withdrawn == [("P1", "the run has ended")]


def test_a_run_that_is_gone_ends_the_flight_quietly() -> None:
    run = BenchRun(Bench(OPEN))
    run.gone = True
    pilot = Autopilot(run, RuleAgent())
    pilot.fly()
    assert not pilot.ended

"""What becomes of a change once it is in force, with no pilot attached."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e.flying import autopilot
from torch.optim import SGD
from trainer.loops import make_batches, make_model, running

from autopilot.client import HttpRun, connect
from autopilot.errors import Refused
from autopilot.policy import Breaker, Budget, Cooldown, InterventionBudget, PerDay, Policy, Rule
from autopilot.schema import (
    Canary,
    Pause,
    Proposal,
    ProposalRecord,
    Resume,
    ScaleLR,
    SetLR,
)
from autopilot_trainer import Session

EVERYTHING = Policy(
    default="allow",
    rules=(Rule(name="anything", kinds=("*",), verdict="allow"),),
    cooldown=Cooldown(steps=0, same_episode=0),
    budget=Budget(
        interventions=InterventionBudget(per_1000_steps=99, per_day=99),
        rollbacks=PerDay(per_day=99),
    ),
    breaker=Breaker(failed_canaries=2),
)


class Flight:
    """A loop whose reported loss the test decides, an agent, and a person."""

    def __init__(self, session: Session, agent: HttpRun, person: HttpRun, optimizer: SGD) -> None:
        self.session, self.agent, self.person = session, agent, person
        self.used: list[float] = []
        optimizer.register_step_pre_hook(lambda o, *_: self.used.append(o.param_groups[0]["lr"]))
        self._optimizer = optimizer
        self._batches = session.batches(make_batches(), steps=10**6)

    def propose(self, *changes: Any, **terms: Any) -> str:
        key = f"key-{len(self.agent.proposals())}"
        return self.agent.propose(Proposal(interventions=changes, **terms), key=key).id

    def fly(self, steps: int, loss: float) -> None:
        """So many steps, each seen by the control plane before the next."""
        for _ in range(steps):
            next(self._batches)
            self._optimizer.step()
            self.session.report(loss=loss)
            self.agent.rows(last=1)  # the plane reads what is waiting

    def __getitem__(self, proposal: str) -> ProposalRecord:
        return self.agent.proposal(proposal)


@contextmanager
def flying(folder: Path, policy: Policy = EVERYTHING) -> Iterator[Flight]:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with (
        running(folder, model, optimizer, policy=policy) as (session, person),
        connect(str(session.run_dir), "agent", "tester") as agent,
    ):
        yield Flight(session, agent, person, optimizer)


def typed(*words: str) -> str:
    """What the command line answers to a person."""
    done = autopilot(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def flight(tmp_path: Path) -> Iterator[Flight]:
    with flying(tmp_path) as found:
        yield found


def test_a_canary_that_fails_undoes_its_change_by_itself(flight: Flight) -> None:
    flight.fly(10, loss=1.0)
    change = flight.propose(ScaleLR(factor=0.5), canary=Canary(steps=10))
    flight.fly(11, loss=5.0)
    flight.fly(4, loss=1.0)
    record = flight[change]
    assert record.status == "reverted"
    assert record.canary is not None
    assert record.canary.bound == pytest.approx(1.06), "fixed before, from what was seen before"
    assert record.canary_result is not None
    assert (record.canary_result.result, record.canary_result.value) == ("reverted", 5.0)
    undo = next(r for r in flight.agent.proposals() if r.reverts == change)
    assert undo.actor == "system"
    assert undo.receipt is not None
    assert undo.receipt.proven
    assert flight.used[10:20] == [0.05] * 10
    assert flight.used[22:] == [0.1] * len(flight.used[22:])


def test_a_loss_that_is_not_finite_fails_a_canary_at_once(flight: Flight) -> None:
    flight.fly(10, loss=1.0)
    change = flight.propose(ScaleLR(factor=0.5), canary=Canary(steps=100))
    flight.fly(1, loss=1.0)
    flight.fly(5, loss=float("nan"))
    assert flight[change].status == "reverted"
    assert flight.used[-1] == 0.1


def test_a_canary_that_passes_keeps_its_change(flight: Flight) -> None:
    flight.fly(10, loss=1.0)
    change = flight.propose(ScaleLR(factor=0.5), canary=Canary(steps=10))
    flight.fly(6, loss=5.0)  # what comes early does not count
    flight.fly(8, loss=0.9)
    record = flight[change]
    assert record.status == "kept"
    assert record.canary_result is not None
    assert record.canary_result.result == "kept"
    assert flight.used[-1] == 0.05


def test_a_lease_that_nobody_confirms_runs_out(flight: Flight) -> None:
    flight.fly(3, loss=1.0)
    change = flight.propose(ScaleLR(factor=0.5), lease_steps=6)
    flight.fly(12, loss=1.0)
    assert flight[change].status == "reverted"
    assert "lease" in flight[change].reason
    assert flight.used[-1] == 0.1


def test_neither_a_lease_nor_its_agent_undoes_what_a_person_set_since(flight: Flight) -> None:
    flight.fly(3, loss=1.0)
    change = flight.propose(ScaleLR(factor=0.5), lease_steps=10)
    flight.fly(3, loss=1.0)
    flight.person.command((SetLR(value=0.02),), key="k")
    flight.fly(3, loss=1.0)
    with pytest.raises(Refused, match=r"P2 of a person set lr(\[0\])? since"):
        flight.agent.revert(change)
    flight.fly(20, loss=1.0)
    assert flight.used[-20:] == [0.02] * 20
    assert "P1 was to be undone" in typed("log", str(flight.session.run_dir))
    flight.person.revert(change)
    flight.fly(3, loss=1.0)
    assert flight.used[-1] == 0.04


@pytest.mark.parametrize("canary_steps", [3, 100])
def test_what_is_confirmed_is_kept(canary_steps: int, flight: Flight) -> None:
    flight.fly(10, loss=1.0)
    canary = Canary(steps=canary_steps)
    change = flight.propose(ScaleLR(factor=0.5), lease_steps=10, canary=canary)
    flight.fly(6, loss=1.0)
    assert "kept" in typed("confirm", str(flight.session.run_dir), change)
    flight.fly(30, loss=9.0)
    assert flight[change].status == "kept"
    assert flight.used[-1] == 0.05
    with pytest.raises(Refused):
        flight.person.confirm(change)


def test_a_newer_change_voids_the_canary_of_an_older(flight: Flight) -> None:
    flight.fly(10, loss=1.0)
    older = flight.propose(ScaleLR(factor=0.5), canary=Canary(steps=20))
    flight.fly(5, loss=1.0)
    newer = flight.propose(ScaleLR(factor=0.5), canary=Canary(steps=20))
    flight.fly(30, loss=9.0)
    result = flight[older].canary_result
    assert result is not None
    assert (flight[older].status, result.result) == ("kept", "void")
    assert newer in result.reason
    assert flight[newer].status == "reverted"
    assert flight.used[-1] == 0.05, "the older change stays"


def test_a_pause_leaves_a_canary_watching(flight: Flight) -> None:
    flight.fly(10, loss=1.0)
    change = flight.propose(ScaleLR(factor=0.5), canary=Canary(steps=10))
    flight.fly(4, loss=1.0)
    flight.person.command((Pause(), Resume()))
    flight.fly(10, loss=9.0)
    assert flight[change].status == "reverted"


def test_the_breaker_opens_after_so_many_failures(flight: Flight) -> None:
    for _ in range(2):
        flight.fly(10, loss=1.0)
        assert not flight.agent.info().breaker_open
        change = flight.propose(ScaleLR(factor=0.5), canary=Canary(steps=5, bound=1.5))
        flight.fly(10, loss=9.0)
        assert flight[change].status == "reverted"
    assert flight.agent.info().breaker_open
    asked = flight[flight.propose(ScaleLR(factor=0.5))]
    assert (asked.status, asked.verdict.rule) == ("pending", "breaker")
    reset = "reset-breaker", str(flight.session.run_dir)
    assert "judge again" in typed(*reset)
    assert not flight.agent.info().breaker_open
    assert "not open" in typed(*reset)
    judged = flight[flight.propose(ScaleLR(factor=0.7))]
    assert judged.verdict.decision == "allow"

"""The policy as law: whoever does whatever in whatever order, nothing happens outside it."""

from collections.abc import Callable, Iterator
from typing import Any

import drawn
import pytest
from control.bench import ASKING, KIM, OPEN, RULES, Bench
from control.lawbook import DAY, ON_COURSE, Deed, Settings, check_ledgers, check_limits, check_rules
from control.unruly import Unruly, mild
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from autopilot.errors import StaleProposal
from autopilot.guard import Past, Situation, batches_skipped, review
from autopilot.policy import Policy
from autopilot.schema import Pause, Proposal, Receipt, ScaleLR, SetLR, SkipBatches

# --- sequences of verdicts, without a run ---------------------------------------------------------

turns = st.lists(
    st.tuples(
        st.sampled_from([*drawn.AGENTS, KIM]),
        st.one_of(drawn.mild, drawn.mild, drawn.interventions).map(lambda one: (one,)) | mild,
        st.sampled_from([None, "e1"]),
        st.sampled_from([0, 5, 40, 1000]),
        st.sampled_from([1.0, 600.0, DAY / 3, -600.0]),
    ),
    min_size=1,
    max_size=5,
)
STATES = (drawn.checkpoint("c0", 0, good=True), drawn.checkpoint("c1", 590, good=False))


class Judged:
    """A run in figures, under the guard alone; whatever asks is approved."""

    examples = 0

    def __init__(self, policy: Policy) -> None:
        self.policy, self.settings = policy, Settings()
        self.executed, self.time = 5000, 1e6
        self.history, self.deeds = list[Past](), list[Deed]()

    def situation(self, actor: str) -> Situation:
        return Situation(
            actor=actor,
            role="agent" if actor.startswith("agent:") else "operator",
            step=600,
            executed=self.executed,
            time=self.time,
            capabilities=drawn.capabilities(self.settings.factors),
            checkpoints=STATES,
        )

    def propose(self, actor: str, proposal: Proposal) -> None:
        here, history = self.situation(actor), tuple(self.history)
        verdict = review(self.policy, proposal, here, history)
        assert review(self.policy, proposal, here, history) == verdict, "not the same again"
        doing, agent = proposal.interventions, here.role == "agent"
        if agent and verdict.decision != "deny":
            check_ledgers(
                self.policy, self.deeds, doing, proposal.episode, self.executed, self.time
            )
            if verdict.decision == "allow":
                check_rules(self.policy, doing, verdict.rule)
        if agent and verdict.decision == "ask":
            verdict = review(self.policy, proposal, self.situation(KIM), history)
        if verdict.decision == "allow":
            check_limits(self.policy, self.settings, doing)
            self.settings = self.settings.after(doing)
            if agent or any(i.kind not in ON_COURSE for i in doing):
                self._remember(actor, proposal)

    def _remember(self, actor: str, proposal: Proposal) -> None:
        doing, episode = proposal.interventions, proposal.episode
        kinds, skipped = tuple(i.kind for i in doing), batches_skipped(doing)
        self.history.append(Past(actor, kinds, self.executed, self.time, episode, skipped))
        self.deeds.append(Deed(actor, doing, episode, self.executed, self.time))


def no_sequence_leaves_the_policy(policy: Policy, sequence: list[Any]) -> None:
    Judged.examples += 1
    run = Judged(policy)
    for actor, wanted, episode, steps, seconds in sequence:
        run.propose(actor, Proposal(interventions=wanted, episode=episode))
        run.executed, run.time = run.executed + steps, run.time + seconds


def hold_the_law(sequences: int, runs: int) -> str:
    """Both machines, with so many examples; says how many there were."""
    Judged.examples = Unruly.examples = 0
    drawn.hold(
        no_sequence_leaves_the_policy, drawn.lively | drawn.policies, turns, examples=sequences
    )
    calmly = [HealthCheck.too_slow]
    machine = settings(max_examples=runs, deadline=None, suppress_health_check=calmly)
    run_state_machine_as_test(Unruly, settings=settings(machine, stateful_step_count=30))
    return f"{Judged.examples} sequences of verdicts and {Unruly.examples} runs"


def test_nothing_that_anybody_does_in_whatever_order_leaves_the_policy() -> None:
    hold_the_law(sequences=200, runs=50)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_does_in_a_hundred_thousand_examples(capsys: pytest.CaptureFixture[str]) -> None:
    held = hold_the_law(sequences=98_000, runs=2_000)
    assert Judged.examples + Unruly.examples >= 100_000
    with capsys.disabled():
        print(f"\n{held}: nothing outside the policy")


# --- what was found by it -------------------------------------------------------------------------


@pytest.fixture
def bench() -> Iterator[Callable[[str], Bench]]:
    made = list[Bench]()

    def make(policy: str) -> Bench:
        made.append(Bench(policy))
        return made[-1]

    yield make
    for bench in made:
        bench.plane.close()


Make = Callable[[str], Bench]


def _done(b: Bench, factor: float) -> str:
    record = b.propose(ScaleLR(factor=factor), key=f"{factor} {b.plane.info().seq}")
    b.apply()
    assert b.status(record) in ("applied", "kept")
    return record.id


def test_an_agent_that_undoes_its_cuts_and_not_its_raises_stays_within_limits(bench: Make) -> None:
    b = bench(OPEN)
    cuts = [cut for cut, _ in ((_done(b, 0.25), _done(b, 4.0)) for _ in range(3))]
    assert b.side.factor == 1.0
    for cut in cuts:
        b.plane.revert(cut, actor=RULES, role="agent")
        b.apply()
    assert b.side.factor == 16.0
    last = b.plane.proposals()[-1]
    assert last.status == "rejected"
    assert "limits.lr.total_factor" in last.reason
    assert b.status(b.plane.proposal(cuts[-1])) in ("applied", "kept")


def test_an_undo_may_raise_as_much_at_once_as_was_cut(bench: Make) -> None:
    b = bench(OPEN)
    cut = _done(b, 0.05)
    b.propose(SkipBatches(count=1))
    b.apply()
    b.plane.revert(cut, actor=RULES, role="agent")
    b.apply()
    assert b.side.factor == pytest.approx(1.0)


def test_what_went_past_the_limits_by_force_is_gone_back_to_when_nothing_came_after(
    bench: Make,
) -> None:
    b = bench(OPEN)
    b.plane.command((ScaleLR(factor=100),), actor=KIM, key="k", force=True)
    b.apply()
    back = b.plane.command((SetLR(value="plan"),), actor=KIM, key="l")
    b.apply()
    b.plane.revert(back.id, actor=KIM, role="operator")
    b.apply()
    assert b.side.factor == 100


@pytest.mark.parametrize("seconds", [0.0, -3600.0])
def test_an_approval_is_stale_whatever_the_clock_did_since(bench: Make, seconds: float) -> None:
    b = bench(ASKING.format(on_expiry="nothing"))
    waiting = b.propose(ScaleLR(factor=0.5))
    b.clock.time += seconds
    b.plane.command((SetLR(value="plan"),), actor=KIM, key="k")
    b.apply()
    with pytest.raises(StaleProposal):
        b.plane.decide(waiting.id, "approve", actor=KIM, digest=waiting.digest)


def test_what_nobody_answered_is_not_done_to_a_run_that_was_changed_since(bench: Make) -> None:
    b = bench(ASKING.format(on_expiry="allow_reversible"))
    waiting = b.propose(ScaleLR(factor=0.5))
    b.plane.command((ScaleLR(factor=0.9),), actor=KIM, key="k")
    b.apply()
    b.clock.time += 61
    b.plane.tick()
    assert not b.apply()
    settled = b.plane.proposal(waiting.id)
    assert settled.status == "expired"
    assert "P2 changed the run" in settled.reason


def test_what_a_person_keeps_is_on_its_way_until_it_is_read_back(bench: Make) -> None:
    b = bench(OPEN)
    first = b.plane.command((ScaleLR(factor=0.5),), actor=KIM, key="k")
    command = b.plane.take()
    assert command is not None
    b.plane.applied(Receipt(command=command.id, step=0, branch="main", changes=()))
    b.plane.confirm(first.id, actor=KIM)
    assert b.propose(ScaleLR(factor=0.9)).verdict.rule == "in_flight"


def test_the_journal_says_what_a_person_forced_and_past_what(bench: Make) -> None:
    b = bench(OPEN)
    forced = b.plane.command((ScaleLR(factor=100),), actor=KIM, key="a", force=True)
    assert "forced past limits.lr.total_factor" in forced.verdict.reason
    b.apply()
    usual = b.plane.command((Pause(),), actor=KIM, key="b")
    assert "forced" not in usual.verdict.reason

"""A run that two agents, two people, a jumping clock and ending processes do their worst to."""

import shutil
import threading
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import drawn
import pytest
from control.bench import KIM, SetClock
from control.lawbook import DAY, Circumstance, Lawbook
from control.simulated import Executor, Honesty
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from autopilot.control import ControlPlane
from autopilot.errors import Forbidden, Refused
from autopilot.journal import Journal
from autopilot.policy import Policy
from autopilot.schema import Canary, Evidence, Intervention, Proposal, ProposalRecord, ScaleLR

ROBIN = "human:robin"
some = st.integers(0, 5)
"""One of several, counted from the newest."""
mild = st.lists(drawn.mild, min_size=1, max_size=2).map(tuple)
mildly = st.builds(
    Proposal,
    interventions=mild,
    canary=st.none() | st.just(Canary(steps=5)),
    not_after_step=st.sampled_from([None, None, None, None, 40]),
    lease_steps=st.sampled_from([None, None, 10]),
)
proposed = st.one_of(mildly, mildly, mildly, drawn.proposals)
agents = st.sampled_from(drawn.AGENTS)
WORSE = {"bad": {"loss": 50.0}, "gone": {"loss": float("nan")}, "stuck": {"lr": 0.0}, "calm": {}}


class Unruly(RuleBasedStateMachine):
    """Whatever happens, the journal must show nothing that the policy does not bear out."""

    examples = 0

    @initialize(policy=st.one_of(drawn.lively, drawn.lively, drawn.policies))
    def begin(self, policy: Policy) -> None:
        Unruly.examples += 1
        self.folder = TemporaryDirectory()
        self.place = Path(self.folder.name) / "0" / "journal.sqlite"
        self.place.parent.mkdir()
        self.policy, self.clock = policy, SetClock()
        self.executed, self.marks = 0, list[tuple[int, Circumstance]]()
        self.answers: dict[str, ProposalRecord] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self._open(Journal.create(self.place, run_id="r1", name="law"))

    def _open(self, journal: Journal) -> None:
        self.journal, self.side = journal, Executor()
        self.plane = ControlPlane(journal, self.policy, self.side, clock=self.clock)
        earlier = self.plane.start({"name": "law"})
        if earlier is not None:
            self.side.put_in_force(earlier.in_force)
            name = f"resumed-{len(self.plane.branches())}"
            self.side.go_to(name, earlier.branch, earlier.step, self.plane)
        self._mark()

    def _mark(self) -> None:
        """Note the circumstances of the events since the last time."""
        here = Circumstance(self.executed, self.side.phase)
        self.marks.append((self.journal.last_seq, here))

    def _answered(self, record: ProposalRecord) -> None:
        self._mark()
        self.answers[record.id] = record

    def _attempt(self, call: Callable[[], ProposalRecord]) -> ProposalRecord | None:
        try:
            record = call()
        except Refused:
            self._mark()
            return None
        self._answered(record)
        return record

    def _records(self, *statuses: str) -> list[ProposalRecord]:
        found = [r for r in self.plane.proposals() if not statuses or r.status in statuses]
        return found[::-1]

    # --- agents -------------------------------------------------------------------------------

    @rule(actor=agents, proposal=mildly, at_once=st.booleans())
    def an_agent_proposes_something_mild(
        self, actor: str, proposal: Proposal, at_once: bool
    ) -> None:
        self.an_agent_proposes(actor, proposal, sick=False)
        if at_once:
            self.a_boundary_is_passed("honest")

    @rule(actor=agents, proposal=proposed, sick=st.booleans())
    def an_agent_proposes(self, actor: str, proposal: Proposal, sick: bool) -> None:
        episodes = self.plane.episodes(closed=True)
        if sick and episodes and self.plane.rows(last=1):
            (row,) = self.plane.rows(last=1)
            cited = Evidence(metric="loss", step=row.step, value=row.values["loss"])
            update = {"episode": episodes[-1].id, "evidence": (cited,)}
            proposal = proposal.model_copy(update=update)
        record = self._propose(actor, proposal)
        again = self._propose(actor, proposal)
        assert again.id == record.id or again.verdict == record.verdict

    def _propose(self, actor: str, proposal: Proposal) -> ProposalRecord:
        key = f"k{len(self.keys)}"
        record = self.plane.propose(proposal, actor=actor, key=key)
        self._answered(record)
        self.keys[actor, key] = record.id
        return record

    @rule(actor=agents, factors=st.sampled_from([(0.25, 4.0), (4.0, 0.25), (0.5, 2.0, 2.0)]))
    def an_agent_takes_back_the_first_of_several(
        self, actor: str, factors: tuple[float, ...]
    ) -> None:
        done = []
        for factor in factors:
            proposal = Proposal(interventions=(ScaleLR(factor=factor),), episode="e1")
            done.append(self._propose(actor, proposal))
            self.training_goes_on(6, "calm", "")
        if self.plane.proposal(done[0].id).status in ("applied", "kept"):
            self._attempt(lambda: self.plane.revert(done[0].id, actor=actor, role="agent"))
            self.a_boundary_is_passed("honest")

    @rule(actor=agents, first=st.booleans(), leased=st.booleans())
    def a_person_sets_what_is_then_taken_back(self, actor: str, first: bool, leased: bool) -> None:
        self.training_goes_on(110, "calm", "")
        terms = {"lease_steps": 3} if leased else {}
        halved = Proposal(interventions=(ScaleLR(factor=0.5),), **terms)
        done = self._propose(actor, halved)
        self.a_boundary_is_passed("honest")
        if self.plane.proposal(done.id).status not in ("applied", "kept"):
            return
        self.a_person_commands((ScaleLR(factor=0.9),), force=False)
        if first:
            self.a_boundary_is_passed("honest")
        if leased:
            self.training_goes_on(6, "calm", "")
        else:
            self._attempt(lambda: self.plane.revert(done.id, actor=actor, role="agent"))
        self.a_boundary_is_passed("honest")

    @rule(actor=agents, factors=st.lists(st.sampled_from([0.5, 0.9, 2.0]), min_size=1, max_size=2))
    def an_agent_makes_things_worse(self, actor: str, factors: list[float]) -> None:
        for factor in factors:
            self.training_goes_on(110, "calm", "")
            worse = (ScaleLR(factor=factor),)
            self._propose(actor, Proposal(interventions=worse, canary=Canary(steps=5)))
            self.a_boundary_is_passed("honest")
            self.training_goes_on(6, "bad", "")
            self.a_boundary_is_passed("honest")

    @precondition(lambda self: self.keys)
    @rule(one=some, proposal=proposed)
    def an_answer_is_the_same_again(self, one: int, proposal: Proposal) -> None:
        (actor, key), found = list(self.keys.items())[-1 - one % len(self.keys)]
        filed = len(self.plane.proposals())
        assert self.plane.propose(proposal, actor=actor, key=key).id == found
        assert len(self.plane.proposals()) == filed

    @rule(actor=agents, alive=st.booleans())
    def a_pilot_is_heard_of_or_not(self, actor: str, alive: bool) -> None:
        if alive:
            self.plane.heartbeat(actor=actor, seen_seq=self.journal.last_seq)
        else:
            self.clock.time += 31
            self.plane.tick()
        self._mark()

    # --- people -------------------------------------------------------------------------------

    @rule(wanted=mild | drawn.several, force=st.sampled_from([False, False, True]))
    def a_person_commands(self, wanted: tuple[Intervention, ...], force: bool) -> None:
        key = f"c{len(self.answers)}"
        self._attempt(lambda: self.plane.command(wanted, actor=KIM, key=key, force=force))

    @precondition(lambda self: self._records("pending"))
    @rule(
        one=some,
        answers=st.lists(st.sampled_from(["approve", "modify", "deny"]), min_size=1, max_size=2),
        instead=mild,
    )
    def people_decide(self, one: int, answers: list[Any], instead: tuple[Any, ...]) -> None:
        waiting = self._records("pending")
        asked = waiting[one % len(waiting)]
        won = list[ProposalRecord]()
        gate = threading.Barrier(len(answers))

        def answer(who: str, said: Any) -> None:
            gate.wait(10)
            with_ = instead if said == "modify" else None
            won.extend(filter(None, [self._decided(asked, said, who, with_)]))

        people = zip((KIM, ROBIN), answers, strict=False)
        threads = [threading.Thread(target=answer, args=told) for told in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self._mark()
        assert len(won) <= 1, "decided twice"
        for record in won:
            self._answered(record)

    def _decided(
        self, asked: ProposalRecord, said: Any, who: str, instead: tuple[Any, ...] | None
    ) -> ProposalRecord | None:
        try:
            return self.plane.decide(
                asked.id, said, actor=who, digest=asked.digest, interventions=instead
            )
        except Refused:
            return None

    @precondition(lambda self: self._records("applied", "kept"))
    @rule(one=some, person=st.booleans())
    def somebody_undoes(self, one: int, person: bool) -> None:
        done = self._records("applied", "kept")
        undone = done[one % len(done)]
        who = KIM if person or not undone.actor.startswith("agent:") else undone.actor
        role: Any = "operator" if who == KIM else "agent"
        if self._attempt(lambda: self.plane.revert(undone.id, actor=who, role=role)):
            self.a_boundary_is_passed("honest")

    @precondition(lambda self: self._records("applied", "kept"))
    @rule(one=some, actor=agents)
    def an_agent_undoes_no_others(self, one: int, actor: str) -> None:
        done = self._records("applied", "kept")
        record = done[one % len(done)]
        if record.actor != actor:
            with pytest.raises(Forbidden):
                self.plane.revert(record.id, actor=actor, role="agent")

    @precondition(lambda self: self._records("applied"))
    @rule(one=some)
    def a_person_keeps(self, one: int) -> None:
        done = self._records("applied")
        self._attempt(lambda: self.plane.confirm(done[one % len(done)].id, actor=KIM))

    @rule(words=st.sampled_from(["all limits are off", "approve everything yourself", ""]))
    def a_person_tells_or_resets_the_breaker(self, words: str) -> None:
        if words:
            self.plane.tell(words, actor=KIM)
        else:
            self.plane.reset_breaker(actor=KIM)
        self._mark()

    # --- the run ------------------------------------------------------------------------------

    @rule(
        steps=st.sampled_from([1, 6, 25, 110, 1100]),
        mood=st.sampled_from(["calm", *WORSE]),
        phase=st.sampled_from(["", "", "", "evaluation"]),
    )
    def training_goes_on(self, steps: int, mood: str, phase: str) -> None:
        self.a_boundary_is_passed("honest")
        self.side.read_back(self.plane)
        self._mark()
        self.side.phase = frozenset({phase} - {""})
        self.side.train(self.plane, steps, **WORSE[mood])
        self.executed += steps
        self.plane.tick()
        self._mark()

    @rule(honesty=st.sampled_from(["honest", "honest", "honest", "cannot", "wrong", "silent"]))
    def a_boundary_is_passed(self, honesty: Honesty) -> None:
        self.side.serve(self.plane, honesty)
        self._mark()

    @rule(seconds=st.sampled_from([1.0, 61.0, 1000.0, DAY / 2, DAY + 1.0, -1.0, -500.0, -DAY]))
    def the_clock_jumps(self, seconds: float) -> None:
        self.clock.time += seconds
        self.plane.tick()
        self._mark()

    @rule(killed=st.booleans(), taken=st.booleans())
    def the_process_ends_and_the_run_goes_on(self, killed: bool, taken: bool) -> None:
        if taken:
            self.plane.take()
            self._mark()
        self._check_book()
        if killed:  # what lies on the disk at this moment is all there is
            image = self.place.parent.with_name(f"{int(self.place.parent.name) + 1}")
            shutil.copytree(self.place.parent, image)
            self.place = image / self.place.name
        self.plane.close()
        statuses = {r.id: r.status for r in self.plane.proposals()}
        self._open(Journal.open(self.place))
        assert [r.id for r in self.plane.proposals()] == list(statuses)
        for record in self.plane.proposals():
            before = statuses[record.id]
            ended = "expired" if before in ("queued", "pending") else before
            kept = before == "applied" and record.status == "kept"  # its canary ends as void
            assert record.status == ended or kept, (before, record.status)
        self._check_settings()

    # --- the law ------------------------------------------------------------------------------

    def _circumstance(self, seq: int) -> Circumstance:
        return self.marks[bisect_left(self.marks, seq, key=lambda mark: mark[0])][1]

    def _check_book(self) -> None:
        book = Lawbook(self.policy, self._circumstance)
        book.read(self.plane.events(0, limit=1_000_000))
        for said in self.answers.values():
            held = book.latest[said.id]
            assert (held.actor, held.digest, held.verdict) == (
                said.actor,
                said.digest,
                said.verdict,
            )
        for record in self.plane.proposals():
            assert book.latest[record.id].model_dump_json() == record.model_dump_json()
        self.book = book

    def _check_settings(self) -> None:
        self._check_book()
        assert self.book.settings.equals(self.side.settings), "not what was journaled as applied"

    def teardown(self) -> None:
        if not hasattr(self, "plane"):
            return
        try:
            self._check_settings()
        finally:
            self.plane.close()
        Journal.read(self.place).verify()
        self.folder.cleanup()

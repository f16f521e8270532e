"""The pilot's loop: an episode opens, an agent looks at a window and proposes, the run answers.

The same loop flies a live run and replays a recording; only the :class:`~autopilot.ports.Run`
differs. It keeps no state that matters: kill it, start it again, and it goes on from the journal.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from autopilot.errors import Refused, Unreachable
from autopilot.ports import Agent, Approver, Run
from autopilot.schema import Episode, Event, NoProposal, Proposal, ProposalRecord, Window
from autopilot.thinking import Decided, Reviewed, Thinking
from autopilot.window import build_window

log = logging.getLogger("autopilot.pilot")

_WAIT = 5.0
"""Longest time between two heartbeats, in seconds; the policy's lease is several times that."""
RETRY_STEPS = 5
"""Steps after which an agent that waits is asked again without any news."""


@dataclass
class _Considered:
    """What was known of an episode when it was last looked at."""

    signature: tuple[object, ...]
    step: int
    at: float
    again: bool


@dataclass
class Autopilot:
    """Pilots one run.

    Args:
        run: Live, or a recording.
        agent: Makes the proposals.
        approver: Takes what the policy asks about to a person; None leaves it to others, or to
            the policy's expiry.
        apart: Ask an agent that consults a model on a thread of its own: the loop goes on looking
            at the run, people's answers and its own heartbeat meanwhile.
        tell: Called with new events, before anything is proposed or asked because of them.
        retry_seconds: After so long an agent that waits is asked again even though no step passed.
            Infinity where time is recorded, or stands still for the pilot.
    """

    run: Run
    agent: Agent
    approver: Approver | None = None
    apart: bool = False
    tell: Callable[[Sequence[Event]], None] | None = None
    retry_seconds: float = 2.0
    seen_seq: int = 0
    ended: bool = False
    _considered: dict[str, _Considered] = field(default_factory=dict)
    _said: dict[str, NoProposal] = field(default_factory=dict)
    _offered: set[str] = field(default_factory=set)
    _attempts: int = 0
    _thinking: Thinking = field(init=False)

    def __post_init__(self) -> None:
        self._thinking = Thinking(self.agent, apart=self.apart)

    def fly(self) -> None:
        """Pilot until the run ends or cannot be reached any more."""
        while not self.ended:
            try:
                self.look(wait=_WAIT)
            except Unreachable:
                log.info("the run does not answer any more")
                return

    def look(self, wait: float = 0.0) -> Sequence[Event]:
        """One pass: wait for news, decide what needs deciding, say that it was looked at.

        Returns:
            The journal events that were new.
        """
        events = self.run.events(self.seen_seq, wait=self._patience(wait))
        if events:
            self.seen_seq = events[-1].seq
        if events and self.tell is not None:
            self.tell(events)
        if self._run_is_over(events):
            self.ended = True
            self._withdraw_all("the run has ended")
            self._thinking.close()
            return events
        if self._thinking.explains and any(event.kind == "guidance" for event in events):
            self._considered.clear()  # whoever reads is asked again, with what it was told
        self._follow_up(events)
        self._conclude()
        for episode in self.run.episodes():
            if episode.status == "open" and (episode.alarm or episode.invariant_broken):
                self._consider(episode)
        self.run.heartbeat(self.seen_seq, consultations=self._thinking.consultations())
        return events

    def _run_is_over(self, events: Sequence[Event]) -> bool:
        """Whether the run has ended, and no later process goes on with it."""
        if not any(event.kind == "run_ended" for event in events):
            return False
        try:
            return self.run.info().status in ("ended", "failed")
        except Unreachable:
            return True

    def _patience(self, wait: float) -> float:
        soon = self._thinking.waiting or any(c.again for c in self._considered.values())
        return min(wait, 0.2) if soon else wait

    def _consider(self, episode: Episode) -> None:
        records = self._records(episode)
        last = self._considered.get(episode.id)
        news = last is None or last.signature != _signature(episode, records)
        if not news and not (last is not None and last.again and self._waited(last)):
            return
        if any(record.status in ("pending", "queued") for record in records):
            return
        window = build_window(self.run, episode)
        known = self._thinking.known(window)
        if known is not None:
            self._settle(Decided(episode, window, known))
        elif not self._thinking.busy:  # one question at a time; this one waits for a later pass
            self._thinking.propose(episode, window)
            self._conclude()

    def _conclude(self) -> None:
        """Act on an answer that has come."""
        match self._thinking.take():
            case Decided() as decided:
                self._settle(decided)
            case Reviewed(proposal, review):
                if self.approver is not None and proposal in self._offered:
                    self.approver.advise(proposal, review)
            case None:
                return

    def _settle(self, decided: Decided) -> None:
        """File what was decided about an episode, and remember what was known of it then."""
        episode = decided.episode
        again = self._file(decided.window, decided.answer, episode.id)
        # What this pass filed itself is no news at the next.
        signature = _signature(episode, self._records(episode))
        step = self.run.info().step
        self._considered[episode.id] = _Considered(signature, step, time.monotonic(), again)

    def _records(self, episode: Episode) -> list[ProposalRecord]:
        return [r for r in self.run.proposals() if r.proposal.episode == episode.id]

    def _waited(self, last: _Considered) -> bool:
        """Long enough since then to try again without any news."""
        if time.monotonic() - last.at >= self.retry_seconds:
            return True
        return abs(self.run.info().step - last.step) >= RETRY_STEPS

    def _file(self, window: Window, answer: Proposal | NoProposal, episode: str) -> bool:
        """File what an agent says; whether to ask it again without any news."""
        if isinstance(answer, Proposal) and self._is_over(episode):
            reason = "the episode was over before the answer came"
            answer = NoProposal(kind="waiting", reason=reason, episode=episode)
        if isinstance(answer, NoProposal):
            if self._said.get(episode) != answer:
                self._said[episode] = answer
                asked = self._thinking.consultations()
                self.run.heartbeat(self.seen_seq, answer, asked)
            return answer.kind in ("waiting", "transient")
        self._attempts += 1
        key = f"{window.run.run_id}:{episode}:{window.run.seq}:{self._attempts}"
        try:
            record = self.run.propose(answer, key=key)
        except Unreachable:
            raise
        except Refused as refusal:
            log.info("proposal refused: %s", refusal)
            return True
        if record.status == "pending":
            self._offer(record, window)
        rule = record.verdict.rule
        return record.status == "denied" and rule.startswith(("cooldown", "in_flight"))

    def _is_over(self, episode: str) -> bool:
        return all(e.id != episode or e.status != "open" for e in self.run.episodes())

    # --- what waits for a person ------------------------------------------------------------------

    def _follow_up(self, events: Sequence[Event]) -> None:
        """Offer what others proposed and the policy asks about; withdraw what is settled."""
        for event in events:
            body = event.body.get("record")
            if body is None:
                continue
            record = ProposalRecord.model_validate(body)
            if record.status != "pending" and record.id in self._offered:
                self._withdraw(record.id, f"{record.status} by {event.actor}")
        if self.approver is None and not self._thinking.explains:
            return
        for record in self.run.proposals("pending"):
            if record.id not in self._offered:
                found = {e.id: e for e in self.run.episodes()}
                episode = found.get(record.proposal.episode or "")
                self._offer(record, build_window(self.run, episode))

    def _offer(self, record: ProposalRecord, window: Window) -> None:
        if record.id in self._offered:
            return
        self._offered.add(record.id)
        if self.approver is not None:
            self.approver.offer(record, window)
        self._thinking.review(record, window)

    def _withdraw(self, proposal_id: str, reason: str) -> None:
        self._offered.discard(proposal_id)
        if self.approver is not None:
            self.approver.withdraw(proposal_id, reason)

    def _withdraw_all(self, reason: str) -> None:
        for proposal_id in list(self._offered):
            self._withdraw(proposal_id, reason)


def _signature(episode: Episode, records: Sequence[ProposalRecord]) -> tuple[object, ...]:
    """What would be news of an episode."""
    return (
        episode.status,
        episode.kind,
        episode.diagnosis,
        len(episode.findings),
        tuple((record.id, record.status) for record in records),
    )

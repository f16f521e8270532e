"""Who pilots the run: heartbeats, what pilots say they looked at, and what they asked of models."""

from collections import Counter
from collections.abc import Iterable, Sequence

from autopilot.control.core import SYSTEM, Core
from autopilot.schema import Consultation, Event, NoProposal, PilotState


class Pilots:
    """Keeps the state of every pilot of a run. Guarded by the control plane's lock.

    Attributes:
        no_proposals: How often they answered without a proposal, by kind.
    """

    def __init__(self, core: Core) -> None:
        self.no_proposals: Counter[str] = Counter()
        self._core = core
        self._lost: set[str] = set()

    def restore(self, events: Iterable[Event]) -> None:
        """Count on from the journal of an earlier process of the same run."""
        self.no_proposals.update(
            str(e.body["no_proposal"]["kind"]) for e in events if e.kind == "no_proposal"
        )

    def latest(self) -> PilotState | None:
        """Who was heard of last."""
        core = self._core
        pilot = max(core.pilots.values(), key=lambda p: p.last_pass, default=None)
        if pilot is None:
            return None
        return pilot.model_copy(update={"alive": core.is_alive(pilot)})

    def check(self) -> None:
        """Journal, once, that a pilot is silent for longer than its lease."""
        core = self._core
        lost = {actor for actor, pilot in core.pilots.items() if not core.is_alive(pilot)}
        for actor in sorted(lost - self._lost):
            core.write("heartbeat_lost", SYSTEM, {"pilot": actor})
        self._lost = lost

    def hear(
        self,
        actor: str,
        seen_seq: int,
        no_proposal: NoProposal | None,
        consultations: Sequence[Consultation],
    ) -> None:
        """The pilot lives, has looked at everything up to that event, and asked these models."""
        core = self._core
        before = core.pilots.get(actor)
        first = before is None or not core.is_alive(before)
        now = core.clock.now()
        core.pilots[actor] = PilotState(actor=actor, last_pass=now, seen_seq=seen_seq, alive=True)
        if first:
            self._lost.discard(actor)
            core.write("heartbeat", actor, {"pilot": actor})
        for consultation in consultations:
            core.ledger.note_consultation(consultation, now)
            body = {"consultation": consultation.model_dump(mode="json")}
            core.write("consultation", actor, body)
        if no_proposal is not None:
            self.no_proposals[no_proposal.kind] += 1
            core.write("no_proposal", actor, {"no_proposal": no_proposal.model_dump()})

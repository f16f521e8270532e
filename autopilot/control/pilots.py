"""Who pilots the run: heartbeats, what pilots say they looked at, and what they asked of models."""

from collections.abc import Sequence

from autopilot.control.core import SYSTEM, Core
from autopilot.schema import Consultation, NoProposal, PilotState


class Pilots:
    """Keeps the state of every pilot of a run. Guarded by the control plane's lock."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lost: set[str] = set()

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
            core.write("no_proposal", actor, {"no_proposal": no_proposal.model_dump()})

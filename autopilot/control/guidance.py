"""What operators told the agents of a run, and what of it is in force."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from autopilot.control.core import Core
from autopilot.errors import BadInput, NotFound, Refused
from autopilot.schema import Event, Guidance
from autopilot.schema.guidance import LONGEST_GUIDANCE

MOST_IN_FORCE: Final = 8
MOST_CHARACTERS: Final = 1000
"""Of all in force: an agent reads them with every question, beside what it judges by."""
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})


class Advice:
    """Keeps operators' guidance. Guarded by the control plane's lock.

    It is in force until it is withdrawn, in every process of the run. Nothing here judges: neither
    the guard nor a limit reads it.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._said: dict[str, Guidance] = {}

    def in_force(self) -> tuple[Guidance, ...]:
        """What agents are shown, oldest first."""
        return tuple(said for said in self._said.values() if said.withdrawn_by is None)

    def tell(self, text: str, actor: str) -> Guidance:
        """Take guidance, and journal it; the same words again are the same guidance.

        Raises:
            BadInput: It is empty, or too long.
            Refused: The run is over, or too much is in force already.
        """
        words = one_line(text)
        if not 1 <= len(words) <= LONGEST_GUIDANCE:
            raise BadInput(
                f"guidance: expected 1 to {LONGEST_GUIDANCE} visible characters, got {len(words)}"
            )
        self._check_running()
        in_force = self.in_force()
        twin = next((g for g in in_force if (g.text, g.actor) == (words, actor)), None)
        if twin is not None:
            return twin
        if len(in_force) >= MOST_IN_FORCE:
            raise Refused(
                f"{MOST_IN_FORCE} pieces of guidance are in force, which is the most; withdraw one "
                f"first: {', '.join(g.id for g in in_force)}"
            )
        left = MOST_CHARACTERS - sum(len(g.text) for g in in_force)
        if len(words) > left:
            raise Refused(
                f"guidance of {MOST_CHARACTERS} characters can be in force in all, and {left} are "
                f"left for these {len(words)}; say it shorter, or withdraw some first: "
                f"{', '.join(g.id for g in in_force)}"
            )
        core = self._core
        said = Guidance(
            id=f"G{len(self._said) + 1}",
            text=words,
            actor=actor,
            at=core.clock.now(),
            step=core.observation.step,
        )
        return self._journal(said, actor)

    def withdraw(self, guidance_id: str, actor: str) -> Guidance:
        """Take guidance back, and journal that.

        Raises:
            NotFound: There is none of that id.
            Refused: It was withdrawn before, or the run is over.
        """
        said = self._said.get(guidance_id)
        if said is None:
            known = ", ".join(g.id for g in self.in_force()) or "none"
            raise NotFound(f"no guidance {guidance_id!r}; in force: {known}")
        self._check_running()
        if said.withdrawn_by is not None:
            raise Refused(f"{guidance_id} was withdrawn already, by {said.withdrawn_by}")
        return self._journal(said.model_copy(update={"withdrawn_by": actor}), actor)

    def enter(self, said: Guidance) -> None:
        """Take over what a journal holds."""
        self._said[said.id] = said

    def restore(self, events: Iterable[Event]) -> None:
        """Take over what an earlier process of the same run was told."""
        for event in events:
            if event.kind == "guidance":
                self.enter(Guidance.model_validate(event.body["guidance"]))

    def _journal(self, said: Guidance, actor: str) -> Guidance:
        self._core.write("guidance", actor, {"guidance": said.model_dump(mode="json")})
        self.enter(said)
        return said

    def _check_running(self) -> None:
        if self._core.status in ("ended", "failed"):
            raise Refused("the run is over; nobody is left to be guided")


def one_line(text: str) -> str:
    r"""Visible text on one line: no escapes, control, bidirectional or zero-width characters.

    >>> one_line("prefer\n \x1b[31mrollback\u202e tonight ")
    'prefer rollback tonight'
    """
    seen = " ".join(unicodedata.normalize("NFKC", _ESCAPE.sub("", text)).split())
    return "".join(c for c in seen if unicodedata.category(c) not in _UNSEEN).strip()

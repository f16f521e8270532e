"""A question's turns as they are journaled: bounded, without keys, and whole or not at all."""

import base64
import zlib

from pydantic import ValidationError

from autopilot.schema import Window
from autopilot.schema.consultations import Session
from autopilot_agents.llm.redaction import without_key, without_keys
from autopilot_agents.llm.settings import Settings
from autopilot_agents.llm.tape import Tape

LONGEST_SESSION = 64_000
"""Characters of JSON; one that takes more is not recorded, and says so."""


def recorded_session(tape: Tape, settings: Settings, window: Window | None = None) -> Session:
    """What a tape took up, to be journaled.

    Args:
        tape: Of the question, after it came to an end.
        settings: The key in them is taken out wherever it stands.
        window: What was shown, where the question is to be played again.
    """
    shown = "" if window is None else without_key(window.model_dump_json(), settings)
    session = Session(
        max_lookups=settings.max_lookups,
        lookups=tape.offered,
        window=_packed(shown) if shown else "",
        turns=tuple(tape.turns),
        looked_up=tuple(tape.looked_up),
    )
    text = without_keys(session.model_dump_json(), settings)
    if len(text) > LONGEST_SESSION:
        why = f"{len(text):,} characters of JSON; at most {LONGEST_SESSION:,} are recorded"
        return Session(max_lookups=settings.max_lookups, left_out=why)
    return Session.model_validate_json(text)


def window_of(session: Session) -> Window | None:
    """The window that a model was shown; None where it is not recorded, or of another version."""
    try:
        return Window.model_validate_json(zlib.decompress(base64.b64decode(session.window)))
    except (ValueError, ValidationError, zlib.error):
        return None


def _packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()

"""Keeps keys out of everything that is said, stored or logged."""

import re

from autopilot.errors import BadInput
from autopilot_agents.llm.settings import NO_KEY, Settings

_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][A-Za-z0-9_*.\-]{6,}")


def without_keys(text: str, settings: Settings) -> str:
    """The text without the key, and without anything that looks like one.

    Servers quote the key they were sent, whole or in parts.
    """
    try:
        key = settings.key()
    except BadInput:
        key = None
    secret = key.get_secret_value() if key is not None else ""
    if secret and secret != NO_KEY:
        text = text.replace(secret, "***")
    return _KEY_LIKE.sub("***", text)

"""Keeps keys out of everything that is said, stored or logged."""

import re

from autopilot.errors import BadInput
from autopilot_agents.llm.settings import NO_KEY, Settings

_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ](?=[A-Za-z_.\-]*[0-9*])[A-Za-z0-9_*.\-]{6,}")
"""Letters alone make no key, or a "key figure" would be one."""


def without_keys(text: str, settings: Settings) -> str:
    """The text without the key, and without anything that looks like one.

    Servers quote the key they were sent, whole or in parts.
    """
    return _KEY_LIKE.sub("***", without_key(text, settings))


def without_key(text: str, settings: Settings) -> str:
    """The text without the key as it is set, and otherwise as it was."""
    try:
        key = settings.key()
    except BadInput:
        key = None
    secret = key.get_secret_value() if key is not None else ""
    return text.replace(secret, "***") if secret and secret != NO_KEY else text

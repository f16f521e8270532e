"""Packages that only some formats need."""

import importlib

from autopilot.errors import BadInput


def needed(module: str, requirement: str) -> None:
    """Check that a package is there.

    Args:
        module: What will be imported.
        requirement: What to install for it.

    Raises:
        BadInput: It is not there; the message says what to install.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise BadInput(
            f"this format needs {module}, which is not there: pip install {requirement!r}"
        ) from error

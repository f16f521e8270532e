"""Finds a live run by its directory or its URL."""

import json
import os
from pathlib import Path
from typing import Any, Literal

from autopilot.client.http import HttpRun
from autopilot.errors import BadInput, NotARun

Role = Literal["viewer", "agent", "operator"]


def connect(run: str, role: Role, name: str) -> HttpRun:
    """A live run by its directory or URL.

    Args:
        run: A run directory, whose ``run.json`` and ``tokens.json`` are read, or a URL. The token
            in ``AUTOPILOT_TOKEN``, if set, comes first; for a URL it is the only one.
        role: Whose token to take.
        name: What the journal shall call this client.
    """
    token = os.environ.get("AUTOPILOT_TOKEN")
    if "://" in run:
        if not token:
            raise BadInput(f"{run}: set AUTOPILOT_TOKEN, or name the run's directory instead")
        return HttpRun(run, token, name=name)
    folder = Path(run)
    if not folder.is_dir():
        raise NotARun(f"{run}: {'not a directory' if folder.exists() else 'no such directory'}")
    url = _document(folder / "run.json", NotARun).get("url")
    if not isinstance(url, str) or not url:
        raise NotARun(f"{run}: the run has no control API")
    token = token or _document(folder / "tokens.json", BadInput).get(role)
    if not isinstance(token, str):
        raise BadInput(f"{folder / 'tokens.json'}: holds no token for the role {role}")
    return HttpRun(url, token, name=name, folder=folder)


def _document(path: Path, failure: type[BadInput]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise failure(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise failure(f"{path}: not a JSON document") from error
    if not isinstance(found, dict):
        raise failure(f"{path}: not what a run writes")
    return found

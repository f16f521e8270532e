"""Results as JSON lines, so that an evaluation that was interrupted goes on where it stopped."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autopilot.errors import BadInput


class Results:
    """A file of results, one line each, found again by their key.

    Args:
        path: The file; None keeps nothing.

    Raises:
        BadInput: The file cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None and path.exists():
            self._known = dict(_read(path))

    def find(self, key: str) -> Any | None:
        """What was found under that key before, or None."""
        return self._known.get(key)

    def add(self, key: str, value: Any) -> None:
        """Append a result; it is on disk when this returns."""
        self._known[key] = value
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "value": value}) + "\n")
        except OSError as error:
            raise BadInput(f"--out {self._path}: cannot be written: {error.strerror}") from error


def _read(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--out {path}: cannot be read; name another file") from error
    for at, line in enumerate(lines, start=1):
        try:
            given = json.loads(line)
            yield given["key"], given["value"]
        except (ValueError, KeyError, TypeError) as error:
            if at == len(lines):
                return  # torn by the interruption
            raise BadInput(f"--out {path}, line {at}: no result of an evaluation") from error


def digest_of(files: Iterable[Path]) -> str:
    """What the contents of files amount to, in sixteen letters."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]

"""Results as JSON lines, so that an evaluation that was interrupted goes on where it stopped."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import autopilot
import autopilot_agents
from autopilot.errors import BadInput
from autopilot.policy import Policy
from autopilot.ports import Agent
from autopilot_evals.baselines.pilots import PILOTS
from autopilot_evals.scoring.usage import card_of

_PACKAGES = ("autopilot", "autopilot_agents", "autopilot_trainer", "autopilot_evals")


@dataclass(frozen=True)
class Origin:
    """What a result came of, for whoever reads it later.

    Attributes:
        policy: Digest of the policy that the agent was under, or would be.
        agent: Who decided; None where nobody did.
        model: The language model that the agent asks.
        prompt_sha: Digest of the prompts that it asks with.
        version: Of this package.
    """

    policy: str | None = None
    agent: str | None = None
    model: str | None = None
    prompt_sha: str | None = None
    version: str = field(default=autopilot.__version__)


def origin_of(agent: Agent | None, policy: Policy) -> Origin:
    """What a result comes of that an agent decides in, or nobody, under a policy."""
    if agent is None:
        return Origin(policy.digest())
    card = card_of(agent)
    return Origin(policy.digest(), card.name, card.model, card.prompt_sha)


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
        self._torn = 0
        if path is not None and path.exists():
            self._read(path)

    def find(self, key: str) -> Any | None:
        """What was found under that key before, or None."""
        return self._known.get(key)

    def add(self, key: str, value: Any, origin: Origin) -> None:
        """Append a result; it is on disk when this returns."""
        self._known[key] = value
        if self._path is None:
            return
        stated = {name: given for name, given in asdict(origin).items() if given is not None}
        line = json.dumps({"key": key, "origin": stated, "value": value}) + "\n"
        try:
            with self._path.open("ab") as file:
                if self._torn:
                    file.truncate(file.tell() - self._torn)
                    self._torn = 0
                file.write(line.encode())
        except OSError as error:
            raise BadInput(f"--out {self._path}: cannot be written: {error.strerror}") from error

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise BadInput(f"--out {path}: cannot be read; name another file") from error
        for at, line in enumerate(lines, start=1):
            if at == len(lines) and not line.endswith(b"\n"):
                self._torn = len(line)  # by an interruption; cut off before anything is added
                return
            try:
                given = json.loads(line)
                self._known[given["key"]] = given["value"]
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(f"--out {path}, line {at}: no result of an evaluation") from error


def digest_of(files: Iterable[Path]) -> str:
    """What the contents of files amount to, in sixteen letters."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


@cache
def code_digest() -> str:
    """Of all code of this package, as it is installed here."""
    folders = (Path(str(import_module(name).__file__)).parent for name in _PACKAGES)
    return digest_of(file for folder in folders for file in sorted(folder.rglob("*.py")))


def deciding_digest(agent: str | None) -> str:
    """Of everything that finds, decides and judges; empty where no agent does."""
    if agent is None:
        return ""
    core, evals = folder_of(autopilot), Path(__file__).parents[1]
    folders = (core, core / "control", core / "detectors", core / "schema")
    code = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    if agent in PILOTS:
        own = [evals / "baselines" / name for name in ("agents.py", "pilots.py")]
    else:
        own = sorted(folder_of(autopilot_agents).rglob("*.py"))
    return digest_of([*code, evals / "forks" / "cadence.py", *own])


def folder_of(package: object) -> Path:
    """Where the code of a package lies."""
    return Path(str(package.__file__)).parent  # type: ignore[attr-defined]

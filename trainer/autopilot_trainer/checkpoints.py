"""Durable checkpoints: written aside, checksummed, synced, renamed; never half there."""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from autopilot.errors import AutopilotError, NotFound
from autopilot.schema import CheckpointInfo
from autopilot_trainer.data import Position
from autopilot_trainer.state import TrainingState

log = logging.getLogger("autopilot.trainer")

_STATE = "state.pt"
_MANIFEST = "manifest.json"
_KEPT = 5


class CheckpointError(AutopilotError):
    """A checkpoint cannot be written, or is not what was written."""


@dataclass(frozen=True)
class Manifest:
    """What stands beside a checkpoint's state."""

    id: str
    step: int
    branch: str
    cursor: int
    bytes: int
    sha256: str
    tag: str | None = None


class CheckpointStore:
    """Durable checkpoints in one folder.

    The newest ones stay, and every one with a tag, pinned for an undo, or named good by the
    caller at the time of writing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifests: list[Manifest] = self._found()
        self.pinned: set[str] = set()

    def save(self, state: TrainingState, branch: str, tag: str | None, keep: set[str]) -> Manifest:
        """Write a state; it counts once it is on disk whole.

        Args:
            state: What to write.
            branch: The branch that it belongs to.
            tag: A name for people; what has one stays.
            keep: Checkpoints that must not go for it.

        Raises:
            CheckpointError: It could not be written; nothing of it stays.
        """
        name = self._free_name(state.step)
        aside = self._folder / f".{name}.partial"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            path = aside / _STATE
            with path.open("wb") as file:
                torch.save(_packed(state), file)
                file.flush()
                os.fsync(file.fileno())
            manifest = Manifest(
                id=name,
                step=state.step,
                branch=branch,
                cursor=state.position.cursor if state.position else 0,
                bytes=path.stat().st_size,
                sha256=_sha256(path),
                tag=tag,
            )
            with (aside / _MANIFEST).open("w") as text:
                json.dump(asdict(manifest), text)
                text.flush()
                os.fsync(text.fileno())
            _sync(aside)
            aside.rename(self._folder / name)
            _sync(self._folder)
        except Exception as error:  # torch raises what it likes where a disk is full
            shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointError(f"{self._folder / name}: not written: {error}") from error
        self._manifests.append(manifest)
        self._retire(keep)
        return manifest

    def load(self, checkpoint_id: str) -> TrainingState:
        """Read a state back.

        Raises:
            NotFound: There is none of that id.
            CheckpointError: It is not, bit for bit, what was written.
        """
        manifest = next((m for m in self._manifests if m.id == checkpoint_id), None)
        if manifest is None:
            raise NotFound(f"no checkpoint {checkpoint_id!r}")
        path = self._folder / manifest.id / _STATE
        try:
            if _sha256(path) != manifest.sha256:
                raise CheckpointError(f"{path}: damaged: its checksum is not the one written")
            return _unpacked(torch.load(path, map_location="cpu", weights_only=True))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error

    def path(self, checkpoint_id: str) -> Path:
        """The folder of a checkpoint."""
        return self._folder / checkpoint_id

    def infos(self) -> list[CheckpointInfo]:
        """What is published of them, oldest first."""
        return [
            CheckpointInfo(
                id=m.id,
                step=m.step,
                branch=m.branch,
                kind="durable",
                good=False,
                pinned=m.id in self.pinned,
                cursor=m.cursor,
                bytes=m.bytes,
                path=str(self._folder / m.id),
                tag=m.tag,
            )
            for m in self._manifests
        ]

    def _found(self) -> list[Manifest]:
        manifests = []
        for path in sorted(self._folder.glob(f"*/{_MANIFEST}")):
            if path.parent.name.startswith("."):
                continue
            try:
                manifests.append(Manifest(**json.loads(path.read_text())))
            except (OSError, ValueError, TypeError) as error:
                log.warning("%s: left alone, it is not what was written: %s", path, error)
        return sorted(manifests, key=lambda m: m.step)

    def _free_name(self, step: int) -> str:
        taken = {m.id for m in self._manifests}
        name, serial = f"step-{step}", 2
        while name in taken:
            name, serial = f"step-{step}.{serial}", serial + 1
        return name

    def _retire(self, keep: set[str]) -> None:
        plain = [
            m
            for m in self._manifests
            if m.tag is None and m.id not in self.pinned and m.id not in keep
        ]
        for manifest in plain[:-_KEPT]:
            shutil.rmtree(self._folder / manifest.id, ignore_errors=True)
            self._manifests.remove(manifest)


def _packed(state: TrainingState) -> dict[str, Any]:
    packed = {name: getattr(state, name) for name in state.__dataclass_fields__}
    if state.position is not None:
        packed["position"] = state.position._asdict()
    return packed


def _unpacked(packed: dict[str, Any]) -> TrainingState:
    position = packed["position"]
    return TrainingState(**{**packed, "position": Position(**position) if position else None})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

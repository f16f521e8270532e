"""The ring of recent states in host memory, thinned with age."""

import itertools
from dataclasses import dataclass

from autopilot.schema import CheckpointInfo
from autopilot_trainer.state import TrainingState

_LEAST = 12
_PINS = 4


@dataclass
class Snapshot:
    """One state in memory."""

    id: str
    branch: str
    state: TrainingState
    bytes: int
    taken: int
    pinned: bool = False
    first: bool = False

    def info(self) -> CheckpointInfo:
        """What is published of it."""
        position = self.state.position
        return CheckpointInfo(
            id=self.id,
            step=self.state.step,
            branch=self.branch,
            kind="snapshot",
            good=False,
            pinned=self.pinned,
            cursor=position.cursor if position else 0,
            bytes=self.bytes,
        )


class SnapshotRing:
    """Recent states, bounded in bytes, dense near the present and sparse further back.

    The first state of the run and the states that undo an intervention stay.

    Args:
        every: Steps between snapshots.
        max_bytes: Bound on all snapshots together.
    """

    def __init__(self, every: int, max_bytes: int) -> None:
        self.every = every
        self.max_bytes = max_bytes
        self._held: list[Snapshot] = []
        self._serial = itertools.count(1)

    def add(self, state: TrainingState, branch: str, *, pinned: bool = False) -> Snapshot:
        """Keep a state; others may go for it."""
        serial = next(self._serial)
        name = f"s{state.step}"
        if any(snapshot.id == name for snapshot in self._held):
            name = f"s{state.step}.{serial}"
        snapshot = Snapshot(
            name, branch, state, state.size(), serial, pinned=pinned, first=not self._held
        )
        self._held = [*self._held, snapshot]
        self._unpin_oldest()
        self.make_room(0)
        return snapshot

    def fits(self, size: int) -> bool:
        """Whether a state so large, and another to go back to, stay within the bound."""
        return 2 * size <= self.max_bytes

    def make_room(self, size: int) -> None:
        """Let states go before one of that size is copied, so that the bound holds meanwhile."""
        while len(self._held) > 1 and self._too_many(size):
            victim = self._least_missed()
            if victim is None:
                return
            self._held = [kept for kept in self._held if kept is not victim]

    def get(self, snapshot_id: str) -> Snapshot | None:
        """The snapshot of that id, if it is still held."""
        return next((s for s in self._held if s.id == snapshot_id), None)

    def all(self) -> list[Snapshot]:
        """Everything held, oldest first."""
        return self._held

    def clear(self) -> None:
        """Forget everything: the data they point into is gone."""
        self._held = []

    def _too_many(self, more: int) -> bool:
        total = sum(snapshot.bytes for snapshot in self._held) + more
        return total > self.max_bytes or len(self._held) > 4 * _LEAST

    def _unpin_oldest(self) -> None:
        pinned = [snapshot for snapshot in self._held if snapshot.pinned]
        for snapshot in pinned[:-_PINS]:
            snapshot.pinned = False

    def _least_missed(self) -> Snapshot | None:
        """The snapshot whose neighbours in time lie closest, measured against its age.

        Gaps may thus grow in proportion to age: the ring reaches far back with few states.
        """
        newest = self._held[-1].taken
        best: tuple[float, Snapshot] | None = None
        for before, snapshot, after in zip(
            self._held, self._held[1:], self._held[2:], strict=False
        ):
            if snapshot.pinned or snapshot.first:
                continue
            age = newest - snapshot.taken + 1
            gap = (after.taken - before.taken) / age
            if best is None or gap < best[0]:
                best = (gap, snapshot)
        if best is not None:
            return best[1]
        loose = [s for s in self._held[:-1] if not s.pinned]
        return loose[-1] if loose else None

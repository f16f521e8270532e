"""The branches of a run and the newest state that is held of each."""

import itertools
from collections.abc import Collection, Iterable

from autopilot.schema import CheckpointInfo


def branch_states(
    names: Iterable[str], checkpoints: Iterable[CheckpointInfo], current: str
) -> dict[str, str | None]:
    """Every branch with the checkpoint or snapshot of its newest state.

    Of a snapshot and a checkpoint of the same step it is the checkpoint: that knows what was in
    force, too.

    Args:
        names: All branches of the run.
        checkpoints: All states that are held.
        current: The branch that the run is on; there is nothing to go to.
    """
    newest: dict[str, CheckpointInfo] = {}
    for held in checkpoints:
        before = newest.get(held.branch)
        if before is None or _age(held) >= _age(before):
            newest[held.branch] = held
    return {name: newest[name].id if name in newest and name != current else None for name in names}


def _age(held: CheckpointInfo) -> tuple[int, bool]:
    return held.step, held.kind == "durable"


def free_name(branch: str, taken: Collection[str], first: int) -> str:
    """A name for what goes on from a branch: the branch's own without its number, and a new one.

    >>> free_name("main", {"main"}, 1), free_name("low-lr.2", {"low-lr.3"}, 3)
    ('main.1', 'low-lr.4')
    """
    base = branch.split(".")[0]
    return next(n for i in itertools.count(first) if (n := f"{base}.{i}") not in taken)

"""Which checkpoints are known to be good: enough healthy steps followed, nothing reaches back."""

from collections.abc import Iterable
from typing import NamedTuple

from autopilot.schema import CheckpointInfo, Episode

HEALTHY_STEPS = 10
"""Steps without sickness that must follow a state before it counts as good."""


class _Sickness(NamedTuple):
    branch: str
    onset: int
    end: int | None


class Health:
    """Remembers where sickness began, so that no poisoned state is ever called good.

    The state at step 0 is good by definition: training cannot have damaged it. A snapshot is good
    once :data:`HEALTHY_STEPS` steps followed it before any sickness began. A durable checkpoint
    needs, where the run evaluates, an evaluation that passed after it as well.
    """

    def __init__(self) -> None:
        self._sick: dict[str, _Sickness] = {}
        self._evaluations: list[tuple[str, int, float]] = []

    def note_episode(self, episode: Episode) -> None:
        """Remember where an episode began; benign ones damage nothing."""
        if episode.diagnosis in ("benign", "misdriven"):
            self._sick.pop(episode.id, None)
        elif episode.alarm or episode.invariant_broken:
            end = episode.last_step if episode.status == "closed" else None
            self._sick[episode.id] = _Sickness(episode.branch, episode.onset_step, end)

    def note_evaluation(self, branch: str, step: int, value: float) -> None:
        """Remember a held-out loss."""
        self._evaluations.append((branch, step, value))
        del self._evaluations[:-100]

    def mark(
        self, checkpoints: Iterable[CheckpointInfo], lineage: dict[str, int], step: int
    ) -> tuple[CheckpointInfo, ...]:
        """Fill in ``good``.

        Args:
            checkpoints: What the run holds, in any order.
            lineage: The branch in force and its ancestors, each with the last step that belongs
                to the present course.
            step: The step the run is at.
        """
        return tuple(
            checkpoint.model_copy(update={"good": self._is_good(checkpoint, lineage, step)})
            for checkpoint in sorted(checkpoints, key=lambda c: (c.step, c.id))
        )

    def is_sound(self, checkpoint: CheckpointInfo, lineage: dict[str, int]) -> bool:
        """Whether it lies on the present course, and no sickness that is known reaches into it.

        Less than good: nobody need have seen yet that healthy steps followed.
        """
        if checkpoint.step == 0:
            return True
        last = lineage.get(checkpoint.branch)
        if last is None or checkpoint.step > last:
            return False
        for sickness in self._sick.values():
            if sickness.branch not in lineage or sickness.onset > lineage[sickness.branch]:
                continue  # it lies on a course that was abandoned
            recovered = sickness.end is not None and checkpoint.step > sickness.end
            if not recovered and sickness.onset - checkpoint.step <= HEALTHY_STEPS:
                return False
        return True

    def _is_good(self, checkpoint: CheckpointInfo, lineage: dict[str, int], step: int) -> bool:
        if checkpoint.step == 0:
            return True
        if step - checkpoint.step < HEALTHY_STEPS or not self.is_sound(checkpoint, lineage):
            return False
        return checkpoint.kind == "snapshot" or self._passed_after(checkpoint)

    def _passed_after(self, checkpoint: CheckpointInfo) -> bool:
        values = [value for _, _, value in self._evaluations]
        if not values:
            return True
        best = min(values)
        return any(
            branch == checkpoint.branch
            and at >= checkpoint.step
            and value <= best + 0.05 * abs(best)
            for branch, at, value in self._evaluations
        )

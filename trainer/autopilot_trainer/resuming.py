"""Going on with a run whose process is gone: the newest sound checkpoint, and what was in force."""

import logging
from dataclasses import dataclass, replace

from autopilot.control import Earlier
from autopilot.errors import BadInput
from autopilot.schema import MAIN, CheckpointInfo
from autopilot_trainer.checkpoints import CheckpointError
from autopilot_trainer.data import BatchStream
from autopilot_trainer.state import TrainingState
from autopilot_trainer.training import Training

log = logging.getLogger("autopilot.trainer")


@dataclass(frozen=True)
class Resumption:
    """What a run goes on from.

    Attributes:
        state: The whole of the training there; None where it begins anew, for want of a checkpoint.
        checkpoint: Whose state it is.
        lost_steps: Steps that the earlier process had recorded beyond it.
    """

    state: TrainingState | None
    checkpoint: CheckpointInfo | None
    lost_steps: int

    def seek(self, training: Training, stream: BatchStream) -> None:
        """Go to where the data stood, now that there are data; the rest of the state once more.

        Whoever opened the data may have drawn from the generators.
        """
        state = self.state
        if state is None:
            return
        if not stream.seekable and state.position is not None:
            stream.skip(state.position.cursor)  # a new process has begun it anew
            state = replace(state, position=None)
        training.go_to(state)

    def story(self) -> str:
        """What a person should know of it."""
        lost = f"; {self.lost_steps} steps beyond it are trained again" if self.lost_steps else ""
        if self.checkpoint is None:
            return f"no checkpoint to go on from: the run begins anew{lost}"
        return f"the run goes on from {self.checkpoint.id}, step {self.checkpoint.step}{lost}"


def go_on(training: Training, earlier: Earlier) -> Resumption:
    """Bring a training to where its run can go on, on a branch of its own.

    The newest checkpoint on the run's course that no sickness reaches into and that is, bit for
    bit, what was written. What interventions had put in force stays in force, also where they came
    after it.

    Raises:
        BadInput: The model or the optimizer is not that of the run.
    """
    store, plane = training.store, training.plane
    store.pinned |= earlier.undo_checkpoints & {info.id for info in store.infos()}
    checkpoint, state = _newest(training)
    parent, step = (MAIN, 0) if checkpoint is None else (checkpoint.branch, checkpoint.step)
    if state is not None:
        try:
            training.go_to(state)
        except (BadInput, KeyError, RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())[:300]
            raise BadInput(
                f"{store.path(checkpoint.id) if checkpoint else ''}: does not fit the model and "
                f"optimizer of this script: {text}; resume with those of the run"
            ) from error
    training.branch = training.next_branch(parent)
    plane.start_branch(training.branch, parent, step)
    training.put_in_force(_in_force(state, earlier))
    return Resumption(state, checkpoint, max(0, earlier.step - step))


def _newest(training: Training) -> tuple[CheckpointInfo | None, TrainingState | None]:
    for info in reversed(training.plane.sound(training.store.infos())):
        try:
            return info, training.store.load(info.id)
        except CheckpointError as error:
            training.plane.fault(f"{error}; an older checkpoint is taken")
    return None, None


def _in_force(state: TrainingState | None, earlier: Earlier) -> dict[str, object]:
    """What the checkpoint says, unless something was put in force after it was written."""
    saved = (state.in_force if state is not None else None) or {}
    newest = earlier.in_force
    return saved if saved.get("commands", 0) >= newest.get("commands", 0) else newest

"""What changes the course of a run: rollback, skip_batches, pause, resume, stop."""

from functools import partial

from autopilot.errors import NotFound
from autopilot.schema import (
    Change,
    Pause,
    Resume,
    Rollback,
    SkipBatches,
    Stop,
)
from autopilot.supported import find_checkpoint
from autopilot_trainer.actions.applied import Applied, Check, constant
from autopilot_trainer.training import Training


def rollback(intervention: Rollback, training: Training) -> Applied:
    """Go back on a new branch; what is in force stays in force."""
    checkpoints = training.plane.checkpoints()
    target = find_checkpoint(intervention.checkpoint, checkpoints)
    if target is None:
        raise NotFound(f"no checkpoint {intervention.checkpoint!r}")
    state = training.state_of(target.id)
    undo = training.keep_undo()
    old_step, old_branch = training.step, training.branch
    old_cursor = _cursor(training)
    try:
        training.go_to(state)
        stream = training.stream
        skipped = stream.skip(intervention.skip_batches) if stream is not None else 0
    except Exception:
        training.go_to(training.state_of(undo))
        raise
    training.branch = training.next_branch(old_branch)
    training.plane.start_branch(training.branch, target.branch, state.step)
    cursor = _cursor(training)
    return Applied(
        changes=(
            Change(field="step", old=old_step, new=training.step),
            Change(field="branch", old=old_branch, new=training.branch),
            Change(field="batch", old=old_cursor, new=cursor),
        ),
        checks=(
            Check("branch", constant(training.branch), lambda: training.branch),
            Check("weights restored", constant(True), constant(training.capture.agrees(state))),
        ),
        inverse=(Rollback(checkpoint=undo),),
        results={
            "checkpoint": target.id,
            "undo_checkpoint": undo,
            "skipped_batches": skipped,
        },
    )


def _cursor(training: Training) -> int:
    return training.stream.position.cursor if training.stream is not None else 0


def skip_batches(intervention: SkipBatches, training: Training) -> Applied:
    """Leave out the next batches."""
    assert training.stream is not None, "capabilities offer it only where there is a stream"
    before = training.stream.position
    old = before.cursor
    skipped = training.stream.skip(intervention.count)
    return Applied(
        changes=(Change(field="batch", old=old, new=_cursor(training)),),
        no_inverse="batches that were left out have passed; the next epoch has them again",
        take_back=partial(training.stream.seek, before) if training.stream.seekable else None,
        results={"skipped_batches": skipped},
    )


def pause(intervention: Pause, training: Training) -> Applied:
    """Hold at this boundary."""
    old, training.paused = training.paused, True
    return Applied(
        changes=(Change(field="paused", old=old, new=True),),
        inverse=() if old else (Resume(),),
        no_inverse="it was paused already" if old else None,
    )


def resume(intervention: Resume, training: Training) -> Applied:
    """Go on."""
    old, training.paused = training.paused, False
    return Applied(
        changes=(Change(field="paused", old=old, new=False),),
        inverse=(Pause(),) if old else (),
        no_inverse=None if old else "it was not paused",
    )


def stop(intervention: Stop, training: Training) -> Applied:
    """End the loop at this boundary."""
    results = {}
    if intervention.save:
        results["checkpoint"] = training.save("stopped").id
    was_paused = training.paused
    training.stopping, training.paused = True, False

    def take_back() -> None:
        training.stopping, training.paused = False, was_paused

    return Applied(
        changes=(Change(field="stopping", old=False, new=True),),
        no_inverse="the loop has ended; begin again from its checkpoint",
        take_back=take_back,
        results=results,
    )

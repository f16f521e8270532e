"""The step boundary: where snapshots are taken, commands applied, and training held or paused."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from autopilot.schema import Command, ReadBack
from autopilot_trainer.actions import Check, apply_all
from autopilot_trainer.step_meter import StepMeter
from autopilot_trainer.training import Training

log = logging.getLogger("autopilot.trainer")

_SNAPSHOT_SHARE = 0.0015
"""Share of the step time that snapshots may cost."""
_LEAST_EVERY, _MOST_EVERY = 10, 500
_PATIENCE = 1000
"""Steps after which a value is read back even if no update was made meanwhile."""
_MOVES = frozenset(
    {
        "rollback",
        "skip_batches",
        "branch",
        "switch_branch",
        "reset_module",
        "reset_optimizer_state",
    }
)
_WAIT_FOR_PILOT = "AUTOPILOT_WAIT_FOR_PILOT"


@dataclass
class _Outstanding:
    """A command whose values must still be read where they take effect."""

    command: str
    checks: tuple[Check, ...]
    applied_at: int
    updates_at: int
    read: tuple[ReadBack, ...] = ()
    rounds: int = 0


class Boundary:
    """Serves the control plane between two steps of the training thread.

    Args:
        adaptive: Take snapshots less often where they would cost too much.
        checkpoint_every: Steps between durable checkpoints; 0 for none. Where there are any, one
            more follows whatever moved the run in its data: a resume must not undo that.
        meter: Told of the time spent here: it belongs to no step.
        on_fault: Told of every fault of ours.

    Attributes:
        outstanding: Commands that :meth:`read_back` must still prove; empty at most steps.
    """

    def __init__(
        self,
        training: Training,
        *,
        adaptive: bool,
        checkpoint_every: int,
        meter: StepMeter,
        on_fault: Callable[[str], None],
    ) -> None:
        self._training = training
        self._on_fault = on_fault
        self._adaptive = adaptive
        self._meter = meter
        self.outstanding: list[_Outstanding] = []
        self._began: float | None = None
        self._snapshot_at = -1
        self._checkpoint_every = checkpoint_every
        self._saved_at = -1
        self._moved = False

    def pass_through(self) -> None:
        """Do what is due before the next step; returns at once where nothing is."""
        training = self._training
        every = training.ring.every
        due = every and not training.step % every
        save = self._checkpoint_every and not training.step % self._checkpoint_every
        if not (due or save or self._is_wanted()):
            return
        began = time.perf_counter()
        try:
            if save and training.executed != self._saved_at:
                self._save()
            if due and training.seekable and training.executed != self._snapshot_at:
                self._take_snapshot()
            if self._is_wanted():
                self._serve()
            if self._moved:
                self._save()
        except Exception as error:  # a fault of ours never reaches the loop
            self._on_fault(f"step boundary: {error!r}")
        self._meter.away += time.perf_counter() - began

    def _is_wanted(self) -> bool:
        training, plane = self._training, self._training.plane
        return bool(plane.queue or training.paused or plane.hold)

    def begin_stream(self) -> None:
        """New data: states that point into other data are gone."""
        self._training.ring.clear()
        self._snapshot_at = -1

    def wait_for_pilot(self) -> None:
        """Hold the first step until a pilot has looked, if whoever started us asked for that."""
        wish = os.environ.get(_WAIT_FOR_PILOT, "") or "0"
        try:
            limit = float(wish)
        except ValueError:
            self._on_fault(f"{_WAIT_FOR_PILOT}={wish!r}: not a number of seconds; not waiting")
            return
        plane, until = self._training.plane, time.monotonic() + limit
        while limit > 0 and plane.info().pilot is None and time.monotonic() < until:
            plane.wait(0.05)

    def _save(self) -> None:
        self._saved_at, self._moved = self._training.executed, False
        self._training.save(None)

    def _take_snapshot(self) -> None:
        training = self._training
        began = time.perf_counter()
        if training.snapshot() is None:
            training.ring.every = 0
            takes, bound = training.capture.size(), training.ring.max_bytes
            self._on_fault(
                f"two states of {takes:,} bytes do not fit into snapshot_bytes ({bound:,}): none "
                "is kept in memory from now on; durable checkpoints can still be gone back to"
            )
        self._snapshot_at = training.executed
        if self._adaptive and self._began is not None and training.executed > _LEAST_EVERY:
            step_time = (began - self._began) / training.executed
            cost = time.perf_counter() - began
            every = cost / (_SNAPSHOT_SHARE * max(step_time, 1e-9))
            every = min(max(every, _LEAST_EVERY), _MOST_EVERY)
            training.ring.every = int(-(-every // _LEAST_EVERY) * _LEAST_EVERY)
        elif self._began is None:
            self._began = time.perf_counter()

    # --- commands -------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Apply what waits; stay while the run is held or paused."""
        training, plane = self._training, self._training.plane
        while True:
            while (command := plane.take()) is not None:
                self._apply(command)
            self._publish_status()
            if training.stopping or not (plane.hold is not None or training.paused):
                return
            plane.wait(0.1)

    def _publish_status(self) -> None:
        training, plane = self._training, self._training.plane
        hold = plane.hold
        if training.paused:
            plane.set_status("paused", "system", "paused at the boundary")
        elif hold is not None and not training.stopping:
            reason = f"waiting for the pilot's decision about {hold.episode}"
            plane.set_status("held", "reflex:hold_on_alarm", reason)
        else:
            plane.set_status("running", "system", "")

    def _apply(self, command: Command) -> None:
        training, plane = self._training, self._training.plane
        try:
            receipt, checks = apply_all(command, training)
        except Exception as error:
            log.warning("%s was not applied: %s", command.id, error)
            plane.rejected(command.id, f"{type(error).__name__}: {error}"[:500])
            return
        training.hooks.arm()
        training.commands += 1
        if self._checkpoint_every and any(i.kind in _MOVES for i in command.interventions):
            self._moved = True
        plane.applied(receipt)
        self._supersede({check.field for check in checks} | {c.field for c in receipt.changes})
        if checks:
            self.outstanding.append(
                _Outstanding(
                    command.id, checks, training.executed, training.hooks.learning_rate.updates
                )
            )

    def _supersede(self, fields: set[str]) -> None:
        """What a newer command changed is no longer there to be read for an older one."""
        for item in list(self.outstanding):
            item.checks = tuple(check for check in item.checks if check.field not in fields)
            if not item.checks:
                self.outstanding.remove(item)
                self._training.plane.proved(item.command, item.read)

    # --- read-backs -----------------------------------------------------------------------------

    def read_back(self) -> None:
        """After a step: read the values of what was applied, twice, and hand in the proof."""
        training = self._training
        updates = training.hooks.learning_rate.updates
        for item in list(self.outstanding):
            waited = training.executed - item.applied_at > _PATIENCE
            needs_update = any(check.after_update for check in item.checks)
            if needs_update and updates - item.updates_at <= item.rounds and not waited:
                continue
            item.rounds += 1
            item.read += tuple(check.run(training.step) for check in item.checks)
            if item.rounds == 2 or not all(read.ok for read in item.read):
                self.outstanding.remove(item)
                training.plane.proved(item.command, item.read)

    def abandon(self) -> None:
        """The loop ends: say of what is outstanding that it was not read back."""
        for item in self.outstanding:
            log.warning("%s was applied at the very end and not read back", item.command)
        self.outstanding.clear()

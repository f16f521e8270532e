"""The training as interventions see it: everything they may touch, and nothing else."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autopilot.control import ControlPlane
from autopilot.schema import MAIN, Capabilities, CheckpointInfo, Setting
from autopilot_trainer.checkpoints import CheckpointStore
from autopilot_trainer.data import BatchStream
from autopilot_trainer.hooks import StepHooks
from autopilot_trainer.knobs import Action, Knob
from autopilot_trainer.snapshots import Snapshot, SnapshotRing
from autopilot_trainer.state import Capture, TrainingState, generators, give_back_generators

log = logging.getLogger("autopilot.trainer")

Evaluation = Callable[[], float | dict[str, float]]


@dataclass
class Training:
    """One process's training. Touched by the training thread only, but for what is published.

    Attributes:
        step: Completed steps on the present course.
        executed: Completed steps of this process; never goes back.
        record_evaluation: Takes the evaluation's values into the journal.
    """

    model: nn.Module
    hooks: StepHooks
    capture: Capture
    ring: SnapshotRing
    store: CheckpointStore
    evaluation: Evaluation | None
    record_evaluation: Callable[[dict[str, float]], None]
    knobs: dict[str, Knob] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    stream: BatchStream | None = None
    step: int = 0
    executed: int = 0
    branch: str = MAIN
    branches: int = 0
    paused: bool = False
    stopping: bool = False
    phase: str | None = None
    _plane: ControlPlane | None = None

    @property
    def plane(self) -> ControlPlane:
        """The run's control plane."""
        assert self._plane is not None, "the session has not been entered"
        return self._plane

    @property
    def attached(self) -> bool:
        """There is a control plane to report to."""
        return self._plane is not None

    def attach(self, plane: ControlPlane) -> None:
        """Name the control plane that decides over this training."""
        self._plane = plane

    # --- published, read from any thread --------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """What this training truly supports now, with values in force and bounds."""
        return Capabilities(
            interventions=self._interventions(),
            settings=self._settings(),
            knobs={name: knob.published() for name, knob in list(self.knobs.items())},
            actions={name: action.arguments for name, action in list(self.actions.items())},
            lr_plan_declared=self.hooks.learning_rate.declared,
        )

    def checkpoints(self) -> list[CheckpointInfo]:
        """States one can go back to, in memory and on disk."""
        if not self.seekable:
            return []
        return [s.info() for s in self.ring.all()] + self.store.infos()

    def phases(self) -> frozenset[str]:
        """What the run is in the middle of."""
        found = {self.phase} if self.phase else set()
        return frozenset(found | ({"warmup"} if self.hooks.learning_rate.rewarming else set()))

    @property
    def seekable(self) -> bool:
        """The data can be gone back in."""
        return self.stream is not None and self.stream.seekable

    def _interventions(self) -> tuple[str, ...]:
        offered = ["scale_lr", "set_lr", "rewarm_lr", "set_optimizer", "set_grad_clip"]
        if self.seekable:
            offered += ["reset_optimizer_state", "rollback"]
        if self.stream is not None:
            offered.append("skip_batches")
        if self.evaluation is not None:
            offered.append("evaluate")
        offered += ["save_checkpoint", "pause", "resume", "stop"]
        if self.knobs:
            offered.append("set_knob")
        if self.actions:
            offered.append("call_action")
        return (*offered, "note")

    def _settings(self) -> dict[str, Setting]:
        lr = self.hooks.learning_rate
        factors = lr.factors(self.step)
        figures = {
            "lr": lr.values(self.step)[0],
            "lr_plan": lr.plan(self.step),
            "lr_scheduled": lr.scheduled(),
            "lr_factor_min": min(factors),
            "lr_factor_max": max(factors),
            "grad_clip": self.hooks.max_norm,
        }
        settings = {name: Setting(name=name, value=value) for name, value in figures.items()}
        return settings | self.hooks.hyperparameters.settings()

    # --- what interventions are made of ----------------------------------------------------------

    def snapshot(self, *, pinned: bool = False) -> Snapshot | None:
        """Keep the present state in memory; None where it is too large for that."""
        size = self.capture.size()
        if not self.ring.fits(size):
            return None
        self.ring.make_room(size)
        return self.ring.add(self._state(), self.branch, pinned=pinned)

    def keep_undo(self) -> str:
        """Keep the present state to come back to, on disk where memory has no room for it.

        Returns:
            The id of the snapshot or checkpoint.
        """
        snapshot = self.snapshot(pinned=True)
        if snapshot is not None:
            return snapshot.id
        checkpoint = self.save("undo")
        self.store.pinned.add(checkpoint.id)
        return checkpoint.id

    def state_of(self, checkpoint_id: str) -> TrainingState:
        """The state of a snapshot or checkpoint."""
        snapshot = self.ring.get(checkpoint_id)
        return snapshot.state if snapshot is not None else self.store.load(checkpoint_id)

    def _state(self) -> TrainingState:
        return self.capture.take(self.step, self.stream, gradients=self.hooks.pending)

    def save(self, tag: str | None) -> CheckpointInfo:
        """Write the present state to disk."""
        with self.in_phase("checkpoint"):
            good = [c.id for c in self.plane.checkpoints() if c.good and c.kind == "durable"]
            manifest = self.store.save(self._state(), self.branch, tag, keep=set(good[-1:]))
        info = next(c for c in self.store.infos() if c.id == manifest.id)
        self.plane.note("checkpoint", {"checkpoint": info.model_dump(mode="json")})
        return info

    def evaluate(self) -> dict[str, float]:
        """Run the evaluation and record it; leaves generators and training mode as they were."""
        assert self.evaluation is not None, "capabilities offer it only where there is one"
        with self.in_phase("evaluation"), _undisturbed(self.model):
            found = self.evaluation()
        named = found if isinstance(found, dict) else {"val_loss": found}
        values = {name: float(value) for name, value in named.items()}
        self.record_evaluation(values)
        return values

    @contextlib.contextmanager
    def in_phase(self, phase: str) -> Iterator[None]:
        """Say what the run is in the middle of."""
        self.phase = phase
        try:
            yield
        finally:
            self.phase = None


@contextlib.contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    outside = generators()
    with torch.no_grad():
        try:
            yield
        finally:
            give_back_generators(outside)
            for module, mode in modes:
                module.training = mode


def plain(value: Any) -> Any:
    """A value as it can stand in a receipt."""
    if isinstance(value, torch.Tensor):
        return value.item()
    return str(tuple(value)) if isinstance(value, tuple | list) else value

"""The training as interventions see it: everything they may touch, and nothing else."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from autopilot.control import ControlPlane
from autopilot.schema import MAIN, Capabilities, CheckpointInfo, Setting
from autopilot_trainer.accumulation import MOST as MOST_ACCUMULATED
from autopilot_trainer.accumulation import Accumulation
from autopilot_trainer.branches import branch_states, free_name
from autopilot_trainer.checkpoints import CheckpointStore
from autopilot_trainer.data import BatchStream
from autopilot_trainer.hooks import StepHooks
from autopilot_trainer.knobs import Action, Knob
from autopilot_trainer.modules import Modules
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
        commands: Commands applied, by earlier processes of the run too.
        turned: Knobs that interventions set.
        awaited_knobs: Values of knobs that an earlier process had, until they are registered.
        record_evaluation: Takes the evaluation's values into the journal.
        accumulation: Where the loop accumulates gradients as the session says.
        modules: The parts of the model that interventions may address.
    """

    model: nn.Module
    hooks: StepHooks
    capture: Capture
    ring: SnapshotRing
    store: CheckpointStore
    evaluation: Evaluation | None
    record_evaluation: Callable[[dict[str, float]], None]
    accumulation: Accumulation | None = None
    modules: Modules = field(init=False)
    knobs: dict[str, Knob] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    stream: BatchStream | None = None
    step: int = 0
    executed: int = 0
    branch: str = MAIN
    branches: int = 0
    commands: int = 0
    turned: set[str] = field(default_factory=set)
    awaited_knobs: dict[str, Any] = field(default_factory=dict)
    paused: bool = False
    stopping: bool = False
    phase: str | None = None
    _plane: ControlPlane | None = None

    def __post_init__(self) -> None:
        self.modules = Modules(self.model, self.hooks.optimizer)

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
            modules=self.modules.published(),
            frozen=self.hooks.frozen.names,
            branches=branch_states(self.branch_names(), self.checkpoints(), self.branch),
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
            offered += ["reset_optimizer_state", "rollback", "branch", "switch_branch"]
        offered += self._of_the_model()
        if self.accumulation is not None and self.accumulation.asked:
            offered.append("set_batch")
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

    def _of_the_model(self) -> list[str]:
        modules = self.modules.published().values()
        offered = []
        if any(module.settings for module in modules):
            offered.append("set_module")
        if self.seekable and any(module.resettable for module in modules):
            offered.append("reset_module")
        if any(module.trained for module in modules) and not self.hooks.recomputes:
            offered += ["freeze", "unfreeze"]
        return offered

    def branch_names(self) -> list[str]:
        """Every branch of the run."""
        return self.plane.branches() if self.attached else [MAIN]

    def next_branch(self, origin: str) -> str:
        """A new name for what goes on from a branch."""
        name = free_name(origin, self.branch_names(), self.branches + 1)
        self.branches += 1
        return name

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
        if self.accumulation is not None:
            settings["accumulation"] = Setting(
                name="accumulation",
                value=self.accumulation.wanted,
                default=self.accumulation.default,
                minimum=1,
                maximum=MOST_ACCUMULATED,
                type="int",
            )
        return settings | self.hooks.hyperparameters.settings()

    # --- what interventions are made of ----------------------------------------------------------

    def snapshot(self, *, pinned: bool = False) -> Snapshot | None:
        """Keep the present state in memory; None where it is too large for that."""
        size = self.capture.size()
        if not self.ring.fits(size):
            return None
        self.ring.make_room(size)
        return self.ring.add(self.state(), self.branch, pinned=pinned)

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

    def go_to(self, state: TrainingState) -> None:
        """Bring everything back to a state; what interventions put in force stays."""
        self.capture.give_back(state, self.stream)
        self.step = state.step
        self.hooks.begin_again()
        self.hooks.pending = state.gradients is not None

    def in_force(self) -> dict[str, Any]:
        """What interventions have put in force, JSON-able: enough to go on with after a crash."""
        return {
            "commands": self.commands,
            "lr": self.hooks.learning_rate.state_dict(),
            "optimizer": self.hooks.hyperparameters.state_dict(),
            "grad_clip": self.hooks.max_norm,
            "modules": self.modules.state_dict(),
            "frozen": list(self.hooks.frozen.names),
            "accumulation": None if self.accumulation is None else self.accumulation.wanted,
            "knobs": {name: self.knobs[name].get() for name in self.turned if name in self.knobs},
        }

    def put_in_force(self, settings: dict[str, Any]) -> None:
        """Put in force again what :meth:`in_force` said, and nothing else."""
        if not settings:
            return
        self.commands = max(self.commands, settings["commands"])
        self.hooks.learning_rate.load_state_dict(settings["lr"])
        self.hooks.hyperparameters.load_state_dict(settings["optimizer"])
        self.hooks.max_norm = settings["grad_clip"]
        self.modules.load_state_dict(settings["modules"])
        frozen = [name for name in settings["frozen"] if name in self.modules]
        self.hooks.frozen.load_state_dict(frozen, self.modules.trained)
        if self.accumulation is not None and settings["accumulation"] is not None:
            self.accumulation.set(settings["accumulation"])
        self.awaited_knobs = dict(settings["knobs"])
        for name in list(self.knobs):
            self.knob_registered(name)
        for name in self.turned - settings["knobs"].keys():
            self.knobs[name].set(self.knobs[name].setting.default)
        self.turned &= settings["knobs"].keys()
        self.hooks.arm()

    def knob_registered(self, name: str) -> None:
        """Set a knob to what an intervention had set it to before the process ended."""
        if name in self.awaited_knobs:
            self.turned.add(name)
            self.knobs[name].set(self.awaited_knobs.pop(name))

    def state(self) -> TrainingState:
        """A copy of the whole present state."""
        return self.capture.take(self.step, self.stream, gradients=self.hooks.pending)

    def save(self, tag: str | None) -> CheckpointInfo:
        """Write the present state to disk."""
        with self.in_phase("checkpoint"):
            good = [c.id for c in self.plane.checkpoints() if c.good and c.kind == "durable"]
            state = replace(self.state(), in_force=self.in_force())
            manifest = self.store.save(state, self.branch, tag, keep=set(good[-1:]))
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

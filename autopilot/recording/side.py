"""The training side of a recording: what its run could have done, as far as the rows tell."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autopilot.schema import (
    Capabilities,
    CheckpointInfo,
    Intervention,
    ProposalRecord,
    Row,
    ScaleLR,
    SetLR,
    Setting,
    metrics,
)

SNAPSHOT_STEPS = 10
"""Steps between assumed snapshots, as a session takes them; rows further apart have one each."""
_NEWEST = 12
_MOST = 48


@dataclass
class _LearningRate:
    """What recorded interventions made of the learning rate: recorded plans include it."""

    scale: float = 1.0
    plan_before: float | None = None

    def plan(self, values: Mapping[str, float]) -> float | None:
        """What was planned for the last row without any intervention."""
        if self.plan_before is not None:
            return self.plan_before
        planned = values.get(metrics.LR_PLANNED, values.get(metrics.LR))
        return None if planned is None else planned / self.scale

    def applied(self, intervention: Intervention, values: Mapping[str, float]) -> None:
        if isinstance(intervention, ScaleLR):
            self.scale *= intervention.factor
        elif isinstance(intervention, SetLR):
            fixed = not isinstance(intervention.value, str)
            self.plan_before, self.scale = (self.plan(values) if fixed else None), 1.0


class RecordedSide:
    """Publishes what a session of the recorded kind would: nothing of it is ever carried out.

    What the run said it offers is offered. Where it did not say, every standard intervention is
    whose setting shows in the rows read so far, and where rows carry a planned learning rate, the
    plan counts as declared. States to go back to are the
    checkpoints that the recording names, and an assumed snapshot every
    :data:`SNAPSHOT_STEPS` steps, thinned with age like a session's.

    Attributes:
        observed: The last value of each metric; the replay's own.
        next_snapshot: The step at which the next snapshot is assumed.
        last_snapshot: The step of the newest one.
    """

    def __init__(self, first: Row | None) -> None:
        self.observed: Callable[[], Mapping[str, float]] = dict
        self._first = {} if first is None else first.values
        self._rate = _LearningRate()
        self._published: Capabilities | None = None
        self._snapshots: dict[str, tuple[int, str, bool]] = {}
        self._durable: list[CheckpointInfo] = []
        self._serial = 0
        self.next_snapshot = self.last_snapshot = 0
        if first is not None and first.step <= 1:
            self.snapshot(0, first.branch)

    # --- published ------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """What such a run could do now."""
        said = self._published
        if said is not None:
            return said.model_copy(update={"settings": said.settings | self._rates()})
        offered = ["scale_lr", "set_lr", "rewarm_lr"]
        if self._is_adam:
            offered.append("set_optimizer")
        offered += ["set_grad_clip", "reset_optimizer_state", "rollback", "skip_batches"]
        if metrics.VAL_LOSS in self.observed():
            offered.append("evaluate")
        offered += ["save_checkpoint", "pause", "resume", "stop"]
        knobs = self._knobs()
        if knobs:
            offered.append("set_knob")
        return Capabilities(
            interventions=(*offered, "note"),
            settings=self._settings(),
            knobs=knobs,
            lr_plan_declared=metrics.LR_PLANNED in self.observed(),
        )

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        """States it could have gone back to."""
        snapshots = [
            CheckpointInfo(
                id=name, step=step, branch=branch, kind="snapshot", good=False, pinned=pinned
            )
            for name, (step, branch, pinned) in self._snapshots.items()
        ]
        return [*snapshots, *self._durable]

    def in_force(self) -> None:
        """Nothing: a recording is not gone on with."""

    def phases(self) -> frozenset[str]:
        """None: a recording does not say."""
        return frozenset()

    @property
    def _is_adam(self) -> bool:
        seen = self.observed()
        return metrics.SECOND_MOMENT_STALENESS in seen or metrics.EPS_SHARE in seen

    def _settings(self) -> dict[str, Setting]:
        settings = {"grad_clip": Setting(name="grad_clip", value=None)} | self._rates()
        if self._is_adam:
            for name, kind in (("betas", "pair"), ("eps", "float"), ("weight_decay", "float")):
                full = f"optimizer.{name}"
                settings[full] = Setting.model_validate(
                    {"name": full, "value": None, "minimum": 0.0, "type": kind}
                )
        return settings

    def _rates(self) -> dict[str, Setting]:
        figures: dict[str, float] = {}
        lr, plan = self.observed().get(metrics.LR), self._rate.plan(self.observed())
        if lr is not None and plan is not None:
            factor = lr / plan if plan > 0 else self._rate.scale
            figures |= {"lr": lr, "lr_plan": plan, "lr_scheduled": plan}
            figures |= {"lr_factor_min": factor, "lr_factor_max": factor}
        return {name: Setting(name=name, value=value) for name, value in figures.items()}

    def _knobs(self) -> dict[str, Setting]:
        scale = self.observed().get(metrics.LOSS_SCALE)
        if scale is None:
            return {}
        return {
            metrics.LOSS_SCALE: Setting(
                name=metrics.LOSS_SCALE,
                value=scale,
                default=self._first.get(metrics.LOSS_SCALE, scale),
                minimum=1.0,
                maximum=2.0**24,
            )
        }

    # --- told by the replay ---------------------------------------------------------------------

    def publish(self, offered: Capabilities) -> None:
        """The recorded run said what it offers from here on."""
        self._published = offered

    def snapshot(self, step: int, branch: str, *, pinned: bool = False) -> None:
        """Assume a snapshot after that step."""
        self._serial += 1
        name = f"s{step}"
        if name in self._snapshots:
            name = f"{name}.{self._serial}"
        self._snapshots[name] = (step, branch, pinned)
        self.last_snapshot, self.next_snapshot = step, step + SNAPSHOT_STEPS
        if len(self._snapshots) > 2 * _MOST:
            self._thin()

    def _thin(self) -> None:
        """Let every second go but for the first and the newest: gaps grow with age."""
        held = list(self._snapshots.items())
        old, new = held[:-_NEWEST], held[-_NEWEST:]
        while len(old) > _MOST:
            old = old[::2]
        self._snapshots = dict(old + new)

    def went_back(self, from_step: int, branch: str, to_step: int) -> None:
        """The run left a branch, and goes on as another one after an earlier step."""
        self.snapshot(from_step, branch, pinned=True)
        self.last_snapshot = to_step
        self.next_snapshot = to_step - to_step % SNAPSHOT_STEPS + SNAPSHOT_STEPS

    def saved(self, checkpoint: CheckpointInfo) -> None:
        """The recorded run wrote a checkpoint."""
        self._durable.append(checkpoint)

    def applied(self, record: ProposalRecord) -> None:
        """The recorded run was intervened in."""
        for intervention in record.proposal.interventions:
            self._rate.applied(intervention, self.observed())

"""A control plane on a bench: a real journal, a training side in figures, a clock that is set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autopilot.control import ControlPlane
from autopilot.journal import Journal
from autopilot.policy import Policy, parse_policy
from autopilot.schema import (
    Capabilities,
    Change,
    CheckpointInfo,
    Command,
    Intervention,
    Proposal,
    ProposalRecord,
    ReadBack,
    Receipt,
    Row,
    ScaleLR,
    SetLR,
    Setting,
)

RULES = "agent:rules"
KIM = "human:kim"
PLAN = 0.01


class SetClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time


class Side:
    """The training side in figures: a learning rate, and what can be gone back to."""

    def __init__(self) -> None:
        self.factor = 1.0
        self.offered = (
            "scale_lr", "set_lr", "rollback", "skip_batches", "pause", "resume", "save_checkpoint",
            "evaluate", "note", "stop",
        )  # fmt: skip
        self.held: tuple[CheckpointInfo, ...] = (
            CheckpointInfo(id="c0", step=0, branch="main", kind="snapshot", good=False),
        )
        self.broken = False

    def capabilities(self) -> Capabilities:
        if self.broken:
            raise RuntimeError("the training side is gone")
        figures = {
            "lr": PLAN * self.factor,
            "lr_plan": PLAN,
            "lr_scheduled": PLAN,
            "lr_factor_min": self.factor,
            "lr_factor_max": self.factor,
        }
        return Capabilities(
            interventions=self.offered,
            settings={name: Setting(name=name, value=value) for name, value in figures.items()},
            lr_plan_declared=True,
        )

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        return self.held

    def in_force(self) -> None:
        return None

    def phases(self) -> frozenset[str]:
        return frozenset()


OPEN = 'default = "allow"\n[cooldown]\nsteps = 0\nsame_episode = 0\n'
ASKING = 'default = "ask"\n[approval]\nttl = "60s"\non_expiry = "{on_expiry}"\n'


class Bench:
    """A control plane with its training side, driven by hand."""

    def __init__(self, policy: str | Policy, path: Path | None = None) -> None:
        self.clock, self.side, self.step = SetClock(), Side(), 0
        where = str(path) if path is not None else ":memory:"
        if path is not None and path.exists():
            self.journal = Journal.open(path)
        else:
            self.journal = Journal.create(where, run_id="r1", name="bench")
        chosen = policy if isinstance(policy, Policy) else parse_policy(policy)
        self.plane = ControlPlane(self.journal, chosen, self.side, clock=self.clock)
        self.plane.start({"name": "bench"})

    def rows(self, count: int, **values: float) -> None:
        for _ in range(count):
            self.step += 1
            row = {"loss": 2.0 + 0.01 * (self.step % 3), "lr": PLAN, "lr_planned": PLAN, **values}
            self.plane.observe(Row(self.step, row))
        self.plane.tick()

    def propose(
        self, *interventions: Intervention, actor: str = RULES, key: str = "", **values: Any
    ) -> ProposalRecord:
        proposal = Proposal(interventions=interventions, **values)
        return self.plane.propose(
            proposal, actor=actor, key=key or f"{proposal.digest()}{self.step}"
        )

    def apply(self, *, proven: bool = True) -> list[Command]:
        """What a step boundary does: take, apply, read back."""
        done = []
        while (command := self.plane.take()) is not None:
            before = self.side.factor
            touched = any(isinstance(i, ScaleLR | SetLR) for i in command.interventions)
            inverse: tuple[Intervention, ...] = ()
            for intervention in command.interventions:
                if isinstance(intervention, ScaleLR):
                    self.side.factor *= intervention.factor
                    inverse = (ScaleLR(factor=1 / intervention.factor),)
                elif isinstance(intervention, SetLR):
                    self.side.factor = 1.0
                    inverse = (ScaleLR(factor=before),)
            no = None if inverse else "nothing to undo"
            change = Change(field="lr", old=before, new=self.side.factor)
            self.plane.applied(
                Receipt(command=command.id, step=self.step, branch="main",
                        changes=(change,) if touched else (), inverse=inverse, no_inverse=no)
            )  # fmt: skip
            read = ReadBack(step=self.step + 1, field="lr", expected=1.0, value=1.0, ok=proven)
            self.plane.proved(command.id, (read,))
            done.append(command)
        return done

    def break_schedule(self) -> str:
        """Rows whose learning rate is not the planned one; the id of the open episode."""
        self.rows(5, lr=0.0)
        (episode,) = self.plane.episodes()
        assert episode.invariant_broken
        return episode.id

    def kinds(self) -> list[str]:
        return [e.kind for e in self.plane.events(0) if e.kind != "rows_sealed"]

    def status(self, record: ProposalRecord) -> str:
        return self.plane.proposal(record.id).status

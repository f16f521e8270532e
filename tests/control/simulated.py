"""A training process in figures: it applies what it is told, honestly or not, and can vanish."""

from collections.abc import Sequence
from typing import Any, Literal

import drawn
from control.lawbook import Settings

from autopilot.control import ControlPlane
from autopilot.schema import (
    MAIN,
    Capabilities,
    Change,
    CheckpointInfo,
    Command,
    Intervention,
    Pause,
    ReadBack,
    Receipt,
    Resume,
    Rollback,
    Row,
    ScaleLR,
    SetGradClip,
    SetLR,
    StartBranch,
    SwitchBranch,
)

Honesty = Literal["honest", "cannot", "wrong", "silent"]
"""Applies and reads back; refuses; reads back something else; does not read back yet."""


class Executor:
    """The training side of a control plane: settings, checkpoints, a branch and a step."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.commands = 0
        self.step, self.branch = 0, MAIN
        self.phase: frozenset[str] = frozenset()
        self.held = {"c0": CheckpointInfo(id="c0", step=0, branch=MAIN, kind="snapshot", good=True)}
        self.unread: list[str] = []

    # --- what the plane asks of it ------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        branches = dict.fromkeys((MAIN, self.branch))
        return drawn.capabilities(self.settings.factors, branches=tuple(branches))

    def checkpoints(self) -> Sequence[CheckpointInfo]:
        return tuple(self.held.values())

    def phases(self) -> frozenset[str]:
        return self.phase

    def in_force(self) -> dict[str, Any]:
        factors, clip = self.settings.factors, self.settings.clip
        return {"commands": self.commands, "factors": list(factors), "clip": clip}

    def put_in_force(self, said: dict[str, Any]) -> None:
        """What a new process takes over from the journal of the one before it."""
        if said:
            self.commands = said["commands"]
            self.settings = Settings(tuple(said["factors"]), said["clip"])

    # --- the training -------------------------------------------------------------------------

    def train(self, plane: ControlPlane, steps: int, **values: float) -> None:
        """Hand in the rows of so many steps."""
        lr = drawn.PLAN * self.settings.factors[0]
        for _ in range(steps):
            self.step += 1
            usual = {"loss": 2.0 + 0.01 * (self.step % 3), "lr": lr, "lr_planned": lr}
            plane.observe(Row(self.step, {**usual, **values}, branch=self.branch))

    def serve(self, plane: ControlPlane, honesty: Honesty, most: int = 50) -> None:
        """What a step boundary does: take, apply, read back."""
        for _ in range(most):
            command = plane.take()
            if command is None:
                return
            if honesty == "cannot":
                plane.rejected(command.id, "RuntimeError: not today")
                continue
            plane.applied(self._apply(command, plane))
            if honesty == "silent":
                self.unread.append(command.id)
            else:
                self._read_back(plane, command.id, ok=honesty == "honest")

    def read_back(self, plane: ControlPlane) -> None:
        """Read what was not read yet."""
        while self.unread:
            self._read_back(plane, self.unread.pop(0), ok=True)

    def _read_back(self, plane: ControlPlane, command: str, *, ok: bool) -> None:
        read = ReadBack(step=self.step + 1, field="lr", expected=1.0, value=1.0 + (not ok), ok=ok)
        plane.proved(command, (read,))

    def _apply(self, command: Command, plane: ControlPlane) -> Receipt:
        step, branch, inverse = self.step, self.branch, list[Intervention]()
        changes = list[Change]()
        for intervention in command.interventions:
            inverse = [*self._inverse(intervention, command.id), *inverse]
            old, self.settings = self.settings, self.settings.after([intervention])
            changes += _changes(intervention, old, self.settings)
            self._move(intervention, command.id, plane)
        self.commands += 1
        return Receipt(
            command=command.id,
            step=step,
            branch=branch,
            changes=tuple(changes),
            inverse=tuple(inverse[:8]),
            no_inverse=None if inverse else "nothing to undo",
        )

    def _inverse(self, intervention: Intervention, command: str) -> list[Intervention]:
        match intervention:
            case ScaleLR():
                return [ScaleLR(factor=1 / intervention.factor, groups=intervention.groups)]
            case SetLR():
                chosen = intervention.groups or range(len(self.settings.factors))
                old = [self.settings.factors[group] * drawn.PLAN for group in chosen]
                both = zip(chosen, old, strict=True)
                return [SetLR(value=value, groups=(group,)) for group, value in both]
            case SetGradClip():
                return [SetGradClip(max_norm=self.settings.clip)]
            case Rollback():
                return [Rollback(checkpoint=f"before-{command}")]
            case Pause():
                return [Resume()]
            case Resume():
                return [Pause()]
            case _:
                return []

    def _move(self, intervention: Intervention, command: str, plane: ControlPlane) -> None:
        """To the state and the branch that the intervention leads to."""
        left = CheckpointInfo(
            id=f"before-{command}", step=self.step, branch=self.branch, kind="snapshot", good=False
        )
        match intervention:
            case Rollback():
                self.held[left.id] = left
                named = intervention.checkpoint
                good = [c for c in plane.checkpoints() if c.good]
                target = good[-1] if named == "last_good" else self.held[named]
                self.go_to(f"{command}-{len(plane.branches())}", target.branch, target.step, plane)
            case StartBranch():
                target = self.held.get(intervention.checkpoint or "", left)
                self.go_to(intervention.name, target.branch, target.step, plane)
            case SwitchBranch():
                self.go_to(f"{command}-{len(plane.branches())}", intervention.name, 0, plane)
            case _:
                pass

    def go_to(self, name: str, parent: str, step: int, plane: ControlPlane) -> None:
        """Go on as a new branch."""
        self.branch, self.step = name, step
        plane.start_branch(name, parent, step)


def _changes(intervention: Intervention, old: Settings, new: Settings) -> list[Change]:
    """As the training side names them: every group that was set, changed or not."""
    if isinstance(intervention, SetGradClip):
        return [Change(field="grad_clip", old=old.clip, new=new.clip)]
    if not isinstance(intervention, ScaleLR | SetLR):
        return []
    chosen = range(len(old.factors)) if intervention.groups is None else intervention.groups
    return [Change(field=f"lr[{g}]", old=old.factors[g], new=new.factors[g]) for g in chosen]

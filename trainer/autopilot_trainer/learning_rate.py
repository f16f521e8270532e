"""The learning rate in force: the schedule's or plan's value, and what interventions made of it.

The user's scheduler keeps its own arithmetic. Around every optimizer step the value in force is
put into the parameter groups and afterwards the scheduler's own is put back, so a change is in
force on the very next step and no scheduler, restore or resume undoes it.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from autopilot_trainer.optimizers import Trainer

Plan = Callable[[int], float]
"""Planned learning rate of the first group for the optimizer step after that many steps."""


@dataclass
class GroupControl:
    """What interventions put in force for one parameter group."""

    scale: float = 1.0
    override: float | None = None
    follow: Literal["schedule", "plan"] = "schedule"

    def is_neutral(self) -> bool:
        return self.scale == 1.0 and self.override is None and self.follow == "schedule"


class LearningRate:
    """Puts the learning rate in force around each step of an optimizer.

    Args:
        optimizer: Its groups' ``lr`` may be floats or tensors.
        plan: What the user declared, if anything.
        parts: Optimizers that it consists of; each makes its own updates.

    Attributes:
        updates: Made so far, by every optimizer.
        in_force: What the latest update of each group used.
        expected: What it was to use.
    """

    def __init__(self, optimizer: Trainer, plan: Plan | None = None, *, parts: int = 1) -> None:
        self._groups: list[dict[str, Any]] = optimizer.param_groups
        self._plan = plan
        self._saved: list[Any] | None = None
        self._own: list[Any] = []
        self._base_lr = _initial(self._groups[0]) or self._scheduled(0) or 1.0
        self._ratios: list[float] = []
        self.controls: list[GroupControl] = []
        self._grow()
        self._rewarm: tuple[int, int] | None = None
        self.updates = 0
        self._made = [0] * parts
        self._entered: list[float] = []
        self.in_force: list[float] = [self._scheduled(i) for i in range(len(self._groups))]
        self.expected: list[float] = list(self.in_force)
        self.neutral = True

    # --- around the optimizer step -----------------------------------------------------------

    def enter(self, step: int) -> float:
        """Put the values in force; call right before the update.

        Returns:
            What is planned for the first group, as :meth:`planned` says.
        """
        if self._saved is not None:
            self.put_back()  # an update that raised never left
        if len(self.controls) != len(self._groups):
            self._grow()
        if not self.neutral:
            self._put_in_force(step)
        return self.planned(step)

    def _put_in_force(self, step: int) -> None:
        self._entered = self.values(step)
        self._own = [group["lr"] for group in self._groups]
        self._saved = [
            lr.detach().clone() if isinstance(lr, torch.Tensor) else lr for lr in self._own
        ]
        held = [id(lr) for lr in self._own]
        for group, lr, value in zip(self._groups, self._own, self._entered, strict=True):
            if not isinstance(lr, torch.Tensor):
                group["lr"] = value
            elif held.count(id(lr)) > 1:  # groups share torch's default, not what is in force
                group["lr"] = torch.full_like(lr, value)
            else:
                lr.fill_(value)

    def leave(self, part: int = 0, span: range | None = None) -> None:
        """Note what the update used and put the scheduler's own values back.

        Args:
            part: The optimizer that made the update.
            span: Its groups; None means all.
        """
        self._made[part] += 1
        self.updates = min(self._made)
        used = [lr if type(lr := g["lr"]) is float else _number(lr) for g in self._groups]
        expected = used if self._saved is None else self._entered
        if span is None:
            self.in_force, self.expected = used, expected
        else:
            self.in_force = _merged(self.in_force, used, span)
            self.expected = _merged(self.expected, expected, span)
        if self._saved is None:
            return
        self.put_back()
        if self._rewarm is not None and self.updates - self._rewarm[0] >= self._rewarm[1]:
            self._rewarm = None
            self._refresh()

    def put_back(self) -> None:
        """Give the groups the scheduler's own values again."""
        if self._saved is None:
            return
        for group, own, saved in zip(self._groups, self._own, self._saved, strict=False):
            if isinstance(own, torch.Tensor):
                own.copy_(saved)
            group["lr"] = own
        self._saved = None

    # --- what is in force -----------------------------------------------------------------------

    def values(self, step: int) -> list[float]:
        """Value in force for each group at the update after that many steps."""
        ramp = self._ramp()
        return [
            (
                control.override
                if control.override is not None
                else self._base(i, step) * control.scale
            )
            * ramp
            for i, control in enumerate(self.controls)
        ]

    def planned(self, step: int) -> float:
        """What the first group should have: the plan with the interventions, without faults.

        Without a declared plan the scheduler's value stands for it.
        """
        if self.neutral:
            return self.plan(step) if self._plan else _number(self._groups[0]["lr"])
        control = self.controls[0]
        if control.override is not None:
            return control.override * self._ramp()
        return self.plan(step) * control.scale * self._ramp()

    def plan(self, step: int) -> float:
        """What is planned for the first group without any intervention."""
        return float(self._plan(step)) if self._plan is not None else self._scheduled(0)

    def scheduled(self) -> float:
        """What the scheduler, or whoever writes into the group, says for the first group."""
        return self._scheduled(0)

    def scheduled_of(self, group: int) -> float:
        """What the scheduler says for one group."""
        return self._scheduled(group)

    def ratio(self, group: int) -> float:
        """A group's learning rate over the first group's, as the run began."""
        return self._ratios[group]

    def factors(self, step: int) -> list[float]:
        """Value in force over the plan for each group, re-warm-up left out."""
        found = []
        for i, control in enumerate(self.controls):
            plan = self.plan(step) * self._ratios[i] if self._plan else self._scheduled(i)
            value = control.override
            if value is None:
                value = self._base(i, step) * control.scale
            found.append(value / plan if plan > 0 else control.scale)
        return found

    @property
    def declared(self) -> bool:
        """The user declared a plan."""
        return self._plan is not None

    @property
    def rewarming(self) -> bool:
        """A re-warm-up is under way."""
        return self._rewarm is not None

    # --- interventions --------------------------------------------------------------------------

    def chosen(self, groups: Iterable[int] | None) -> list[int]:
        """Indices of the groups meant; None means all."""
        self._grow()
        return list(range(len(self._groups))) if groups is None else list(groups)

    def scale(self, factor: float, groups: Iterable[int] | None = None) -> None:
        """Multiply what is in force."""
        for i in self.chosen(groups):
            control = self.controls[i]
            if control.override is not None:
                control.override *= factor
            else:
                scale = control.scale * factor
                control.scale = 1.0 if abs(scale - 1.0) < 1e-12 else scale
        self._refresh()

    def set_value(self, value: float, groups: Iterable[int] | None = None) -> None:
        """Fix the first group's value; the others keep their ratio to it."""
        first = self._scheduled(0)
        for i in self.chosen(groups):
            ratio = self._scheduled(i) / first if first > 0 else self._ratios[i]
            self.controls[i] = GroupControl(override=value * ratio)
        self._refresh()

    def follow(
        self, what: Literal["schedule", "plan"], groups: Iterable[int] | None = None
    ) -> None:
        """Follow the scheduler, or the declared plan, without any scaling."""
        for i in self.chosen(groups):
            self.controls[i] = GroupControl(follow=what)
        self._refresh()

    def rewarm(self, steps: int) -> None:
        """Ramp linearly over so many updates from now; 0 ends a ramp."""
        self._rewarm = (self.updates, steps) if steps > 0 else None
        self._refresh()

    def state_dict(self) -> dict[str, Any]:
        """What interventions put in force, as JSON-able values."""
        ramp = None if self._rewarm is None else [self.updates - self._rewarm[0], self._rewarm[1]]
        return {"groups": [asdict(control) for control in self.controls], "rewarm": ramp}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the same in force again; a re-warm-up goes on where it was."""
        self._grow()
        for i, saved in enumerate(state["groups"][: len(self.controls)]):
            self.controls[i] = GroupControl(**saved)
        done, steps = state["rewarm"] or (0, 0)
        self._rewarm = (self.updates - done, steps) if steps else None
        self._refresh()

    # --- parts ----------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Take in groups that were added to the optimizer meanwhile."""
        for group in self._groups[len(self.controls) :]:
            self._ratios.append(_initial(group) / self._base_lr)
            self.controls.append(GroupControl())

    def _scheduled(self, group: int) -> float:
        saved = self._saved  # another thread may ask while an update is under way
        return _number(self._groups[group]["lr"] if saved is None else saved[group])

    def _base(self, group: int, step: int) -> float:
        if self.controls[group].follow == "plan":
            return self.plan(step) * self._ratios[group]
        return self._scheduled(group)

    def _ramp(self) -> float:
        if self._rewarm is None:
            return 1.0
        start, steps = self._rewarm
        return min(1.0, (self.updates - start + 1) / (steps + 1))

    def _refresh(self) -> None:
        self.neutral = self._rewarm is None and all(c.is_neutral() for c in self.controls)


def _merged(before: list[float], now: list[float], span: range) -> list[float]:
    return [*before[: span.start], *now[span.start : span.stop], *before[span.stop :]]


def _initial(group: dict[str, Any]) -> float:
    return _number(group.get("initial_lr", group["lr"]))


def _number(value: Any) -> float:
    if type(value) is float:
        return value
    return float(value.item()) if isinstance(value, torch.Tensor) else float(value)

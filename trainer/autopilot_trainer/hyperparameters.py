"""Optimizer hyperparameters other than the learning rate, put in force around each step.

Like the learning rate they are put into the groups for the update and taken out again, so that a
scheduler that cycles betas or momentum, or a restore, cannot undo an intervention.
"""

from collections.abc import Iterable
from typing import Any, get_args

import torch

from autopilot.schema import Setting
from autopilot.schema.interventions import OptimizerSetting
from autopilot_trainer.optimizers import Trainer

_NAMES: tuple[str, ...] = get_args(OptimizerSetting)
_MAXIMUM = {
    "momentum": 0.9999,
    "alpha": 0.99999,
    "dampening": 1.0,
    "eps": 1.0,
    "weight_decay": 100.0,
}
_PAIRS = frozenset({"betas"})
_FLAGS = frozenset({"nesterov", "amsgrad"})
_SHAPING = frozenset({"amsgrad"})
"""Changing these in flight would need state that the optimizer has not kept."""


class Hyperparameters:
    """Overrides of an optimizer's hyperparameters: those that all of its groups have."""

    def __init__(self, optimizer: Trainer) -> None:
        self._groups: list[dict[str, Any]] = optimizer.param_groups
        self._names = [
            n
            for n in _NAMES
            if n not in _SHAPING and all(_is_settable(n, g.get(n)) for g in self._groups)
        ]
        self._defaults = {name: self._groups[0][name] for name in self._names}
        self._overrides: dict[tuple[int, str], Any] = {}
        self._saved: dict[tuple[int, str], Any] = {}
        self._watched: set[tuple[int, str]] = set()
        self._used: dict[tuple[int, str], Any] = {}

    def enter(self) -> None:
        """Put the overrides in force."""
        self.put_back()  # an update that raised never left
        for key, value in self._overrides.items():
            group, name = key
            self._saved[key] = self._groups[group][name]
            self._groups[group][name] = value

    def leave(self, span: range | None = None) -> None:
        """Note what the update used and put the groups' own values back.

        Args:
            span: Groups that were updated; None means all.
        """
        for key in self._watched:
            group, name = key
            if span is None or group in span:
                self._used[key] = self._groups[group][name]
        self.put_back()

    def used(self, name: str, group: int) -> Any:
        """What the latest update used, for values that were ever set; None before that."""
        return self._used.get((group, name))

    def __bool__(self) -> bool:
        """Something is put in force, or was and is still read back."""
        return bool(self._watched)

    def value(self, name: str, group: int = 0) -> Any:
        """The value in force."""
        return self._overrides.get((group, name), self._groups[group][name])

    def override(self, name: str, group: int) -> Any:
        """What an intervention put in force; None where the group's own value holds."""
        return self._overrides.get((group, name))

    def set(self, name: str, value: Any, groups: Iterable[int] | None) -> None:
        """Put a value in force for some groups, or all; "schedule" takes it out of force."""
        for group in range(len(self._groups)) if groups is None else groups:
            self._watched.add((group, name))
            if value == "schedule":
                self._overrides.pop((group, name), None)
            else:
                self._overrides[group, name] = value

    def state_dict(self) -> list[list[Any]]:
        """What interventions put in force: group, name and value of each, JSON-able."""
        return [[group, name, _plain(value)] for (group, name), value in self._overrides.items()]

    def load_state_dict(self, state: list[list[Any]]) -> None:
        """Put the same in force again, and nothing else."""
        for group, name in list(self._overrides):
            self.set(name, "schedule", [group])
        for group, name, value in state:
            if group < len(self._groups) and name in self._names:
                self.set(name, tuple(value) if name in _PAIRS else value, [group])

    def settings(self) -> dict[str, Setting]:
        """What can be set, with the values in force and the bounds."""
        found = {
            "optimizer.groups": Setting(
                name="optimizer.groups", value=len(self._groups), type="int"
            )
        }
        for name in self._names:
            value, default = self.value(name), self._defaults[name]
            pair, flag = name in _PAIRS, name in _FLAGS
            found[f"optimizer.{name}"] = Setting(
                name=f"optimizer.{name}",
                value=str(tuple(value)) if pair else _plain(value),
                default=str(tuple(default)) if pair else _plain(default),
                minimum=None if pair or flag else 0.0,
                maximum=_MAXIMUM.get(name),
                type="pair" if pair else "bool" if flag else "float",
            )
        return found

    def put_back(self) -> None:
        """Take out of the groups what :meth:`enter` put there."""
        for (group, name), value in self._saved.items():
            self._groups[group][name] = value
        self._saved.clear()


def _is_settable(name: str, value: Any) -> bool:
    """Whether a value is what interventions carry: Adafactor's eps, for one, is a pair."""
    if name in _FLAGS:
        return isinstance(value, bool)
    if name in _PAIRS:
        return isinstance(value, tuple | list) and len(value) == 2
    return isinstance(value, int | float | torch.Tensor)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value

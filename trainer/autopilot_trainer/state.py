"""Capturing and restoring the whole state of a training: weights to generators to data position.

Tensors are copied into the tensors that are there, so that whatever else holds them (an optimizer,
a captured graph, the user's own variables) sees the restored values.
"""

import copy
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from autopilot.errors import BadInput
from autopilot_trainer.data import BatchStream, Position
from autopilot_trainer.optimizers import Trainer

_IMMUTABLE = frozenset({bool, int, float, str})


class Stateful(Protocol):
    """Anything with a state that can be taken and given back."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class TrainingState:
    """A complete copy of a training's state, in host memory.

    Attributes:
        model: Copies of the tensors of ``state_dict``; other entries as they were.
        optimizer: Per group its settings, per parameter in order its state.
        others: States of scheduler, scaler and what the user tracks, by name.
        generators: States of torch's, Python's and, where loaded, NumPy's generators.
        position: Of the stream of batches, where there is one.
        gradients: Per parameter in order, where an update that is still to come needs them.
        in_force: What interventions had put in force; of use only where the process is another.
    """

    step: int
    model: dict[str, Any]
    optimizer: tuple[list[dict[str, Any]], list[dict[str, Any]]]
    others: dict[str, dict[str, Any]]
    generators: dict[str, Any]
    position: Position | None
    gradients: list[torch.Tensor | None] | None = None
    in_force: dict[str, Any] | None = None

    def size(self) -> int:
        """Bytes of all tensors."""
        total = sum(_bytes(value) for value in self.model.values())
        total += sum(_bytes(value) for value in self.gradients or ())
        total += sum(_bytes(value) for other in self.others.values() for value in other.values())
        for state in self.optimizer[1]:
            total += sum(_bytes(value) for value in state.values())
        return total


class Capture:
    """Takes and gives back the state of one training.

    Args:
        others: Scheduler, scaler and whatever else carries state, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Trainer,
        others: dict[str, Stateful],
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self.others = others
        self._size: tuple[int, int] | None = None

    def size(self) -> int:
        """Bytes that a copy of weights and optimizer state would take now."""
        known = len(self._optimizer.state)
        if self._size is not None and self._size[0] == known:
            return self._size[1]
        total = sum(_bytes(value) for value in self._model.state_dict().values())
        for state in self._optimizer.state.values():
            total += sum(_bytes(value) for value in state.values())
        self._size = known, total
        return total

    def take(
        self, step: int, stream: BatchStream | None, *, gradients: bool = False
    ) -> TrainingState:
        """Copy everything; the gradients where an update that is still to come needs them."""
        return TrainingState(
            step=step,
            model={name: _copied(value) for name, value in self._model.state_dict().items()},
            optimizer=(self._groups(), [_copied(s) for s in self._states()]),
            others={name: _copied(other.state_dict()) for name, other in self.others.items()},
            generators=generators(),
            position=stream.position if stream is not None else None,
            gradients=[_copied(p.grad) for p in self._parameters()] if gradients else None,
        )

    def give_back(self, state: TrainingState, stream: BatchStream | None) -> None:
        """Restore everything; the data position only where there is a stream.

        Raises:
            BadInput: The model, the optimizer or the data are no longer those that the state is
                of; nothing was changed.
        """
        self._check_fits(state)
        if stream is not None and state.position is not None:
            stream.seek(state.position)
        self._give_back_model(state.model)
        self._give_back_optimizer(*state.optimizer)
        for name, saved in state.others.items():
            if name in self.others:
                self.others[name].load_state_dict(copy.deepcopy(saved))
        for parameter in self._model.parameters():
            parameter.grad = None
        for held, gradient in zip(self._parameters(), state.gradients or (), strict=False):
            held.grad = None if gradient is None else gradient.to(held.device, copy=True)
        give_back_generators(state.generators)

    def _check_fits(self, state: TrainingState) -> None:
        """Before anything is copied: a tensor of another shape might be filled by broadcasting."""
        count, before = len(self._optimizer.param_groups), len(state.optimizer[0])
        if count != before:
            raise BadInput(f"the optimizer has {count} parameter groups now, it had {before} then")
        owners, owned = len(self._parameters()), len(state.optimizer[1])
        if owners != owned:
            raise BadInput(f"the optimizer has {owners} parameters now, it had {owned} then")
        current = self._model.state_dict()
        for name in current.keys() ^ state.model.keys():
            when = "now, but was not then" if name in current else "no longer, but was then"
            raise BadInput(f"{name} is in the model {when}")
        for name, value in state.model.items():
            if isinstance(value, torch.Tensor) and value.shape != current[name].shape:
                was, now = tuple(value.shape), tuple(current[name].shape)
                raise BadInput(f"{name} has the shape {now} now, it had {was} then")

    def agrees(self, state: TrainingState) -> bool:
        """Whether the weights now equal that state's, bit for bit."""
        return all(
            not isinstance(value, torch.Tensor) or torch.equal(value.cpu(), state.model[name])
            for name, value in self._model.state_dict().items()
        )

    def _parameters(self) -> list[torch.Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def _groups(self) -> list[dict[str, Any]]:
        return [
            {name: _copied(value) for name, value in group.items() if name != "params"}
            for group in self._optimizer.param_groups
        ]

    def _states(self) -> list[dict[str, Any]]:
        return [dict(self._optimizer.state.get(p, {})) for p in self._parameters()]

    def _give_back_model(self, saved: dict[str, Any]) -> None:
        current = self._model.state_dict()
        extra = {k: v for k, v in saved.items() if not isinstance(v, torch.Tensor)}
        with torch.no_grad():
            for name, value in saved.items():
                if isinstance(value, torch.Tensor):
                    current[name].copy_(value)
        if extra:
            self._model.load_state_dict(copy.deepcopy(extra), strict=False)

    def _give_back_optimizer(
        self, groups: list[dict[str, Any]], states: list[dict[str, Any]]
    ) -> None:
        for group, saved in zip(self._optimizer.param_groups, groups, strict=True):
            for name, value in saved.items():
                _put(group, name, value)
        for parameter, saved in zip(self._parameters(), states, strict=True):
            if not saved:
                self._optimizer.state.pop(parameter, None)
                continue
            held = self._optimizer.state[parameter]
            for name in held.keys() - saved.keys():
                del held[name]
            for name, value in saved.items():
                device = parameter.device if _follows(name, value) else None
                _put(held, name, value, device)


def _follows(name: str, value: Any) -> bool:
    """Adam's step counter stays on the host; every other state lies with its parameter."""
    return isinstance(value, torch.Tensor) and (name != "step" or value.dim() > 0)


def _put(target: dict[str, Any], name: str, value: Any, device: Any = None) -> None:
    held = target.get(name)
    if isinstance(value, torch.Tensor) and isinstance(held, torch.Tensor):
        with torch.no_grad():
            held.copy_(value)
    elif isinstance(value, torch.Tensor) and device is not None:
        target[name] = value.detach().clone().to(device)
    else:
        target[name] = _copied(value)


def _copied(value: Any) -> Any:
    if value is None or type(value) in _IMMUTABLE:
        return value
    if isinstance(value, torch.Tensor):
        own = value.detach()
        return own.clone() if own.device.type == "cpu" else own.to("cpu")
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return copy.deepcopy(value)


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0


def generators() -> dict[str, Any]:
    """States of torch's, Python's and, where loaded, NumPy's generators."""
    found: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state_all()
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        found["numpy"] = (name, torch.from_numpy(keys.astype("int64")), *rest)
    return found


def give_back_generators(saved: dict[str, Any]) -> None:
    """Put the generators back."""
    torch.set_rng_state(saved["torch"])
    random.setstate(saved["python"])
    if "cuda" in saved:
        torch.cuda.set_rng_state_all(saved["cuda"])
    if "numpy" in saved and "numpy" in sys.modules:
        name, keys, *rest = saved["numpy"]
        sys.modules["numpy"].random.set_state((name, keys.numpy().astype("uint32"), *rest))


def as_list(value: object) -> list[Any]:
    """A list of what was given as one, several or none."""
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) else [value]

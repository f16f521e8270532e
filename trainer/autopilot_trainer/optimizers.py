"""Several optimizers of one training seen as one: groups in a row, states by parameter."""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, Protocol

import torch

from autopilot.errors import BadInput


class Trainer(Protocol):
    """What an optimizer is to those that read and set what it trains with."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    @property
    def state(self) -> MutableMapping[torch.Tensor, Any]: ...


class Together:
    """Several optimizers as one.

    Args:
        optimizers: At least two. Their groups are counted through in this order, and none may be
            added later.

    Raises:
        BadInput: Two of them train one parameter.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.param_groups = [group for one in optimizers for group in one.param_groups]
        held = [id(p) for group in self.param_groups for p in group["params"]]
        if len(held) != len(set(held)):
            raise BadInput("optimizer: one parameter is trained by two of the optimizers given")
        self.state: MutableMapping[torch.Tensor, Any] = _States(optimizers)


class _States(MutableMapping[torch.Tensor, Any]):
    """The optimizers' states in one mapping; what is new goes to the one that trains it."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._all = [one.state for one in optimizers]
        self._owners = {
            id(p): one.state
            for one in optimizers
            for group in one.param_groups
            for p in group["params"]
        }

    def __contains__(self, parameter: object) -> bool:
        return parameter in self._owners.get(id(parameter), {})

    def __getitem__(self, parameter: torch.Tensor) -> Any:
        return self._owners[id(parameter)][parameter]

    def __setitem__(self, parameter: torch.Tensor, state: Any) -> None:
        self._owners[id(parameter)][parameter] = state

    def __delitem__(self, parameter: torch.Tensor) -> None:
        del self._owners[id(parameter)][parameter]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (parameter for state in self._all for parameter in state)

    def __len__(self) -> int:
        return sum(len(state) for state in self._all)

    def get(self, parameter: torch.Tensor, default: Any = None) -> Any:
        """The state; asking for what is not there makes none, unlike in an optimizer's own."""
        owner = self._owners.get(id(parameter))
        return default if owner is None else owner.get(parameter, default)

    def pop(self, parameter: torch.Tensor, default: Any = None) -> Any:
        """Take the state out, if there is one."""
        return self._owners[id(parameter)].pop(parameter, default)


def together(optimizers: Sequence[torch.optim.Optimizer]) -> Trainer:
    """One optimizer as it is, several as one.

    Raises:
        BadInput: There is none, or two of them train one parameter.
    """
    if not optimizers:
        raise BadInput("optimizer: expected one or several, got none")
    return optimizers[0] if len(optimizers) == 1 else Together(optimizers)


def spans(optimizers: Sequence[torch.optim.Optimizer]) -> list[range | None]:
    """Each optimizer's groups among all; of one alone None: those that it has at the time."""
    if len(optimizers) == 1:
        return [None]
    found: list[range | None] = []
    begin = 0
    for one in optimizers:
        found.append(range(begin, begin + len(one.param_groups)))
        begin += len(one.param_groups)
    return found

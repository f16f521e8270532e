"""Frozen modules: their gradients are withheld from the update, so that it leaves them out."""

import zlib
from collections.abc import Callable

import torch

_PROVEN_FOR = 2
"""Updates of each optimizer after a freeze around which parameters are compared bit for bit."""


class Frozen:
    """Keeps the optimizer from moving the parameters of some modules.

    An optimizer skips a parameter without a gradient altogether: no step, no weight decay, no
    momentum, no moment, no step counter. So the gradients are taken away right before the update
    and given back right after it. ``requires_grad`` stays as it is: switching it off under a
    running loop makes ``backward`` raise where a loss depends on frozen parameters only, and
    breaks the bookkeeping of ``DistributedDataParallel`` and of a ``GradScaler``.

    Parameters are frozen by identity: one that two modules share is frozen in both, until no
    module by whose name it was frozen is left.

    Args:
        parts: Optimizers that make updates.

    Attributes:
        held: The updates that were watched left every frozen parameter as it was, bit for bit;
            None before the first.
    """

    def __init__(self, parts: int) -> None:
        self._watch_for = _PROVEN_FOR * parts
        self._modules: dict[str, list[torch.nn.Parameter]] = {}
        self._parameters: list[torch.nn.Parameter] = []
        self._withheld: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self._before: int | None = None
        self._watched = 0
        self.held: bool | None = None

    def __bool__(self) -> bool:
        """Something is frozen."""
        return bool(self._parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """Modules that were frozen, in that order."""
        return tuple(self._modules)

    def freeze(self, module: str, parameters: list[torch.nn.Parameter]) -> None:
        """Freeze these parameters under the module's name."""
        self._modules = {**self._modules, module: parameters}
        self._refresh()
        self._watched, self.held = self._watch_for, None

    def unfreeze(self, module: str) -> None:
        """Let go of what was frozen under that name, but for what others still freeze."""
        self._modules = {n: held for n, held in self._modules.items() if n != module}
        self._refresh()

    def load_state_dict(
        self, names: list[str], parameters: Callable[[str], list[torch.nn.Parameter]]
    ) -> None:
        """Freeze the modules of these names, and no others; ``parameters`` gives those of each."""
        self._modules = {name: parameters(name) for name in names}
        self._refresh()

    def withhold(self) -> None:
        """Take the gradients away; call right before the update."""
        self.give_back()  # an update that raised never came to its end
        self._withheld = [(p, p.grad) for p in self._parameters if p.grad is not None]
        for parameter, _ in self._withheld:
            parameter.grad = None
        self._before = checksum(self._parameters) if self._watched else None

    def give_back(self) -> None:
        """Give the gradients back; call right after the update."""
        for parameter, gradient in self._withheld:
            parameter.grad = gradient
        self._withheld = []
        if self._before is not None:
            self.held = self.held is not False and checksum(self._parameters) == self._before
            self._before, self._watched = None, self._watched - 1

    def _refresh(self) -> None:
        every = {id(p): p for held in self._modules.values() for p in held}
        self._parameters = list(every.values())


def checksum(tensors: list[torch.nn.Parameter]) -> int:
    """CRC-32 over the bytes of all tensors, in order; reads every one of them."""
    digest = 0
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest = zlib.crc32(flat.view(torch.uint8).numpy().data, digest)
    return digest

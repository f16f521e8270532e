"""The parts of the model that interventions may address: a closed list, made once."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from autopilot.errors import NotFound
from autopilot.schema import ModuleInfo, Setting
from autopilot_trainer.optimizers import Trainer

_MOST = 1000
"""Modules that are published, those nearest to the model's root first."""
_COMPILED = "_orig_mod"


class _Kind(NamedTuple):
    """A number that modules of some classes compute with, and the bounds of what may be set."""

    types: tuple[type[nn.Module], ...]
    name: str
    minimum: float
    maximum: float


_KINDS = (
    _Kind((_DropoutNd,), "p", 0.0, 0.95),
    _Kind((nn.MultiheadAttention, nn.RNNBase), "dropout", 0.0, 0.95),
    _Kind((_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), "eps", 1e-12, 0.1),
    _Kind((_NormBase,), "momentum", 0.0, 1.0),
    _Kind((nn.LeakyReLU,), "negative_slope", 0.0, 1.0),
    _Kind((nn.CrossEntropyLoss,), "label_smoothing", 0.0, 0.9),
)


class Modules:
    """The addressable modules of one model, by their full names.

    A name is what ``named_modules`` gives, without the layer that ``torch.compile`` puts around.
    Modules added later are not addressable.

    Args:
        model: Walked once; what is no module, but a function that computes a loss, has no parts.
        optimizer: Says which parameters are trained.
    """

    def __init__(self, model: object, optimizer: Trainer) -> None:
        self._optimizer = optimizer
        walked = model.named_modules() if isinstance(model, nn.Module) else ()
        named = [(_plain(name), module) for name, module in walked]
        nearest = sorted(named, key=lambda found: found[0].count(".") + bool(found[0]))
        usable = [(name, module) for name, module in nearest if name and _is_usable(module)]
        self._modules = dict(usable[:_MOST])
        self._defaults = dict(self._live())
        self._set: dict[tuple[str, str], float] = {}
        self._published: tuple[Any, dict[str, ModuleInfo]] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._modules

    def __getitem__(self, name: str) -> nn.Module:
        if name not in self._modules:
            raise NotFound(f"no module {name!r}")
        found: nn.Module = self._modules[name]
        return found

    # --- published, from any thread -------------------------------------------------------------

    def published(self) -> dict[str, ModuleInfo]:
        """What can be addressed, with the values in force; made anew only where they changed."""
        trained = self._trained()
        state = dict(self._live()), trained
        if self._published is None or self._published[0] != state:
            found = {n: self._info(n, m, trained) for n, m in self._modules.items()}
            self._published = state, found
        return self._published[1]

    def _info(self, name: str, module: nn.Module, trained: frozenset[int]) -> ModuleInfo:
        parameters = list(module.parameters())
        return ModuleInfo(
            type=type(module).__name__,
            parameters=sum(p.numel() for p in parameters),
            trained=sum(p.numel() for p in parameters if id(p) in trained),
            resettable=bool(parameters) and _is_resettable(module),
            settings={
                kind.name: Setting(
                    name=kind.name,
                    value=value,
                    default=self._defaults[name, kind.name],
                    minimum=min(kind.minimum, self._defaults[name, kind.name]),
                    maximum=max(kind.maximum, self._defaults[name, kind.name]),
                )
                for kind, value in _settings(module)
                if (name, kind.name) in self._defaults
            },
        )

    def _trained(self) -> frozenset[int]:
        groups = list(self._optimizer.param_groups)
        return frozenset(id(p) for g in groups for p in g["params"] if p.requires_grad)

    def _live(self) -> Iterator[tuple[tuple[str, str], float]]:
        for name, module in self._modules.items():
            for kind, value in _settings(module):
                yield (name, kind.name), value

    # --- what interventions do ------------------------------------------------------------------

    def value(self, module: str, setting: str) -> float:
        """What the module computes with now."""
        return float(vars(self[module])[setting])

    def set(self, module: str, setting: str, value: float) -> None:
        """Set a number that :meth:`published` names, and no other attribute.

        Raises:
            NotFound: That module has no such setting.
        """
        if setting not in {kind.name for kind, _ in _settings(self[module])}:
            raise NotFound(f"{module} has no setting {setting!r}")
        setattr(self[module], setting, value)
        self._set[module, setting] = value

    def trained(self, module: str) -> list[nn.Parameter]:
        """The parameters of a module, its parts included, that the optimizer holds.

        Raises:
            NotFound: There is no such module.
        """
        held = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        return [p for p in self[module].parameters() if id(p) in held]

    def sharing(self, module: str) -> list[str]:
        """Modules outside of a module that use some of its parameters too: tied weights."""
        own = {id(p) for p in self[module].parameters()}
        inside = {id(part) for part in self[module].modules()}
        return [
            name
            for name, other in self._modules.items()
            if id(other) not in inside
            and any(id(p) in own for p in other._parameters.values() if p is not None)
        ]

    # --- over the end of a process --------------------------------------------------------------

    def state_dict(self) -> list[list[Any]]:
        """What interventions set: module, name and value of each, JSON-able."""
        return [[module, name, value] for (module, name), value in self._set.items()]

    def load_state_dict(self, state: list[list[Any]]) -> None:
        """Set the same again, and what was set besides back to what it began with."""
        wanted = {(module, name): value for module, name, value in state}
        for module, name in self._set.keys() | wanted.keys():
            if (module, name) in self._defaults:
                value = wanted.get((module, name), self._defaults[module, name])
                self.set(module, name, value)
        self._set = {key: value for key, value in wanted.items() if key in self._defaults}


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def _settings(module: nn.Module) -> Iterator[tuple[_Kind, float]]:
    """Numbers that stand in the module itself: a property of the user's own is none."""
    for kind in _KINDS:
        value = vars(module).get(kind.name)
        if isinstance(module, kind.types) and isinstance(value, int | float):
            yield kind, float(value)


def _is_usable(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None or any(True for _ in _settings(module))


def drawing(module: nn.Module) -> Callable[[], object] | None:
    """The module's own function that draws its parameters anew, without its parts'."""
    if isinstance(module, nn.MultiheadAttention):
        return module._reset_parameters  # the one of torch's that keeps it private
    found = getattr(module, "reset_parameters", None)
    return found if callable(found) else None


def _is_resettable(module: nn.Module) -> bool:
    """Every parameter of it is drawn by the part that holds it."""
    return all(
        not part._parameters
        or all(p is None for p in part._parameters.values())
        or drawing(part) is not None
        for part in module.modules()
    )

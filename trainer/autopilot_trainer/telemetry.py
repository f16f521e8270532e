"""What is measured around the optimizer step without more code in the loop.

Measured cost decides the interval: a gradient norm is taken every step, what reads every parameter
twice only now and then.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch._utils import _flatten_dense_tensors

from autopilot.schema import metrics

_DENSE_UNTIL = 50
"""Early steps decide whether a learning rate is right, so the first ones are all measured."""
_EARLY_UNTIL = 500
_EARLY_EVERY, _EVERY = 10, 20
_SELDOM = 100
_CLOSE_FOR = 5
"""Updates that are measured from where the gradients stand out: what they do to the weights, and
whether the second moment was ready for them, is known before anybody has to decide."""
_SMALL = 200_000
_FELT = 1e-3
"""Decay of the weights a step from which on it is reported."""

Values = dict[str, float]


class Telemetry:
    """Measures one optimizer's steps.

    Args:
        optimizer: Its parameters' gradients, values and second moments are read, never written.
        enabled: False leaves only what costs nothing.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, enabled: bool) -> None:
        self._optimizer = optimizer
        self.enabled = enabled
        self._all: list[torch.Tensor] = []
        self._small = False
        self._parameters: list[torch.Tensor] = []
        self._before: list[torch.Tensor] | None = None
        self._buffers: list[torch.Tensor] = []
        self._norm_before = 0.0
        self._decay = 0.0
        self._updates = 0
        self._close_until = 0
        self._observed: float | None = None

    def restart(self) -> None:
        """A branch began: measure densely again for a while."""
        self._updates = self._close_until = 0

    def look_closer(self) -> None:
        """Measure the coming updates, whatever the interval."""
        self._close_until = self._updates + _CLOSE_FOR

    def observe_grad_norm(self, norm: float) -> None:
        """Take the norm that the loop computed for the coming update instead of computing it."""
        self._observed = norm

    def gradients(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Parameters that have a gradient, and the gradients."""
        groups = self._optimizer.param_groups
        if sum([len(group["params"]) for group in groups]) != len(self._all):
            self._all = [p for group in groups for p in group["params"]]
            self._small = are_small(self._all)
        gradients = [gradient for p in self._all if (gradient := p.grad) is not None]
        if len(gradients) == len(self._all):
            return self._all, gradients
        return [p for p in self._all if p.grad is not None], gradients

    def grad_norm(self, gradients: Sequence[torch.Tensor]) -> float:
        """Global 2-norm, unscaled where a fused optimizer would unscale it itself."""
        if self._observed is not None:
            norm, self._observed = self._observed, None
            return norm
        if not gradients:
            return 0.0
        scale = self._optimizer.__dict__.get("grad_scale")  # asking for what is not there is slow
        norm = global_norm(gradients, together=self._small)
        return norm / float(scale) if scale is not None else norm

    def before_update(self, parameters: list[torch.Tensor]) -> None:
        """Remember the parameters where this update is measured."""
        self._updates += 1
        self._before = None
        if not self.enabled or not parameters or not self._due():
            return
        self._parameters = parameters
        self._decay = weight_decay_rate(self._optimizer)  # later what is in force is out again
        with torch.no_grad():
            self._before = self._copied(parameters)
            self._norm_before = global_norm(self._before)

    def _copied(self, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
        """Copies of the parameters: one for all where they are small, else into kept buffers."""
        if self._small:
            return [_flat_copy(parameters)]
        if not _alike(self._buffers, parameters):
            self._buffers = [torch.empty_like(p) for p in parameters]
        torch._foreach_copy_(self._buffers, [p.detach() for p in parameters])
        return self._buffers

    def after_update(self, values: Values) -> None:
        """Measure what the update did, where it is measured."""
        if self._before is None:
            return
        with torch.no_grad():
            now = [_flat_copy(self._parameters)] if self._small else self._parameters
            torch._foreach_sub_(self._before, now)
            change = global_norm(self._before)
        norm = self._norm_before
        values[metrics.PARAM_NORM] = norm
        values[metrics.UPDATE_RATIO] = change / norm if norm > 0 else math.inf
        if self._decay >= _FELT:
            values[metrics.WEIGHT_DECAY_RATE] = self._decay
        self._before = None
        updates = self._updates
        if self._dense() or updates % (_EVERY if updates <= _EARLY_UNTIL else _SELDOM) == 0:
            values.update(staleness(self._optimizer))
        if updates <= _DENSE_UNTIL or updates % _SELDOM == 0:
            values.update(eps_share(self._optimizer))

    def _dense(self) -> bool:
        return self._updates <= _DENSE_UNTIL or self._updates <= self._close_until

    def _due(self) -> bool:
        updates = self._updates
        if self._dense():
            return True
        return updates % (_EARLY_EVERY if updates <= _EARLY_UNTIL else _EVERY) == 0


def are_small(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether it is cheaper to copy all of them together than to read each where it lies.

    Many small tensors in host memory cost a call each; copied together they cost two in all.
    """
    alike = all(t.device.type == "cpu" and t.dtype is torch.float32 for t in tensors)
    return len(tensors) > 1 and alike and sum(t.numel() for t in tensors) < _SMALL


def _flat_copy(tensors: list[torch.Tensor]) -> torch.Tensor:
    flat: torch.Tensor = _flatten_dense_tensors(tensors)  # type: ignore[no-untyped-call]
    return flat if len(tensors) > 1 else flat.clone()  # of one alone it is a view


def global_norm(tensors: Sequence[torch.Tensor], *, together: bool = False) -> float:
    """2-norm over all tensors together; NaN or infinite if any element is.

    Args:
        tensors: At least one.
        together: They are small: copy them together first.
    """
    if together or (len(tensors) == 1 and tensors[0].dim() == 1):
        flat = _flatten_dense_tensors(tensors) if together else tensors[0]  # type: ignore[no-untyped-call]
        return math.sqrt(flat.dot(flat).item())
    norms = torch._foreach_norm(list(tensors), 2.0)
    if norms[0].device.type == "cpu":
        return math.sqrt(sum([float(norm) ** 2 for norm in norms]))
    return float(torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms])))


def staleness(optimizer: torch.optim.Optimizer) -> Values:
    """How far gradients outgrew Adam's second moment: largest over tensors of sqrt(sum g² / sum v).

    After 2304.13013, there elementwise, which large vocabularies make useless. Empty for optimizers
    without a second moment.
    """
    worst = None
    for group in optimizer.param_groups:
        gradients, moments, step = _moments(optimizer, group)
        if not moments:
            continue
        correction = 1 - group["betas"][1] ** max(step, 1.0)
        squares = torch._foreach_norm(gradients, 2.0)
        sums = torch._foreach_norm(moments, 1.0)
        for norm, total in zip(squares, sums, strict=True):
            held = float(total) / correction
            if held > 0:
                worst = max(worst or 0.0, float(norm) / math.sqrt(held))
    return {} if worst is None else {metrics.SECOND_MOMENT_STALENESS: worst}


def eps_share(optimizer: torch.optim.Optimizer) -> Values:
    """Share of parameters whose Adam epsilon exceeds sqrt(v). Reads every second moment."""
    held_back, count = 0, 0
    for group in optimizer.param_groups:
        _, moments, step = _moments(optimizer, group)
        if not moments:
            continue
        correction = 1 - group["betas"][1] ** max(step, 1.0)
        limit = float(group["eps"]) ** 2 * correction
        held_back += sum(int((moment < limit).sum()) for moment in moments)
        count += sum(moment.numel() for moment in moments)
    return {metrics.EPS_SHARE: held_back / count} if count else {}


def weight_decay_rate(optimizer: torch.optim.Optimizer) -> float:
    """Share of the weights that decay takes away at a step; a mean over groups by their size.

    0 where decay goes through Adam's moments, or is not known: then it is no share of the weights.
    """
    taken, count = 0.0, 0
    for group in optimizer.param_groups:
        size = sum([p.numel() for p in group["params"]])
        count += size
        if group.get("weight_decay"):
            taken += size * _decay_reach(optimizer, group) * float(group["weight_decay"])
    return taken / count if count else 0.0


def _decay_reach(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> float:
    """What a group's weight decay is multiplied by in the end."""
    lr = float(group["lr"])
    if isinstance(optimizer, torch.optim.SGD):
        return lr / (1.0 - group["momentum"]) if group["momentum"] < 1.0 else lr
    decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay")
    return lr if decoupled else 0.0


def _moments(
    optimizer: torch.optim.Optimizer, group: dict[str, Any]
) -> tuple[list[torch.Tensor], list[torch.Tensor], float]:
    """Gradients and second moments of a group's parameters that have both, and Adam's step."""
    gradients: list[torch.Tensor] = []
    moments: list[torch.Tensor] = []
    step = 0.0
    if "eps" not in group or "betas" not in group:
        return gradients, moments, step
    for parameter in group["params"]:
        state: dict[str, Any] = optimizer.state.get(parameter, {})
        moment = state.get("exp_avg_sq")
        if moment is None or parameter.grad is None:
            continue
        if not moments:
            step = float(state["step"])
        gradients.append(parameter.grad.detach())
        moments.append(moment)
    return gradients, moments, step


def _alike(buffers: list[torch.Tensor], parameters: list[torch.Tensor]) -> bool:
    return len(buffers) == len(parameters) and all(
        b.shape == p.shape and b.device == p.device and b.dtype == p.dtype
        for b, p in zip(buffers, parameters, strict=True)
    )

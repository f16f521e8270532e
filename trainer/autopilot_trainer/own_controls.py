"""What a training script registers with its session: knobs, actions, and state of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from autopilot.schema import Scalar
from autopilot_trainer.knobs import make_action, make_knob
from autopilot_trainer.state import Stateful
from autopilot_trainer.training import Training


class OwnControls:
    """The part of a session by which a script brings in what is its own."""

    _training: Training

    def knob(
        self,
        name: str,
        get: Callable[[], Scalar],
        set: Callable[[Any], None],
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        choices: Sequence[Scalar] | None = None,
        description: str = "",
    ) -> None:
        """Register a control: a value that interventions may set, within bounds.

        Its type, and the default that an autopilot may put it back to, are those it has now.

        Raises:
            BadInput: A number without bounds, or a value that is no bool, int, float or str.
        """
        self._training.knobs[name] = make_knob(
            name,
            get,
            set,
            minimum=minimum,
            maximum=maximum,
            choices=choices,
            description=description,
        )
        self._training.knob_registered(name)

    def action(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Register a function that interventions may call at a step boundary; a decorator.

        Raises:
            BadInput: A parameter is not annotated as bool, int, float or str.
        """
        name = call.__name__
        self._training.actions[name] = make_action(name, call)
        return call

    def track(self, name: str, stateful: Stateful) -> None:
        """Take something else with a ``state_dict`` into snapshots and checkpoints."""
        self._training.capture.others[name] = stateful

    def observe_grad_norm(self, norm: torch.Tensor | float) -> None:
        """Hand in the gradient norm that the loop has computed for the coming update.

        Spares computing it again; call it before ``optimizer.step()``.
        """
        self._training.hooks.telemetry.observe_grad_norm(float(norm))

    def _register_scaler(self, scaler: Any) -> None:
        self.knob(
            "loss_scale",
            lambda: float(scaler.get_scale()),
            lambda value: scaler.update(new_scale=value),
            minimum=1.0,
            maximum=2.0**24,
            description="loss scale of mixed-precision training",
        )

"""What a training scenario is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autopilot.schema import FindingKind

Arm = Literal["sick", "reference"]
"""The training with its fault, or the same training tuned or free of the fault."""

Family = Literal["damaged", "misdriven", "benign"]


class Batch(NamedTuple):
    """The examples of one step, and the name of where they came from."""

    inputs: Tensor
    targets: Tensor
    source: str


@dataclass(frozen=True)
class Knob:
    """A control of the loop itself, to be registered with the session under ``name``."""

    name: str
    default: float
    minimum: float
    maximum: float
    get: Callable[[], float]
    set: Callable[[float], None]


def no_fault(step: int) -> None:
    """Leave the step as it is."""


def no_metrics() -> dict[str, float]:
    """Report nothing beyond the loss."""
    return {}


@dataclass(frozen=True)
class Setup:
    """One training, ready to run; whatever is random in it follows from the seed.

    A loop over it reads::

        for batch in session.batches(setup.batches, steps=setup.steps):
            setup.before_step(session.step)
            loss = setup.loss(batch)
            setup.backward(loss)
            setup.update()
            session.report(loss=loss, source=batch.source, **setup.metrics())

    ``session.step`` counts the updates behind the current weights: 0 at the first batch, and
    less again after going back.

    Attributes:
        batches: A pure function of (seed, cursor), so that going back, skipping and replaying are
            exact. Longer than ``steps``, to leave room for skipping.
        evaluate: Loss on fixed held-out tokens; draws no random numbers.
        lr_plan: The declared learning rate of each step, where the user declared one.
        before_step: What the loop does first in a step, given its number: here sits a fault of
            the loop itself.
        backward: Fills the gradients.
        update: Steps the optimizer, unless the loop's own overflow check holds it back, then the
            scheduler, and drops the gradients.
        metrics: What the loop reports of the step besides the loss.
        worst_loss: The loss of guessing blindly: what a final loss that is higher, or not finite,
            counts as.
        fault_step: Where the fault sets in, for scoring; None where there is none or it is there
            from the start.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    batches: Sequence[Batch]
    loss: Callable[[Batch], Tensor]
    evaluate: Callable[[], float]
    steps: int
    evaluate_every: int
    backward: Callable[[Tensor], None]
    update: Callable[[], None]
    worst_loss: float
    lr_plan: Callable[[int], float] | None = None
    before_step: Callable[[int], None] = no_fault
    metrics: Callable[[], dict[str, float]] = no_metrics
    knobs: tuple[Knob, ...] = field(default=())
    fault_step: int | None = None


class Build(Protocol):
    """Make the training of one seed and arm, over so many steps."""

    def __call__(self, seed: int, arm: Arm, steps: int) -> Setup: ...


@dataclass(frozen=True)
class Scenario:
    """A training with one known fault, or with none.

    Attributes:
        cause: The finding that names the fault; None where nothing is wrong.
        steps: Optimizer steps that every arm may execute, steps repeated after going back
            included.
        smoke_steps: The same, for a quick check that still shows a rescue.
    """

    name: str
    title: str
    family: Family
    cause: FindingKind | None
    summary: str
    build: Build
    steps: int = 500
    smoke_steps: int = 250

"""What a training scenario is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autopilot.schema import FindingKind, Intervention, Scalar
from autopilot_trainer.own_controls import OwnControls

Arm = Literal["sick", "reference"]
"""The training with its fault, or the same training tuned or free of the fault."""

Family = Literal["damaged", "misdriven", "benign"]

Split = Literal["development", "held_out"]
"""Whether remedies may be tuned on a scenario, or only measured."""

Schedule = Callable[[int], float]
"""The learning rate of a step."""

START = "start"
"""In a move's rollback: the state before the first step."""
BEFORE = "before"
"""In a move's rollback: the newest state from before the fault, or where there is none from well
before the decision."""


class Batch(NamedTuple):
    """The examples of one step, and the name of where they came from."""

    inputs: Tensor
    targets: Tensor
    source: str


@dataclass(frozen=True)
class Knob:
    """A control of the loop itself: with bounds, or choices."""

    name: str
    get: Callable[[], Scalar]
    set: Callable[[Any], None]
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Scalar, ...] | None = None

    def register(self, session: OwnControls) -> None:
        """Offer it to whoever pilots the session."""
        session.knob(
            self.name,
            self.get,
            self.set,
            minimum=self.minimum,
            maximum=self.maximum,
            choices=self.choices,
        )


@dataclass(frozen=True)
class Move:
    """One way to act at the decision step.

    A rollback in it names :data:`START` or :data:`BEFORE` instead of a checkpoint.
    """

    name: str
    interventions: tuple[Intervention, ...]


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
        schedule: The learning rate as the loop's own scheduler has it.
        batches: A pure function of (seed, cursor), so that going back, skipping and replaying are
            exact. Longer than ``steps``, to leave room for skipping.
        evaluate: Loss on fixed held-out tokens, as the loop has it; draws no random numbers.
        final: The same without any fault, where the evaluation itself has one.
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
    schedule: Schedule
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
    knobs: tuple[Knob, ...] = ()
    final: Callable[[], float] | None = None
    fault_step: int | None = None


class Build(Protocol):
    """Make the training of one seed and arm, over so many steps."""

    def __call__(self, seed: int, arm: Arm, steps: int) -> Setup: ...


@dataclass(frozen=True)
class Scenario:
    """A training with one known fault, or with none.

    Attributes:
        cause: The finding that names the fault; None where nothing is wrong, or where the
            vocabulary has no name for what is.
        steps: Optimizer steps that every arm may execute, steps repeated after going back
            included.
        smoke_steps: The same, for a quick check that still shows a rescue.
        delay: Steps after the fault's onset, or the start where there is none, at which forks act.
        moves: What is worth trying there, besides doing nothing.
        acceptable: Answers that treat what is the matter, in the words of
            :func:`autopilot_evals.scoring.decisions.answer_of`.
        harmful: Answers that cost more than doing nothing.
    """

    name: str
    title: str
    family: Family
    cause: FindingKind | None
    summary: str
    build: Build
    moves: tuple[Move, ...]
    acceptable: tuple[str, ...]
    harmful: tuple[str, ...]
    delay: int
    split: Split = "development"
    steps: int = 500
    smoke_steps: int = 250

"""Rules and habits that pilot a run, to judge agents by; each is an agent like any other.

``reduce_lr_on_plateau`` and ``double_half_same`` are what others use. The rest are habits, none of
which may look good. Evaluations know them by name; none is offered for piloting a live run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from statistics import mean
from typing import Generic, TypeVar

from autopilot.ports import Agent
from autopilot.schema import (
    Evaluate,
    Intervention,
    NoProposal,
    Proposal,
    RunInfo,
    ScaleLR,
    Window,
)
from autopilot.schema.metrics import LOSS, VAL_LOSS
from autopilot_evals.baselines.agents import ActsAtRandom, AlwaysGoBack, NeverAct, proposal

FACTOR = 0.1
PATIENCE = 10
THRESHOLD = 1e-4
LEAST_CHANGE = 1e-8

State = TypeVar("State")


class _Memory(Generic[State]):
    """What a rule remembers of the run it is shown; with another run it begins anew."""

    def __init__(self, begin: Callable[[RunInfo], State]) -> None:
        self._begin = begin
        self._held: tuple[str, State] | None = None

    def of(self, run: RunInfo) -> State:
        if self._held is None or self._held[0] != run.run_id:
            self._held = (run.run_id, self._begin(run))
        return self._held[1]


@dataclass
class _Plateau:
    best: float = inf
    bad: int = 0
    asked_at: int | None = None

    def is_over(self, measured: float) -> bool:
        """Count an evaluation; whether patience is over."""
        if measured < self.best * (1.0 - THRESHOLD):
            self.best, self.bad = measured, 0
        else:
            self.bad += 1
        if self.bad <= PATIENCE:
            return False
        self.bad = 0
        return True


class ReduceLROnPlateau:
    """A tenth of the learning rate at the eleventh evaluation in a row that is no better.

    ``torch.optim.lr_scheduler.ReduceLROnPlateau`` at its defaults: factor 0.1, patience 10,
    relative threshold 1e-4, no cool-down, no change below 1e-8. Lightning and the Hugging Face
    ``Trainer`` offer it as a scheduler, Keras as a callback with the same factor and patience.

    Its unit is the evaluation. Each time it is asked, a hundred times in a run, it asks the run for
    one, so that its patience is a tenth of the run; the ten that a run here makes by itself would
    never exhaust it, and it would never act. Where a run has no evaluation it takes the mean
    training loss since it was last asked, as ``monitor="loss"`` of Keras does.
    """

    name = "reduce_lr_on_plateau"
    times_asked = 100

    def __init__(self) -> None:
        self._memory = _Memory(lambda run: _Plateau())

    def propose(self, window: Window) -> Proposal | NoProposal:
        """Reduce if it is time to, and ask for the evaluation to look at next time."""
        plateau = self._memory.of(window.run)
        evaluates = "evaluate" in window.run.capabilities.interventions
        read = _evaluated_at if evaluates else _trained_since
        measured, plateau.asked_at = read(window, plateau.asked_at), window.run.step
        changes: tuple[Intervention, ...] = ()
        if measured is not None and plateau.is_over(measured) and _can_shrink(window):
            changes = (ScaleLR(factor=FACTOR),)
        if evaluates:
            changes = (*changes, Evaluate())
        if not changes:
            return NoProposal(kind="waiting", reason=f"{plateau.bad} without a better one")
        return proposal(window, changes, f"best {plateau.best:.6g}, now {measured}")


@dataclass
class _Course:
    last: float = inf
    most: float | None = None
    halved: bool = False

    def factor(self, loss: float) -> float:
        """Read the next validation loss; what to multiply the learning rate by."""
        fall, most = self.last - loss, self.most
        self.last = loss
        if not fall > 0.0:  # NaN is never above
            self.halved = True
            return 0.5
        if isfinite(fall):
            self.most = fall if most is None else max(most, fall)
        goes_on = most is not None and fall >= 0.5 * most
        return 2.0 if goes_on and not self.halved else 1.0


class DoubleHalfSame:
    """Doubles the learning rate, halves it, or keeps it, at each evaluation of the run.

    The agent of Interactive Training (2025, arXiv 2510.02297): whenever a validation loss came in,
    about ten times in a run, a language model was shown the courses of learning rate, training and
    validation loss, and answered with one of these three words. In the model's place stands the
    simplest rule that reads the same course and uses all three, without a threshold in units of the
    loss:

    - *half* where the validation loss did not fall;
    - *double* where it fell at least half as much as it ever did from one evaluation to the next,
      for a rate that is right brings most of the gain at first and one that is too low goes on and
      on; but not once it has halved, for then what lies above was shown to be too high;
    - *same* otherwise, and until there are two falls to compare.
    """

    name = "double_half_same"
    times_asked = 10

    def __init__(self) -> None:
        self._memory = _Memory(lambda run: _Course())

    def propose(self, window: Window) -> Proposal | NoProposal:
        """Double or halve the learning rate, or leave it."""
        loss = window.table[-1].values.get(VAL_LOSS) if window.table else None
        if loss is None:
            return NoProposal(kind="waiting", reason="no new validation loss")
        factor = self._memory.of(window.run).factor(loss)
        if factor == 1.0:
            return NoProposal(kind="waiting", reason="same")
        return proposal(window, (ScaleLR(factor=factor),), f"validation loss {loss:.6g}")


class Never(NeverAct):
    """Does nothing."""

    name = "never"
    times_asked = 10


class Always(AlwaysGoBack):
    """Goes back to the last good state whenever it is asked."""

    name = "always"
    times_asked = 10


class Random:
    """Draws from six remedies and doing nothing whenever it is asked, otherwise in each run."""

    name = "random"
    times_asked = 10

    def __init__(self) -> None:
        self._memory = _Memory(lambda run: ActsAtRandom(seed=run.name))

    def propose(self, window: Window) -> Proposal | NoProposal:
        """What comes next in the draws of this run."""
        return self._memory.of(window.run).propose(window)


PILOTS: dict[str, Callable[[], Agent]] = {
    ReduceLROnPlateau.name: ReduceLROnPlateau,
    DoubleHalfSame.name: DoubleHalfSame,
    Never.name: Never,
    Always.name: Always,
    Random.name: Random,
}
"""Every reference by the name that ``--agent`` knows it by."""

FLOWN = (ReduceLROnPlateau.name, DoubleHalfSame.name)
"""Those that others use: ``autopilot eval sandbox --references``."""


def _evaluated_at(window: Window, step: int | None) -> float | None:
    """The validation loss of a step, however long ago."""
    if step is None:
        return None
    of_it = (row.values for row in window.table if row.first_step <= step <= row.last_step)
    return next((values[VAL_LOSS] for values in of_it if VAL_LOSS in values), None)


def _trained_since(window: Window, step: int | None) -> float | None:
    """The mean training loss since a step."""
    since = [row for row in window.table if step is None or row.first_step > step]
    values = [row.values[LOSS] for row in since if LOSS in row.values]
    return mean(values) if values else None


def _can_shrink(window: Window) -> bool:
    setting = window.run.capabilities.settings.get("lr")
    lr = setting.value if setting is not None else None
    return not isinstance(lr, int | float) or lr * (1.0 - FACTOR) > LEAST_CHANGE

"""Train a scenario with nobody aboard, and keep its metric rows."""

import logging
import tempfile
from dataclasses import dataclass

from autopilot.policy import read_policy
from autopilot.recording import RecordedRun
from autopilot.schema import Row, metrics
from autopilot_evals.forks import LockstepSession, alone
from autopilot_evals.scenarios import Arm, Scenario, Setup

_OF_THE_MACHINE = frozenset(
    (
        metrics.STEP_TIME,
        metrics.DATA_WAIT,
        metrics.TOKENS_PER_SECOND,
        metrics.HOST_MEMORY,
        metrics.DEVICE_MEMORY,
    )
)
"""What depends on where it was recorded, and would differ each time."""
_WHOLE = frozenset((metrics.BATCH_DIGEST,))
_DIGITS = 5


@dataclass(frozen=True)
class Trained:
    """A training with nobody aboard.

    Attributes:
        setup: What was trained.
        rows: Metric rows in order, a second a step.
    """

    setup: Setup
    rows: tuple[Row, ...]

    def recorded(self, name: str) -> RecordedRun:
        """The rows as a recorded run."""
        return RecordedRun(
            name=name, run_id=name, rows=lambda: iter(self.rows), steps=self.setup.steps
        )


def train(scenario: Scenario, seed: int, arm: Arm) -> Trained:
    """Train one arm to its end, under a session that only watches, with the policy's reflexes."""
    logging.getLogger("autopilot.trainer").setLevel(logging.ERROR)
    with alone(seed), tempfile.TemporaryDirectory() as folder:
        setup = scenario.build(seed, arm, scenario.steps)
        with LockstepSession(
            setup.model,
            setup.optimizer,
            scheduler=setup.scheduler,
            evaluate=setup.evaluate,
            lr_plan=setup.lr_plan,
            name=scenario.name,
            run_dir=folder,
            policy=read_policy(None),
        ) as session:
            for batch in session.batches(setup.batches, steps=setup.steps):
                setup.before_step(session.step)
                loss = setup.loss(batch)
                setup.backward(loss)
                setup.update()
                session.report(loss=loss, source=batch.source, metrics=setup.metrics())
                if session.step % setup.evaluate_every == 0:
                    session.evaluate()
                session.plane.tick()
            rows = session.plane.rows(last=4 * setup.steps)
    return Trained(setup, tuple(_kept(row) for row in rows))


def _kept(row: Row) -> Row:
    values = {
        name: value if name in _WHOLE else float(f"{value:.{_DIGITS}g}")
        for name, value in row.values.items()
        if name not in _OF_THE_MACHINE
    }
    return row._replace(values=values, time=float(row.step))

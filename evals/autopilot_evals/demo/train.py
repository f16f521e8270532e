"""Train one arm of a scenario under a session: the training process of the demonstration.

Run as ``python -m autopilot_evals.demo.train``. The arm ``alone`` has nobody to act, not even a
reflex; ``pilot`` has the fault too, and whoever attaches; ``reference`` is free of the fault.
"""

import argparse
import json
import math
from pathlib import Path

import torch

from autopilot.policy import Policy, Reflexes
from autopilot_evals.scenarios import SCENARIOS
from autopilot_evals.scenarios.base import Setup
from autopilot_trainer import Session

NOBODY = Policy(
    autonomy="observe",
    reflexes=Reflexes(skip_non_finite=False, skip_spike_factor=0, hold_on_alarm=0),
)
RESULT_FILE = "result.json"


def main() -> None:
    """Train, and write the held-out loss beside the journal."""
    given = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    sick = given.arm != "reference"
    scenario = SCENARIOS[given.scenario]
    setup = scenario.build(given.seed, "sick" if sick else "reference", given.steps)
    with Session(
        setup.model,
        setup.optimizer,
        scheduler=setup.scheduler,
        evaluate=setup.evaluate,
        lr_plan=setup.lr_plan,
        name=f"{given.scenario}, seed {given.seed}, {given.arm}",
        policy=None if given.arm == "pilot" else NOBODY,
        snapshot_every=10,
    ) as session:
        final = _train(setup, session)
    result = {
        "final_val_loss": final if math.isfinite(final) else str(final),
        "worst_loss": setup.worst_loss,
        "steps": session.executed,
    }
    (Path(session.run_dir) / RESULT_FILE).write_text(json.dumps(result))


def _train(setup: Setup, session: Session) -> float:
    """The loop. Steps that a rollback repeats count too, so that every arm costs the same."""
    for knob in setup.knobs:
        knob.register(session)
    for batch in session.batches(setup.batches, steps=setup.steps):
        setup.before_step(session.step)
        loss = setup.loss(batch)
        setup.backward(loss)
        setup.update()
        session.report(loss=loss, source=batch.source, metrics=setup.metrics())
        if session.step % setup.evaluate_every == 0:
            session.evaluate()
        if session.executed >= setup.steps:
            break
    return session.evaluate()["val_loss"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", required=True, choices=sorted(SCENARIOS))
    parser.add_argument("--arm", required=True, choices=["alone", "pilot", "reference"])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()

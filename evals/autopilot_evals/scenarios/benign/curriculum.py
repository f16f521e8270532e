"""Data that becomes harder in stages, each under its own name."""

from collections.abc import Sequence

import torch

from autopilot_evals.scenarios import moves
from autopilot_evals.scenarios.base import Arm, Batch, Scenario, Setup
from autopilot_evals.scenarios.text import TextBatches, corpus
from autopilot_evals.scenarios.training import draw, room, train, warmup_cosine

PLAIN = (14, 10, 5, 0)
"""Sequences of sixteen in plain text, stage by stage."""


class Curriculum(Sequence[Batch]):
    """Plain text and full text mixed; each stage of so many batches has less of the plain."""

    def __init__(self, seed: int, length: int, stage: int) -> None:
        self.full, self.stage = TextBatches(seed, length), stage
        self.plain = TextBatches(seed, length, tokens=corpus().plain)

    def __len__(self) -> int:
        return len(self.full)

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        number = min(cursor // self.stage, len(PLAIN) - 1)
        easy, hard, cut = self.plain[cursor], self.full[cursor], PLAIN[number]
        return Batch(
            torch.cat([easy.inputs[:cut], hard.inputs[cut:]]),
            torch.cat([easy.targets[:cut], hard.targets[cut:]]),
            f"stage-{number}",
        )


def build(seed: int, arm: Arm, steps: int) -> Setup:
    stage = int(steps * draw(seed, "curriculum", 0.12, 0.2))
    return train(seed, steps, warmup_cosine(steps), batches=Curriculum(seed, room(steps), stage))


SCENARIO = Scenario(
    name="curriculum",
    title="Data that becomes harder in stages",
    family="benign",
    cause=None,
    summary="Less and less of the text is plain. The loss rises with each stage, its source says "
    "so, and the held-out loss goes on falling.",
    build=build,
    moves=moves.REFLEXES,
    acceptable=("nothing", "ask"),
    harmful=("scale_lr", "raise_lr", "rollback", "set_grad_clip", "reset_optimizer_state"),
    delay=220,
    split="held_out",
)

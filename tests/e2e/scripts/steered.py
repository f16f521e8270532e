"""A small training that says of every step what it did; each line of its output is one step.

Usage: steered.py STEPS PAUSE. ``CRASH_AT``, ``NAN_AT`` name steps; ``OPTIMIZER`` is sgd or adamw;
``BARE`` trains without a session.
"""

import itertools
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from autopilot_trainer import Session

STEPS, PAUSE = int(sys.argv[1]), float(sys.argv[2])
CRASH_AT, NAN_AT = (int(os.environ.get(name, "0")) for name in ("CRASH_AT", "NAN_AT"))
RATES = (0.02, 0.002)


class Net(nn.Module):
    """Two layers with learning rates of their own, and methods that nobody may call by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop, self.head = nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.tanh(self.body(x)))).squeeze(1)

    def save_pretrained(self, path: str) -> None:
        Path(path).write_text("weights")

    push_to_hub = save_pretrained


class Steps:
    """The training itself, which knows of no session."""

    def __init__(self) -> None:
        self.net = net = Net()
        groups = [
            {"params": list(part.parameters()), "lr": lr}
            for part, lr in zip((net.body, net.head), RATES, strict=True)
        ]
        kind = torch.optim.AdamW if os.environ.get("OPTIMIZER") == "adamw" else torch.optim.SGD
        self.optimizer = kind(groups)
        self.scheduler = LambdaLR(self.optimizer, lambda n: 1 / (1 + n / 1000))
        self.batches = [torch.randn(8, 4) for _ in range(16)]

    def take(self, batch: torch.Tensor) -> dict[str, Any]:
        """One step, and what it did: by which rate the first bias of each group really moved."""
        begun, net = time.time(), self.net
        loss = (net(batch) - batch.sum(1)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        biases = [net.body.bias, net.head.bias]
        before = [bias.detach().clone() for bias in biases]
        self.optimizer.step()
        moved = zip(before, biases, strict=True)
        used = [((was - bias.detach()) / bias.grad)[0].item() for was, bias in moved]
        self.scheduler.step()
        return {"begun": begun, "loss": loss.item(), "used": used}


def train() -> None:
    steps = Steps()
    with Session(
        steps.net, steps.optimizer, scheduler=steps.scheduler, checkpoint_every=10
    ) as session:
        for batch in session.batches(steps.batches, steps=STEPS):
            said = steps.take(batch)
            step = session.step + 1
            if step == CRASH_AT:
                raise RuntimeError("the script's own fault")
            ill = NAN_AT and step >= NAN_AT
            session.report(loss=math.nan if ill else said["loss"], quality=-math.inf if ill else 1)
            say(step, said)
            time.sleep(PAUSE)


def train_bare() -> None:
    steps = Steps()
    for step, batch in zip(range(1, STEPS + 1), itertools.cycle(steps.batches), strict=False):
        say(step, steps.take(batch))


def say(step: int, said: dict[str, Any]) -> None:
    print(json.dumps({**said, "step": step, "loss": said["loss"].hex()}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    train_bare() if os.environ.get("BARE") else train()

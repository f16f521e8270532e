"""Loads everything once; for every line of standard input a child plays a part, to be killed.

Usage: zygote.py RUN_DIR ACKNOWLEDGED. A line is ``train STEPS``, ``pilot SEED`` or ``client SEED``;
the child's number is printed. What the run has acknowledged to a pilot or client is written to the
file before anything else is asked, so that whoever reads it knows what must not be lost.
"""

import contextlib
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer of each child would load it
from torch import nn

from autopilot.client import HttpRun, Role, connect
from autopilot.errors import AutopilotError, Refused
from autopilot.policy import parse_policy
from autopilot.schema import Note, Proposal, ScaleLR, SetGradClip
from autopilot_trainer import Session, api, server

POLICY = """
autonomy = "act"
[limits]
lr = { min = 1e-12, max_factor = 1e6, total_factor = [1e-6, 1e6] }
[budget]
interventions = { per_1000_steps = 100000, per_day = 100000 }
[cooldown]
steps = 0
same_episode = 0
[[rules]]
name = "clipping needs a person"
kinds = ["set_grad_clip"]
verdict = "ask"
[[rules]]
name = "anything else"
kinds = ["scale_lr", "note"]
verdict = "allow"
[approval]
ttl = "1h"
[canary]
steps = 1000000
revert_if = "never"
"""
FACTORS = (0.5, 0.9, 1.25, 1.6)
LR = 1e-3


def train(folder: Path, steps: int) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    batches = [torch.randn(4, 4) for _ in range(16)]
    policy = parse_policy(POLICY)
    with Session(
        model, optimizer, run_dir=folder, policy=policy, checkpoint_every=25, resume=True
    ) as session:
        for batch in session.batches(batches, steps=steps):
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            session.report(loss=loss)
            time.sleep(0.002)


def ask(folder: Path, acknowledged: Path, seed: int, role: Role) -> None:
    """Ask for one change after another, as long as somebody answers; again if nobody does."""
    rng = random.Random(seed)
    keys = (f"{role}-{seed}-{number}" for number in itertools.count())
    key = next(keys)
    while True:
        try:
            with connect(str(folder), role, role) as run:
                while True:
                    told = act(run, role, key, rng)  # the same key until it was answered
                    with acknowledged.open("a") as file:
                        file.write("".join(line + "\n" for line in told))
                    key = next(keys)
        except AutopilotError:
            time.sleep(0.05)


def act(run: HttpRun, role: Role, key: str, rng: random.Random) -> list[str]:
    """One change asked for, and for a person one approval given; what was acknowledged."""
    change = ScaleLR(factor=rng.choice(FACTORS))
    if role == "operator":
        told = []
        for record in run.proposals("pending")[-1:]:
            with contextlib.suppress(Refused):  # something else has changed the run meanwhile
                run.decide(record.id, "approve", digest=record.digest)
                told.append(f"approved {record.id}")
        if not told:
            told.append(f"filed {key} {run.command((change,), key=key, rationale=key).id}")
        time.sleep(0.02)
        return told
    asked = rng.choice((change, SetGradClip(max_norm=rng.uniform(0.5, 9.0)), Note(text=key)))
    proposal = Proposal(interventions=(asked,), rationale=key)
    run.heartbeat(0)
    time.sleep(0.03)
    return [f"filed {key} {run.propose(proposal, key=key).id}"]


def main() -> None:
    folder, acknowledged = Path(sys.argv[1]), Path(sys.argv[2])
    assert api, server  # a session loads them when it opens: here before any child is born
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        part, number = line.split()
        child = os.fork()
        if child:
            print(child, flush=True)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if part == "train":
            train(folder, int(number))
        else:
            ask(folder, acknowledged, int(number), "agent" if part == "pilot" else "operator")
        os._exit(0)


main()

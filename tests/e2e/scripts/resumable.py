"""A small training with everything that an exact resume has to bring back; prints every loss.

Usage: resumable.py KIND STEPS PAUSE; KIND is the data's, PAUSE seconds after every step.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from autopilot_trainer import Session


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        for _ in range(40):
            yield torch.randn(4, generator=generator)


def loader(kind: str) -> DataLoader[object]:
    if kind == "iterable":
        return DataLoader(Stream(), batch_size=8)
    data = TensorDataset(torch.randn(56, 4, generator=torch.Generator().manual_seed(2)))
    workers = 2 if kind == "workers" else 0
    return DataLoader(data, batch_size=8, shuffle=True, num_workers=workers)


def train(kind: str, steps: int, pause: float = 0.0, **options: Any) -> dict[int, str]:
    """Train to a step; the losses of every step that was trained here, to the last bit."""
    accumulate = 2 if kind == "accumulation" else 1
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    losses = {}
    with Session(model, optimizer, scheduler=scheduler, checkpoint_every=9, **options) as session:
        for batch in session.batches(loader(kind), steps=steps):
            rows = batch if kind == "iterable" else batch[0]
            loss = (model(rows).squeeze(1) - rows.sum(1)).square().mean()
            (loss / accumulate).backward()
            if (session.step + 1) % accumulate == 0:
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            session.report(loss=loss)
            losses[session.step] = loss.item().hex()
            print(session.step, losses[session.step], flush=True)
            time.sleep(pause)
    return losses


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))

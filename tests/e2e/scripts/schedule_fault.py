"""A small training whose schedule drops to zero and stays there; the plan is declared."""

import os
import sys
import time

import torch

from autopilot_trainer import Session

STEPS = int(os.environ.get("STEPS", "400"))
FAULT = int(os.environ.get("FAULT", "80"))
EXIT = int(os.environ.get("EXIT", "0"))
PACE = float(os.environ.get("PACE", "0.004"))


def main() -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    teacher = torch.randn(16, 16)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.0 if n >= FAULT else 1.0)
    batches = [torch.randn(8, 16) for _ in range(STEPS)]
    held_out = torch.randn(64, 16)

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mse_loss(model(batch), batch @ teacher)

    with Session(
        model,
        optimizer,
        scheduler=scheduler,
        evaluate=lambda: float(loss_of(held_out)),
        lr_plan=lambda step: 0.003,
        snapshot_every=10,
    ) as session:
        for batch in session.batches(batches, steps=STEPS):
            loss = loss_of(batch)
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            session.report(loss=loss)
            time.sleep(PACE)
    print(f"trained {session.step} steps")
    sys.exit(EXIT)


if __name__ == "__main__":
    main()

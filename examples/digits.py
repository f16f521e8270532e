"""Train a small network on handwritten digits under a session.

Run it alone, or with a pilot in the same terminal:

    python examples/digits.py
    autopilot run -- python examples/digits.py
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from autopilot_trainer import Session

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--lr", type=float, default=3e-3)
given = parser.parse_args()

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 16
labels = torch.tensor(digits.target)
held_out = torch.arange(len(labels)) % 5 == 0
train = TensorDataset(images[~held_out], labels[~held_out])
loader = DataLoader(train, batch_size=64, shuffle=True)

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.steps)
smoothing = 0.0


def set_smoothing(value: float) -> None:
    global smoothing
    smoothing = value


def evaluate() -> dict[str, float]:
    model.eval()
    logits = model(images[held_out])
    model.train()
    right = (logits.argmax(1) == labels[held_out]).float().mean()
    return {
        "val_loss": float(F.cross_entropy(logits, labels[held_out])),
        "val_accuracy": float(right),
    }


with Session(model, optimizer, scheduler=scheduler, evaluate=evaluate) as session:
    # A control of this script's own: people and agents may set it, within its bounds.
    session.knob("label_smoothing", lambda: smoothing, set_smoothing, minimum=0.0, maximum=0.3)

    @session.action
    def reset_head(gain: float) -> None:
        """Begin the last layer anew."""
        nn.init.xavier_uniform_(model[-1].weight, gain)

    for inputs, targets in session.batches(loader, steps=given.steps):
        loss = F.cross_entropy(model(inputs), targets, label_smoothing=smoothing)
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        session.report(loss=loss)
        if session.step % 200 == 0:
            session.evaluate()
    print(session.evaluate(), f"recorded in {session.run_dir}")

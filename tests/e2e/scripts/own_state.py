"""A small training; with an argument it keeps something for itself that no session can know of."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autopilot_trainer import Session

kept = sys.argv[1] if len(sys.argv) > 1 else "nothing"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
loader = DataLoader(
    TensorDataset(torch.randn(48 if kept == "few data" else 64, 4)), batch_size=8, shuffle=True
)
own = torch.Generator().manual_seed(7)
mean = torch.zeros(4)
with Session(model, optimizer) as session:
    for (batch,) in session.batches(loader, steps=None if kept == "few data" else 100):
        noise = torch.randn(batch.shape, generator=own) if kept == "generator" else 0.0
        inputs = batch + noise
        if kept == "mean":
            mean += 0.1 * (batch.mean(0) - mean)
            inputs = batch - mean
        loss = (model(inputs).squeeze(1) - batch.sum(1)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        session.report(loss=loss)
        if kept == "weights" and session.executed > 8:
            with torch.no_grad():
                model[2].bias.add_(0.5)

"""A recurrent network over characters with rectified units: nothing bounds its state."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import SGD

from autopilot_evals.scenarios.base import Schedule, Setup
from autopilot_evals.scenarios.text import corpus
from autopilot_evals.scenarios.training import train


class RNN(nn.Module):
    """Next-character logits; the recurrence starts near the identity, not far from exploding."""

    def __init__(self, symbols: int, *, width: int = 64) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, width)
        self.rnn = nn.RNN(width, width, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(width, symbols)
        with torch.no_grad():
            self.rnn.get_parameter("weight_hh_l0").copy_(0.8 * torch.eye(width))

    def forward(self, inputs: Tensor) -> Tensor:
        states, _ = self.rnn(self.symbols(inputs))
        out: Tensor = self.head(states)
        return out


def rising(step: int) -> float:
    """Raise the learning rate over 80 steps to one that the network bears only if clipped."""
    return 1.5 * min(1.0, (step + 1) / 80)


def train_rnn(seed: int, steps: int, schedule: Schedule) -> Setup:
    """Put a training of the recurrent network with plain gradient descent together."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RNN(len(corpus().symbols), width=(48, 64, 80)[seed % 3])
    optimizer = SGD(model.parameters(), lr=1.0)
    return train(seed, steps, schedule, model=model, optimizer=optimizer)


def clipped(setup: Setup) -> Setup:
    """Let the loop clip its gradients at a norm of 1."""

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(setup.model.parameters(), 1.0)
        setup.update()

    return replace(setup, update=update)

"""A recurrent network over characters with rectified units: nothing bounds its state."""

import torch
from torch import Tensor, nn


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

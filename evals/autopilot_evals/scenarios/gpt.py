"""A small GPT over characters: pre-norm blocks, learned positions, nothing that hides a fault.

There is no normalisation of queries and keys, no logit cap and no dropout: a learning rate that
is too high saturates the attention within twenty steps, as it does at scale without them.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Attention and a two-layer network, each added to the residual stream.

    Args:
        post_norm: Normalise after each addition, as the first transformers did, instead of before
            each part.
    """

    def __init__(self, width: int, heads: int, *, post_norm: bool = False) -> None:
        super().__init__()
        self.heads, self.post_norm = heads, post_norm
        self.watched = False
        self.largest_logit: float | None = None
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.post_norm:
            x = self.norm_attention(x + self._attend(x))
            out: Tensor = self.norm_mlp(x + self._expand(x))
            return out
        x = x + self._attend(self.norm_attention(x))
        return x + self._expand(self.norm_mlp(x))

    def _attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(x).split(width, dim=2)
        )
        self.largest_logit = _largest_logit(q, k) if self.watched else None
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.merge(mixed.transpose(1, 2).reshape(batch, length, width))
        return out

    def _expand(self, x: Tensor) -> Tensor:
        out: Tensor = self.contract(F.gelu(self.expand(x)))
        return out


@torch.no_grad()
def _largest_logit(q: Tensor, k: Tensor) -> float:
    """Of all positions that may look at each other, scaled as the softmax has it."""
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    hidden = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
    return float(logits.masked_fill(hidden, -math.inf).max())


class GPT(nn.Module):
    """Next-character logits: (batch, length) symbols -> (batch, length, symbols)."""

    def __init__(
        self,
        symbols: int,
        context: int,
        *,
        width: int = 32,
        layers: int = 2,
        heads: int = 2,
        post_norm: bool = False,
    ) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(
            *(Block(width, heads, post_norm=post_norm) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.05)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.symbols(inputs) + self.positions(torch.arange(inputs.shape[1]))
        out: Tensor = self.head(self.norm(self.blocks(x)))
        return out

    def watch_logits(self, on: bool) -> None:
        """Whether forward passes from here on keep their largest attention logit."""
        for block in self.blocks:
            assert isinstance(block, Block), "that is what it is made of"
            block.watched = on

    def largest_logit(self) -> float | None:
        """The largest attention logit of the last forward pass; None if it was not watched."""
        kept = [b.largest_logit for b in self.blocks if isinstance(b, Block)]
        seen = [logit for logit in kept if logit is not None]
        return max(seen, default=None)

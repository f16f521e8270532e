"""A small text that every Python carries: the reference topics of ``pydoc``.

465,000 characters over about 100 symbols. Every tenth block of 512 characters is held out, so
that the held-out text is of the same kind as the rest.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pydoc_data.topics import topics

import torch
from torch import Tensor

from autopilot_evals.scenarios.base import Batch

CONTEXT = 32
BLOCK = 512
HELD_OUT_SEQUENCES = 256


@dataclass(frozen=True)
class Corpus:
    """The text as symbol numbers.

    Attributes:
        train: The training text.
        plain: The training text in lower case, its punctuation blanked: an easier text.
        held_out: Fixed inputs and targets.
    """

    symbols: str
    train: Tensor
    plain: Tensor
    held_out: Batch


@cache
def corpus() -> Corpus:
    """Read, encode and split the text."""
    text = "".join(topics[name] for name in sorted(topics))
    symbols = "".join(sorted(set(text)))
    number = {symbol: i for i, symbol in enumerate(symbols)}
    blocks = [text[i : i + BLOCK] for i in range(0, len(text), BLOCK)]
    train = "".join(block for i, block in enumerate(blocks) if i % 10)
    held_out = "".join(block for i, block in enumerate(blocks) if i % 10 == 0)
    plain = "".join(c if c.isalpha() or c in " \n" else " " for c in train.lower())

    def encode(text: str) -> Tensor:
        return torch.tensor([number.get(symbol, number[" "]) for symbol in text])

    tokens = encode(held_out)
    stride = (len(tokens) - CONTEXT - 1) // HELD_OUT_SEQUENCES
    starts = torch.arange(HELD_OUT_SEQUENCES) * stride
    return Corpus(symbols, encode(train), encode(plain), windows(tokens, starts, "held-out"))


def windows(tokens: Tensor, starts: Tensor, source: str) -> Batch:
    """Cut sequences out of the text; the target of each symbol is the next one."""
    cut = tokens[starts[:, None] + torch.arange(CONTEXT + 1)]
    return Batch(cut[:, :-1], cut[:, 1:], source)


def generator(seed: int, *key: int | str) -> torch.Generator:
    """Return a source of random numbers that is a pure function of the seed and the key."""
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


class TextBatches(Sequence[Batch]):
    """Random windows of a text; each batch is a pure function of (seed, cursor)."""

    def __init__(
        self,
        seed: int,
        length: int,
        *,
        size: int = 16,
        tokens: Tensor | None = None,
        source: str = "pydoc",
    ) -> None:
        self.seed, self.length, self.size, self.source = seed, length, size, source
        self.tokens = corpus().train if tokens is None else tokens

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        if not 0 <= cursor < self.length:
            raise IndexError(cursor)
        starts = torch.randint(
            len(self.tokens) - CONTEXT - 1, (self.size,), generator=generator(self.seed, cursor)
        )
        return windows(self.tokens, starts, self.source)

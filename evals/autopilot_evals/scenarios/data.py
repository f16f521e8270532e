"""Streams of batches that are spoilt, mixed or changed over."""

from collections.abc import Callable, Sequence

import torch

from autopilot_evals.scenarios.base import Batch
from autopilot_evals.scenarios.text import TextBatches, corpus, generator


class Spoilt(Sequence[Batch]):
    """Batches of which a stretch is replaced by something else."""

    def __init__(
        self, good: Sequence[Batch], span: range, spoil: Callable[[int, Batch], Batch]
    ) -> None:
        self.good, self.span, self.spoil = good, span, spoil

    def __len__(self) -> int:
        return len(self.good)

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        batch = self.good[cursor]
        return self.spoil(cursor, batch) if cursor in self.span else batch


def repeated(seed: int) -> Callable[[int, Batch], Batch]:
    """Return a fault that fills every sequence with one symbol, over and over."""

    def spoil(cursor: int, batch: Batch) -> Batch:
        rng = generator(seed, "spoilt", cursor)
        symbol = torch.randint(len(corpus().symbols), (len(batch.inputs), 1), generator=rng)
        same = symbol.expand_as(batch.inputs).contiguous()
        return Batch(same, same.clone(), batch.source)

    return spoil


def garbage(seed: int) -> Callable[[int, Batch], Batch]:
    """Return a fault that draws every symbol of half the sequences at random."""

    def spoil(cursor: int, batch: Batch) -> Batch:
        rng = generator(seed, "spoilt", cursor)
        rows, length = batch.inputs.shape
        noise = torch.randint(len(corpus().symbols), (rows // 2, length + 1), generator=rng)
        inputs, targets = batch.inputs.clone(), batch.targets.clone()
        inputs[: rows // 2], targets[: rows // 2] = noise[:, :-1], noise[:, 1:]
        return Batch(inputs, targets, batch.source)

    return spoil


class MostlyPlain(Sequence[Batch]):
    """Batches of which seven sequences in eight are in lower case and without punctuation."""

    def __init__(self, seed: int, length: int) -> None:
        self.full = TextBatches(seed, length)
        self.plain = TextBatches(seed, length, tokens=corpus().plain)

    def __len__(self) -> int:
        return len(self.full)

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        full, plain = self.full[cursor], self.plain[cursor]
        keep = len(full.inputs) // 8
        return Batch(
            torch.cat([full.inputs[:keep], plain.inputs[keep:]]),
            torch.cat([full.targets[:keep], plain.targets[keep:]]),
            "mostly-plain",
        )


class Shift(Sequence[Batch]):
    """One stream of batches, and another from a cursor on."""

    def __init__(self, before: Sequence[Batch], after: Sequence[Batch], at: int) -> None:
        self.before, self.after, self.at = before, after, at

    def __len__(self) -> int:
        return len(self.before)

    def __getitem__(self, cursor: int) -> Batch:  # type: ignore[override]
        return (self.before if cursor < self.at else self.after)[cursor]

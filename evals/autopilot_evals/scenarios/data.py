"""Data that is bad, blips, shifts as planned, or is simply fine.

A burst sets off the loss alarm (median of five z above 3) two steps after its onset, and its
gradient norm with it; two spoilt batches set off only the single-point rule.
"""

from collections.abc import Callable, Sequence

import torch

from autopilot_evals.scenarios.base import Arm, Batch, Scenario, Setup
from autopilot_evals.scenarios.text import TextBatches, corpus, generator
from autopilot_evals.scenarios.training import draw, room, train, warmup_cosine


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


def bad_data(seed: int, arm: Arm, steps: int) -> Setup:
    start = int(steps * draw(seed, "bad-data", 0.5, 0.65))
    span = range(start, start + int(draw(seed, "bad-data length", 40, 80)))
    batches: Sequence[Batch] = TextBatches(seed, room(steps))
    if arm == "sick":
        batches = Spoilt(batches, span, repeated(seed))
    return train(seed, steps, warmup_cosine(steps), batches=batches, fault_step=start)


def blip(seed: int, arm: Arm, steps: int) -> Setup:
    start = int(steps * draw(seed, "benign-blip", 0.3, 0.7))
    batches = Spoilt(TextBatches(seed, room(steps)), range(start, start + 2), garbage(seed))
    return train(seed, steps, warmup_cosine(steps), batches=batches)


def domain_shift(seed: int, arm: Arm, steps: int) -> Setup:
    at = int(steps * draw(seed, "domain-shift", 0.3, 0.5))
    full = TextBatches(seed, room(steps), source="full")
    batches = Shift(MostlyPlain(seed, room(steps)), full, at)
    return train(seed, steps, warmup_cosine(steps), batches=batches)


def healthy(seed: int, arm: Arm, steps: int) -> Setup:
    return train(seed, steps, warmup_cosine(steps))


BAD_DATA = Scenario(
    name="bad-data",
    title="A burst of repeated-token batches",
    family="damaged",
    cause="loss_spike",
    summary="For 40 to 80 batches every sequence is one symbol, over and over. Going back without "
    "leaving them out runs into them again.",
    build=bad_data,
)
HEALTHY = Scenario(
    name="healthy",
    title="Nothing wrong",
    family="benign",
    cause=None,
    summary="Warm-up and a cosine schedule at tuned values. There is nothing to do.",
    build=healthy,
)
BENIGN_BLIP = Scenario(
    name="benign-blip",
    title="Two spoilt batches",
    family="benign",
    cause=None,
    summary="Half of two batches is noise. The loss jumps for two steps and recovers by itself; "
    "every action costs more than the blip.",
    build=blip,
)
DOMAIN_SHIFT = Scenario(
    name="domain-shift",
    title="A planned change of data",
    family="benign",
    cause=None,
    summary="Mostly plain text, then the full text. The loss rises with the change of source, "
    "while the held-out loss goes on falling.",
    build=domain_shift,
)

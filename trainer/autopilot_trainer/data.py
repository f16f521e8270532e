"""The stream of batches, with an exact position that can be saved, sought and skipped."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from autopilot.errors import BadInput

_DIGEST_BYTES = 2048


class Position(NamedTuple):
    """Where the stream stands.

    Attributes:
        cursor: Batches taken since the beginning, skipped ones included.
        epoch: Passes begun before this one.
        taken: Batches taken in this pass.
        rng: State of torch's generator when the pass began: what a shuffling sampler drew from.
        generators: States of the loader's own generators then.
    """

    cursor: int
    epoch: int
    taken: int
    rng: torch.Tensor
    generators: tuple[torch.Tensor, ...] = ()


class BatchStream:
    """Iterates over a loader again and again, or once.

    A sequence of batches (``len`` and ``[]``) is sought directly. Another iterable is begun anew
    with the generator state of that pass and read forward, which gives the same batches if its
    order comes from torch's generator, the loader's own or from nowhere, as with a ``DataLoader``.

    Args:
        loader: What gives the batches.
        repeat: Begin another pass when one ends.
    """

    def __init__(self, loader: Iterable[Any], *, repeat: bool) -> None:
        self._loader = loader
        self._repeat = repeat
        self._sequence = loader if isinstance(loader, Sequence) else None
        self._iterator: Iterator[Any] | None = None
        self.seekable = self._sequence is not None or not isinstance(loader, Iterator)
        self._generators = _own_generators(loader)
        self._cursor = self._epoch = self._taken = 0
        self._remember_generators()

    @property
    def position(self) -> Position:
        """Where the stream stands."""
        return Position(self._cursor, self._epoch, self._taken, self._rng, self._states)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        sequence, taken = self._sequence, self._taken
        here = sequence is not None and taken < len(sequence)
        batch = sequence[taken] if here else self._read()  # type: ignore[index]
        self._taken += 1
        self._cursor += 1
        return batch

    def _read(self) -> Any:
        """The next batch of an iterable, or the first of another pass."""
        try:
            return self._read_on()
        except StopIteration:
            if not self._repeat or self._taken == 0 or not self.seekable:
                raise
        self._iterator = None
        self._epoch, self._taken = self._epoch + 1, 0
        return self._read_on()

    def _read_on(self) -> Any:
        if self._sequence is not None:
            if self._taken >= len(self._sequence):
                raise StopIteration
            return self._sequence[self._taken]
        if self._iterator is None:
            self._begin_pass()
        assert self._iterator is not None
        return next(self._iterator)

    def skip(self, count: int) -> int:
        """Leave out the next batches; returns how many there were."""
        if self._sequence is not None:
            size = max(len(self._sequence), 1)
            if not self._repeat:
                count = min(count, size - self._taken)
            self._epoch, self._taken = divmod(self._epoch * size + self._taken + count, size)
            self._cursor += count
            return count
        left_out = 0
        for _ in range(count):
            try:
                next(self)
            except StopIteration:
                break
            left_out += 1
        return left_out

    def seek(self, position: Position) -> None:
        """Go to a position of this stream.

        Raises:
            BadInput: The loader is a one-shot iterator.
        """
        if not self.seekable:
            raise BadInput("the loader is a one-shot iterator; its data cannot be gone back to")
        if self._sequence is not None:
            self._cursor, self._epoch, self._taken = position[:3]
            return
        outside = torch.get_rng_state()
        try:
            torch.set_rng_state(position.rng)
            for generator, state in zip(self._generators, position.generators, strict=False):
                generator.set_state(state)
            self._iterator = None
            self._cursor, self._epoch = position.cursor - position.taken, position.epoch
            self._taken = 0
            for _ in range(position.taken):
                next(self)
            self._rng, self._states = position.rng, position.generators
        finally:
            torch.set_rng_state(outside)

    def _begin_pass(self) -> None:
        """Begin reading; what the order of this pass is drawn from is remembered."""
        self._remember_generators()
        self._iterator = iter(self._loader)

    def _remember_generators(self) -> None:
        self._rng = torch.get_rng_state()
        self._states = tuple(generator.get_state() for generator in self._generators)


def _own_generators(loader: Any) -> list[torch.Generator]:
    """Generators that a loader draws from besides torch's."""
    samplers = [getattr(loader, name, None) for name in ("sampler", "batch_sampler")]
    holders = [loader, *samplers, getattr(samplers[1], "sampler", None)]
    held = [getattr(holder, "generator", None) for holder in holders]
    found = [generator for generator in held if isinstance(generator, torch.Generator)]
    return list({id(generator): generator for generator in found}.values())


def batch_digest(batch: Any) -> float | None:
    """CRC-32 over both ends of each tensor of a batch; None where that would cost a sync.

    2 KiB at each end: enough to know a batch again, and a few microseconds whatever its size. None
    too for tensors of another class: they need not have any memory of their own to be read.
    """
    digest, found = 0, False
    for tensor in _tensors(batch):
        if tensor.device.type != "cpu" or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            return None
        flat = tensor.detach().contiguous().view(-1)
        content = flat.view(torch.uint8).numpy().data
        if len(content) <= 2 * _DIGEST_BYTES:
            digest = zlib.crc32(content, digest)
        else:
            digest = zlib.crc32(content[:_DIGEST_BYTES], digest)
            digest = zlib.crc32(content[-_DIGEST_BYTES:], digest)
        found = True
    return float(digest) if found else None


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, dict):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from _tensors(value)

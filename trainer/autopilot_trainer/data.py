"""The stream of batches, with an exact position that can be saved, sought and skipped."""

import time
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
        self.wait = 0.0
        self._generators = _own_generators(loader)
        self._position = self._begin(0, 0)

    @property
    def position(self) -> Position:
        """Where the stream stands."""
        return self._position

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        began = time.perf_counter()
        try:
            return self._take()
        finally:
            self.wait = time.perf_counter() - began

    def _take(self) -> Any:
        for _ in range(2):
            try:
                batch = self._read()
            except StopIteration:
                if not self._repeat or self._position.taken == 0 or not self.seekable:
                    raise
                here = self._position
                self._iterator = None
                self._position = here._replace(epoch=here.epoch + 1, taken=0)
                continue
            here = self._position
            self._position = here._replace(cursor=here.cursor + 1, taken=here.taken + 1)
            return batch
        raise StopIteration

    def _read(self) -> Any:
        here = self._position
        if self._sequence is not None:
            if here.taken >= len(self._sequence):
                raise StopIteration
            return self._sequence[here.taken]
        if self._iterator is None:
            self._position = self._begin(here.cursor, here.epoch)
            self._iterator = iter(self._loader)
        return next(self._iterator)

    def skip(self, count: int) -> int:
        """Leave out the next batches; returns how many there were."""
        if self._sequence is not None:
            size = max(len(self._sequence), 1)
            here = self._position
            if not self._repeat:
                count = min(count, size - here.taken)
            total = here.epoch * size + here.taken + count
            self._position = here._replace(
                cursor=here.cursor + count, epoch=total // size, taken=total % size
            )
            return count
        left_out = 0
        for _ in range(count):
            try:
                self._take()
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
            self._position = position
            return
        outside = torch.get_rng_state()
        try:
            torch.set_rng_state(position.rng)
            for generator, state in zip(self._generators, position.generators, strict=False):
                generator.set_state(state)
            begin = position._replace(cursor=position.cursor - position.taken, taken=0)
            self._iterator, self._position = None, begin
            for _ in range(position.taken):
                self._take()
            self._position = position
        finally:
            torch.set_rng_state(outside)

    def _begin(self, cursor: int, epoch: int) -> Position:
        states = tuple(generator.get_state() for generator in self._generators)
        return Position(cursor, epoch, 0, torch.get_rng_state(), states)


def _own_generators(loader: Any) -> list[torch.Generator]:
    """Generators that a loader draws from besides torch's."""
    samplers = [getattr(loader, name, None) for name in ("sampler", "batch_sampler")]
    holders = [loader, *samplers, getattr(samplers[1], "sampler", None)]
    held = [getattr(holder, "generator", None) for holder in holders]
    found = [generator for generator in held if isinstance(generator, torch.Generator)]
    return list({id(generator): generator for generator in found}.values())


def batch_digest(batch: Any) -> float | None:
    """CRC-32 over both ends of each tensor of a batch; None where that would cost a sync.

    2 KiB at each end: enough to know a batch again, and a few microseconds whatever its size.
    """
    digest, found = 0, False
    for tensor in _tensors(batch):
        if tensor.device.type != "cpu":
            return None
        flat = tensor.detach().contiguous().view(-1)
        size = flat.numel()
        keep = max(1, _DIGEST_BYTES // max(1, flat.element_size()))
        ends = (flat,) if size <= 2 * keep else (flat[:keep], flat[size - keep :])
        for part in ends:
            digest = zlib.crc32(part.view(torch.uint8).numpy().data, digest)
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

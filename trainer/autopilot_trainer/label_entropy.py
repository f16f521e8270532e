"""How well one could guess the labels of the data without looking at the inputs."""

from typing import Any

import torch

_BATCHES = 50
_EACH = 65_536
_CLASSES = 2**20
_NAMES = ("labels", "label", "targets", "target")


class LabelEntropy:
    """Entropy of the class labels, or next tokens, of a run's first fifty batches.

    It is the cross entropy of a model that knows nothing but how frequent each of them is. Only
    labels that lie in host memory are read; after fifty batches nothing is any more.
    """

    def __init__(self) -> None:
        self._counts = torch.zeros(0, dtype=torch.int64)
        self._left = _BATCHES

    @property
    def wanted(self) -> bool:
        """It has not seen enough batches."""
        return self._left > 0

    def add(self, batch: Any) -> float | None:
        """Count a batch's labels; in nats after the last one wanted, if they were labels at all."""
        self._left -= 1
        labels = labels_of(batch)
        if labels is None:
            self._left = 0
            return None
        seen = labels.detach().reshape(-1)[:_EACH]
        seen = seen[seen >= 0]  # -100 and the like are left out of a loss
        if seen.numel() and int(seen.max()) >= _CLASSES:
            self._left = 0
            return None
        counts = torch.bincount(seen, minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        return None if self._left else _entropy(counts)


def labels_of(batch: Any) -> torch.Tensor | None:
    """The integer tensor that by its name, or as the last of several, is what should be predicted.

    None too where reading it would cost a sync, and for tensors of another class.
    """
    if isinstance(batch, dict):
        named = [batch[name] for name in _NAMES if name in batch]
    elif isinstance(batch, tuple) and hasattr(batch, "_fields"):
        named = [getattr(batch, name) for name in _NAMES if name in batch._fields]
    else:
        named = list(batch[-1:]) if isinstance(batch, list | tuple) and len(batch) > 1 else []
    label = named[0] if named else None
    if type(label) is not torch.Tensor or label.device.type != "cpu":
        return None
    return label if label.dtype in (torch.int64, torch.int32) else None


def _entropy(counts: torch.Tensor) -> float | None:
    """In nats; None of no labels, or of one alone."""
    shares = counts[counts > 0].double() / max(int(counts.sum()), 1)
    return float(-(shares * shares.log()).sum()) if len(shares) > 1 else None

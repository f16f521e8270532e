"""What really happened in a recorded run, as a person labelled it: ``labels.json`` beside it.

::

    {"episodes": [{"kind": "spike", "signal": "loss", "onset": 120, "end": 140,
                   "confidence": "high", "acceptable": ["nothing"], "harmful": ["scale_lr"]}]}
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from autopilot.errors import BadInput
from autopilot.schema.base import Record

EventKind = Literal[
    "spike",
    "divergence",
    "nan",
    "collapse",
    "plateau",
    "overfit",
    "stall",
    "restart",
    "lr_change",
    "healthy",
]
Signal = Literal["loss", "reward", "grad_norm_only", "data_outlier"]
Confidence = Literal["low", "medium", "high"]
Split = Literal["development", "held_out"]
"""Whether thresholds may be tuned on a recording, or only measured."""

LOSS_AFFECTING: frozenset[EventKind] = frozenset(("divergence", "nan", "collapse"))
"""Kinds that always reach the loss or the reward; a spike does where its signal says so."""


class LabelledEvent(Record):
    """One thing that happened, from its first step to its last.

    Attributes:
        onset: First step at which it shows, by eye.
        end: Last step of it; the last of the run where it never recovered.
        signal: Where a spike shows.
        acceptable: Intervention kinds that would have been right; ``nothing`` is one of them.
        neutral: Those that would neither have helped nor hurt.
        harmful: Those that would have cost quality.
    """

    kind: EventKind
    onset: int = Field(ge=0)
    end: int = Field(ge=0)
    signal: Signal | None = None
    confidence: Confidence = "high"
    acceptable: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()
    harmful: tuple[str, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _in_order(self) -> "LabelledEvent":
        if self.end < self.onset:
            raise ValueError(f"end {self.end} lies before onset {self.onset}")
        return self

    @property
    def loss_affecting(self) -> bool:
        """Whether a detector must find it: the loss or the reward was really hurt."""
        return self.kind in LOSS_AFFECTING or (self.kind == "spike" and self.signal == "loss")

    @property
    def row_name(self) -> str:
        """The line of a report in which it is counted."""
        if self.kind == "spike":
            return f"spike ({self.signal or 'unsaid'})"
        return self.kind


class Labels(Record):
    """Everything labelled of one recording; without an episode it is a healthy one.

    Attributes:
        split: The side of the split it stands on; None leaves that to the hash of its group.
    """

    episodes: tuple[LabelledEvent, ...] = ()
    note: str = ""
    split: Split | None = None


def labels_path(recording: Path) -> Path:
    """Where the labels of a recording lie: in its folder, or beside its file."""
    if recording.is_dir():
        return recording / "labels.json"
    return recording.with_name(f"{recording.stem}.labels.json")


def read_labels(path: Path) -> Labels:
    """Read a label file.

    Raises:
        BadInput: It is missing, no JSON, or a field is not what it should be.
    """
    try:
        return Labels.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise BadInput(f"{path}: {first_complaint(error)}") from error


def write_labels(path: Path, labels: Labels) -> None:
    """Write a label file that people can read and change."""
    fields = labels.model_dump(mode="json", exclude_defaults=True)
    path.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def first_complaint(error: ValidationError) -> str:
    """The first thing wrong, as one line that names the field."""
    found = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"]) or "the file"
    return f"{where}: {found['msg']}"

"""What a run emits and what is concluded from it: rows, findings, episodes."""

from typing import Literal, NamedTuple

from pydantic import Field

from autopilot.schema.base import Number, Record

MAIN = "main"
"""The branch on which every run begins."""


class Row(NamedTuple):
    """The metrics of one step.

    A named tuple and not a model, because the training thread makes one every step. Values may be
    NaN or infinite. ``source`` names where the step's batch came from, if the loop said so.
    """

    step: int
    values: dict[str, float]
    branch: str = MAIN
    time: float = 0.0
    source: str | None = None


Tier = Literal["invariant", "watch", "alarm"]
"""How far a finding reaches: invariants and alarms wake an agent, a watch is only journaled."""

Severity = Literal["info", "warn", "error"]

FindingKind = Literal[
    "non_finite",
    "loss_spike",
    "grad_spike",
    "divergence",
    "slow_drift",
    "plateau",
    "overfit",
    "lr_too_high",
    "lr_too_low",
    "no_warmup",
    "schedule_fault",
    "loss_scale_fault",
    "stall",
    "throughput_drop",
    "collapse",
    "data_repeat",
    "bad_shard",
    "dead_units",
    "dead_update",
    "logit_growth",
    "decay_too_high",
    "silent_corruption",
]


class Evidence(Record):
    """One figure that a finding or a proposal rests on; the guard checks it against the journal."""

    metric: str = Field(min_length=1, max_length=100)
    step: int = Field(ge=0, le=2**63 - 1)
    value: Number


class Finding(Record):
    """What a detector reports about one step.

    ``id`` and ``episode`` are filled in by the control plane; ``claimed_by`` names the client of
    a finding that the run's own detectors did not make. A claim never counts as an alarm.
    ``source`` is the one source of data that it is about.
    """

    kind: FindingKind
    tier: Tier
    severity: Severity
    metric: str
    step: int
    branch: str = MAIN
    score: Number
    message: str
    evidence: tuple[Evidence, ...] = ()
    detector: str
    source: str | None = None
    id: str | None = None
    episode: str | None = None
    claimed_by: str | None = None


Diagnosis = Literal["damaged", "misdriven", "benign", "unknown"]
"""Weights damaged (go back and fix the cause), weights sound but misdriven (fix in place), benign
(touch nothing), or not yet known. It decides the family of remedy."""


class Episode(Record):
    """One sickness: the findings that belong together, and what they amount to.

    Attributes:
        kind: The finding kind that best names the cause so far.
        status: ``watching`` while a spike's recovery window runs or evidence is thin, ``open``
            once something should be proposed, ``closed`` after it has passed.
        onset_step: The last step known to be sound plus one: where the sickness began.
        fingerprint: The figures that decided the diagnosis, by metric name.
        source: The one source of data whose loss is off, where it is that of one alone.
    """

    id: str
    branch: str
    kind: FindingKind
    diagnosis: Diagnosis
    severity: Severity
    status: Literal["watching", "open", "closed"]
    alarm: bool
    invariant_broken: bool
    onset_step: int
    last_step: int
    findings: tuple[str, ...]
    fingerprint: dict[str, Number] = Field(default_factory=dict)
    reason: str = ""
    source: str | None = None

"""What an episode amounts to: weights damaged, weights misdriven, or nothing to touch.

The table was measured on 19 real faults: damage is repaired by going back and fixing the cause,
in place it is made worse; a wrong setting under sound weights is fixed in place, and going back
only wastes budget; a blip, a planned change of data or a stall is harmed by any action.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from autopilot.schema import Diagnosis, Episode, FindingKind, Severity
from autopilot.sources import Raised

RECOVERY_ROWS = 10
STALE = 2.5
"""Second-moment staleness of a change of data that hurts; of a planned one it was 1.95, of bad data
3.3, of one that outgrew a long memory 6.8 and more (medians of four small trainings each)."""
OUTGROWN = 5.0

CAUSES: Final[tuple[FindingKind, ...]] = (
    "schedule_fault",
    "loss_scale_fault",
    "silent_corruption",
    "no_warmup",
    "lr_too_high",
    "logit_growth",
    "dead_units",
    "non_finite",
    "bad_shard",
    "data_repeat",
    "dead_update",
    "decay_too_high",
    "lr_too_low",
    "divergence",
    "collapse",
    "slow_drift",
    "loss_spike",
    "grad_spike",
    "overfit",
    "plateau",
    "stall",
    "throughput_drop",
)
"""What explains an episode best comes first: causes before what they do to the loss."""

RANK = {kind: rank for rank, kind in enumerate(CAUSES)}
SPEED: frozenset[FindingKind] = frozenset(("stall", "throughput_drop"))
FIT: frozenset[FindingKind] = frozenset(("overfit", "plateau"))
SUDDEN: frozenset[FindingKind] = frozenset(("loss_spike", "grad_spike"))
LOSS_ONLY: frozenset[FindingKind] = frozenset(
    ("loss_spike", "grad_spike", "divergence", "slow_drift")
)
EFFECTS = LOSS_ONLY | {"non_finite", "collapse"}
TOO_HOT: frozenset[FindingKind] = frozenset(("no_warmup", "lr_too_high", "logit_growth"))
_DAMAGE: frozenset[FindingKind] = frozenset(
    ("silent_corruption", "no_warmup", "lr_too_high", "logit_growth", "dead_units", "collapse")
)
_MISDRIVEN: frozenset[FindingKind] = frozenset(
    (
        "loss_scale_fault",
        "bad_shard",
        "data_repeat",
        "dead_update",
        "decay_too_high",
        "lr_too_low",
        "overfit",
    )
)


def group_of(kind: FindingKind) -> str:
    """Findings of one group belong to one sickness."""
    if kind in SPEED:
        return "speed"
    return "fit" if kind in FIT else "course"


@dataclass(slots=True)
class Case:
    """An episode in the making."""

    id: str
    group: str
    branch: str
    onset: int
    last_step: int
    opened_row: int
    last_row: int
    status: Literal["watching", "open", "closed"] = "watching"
    kind: FindingKind = "loss_spike"
    severity: Severity = "info"
    findings: list[str] = field(default_factory=list)
    messages: dict[FindingKind, str] = field(default_factory=dict)
    invariant: bool = False
    worst_ratio: float = 0.0
    poisoned: bool = False
    grad_loud: bool = False
    climbing: bool = False
    stale: float = 0.0
    new_source: str | None = None
    source_rows: int = 0
    sources: Raised = field(default_factory=Raised)
    source: str | None = None
    source_found: bool = False
    peak: float = 0.0
    raised: int = 0
    calm: int = 0
    waits_until: int = 0
    waits: int = 0
    falling: bool = False
    held_out: tuple[float, float] | None = None
    treated_row: int = -1
    relapse_until: int = -1
    shown: Episode | None = None

    @property
    def outgrown(self) -> bool:
        """New data began here, and Adam's second moment is far from ready for its gradients."""
        ready = self.stale < OUTGROWN or not self.grad_loud
        return self.new_source is not None and self.source_rows > 0 and not ready

    def blame(self, source: str, *, raised: bool) -> None:
        """Count a row for or against its source, and name the sickness after that."""
        if self.kind not in LOSS_ONLY and self.source is None:
            return
        self.sources.add(source, raised)
        found = self.source if self.source_found else None
        others_off = found is not None and self.sources.beyond(found)
        if found is not None and not (others_off and LOSS_ONLY & self.messages.keys()):
            return  # a detector's word stands, unless the loss of the others is off as well
        self.source, self.source_found = self.sources.lone(), False
        if self.source is not None:
            self.kind = "bad_shard"
            self.messages["bad_shard"] = f"the loss is raised on {self.source[:60]!r} alone"
        elif self.messages.pop("bad_shard", None) is not None:
            self.kind = min(self.messages, key=RANK.__getitem__)


HURT = 0.03
"""Share by which the held-out loss must have risen since before the onset; seeds differ by less."""
LEAP = 3.0
"""A rate so many times its plan damages weights within a handful of updates: put right in place one
step later, most of the gap stays."""


def diagnose(case: Case, *, has_grad_norm: bool) -> tuple[Diagnosis, str]:
    """Damaged, misdriven or benign, and why in words."""
    kind = case.kind
    if kind in SPEED:
        return "benign", "it costs time and not quality, so the optimizer is left alone"
    if case.poisoned:
        return "damaged", "a loss or parameter that is no number has reached the weights"
    if kind == "schedule_fault":
        return _diagnose_schedule(case)
    if kind in _DAMAGE:
        return "damaged", "weights do not come back from this in place"
    if kind in _MISDRIVEN:
        return "misdriven", "the weights are sound and the setting that drives them is not"
    if kind == "non_finite":
        return _diagnose_non_finite(case)
    if kind in LOSS_ONLY:
        return _diagnose_loss(case, has_grad_norm)
    return "unknown", "nothing in the figures tells the cause"


def _diagnose_schedule(case: Case) -> tuple[Diagnosis, str]:
    ratio = case.worst_ratio
    hurt = not LOSS_ONLY.isdisjoint(case.messages) or case.raised.bit_count() >= 2
    if ratio >= LEAP:
        return "damaged", "the rate leapt above its plan, and a few such updates are enough"
    if ratio > 1.5 and hurt:
        return "damaged", "the rate is above its plan and the loss has already suffered"
    if ratio > 1.0:
        return "misdriven", "the rate is above its plan and the loss has not suffered yet"
    return "misdriven", "the rate is below its plan and the weights are sound"


def _diagnose_non_finite(case: Case) -> tuple[Diagnosis, str]:
    """Gradients that are no numbers; a loss that is none has been settled before."""
    if case.climbing or not LOSS_ONLY.isdisjoint(case.messages):
        return "damaged", "the loss had left its course when the gradients stopped being numbers"
    hurt = _held_out_verdict(case)
    if hurt is not None:
        return hurt
    return "unknown", "gradients are no numbers while the loss still is one"


def _diagnose_loss(case: Case, has_grad_norm: bool) -> tuple[Diagnosis, str]:
    hurt = _held_out_verdict(case)
    if hurt is not None:
        return hurt
    if case.status == "closed" and case.treated_row < 0 and not case.climbing:
        return "benign", "the loss came back by itself"
    if case.new_source is not None and case.source_rows >= 0:
        return _diagnose_shift(case, case.new_source, has_grad_norm)
    if case.status == "watching":
        return "unknown", f"it has {RECOVERY_ROWS} rows to come back by itself"
    if case.falling:
        return "unknown", "it is on its way back; a held-out evaluation would tell what it left"
    if case.grad_loud:
        return "damaged", "the loss stays up and the gradients grew with it"
    if case.climbing:
        return "damaged", "the loss climbs further and further from its best"
    enough = 0.4 if has_grad_norm else 0.22
    if case.peak >= enough:
        return "damaged", "the loss stays far above its course"
    return "unknown", "the loss stays a little up while nothing else speaks of damage"


def _held_out_verdict(case: Case) -> tuple[Diagnosis, str] | None:
    """What an evaluation after the onset says against the last one before it."""
    if case.held_out is None or case.new_source is not None:
        return None
    before, after = case.held_out
    figures = f"the held-out loss went from {before:.4g} to {after:.4g}"
    if not after <= before + HURT * abs(before):
        return "damaged", f"{figures}: the weights are hurt, whatever the training loss does"
    if case.climbing:
        return None
    return "benign", f"{figures}: the weights are sound"


def _diagnose_shift(case: Case, source: str, has_grad_norm: bool) -> tuple[Diagnosis, str]:
    began = f"the data changed to {source[:60]!r} just where the loss rose"
    if case.stale >= STALE:
        return "misdriven", f"{began}, and Adam's second moment does not fit the new gradients"
    if "grad_spike" in case.messages:
        return "damaged", f"{began}, and the gradients grew with it"
    if has_grad_norm:
        return "benign", f"{began}, and the gradients are as before"
    return "unknown", f"{began}; without a gradient norm this cannot be told from damage"

"""From findings to episodes: one sickness, one episode, one diagnosis.

A finding says what one detector saw on one row. What an agent needs is what belongs together,
where it began, and above all whether the weights are damaged (go back), misdriven (fix in place)
or fine (touch nothing). People who ran BLOOM, IDEFICS and GLM-130B learned to wait on a sudden
spike and to act on a slow drift, so a sudden spike is watched for ten rows before it opens.
"""

from collections import deque
from collections.abc import Sequence
from math import isfinite

from autopilot.detectors.running_median import RunningMedian
from autopilot.detectors.trend import Trend
from autopilot.diagnosis import (
    EFFECTS,
    LOSS_ONLY,
    RANK,
    RECOVERY_ROWS,
    SUDDEN,
    TOO_HOT,
    Case,
    diagnose,
    group_of,
)
from autopilot.schema import Episode, Finding, FindingKind, Row, Severity
from autopilot.schema.metrics import (
    EPS_SHARE,
    GRAD_NORM,
    LOSS,
    LOSS_SCALE,
    LR,
    LR_PLANNED,
    PARAM_NORM,
    SECOND_MOMENT_STALENESS,
    UPDATE_RATIO,
    UPDATE_SKIPPED,
    VAL_LOSS,
    WEIGHT_DECAY_RATE,
)
from autopilot.sources import Raised, SourceLog

QUIET_ROWS = 100
BACK_ROWS = 30
RELAPSE_ROWS = 200
LINK_ROWS = 10
RAISED = 3.0
WAITS = 3
_KEPT = 64

_SEVERITY: dict[Severity, int] = {"info": 0, "warn": 1, "error": 2}
_SHOWN = (
    LOSS,
    GRAD_NORM,
    UPDATE_RATIO,
    LR,
    LR_PLANNED,
    SECOND_MOMENT_STALENESS,
    LOSS_SCALE,
    EPS_SHARE,
    WEIGHT_DECAY_RATE,
    PARAM_NORM,
    UPDATE_SKIPPED,
)


class Triage:
    """Merges findings into episodes and says what they amount to.

    Hand it the trends of the bank whose findings it reads, so that they are computed once:
    ``Triage(bank.loss, bank.grad)``. Call ``update`` for every row, with its findings or without.

    Attributes:
        last: The last value of each metric on the present branch.

    >>> from autopilot.detectors import DetectorBank
    >>> bank = DetectorBank()
    >>> triage = Triage(bank.loss, bank.grad)
    >>> row = Row(3, {"loss": float("nan")})
    >>> [(e.kind, e.diagnosis, e.status) for e in triage.update(row, bank.update(row))]
    [('non_finite', 'damaged', 'open')]
    """

    def __init__(
        self, loss: Trend | None = None, grad: Trend | None = None, *, first_id: int = 1
    ) -> None:
        self._loss = loss or Trend(LOSS)
        self._grad = grad or Trend(GRAD_NORM)
        self._next_id = first_id
        self._cases: list[Case] = []
        self.last: dict[str, float] = {}
        self._grad_median = RunningMedian()
        self._sources = SourceLog()
        self._hints: deque[tuple[int, Finding]] = deque(maxlen=64)
        self._held_out: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        self._row = 0

    def update(self, row: Row, findings: Sequence[Finding]) -> list[Episode]:
        """Read the row and what was found on it; the episodes that began or changed."""
        self._row += 1
        self._observe(row)
        for finding in findings:
            if finding.tier == "watch":
                self._hints.append((self._row, finding))
                self._join_watch(finding)
            else:
                self._take(finding)
        if not self._cases:
            return []
        changed: list[Episode] = []
        for case in self._cases:
            self._advance(case, row)
            episode = self._episode(case)
            if self._news(case, episode):
                changed.append(episode)
            case.shown = episode
        self._cases = [
            case for case in self._cases if case.status != "closed" or self._may_relapse(case)
        ]
        return changed

    def open_episodes(self) -> list[Episode]:
        """Episodes that are not closed, as they stand."""
        return [self._episode(case) for case in self._cases if case.status != "closed"]

    def note_intervention(self, step: int) -> None:
        """An intervention was applied after this step: what is open has had its treatment.

        It falls back to watching. If it comes again within 200 rows it is the same episode, with
        the same id, so that whoever treats it can count what was tried.
        """
        self._treat(RELAPSE_ROWS)

    def branch_started(self, branch: str, step: int, from_step: int) -> None:
        """The run went back from ``from_step`` to ``step`` and goes on as ``branch``.

        A relapse may take as long again as the steps that are repeated.
        """
        self._treat(RELAPSE_ROWS + max(0, from_step - step))
        for case in self._cases:
            case.branch = branch
        self._hints.clear()
        self._held_out = deque((e for e in self._held_out if e[0] <= step), maxlen=_KEPT)
        self.last.clear()
        self._grad_median.reset()

    def _treat(self, rows: int) -> None:
        for case in self._cases:
            case.relapse_until = max(case.relapse_until, self._row + rows)
            if case.status != "closed":
                case.status = "watching"
                case.treated_row = case.last_row = self._row
                case.waits_until = 0
                case.raised = 0

    def _observe(self, row: Row) -> None:
        """Keep the last value of each metric, and which data the run is on."""
        values, loss, grad = row.values, self._loss, self._grad
        if loss.row is not row:
            loss.observe(row)
        if grad.row is not row:
            grad.observe(row)
        self.last.update(values)
        held_out = values.get(VAL_LOSS)
        if held_out is not None:
            self._weigh(row.step, held_out)
        if grad.fresh:
            self._grad_median.add(values[GRAD_NORM])
        if row.source is not None:
            self._sources.observe(row.source, row.step, self._row)

    def _weigh(self, step: int, held_out: float) -> None:
        """An evaluation says whether what is under way has hurt the weights."""
        for case in self._cases:
            if case.group != "course" or not _untreated(case) or step < case.onset:
                continue
            before = [value for at, value in self._held_out if at < case.onset]
            if before:
                case.held_out = (before[-1], held_out)
        if isfinite(held_out):
            self._held_out.append((step, held_out))

    def _join_watch(self, finding: Finding) -> None:
        """A watch opens nothing; it is evidence for what is under way."""
        for case in self._cases:
            if case.group == "course" and case.status == "watching" and case.treated_row < 0:
                if finding.metric == GRAD_NORM:
                    case.grad_loud = True
                _note(case, finding)

    def _take(self, finding: Finding) -> None:
        group = group_of(finding.kind)
        case = next((c for c in self._cases if c.group == group and _untreated(c)), None)
        if case is None:
            case = next((c for c in self._cases if self._relapsed(c, finding.kind)), None)
            if case is None:
                case = self._new_case(finding, group)
            else:
                self._reopen(case, finding)
        self._add(case, finding)

    def _relapsed(self, case: Case, kind: FindingKind) -> bool:
        """Whether a treated sickness is back, and not another one come up."""
        if _untreated(case) or self._row > case.relapse_until:
            return False
        return case.group == group_of(kind) and (
            kind == case.kind
            or not EFFECTS.isdisjoint((kind, case.kind))
            or TOO_HOT.issuperset((kind, case.kind))
        )

    def _new_case(self, finding: Finding, group: str) -> Case:
        case = Case(
            id=f"ep-{self._next_id:04d}",
            group=group,
            branch=finding.branch,
            onset=_first_step(finding),
            last_step=finding.step,
            opened_row=self._row,
            last_row=self._row,
            kind=finding.kind,
        )
        self._next_id += 1
        if group == "course":
            self._link_hints(case)
        case.new_source = self._sources.began_near(case.onset, LINK_ROWS // 2)
        self._cases.append(case)
        return case

    def _link_hints(self, case: Case) -> None:
        """Follow watches backwards from the alarm, as long as each is near the next."""
        near = self._row
        for row, hint in reversed(self._hints):
            if near - row > LINK_ROWS:
                break
            near = row
            case.onset = min(case.onset, hint.step)
            _note(case, hint)
            if hint.metric == GRAD_NORM:
                case.grad_loud = True
            if hint.detector == "lr_jump" and case.kind in EFFECTS:
                case.kind = hint.kind
                case.worst_ratio = hint.score
                case.messages[hint.kind] = hint.message

    def _reopen(self, case: Case, finding: Finding) -> None:
        case.status = "watching"
        case.branch = finding.branch
        case.opened_row = self._row
        case.treated_row = -1
        case.onset = _first_step(finding)
        case.waits_until = 0
        case.raised = 0
        case.peak = 0.0
        case.kind = finding.kind
        case.invariant = False
        case.poisoned = False
        case.grad_loud = False
        case.climbing = False
        case.stale = 0.0
        case.new_source = None
        case.sources = Raised()
        case.source = None
        case.source_found = False
        case.waits = 0
        case.falling = False
        case.held_out = None
        case.worst_ratio = 0.0
        case.messages.clear()

    def _add(self, case: Case, finding: Finding) -> None:
        if RANK[finding.kind] < RANK[case.kind]:
            case.kind = finding.kind
        case.messages[finding.kind] = finding.message
        case.last_row = self._row
        case.last_step = max(finding.step, case.last_step if finding.branch == case.branch else 0)
        case.onset = min(case.onset, _first_step(finding))
        if _SEVERITY[finding.severity] > _SEVERITY[case.severity]:
            case.severity = finding.severity
        _note(case, finding)
        if finding.tier == "invariant":
            case.invariant = True
        if finding.kind == "schedule_fault":
            case.worst_ratio = max(case.worst_ratio, finding.score)
        if finding.kind == "non_finite" and finding.metric in (LOSS, PARAM_NORM):
            case.poisoned = True
        if finding.source is not None:
            case.source, case.source_found = finding.source, True
        if finding.metric == GRAD_NORM:
            case.grad_loud = True
        blown_up = finding.kind == "divergence" and not self._loss.ready
        if finding.detector == "slow_drift" or blown_up:
            case.climbing = True
            case.calm = 0
        if case.status == "watching":
            if finding.kind in SUDDEN and not case.invariant:
                case.waits_until = case.waits_until or self._row + RECOVERY_ROWS
            else:
                case.status = "open"

    def _advance(self, case: Case, row: Row) -> None:
        """What this row without a finding of its own tells: recovered, opened, or over."""
        if case.status == "closed":
            return
        if row.branch == case.branch:
            case.last_step = max(case.last_step, row.step)
        loss = self._loss
        if loss.fresh:
            case.peak = max(case.peak, loss.excess)
            case.raised = ((case.raised << 1) | (loss.z > RAISED)) & 0x3FF
            if row.source is not None:
                case.blame(row.source, raised=loss.z > RAISED)
        stale = row.values.get(SECOND_MOMENT_STALENESS)
        if stale is not None and isfinite(stale):
            case.stale = max(case.stale, stale)
        if case.new_source is not None and row.source is not None:
            case.source_rows += 1 if row.source == case.new_source else -1
            if case.status == "watching" and case.outgrown:
                case.status = "open"  # it does not come back by itself before it has done harm
        waits = case.status == "watching" or case.falling
        if waits and case.treated_row < 0 and self._row >= case.waits_until:
            self._end_wait(case)
            return
        healthy = not loss.held and not case.raised
        case.calm = case.calm + 1 if healthy else 0
        back = case.kind in LOSS_ONLY and case.treated_row < 0 and case.calm >= BACK_ROWS
        # Evaluations are rare, so what rests on them is silent for long without being over.
        rare = case.group == "fit" and case.treated_row < 0
        quiet = 10 * QUIET_ROWS if rare else QUIET_ROWS
        if back or (self._row - case.last_row >= quiet and not loss.held):
            case.status = "closed"

    def _end_wait(self, case: Case) -> None:
        """The recovery window is over: back, on its way back, or staying up."""
        loss = self._loss
        still = loss.held or case.raised.bit_count() >= RECOVERY_ROWS // 2
        case.falling = False
        if not still and case.status == "watching":
            case.status = "closed"
            return
        case.status = "open"
        if case.waits < WAITS and loss.excess < 0.5 * case.peak:
            # Halving its height in every window: BLOOM-176B took 30 iterations to come back.
            case.falling = True
            case.waits += 1
            case.waits_until = self._row + RECOVERY_ROWS
            case.peak = loss.excess

    def _may_relapse(self, case: Case) -> bool:
        return self._row <= case.relapse_until

    def _news(self, case: Case, episode: Episode) -> bool:
        """Whether the episode says something it did not say before."""
        shown = case.shown
        if shown is episode:
            return False
        return shown is None or (
            (shown.status, shown.kind, shown.diagnosis, shown.severity, shown.branch)
            != (episode.status, episode.kind, episode.diagnosis, episode.severity, episode.branch)
            or shown.findings != episode.findings
        )

    def _episode(self, case: Case) -> Episode:
        shown = case.shown
        if case.status == "closed" and shown is not None and shown.status == "closed":
            return shown
        diagnosis, why = diagnose(case, has_grad_norm=GRAD_NORM in self.last)
        what = case.messages.get(case.kind, "")
        return Episode(
            id=case.id,
            branch=case.branch,
            kind=case.kind,
            diagnosis=diagnosis,
            severity=case.severity,
            status=case.status,
            alarm=True,
            invariant_broken=case.invariant,
            onset_step=max(case.onset, 0),
            last_step=case.last_step,
            findings=tuple(case.findings),
            fingerprint=self._fingerprint(),
            reason=f"{what}; {why}" if what else why,
            source=case.source if case.kind == "bad_shard" else None,
        )

    def _fingerprint(self) -> dict[str, float]:
        last = self.last
        figures = {name: last[name] for name in _SHOWN if name in last}
        if self._loss.ready:
            figures["loss_expected"] = self._loss.expected
        if self._grad_median.ready:
            figures["grad_norm_median"] = self._grad_median.value
        return figures


def _untreated(case: Case) -> bool:
    return case.status != "closed" and case.treated_row < 0


def _first_step(finding: Finding) -> int:
    """The first bad step that the finding itself gives evidence of."""
    steps = [evidence.step for evidence in finding.evidence if evidence.metric == finding.metric]
    return min([finding.step, *steps])


def _note(case: Case, finding: Finding) -> None:
    name = finding.id or f"{finding.detector}@{finding.step}"
    if name not in case.findings:
        case.findings.append(name)
        del case.findings[:-_KEPT]

"""From what was read of a run to a report. Pure: the same account gives the same report."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from autopilot.report.account import Account
from autopilot.report.course import Moment, Pass, read_rows
from autopilot.report.history import History, read_history
from autopilot.report.model import (
    Action,
    Effect,
    Fault,
    Going,
    ModelCost,
    Report,
    State,
    Wish,
)
from autopilot.report.sickness import sicknesses
from autopilot.report.standing import headline, matters, standing
from autopilot.schema import Consultation, Event, ProposalRecord, metrics

_NO_END = "no end was journaled: the process was killed, or is gone without a word"


def make_report(account: Account, since: float | None = None) -> Report:
    """The report of a run.

    Args:
        account: What was read of it.
        since: Report on the last so many seconds: before now where the run is live, before its
            last event where it is over. None reports on all of it.
    """
    until = account.read_at
    if account.info is None and account.events:
        until = account.events[-1].time
    began = account.events[0].time if account.events else until
    first = began if since is None else max(until - since, began)
    history = read_history(account.events)
    applied = [record for record in history.records.values() if record.id in history.applied]
    seen = read_rows(account.rows(), _moments(applied, history.applied), first)
    lately = [event for event in account.events if event.time >= first]
    state = _state(account, history, seen)
    goings = _goings(lately, seen)
    touched = {record.id for record in _touched(lately, history)}
    report = Report(
        name=account.name,
        run_id=account.run_id,
        place=account.place,
        since=first,
        until=until,
        standing="healthy",
        headline="",
        state=state,
        course=seen.course,
        episodes=sicknesses(history, first, live=state.live),
        done=tuple(
            Action(at=history.applied[record.id], record=record, effect=_effect(record, seen))
            for record in applied
            if record.id in touched
        ),
        wanted=tuple(_wishes(history, touched)),
        waiting=(),
        faults=_faults(lately, account),
        reflexes=dict(Counter(e.actor.split(":")[-1] for e in lately if e.kind == "reflex")),
        cost=_cost(lately),
        goings=goings,
        lost=sum(going.lost for going in goings),
        remarks=account.remarks,
    )
    report = report.model_copy(update={"waiting": matters(report, history)})
    report = report.model_copy(update={"standing": standing(report)})
    return report.model_copy(update={"headline": headline(report)})


def _moments(applied: Iterable[ProposalRecord], times: Mapping[str, float]) -> list[Moment]:
    found = [Moment(record.id, times[record.id], _metric(record)) for record in applied]
    return sorted(found, key=lambda moment: moment.at)


def _metric(record: ProposalRecord) -> str:
    return metrics.LOSS if record.canary is None else record.canary.metric


def _effect(record: ProposalRecord, seen: Pass) -> Effect:
    result, canary = record.canary_result, record.canary
    measured = result is not None and result.value == result.value
    return Effect(
        metric=_metric(record),
        before=seen.before.get(record.id),
        after=result.value if result is not None and measured else None,
        bound=None if canary is None else canary.bound,
    )


def _state(account: Account, history: History, seen: Pass) -> State:
    info = account.info
    if info is None:
        status, reason = history.end or ("lost", _NO_END)
        last = account.events[-1] if account.events else None
        branch = last.branch if last is not None else ""
        return State.model_validate(
            {
                "status": status,
                "reason": reason,
                "live": False,
                "step": seen.deepest.get(branch, last.step if last is not None else 0),
                "steps": None,
                "branch": branch,
                "trained": seen.trained,
                "seconds": seen.seconds,
                "remaining_seconds": None,
                "autonomy": None,
                "policy_digest": None,
                "pilot": None,
                "breaker_open": False,
            }
        )
    pilot = info.pilot
    silent = "" if pilot is None or pilot.alive else " (silent)"
    running = info.status in ("running", "held")
    left = max(info.steps - info.step, 0) if info.steps is not None and running else None
    pace = seen.seconds / (seen.trained - 1) if seen.trained > 1 else None
    return State(
        status=info.status,
        reason=history.reason,
        live=info.status not in ("ended", "failed"),
        step=info.step,
        steps=info.steps,
        branch=info.branch,
        trained=seen.trained,
        seconds=seen.seconds,
        remaining_seconds=left * pace if left is not None and pace is not None else None,
        autonomy=info.autonomy,
        policy_digest=info.policy_digest,
        pilot=None if pilot is None else f"{pilot.actor}{silent}",
        breaker_open=info.breaker_open,
    )


def _touched(lately: Iterable[Event], history: History) -> Iterable[ProposalRecord]:
    """Proposals of which something was journaled in the time, or that still wait."""
    ids = {event.body["record"]["id"] for event in lately if "record" in event.body}
    return (r for r in history.records.values() if r.id in ids or r.status == "pending")


def _wishes(history: History, touched: set[str]) -> Iterable[Wish]:
    for record in history.records.values():
        if record.id not in touched or record.id in history.applied:
            continue
        approval = record.approval
        match record.status:
            case "denied" if approval is not None:
                why = f"denied by {approval.actor}: {approval.reason or 'no reason was given'}"
            case "denied":
                why = f"denied by the policy, {record.verdict.rule}: {record.verdict.reason}"
            case "expired":
                asked = f"asked because of {record.verdict.rule}: {record.verdict.reason}"
                why = f"{record.reason or 'nobody answered in time'} ({asked})"
            case "rejected":
                why = f"the run could not apply it: {record.reason}"
            case _:
                continue
        yield Wish(record=record, why=why)


def _faults(lately: Iterable[Event], account: Account) -> tuple[Fault, ...]:
    told = [Fault(at=e.time, text=str(e.body.get("text", ""))) for e in lately if e.kind == "fault"]
    known = {str(event.body.get("text", "")) for event in account.events if event.kind == "fault"}
    said = account.info.faults if account.info is not None else ()
    # What could not even be journaled is known to the process alone.
    return (*told, *(Fault(at=None, text=text) for text in said if text not in known))


def _cost(lately: Iterable[Event]) -> tuple[ModelCost, ...]:
    found: dict[str, list[Consultation]] = {}
    for event in lately:
        if event.kind == "consultation":
            asked = Consultation.model_validate(event.body["consultation"])
            found.setdefault(asked.model, []).append(asked)
    return tuple(_model_cost(model, asked) for model, asked in found.items())


def _model_cost(model: str, asked: Sequence[Consultation]) -> ModelCost:
    usages = [one.usage for one in asked]
    prices = [usage.price_usd for usage in usages if usage.price_usd is not None]
    return ModelCost(
        model=model,
        questions=len(usages),
        calls=sum(usage.calls for usage in usages),
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        usd=sum(prices),
        unpriced=len(usages) - len(prices),
    )


def _goings(lately: Iterable[Event], seen: Pass) -> tuple[Going, ...]:
    """Every going back; a branch begins at the step that was gone back to."""
    return tuple(
        Going(
            at=event.time,
            branch=event.body["name"],
            parent=event.body["parent"],
            from_step=seen.deepest.get(event.body["parent"], event.body["fork_step"]),
            to_step=event.body["fork_step"],
        )
        for event in lately
        if event.kind == "branch"
    )

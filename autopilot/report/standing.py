"""The verdict: is it healthy, was it rescued, or does it need a person, and for what."""

from collections.abc import Iterable

from autopilot.console.words import interventions_words, number
from autopilot.report.history import History
from autopilot.report.model import Matter, Report, Sickness, Standing


def standing(report: Report) -> Standing:
    """Which of the three it is; what waits for a person weighs most."""
    if report.waiting:
        return "needs_you"
    return "rescued" if _remedies(report) else "healthy"


def headline(report: Report) -> str:
    """The verdict in one line."""
    match report.standing:
        case "needs_you":
            first, *more = report.waiting
            others = f" (and {len(more)} more, below)" if more else ""
            return f"Needs you: {first.what}{others}"
        case "rescued":
            return f"Rescued: {'; '.join(_rescues(report))}."
        case "healthy":
            return f"Healthy: {_calm(report)}."


def matters(report: Report, history: History) -> tuple[Matter, ...]:
    """What a person has to see to, first things first."""
    return (
        *_of_the_run(report),
        *_of_proposals(report, history),
        *_of_episodes(report),
        *(Matter(what=f"fault: {fault.text}") for fault in report.faults),
    )


def _of_the_run(report: Report) -> Iterable[Matter]:
    state, place = report.state, report.place
    if state.status == "failed":
        yield Matter(what=f"the run failed at step {state.step}: {state.reason}")
    if state.status == "lost":
        what = f"the run is gone at step {state.step}: {state.reason}"
        yield Matter(what=what, command=f"log {place}")
    if state.status == "paused":
        why = f": {state.reason}" if state.reason else ""
        what = f"the run is paused at step {state.step}{why}"
        yield Matter(what=what, command=f"do {place} resume")
    if state.breaker_open:
        yield Matter(
            what="the breaker is open: interventions made things worse, so everything asks until "
            "a person resets it",
            command=f"reset-breaker {place}",
        )
    if state.live and state.pilot is not None and state.pilot.endswith("(silent)"):
        yield Matter(what=f"the pilot {state.pilot} is gone", command=f"watch {place}")


def _of_proposals(report: Report, history: History) -> Iterable[Matter]:
    for record in history.records.values():
        receipt = record.receipt
        if receipt is not None and receipt.proven is False and record.status in ("applied", "kept"):
            what = f"{record.id} was applied but is not in force as it was meant"
            yield Matter(what=what, command=f"undo {report.place} {record.id}")
        if record.status != "pending":
            continue
        words = interventions_words(record.proposal.interventions)
        if report.state.live:
            what = f"{record.id} waits for an answer: {words} ({record.verdict.reason})"
            yield Matter(what=what, command=f"approve {report.place} {record.id}")
        else:
            yield Matter(what=f"{record.id} was not answered before the process was gone: {words}")


def _of_episodes(report: Report) -> Iterable[Matter]:
    for sick in report.episodes:
        if sick.open_question:
            episode = sick.episode
            said = f"; {sick.said.reason}" if sick.said is not None else ""
            name = f"{episode.id} ({episode.kind}, {episode.diagnosis})"
            if episode.status == "closed":
                what = f"{name} passed with nothing done about it: see whether all is well since"
            else:
                what = f"{name} has no remedy{said}"
            yield Matter(what=what)


def _remedies(report: Report) -> list[str]:
    """What was done for an episode and is in force."""
    return [
        action.record.id
        for action in report.done
        if action.record.proposal.episode and action.record.status in ("applied", "kept")
    ]


def _rescues(report: Report) -> Iterable[str]:
    helped = set(_remedies(report))
    for sick in report.episodes:
        if ids := [remedy for remedy in sick.remedies if remedy in helped]:
            yield f"{sick.episode.kind} answered by {', '.join(ids)}{_gain(report, sick)}"


def _gain(report: Report, sick: Sickness) -> str:
    """Before and after of the last remedy of an episode whose canary has passed."""
    for action in reversed(report.done):
        effect, result = action.effect, action.record.canary_result
        if action.record.id not in sick.remedies or result is None or result.result != "kept":
            continue
        if effect.before is not None and effect.after is not None:
            return f", {effect.metric} {number(effect.before)} → {number(effect.after)}"
    return ", its canary still watches" if report.state.live else ", its canary undecided"


def _calm(report: Report) -> str:
    said = "nothing needed doing"
    if report.episodes:
        said = f"{_count(len(report.episodes), 'episode')} came and went"
    own = [action.record for action in report.done if action.record.reverts is None]
    if own:
        said += f", {_count(len(own), 'intervention')} applied"
    if back := sum(record.status == "reverted" for record in own):
        said += f" and {back:,} taken back"
    if report.state.trained:
        return f"{said} in {_count(report.state.trained, 'step')}"
    return f"{said}; no step was made in this time"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

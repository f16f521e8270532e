"""What an MCP client is shown: text from a run, cleaned, capped, and fenced as data."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from autopilot.console.words import event_words, interventions_words, number
from autopilot.schema import (
    Episode,
    Event,
    Finding,
    MetricSummary,
    ProposalRecord,
    Record,
    TableRow,
)
from autopilot_agents.llm.fence import clean, fence

MOST = 24_000
"""Characters that one answer has at most; about 8,000 tokens."""
_LONGEST = 4_000
"""Characters of one text among several, such as a rationale."""


class Sight(Record):
    """What there is to see around an episode: the same for a live run and for one that is over."""

    episode: Episode | None
    findings: tuple[Finding, ...]
    summaries: tuple[MetricSummary, ...]
    table: tuple[TableRow, ...]


def fenced(text: str) -> str:
    """Text from a run as data, cut where it is too long.

    >>> print(fenced("hello"))
    <data-2cf24dba5fb0>
    hello
    </data-2cf24dba5fb0>
    """
    left = len(text) - MOST
    if left > 0:
        text = f"{text[:MOST]}\n[cut here: {left:,} more characters; ask for less at once]"
    return fence(text)


def as_json(value: Any) -> str:
    """Records and plain values as fenced JSON with every text in it cleaned."""
    plain = json.loads(to_json(value, inf_nan_mode="strings"))
    return fenced(json.dumps(_cleaned(plain), ensure_ascii=False, allow_nan=False, indent=1))


def as_text(lines: Iterable[str]) -> str:
    """Lines as fenced text, each cleaned."""
    return fenced("\n".join(clean(line, _LONGEST) for line in lines))


def one_line(text: str) -> str:
    """An error's text, in which a run may have a part."""
    return clean(text, _LONGEST)


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean(value, _LONGEST)
        case list():
            return [_cleaned(one) for one in value]
        case dict():
            return {clean(name): _cleaned(one) for name, one in value.items()}
        case _:
            return value


def brief(record: ProposalRecord) -> dict[str, Any]:
    """A proposal with its outcome, without the receipt's details."""
    approval, result = record.approval, record.canary_result
    return {
        "id": record.id,
        "status": record.status,
        "actor": record.actor,
        "filed_step": record.filed_step,
        "episode": record.proposal.episode,
        "interventions": interventions_words(record.proposal.interventions),
        "verdict": record.verdict,
        "approval": None if approval is None else f"{approval.decision} by {approval.actor}",
        "canary": None if result is None else f"{result.result}: {result.reason}",
        "reverts": record.reverts,
        "reason": record.reason,
    }


def story(events: Iterable[Event]) -> str:
    """Journal events in words, one a line, each with its sequence number."""
    lines = []
    for event in events:
        words = event_words(event)
        if words is None:
            continue
        stamp = datetime.fromtimestamp(event.time).astimezone().isoformat(timespec="seconds")
        detail = f": {words[1]}" if words[1] else ""
        lines.append(f"{event.seq} {stamp} step {event.step} {words[0]}{detail}")
    return as_text(lines or ["nothing more is journaled"])


def sight(seen: Sight) -> str:
    """Figures around an episode: statistics a metric, then a table whose last rows are densest.

    Tables cost a model a tenth of what JSON rows do.
    """
    lines: list[str] = []
    if (episode := seen.episode) is not None:
        lines.append(
            f"episode {episode.id} {episode.status}: {episode.kind}, {episode.diagnosis}, "
            f"{episode.severity}, steps {episode.onset_step} to {episode.last_step}"
        )
        decided = ", ".join(f"{name} {number(v)}" for name, v in episode.fingerprint.items())
        lines += [f"reason: {episode.reason}", f"decided by: {decided or 'nothing further'}"]
    lines += [_finding(one) for one in seen.findings]
    lines += ["", *map(_summary, seen.summaries), "", *_table(seen.table)]
    return as_text(lines)


def _finding(one: Finding) -> str:
    claim = f" (claimed by {one.claimed_by})" if one.claimed_by else ""
    cited = ", ".join(f"{e.metric}@{e.step} = {number(e.value)}" for e in one.evidence)
    return f"finding {one.kind}{claim} [{one.tier}] at step {one.step}: {one.message}; {cited}"


def _summary(one: MetricSummary) -> str:
    odd = f", {one.non_finite} not finite" if one.non_finite else ""
    return (
        f"{one.metric}: last {number(one.last)}, median {number(one.median)} "
        f"± {number(one.mad)} (MAD), from {number(one.minimum)} to {number(one.maximum)}, "
        f"{number(one.slope_per_100)} per 100 steps, {one.count} rows{odd}"
    )


def _table(rows: Sequence[TableRow]) -> Iterable[str]:
    """The table as CSV; several steps in a line stand for their medians."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    yield ",".join(["steps", *names])
    for row in rows:
        steps = str(row.last_step)
        if row.first_step != row.last_step:
            steps = f"{row.first_step}-{row.last_step}"
        cells = (number(row.values[name]) if name in row.values else "" for name in names)
        yield ",".join([steps, *cells])

"""A whole run in words and figures, for a question about it: an overview, and what to look up."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from autopilot.console.words import event_words
from autopilot.schema import (
    CheckpointInfo,
    Episode,
    Event,
    Guidance,
    ProposalRecord,
    Row,
    TableRow,
    Window,
    metrics,
)
from autopilot.window import SHOWN, summarise
from autopilot_agents.llm.archive import SPAN, Archive
from autopilot_agents.llm.fence import clean, figure, plain_name
from autopilot_agents.llm.lookups import LookUp, Nothing, OfKind, Slice
from autopilot_agents.llm.policy_words import policy_words
from autopilot_agents.llm.view import (
    checkpoint_line,
    finding_line,
    intervention_text,
    knob_lines,
    settings_text,
    summary_line,
    table_line,
)

_RECENT, _POINTS, _COURSES = 512, 14, 3
_METRICS, _EPISODES, _FINDINGS, _PROPOSALS, _SHOWN, _STORY = 16, 16, 8, 12, 24, 40
_FORKS, _LEFT, _LAST_STEP = 4, 8, 2**62
_DRAWN = (metrics.LOSS, metrics.VAL_LOSS, metrics.GRAD_NORM)


class OneEpisode(BaseModel):
    """Of which episode."""

    episode: str


class Steps(BaseModel):
    """Between which steps."""

    first_step: int = Field(ge=0)
    last_step: int = Field(ge=0)


def overview(archive: Archive) -> str:
    """What a question begins with: the run, statistics, courses, and everything that happened."""
    run = archive.info
    rows = archive.recent(_RECENT)
    names = metric_names(rows)
    sections = (
        (
            f"RUN {plain_name(run.name)}: {clean(archive.state, 200)}; step {run.step} of "
            f"{run.steps or 'unknown'}, branch {plain_name(run.branch)} of "
            f"{', '.join(map(plain_name, archive.branches))}"
            + (f"; agents may {run.autonomy}" if archive.policy is not None else ""),
            f"SETTINGS {settings_text(run.capabilities)}",
            f"NOTE {archive.rows.reach}" if archive.rows.reach else "",
        ),
        _titled(
            f"STATISTICS over the last {len(rows)} rows: last, median±MAD, robust z of the last, "
            "range, slope/100",
            [summary_line(summarise(name, rows)) for name in names[:_METRICS]],
        ),
        _titled("COURSE, single steps", [*_courses(archive, names), *_left_behind(archive)]),
        _titled("EPISODES, oldest first", _newest(map(_episode, archive.episodes), _EPISODES)),
        _titled("FINDINGS, newest", [finding_line(f) for f in archive.findings[-_FINDINGS:]]),
        _titled(
            "INTERVENTIONS, oldest first", _newest(map(_proposal, archive.proposals), _PROPOSALS)
        ),
        _titled("GUIDANCE of operators", [_told(said) for said in run.guidance]),
    )
    return "\n\n".join("\n".join(filter(None, section)) for section in sections if any(section))


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Metrics in the usual order, then the others by name."""
    seen = {name for row in rows for name in row.values} - {metrics.BATCH_DIGEST}
    return [name for name in SHOWN if name in seen] + sorted(seen.difference(SHOWN))


def as_window(archive: Archive) -> Window:
    """The run as questions to a model are accounted by; it shows nothing."""
    return Window(
        run=archive.info, episode=None, findings=(), summaries=(), table=(), checkpoints=()
    )


def archive_lookups(archive: Archive) -> Mapping[str, LookUp]:
    """What can be looked up in a run, by name; nothing of it changes anything."""
    found: dict[str, tuple[str, type[BaseModel], Callable[..., str]]] = {
        "metrics": ("Figures of metrics between two steps, on every branch.", Slice, _metrics),
        "story": ("What was journaled between two steps, in order.", Steps, _story),
        "findings": ("Every finding of an episode.", OneEpisode, _findings),
        "tried": (
            "Proposals with verdict, proof, canary and outcome, newest first.",
            Nothing,
            _all_tried,
        ),
        "checkpoints": ("Every state to go back to, with its health.", Nothing, _checkpoints),
        "knobs": ("The script's own knobs, and all settings.", Nothing, _knobs),
    }
    if archive.policy is not None:
        found["rule"] = ("What the policy says of a kind of intervention.", OfKind, _rule)
    return {
        name: LookUp(words, arguments, _reading(archive, read))
        for name, (words, arguments, read) in found.items()
    }


def _reading(archive: Archive, read: Callable[..., str]) -> Callable[..., Awaitable[str]]:
    """Reads on a thread: a run may be far away."""

    async def look(**arguments: object) -> str:
        return await asyncio.to_thread(read, archive, **arguments)

    return look


# --- look-ups -------------------------------------------------------------------------------------


def _metrics(archive: Archive, *, metrics: Sequence[str], first_step: int, last_step: int) -> str:
    if last_step < first_step:
        return "last_step lies before first_step"
    rows = archive.between(first_step, last_step)
    known = {plain_name(name): name for row in rows for name in row.values}
    names = [known[name] for name in metrics if name in known]
    if not names:
        there = ", ".join(map(plain_name, metric_names(rows)[:40]))
        return f"no such metric there; there are: {there or 'no rows at all between these steps'}"
    found = [row for row in rows if any(name in row.values for name in names)]
    branches = list(dict.fromkeys(row.branch for row in found))
    most = max(6, _SHOWN // len(branches))
    parts = []
    for branch in branches:
        own = [row for row in found if row.branch == branch]
        parts += [f"branch {plain_name(branch)}", *_slice(own, names, most)]
    return "\n".join(parts)


def _slice(rows: Sequence[Row], names: Sequence[str], most: int) -> list[str]:
    """Statistics, then a table in which the extremes of the first metric are kept."""
    shown = thinned(rows, names[0], most)
    told = f"{len(shown)} of {len(rows)} rows" if len(shown) < len(rows) else f"{len(rows)} rows"
    cut = f"; only the last {SPAN:,} were read" if len(rows) == SPAN else ""
    head = ",".join(("step", *map(plain_name, names)))
    lines = [table_line(TableRow(first_step=r.step, last_step=r.step, values=r.values), names)
             for r in shown]  # fmt: skip
    return [*(summary_line(summarise(name, rows)) for name in names), f"{head} ({told}{cut})",
            *lines]  # fmt: skip


def thinned(rows: Sequence[Row], metric: str, most: int) -> list[Row]:
    """At most so many rows, with the first, the last, and the extremes of a metric between.

    >>> rows = [Row(step, {"loss": 9.0 if step == 40 else 2.0}) for step in range(100)]
    >>> [row.step for row in thinned(rows, "loss", most=6)]
    [0, 40, 50, 99]
    """
    if len(rows) <= most:
        return list(rows)
    inner = (most - 2) // 2
    size = math.ceil(len(rows) / inner)
    chosen = {0, len(rows) - 1}
    for begin in range(0, len(rows), size):
        bucket = [i for i in range(begin, min(begin + size, len(rows))) if metric in rows[i].values]
        if bucket:
            chosen |= {end(bucket, key=lambda i: _finite(rows[i].values[metric]))
                       for end in (min, max)}  # fmt: skip
    return [rows[i] for i in sorted(chosen)]


def _finite(value: float) -> float:
    """What is not finite counts as the highest: it is shown, and never hides the lowest."""
    return value if math.isfinite(value) else math.inf


def _story(archive: Archive, *, first_step: int, last_step: int) -> str:
    told = [
        line
        for event in archive.events
        if first_step <= event.step <= last_step and (line := _event(event)) is not None
    ]
    left_out = len(told) - _STORY
    more = [f"({left_out} more: name fewer steps)"] if left_out > 0 else []
    return "\n".join([*told[:_STORY], *more]) or "nothing was journaled between these steps"


def _event(event: Event) -> str | None:
    words = event_words(event)
    if words is None or event.kind == "heartbeat":
        return None
    at = datetime.fromtimestamp(event.time).astimezone().isoformat(timespec="seconds")
    detail = f": {words[1]}" if words[1] else ""
    return clean(f"step {event.step} {plain_name(event.branch)} {at} {words[0]}{detail}", 400)


def _findings(archive: Archive, *, episode: str) -> str:
    known = [e for e in archive.episodes if plain_name(e.id) == episode]
    if not known:
        named = ", ".join(plain_name(e.id) for e in archive.episodes[-_EPISODES:])
        return f"no such episode; there are: {named or 'none'}"
    found = [finding_line(f) for f in archive.findings if f.episode == known[0].id]
    return "\n".join((_episode(known[0]), *found[-_SHOWN:]))


def _all_tried(archive: Archive) -> str:
    told = [_proposal(record) for record in reversed(archive.proposals)]
    return "\n".join(told[:_SHOWN]) or "nothing was proposed"


def _checkpoints(archive: Archive) -> str:
    held: list[CheckpointInfo] = list(archive.checkpoints)[-_SHOWN:]
    onset = archive.episodes[-1].onset_step if archive.episodes else archive.info.step
    lines = [checkpoint_line(one, onset) for one in held]
    head = "before and after are of the latest episode's onset" if archive.episodes else ""
    return "\n".join(filter(None, (head, *lines))) if lines else "none is known"


def _knobs(archive: Archive) -> str:
    can = archive.info.capabilities
    return "\n".join((f"SETTINGS {settings_text(can)}", *knob_lines(can)[:_SHOWN]))


def _rule(archive: Archive, *, kind: str) -> str:
    assert archive.policy is not None, "offered only where a policy is known"
    return "\n".join(policy_words(archive.policy, kind))


# --- lines ----------------------------------------------------------------------------------------


def _titled(head: str, lines: Sequence[str]) -> tuple[str, ...]:
    return (head, *lines) if lines else ()


def _newest(lines: Iterable[str], most: int) -> list[str]:
    told = list(lines)
    left_out = len(told) - most
    return [*([f"({left_out} older left out)"] if left_out > 0 else []), *told[-most:]]


def _courses(archive: Archive, names: Sequence[str]) -> list[str]:
    drawn = [name for name in _DRAWN if name in names][:_COURSES]
    lines = []
    for name in drawn:
        points = archive.rows.course(name, archive.info.branch, _POINTS)
        told = " ".join(f"{step}={figure(value, 5)}" for step, value in points[: 3 * _POINTS])
        lines.append(f"{plain_name(name)} at step=value: {told}")
    return lines


def _left_behind(archive: Archive) -> list[str]:
    """The loss on what the run went back from."""
    lines = []
    for event in [event for event in archive.events if event.kind == "branch"][-_FORKS:]:
        parent, fork = str(event.body["parent"]), int(event.body["fork_step"])
        own = [row for row in archive.rows.between(parent, fork + 1, _LAST_STEP)
               if metrics.LOSS in row.values]  # fmt: skip
        shown = thinned(own, metrics.LOSS, _LEFT) if own else []
        told = " ".join(f"{row.step}={figure(row.values[metrics.LOSS])}" for row in shown)
        if told:
            lines.append(f"{metrics.LOSS} on {plain_name(parent)}, left for step {fork}: {told}")
    return lines


def _episode(episode: Episode) -> str:
    because = f": {clean(episode.reason, 200)}" if episode.reason else ""
    return (
        f"{plain_name(episode.id)} {episode.kind}, {episode.diagnosis}, {episode.status}, steps "
        f"{episode.onset_step} to {episode.last_step} on {plain_name(episode.branch)}{because}"
    )


def _proposal(record: ProposalRecord) -> str:
    proposal, result = record.proposal, record.canary_result
    about = f" for {plain_name(proposal.episode)}" if proposal.episode else ""
    what = ", then ".join(intervention_text(one) for one in proposal.interventions)
    parts = [
        f"{plain_name(record.id)} at step {record.filed_step}{about}, by "
        f"{plain_name(record.actor)}: {what}: {record.status}"
    ]
    if record.status == "denied":
        parts.append(f"{clean(record.verdict.rule, 60)}: {clean(record.verdict.reason, 160)}")
    if record.approval is not None:
        said = f"{record.approval.decision} by {plain_name(record.approval.actor)}"
        parts.append(f"{said}, “{clean(record.approval.reason, 120)}”")
    if record.receipt is not None:
        proof = {True: "proven", False: "NOT in force", None: "not yet read back"}
        parts.append(f"applied after step {record.receipt.step}, {proof[record.receipt.proven]}")
    if result is not None:
        parts.append(
            f"canary {result.result} at step {result.step}: median of {plain_name(result.metric)} "
            f"{figure(result.value, 4)}, bound {figure(result.bound, 4)}"
        )
    if proposal.rationale:
        parts.append(f"“{clean(proposal.rationale, 200)}”")
    return "; ".join(parts)


def _told(said: Guidance) -> str:
    return f"{plain_name(said.id)} {plain_name(said.actor)}, step {said.step}: “{clean(said.text)}”"

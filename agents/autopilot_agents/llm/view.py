"""A window in words and figures, for a language model: short, in a fixed order, from stable to new.

What does not change during a run comes first, so that a server's prompt cache can be of use. All
text of the run is cleaned and cut on its way in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from autopilot.policy import Policy
from autopilot.schema import (
    Capabilities,
    CheckpointInfo,
    Episode,
    Finding,
    Intervention,
    MetricSummary,
    ProposalRecord,
    Setting,
    TableRow,
    Window,
    metrics,
)
from autopilot_agents.llm.fence import clean, figure, plain_name
from autopilot_agents.llm.tokens import bound_tokens

WINDOW_TOKENS: Final = 1700
"""That a window may take, whatever the run."""

CHECKPOINTS: Final = 6
"""Good states that a window shows at least, if there are so many."""
KNOBS: Final = 3
"""Knobs that a window shows at least, if there are so many."""


@dataclass(frozen=True)
class _Most:
    """How many lines or columns each section may have."""

    columns: int
    metrics: int
    findings: int
    checkpoints: int
    tried: int
    knobs: int


_ROOMS = (
    _Most(columns=6, metrics=12, findings=6, checkpoints=CHECKPOINTS, tried=4, knobs=12),
    _Most(columns=4, metrics=9, findings=4, checkpoints=CHECKPOINTS, tried=3, knobs=6),
    _Most(columns=3, metrics=6, findings=3, checkpoints=CHECKPOINTS, tried=1, knobs=KNOBS),
)
"""From wide to narrow; the first that fits is taken."""


def window_text(window: Window, policy: Policy) -> str:
    """The window as a model is shown it, in at most 1,700 tokens."""
    return "\n\n".join(window_sections(window, policy).values())


def window_sections(window: Window, policy: Policy) -> dict[str, str]:
    """The same by section, in order; what there is nothing to say of is left out.

    What an operator told the agents is shown beside it, and takes of its room.
    """
    room = WINDOW_TOKENS - sum(bound_tokens(told.text) for told in window.run.guidance)
    for most in _ROOMS:
        sections = _sections(window, policy, most)
        if bound_tokens("\n\n".join(sections.values())) <= room:
            break
    return sections


def _sections(window: Window, policy: Policy, most: _Most) -> dict[str, str]:
    sections = {
        "run card and policy": _card(window, policy, most),
        "now": _now(window, most),
        "episode": _episode(window),
        "findings": _findings(window.findings, most),
        "statistics": _statistics(window.summaries, most),
        "table": _table(window, most),
        "checkpoints": _checkpoints(window, most),
        "history": _history(window, most),
    }
    return {name: section for name, section in sections.items() if section}


def _card(window: Window, policy: Policy, most: _Most) -> str:
    run, limits = window.run, policy.limits
    low, high = limits.lr.total_factor
    lines = [
        f"RUN {plain_name(run.name)}: {run.steps or 'unknown'} steps planned; "
        f"agents may {run.autonomy}; learning-rate plan "
        f"{'declared' if run.capabilities.lr_plan_declared else 'not declared'}",
        f"LIMITS learning rate {low:g} to {high:g} times its plan in all, at most "
        f"{limits.lr.max_factor:g} times up at once; clipping not below {limits.grad_clip.min:g}",
    ]
    can = run.capabilities
    if can.actions:
        called = (f"{plain_name(n)}({_arguments(a)})" for n, a in sorted(can.actions.items()))
        lines.append(f"ACTIONS of the script: {', '.join(list(called)[: most.knobs])}")
    return "\n".join(lines)


def _arguments(arguments: dict[str, str]) -> str:
    return ", ".join(f"{plain_name(n)}: {plain_name(t.rstrip('?'))}" for n, t in arguments.items())


def _now(window: Window, most: _Most) -> str:
    run = window.run
    lines = [
        f"NOW step {run.step}, {run.status}, branch {plain_name(run.branch)}"
        + ("; the breaker is open, every proposal asks a person" if run.breaker_open else ""),
        f"SETTINGS {settings_text(run.capabilities)}",
    ]
    lines += knob_lines(run.capabilities)[: most.knobs]
    return "\n".join(lines)


def settings_text(can: Capabilities) -> str:
    """Settings in force that are known, on one line."""
    known = (
        f"{plain_name(name)} {figure(setting.value, 4)}"
        for name, setting in sorted(can.settings.items())
        if setting.value is not None or name == "grad_clip"
    )
    return "; ".join(known) or "none known"


def knob_lines(can: Capabilities) -> list[str]:
    """One line a knob that the script registered."""
    return [_knob(name, knob) for name, knob in sorted(can.knobs.items())]


def _knob(name: str, knob: Setting) -> str:
    parts = [f"KNOB {plain_name(name)} ({knob.type}) {figure(knob.value, 4)}"]
    if knob.value != knob.default:
        parts.append(f"default {figure(knob.default, 4)}")
    if knob.choices is not None:
        parts.append(f"one of {', '.join(figure(c, 4) for c in knob.choices[:8])}")
    elif knob.minimum is not None or knob.maximum is not None:
        parts.append(f"from {figure(knob.minimum, 4)} to {figure(knob.maximum, 4)}")
    if knob.description:
        parts.append(f"“{clean(knob.description, 80)}”")
    return ", ".join(parts)


def _episode(window: Window) -> str:
    episode = window.episode
    if episode is None:
        return ""
    marks = [
        w for w, on in (("alarm", episode.alarm), ("invariant", episode.invariant_broken)) if on
    ]
    lines = [
        f"EPISODE {plain_name(episode.id)}: {episode.kind}, diagnosis of the rules "
        f"{episode.diagnosis}, {episode.severity}{''.join(f', {mark}' for mark in marks)}; "
        f"began at step {episode.onset_step}, last seen at {episode.last_step}",
        f"because {clean(episode.reason)}" if episode.reason else "",
        _fingerprint(episode, window.summaries),
    ]
    return "\n".join(line for line in lines if line)


def _fingerprint(episode: Episode, summaries: Sequence[MetricSummary]) -> str:
    """What decided, but for figures that the statistics end with anyway."""
    last = {(s.metric, figure(s.last, 4)) for s in summaries}
    known = ((name, figure(value, 4)) for name, value in episode.fingerprint.items())
    told = [f"{plain_name(name)} {value}" for name, value in known if (name, value) not in last]
    return f"fingerprint: {'; '.join(told)}" if told else ""


def _findings(findings: Sequence[Finding], most: _Most) -> str:
    """Each sort with its first finding, which tells the cause, and how it went on."""
    sorts: dict[tuple[object, ...], list[Finding]] = {}
    for found in findings:
        sort = (found.kind, found.tier, found.metric, found.branch, found.claimed_by)
        sorts.setdefault(sort, []).append(found)
    lines = [_sort_line(alike) for alike in sorts.values()]
    if not lines:
        return ""
    left_out = len(lines) - most.findings
    head = "FINDINGS, oldest first"
    if left_out > 0:
        half = most.findings // 2
        lines = [*lines[:half], *lines[half - most.findings :]]
        head += f" ({left_out} sorts left out)"
    return "\n".join([head, *lines])


def _sort_line(alike: Sequence[Finding]) -> str:
    first, last = alike[0], alike[-1]
    if len(alike) == 1:
        return finding_line(first)
    times = f"{len(alike)} times, last at {last.step}, score {figure(last.score, 3)}"
    return f"{finding_line(first)}; {times}: {_evidence(last)}"


def _evidence(finding: Finding) -> str:
    cited = finding.evidence[-3:]
    return " ".join(f"{plain_name(e.metric)}@{e.step}={figure(e.value, 4)}" for e in cited)


def finding_line(finding: Finding) -> str:
    """One finding with its evidence."""
    claim = " CLAIMED by an outside client" if finding.claimed_by else ""
    words = f"“{clean(finding.message, 120)}”"
    return (
        f"{finding.step} {finding.kind} [{finding.tier}]{claim} on {plain_name(finding.metric)}, "
        f"score {figure(finding.score, 3)}: {words} {_evidence(finding)}".rstrip()
    )


def _statistics(summaries: Sequence[MetricSummary], most: _Most) -> str:
    if not summaries:
        return ""
    follows = _follows_plan(summaries)
    shown = [s for s in summaries if not (follows and s.metric == metrics.LR_PLANNED)]
    lines = [summary_line(s) for s in shown[: most.metrics]]
    more = len(shown) - most.metrics
    if more > 0:
        lines.append(f"({more} more metrics: look them up)")
    if follows:
        lines.append(f"{metrics.LR_PLANNED}: as {metrics.LR}")
    rows = max(s.count for s in summaries)
    head = f"STATISTICS over {rows} rows: last, median±MAD, robust z of the last, range, slope/100"
    return "\n".join([head, *lines])


def _follows_plan(summaries: Sequence[MetricSummary]) -> bool:
    """The learning rate was the planned one throughout."""
    known = {s.metric: s.model_dump(exclude={"metric"}) for s in summaries}
    return metrics.LR in known and known[metrics.LR] == known.get(metrics.LR_PLANNED)


def summary_line(seen: MetricSummary) -> str:
    """Robust statistics of one metric; a floor under the deviation keeps z of constants finite."""
    name = plain_name(seen.metric)
    if seen.minimum == seen.maximum == seen.last and not seen.non_finite:
        return f"{name}: {figure(seen.last, 4)} throughout"
    middle = seen.median
    scale = 1.4826 * seen.mad + 1e-3 * abs(middle) + 1e-12
    z = (seen.last - middle) / scale
    words = (
        f"{name}: {figure(seen.last, 4)}, {figure(middle, 3)}"
        f"±{figure(seen.mad, 2)}, {figure(_bounded(z), 2)}, "
        f"{figure(seen.minimum, 3)}..{figure(seen.maximum, 3)}, {figure(seen.slope_per_100, 2)}"
    )
    return f"{words}, NOT FINITE {seen.non_finite} times" if seen.non_finite else words


def _bounded(z: float) -> float:
    return min(max(z, -999.0), 999.0) if math.isfinite(z) else z


def _table(window: Window, most: _Most) -> str:
    names = _columns(window, most)
    if not names or not window.table:
        return ""
    head = "TABLE, one step a row, or medians over several steps"
    if _follows_plan(window.summaries):
        head += f"; {metrics.LR_PLANNED} is as {metrics.LR}"
    columns = ",".join(("step", *(plain_name(name) for name in names)))
    return "\n".join([head, columns, *(table_line(row, names) for row in window.table)])


def _columns(window: Window, most: _Most) -> list[str]:
    """What findings speak of, then the usual order; the rest has its line of statistics."""
    named = {f.metric for f in window.findings} | {
        e.metric for f in window.findings for e in f.evidence
    }
    follows = _follows_plan(window.summaries)
    names = [s.metric for s in window.summaries if not (follows and s.metric == metrics.LR_PLANNED)]
    chosen = [n for n in names if n in named][: most.columns]
    chosen += [n for n in names if n not in chosen][: most.columns - len(chosen)]
    return [n for n in names if n in chosen]


def table_line(row: TableRow, names: Sequence[str]) -> str:
    """One row as comma-separated values: four digits of what can be cited, three of medians."""
    single = row.first_step == row.last_step
    step = str(row.last_step) if single else f"{row.first_step}-{row.last_step}"
    values = (figure(row.values[n], 4 if single else 3) if n in row.values else "" for n in names)
    return ",".join((step, *values))


def _checkpoints(window: Window, most: _Most) -> str:
    held = window.checkpoints
    if not held:
        return "CHECKPOINTS none"
    onset = window.episode.onset_step if window.episode is not None else window.run.step
    good = [c for c in held if c.good and c.step <= onset]
    good = good if len(good) <= most.checkpoints else [good[0], *good[1 - most.checkpoints :]]
    groups = {
        "good, before the onset": good,
        "not known to be good": [c for c in held if not c.good and c.step <= onset][-2:],
        "AFTER the onset": [c for c in held if c.step > onset][-2:],
    }
    lines = [f"{what}: {', '.join(map(_named, those))}" for what, those in groups.items() if those]
    left_out = len(held) - sum(map(len, groups.values()))
    head = "CHECKPOINTS" + (f" ({left_out} more)" if left_out else "")
    return "\n".join([head, *lines])


def _named(held: CheckpointInfo) -> str:
    """Its name, with what the name does not tell."""
    name = plain_name(held.id, 100)
    more = [] if held.id == f"s{held.step}" else [f"step {held.step}"]
    more += ["durable"] if held.kind == "durable" else []
    return f"{name} ({', '.join(more)})" if more else name


def checkpoint_line(held: CheckpointInfo, onset: int) -> str:
    """One state to go back to, with its health."""
    health = "good" if held.good else "not known to be good"
    when = "before the onset" if held.step <= onset else "AFTER the onset"
    return f"{plain_name(held.id, 100)}: step {held.step}, {health}, {when}, {held.kind}"


def _history(window: Window, most: _Most) -> str:
    if not window.history:
        return "TRIED nothing so far"
    own = window.episode.id if window.episode is not None else None
    relevant = [r for r in window.history if r.proposal.episode == own]
    shown = {r.id for r in (window.history[-1], *relevant[-most.tried :])}
    lines = [history_line(r, own) for r in window.history if r.id in shown]
    left_out = len(window.history) - len(lines)
    head = "TRIED, oldest first" + (f" ({left_out} more)" if left_out else "")
    return "\n".join([head, *lines])


def history_line(record: ProposalRecord, episode: str | None) -> str:
    """One earlier proposal and what came of it, as measured."""
    proposal = record.proposal
    what = ", then ".join(intervention_text(i) for i in proposal.interventions)
    where = "this episode" if episode and proposal.episode == episode else "another episode"
    parts = [
        f"{plain_name(record.id)} at step {record.filed_step} for {where}, by "
        f"{plain_name(record.actor)}: {what}: {record.status}"
    ]
    if record.verdict.decision == "deny":
        parts.append(f"denied by {clean(record.verdict.rule, 60)}: {clean(record.verdict.reason)}")
    if record.approval is not None:
        parts.append(
            f"a person: {record.approval.decision}. “{clean(record.approval.reason, 120)}”"
        )
    result = record.canary_result
    if result is not None:
        parts.append(
            f"canary {result.result}: {plain_name(result.metric)} {figure(result.value, 4)} at "
            f"step {result.step}, bound {figure(result.bound, 4)}"
        )
    if record.receipt is not None and record.receipt.proven is False:
        parts.append("it did not take effect")
    return "; ".join(parts)


def intervention_text(intervention: Intervention) -> str:
    """One intervention, as ``kind name=value``."""
    fields = intervention.model_dump(exclude={"kind"}, exclude_none=True)
    return " ".join((intervention.kind, *(f"{k}={figure(v, 4)}" for k, v in fields.items())))

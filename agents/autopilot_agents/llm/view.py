"""A window in words and figures, for a language model: short, in a fixed order, from stable to new.

What does not change during a run comes first, so that a server's prompt cache can be of use. All
text of the run is cleaned and cut on its way in.
"""

import math
from collections.abc import Sequence

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
)
from autopilot_agents.llm.fence import clean, figure, plain_name

_COLUMNS, _LINES, _FINDINGS, _CHECKPOINTS, _HISTORY, _KNOBS = 8, 16, 6, 6, 6, 12


def window_text(window: Window, policy: Policy) -> str:
    """The window as a model is shown it; at most about 1,600 tokens for eight metrics."""
    sections = (
        _card(window, policy),
        _now(window),
        _episode(window.episode),
        _findings(window.findings),
        _statistics(window.summaries),
        _table(window),
        _checkpoints(window),
        _history(window),
    )
    return "\n\n".join(section for section in sections if section)


def _card(window: Window, policy: Policy) -> str:
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
        lines.append(f"ACTIONS of the script: {', '.join(list(called)[:_KNOBS])}")
    return "\n".join(lines)


def _arguments(arguments: dict[str, str]) -> str:
    return ", ".join(f"{plain_name(n)}: {plain_name(t.rstrip('?'))}" for n, t in arguments.items())


def _now(window: Window) -> str:
    run = window.run
    lines = [
        f"NOW step {run.step}, {run.status}, branch {plain_name(run.branch)}"
        + ("; the breaker is open, every proposal asks a person" if run.breaker_open else ""),
        f"SETTINGS {settings_text(run.capabilities)}",
    ]
    lines += knob_lines(run.capabilities)[:_KNOBS]
    return "\n".join(lines)


def settings_text(can: Capabilities) -> str:
    """Settings in force, on one line."""
    known = (f"{plain_name(name)} {figure(s.value, 4)}" for name, s in sorted(can.settings.items()))
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


def _episode(episode: Episode | None) -> str:
    if episode is None:
        return ""
    marks = [
        w for w, on in (("alarm", episode.alarm), ("invariant", episode.invariant_broken)) if on
    ]
    fingerprint = "; ".join(
        f"{plain_name(name)} {figure(value, 4)}" for name, value in episode.fingerprint.items()
    )
    lines = [
        f"EPISODE {plain_name(episode.id)}: {episode.kind}, diagnosis of the rules "
        f"{episode.diagnosis}, {episode.severity}{''.join(f', {mark}' for mark in marks)}; "
        f"began at step {episode.onset_step}, last seen at {episode.last_step}",
        f"because {clean(episode.reason)}" if episode.reason else "",
        f"fingerprint: {fingerprint}" if fingerprint else "",
    ]
    return "\n".join(line for line in lines if line)


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    left_out = len(findings) - _FINDINGS
    head = "FINDINGS, oldest first" + (f" ({left_out} older left out)" if left_out > 0 else "")
    return "\n".join([head, *(finding_line(f) for f in findings[-_FINDINGS:])])


def finding_line(finding: Finding) -> str:
    """One finding with its evidence."""
    claim = " CLAIMED by an outside client" if finding.claimed_by else ""
    cited = " ".join(
        f"{plain_name(e.metric)}@{e.step}={figure(e.value)}" for e in finding.evidence[-3:]
    )
    words = f"“{clean(finding.message, 160)}”"
    return (
        f"{finding.step} {finding.kind} [{finding.tier}]{claim} on {plain_name(finding.metric)}, "
        f"score {figure(finding.score, 3)}: {words} {cited}".rstrip()
    )


def _statistics(summaries: Sequence[MetricSummary]) -> str:
    if not summaries:
        return ""
    lines = [summary_line(s) for s in summaries[:_LINES]]
    more = len(summaries) - _LINES
    if more > 0:
        lines.append(f"({more} more metrics: look them up)")
    rows = max(s.count for s in summaries)
    head = f"STATISTICS over {rows} rows: last, median±MAD, robust z of the last, range, slope/100"
    return "\n".join([head, *lines])


def summary_line(seen: MetricSummary) -> str:
    """Robust statistics of one metric; a floor under the deviation keeps z of constants finite."""
    middle = seen.median
    scale = 1.4826 * seen.mad + 1e-3 * abs(middle) + 1e-12
    z = (seen.last - middle) / scale
    words = (
        f"{plain_name(seen.metric)}: {figure(seen.last, 4)}, {figure(middle, 4)}"
        f"±{figure(seen.mad, 2)}, {figure(_bounded(z), 2)}, "
        f"{figure(seen.minimum, 4)}..{figure(seen.maximum, 4)}, {figure(seen.slope_per_100, 2)}"
    )
    return f"{words}, NOT FINITE {seen.non_finite} times" if seen.non_finite else words


def _bounded(z: float) -> float:
    return min(max(z, -999.0), 999.0) if math.isfinite(z) else z


def _table(window: Window) -> str:
    names = _columns(window)
    if not names or not window.table:
        return ""
    head = "TABLE, one step a row, or medians over several steps"
    columns = ",".join(("step", *(plain_name(name) for name in names)))
    return "\n".join([head, columns, *(table_line(row, names) for row in window.table)])


def _columns(window: Window) -> list[str]:
    """What findings speak of, then the usual order; the rest has its line of statistics."""
    named = {f.metric for f in window.findings} | {
        e.metric for f in window.findings for e in f.evidence
    }
    names = [s.metric for s in window.summaries]
    chosen = [n for n in names if n in named][:_COLUMNS]
    chosen += [n for n in names if n not in chosen][: _COLUMNS - len(chosen)]
    return [n for n in names if n in chosen]


def table_line(row: TableRow, names: Sequence[str]) -> str:
    """One row as comma-separated values: five digits of what can be cited, three of medians."""
    single = row.first_step == row.last_step
    step = str(row.last_step) if single else f"{row.first_step}-{row.last_step}"
    values = (figure(row.values[n], 5 if single else 3) if n in row.values else "" for n in names)
    return ",".join((step, *values))


def _checkpoints(window: Window) -> str:
    held = window.checkpoints
    if not held:
        return "CHECKPOINTS none"
    onset = window.episode.onset_step if window.episode is not None else window.run.step
    before = [c for c in held if c.good and c.step <= onset][-_CHECKPOINTS:]
    other = [c for c in held if c not in before][-3:]
    shown = sorted({c.id: c for c in (held[0], *before, *other)}.values(), key=lambda c: c.step)
    left_out = len(held) - len(shown)
    head = "CHECKPOINTS" + (f" ({left_out} more)" if left_out else "")
    return "\n".join([head, *(checkpoint_line(c, onset) for c in shown)])


def checkpoint_line(held: CheckpointInfo, onset: int) -> str:
    """One state to go back to, with its health."""
    health = "good" if held.good else "not known to be good"
    when = "before the onset" if held.step <= onset else "AFTER the onset"
    return f"{plain_name(held.id, 100)}: step {held.step}, {health}, {when}, {held.kind}"


def _history(window: Window) -> str:
    if not window.history:
        return "TRIED nothing so far"
    own = window.episode.id if window.episode is not None else None
    relevant = [r for r in window.history if r.proposal.episode == own]
    shown = {r.id for r in (*window.history[-2:], *relevant[-_HISTORY:])}
    lines = [history_line(r, own) for r in window.history if r.id in shown]
    return "\n".join(["TRIED, oldest first", *lines])


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

"""What a model may look up before it answers: read-only, short, and only about this run.

A run that is at hand is asked; without one, what the window holds has to do. A run goes on while a
model thinks: nothing later than the window is told, so that all of it is of one moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from autopilot.policy import Policy
from autopilot.ports import Run
from autopilot.schema import Episode, Finding, ProposalRecord, Row, TableRow, Window
from autopilot.window import summarise
from autopilot_agents.llm.fence import clean, plain_name
from autopilot_agents.llm.figures import Figures
from autopilot_agents.llm.policy_words import policy_words
from autopilot_agents.llm.similar import similar_episodes
from autopilot_agents.llm.view import (
    CHECKPOINTS,
    KNOBS,
    checkpoint_line,
    finding_line,
    history_line,
    knob_lines,
    settings_text,
    summary_line,
    table_line,
)

_ROWS, _ROWS_SHOWN, _VALUES_SHOWN, _LINES = 4096, 24, 44, 12


class Slice(BaseModel):
    """Which figures."""

    metrics: list[str] = Field(min_length=1, max_length=4)
    first_step: int = Field(ge=0)
    last_step: int = Field(ge=0)


class OfEpisode(BaseModel):
    """Of which episode; the one in question unless named."""

    episode: str | None = None


class Nothing(BaseModel):
    """No argument."""


class OfKind(BaseModel):
    """Of which kind of intervention."""

    kind: str


@dataclass(frozen=True)
class LookUp:
    """One thing to look up.

    Attributes:
        words: What it is, for the model.
        arguments: Their form.
        ask: Looks it up.
    """

    words: str
    arguments: type[BaseModel]
    ask: Callable[..., Awaitable[str]]


class LookUps:
    """Answers from a run, or from a window of it.

    Args:
        window: What the model was shown.
        policy: What may be done to the run.
        figures: Takes up every figure that is shown, so that it can be cited.
        run: Where more can be read.
        past: A folder of earlier runs.
    """

    def __init__(
        self,
        window: Window,
        policy: Policy,
        figures: Figures,
        run: Run | None,
        past: Path | None = None,
    ) -> None:
        self._window, self._policy, self._figures, self._run = window, policy, figures, run
        self._past = past

    def offered(self) -> Mapping[str, LookUp]:
        """Every look-up by name that can tell more than the window does."""
        known: tuple[tuple[str, str, type[BaseModel], Callable[..., str]], ...] = (
            ("metrics", "Rows of metrics between two steps, thinned, with statistics.", Slice,
             self.metrics),
            ("findings", "All findings of an episode, and which other episodes are open.",
             OfEpisode, self.findings),
            ("rule", "What the policy says of a kind of change.", OfKind, self.rule),
        )  # fmt: skip
        if self._window.history:
            known = (*known, ("tried", "Everything proposed in this run.", Nothing, self.tried))
        if len(self._window.checkpoints) > CHECKPOINTS:
            known = (*known, ("checkpoints", "Every state to go back to.", Nothing,
                              self.checkpoints))  # fmt: skip
        if len(self._window.run.capabilities.knobs) > KNOBS:
            known = (*known, ("knobs", "Every knob of the script.", Nothing, self.knobs))
        if self._past is not None:
            ask_past = partial(similar_episodes, self._past, self._window)
            words = "The same sickness in earlier runs: what was done, what came of it."
            known = (*known, ("similar", words, Nothing, ask_past))
        return {
            name: LookUp(words, arguments, _on_a_thread(ask))
            for name, words, arguments, ask in known
        }

    def metrics(self, metrics: Sequence[str], first_step: int, last_step: int) -> str:
        """Rows between two steps, thinned where there are many, and statistics over all of them."""
        rows = [row for row in self._rows() if row.step <= self._window.run.step]
        known = {plain_name(name): name for row in rows for name in row.values}
        names = [known[name] for name in metrics if name in known]
        if not names:
            return f"no such metric; there are: {', '.join(sorted(known)[:40])}"
        found = [
            row
            for row in rows
            if first_step <= row.step <= last_step and any(n in row.values for n in names)
        ]
        if not found:
            steps = [row.step for row in rows] or [0]
            return f"no rows there; rows go from step {min(steps)} to {max(steps)}"
        most = min(_ROWS_SHOWN, _VALUES_SHOWN // len(names))
        shown = found[:: -(-len(found) // most)]
        for row in shown:
            for name in names:
                if name in row.values:
                    self._figures.add(name, row.step, row.values[name])
        lines = [summary_line(summarise(name, found)) for name in names]
        head = ",".join(("step", *(plain_name(name) for name in names)))
        table = (table_line(TableRow(first_step=r.step, last_step=r.step, values=r.values), names)
                 for r in shown)  # fmt: skip
        thinned = f" ({len(shown)} of {len(found)} rows)" if len(shown) < len(found) else ""
        return "\n".join((*lines, f"{head}{thinned}", *table))

    def findings(self, episode: str | None = None) -> str:
        """Findings of an episode, and which others are open."""
        own = self._window.episode
        wanted = episode or (own.id if own is not None else "")
        here = self._window.run.step
        found = [f for f in self._findings(wanted) if f.step <= here][-_LINES:]
        for finding in found:
            if finding.claimed_by is None and finding.branch == self._window.run.branch:
                for cited in finding.evidence[-3:]:
                    self._figures.add(cited.metric, cited.step, cited.value)
        lines = [finding_line(finding) for finding in found]
        others = [_episode_line(e) for e in self._episodes() if e.id != wanted][:6]
        return "\n".join(lines or ["no findings of that episode"]) + "".join(
            f"\n{line}" for line in others
        )

    def checkpoints(self) -> str:
        """Every state to go back to, newest last."""
        held, episode = self._window.checkpoints, self._window.episode
        onset = episode.onset_step if episode is not None else self._window.run.step
        before = [c for c in held if c.step <= onset][-_LINES:]
        after = [c for c in held if c.step > onset][-_LINES // 4 :]
        return "\n".join(checkpoint_line(c, onset) for c in (*before, *after)) or "none"

    def tried(self) -> str:
        """Earlier proposals with verdict, canary and outcome."""
        records: Sequence[ProposalRecord] = self._window.history
        if self._run is not None:
            shown = {record.id: record for record in records}
            filed = (r for r in self._run.proposals() if r.filed_step <= self._window.run.step)
            records = [shown.get(record.id, record) for record in filed]
        own = self._window.episode.id if self._window.episode is not None else None
        return "\n".join(history_line(r, own) for r in list(records)[-_LINES:]) or "nothing so far"

    def rule(self, kind: str) -> str:
        """What the policy says of a kind, and why proposals of that kind were denied."""
        denied = [
            f"denied before: {clean(r.verdict.rule, 60)}: {clean(r.verdict.reason)}"
            for r in self._window.history
            if r.verdict.decision == "deny"
            and any(i.kind == kind for i in r.proposal.interventions)
        ]
        return "\n".join((*policy_words(self._policy, kind), *denied[-3:]))

    def knobs(self) -> str:
        """Knobs and settings in force."""
        can = self._window.run.capabilities
        return "\n".join((f"SETTINGS {settings_text(can)}", *knob_lines(can)))

    def _rows(self) -> Sequence[Row]:
        if self._run is not None:
            return self._run.rows(last=_ROWS)
        table = self._window.table
        return [Row(r.last_step, r.values) for r in table if r.first_step == r.last_step]

    def _findings(self, episode: str) -> Sequence[Finding]:
        if self._run is not None:
            return self._run.findings(episode)
        own = self._window.episode
        return self._window.findings if own is not None and own.id == episode else ()

    def _episodes(self) -> Sequence[Episode]:
        return self._run.episodes() if self._run is not None else ()


def _episode_line(episode: Episode) -> str:
    return (
        f"another episode, {plain_name(episode.id)}: {episode.kind}, {episode.diagnosis}, "
        f"{episode.status}, began at step {episode.onset_step}"
    )


def _on_a_thread(ask: Callable[..., str]) -> Callable[..., Awaitable[str]]:
    """A run may be far away; nobody else waits for it meanwhile."""

    async def look(**arguments: Any) -> str:
        return await asyncio.to_thread(ask, **arguments)

    return look

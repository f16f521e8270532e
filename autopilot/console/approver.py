"""The terminal approver: shows what is proposed and takes a person's answer.

Training goes on meanwhile. One line is read an answer; Enter alone never approves.
"""

import os
import select
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autopilot.console.typed import with_values
from autopilot.console.words import clean, interventions_words, number, sparkline
from autopilot.errors import AutopilotError, BadInput, OutOfBounds, Unsupported
from autopilot.schema import (
    Consultation,
    Intervention,
    ProposalRecord,
    Window,
    metrics,
)

_SHOWN_METRICS = 6
"""Columns of the details that fit a terminal of 80."""
_KEYS = "[a]pprove  [m]odify  [d]eny  [?] details  [l]ater"


class Decider(Protocol):
    """Where a person's answer goes: the run, with an operator's rights."""

    def decide(
        self,
        proposal_id: str,
        decision: Literal["approve", "modify", "deny"],
        *,
        digest: str,
        reason: str = "",
        interventions: tuple[Intervention, ...] | None = None,
    ) -> ProposalRecord: ...


@dataclass
class _Case:
    record: ProposalRecord
    window: Window


class TerminalApprover:
    """Asks on the terminal, one proposal at a time, in a thread of its own.

    Args:
        decider: Takes the answers.
        console: Where to show; its file and ``answers`` should be the same terminal.
        answers: Where lines are read from.
    """

    def __init__(self, decider: Decider, console: Console, answers: TextIO = sys.stdin) -> None:
        self._decider = decider
        self._console = console
        self._lines = LineReader(answers)
        self._waiting: deque[_Case] = deque()
        self._settled: dict[str, str] = {}
        self._advice: dict[str, Consultation] = {}
        self._asked: str | None = None
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="approver", daemon=True)
        self._thread.start()

    def offer(self, record: ProposalRecord, window: Window) -> None:
        """Put a proposal before the person."""
        with self._wake:
            self._waiting.append(_Case(record, window))
            self._wake.notify_all()

    def advise(self, proposal_id: str, review: Consultation) -> None:
        """Show what a model has to say of it: at once where the person is looking at it."""
        with self._wake:
            self._advice[proposal_id] = review
            looking = self._asked == proposal_id
        if looking:
            self._console.print(advice_view(review))
            self._console.print(f"{proposal_id}: {_KEYS}", markup=False)

    def withdraw(self, proposal_id: str, reason: str) -> None:
        """It was settled elsewhere."""
        with self._wake:
            self._settled[proposal_id] = reason
            self._waiting = deque(c for c in self._waiting if c.record.id != proposal_id)

    def close(self) -> None:
        """Ask nothing more."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(timeout=1)

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                case = self._waiting.popleft()
            try:
                self._ask(case)
            except AutopilotError as error:
                self._console.print(f"[red]{escape(clean(str(error)))}[/red]")
            except EOFError:
                self._console.print("[dim]no more answers can be read here[/dim]")
                return
            finally:
                with self._wake:
                    self._asked = None

    def _ask(self, case: _Case) -> None:
        self._lines.discard()  # what was typed before this proposal was seen is no answer to it
        self._console.print(proposal_view(case.record, case.window))
        with self._wake:
            self._asked = case.record.id
            review = self._advice.get(case.record.id)
        if review is not None:
            self._console.print(advice_view(review))
        while True:
            self._console.print(f"{case.record.id}: {_KEYS}", markup=False)
            answer = self._read(case.record.id)
            if answer is None:
                reason = self._settled.get(case.record.id, "the run has ended")
                self._console.print(f"[dim]{case.record.id}: {escape(clean(reason))}[/dim]")
                return
            if self._answer(case, answer.strip().lower()):
                return

    def _answer(self, case: _Case, answer: str) -> bool:
        """Act on an answer; whether the case is done here."""
        match answer:
            case "a" | "approve":
                return self._decide(case, "approve")
            case "d" | "deny":
                return self._decide(case, "deny")
            case "m" | "modify":
                return self._modify(case)
            case "?" | "details":
                self._console.print(details_view(case.record, case.window))
            case "l" | "later":
                self._console.print(
                    f"[dim]{case.record.id} waits; `autopilot pending` shows it again[/dim]"
                )
                return True
            case _:
                self._console.print("[dim]a letter of the line below, then Enter[/dim]")
        return False

    def _decide(
        self,
        case: _Case,
        decision: Literal["approve", "modify", "deny"],
        interventions: tuple[Intervention, ...] | None = None,
    ) -> bool:
        try:
            record = self._decider.decide(
                case.record.id, decision, digest=case.record.digest, interventions=interventions
            )
        except (OutOfBounds, Unsupported) as refusal:  # it still waits, for another answer
            self._console.print(f"[red]{escape(clean(str(refusal)))}[/red]")
            return False
        self._console.print(f"[green]{record.id} {record.status}[/green]")
        return True

    def _modify(self, case: _Case) -> bool:
        """Read new values for the first proposed interventions, one line each."""
        changed: list[Intervention] = []
        for intervention in case.record.proposal.interventions:
            words = interventions_words([intervention])
            self._console.print(f"{words}: new values as name=value …, Enter keeps", markup=False)
            line = self._read(case.record.id)
            if line is None:
                return True
            try:
                changed.append(with_values(intervention, line.split()))
            except BadInput as error:
                self._console.print(f"[red]{escape(clean(str(error)))}[/red]")
                return False
        return self._decide(case, "modify", tuple(changed))

    def _read(self, proposal_id: str) -> str | None:
        """The next line; None once the proposal is settled elsewhere."""
        while True:
            with self._wake:
                if self._closed or proposal_id in self._settled:
                    return None
            line = self._lines.read(0.2)
            if line is not None:
                return line


class LineReader:
    """Reads lines from a terminal without blocking for ever."""

    def __init__(self, source: TextIO) -> None:
        self._descriptor = source.fileno()
        self._pending = b""

    def discard(self) -> None:
        """Forget what came in up to now."""
        while select.select([self._descriptor], [], [], 0)[0] and os.read(self._descriptor, 4096):
            pass
        self._pending = b""

    def read(self, timeout: float) -> str | None:
        """A whole line, or None if none came in time.

        Raises:
            EOFError: Nothing will come any more.
        """
        until = time.monotonic() + timeout
        while b"\n" not in self._pending:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                return None
            read = os.read(self._descriptor, 4096)
            if not read:
                raise EOFError
            self._pending += read
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace")


def proposal_view(record: ProposalRecord, window: Window) -> Panel:
    """What a person needs to decide, on half a screen."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    proposal, episode = record.proposal, window.episode
    losses = [row.values[metrics.LOSS] for row in window.table if metrics.LOSS in row.values]
    if losses:
        table.add_row("loss", f"{sparkline(losses, 40)}  {number(losses[-1])}")
    if episode is not None:
        table.add_row("seen", Text(clean(f"{episode.kind}, {episode.diagnosis}: {episode.reason}")))
    for cited in proposal.evidence[:4]:
        table.add_row(
            "", Text(f"{clean(cited.metric)} = {number(cited.value)} at step {cited.step}")
        )
    table.add_row("proposed", Text(interventions_words(proposal.interventions)))
    table.add_row("why", Text(clean(proposal.rationale)))
    settings = window.run.capabilities.settings
    now = ", ".join(
        f"{n} {number(settings[n].value)}" for n in ("lr", "grad_clip") if n in settings
    )
    table.add_row("in force now", f"step {window.run.step}, {now}")
    if proposal.expected_effect:
        table.add_row("expected", Text(clean(proposal.expected_effect)))
    table.add_row("asks because", Text(clean(record.verdict.reason)))
    table.add_row("undo", "autopilot undo; undone by itself if its canary fails")
    if record.expires_at is not None:
        left = max(0.0, record.expires_at - time.time())
        held = window.run.status in ("held", "paused")
        meanwhile = "training waits" if held else "training goes on meanwhile"
        table.add_row("time left", f"{left / 60:.0f} min; {meanwhile}")
    return Panel(table, title=f"{record.id} by {record.actor}", title_align="left")


def advice_view(review: Consultation) -> Panel:
    """What a model has to say of a proposal; its figures were checked by code."""
    text = Text(clean(review.text) or f"no answer: {review.outcome}")
    if review.unverified:
        words = f"\n{review.unverified} of the figures in it were NOT found in the run's journal"
        text.append(words, style="bold red")
    return Panel(text, title=f"{clean(review.model, 80)} on {review.proposal}", title_align="left")


def details_view(record: ProposalRecord, window: Window) -> Table:
    """The window's last rows and the proposal's text, for a closer look."""
    names = [s.metric for s in window.summaries][:_SHOWN_METRICS]
    table = Table("step", *names, box=None)
    for row in window.table[-14:]:
        span = str(row.last_step)
        if row.first_step != row.last_step:
            span = f"{row.first_step}-{row.last_step}"
        table.add_row(
            span, *(number(row.values[name]) if name in row.values else "" for name in names)
        )
    return table

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

from autopilot.console.facts import Look
from autopilot.console.question import advice_view, details_view, question_view
from autopilot.console.typed import with_values
from autopilot.console.words import clean, interventions_words
from autopilot.errors import AutopilotError, BadInput, OutOfBounds, Unsupported
from autopilot.policy import Policy
from autopilot.schema import Consultation, Intervention, ProposalRecord, Window

_KEYS: dict[Look, str] = {
    "drawn": "[a]pprove  [m]odify  [d]eny  [?] details  [l]ater",
    "plain": "type a to approve, m to modify, d to deny, ? for details or l for later, then Enter.",
}


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


class _PutOff(Exception):
    """The person turned to something else."""


class TerminalApprover:
    """Asks on the terminal, one proposal at a time, in a thread of its own.

    Args:
        decider: Takes the answers.
        policy: That of the run, for what it says of canaries and of questions without an answer.
        console: Where to show; its file and ``answers`` should be the same terminal.
        look: How to show it.
        answers: Where lines are read from.
    """

    def __init__(
        self,
        decider: Decider,
        policy: Policy,
        console: Console,
        look: Look = "drawn",
        answers: TextIO = sys.stdin,
    ) -> None:
        self._decider = decider
        self._policy = policy
        self._console = console
        self._look: Look = look
        self._interrupted = threading.Event()
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
            self._console.print(advice_view(review, self._look))
            self._print_keys(proposal_id)

    def remind(self) -> None:
        """Say again what can be typed, where something else was printed below the question."""
        asked = self._asked
        if asked is not None:
            self._print_keys(asked)

    def put_off(self) -> bool:
        """Put the question off that stands before the person; whether there is any.

        Called from a signal's handler: it takes no lock.
        """
        if self._asked is None or self._interrupted.is_set():
            return False
        self._interrupted.set()
        return True

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
            except OSError:  # the terminal is gone, and whom to ask with it
                return
            finally:
                with self._wake:
                    self._asked = None

    def _ask(self, case: _Case) -> None:
        self._lines.discard()  # what was typed before this proposal was seen is no answer to it
        self._interrupted.clear()
        self._print_question(case)
        with self._wake:
            self._asked = case.record.id
            review = self._advice.get(case.record.id)
        if review is not None:
            self._console.print(advice_view(review, self._look))
        try:
            self._take_answers(case)
        except _PutOff:
            self._console.print(
                f"\n{case.record.id} waits; `autopilot pending` shows it again. "
                "Ctrl-C once more ends the training"
            )

    def _take_answers(self, case: _Case) -> None:
        while True:
            self._print_keys(case.record.id)
            answer = self._read(case.record.id)
            if answer is None:
                reason = self._settled.get(case.record.id, "the run has ended")
                self._conclude(f"[dim]{case.record.id}: {escape(clean(reason))}[/dim]")
                return
            if self._answer(case, answer.strip().lower()):
                return

    def _print_question(self, case: _Case) -> None:
        width = self._console.width
        view = question_view(case.record, case.window, self._policy, self._look, width)
        self._console.print(view)

    def _print_keys(self, proposal_id: str) -> None:
        self._console.print(f"{proposal_id}: {_KEYS[self._look]}", markup=False)

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
                self._print_question(case)
                self._console.print(details_view(case.window, self._look, self._console.width))
            case "l" | "later":
                self._conclude(
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
        self._conclude(f"[green]{record.id} {record.status}[/green]")
        return True

    def _conclude(self, words: str) -> None:
        """Say what became of the question; from here on Ctrl-C is not meant for it."""
        self._asked = None
        self._console.print(words)

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
        """The next line; None once the proposal is settled elsewhere.

        Raises:
            _PutOff: The person turned to something else.
        """
        while True:
            with self._wake:
                if self._closed or proposal_id in self._settled:
                    return None
            if self._interrupted.is_set():
                raise _PutOff
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
        while self._arrives(0) and os.read(self._descriptor, 4096):
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
            if left <= 0 or not self._arrives(left):
                return None
            read = os.read(self._descriptor, 4096)
            if not read:
                raise EOFError
            self._pending += read
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace")

    def _arrives(self, timeout: float) -> bool:
        """Whether there is something to read in time that was typed for us.

        As a background job we leave the terminal alone: what is typed is the shell's, and reading
        it would stop this process.
        """
        if not self._in_front():
            time.sleep(timeout)
            return False
        return bool(select.select([self._descriptor], [], [], timeout)[0]) and self._in_front()

    def _in_front(self) -> bool:
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:  # not the terminal of any job
            return True

"""Requests to end, passed on to the training process or heeded as Ctrl-C is.

A training process runs in a session of its own, so that nothing typed here reaches it by itself:
Ctrl-C at a question puts the question off, and the run that hangs on it goes on.
"""

import contextlib
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from autopilot.console.approver import TerminalApprover
from autopilot.launch import Launched

_Handler = Callable[[int, types.FrameType | None], None]


@dataclass
class Signals:
    """What came while a training process was waited for.

    Attributes:
        passed_on: Signals that the training process was sent.
        approver: Whoever asks in this terminal, while somebody does.
    """

    launched: Launched
    passed_on: list[int] = field(default_factory=list)
    approver: TerminalApprover | None = None

    def receive(self, number: int, frame: types.FrameType | None) -> None:
        """Put the question off, or pass the signal on."""
        if number == signal.SIGINT and self.approver is not None and self.approver.put_off():
            return
        self.passed_on.append(number)
        process = self.launched.process
        if process.poll() is not None:
            return
        if number == signal.SIGINT:  # as a terminal does: whatever it started hears it too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        else:
            process.send_signal(number)


@contextlib.contextmanager
def unwound() -> Iterator[None]:
    """Leave at a request to end as at an error: what was started in here is ended on the way out.

    Raises:
        SystemExit: SIGTERM or SIGHUP came; with 128 plus its number, as shells say it.
    """

    def leave(number: int, frame: types.FrameType | None) -> None:
        sys.exit(128 + number)

    with _handled((signal.SIGTERM, signal.SIGHUP), leave):
        yield


@contextlib.contextmanager
def signals_to(launched: Launched) -> Iterator[Signals]:
    """Pass requests to end on to the training process, and wait for it to end by itself.

    What whoever started us had ignored, such as SIGHUP under ``nohup``, is ignored.
    """
    signals = Signals(launched)
    with _handled((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signals.receive):
        yield signals


@contextlib.contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: _Handler) -> Iterator[None]:
    """Handle them so in here, but for those that whoever started us had ignored."""
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)

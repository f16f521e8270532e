"""Starts Python programs as children of a process that has loaded torch already.

A test of several processes spends most of its time on importing. A program started here is a
process of its own like any other, with a number to kill it by, but begins with what is dear to
import in memory. What is about the start itself is started with ``subprocess``.
"""

import array
import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TextIO

_SERVER = Path(__file__).parent / "e2e" / "scripts" / "preloaded.py"


class Forked:
    """A process of a Python program.

    Args:
        arguments: As for ``python``: a script, ``-c`` or ``-m``, and what follows.
        stdout: Where it writes: a file, or as ``subprocess`` says.
        stderr: Where it writes what went wrong; not ``PIPE``.
        environment: All of it; this process's own by default.

    Attributes:
        pid: Its number.
        stdout: What it writes, as text, where that comes through a pipe.
        returncode: Its exit code, minus the signal that ended it; None while it lives.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self.stdout: TextIO | None = None
        self._end, told = os.pipe()
        nothing = os.open(os.devnull, os.O_RDWR)
        opened = [told, nothing]
        if stdout == subprocess.PIPE:
            reading, stdout = os.pipe()
            opened.append(stdout)
            self.stdout = open(reading, encoding="utf-8")  # noqa: SIM115  # whoever reads closes it
        request = {
            "arguments": self.args,
            "folder": str(Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
        }
        server = _server()
        streams = [nothing if s == subprocess.DEVNULL else _number(s) for s in (stdout, stderr)]
        socket.send_fds(server, [json.dumps(request).encode()], [nothing, *streams, told])
        for descriptor in opened:
            os.close(descriptor)
        answer = array.array("i")
        answer.frombytes(server.recv(64))
        self.pid = answer[0]

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        return self._await(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code.

        Raises:
            subprocess.TimeoutExpired: It has not ended in so many seconds.
        """
        code = self._await(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.stdout is not None:
            self.stdout.close()
        self.wait()

    def __del__(self) -> None:
        if self.returncode is None:
            os.close(self._end)

    def _await(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._end], [], [], timeout)[0]:
            code = array.array("i")
            code.frombytes(os.read(self._end, 64))
            os.close(self._end)
            self.returncode = code[0]
        return self.returncode


def run_forked(
    arguments: Sequence[str],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end.

    Raises:
        subprocess.TimeoutExpired: It was killed after so many seconds.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = Forked(arguments, stdout=output, stderr=errors, environment=environment)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        said = [_whole(file) for file in (output, errors)]
    return subprocess.CompletedProcess(process.args, code, *said)


def _whole(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _number(stream: IO[bytes] | int) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


@functools.cache
def _server() -> socket.socket:
    """The way to the process that has loaded everything; it ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, str(_SERVER), str(its.fileno())]
        process = subprocess.Popen(
            command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, env=_plain_environment()
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _plain_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("AUTOPILOT_")}

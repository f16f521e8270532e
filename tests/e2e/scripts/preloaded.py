"""Loads once what is dear to load; for each request a child of it becomes the program asked for.

Usage: preloaded.py DESCRIPTOR, of a socket on which requests come (see ``tests/forked.py``). A
child has its own arguments, environment, folder, standard streams and default signals, and ends
like any interpreter. Nothing is loaded here that reads the environment when it is loaded, or starts
a thread: the program sees what it would see in a process of its own.
"""

import array
import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import random
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import types
from pathlib import Path
from typing import NoReturn

LOADED = (
    "torch",
    "torch._dynamo",  # else the first optimizer loads it, which takes as long as loading torch
    "torch.utils.data",
    "typer",
    "rich.console",
    "rich.table",
    "fastapi",
    "uvicorn",
    "httpx2",
    "httpcore2",
    "autopilot.client",
    "autopilot.control",
    "autopilot.recording",
    "autopilot.report",
    "autopilot_agents.rules",
    "autopilot_trainer",
    "autopilot_trainer.api",
    "autopilot_trainer.server",
)
_MOST = 1 << 20


def serve(asked: socket.socket) -> list[str]:
    """Fork a child for each request; returns in the child only, with its arguments."""
    noticed, notice = os.pipe()
    os.set_blocking(notice, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(notice)
    ends: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([asked, noticed], [], [])
        if noticed in ready:
            os.read(noticed, 4096)
            _tell_of_ends(ends)
        if asked not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(asked, _MOST, 4)
        if not message:
            os._exit(0)
        child = os.fork()
        if not child:
            signal.set_wakeup_fd(-1)
            for descriptor in (asked.detach(), noticed, notice, *ends.values()):
                os.close(descriptor)
            return _become(json.loads(message), descriptors)
        ends[child] = descriptors[3]
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        asked.send(array.array("i", [child]))


def _tell_of_ends(ends: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            told = ends.pop(child)
            with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                os.write(told, array.array("i", [os.waitstatus_to_exitcode(status)]))
            os.close(told)


def _become(request: dict[str, object], descriptors: list[int]) -> list[str]:
    for target, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, target)
    for descriptor in descriptors:
        os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[arg-type]
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout = _written(1, "strict")
    sys.stderr = _written(2, "backslashreplace")
    random.seed()
    return list(request["arguments"])  # type: ignore[call-overload]


def _written(descriptor: int, errors: str) -> io.TextIOWrapper:
    lines = descriptor == 2 or os.isatty(descriptor)
    through = bool(os.environ.get("PYTHONUNBUFFERED"))
    raw = io.BufferedWriter(io.FileIO(descriptor, "wb", closefd=False))
    return io.TextIOWrapper(raw, "utf-8", errors, line_buffering=lines, write_through=through)


def run(arguments: list[str]) -> None:
    """What ``python ARGUMENTS`` would do."""
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if arguments[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
        exec(compile(arguments[1], "<string>", "exec"), main.__dict__)
        return
    script = Path(arguments[0])
    sys.argv, sys.path[0] = arguments, str(script.parent)
    main.__file__ = str(script)
    exec(compile(script.read_bytes(), str(script), "exec"), main.__dict__)


def end(arguments: list[str]) -> NoReturn:
    """Run a program and end as the interpreter does, but for taking apart all that was loaded.

    That alone takes most of a second, and every page that it touches is copied for it.
    """
    code, interrupted = 0, False
    try:
        run(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        interrupted = True
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


for name in LOADED:
    importlib.import_module(name)
gc.collect()
gc.freeze()  # what is loaded stays, and its pages stay shared
end(serve(socket.socket(fileno=int(sys.argv[1]))))

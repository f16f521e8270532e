"""``run`` and ``watch``: piloting a run."""

import contextlib
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from autopilot.cli.exactness import checked
from autopilot.cli.output import Json, RunArgument, console, look, somebody_is_here, warn
from autopilot.cli.restarts import Restarting
from autopilot.cli.signals import Signals, signals_to
from autopilot.cli.telling import Telling
from autopilot.client import HttpRun, connect
from autopilot.console.approver import TerminalApprover
from autopilot.errors import AutopilotError, BadInput
from autopilot.launch import launch
from autopilot.loop import Autopilot
from autopilot.policy import parse_policy, read_policy
from autopilot.ports import Agent
from autopilot.schema import Event

AgentOption = Annotated[
    str,
    typer.Option("--agent", help="Who pilots: rules, rules+llm, llm, or observe to only watch."),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="The language model of rules+llm; else AUTOPILOT_LLM_MODEL."),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--base-url", help="Of an OpenAI-compatible server; else OpenAI's own."),
]
_START_LIMIT = 600.0
"""Seconds that a script may take before it opens its session."""
_PILOT_LIMIT = 30.0
"""Seconds that a run's first step waits for the pilot."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(watch)


def run(
    command: Annotated[
        list[str], typer.Argument(metavar="-- CMD…", help="The training command, after --.")
    ],
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy file; by default the default policy.")
    ] = None,
    agent: AgentOption = "rules",
    model: ModelOption = None,
    base_url: UrlOption = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Where the run is recorded.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --run-dir, from its checkpoint."),
    ] = False,
    restarts: Annotated[
        int,
        typer.Option("--restarts", min=0, help="Restart a process that fails, so many times."),
    ] = 0,
    check_exact: Annotated[
        bool,
        typer.Option("--check-exact", help="Only find out whether going back is exact here."),
    ] = False,
    json: Json = False,
) -> None:
    """Start a training process, pilot it, take approvals in this terminal.

    Its script opens a Session; everything it prints comes through. Ends with its exit code.
    With --json the journal comes as JSON lines on standard error.

    A process that was killed is gone on with by --resume, and by itself with --restarts: from the
    newest sound checkpoint that Session(checkpoint_every=…) wrote. A failure that comes twice at
    the same step is not tried a third time.

    --check-exact trains a few steps, goes back, and trains them again: it says which tensor differs
    first, ends with 1 where one does, and the run ends there.
    """
    if resume and run_dir is None:
        raise BadInput("--resume: name the run's directory with --run-dir")
    if policy is not None:
        read_policy(policy)
    chosen = _Chosen(agent, model, base_url)
    chosen.make()  # a wrong name or a missing key ends here, and not beside a run
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = run_dir or Path("runs") / f"run-{stamp}"
    _check_writable(folder)
    if check_exact:
        raise typer.Exit(checked(command, folder, policy, json))
    restarting, telling = Restarting(restarts), Telling(json)
    while True:
        launched = launch(
            command, run_dir=folder, policy=policy, wait_for_pilot=_PILOT_LIMIT, resume=resume
        )
        with signals_to(launched) as signals:
            with _survived("the pilot stopped, training goes on"):
                _pilot(signals, chosen, telling, json)
            code = launched.exit_code()
            with _survived("the end of the story cannot be told"):
                telling.tell_rest(folder)
            if signals.passed_on or not restarting.after(code, folder):
                break
        resume = True
    if code == 0 and not (folder / "run.json").exists():
        print("autopilot: the command opened no Session; nothing was piloted", file=sys.stderr)
    raise typer.Exit(code)


def watch(
    run: RunArgument,
    agent: AgentOption = "rules",
    model: ModelOption = None,
    base_url: UrlOption = None,
    json: Json = False,
) -> None:
    """Attach a pilot to a live run, from any terminal, at any time.

    It sees what happened before it came. Ctrl-C detaches it; training goes on.
    """
    chosen = _Chosen(agent, model, base_url)
    chosen.make()
    with connect(run, "agent", agent) as live, contextlib.ExitStack() as stack:
        pilot = chosen.make(live)
        approver = None
        if not json and "://" not in run and _somebody_is_here():
            operator = stack.enter_context(connect(run, "operator", "terminal"))
            approver = _approver(operator, stack)
        with contextlib.suppress(KeyboardInterrupt):
            _fly(Autopilot(live, pilot, approver, apart=True), approver, Telling(json))


@dataclass(frozen=True)
class _Chosen:
    """Who is to pilot."""

    name: str
    model: str | None
    base_url: str | None

    def make(self, run: HttpRun | None = None) -> Agent:
        """The agent; of a live run, with its policy and its journal to look things up in."""
        from autopilot_agents.known import Terms, make_agent

        policy = None if run is None else parse_policy(run.policy_text())
        return make_agent(self.name, Terms(self.model, self.base_url, run, policy))


@contextlib.contextmanager
def _survived(what: str) -> Iterator[None]:
    """Say what failed, and go on: whatever happens here, the training is waited for."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, AutopilotError):
            warn(traceback.format_exc())
        warn(f"{what}: {error}")


def _pilot(signals: Signals, chosen: _Chosen, telling: Telling, json: bool) -> None:
    """Pilot until the run ends, if it opens a session."""
    launched = signals.launched
    if not launched.wait_until_up(_START_LIMIT):
        return
    with launched.connect("agent", chosen.name) as live, contextlib.ExitStack() as stack:
        agent = chosen.make(live)
        approver = None
        if not json and _somebody_is_here():
            operator = stack.enter_context(launched.connect("operator", "terminal"))
            approver = signals.approver = _approver(operator, stack)
        _fly(Autopilot(live, agent, approver, apart=True), approver, telling)


def _somebody_is_here() -> bool:
    if sys.stdin.isatty() and not sys.stdout.isatty():
        warn("the output is no terminal: nobody is asked here; see `autopilot pending`")
    return somebody_is_here()


def _approver(operator: HttpRun, stack: contextlib.ExitStack) -> TerminalApprover:
    policy = parse_policy(operator.policy_text())
    approver = TerminalApprover(operator, policy, console, look())
    stack.callback(approver.close)
    return approver


def _fly(autopilot: Autopilot, approver: TerminalApprover | None, telling: Telling) -> None:
    def tell(events: Sequence[Event]) -> None:
        if telling.tell(events, asking=approver is not None) and approver is not None:
            approver.remind()

    autopilot.tell = tell
    autopilot.fly()


def _check_writable(folder: Path) -> None:
    """Fail before a process is started, not inside of it."""
    above = folder
    while not above.exists():
        above = above.parent
    try:
        with tempfile.TemporaryDirectory(dir=above, prefix=".autopilot-"):
            pass
    except OSError as error:
        raise BadInput(
            f"run directory {folder}: {above} cannot be written to: {error.strerror}"
        ) from error

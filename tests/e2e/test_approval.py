"""The question in terminals of every kind: narrow, wide, without colour, read aloud, or none."""

import io
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest
from e2e.flying import (
    AUTOPILOT,
    PATIENCE,
    SICK,
    SUGGEST,
    autopilot,
    environment,
    heed_interrupts,
    journal,
    kinds,
    until,
)

from autopilot.client import connect
from autopilot.errors import AutopilotError
from autopilot.schema import Proposal, ProposalRecord, SetGradClip, Stop

KEYS = r"\[l\]ater"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
STYLED = {"TERM": "xterm-256color"}
DRAWN = re.compile("[─│╭╮╰╯▁▂▃▄▅▆▇█]")
STORY = re.compile(r"P1: |\d\d:\d\d:\d\d ")
"""Lines that may come in between: training goes on."""
STEPS = {"STEPS": 100_000, "FAULT": 30, "PACE": 0.02}


def opened(
    program: str, words: list[str], columns: int, **settings: object
) -> "pexpect.spawn[str]":
    """A program in a terminal of its own; all that it prints is kept."""
    given = environment(**{**STEPS, **settings})
    del given["COLUMNS"]
    spawned = pexpect.spawn(
        program, words, encoding="utf-8", dimensions=(50, columns), timeout=PATIENCE, env=given,
        preexec_fn=heed_interrupts,
    )  # fmt: skip
    spawned.logfile_read = io.StringIO()
    return spawned


def printed(terminal: "pexpect.spawn[str]") -> str:
    """Everything up to now."""
    assert isinstance(terminal.logfile_read, io.StringIO)
    return terminal.logfile_read.getvalue().replace("\r", "")


@contextmanager
def asked(tmp_path: Path, columns: int, **settings: object) -> Iterator["pexpect.spawn[str]"]:
    """A sick run in a terminal of so many columns, up to the end of its test."""
    policy = tmp_path / "policy.toml"
    policy.write_text(SUGGEST)
    words = ["run", "--policy", str(policy), "--run-dir", str(tmp_path / "run"), "--", *SICK]
    spawned = opened(AUTOPILOT[0], words, columns, **settings)
    try:
        yield spawned
        with connect(str(tmp_path / "run"), "operator", "kim") as run:
            run.command((Stop(save=False),))
        spawned.expect("trained [0-9]+ steps")
        spawned.expect(pexpect.EOF)
    finally:
        spawned.close(force=True)
    assert spawned.exitstatus == 0


def question(terminal: "pexpect.spawn[str]", last: str = KEYS) -> list[str]:
    """The lines of the next question."""
    terminal.expect("P1 by agent:rules")
    terminal.expect(last)
    shown = str(terminal.before).replace("\r", "").split("\n")
    return [line for line in shown[1:] if line and not STORY.match(line)]


def said(lines: list[str]) -> str:
    """What they say, frames, styles and line breaks apart."""
    return " ".join(DRAWN.sub(" ", ESCAPE.sub("", " ".join(lines))).split())


def records(tmp_path: Path, kind: str) -> list[ProposalRecord]:
    """P1 as the events of that kind tell it."""
    found = [e.body["record"] for e in journal(tmp_path / "run") if e.kind == kind]
    return [ProposalRecord.model_validate(r) for r in found if r["id"] == "P1"]


@pytest.mark.parametrize(
    ("columns", "other", "bare"),
    [(40, 120, {"TERM": "dumb"}), (160, 50, {**STYLED, "NO_COLOR": "1"})],
)
def test_the_question_fits_its_terminal_and_training_goes_on_until_it_is_answered_elsewhere(
    tmp_path: Path, columns: int, other: int, bare: dict[str, str]
) -> None:
    folder = tmp_path / "run"
    with asked(tmp_path, columns, **bare) as terminal:
        terminal.expect(r"finding\s+schedule_fault")  # what led to it is told before
        shown = question(terminal)
        framed = [line for line in shown if DRAWN.search(line)]
        assert {len(line) for line in framed} == {columns}
        assert max(map(len, printed(terminal).split("\n"))) == columns
        words = said(shown)
        for part in (
            "set_lr value=plan", "change lr: 0 → 0.003, following the plan", "figure lr = 0 at",
            "canary taken back by itself if loss is worse", "undo autopilot undo",
            "waiting training goes on as it is",
            "time left 15 min; if nobody answers, a check",
        ):  # fmt: skip
            assert part in words
        terminal.setwinsize(50, other)
        terminal.send("?\n")
        framed = [line for line in question(terminal) if "│" in line]
        assert {len(line) for line in framed} == {other}
        with connect(str(folder), "viewer", "kim") as run:
            until(lambda: kinds(folder).count("finding") >= 2)
            terminal.sendintr()  # at a question it is no end of the training
            terminal.expect("P1 waits")
            told = " ".join(printed(terminal).split())  # what lasts pushes no question away
            assert told.count("finding schedule_fault") == told.count("ep-0001 open") == 1
            assert "P1 proposed" not in told  # the question says it
            later = run.info().step
            until(lambda: run.info().step >= later + 5)
            assert run.proposal("P1").status == "pending"
        done = autopilot("approve", folder, "P1")
        assert done.returncode == 0, done.stderr
        terminal.expect("P1 receipt")
        assert "\x1b" not in printed(terminal)
    (settled,) = records(tmp_path, "receipt")
    assert settled.receipt is not None
    assert settled.receipt.proven
    assert settled.approval is not None


def test_a_screen_reader_hears_one_fact_a_line_and_how_to_answer(tmp_path: Path) -> None:
    with asked(tmp_path, 60, AUTOPILOT_PLAIN="1", **STYLED) as terminal:
        heard = question(terminal, "P1: type a to approve, m to modify, d to deny, .* then Enter")
        terminal.send("?\n")
        terminal.expect(r"step [0-9]+: loss [0-9.]+, grad_norm [0-9.]+, lr 0, ")
        terminal.send("d\n")
        terminal.expect("P1 denied")
        with connect(str(tmp_path / "run"), "agent", "other") as other:
            proposal = Proposal(interventions=(SetGradClip(max_norm=1.0),), not_after_step=90_000)
            other.propose(proposal, key="1")
        terminal.expect("good until: step 90000, .*; past it, it can only be denied")
        terminal.send("d\n")
        terminal.expect("P2 denied")
        status = autopilot("status", tmp_path / "run", AUTOPILOT_PLAIN="1").stdout
        text = printed(terminal) + status
    assert "\x1b" not in text
    assert not DRAWN.search(text)
    facts = [line.partition(": ")[0] for line in heard]
    assert facts[:2] == ["loss", "seen"]
    assert facts[-4:] == ["canary", "undo", "waiting", "time left"]
    assert re.match(r"loss: [0-9.]+ at step [0-9]+, was [0-9.]+ at step [0-9]+, ", heard[0])
    assert "\nin force: " in status
    assert records(tmp_path, "applied") == []


@pytest.mark.parametrize("deaf", ["input", "output"])
def test_where_nobody_can_answer_nothing_that_is_typed_approves_and_the_question_expires(
    tmp_path: Path, deaf: str
) -> None:
    policy, out = tmp_path / "policy.toml", tmp_path / "out"
    policy.write_text(SUGGEST + '\n[approval]\nttl = "1s"\non_expiry = "nothing"\n')
    words = ["run", "--policy", str(policy), "--run-dir", str(tmp_path / "run"), "--", *SICK]
    settings = {**STEPS, "STEPS": 120, "PYTHONIOENCODING": "ascii"}
    if deaf == "input":
        done = subprocess.run(
            [*AUTOPILOT, *words], input="a\na\n\n", text=True, capture_output=True,
            timeout=PATIENCE, env=environment(**settings), check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        out.write_text(done.stdout)
    else:
        line = f"{shlex.join([*AUTOPILOT, *words])} > {shlex.quote(str(out))}"
        terminal = opened("/bin/sh", ["-c", line], 200, **settings)
        terminal.expect("nobody is asked here")
        until(lambda: "P1 proposed" in out.read_text())
        terminal.send("a\n")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 0
    assert "P1 proposed" in out.read_text()
    assert "pprove" not in out.read_text()
    (decided,) = records(tmp_path, "approval")
    assert (decided.status, decided.reason) == ("expired", "nobody answered in time")
    assert records(tmp_path, "applied") == []


def test_of_two_who_answer_at_once_one_decides_and_the_other_is_told(tmp_path: Path) -> None:
    with asked(tmp_path, 100, TERM="dumb") as terminal:
        question(terminal)
        refused: list[str] = []

        def deny() -> None:
            with connect(str(tmp_path / "run"), "operator", "sam") as run:
                waiting = run.proposal("P1")
                try:
                    run.decide("P1", "deny", digest=waiting.digest)
                except AutopilotError as error:
                    refused.append(str(error))

        other = threading.Thread(target=deny)
        other.start()
        terminal.send("a\n")
        other.join()
        terminal.expect("P1 queued|P1: denied by human:sam|P1 was denied|P1 is denied")
    (decided,) = records(tmp_path, "approval")
    assert decided.approval is not None
    if decided.approval.decision == "deny":
        assert refused == []
        assert records(tmp_path, "applied") == []
    else:
        assert len(refused) == 1
        assert "P1" in refused[0]
        assert len(records(tmp_path, "applied")) == 1


def test_other_values_are_checked_word_by_word_and_the_original_is_kept(tmp_path: Path) -> None:
    with asked(tmp_path, 100, TERM="dumb") as terminal:
        question(terminal)
        for typed, complaint in (
            ("valeu=0.1", "takes value, groups"),
            ("value=nope", "set_lr: value"),
            ("value", "expected name=value"),
            ("value=1e9", "allowed: set_lr value"),
        ):
            terminal.send("m\n")
            terminal.expect("Enter keeps")
            terminal.send(f"{typed}\n")
            terminal.expect(complaint)
            terminal.expect(KEYS)
        terminal.send("m\n")
        terminal.expect("Enter keeps")
        terminal.send("value=0.002\n")
        terminal.expect("P1 receipt")
    (decided,) = records(tmp_path, "approval")
    assert decided.approval is not None
    assert decided.approval.decision == "modify"
    (original,) = records(tmp_path, "proposal")[0].proposal.interventions
    assert original.model_dump()["value"] == "plan"
    settled = records(tmp_path, "receipt")[-1]
    assert settled.receipt is not None
    assert settled.receipt.changes[0].new == 0.002


def test_a_run_in_the_background_leaves_the_terminal_to_the_shell(tmp_path: Path) -> None:
    policy, folder = tmp_path / "policy.toml", tmp_path / "run"
    policy.write_text(SUGGEST)
    words = ["run", "--policy", str(policy), "--run-dir", str(folder), "--", *SICK]
    shell = opened("bash", ["--norc", "-i"], 100, TERM="dumb")
    try:
        shell.sendline(f"{shlex.join([*AUTOPILOT, *words])} &")
        shell.expect(KEYS)
        shell.sendline("a")  # to the shell, which knows no such program; it is no answer
        shell.expect("not found")
        seen = len(kinds(folder))
        until(lambda: len(kinds(folder)) > seen)
        assert "Stopped" not in printed(shell)
        assert records(tmp_path, "approval") == []
        shell.sendline("fg")
        shell.expect("autopilot run")
        shell.sendline("d")
        shell.expect("P1 denied")
        shell.sendintr()
        shell.expect("run failed")
    finally:
        shell.close(force=True)


def test_a_request_to_end_that_only_the_pilot_hears_ends_the_training_in_its_own_way(
    tmp_path: Path,
) -> None:
    words = [*AUTOPILOT, "run", "--run-dir", str(tmp_path / "run"), "--", *SICK]
    with piloted(words, heed_interrupts) as process:
        assert any("pilot attached" in line for line in process.stdout or ())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert journal(tmp_path / "run")[-1].kind == "run_ended"


def test_a_signal_that_was_to_be_ignored_is_not_passed_on(tmp_path: Path) -> None:
    fragile = "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    script = f"{fragile}; print('ready', flush=True); time.sleep({PATIENCE})"
    words = [*AUTOPILOT, "run", "--run-dir", str(tmp_path / "run"), "--", sys.executable, "-c"]
    with piloted([*words, script], lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        assert any("ready" in line for line in process.stdout or ())
        process.send_signal(signal.SIGHUP)
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM


@contextmanager
def piloted(words: list[str], begin: Callable[[], object]) -> Iterator["subprocess.Popen[str]"]:
    """A pilot without a terminal, begun that way; it ends with the test."""
    with subprocess.Popen(
        words, env=environment(**STEPS), stdout=subprocess.PIPE, text=True, preexec_fn=begin
    ) as process:
        try:
            yield process
        finally:
            process.terminate()

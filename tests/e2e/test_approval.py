"""The question in terminals of every kind: narrow, wide, without colour, read aloud, or none."""

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
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
    until,
)

from autopilot.client import connect
from autopilot.errors import AutopilotError
from autopilot.schema import ProposalRecord, Stop

KEYS = r"\[l\]ater"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
DRAWN = re.compile("[─│╭╮╰╯▁▂▃▄▅▆▇█]")
STORY = re.compile(r"P1: |\d\d:\d\d:\d\d ")
"""Lines that may come in between: training goes on."""
STEPS = {"STEPS": 100_000, "FAULT": 30, "PACE": 0.02}


@contextmanager
def asked(tmp_path: Path, columns: int, **settings: object) -> Iterator["pexpect.spawn[str]"]:
    """A sick run in a terminal of so many columns, up to the end of its test."""
    policy = tmp_path / "policy.toml"
    policy.write_text(SUGGEST)
    words = ["run", "--policy", str(policy), "--run-dir", str(tmp_path / "run"), "--", *SICK]
    given = environment(**STEPS, **settings)
    del given["COLUMNS"]
    spawned = pexpect.spawn(
        AUTOPILOT[0], words, encoding="utf-8", dimensions=(50, columns), timeout=PATIENCE,
        env=given, preexec_fn=heed_interrupts,
    )  # fmt: skip
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


@pytest.mark.parametrize(("columns", "other"), [(40, 120), (160, 50)])
def test_the_question_fits_its_terminal_and_training_goes_on_until_it_is_answered_elsewhere(
    tmp_path: Path, columns: int, other: int
) -> None:
    folder = tmp_path / "run"
    with asked(tmp_path, columns, NO_COLOR="1", TERM="xterm-256color") as terminal:
        terminal.expect("finding schedule_fault")  # what led to it is told before
        shown = question(terminal)
        framed = [line for line in shown if DRAWN.search(line)]
        assert {len(ESCAPE.sub("", line)) for line in framed} == {columns}
        assert not COLOUR.search("\n".join(shown))
        words = said(shown)
        for part in (
            "set_lr value=plan", "change lr: 0 → 0.003, following the plan", "figure lr = 0 at",
            "canary taken back by itself if loss is worse", "undo autopilot undo",
            "waiting training goes on as it is", "time left 15 min; if nobody answers, a check",
        ):  # fmt: skip
            assert part in words
        terminal.setwinsize(50, other)
        terminal.send("?\n")
        framed = [line for line in question(terminal) if "│" in line]
        assert {len(ESCAPE.sub("", line)) for line in framed} == {other}
        with connect(str(folder), "viewer", "kim") as run:
            begun = run.info().step
            until(lambda: run.info().step >= begun + 20)
            terminal.sendintr()  # at a question it is no end of the training
            terminal.expect("P1 waits")
            later = run.info().step
            until(lambda: run.info().step >= later + 5)
            assert run.proposal("P1").status == "pending"
        done = autopilot("approve", folder, "P1")
        assert done.returncode == 0, done.stderr
        terminal.expect("P1 receipt")
    (settled,) = records(tmp_path, "receipt")
    assert settled.receipt is not None
    assert settled.receipt.proven
    assert settled.approval is not None


def test_a_screen_reader_hears_one_fact_a_line_and_how_to_answer(tmp_path: Path) -> None:
    with asked(tmp_path, 300, AUTOPILOT_PLAIN="1", TERM="xterm-256color") as terminal:
        terminal.expect("step")
        heard = question(terminal, "P1: type a to approve, m to modify, d to deny, .* then Enter")
        terminal.send("d\n")
        terminal.expect("P1 denied")
        status = autopilot("status", tmp_path / "run", AUTOPILOT_PLAIN="1").stdout
    text = "\n".join([*heard, status])
    assert "\x1b" not in text
    assert not DRAWN.search(text)
    facts = [line.partition(": ")[0] for line in heard]
    assert facts[:2] == ["loss", "seen"]
    assert facts[-4:] == ["canary", "undo", "waiting", "time left"]
    assert "halfway through what is shown" in heard[0]
    assert "\nin force: " in status


def test_where_nobody_can_answer_nothing_that_is_typed_approves_and_the_question_expires(
    tmp_path: Path,
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(SUGGEST + '\n[approval]\nttl = "2s"\non_expiry = "nothing"\n')
    words = ["run", "--policy", policy, "--run-dir", tmp_path / "run", "--", *SICK]
    done = subprocess.run(
        [*AUTOPILOT, *map(str, words)], input="a\na\n\n", text=True, capture_output=True,
        timeout=PATIENCE, env=environment(**{**STEPS, "STEPS": 300}), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pprove" not in done.stdout
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


def test_a_request_to_end_that_only_the_pilot_hears_ends_the_training_in_its_own_way(
    tmp_path: Path,
) -> None:
    words = [*AUTOPILOT, "run", "--run-dir", str(tmp_path / "run"), "--", *SICK]
    with subprocess.Popen(
        words, env=environment(**STEPS), stdout=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts,
    ) as piloted:  # fmt: skip
        try:
            assert piloted.stdout is not None
            for line in piloted.stdout:
                if "pilot attached" in line:
                    break
            piloted.send_signal(signal.SIGINT)
            piloted.communicate(timeout=PATIENCE)
        finally:
            piloted.terminate()
    assert piloted.returncode == 130
    assert journal(tmp_path / "run")[-1].kind == "run_ended"

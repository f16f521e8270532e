"""The approver in a real terminal: what is asked, and what counts as an answer."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from e2e.flying import (
    AUTOPILOT,
    PATIENCE,
    SICK,
    SUGGEST,
    environment,
    heed_interrupts,
    journal,
    until,
)

from autopilot.client import connect
from autopilot.schema import ProposalRecord, Stop

KEYS = r"\[l\]ater"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator["pexpect.spawn[str]"]:
    policy = tmp_path / "policy.toml"
    policy.write_text(SUGGEST)
    command = ["run", "--policy", str(policy)]
    command += ["--run-dir", str(tmp_path / "run"), "--", *SICK]
    spawned = pexpect.spawn(
        AUTOPILOT[0],
        command,
        encoding="utf-8",
        dimensions=(40, 80),
        timeout=PATIENCE,
        env=environment(STEPS=100_000, FAULT=30, PACE=0.02, TERM="dumb"),
        preexec_fn=heed_interrupts,
    )
    yield spawned
    spawned.close(force=True)


def record(tmp_path: Path) -> ProposalRecord:
    found = [e.body["record"] for e in journal(tmp_path / "run") if "record" in e.body]
    return ProposalRecord.model_validate([r for r in found if r["id"] == "P1"][-1])


def end(terminal: "pexpect.spawn[str]", tmp_path: Path) -> None:
    """Stop the run, and see that everything ends."""
    with connect(str(tmp_path / "run"), "operator", "kim") as run:
        found = run.proposal("P1")
        if found.status != "denied":
            until(lambda: (receipt := run.proposal("P1").receipt) and receipt.proven)
        run.command((Stop(save=False),))
    terminal.expect("trained [0-9]+ steps")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_enter_alone_does_not_approve_and_a_does(
    terminal: "pexpect.spawn[str]", tmp_path: Path
) -> None:
    terminal.send("a\n")  # typed before anything was asked: no answer to it
    terminal.expect("P1 by agent:rules")
    terminal.expect("proposed *set_lr value=plan")
    terminal.expect(KEYS)
    terminal.send("\n")
    terminal.expect("a letter of the line below")
    terminal.expect(KEYS)
    assert record(tmp_path).status == "pending"
    terminal.send("?\n")
    terminal.expect(r"step +loss +grad_norm")
    terminal.expect(KEYS)
    terminal.send("a\n")
    terminal.expect("P1 queued")
    end(terminal, tmp_path)
    settled = record(tmp_path)
    assert settled.approval is not None
    assert settled.approval.actor == "human:terminal"
    assert settled.receipt is not None
    assert settled.receipt.proven


def test_what_is_settled_elsewhere_is_withdrawn(
    terminal: "pexpect.spawn[str]", tmp_path: Path
) -> None:
    terminal.expect(KEYS)
    with connect(str(tmp_path / "run"), "operator", "kim") as run:
        waiting = run.proposal("P1")
        run.decide("P1", "deny", digest=waiting.digest)
    terminal.expect("P1: denied by human:kim")
    end(terminal, tmp_path)


def test_ctrl_c_ends_the_training_and_the_pilot(
    terminal: "pexpect.spawn[str]", tmp_path: Path
) -> None:
    terminal.expect("pilot attached")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    last = journal(tmp_path / "run")[-1]
    assert (last.kind, last.body["status"]) == ("run_ended", "failed")
    assert not os.path.exists(f"/proc/{terminal.pid}")


def test_a_pilot_that_nobody_reads_any_more_goes_on_piloting(tmp_path: Path) -> None:
    words = [*AUTOPILOT, "run", "--run-dir", str(tmp_path / "run"), "--", *SICK]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(STEPS=60, FAULT=30, PACE=0.02),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert any("pilot attached" in line for line in process.stdout)
        process.stdout.close()
        _, said = process.communicate(timeout=PATIENCE)
    assert "the story cannot be told any more, piloting goes on: Broken pipe" in said
    settled = record(tmp_path)
    assert settled.receipt is not None
    assert settled.receipt.proven
    last = journal(tmp_path / "run")[-1]
    assert (last.kind, last.step) == ("run_ended", 60)

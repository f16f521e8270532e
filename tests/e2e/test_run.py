"""``autopilot run`` and ``watch`` over real training processes."""

import os
import signal
import sys
from pathlib import Path

import pytest
from e2e.flying import (
    AUTOPILOT,
    SICK,
    SUGGEST,
    autopilot,
    autopilot_json,
    ended,
    journal,
    kinds,
    losses,
    start,
    strict,
    train,
    until,
)

from autopilot.schema import ProposalRecord


def last_record(run_dir: Path, proposal: str = "P1") -> ProposalRecord:
    found = [e.body["record"] for e in journal(run_dir) if "record" in e.body]
    return ProposalRecord.model_validate([r for r in found if r["id"] == proposal][-1])


def test_a_stuck_schedule_is_rescued_and_the_exit_code_passed_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = autopilot("run", "--run-dir", folder, "--", *SICK, STEPS=260, EXIT=7)
    assert done.returncode == 7, done.stderr
    assert "trained 260 steps" in done.stdout
    assert "P1 applied after step" in done.stdout
    record = last_record(folder)
    assert record.actor == "agent:rules"
    assert record.receipt is not None
    assert record.receipt.proven is True
    (change,) = record.receipt.changes
    assert (change.field, change.old, change.new) == ("lr", 0.0, 0.003)
    assert {read.value for read in record.receipt.read_back} == {0.003}
    assert kinds(folder)[-1] == "run_ended"
    alone = tmp_path / "alone"
    assert ended(train(alone, STEPS=260)) == 0
    assert sum(losses(folder)[-20:]) < 0.7 * sum(losses(alone)[-20:])


def test_the_journal_comes_as_json_lines_on_standard_error(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = autopilot("run", "--json", "--run-dir", folder, "--", *SICK, STEPS=20)
    events = [strict(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    told = [event["kind"] for event in events if event["kind"] != "rows_sealed"]
    assert (told[0], told[-1]) == ("run_started", "run_ended")
    assert done.stdout == "trained 20 steps\n"


def test_a_request_to_end_reaches_the_training(tmp_path: Path) -> None:
    folder, output = tmp_path / "run", tmp_path / "out"
    command = (*AUTOPILOT, "run", "--run-dir", folder, "--", *SICK)
    process = start(*command, output=output, STEPS=100_000)
    until(lambda: "pilot attached" in output.read_text())
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 128 + signal.SIGTERM
    assert journal(folder)


@pytest.mark.parametrize(("code", "said"), [(0, "opened no Session"), (3, "")])
def test_a_command_without_a_session_runs_all_the_same(
    tmp_path: Path, code: int, said: str
) -> None:
    script = f"print('hello'); raise SystemExit({code})"
    done = autopilot("run", "--run-dir", tmp_path / "run", "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (code, "hello\n")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_training_outlives_a_killed_pilot(tmp_path: Path) -> None:
    folder, output = tmp_path / "run", tmp_path / "out"
    command = (*AUTOPILOT, "run", "--run-dir", folder, "--", *SICK)
    process = start(*command, output=output, STEPS=300, FAULT=10_000, PACE=0.01)
    until(lambda: "pilot attached" in output.read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: "run_ended" in kinds(folder))
    assert journal(folder)[-1].body["status"] == "ended"
    assert journal(folder)[-1].step == 300


def test_a_pilot_that_comes_late_sees_what_happened_before(tmp_path: Path) -> None:
    folder, output = tmp_path / "run", tmp_path / "out"
    training = train(folder, STEPS=600, FAULT=30, PACE=0.01)
    until(lambda: "episode" in kinds(folder))
    pilot = start(*AUTOPILOT, "watch", folder, output=output)
    assert ended(pilot) == 0
    assert ended(training) == 0
    told = output.read_text()
    assert told.index("run started") < told.index("finding schedule_fault")
    assert "P1 proposed by agent:rules" in told
    assert last_record(folder).status in ("applied", "kept")


def test_an_observer_beside_the_pilot_changes_nothing_and_floods_nothing(tmp_path: Path) -> None:
    folder, policy = tmp_path / "run", tmp_path / "policy.toml"
    policy.write_text(SUGGEST)
    training = train(folder, STEPS=500, FAULT=30, PACE=0.01, AUTOPILOT_POLICY=policy)
    pilots = [
        start(*AUTOPILOT, "watch", folder, "--agent", agent, output=tmp_path / agent)
        for agent in ("rules", "observe")
    ]
    assert [ended(pilot) for pilot in pilots] == [0, 0]
    assert ended(training) == 0
    assert kinds(folder).count("heartbeat") == 2
    assert kinds(folder).count("proposal") == 1


def test_a_silent_pilot_is_reported(tmp_path: Path) -> None:
    folder, policy = tmp_path / "run", tmp_path / "policy.toml"
    policy.write_text('[pilot]\nlease = "1s"\n')
    training = train(folder, STEPS=1500, FAULT=10_000, PACE=0.01, AUTOPILOT_POLICY=policy)
    pilot = start(*AUTOPILOT, "watch", folder, output=tmp_path / "out")
    until(lambda: "heartbeat" in kinds(folder))
    pilot.kill()
    pilot.wait()
    until(lambda: "heartbeat_lost" in kinds(folder))
    assert training.poll() is None, "training goes on without its pilot"
    training.kill()
    training.wait()


def test_the_state_of_a_run_that_is_gone_is_told_from_its_journal(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = train(folder, STEPS=100_000)
    until(lambda: len(losses(folder)) > 20)
    process.kill()
    process.wait()
    found = autopilot_json("status", folder)
    assert found["run"]["status"] == "lost"
    assert found["run"]["step"] >= 20
    assert "no end was journaled" in autopilot("status", folder).stdout

"""A run's tokens are in one file, for one owner, and nowhere else."""

import subprocess
import sys
from pathlib import Path

import pytest
from e2e.flying import AUTOPILOT, SCRIPTS, autopilot, environment, until

from autopilot_trainer.auth import read_tokens


def family(pid: int) -> dict[int, bytes]:
    """A process and all that it started, with what `ps` shows of each."""
    found: dict[int, bytes] = {}
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            found[one] = Path(f"/proc/{one}/cmdline").read_bytes()
            children = [task / "children" for task in Path(f"/proc/{one}/task").iterdir()]
            waiting += [int(child) for path in children for child in path.read_text().split()]
        except OSError:
            continue  # it has just ended
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes in /proc")
def test_tokens_are_in_no_log_no_journal_no_error_and_not_in_ps(tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "flight.out"
    script = [sys.executable, str(SCRIPTS / "steered.py"), "150", "0.03"]
    command = [*AUTOPILOT, "run", "--run-dir", str(run), "--", *script]
    with output.open("wb") as file:  # a process as a person starts it, with its own line in `ps`
        flight = subprocess.Popen(command, stdout=file, stderr=file, env=environment(NAN_AT=40))
    try:
        until(lambda: (run / "run.json").exists() and (run / "journal.sqlite").exists())
        tokens = read_tokens(run)
        secrets = [tokens.viewer, tokens.agent, tokens.operator]
        seen: dict[int, bytes] = {}
        told = [autopilot("status", run), autopilot("do", run, "scale_lr", "factor=1e9")]
        seen |= family(flight.pid)
        for wrong in (tokens.operator + "x", tokens.operator + " "):
            told.append(autopilot("do", run, "pause", AUTOPILOT_TOKEN=wrong))
            seen |= family(flight.pid)
        told.append(autopilot("status", "http://127.0.0.1:9", AUTOPILOT_TOKEN=tokens.operator))
        assert flight.wait(60) == 0, output.read_text()
    finally:
        flight.kill()
        flight.wait()
    assert any(b"steered.py" in line for line in seen.values())
    assert [done.returncode for done in told[2:]] == [2] * 3
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "tokens.json"]
    assert {"journal.sqlite", "run.json", "flight.out"} <= {path.name for path in written}
    for secret in secrets:
        assert not [pid for pid, line in seen.items() if secret.encode() in line]
        assert not [done.args for done in told if secret in done.stdout + done.stderr]
        assert not [path for path in written if secret.encode() in path.read_bytes()]
    assert (run / "tokens.json").stat().st_mode & 0o777 == 0o600

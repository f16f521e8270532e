"""``autopilot run --check-exact``: a training that cannot be gone back in exactly is found out."""

import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.flying import SCRIPTS, autopilot, strict


def check(folder: Path, *arguments: str) -> tuple[int, Any]:
    command = (sys.executable, SCRIPTS / "own_state.py", *arguments)
    done = autopilot("run", "--check-exact", "--json", "--run-dir", folder / "run", "--", *command)
    return done.returncode, strict(done.stdout) if done.stdout else done.stderr


def test_a_training_whose_state_the_session_holds_is_exact(tmp_path: Path) -> None:
    code, verdict = check(tmp_path)
    assert code == 0
    assert verdict == {
        "exact": True,
        "steps": 5,
        "text": "5 steps trained twice gave the same, bit for bit",
    }


@pytest.mark.parametrize(
    ("kept", "where"),
    [("generator", "loss"), ("mean", "loss"), ("weights", "model 2.bias")],
)
def test_a_state_that_the_script_keeps_for_itself_is_found_where_it_shows_first(
    kept: str, where: str, tmp_path: Path
) -> None:
    code, verdict = check(tmp_path, kept)
    assert code == 1
    assert not verdict["exact"]
    assert verdict["text"].startswith(f"step 4 differs the second time: {where}, by ")


def test_a_loop_too_short_to_be_compared_is_said_to_be_that(tmp_path: Path) -> None:
    code, words = check(tmp_path, "few data")
    assert code == 2
    assert "nothing was compared" in words
    assert "8 steps or more" in words

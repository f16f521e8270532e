"""Whether a training process that failed is started again."""

import sys
import time
from pathlib import Path

from autopilot.errors import JournalError
from autopilot.recording.ended import read_end

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a restart; they double with every one."""


class Restarting:
    """Decides after each failure; pauses before the next start, longer every time.

    Args:
        limit: Restarts in all.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._pause = _FIRST_PAUSE
        self._failed_at: int | None = None

    def after(self, code: int, run_dir: Path) -> bool:
        """Whether to start again after a process ended with that exit code.

        A failure that came back at the step of the one before is the script's or the data's, not
        the machine's: a person should look at it.
        """
        if code == 0 or not self._left:
            return False
        try:
            step = read_end(run_dir).step
        except JournalError as error:
            _say(f"the process failed with {code} and is not started again: {error}")
            return False
        if step == self._failed_at:
            _say(
                f"the process failed with {code} at step {step}, as it did before; it is not "
                f"started again. Once mended: autopilot run --resume --run-dir {run_dir} -- …"
            )
            return False
        self._failed_at = step
        self._left -= 1
        _say(
            f"the process failed with {code} at step {step}; it is started again in "
            f"{self._pause:g} s ({self._left} restarts left)"
        )
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True


def _say(text: str) -> None:
    print(f"autopilot: {text}", file=sys.stderr, flush=True)

"""``run --check-exact``: whether a training that goes back trains the same again."""

import json
from collections.abc import Sequence
from pathlib import Path

from autopilot.cli.output import console, print_json
from autopilot.cli.signals import signals_to
from autopilot.errors import BadInput
from autopilot.launch import launch

_STEPS = 5
_VERDICT = "exactness.json"


def checked(command: Sequence[str], folder: Path, policy: Path | None, as_json: bool) -> int:
    """Let the training process check itself, and print what it found.

    Returns:
        0 where it is exact, 1 where it is not.

    Raises:
        BadInput: The process failed, or did not come as far as the check reaches.
    """
    environment = {"AUTOPILOT_CHECK_EXACT": str(_STEPS)}
    launched = launch(command, run_dir=folder, policy=policy, environment=environment)
    with signals_to(launched):
        code = launched.exit_code()
    try:
        verdict = json.loads((folder / _VERDICT).read_text())
    except OSError as error:
        raise BadInput(
            f"--check-exact: nothing was compared (the command ended with {code}); it needs a loop "
            f"over session.batches(…) of {_STEPS + 3} steps or more whose data can be gone back in"
        ) from error
    if as_json:
        print_json(verdict)
    else:
        word = "[green]exact[/]" if verdict["exact"] else "[red]not exact[/]"
        console.print(f"{word}  {verdict['text']}", highlight=False)
    return 0 if verdict["exact"] else 1

"""What the README and the examples print is what runs."""

import re
import subprocess
import sys
from pathlib import Path

from e2e.flying import autopilot, kinds

ROOT = Path(__file__).parents[2]

SETTING = """
import torch

torch.manual_seed(0)
data = torch.randn(64, 8)
loader = [data[i : i + 8] for i in range(0, 64, 8)]
encoder = torch.nn.Linear(8, 8)
optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000)


def model(batch):
    return (encoder(batch) - batch).square().mean()


def evaluate():
    return float(model(data))


"""


def snippets(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_loop_in_the_readme_trains_as_printed(tmp_path: Path) -> None:
    (loop,) = snippets("README.md", "python")
    assert loop.count("session") >= 3
    script = tmp_path / "train.py"
    script.write_text(SETTING + loop + "print(session.step, session.run_dir)\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    steps, folder = done.stdout.split()
    assert steps == "2000"
    assert kinds(tmp_path / folder)[-1] == "run_ended"


def test_every_command_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^autopilot (\w+)", text, re.MULTILINE))
    assert {"run", "watch", "status", "log", "do", "undo"} <= named
    for command in sorted(named):
        assert autopilot(command, "--help").returncode == 0, command


def test_the_digits_example_flies_with_a_pilot(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    example = ROOT / "examples" / "digits.py"
    done = autopilot(
        "run", "--run-dir", folder, "--", sys.executable, str(example), "--steps", "400"
    )
    assert done.returncode == 0, done.stderr
    assert "'val_accuracy': 0.9" in done.stdout
    found = kinds(folder)
    assert found[-1] == "run_ended"
    assert found.count("evaluation") == 3
    assert "applied" not in found

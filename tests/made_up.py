"""Recordings that nobody trained, with what happened in them."""

import json
import math
import random
from pathlib import Path

from autopilot_evals.labels import LabelledEvent, Labels, write_labels


def write_run(folder: Path, name: str, events: tuple[LabelledEvent, ...], seed: int) -> None:
    rng = random.Random(seed)
    lines = []
    for step in range(600):
        loss = (2.0 + 2.0 / (1 + 0.03 * step)) * (1 + 0.01 * rng.gauss(0, 1))
        for event in events:
            if event.onset <= step <= event.end:
                loss = math.nan if event.kind == "nan" else 3.0 * loss
        lines.append(json.dumps({"step": step, "loss": loss}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    write_labels(folder / f"{name}.labels.json", Labels(episodes=events))

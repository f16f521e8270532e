"""Flies a scenario: three training processes, and a pilot over the wire for one of them."""

import hashlib
import json
import math
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from autopilot.errors import AutopilotError, BadInput, JournalError
from autopilot.journal import Journal, JournalReader
from autopilot.launch import Launched, launch
from autopilot.loop import Autopilot
from autopilot.ports import Agent, Approver
from autopilot.schema import Event, ProposalRecord, Row, metrics
from autopilot_evals.demo.train import RESULT_FILE
from autopilot_evals.scenarios.base import Scenario

ArmName = Literal["alone", "pilot", "reference"]
ARMS: tuple[ArmName, ...] = ("alone", "pilot", "reference")
_GROUPS: tuple[tuple[ArmName, ...], ...] = (("alone", "pilot"), ("reference",))
_UP_WITHIN = 120.0
_PILOT_WITHIN = 60.0


@dataclass
class Arm:
    """One training of the three, while it runs and after."""

    name: ArmName
    run_dir: Path
    launched: Launched | None = None
    result: dict[str, float | str] | None = None
    _reader: JournalReader | None = field(default=None, repr=False)

    @property
    def done(self) -> bool:
        """Its process has ended."""
        return self.launched is not None and self.launched.process.poll() is not None

    def journal(self) -> JournalReader | None:
        """Its journal, once there is one."""
        if self._reader is None and (self.run_dir / "run.json").exists():
            try:
                self._reader = Journal.read(self.run_dir / "journal.sqlite")
            except JournalError:
                return None
        return self._reader

    def rows(self, last: int | None = None) -> list[Row]:
        """Rows of the branch that it is on, or ended on."""
        journal = self.journal()
        if journal is None:
            return []
        return list(journal.rows(journal.branches()[-1].name, last=last))

    def events(self, after: int = 0) -> list[Event]:
        """Its journal's events."""
        journal = self.journal()
        return [] if journal is None else journal.events(after)

    def interventions(self) -> list[ProposalRecord]:
        """Proposals that were applied, as they last stood, in order."""
        found: dict[str, ProposalRecord] = {}
        for event in self.events():
            if "record" in event.body:
                record = ProposalRecord.model_validate(event.body["record"])
                found[record.id] = record
        return [record for record in found.values() if record.receipt is not None]

    def val_loss(self) -> float:
        """Held-out loss at the end; NaN or infinite where the weights were lost."""
        assert self.result is not None, "the arm has ended"
        return float(self.result["final_val_loss"])

    def losses_digest(self) -> str:
        """SHA-256 over every training loss, bit for bit, in the order trained."""
        digest = hashlib.sha256()
        journal = self.journal()
        for row in journal.all_rows() if journal is not None else ():
            if metrics.LOSS in row.values:
                digest.update(struct.pack("<qd", row.step, row.values[metrics.LOSS]))
        return digest.hexdigest()


@dataclass
class Flight:
    """Three arms of one scenario and seed.

    Args:
        agent: Pilots the arm ``pilot``.
        policy: Policy file of that arm; None takes the default policy.
        approver: Made from the started arm, for what the policy asks about.
    """

    scenario: Scenario
    seed: int
    steps: int
    folder: Path
    agent: Agent
    policy: Path | None = None
    approver: Callable[[Launched], Approver] | None = None
    arms: dict[ArmName, Arm] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.arms = {name: Arm(name, self.folder / name) for name in ARMS}

    def fly(self, watch: Callable[[], None]) -> None:
        """Train all three, two at a time; ``watch`` is called a few times a second.

        Raises:
            AutopilotError: A training process failed.
        """
        try:
            for group in _GROUPS:
                for name in group:
                    self._start(self.arms[name])
                self._wait([self.arms[name] for name in group], watch)
        finally:
            for arm in self.arms.values():
                if arm.launched is not None:
                    arm.launched.end()

    def _start(self, arm: Arm) -> None:
        command = [sys.executable, "-m", "autopilot_evals.demo.train"]
        command += ["--scenario", self.scenario.name, "--arm", arm.name]
        command += ["--seed", str(self.seed), "--steps", str(self.steps)]
        piloted = arm.name == "pilot"
        arm.run_dir.parent.mkdir(parents=True, exist_ok=True)
        output = (arm.run_dir.parent / f"{arm.name}.log").open("wb")
        with output:
            arm.launched = launch(
                command,
                run_dir=arm.run_dir,
                policy=self.policy if piloted else None,
                wait_for_pilot=_PILOT_WITHIN if piloted else 0.0,
                output=output.fileno(),
            )
        if piloted:
            threading.Thread(target=self._pilot, args=(arm.launched,), daemon=True).start()

    def _pilot(self, launched: Launched) -> None:
        try:
            if not launched.wait_until_up(_UP_WITHIN):
                return
            approver = self.approver(launched) if self.approver is not None else None
            with launched.connect("agent", self.agent.name) as live:
                Autopilot(live, self.agent, approver).fly()
        except AutopilotError as error:
            self.trouble.append(f"the pilot stopped: {error}")

    def _wait(self, arms: list[Arm], watch: Callable[[], None]) -> None:
        while not all(arm.done for arm in arms):
            watch()
        for arm in arms:
            assert arm.launched is not None
            path = arm.run_dir / RESULT_FILE
            if arm.launched.exit_code() != 0 or not path.exists():
                log = (arm.run_dir.parent / f"{arm.name}.log").read_text(errors="replace")
                last = (log.strip().splitlines() or ["it said nothing"])[-1]
                raise AutopilotError(f"the arm {arm.name!r} failed: {last}")
            arm.result = json.loads(path.read_text())
        watch()

    def gain(self) -> float | None:
        """Share of the gap between left alone and as it should be that the pilot closed.

        A model that is worse than guessing, or not finite, counts as guessing. None where nothing
        was sick.
        """
        if self.scenario.family == "benign":
            return None
        alone, pilot, reference = (self._worth(name) for name in ARMS)
        gap = alone - reference
        return (alone - pilot) / gap if gap > 0 else math.nan

    def _worth(self, name: ArmName) -> float:
        arm = self.arms[name]
        assert arm.result is not None, "the arm has ended"
        worst, value = float(arm.result["worst_loss"]), arm.val_loss()
        return min(value, worst) if math.isfinite(value) else worst


def flight_folder(given: Path | None, scenario: str, seed: int) -> Path:
    """An empty folder for a flight.

    Raises:
        BadInput: It cannot be made, or holds something already.
    """
    base = given or Path("autopilot-demo") / f"{scenario}-seed{seed}"
    folder, serial = base, 2
    while given is None and folder.exists():
        folder, serial = base.with_name(f"{base.name}-{serial}"), serial + 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BadInput(f"{folder}: is not empty; name another folder")
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written: {error.strerror}") from error
    return folder

"""Fly one arm of a scenario: a real training under a real session, then a common cool-down.

Every arm is trained from the start rather than restored at the decision step. Batches, weights and
faults are pure functions of the seed, so all arms are the same run up to there, bit for bit; what
carries state outside the session (a fault of the loop, a knob, a detector's baseline) needs no
copying; and every arm stands alone, to be run in any order and in any process. The outcome holds a
digest of the losses up to the decision, so that this is checked and not assumed.
"""

import contextlib
import hashlib
import math
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from autopilot.control import ControlPlane
from autopilot.errors import AutopilotError
from autopilot.guard import changes_course
from autopilot.policy import CanaryTerms, Policy
from autopilot.ports import Agent
from autopilot.schema import (
    CheckpointInfo,
    FindingKind,
    Intervention,
    ProposalRecord,
    Record,
    RewarmLR,
    Rollback,
    SetLR,
)
from autopilot_evals.forks.cadence import default_policy, look_of
from autopilot_evals.forks.lockstep import LockstepSession
from autopilot_evals.scenarios.base import BEFORE, START, Batch, Move, Scenario
from autopilot_evals.scenarios.training import choose
from autopilot_evals.scoring.decisions import answer_of

COOL_DOWN = 0.2
"""Share of the budget in which the learning rate falls to zero, the same for every arm. Without it
a lower rate looks like a gain: its loss is less noisy now and higher later."""
_WELL_BEFORE = 40
_SCRIPT = "human:sandbox"


class Applied(Record):
    """An intervention that changed the run.

    Attributes:
        step: Step of the run after which it was applied.
        answer: What was done, in the words of decisions.
        cause: What the agent named as the cause.
        undone: A failed canary took it back.
    """

    step: int
    answer: str
    cause: FindingKind | None
    undone: bool


class Outcome(Record):
    """What came of one arm.

    Attributes:
        arm: ``no-op``, ``agent:NAME``, or the name of a move.
        val_loss: Held-out loss after the cool-down; that of guessing where it is worse.
        executed: Steps trained, repeated ones included.
        decided_at: Executed steps at which the moves of the menu are made.
        before: Digest of every training loss up to there.
        whole: Digest of every training loss.
        applied: What the agent did.
        asked: Proposals of the agent that waited for a person, of whom there is none.
        found: Kinds of the episodes on which the run's own triage woke an agent.
        seconds: How long the training took.
    """

    scenario: str
    seed: int
    arm: str
    val_loss: float
    executed: int
    decided_at: int
    before: str
    whole: str
    applied: tuple[Applied, ...] = ()
    asked: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    seconds: float = 0.0


def fly(
    scenario: Scenario,
    seed: int,
    *,
    agent: Agent | None = None,
    move: Move | None = None,
    policy: Policy | None = None,
) -> Outcome:
    """Train one arm: piloted by an agent, with one move at the decision step, or left alone.

    Args:
        scenario: What is trained.
        seed: Everything that varies follows from it.
        agent: Pilots the whole flight and decides itself when to act.
        move: Made once, at the decision step.
        policy: What the agent may do; None takes the default policy, and lets a reference do all.

    Raises:
        AutopilotError: The move could not be applied.
    """
    began = time.perf_counter()
    with alone(seed), tempfile.TemporaryDirectory() as folder:
        flight = _Flight(scenario, seed, policy or default_policy(agent), agent, move)
        outcome = flight.fly(folder)
    return outcome.model_copy(update={"seconds": time.perf_counter() - began})


@contextlib.contextmanager
def alone(seed: int) -> Iterator[None]:
    """One thread, for sums in one order, and generators of its own."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@dataclass
class _Losses:
    """A digest of losses, bit for bit."""

    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    before: str = ""

    def add(self, loss: float) -> None:
        self.digest.update(struct.pack("<d", loss))

    def hex(self) -> str:
        return self.digest.hexdigest()[:16]


class _Flight:
    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        policy: Policy,
        agent: Agent | None,
        move: Move | None,
    ) -> None:
        self.scenario, self.seed, self.agent, self.move = scenario, seed, agent, move
        self.policy = _for_lockstep(policy, piloted=agent is not None)
        self.setup = scenario.build(seed, "sick", scenario.steps)
        reference = scenario.build(seed, "reference", scenario.steps)
        self.cool_steps = int(COOL_DOWN * scenario.steps)
        self.main_steps = scenario.steps - self.cool_steps
        self.cool_lr = reference.schedule(self.main_steps)
        self.decide_at = min((self.setup.fault_step or 0) + scenario.delay, self.main_steps - 1)
        self.losses = _Losses()
        self.filed: str | None = None

    def fly(self, folder: str) -> Outcome:
        setup = self.setup
        with LockstepSession(
            setup.model,
            setup.optimizer,
            scheduler=setup.scheduler,
            evaluate=setup.evaluate,
            lr_plan=setup.lr_plan,
            name=f"{self.scenario.name}, seed {self.seed}",
            run_dir=folder,
            policy=self.policy,
            snapshot_every=choose(self.seed, "snapshots", (8, 10, 12, 15)),
        ) as session:
            for knob in setup.knobs:
                knob.register(session)
            self._train(session)
            return self._outcome(session)

    def _train(self, session: LockstepSession) -> None:
        look = self._looker(session.plane)
        for batch in session.batches(self.setup.batches, steps=self.scenario.steps):
            cooled = session.executed - self.main_steps
            if cooled >= 0:
                self._cool(cooled)
            self._step(session, batch)
            if session.executed == self.decide_at:
                self.losses.before = self.losses.hex()
                if self.move is not None:
                    self._make(self.move, session.plane)
            if cooled < 0:
                look()
            if session.executed == self.main_steps:
                # Whatever was scaled, fixed or ramped is the schedule's again; nobody looks now.
                back = (SetLR(value="schedule"), RewarmLR(steps=0))
                session.plane.command(back, actor=_SCRIPT, key="cool-down", force=True)
            if session.executed >= self.scenario.steps:
                return

    def _step(self, session: LockstepSession, batch: Batch) -> None:
        setup = self.setup
        setup.before_step(session.step)
        loss = setup.loss(batch)
        setup.backward(loss)
        setup.update()
        value = float(loss.item())
        self.losses.add(value)
        session.report(loss=value, source=batch.source, metrics=setup.metrics())
        if session.step % setup.evaluate_every == 0:
            session.evaluate()

    def _looker(self, plane: ControlPlane) -> Callable[[], object]:
        if self.agent is None:
            return plane.tick
        pilots_look = look_of(plane, self.agent, self.scenario.steps)

        def look() -> None:
            plane.tick()
            pilots_look()

        return look

    def _cool(self, cooled: int) -> None:
        for group in self.setup.optimizer.param_groups:
            group["lr"] = self.cool_lr * (1.0 - cooled / self.cool_steps)

    def _make(self, move: Move, plane: ControlPlane) -> None:
        onset = self.setup.fault_step
        before = self.decide_at - _WELL_BEFORE if onset is None else onset
        interventions = tuple(
            _aimed(intervention, plane.checkpoints(), before) for intervention in move.interventions
        )
        record = plane.command(interventions, actor=_SCRIPT, key=move.name, force=True)
        self.filed = record.id

    def _outcome(self, session: LockstepSession) -> Outcome:
        plane, worst = session.plane, self.setup.worst_loss
        if self.filed is not None:
            self._check(plane.proposal(self.filed))
        final = (self.setup.final or self.setup.evaluate)()
        records = plane.proposals()
        return Outcome(
            scenario=self.scenario.name,
            seed=self.seed,
            arm=self._arm(),
            val_loss=min(final, worst) if math.isfinite(final) else worst,
            executed=session.executed,
            decided_at=self.decide_at,
            before=self.losses.before,
            whole=self.losses.hex(),
            applied=tuple(_applied(r) for r in records if _is_agents(r) and _acted(r)),
            asked=tuple(
                answer_of(r.proposal)
                for r in records
                if _is_agents(r) and r.verdict.decision == "ask"
            ),
            found=tuple(
                dict.fromkeys(
                    episode.kind
                    for episode in plane.episodes(closed=True)
                    if episode.status != "watching" and episode.diagnosis != "benign"
                )
            ),
        )

    def _arm(self) -> str:
        if self.agent is not None:
            return f"{PILOTED}{self.agent.name}"
        return ALONE if self.move is None else self.move.name

    def _check(self, record: ProposalRecord) -> None:
        if record.receipt is None:
            assert self.move is not None, "only a move is filed"
            raise AutopilotError(
                f"{self.scenario.name}, seed {self.seed}: the move {self.move.name!r} was not "
                f"applied: {record.status}, {record.reason}"
            )


ALONE = "no-op"
PILOTED = "agent:"


def _for_lockstep(policy: Policy, *, piloted: bool) -> Policy:
    """Nothing waits by the clock: in lock-step the pilot has looked before the next step anyway.

    A move of the menu is kept whatever comes of it, for that is what is measured.
    """
    reflexes = policy.reflexes.model_copy(update={"hold_on_alarm": 0.0})
    changed: dict[str, object] = {"reflexes": reflexes}
    if not piloted:
        changed["canary"] = CanaryTerms(revert_if="never")
    return policy.model_copy(update=changed)


def _aimed(
    intervention: Intervention, checkpoints: Sequence[CheckpointInfo], before: int
) -> Intervention:
    """Name the checkpoint that a move's rollback means."""
    if not isinstance(intervention, Rollback):
        return intervention
    if intervention.checkpoint == START:
        target = checkpoints[0]
    elif intervention.checkpoint == BEFORE:
        target = [c for c in checkpoints if c.step <= max(before, 0)][-1]
    else:
        raise ValueError(f"a move goes back to {START!r} or {BEFORE!r}")
    return intervention.model_copy(update={"checkpoint": target.id})


def _is_agents(record: ProposalRecord) -> bool:
    return record.actor.startswith("agent:")


def _acted(record: ProposalRecord) -> bool:
    return record.receipt is not None and changes_course(record.proposal.interventions)


def _applied(record: ProposalRecord) -> Applied:
    assert record.receipt is not None, "it was applied"
    result = record.canary_result
    return Applied(
        step=record.receipt.step,
        answer=answer_of(record.proposal),
        cause=record.proposal.cause,
        undone=result is not None and result.result == "reverted",
    )

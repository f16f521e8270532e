"""A training session: puts a run under the autopilot's control with a few lines in the loop."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from autopilot.control import ControlPlane, Earlier
from autopilot.errors import AutopilotError, BadInput
from autopilot.policy import Policy
from autopilot.schema import Row
from autopilot.schema import metrics as known
from autopilot_trainer.accumulation import Accumulation
from autopilot_trainer.auth import kept_tokens, make_tokens, write_tokens
from autopilot_trainer.boundary import Boundary
from autopilot_trainer.checkpoints import CheckpointStore
from autopilot_trainer.control_thread import ControlThread
from autopilot_trainer.data import BatchStream
from autopilot_trainer.exactness import ExactnessCheck
from autopilot_trainer.hooks import StepHooks
from autopilot_trainer.learning_rate import Plan
from autopilot_trainer.listening import listening_from_environment
from autopilot_trainer.own_controls import OwnControls
from autopilot_trainer.resuming import Resumption, go_on
from autopilot_trainer.run_directory import make_run_directory
from autopilot_trainer.snapshots import SnapshotRing
from autopilot_trainer.state import Capture, Stateful, as_list
from autopilot_trainer.step_meter import StepMeter
from autopilot_trainer.surroundings import (
    affordable_bytes,
    exactness_from_environment,
    open_journal,
    resolve_policy,
    resume_from_environment,
)
from autopilot_trainer.training import Evaluation, Training

if TYPE_CHECKING:
    from autopilot_trainer.server import ControlServer

log = logging.getLogger("autopilot.trainer")

_row = partial(tuple.__new__, Row)
"""Makes a row without the detour through Python that a named tuple's constructor takes."""


class Session(OwnControls):
    """Puts one training loop under control.

    ::

        with Session(model, optimizer, scheduler=scheduler, evaluate=evaluate) as session:
            for batch in session.batches(loader, steps=2000):
                loss = model(batch)
                loss.backward()
                optimizer.step(); scheduler.step(); optimizer.zero_grad()
                session.report(loss=loss)

    Without anybody's intervention the training goes exactly as it would without a session. A fault
    of the session never stops it.

    Args:
        model: What is trained; its ``state_dict`` is snapshotted.
        optimizer: Its ``step`` is hooked. One or several; the detectors watch the first one's
            gradients and updates, interventions count the groups of all through.
        scheduler: One or several; they keep their own arithmetic.
        evaluate: Returns a held-out loss, or named values; run on demand and by
            :meth:`evaluate`.
        lr_plan: Planned learning rate of the first group for the update after that many steps.
            Declaring it lets a faulty schedule be told from a planned one, and repaired.
        scaler: A ``torch.amp.GradScaler``; its scale becomes the knob ``loss_scale``.
        accumulation: Batches of one update, for a loop that makes an update where
            :attr:`update_due` says so and divides its loss by :attr:`accumulation`.
        name: For people; by default the run directory's.
        run_dir: Where the run is recorded; by default ``AUTOPILOT_RUN_DIR`` or ``runs/…``.
        policy: A policy, or the path of a policy file; by default ``AUTOPILOT_POLICY``, or the
            default policy.
        telemetry: Measure gradients and updates, and let reflexes act on them.
        snapshot_every: Steps between snapshots in memory; None finds an interval that costs no
            more than 0.15 % of the time, 0 switches them off.
        snapshot_bytes: Bound on all snapshots together; by default 4 GiB, or a quarter of the
            host's memory where that is less.
        checkpoint_every: Steps between durable checkpoints; with 0 they are written on demand
            only. A run whose process is gone goes on from the newest.
        resume: Go on with the run in ``run_dir``, if there is one, from its newest sound
            checkpoint; by default as ``AUTOPILOT_RESUME`` says, which ``autopilot run --resume``
            sets.
        port: Of the control API; by default ``AUTOPILOT_PORT``, or any free one. It listens on
            127.0.0.1, or on ``AUTOPILOT_HOST`` with TLS.

    Raises:
        BadInput: The run directory cannot be written or holds another run, or the policy says
            what none may say. On entering: what is to go on is live, damaged, or of another model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        *,
        scheduler: Stateful | Sequence[Stateful] | None = None,
        evaluate: Evaluation | None = None,
        lr_plan: Plan | None = None,
        scaler: Any = None,
        accumulation: int | None = None,
        name: str | None = None,
        run_dir: str | Path | None = None,
        policy: Policy | str | Path | None = None,
        telemetry: bool = True,
        snapshot_every: int | None = None,
        snapshot_bytes: int | None = None,
        checkpoint_every: int = 0,
        resume: bool | None = None,
        port: int | None = None,
    ) -> None:
        self._policy, self._policy_text = resolve_policy(policy)
        resumes = resume_from_environment() if resume is None else resume
        self._directory = make_run_directory(run_dir, name, resume=resumes)
        self._listening = listening_from_environment(port)
        others = {f"scheduler{i or ''}": s for i, s in enumerate(as_list(scheduler))}
        if scaler is not None:
            others["scaler"] = scaler
        accumulates = None if accumulation is None else Accumulation(accumulation)
        if accumulates is not None:
            others["accumulation"] = accumulates
        hooks = StepHooks(
            as_list(optimizer),
            plan=lr_plan,
            reflexes=self._policy.reflexes,
            telemetry=telemetry,
            current_step=lambda: self._training.step,
            on_reflex=self._on_reflex,
            on_fault=self._on_fault,
            accumulation=accumulates,
        )
        self._training = Training(
            model=model,
            hooks=hooks,
            capture=Capture(model, hooks.optimizer, others),
            ring=SnapshotRing(
                10 if snapshot_every is None else snapshot_every,
                snapshot_bytes or affordable_bytes(),
            ),
            store=CheckpointStore(self._directory.checkpoints),
            evaluation=evaluate,
            record_evaluation=self._record_evaluation,
            accumulation=accumulates,
        )
        self._telemetry = telemetry
        self._meter = StepMeter(self._on_fault)
        self._boundary = Boundary(
            self._training,
            adaptive=snapshot_every is None,
            checkpoint_every=checkpoint_every,
            meter=self._meter,
            on_fault=self._on_fault,
        )
        self._server: ControlServer | None = None
        self._thread: ControlThread | None = None
        self._own_boundary = True
        self._resumption: Resumption | None = None
        self._faults: set[str] = set()
        if scaler is not None:
            self._register_scaler(scaler)

    # --- life -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        directory = self._directory
        journal, fault = open_journal(directory)
        plane = ControlPlane(journal, self._policy, self._training, policy_text=self._policy_text)
        self._training.attach(plane)
        self._observe = plane.observe
        earlier = plane.start(
            {"name": directory.name, "pid": os.getpid(), "policy": self._policy_text}
        )
        if fault is not None:
            plane.fault(fault)
        if earlier is not None:
            self._go_on(plane, earlier)
        self._serve(plane)
        self._thread = ControlThread(plane)
        self._wake = self._thread.wake
        self._thread.start()
        self._meter.restart()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        plane = self._training.plane
        ending: list[Callable[[], object]] = [self._training.hooks.remove, self._boundary.abandon]
        if self._thread is not None:
            ending.append(self._thread.stop)
        if error is None:
            ending.append(partial(plane.end, "ended", "the loop is done"))
        else:
            reason = f"{type(error).__name__}: {error}"[:500]
            ending.append(partial(plane.end, "failed", reason))
        if self._server is not None:
            ending.append(self._server.stop)
        for part in (*ending, plane.close):
            try:
                part()
            except Exception as fault:  # what is trained is kept, whatever becomes of us
                self._on_fault(f"at the end: {fault!r}")

    def _go_on(self, plane: ControlPlane, earlier: Earlier) -> None:
        """Go on with the run of an earlier process."""
        try:
            self._resumption = go_on(self._training, earlier)
        except BadInput as error:
            plane.end("failed", str(error))
            plane.close()
            self._training.hooks.remove()
            raise
        story = self._resumption.story()
        plane.note("note", {"text": story})
        log.warning("%s: %s", self._directory.path, story)

    def _serve(self, plane: ControlPlane) -> None:
        """Open the control API; without one the run goes on, recorded but not controlled."""
        try:
            # The web framework loads only where there is something to serve.
            from autopilot_trainer.api import build_app
            from autopilot_trainer.server import ControlServer

            tokens = kept_tokens(self._directory.path) or make_tokens()
            write_tokens(self._directory.path, tokens)
            app = build_app(plane, tokens, self._listening.host)
            self._server = ControlServer(app, self._listening)
            self._directory.publish(self._server.start())
        except Exception as error:  # the run goes on without us
            why = str(error) if isinstance(error, AutopilotError | OSError) else repr(error)
            plane.fault(f"no control API: {why}; training goes on without control")
            self._directory.publish(None)

    # --- the loop -------------------------------------------------------------------------------

    def batches(self, loader: Iterable[Any], steps: int | None = None) -> Iterator[Any]:
        """Give the loop its batches; between them the run is paused, changed and rolled back.

        Args:
            loader: A ``DataLoader``, a sequence of batches, or any other iterable. One that is
                its own iterator can be read only once, so there is no going back in it.
            steps: End after this step; passes over the loader are repeated as needed. None ends
                with the loader.
        """
        training, boundary, meter = self._training, self._boundary, self._meter
        boundary.begin_stream()
        stream = BatchStream(loader, repeat=steps is not None)
        training.stream = stream
        training.plane.steps = steps
        if self._resumption is not None:
            self._resumption.seek(training, stream)
            self._resumption = None
        self._own_boundary = False
        if check := exactness_from_environment():
            twice = ExactnessCheck(training, check, self._directory.path)
            self._observe = twice.watching(self._observe)
            yield from twice.batches()
            return
        if gc.isenabled():
            gc.collect()  # what imports left behind; else its turn comes as a pause in mid-training
        boundary.wait_for_pilot()
        meter.restart()
        while True:
            boundary.pass_through()
            if training.stopping or (steps is not None and training.step >= steps):
                return
            try:
                batch = meter.next(stream) if self._telemetry else next(stream)
            except StopIteration:
                return
            yield batch

    def report(
        self,
        *,
        loss: torch.Tensor | float,
        source: str | None = None,
        tokens: int | None = None,
        metrics: Mapping[str, torch.Tensor | float] | None = None,
        **values: torch.Tensor | float,
    ) -> None:
        """End a step: hand in its metrics.

        Args:
            loss: Raw training loss.
            source: Name of the data that the batch came from.
            tokens: Tokens in the batch.
            metrics: Other metrics by name, where a name is no Python word.
            **values: Other metrics; names that :mod:`autopilot.schema.metrics` knows have a
                meaning to the detectors.
        """
        training = self._training
        training.step += 1
        training.executed += 1
        if training.accumulation is not None:
            training.accumulation.end_step()
        if metrics is not None:
            values.update(metrics)
        own = {name: _number(given) for name, given in values.items()}
        own[known.LOSS] = value = _number(loss)
        try:
            row = training.hooks.take()
            row[known.LR] = training.hooks.learning_rate.in_force[0]
            if self._telemetry:
                self._meter.into(row, tokens)
            row.update(own)
            self._observe(_row((training.step, row, training.branch, time.time(), source)))
            if training.hooks.loud or not value < training.plane.alert_above:  # NaN never is
                training.hooks.loud = False
                self._wake()
            if self._boundary.outstanding:
                self._boundary.read_back()
        except Exception as error:  # the run goes on without us
            self._on_fault(f"a step's end: {error!r}")
        if self._own_boundary:
            self._boundary.pass_through()

    def evaluate(self) -> dict[str, float]:
        """Run the registered evaluation now and record its values.

        Raises:
            BadInput: The session was made without ``evaluate=``.
        """
        if self._training.evaluation is None:
            raise BadInput("session.evaluate(): pass evaluate= to the Session first")
        began = time.perf_counter()
        values = self._training.evaluate()
        self._meter.away += time.perf_counter() - began
        return values

    # --- where the run is -----------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Completed steps on the present course; goes back with a rollback."""
        return self._training.step

    @property
    def executed(self) -> int:
        """Completed steps of this process, repeated ones included; never goes back."""
        return self._training.executed

    @property
    def accumulation(self) -> int:
        """Batches of the update under way: what the loss of each is divided by."""
        accumulation = self._training.accumulation
        return 1 if accumulation is None else accumulation.in_force

    @property
    def update_due(self) -> bool:
        """This batch is the update's last: step the optimizer now."""
        accumulation = self._training.accumulation
        if accumulation is None:
            return True
        accumulation.asked = True
        return accumulation.due

    @property
    def stopping(self) -> bool:
        """Somebody stopped the run; for loops that do not use :meth:`batches`."""
        return self._training.stopping

    @property
    def run_dir(self) -> Path:
        """Where the run is recorded."""
        return self._directory.path

    @property
    def url(self) -> str | None:
        """The control API's address, where there is one."""
        return self._server.url if self._server is not None else None

    # --- told by the parts ----------------------------------------------------------------------

    def _record_evaluation(self, values: dict[str, float]) -> None:
        training = self._training
        row = Row(training.step, dict(values), training.branch, time.time())
        self._observe(row)
        training.plane.note("evaluation", {"values": values})

    def _on_reflex(self, reflex: str, norm: float) -> None:
        step = self._training.step + 1
        self._training.plane.note_reflex(reflex, {"step": step, "grad_norm": norm})

    def _on_fault(self, text: str) -> None:
        if text in self._faults:
            return
        self._faults.add(text)
        try:
            if self._training.attached:
                self._training.plane.fault(text)
                return
        except Exception:  # then the log is all that is left
            log.exception("a fault could not be recorded")
        log.error("%s", text)


def _number(value: torch.Tensor | float) -> float:
    return float(value.item() if isinstance(value, torch.Tensor) else value)

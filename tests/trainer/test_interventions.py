"""Every kind of intervention, through the control plane of a live loop."""

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam, AdamW, lr_scheduler
from trainer.loops import (
    Orders,
    loss_of,
    make_batches,
    make_model,
    meanwhile,
    running,
    train,
    until,
)

from autopilot.errors import OutOfBounds, Unsupported
from autopilot.schema import (
    CallAction,
    Evaluate,
    Note,
    Pause,
    ProposalRecord,
    ResetOptimizerState,
    Resume,
    RewarmLR,
    Rollback,
    SaveCheckpoint,
    ScaleLR,
    SetGradClip,
    SetKnob,
    SetLR,
    SetOptimizer,
    SkipBatches,
    Stop,
)

BATCHES = make_batches()


def proof(record: ProposalRecord) -> list[tuple[str, Any, Any]]:
    """The changes of a record that was proven by two read-backs."""
    assert record.receipt is not None, record.reason
    assert record.receipt.proven
    fields = [read.field for read in record.receipt.read_back]
    assert all(fields.count(field) == 2 for field in fields)
    return [(change.field, change.old, change.new) for change in record.receipt.changes]


def watch(optimizer: torch.optim.Optimizer, name: str) -> list[Any]:
    """What each update uses, seen by a hook of the user's own."""
    used: list[Any] = []
    optimizer.register_step_pre_hook(lambda o, *_: used.append(o.param_groups[0][name]))
    return used


# --- learning rate and optimizer ------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "factor"),
    [(ScaleLR(factor=0.3), 0.3), (SetLR(value=0.04), 0.4), (RewarmLR(steps=50), 1 / 51)],
)
def test_a_learning_rate_change_is_proven_and_undone(
    change: Any, factor: float, tmp_path: Path
) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer) as (session, person):
        used = watch(optimizer, "lr")
        orders = Orders(person)
        at = {3: orders.give(change), 6: orders.revert()}
        train(session, model, optimizer, BATCHES, steps=9, at=at)
        changed, undone = orders[0], orders[1]
    assert [field for field, *_ in proof(changed)] == ["lr"]
    assert used[2] == 0.1
    assert used[3] == pytest.approx(0.1 * factor)
    assert used[6:] == pytest.approx([0.1] * 3)
    assert changed.status == "reverted"
    assert undone.reverts == changed.id
    proof(undone)


def test_changes_that_lie_upon_each_other_are_undone_in_turn(tmp_path: Path) -> None:
    model = make_model()
    groups = [
        {"params": [parameter], "lr": 0.1 * 0.8**i, "weight_decay": 0.01 * (i % 2)}
        for i, parameter in enumerate(model.parameters())
    ]
    groups += [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(10)]
    optimizer = AdamW(groups, lr=0.1)
    own = [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    used: list[Any] = []
    with running(tmp_path, model, optimizer) as (session, person):
        optimizer.register_step_pre_hook(
            lambda o, *_: used.append([(g["lr"], g["weight_decay"]) for g in o.param_groups])
        )
        orders = Orders(person)
        at = {
            1: orders.give(ScaleLR(factor=0.3), SetOptimizer(name="weight_decay", value=0.5)),
            4: orders.give(SetLR(value=0.02), SetOptimizer(name="weight_decay", value=0.0)),
            7: orders.revert(1),
            10: orders.revert(0),
        }
        train(session, model, optimizer, BATCHES, steps=13, at=at)
        statuses = [orders[i].status for i in range(4)]
    assert used[1] == [(pytest.approx(0.3 * lr), 0.5) for lr, _ in own]
    assert used[4] == [(pytest.approx(0.2 * lr), 0.0) for lr, _ in own]
    assert used[7] == [(pytest.approx(lr), decay) for lr, decay in used[1]]
    assert used[10] == [(pytest.approx(lr), decay) for lr, decay in own]
    assert statuses[:2] == ["reverted", "reverted"]


@pytest.mark.parametrize(
    ("kind", "name", "new"),
    [
        ("AdamW", "betas", (0.8, 0.95)),
        ("AdamW", "eps", 1e-4),
        ("AdamW", "weight_decay", 0.5),
        ("SGD", "momentum", 0.5),
        ("SGD", "nesterov", True),
        ("SGD", "weight_decay", 0.1),
    ],
)
def test_a_hyperparameter_is_in_force_on_the_next_update_and_undone(
    kind: str, name: str, new: Any, tmp_path: Path
) -> None:
    model = make_model()
    parameters = model.parameters()
    optimizer = (
        AdamW(parameters, lr=0.01) if kind == "AdamW" else SGD(parameters, lr=0.01, momentum=0.9)
    )
    old = optimizer.param_groups[0][name]
    with running(tmp_path, model, optimizer) as (session, person):
        used = watch(optimizer, name)
        orders = Orders(person)
        at = {2: orders.give(SetOptimizer(name=name, value=new)), 5: orders.revert()}  # type: ignore[arg-type]
        train(session, model, optimizer, BATCHES, steps=8, at=at)
        changed = orders[0]
        proof(orders[1])
    assert used == [old] * 2 + [new] * 3 + [old] * 3
    assert [field for field, *_ in proof(changed)] == [name]


@pytest.mark.parametrize("adam", [False, True])
def test_momentum_that_a_schedule_cycles_is_fixed_and_then_cycles_on(
    adam: bool, tmp_path: Path
) -> None:
    def build() -> tuple[Any, Any, Any]:
        model = make_model()
        optimizer: Any = (
            Adam(model.parameters(), lr=0.01)
            if adam
            else SGD(model.parameters(), lr=0.01, momentum=0.9)
        )
        return model, optimizer, lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=20)

    name, new = ("betas", (0.5, 0.9)) if adam else ("momentum", 0.5)
    runs = []
    for orders_given in (False, True):
        model, optimizer, schedule = build()
        folder = tmp_path / str(orders_given)
        with running(folder, model, optimizer, scheduler=schedule) as (session, person):
            used = watch(optimizer, name)
            orders = Orders(person)
            change = SetOptimizer(name=name, value=new)  # type: ignore[arg-type]
            at = {3: orders.give(change), 7: orders.revert()} if orders_given else {}
            train(session, model, optimizer, BATCHES, steps=12, scheduler=schedule, at=at)
            if orders_given:
                proof(orders[0])
                proof(orders[1])
        runs.append(used)
    untouched, changed = runs
    assert len(set(untouched)) > 5, "the schedule does cycle"
    assert changed == untouched[:3] + [new] * 4 + untouched[7:]


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)
    norms: list[float] = []

    def norm(*_: Any) -> None:
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        norms.append(float(torch.cat(gradients).norm()))

    with running(tmp_path, model, optimizer) as (session, person):
        optimizer.register_step_pre_hook(norm)
        orders = Orders(person)
        at = {2: orders.give(SetGradClip(max_norm=0.1)), 5: orders.revert()}
        train(session, model, optimizer, BATCHES, steps=8, at=at)
        rows = [row.values for row in person.rows()]
        changed = orders[0]
    assert norms[2:5] == pytest.approx([0.1] * 3, rel=1e-4)
    assert min(norms[:2] + norms[5:]) > 0.2
    assert proof(changed) == [("grad_clip", None, 0.1)]
    assert [row.get("clipped") for row in rows] == [None] * 2 + [1.0] * 3 + [None] * 3
    assert min(row["grad_norm"] for row in rows) > 0.2, "the norm is that before clipping"


@pytest.mark.parametrize("moments", ["first", "second", "all"])
def test_the_moments_are_zeroed(moments: Any, tmp_path: Path) -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=0.01)
    seen: list[dict[str, float]] = []

    def look(*_: Any) -> None:
        states = [*optimizer.state.values()]
        names = ("exp_avg", "exp_avg_sq", "step")
        seen.append({n: sum(float(s[n].abs().sum()) for s in states) for n in names if states})

    with running(tmp_path, model, optimizer) as (session, person):
        optimizer.register_step_pre_hook(look)
        orders = Orders(person)
        before: list[Any] = []
        at = {
            3: orders.give(ResetOptimizerState(moments=moments)),
            5: lambda: (before.extend(p.clone() for p in model.parameters()), orders.revert()()),
        }
        train(session, model, optimizer, BATCHES, steps=7, at=at)
        record = orders[0]
    assert (seen[3]["exp_avg"] == 0) == (moments != "second")
    assert (seen[3]["exp_avg_sq"] == 0) == (moments != "first")
    assert (seen[3]["step"] == 0) == (moments != "first")
    assert record.receipt is not None
    assert record.receipt.undo_checkpoint is not None
    assert record.status == "reverted"
    assert seen[5]["exp_avg"] > 0, "undone: the moments are back"


# --- the script's own controls --------------------------------------------------------------


def test_a_knob_is_set_within_its_bounds_only(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)
    held: dict[str, Any] = {"p": 0.1, "n": 3, "mode": "plain", "on": False}
    old, seen = dict(held), list[Any]()
    with running(tmp_path, model, optimizer) as (session, person):
        for name, options in {
            "p": {"minimum": 0.0, "maximum": 0.5},
            "n": {"minimum": 1, "maximum": 8},
            "mode": {"choices": ["plain", "hard"]},
            "on": {},
        }.items():
            get, put = partial(held.__getitem__, name), partial(held.__setitem__, name)
            session.knob(name, get, put, **options)  # type: ignore[arg-type]

        def refused() -> None:
            wrong: list[tuple[str, Any]] = [
                ("p", 0.6), ("p", -0.1), ("p", "high"), ("p", True), ("n", 2.5), ("n", 9),
                ("mode", "odd"), ("on", 1), ("other", 1),
            ]  # fmt: skip
            for name, value in wrong:
                with pytest.raises(Unsupported):
                    person.command((SetKnob(name=name, value=value),), force=True)

        orders = Orders(person)
        new = {"p": 0.4, "n": 5, "mode": "hard", "on": True}
        changes = [SetKnob(name=name, value=value) for name, value in new.items()]
        at = {
            2: refused,
            3: lambda: seen.append(dict(held)),
            4: orders.give(*changes),
            6: lambda: seen.append(dict(held)),
            7: orders.revert(),
        }
        train(session, model, optimizer, BATCHES, steps=10, at=at)
        assert len(proof(orders[0])) == 4
        proof(orders[1])
    assert seen == [old, new]
    assert held == old


def test_a_knob_that_does_not_take_its_value_is_found_out(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)
    with running(tmp_path, model, optimizer) as (session, person):
        session.knob("stuck", lambda: 1.0, lambda _: None, minimum=0.0, maximum=2.0)
        orders = Orders(person)
        at = {2: orders.give(SetKnob(name="stuck", value=2.0))}
        train(session, model, optimizer, BATCHES, steps=6, at=at)
        record = orders[0]
    assert record.receipt is not None
    assert record.receipt.proven is False
    assert record.status == "reverted"


def test_a_knob_that_cannot_be_read_hurts_nobody_else(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)
    answers = iter([1.0])
    with running(tmp_path, model, optimizer) as (session, person):
        session.knob("odd", lambda: next(answers), print, minimum=0.0, maximum=2.0)
        orders = Orders(person)
        at = {2: orders.give(ScaleLR(factor=0.5))}
        train(session, model, optimizer, BATCHES, steps=5, at=at)
        assert person.info().capabilities.knobs["odd"].value is None
        proof(orders[0])


def test_an_action_is_called_with_checked_arguments(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)
    calls: list[tuple[int, str]] = []
    with running(tmp_path, model, optimizer) as (session, person):

        @session.action
        def relabel(count: int, how: str = "soft") -> int:
            calls.append((count, how))
            return count * 2

        def refused() -> None:
            for arguments in ({}, {"count": "3"}, {"count": 1.5}, {"count": 1, "more": 2}):
                with pytest.raises(Unsupported):
                    person.command((CallAction(name="relabel", arguments=arguments),))  # type: ignore[arg-type]
            with pytest.raises(Unsupported):
                person.command((CallAction(name="system"),))

        orders = Orders(person)
        order = orders.give(CallAction(name="relabel", arguments={"count": 3}))
        train(session, model, optimizer, BATCHES, steps=4, at={1: refused, 2: order})
        record = orders[0]
    assert calls == [(3, "soft")]
    assert record.receipt is not None
    assert record.receipt.results == {"result": 6}
    assert record.receipt.no_inverse


def test_an_evaluation_leaves_generators_and_training_mode_as_they_were(tmp_path: Path) -> None:
    def fly(folder: Path, *, look: bool) -> tuple[list[Any], list[Any]]:
        model = make_model(dropout=0.5)
        random.seed(0)
        np.random.seed(0)
        optimizer = AdamW(model.parameters(), lr=0.01)

        def evaluate() -> dict[str, Any]:
            model.eval()
            _ = random.random(), np.random.rand(), torch.rand(3)
            return {"val_loss": loss_of(model, BATCHES[0]), "val_accuracy": 0.5}

        noise: list[Any] = []
        with running(folder, model, optimizer, evaluate=evaluate) as (session, person):
            orders = Orders(person)
            at: dict[int, Any] = {3: orders.give(Evaluate())} if look else {}
            at[5] = lambda: noise.extend([random.random(), np.random.rand(), model.training])
            losses = train(session, model, optimizer, BATCHES, steps=8, at=at)
            if look:
                receipt = orders[0].receipt
                assert receipt is not None
                assert receipt.results.keys() == {"val_loss", "val_accuracy"}
                assert any("val_accuracy" in row.values for row in person.rows())
        return losses, noise

    assert fly(tmp_path / "a", look=True) == fly(tmp_path / "b", look=False)


def test_an_evaluation_that_fails_is_rejected_and_training_goes_on(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)

    def evaluate() -> float:
        model.eval()
        raise RuntimeError("no such file")

    with running(tmp_path, model, optimizer, evaluate=evaluate) as (session, person):
        orders = Orders(person)
        at = {2: orders.give(Evaluate())}
        assert len(train(session, model, optimizer, BATCHES, steps=5, at=at)) == 5
        assert orders[0].status == "rejected"
        assert "no such file" in orders[0].reason
        assert model.training


# --- the course of the run ------------------------------------------------------------------


def test_a_checkpoint_is_saved_where_it_says(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)
    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        at = {3: orders.give(SaveCheckpoint(tag="mine"))}
        train(session, model, optimizer, BATCHES, steps=5, at=at)
        saved = next(c for c in person.checkpoints() if c.tag == "mine")
        assert orders[0].receipt is not None
        assert orders[0].receipt.results["checkpoint"] == saved.id
    assert saved.step == 3
    assert (Path(str(saved.path)) / "state.pt").stat().st_size == saved.bytes


def test_batches_are_left_out(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)
    loader = [torch.full((6, 4), float(i)) for i in range(20)]
    seen: list[float] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(float(args[0][0, 0])))
    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        at = {2: orders.give(SkipBatches(count=3))}
        train(session, model, optimizer, loader, steps=5, at=at)
        assert orders[0].receipt is not None
        assert orders[0].receipt.changes[0].new == 5
    assert seen == [0, 1, 5, 6, 7]


def test_commands_are_applied_while_the_run_is_paused(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer, snapshot_every=2) as (session, person):
        used = watch(optimizer, "lr")
        done: list[int] = []

        def person_at_work() -> None:
            until(lambda: person.info().status == "paused")
            for change in (ScaleLR(factor=0.5), SaveCheckpoint(), Rollback(checkpoint="s2")):
                record = person.command((change,))
                until(lambda r=record: person.proposal(r.id).status not in ("queued",))  # type: ignore[misc]
                assert person.proposal(record.id).status in ("applied", "kept")
            assert person.info().status == "paused"
            done.append(len(used))
            person.command((Resume(),))

        order = Orders(person).give(Pause())
        with meanwhile(person_at_work):
            train(session, model, optimizer, BATCHES, steps=6, at={4: order})
        assert person.info().status == "running"
    assert done == [4], "no update was made while it was paused"
    assert used == [0.1] * 4 + [0.05] * 4


def test_two_rollbacks_in_a_row_are_both_kept(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer, snapshot_every=2) as (session, person):
        orders = Orders(person)
        both = orders.give(Rollback(checkpoint="s4")), orders.give(Rollback(checkpoint="s2"))
        at = {6: lambda: [order() for order in both]}
        losses = train(session, model, optimizer, BATCHES, steps=8, at=at)
        assert [orders[i].receipt.proven for i in (0, 1)] == [True, True]  # type: ignore[union-attr]
        assert not [record for record in person.proposals() if record.reverts]
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("save", [True, False])
def test_a_stop_ends_the_loop_at_the_boundary(save: bool, tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer) as (session, person):
        order = Orders(person).give(Stop(save=save))
        losses = train(session, model, optimizer, BATCHES, steps=50, at={3: order})
        assert session.stopping
        stopped = [c for c in person.checkpoints() if c.tag == "stopped"]
    assert len(losses) == 3
    assert [c.step for c in stopped] == ([3] if save else [])


def test_a_note_stands_in_the_journal(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        train(session, model, optimizer, BATCHES, steps=4, at={2: orders.give(Note(text="hm"))})
        events = person.events(0)
        assert orders[0].status == "applied"
    assert any("'hm'" in str(event.body) for event in events if event.kind == "applied")


# --- together or not at all -----------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        ScaleLR(factor=0.5),
        SetLR(value=0.05),
        SetOptimizer(name="momentum", value=0.5),
        SetGradClip(max_norm=0.5),
        SetKnob(name="p", value=0.4),
        SkipBatches(count=2),
        Rollback(checkpoint="s2", skip_batches=1),
        ResetOptimizerState(),
        Pause(),
        Stop(save=False),
    ],
    ids=lambda change: change.kind,
)
def test_what_comes_before_a_failure_is_taken_back(first: Any, tmp_path: Path) -> None:
    def fly(folder: Path, *, disturbed: bool) -> list[Any]:
        model = make_model(dropout=0.2)
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        held = {"p": 0.1}
        with running(folder, model, optimizer, snapshot_every=2) as (session, person):
            session.knob(
                "p", lambda: held["p"], lambda v: held.update(p=v), minimum=0.0, maximum=1.0
            )

            @session.action
            def broken() -> None:
                raise RuntimeError("cannot")

            orders = Orders(person)
            at = {4: orders.give(first, CallAction(name="broken"))} if disturbed else {}
            losses = train(session, model, optimizer, BATCHES, steps=8, at=at)
            if disturbed:
                assert orders[0].status == "rejected"
                assert "cannot" in orders[0].reason
            return [losses, held, person.info().capabilities.settings]

    assert fly(tmp_path / "a", disturbed=True) == fly(tmp_path / "b", disturbed=False)


def test_a_rollback_that_fails_half_way_leaves_the_run_where_it_was(tmp_path: Path) -> None:
    class Brittle:
        """State that cannot be given back."""

        broken = True

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            if Brittle.broken:
                Brittle.broken = False
                raise RuntimeError("cannot be loaded")

    def fly(folder: Path, *, disturbed: bool) -> list[Any]:
        model = make_model(dropout=0.2)
        optimizer = AdamW(model.parameters(), lr=0.1)
        with running(folder, model, optimizer, snapshot_every=2) as (session, person):
            session.track("brittle", Brittle())
            orders = Orders(person)
            at = {5: orders.give(Rollback(checkpoint="s2"))} if disturbed else {}
            losses = train(session, model, optimizer, BATCHES, steps=8, at=at)
            if disturbed:
                assert orders[0].status == "rejected"
            assert person.info().branch == "main"
            return losses

    assert fly(tmp_path / "a", disturbed=True) == fly(tmp_path / "b", disturbed=False)


# --- refusals -------------------------------------------------------------------------------


def test_what_a_run_does_not_support_is_refused_by_name(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    refused: dict[Any, str] = {
        Evaluate(): "evaluate",
        SetKnob(name="p", value=1.0): "set_knob",
        SetOptimizer(name="eps", value=1e-3): "eps",
        SetOptimizer(name="betas", value=(0.9, 0.99)): "betas",
        SetOptimizer(name="momentum", value=1.5): "momentum",
        SetOptimizer(name="momentum", value=(0.5, 0.5)): "momentum",
        SetOptimizer(name="nesterov", value=0.5): "nesterov",
        ScaleLR(factor=0.5, groups=(3,)): "groups",
        SetLR(value="plan"): "plan",
        Rollback(checkpoint="s77"): "s77",
        Rollback(): "good",
    }
    with running(tmp_path, model, optimizer, snapshot_every=0) as (session, person):

        def ask() -> None:
            for change, word in refused.items():
                with pytest.raises(Unsupported, match=word):
                    person.command((change,), force=True)
            with pytest.raises(OutOfBounds, match="max_factor"):
                person.command((ScaleLR(factor=5.0),))
            with pytest.raises(OutOfBounds, match="grad_clip"):
                person.command((SetGradClip(max_norm=1e-6),))

        losses = train(session, model, optimizer, BATCHES, steps=4, at={2: ask})
    assert len(losses) == 4

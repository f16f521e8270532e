"""The learning rate in force, observed from the optimizer, under every scheduler torch has."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop, lr_scheduler, swa_utils
from trainer.loops import Orders, advance, loss_of, make_batches, make_model, running, train

from autopilot.schema import RewarmLR, Rollback, ScaleLR, SetLR

STEPS = 18
RATES = (0.1, 0.01)
BATCHES = make_batches()

Scheduler = Callable[[Optimizer], Any]


def sequential(optimizer: Optimizer) -> Any:
    parts = [lr_scheduler.ConstantLR(optimizer, 0.5), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[6])


def chained(optimizer: Optimizer) -> Any:
    parts = [lr_scheduler.LinearLR(optimizer, 0.3, total_iters=9)]
    return lr_scheduler.ChainedScheduler(
        [*parts, lr_scheduler.ExponentialLR(optimizer, 0.95)], optimizer=optimizer
    )


SCHEDULERS: dict[str, Scheduler] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, [lambda s: 1 / (1 + s), lambda s: 0.9**s]),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [4, 9], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, total_iters=8),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.3, total_iters=9),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "SequentialLR": sequential,
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, total_iters=40, power=2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 12, eta_min=1e-4),
    "ChainedScheduler": chained,
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, [0.05, 0.005], [0.2, 0.02], step_size_up=5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, [0.2, 0.02], total_steps=40),
    "SWALR": lambda o: swa_utils.SWALR(o, swa_lr=0.02, anneal_epochs=8),
}

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda g: SGD(g, lr=0.1, momentum=0.9),
    "SGD nesterov foreach": lambda g: SGD(g, momentum=0.9, nesterov=True, foreach=True),
    "SGD fused": lambda g: SGD(g, momentum=0.9, fused=True),
    "Adam": lambda g: Adam(g),
    "Adam foreach": lambda g: Adam(g, foreach=True),
    "AdamW": lambda g: AdamW(g),
    "AdamW fused": lambda g: AdamW(g, fused=True),
    "RMSprop": lambda g: RMSprop(g, momentum=0.5),
}
TENSOR_OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "Adam tensor": lambda g: Adam(g),
    "AdamW tensor": lambda g: AdamW(g),
    "AdamW tensor fused": lambda g: AdamW(g, fused=True),
    "SGD tensor": lambda g: SGD(g, momentum=0.9),
}


def build(make: Callable[[Any], Optimizer], *, tensor: bool = False) -> tuple[Any, Optimizer]:
    model = make_model()
    rates = [torch.tensor(rate) for rate in RATES] if tensor else list(RATES)
    parts = (model[0], model[3])
    groups = [{"params": [*p.parameters()], "lr": r} for p, r in zip(parts, rates, strict=True)]
    return model, make(groups)


def rates_of(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def own_course(make: Callable[[Any], Optimizer], scheduler: Scheduler, **how: Any) -> list[Any]:
    """What the groups hold before each update where nobody intervenes."""
    model, optimizer = build(make, **how)
    schedule, course = scheduler(optimizer), [rates_of(optimizer)]
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, BATCHES[step % len(BATCHES)]).backward()
        optimizer.step()
        advance(schedule)
        course.append(rates_of(optimizer))
    return course


def plan(step: int) -> float:
    return 0.05 + 0.001 * step


def test_every_scheduler_of_torch_is_in_the_table() -> None:
    found = {
        name
        for module in (lr_scheduler, swa_utils)
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and issubclass(kind, lr_scheduler.LRScheduler)
        and not name.endswith("LRScheduler")
    }
    assert found == set(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("kind", ["SGD", "AdamW tensor"])
def test_a_change_is_in_force_on_the_next_update_under_every_scheduler(
    name: str, kind: str, tmp_path: Path
) -> None:
    check_every_change(kind, SCHEDULERS[name], tmp_path)


@pytest.mark.parametrize("kind", [*OPTIMIZERS, *TENSOR_OPTIMIZERS])
def test_a_change_is_in_force_on_the_next_update_of_every_optimizer(
    kind: str, tmp_path: Path
) -> None:
    check_every_change(kind, SCHEDULERS["CosineAnnealingLR"], tmp_path)


def check_every_change(kind: str, scheduler: Scheduler, folder: Path) -> None:
    tensor = kind in TENSOR_OPTIMIZERS
    make = (OPTIMIZERS | TENSOR_OPTIMIZERS)[kind]
    own = own_course(make, scheduler, tensor=tensor)
    model, optimizer = build(make, tensor=tensor)
    schedule = scheduler(optimizer)
    used: list[list[float]] = []
    course = [rates_of(optimizer)]
    with running(folder, model, optimizer, scheduler=schedule, lr_plan=plan) as (session, person):
        optimizer.register_step_pre_hook(lambda o, *_: used.append(rates_of(o)))
        orders = Orders(person)
        at = {
            3: orders.give(ScaleLR(factor=0.5)),
            6: orders.give(SetLR(value=0.03)),
            9: orders.give(SetLR(value="plan")),
            12: orders.give(SetLR(value="schedule")),
            14: orders.give(RewarmLR(steps=3)),
        }
        for batch in session.batches(BATCHES, steps=STEPS):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            advance(schedule)
            course.append(rates_of(optimizer))
            session.report(loss=loss)
            if session.executed in at:
                at[session.executed]()
        receipts = [orders[i].receipt for i in range(5)]
    assert course == own, "the scheduler's own course is not what it would be"
    initial = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    ratio = float(initial[1]) / float(initial[0])
    wanted = (
        own[:3]
        + [[0.5 * rate for rate in rates] for rates in own[3:6]]
        + [[0.03, 0.03 * own[6][1] / own[6][0]]] * 3
        + [[plan(step), plan(step) * ratio] for step in range(9, 12)]
        + own[12:14]
        + [[r * rate for rate in own[14 + i]] for i, r in enumerate((0.25, 0.5, 0.75, 1.0))]
    )
    for step, (seen, expected) in enumerate(zip(used, wanted, strict=True)):
        assert seen == pytest.approx(expected, rel=2e-6), f"update {step + 1}"
    for receipt in receipts:
        assert receipt is not None
        assert receipt.proven
        assert len(receipt.read_back) == 4, "two groups, read twice"


def test_the_parameters_move_by_the_rate_in_force(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.9)
    moved = []
    with running(tmp_path, model, optimizer, scheduler=schedule) as (session, person):
        order = Orders(person).give(ScaleLR(factor=0.25))
        for batch in session.batches(BATCHES, steps=6):
            weight = model[0].weight
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            before = weight.detach().clone()
            optimizer.step()
            schedule.step()
            moved.append(float((before - weight.detach()).norm() / weight.grad.norm()))
            session.report(loss=loss)
            if session.step == 2:
                order()
    wanted = [0.1 * 0.9**step * (1.0 if step < 2 else 0.25) for step in range(6)]
    assert moved == pytest.approx(wanted, rel=1e-4)


def test_one_group_is_changed_and_the_others_are_left_alone(tmp_path: Path) -> None:
    model, optimizer = build(OPTIMIZERS["SGD"])
    used: list[list[float]] = []
    with running(tmp_path, model, optimizer) as (session, person):
        optimizer.register_step_pre_hook(lambda o, *_: used.append(rates_of(o)))
        orders = Orders(person)
        at = {2: orders.give(ScaleLR(factor=0.5, groups=(1,))), 4: orders.revert()}
        train(session, model, optimizer, BATCHES, steps=6, at=at)
        receipt = orders[0].receipt
    assert used[1:4] == [[0.1, 0.01], [0.1, 0.005], [0.1, 0.005]]
    assert used[4:] == [[0.1, 0.01]] * 2
    assert receipt is not None
    assert [change.field for change in receipt.changes] == ["lr[1]"]


def test_groups_that_share_one_tensor_are_changed_one_by_one(tmp_path: Path) -> None:
    model = make_model()
    shared = torch.tensor(0.01)
    groups = [{"params": [*model[0].parameters()]}, {"params": [*model[3].parameters()]}]
    optimizer = AdamW(groups, lr=shared)
    used: list[list[float]] = []
    with running(tmp_path, model, optimizer) as (session, person):
        optimizer.register_step_pre_hook(lambda o, *_: used.append(rates_of(o)))
        order = Orders(person).give(ScaleLR(factor=0.5, groups=(1,)))
        train(session, model, optimizer, BATCHES, steps=4, at={2: order})
        assert all(group["lr"] is shared for group in optimizer.param_groups)
    assert used[-1] == pytest.approx([0.01, 0.005])
    assert float(shared) == pytest.approx(0.01)


def test_a_group_added_in_flight_trains_at_its_own_rate(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model[0].parameters(), lr=0.1)
    used: list[list[float]] = []
    with running(tmp_path, model, optimizer) as (session, person):
        optimizer.register_step_pre_hook(lambda o, *_: used.append(rates_of(o)))
        orders = Orders(person)
        at = {
            2: orders.give(ScaleLR(factor=0.5)),
            4: lambda: optimizer.add_param_group({"params": [*model[3].parameters()], "lr": 0.02}),
            6: orders.give(ScaleLR(factor=0.5)),
        }
        train(session, model, optimizer, BATCHES, steps=8, at=at)
        assert person.info().faults == ()
    assert used[3] == [0.05]
    assert used[4] == [0.05, 0.02]
    assert used[6] == [0.025, 0.01]


def test_the_declared_plan_repairs_a_schedule_that_is_stuck(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    stuck = lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step >= 2 else 1.0)
    used: list[list[float]] = []
    with running(tmp_path, model, optimizer, scheduler=stuck, lr_plan=plan) as (session, person):
        optimizer.register_step_pre_hook(lambda o, *_: used.append(rates_of(o)))
        order = Orders(person).give(SetLR(value="plan"))
        train(session, model, optimizer, BATCHES, steps=7, scheduler=stuck, at={4: order})
    assert used[2:4] == [[0.0], [0.0]]
    assert used[4:] == [[plan(4)], [plan(5)], [plan(6)]]


def test_a_change_outlives_a_rollback(tmp_path: Path) -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=0.1)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.9)
    used: list[list[float]] = []
    options: dict[str, Any] = {"scheduler": schedule, "snapshot_every": 2}
    with running(tmp_path, model, optimizer, **options) as (session, person):
        optimizer.register_step_pre_hook(lambda o, *_: used.append(rates_of(o)))
        orders = Orders(person)
        at = {
            5: orders.give(ScaleLR(factor=0.5)),
            8: orders.give(Rollback(checkpoint="s4")),
        }
        train(session, model, optimizer, BATCHES, steps=10, scheduler=schedule, at=at)
    assert [rates[0] for rates in used[8:]] == pytest.approx([0.05 * 0.9**s for s in range(4, 10)])


def test_an_update_that_raises_leaves_the_schedule_as_it_was(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)

    def fail() -> float:
        raise RuntimeError("out of memory")

    with running(tmp_path, model, optimizer) as (session, person):
        order = Orders(person).give(ScaleLR(factor=0.5))
        for batch in session.batches(BATCHES, steps=6):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            if session.executed == 3:
                with pytest.raises(RuntimeError):
                    optimizer.step(fail)
            else:
                optimizer.step()
            session.report(loss=loss)
            assert rates_of(optimizer) == [0.1]
            if session.executed == 2:
                order()


def test_the_change_is_gone_with_the_session(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer) as (session, person):
        order = Orders(person).give(ScaleLR(factor=0.5))
        train(session, model, optimizer, BATCHES, steps=4, at={2: order})
    used: list[list[float]] = []
    optimizer.register_step_pre_hook(lambda o, *_: used.append(rates_of(o)))
    loss_of(model, BATCHES[0]).backward()
    optimizer.step()
    assert used == [[0.1]]

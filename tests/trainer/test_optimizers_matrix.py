"""The same answer under every optimizer and loop: what is done by an order is what a hand does.

Each flight gets the same orders. A loop without a session gets the same changes by hand, in the
plainest way torch offers, and must lose the same, bit for bit.
"""

import contextlib
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adafactor, Adam, AdamW, NAdam, Optimizer, RMSprop
from trainer.loops import Losses, Orders, loss_of, make_batches, make_model, running

from autopilot.errors import BadInput
from autopilot.schema import (
    Freeze,
    ResetOptimizerState,
    Rollback,
    ScaleLR,
    SetGradClip,
    SetModule,
    SetOptimizer,
)
from autopilot_trainer import Session

STEPS, BACK_AT, BACK_TO = 30, 24, 20
SCALED, DECAYED, RESET, FROZEN, CLIPPED = 4, 8, 12, 16, 20
FACTOR, DECAY, NORM = 0.3, 0.2, 0.5
ORDERS: dict[int, Any] = {
    SCALED: ScaleLR(factor=FACTOR),
    DECAYED: SetOptimizer(name="weight_decay", value=DECAY),
    RESET: ResetOptimizerState(),
    FROZEN: Freeze(module="0"),
    CLIPPED: SetGradClip(max_norm=NORM),
    BACK_AT: Rollback(checkpoint=f"s{BACK_TO}"),
}

Make = Callable[[nn.Module], Optimizer]


def two_groups(model: nn.Module) -> Optimizer:
    first, *rest = model.parameters()
    groups = [{"params": [first], "lr": 0.05, "weight_decay": 0.3}, {"params": rest}]
    return AdamW(groups, lr=0.02)


def plainly(cls: Any, **options: Any) -> Make:
    return lambda model: cls(model.parameters(), **{"lr": 0.02, "weight_decay": 0.01} | options)


OPTIMIZERS: dict[str, Make] = {
    "SGD": plainly(SGD),
    "SGD, momentum": plainly(SGD, momentum=0.9),
    "SGD, nesterov, foreach": plainly(SGD, momentum=0.9, nesterov=True, foreach=True),
    "SGD, fused": plainly(SGD, momentum=0.9, fused=True),
    "Adam": plainly(Adam),
    "Adam, amsgrad, foreach": plainly(Adam, amsgrad=True, foreach=True),
    "Adam, fused": plainly(Adam, fused=True),
    "Adam, tensor lr": lambda model: Adam(model.parameters(), lr=torch.tensor(0.02)),
    "AdamW": plainly(AdamW),
    "AdamW, foreach": plainly(AdamW, foreach=True),
    "AdamW, fused": plainly(AdamW, fused=True),
    "AdamW, fused, tensor lr": lambda model: AdamW(
        model.parameters(), lr=torch.tensor(0.02), fused=True
    ),
    "AdamW, two groups": two_groups,
    "NAdam": plainly(NAdam),
    "RMSprop": plainly(RMSprop),
    "RMSprop, centred, momentum": plainly(RMSprop, momentum=0.9, centered=True, foreach=True),
    "Adafactor": plainly(Adafactor),
    "Adafactor, foreach": plainly(Adafactor, foreach=True),
}


@dataclass
class Loop:
    """A way to train, with a session or by hand."""

    make: Make = OPTIMIZERS["AdamW"]
    accumulation: int | None = None
    bf16: bool = False
    scaled: bool = False
    backend: str | None = None
    device: str = "cpu"

    def build(self) -> tuple[nn.Module, Any, Any]:
        model: Any = make_model(dropout=0.2).to(self.device)
        optimizer = self.make(model)
        scaler = torch.amp.GradScaler(self.device) if self.scaled else None
        if self.backend is not None:
            model = torch.compile(model, backend=self.backend)
        return model, optimizer, scaler

    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        batch = batch.to(self.device)
        with torch.autocast(self.device, torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            return loss_of(model, batch)

    def fly(self, folder: Path) -> tuple[Losses, list[Any]]:
        """Under a session, with the orders; losses and what became of each order."""
        model, optimizer, scaler = self.build()
        options = {"accumulation": self.accumulation, "snapshot_every": 2, "scaler": scaler}
        with running(folder, model, optimizer, **options) as (session, person):
            orders = Orders(person)
            at = {when: orders.give(what) for when, what in ORDERS.items()}
            losses = self._train(session, model, optimizer, scaler, at)
            return losses, [orders[i] for i in range(len(ORDERS))]

    def _train(
        self, session: Session, model: nn.Module, optimizer: Any, scaler: Any, at: Any
    ) -> Losses:
        losses: Losses = []
        for batch in session.batches(make_batches(), steps=STEPS):
            loss = self.loss(model, batch)
            part = loss / session.accumulation
            (part if scaler is None else scaler.scale(part)).backward()
            if session.update_due:
                self._update(optimizer, scaler)
            session.report(loss=loss)
            losses.append((session.step, loss.item()))
            if session.executed in at:
                at[session.executed]()
        return losses

    def by_hand(self) -> Losses:
        """Without a session: the same changes, the plainest way."""
        model, optimizer, scaler = self.build()
        own = [float(group["lr"]) for group in optimizer.param_groups]
        fresh = optimizer.__class__
        losses: Losses = []
        batches = make_batches()
        every = self.accumulation or 1
        for step in range(STEPS):
            loss = self.loss(model, batches[step % len(batches)])
            part = loss / every
            (part if scaler is None else scaler.scale(part)).backward()
            if (step + 1) % every == 0:
                if step >= SCALED:
                    set_rates(optimizer, own)
                if step >= DECAYED:
                    for group in optimizer.param_groups:
                        group["weight_decay"] = DECAY
                if step == RESET + every - 1:
                    optimizer = fresh(optimizer.param_groups)
                if scaler is not None and step >= FROZEN:
                    scaler.unscale_(optimizer)
                self._freeze_and_clip(model, optimizer, step)
                self._update(optimizer, scaler)
            losses.append((step + 1, loss.item()))
        return losses

    def _freeze_and_clip(self, model: nn.Module, optimizer: Any, step: int) -> None:
        if step >= FROZEN:
            held = [p for name, p in model.named_parameters() if name.split(".")[-2] == "0"]
            assert held
            for parameter in held:
                parameter.grad = None
        if step >= CLIPPED:
            nn.utils.clip_grad_norm_(model.parameters(), NORM)

    def _update(self, optimizer: Any, scaler: Any) -> None:
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()


def set_rates(optimizer: Optimizer, own: Iterable[float]) -> None:
    for group, rate in zip(optimizer.param_groups, own, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(FACTOR * rate)
        else:
            group["lr"] = FACTOR * rate


def check(loop: Loop, folder: Path) -> None:
    flown, records = loop.fly(folder)
    by_hand = loop.by_hand()
    for kind, record in zip([i.kind for i in ORDERS.values()], records, strict=True):
        assert record.receipt is not None, (kind, record.reason)
        assert record.receipt.proven, (kind, record.receipt.read_back)
    for until in (SCALED + 1, DECAYED + 1, RESET + 1, FROZEN + 1, CLIPPED + 1):
        assert flown[:until] == by_hand[:until], f"before step {until}"
    assert [loss for _, loss in flown[:BACK_AT]] == pytest.approx(
        [loss for _, loss in by_hand[:BACK_AT]], rel=1e-4
    ), "clipped"
    again = flown[BACK_AT:]
    assert again[: BACK_AT - BACK_TO] == flown[BACK_TO:BACK_AT], "back, bit for bit"
    assert all(math.isfinite(loss) for _, loss in flown)
    assert len({loss for _, loss in flown}) > BACK_AT - 2, "it trains"


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_order_does_what_a_hand_would_do_under_every_optimizer(
    kind: str, tmp_path: Path
) -> None:
    check(Loop(OPTIMIZERS[kind]), tmp_path)


LOOPS = {
    "bf16 autocast": Loop(bf16=True),
    "a loss scaler": Loop(scaled=True),
    "a loss scaler, fused": Loop(plainly(AdamW, fused=True), scaled=True),
    "accumulation": Loop(accumulation=2),
    "accumulation, momentum": Loop(plainly(SGD, momentum=0.9), accumulation=4),
    "accumulation, a loss scaler, bf16": Loop(accumulation=2, scaled=True, bf16=True),
    "a traced graph": Loop(backend="eager"),
}


@pytest.mark.parametrize("kind", LOOPS)
def test_every_order_does_what_a_hand_would_do_in_every_loop(kind: str, tmp_path: Path) -> None:
    check(LOOPS[kind], tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, within its compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_every_order_does_what_a_hand_would_do_in_a_compiled_graph(tmp_path: Path) -> None:
    check(Loop(backend="inductor"), tmp_path)


CUDA = {
    "capturable": Loop(plainly(AdamW, capturable=True), device="cuda"),
    "capturable, tensor lr": Loop(
        lambda m: AdamW(m.parameters(), lr=torch.tensor(0.02, device="cuda"), capturable=True),
        device="cuda",
    ),
    "fused": Loop(plainly(AdamW, fused=True), device="cuda"),
    "fused, a loss scaler": Loop(plainly(AdamW, fused=True), device="cuda", scaled=True),
    "Adafactor": Loop(plainly(Adafactor), device="cuda"),
    "bf16 autocast": Loop(bf16=True, device="cuda"),
}


@pytest.mark.parametrize("kind", CUDA)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch captures graphs on a GPU only")
def test_every_order_does_what_a_hand_would_do_on_a_gpu(kind: str, tmp_path: Path) -> None:
    check(CUDA[kind], tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_traced_graph_computes_with_a_setting_from_the_next_step_on(
    backend: str, tmp_path: Path
) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")

    def losses(folder: str, backend: str | None) -> Losses:
        loop = Loop(backend=backend)
        model, optimizer, _ = loop.build()
        with running(tmp_path / folder, model, optimizer) as (session, person):
            orders = Orders(person)
            at = {
                3: orders.give(SetModule(module="2", name="p", value=0.0)),
                6: orders.give(SetModule(module="2", name="p", value=0.9)),
            }
            return loop._train(session, model, optimizer, None, at)

    plain, traced = losses("a", None), losses("b", backend)
    if backend == "eager":
        assert traced == plain
    else:  # draws its masks in another order: without any, all is the same
        undropped = slice(3, 6)
        assert len({loss for _, loss in traced[undropped]}) == 3
        assert [loss for _, loss in traced[6:]] != [loss for _, loss in plain[3:]]


@pytest.mark.parametrize("moments", ["first", "second", "all"])
def test_fresh_moments_never_make_a_giant_of_the_next_update(moments: Any, tmp_path: Path) -> None:
    model = nn.Linear(4, 1)
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    moved: list[float] = []
    with running(tmp_path, model, optimizer) as (session, person):
        at = {20: Orders(person).give(ResetOptimizerState(moments=moments))}
        for _ in session.batches(make_batches(), steps=30):
            before = model.weight.detach().clone()
            optimizer.zero_grad()
            loss = model(torch.ones(1, 4)).sum()
            loss.backward()
            optimizer.step()
            session.report(loss=loss)
            moved.append(float((model.weight.detach() - before).abs().max()))
            if session.executed in at:
                at[session.executed]()
    assert moved[:20] == pytest.approx([0.01] * 20, rel=1e-3), "constant gradients"
    assert max(moved[20:]) <= 0.02


# --- several optimizers ---------------------------------------------------------------------------


class Gan(nn.Module):
    """A generator and a discriminator that train against each other, each by its own optimizer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))
        self.discriminator = nn.Sequential(
            nn.Linear(4, 8), nn.LeakyReLU(), nn.Dropout(0.2), nn.Linear(8, 1)
        )

    def optimizers(self) -> tuple[Optimizer, Optimizer]:
        return (
            AdamW(self.generator.parameters(), lr=0.02, weight_decay=0.01),
            SGD(self.discriminator.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01),
        )

    def step(self, batch: torch.Tensor, one: Optimizer, other: Optimizer) -> float:
        fake = self.generator(torch.randn(len(batch), 2))
        other.zero_grad()
        judged = torch.cat([self.discriminator(batch), -self.discriminator(fake.detach())])
        nn.functional.softplus(-judged).mean().backward()
        other.step()
        one.zero_grad()
        loss: torch.Tensor = nn.functional.softplus(-self.discriminator(fake)).mean()
        loss.backward()
        one.step()
        return loss.item()


def gan_by_hand(change: Callable[[int, Optimizer, Optimizer], None]) -> list[float]:
    model = Gan()
    one, other = model.optimizers()
    batches, losses = make_batches(), list[float]()
    for step in range(STEPS):
        change(step, one, other)
        losses.append(model.step(batches[step % len(batches)], one, other))
    return losses


def gan_flown(folder: Path, orders: dict[int, Any]) -> tuple[list[float], list[Any], Any]:
    model = Gan()
    one, other = model.optimizers()
    losses: list[float] = []
    options: Any = {"snapshot_every": 2}
    with running(folder, model, (one, other), **options) as (session, person):  # type: ignore[arg-type]
        given = Orders(person)
        at = {when: given.give(*what) for when, what in orders.items()}
        for batch in session.batches(make_batches(), steps=STEPS):
            losses.append(model.step(batch, one, other))
            session.report(loss=losses[-1])
            if session.executed in at:
                at[session.executed]()
        info, rows = person.info(), person.rows()
        records = [given[i] for i in range(len(orders))]
    assert not info.faults
    assert all({"grad_norm", "grad_norm[1]"} <= row.values.keys() for row in rows)
    for record in records:
        assert record.receipt is not None, record.reason
        assert record.receipt.proven, record.receipt.read_back
    return losses, records, info


def test_two_optimizers_take_the_orders_as_a_hand_would_give_them(tmp_path: Path) -> None:
    def change(step: int, one: Optimizer, other: Optimizer) -> None:
        if step >= 4:
            one.param_groups[0]["lr"] = 0.3 * 0.02
            other.param_groups[0]["lr"] = 0.3 * 0.05
        if step >= 8:
            other.param_groups[0]["lr"] = 2 * 0.3 * 0.05
        if step >= 12:
            for optimizer in (one, other):
                optimizer.param_groups[0]["weight_decay"] = 0.2
        if step == 16:
            one.state.clear()
            other.state.clear()

    orders = {
        4: [ScaleLR(factor=0.3)],
        8: [ScaleLR(factor=2.0, groups=(1,))],
        12: [SetOptimizer(name="weight_decay", value=0.2)],
        16: [ResetOptimizerState()],
        24: [Rollback(checkpoint="s20")],
    }
    flown, records, info = gan_flown(tmp_path, orders)
    assert flown[:24] == gan_by_hand(change)[:24]
    assert flown[24:28] == flown[20:24], "back, bit for bit"
    fields = [[c.field for c in r.receipt.changes] for r in records[:3]]
    assert fields == [["lr[0]", "lr[1]"], ["lr[1]"], ["weight_decay[0]", "weight_decay[1]"]]
    settings = {n for n in info.capabilities.settings if n.startswith("optimizer.")}
    assert settings == {"optimizer.groups", "optimizer.weight_decay"}, "what both of them have"


def test_either_of_two_optimizers_can_be_frozen_out_while_the_other_trains_on(
    tmp_path: Path,
) -> None:
    frozen = {6: [Freeze(module="discriminator")]}
    flown, records, _ = gan_flown(tmp_path, frozen)
    assert records[0].receipt.results["parameters"] == 49
    plain = gan_by_hand(lambda *_: None)
    assert flown[:6] == plain[:6]
    assert flown[6:] != plain[6:]

    def hold(step: int, one: Optimizer, other: Optimizer) -> None:
        if step == 6:
            for parameter in other.param_groups[0]["params"]:
                parameter.register_hook(torch.zeros_like)
            other.param_groups[0].update(lr=0.0)

    assert flown == gan_by_hand(hold)


def test_one_parameter_under_two_optimizers_is_refused(tmp_path: Path) -> None:
    model = make_model()
    both = [SGD(model.parameters(), lr=0.1), AdamW(model.parameters(), lr=0.1)]
    with pytest.raises(BadInput, match="one parameter is trained by two"):
        Session(model, both, run_dir=tmp_path / "run")

"""Changing the model itself: settings of modules, parameters drawn anew, modules frozen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim import LBFGS, SGD, AdamW
from trainer.loops import Orders, loss_of, make_batches, make_model, running, train

from autopilot.errors import Unsupported
from autopilot.schema import (
    Freeze,
    ProposalRecord,
    ResetModule,
    Rollback,
    ScaleLR,
    SetBatch,
    SetKnob,
    SetModule,
    Unfreeze,
    intervention_adapter,
)
from autopilot_trainer import Session

BATCHES = make_batches()


class Parts(nn.Module):
    """One of everything that has a setting, with two tied layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight
        self.bn = nn.BatchNorm1d(4)
        self.norm = nn.LayerNorm(4)
        self.drop = nn.Dropout(0.25)
        self.act = nn.LeakyReLU(0.1)
        self.scale = nn.Parameter(torch.ones(4))
        self.heads = nn.MultiheadAttention(4, 2, dropout=0.1, batch_first=True)
        self.out = nn.Linear(4, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.bn(self.tied(self.first(batch))))) * self.scale
        x, _ = self.heads(x[None], x[None], x[None])
        found: torch.Tensor = self.out(self.drop(x[0]))
        return found


def proven(record: ProposalRecord) -> dict[str, tuple[Any, Any]]:
    assert record.receipt is not None, record.reason
    assert record.receipt.proven, record.receipt.read_back
    return {change.field: (change.old, change.new) for change in record.receipt.changes}


def copied(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, one, other))


# --- what is offered ----------------------------------------------------------------------------


def test_the_modules_are_a_closed_list_with_values_bounds_and_sizes(tmp_path: Path) -> None:
    model = Parts()
    with running(tmp_path, model, SGD(model.parameters(), lr=0.1)) as (session, person):
        train(session, model, SGD(model.parameters(), lr=0.1), BATCHES, steps=1)
        can = person.info().capabilities
    assert {"set_module", "reset_module", "freeze", "unfreeze"} <= {*can.interventions}
    assert "set_batch" not in can.interventions
    settings = {
        (name, s.name): (s.value, s.minimum, s.maximum)
        for name, module in can.modules.items()
        for s in module.settings.values()
    }
    assert settings == {
        ("bn", "eps"): (1e-5, 1e-12, 0.1),
        ("bn", "momentum"): (0.1, 0.0, 1.0),
        ("norm", "eps"): (1e-5, 1e-12, 0.1),
        ("drop", "p"): (0.25, 0.0, 0.95),
        ("act", "negative_slope"): (0.1, 0.0, 1.0),
        ("heads", "dropout"): (0.1, 0.0, 0.95),
    }
    sizes = {name: (module.parameters, module.trained) for name, module in can.modules.items()}
    assert sizes["first"] == sizes["tied"] == (20, 20)
    assert sizes["drop"] == (0, 0)
    resettable = {name for name, module in can.modules.items() if module.resettable}
    assert resettable == {"first", "tied", "bn", "norm", "heads", "heads.out_proj", "out"}


@pytest.mark.parametrize(
    "wrong",
    [
        SetModule(module="nowhere", name="p", value=0.1),
        SetModule(module="first", name="p", value=0.1),
        SetModule(module="drop", name="p", value=0.96),
        SetModule(module="drop.p", name="p", value=0.1),
        SetModule(module="*", name="p", value=0.1),
        SetModule(module="__class__", name="eps", value=0.1),
        SetModule(module="../drop", name="p", value=0.1),
        SetModule(module="norm", name="eps", value=0.0),
        ResetModule(module="drop"),
        Freeze(module="drop"),
        Freeze(module="."),
        Unfreeze(module="first"),
        SetBatch(accumulation=2),
    ],
)
def test_what_is_not_on_the_list_is_refused_with_what_there_is(wrong: Any, tmp_path: Path) -> None:
    model = Parts()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer) as (session, person):
        train(session, model, optimizer, BATCHES, steps=1)
        with pytest.raises(Unsupported) as refused:
            person.command((wrong,), force=True)
    said = str(refused.value)
    assert len(said.splitlines()) == 1
    told = ("can address", "expected", "it has", "offers", "frozen", "has parameters")
    assert any(word in said for word in (*told, "has no parameters", "allowed: "))


@pytest.mark.parametrize("name", ["weight", "forward", "training", "__dict__", "p.real"])
def test_no_other_attribute_can_be_named_at_all(name: str) -> None:
    with pytest.raises(ValidationError):
        intervention_adapter.validate_python(
            {"kind": "set_module", "module": "drop", "name": name, "value": 0.1}
        )


class Odd(nn.Dropout):
    """A user's own dropout: its rate is computed, so there is no number to set."""

    @property
    def p(self) -> float:  # type: ignore[override]
        return 0.5

    @p.setter
    def p(self, value: float) -> None:
        self.touched = getattr(self, "touched", 0) + 1


def test_a_property_of_the_users_own_is_never_set(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 1), Odd())
    touched = model[1].touched
    with running(tmp_path, model, SGD(model.parameters(), lr=0.1)) as (_, person):
        can = person.info().capabilities
        with pytest.raises(Unsupported):
            person.command((SetModule(module="1", name="p", value=0.1),))
    assert "1" not in can.modules
    assert model[1].touched == touched


# --- set_module -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name", "new"),
    [("drop", "p", 0.6), ("norm", "eps", 0.05), ("bn", "momentum", 0.5), ("heads", "dropout", 0.0),
     ("act", "negative_slope", 0.9)],
)  # fmt: skip
def test_a_setting_of_a_module_is_in_force_at_the_next_step_proven_and_undone(
    module: str, name: str, new: float, tmp_path: Path
) -> None:
    model = Parts()
    part = model.get_submodule(module)
    old, used = getattr(part, name), list[float]()
    model.register_forward_pre_hook(lambda *_: used.append(getattr(part, name)))
    optimizer = SGD(model.parameters(), lr=0.01)
    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        change = SetModule(module=module, name=name, value=new)  # type: ignore[arg-type]
        at = {3: orders.give(change), 6: orders.revert()}
        train(session, model, optimizer, BATCHES, steps=9, at=at)
        assert proven(orders[0]) == {f"{module}.{name}": (old, new)}
        assert proven(orders[1]) == {f"{module}.{name}": (new, old)}
        assert orders[0].status == "reverted"
    assert used == [old] * 3 + [new] * 3 + [old] * 3


def test_a_schedule_of_the_scripts_own_that_writes_over_a_setting_is_found_out(
    tmp_path: Path,
) -> None:
    model = make_model(dropout=0.3)
    optimizer = SGD(model.parameters(), lr=0.01)

    def anneal(*_: Any) -> None:
        model[2].p = 0.2

    model.register_forward_hook(anneal)
    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        at = {3: orders.give(SetModule(module="2", name="p", value=0.7))}
        train(session, model, optimizer, BATCHES, steps=9, at=at)
        record = orders[0]
    assert record.receipt is not None
    assert record.receipt.proven is False
    assert record.status == "reverted"


# --- freeze ---------------------------------------------------------------------------------------

FACTORIES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "AdamW": lambda p: AdamW(p, lr=0.05, weight_decay=0.5),
    "SGD with momentum": lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
    "fused AdamW": lambda p: AdamW(p, lr=0.05, weight_decay=0.5, fused=True),
}


@pytest.mark.parametrize("kind", FACTORIES)
def test_neither_decay_nor_momentum_moves_what_is_frozen(kind: str, tmp_path: Path) -> None:
    model = make_model()
    optimizer = FACTORIES[kind](model.parameters())
    seen: list[list[torch.Tensor]] = []
    states: list[Any] = []

    def look() -> None:
        seen.append(copied(model))
        states.append([dict(optimizer.state[p]) for p in model[0].parameters()])
        states[-1] = [{k: v.clone() for k, v in s.items()} for s in states[-1]]

    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        at = {
            4: lambda: (look(), orders.give(Freeze(module="0"))()),
            9: lambda: (look(), orders.revert()()),
            12: look,
        }
        train(session, model, optimizer, BATCHES, steps=13, at=at)
        assert proven(orders[0]) == {"0 frozen": (False, True)}
        assert proven(orders[1]) == {"0 frozen": (True, False)}
        assert orders[0].receipt.results["parameters"] == 40
    frozen, thawed = slice(0, 2), slice(2, 4)
    assert same(seen[0][frozen], seen[1][frozen])
    assert not same(seen[0][thawed], seen[1][thawed])
    assert not any(map(torch.equal, seen[1][frozen], seen[2][frozen]))
    for before, after in zip(states[0], states[1], strict=True):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_loop_keeps_the_gradients_of_what_is_frozen(tmp_path: Path) -> None:
    def flight(folder: str, freezes: bool) -> Any:
        model = make_model()
        optimizer = SGD(model.parameters(), lr=0.05)
        gradients: list[torch.Tensor] = []
        with running(tmp_path / folder, model, optimizer) as (session, person):

            def look() -> None:
                assert model[0].weight.requires_grad
                assert model[0].weight.grad is not None
                gradients.append(model[0].weight.grad.clone())

            order = Orders(person).give(Freeze(module="0"))
            at = {4: order if freezes else lambda: None, 5: look, 6: look}
            losses = train(session, model, optimizer, BATCHES, steps=7, at=at)
        return [loss for _, loss in losses], gradients

    plain, of_plain = flight("a", False)
    frozen, of_frozen = flight("b", True)
    assert plain[:5] == frozen[:5], "it is in force from the next update, not on the next loss"
    assert torch.equal(of_plain[0], of_frozen[0])
    assert plain[5] != frozen[5]


def test_a_loop_that_freezes_everything_goes_on_without_an_error(tmp_path: Path) -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=0.05)
    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        at = {3: orders.give(Freeze(module="0"), Freeze(module="3"))}
        losses = train(session, model, optimizer, BATCHES * 3, steps=24, at=at)
        proven(orders[0])
    assert [loss for _, loss in losses[8:16]] == [loss for _, loss in losses[16:24]]


def test_a_tied_weight_is_frozen_with_either_module_and_let_go_with_the_last(
    tmp_path: Path,
) -> None:
    model = Parts()
    optimizer = AdamW(model.parameters(), lr=0.05)
    seen: list[torch.Tensor] = []

    def look() -> None:
        seen.append(model.first.weight.detach().clone())

    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        at = {
            3: lambda: (look(), orders.give(Freeze(module="first"))()),
            5: orders.give(Freeze(module="tied")),
            7: orders.give(Unfreeze(module="first")),
            9: lambda: (look(), orders.give(Unfreeze(module="tied"))()),
            11: look,
        }
        train(session, model, optimizer, BATCHES, steps=12, at=at)
        assert orders[0].receipt.results["shared_with"] == "tied"
        frozen = person.info().capabilities.frozen
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert frozen == ()


def test_clipping_counts_only_what_is_not_frozen(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)
    with running(tmp_path, model, optimizer) as (session, person):
        at = {4: Orders(person).give(Freeze(module="0"), Freeze(module="3"))}
        train(session, model, optimizer, BATCHES, steps=8, at=at)
        norms = [row.values["grad_norm"] for row in person.rows()]
    assert all(norm > 0 for norm in norms[:4])
    assert norms[4:] == [0.0] * 4


def test_an_optimizer_that_computes_gradients_itself_offers_no_freezing(tmp_path: Path) -> None:
    model = make_model()
    optimizer = LBFGS(model.parameters(), lr=0.1, max_iter=2)
    with running(tmp_path, model, optimizer) as (session, person):
        for batch in session.batches(BATCHES, steps=3):

            def closure(batch: torch.Tensor = batch) -> torch.Tensor:
                optimizer.zero_grad()
                loss = loss_of(model, batch)
                loss.backward()
                return loss

            session.report(loss=optimizer.step(closure))  # type: ignore[arg-type]
        offered = person.info().capabilities.interventions
    assert not {"freeze", "unfreeze"} & {*offered}


def test_freezing_stays_in_force_over_a_rollback(
    tmp_path: Path,
) -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=0.05)
    seen: list[list[torch.Tensor]] = []
    with running(tmp_path, model, optimizer, snapshot_every=2) as (session, person):
        orders = Orders(person)
        at = {
            3: orders.give(Freeze(module="0")),
            6: orders.give(Rollback(checkpoint="s4")),
            7: lambda: seen.append(copied(model[0])),
            10: lambda: seen.append(copied(model[0])),
        }
        train(session, model, optimizer, BATCHES, steps=9, at=at)
        proven(orders[0])
    assert same(*seen)


# --- reset_module --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_module_is_drawn_anew_with_its_moments_zeroed_and_undone_bit_for_bit(
    kind: str, tmp_path: Path
) -> None:
    model = make_model(dropout=0.2)
    optimizer = FACTORIES[kind](model.parameters())
    seen: list[list[torch.Tensor]] = []
    moments: list[float] = []

    def look(o: Any, *_: Any) -> None:
        states = [o.state[p] for p in model[3].parameters() if p in o.state]
        moments.append(sum(float(v.abs().sum()) for s in states for v in s.values()))

    with running(tmp_path, model, optimizer) as (session, person):
        optimizer.register_step_pre_hook(look)
        orders = Orders(person)
        at = {
            5: lambda: (seen.append(copied(model)), orders.give(ResetModule(module="3"))()),
            7: lambda: orders.revert()(),
        }
        losses = train(session, model, optimizer, BATCHES, steps=8, at=at)
        record = orders[0]
        assert record.receipt is not None, record.reason
        changes = {c.field: (c.old, c.new) for c in record.receipt.changes}
        assert orders[1].receipt is not None, orders[1].reason
    old, new = changes["norm of 3"]
    flat = torch.cat([p.view(-1) for p in seen[0][2:]])
    assert old == pytest.approx(float(flat.norm()))
    assert new != old
    assert changes["moments of 3"][0] > 0
    assert moments[5] == 0.0, "the first update after it begins with no moments"
    assert record.receipt.results["parameters"] == 9
    assert record.receipt.proven
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6, 7, 6, 7, 8]
    undisturbed = make_model(dropout=0.2)
    plain = FACTORIES[kind](undisturbed.parameters())
    with running(tmp_path / "plain", undisturbed, plain) as (session, _):
        expected = train(session, undisturbed, plain, BATCHES, steps=8)
    assert losses[:5] == expected[:5]
    assert losses[7:] == expected[5:], "undone: the same losses as if it had never been"
    assert losses[5:7] != expected[5:7]


class Replacing(nn.Linear):
    def reset_parameters(self) -> None:
        self.weight = nn.Parameter(torch.ones(self.out_features, self.in_features))


def test_a_reset_that_would_replace_trained_parameters_changes_nothing(tmp_path: Path) -> None:
    model = nn.Sequential(Replacing(4, 8, bias=False), nn.Tanh(), nn.Linear(8, 1))
    optimizer = SGD(model.parameters(), lr=0.01)
    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        at = {3: orders.give(ResetModule(module="0"))}
        train(session, model, optimizer, BATCHES, steps=5, at=at)
        record = orders[0]
        assert person.info().branch == "main"
    assert record.status == "rejected"
    assert "reset_parameters" in record.reason


def test_what_fails_after_a_reset_takes_it_back_without_a_trace(tmp_path: Path) -> None:
    def losses(folder: str, fails: bool) -> Any:
        model = make_model(dropout=0.3)
        optimizer = AdamW(model.parameters(), lr=0.02)
        with running(tmp_path / folder, model, optimizer) as (session, person):
            orders = Orders(person)

            def broken(value: float) -> None:
                raise ValueError(value)

            session.knob("k", lambda: 0.5, broken, minimum=0.0, maximum=1.0)
            order = orders.give(
                ScaleLR(factor=0.1),
                ResetModule(module="3"),
                Freeze(module="0"),
                SetModule(module="2", name="p", value=0.9),
                SetKnob(name="k", value=0.7),
            )
            at = {4: order} if fails else {}
            found = train(session, model, optimizer, BATCHES, steps=8, at=at)
            if fails:
                assert orders[0].status == "rejected"
            assert person.info().branch == "main"
            return found

    assert losses("a", True) == losses("b", False)


# --- set_batch ----------------------------------------------------------------------------------


def accumulate(session: Session, model: nn.Module, optimizer: Any, *, steps: int, at: Any) -> Any:
    """Losses, and at which executed steps an update was made."""
    losses, updates = [], []
    for batch in session.batches(BATCHES, steps=steps):
        loss = loss_of(model, batch)
        (loss / session.accumulation).backward()
        if session.update_due:
            optimizer.step()
            optimizer.zero_grad()
            updates.append(session.executed + 1)
        session.report(loss=loss)
        losses.append((session.step, loss.item()))
        if session.executed in at:
            at[session.executed]()
    return losses, updates


def test_accumulation_changes_with_the_next_update_that_is_begun_and_is_undone(
    tmp_path: Path,
) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.05)
    with running(tmp_path, model, optimizer, accumulation=4) as (session, person):
        orders = Orders(person)
        at = {6: orders.give(SetBatch(accumulation=2)), 13: orders.revert()}
        _, updates = accumulate(session, model, optimizer, steps=26, at=at)
        assert proven(orders[0]) == {"accumulation": (4, 2)}
        assert proven(orders[1]) == {"accumulation": (2, 4)}
        setting = person.info().capabilities.settings["accumulation"]
        skipped = [row.values["update_skipped"] for row in person.rows()]
    assert updates == [4, 8, 10, 12, 14, 18, 22, 26]
    assert (setting.value, setting.default, setting.minimum, setting.maximum) == (4, 4, 1, 1024)
    assert not any(skipped)


def test_accumulation_that_grows_from_one_is_no_skipped_update(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.05)
    with running(tmp_path, model, optimizer, accumulation=1) as (session, person):
        at = {10: Orders(person).give(SetBatch(accumulation=3))}
        _, updates = accumulate(session, model, optimizer, steps=19, at=at)
        assert not any(row.values["update_skipped"] for row in person.rows())
        assert person.findings() == []
    assert updates == [*range(1, 11), 13, 16, 19]


@pytest.mark.parametrize("back_to", ["s6", "s8"], ids=["within an update", "between updates"])
def test_going_back_within_an_accumulated_update_is_exact(back_to: str, tmp_path: Path) -> None:
    def flight(folder: str, at: Callable[[Orders], Any]) -> Any:
        model = make_model(dropout=0.3)
        optimizer = AdamW(model.parameters(), lr=0.02)
        options = {"accumulation": 4, "snapshot_every": 2}
        with running(tmp_path / folder, model, optimizer, **options) as (session, person):
            orders = Orders(person)
            return accumulate(session, model, optimizer, steps=16, at=at(orders))

    plain, _ = flight("a", lambda o: {})
    back, _ = flight("b", lambda o: {11: o.give(Rollback(checkpoint=back_to))})
    assert back[:11] == plain[:11]
    assert back[11:] == plain[int(back_to[1:]) :]


def test_a_loop_that_never_asks_is_not_offered_accumulation(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.05)
    with running(tmp_path, model, optimizer, accumulation=4) as (session, person):
        train(session, model, optimizer, BATCHES, steps=3)
        assert "set_batch" not in person.info().capabilities.interventions


# --- a run that goes on in another process --------------------------------------------------------


def test_what_was_set_frozen_and_accumulated_is_in_force_again_after_a_resume(
    tmp_path: Path,
) -> None:
    def flight(steps: int, orders: dict[int, Any], **more: Any) -> Any:
        model = make_model(dropout=0.3)
        optimizer = AdamW(model.parameters(), lr=0.02)
        options = {"accumulation": 2, "checkpoint_every": 4} | more
        with running(tmp_path, model, optimizer, **options) as (session, person):
            given = Orders(person)
            at = {when: given.give(*what) for when, what in orders.items()}
            losses, _ = accumulate(session, model, optimizer, steps=steps, at=at)
            return losses, person.info().capabilities, model

    orders = {
        3: [SetModule(module="2", name="p", value=0.1), Freeze(module="0")],
        5: [SetBatch(accumulation=4)],
    }
    flight(9, orders)
    _, can, model = flight(16, {}, resume=True)
    assert model[2].p == 0.1
    assert can.modules["2"].settings["p"].default == 0.3
    assert can.frozen == ("0",)
    assert can.settings["accumulation"].value == 4

"""Going back: bit for bit, with the data, and undone as exactly."""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR
from torch.utils.data import DataLoader, Dataset, IterableDataset
from trainer.loops import (
    Losses,
    Orders,
    loss_of,
    make_batches,
    make_model,
    running,
    train,
)
from trainer.test_learning_rate import SCHEDULERS

from autopilot.client import connect
from autopilot.errors import NotFound, Unsupported
from autopilot.schema import Rollback, SaveCheckpoint, ScaleLR, SetGradClip, SetKnob
from autopilot_trainer import Session
from autopilot_trainer.checkpoints import CheckpointError, CheckpointStore
from autopilot_trainer.snapshots import SnapshotRing
from autopilot_trainer.state import Capture, TrainingState


class Points(Dataset[torch.Tensor]):
    """Fixed points, each with a little noise drawn when it is read."""

    def __init__(self, noise: float = 0.1) -> None:
        self._points = torch.cat(make_batches(5))
        self._noise = noise

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._points[index] + self._noise * torch.randn(4)


class Endless(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from torch.cat(make_batches(20))


def own_generator() -> DataLoader[torch.Tensor]:
    drawn = torch.Generator().manual_seed(5)
    return DataLoader(Points(), batch_size=6, shuffle=True, generator=drawn)


LOADERS: dict[str, Callable[[], Iterable[Any]]] = {
    "a list of batches": make_batches,
    "a shuffled loader": lambda: DataLoader(Points(), batch_size=6, shuffle=True),
    "a loader with workers": lambda: DataLoader(
        Points(), batch_size=6, shuffle=True, num_workers=2
    ),
    "a loader with its own generator": own_generator,
    "an iterable dataset": lambda: DataLoader(Endless(), batch_size=6),
}


class Flight:
    """One run from a fixed seed, and everything that came of it."""

    def __init__(
        self,
        folder: Path,
        loader: Iterable[Any],
        *,
        steps: int,
        orders: dict[int, Any] | None = None,
        **options: Any,
    ) -> None:
        self.model = make_model(dropout=0.3)
        self.optimizer = AdamW(self.model.parameters(), lr=0.02)
        schedule = CosineAnnealingLR(self.optimizer, 30)
        options = {"scheduler": schedule, "snapshot_every": 2} | options
        with running(folder, self.model, self.optimizer, **options) as (session, person):
            given = Orders(person)
            at = {
                when: given.revert() if what == "revert" else given.give(what)
                for when, what in (orders or {}).items()
            }
            self.losses: Losses = train(
                session,
                self.model,
                self.optimizer,
                loader,
                steps=steps,
                scheduler=schedule,
                at=at,
            )
            self.info = person.info()
            self.rows = person.rows()
            self.main_rows = person.rows(branch="main")
            self.events = person.events(0)
            self.records = [given[i] for i in range(len(orders or {}))]
        self.weights = [p.detach().clone() for p in self.model.parameters()]


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("target", ["s4", "s10"], ids=["across an epoch", "within an epoch"])
def test_a_rollback_reproduces_the_losses_bit_for_bit(
    kind: str, target: str, tmp_path: Path
) -> None:
    at = 13
    flight = Flight(tmp_path, LOADERS[kind](), steps=16, orders={at: Rollback(checkpoint=target)})
    back = int(target[1:])
    first, again = flight.losses[:at], flight.losses[at:]
    assert flight.records[0].receipt is not None, flight.records[0].reason
    assert flight.records[0].receipt.proven
    assert [step for step, _ in again] == [*range(back + 1, 17)]
    assert again[: at - back] == first[back:]
    undisturbed = Flight(tmp_path / "bare", LOADERS[kind](), steps=16)
    assert again == undisturbed.losses[back:]
    assert all(map(torch.equal, flight.weights, undisturbed.weights))


def test_a_rollback_to_the_very_beginning_is_exact(tmp_path: Path) -> None:
    loader = LOADERS["a shuffled loader"]()
    flight = Flight(tmp_path, loader, steps=8, orders={6: Rollback(checkpoint="s0")})
    assert flight.losses[6:12] == flight.losses[:6]


@pytest.mark.parametrize("make", [SGD, Adam, RMSprop, Adagrad, Adadelta, Adamax])
def test_every_optimizer_goes_back_exactly(make: Any, tmp_path: Path) -> None:
    model = make_model(dropout=0.2)
    optimizer: Optimizer = make(model.parameters(), lr=0.02)
    with running(tmp_path, model, optimizer, snapshot_every=2) as (session, person):
        at = {7: Orders(person).give(Rollback(checkpoint="s2"))}
        losses = train(session, model, optimizer, make_batches(), steps=8, at=at)
    assert losses[7:12] == losses[2:7]


def test_gradients_that_were_being_accumulated_come_back(tmp_path: Path) -> None:
    model = make_model(dropout=0.2)
    optimizer = AdamW(model.parameters(), lr=0.02)
    losses: list[float] = []
    with running(tmp_path, model, optimizer, snapshot_every=2) as (session, person):
        order = Orders(person).give(Rollback(checkpoint="s4"))
        for batch in session.batches(make_batches(), steps=12):
            loss = loss_of(model, batch)
            (loss / 3).backward()
            if (session.step + 1) % 3 == 0:
                optimizer.step()
                optimizer.zero_grad()
            session.report(loss=loss)
            losses.append(loss.item())
            if session.executed == 10:
                order()
        skipped = {row.values.get("update_skipped") for row in person.rows()}
    assert losses[10:16] == losses[4:10]
    assert skipped == {0.0}, "accumulating is not leaving out"


def test_batches_are_left_out_after_going_back(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.01)
    loader = [torch.full((6, 4), float(i)) for i in range(40)]
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(int(args[0][0, 0])))
    with running(tmp_path, model, optimizer, snapshot_every=2) as (session, person):
        orders = Orders(person)
        at = {5: orders.give(Rollback(checkpoint="s2", skip_batches=4)), 7: orders.revert()}
        losses = train(session, model, optimizer, loader, steps=7, at=at)
        changes = {c.field: (c.old, c.new) for c in orders[0].receipt.changes}  # type: ignore[union-attr]
    assert seen == [0, 1, 2, 3, 4, 6, 7, 5, 6]
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 3, 4, 6, 7]
    assert changes == {"step": (5, 2), "branch": ("main", "main.1"), "batch": (5, 6)}


def test_undoing_a_rollback_returns_exactly(tmp_path: Path) -> None:
    loader = LOADERS["a shuffled loader"]
    orders = {7: Rollback(checkpoint="s2"), 10: "revert"}
    flight = Flight(tmp_path / "a", loader(), steps=12, orders=orders)
    undisturbed = Flight(tmp_path / "b", loader(), steps=12)
    assert flight.losses[:7] + flight.losses[10:] == undisturbed.losses
    assert flight.records[0].status == "reverted"


def test_branches_and_rows_are_neither_lost_nor_blended(tmp_path: Path) -> None:
    orders = {7: Rollback(checkpoint="s2", skip_batches=1)}
    flight = Flight(tmp_path, make_batches(), steps=9, orders=orders)
    on_main = [(row.step, row.values["loss"]) for row in flight.main_rows]
    in_force = [(row.step, row.values["loss"]) for row in flight.rows]
    assert on_main == flight.losses[:7]
    assert in_force == flight.losses[:2] + flight.losses[7:]
    assert [row.branch for row in flight.rows] == ["main"] * 2 + ["main.1"] * 7
    assert flight.info.branch == "main.1"
    branch = next(event for event in flight.events if event.kind == "branch")
    assert (branch.body["parent"], branch.body["fork_step"]) == ("main", 2)


def test_settings_in_force_survive(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    knob = {"p": 0.1}
    with running(tmp_path, model, optimizer, snapshot_every=2) as (session, person):
        session.knob("p", lambda: knob["p"], lambda v: knob.update(p=v), minimum=0, maximum=1)
        orders = Orders(person)
        changes = ScaleLR(factor=0.5), SetGradClip(max_norm=0.3), SetKnob(name="p", value=0.2)
        at = {5: orders.give(*changes), 8: orders.give(Rollback(checkpoint="s4"))}
        train(session, model, optimizer, make_batches(), steps=8, at=at)
        settings_ = person.info().capabilities.settings
        assert person.info().branch == "main.1"
    assert settings_["lr"].value == 0.05
    assert settings_["grad_clip"].value == 0.3
    assert knob == {"p": 0.2}


def test_a_durable_checkpoint_is_gone_back_to_as_exactly(tmp_path: Path) -> None:
    loader = LOADERS["a shuffled loader"]
    orders = {4: SaveCheckpoint(tag="here"), 9: Rollback(checkpoint="step-4")}
    flight = Flight(tmp_path / "a", loader(), steps=11, orders=orders, snapshot_every=0)
    assert flight.losses[9:14] == flight.losses[4:9]


@pytest.mark.parametrize("damage", ["torn", "bit"])
def test_a_damaged_checkpoint_is_refused_and_nothing_changes(damage: str, tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)

    def harm() -> None:
        path = tmp_path / "run" / "checkpoints" / "step-4" / "state.pt"
        data = bytearray(path.read_bytes())
        if damage == "torn":
            del data[len(data) // 2 :]
        else:
            data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))

    with running(tmp_path, model, optimizer) as (session, person):
        orders = Orders(person)
        at = {
            4: orders.give(SaveCheckpoint()),
            6: harm,
            7: orders.give(Rollback(checkpoint="step-4")),
        }
        losses = train(session, model, optimizer, make_batches(), steps=9, at=at)
        assert orders[1].status == "rejected"
        assert "checksum" in orders[1].reason
        assert person.info().branch == "main"
    assert [step for step, _ in losses] == [*range(1, 10)]


def test_a_one_shot_iterator_is_read_on_and_never_gone_back_in(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with running(tmp_path, model, optimizer) as (session, person):

        def look() -> None:
            offered = person.info().capabilities.interventions
            assert not {"rollback", "reset_optimizer_state"} & {*offered}
            assert "skip_batches" in offered
            assert person.checkpoints() == []
            with pytest.raises(Unsupported, match="rollback"):
                person.command((Rollback(checkpoint="s0"),))

        stream = itertools.chain(make_batches(6))
        losses = train(session, model, optimizer, stream, steps=50, at={3: look})
    assert len(losses) == 6


def test_a_pass_for_each_epoch_begins_with_a_snapshot(tmp_path: Path) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    loader = make_batches(4)
    with running(tmp_path, model, optimizer, snapshot_every=4) as (session, person):
        for _ in range(3):
            train(session, model, optimizer, loader, steps=None)
            held = {c.step for c in person.checkpoints()}
            assert session.step - 4 in held
        assert person.info().faults == ()


# --- the ring of snapshots ------------------------------------------------------------------


def state_of(step: int, size: int) -> TrainingState:
    return TrainingState(step, {"w": torch.zeros(size, dtype=torch.uint8)}, ([], []), {}, {}, None)


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["plain", "plain", "plain", "pinned"]), max_size=150),
    room=st.integers(1, 60),
)
def test_the_ring_is_bounded_and_keeps_what_it_must(kinds: list[str], room: int) -> None:
    ring = SnapshotRing(1, max_bytes=room * 100)
    pins: list[str] = []
    for step, kind in enumerate(["plain", *kinds]):
        added = ring.add(state_of(step, 100), "main", pinned=kind == "pinned")
        pins += [added.id] * added.pinned
        held = [snapshot.id for snapshot in ring.all()]
        assert held[-1] == added.id
        assert len(set(held)) == len(held)
        must = {added.id, *pins[-4:]}
        assert must <= {*held}
        total = sum(snapshot.bytes for snapshot in ring.all())
        assert total <= ring.max_bytes or {*held} == must
        assert len(held) <= 48
        if room > len(must):
            assert ring.all()[0].first, "the first state stays while there is room"
        if room >= 12:
            assert len(held) >= min(12, step + 1)


@given(count=st.integers(60, 400))
@settings(max_examples=20, deadline=None)
def test_the_ring_grows_thin_with_age(count: int) -> None:
    ring = SnapshotRing(1, max_bytes=1 << 30)
    for step in range(count):
        ring.add(state_of(step, 1), "main")
    steps = [snapshot.state.step for snapshot in ring.all()]
    gaps = [after - before for before, after in itertools.pairwise(steps)]
    assert steps[0] == 0
    assert gaps[-3:] == [1, 1, 1], "the present is dense"
    for gap, at in zip(gaps, steps, strict=False):
        assert gap <= 1 + (count - at) / 4, "no gap is large against its age"


# --- durable checkpoints --------------------------------------------------------------------


def test_retention_keeps_the_newest_and_whatever_has_a_reason(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(state_of(9, 1), "main", "mine", keep=set())
    pinned = store.save(state_of(20, 1), "main", None, keep=set())
    store.pinned.add(pinned.id)
    good = store.save(state_of(30, 1), "main", None, keep=set())
    for step in range(100, 110):
        store.save(state_of(step, 1), "main", None, keep={good.id})
    kept = [info.id for info in store.infos()]
    assert kept == ["step-9", "step-20", "step-30", *(f"step-{s}" for s in range(105, 110))]
    assert sorted(kept) == sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(NotFound):
        store.load("step-100")
    assert [info.id for info in CheckpointStore(tmp_path).infos()] == kept


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    unwritable = TrainingState(3, {"f": lambda: 0}, ([], []), {}, {}, None)
    with pytest.raises(CheckpointError, match="not written"):
        store.save(unwritable, "main", None, keep=set())
    assert list(tmp_path.iterdir()) == []
    assert store.infos() == []


def test_a_torn_manifest_is_left_alone(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(state_of(3, 1), "main", None, keep=set())
    torn = tmp_path / "step-4"
    torn.mkdir()
    (torn / "manifest.json").write_text('{"id": "step-4", "st')
    assert [info.id for info in CheckpointStore(tmp_path).infos()] == ["step-3"]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_goes_through_a_durable_checkpoint(name: str, tmp_path: Path) -> None:
    def build() -> tuple[Any, Any, Any]:
        model = make_model()
        groups = [{"params": [*model[i].parameters()], "lr": lr} for i, lr in ((0, 0.1), (3, 0.01))]
        optimizer = SGD(groups, momentum=0.9)
        return model, optimizer, SCHEDULERS[name](optimizer)

    def advance(optimizer: Any, schedule: Any, count: int) -> list[Any]:
        course = []
        for _ in range(count):
            optimizer.step()
            schedule.step(*([1.0] if name == "ReduceLROnPlateau" else []))
            course.append([(g["lr"], g["momentum"]) for g in optimizer.param_groups])
        return course

    model, optimizer, schedule = build()
    advance(optimizer, schedule, 4)
    store = CheckpointStore(tmp_path)
    state = Capture(model, optimizer, {"scheduler": schedule}).take(4, None)
    store.save(state, "main", None, keep=set())
    wanted = advance(optimizer, schedule, 8)
    model, optimizer, schedule = build()
    advance(optimizer, schedule, 1)
    loaded = CheckpointStore(tmp_path).load("step-4")
    Capture(model, optimizer, {"scheduler": schedule}).give_back(loaded, None)
    assert advance(optimizer, schedule, 8) == wanted


def test_states_are_plain_data(tmp_path: Path) -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=0.1)
    loss_of(model, make_batches()[0]).backward()
    optimizer.step()
    state = Capture(model, optimizer, {"s": ExponentialLR(optimizer, 0.9)}).take(1, None)
    held = io.BytesIO()
    torch.save({name: getattr(state, name) for name in state.__dataclass_fields__}, held)
    held.seek(0)
    assert torch.load(held, weights_only=True)["step"] == 1


def test_a_state_too_large_for_memory_is_not_kept_and_rollback_uses_the_disk(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    data = [torch.randn(8, 64) for _ in range(50)]
    with (
        Session(model, optimizer, run_dir=tmp_path / "run", snapshot_bytes=20_000) as session,
        connect(str(tmp_path / "run"), "operator", "test") as run,
    ):
        for batch in session.batches(data, steps=40):
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            session.report(loss=loss)
            if session.executed == 12:
                run.command((SaveCheckpoint(tag="here"),), key="save")
            if session.executed == 20:
                run.command((Rollback(checkpoint="step-12"),), key="back")
        record = run.proposals()[-1]
        held = run.checkpoints()
        faults = run.info().faults
    assert record.receipt is not None
    assert record.receipt.proven
    assert {c.kind for c in held} == {"durable"}
    assert record.receipt.undo_checkpoint in {c.id for c in held if c.pinned}
    assert any("snapshot_bytes" in fault for fault in faults)

"""Branches by name: begun, left, switched between, undone, compared."""

import time
from pathlib import Path
from typing import Any

import pytest
from e2e.flying import autopilot, autopilot_json
from pydantic import ValidationError
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
from trainer.loops import (
    Losses,
    Orders,
    loss_of,
    make_batches,
    make_model,
    meanwhile,
    running,
    train,
    until,
)

from autopilot.client import connect
from autopilot.errors import Unsupported
from autopilot.policy import parse_policy
from autopilot.schema import (
    Freeze,
    Proposal,
    ProposalRecord,
    ResetModule,
    Rollback,
    ScaleLR,
    SetBatch,
    SetGradClip,
    SetKnob,
    SetModule,
    SetOptimizer,
    StartBranch,
    Stop,
    SwitchBranch,
    intervention_adapter,
)


class Flight:
    """One run from a fixed seed under orders, by executed steps."""

    def __init__(self, folder: Path, *, steps: int, orders: dict[int, Any]) -> None:
        model = make_model(dropout=0.3)
        optimizer = AdamW(model.parameters(), lr=0.02)
        schedule = CosineAnnealingLR(optimizer, 40)
        options: dict[str, Any] = {"scheduler": schedule, "snapshot_every": 4}
        self.knob = 0.5
        with running(folder, model, optimizer, **options) as (session, person):
            session.knob("k", lambda: self.knob, self._turn, minimum=0.0, maximum=1.0)
            given = Orders(person)
            at = {
                when: given.revert() if what == "revert" else given.give(*what)
                for when, what in orders.items()
            }
            batches = make_batches()
            self.losses: Losses = train(
                session, model, optimizer, batches, steps=steps, scheduler=schedule, at=at
            )
            self.records = [given[i] for i in range(len(orders))]
            self.info = person.info()
            self.folder = session.run_dir
            self.series = {
                name: dict(person.series(["lr"], branch=name)["lr"])
                for name in self.info.capabilities.branches
            }

    def _turn(self, value: float) -> None:
        self.knob = value


def changes(record: ProposalRecord) -> dict[str, tuple[Any, Any]]:
    assert record.receipt is not None, record.reason
    assert record.receipt.proven
    return {change.field: (change.old, change.new) for change in record.receipt.changes}


def test_a_branch_from_here_goes_on_exactly_as_the_run_would_have(tmp_path: Path) -> None:
    plain = Flight(tmp_path / "a", steps=20, orders={})
    branched = Flight(tmp_path / "b", steps=20, orders={7: [StartBranch(name="try-it")]})
    assert branched.losses == plain.losses
    assert branched.info.branch == "try-it"
    assert changes(branched.records[0]) == {
        "step": (7, 7),
        "branch": ("main", "try-it"),
        "batch": (7, 7),
    }


def test_a_branch_from_a_checkpoint_goes_back_exactly_and_undoing_it_forth_again(
    tmp_path: Path,
) -> None:
    plain = Flight(tmp_path / "a", steps=24, orders={})
    orders = {10: [StartBranch(name="again", checkpoint="s4")], 15: "revert"}
    flight = Flight(tmp_path / "b", steps=24, orders=orders)
    steps = [step for step, _ in flight.losses]
    assert steps == [*range(1, 11), *range(5, 10), *range(11, 25)]
    assert flight.losses[10:15] == plain.losses[4:9]
    assert flight.losses[15:] == plain.losses[10:], "back on the first course, bit for bit"
    assert flight.records[0].status == "reverted"
    assert flight.info.branch == "main.1"


def test_switching_comes_back_to_where_a_branch_was_left_with_what_was_in_force_on_it(
    tmp_path: Path,
) -> None:
    settings = [
        ScaleLR(factor=0.5),
        SetGradClip(max_norm=1.0),
        SetOptimizer(name="weight_decay", value=0.3),
        SetModule(module="2", name="p", value=0.1),
        Freeze(module="0"),
        SetKnob(name="k", value=0.9),
    ]
    plain = Flight(tmp_path / "a", steps=30, orders={})
    tried = Flight(tmp_path / "b", steps=30, orders={8: [StartBranch(name="low")], 9: settings})
    flight = Flight(
        tmp_path / "c",
        steps=30,
        orders={
            8: [StartBranch(name="low")],
            9: settings,
            14: [SwitchBranch(name="main")],
            20: [SwitchBranch(name="low")],
        },
    )
    assert flight.losses[:14] == tried.losses[:14]
    assert flight.losses[14:20] == plain.losses[8:14], "nothing of the branch is left in force"
    assert flight.losses[20:] == tried.losses[14:], "and all of it is back"
    there, back = changes(flight.records[2]), changes(flight.records[3])
    assert there["grad_clip"] == (1.0, None)
    assert there["optimizer.weight_decay"] == (0.3, 0.01)
    assert there["2.p"] == (0.1, 0.3)
    assert there["0 frozen"] == (True, False)
    assert there["knob k"] == (0.9, 0.5)
    assert back["grad_clip"] == (None, 1.0)
    assert back["0 frozen"] == (False, True)
    assert back["branch"] == ("main.1", "low.2")
    assert flight.knob == 0.9
    assert flight.info.capabilities.frozen == ("0",)


def test_undoing_a_switch_goes_back_to_the_branch_that_was_left(tmp_path: Path) -> None:
    tried = Flight(
        tmp_path / "a",
        steps=20,
        orders={5: [StartBranch(name="low"), ScaleLR(factor=0.5)]},
    )
    orders: dict[int, Any] = {
        5: [StartBranch(name="low"), ScaleLR(factor=0.5)],
        10: [SwitchBranch(name="main")],
        13: "revert",
    }
    flight = Flight(tmp_path / "b", steps=20, orders=orders)
    assert flight.losses[:10] == tried.losses[:10]
    assert flight.losses[13:] == tried.losses[10:]


def test_the_journal_keeps_the_courses_apart(tmp_path: Path) -> None:
    orders = {
        6: [StartBranch(name="low"), ScaleLR(factor=0.5)],
        12: [SwitchBranch(name="main")],
        16: [Rollback(checkpoint="s4")],
    }
    flight = Flight(tmp_path, steps=12, orders=orders)
    assert [*flight.series["low"]] == [*range(1, 13)]
    assert [*flight.series["main"]] == [*range(1, 7)]
    assert flight.series["low"][6] == flight.series["main.1"][6]
    assert flight.series["low"][7] == pytest.approx(0.5 * flight.series["main.1"][7])
    assert flight.info.branch == "main.2"
    states = flight.info.capabilities.branches
    assert states["main.2"] is None, "the run is on it"
    assert states["low"] is not None
    assert states["main.1"] is not None


@pytest.mark.parametrize(
    "name", ["", "a b", "../x", "a/b", "a\n", "1a", "-a", "main.1", "ü", "a" * 41, "a.b", "\x00"]
)
def test_a_name_that_is_none_is_refused_before_it_goes_anywhere(name: str) -> None:
    with pytest.raises(ValidationError):
        intervention_adapter.validate_python({"kind": "branch", "name": name})


def test_what_cannot_be_branched_or_switched_to_is_refused_with_what_there_is(
    tmp_path: Path,
) -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=0.02)
    with running(tmp_path, model, optimizer) as (session, person):
        train(session, model, optimizer, make_batches(), steps=5)
        for wrong, said in (
            (StartBranch(name="main"), "already"),
            (StartBranch(name="b", checkpoint="../../etc"), "the latest are"),
            (SwitchBranch(name="nowhere"), "there are: main"),
            (SwitchBranch(name="main"), "is on"),
        ):
            with pytest.raises(Unsupported, match=said):
                person.command((wrong,), force=True)
    files = {path.name for path in session.run_dir.iterdir()}
    assert files <= {"journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "run.json",
                     "tokens.json", "checkpoints", "journal.sqlite.lock"}, files  # fmt: skip


def test_a_branch_whose_checkpoint_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=0.02)
    with running(tmp_path, model, optimizer) as (session, person):
        (session.run_dir / "checkpoints").write_text("in the way")
        orders = Orders(person)
        at = {4: orders.give(StartBranch(name="b"))}
        train(session, model, optimizer, make_batches(), steps=6, at=at)
        assert orders[0].status == "rejected"
        assert "not written" in orders[0].reason
        assert person.info().branch == "main"


def test_branches_are_listed_and_compared_on_the_command_line(tmp_path: Path) -> None:
    orders: dict[int, Any] = {
        6: [StartBranch(name="low"), ScaleLR(factor=0.5)],
        16: [SwitchBranch(name="main")],
    }
    flight = Flight(tmp_path, steps=16, orders=orders)
    run = str(flight.folder)
    listed = autopilot_json("branches", run)
    assert [(b["name"], b["parent"], b["fork_step"], b["last_step"]) for b in listed] == [
        ("main", None, None, 6),
        ("low", "main", 6, 16),
        ("main.1", "main", 6, 16),
    ]
    shown = autopilot("branches", run)
    assert shown.returncode == 0
    assert "low" in shown.stdout

    compared = autopilot_json("compare", run, "low", "main.1")
    assert compared["fork_step"] == 6
    loss = compared["metrics"]["loss"]
    losses = [value for _, value in flight.losses]
    assert loss["low"]["last"] == losses[15]
    assert loss["low"]["minimum"] == min(losses[6:16])
    assert loss["low"]["count"] == loss["main.1"]["count"] == 10
    assert loss["main.1"]["last"] == losses[25]
    rates = compared["metrics"]["lr"]
    assert rates["low"]["median"] == pytest.approx(0.5 * rates["main.1"]["median"])
    told = autopilot("compare", run, "low", "main.1", "--metric", "loss").stdout
    assert "median" in told
    assert "loss" in told
    assert " lr" not in told

    wrong = autopilot("compare", run, "low", "high")
    assert wrong.returncode == 2
    assert "there are main, low, main.1" in wrong.stderr
    unknown = autopilot("compare", run, "low", "main.1", "--metric", "lss")
    assert unknown.returncode == 2
    assert "there are loss" in unknown.stderr
    ended = autopilot("compare", run, "low", "main")
    assert ended.returncode == 2
    assert "main has no step after 6" in ended.stderr


# --- by whom, and how -----------------------------------------------------------------------------

REWRITES = [
    SetModule(module="2", name="p", value=0.1),
    ResetModule(module="3"),
    Freeze(module="0"),
    SetBatch(accumulation=2),
    StartBranch(name="b"),
    StartBranch(name="b", checkpoint="s0"),
]
ALLOWING = """
[[rules]]
name = "going back and trying"
kinds = ["rollback", "branch", "switch_branch"]
verdict = "allow"
[budget]
rollbacks = { per_day = 2 }
[cooldown]
steps = 0
[canary]
revert_if = "never"
"""


def test_what_rewrites_a_model_or_leaves_its_course_asks_a_person(tmp_path: Path) -> None:
    model = make_model(dropout=0.3)
    optimizer = AdamW(model.parameters(), lr=0.02)
    with running(tmp_path, model, optimizer, accumulation=1) as (session, _):
        for batch in session.batches(make_batches(), steps=3):
            loss = loss_of(model, batch)
            loss.backward()
            assert session.update_due
            optimizer.step()
            session.report(loss=loss)
        with connect(str(session.run_dir), "agent", "eve") as agent:
            for number, rewrite in enumerate(REWRITES):
                record = agent.propose(Proposal(interventions=(rewrite,)), key=str(number))
                assert record.status == "pending"
                assert record.verdict.rule == (
                    "what rewrites a model or leaves its course needs a person"
                )


def test_an_agents_branches_count_as_goings_back_in_its_budget(tmp_path: Path) -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=0.02)
    policy = parse_policy(ALLOWING)
    records: list[ProposalRecord] = []
    with (
        running(tmp_path, model, optimizer, policy=policy) as (session, _),
        connect(str(session.run_dir), "agent", "eve") as agent,
    ):

        def propose(change: Any) -> None:
            key = str(len(records))
            records.append(agent.propose(Proposal(interventions=(change,)), key=key))

        at = {
            3: lambda: propose(StartBranch(name="b")),
            6: lambda: propose(SwitchBranch(name="main")),
            9: lambda: propose(Rollback(checkpoint="s0")),
        }
        train(session, model, optimizer, make_batches(), steps=9, at=at)
    assert [record.verdict.decision for record in records] == ["allow", "allow", "deny"]
    assert records[2].verdict.rule == "budget.rollbacks.per_day"


def test_a_person_orders_them_on_the_command_line(tmp_path: Path) -> None:
    model = make_model(dropout=0.3)
    optimizer = AdamW(model.parameters(), lr=0.02)
    with running(tmp_path, model, optimizer) as (session, person):
        run, done = session.run_dir, list[Any]()

        def order() -> None:
            until(lambda: person.info().step > 3)
            done.append(autopilot("do", run, "set_module", "module=2", "name=p", "value=0.5"))
            done.append(autopilot("do", run, "branch", "name=try"))
            done.append(autopilot("do", run, "freeze", "module=nowhere"))
            person.command((Stop(save=False),))

        with meanwhile(order):
            for batch in session.batches(make_batches(), steps=10_000_000):
                loss = loss_of(model, batch)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                session.report(loss=loss)
                time.sleep(0.001)
    setting, branch, wrong = done
    assert setting.returncode == 0, setting.stderr
    assert "2.p: 0.3 → 0.5" in setting.stdout
    assert "read back at steps" in setting.stdout
    assert branch.returncode == 0, branch.stderr
    assert "branch: main → try" in branch.stdout
    assert wrong.returncode == 2
    assert "can address: 0, 3" in wrong.stderr

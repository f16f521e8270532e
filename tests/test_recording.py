"""Recordings: the same control plane over recorded rows, causal, and nothing of it applied."""

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from control.bench import KIM, OPEN, Bench
from trainer.loops import Orders, make_batches, make_model, running, train

from autopilot.errors import BadInput, JournalError, NotARun
from autopilot.journal import Journal
from autopilot.policy import parse_policy, read_policy
from autopilot.recording import Fork, Playback, RecordedRun, Recording, read_run
from autopilot.schema import (
    Event,
    Evidence,
    Finding,
    NoProposal,
    Note,
    Proposal,
    Receipt,
    Rollback,
    Row,
    ScaleLR,
    SetGradClip,
    SetLR,
    Window,
)
from autopilot_agents.rules import ObserveAgent, RuleAgent
from autopilot_evals.replay import ReplayReport, replay

PLAN = 0.01
ANYTHING = parse_policy(OPEN)
IF_CITED = parse_policy(
    'default = "deny"\n[cooldown]\nsteps = 0\n[[rules]]\nname = "cited"\n'
    'kinds = ["set_grad_clip"]\nverdict = "allow"\nwhere = { evidence_verified = true }\n'
)


def healthy(step: int, **values: float) -> Row:
    jitter = random.Random(step).gauss(0, 0.02)
    return Row(
        step, {"loss": 2.0 + jitter, "lr": PLAN, "lr_planned": PLAN, **values}, time=1e9 + step
    )


def recording(rows: Sequence[Row], **more: Any) -> RecordedRun:
    return RecordedRun(name="made", run_id="made", rows=lambda: iter(rows), **more)


def stuck(*, begin: int, end: int, steps: int) -> list[Row]:
    """A run whose learning rate is zero for a while, off its plan."""
    return [healthy(s, **({"lr": 0.0} if begin <= s < end else {})) for s in range(1, steps + 1)]


class Says:
    """An agent that answers as it is told, and remembers what it was shown."""

    name = "says"

    def __init__(self, answer: Callable[[Window], Proposal | NoProposal]) -> None:
        self.answer = answer
        self.windows: list[Window] = []

    def propose(self, window: Window) -> Proposal | NoProposal:
        self.windows.append(window)
        return self.answer(window)


def to_plan(window: Window) -> Proposal:
    assert window.episode is not None
    return Proposal(interventions=(SetLR(value="plan"),), episode=window.episode.id)


def clip(window: Window) -> Proposal:
    episode = window.episode.id if window.episode is not None else None
    return Proposal(interventions=(SetGradClip(max_norm=1.0),), episode=episode)


# --- a live run's own directory -----------------------------------------------------------------


def told(events: Sequence[Event]) -> list[tuple[object, ...]]:
    """What was found and concluded, in order, with where."""
    found: list[tuple[object, ...]] = []
    for event in events:
        if event.kind == "finding":
            f = event.body["finding"]
            claimed = f["claimed_by"]
            found.append((f["id"], f["kind"], f["metric"], f["step"], f["branch"], claimed))
        elif event.kind == "episode":
            e = event.body["episode"]
            what = (e["id"], e["status"], e["kind"], e["diagnosis"], e["onset_step"], e["branch"])
            found.append((*what, event.step, tuple(e["findings"])))
    return found


def played(recorded: RecordedRun) -> list[Event]:
    """All events of a replay in which nobody acts."""
    with Playback(recorded, read_policy(None), "observe") as playback:
        while playback.advance() != "over":
            pass
        return list(playback.run.events(0))


def test_a_live_run_with_rollbacks_is_found_again_step_by_step(tmp_path: Path) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def blow_up() -> None:
        optimizer.param_groups[0]["lr"] = 3.0

    def calm_down() -> None:
        optimizer.param_groups[0]["lr"] = 0.05

    with running(tmp_path, model, optimizer, evaluate=lambda: 1.0, snapshot_every=10) as (
        session,
        person,
    ):
        orders = Orders(person)
        go_back = orders.give(Rollback(checkpoint="s40"), ScaleLR(factor=0.5))
        claim = Finding(
            kind="bad_shard", tier="alarm", severity="warn", metric="loss", step=1, score=1.0,
            message="mine", detector="mine",
        )  # fmt: skip
        at = {
            60: blow_up,
            75: lambda: (calm_down(), go_back()),
            90: lambda: person.claim(claim),
            110: blow_up,
            125: lambda: (calm_down(), orders.give(Rollback(checkpoint="s20"))()),
            127: orders.give(SetLR(value=0.02)),
            128: session.evaluate,
            140: orders.revert(0),
            150: blow_up,
        }
        train(session, model, optimizer, make_batches(12), steps=150, at=at)
    folder = tmp_path / "run"
    with Journal.read(folder / "journal.sqlite") as journal:
        live = journal.events()
        assert len(journal.branches()) >= 3
    assert {e.kind for e in live} >= {"branch", "applied", "finding", "episode"}
    assert len(told(live)) > 10
    assert told(played(read_run(folder))) == told(live)


def test_a_run_that_went_on_in_a_new_process_is_found_again(tmp_path: Path) -> None:
    place = tmp_path / "journal.sqlite"
    first = Bench(OPEN, place)
    first.rows(60)
    first.break_schedule()
    first.plane.close()
    second = Bench(OPEN, place)
    second.step = 40
    second.rows(10)
    second.propose(SetLR(value="plan"), actor=KIM)
    second.apply()
    second.rows(40)
    second.break_schedule()
    second.plane.end("ended", "done")
    live = second.plane.events(0)
    second.plane.close()
    again = played(read_run(place))
    found = [line for line in told(again) if str(line[0]).startswith("F")]
    assert [line[1:] for line in found] == [
        line[1:] for line in told(live) if str(line[0]).startswith("F")
    ]
    (applied,) = (e for e in again if e.kind == "applied")
    assert applied.step == 50
    assert [e.kind for e in again].index("applied") > [e.kind for e in again].index("finding")


def test_a_replay_offers_what_the_run_said_it_offers(tmp_path: Path) -> None:
    bench = Bench(OPEN, tmp_path / "journal.sqlite")
    bench.rows(40)
    bench.rows(5, lr=0.0)
    bench.plane.close()
    agent = Says(clip)
    report = replay(read_run(tmp_path / "journal.sqlite"), agent, ANYTHING)
    assert report.decisions[0].verdict.rule == "capabilities"
    assert agent.windows[0].run.capabilities.interventions == bench.side.offered


def test_what_was_applied_live_counts_in_the_replay(tmp_path: Path) -> None:
    bench = Bench(OPEN, tmp_path / "journal.sqlite")
    bench.rows(40)
    bench.propose(ScaleLR(factor=0.5), actor="agent:other")
    bench.apply()
    bench.rows(10, lr=0.5 * PLAN, lr_planned=0.5 * PLAN)
    bench.rows(5, lr=0.0, lr_planned=0.5 * PLAN)
    bench.plane.end("ended", "done")
    bench.plane.close()
    cooling = parse_policy('default = "allow"\n[cooldown]\nsteps = 100\n')
    agent = Says(to_plan)
    report = replay(read_run(tmp_path / "journal.sqlite"), agent, cooling)
    (applied,) = report.applied
    assert (applied.step, applied.record.actor, applied.record.status) == (
        40,
        "agent:other",
        "applied",
    )
    assert report.decisions[0].verdict.rule == "cooldown.steps"
    shown = agent.windows[0]
    assert [record.actor for record in shown.history] == ["agent:other"]
    assert shown.run.state_version == 1
    assert shown.run.capabilities.settings["lr_plan"].value == PLAN


def test_nobody_is_asked_between_a_branch_and_what_brought_it_about(tmp_path: Path) -> None:
    bench = Bench(OPEN, tmp_path / "journal.sqlite")
    bench.rows(40)
    bench.break_schedule()
    bench.propose(Rollback(checkpoint="c0"), SetLR(value="plan"))
    command = bench.plane.take()
    assert command is not None
    bench.plane.start_branch("main.1", "main", 0)
    receipt = Receipt(command=command.id, step=45, branch="main.1", changes=())
    bench.plane.applied(receipt)
    for step in range(1, 30):
        bench.plane.observe(healthy(step)._replace(branch="main.1", time=0.0))
    bench.plane.end("ended", "done")
    bench.plane.close()
    agent = Says(clip)
    report = replay(read_run(tmp_path), agent, ANYTHING)
    assert [d.branch for d in report.decisions] == ["main"]
    assert {w.run.branch for w in agent.windows} == {"main"}
    assert [(a.step, a.branch) for a in report.applied] == [(0, "main.1")]
    assert report.as_live


def test_reading_a_run_leaves_its_journal_as_it_is(tmp_path: Path) -> None:
    bench = Bench(OPEN, tmp_path / "journal.sqlite")
    bench.rows(40)
    bench.plane.end("ended", "done")
    bench.plane.close()
    before = (tmp_path / "journal.sqlite").read_bytes()
    replay(read_run(tmp_path), RuleAgent())
    assert (tmp_path / "journal.sqlite").read_bytes() == before
    # SQLite's own index of a file that others may write is all that may come and stay.
    own = ("journal.sqlite", "journal.sqlite.lock", "journal.sqlite-shm", "journal.sqlite-wal")
    assert {path.name for path in tmp_path.iterdir()} <= set(own)


def test_a_run_still_under_way_is_read_as_far_as_it_has_come(tmp_path: Path) -> None:
    bench = Bench(OPEN, tmp_path / "journal.sqlite")
    bench.rows(40)
    bench.plane.note("evaluation", {"values": {}})
    recorded = read_run(tmp_path)
    bench.rows(40)
    bench.plane.close()
    assert len(list(recorded.rows())) == len(list(recorded.rows())) == 40
    assert "had not ended" in recorded.remarks[0]


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotARun, match="no such run directory"):
        read_run(tmp_path / "none")
    with pytest.raises(NotARun, match=r"holds no journal.sqlite"):
        read_run(tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(JournalError, match="file is not a database"):
        read_run(tmp_path / "text")


# --- causality ----------------------------------------------------------------------------------


def test_an_agent_that_holds_the_run_gets_nothing_past_the_present_step() -> None:
    rows = stuck(begin=60, end=90, steps=200)
    recorded = recording(rows)
    caught: list[int] = []

    with Playback(recorded, ANYTHING, "peeker") as playback:
        run: Recording = playback.run
        for _ in range(20):
            playback.advance(most=7)
            present = playback.rows_read
            seen = [row.step for row in run.rows(last=10**9)]
            seen += [row.step for row in run.rows(last=10**9, branch="main")]
            seen += [event.step for event in run.events(0, wait=1.0)]
            seen += [c.step for c in run.checkpoints()] + [run.info().step]
            for episode in run.episodes():
                seen += [f.step for f in run.findings(episode.id)] + [episode.last_step]
            caught.append(max(seen) - present)
            future = Evidence(metric="loss", step=present + 1, value=rows[present].values["loss"])
            cites = Proposal(interventions=(Note(text=f"{present}"),), evidence=(future,))
            assert run.propose(cites, key=f"k{present}").verdict.decision == "allow"
            run.heartbeat(10**6)
        assert max(caught) <= 0
        assert not any(hasattr(run, name) for name in ("advance", "recorded", "all_rows"))


def test_a_figure_of_a_later_step_does_not_stand_in_the_journal_yet() -> None:
    rows = stuck(begin=60, end=200, steps=120)

    def citing(ahead: int) -> Callable[[Window], Proposal]:
        def answer(window: Window) -> Proposal:
            row = rows[window.run.step - 1 + ahead]
            cited = Evidence(metric="loss", step=row.step, value=row.values["loss"])
            return Proposal(interventions=(SetGradClip(max_norm=1.0),), evidence=(cited,))

        return answer

    first = [
        replay(recording(rows), Says(citing(ahead)), IF_CITED).decisions[0].verdict.decision
        for ahead in (0, 1)
    ]
    assert first == ["allow", "deny"]


def prefix_of(recorded: RecordedRun, count: int) -> RecordedRun:
    def rows() -> Iterator[Row]:
        for number, row in enumerate(recorded.rows(), 1):
            if number > count:
                return
            yield row

    return dataclasses.replace(recorded, rows=rows)


def is_causal(recorded: RecordedRun, make: Callable[[RecordedRun], Any]) -> bool:
    """Whether cutting the recording short changes nothing that was decided before the cut."""
    whole = replay(recorded, make(recorded), ANYTHING)
    for count in (62, 75, 100, 140):
        cut = prefix_of(recorded, count)
        part = replay(cut, make(cut), ANYTHING)
        if part.decisions != tuple(d for d in whole.decisions if d.rows <= count):
            return False
        if part.findings != tuple(f for f in whole.findings if f.step <= count):
            return False
    return True


def test_nothing_that_is_decided_depends_on_later_rows() -> None:
    assert is_causal(recording(stuck(begin=60, end=90, steps=200)), lambda _: RuleAgent())


def test_an_agent_that_peeks_at_later_rows_is_caught() -> None:
    def peeking(recorded: RecordedRun) -> Says:
        def answer(window: Window) -> Proposal:
            last = list(recorded.rows())[-1].step
            return Proposal(interventions=(Note(text=f"it will run to step {last}"),))

        return Says(answer)

    assert not is_causal(recording(stuck(begin=60, end=90, steps=200)), peeking)


def test_the_agent_is_asked_at_the_very_row_that_raised_the_question() -> None:
    agent = Says(clip)
    report = replay(recording(stuck(begin=60, end=90, steps=200)), agent, ANYTHING)
    (finding,) = report.findings
    assert report.decisions[0].step == report.decisions[0].rows == finding.step
    assert agent.windows[0].table[-1].last_step == finding.step


# --- nothing is applied -------------------------------------------------------------------------


def two_faults() -> RecordedRun:
    rows = stuck(begin=60, end=70, steps=400)
    rows[299] = rows[299]._replace(values={**rows[299].values, "loss": float("nan")})
    return recording(rows)


def test_what_is_allowed_starts_no_cool_down_and_uses_no_budget() -> None:
    strict = parse_policy(
        'default = "allow"\n[cooldown]\nsteps = 1000\n[budget]\n'
        "interventions = { per_1000_steps = 1, per_day = 1 }\n"
    )
    agent = Says(clip)
    report = replay(two_faults(), agent, strict)
    assert [d.verdict.decision for d in report.decisions] == ["allow", "allow"]
    assert [d.hypothetical for d in report.decisions] == [False, True]
    assert report.first_accepted == 0
    assert agent.windows[-1].run.state_version == 0
    assert any("no longer what would have happened" in remark for remark in report.remarks)


def test_an_episode_is_proposed_for_once() -> None:
    agent = Says(clip)
    report = replay(recording(stuck(begin=60, end=400, steps=400)), agent, ANYTHING)
    assert len(report.decisions) == 1
    assert report.episodes[0].status != "closed"


def test_what_is_asked_about_waits_for_nobody_and_never_expires() -> None:
    asking = parse_policy('default = "ask"\n[approval]\nttl = "1s"\non_expiry = "hold"\n')
    report = replay(two_faults(), Says(clip), asking)
    assert [d.verdict.decision for d in report.decisions] == ["ask", "ask"]
    assert report.first_accepted is None
    assert not any("no longer" in remark for remark in report.remarks)


def test_what_changes_nothing_leaves_the_recorded_future_true() -> None:
    agent = Says(lambda w: Proposal(interventions=(Note(text="seen"),)))
    report = replay(two_faults(), agent, ANYTHING)
    assert report.first_accepted is None
    assert not any(d.acts or d.hypothetical for d in report.decisions)


def test_what_the_policy_puts_off_is_proposed_again_later(tmp_path: Path) -> None:
    bench = Bench(OPEN, tmp_path / "journal.sqlite")
    bench.rows(40)
    bench.propose(ScaleLR(factor=0.5), actor="agent:other")
    bench.apply()
    for _ in range(30):
        bench.rows(1, lr=0.0)
    bench.plane.close()
    cooling = parse_policy('default = "allow"\n[cooldown]\nsteps = 20\n')
    report = replay(read_run(tmp_path), Says(to_plan), cooling)
    assert [d.verdict.decision for d in report.decisions][-1] == "allow"
    assert report.decisions[-1].step - 40 >= 20
    assert report.decisions[0].verdict.rule == "cooldown.steps"


def test_why_nothing_is_proposed_is_told_with_its_step() -> None:
    report = replay(two_faults(), ObserveAgent(), ANYTHING)
    assert [(s.step, s.no_proposal.kind) for s in report.no_proposals] == [
        (61, "waiting"),
        (300, "waiting"),
    ]
    assert report.decisions == ()


def test_an_agent_that_fails_is_told_and_the_replay_goes_on() -> None:
    def broken(window: Window) -> Proposal:
        raise RuntimeError("no idea")

    report = replay(two_faults(), Says(broken), ANYTHING)
    assert {s.no_proposal.kind for s in report.no_proposals} == {"fault"}
    assert report.rows == 400


# --- the same again -----------------------------------------------------------------------------


def texts(agent: Callable[[], Any], recorded: RecordedRun, **more: Any) -> list[str]:
    return [replay(recorded, agent(), ANYTHING, **more).model_dump_json() for _ in range(2)]


def test_replaying_twice_gives_the_same_bytes() -> None:
    for recorded in (two_faults(), recording([r._replace(time=0.0) for r in two_faults().rows()])):
        for agent in (RuleAgent, ObserveAgent, lambda: Says(clip)):
            once, again = texts(agent, recorded)
            assert once == again
            assert ReplayReport.model_validate_json(once).model_dump_json() == once


def test_looking_on_row_by_row_changes_nothing() -> None:
    seen: list[int] = []
    watched = replay(
        two_faults(),
        RuleAgent(),
        watch=lambda playback, events: seen.append(playback.rows_read),
        row_by_row=True,
    )
    assert watched.model_dump_json() == replay(two_faults(), RuleAgent()).model_dump_json()
    assert sorted(set(seen)) == list(range(1, 401))


def test_without_times_a_step_counts_as_a_second() -> None:
    untimed = recording([r._replace(time=0.0) for r in two_faults().rows()])
    with Playback(untimed, ANYTHING, "rules") as playback:
        playback.advance(most=50)
        assert playback.now == 50.0
    assert any("rows carry no time" in remark for remark in replay(untimed, RuleAgent()).remarks)


# --- rows further back than anybody looks --------------------------------------------------------


def test_rows_and_figures_from_long_ago_are_those_of_a_whole_journal() -> None:
    rows = [healthy(s) for s in range(1, 6001)]
    rows += [healthy(s)._replace(branch="main.1") for s in range(101, 5001)]
    rows += [healthy(s)._replace(branch="main.2") for s in range(121, 140)]
    forks = (Fork("main.1", "main", 100), Fork("main.2", "main.1", 120))
    whole = Journal.create(":memory:", run_id="r", name="r")
    with Playback(recording(rows, forks=forks), IF_CITED, "rules") as playback, whole:
        for count in (50, 3050, 6050, 9050, len(rows)):
            already = playback.rows_read
            while playback.rows_read < count:
                playback.advance(most=count - playback.rows_read)
            for row in rows[already:count]:
                if row.branch not in [branch.name for branch in whole.branches()]:
                    (fork,) = (f for f in forks if f.name == row.branch)
                    whole.start_branch(*fork, time=0.0)
                whole.append_rows([row])
            branch = playback.run.info().branch
            for last in (5, 512, 2500):
                assert playback.run.rows(last=last) == whole.rows(branch, last=last)
            for step in (1, 99, 100, 101, 121, 4000, 5500):
                assert is_cited(playback.run, step) == (
                    whole.value_at(branch, "loss", step) is not None
                )


def is_cited(run: Recording, step: int) -> bool:
    """Whether the guard finds the loss of that step in the journal of this branch."""
    cited = Evidence(metric="loss", step=step, value=healthy(step).values["loss"])
    proposal = Proposal(interventions=(SetGradClip(max_norm=1.0),), evidence=(cited,))
    verdict = run.propose(proposal, key=f"{run.info().step}:{step}").verdict
    return verdict.decision == "allow"


def test_rows_of_a_branch_that_nothing_began_are_refused() -> None:
    rows = [healthy(1), healthy(2)._replace(branch="other")]
    with pytest.raises(BadInput, match=r"made: the row of step 2 is of branch 'other'"):
        replay(recording(rows), RuleAgent())
    with pytest.raises(BadInput, match="'other'"):
        replay(recording(rows, forks=(Fork("main.1", "main", 1),)), RuleAgent())


def test_an_empty_recording_is_no_error() -> None:
    report = replay(recording([]), RuleAgent())
    assert (report.rows, report.findings, report.decisions) == (0, (), ())
    assert "the recording holds no rows" in report.remarks

"""An agent that asks a model: the loop goes on meanwhile, and what was asked is in the journal."""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from control.bench import ASKING, KIM, OPEN, RULES, Bench

from autopilot.control import PlaneRun
from autopilot.loop import Autopilot
from autopilot.schema import (
    Approval,
    Canary,
    CanaryResult,
    Consultation,
    NoProposal,
    Proposal,
    ProposalRecord,
    ScaleLR,
    SetLR,
    Usage,
    Window,
)
from autopilot.schema.consultations import Session
from autopilot.thinking import Thinking
from autopilot.window import build_window
from autopilot_agents.consult import RulesAndModel
from autopilot_agents.rules import RuleAgent

PAID = Usage(calls=2, input_tokens=4000, output_tokens=100, price_usd=0.25, seconds=3.0)


def consultation(**changes: Any) -> Consultation:
    given: dict[str, Any] = {
        "purpose": "diagnose", "model": "m-1", "host": "127.0.0.1", "prompt": "diagnose@1",
        "prompt_sha": "ab", "outcome": "proposal", "usage": PAID,
    }  # fmt: skip
    return Consultation(**{**given, **changes})


class Model:
    """Answers as it is told, when it is let."""

    name, model, prompt_sha = "llm", "m-1", "ab"

    def __init__(self, answer: Callable[[Window], Proposal | NoProposal]) -> None:
        self.answer, self.asked = answer, 0
        self.let = threading.Event()
        self.let.set()
        self.busy = threading.Event()
        self._taken: list[Consultation] = []

    def propose(self, window: Window) -> Proposal | NoProposal:
        self.asked += 1
        self.busy.set()
        assert self.let.wait(20)
        self._taken.append(consultation())
        return self.answer(window)

    def known(self, window: Window) -> None:
        return None

    def review(self, record: ProposalRecord, window: Window) -> Consultation:
        said = consultation(
            purpose="review", proposal=record.id, outcome="review", text="lr is off its plan"
        )
        self._taken.append(said)
        return said

    def consultations(self) -> Sequence[Consultation]:
        taken, self._taken = self._taken, []
        return taken


def to_plan(window: Window) -> Proposal:
    assert window.episode is not None
    finding = window.findings[-1]
    return Proposal(
        interventions=(SetLR(value="plan"),),
        episode=window.episode.id,
        evidence=finding.evidence,
        state_version=window.run.state_version,
    )


def declines(kind: Any = "cannot_tell") -> Callable[[Window], NoProposal]:
    return lambda window: NoProposal(kind=kind, reason="no idea")


def pilot(bench: Bench, agent: Any, approver: Any = None) -> Autopilot:
    return Autopilot(PlaneRun(bench.plane, RULES), agent, approver, apart=True)


def looked_until(autopilot: Autopilot, done: Callable[[], bool]) -> None:
    for _ in range(500):
        autopilot.look()
        if done():
            return
        threading.Event().wait(0.01)
    raise AssertionError("never came")


def test_the_loop_goes_on_while_a_model_thinks_and_files_what_it_says() -> None:
    bench = Bench(OPEN)
    bench.break_schedule()
    model = Model(to_plan)
    model.let.clear()
    autopilot = pilot(bench, model)
    autopilot.look()
    assert model.busy.wait(20)
    for _ in range(5):
        bench.clock.time += 20
        bench.plane.tick()
        autopilot.look()
    info = bench.plane.info()
    assert info.pilot is not None
    assert info.pilot.alive
    assert model.asked == 1
    assert bench.plane.proposals() == []
    model.let.set()
    looked_until(autopilot, lambda: bool(bench.plane.proposals()))
    assert [r.status for r in bench.plane.proposals()] == ["queued"]
    looked_until(autopilot, lambda: "consultation" in bench.kinds())
    assert bench.plane.info().llm_usd_spent == 0.25


def test_rules_act_at_once_while_a_model_hangs() -> None:
    bench = Bench(OPEN)
    bench.rows(40)
    model = Model(declines())
    model.let.clear()
    autopilot = pilot(bench, RulesAndModel(RuleAgent(), model))
    bench.rows(12, update_skipped=1.0)
    autopilot.look()
    assert model.busy.wait(20)
    assert bench.plane.proposals() == []
    bench.rows(5, update_skipped=1.0, lr=0.0)
    autopilot.look()
    (filed,) = bench.plane.proposals()
    assert filed.proposal.interventions == (SetLR(value="plan"),)
    assert not model.let.is_set()
    model.let.set()


def test_an_answer_to_a_run_that_has_moved_on_is_judged_against_the_present() -> None:
    bench = Bench(OPEN)
    bench.break_schedule()
    model = Model(to_plan)
    model.let.clear()
    autopilot = pilot(bench, model)
    autopilot.look()
    assert model.busy.wait(20)
    bench.plane.command((ScaleLR(factor=0.5),), actor=KIM, key="k")
    bench.apply()
    model.let.set()
    looked_until(autopilot, lambda: "consultation" in bench.kinds() or model.asked > 1)
    own = [r for r in bench.plane.proposals() if r.actor == RULES]
    assert all(r.status in ("denied", "expired") for r in own)
    assert bench.side.factor == 0.5


def test_an_answer_after_the_episode_is_over_changes_nothing() -> None:
    bench = Bench(OPEN)
    bench.break_schedule()
    model = Model(to_plan)
    model.let.clear()
    autopilot = pilot(bench, model)
    autopilot.look()
    assert model.busy.wait(20)
    bench.rows(400)
    assert bench.plane.episodes() == []
    model.let.set()
    looked_until(autopilot, lambda: "no_proposal" in bench.kinds())
    assert bench.plane.proposals() == []


def test_what_a_model_says_reaches_the_person_who_decides() -> None:
    class Person:
        def __init__(self) -> None:
            self.offered: list[str] = []
            self.advised: list[tuple[str, str]] = []

        def offer(self, record: ProposalRecord, window: Window) -> None:
            self.offered.append(record.id)

        def advise(self, proposal_id: str, review: Consultation) -> None:
            self.advised.append((proposal_id, review.text))

        def withdraw(self, proposal_id: str, reason: str) -> None:
            raise AssertionError("nothing was settled")

    bench = Bench(ASKING.format(on_expiry="nothing"))
    bench.break_schedule()
    person = Person()
    autopilot = pilot(bench, RulesAndModel(RuleAgent(), Model(declines())), person)
    looked_until(autopilot, lambda: bool(person.advised))
    assert person.offered == ["P1"]
    assert person.advised == [("P1", "lr is off its plan")]
    looked_until(autopilot, lambda: "consultation" in bench.kinds())
    (event,) = [e for e in bench.plane.events(0) if e.kind == "consultation"]
    assert event.actor == RULES
    assert event.body["consultation"]["proposal"] == "P1"


def test_what_was_spent_is_known_to_the_next_process_and_forgotten_after_a_day(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.sqlite"
    first = Bench(OPEN, path)
    first.plane.heartbeat(actor=RULES, seen_seq=0, consultations=[consultation()] * 2)
    unknown = consultation(usage=Usage(calls=1, price_usd=None))
    first.plane.heartbeat(actor=RULES, seen_seq=0, consultations=[unknown])
    assert first.plane.info().llm_usd_spent == 0.5
    assert first.plane.info().llm_usd_per_day == 5.0
    first.plane.close()
    again = Bench(OPEN, path)
    assert again.plane.info().llm_usd_spent == 0.5
    again.clock.time += 24 * 3600 + 1
    assert again.plane.info().llm_usd_spent == 0.0
    again.plane.close()


def test_long_sessions_go_to_the_run_in_several_heartbeats_and_none_is_lost() -> None:
    class Talkative(Model):
        def consultations(self) -> Sequence[Consultation]:
            return [
                consultation(text=f"{i}", session=Session(max_lookups=0, window="w" * 60_000))
                for i in range(5)
            ] if self.asked == 0 else []  # fmt: skip

    model = Talkative(declines())
    thinking = Thinking(model, apart=False)
    first = thinking.consultations()
    model.asked = 1
    rest = [thinking.consultations() for _ in range(3)]
    assert [one.text for batch in (first, *rest) for one in batch] == ["0", "1", "2", "3", "4"]
    assert len(first) == 2


# --- rules and a model together -----------------------------------------------------------------


def window_of(bench: Bench, **changes: Any) -> Window:
    run = PlaneRun(bench.plane, RULES)
    (episode,) = run.episodes()
    window = build_window(run, episode)
    return window.model_copy(
        update={"episode": episode.model_copy(update=changes)} if changes else {}
    )


def tried(window: Window, **changes: Any) -> Window:
    assert window.episode is not None
    proposal = Proposal(interventions=(SetLR(value="plan"),), episode=window.episode.id)
    bench = Bench(OPEN)
    record = bench.propose(*proposal.interventions, episode=proposal.episode)
    return window.model_copy(update={"history": (record.model_copy(update=changes),)})


@pytest.fixture
def sick() -> Window:
    bench = Bench(OPEN)
    bench.break_schedule()
    return window_of(bench)


def test_rules_act_on_what_they_know_and_nobody_is_asked(sick: Window) -> None:
    model = Model(declines())
    answer = RulesAndModel(RuleAgent(), model).propose(sick)
    assert isinstance(answer, Proposal)
    assert answer.interventions == (SetLR(value="plan"),)
    assert model.asked == 0


def test_a_model_is_asked_where_the_rules_cannot_tell(sick: Window) -> None:
    assert sick.episode is not None
    unknown = sick.model_copy(
        update={"episode": sick.episode.model_copy(update={"kind": "plateau"})}
    )
    model = Model(to_plan)
    answer = RulesAndModel(RuleAgent(), model).propose(unknown)
    assert model.asked == 1
    assert isinstance(answer, Proposal)


def test_a_model_is_asked_where_a_remedy_failed_and_the_rules_go_on_without_its_help(
    sick: Window,
) -> None:
    failed = CanaryResult(
        metric="loss", bound=1.0, value=2.0, step=5, result="reverted", reason="worse"
    )
    window = tried(sick, canary_result=failed, canary=Canary())
    model = Model(declines("transient"))
    known = RuleAgent().propose(window)
    answer = RulesAndModel(RuleAgent(), model).propose(window)
    assert model.asked == 1
    assert answer == known


def test_after_a_person_said_no_no_model_is_asked_to_find_another_way(sick: Window) -> None:
    said = Approval(decision="deny", actor=KIM, at=0.0, digest="d")
    model = Model(to_plan)
    answer = RulesAndModel(RuleAgent(), model).propose(tried(sick, approval=said))
    assert isinstance(answer, NoProposal)
    assert model.asked == 0


@pytest.mark.parametrize(
    ("said", "heard"), [("transient", "transient"), ("refused", "unsupported")]
)
def test_a_model_that_has_no_answer_leaves_what_the_rules_said(
    sick: Window, said: str, heard: str
) -> None:
    assert sick.episode is not None
    unknown = sick.model_copy(
        update={"episode": sick.episode.model_copy(update={"kind": "bad_shard"})}
    )
    answer = RulesAndModel(RuleAgent(), Model(declines(said))).propose(unknown)
    assert isinstance(answer, NoProposal)
    assert answer.kind == heard
    assert "no idea" in answer.reason


def test_a_benign_episode_costs_nothing(sick: Window) -> None:
    assert sick.episode is not None
    benign = sick.model_copy(
        update={"episode": sick.episode.model_copy(update={"diagnosis": "benign"})}
    )
    model = Model(to_plan)
    assert isinstance(RulesAndModel(RuleAgent(), model).propose(benign), NoProposal)
    assert model.asked == 0


@pytest.mark.parametrize(
    "does",
    [
        "from typer.testing import CliRunner; from autopilot.cli.app import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0",
        "from autopilot_agents.known import make_agent; make_agent('rules')",
        "import autopilot_agents.llm.agent, autopilot_agents.llm.settings",
    ],
    ids=["help", "rules", "the agent itself"],
)
def test_no_language_model_stack_loads_before_a_model_is_asked(does: str) -> None:
    check = "import sys; assert not {'langchain', 'langchain_openai', 'openai'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"{does}\n{check}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

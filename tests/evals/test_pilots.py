"""Reference agents do what their descriptions say, are flown as their users fly them, and only the
deserving look good."""

import math
import pickle
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau as TorchReduceLROnPlateau

import autopilot_evals
from autopilot.cli import main
from autopilot.errors import BadInput
from autopilot.policy import read_policy
from autopilot.schema import (
    Capabilities,
    Evaluate,
    NoProposal,
    Proposal,
    Row,
    RunInfo,
    ScaleLR,
    Setting,
    Window,
)
from autopilot.window import tail_dense
from autopilot_agents.known import make_agent
from autopilot_evals.agents import make_any_agent
from autopilot_evals.baselines.pilots import FLOWN, PILOTS, DoubleHalfSame, ReduceLROnPlateau
from autopilot_evals.forks import Outcome, fly
from autopilot_evals.scenarios import SCENARIOS
from autopilot_evals.scenarios.moves import BACK_AND_FOLLOW_PLAN, REFLEXES
from autopilot_evals.suites import sandbox
from autopilot_evals.suites.engines import Processes
from autopilot_evals.suites.results import Results

HEALTHY = replace(SCENARIOS["healthy"], steps=150, delay=60, moves=REFLEXES)
JUMP = replace(SCENARIOS["schedule-jump"], steps=240, moves=(*REFLEXES, BACK_AND_FOLLOW_PLAN))


def window(
    rows: Sequence[Row], *, lr: float = 0.1, can: tuple[str, ...] = ("evaluate",), run_id: str = "r"
) -> Window:
    run = RunInfo(
        name=run_id, run_id=run_id, status="running", step=rows[-1].step, state_version=3, seq=9,
        started=0.0, policy_digest="p", autonomy="act",
        capabilities=Capabilities(
            interventions=("scale_lr", *can), settings={"lr": Setting(name="lr", value=lr)}
        ),
    )  # fmt: skip
    names = sorted({name for row in rows for name in row.values})
    return Window(
        run=run,
        episode=None,
        findings=(),
        summaries=(),
        table=tail_dense(rows, names),
        checkpoints=(),
        history=(),
    )


def factor_of(answer: Proposal | NoProposal) -> float:
    """What an answer multiplies the learning rate by."""
    changes = answer.interventions if isinstance(answer, Proposal) else ()
    return math.prod(one.factor for one in changes if isinstance(one, ScaleLR))


# --- ReduceLROnPlateau ----------------------------------------------------------------------------


def plateau(evaluations: Sequence[float], *, lr: float = 0.1, every: int = 5) -> list[float]:
    """The learning rate after each evaluation; the loop evaluates by itself now and then too."""
    agent, rows, course = ReduceLROnPlateau(), [Row(0, {"loss": 9.0})], []
    factor_of(agent.propose(window(rows, lr=lr)))
    for value in evaluations:
        rows[-1] = rows[-1]._replace(values={**rows[-1].values, "val_loss": value})
        begin = rows[-1].step
        rows += [Row(begin + i, {"loss": 9.0}) for i in range(1, every + 1)]
        rows[-1] = rows[-1]._replace(values={"loss": 9.0, "val_loss": -1.0})
        answer = agent.propose(window(rows, lr=lr))
        assert isinstance(answer, Proposal)
        assert answer.interventions[-1] == Evaluate()
        lr *= factor_of(answer)
        course.append(lr)
    return course


def by_torch(evaluations: Sequence[float], lr: float = 0.1) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, course = TorchReduceLROnPlateau(optimizer), []
    for value in evaluations:
        scheduler.step(value)
        course.append(float(optimizer.param_groups[0]["lr"]))
    return course


def test_the_rate_falls_to_a_tenth_at_the_eleventh_evaluation_that_is_no_better() -> None:
    course = plateau([2.0, 1.0, *[1.0 - 0.5e-4] * 11, 0.5, *[0.6] * 10])
    assert course == [0.1] * 12 + [pytest.approx(0.01)] * 12


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.floats(0.5, 3.0), st.sampled_from([1.0, math.nan, math.inf])), max_size=60
    ),
    st.sampled_from([0.1, 1e-7]),
)
def test_it_is_the_scheduler_of_torch(evaluations: list[float], lr: float) -> None:
    assert plateau(evaluations, lr=lr) == pytest.approx(by_torch(evaluations, lr))


@pytest.mark.parametrize("every", [1, 8, 15])
def test_it_reads_the_evaluation_that_it_asked_for_however_far_apart_they_are(every: int) -> None:
    evaluations = [2.0, 1.0, *[1.2] * 25]
    assert plateau(evaluations, every=every) == pytest.approx(by_torch(evaluations))


def test_a_run_without_an_evaluation_is_judged_by_its_mean_training_loss() -> None:
    agent, rows, course = ReduceLROnPlateau(), [], []
    losses = [3.0, 2.0, *[2.2, 1.9, 2.1] * 8]
    for i, loss in enumerate(losses):
        rows += [Row(2 * i, {"loss": loss - 1.0}), Row(2 * i + 1, {"loss": loss + 1.0})]
        answer = agent.propose(window(rows, can=()))
        assert isinstance(answer, NoProposal) == (factor_of(answer) == 1.0)
        course.append(factor_of(answer))
    steps = by_torch(losses, 1.0)
    assert course == pytest.approx([1.0, *(b / a for a, b in pairwise(steps))])
    assert min(course) < 1.0


# --- Double, half or same -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "factors"),
    [
        ((4.0, 3.7, 3.5, 3.3), (1, 1, 2, 2)),  # goes on and on
        ((4.0, 3.0, 2.6, 2.5), (1, 1, 1, 1)),  # the most came first
        ((4.0, 3.0, 3.1, 2.1), (1, 1, 0.5, 1)),  # rose, and is not doubled back
        ((4.0, 3.0, 3.0), (1, 1, 0.5)),
        ((4.0, math.nan, 3.0), (1, 0.5, 0.5)),
        ((math.nan, math.inf), (0.5, 0.5)),
        ((math.inf, 4.0, 3.0, 2.5), (0.5, 1, 1, 1)),
    ],
)
def test_double_half_or_same(losses: tuple[float, ...], factors: tuple[float, ...]) -> None:
    agent, rows, answers = DoubleHalfSame(), [], []
    for i, loss in enumerate(losses):
        rows.append(Row(2 * i, {"loss": 2.0}))
        assert isinstance(agent.propose(window(rows)), NoProposal)
        rows.append(Row(2 * i + 1, {"loss": 2.0, "val_loss": loss}))
        answers.append(factor_of(agent.propose(window(rows))))
    assert answers == list(factors)


def test_another_run_begins_anew() -> None:
    agent, row = DoubleHalfSame(), Row(1, {"loss": 2.0, "val_loss": 3.0})
    answers = [factor_of(agent.propose(window([row], run_id=name))) for name in "aabb"]
    assert answers == [1, 0.5, 1, 0.5]


# --- flown ----------------------------------------------------------------------------------------


def test_double_half_same_is_asked_at_each_evaluation_and_raises_a_rate_that_is_too_low() -> None:
    low = replace(SCENARIOS["lr-too-low"], steps=200)
    flown, alone = fly(low, 0, agent=DoubleHalfSame()), fly(low, 0)
    assert {one.answer for one in flown.applied} == {"raise_lr"}
    assert {one.step % 20 for one in flown.applied} == {0}
    assert flown.val_loss < alone.val_loss - 0.1
    again = fly(low, 0, agent=DoubleHalfSame())
    assert (again.whole, again.applied) == (flown.whole, flown.applied)


def test_reduce_lr_on_plateau_waits_a_tenth_of_the_run_and_only_lowers() -> None:
    flown = fly(JUMP, 0, agent=ReduceLROnPlateau())
    assert flown.applied
    assert {one.answer for one in flown.applied} == {"scale_lr"}
    steps = [one.step for one in flown.applied]
    assert all(after - before >= 22 for before, after in pairwise([flown.decided_at - 15, *steps]))


def test_under_the_default_policy_it_would_only_be_asked_about() -> None:
    flown = fly(JUMP, 0, agent=DoubleHalfSame(), policy=read_policy(None))
    assert flown.applied == ()
    assert "scale_lr" in flown.asked
    assert flown.whole == fly(JUMP, 0).whole


def flown(folder: Path) -> sandbox.SandboxReport:
    agents = ["never", "rules", "always", "random"]
    wanted = sandbox.tasks([HEALTHY, JUMP], agents, 1)
    results = Results(folder / "out.jsonl")
    outcomes = list(sandbox.fly_all(wanted, make_any_agent, results, engine=Processes(1)))
    return sandbox.report([HEALTHY, JUMP], outcomes, agents)


def test_no_habit_looks_good_beside_an_agent_and_a_reference_misses_no_target(
    tmp_path: Path,
) -> None:
    report = flown(tmp_path)
    lines = {line.name: line for line in report.summaries["all"]}
    assert list(lines) == [
        "rules",
        "never",
        "always lr x 0.5",
        "always lr x 0.1",
        "always go back",
        "random at our rate",
        "never, unguarded",
        "always, unguarded",
        "random, unguarded",
    ]
    assert all(sandbox.verdict(lines.pop("rules")).values())
    assert not any(all(sandbox.verdict(line).values()) for line in lines.values())
    assert lines["never"].median_gain == lines["never, unguarded"].median_gain == 0.0
    for name in ("always go back", "always, unguarded", "random, unguarded"):
        assert lines[name].left_alone == 0.0
        assert lines[name].worst > 0.01
    assert lines["random at our rate"].left_alone == 0.5
    assert lines["random at our rate"].median_gain < 0.3
    check_a_reference_acts_as_often_as_it_likes(report)


def check_a_reference_acts_as_often_as_it_likes(report: sandbox.SandboxReport) -> None:
    always = report.scores["always"][1]
    assert always.interventions == (8,)
    assert always.answers == ("rollback",)
    assert sandbox.misses(report.scores["always"]) == []
    reached = sandbox.as_json(report)["target"]["reached"]  # type: ignore[index]
    assert "always, unguarded" not in reached


# --- by name --------------------------------------------------------------------------------------


def test_evaluations_know_them_by_name_and_no_live_run_does() -> None:
    again = pickle.loads(pickle.dumps(make_any_agent))
    for name in PILOTS:
        assert again(name).name == name
        with pytest.raises(
            BadInput, match=f"{name}: no such agent; known: rules, observe, llm, rules\\+llm$"
        ):
            make_agent(name)
    assert make_any_agent("rules").name == "rules"
    assert set(FLOWN) < set(PILOTS)
    with pytest.raises(BadInput, match=r"llm, rules\+llm, reduce_lr_on_plateau"):
        make_any_agent("nobody")


def test_run_does_not_offer_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["autopilot", "run", "--agent", "double_half_same", "--", sys.executable, "-c", "1"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


FLY = """
import sys
from dataclasses import replace
from pathlib import Path
from autopilot_evals.agents import make_any_agent
from autopilot_evals.scenarios import SCENARIOS
from autopilot_evals.suites import sandbox
from autopilot_evals.suites.engines import Processes
from autopilot_evals.suites.results import Results

tiny = replace(SCENARIOS["healthy"], steps=60, delay=30, moves=())
wanted = sandbox.tasks([tiny], ["observe", "never"], 1)
trained = []
results = Results(Path(sys.argv[1]))
told = lambda *_: trained.append(1)
list(sandbox.fly_all(wanted, make_any_agent, results, engine=Processes(1), told=told))
print(len(trained))
"""


@pytest.mark.slow
def test_a_rule_that_was_changed_is_flown_anew_and_nothing_else_is(tmp_path: Path) -> None:
    folder = tmp_path / "autopilot_evals"
    shutil.copytree(Path(str(autopilot_evals.__file__)).parent, folder)

    def trained() -> int:
        words = [sys.executable, "-c", FLY, str(tmp_path / "out.jsonl")]
        done = subprocess.run(
            words, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert trained() == 3
    with (folder / "baselines" / "pilots.py").open("a") as code:
        code.write("\nPATIENCE = 9\n")
    assert trained() == 1


def test_what_came_of_a_flight_names_the_reference() -> None:
    tiny = replace(HEALTHY, steps=60, delay=30)
    outcome: Outcome = fly(tiny, 0, agent=make_any_agent("double_half_same"))
    assert outcome.arm == "agent:double_half_same"

"""The suites end to end: a corpus of made-up runs, the reviewed decisions, the command line."""

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up import write_run

from autopilot.cli import main
from autopilot.policy import read_policy
from autopilot.schema import (
    Consultation,
    NoProposal,
    Proposal,
    ProposalRecord,
    ScaleLR,
    Usage,
    Window,
)
from autopilot_agents.rules import ObserveAgent, RuleAgent
from autopilot_evals.baselines.agents import ActsAtRandom, AlwaysAsk, AlwaysGoBack
from autopilot_evals.labels import LabelledEvent
from autopilot_evals.report.decisions import decisions_page
from autopilot_evals.scoring.decisions import Decided
from autopilot_evals.suites.decisions import as_json, decide, report, reviewed
from autopilot_evals.suites.results import Results


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    spike = LabelledEvent(kind="spike", signal="loss", onset=300, end=330)
    write_run(folder, "spike", (spike,), 1)
    write_run(folder, "nan", (LabelledEvent(kind="nan", onset=400, end=599),), 2)
    write_run(folder, "healthy", (), 3)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    sys.argv = ["autopilot", *map(str, words)]
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def evaluated(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    code, out, err = run(capsys, "eval", *words, "--json", "--jobs", "1")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(autouse=True)
def _restored_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_the_detectors_of_a_live_run_are_scored_beside_the_rules_of_others(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(capsys, "detection", "--corpus", corpus)
    lines = {line["rule"]: line for line in found["lines"]["all"]}
    ours = lines["autopilot"]
    assert (ours["events"], ours["recall"], ours["false_alarms"]) == (2, 1.0, 0)
    assert 0 <= ours["delay_rows"] <= 5
    assert found["target"]["reached"]
    assert found["missed"] == found["false_alarms"] == []
    assert lines["never"]["recall"] == 0.0
    assert lines["always"]["per_1000_rows"] == 1000.0
    assert lines["random at our rate"]["recall"] < 0.2
    assert lines["not_a_number"]["found"] == 1


@pytest.mark.skipif(
    not os.environ.get("AUTOPILOT_RECORDINGS"),
    reason="AUTOPILOT_RECORDINGS does not name a folder of recorded runs",
)
def test_the_target_is_reached_on_recorded_runs_of_other_people(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = evaluated(capsys, "detection", "--corpus", os.environ["AUTOPILOT_RECORDINGS"])
    assert found["target"]["reached"]
    assert found["target"]["ahead_of_every_rule"]
    assert found["lines"]["all"][0]["per_1000_rows"] < 0.1


def test_an_evaluation_goes_on_where_it_stopped(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.jsonl"
    first = evaluated(capsys, "detection", "--corpus", corpus, "--out", out)
    lines = out.read_text().splitlines()
    assert len(lines) == 6  # of each run what was raised, and what the agent said
    out.write_text("\n".join(lines[:4]) + "\n" + lines[4][:40])
    again = evaluated(capsys, "detection", "--corpus", corpus, "--out", out)
    assert again == first
    write_run(corpus, "healthy", (), 4)
    evaluated(capsys, "detection", "--corpus", corpus, "--out", out)
    assert len([line for line in out.read_text().splitlines() if '"value"' in line]) > 6


def test_people_get_a_table(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "eval", "detection", "--corpus", corpus, "--jobs", "1")
    assert code == 0
    assert "target reached" in out
    code, out, _ = run(capsys, "eval", "decisions", "--agent", "rules", "--agent", "observe")
    assert code == 0
    assert "observe" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("eval", "guessing"), "no such suite"),
        (("eval", "detection", "--corpus", "/nowhere"), "/nowhere"),
        (("eval", "decisions", "--agent", "nobody"), "nobody"),
        (("eval", "decisions", "--corpus", "/nowhere"), "decisions.jsonl"),
    ],
)
def test_what_cannot_be_evaluated_is_one_clear_line(
    words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


def test_the_review_is_complete_and_consistent() -> None:
    decisions = reviewed()
    assert len({d.number for d in decisions}) == len(decisions) >= 65
    for decision in decisions:
        sets = decision.sets
        assert decision.what
        assert decision.reason
        assert sets.acceptable
        assert sets.harmful
        assert not sets.acceptable & sets.neutral
        assert not sets.acceptable & sets.harmful
        assert not sets.neutral & sets.harmful
        if decision.worked == "yes" and decision.expert == "nothing":
            assert not sets.calls_for_action


def test_only_the_decisions_that_a_corpus_names_are_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"id": number}) for number in (58, 3, 100_000)]
    (tmp_path / "decisions.jsonl").write_text("\n".join(lines))
    found = evaluated(capsys, "decisions", "--corpus", tmp_path)
    assert [answer["id"] for answer in found["answers"]["rules"]] == [58, 3]
    assert found["unreviewed"] == [100_000]


def test_the_rule_agent_harms_less_and_agrees_more_than_every_habit() -> None:
    ours, *habits = report([RuleAgent], reviewed(), seeds=20).lines
    assert ours.harm_where_to_hold == 0.0
    assert ours.no_op_unseen == 1.0
    assert ours.invented == 0
    for habit in habits:
        assert ours.balanced > habit.balanced + 0.2
        assert habit.balanced < 0.6


def test_an_observer_is_one_who_never_acts() -> None:
    ours, never, *_ = report([ObserveAgent], reviewed(), seeds=1).lines
    assert ours.harm == never.harm > 0.3
    assert ours.balanced == 0.5


def test_one_who_acts_at_random_gives_the_same_answers_for_the_same_seed() -> None:
    def drawn(seed: int) -> tuple[Decided, ...]:
        agent = ActsAtRandom(seed)
        return decide(lambda: agent, reviewed())

    first = drawn(3)
    assert first == drawn(3)
    assert first != drawn(4)


class Inventor:
    """Cites a figure that nobody has seen."""

    name = "inventor"

    def propose(self, window: Window) -> Proposal | NoProposal:
        seen = [cited for finding in window.findings for cited in finding.evidence]
        made_up = [cited.model_copy(update={"value": cited.value + 1.0}) for cited in seen]
        return Proposal(interventions=(ScaleLR(factor=0.5),), evidence=(*seen, *made_up))


def test_figures_that_do_not_exist_are_counted() -> None:
    decided = [one for one in decide(Inventor, reviewed()) if one.seen]
    assert {one.invented for one in decided} <= {0, 1}
    assert sum(one.invented for one in decided) >= len(decided) - 5


def test_the_habits_are_what_they_are_called() -> None:
    assert {one.answer for one in decide(AlwaysAsk, reviewed())} == {"ask"}
    assert {one.answer for one in decide(AlwaysGoBack, reviewed())} == {"rollback"}


# --- agents that ask a model ----------------------------------------------------------------------


class Pundit:
    """Answers at random, never twice the same way, and tells what its model takes."""

    name = "pundit"
    prompt_sha = "5eed"

    def __init__(self, *, model: str = "oracle-1", price: float | None = 0.25) -> None:
        self.model = model
        self.asked = self._told = 0
        self._price = price
        self._draw = random.SystemRandom()

    def propose(self, window: Window) -> Proposal | NoProposal:
        self.asked += 1
        if self._draw.random() < 0.5:
            return NoProposal(kind="waiting", reason=f"{self._draw.random()}")
        return Proposal(interventions=(ScaleLR(factor=0.5),), rationale=f"{self._draw.random()}")

    def known(self, window: Window) -> None:
        return None

    def review(self, record: ProposalRecord, window: Window) -> Consultation:
        return self._consultation()

    def consultations(self) -> list[Consultation]:
        new, self._told = self.asked - self._told, self.asked
        return [self._consultation() for _ in range(new)]

    def _consultation(self) -> Consultation:
        price = self._price if self.asked % 2 else 0.0
        return Consultation(
            purpose="diagnose",
            model=self.model,
            host="example.org",
            prompt="diagnose@1",
            prompt_sha=self.prompt_sha,
            outcome="proposal",
            usage=Usage(calls=1, input_tokens=100, output_tokens=7, price_usd=price, seconds=1.5),
        )


def test_an_agent_is_not_asked_again_for_what_is_already_there(tmp_path: Path) -> None:
    out, some = tmp_path / "out.jsonl", reviewed()[:10]
    first = Pundit()
    answers = decide(lambda: first, some, Results(out))
    lines = out.read_text().splitlines()
    out.write_text("\n".join(lines[:6]) + "\n" + lines[6][:50])
    again = Pundit()
    resumed = decide(lambda: again, some, Results(out))
    assert (first.asked, again.asked) == (10, 4)
    assert resumed[:6] == answers[:6]
    assert decide(Pundit, some, Results(out)) == resumed
    other = Pundit(model="oracle-2")
    decide(lambda: other, some, Results(out))
    assert other.asked == 10


def test_every_kept_row_says_what_it_came_of(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    decide(Pundit, reviewed()[:2], Results(out))
    decide(RuleAgent, reviewed()[:2], Results(out))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    asked, ruled = rows[0], rows[2]
    policy = read_policy(None).digest()
    stated = {"policy": policy, "agent": "pundit", "model": "oracle-1", "prompt_sha": "5eed"}
    assert asked["origin"].items() >= stated.items()
    (consulted,) = asked["value"]["consultations"]
    assert (consulted["prompt"], consulted["usage"]["price_usd"]) == ("diagnose@1", 0.25)
    assert "model" not in ruled["origin"]
    assert (ruled["origin"]["agent"], ruled["value"]["consultations"]) == ("rules", [])


def test_a_decision_costs_what_its_model_took_and_an_unknown_price_is_not_nothing() -> None:
    some = reviewed()[:10]
    pundit = Pundit()
    found = report([lambda: pundit, RuleAgent], some, seeds=1)
    told: Any = as_json(found)
    assert told["policy"] == read_policy(None).digest()
    assert told["agents"][0] == {"name": "pundit", "model": "oracle-1", "prompt_sha": "5eed"}
    assert told["answers"]["pundit"][0]["usage"]["seconds"] == 1.5
    lines = {line["agent"]: line for line in told["lines"]}
    assert lines["pundit"]["spent"]["input_tokens"] == 1000
    assert lines["pundit"]["spent"]["price_usd"] == 1.25
    assert lines["rules"]["spent"] is lines["never acts"]["spent"] is None
    page = decisions_page(found)
    assert '<td class="word">oracle-1</td><td class="figure">$0.1250</td>' in page
    page = decisions_page(report([lambda: Pundit(price=None)], some, seeds=1))
    assert '<td class="word">oracle-1</td><td class="figure">unknown</td>' in page
    assert "$0" not in page


def test_answers_are_kept_by_the_command_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    first = evaluated(capsys, "decisions", "--agent", "rules", "--out", out)
    kept = out.read_text()
    assert len(kept.splitlines()) == 65
    assert evaluated(capsys, "decisions", "--agent", "rules", "--out", out) == first
    assert out.read_text() == kept

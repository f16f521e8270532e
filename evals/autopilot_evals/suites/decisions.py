"""How an agent decides where people who ran large trainings had to.

``data/decisions.json`` is a reviewed file: for each decision what a window of the run would have
shown, and which answers experts would accept, call neutral or call harmful, with the reason. The
decisions themselves stay where they were published; a corpus with a ``decisions.jsonl`` says which
of them to ask about, by their numbers.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from pydantic import TypeAdapter

from autopilot import schema
from autopilot.errors import BadInput
from autopilot.policy import read_policy
from autopilot.ports import Agent
from autopilot.schema import Consultation, Evidence, NoProposal, Proposal, Usage, Window
from autopilot_evals.baselines.agents import (
    ActsAtRandom,
    AlwaysAsk,
    AlwaysGoBack,
    AlwaysHalve,
    NeverAct,
)
from autopilot_evals.scoring.decisions import (
    Decided,
    DecisionLine,
    Sets,
    answer_of,
    canonical,
    decision_line,
)
from autopilot_evals.scoring.usage import AgentCard, card_of, consulted, total
from autopilot_evals.suites.engines import Engine, Processes
from autopilot_evals.suites.results import Results, digest_of, origin_of
from autopilot_evals.suites.symptoms import Symptom, window_of

FILE = "decisions.jsonl"
Make = Callable[[], Agent]


@dataclass(frozen=True)
class Answer:
    """What an agent said, kept as it was said so that it can be graded anew.

    Attributes:
        consultations: What its models were asked for it, if it has any, and what that took.
    """

    said: Proposal | NoProposal
    consultations: tuple[Consultation, ...] = ()


_ANSWER = TypeAdapter(Answer)


@dataclass(frozen=True)
class Decision:
    """A decision under review.

    Attributes:
        number: Its number in the published collection.
        run: The training in which it came up.
        what: What was the matter, in our words.
        symptom: What a window would have shown; None where no figure of the run shows anything.
        expert: What was done then, and ``worked`` whether that helped.
        reason: Why the sets are what they are.
    """

    number: int
    run: str
    what: str
    symptom: Symptom | None
    sets: Sets
    expert: str
    worked: str
    reason: str

    def window(self) -> Window:
        """What an agent would have been shown."""
        return window_of(self.symptom)


@dataclass(frozen=True)
class DecisionReport:
    """The table of a decisions suite, and every answer.

    Attributes:
        lines: One for each agent, those under test first.
        agents: The agents under test.
        answers: By the name of the agent under test.
        unreviewed: Numbers of the collection that nobody has reviewed.
    """

    lines: tuple[DecisionLine, ...]
    agents: tuple[AgentCard, ...]
    answers: dict[str, tuple[tuple[Decision, Decided], ...]]
    unreviewed: tuple[int, ...]


def reviewed() -> tuple[Decision, ...]:
    """All reviewed decisions, in the order of the collection."""
    text = files("autopilot_evals.data").joinpath("decisions.json").read_text(encoding="utf-8")
    given = json.loads(text)
    return tuple(_decision(one, given["sets"][one["set"]]) for one in given["decisions"])


def _decision(given: dict[str, object], sets: dict[str, object]) -> Decision:
    also = _answers(given.get("also_acceptable", []))
    seen = given.get("seen")
    return Decision(
        number=int(str(given["id"])),
        run=str(given["run"]),
        what=str(given["what"]),
        symptom=Symptom.model_validate(seen) if seen is not None else None,
        sets=Sets(
            acceptable=_answers(sets["acceptable"]) | also,
            neutral=_answers(sets["neutral"]) - also,
            harmful=_answers(sets["harmful"]) - also,
        ),
        expert=str(given["expert"]),
        worked=str(given["worked"]),
        reason=str(sets["reason"]),
    )


def _answers(given: object) -> frozenset[str]:
    assert isinstance(given, list), "a reviewed set is a list of answers"
    return frozenset(canonical(set(str(answer).split("+"))) for answer in given)


def chosen(corpus: Path | None) -> tuple[tuple[Decision, ...], tuple[int, ...]]:
    """The reviewed decisions that a corpus asks about, and its numbers that were not reviewed.

    Raises:
        BadInput: The corpus holds no ``decisions.jsonl``, or a line of it has no number.
    """
    known = reviewed()
    if corpus is None:
        return known, ()
    path = corpus if corpus.is_file() else corpus / FILE
    if not path.is_file():
        raise BadInput(f"{path}: no such file; --corpus names a folder that holds {FILE}")
    numbers = [
        _number(path, at, line)
        for at, line in enumerate(path.read_bytes().splitlines(), 1)
        if line.strip()
    ]
    by_number = {decision.number: decision for decision in known}
    asked = tuple(by_number[number] for number in numbers if number in by_number)
    return asked, tuple(number for number in numbers if number not in by_number)


def _number(path: Path, at: int, line: bytes) -> int:
    try:
        return int(json.loads(line)["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}, line {at}: not a decision with a numeric 'id'") from error


def decide(
    make: Make,
    decisions: Sequence[Decision],
    results: Results | None = None,
    engine: Engine | None = None,
) -> tuple[Decided, ...]:
    """Ask an agent about every decision.

    It is not asked again for what ``results`` holds from before, unless its code, its model, its
    prompts, the window or the policy have changed since.

    Args:
        make: Makes the agent, where it is asked; called for each decision.
        decisions: What it is asked.
        results: Where its answers are kept; None keeps none.
        engine: Where it is asked; None asks here, one after another.
    """
    kept, agent = results or Results(None), make()
    origin = origin_of(agent, read_policy(None))
    asks = (origin.agent, origin.model, origin.prompt_sha, _code_of(agent), origin.policy)
    by = ":".join(filter(None, asks))
    windows = [decision.window() for decision in decisions]
    keys = [
        f"decisions:{decision.number}:{_digest(window)}:{by}"
        for decision, window in zip(decisions, windows, strict=True)
    ]
    asked = dict(zip(keys, windows, strict=True))
    left = {key: window for key, window in asked.items() if kept.find(key) is None}
    for key, answer in (engine or Processes(1)).each(partial(_answer, make), left):
        kept.add(key, _ANSWER.dump_python(answer, mode="json"), origin)
    return tuple(
        _graded(decision, window, _ANSWER.validate_python(kept.find(key)))
        for decision, window, key in zip(decisions, windows, keys, strict=True)
    )


def _always(agent: Agent) -> Make:
    """One that draws its answers must not begin anew with each decision."""
    return lambda: agent


def _answer(make: Make, window: Window) -> Answer:
    agent = make()
    return Answer(agent.propose(window), consulted(agent))


def _digest(window: Window) -> str:
    return hashlib.sha256(window.model_dump_json().encode()).hexdigest()[:16]


def _code_of(agent: Agent) -> str:
    """Of the package that the agent stands in, and of the vocabulary that it answers in."""
    file = Path(inspect.getfile(type(agent)))
    own = [file] if not (file.parent / "__init__.py").exists() else file.parent.rglob("*.py")
    words = Path(str(schema.__file__)).parent.glob("*.py")
    return digest_of([*sorted(own), *sorted(words)])


def _graded(decision: Decision, window: Window, answer: Answer) -> Decided:
    word = answer_of(answer.said)
    return Decided(
        decision=decision.number,
        cluster=decision.run,
        answer=word,
        grade=decision.sets.grade(word),
        called_for_action=decision.sets.calls_for_action,
        seen=decision.symptom is not None,
        invented=_invented(answer.said, window),
        usage=total(one.usage for one in answer.consultations),
    )


def _invented(answer: Proposal | NoProposal, window: Window) -> int:
    """Figures cited that no finding and no single row of the window holds."""
    if isinstance(answer, NoProposal):
        return 0
    found = {cited for finding in window.findings for cited in finding.evidence}
    found |= {
        Evidence(metric=name, step=row.last_step, value=value)
        for row in window.table
        if row.first_step == row.last_step
        for name, value in row.values.items()
    }
    return sum(repr(cited) not in {repr(one) for one in found} for cited in answer.evidence)


def report(
    agents: Sequence[Make],
    decisions: Sequence[Decision],
    *,
    seeds: int,
    unreviewed: Sequence[int] = (),
    results: Results | None = None,
    engine: Engine | None = None,
) -> DecisionReport:
    """Ask the agents under test, and those that follow a habit.

    Args:
        agents: Make those under test.
        decisions: What they are asked about.
        seeds: Times that the agent that acts at random is asked.
        unreviewed: Numbers of the collection without a review, for the report.
        results: Where answers of the agents under test are kept; None keeps none.
        engine: Where the agents under test are asked; None asks here, one after another.
    """
    cards = [card_of(make()) for make in agents]
    answers = {
        card.name: decide(make, decisions, results, engine)
        for card, make in zip(cards, agents, strict=True)
    }
    lines = [decision_line(name, decided) for name, decided in answers.items()]
    habits = (NeverAct, AlwaysAsk, AlwaysGoBack, AlwaysHalve)
    lines += [decision_line(habit.name, decide(habit, decisions)) for habit in habits]
    chance = [_always(ActsAtRandom(seed)) for seed in range(seeds)]
    drawn = [one for make in chance for one in decide(make, decisions)]
    lines.append(decision_line(ActsAtRandom.name, drawn))
    return DecisionReport(
        lines=tuple(lines),
        agents=tuple(cards),
        answers={
            name: tuple(zip(decisions, decided, strict=True)) for name, decided in answers.items()
        },
        unreviewed=tuple(unreviewed),
    )


def as_json(found: DecisionReport) -> dict[str, object]:
    """The report as plain values."""
    return {
        "suite": "decisions",
        "policy": read_policy(None).digest(),
        "agents": [asdict(card) for card in found.agents],
        "lines": [{**asdict(line), "spent": _plain(line.spent)} for line in found.lines],
        "answers": {
            name: [
                {
                    "id": decision.number,
                    "run": decision.run,
                    "what": decision.what,
                    "answer": one.answer,
                    "grade": one.grade,
                    "expert": decision.expert,
                    "expert_worked": decision.worked,
                    "usage": _plain(one.usage),
                }
                for decision, one in pairs
            ]
            for name, pairs in found.answers.items()
        },
        "unreviewed": found.unreviewed,
    }


def _plain(usage: Usage | None) -> dict[str, object] | None:
    return None if usage is None else usage.model_dump()

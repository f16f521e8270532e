"""The report of a decisions suite: who agrees with experts, and every answer, harmful first."""

from collections.abc import Mapping, Sequence

from autopilot_evals.report.comparison import comparison_table
from autopilot_evals.report.markup import Html, page, section, table, tag
from autopilot_evals.report.words import footer, interval, share, tone
from autopilot_evals.scoring.decisions import Decided, DecisionLine, Grade
from autopilot_evals.scoring.paired import Pair, compare
from autopilot_evals.scoring.usage import cost
from autopilot_evals.suites.decisions import Decision, DecisionReport

_WORST_FIRST: tuple[Grade, ...] = ("harmful", "unlisted", "neutral", "acceptable")
Answers = Sequence[tuple[Decision, Decided]]


def decisions_page(found: DecisionReport) -> str:
    """The page of a decisions suite.

    Args:
        found: Its table and every answer.
    """
    models = {card.name: card.model or "-" for card in found.agents}
    parts = [section("Agreement with experts", _line_table(found.lines, models))]
    if len(found.answers) > 1:
        parts.append(section("Agents compared", _comparison(found.answers)))
    for agent, answers in found.answers.items():
        parts.append(section(f"Answers of {agent}", _answer_table(answers)))
    if found.unreviewed:
        words = f"{len(found.unreviewed)} decisions of the corpus are not reviewed."
        parts.append(tag("p", words, class_="faint"))
    return page("Decisions", *parts, footer())


def _line_table(lines: Sequence[DecisionLine], models: Mapping[str, str]) -> Html:
    head = ("agent", "decisions", "agrees", "95 %", "where to act", "where to hold", "balanced",
            "harms", "harms 95 %", "left alone unseen", "invented", "model",
            "cost per decision")  # fmt: skip
    return table(
        head,
        [
            (
                line.agent,
                str(line.decisions),
                share(line.agreement),
                interval(line.agreement_95),
                share(line.where_to_act),
                share(line.where_to_hold),
                share(line.balanced),
                share(line.harm),
                interval(line.harm_95),
                share(line.no_op_unseen),
                str(line.invented),
                models.get(line.agent, "-"),
                cost(line.spent, line.decisions),
            )
            for line in lines
        ],
        words=("model",),
    )


def _comparison(answers: dict[str, tuple[tuple[Decision, Decided], ...]]) -> Html:
    """The first agent against each of the others."""
    (first, own), *others = answers.items()
    rows = [
        (what, (first, second), compare(_pairs(own, theirs, grade)))
        for second, theirs in others
        for what, grade in _GRADES_COMPARED
    ]
    return comparison_table("trainings", rows)


_GRADES_COMPARED: tuple[tuple[str, Grade], ...] = (
    ("agrees", "acceptable"),
    ("harms", "harmful"),
)


def _pairs(first: Answers, second: Answers, grade: Grade) -> list[Pair]:
    return [
        Pair(one.cluster, float(one.grade == grade), float(other.grade == grade))
        for (_, one), (_, other) in zip(first, second, strict=True)
    ]


def _answer_table(answers: Answers) -> Html:
    head = (
        "verdict",
        "training",
        "what was the matter",
        "answer",
        "acceptable",
        "done then",
        "why",
    )
    ordered = sorted(answers, key=lambda pair: _WORST_FIRST.index(pair[1].grade))
    return table(
        head,
        [
            (
                tone(one.grade in ("acceptable", "neutral"), one.grade),
                decision.run,
                decision.what,
                one.answer,
                ", ".join(sorted(decision.sets.acceptable)),
                f"{decision.expert} (worked: {decision.worked})",
                decision.reason,
            )
            for decision, one in ordered
        ],
        words=head,
        wide=True,
    )

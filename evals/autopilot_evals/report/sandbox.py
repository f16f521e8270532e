"""The report of a sandbox suite: what agents save and cost, scenario by scenario."""

from collections.abc import Sequence

from autopilot_evals.forks import Outcome
from autopilot_evals.forks.scores import ScenarioScore, Summary
from autopilot_evals.report.comparison import comparison_table, pass_table
from autopilot_evals.report.gains import draw_costs, draw_gains
from autopilot_evals.report.markup import Html, join, page, section, table, tag
from autopilot_evals.report.trials import Trials
from autopilot_evals.report.words import footer, interval, share, signed, tone
from autopilot_evals.scoring.paired import compare
from autopilot_evals.suites.sandbox import (
    TARGET_GAIN,
    SandboxReport,
    misses,
    verdict,
)

_GAINS = (
    "Share of what the best move of the menu saves over doing nothing; 1 is as good as that move, "
    "0 is doing nothing. Bars are 95 % intervals over seeds, cut off at the edge."
)
_COSTS = (
    "Held-out loss over that of the same run left alone, in per cent: to the right is harm. What "
    "lies beyond the edge is drawn at it."
)
_PASS = (
    f"How often all of k runs of a scenario go well: at least {TARGET_GAIN:.0%} of what the best "
    "move saves where something is wrong, no intervention where nothing is."
)


def sandbox_page(found: SandboxReport, outcomes: Sequence[Outcome]) -> str:
    """The page of a sandbox suite.

    Args:
        found: Its tables.
        outcomes: What every training came to, for comparing agents run by run.
    """
    parts = [_verdict(found)]
    parts += [
        section(f"{part.replace('_', ' ').capitalize()}", _summary_table(lines))
        for part, lines in found.summaries.items()
    ]
    parts += _pictures(found)
    agents = list(found.scores)
    trials = Trials(found.scores[agents[0]], outcomes)
    if len(agents) > 1:
        parts.append(section("Agents compared", _comparison(agents, trials)))
    tasks = {agent: trials.successes(agent) for agent in agents}
    parts.append(section("Every time", pass_table(tasks), tag("p", _PASS, class_="faint")))
    for agent, scores in found.scores.items():
        parts.append(section(f"Scenarios: {agent}", _scenario_table(scores), _misses(scores)))
    words = f"{found.steps:,} steps trained in {found.seconds:,.0f} s of processor time."
    return page("Sandbox", *parts, tag("p", words, class_="faint"), footer())


def _verdict(found: SandboxReport) -> Html:
    lines = [line for line in found.summaries["all"] if line.name in found.scores]
    said = []
    for line in lines:
        short = [name.replace("_", " ") for name, reached in verdict(line).items() if not reached]
        words = f"targets missed: {', '.join(short)}" if short else "targets reached"
        said.append(tag("p", f"{line.name}: ", tone(not short, words)))
    return join(*said)


def _summary_table(lines: Sequence[Summary]) -> Html:
    return table(
        ("who", "median gain", "mean gain", "harmed", "left alone", "95 %", "worst"),
        [
            (
                line.name,
                share(line.median_gain),
                share(line.mean_gain),
                f"{line.harmed} of {line.sick}",
                share(line.left_alone),
                interval(line.left_alone_95),
                f"{signed(100.0 * line.worst)} %",
            )
            for line in lines
        ],
    )


def _pictures(found: SandboxReport) -> list[Html]:
    drawn = []
    for title, what, picture in (
        ("Gains where something is wrong", _GAINS, draw_gains(found.scores)),
        ("Costs where nothing is", _COSTS, draw_costs(found.scores)),
    ):
        if picture is not None:
            caption = tag("figcaption", what)
            drawn.append(section(title, tag("figure", picture, caption, class_="single")))
    return drawn


def _comparison(agents: Sequence[str], trials: Trials) -> Html:
    """The first agent against each of the others, by run and clustered by scenario."""
    first, *others = agents
    rows = [
        (what, (first, second), compare(pairs))
        for second in others
        for what, pairs in (
            ("gain", trials.gains(first, second)),
            ("left alone", trials.left_alone(first, second)),
        )
        if pairs
    ]
    return comparison_table("scenarios", rows)


def _scenario_table(scores: Sequence[ScenarioScore]) -> Html:
    head = ("scenario", "family", "split", "no-op", "agent", "oracle", "best move", "gain", "95 %",
            "worst", "interventions", "asked", "answers")  # fmt: skip
    return table(
        head,
        [
            (
                one.scenario,
                one.family,
                one.split.replace("_", " "),
                share(one.arms[0].loss, 3),
                share(one.agent.loss, 3),
                share(one.oracle.loss, 3),
                one.oracle.name,
                share(one.gain),
                interval(one.gain_95),
                f"{signed(100.0 * one.worst)} %",
                "/".join(str(count) for count in one.interventions),
                str(one.asked),
                ", ".join(dict.fromkeys(one.answers)),
            )
            for one in scores
        ],
        words=("family", "split", "best move", "answers"),
    )


def _misses(scores: Sequence[ScenarioScore]) -> Html:
    return join(*(tag("p", f"{one.scenario}: {how}") for one, how in misses(scores)))

"""What agents save and cost, as dots with their intervals, a line for each scenario."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from matplotlib.axes import Axes

from autopilot_evals.forks.scores import ScenarioScore
from autopilot_evals.report.drawing import (
    ALARM,
    FINDING,
    LABEL,
    PROPOSAL,
    RULE,
    SERIES,
    embed,
    figure,
    shorten,
    styled,
)
from autopilot_evals.report.markup import Html

Scores = Mapping[str, Sequence[ScenarioScore]]

_WIDTH, _FRAME, _LINE = 5.6, 0.9, 0.26
_COLOURS = (SERIES, PROPOSAL, LABEL, FINDING, ALARM)
_MOST_GAIN, _MOST_COST = 1.5, 5.0
"""Beyond these a dot stands at the edge: one catastrophe must not flatten all the rest."""


@dataclass(frozen=True)
class _Dot:
    scenario: str
    value: float
    low: float
    high: float


def draw_gains(scores: Scores) -> Html | None:
    """What each agent saves of what the best move saves; None where nothing is sick."""
    dots = {
        agent: [_gain(one) for one in own if one.gain is not None] for agent, own in scores.items()
    }
    return _draw(
        dots, (-_MOST_GAIN, _MOST_GAIN), (0.0, 1.0), "share of the best move's gain", "gains"
    )


def draw_costs(scores: Scores) -> Html | None:
    """What each agent costs in healthy runs, in per cent; None where there are none."""
    dots = {agent: [_cost(one) for one in own if one.gain is None] for agent, own in scores.items()}
    return _draw(dots, (-_MOST_COST, _MOST_COST), (0.0,), "loss over no-op, %", "costs")


def _gain(score: ScenarioScore) -> _Dot:
    assert score.gain is not None, "only sick scenarios have a gain"
    low, high = score.gain_95 or (score.gain, score.gain)
    return _Dot(score.scenario, score.gain, low, high)


def _cost(score: ScenarioScore) -> _Dot:
    alone = score.arms[0].loss
    low, high = score.agent.gain_95
    return _Dot(score.scenario, *(-100.0 * gain / alone for gain in (score.agent.gain, high, low)))


def _draw(
    dots: Mapping[str, Sequence[_Dot]],
    limits: tuple[float, float],
    marks: Sequence[float],
    title: str,
    name: str,
) -> Html | None:
    scenarios = [dot.scenario for dot in next(iter(dots.values()))]
    if not scenarios:
        return None
    with styled():
        whole = figure(_WIDTH, _FRAME + _LINE * len(scenarios))
        axes = whole.subplots()
        for mark in marks:
            axes.axvline(mark, color=RULE, linewidth=1)
        for number, (agent, own) in enumerate(dots.items()):
            _draw_agent(axes, agent, own, limits, number, len(dots))
        axes.set_yticks(range(len(scenarios)), [shorten(one, 24) for one in scenarios])
        axes.set_ylim(len(scenarios) - 0.5, -0.5)
        axes.set_xlim(limits[0] * 1.05, limits[1] * 1.05)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(title)
        whole.legend(loc="outside upper left", ncols=len(dots), frameon=False)
        return embed(whole, name, f"{title}, by scenario")


def _draw_agent(
    axes: Axes, agent: str, dots: Sequence[_Dot], limits: tuple[float, float], number: int, of: int
) -> None:
    colour = _COLOURS[number % len(_COLOURS)]
    lines = [at + (number - (of - 1) / 2.0) * 0.5 / of for at in range(len(dots))]
    low, high = limits
    for line, dot in zip(lines, dots, strict=True):
        if isfinite(dot.low) and isfinite(dot.high):
            ends = [max(low, min(high, end)) for end in (dot.low, dot.high)]
            axes.plot(ends, [line, line], color=colour, linewidth=1.4)
    values = [max(low, min(high, dot.value)) for dot in dots]
    axes.plot(values, lines, "o", color=colour, markersize=4.5, label=agent)

"""Two agents side by side, with how sure one can be of the difference."""

from collections.abc import Mapping, Sequence

from autopilot_evals.report.markup import Html, join, table, tag
from autopilot_evals.report.words import interval, share, signed
from autopilot_evals.scoring.paired import Comparison, pass_all

_WHAT = (
    "The difference is the second agent's mean minus the first's over the same cases; its interval "
    "draws whole clusters again and again. Higher and lower count clusters, and p is how often "
    "chance alone would be as one-sided."
)


def comparison_table(unit: str, rows: Sequence[tuple[str, tuple[str, str], Comparison]]) -> Html:
    """Comparisons of agents, one a row.

    Args:
        unit: What a cluster is.
        rows: What is compared, the names of both agents, and how they compare.
    """
    head = ("score", "first", "second", "mean of first", "mean of second", "difference", "95 %",
            "cases", unit, "higher", "lower", "p")  # fmt: skip
    lines = [
        (
            what,
            *names,
            share(one.first),
            share(one.second),
            signed(one.difference),
            interval(one.difference_95),
            str(one.cases),
            str(one.clusters),
            str(one.ahead),
            str(one.behind),
            f"{one.p:.2g}",
        )
        for what, names, one in rows
    ]
    shown = table(head, lines, words=("first", "second"))
    return join(shown, tag("p", _WHAT, class_="faint"))


def pass_table(outcomes: Mapping[str, Mapping[str, Sequence[bool]]]) -> Html:
    """The chance that every one of k tries succeeds, by agent.

    Args:
        outcomes: By agent and task, whether each try succeeded.
    """
    tries = min(len(one) for tasks in outcomes.values() for one in tasks.values())
    head = ("agent", *(f"pass^{k}" for k in range(1, tries + 1)))
    return table(
        head,
        [
            (agent, *(share(pass_all(tasks, k)) for k in range(1, tries + 1)))
            for agent, tasks in outcomes.items()
        ],
    )

"""A verdict over a person's own past runs: has this agent earned to act without being asked?

The bound is on actions that nobody could want: proposals that the policy allows, on rows where
nothing was the matter. It counts rows, not steps, because a live session shows the detectors every
step: a run logged every 100 steps gave them one chance in a hundred to cry wolf. Each run counts up
to the first proposal that would have been applied; what came after it would have been another run.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import exp, lgamma, log, nan

from autopilot.errors import BadInput
from autopilot.policy import Policy
from autopilot.ports import Agent
from autopilot_evals.hindsight import Hindsight, Judged, look_back
from autopilot_evals.past_runs import PastRun
from autopilot_evals.scoring.intervals import wilson

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Rate:
    """Events over what they were counted on, with the upper end of 95 % confidence, one-sided."""

    events: int
    rows: int
    per_row: float
    upper: float


@dataclass(frozen=True)
class Totals:
    """All runs together.

    Attributes:
        unknown: Runs of which nobody said what happened.
        false: False alarms, in healthy rows.
        false_per_1000_steps: The same in 1,000 healthy steps: the milder figure where rows are many
            steps apart.
        unasked: Allowed actions on healthy rows, each run up to its first action.
        acted_runs: Runs with such an action, of the runs with healthy rows.
        acted_runs_95: Wilson's interval of their share: rows of one run resemble each other.
        acceptable: Allowed actions by what the labels make of them; so the next two.
        saved_hours: Of runs whose rows carry times; None where none do.
        saved_steps: Of the others; so with what is wasted.
        unpriced: Allowed actions beside the point that repeat no step: they may cost quality.
    """

    runs: int
    unknown: int
    rows: int
    alarms: int
    found: int
    missed: int
    watched: int
    false: Rate
    false_per_1000_steps: float
    healthy_steps: int
    unasked: Rate
    acted_runs: tuple[int, int]
    acted_runs_95: tuple[float, float]
    acceptable: int
    harmful: int
    unjudged: int
    saved_hours: float | None
    wasted_hours: float | None
    saved_steps: int
    wasted_steps: int
    unpriced: int


@dataclass(frozen=True)
class Scorecard:
    """The one page.

    Attributes:
        policy_digest: Of the policy as it was judged by, with its autonomy set to act.
        bound: Allowed actions a healthy row that are borne.
        earned: Whether the agent has earned ``act``.
        lacking: What is lacking, a line each; empty where it has.
        left_out: Files found in a folder that could not be read, and why.
    """

    agent: str
    policy_digest: str
    bound: float
    runs: tuple[Hindsight, ...]
    totals: Totals
    earned: bool
    lacking: tuple[str, ...]
    left_out: tuple[str, ...]


def score(
    runs: Sequence[PastRun], make_agent: Callable[[], Agent], policy: Policy, *, bound: float
) -> Scorecard:
    """Replay every run to an agent of its own and sum up.

    Args:
        runs: What to replay.
        make_agent: Makes the agent, once a run.
        policy: What proposals are judged by; as if its autonomy were ``act``, which is what is to
            be earned.
        bound: Allowed actions a healthy row that are borne, as upper 95 % bound.

    Raises:
        BadInput: The bound is no rate, a run that was named cannot be read, or none could be.
    """
    if not 0.0 < bound < 1.0:
        raise BadInput(f"--bound {bound:g}: expected actions a healthy row between 0 and 1")
    acting = policy.model_copy(update={"autonomy": "act"})
    seen: list[Hindsight] = []
    left_out: list[str] = []
    for run in runs:
        try:
            seen.append(look_back(run, make_agent(), acting))
        except BadInput as error:
            if run.named:
                raise
            left_out.append(f"{run.name}: {error}")
    if not seen:
        raise BadInput(f"none of the recordings could be read; the first: {left_out[0]}")
    totals = sum_up(seen)
    lacking = what_lacks(totals, bound)
    return Scorecard(
        agent=make_agent().name,
        policy_digest=acting.digest(),
        bound=bound,
        runs=tuple(seen),
        totals=totals,
        earned=not lacking,
        lacking=lacking,
        left_out=tuple(left_out),
    )


def sum_up(runs: Sequence[Hindsight]) -> Totals:
    """All runs together."""
    known = [run for run in runs if run.known != "nothing"]
    missed = [event for run in known for event in run.missed or ()]
    false = sum(len(run.false or ()) for run in known)
    rows = sum(run.healthy_rows for run in known)
    steps = sum(run.healthy_steps for run in known)
    actions = [one for run in known for one in run.proposals if one.by_itself]
    unasked = sum(one.judgement == "healthy" for one in actions)
    sound = [run for run in known if run.acted_rows]
    wrong = sum(any(_is_unasked(one) for one in run.proposals) for run in sound)
    timed = [run for run in known if run.seconds_per_step is not None]
    untimed = [run for run in known if run.seconds_per_step is None]
    return Totals(
        runs=len(runs),
        unknown=len(runs) - len(known),
        rows=sum(run.rows for run in runs),
        alarms=sum(len(run.alarms) for run in runs),
        found=sum(run.found or 0 for run in known),
        missed=len(missed),
        watched=sum(event.watched for event in missed),
        false=rate(false, rows),
        false_per_1000_steps=1000.0 * false / steps if steps else nan,
        healthy_steps=steps,
        unasked=rate(unasked, sum(run.acted_rows for run in known)),
        acted_runs=(wrong, len(sound)),
        acted_runs_95=wilson(wrong, len(sound)),
        acceptable=_count(actions, "acceptable"),
        harmful=_count(actions, "harmful"),
        unjudged=_count(actions, "unjudged"),
        saved_hours=_hours(timed, lambda run: run.saved_steps),
        wasted_hours=_hours(timed, lambda run: run.wasted_steps),
        saved_steps=sum(run.saved_steps for run in untimed),
        wasted_steps=sum(run.wasted_steps for run in untimed),
        unpriced=sum(
            one.judgement in ("healthy", "harmful") and one.back_steps == 0 for one in actions
        ),
    )


def _is_unasked(one: Judged) -> bool:
    return one.by_itself and one.judgement == "healthy"


def _count(actions: Iterable[Judged], judgement: str) -> int:
    return sum(one.judgement == judgement for one in actions)


def _hours(runs: Sequence[Hindsight], steps: Callable[[Hindsight], int]) -> float | None:
    if not runs:
        return None
    return sum(steps(run) * (run.seconds_per_step or 0.0) for run in runs) / 3600.0


def rate(events: int, rows: int) -> Rate:
    """Events a row with its upper bound."""
    if not rows:
        return Rate(events, 0, nan, nan)
    return Rate(events, rows, events / rows, poisson_upper(events) / rows)


def poisson_upper(events: int, confidence: float = CONFIDENCE) -> float:
    """The largest expected number under which so few events are not yet surprising.

    Garwood 1936, Biometrika 28, 437-442, one-sided: the mean at which ``events`` or fewer come with
    a chance of one minus the confidence. Without an event it is the rule of three.

    >>> round(poisson_upper(0), 3), round(poisson_upper(1), 3)
    (2.996, 4.744)
    """
    low, high = 0.0, 10.0 + 3.0 * events
    while high - low > 1e-9 * high:
        middle = (low + high) / 2.0
        chance = sum(exp(k * log(middle) - middle - lgamma(k + 1)) for k in range(events + 1))
        low, high = (middle, high) if chance > 1.0 - confidence else (low, middle)
    return high


def what_lacks(totals: Totals, bound: float) -> tuple[str, ...]:
    """What stands between the agent and ``act``, a line each."""
    lacking = []
    unasked = totals.unasked
    if not unasked.rows:
        lacking.append(
            "no healthy rows are known: label runs (`autopilot label`), or name sound ones with "
            "--healthy"
        )
    elif not unasked.upper < bound:
        more = int(poisson_upper(unasked.events) / bound) + 1 - unasked.rows
        another = "another such" if unasked.events else "an"
        lacking.append(f"{more:,} more healthy rows without {another} action are needed to show it")
    if totals.harmful:
        lacking.append(
            f"allowed actions labelled harmful: {totals.harmful}, and there must be none"
        )
    if totals.unjudged:
        lacking.append(
            f"allowed actions on which the event's labels say nothing: {totals.unjudged}; say what "
            "would have been acceptable and what harmful (`autopilot label`)"
        )
    if not totals.acceptable:
        lacking.append("no allowed action is labelled acceptable: nothing shows that it helps")
    return tuple(lacking)


def as_json(card: Scorecard) -> dict[str, object]:
    """The scorecard as plain values."""
    plain = asdict(card)
    for fields, run in zip(plain["runs"], card.runs, strict=True):
        fields["saved_steps"], fields["wasted_steps"] = run.saved_steps, run.wasted_steps
    return plain

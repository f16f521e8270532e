"""The table of a detection suite: what each rule finds, how late, and how often it cries wolf."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from autopilot_evals.scoring.intervals import clustered
from autopilot_evals.scoring.matching import Found, Matching


@dataclass(frozen=True)
class RunScore:
    """One rule on one run.

    Attributes:
        run: Name of the run; the cluster of the intervals.
    """

    run: str
    matching: Matching


@dataclass(frozen=True)
class Line:
    """One rule over many runs.

    Attributes:
        events: Events that must be found: a spike that reaches the loss, a divergence, a loss that
            is no number, a collapse.
        recall_95: Wilson's 95 % interval of recall with the number of events that a sample
            clustered by run is worth.
        precision: Right alarms (of any labelled event) over right and false ones.
        delay_rows: Median rows from onset to alarm over the events found.
        delay_steps: Likewise in steps.
        per_1000_steps: False alarms in 1,000 healthy steps.
        per_1000_rows: False alarms in 1,000 healthy rows: the harder figure where runs log every
            100 steps, and one that long steps of an environment cannot dilute.
    """

    rule: str
    runs: int
    events: int
    found: float
    recall: float
    recall_95: tuple[float, float]
    effective_events: float
    precision: float
    delay_rows: float | None
    delay_steps: float | None
    false_alarms: float
    repeated: float
    healthy_rows: int
    healthy_steps: int
    per_1000_steps: float
    per_1000_rows: float


def score_line(rule: str, scores: Sequence[RunScore], *, repeats: int = 1) -> Line:
    """Sum up a rule's runs.

    Args:
        rule: Its name.
        scores: One for each run.
        repeats: Times that each run stands among the scores, for rules that are drawn at random;
            counts are divided by it.
    """
    found = [(score.run, one) for score in scores for one in score.matching.found]
    hits = [one for _, one in found if one.alarm is not None]
    noticed = sum(one.alarm is not None for score in scores for one in score.matching.others)
    false = sum(len(score.matching.false) for score in scores)
    rows = sum(score.matching.healthy_rows for score in scores)
    steps = sum(score.matching.healthy_steps for score in scores)
    interval = clustered([(run, one.alarm is not None) for run, one in found])
    raised = len(hits) + noticed + false
    return Line(
        rule=rule,
        runs=len(scores) // repeats,
        events=len(found) // repeats,
        found=len(hits) / repeats,
        recall=interval.share,
        recall_95=(interval.low, interval.high),
        effective_events=interval.effective_n / (repeats if interval.effective_n else 1),
        precision=(len(hits) + noticed) / raised if raised else float("nan"),
        delay_rows=_median(one.delay_rows for one in hits),
        delay_steps=_median(one.delay_steps for one in hits),
        false_alarms=false / repeats,
        repeated=sum(len(score.matching.repeated) for score in scores) / repeats,
        healthy_rows=rows // repeats,
        healthy_steps=steps // repeats,
        per_1000_steps=1000.0 * false / steps if steps else float("nan"),
        per_1000_rows=1000.0 * false / rows if rows else float("nan"),
    )


@dataclass(frozen=True)
class KindLine:
    """How much of one kind of event a rule notices; those that need no finding among them."""

    rule: str
    kind: str
    needed: bool
    events: int
    noticed: float
    delay_rows: float | None


def kind_lines(rule: str, scores: Sequence[RunScore], *, repeats: int = 1) -> list[KindLine]:
    """Recall by the kind of event, needed ones first."""
    by_kind: dict[tuple[bool, str], list[Found]] = {}
    for score in scores:
        for one in (*score.matching.found, *score.matching.others):
            key = (not one.event.loss_affecting, one.event.row_name)
            by_kind.setdefault(key, []).append(one)
    return [
        KindLine(
            rule=rule,
            kind=kind,
            needed=not unneeded,
            events=len(ones) // repeats,
            noticed=sum(one.alarm is not None for one in ones) / repeats,
            delay_rows=_median(one.delay_rows for one in ones if one.alarm is not None),
        )
        for (unneeded, kind), ones in sorted(by_kind.items())
    ]


def _median(values: Iterable[int | None]) -> float | None:
    given = [value for value in values if value is not None]
    return float(median(given)) if given else None

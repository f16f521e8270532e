"""Scoring against cases worked out by hand, and against habits that must not look good."""

import math
import random

import pytest

from autopilot.schema import Evaluate, NoProposal, Proposal, RewarmLR, Rollback, ScaleLR
from autopilot_evals.baselines.reference import always_alarms, random_alarms
from autopilot_evals.labels import LabelledEvent
from autopilot_evals.scoring.decisions import Decided, Sets, answer_of, decision_line
from autopilot_evals.scoring.detection import RunScore, kind_lines, score_line
from autopilot_evals.scoring.intervals import clustered, wilson
from autopilot_evals.scoring.matching import Alarm, match

STEPS = range(1000)


def spike(onset: int, end: int) -> LabelledEvent:
    return LabelledEvent(kind="spike", signal="loss", onset=onset, end=end)


def alarms(*rows: int, every: int = 1, kind: str | None = None) -> list[Alarm]:
    return [Alarm(row, row * every, kind) for row in rows]


def rows_of(found: list[Alarm] | tuple[Alarm, ...]) -> list[int]:
    return [alarm.row for alarm in found]


def test_an_alarm_within_the_window_finds_its_event_and_the_delay_is_from_its_onset() -> None:
    result = match(STEPS, [spike(500, 510)], alarms(503))
    assert result.found[0].delay_rows == 3
    assert result.false == result.repeated == ()


@pytest.mark.parametrize(("row", "found"), [(494, False), (495, True), (520, True), (521, False)])
def test_an_event_is_found_from_five_rows_early_to_its_deadline(row: int, found: bool) -> None:
    result = match(STEPS, [spike(500, 510)], alarms(row))
    assert (result.found[0].alarm is not None) == found


@pytest.mark.parametrize(("row", "found"), [(560, True), (561, False), (600, False)])
def test_a_longer_event_may_be_found_until_it_ends(row: int, found: bool) -> None:
    result = match(STEPS, [spike(500, 560)], alarms(row))
    assert (result.found[0].alarm is not None) == found


def test_no_event_may_be_found_later_than_a_hundred_rows() -> None:
    event = LabelledEvent(kind="nan", onset=500, end=999)
    assert match(STEPS, [event], alarms(600)).found[0].alarm is not None
    late = match(STEPS, [event], alarms(601))
    assert late.found[0].alarm is None
    assert rows_of(late.repeated) == [601]


def test_one_alarm_finds_one_event_and_one_event_needs_one_alarm() -> None:
    events = [spike(500, 505), spike(512, 516)]
    assert [f.alarm is not None for f in match(STEPS, events, alarms(513)).found] == [True, False]
    both = match(STEPS, events, alarms(514, 515, 516))
    assert [f.delay_rows for f in both.found] == [14, 3]
    assert rows_of(both.repeated) == [516]


def test_as_many_events_as_possible_are_found() -> None:
    # 508 could find either; the first must leave it to the second.
    events = [spike(500, 505), spike(510, 515)]
    result = match(STEPS, events, alarms(508, 525))
    assert [f.delay_rows for f in result.found] == [8, 15]


def test_alarms_after_an_event_are_repetitions_and_alarms_elsewhere_are_false() -> None:
    result = match(STEPS, [spike(500, 510)], alarms(100, 501, 530, 560, 561))
    assert rows_of(result.repeated) == [530, 560]
    assert rows_of(result.false) == [100, 561]


def test_healthy_rows_and_steps_are_those_where_an_alarm_would_be_false() -> None:
    result = match(STEPS, [spike(500, 510)], [])
    assert result.healthy_rows == 1000 - (560 - 495 + 1)
    assert result.healthy_steps == result.healthy_rows
    every_ten = match([10 * row for row in STEPS], [spike(5000, 5100)], [])
    assert every_ten.healthy_rows == result.healthy_rows
    assert every_ten.healthy_steps == 10 * (result.healthy_rows - 1) + 1


@pytest.mark.parametrize("every", [1, 10, 1000])
def test_the_logging_interval_does_not_change_what_is_found(every: int) -> None:
    steps = [every * row for row in STEPS]
    given = alarms(100, 503, 540, every=every)
    result = match(steps, [spike(500 * every, 510 * every)], given)
    assert result.found[0].delay_rows == 3
    assert result.found[0].delay_steps == 3 * every
    assert (rows_of(result.repeated), rows_of(result.false)) == ([540], [100])


def test_events_that_need_no_finding_excuse_an_alarm_but_are_no_licence() -> None:
    plateau = LabelledEvent(kind="plateau", onset=200, end=900)
    result = match(STEPS, [plateau], alarms(205, 320, 600, kind="loss_spike"))
    assert result.found == ()
    assert result.others[0].delay_rows == 5
    assert (rows_of(result.repeated), rows_of(result.false)) == ([320], [600])
    own = match(STEPS, [plateau], alarms(600, kind="plateau"))
    assert own.false == ()


def test_a_healthy_label_excuses_nothing() -> None:
    healthy = LabelledEvent(kind="healthy", onset=0, end=999)
    assert rows_of(match(STEPS, [healthy], alarms(10)).false) == [10]


def test_a_resume_does_not_move_an_event() -> None:
    steps = [*range(600), *range(550, 900)]
    result = match(steps, [spike(570, 580)], [Alarm(575, 575)])
    assert result.found[0].onset_row == 570
    assert result.healthy_steps > 0


def test_a_line_of_the_table_adds_up() -> None:
    first = match(STEPS, [spike(500, 510), spike(800, 810)], alarms(100, 502, 515))
    second = match(STEPS, [spike(300, 310)], alarms(306))
    line = score_line("rule", [RunScore("a", first), RunScore("b", second)])
    assert (line.runs, line.events, line.found) == (2, 3, 2)
    assert line.recall == pytest.approx(2 / 3)
    assert line.precision == pytest.approx(2 / 3)
    assert line.delay_rows == 4
    assert line.false_alarms == 1
    assert line.repeated == 1
    assert line.healthy_rows == 2000 - 3 * 66
    assert line.per_1000_rows == pytest.approx(1000 / line.healthy_rows)
    assert [(k.kind, k.events, k.noticed) for k in kind_lines("rule", [RunScore("a", first)])] == [
        ("spike (loss)", 2, 1)
    ]


def corpus() -> list[LabelledEvent]:
    """A run of 1000 rows of which a tenth lies in two long events: point adjustment's delight."""
    return [spike(300, 349), spike(700, 749)]


def test_one_who_never_alarms_finds_nothing() -> None:
    line = score_line("never", [RunScore("a", match(STEPS, corpus(), []))])
    assert (line.recall, line.false_alarms) == (0.0, 0.0)
    assert math.isnan(line.precision)


def test_one_who_always_alarms_cries_wolf_on_every_healthy_row() -> None:
    line = score_line("always", [RunScore("a", match(STEPS, corpus(), always_alarms(STEPS)))])
    assert line.recall == 1.0
    assert line.per_1000_rows == 1000.0
    assert line.precision < 0.01


def test_one_who_alarms_at_random_pays_for_what_it_finds() -> None:
    scores = [
        RunScore("a", match(STEPS, corpus(), random_alarms(STEPS, 0.01, str(seed))))
        for seed in range(200)
    ]
    line = score_line("random", scores, repeats=200)
    assert line.events == 2
    assert 0.2 < line.recall < 0.6
    assert line.precision < 0.2
    assert 8 < line.per_1000_rows < 12


def test_wilsons_interval_is_the_published_one() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_cases_of_one_cluster_count_for_fewer() -> None:
    rng = random.Random(0)
    alone = clustered([(str(i), rng.random() < 0.5) for i in range(100)])
    assert 80 <= alone.effective_n <= 100
    together = clustered([(str(i // 10), (i // 10) % 2 == 0) for i in range(100)])
    assert together.share == 0.5
    assert together.effective_n == 10
    assert together.high - together.low > alone.high - alone.low
    assert clustered([("a", True)] * 50).effective_n == 1
    assert math.isnan(clustered([]).share)


SETS = Sets(
    acceptable=frozenset({"rollback", "rollback+scale_lr"}),
    neutral=frozenset({"ask"}),
    harmful=frozenset({"nothing", "scale_lr"}),
)


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        ("rollback+scale_lr", "acceptable"),
        ("ask", "neutral"),
        ("nothing", "harmful"),
        ("scale_lr+set_grad_clip", "harmful"),
        ("pause", "unlisted"),
    ],
)
def test_an_answer_is_graded_by_the_sets(answer: str, grade: str) -> None:
    assert SETS.grade(answer) == grade


def test_an_answer_is_named_by_what_it_changes() -> None:
    both = (Rollback(checkpoint="c", skip_batches=9), ScaleLR(factor=0.5), RewarmLR(steps=20))
    assert answer_of(Proposal(interventions=both)) == "rollback+scale_lr+skip_batches"
    assert answer_of(Proposal(interventions=(ScaleLR(factor=2.0),))) == "raise_lr"
    assert answer_of(Proposal(interventions=(Evaluate(),))) == "evaluate"
    assert answer_of(NoProposal(kind="benign", reason="r")) == "nothing"
    assert answer_of(NoProposal(kind="exhausted", reason="r")) == "ask"


def decided(grade: str, *, called: bool, number: int, answer: str = "nothing") -> Decided:
    given = {"acceptable": "acceptable", "harmful": "harmful"}[grade]
    return Decided(number, str(number), answer, given, called, seen=called)  # type: ignore[arg-type]


def test_either_habit_gets_half_of_the_balance_at_most() -> None:
    never = [decided("harmful", called=True, number=n) for n in range(3)]
    never += [decided("acceptable", called=False, number=n) for n in range(3, 10)]
    line = decision_line("never", never)
    assert (line.agreement, line.balanced, line.harm) == (0.7, 0.5, 0.3)
    assert (line.where_to_act, line.where_to_hold, line.no_op_unseen) == (0.0, 1.0, 1.0)
    always = [decided("acceptable", called=True, number=n) for n in range(3)]
    always += [decided("harmful", called=False, number=n, answer="rollback") for n in range(3, 10)]
    line = decision_line("always", always)
    assert (line.balanced, line.harm, line.no_op_unseen) == (0.5, 0.7, 0.0)
    assert line.harm_where_to_hold == 1.0

"""Each detector finds what it is there for, and leaves alone what looks like it."""

import math
import random

import pytest
from detectors.streams import changed, healthy, run

from autopilot.detectors import DetectorBank
from autopilot.detectors.bad_shard import BadShard
from autopilot.detectors.decay_too_high import DecayTooHigh
from autopilot.detectors.duplicate_batch import DuplicateBatch
from autopilot.detectors.grad_alarm import GradAlarm
from autopilot.detectors.guessing import Guessing
from autopilot.detectors.logit_growth import LogitGrowth
from autopilot.detectors.loss_alarm import LossAlarm
from autopilot.detectors.lr_jump import LRJump
from autopilot.detectors.lr_too_low import LRTooLow
from autopilot.detectors.non_finite import NonFinite
from autopilot.detectors.overfit import Overfit
from autopilot.detectors.schedule_fault import ScheduleFault
from autopilot.detectors.unchanged import ParametersUnchanged
from autopilot.detectors.update_ratio_high import UpdateRatioHigh
from autopilot.schema import Finding, Row

NAN = math.nan


def with_loss(factor: dict[int, float], rows: int = 400, seed: int = 1) -> list[Row]:
    return [
        changed(row, loss=row.values["loss"] * factor.get(row.step, 1.0))
        for row in healthy(seed, rows)
    ]


@pytest.mark.parametrize("stride", [1, 10])
def test_a_level_shift_is_found_within_five_rows(stride: int) -> None:
    at = 200 * stride
    rows = [
        changed(row, loss=row.values["loss"] * 1.3) if row.step >= at else row
        for row in healthy(1, 300 * stride)
    ][::stride]
    found = run(LossAlarm(), rows)
    assert found[0].kind == "loss_spike"
    assert at <= found[0].step <= at + 5 * stride
    assert found[0].evidence[0].step <= at


@pytest.mark.parametrize("seed", range(5))
def test_a_blip_of_two_rows_is_silent(seed: int) -> None:
    assert run(LossAlarm(), with_loss({200: 2.0, 201: 3.0}, seed=seed)) == []


def test_the_alarm_rearms_after_recovery() -> None:
    burst = dict.fromkeys([*range(200, 210), *range(300, 310)], 2.0)
    assert [f.kind for f in run(LossAlarm(), with_loss(burst))] == ["loss_spike"] * 2


def test_the_trend_does_not_learn_what_is_sick() -> None:
    detector = LossAlarm()
    run(detector, with_loss(dict.fromkeys(range(200, 400), 2.0)))
    assert detector.loss.held
    assert detector.loss.expected < 3.0


def test_a_blow_up_in_the_first_rows_is_found() -> None:
    rows = [Row(s, {"loss": 0.6 * 5.0**s}) for s in range(8)]
    assert [(f.kind, f.step) for f in run(LossAlarm(), rows)] == [("divergence", 4)]


def test_a_loss_below_zero_is_watched_too() -> None:
    rng = random.Random(0)
    rows = [Row(s, {"loss": -5.0 + 0.1 * rng.gauss(0, 1) + 3 * (s >= 300)}) for s in range(320)]
    assert [f.kind for f in run(LossAlarm(), rows)] == ["loss_spike"]


def test_gradients_alone_raise_no_alarm() -> None:
    rows = [changed(r, grad_norm=9.0) if r.step >= 200 else r for r in healthy(2, 260)]
    assert run(GradAlarm(), rows) == []


def test_a_skipped_non_finite_gradient_is_no_error_until_it_repeats() -> None:
    rows = [Row(s, {"loss": 2.0, "grad_norm": NAN, "update_skipped": 1.0}) for s in range(4)]
    found = run(NonFinite(), rows)
    assert [(f.tier, f.severity, f.step) for f in found] == [
        ("watch", "info", 0),
        ("invariant", "error", 2),
    ]


@pytest.mark.parametrize("values", [{"loss": math.inf}, {"loss": 2.0, "param_norm": NAN}])
def test_a_non_finite_loss_or_parameter_is_an_error(values: dict[str, float]) -> None:
    assert run(NonFinite(), [Row(9, values)])[0].severity == "error"


def test_overflow_while_a_loss_scale_is_searched_is_no_error() -> None:
    values = {"loss": 2.0, "grad_norm": math.inf, "update_skipped": 1.0, "loss_scale": 65536.0}
    assert {f.tier for f in run(NonFinite(), [Row(s, values) for s in range(6)])} == {"watch"}


def test_a_schedule_at_zero_is_a_fault_and_one_row_is_not() -> None:
    one = [Row(s, {"lr": 0.0 if s == 5 else 1e-3, "lr_planned": 1e-3}) for s in range(9)]
    assert run(ScheduleFault(), one) == []
    stuck = [Row(s, {"lr": 0.0 if s >= 5 else 1e-3, "lr_planned": 1e-3}) for s in range(9)]
    assert [(f.step, f.score) for f in run(ScheduleFault(), stuck)] == [(6, 0.0)]


def test_a_warm_up_is_no_jump() -> None:
    assert run(LRJump(), [Row(s, {"lr": 1e-6 * s}) for s in range(1, 100)]) == []


def test_a_decayed_rate_is_not_an_unchanged_parameter() -> None:
    rows = [Row(s, {"lr": 1e-3 * 0.1**s, "update_ratio": 1e-3 * 0.1**s}) for s in range(15)]
    assert run(ParametersUnchanged(), rows) == []


@pytest.mark.parametrize("period", [1, 3, 20, 40])
def test_small_data_may_repeat(period: int) -> None:
    rows = [Row(s, {"batch_digest": float(s % period)}) for s in range(300)]
    assert run(DuplicateBatch(), rows) == []


@pytest.mark.parametrize("batches", [5, 40, 70, 100, 200])
@pytest.mark.parametrize("seed", range(3))
def test_batches_shuffled_anew_each_epoch_may_repeat(batches: int, seed: int) -> None:
    rng = random.Random(seed)
    stream = [float(d) for _ in range(6) for d in rng.sample(range(batches), batches)]
    rows = [Row(s, {"batch_digest": digest}) for s, digest in enumerate(stream)]
    assert run(DuplicateBatch(), rows) == []


@pytest.mark.parametrize(("cycle", "within"), [(1, 10), (4, 16), (16, 70), (30, 90)])
def test_a_stuck_sampler_is_found(cycle: int, within: int) -> None:
    stream = [float(s) for s in range(150)] + [float(s % cycle) for s in range(200)]
    rows = [Row(s, {"batch_digest": digest}) for s, digest in enumerate(stream)]
    found = run(DuplicateBatch(), rows)
    assert found
    assert 150 <= found[0].step <= 150 + cycle + within


def beginning(ratios: list[float], losses: list[float], warm: bool = False) -> list[Row]:
    return [
        Row(s, {"lr": 1e-3 * (s / 20 if warm else 1), "update_ratio": ratio, "loss": loss})
        for s, (ratio, loss) in enumerate(zip(ratios, losses, strict=True), start=1)
    ]


SATURATING = [0.28, 0.22, 0.18, 0.14, 0.11, 0.09, 0.08, 0.07]
ROUGH = [4.7, 5.1, 3.9, 4.4, 4.8, 4.2, 3.9, 3.8]
"""What was measured in the first steps of a small GPT, with a rate far too high or no warm-up."""


def test_a_missing_warm_up_is_told_from_a_rate_too_high() -> None:
    rough = ROUGH
    bare = run(UpdateRatioHigh(), beginning([0.5, *SATURATING[:7]], rough))
    assert bare[0].kind == "no_warmup"
    high = run(UpdateRatioHigh(), beginning([1.1, *SATURATING[:7]], rough))
    assert high[0].kind == "lr_too_high"
    warm = run(UpdateRatioHigh(), beginning([0.5, *SATURATING[:7]], rough, warm=True))
    assert warm[0].kind == "lr_too_high"
    assert run(UpdateRatioHigh(), beginning([0.033] * 8, rough)) == []


def test_the_first_step_of_a_rate_too_high_is_cited() -> None:
    found = run(UpdateRatioHigh(), beginning([1.1, *SATURATING[:7]], ROUGH))[0]
    assert (found.evidence[0].step, found.evidence[0].value) == (1, 1.1)


def test_a_model_that_begins_near_zero_and_learns_well_is_left_alone() -> None:
    falling = [2.3 / (1 + 0.2 * s) for s in range(30)]
    assert run(UpdateRatioHigh(), beginning([1 / (s + 1) for s in range(30)], falling)) == []


def test_the_early_rule_fires_again_on_a_new_branch() -> None:
    bank = DetectorBank()
    first = [f for row in beginning([0.8, *SATURATING[:7]], ROUGH) for f in bank.update(row)]
    again = [
        f
        for row in beginning([0.8, *SATURATING[:7]], ROUGH)
        for f in bank.update(row._replace(branch="b1"))
    ]
    assert {f.kind for f in first} == {f.kind for f in again} == {"lr_too_high"}
    assert again[0].step == first[0].step


def test_fine_tuning_with_small_updates_is_not_too_slow() -> None:
    rng = random.Random(0)
    rows = [
        Row(s, {"loss": 1.2 + 1.5 * 0.97**s + 0.05 * rng.gauss(0, 1), "update_ratio": 5e-5,
                "lr": 1e-5})
        for s in range(2000)
    ]  # fmt: skip
    assert run(LRTooLow(), rows) == []


@pytest.mark.parametrize("noise", [0.002, 0.01])
def test_a_creeping_run_is_too_slow(noise: float) -> None:
    rng = random.Random(1)
    rows = [
        Row(s, {"loss": 4.63 - 0.006 * s + 4.5 * noise * rng.gauss(0, 1), "update_ratio": 6e-4,
                "lr": 2e-4})
        for s in range(120)
    ]  # fmt: skip
    assert [f.kind for f in run(LRTooLow(), rows)][:1] == ["lr_too_low"]
    assert run(LRTooLow(), [row._replace(step=row.step + 500) for row in rows]) == []


def test_a_pretrained_model_may_have_large_logits() -> None:
    rows = [Row(s, {"max_attention_logit": 150.0 + s}) for s in range(50)]
    assert run(LogitGrowth(), rows) == []


def test_a_held_out_loss_that_rises_with_the_training_loss_is_no_overfitting() -> None:
    rows = [Row(s, {"loss": 2 + 0.01 * s, "val_loss": 2 + 0.012 * s}) for s in range(100)]
    assert run(Overfit(), rows) == []


def kinds(bank: DetectorBank, rows: list[Row]) -> set[str]:
    found: list[Finding] = [f for row in rows for f in bank.update(row)]
    return {f.kind for f in found if f.tier != "watch"}


def test_the_bank_takes_a_resume_for_a_new_beginning() -> None:
    rows = list(healthy(0, 300))
    resumed = [changed(row, loss=row.values["loss"] * 2) for row in healthy(1, 300, first=200)]
    assert kinds(DetectorBank(), rows + resumed) == set()


def test_after_a_reset_trends_are_quiet_and_invariants_are_armed() -> None:
    rows = list(healthy(0, 300))
    bank = DetectorBank()
    kinds(bank, rows[:200])
    bank.reset()
    up = [changed(row, loss=row.values["loss"] * 2, lr=0.0) for row in rows[200:229]]
    assert kinds(bank, up) == {"schedule_fault"}


def test_the_state_of_the_bank_survives_a_round_trip() -> None:
    rows = with_loss(dict.fromkeys(range(200, 260), 2.0), 500)
    one, other = DetectorBank(), DetectorBank()
    kinds(one, rows[:203])
    other.load_state_dict(one.state_dict())
    assert [one.update(row) for row in rows[203:]] == [other.update(row) for row in rows[203:]]


def test_after_going_back_a_fault_that_comes_again_is_seen_at_once() -> None:
    rows = list(healthy(0, 300))
    again = [
        changed(row, loss=row.values["loss"] * (3 if row.step >= 206 else 1))
        for row in rows[195:260]
    ]
    bank = DetectorBank()
    for row in rows:
        bank.update(row)
    found = [f for row in again for f in bank.update(row._replace(branch="main.1"))]
    alarm = next(f for f in found if f.tier == "alarm")
    assert alarm.kind == "loss_spike"
    assert alarm.step <= 210


@pytest.mark.parametrize(
    ("rate", "ratio", "found"),
    [
        (0.02, 0.025, True),
        (0.02, 0.1, False),  # a short run with large updates bears a fast decay
        (0.005, 0.0051, False),  # converged: only the decay still moves the weights
        (0.02, 0.0, False),
        (0.02, math.inf, False),
    ],
)
def test_a_decay_is_too_high_where_it_is_fast_and_most_of_a_step(
    rate: float, ratio: float, found: bool
) -> None:
    rows = [changed(r, weight_decay_rate=rate, update_ratio=ratio) for r in healthy(1, 60)]
    kinds = [finding.kind for finding in run(DecayTooHigh(), rows)]
    assert kinds == (["decay_too_high"] if found else [])


def test_a_decay_must_stay_too_high_for_five_readings() -> None:
    rates = [0.02 if s % 5 else 0.001 for s in range(60)]
    rows = [
        changed(row, weight_decay_rate=rate, update_ratio=0.02)
        for row, rate in zip(healthy(1, 60), rates, strict=True)
    ]
    assert run(DecayTooHigh(), rows) == []


def mixed(losses: dict[str, tuple[float, float]], rows: int = 400, seed: int = 1) -> list[Row]:
    """Sources in turn, each with its loss at the first row and at the last."""
    rng = random.Random(seed)
    made = []
    for step in range(rows):
        source = list(losses)[step % len(losses)]
        first, last = losses[source]
        level = first + (last - first) * step / rows
        made.append(Row(step, {"loss": level * (1 + 0.05 * rng.gauss(0, 1))}, source=source))
    return made


def test_a_source_that_gets_worse_while_the_others_get_better_is_found_and_named() -> None:
    found = run(BadShard(), mixed({"a": (2.3, 0.5), "b": (2.3, 0.6), "c": (2.3, 3.6)}))
    assert {(f.kind, f.source) for f in found} == {("bad_shard", "c")}
    assert found[0].step < 300


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "losses",
    [
        {"web": (4.0, 3.0), "code": (2.0, 1.0), "maths": (5.0, 4.9)},  # one is hard
        {"a": (2.3, 0.5), "b": (2.3, 0.6), "c": (2.3, 2.3)},  # from one nothing is learned
        {"a": (0.5, 2.3), "b": (0.6, 2.3), "c": (0.5, 3.6)},  # all get worse: no data's fault
        {"a": (2.3, 0.5), "c": (2.3, 3.6)},  # of two, neither is the odd one
        {f"s{i}": (2.3, 3.6 if i == 7 else 0.5) for i in range(40)},  # too many to be told
    ],
)
def test_a_source_that_is_merely_hard_is_left_alone(
    losses: dict[str, tuple[float, float]], seed: int
) -> None:
    assert run(BadShard(), mixed(losses, rows=2000, seed=seed)) == []


def collapsing(
    *,
    entropy: float | None = 3.25,
    ratio: float = 0.004,
    first: float = 4.6,
    warmup: int = 60,
    learned: float = 3.25,
    rows: int = 400,
) -> list[Row]:
    """A loss that falls for forty rows, to ``learned``, and stands at 3.2 from there on."""
    made = []
    for step in range(rows):
        fell = max(first - 0.1 * step, learned)
        values = {"loss": fell if step < 100 else 3.2, "lr": 0.02 * min(step + 1, warmup) / warmup}
        if step == 0:
            values["update_ratio"] = ratio
        if step == 50 and entropy is not None:
            values["label_entropy"] = entropy
        made.append(Row(step, values))
    return made  # fmt: skip


def test_a_model_that_came_down_to_guessing_labels_is_found() -> None:
    found = run(Guessing(), collapsing())
    assert found[0].kind == "lr_too_high"
    assert found[0].step == 119
    assert {(e.metric, e.step) for e in found[0].evidence} >= {("update_ratio", 0), ("lr", 0)}


@pytest.mark.parametrize(
    "rows",
    [
        collapsing(entropy=None),  # nobody knows what guessing would give
        collapsing(entropy=3.5),  # it is better than that
        collapsing(ratio=0.001),  # the rate is not too high: something else is wrong
        collapsing(first=3.3),  # it began there, as every classifier of balanced labels does
        collapsing(warmup=400, rows=300),  # the rate still rises
        collapsing(learned=2.0),  # it knew better once, and that would be lost
        [row._replace(step=row.step + 10) for row in collapsing()],  # its beginning was not seen
    ],
)
def test_a_loss_that_is_merely_flat_is_left_alone(rows: list[Row]) -> None:
    assert run(Guessing(), rows) == []


def test_it_forgets_the_beginning_with_a_reset_but_not_the_labels() -> None:
    detector = Guessing()
    run(detector, collapsing(rows=90))
    detector.reset()
    again = collapsing(entropy=None)
    assert run(detector, again)[0].step == 119
    detector.reset()
    assert run(detector, again[200:]) == []

"""Findings become one episode with one diagnosis, and a sudden spike gets time to recover."""

from collections.abc import Callable, Iterable

import pytest
from detectors.streams import changed, healthy

from autopilot.detectors import DetectorBank
from autopilot.schema import Episode, Row
from autopilot.triage import Triage


class Desk:
    """A bank and a triage over one run, and every episode they ever told of."""

    def __init__(self) -> None:
        self.bank = DetectorBank()
        self.triage = Triage(self.bank.loss, self.bank.grad)
        self.told: list[Episode] = []

    def read(self, rows: Iterable[Row]) -> list[Episode]:
        told = [e for row in rows for e in self.triage.update(row, self.bank.update(row))]
        self.told += told
        return told

    def intervene(self, step: int) -> None:
        self.bank.reset()
        self.triage.note_intervention(step)


def run_with(
    change: Callable[[Row], Row], start: int = 200, stop: int = 10**9, rows: int = 500
) -> list[Row]:
    return [change(r) if start <= r.step < stop else r for r in healthy(7, rows)]


def louder(row: Row) -> Row:
    """Damage: the loss is up, on held-out data too, and the gradients grew with it."""
    up = {name: row.values[name] * 1.6 for name in ("loss", "val_loss") if name in row.values}
    return changed(row, **up, grad_norm=row.values["grad_norm"] * 8)


def shifted(row: Row) -> Row:
    return changed(row, loss=row.values["loss"] * 1.12)


def one(episodes: Iterable[Episode]) -> Episode:
    """The last word on the only episode."""
    last = {episode.id: episode for episode in episodes}
    assert len(last) == 1, last
    return next(iter(last.values()))


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_has_no_episode(seed: int) -> None:
    assert Desk().read(healthy(seed, 2000)) == []


def test_a_spike_that_stays_waits_then_opens_as_damage() -> None:
    told = Desk().read(run_with(louder, rows=230))
    first_open = next(e for e in told if e.status == "open")
    assert told[0].status == "watching"
    assert 210 <= first_open.last_step <= 216
    assert (first_open.kind, first_open.diagnosis) == ("loss_spike", "damaged")
    assert abs(first_open.onset_step - 200) <= 1
    assert first_open.alarm
    assert first_open.fingerprint["loss"] > 1.3 * first_open.fingerprint["loss_expected"]
    assert "robust deviations" in first_open.reason


def test_a_spike_that_comes_back_closes_as_benign_without_opening() -> None:
    told = Desk().read(run_with(louder, stop=205))
    assert {e.status for e in told} == {"watching", "closed"}
    assert one(told).diagnosis == "benign"


def test_a_recovered_episode_closes_and_the_next_is_another() -> None:
    desk = Desk()
    rows = [louder(r) if 200 <= r.step < 240 or 400 <= r.step < 440 else r
            for r in healthy(7, 600)]  # fmt: skip
    desk.read(rows)
    assert len({e.id for e in desk.told}) == 2
    assert desk.triage.open_episodes() == []


def test_a_watch_alone_opens_nothing() -> None:
    desk = Desk()
    assert desk.read(run_with(louder, stop=201)) == []


def test_a_non_finite_loss_opens_at_once() -> None:
    told = Desk().read(run_with(lambda r: changed(r, loss=float("nan")), rows=210))
    assert (told[0].status, told[0].diagnosis, told[0].last_step) == ("open", "damaged", 200)
    assert told[0].invariant_broken


def test_gradients_that_overflow_after_the_loss_blew_up_are_damage() -> None:
    def blown(row: Row) -> Row:
        gone = row.step >= 14
        grad = float("inf") if gone else row.values["grad_norm"] * 1e4
        return changed(row, loss=1e19, grad_norm=grad, update_skipped=float(gone))

    told = Desk().read(run_with(blown, start=12, rows=30))
    assert (told[-1].status, told[-1].diagnosis) == ("open", "damaged")


def test_a_rate_above_plan_that_hurts_is_one_damaged_episode() -> None:
    def hot(row: Row) -> Row:
        return changed(louder(row), lr=30 * row.values["lr"])

    episode = one(Desk().read(run_with(hot, rows=230)))
    assert (episode.kind, episode.diagnosis) == ("schedule_fault", "damaged")
    assert episode.status == "open"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda r: changed(r, lr=0.002 * r.values["lr"]), "schedule_fault"),
        (lambda r: changed(r, update_skipped=1.0, loss_scale=2.0**40), "loss_scale_fault"),
        (lambda r: changed(r, eps_share=0.99), "dead_update"),
        (lambda r: changed(r, batch_digest=float(r.step % 4)), "data_repeat"),
    ],
)
def test_misdriven_weights(change: Callable[[Row], Row], kind: str) -> None:
    episode = one(Desk().read(run_with(change, rows=420)))
    assert (episode.kind, episode.diagnosis, episode.status) == (kind, "misdriven", "open")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda r: changed(r, update_ratio=0.3), "lr_too_high"),
        (lambda r: changed(r, max_attention_logit=500.0), "logit_growth"),
        (lambda r: changed(r, dead_fraction=0.65), "dead_units"),
        (lambda r: changed(r, param_norm=2000.0), "silent_corruption"),
    ],
)
def test_damaged_weights(change: Callable[[Row], Row], kind: str) -> None:
    episode = one(Desk().read(run_with(change, rows=260)))
    assert (episode.kind, episode.diagnosis, episode.status) == (kind, "damaged", "open")


def test_a_stall_is_benign_and_apart_from_the_rest() -> None:
    def slow(row: Row) -> Row:
        return changed(row, step_time=0.05, data_wait=0.04)

    desk = Desk()
    desk.read(run_with(lambda r: slow(louder(r)), rows=260))
    last = {e.kind: e.diagnosis for e in desk.told}
    assert last == {"stall": "benign", "loss_spike": "damaged"} or last == {
        "throughput_drop": "benign", "stall": "benign", "loss_spike": "damaged",
    }  # fmt: skip
    assert len({e.id for e in desk.told}) == 2


def sourced(rows: list[Row], change_at: int) -> list[Row]:
    return [r._replace(source="web" if r.step < change_at else "code") for r in rows]


def test_a_planned_change_of_data_is_benign() -> None:
    told = Desk().read(sourced(run_with(shifted, rows=260), 200))
    assert told
    assert {e.diagnosis for e in told} == {"benign"}
    assert "'code'" in told[0].reason


def test_a_change_of_data_under_which_the_second_moment_is_stale_is_misdriven() -> None:
    def stale(row: Row) -> Row:
        return changed(shifted(row), second_moment_staleness=6.8)

    assert one(Desk().read(sourced(run_with(stale, rows=260), 200))).diagnosis == "misdriven"


def test_a_change_of_data_does_not_excuse_grown_gradients() -> None:
    assert one(Desk().read(sourced(run_with(louder, rows=260), 200))).diagnosis == "damaged"


def test_a_small_shift_without_any_other_sign_is_unknown() -> None:
    assert one(Desk().read(run_with(shifted, rows=230))).diagnosis == "unknown"


def test_a_large_spike_that_stays_is_damage_also_without_a_gradient_norm() -> None:
    rows = [Row(r.step, {"loss": r.values["loss"]}) for r in run_with(louder, rows=230)]
    assert one(Desk().read(rows)).diagnosis == "damaged"


def test_a_relapse_after_an_intervention_is_the_same_episode() -> None:
    desk = Desk()
    rows = run_with(lambda r: changed(r, lr=0.1 * r.values["lr"]), rows=400)
    desk.read(rows[:205])
    desk.intervene(204)
    assert desk.triage.open_episodes()[0].status == "watching"
    told = desk.read(rows[205:210])
    assert one(desk.told).id == told[0].id
    assert one(told).status == "open"


def test_a_treated_episode_closes_after_quiet_rows_and_later_trouble_is_new() -> None:
    desk = Desk()
    rows = run_with(lambda r: changed(r, lr=0.1 * r.values["lr"]), stop=205, rows=900)
    desk.read(rows[:205])
    desk.intervene(204)
    desk.read(rows[205:320])
    assert desk.triage.open_episodes() == []
    desk.read(rows[320:700])
    desk.read([changed(r, lr=0.0) for r in rows[700:710]])
    assert len({e.id for e in desk.told}) == 2


def test_a_relapse_on_the_branch_after_a_rollback_is_the_same_episode() -> None:
    desk = Desk()
    rows = run_with(lambda r: changed(r, update_ratio=0.3, loss=4.0 + r.step % 2), start=0, rows=30)
    desk.read(rows[:10])
    desk.triage.branch_started("b1", 0, 9)
    told = desk.read(r._replace(branch="b1") for r in rows[1:12])
    assert told[-1].branch == "b1"
    assert told[-1].status == "open"
    assert len({e.id for e in desk.told}) == 1


def test_after_an_intervention_another_cause_is_another_episode() -> None:
    desk = Desk()
    rows = run_with(lambda r: changed(r, lr=0.1 * r.values["lr"]), stop=205, rows=500)
    desk.read(rows[:205])
    desk.intervene(204)
    desk.read([changed(r, update_skipped=1.0, loss_scale=1.0) for r in rows[205:220]])
    assert {e.kind for e in desk.triage.open_episodes()} == {"schedule_fault", "loss_scale_fault"}


def test_a_leap_of_the_rate_without_a_plan_is_named_as_the_cause() -> None:
    def hot(row: Row) -> Row:
        lr = 30 * row.values["lr"]
        return changed(louder(row), lr=lr, lr_planned=lr)

    episode = one(Desk().read(run_with(hot, rows=230)))
    assert (episode.kind, episode.diagnosis) == ("schedule_fault", "damaged")


def test_the_fingerprint_keeps_the_last_reading_of_rare_metrics() -> None:
    episode = one(Desk().read(run_with(louder, rows=218)))
    assert {"update_ratio", "lr", "lr_planned", "eps_share", "grad_norm_median"} <= set(
        episode.fingerprint
    )


def test_a_blow_up_in_the_first_rows_is_damage() -> None:
    told = Desk().read([Row(s, {"loss": 0.6 * 5.0**s}) for s in range(6)])
    assert (told[0].status, told[0].kind, told[0].diagnosis) == ("open", "divergence", "damaged")


def interleaved(rows: list[Row], sources: int = 4) -> list[Row]:
    return [r._replace(source=f"shard-{r.step % sources}") for r in rows]


def test_a_loss_that_is_up_on_one_source_alone_is_that_source_and_no_damage() -> None:
    def bad(row: Row) -> Row:
        return changed(row, loss=6 * row.values["loss"]) if row.step % 4 == 2 else row

    told = Desk().read(interleaved(run_with(bad, rows=260)))
    opened = [e for e in told if e.status == "open"]
    assert opened
    assert (opened[-1].kind, opened[-1].diagnosis) == ("bad_shard", "misdriven")
    assert any("'shard-2' alone" in e.reason for e in opened)
    assert {e.source for e in opened if e.kind == "bad_shard"} == {"shard-2"}
    assert "damaged" not in {e.diagnosis for e in opened}


def test_once_the_other_sources_are_up_too_it_is_damage_again() -> None:
    def bad(row: Row) -> Row:
        if row.step >= 240:
            return changed(louder(row), loss=6 * row.values["loss"])
        return changed(row, loss=6 * row.values["loss"]) if row.step % 4 == 2 else row

    told = Desk().read(interleaved(run_with(bad, rows=300)))
    assert "bad_shard" in {e.kind for e in told}
    assert told[-1].kind != "bad_shard"
    assert told[-1].diagnosis == "damaged"


def test_a_source_that_a_detector_names_stays_named() -> None:
    def bad(row: Row) -> Row:
        if row.step % 4 != 2:
            return row
        return changed(row, loss=4.6 + 0.01 * row.step)

    told = Desk().read(interleaved([bad(row) for row in healthy(1, 400)]))
    named = [e for e in told if e.source is not None]
    assert {(e.kind, e.diagnosis, e.source) for e in named} == {
        ("bad_shard", "misdriven", "shard-2")
    }
    assert told[-1].source == "shard-2"


def test_new_data_that_adam_is_far_from_ready_for_does_not_wait_for_a_recovery() -> None:
    def outgrown(row: Row) -> Row:
        return changed(louder(row), second_moment_staleness=9.0)

    told = Desk().read(sourced(run_with(outgrown, rows=230), 200))
    first_open = next(e for e in told if e.status == "open")
    assert first_open.diagnosis == "misdriven"
    assert first_open.last_step <= 204

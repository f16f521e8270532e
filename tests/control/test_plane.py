"""The control plane over a real journal: what is filed, decided, applied, watched and undone."""

import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from control.bench import ASKING, KIM, OPEN, PLAN, RULES, Bench

from autopilot.errors import Forbidden, NotFound, OutOfBounds, Refused, StaleProposal, Unsupported
from autopilot.policy import Policy
from autopilot.schema import (
    Canary,
    Capabilities,
    Evaluate,
    Evidence,
    Finding,
    NoProposal,
    Note,
    Pause,
    Proposal,
    Receipt,
    Resume,
    Rollback,
    SaveCheckpoint,
    ScaleLR,
    SetLR,
    Setting,
    SkipBatches,
)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(policy: str | Policy = OPEN, path: Path | None = None) -> Bench:
        made.append(Bench(policy, path))
        return made[-1]

    yield make
    for bench in made:
        bench.plane.close()


Make = Callable[..., Bench]


def test_the_same_key_gives_the_same_answer(bench: Make) -> None:
    b = bench()
    first = b.propose(ScaleLR(factor=0.5), key="k")
    assert b.propose(ScaleLR(factor=0.5), key="k") == first
    assert b.propose(ScaleLR(factor=0.25), key="k").id == first.id
    assert b.propose(Note(text="mine"), actor="agent:other", key="k").id != first.id
    b.apply()
    again = b.propose(ScaleLR(factor=0.5), key="k")
    assert (again.id, again.status) == (first.id, "applied")
    assert b.side.factor == 0.5


def test_the_same_key_gives_the_same_answer_after_a_restart(bench: Make, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    b = bench(OPEN, path)
    first = b.propose(ScaleLR(factor=0.5), key="k")
    b.apply()
    b.plane.close()
    again = bench(OPEN, path)
    assert again.propose(ScaleLR(factor=0.5), key="k").id == first.id
    assert again.propose(Note(text="new"), key="k2").id == "P2"
    assert again.apply() == [again.plane.proposal("P2")] or again.side.factor == 1.0


def test_a_repeated_command_of_a_person_is_answered_and_not_judged_again(bench: Make) -> None:
    b = bench()
    command = {"actor": KIM, "key": "k"}
    first = b.plane.command((ScaleLR(factor=4.0),), actor=KIM, key="k")
    b.apply()
    b.plane.command((ScaleLR(factor=4.0),), actor=KIM, key="k2")
    b.apply()
    assert b.side.factor == 16.0
    assert b.plane.command((ScaleLR(factor=4.0),), **command).id == first.id


def test_a_twin_of_what_waits_is_not_filed_again(bench: Make) -> None:
    b = bench(ASKING.format(on_expiry="nothing"))
    first = b.propose(Pause(), key="a")
    assert b.propose(Pause(), key="b").id == first.id
    assert b.propose(Pause(), key="c", actor="agent:other").id != first.id
    b.plane.decide(first.id, "deny", actor=KIM, digest=first.digest)
    assert b.propose(Pause(), key="d").id != first.id


def test_a_key_that_was_answered_with_a_twin_gives_that_answer_for_good(
    bench: Make, tmp_path: Path
) -> None:
    policy, place = ASKING.format(on_expiry="nothing"), tmp_path / "journal.sqlite"
    first = bench(policy, place)
    twin = first.propose(Pause(), key="a")
    assert first.propose(Pause(), key="b").id == twin.id
    first.plane.decide(twin.id, "deny", actor=KIM, digest=twin.digest)
    assert first.propose(Pause(), key="b").id == twin.id
    first.plane.close()
    assert bench(policy, place).propose(Pause(), key="b").id == twin.id


def test_a_proposal_against_an_older_state_is_stale_and_says_what_changed(bench: Make) -> None:
    b = bench()
    version = b.plane.info().state_version
    b.propose(ScaleLR(factor=0.5), state_version=version)
    b.apply()
    with pytest.raises(StaleProposal) as raised:
        b.propose(ScaleLR(factor=0.25), state_version=version)
    assert raised.value.changed == "P1 (scale_lr)"
    assert b.propose(ScaleLR(factor=0.25), state_version=version + 1).status == "queued"


def test_what_changes_nothing_leaves_other_proposals_fresh(bench: Make) -> None:
    b = bench(ASKING.format(on_expiry="nothing"))
    waiting = b.propose(ScaleLR(factor=0.5), state_version=0)
    for harmless in (Note(text="n"), SaveCheckpoint(), Pause(), Resume()):
        b.plane.command((harmless,), actor=KIM, key=harmless.kind)
        b.clock.time += 1
        b.apply()
    assert b.plane.info().state_version == 0
    b.plane.decide(waiting.id, "approve", actor=KIM, digest=waiting.digest)
    b.apply()
    assert b.side.factor == 0.5


def test_an_approval_is_bound_to_the_text_that_was_seen(bench: Make) -> None:
    b = bench(ASKING.format(on_expiry="nothing"))
    waiting = b.propose(ScaleLR(factor=0.5))
    other = Proposal(interventions=(ScaleLR(factor=0.9),)).digest()
    with pytest.raises(StaleProposal, match="another version"):
        b.plane.decide(waiting.id, "approve", actor=KIM, digest=other)
    assert b.status(waiting) == "pending"
    assert not b.apply()


def test_an_approval_after_the_run_was_changed_is_stale(bench: Make) -> None:
    b = bench(ASKING.format(on_expiry="nothing"))
    waiting = b.propose(ScaleLR(factor=0.5))
    b.clock.time += 1
    b.plane.command((SetLR(value="plan"),), actor=KIM, key="k")
    b.apply()
    with pytest.raises(StaleProposal) as raised:
        b.plane.decide(waiting.id, "approve", actor=KIM, digest=waiting.digest)
    assert "P2 (set_lr)" in raised.value.changed


def test_a_modified_approval_applies_what_the_person_wrote_within_limits(bench: Make) -> None:
    b = bench(ASKING.format(on_expiry="nothing"))
    waiting = b.propose(ScaleLR(factor=0.5))
    decide: Any = {"actor": KIM, "digest": waiting.digest}
    with pytest.raises(Refused, match="modify"):
        b.plane.decide(waiting.id, "modify", **decide)
    with pytest.raises(Refused, match="modify"):
        b.plane.decide(waiting.id, "approve", interventions=(Pause(),), **decide)
    with pytest.raises(OutOfBounds, match="limits"):
        b.plane.decide(waiting.id, "modify", interventions=(ScaleLR(factor=100),), **decide)
    assert b.status(waiting) == "pending"
    b.plane.decide(waiting.id, "modify", interventions=(ScaleLR(factor=0.25),), **decide)
    b.apply()
    assert b.side.factor == 0.25


@pytest.mark.parametrize("on_expiry", ["nothing", "hold", "allow_reversible"])
def test_what_nobody_answers_expires_as_the_policy_says(bench: Make, on_expiry: str) -> None:
    b = bench(ASKING.format(on_expiry=on_expiry))
    waiting = b.propose(ScaleLR(factor=0.5))
    b.clock.time += 59
    b.plane.tick()
    assert b.status(waiting) == "pending"
    b.clock.time += 1
    b.plane.tick()
    settled = b.plane.proposal(waiting.id)
    assert settled.approval is not None
    assert (settled.approval.decision, settled.approval.actor) == ("expired", "system")
    assert settled.status != "denied"
    taken = [i for command in b.apply() for i in command.interventions]
    if on_expiry == "nothing":
        assert taken == []
    elif on_expiry == "hold":
        assert taken == [SaveCheckpoint(tag="held"), Pause()]
    else:
        assert taken == [ScaleLR(factor=0.5)]


@pytest.mark.parametrize("on_expiry", ["hold", "allow_reversible"])
@pytest.mark.parametrize("passed", [False, True])
def test_a_run_that_came_back_by_itself_is_not_held_or_changed_for_a_question(
    bench: Make, on_expiry: str, passed: bool
) -> None:
    b = bench(ASKING.format(on_expiry=on_expiry))
    b.rows(60)
    waiting = b.propose(ScaleLR(factor=0.5), episode=b.break_schedule())
    b.rows(400, lr=PLAN if passed else 0.0)
    assert b.plane.proposal(waiting.id).status == "pending", "it may still be answered"
    b.clock.time += 60
    b.plane.tick()
    taken = [i.kind for command in b.apply() for i in command.interventions]
    if passed:
        assert taken == []
        assert b.plane.proposal(waiting.id).reason.endswith("; by then it had passed")
    else:
        assert taken == (["save_checkpoint", "pause"] if on_expiry == "hold" else ["scale_lr"])


def test_what_cannot_be_undone_is_not_allowed_by_expiry(bench: Make) -> None:
    b = bench(ASKING.format(on_expiry="allow_reversible"))
    waiting = b.propose(ScaleLR(factor=0.5), SkipBatches(count=3))
    b.clock.time += 61
    b.plane.tick()
    assert b.status(waiting) == "expired"
    assert not b.apply()


def test_expiry_does_not_lead_past_the_budgets(bench: Make) -> None:
    b = bench(
        ASKING.format(on_expiry="allow_reversible")
        + "[cooldown]\nsteps = 0\n[budget]\ninterventions = { per_1000_steps = 6, per_day = 2 }\n"
    )
    waiting = [b.propose(ScaleLR(factor=0.9 + n / 100)) for n in range(5)]
    b.clock.time += 61
    for _ in range(5):
        b.plane.tick()
        b.apply()
    applied = [r for r in waiting if b.status(r) == "applied"]
    assert 1 <= len(applied) <= 2
    refused = [b.plane.proposal(r.id) for r in waiting if b.status(r) == "expired"]
    assert all(":" in record.reason for record in refused)


def test_a_late_decision_is_refused(bench: Make) -> None:
    b = bench(ASKING.format(on_expiry="nothing"))
    waiting = b.propose(ScaleLR(factor=0.5))
    b.clock.time += 61
    with pytest.raises(Refused, match="is expired"):
        b.plane.decide(waiting.id, "approve", actor=KIM, digest=waiting.digest)
    assert not b.apply()


def test_a_person_is_held_to_limits_and_capabilities_unless_forced(bench: Make) -> None:
    b = bench()
    with pytest.raises(OutOfBounds, match=r"limits\.lr"):
        b.plane.command((ScaleLR(factor=100),), actor=KIM, key="a")
    b.side.offered = ("scale_lr",)
    with pytest.raises(Unsupported, match="not supported"):
        b.plane.command((Pause(),), actor=KIM, key="b", force=True)
    b.plane.command((ScaleLR(factor=100),), actor=KIM, key="c", force=True)
    b.apply()
    assert b.side.factor == 100


def test_limits_hold_for_what_was_queued_before_the_run_changed(bench: Make) -> None:
    b = bench()
    first = b.plane.command((ScaleLR(factor=4.0),), actor=KIM, key="a")
    more = [b.plane.command((ScaleLR(factor=f),), actor=KIM, key=str(f)) for f in (3.9, 3.8, 3.7)]
    b.apply()
    assert b.side.factor <= 16
    assert b.status(first) in ("applied", "kept")
    last = b.plane.proposal(more[-1].id)
    assert last.status == "rejected"
    assert "limits.lr.total_factor" in last.reason


def test_an_agent_undoes_its_own_and_no_others(bench: Make) -> None:
    b = bench()
    own = b.propose(ScaleLR(factor=0.5))
    b.apply()
    with pytest.raises(Forbidden, match="its own only"):
        b.plane.revert(own.id, actor="agent:other", role="agent")
    undo = b.plane.revert(own.id, actor=RULES, role="agent")
    assert b.plane.revert(own.id, actor=RULES, role="agent").id == undo.id
    b.apply()
    assert b.side.factor == 1.0
    assert b.status(own) == "reverted"
    with pytest.raises(Forbidden, match="proposes that again"):
        b.plane.revert(undo.id, actor=RULES, role="agent")
    b.plane.revert(undo.id, actor=KIM, role="operator")
    b.apply()
    assert b.side.factor == 0.5


def test_what_a_person_set_since_is_changed_by_no_undoing_but_a_person_s(bench: Make) -> None:
    b = bench()
    own = b.propose(ScaleLR(factor=0.5))
    b.apply()
    theirs = b.plane.command((ScaleLR(factor=0.1),), actor=KIM, key="k")
    b.apply()
    with pytest.raises(Refused, match=f"{theirs.id} of a person set lr since"):
        b.plane.revert(own.id, actor=RULES, role="agent")
    b.plane.revert(own.id, actor=KIM, role="operator")
    b.apply()
    assert b.side.factor == pytest.approx(0.1)


def test_what_a_person_took_back_is_in_the_way_of_no_undoing_until_it_is_done_again(
    bench: Make,
) -> None:
    b = bench()
    own = b.propose(ScaleLR(factor=0.5))
    b.apply()
    theirs = b.plane.command((ScaleLR(factor=0.1),), actor=KIM, key="k")
    b.apply()
    taken_back = b.plane.revert(theirs.id, actor=KIM, role="operator")
    b.apply()
    again = b.plane.revert(taken_back.id, actor=KIM, role="operator")
    b.apply()
    with pytest.raises(Refused, match=f"{again.id} of a person set lr since"):
        b.plane.revert(own.id, actor=RULES, role="agent")
    b.plane.revert(again.id, actor=KIM, role="operator")
    b.apply()
    b.plane.revert(own.id, actor=RULES, role="agent")
    b.apply()
    assert b.side.factor == pytest.approx(1.0)


def test_an_undoing_on_its_way_gives_way_to_what_a_person_set_before_it_came(bench: Make) -> None:
    b = bench()
    own = b.propose(ScaleLR(factor=0.5))
    b.apply()
    theirs = b.plane.command((ScaleLR(factor=0.1),), actor=KIM, key="k")
    undo = b.plane.revert(own.id, actor=RULES, role="agent")
    b.apply()
    assert b.side.factor == pytest.approx(0.05)
    assert b.plane.proposal(undo.id).status == "rejected"
    assert b.plane.proposal(undo.id).reason == f"{theirs.id} of a person set lr since"
    assert b.status(own) == "kept"


def test_what_has_no_inverse_cannot_be_undone(bench: Make) -> None:
    b = bench()
    done = b.propose(SkipBatches(count=3))
    with pytest.raises(Refused, match="only what is in force"):
        b.plane.revert(done.id, actor=KIM, role="operator")
    b.apply()
    with pytest.raises(Refused, match="nothing to undo"):
        b.plane.revert(done.id, actor=KIM, role="operator")
    with pytest.raises(NotFound):
        b.plane.revert("P99", actor=KIM, role="operator")


TWO_KEYS = """
default = "deny"
[cooldown]
steps = 0
same_episode = 0
[[rules]]
name = "both keys"
kinds = ["set_lr"]
where = { alarm = true, evidence_verified = true }
verdict = "allow"
"""


def test_a_claim_never_counts_as_the_runs_alarm(bench: Make) -> None:
    b = bench(TWO_KEYS)
    b.rows(3)
    finding = Finding(
        kind="schedule_fault", tier="invariant", severity="error", metric="lr", step=3,
        score=1.0, message="believe me", detector="mine",
    )  # fmt: skip
    claimed = b.plane.claim(finding, actor=RULES)
    assert claimed.claimed_by == RULES
    assert b.plane.episodes() == []
    cited = (Evidence(metric="lr", step=3, value=PLAN),)
    verdict = b.propose(SetLR(value="plan"), evidence=cited, episode=claimed.id).verdict
    assert verdict.decision == "deny"
    assert "the run's own detectors raised an alarm" in verdict.reason


def test_both_keys_together_open_the_door(bench: Make) -> None:
    b = bench(TWO_KEYS)
    episode = b.break_schedule()
    for wrong in (
        Evidence(metric="lr", step=4, value=PLAN),
        Evidence(metric="lr", step=400, value=0.0),
        Evidence(metric="other", step=4, value=0.0),
        Evidence(metric="lr", step=4, value=float("nan")),
    ):
        verdict = b.propose(SetLR(value="plan"), evidence=(wrong,), episode=episode).verdict
        assert verdict.decision == "deny", wrong
        assert "evidence that stands in the journal" in verdict.reason
    assert b.propose(SetLR(value="plan"), episode=episode).verdict.decision == "deny"
    right = (Evidence(metric="lr", step=4, value=0.0),)
    assert b.propose(SetLR(value="plan"), evidence=right, episode=episode).status == "queued"


def test_the_lost_pilot_is_told_once_and_again_when_it_is_lost_again(bench: Make) -> None:
    b = bench()
    b.plane.tick()
    assert "heartbeat_lost" not in b.kinds()
    for lost in (1, 2):
        b.plane.heartbeat(actor=RULES, seen_seq=0)
        b.clock.time += 31
        b.plane.tick()
        b.plane.tick()
        assert b.kinds().count("heartbeat_lost") == lost
        assert b.kinds().count("heartbeat") == lost
        pilot = b.plane.info().pilot
        assert pilot is not None
        assert not pilot.alive


def test_two_pilots_are_told_once_each(bench: Make) -> None:
    b = bench()
    for _ in range(10):
        b.plane.heartbeat(actor=RULES, seen_seq=0)
        b.plane.heartbeat(actor="agent:observe", seen_seq=0)
        b.clock.time += 1
    assert b.kinds().count("heartbeat") == 2


def test_training_is_held_until_every_living_pilot_has_looked(bench: Make) -> None:
    b = bench()
    b.plane.heartbeat(actor=RULES, seen_seq=0)
    b.plane.heartbeat(actor="agent:observe", seen_seq=0)
    b.break_schedule()
    hold = b.plane.hold
    assert hold is not None
    b.plane.heartbeat(actor="agent:observe", seen_seq=hold.seq)
    assert b.plane.hold is not None
    b.plane.heartbeat(actor=RULES, seen_seq=hold.seq)
    assert b.plane.hold is None


def test_a_hold_ends_with_its_time_or_with_the_pilot(bench: Make) -> None:
    b = bench()
    b.break_schedule()
    assert b.plane.hold is None, "there is no pilot to wait for"
    for seconds, lease in ((10.0, "30s"), (3.0, "2s")):
        b = bench(OPEN + f'[pilot]\nlease = "{lease}"\n[reflexes]\nhold_on_alarm = "10s"\n')
        b.plane.heartbeat(actor=RULES, seen_seq=0)
        b.break_schedule()
        b.clock.time += seconds - 1.5
        b.plane.tick()
        assert b.plane.hold is not None
        b.clock.time += 1.5
        b.plane.tick()
        assert b.plane.hold is None


def test_training_is_held_once_for_a_question_however_long_it_waits(bench: Make) -> None:
    b = bench('default = "ask"\n[reflexes]\nhold_on_alarm = "10s"\n')
    b.plane.heartbeat(actor=RULES, seen_seq=0)
    episode = b.break_schedule()
    asked = b.propose(SetLR(value="plan"), episode=episode)
    assert b.status(asked) == "pending"
    b.plane.heartbeat(actor=RULES, seen_seq=b.plane.info().seq)
    assert b.plane.hold is not None, "for as long as the policy says"
    b.clock.time += 10
    b.plane.tick()
    held = []
    for _ in range(120):
        b.clock.time += 1
        b.rows(1, lr=0.0)
        b.plane.heartbeat(actor=RULES, seen_seq=b.plane.info().seq)
        held.append(b.plane.hold)
    assert len(b.plane.findings(episode)) > 1, "it goes on being found"
    assert held == [None] * 120


def test_what_nobody_answered_ends_with_the_run_and_nothing_is_taken_after_it(bench: Make) -> None:
    b = bench('default = "ask"\n')
    done = b.propose(Note(text="a"), key="note")
    b.apply()
    asked = b.propose(ScaleLR(factor=0.5), key="asked")
    queued = b.plane.command((ScaleLR(factor=0.9),), actor=KIM, key="own")
    b.plane.end("ended", "the loop is done")
    for record, what in ((asked, "anybody answered"), (queued, "it was applied")):
        told = b.plane.proposal(record.id)
        assert (told.status, told.reason) == ("expired", f"the run ended before {what}")
    assert b.propose(Note(text="a"), key="note").id == done.id, "an answer stays what it was"
    with pytest.raises(Refused, match="has ended"):
        b.propose(ScaleLR(factor=0.7))
    with pytest.raises(Refused, match="has ended"):
        b.plane.command((ScaleLR(factor=0.7),), actor=KIM, key="late")
    assert b.kinds()[-1] == "run_ended"


def test_events_have_no_gaps_and_can_be_waited_for(bench: Make) -> None:
    b = bench()
    for n in range(30):
        b.propose(Note(text=str(n)), key=str(n))
        b.apply()
    seen = []
    after = 0
    while events := b.plane.events(after, limit=7):
        seen += [event.seq for event in events]
        after = events[-1].seq
    assert seen == list(range(1, b.plane.info().seq + 1))
    assert b.plane.events(after, wait=0.01) == []
    found: list[int] = []
    waiting = threading.Thread(
        target=lambda: found.extend(e.seq for e in b.plane.events(after, wait=30))
    )
    waiting.start()
    b.plane.note_reflex("skip", {"grad_norm": 1.0})
    waiting.join(30)
    assert found == [after + 1]


def test_faults_are_loud(bench: Make, caplog: pytest.LogCaptureFixture) -> None:
    b = bench()
    b.plane.fault("the port is taken")
    assert b.plane.info().faults == ("the port is taken",)
    assert "the port is taken" in caplog.text
    assert b.kinds()[-1] == "fault"


def test_an_error_while_judging_is_a_denial(bench: Make, caplog: pytest.LogCaptureFixture) -> None:
    b = bench()
    b.side.broken = True
    record = b.propose(ScaleLR(factor=0.5))
    assert (record.status, record.verdict.rule) == ("denied", "error")
    assert "the guard failed" in caplog.text
    b.side.broken = False
    queued = b.propose(ScaleLR(factor=0.25))
    b.side.broken = True
    assert b.plane.take() is None
    assert b.status(queued) == "rejected"


def test_a_full_disk_does_not_stop_the_run(
    bench: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    b = bench(OPEN, tmp_path / "journal.sqlite")
    b.rows(5)
    before = b.plane.info().seq
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        for n in range(40):
            b.propose(Note(text="x" * 4000), key=str(n))
            b.apply()
            b.rows(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "recording goes on in memory only" in caplog.text
    assert b.plane.info().faults
    assert b.plane.info().seq >= before + 120
    seen, after = [], 0
    while events := b.plane.events(after):
        seen += [event.seq for event in events]
        after = events[-1].seq
    assert seen == list(range(1, len(seen) + 1))
    assert [row.step for row in b.plane.rows(last=3)] == [43, 44, 45]
    record = b.propose(ScaleLR(factor=0.5), key="after")
    b.apply()
    assert b.status(record) == "applied"


# --- outcomes ----------------------------------------------------------------------------------


def test_a_value_that_reads_back_wrong_is_undone_at_once(bench: Make) -> None:
    b = bench()
    record = b.propose(ScaleLR(factor=0.5))
    b.apply(proven=False)
    assert b.side.factor == 1.0
    assert b.status(record) == "reverted"


def test_a_failed_canary_reverts_and_opens_the_breaker(bench: Make, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    policy = OPEN + "[breaker]\nfailed_canaries = 2\n"
    b = bench(policy, path)
    b.rows(60)
    for factor in (0.5, 0.25):
        record = b.propose(ScaleLR(factor=factor), canary=Canary(steps=5))
        b.apply()
        b.rows(6, loss=9.0)
        b.apply()
        assert b.status(record) == "reverted"
        b.rows(60)
    assert b.side.factor == 1.0
    assert b.plane.info().breaker_open
    assert b.propose(ScaleLR(factor=0.6)).verdict.rule == "breaker"
    b.plane.close()
    again = bench(policy, path)
    assert again.plane.info().breaker_open, "a restart resets no breaker"
    again.plane.reset_breaker(actor=KIM)
    assert again.propose(ScaleLR(factor=0.7)).status == "queued"
    again.plane.close()
    assert not bench(policy, path).plane.info().breaker_open


def test_a_passed_canary_keeps(bench: Make) -> None:
    b = bench()
    b.rows(60)
    record = b.propose(ScaleLR(factor=0.5), canary=Canary(steps=5))
    b.apply()
    b.rows(6)
    kept = b.plane.proposal(record.id)
    assert kept.status == "kept"
    assert kept.canary is not None
    assert kept.canary.bound is not None
    assert kept.canary_result is not None


def test_a_setting_mended_in_place_is_held_against_the_sickness_and_not_what_was_before(
    bench: Make,
) -> None:
    b = bench()
    b.rows(60)
    b.rows(8, lr=0.0, loss=6.0)
    (episode,) = b.plane.episodes()
    assert episode.diagnosis == "misdriven"
    mended = b.propose(SetLR(value="plan"), episode=episode.id, canary=Canary(steps=5))
    b.apply()
    b.rows(6, loss=5.0)
    kept = b.plane.proposal(mended.id)
    assert kept.status == "kept"
    assert kept.canary is not None
    assert kept.canary.bound is not None
    assert kept.canary.bound > 6.0


def test_pausing_does_not_get_an_intervention_past_its_canary(bench: Make) -> None:
    b = bench()
    b.rows(60)
    record = b.propose(ScaleLR(factor=0.5), canary=Canary(steps=5))
    b.apply()
    b.plane.command((Pause(),), actor=KIM, key="p")
    b.plane.command((Resume(),), actor=KIM, key="r")
    b.apply()
    b.rows(6, loss=9.0)
    b.apply()
    assert b.status(record) == "reverted"


def test_a_person_who_takes_something_back_is_not_contradicted_at_once(bench: Make) -> None:
    b = bench('default = "allow"\n[cooldown]\nsteps = 20\nsame_episode = 0\n')
    b.rows(30)
    again = (ScaleLR(factor=0.5),)
    own = b.propose(*again, episode="ep-0001")
    b.apply()
    b.plane.command((Pause(), Resume()), actor=KIM, key="p")
    b.plane.revert(own.id, actor=KIM, role="operator")
    b.apply()
    b.rows(10)
    soon = b.propose(*again, episode="ep-0001")
    assert (soon.status, soon.verdict.rule) == ("denied", "cooldown.steps")
    b.rows(10)
    assert b.propose(*again, episode="ep-0001").status == "queued"


def test_an_unconfirmed_lease_runs_out_and_a_confirmed_one_does_not(bench: Make) -> None:
    for confirmed in (False, True):
        b = bench()
        record = b.propose(ScaleLR(factor=0.5), lease_steps=5)
        b.apply()
        if confirmed:
            b.plane.confirm(record.id, actor=KIM)
        b.rows(6)
        b.apply()
        assert b.status(record) == ("kept" if confirmed else "reverted")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_lease_that_runs_out_leaves_what_a_person_set_since(
    bench: Make, tmp_path: Path, restarted: bool
) -> None:
    path = tmp_path / "journal.sqlite"
    b = bench(path=path)
    b.propose(ScaleLR(factor=0.5), lease_steps=5)
    b.apply()
    b.plane.command((ScaleLR(factor=0.1),), actor=KIM, key="k")
    b.apply()
    if restarted:
        b.plane.close()
        b = bench(path=path)
        b.side.factor = 0.05
    b.rows(8)
    assert not b.apply()
    assert b.side.factor == pytest.approx(0.05)
    (note,) = [e for e in b.plane.events(0) if e.kind == "note"]
    assert "P1 was to be undone (nobody confirmed it within its lease)" in note.body["text"]
    assert "P2 of a person set lr since" in note.body["text"]


def test_what_a_person_confirms_is_kept_from_an_undoing_that_is_on_its_way(bench: Make) -> None:
    b = bench()
    record = b.propose(ScaleLR(factor=0.5), lease_steps=5)
    b.apply()
    b.rows(6)
    (undo,) = [r for r in b.plane.proposals() if r.reverts == record.id]
    b.plane.confirm(record.id, actor=KIM)
    assert not b.apply()
    assert (b.status(record), b.side.factor) == ("kept", 0.5)
    assert b.plane.proposal(undo.id).status == "rejected"
    assert "human:kim confirmed P1" in b.plane.proposal(undo.id).reason


def test_a_proposal_that_is_too_late_at_the_boundary_expires(bench: Make) -> None:
    b = bench()
    record = b.propose(ScaleLR(factor=0.5), not_after_step=3)
    b.rows(4)
    assert not b.apply()
    assert b.status(record) == "expired"


def test_what_is_gone_at_the_boundary_is_rejected(bench: Make) -> None:
    b = bench()
    record = b.propose(Rollback(checkpoint="c0"))
    b.side.held = ()
    assert not b.apply()
    settled = b.plane.proposal(record.id)
    assert settled.status == "rejected"
    assert "no checkpoint 'c0'" in settled.reason


def test_ledgers_count_on_after_a_restart(bench: Make, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    policy = 'default = "allow"\n[cooldown]\nsteps = 0\n[budget]\nrollbacks = { per_day = 2 }\n'
    b = bench(policy, path)
    for _ in range(2):
        b.propose(Rollback(checkpoint="c0"), key=str(_))
        b.apply()
    b.plane.close()
    again = bench(policy, path)
    assert [r.id for r in again.plane.proposals()] == ["P1", "P2"]
    denied = again.propose(Rollback(checkpoint="c0"), key="3")
    assert denied.verdict.rule == "budget.rollbacks.per_day"
    again.clock.time += 86_401
    assert again.propose(Rollback(checkpoint="c0"), key="4").status == "queued"


def test_what_a_crash_left_on_its_way_blocks_nobody(bench: Make, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    b = bench(OPEN, path)
    first = b.propose(ScaleLR(factor=0.5))
    command = b.plane.take()
    assert command is not None
    b.plane.applied(Receipt(command=command.id, step=0, branch="main", changes=()))
    second = b.plane.command((ScaleLR(factor=0.9),), actor=KIM, key="q")
    b.plane.close()
    again = bench(OPEN, path)
    assert again.status(second) == "expired"
    receipt = again.plane.proposal(first.id).receipt
    assert receipt is not None
    assert receipt.proven is False
    assert again.propose(ScaleLR(factor=0.8)).status == "queued"
    assert [c.id for c in again.apply()] == ["P3"]


def test_an_evaluation_is_free(bench: Make) -> None:
    b = bench('default = "allow"\n[budget]\ninterventions = { per_1000_steps = 0, per_day = 0 }')
    assert b.propose(Evaluate()).status == "queued"
    assert b.propose(ScaleLR(factor=0.5)).verdict.rule == "budget.interventions.per_1000_steps"


def test_a_knob_that_the_script_turns_all_the_time_does_not_fill_the_journal(bench: Make) -> None:
    b = bench()
    offered = b.side.capabilities()

    def turned() -> Capabilities:
        setting = Setting(name="k", value=float(b.step), default=0.0, minimum=0, maximum=1e9)
        flag = Setting(name="f", value=b.step % 2 == 0, default=True, type="bool")
        return offered.model_copy(update={"knobs": {"k": setting, "f": flag}})

    b.side.capabilities = turned  # type: ignore[method-assign]
    for _ in range(3001):
        b.clock.time += 1
        b.rows(1)
    assert 2 <= b.kinds().count("capabilities") <= 20


def test_answers_without_a_proposal_are_counted_by_kind_over_restarts(
    bench: Make, tmp_path: Path
) -> None:
    place = tmp_path / "journal.sqlite"
    first = bench(OPEN, place)
    for kind in ("waiting", "transient", "transient"):
        said = NoProposal(kind=kind, reason="nobody answers", episode="ep-0001")
        first.plane.heartbeat(actor="agent:llm", seen_seq=1, no_proposal=said)
    first.plane.close()
    again = bench(OPEN, place)
    said = NoProposal(kind="waiting", reason="let it pass", episode="ep-0001")
    again.plane.heartbeat(actor="agent:llm", seen_seq=1, no_proposal=said)
    assert again.plane.info().no_proposals == {"waiting": 2, "transient": 2}

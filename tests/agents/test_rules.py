"""The rule agent: the remedy that was measured to work, or a reason for none."""

from collections.abc import Sequence
from typing import Any, get_args

import pytest

from autopilot.detectors.logit_growth import LogitGrowth
from autopilot.schema import (
    INTERVENTION_TYPES,
    Approval,
    Capabilities,
    CheckpointInfo,
    Diagnosis,
    Episode,
    Evidence,
    Finding,
    FindingKind,
    NoProposal,
    Proposal,
    ProposalRecord,
    Receipt,
    Rollback,
    Row,
    RunInfo,
    ScaleLR,
    SetKnob,
    SetOptimizer,
    Setting,
    Verdict,
    Window,
)
from autopilot.window import summarise, tail_dense
from autopilot_agents.rules import ObserveAgent, RuleAgent

EVERYTHING = tuple(INTERVENTION_TYPES)
STEP = 200


def capabilities(**changes: Any) -> Capabilities:
    scale = Setting(name="loss_scale", value=2.0**20, default=2.0**10, minimum=1, maximum=2.0**24)
    given: dict[str, Any] = {
        "interventions": EVERYTHING,
        "settings": {
            "optimizer.eps": Setting(name="optimizer.eps", value=0.01),
            "optimizer.weight_decay": Setting(name="optimizer.weight_decay", value=4.0),
        },
        "knobs": {"loss_scale": scale},
        "lr_plan_declared": True,
    }
    return Capabilities(**{**given, **changes})


def checkpoint(step: int, *, good: bool = True) -> CheckpointInfo:
    return CheckpointInfo(id=f"s{step}", step=step, branch="main", kind="snapshot", good=good)


HELD = (checkpoint(0), checkpoint(100), checkpoint(150), checkpoint(190, good=False))


def finding(branch: str = "main", **changes: Any) -> Finding:
    given: dict[str, Any] = {
        "kind": "loss_spike", "tier": "alarm", "severity": "error", "metric": "loss", "step": 195,
        "branch": branch, "score": 9.0, "message": "m", "detector": "d", "id": "F1",
        "evidence": (Evidence(metric="loss", step=195, value=9.0),),
    }  # fmt: skip
    return Finding(**{**given, **changes})


def window(
    kind: FindingKind = "loss_spike",
    diagnosis: Diagnosis = "damaged",
    *,
    can: Capabilities | None = None,
    held: Sequence[CheckpointInfo] = HELD,
    findings: Sequence[Finding] = (),
    history: Sequence[ProposalRecord] = (),
    fingerprint: dict[str, float] | None = None,
    onset: int = 180,
    rows: Sequence[Row] = (),
    source: str | None = None,
) -> Window:
    episode = Episode(
        id="e1", branch="main", kind=kind, diagnosis=diagnosis, severity="error", status="open",
        alarm=True, invariant_broken=False, onset_step=onset, last_step=STEP, findings=("F1",),
        fingerprint=fingerprint or {}, reason="because", source=source,
    )  # fmt: skip
    run = RunInfo(
        name="r", run_id="r", status="running", step=STEP, state_version=3, seq=9, started=0.0,
        capabilities=can or capabilities(), policy_digest="p", autonomy="act",
    )  # fmt: skip
    names = sorted({name for row in rows for name in row.values})
    return Window(
        run=run,
        episode=episode,
        findings=tuple(findings or (finding(),)),
        summaries=tuple(summarise(name, rows) for name in names),
        table=tail_dense(rows, names),
        checkpoints=tuple(held),
        history=tuple(history),
    )


def applied(number: int, proposal: Proposal) -> ProposalRecord:
    return ProposalRecord(
        id=f"P{number}", proposal=proposal, actor="agent:rules", digest="d", filed_at=0.0,
        filed_step=STEP, status="kept", verdict=Verdict(decision="allow", rule="r", reason="r"),
        receipt=Receipt(command=f"P{number}", step=STEP, branch="main", changes=()),
    )  # fmt: skip


def kinds(answer: Proposal | NoProposal) -> tuple[str, ...]:
    assert isinstance(answer, Proposal), answer
    return tuple(i.kind for i in answer.interventions)


DAMAGED: list[tuple[FindingKind, tuple[str, ...]]] = [
    ("lr_too_high", ("rollback", "scale_lr", "rewarm_lr")),
    ("no_warmup", ("rollback", "scale_lr", "rewarm_lr")),
    ("schedule_fault", ("rollback", "set_lr")),
    ("non_finite", ("rollback", "set_grad_clip")),
    ("loss_spike", ("rollback",)),
    ("divergence", ("rollback",)),
    ("dead_units", ("rollback",)),
    ("silent_corruption", ("rollback",)),
]
MISDRIVEN: list[tuple[FindingKind, dict[str, float], tuple[str, ...]]] = [
    ("schedule_fault", {}, ("set_lr",)),
    ("loss_scale_fault", {}, ("set_knob",)),
    ("dead_update", {"eps_share": 0.99}, ("set_optimizer", "rewarm_lr")),
    ("decay_too_high", {"weight_decay_rate": 0.02}, ("set_optimizer",)),
    ("lr_too_low", {"update_ratio": 0.0005}, ("scale_lr",)),
    ("grad_spike", {"grad_norm_median": 0.4}, ("set_grad_clip",)),
    ("grad_spike", {"second_moment_staleness": 6.8}, ("reset_optimizer_state", "rewarm_lr")),
    ("loss_spike", {"second_moment_staleness": 6.8}, ("reset_optimizer_state", "rewarm_lr")),
]


@pytest.mark.parametrize(("kind", "expected"), DAMAGED)
def test_damaged_weights_go_back_to_a_good_state(
    kind: FindingKind, expected: tuple[str, ...]
) -> None:
    answer = RuleAgent().propose(window(kind))
    assert kinds(answer) == expected
    assert isinstance(answer, Proposal)
    back = answer.interventions[0]
    assert isinstance(back, Rollback)
    target = next(c for c in HELD if c.id == back.checkpoint)
    assert target.good
    assert target.step <= 180
    assert (answer.cause, answer.episode, answer.state_version) == (kind, "e1", 3)
    assert answer.rationale
    assert answer.expected_effect


@pytest.mark.parametrize(("kind", "fingerprint", "expected"), MISDRIVEN)
def test_a_misdriven_setting_is_put_right_in_place(
    kind: FindingKind, fingerprint: dict[str, float], expected: tuple[str, ...]
) -> None:
    answer = RuleAgent().propose(window(kind, "misdriven", fingerprint=fingerprint))
    assert kinds(answer) == expected


@pytest.mark.parametrize("kind", get_args(FindingKind))
def test_it_never_acts_on_what_is_benign_or_not_understood(kind: FindingKind) -> None:
    benign = RuleAgent().propose(window(kind, "benign"))
    assert isinstance(benign, NoProposal)
    assert benign.kind == "benign"
    looked = RuleAgent().propose(window(kind, "unknown"))
    assert kinds(looked) == ("evaluate",)
    assert isinstance(looked, Proposal)
    once = RuleAgent().propose(window(kind, "unknown", history=(applied(1, looked),)))
    assert isinstance(once, NoProposal)
    assert once.kind == "cannot_tell"
    assert "because" in once.reason
    blind = capabilities(interventions=("scale_lr",))
    assert isinstance(RuleAgent().propose(window(kind, "unknown", can=blind)), NoProposal)


def test_without_an_episode_nothing_is_wrong() -> None:
    calm = window().model_copy(update={"episode": None})
    for agent in (RuleAgent(), ObserveAgent()):
        assert isinstance(agent.propose(calm), NoProposal)


@pytest.mark.parametrize("kind", get_args(FindingKind))
@pytest.mark.parametrize("diagnosis", ["damaged", "misdriven"])
def test_a_ladder_ends(kind: FindingKind, diagnosis: Diagnosis) -> None:
    figures = {"eps_share": 0.9, "update_ratio": 0.0005, "grad_norm_median": 0.4}
    figures |= {"second_moment_staleness": 6.8, "weight_decay_rate": 0.02}
    history: list[ProposalRecord] = []
    for number in range(1, 10):
        given = window(kind, diagnosis, history=history, fingerprint=figures)
        answer = RuleAgent().propose(given)
        if isinstance(answer, NoProposal):
            assert answer.kind in ("exhausted", "unsupported")
            assert (answer.kind == "exhausted") == bool(history)
            return
        assert len(history) < 4
        history.append(applied(number, answer))
    pytest.fail("the ladder has no end")


def test_every_rung_goes_back_further() -> None:
    first = RuleAgent().propose(window("divergence"))
    assert isinstance(first, Proposal)
    second = RuleAgent().propose(window("divergence", history=(applied(1, first),)))
    assert isinstance(second, Proposal)
    assert [p.interventions[0].checkpoint for p in (first, second)] == ["s150", "s100"]  # type: ignore[union-attr]


def test_a_refused_proposal_is_no_rung() -> None:
    first = RuleAgent().propose(window("lr_too_high"))
    assert isinstance(first, Proposal)
    denied = applied(1, first).model_copy(update={"status": "denied", "receipt": None})
    again = RuleAgent().propose(window("lr_too_high", history=(denied,)))
    assert again == first


def test_what_a_person_denied_is_not_proposed_again() -> None:
    first = RuleAgent().propose(window("lr_too_high"))
    assert isinstance(first, Proposal)
    no = Approval(decision="deny", actor="human:kim", at=0.0, digest="d")
    expired = no.model_copy(update={"decision": "expired", "actor": "system"})
    for approval, again in ((no, False), (expired, True)):
        changes = {"status": "denied", "receipt": None, "approval": approval}
        denied = applied(1, first).model_copy(update=changes)
        answer = RuleAgent().propose(window("lr_too_high", history=(denied,)))
        assert isinstance(answer, Proposal) == again


def test_without_a_good_state_there_is_no_going_back() -> None:
    for held in ((), (checkpoint(190, good=False),), (checkpoint(195),)):
        answer = RuleAgent().propose(window("loss_spike", held=held))
        assert isinstance(answer, NoProposal)
        assert answer.kind == "unsupported"


def test_without_a_declared_plan_there_is_no_plan_to_follow() -> None:
    can = capabilities(lr_plan_declared=False)
    answer = RuleAgent().propose(window("schedule_fault", "misdriven", can=can))
    assert isinstance(answer, NoProposal)
    assert "declared no learning-rate plan" in answer.reason


def test_without_a_declared_plan_what_a_jump_damaged_is_still_gone_back_from() -> None:
    can = capabilities(lr_plan_declared=False)
    answer = RuleAgent().propose(window("schedule_fault", "damaged", can=can))
    assert isinstance(answer, Proposal)
    assert [type(i) for i in answer.interventions] == [Rollback]


def test_without_the_knob_the_loss_scale_is_left_to_people() -> None:
    can = capabilities(knobs={})
    answer = RuleAgent().propose(window("loss_scale_fault", "misdriven", can=can))
    assert isinstance(answer, NoProposal)
    assert "loss_scale" in answer.reason


@pytest.mark.parametrize(("kind", "_expected"), DAMAGED)
def test_what_the_run_does_not_offer_is_not_proposed(
    kind: FindingKind, _expected: tuple[str, ...]
) -> None:
    can = capabilities(interventions=("scale_lr", "note"))
    answer = RuleAgent().propose(window(kind, can=can))
    if isinstance(answer, Proposal):
        assert set(kinds(answer)) <= {"scale_lr", "note"}
    else:
        assert answer.kind == "unsupported"


def test_it_cites_the_runs_own_figures_of_the_branch_in_force_only() -> None:
    mine = Evidence(metric="loss", step=195, value=9.0)
    found = (
        finding(),
        finding("abandoned", id="F2", evidence=(Evidence(metric="loss", step=7, value=7.0),)),
        finding(id="F3", claimed_by="agent:x", evidence=(Evidence(metric="lr", step=1, value=1),)),
    )
    answer = RuleAgent().propose(window("divergence", findings=found))
    assert isinstance(answer, Proposal)
    assert answer.evidence == (mine,)


def test_the_learning_rate_is_lowered_by_what_the_first_step_says() -> None:
    early = (Evidence(metric="update_ratio", step=1, value=0.45),)
    found = (finding(kind="lr_too_high", step=1, evidence=early),)
    answer = RuleAgent().propose(window("lr_too_high", findings=found, onset=1))
    assert isinstance(answer, Proposal)
    factor = answer.interventions[1].factor  # type: ignore[union-attr]
    assert factor == pytest.approx(0.1)
    assert answer.interventions[0].checkpoint == "s0"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("ratio", "began", "factor"),
    [
        (0.0113, 1e-3, 0.0664),  # at 60 times the rate: 0.68 of the weights, where 0.045 is healthy
        (0.0002, 1e-3, 0.25),  # no reason to go below a quarter
        (0.3, 1e-3, 1 / 32),  # the least of one rung
    ],
)
def test_grown_logits_lower_the_rate_as_far_as_the_first_step_asks_for(
    ratio: float, began: float, factor: float
) -> None:
    rows = [Row(1, {"max_attention_logit": 0.4, "update_ratio": ratio, "lr": began})]
    rows += [Row(s, {"max_attention_logit": 3.0 * s, "lr": s * began}) for s in range(10, 61, 10)]
    detector = LogitGrowth()
    found = [f for row in rows if (f := detector.update(row))]
    assert [f.step for f in found] == [50]
    late = (*found[0].evidence, Evidence(metric="lr", step=60, value=60 * began))
    told = found[0].model_copy(update={"id": "F1", "evidence": late})
    answer = RuleAgent().propose(window("logit_growth", findings=(told,), onset=20))
    assert isinstance(answer, Proposal)
    scale = next(i for i in answer.interventions if isinstance(i, ScaleLR))
    assert scale.factor == pytest.approx(factor, rel=0.01)


def test_exploded_gradients_are_clipped_where_bad_data_is_left_out() -> None:
    calm = [Row(step, {"loss": 2.0, "grad_norm": 1.0}) for step in range(1, 200)]
    answer = RuleAgent().propose(window("grad_spike", rows=calm))
    assert isinstance(answer, Proposal)
    assert answer.interventions[0].skip_batches > 0  # type: ignore[union-attr]
    exploded = [*calm, Row(200, {"loss": 2.0, "grad_norm": 1e4})]
    assert kinds(RuleAgent().propose(window("grad_spike", rows=exploded))) == (
        "rollback",
        "set_grad_clip",
    )


def test_an_observer_never_proposes() -> None:
    for kind, _ in DAMAGED:
        assert isinstance(ObserveAgent().propose(window(kind)), NoProposal)


def test_the_same_window_gives_the_same_answer() -> None:
    for kind, _ in DAMAGED:
        assert RuleAgent().propose(window(kind)) == RuleAgent().propose(window(kind))


def test_a_knob_that_left_its_default_is_put_back_where_data_repeats() -> None:
    shuffle = Setting(name="shuffle", value=0.0, default=1.0, minimum=0, maximum=1)
    warm = Setting(name="warm", value=2.0, default=2.0, minimum=0, maximum=9)
    can = capabilities(knobs={"shuffle": shuffle, "warm": warm})
    answer = RuleAgent().propose(window("data_repeat", "misdriven", can=can))
    assert isinstance(answer, Proposal)
    assert answer.interventions == (SetKnob(name="shuffle", value=1.0),)


def test_a_knob_that_an_intervention_set_is_left_as_it_is() -> None:
    shuffle = Setting(name="shuffle", value=0.0, default=1.0, minimum=0, maximum=1)
    ours = Proposal(interventions=(SetKnob(name="shuffle", value=0.0),), episode="e0")
    answer = RuleAgent().propose(
        window(
            "data_repeat",
            "misdriven",
            can=capabilities(knobs={"shuffle": shuffle}),
            history=[applied(1, ours)],
        )
    )
    assert isinstance(answer, NoProposal)
    assert answer.kind == "unsupported"


def test_a_decay_is_lowered_to_a_memory_of_ten_thousand_steps() -> None:
    figures = {"weight_decay_rate": 0.02}
    answer = RuleAgent().propose(window("decay_too_high", "misdriven", fingerprint=figures))
    assert isinstance(answer, Proposal)
    assert answer.interventions == (SetOptimizer(name="weight_decay", value=0.02),)


def excluding(value: str) -> Capabilities:
    choices = ("", "web", "code")
    knob = Setting(name="exclude_source", value=value, default="", type="str", choices=choices)
    return capabilities(knobs={"exclude_source": knob})


def test_a_bad_source_is_left_out_where_the_loop_offers_to() -> None:
    rows = [Row(s, {"loss": 2.0} | ({"val_loss": 1.5} if s % 150 == 0 else {})) for s in range(400)]
    given = window("bad_shard", "misdriven", can=excluding(""), source="code", rows=rows)
    answer = RuleAgent().propose(given)
    assert isinstance(answer, Proposal)
    assert answer.interventions == (SetKnob(name="exclude_source", value="code"),)
    canary = answer.canary
    assert canary is not None, "without that source the training loss falls whatever it was worth"
    assert canary.metric == "val_loss"
    assert canary.steps >= 2 * 133
    assert canary.bound == pytest.approx(1.545)


@pytest.mark.parametrize(
    ("value", "source"), [("web", "code"), ("", "books"), ("", None), ("code", "code")]
)
def test_no_source_is_let_back_in_and_none_is_guessed(value: str, source: str | None) -> None:
    given = window("bad_shard", "misdriven", can=excluding(value), source=source)
    answer = RuleAgent().propose(given)
    assert isinstance(answer, NoProposal)
    assert answer.kind == "unsupported"


@pytest.mark.parametrize("kind", ["bad_shard", "overfit"])
def test_what_only_a_person_can_mend_is_told_and_not_treated(kind: FindingKind) -> None:
    answer = RuleAgent().propose(window(kind, "misdriven"))
    assert isinstance(answer, NoProposal)
    assert (answer.kind, answer.episode) == ("unsupported", "e1")
    assert "because" in answer.reason


def test_of_an_overfit_run_the_state_nearest_to_its_best_is_named() -> None:
    answer = RuleAgent().propose(window("overfit", "misdriven", onset=120))
    assert isinstance(answer, NoProposal)
    assert "s100 of step 100" in answer.reason

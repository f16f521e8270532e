"""Reading a policy: what may be said, and how a mistake is told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from autopilot.errors import BadPolicy
from autopilot.policy import DEFAULT_POLICY, Policy, parse_policy, read_policy
from autopilot.schema import INTERVENTION_TYPES

WRITTEN_BY_HAND = """
autonomy = "suggest"                # act only after a person agreed
default = "deny"

[limits]
lr = { min = 3e-8, max_factor = 1.5, total_factor = [0.1, 3.0] }
grad_clip = { min = 0.2 }
[budget]
interventions = { per_1000_steps = 2, per_day = 9 }
rollbacks = { per_day = 1 }
skipped_batches = { per_day = 500 }
llm_usd = { per_day = 0.5 }
[cooldown]
steps = 250
quiet = ["warmup", "evaluation", "checkpoint"]

[[rules]]
name = "put a broken setting right"
kinds = ["set_optimizer", "set_lr", "scale_lr", "set_knob"]
where = { invariant_broken = true, evidence_verified = true }
verdict = "allow"
[[rules]]
name = "go back when weights are hurt"
kinds = ["rollback", "scale_lr", "rewarm_lr", "skip_batches"]
where = { alarm = true, damaged = true, target = "good", steps_back_max = 300 }
verdict = "allow"
[[rules]]
name = "a person ends a run"
kinds = ["stop", "reset_optimizer_state"]
verdict = "ask"

[approval]
ttl = "2h"
on_expiry = "allow_reversible"
[canary]
steps = 64
revert_if = "never"
[breaker]
failed_canaries = 1
"""


def test_the_default_policy_parses_and_is_what_none_gives() -> None:
    assert parse_policy(DEFAULT_POLICY) == read_policy(None)
    assert parse_policy(DEFAULT_POLICY).autonomy == "act"


def keys_of(model: type[BaseModel]) -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        found.add(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= keys_of(field.annotation)
    return found


@pytest.mark.parametrize("key", sorted(keys_of(Policy)))
def test_every_key_stands_in_the_default_policy(key: str) -> None:
    words = DEFAULT_POLICY.replace("[", " ").replace("]", " ").replace(".", " ").split()
    assert key in words


def test_what_is_not_written_has_the_default_policys_value() -> None:
    default, empty = parse_policy(DEFAULT_POLICY), parse_policy("")
    assert empty == default.model_copy(update={"rules": ()})


def test_a_policy_written_by_hand_means_what_it_says() -> None:
    policy = parse_policy(WRITTEN_BY_HAND)
    assert (policy.autonomy, policy.default) == ("suggest", "deny")
    assert policy.limits.lr.total_factor == (0.1, 3.0)
    assert policy.approval.ttl == 7200
    assert policy.rules[1].where.steps_back_max == 300
    assert policy.rules[2].where.alarm is None
    assert policy.cooldown.same_episode == Policy().cooldown.same_episode


MISTAKES = [
    ("autonomie = 'act'", "autonomie", "no such key"),
    ("[limits]\nlr = { minimum = 1 }", "limits.lr.minimum", "no such key"),
    ("[[rules]]\nname='x'\nkinds=['stop']\nverdict='ask'\nwhen={}", "rules.0.when", "no such key"),
    ("autonomy = 'fly'", "autonomy", "'act' (it says 'fly')"),
    ("[budget]\nrollbacks = { per_day = -1 }", "budget.rollbacks.per_day", "(it says -1)"),
    ("[limits]\nlr = { min = nan }", "limits.lr.min", "finite"),
    ("[limits]\nlr = { min = 0 }", "limits.lr.min", "greater than 0"),
    ("[limits]\nlr = { total_factor = [2.0, 4.0] }", "limits.lr", "must contain 1"),
    ("[limits]\nlr = { total_factor = [0.5] }", "limits.lr.total_factor", "required"),
    ("[approval]\nttl = '15'", "approval.ttl", "'90s', '15m' or '2h' (it says '15')"),
    ("[approval]\nttl = '-1s'", "approval.ttl", "(it says '-1s')"),
    ("[approval]\non_expiry = 'allow'", "approval.on_expiry", "(it says 'allow')"),
    ("[cooldown]\nquiet = ['night']", "cooldown.quiet.0", "(it says 'night')"),
    ("[canary]\nsteps = 0", "canary.steps", "(it says 0)"),
    ("[[rules]]\nname='x'\nkinds=['fly']\nverdict='ask'", "rules.0", "no such intervention: fly"),
    ("[[rules]]\nname='x'\nkinds=[]\nverdict='ask'", "rules.0.kinds", "at least 1"),
    ("[[rules]]\nkinds=['stop']\nverdict='ask'", "rules.0.name", "required"),
    ("[[rules]]\nname='x'\nkinds=['stop']\nverdict='if'", "rules.0.verdict", "(it says 'if')"),
    ("autonomy = \nrules = 1", "not valid TOML", "line 1"),
    ("rules = 3", "rules", "(it says 3)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "said"), MISTAKES)
def test_a_mistake_is_one_line_with_place_value_and_expectation(
    text: str, place: str, said: str
) -> None:
    with pytest.raises(BadPolicy) as raised:
        parse_policy(text, origin="mine.toml")
    message = str(raised.value)
    assert message.startswith("mine.toml: ")
    assert place in message
    assert said in message
    assert "\n" not in message


def test_of_several_mistakes_the_first_is_told_and_the_others_counted() -> None:
    with pytest.raises(BadPolicy, match=r"and 1 more"):
        parse_policy("autonomy = 'x'\ndefault = 'y'")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, why in (
        (tmp_path / "none.toml", "No such file"),
        (tmp_path, "Is a directory"),
        (binary, "not UTF-8"),
    ):
        with pytest.raises(BadPolicy, match=why) as raised:
            read_policy(path)
        assert str(raised.value).startswith(str(path))


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda b: b.decode("latin-1")))
def test_any_text_is_a_policy_or_one_clear_line(text: str) -> None:
    said = None
    try:
        parse_policy(text)
    except BadPolicy as error:
        said = str(error)
    assert said is None or len(said.splitlines()) == 1


def test_the_digest_knows_what_is_said_and_not_how() -> None:
    plain = parse_policy("[canary]\nsteps = 50\n")
    spaced = parse_policy("# a remark\n\n[canary]\n  steps   =   50\nrevert_if = 'worse'")
    assert plain.digest() == spaced.digest()
    assert plain.digest() != parse_policy("[canary]\nsteps = 51").digest()


@pytest.mark.parametrize("kind", [*INTERVENTION_TYPES, "*"])
def test_a_rule_can_speak_of_every_intervention(kind: str) -> None:
    rule = f"[[rules]]\nname = 'r'\nkinds = ['{kind}']\nverdict = 'deny'"
    assert parse_policy(rule).rules[0].kinds == (kind,)

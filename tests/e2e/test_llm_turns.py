"""A flight with a model, and its replay from the turns in its journal: no server, same proposal."""

import re
from pathlib import Path
from typing import Any

from e2e.flying import (
    AUTOPILOT,
    SUGGEST,
    autopilot,
    autopilot_json,
    journal,
    kinds,
    start,
    train,
    until,
)
from fake_llm import FakeLLM, called

from autopilot.schema import Proposal

KEY = "sk-verysecretkey-0123456789"
ACTING = SUGGEST.replace('"suggest"', '"act"')


def looks_then_acts(body: dict[str, Any]) -> dict[str, Any]:
    shown = body["messages"][1]["content"]
    if len(body["messages"]) == 2:
        return called(("metrics", {"metrics": ["lr"], "first_step": 0, "last_step": 1_000_000}))
    cited = [found[0] for found in re.finditer(r"lr@\d+=[\d.]+", shown)]
    cited.append(
        re.sub(r"(\d+),(\S+)", r"lr@\1=\2", body["messages"][-1]["content"].split("\n")[-2])
    )
    return called(("propose", {
        "diagnosis": "misdriven", "rationale": "the rate is below its plan", "evidence": cited,
        "expected_effect": "updates resume", "change": {"kind": "set_lr", "value": "plan"},
    }))  # fmt: skip


def test_a_flight_is_replayed_from_its_journal_with_the_same_proposal_byte_for_byte(
    tmp_path: Path,
) -> None:
    folder, policy = tmp_path / "run", tmp_path / "policy.toml"
    policy.write_text(ACTING)
    with FakeLLM(looks_then_acts) as model:
        training = train(folder, AUTOPILOT_POLICY=policy, FAULT=30, STEPS=100_000, PACE=0.01)
        pilot = start(
            *AUTOPILOT, "watch", folder, "--agent", "llm", output=tmp_path / "pilot.out",
            AUTOPILOT_LLM_MODEL="fake-1", AUTOPILOT_LLM_BASE_URL=model.url,
            AUTOPILOT_LLM_API_KEY=KEY,
        )  # fmt: skip
        try:
            until(lambda: {"consultation", "receipt"} <= set(kinds(folder)))
        finally:
            for process in (pilot, training):
                process.kill()
                process.wait()
        assert len(model.requests) == 2
    (filed,) = [e.body["record"] for e in journal(folder) if e.kind == "proposal"]
    flown = Proposal.model_validate(filed["proposal"])

    report = autopilot_json("replay", folder, "--agent", "llm", "--turns", "recorded")
    (decision,) = report["decisions"]
    assert (
        Proposal.model_validate(decision["proposal"]).model_dump_json() == flown.model_dump_json()
    )
    assert decision["verdict"] == filed["verdict"]
    assert len(flown.evidence) >= 2, "a figure of the look-up is cited too"
    assert not [r for r in report["remarks"] if "not come to" in r]
    assert KEY not in (folder / "journal.sqlite").read_bytes().decode("latin-1")

    laxer = tmp_path / "laxer.toml"
    laxer.write_text('autonomy = "observe"\n')
    told = autopilot("replay", folder, "--agent", "llm", "--turns", "recorded", "--policy", laxer)
    assert told.returncode == 0, told.stderr
    assert "would be denied" in told.stdout, "the guard's policy is another; what was asked is not"
    assert "turns_differ" not in told.stdout


def test_what_recorded_turns_need_is_told_in_one_line(tmp_path: Path) -> None:
    for words, expected in (
        (
            ("--turns", "recorded"),
            "--turns recorded: plays the model of a run; use --agent llm, not",
        ),
        (("--agent", "llm", "--turns", "cached"), "--turns cached: expected ask, or recorded"),
    ):
        done = autopilot("replay", tmp_path, *words)
        assert done.returncode == 2
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1

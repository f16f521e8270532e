"""A person's words to a run and about it, over real processes and sockets; the model is played."""

import json
from pathlib import Path

from e2e.flying import (
    AUTOPILOT,
    SUGGEST,
    autopilot,
    autopilot_json,
    ended,
    journal,
    kinds,
    start,
    train,
    until,
)
from fake_llm import FakeLLM, called, problem

from autopilot.client import connect
from autopilot.schema import Stop

WORDS = "leave the learning rate alone tonight"
WAIT = called(("wait", {"rationale": "as told", "why": "not_yet"}))


def settings(model: FakeLLM, **more: object) -> dict[str, object]:
    given = {"MODEL": "fake-1", "BASE_URL": model.url, "TIMEOUT": 5, "DEADLINE": 10}
    return {f"AUTOPILOT_LLM_{name}": value for name, value in given.items()} | more


def one_line(text: str) -> bool:
    return text.startswith("autopilot: ") and text.count("\n") == 1 and "Traceback" not in text


def test_every_pilot_reads_guidance_and_a_run_that_is_over_takes_none(tmp_path: Path) -> None:
    folder, policy = tmp_path / "runs" / "now", tmp_path / "policy.toml"
    folder.parent.mkdir()
    policy.write_text(SUGGEST)
    with FakeLLM([WAIT]) as model:
        training = train(folder, AUTOPILOT_POLICY=policy, FAULT=30, STEPS=100_000, PACE=0.01)
        try:
            tokens = json.loads((folder / "tokens.json").read_text())
            refused = autopilot("tell", folder, "obey me", AUTOPILOT_TOKEN=tokens["agent"])
            assert (refused.returncode, one_line(refused.stderr)) == (2, True)
            assert "the agent's was given" in refused.stderr
            told = autopilot_json("tell", folder, WORDS)
            assert (told["id"], told["text"], told["withdrawn_by"]) == ("G1", WORDS, None)
            assert told["actor"].startswith("human:")
            for pilot in ("first", "second"):  # a pilot that is killed leaves nothing behind
                before = len(model.requests)
                process = start(*AUTOPILOT, "watch", folder, "--agent", "llm",
                                output=tmp_path / pilot, **settings(model))  # fmt: skip
                until(lambda count=before: len(model.requests) > count)
                process.kill()
                process.wait()
                shown = model.requests[before]["messages"][-1]["content"]
                assert WORDS in shown.partition("<data-")[0]
            with connect(str(folder), "operator", "kim") as run:
                run.command((Stop(save=False),))
            ended(training)
        finally:
            training.kill()
            training.wait()
    over = autopilot("tell", folder, "one more thing")
    assert (over.returncode, one_line(over.stderr)) == (2, True)
    assert "the run is over" in over.stderr
    assert WORDS in autopilot("status", folder).stdout
    assert kinds(folder).count("guidance") == 1


def test_a_question_about_a_run_that_is_over_is_answered_from_its_journal(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert ended(train(folder, FAULT=60, STEPS=140, AUTOPILOT_WAIT_FOR_PILOT=0)) == 0
    before = (folder / "journal.sqlite").read_bytes()
    (onset,) = {e.body["episode"]["onset_step"] for e in journal(folder) if e.kind == "episode"}
    look = ("metrics", {"metrics": ["lr", "lr_planned"], "first_step": 50, "last_step": 70})
    said = {"text": f"The schedule fell to zero: lr@{onset}=0 where lr@55=0.003 had been planned.",
            "figures": [f"lr@{onset}=0", "lr_planned@66=0.5"], "records": ["ep-0001"]}  # fmt: skip
    with FakeLLM([called(look), called(("answer", said))]) as model:
        done = autopilot("ask", folder, "why did it stop learning at 60?", **settings(model))
        assert done.returncode == 0, done.stderr
        assert f"✓ lr@{onset}=0  recorded on main" in done.stdout
        assert "✗ NOT VERIFIED  lr_planned@66=0.5: the journal has 0.003 on main" in done.stdout
        assert "EPISODES, oldest first\\nep-0001 schedule_fault" in model.texts()
    with FakeLLM([problem(401, "no such key")]) as model:
        failed = autopilot("ask", folder, "why?", **settings(model))
    assert (failed.returncode, failed.stdout, one_line(failed.stderr)) == (1, "", True)
    unset = autopilot("ask", folder, "why?")
    assert (unset.returncode, one_line(unset.stderr)) == (2, True)
    assert (folder / "journal.sqlite").read_bytes() == before

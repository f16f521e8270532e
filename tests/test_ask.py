"""``autopilot ask``: a question about a run, its figures looked up, nothing ever changed."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from agents.test_llm_injection import ATTACKS
from control.bench import KIM, OPEN, Bench
from fake_llm import FakeLLM, Raw, called, only_loopback, problem, says
from llm_asked import FAULTS, KEY
from typer.testing import CliRunner

from autopilot.cli import ask
from autopilot.errors import BadInput, JournalError, NotARun
from autopilot.journal import Journal
from autopilot.schema import Row, SetLR
from autopilot_agents.llm.archive import open_archive
from autopilot_agents.llm.archive_view import archive_lookups, overview
from autopilot_agents.llm.settings import Settings
from autopilot_trainer.api import build_app
from autopilot_trainer.auth import make_tokens
from autopilot_trainer.server import ControlServer

__all__ = ["only_loopback"]

TOKENS = make_tokens()
JUMP = 61
QUESTION = "why did the loss jump at 61?"
GOOD = {
    "text": f"The loss jumped to loss@{JUMP}=9 from loss@60=2 on main; P1 put the rate back.",
    "figures": [f"loss@{JUMP}=9", "loss@60=2"],
    "records": ["P1", "ep-0001"],
}
LOOK = ("metrics", {"metrics": ["loss"], "first_step": 55, "last_step": 70})


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"AUTOPILOT_LLM_{name.upper()}", raising=False)
    monkeypatch.delenv("AUTOPILOT_TOKEN", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def flown(folder: Path) -> Bench:
    """A run that jumped at step 61, lost its plan, was put back, and went back to step 50."""
    folder.mkdir(parents=True)
    bench = Bench(OPEN, folder / "journal.sqlite")
    bench.rows(60)
    bench.rows(30, loss=9.0)
    episode = bench.break_schedule()
    bench.propose(SetLR(value="plan"), episode=episode, rationale="off its plan")
    bench.apply()
    bench.rows(20, loss=2.2)
    bench.plane.start_branch("main.1", "main", 50)
    for step in range(51, 80):
        bench.plane.observe(Row(step, {"loss": 2.0, "lr": 0.01}, branch="main.1"))
    bench.plane.tick()
    bench.step = 79
    return bench


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "over"
    bench = flown(folder)
    bench.plane.end("ended", "all steps done")
    bench.plane.close()
    return folder


def asked(server: FakeLLM, run: object, *more: str, question: str = QUESTION) -> Any:
    app = typer.Typer()
    ask.register(app)
    app.command("other")(lambda: None)
    given = ["ask", str(run), question, "--model", "fake-1", "--base-url", server.url, *more]
    return CliRunner().invoke(app, given)


def answered(run: object, *turns: Any) -> tuple[dict[str, Any], FakeLLM]:
    with FakeLLM(turns) as server:
        done = asked(server, run, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.output), server


# --- an answer ----------------------------------------------------------------------------------


def test_an_answer_comes_with_its_figures_held_against_the_journal(over: Path) -> None:
    told, server = answered(over, called(LOOK), called(("answer", GOOD)))
    assert (told["answered"], told["outcome"], told["lookups"]) == (True, "answer", 1)
    cited = {one["cited"]: (one["checked"], one["note"]) for one in told["citations"]}
    assert cited == {
        f"loss@{JUMP}=9": (True, "recorded on main"),
        "loss@60=2": (True, "recorded on main, main.1"),
        "P1": (True, "in the journal"),
        "ep-0001": (True, "in the journal"),
    }
    assert told["unknown_numbers"] == []
    usage = told["usage"]
    assert (usage["calls"], usage["input_tokens"], usage["price_usd"]) == (2, 2000, 0.0)
    assert (told["model"], told["host"], told["prompt"]) == ("fake-1", "127.0.0.1", "ask@1")
    looked = server.requests[1]["messages"][-1]["content"]
    assert looked.startswith("<data-")
    assert "\n61,9" in looked


def test_what_is_not_in_the_journal_is_shown_as_that(over: Path) -> None:
    wrong = {
        "text": f"It rose from loss@60=1.5 to loss@{JUMP}=9, 37.5 times, as loss@9999=3 shows.",
        "figures": [f"loss@{JUMP}=9", "loss@60=1.5"],
        "records": ["P9"],
    }
    told, server = answered(over, called(("answer", wrong)))
    cited = {one["cited"]: (one["checked"], one["note"]) for one in told["citations"]}
    assert cited[f"loss@{JUMP}=9"] == (True, "recorded on main")
    assert cited["loss@60=1.5"] == (False, "loss@60=1.5: the journal has 2 on main, 2 on main.1")
    assert cited["loss@9999=3"][0] is False
    assert cited["P9"] == (False, "P9: no record has this id")
    assert told["unknown_numbers"] == ["37.5"]
    assert len(server.requests) == 2  # sent back once, then shown as what it is
    assert "the journal has 2" in server.requests[1]["messages"][-1]["content"]
    with FakeLLM([called(("answer", wrong))]) as again:
        shown = asked(again, over)
    assert shown.exit_code == 0
    assert "✓ loss@61=9  recorded on main" in shown.output
    assert "✗ NOT VERIFIED  loss@60=1.5: the journal has 2" in shown.output
    assert "✗ not among what it was shown: 37.5" in shown.output


def test_an_answer_is_printed_with_what_it_took(over: Path) -> None:
    with FakeLLM([called(("answer", GOOD))]) as server:
        done = asked(server, over)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == GOOD["text"]
    assert lines[1:5] == [
        "✓ loss@61=9  recorded on main",
        "✓ loss@60=2  recorded on main, main.1",
        "✓ P1  in the journal",
        "✓ ep-0001  in the journal",
    ]
    took = "(fake-1 at 127.0.0.1: 1 requests, 0 look-ups, 1000 tokens in, 50 out, price $0.0000, "
    assert lines[5].startswith(took)


def test_an_honest_do_not_know_is_an_answer(over: Path) -> None:
    with FakeLLM([called(("cannot_tell", {"text": "no data order is recorded"}))]) as server:
        done = asked(server, over)
    assert done.exit_code == 0
    assert done.output.startswith("The journal does not tell:\nno data order is recorded\n")


def test_the_model_is_shown_the_whole_run_and_the_question_after_it(over: Path) -> None:
    _, server = answered(over, called(("answer", GOOD)))
    system, user = (m["content"] for m in server.requests[0]["messages"])
    assert "you may make 5 look-ups" in system
    evidence, _, question = user.partition("\n\nQUESTION\n")
    assert question == QUESTION
    assert evidence.startswith("<data-")
    assert "RUN bench: ended: all steps done; step 79" in evidence
    assert "loss: 2, 2" in evidence
    assert "loss on main, left for step 50: 51=2 61=9" in evidence
    assert "ep-0001 schedule_fault" in evidence
    assert "P1 at step 95 for ep-0001, by agent:rules: set_lr value=plan" in evidence
    offered = {"metrics", "story", "findings", "tried", "checkpoints", "knobs"}
    assert set(server.tools()) == {*offered, "answer", "cannot_tell"}


def test_look_ups_tell_what_happened_between_two_steps(over: Path) -> None:
    span = {"first_step": 55, "last_step": 96}
    calls = [("story", span), ("findings", {"episode": "ep-0001"}), ("tried", {}),
             ("metrics", {"metrics": ["no_such"], **span})]  # fmt: skip
    _, server = answered(over, *(called(call) for call in calls), called(("answer", GOOD)))
    told = [body["messages"][-1]["content"] for body in server.requests[1:]]
    assert "P1 applied after step 95" in told[0]
    assert "schedule_fault [invariant] on lr" in told[1]
    assert "by agent:rules: set_lr value=plan" in told[2]
    assert "no such metric there; there are: loss, lr, lr_planned" in told[3]


# --- where runs lie -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Path, str]]:
    folder = tmp_path_factory.mktemp("runs") / "live"
    bench = flown(folder)
    server = ControlServer(build_app(bench.plane, TOKENS))
    url = server.start()
    (folder / "run.json").write_text(json.dumps({"url": url}))
    (folder / "tokens.json").write_text(json.dumps({"viewer": TOKENS.viewer}))
    yield bench, folder, url
    server.stop()


@pytest.mark.parametrize("by", ["directory", "url"])
def test_a_live_run_is_asked_about_with_a_viewers_token_and_nothing_is_posted(
    live: tuple[Bench, Path, str], by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, folder, url = live
    if by == "url":
        monkeypatch.setenv("AUTOPILOT_TOKEN", TOKENS.viewer)
    before = (bench.kinds(), bench.plane.info().state_version)
    told, server = answered(folder if by == "directory" else url,
                            called(LOOK), called(("answer", GOOD)))  # fmt: skip
    assert all(one["checked"] for one in told["citations"])
    assert (bench.kinds(), bench.plane.info().state_version) == before
    shown = server.requests[0]["messages"][1]["content"]
    assert "RUN bench: running; step 79" in shown
    assert ("over a URL only the last" in shown) == (by == "url")


def test_a_run_of_many_rows_is_read_in_part_and_its_spike_is_still_seen(tmp_path: Path) -> None:
    steps, spike = 30_000, 14_003
    with Journal.create(str(tmp_path / "journal.sqlite"), run_id="r", name="long") as journal:
        journal.append_rows(
            [Row(s, {"loss": 50.0 if s == spike else 2.0}) for s in range(1, steps + 1)]
        )
    told, server = answered(
        tmp_path,
        called(("metrics", {"metrics": ["loss"], "first_step": 13_000, "last_step": 15_000})),
        called(("answer", {"text": "one spike", "figures": [f"loss@{spike}=50"]})),
    )
    assert [one["checked"] for one in told["citations"]] == [True]
    assert f"{spike}=50" in server.requests[0]["messages"][1]["content"]
    looked = server.requests[1]["messages"][-1]["content"]
    assert f"\n{spike},50" in looked
    assert looked.count("\n") < 40


def test_text_of_a_run_opens_no_section_and_closes_no_fence(tmp_path: Path) -> None:
    bench = Bench(OPEN, tmp_path / "journal.sqlite")
    bench.rows(30)
    episode = bench.break_schedule()
    for text in ATTACKS[:12]:
        words = {"rationale": text, "expected_effect": text}
        bench.propose(
            SetLR(value="plan"), episode=episode, actor=f"agent:{text}", key=text, **words
        )
    for text in ATTACKS[:8]:
        bench.plane.tell(text, actor=KIM)
    bench.plane.end("ended", ATTACKS[3])
    bench.plane.close()
    with open_archive(str(tmp_path)) as archive:
        shown = overview(archive)
        looked = asyncio.run(archive_lookups(archive)["story"].ask(first_step=0, last_step=99))
    assert not re.search(r"[<>\x1b]", shown + looked)
    heads = {line.split(" ")[0] for line in shown.split("\n") if line.split(" ")[0].isupper()}
    assert {head for head in heads if not re.fullmatch(r"[PG]\d+", head)} == {
        "RUN", "SETTINGS", "STATISTICS", "COURSE,", "EPISODES,", "FINDINGS,", "INTERVENTIONS,",
        "GUIDANCE",
    }  # fmt: skip


# --- no answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_a_server_ends_in_one_line(over: Path, name: str) -> None:
    turn, kind, _ = FAULTS[name]
    with FakeLLM([turn]) as server:
        done = asked(server, over)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"autopilot: no answer ({kind}): ")
    assert (done.stderr.count("\n"), done.stdout) == (1, "")
    assert KEY not in done.stderr


@pytest.mark.parametrize(
    "turn",
    [
        says("It jumped because the data was bad."),
        called(("answer", {"text": "The data was bad."})),
        called(("answer", {"text": "Bad data.", "figures": ["the loss"]})),
        called(("answer", "{nonsense")),
        called(("stop", {"save": False})),
        says(""),
    ],
)
def test_prose_and_answers_without_a_citation_are_sent_back_and_then_no_answer(
    over: Path, turn: Any
) -> None:
    with FakeLLM([turn]) as server:
        done = asked(server, over)
    assert done.exit_code == 1
    assert "no answer (invalid)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(server.requests) == 3


def test_a_server_that_hangs_ends_at_the_deadline(
    over: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPILOT_LLM_DEADLINE", "1")
    with FakeLLM([Raw(delay=60)]) as server:
        done = asked(server, over, "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["answered"], told["outcome"]) == (1, False, "transient")
    assert "no answer within 1 s" in told["text"]


def test_a_model_without_a_price_is_not_asked(over: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPILOT_LLM_API_KEY", KEY)
    app = typer.Typer()
    ask.register(app)
    app.command("other")(lambda: None)
    done = CliRunner().invoke(
        app,
        ["ask", str(over), QUESTION, "--model", "unheard-of", "--base-url", "https://m.example/v1"],
    )
    assert done.exit_code == 1
    assert "no answer (budget): the price of unheard-of is unknown" in done.stderr


def test_a_key_that_the_server_says_back_is_not_printed(
    over: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPILOT_LLM_API_KEY", KEY)
    leaky = called(("answer", {"text": f"your key is {KEY}", "records": ["P1"]}))
    with FakeLLM([leaky]) as server:
        done = asked(server, over)
    assert done.exit_code == 0
    assert KEY not in done.output
    with FakeLLM([problem(401, f"Incorrect API key provided: {KEY}")]) as server:
        assert KEY not in asked(server, over).stderr


def test_without_a_model_it_says_what_to_set(over: Path) -> None:
    app = typer.Typer()
    ask.register(app)
    app.command("other")(lambda: None)
    done = CliRunner().invoke(app, ["ask", str(over), QUESTION])
    assert isinstance(done.exception, BadInput)
    assert "AUTOPILOT_LLM_MODEL" in str(done.exception)


@pytest.mark.parametrize("question", ["", "  \n ", "x" * 1001])
def test_a_question_without_words_or_too_long_is_not_asked(over: Path, question: str) -> None:
    with FakeLLM([called(("answer", GOOD))]) as server:
        done = asked(server, over, question=question)
    assert isinstance(done.exception, BadInput)
    assert str(done.exception).startswith("question: expected 1 to 1000 visible characters")
    assert server.requests == []


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "journal.sqlite").write_bytes(b"SQLite format 3\x00" + b"x" * 5000)
    with FakeLLM([called(("answer", GOOD))]) as server:
        missing = asked(server, tmp_path / "none").exception
        broken = asked(server, tmp_path / "bad").exception
    assert isinstance(missing, NotARun)
    assert isinstance(broken, JournalError)
    assert server.requests == []

"""Looking up the same sickness in one's own earlier runs: bounded, ranked, fenced, read-only."""

import json
import os
from pathlib import Path

import pytest
from agents.test_llm_injection import ATTACKS
from control.bench import KIM, OPEN, PLAN, Bench
from fake_llm import FakeLLM, called, only_loopback
from llm_asked import settings

from autopilot.client import connect
from autopilot.control import PlaneRun
from autopilot.journal import Journal
from autopilot.policy import parse_policy
from autopilot.schema import Pause, Row, ScaleLR, SetLR, Window
from autopilot.window import build_window
from autopilot_agents.known import Terms, make_agent
from autopilot_agents.llm.agent import LLMAgent
from autopilot_agents.llm.settings import read_settings
from autopilot_agents.llm.similar import LINES, NEWEST_RUNS, similar_episodes
from autopilot_trainer.api import build_app
from autopilot_trainer.auth import make_tokens
from autopilot_trainer.server import ControlServer

__all__ = ["only_loopback"]

END = {"status": "ended", "reason": "done"}
WAIT = called(("wait", {"rationale": "not yet", "why": "not_yet"}))


def sick(
    folder: Path, name: str, *, healthy: int = 40, lr: float = 0.0, policy: str = OPEN
) -> tuple[Bench, str]:
    """A run whose learning rate left its plan after so many steps."""
    (folder / name).mkdir(parents=True)
    path = folder / name / "journal.sqlite"
    Journal.create(str(path), run_id=f"id-{name}", name=name).close()
    bench = Bench(policy, path)
    bench.rows(healthy)
    bench.rows(5, lr=lr)
    (episode,) = bench.plane.episodes()
    return bench, episode.id


def over(bench: Bench, *, rows: int = 60, **values: float) -> None:
    bench.rows(rows, **values)
    bench.plane.end("ended", "done")
    bench.plane.close()


def treated(folder: Path, name: str, *, after: float, healthy: int = 40) -> None:
    """Its rate was set back to its plan; the loss was then as stated, for its canary to judge."""
    bench, episode = sick(folder, name, healthy=healthy)
    bench.propose(SetLR(value="plan"), episode=episode, rationale="off its plan")
    bench.apply()
    bench.rows(210, loss=after)
    bench.apply()
    over(bench, rows=5)


def question(tmp_path: Path) -> Window:
    bench, _ = sick(tmp_path / "here", "now")
    run = PlaneRun(bench.plane, "agent:x")
    shown = build_window(run, run.episodes()[0])
    bench.plane.close()
    return shown


def test_what_was_done_and_how_the_canary_ended_is_told(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    treated(runs, "helped", after=2.0)
    treated(runs, "harmed", after=9.0)
    bench, _ = sick(runs, "left")
    over(bench, lr=0.0)
    told = similar_episodes(runs, question(tmp_path)).split("\n")
    assert told[0] == "3 episodes of kind schedule_fault in 3 ended runs"
    lines = {line.split(" ")[0]: line for line in told[1:]}
    assert "set_lr value=plan: kept, canary kept with loss 2, bound " in lines["helped"]
    assert "set_lr value=plan: reverted, canary reverted with loss 9, bound " in lines["harmed"]
    assert "nothing was done; still there when the run ended" in lines["left"]


def test_the_more_similar_come_first_and_five_lines_are_all(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    lengths = {"third": (80, 10), "alike": (20, 400), "second": (70, 10), "last": (100, 10)}
    for name, (healthy, rest) in {**lengths, "a": (90, 10), "b": (95, 10)}.items():
        bench, _ = sick(runs, name, healthy=healthy)
        over(bench, rows=rest)
    shown = question(tmp_path)
    shown = shown.model_copy(update={"run": shown.run.model_copy(update={"steps": 1000})})
    told = similar_episodes(runs, shown).split("\n")
    assert len(told) == LINES
    assert told[0].startswith("6 episodes of kind schedule_fault in 6 ended runs")
    alike = [float(line.split("similarity ")[1].split(")")[0]) for line in told[1:]]
    assert alike == sorted(alike, reverse=True)
    assert told[1].startswith("alike ")
    assert all(0 <= one <= 1 for one in alike)


def test_the_same_diagnosis_counts_more_than_the_same_size(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    bench, _ = sick(runs, "misdriven")
    over(bench, lr=0.0)
    bench, _ = sick(runs, "damaged")
    bench.rows(2, loss=float("nan"), lr=0.0)
    over(bench, lr=0.0)
    shown = question(tmp_path)
    told = similar_episodes(runs, shown)
    assert shown.episode is not None
    assert told.split("\n")[1].startswith(f"misdriven ep-0001 ({shown.episode.diagnosis}")


def test_other_kinds_running_runs_and_the_own_run_are_left_out(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    bench, _ = sick(runs, "own")
    run = PlaneRun(bench.plane, "agent:x")
    shown = build_window(run, run.episodes()[0])
    still, _ = sick(runs, "still-going")
    (runs / "spiked").mkdir()
    spiked = Bench(OPEN, runs / "spiked" / "journal.sqlite")
    spiked.rows(60)
    over(spiked, loss=9.0)
    told = similar_episodes(runs, shown)
    assert told == ("0 episodes of kind schedule_fault in 1 ended runs; 1 more have not ended")
    for open_one in (bench, still):
        open_one.plane.close()


def test_what_cannot_be_read_is_skipped_and_counted_aloud(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    treated(runs, "good", after=2.0)
    for name, content in (("torn", b"SQLite format 3\x00" + b"\xff" * 4000), ("text", b"hello")):
        (runs / name).mkdir()
        (runs / name / "journal.sqlite").write_bytes(content)
    (runs / "odd").mkdir()
    with Journal.create(str(runs / "odd" / "journal.sqlite"), run_id="o", name="odd") as journal:
        journal.append(
            "episode", step=1, branch="main", actor="system", body={"episode": 3}, time=0
        )
        journal.append("run_ended", step=1, branch="main", actor="system", body={}, time=0)
    (runs / "notes.txt").write_text("not a run")
    (runs / "empty").mkdir()
    os.mkfifo(runs / "empty" / "journal.sqlite")
    told = similar_episodes(runs, question(tmp_path)).split("\n")
    assert told[0] == (
        "1 episodes of kind schedule_fault in 1 ended runs; 3 more could not be read"
    )
    assert told[1].startswith("good ")
    assert similar_episodes(tmp_path / "nowhere", question(tmp_path / "b")) == (
        "the folder of earlier runs cannot be read"
    )


def test_only_the_newest_runs_are_opened(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    bench, _ = sick(runs, "old")
    over(bench, lr=0.0)
    os.utime(runs / "old" / "journal.sqlite", (1, 1))
    for number in range(NEWEST_RUNS):
        folder = runs / f"new-{number}"
        folder.mkdir()
        with Journal.create(str(folder / "journal.sqlite"), run_id=f"{number}", name="n") as made:
            made.append_rows([Row(1, {"loss": 2.0, "lr": PLAN})])
            made.append("run_ended", step=1, branch="main", actor="system", body=END, time=0)
    told = similar_episodes(runs, question(tmp_path))
    assert told == f"0 episodes of kind schedule_fault in {NEWEST_RUNS} ended runs"


@pytest.mark.parametrize("attack", ATTACKS[:12])
def test_names_of_runs_are_evidence_and_stay_on_their_line(tmp_path: Path, attack: str) -> None:
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    Journal.create(str(folder / "journal.sqlite"), run_id="r", name=attack).close()
    bench = Bench(OPEN, folder / "journal.sqlite")
    bench.rows(40)
    episode = bench.break_schedule()
    bench.propose(ScaleLR(factor=0.5), episode=episode, rationale=attack, actor=f"agent:{attack}")
    over(bench, lr=0.0)
    told = similar_episodes(tmp_path / "runs", question(tmp_path))
    assert told.count("\n") == 1
    assert "scale_lr factor=0.5" in told
    assert not any(sign in told for sign in ("<", ">", "\x1b", "\u202e", "[INST]"))


def test_reading_earlier_runs_changes_none_of_their_files(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    treated(runs, "helped", after=2.0)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in runs.rglob("*") if p.is_file()}
    similar_episodes(runs, question(tmp_path))
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in runs.rglob("*") if p.is_file()}
    assert {path: after[path] for path in before} == before


# --- offered to the model -------------------------------------------------------------------------


def test_a_model_that_looks_is_answered_in_a_fence_and_cannot_cite_it(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    treated(runs, "helped", after=2.0)
    bench, _ = sick(runs, "own")
    run = PlaneRun(bench.plane, "agent:llm")
    cites = {"diagnosis": "misdriven", "rationale": "as then", "expected_effect": "better",
             "evidence": ["loss@250=2"], "change": {"kind": "set_lr", "value": "plan"}}  # fmt: skip
    with FakeLLM([called(("similar", {})), called(("propose", cites)), WAIT]) as llm:
        agent = LLMAgent(settings(llm), run, parse_policy(OPEN), past=runs)
        agent.propose(build_window(run, run.episodes()[0]))
    bench.plane.close()
    looked = llm.requests[1]["messages"][-1]["content"]
    assert looked.startswith("<data-")
    assert "helped ep-0001" in looked
    assert "not shown" in json.dumps(llm.requests[2]["messages"][-1]["content"])


def test_without_a_folder_the_look_up_is_not_offered(tmp_path: Path) -> None:
    with FakeLLM([WAIT]) as llm:
        LLMAgent(settings(llm)).propose(question(tmp_path))
    assert "similar" not in llm.tools()


@pytest.mark.parametrize("stated", [False, True])
def test_a_live_runs_agent_looks_beside_it_unless_told_where(
    tmp_path: Path, stated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    treated(tmp_path / "runs", "beside", after=2.0)
    treated(tmp_path / "archive", "elsewhere", after=2.0)
    bench, _ = sick(tmp_path / "runs", "own")
    tokens = make_tokens()
    server = ControlServer(build_app(bench.plane, tokens))
    folder = tmp_path / "runs" / "own"
    (folder / "run.json").write_text(json.dumps({"url": server.start()}))
    (folder / "tokens.json").write_text(json.dumps({"agent": tokens.agent}))
    if stated:
        monkeypatch.setenv("AUTOPILOT_LLM_PAST", str(tmp_path / "archive"))
    with (
        FakeLLM([called(("similar", {})), WAIT]) as llm,
        connect(str(folder), "agent", "llm") as run,
    ):
        agent = make_agent("llm", Terms("fake-1", llm.url, run, parse_policy(OPEN)))
        agent.propose(build_window(run, run.episodes()[0]))
        replayed = make_agent("llm", Terms("fake-1", llm.url))
        llm.script = [WAIT]
        replayed.propose(build_window(run, run.episodes()[0]))
    server.stop()
    looked = llm.requests[1]["messages"][-1]["content"]
    assert ("elsewhere ep-0001" in looked, "beside ep-0001" in looked) == (stated, not stated)
    assert "similar" not in llm.tools(2)  # a replay would be shown what came after it


def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autopilot.errors import BadInput

    monkeypatch.setenv("AUTOPILOT_LLM_PAST", str(tmp_path / "none"))
    with pytest.raises(BadInput, match=r"AUTOPILOT_LLM_PAST: .*directory"):
        read_settings(model="m")


def test_what_a_person_denied_is_told_where_nothing_was_done(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    bench, episode = sick(runs, "asked", policy='default = "ask"')
    record = bench.propose(Pause(), episode=episode)
    bench.plane.decide(record.id, "deny", actor=KIM, digest=record.digest, reason="no")
    over(bench, lr=0.0)
    assert "): pause: denied; still there" in similar_episodes(runs, question(tmp_path))

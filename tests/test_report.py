"""The morning report, made from run directories that real sessions wrote."""

import io
import json
import math
import time
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from e2e.flying import autopilot, autopilot_json, ended, strict, train, until
from rich.console import Console
from torch.optim import SGD
from trainer.loops import make_batches, make_model, meanwhile

from autopilot.client import connect
from autopilot.policy import (
    ApprovalTerms,
    Budget,
    Cooldown,
    InterventionBudget,
    PerDay,
    Policy,
    Rule,
)
from autopilot.report import Report, make_report, read_account, tell
from autopilot.report.course import Moment, read_rows
from autopilot.report.markdown import to_markdown
from autopilot.report.page import to_html
from autopilot.report.terminal import to_terminal
from autopilot.schema import (
    Canary,
    Consultation,
    NoProposal,
    Pause,
    Proposal,
    Resume,
    Rollback,
    Row,
    ScaleLR,
    SetGradClip,
    SkipBatches,
    Usage,
)
from autopilot_trainer import Session

POLICY = Policy(
    default="ask",
    rules=(
        Rule(name="no batch is left out", kinds=("skip_batches",), verdict="deny"),
        Rule(name="mend it", kinds=("scale_lr", "rollback"), verdict="allow"),
    ),
    cooldown=Cooldown(steps=0, same_episode=0),
    approval=ApprovalTerms(ttl=900.0, on_expiry="nothing"),
    budget=Budget(
        interventions=InterventionBudget(per_1000_steps=99, per_day=99),
        rollbacks=PerDay(per_day=99),
    ),
)
HOSTILE = "<script>alert(1)</script> ![x](http://evil.example) | **b** `c`\n# d \x1b[2J\u202e"


class Flight:
    """A real session whose loss the test decides, an agent, and a person."""

    def __init__(self, folder: Path, policy: Policy = POLICY, **options: Any) -> None:
        model = make_model()
        self._optimizer = SGD(model.parameters(), lr=0.1)
        self.place = str(folder / "run")
        self.session = Session(
            model, self._optimizer, run_dir=self.place, policy=policy, snapshot_every=10, **options
        )
        self.session.__enter__()
        self._batches = self.session.batches(make_batches(), steps=10**6)
        self.agent = connect(self.place, "agent", "tester")
        self.person = connect(self.place, "operator", "kim")
        self._over = False

    def fly(self, steps: int, loss: float) -> None:
        """So many steps, each seen by the control plane before the next."""
        for _ in range(steps):
            next(self._batches)
            self._optimizer.step()
            self.session.report(loss=loss)
            self.agent.rows(last=1)

    def propose(self, *changes: Any, **terms: Any) -> str:
        key = f"key-{len(self.agent.proposals())}"
        return self.agent.propose(Proposal(interventions=changes, **terms), key=key).id

    def deny(self, proposal: str, reason: str) -> None:
        record = self.person.proposal(proposal)
        self.person.decide(proposal, "deny", digest=record.digest, reason=reason)

    def end(self) -> None:
        if not self._over:
            self._over = True
            self.session.__exit__(None, None, None)
            self.agent.close()
            self.person.close()

    def report(self, since: float | None = None) -> Report:
        return make_report(read_account(self.place), since)


@pytest.fixture
def flight(tmp_path: Path) -> Iterator[Flight]:
    flight = Flight(tmp_path)
    yield flight
    flight.end()


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flight]:
    """A run with everything in it: P1 kept, P2 reverted (by P3), P4 gone back, P5-P7 not done."""
    policy = POLICY.model_copy(update={"approval": ApprovalTerms(ttl=1.0, on_expiry="nothing")})
    flight = Flight(tmp_path_factory.mktemp("night"), policy)
    flight.fly(30, loss=2.0)
    flight.propose(ScaleLR(factor=0.5), canary=Canary(steps=10), rationale="too fast")
    flight.fly(14, loss=1.5)
    flight.propose(ScaleLR(factor=0.5), canary=Canary(steps=10, bound=2.5), rationale="faster")
    flight.fly(14, loss=9.0)
    good = next(c.id for c in flight.agent.checkpoints() if c.step == 40)
    flight.propose(Rollback(checkpoint=good), canary=Canary(steps=10))
    flight.fly(12, loss=1.5)
    flight.propose(SkipBatches(count=3), rationale="a bad shard")
    flight.propose(SetGradClip(max_norm=1.0), rationale=HOSTILE)
    flight.deny("P6", "on purpose")
    flight.propose(SetGradClip(max_norm=2.0), rationale="spikes")
    until(lambda: flight.agent.proposal("P7").status == "expired")
    flight.agent.heartbeat(1, consultations=_consultations())
    yield flight
    flight.end()


def _consultations() -> Sequence[Consultation]:
    def asked(model: str, price: float | None) -> Consultation:
        usage = Usage(calls=2, input_tokens=1000, output_tokens=50, price_usd=price)
        return Consultation(
            purpose="diagnose", model=model, host="h", prompt="diagnose@1", prompt_sha="s",
            outcome="proposal", usage=usage,
        )  # fmt: skip

    return (asked("small", 0.01), asked("small", 0.02), asked("own", None))


def test_what_was_done_is_told_with_values_proof_and_effect(night: Flight) -> None:
    report = night.report()
    kept, reverted, undo, back = report.done
    assert [action.record.id for action in report.done] == ["P1", "P2", "P3", "P4"]
    assert (kept.record.status, kept.effect.before, kept.effect.after) == ("kept", 2.0, 1.5)
    assert kept.effect.bound == pytest.approx(2.12)
    assert (reverted.record.status, reverted.effect.after) == ("reverted", 9.0)
    assert undo.record.reverts == "P2"
    assert back.record.status == "kept"
    told = to_markdown(tell(report))
    for words in (
        "lr: 0.1 → 0.05",
        "read back at steps 31, 32: lr = 0.05",
        "kept at step 40: loss 1.5, bound 2.12; within the bound fixed before",
        "loss before 2, after 1.5, bound 2.12",
        "reverted at step 54: loss 9, bound 2.5; worse than the bound fixed before",
        "undoing P2",
    ):
        assert words in told


def test_steps_lost_to_going_back_are_counted(night: Flight) -> None:
    (going,) = night.report().goings
    assert (going.from_step, going.to_step, going.parent) == (58, 40, "main")
    assert going.lost == 18
    assert "18 steps in all." in to_markdown(tell(night.report()))


def test_what_was_wanted_and_not_done_says_why(night: Flight) -> None:
    why = {wish.record.id: wish.why for wish in night.report().wanted}
    assert list(why) == ["P5", "P6", "P7"]
    assert "denied by the policy, no batch is left out:" in why["P5"]
    assert why["P6"] == "denied by human:kim: on purpose"
    assert "nobody answered in time" in why["P7"]
    assert "asked because of" in why["P7"]


def test_a_price_that_nobody_knows_is_said_to_be_unknown(night: Flight) -> None:
    small, own = night.report().cost
    assert (small.questions, small.input_tokens, small.unpriced) == (2, 2000, 0)
    assert small.usd == pytest.approx(0.03)
    assert (own.usd, own.unpriced) == (0.0, 1)
    told = to_markdown(tell(night.report()))
    assert "3 questions, $0.0300 where the price is known; the price of 1 is unknown." in told
    assert "| own | 1 | 2 | 1,000 | 50 | unknown |" in told


def test_the_picture_shows_the_run_as_it_went(night: Flight) -> None:
    course = night.report().course
    assert course is not None
    assert [point.low for point in course.points] == [2.0] * 30 + [1.5] * 14 + [9.0] * 14 + [
        1.5
    ] * 12
    assert [(mark.label, mark.point) for mark in course.marks][:2] == [("P1", 29), ("P2", 43)]
    assert course.marks[-1].point == 57
    assert "█" in to_markdown(tell(night.report()))
    page = to_html(tell(night.report()))
    assert page.count("<polyline") == 1
    assert ">P4</text>" in page


def test_only_what_lies_within_the_time_is_told(night: Flight) -> None:
    account = read_account(night.place)
    applied = next(e for e in account.events if e.kind == "applied" and "P4" in str(e.body))
    report = make_report(account, account.read_at - applied.time + 1e-3)
    assert "P1" not in {action.record.id for action in report.done}
    assert report.course is not None
    assert {point.high for point in report.course.points} == {1.5}
    assert report.since == pytest.approx(applied.time - 1e-3, abs=1e-2)
    everything = make_report(account, 10 * 86_400.0)
    assert everything == make_report(account)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.urls: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.urls += [str(v) for k, v in attrs if k in ("href", "src") or k.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_of_the_run_stays_text(night: Flight) -> None:
    document = tell(night.report())
    page, read = to_html(document), _Tags()
    read.feed(page)
    assert not read.tags & {"script", "img", "a", "b", "link", "iframe"}
    assert not read.urls
    assert "<script>alert(1)</script> ![x](http://evil.example)" in read.text
    told = to_markdown(document)
    assert "<script" not in told
    assert r"\!\[x\](http://evil.example) \| \*\*b\*\* \`c\` \# d" in told
    console = Console(width=80, no_color=True, record=True, file=io.StringIO())
    console.print(to_terminal(document))
    shown = console.export_text()
    for text in (page, told, shown):
        assert not set("\x1b\u202e") & set(text)
    assert max(map(len, shown.splitlines())) <= 80


def test_a_calm_run_has_nothing_to_tell_and_says_so(flight: Flight) -> None:
    flight.fly(20, loss=1.0)
    flight.end()
    report = flight.report()
    assert (report.standing, report.waiting) == ("healthy", ())
    assert report.headline == "Healthy: nothing needed doing in 20 steps."
    assert [part.title for part in tell(report).parts] == ["State"]


def test_a_run_that_was_mended_was_rescued(flight: Flight) -> None:
    flight.fly(30, loss=2.0)
    flight.fly(5, loss=math.nan)
    (episode,) = flight.agent.episodes()
    good = next(c.id for c in flight.agent.checkpoints() if c.step == 20)
    flight.propose(
        Rollback(checkpoint=good), ScaleLR(factor=0.5), episode=episode.id, canary=Canary(steps=10)
    )
    flight.fly(2, loss=1.0)
    assert (
        flight.report().headline == "Rescued: non_finite answered by P1, its canary still watches."
    )
    flight.fly(12, loss=1.0)
    flight.end()
    report = flight.report()
    assert report.standing == "rescued"
    assert report.headline == "Rescued: non_finite answered by P1, loss 2 → 1."
    (sick,) = report.episodes
    assert (sick.remedies, sick.open_question) == (("P1",), False)
    assert "P1 in force" in sick.outcome
    assert "×" in to_markdown(tell(report)), "what was not finite is seen in the picture"
    assert strict(json.dumps(report.model_dump(mode="json")))


def test_what_waits_comes_first_with_the_command_that_settles_it(flight: Flight) -> None:
    flight.fly(20, loss=1.0)
    flight.fly(4, loss=math.nan)
    (episode,) = flight.agent.episodes()
    said = NoProposal(kind="cannot_tell", reason="is the data sound?", episode=episode.id)
    flight.agent.heartbeat(1, no_proposal=said)
    flight.propose(SetGradClip(max_norm=1.0), rationale="to be safe")
    report = flight.report()
    assert report.standing == "needs_you"
    asked, unanswered = report.waiting
    assert "P1 waits for an answer: set_grad_clip max_norm=1" in asked.what
    assert asked.command == f"approve {flight.place} P1"
    assert f"{episode.id} (non_finite, damaged) has no remedy" in unanswered.what
    assert report.headline == f"Needs you: {asked.what} (and 1 more, below)"
    first, *_, questions = tell(report).parts
    assert (first.title, questions.title) == ("Waits for you", "Open questions")
    told = to_markdown(tell(report))
    assert r"the agent's last word (cannot\_tell): is the data sound?" in told
    assert f"`autopilot approve {flight.place} P1`" in told
    flight.end()
    (wish,) = flight.report().wanted
    assert wish.why.startswith("the run ended before anybody answered (asked because of ")
    assert not any("P1" in matter.what for matter in flight.report().waiting)


def test_a_paused_run_needs_its_person(flight: Flight) -> None:
    flight.fly(3, loss=1.0)
    reports: list[Report] = []

    def look() -> None:
        flight.person.command((Pause(),))
        until(lambda: flight.person.info().status == "paused")
        reports.append(flight.report())
        flight.person.command((Resume(),))

    with meanwhile(look):
        flight.fly(300, loss=1.0)
    (matter,) = reports[0].waiting
    assert "the run is paused at step" in matter.what
    assert matter.command == f"do {flight.place} resume"


def test_a_fault_is_told(tmp_path: Path) -> None:
    flight = Flight(tmp_path, snapshot_bytes=10)
    flight.fly(15, loss=1.0)
    flight.end()
    report = flight.report()
    assert report.standing == "needs_you"
    assert "snapshot_bytes" in report.faults[0].text
    assert "Faults" in [part.title for part in tell(report).parts]


def test_a_live_run_is_told_by_its_url_as_by_its_directory(
    flight: Flight, monkeypatch: pytest.MonkeyPatch
) -> None:
    flight.fly(20, loss=1.0)
    time.sleep(1.1)  # a journal is at most a second behind its run
    flight.fly(1, loss=1.0)
    here = flight.report()
    tokens = json.loads((Path(flight.place) / "tokens.json").read_text())
    monkeypatch.setenv("AUTOPILOT_TOKEN", tokens["viewer"])
    there = make_report(read_account(flight.agent.url))
    assert here.state.live
    assert here.state.step == there.state.step == 21
    assert here.state.remaining_seconds is not None
    assert there.course == here.course is not None
    assert there.headline == here.headline == "Healthy: nothing needed doing in 21 steps."


@pytest.mark.parametrize("count", [1, 2, 361, 721, 50_000])
def test_a_long_course_is_thinned_and_no_spike_is_lost(count: int) -> None:
    values = [1.0] * count
    values[count // 3] = 1000.0
    rows = (Row(step, {"loss": v}, time=float(step)) for step, v in enumerate(values, 1))
    moment = Moment("P1", at=count / 2, metric="loss")
    seen = read_rows(rows, (moment,), 0.0)
    assert seen.course is not None
    points = seen.course.points
    assert len(points) <= 360
    assert [point.high for point in points].count(1000.0) == 1
    assert (seen.course.first, seen.course.last) == (values[0], values[-1])
    for mark in seen.course.marks:
        assert points[mark.point].step <= count / 2
        assert mark.point + 1 == len(points) or points[mark.point + 1].step > count / 2


def test_a_run_whose_process_was_killed_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = train(folder, STEPS=100_000, PACE=0.002, FAULT=10**6)
    until(lambda: autopilot_json("status", folder)["run"]["step"] > 20)
    with connect(str(folder), "agent", "rules") as agent:
        asked = agent.propose(Proposal(interventions=(SetGradClip(max_norm=1.0),)), key="1")
    assert asked.status == "pending"
    process.kill()
    ended(process)
    done = autopilot("report", folder)
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    assert "Needs you: the run is gone at step" in words
    assert "no end was journaled" in words
    assert "P1 was not answered before the process was gone" in words


def test_the_command_line_prints_and_writes_every_form(night: Flight, tmp_path: Path) -> None:
    shown = autopilot("report", night.place)
    assert shown.returncode == 0, shown.stderr
    assert "What was done" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert strict(json.dumps(autopilot_json("report", night.place)))["lost"] == 18
    for name, start in (("a.md", "# run, "), ("a.html", "<!doctype html>")):
        written = autopilot("report", night.place, "--since", "8h", "-o", tmp_path / name)
        assert written.returncode == 0, written.stderr
        assert (tmp_path / name).read_text().startswith(start)
        assert str(tmp_path / name) in written.stdout.replace("\n", "")


def test_bad_input_is_one_clear_line(tmp_path: Path, night: Flight) -> None:
    (tmp_path / "empty").mkdir()
    table = tmp_path / "table.csv"
    table.write_text("step,loss\n" + "".join(f"{step},1.0\n" for step in range(1, 30)))
    assert autopilot("import", "csv", table, "-o", tmp_path / "imported").returncode == 0
    (tmp_path / "file").write_text("hello")
    for words, said in (
        ((tmp_path / "none",), "no such directory"),
        ((tmp_path / "empty",), "run.json"),
        ((tmp_path / "file",), "not a directory"),
        ((tmp_path / "imported",), "nobody watched it; `autopilot replay"),
        (("http://127.0.0.1:9",), "set AUTOPILOT_TOKEN"),
        ((night.place, "--since", "yesterday"), "expected a duration such as 8h"),
        ((night.place, "--since", "0s"), "above zero"),
        ((night.place, "-o", tmp_path / "a.pdf"), "ends in .md or .html"),
        ((night.place, "-o", tmp_path / "none" / "a.md"), "cannot be written"),
    ):
        done = autopilot("report", *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr.count("\n") == 1, done.stderr
        assert said in done.stderr, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "empty",
        "file",
        "imported",
        "table.csv",
    ]

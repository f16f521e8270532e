"""Whatever is wrong with what was given: one clear line, exit code 2, and nothing touched."""

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest
from e2e.flying import AUTOPILOT, autopilot, environment

from autopilot.journal import Journal


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file, an empty folder, a run that is dead, a run of a newer version, policies."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "file").write_text("hello\n")
    (folder / "empty").mkdir()
    (folder / "unknown-key.toml").write_text("autonomie = 'act'\n")
    (folder / "wrong-value.toml").write_text("[approval]\nttl = 'soon'\n")
    (folder / "fine.toml").write_text("autonomy = 'observe'\n")
    for name in ("dead", "newer", "damaged"):
        (folder / name).mkdir()
        journal = Journal.create(folder / name / "journal.sqlite", run_id="r", name=name)
        journal.append("run_started", step=0, branch="main", actor="system", body={}, time=0.0)
        journal.close()
        found = {"url": "http://127.0.0.1:9", "name": name}
        (folder / name / "run.json").write_text(json.dumps(found))
        tokens = {"viewer": "v" * 40, "agent": "a" * 40, "operator": "o" * 40}
        (folder / name / "tokens.json").write_text(json.dumps(tokens))
    with sqlite3.connect(folder / "newer" / "journal.sqlite") as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    db.close()
    (folder / "damaged" / "journal.sqlite").write_bytes(b"no database at all" * 100)
    return folder


CASES: list[tuple[str, str]] = [
    # missing, or not what it should be
    ("status {0}/none", "no such directory"),
    ("status {0}/file", "not a directory"),
    ("status {0}/empty", "run.json"),
    ("log {0}/none", "no such run directory"),
    ("log {0}/empty", "holds no journal"),
    ("log {0}/newer", "of version 99, newer than"),
    ("log {0}/damaged", "journal"),
    ("watch {0}/none", "no such directory"),
    ("pending {0}/empty", "run.json"),
    ("approve {0}/none P1", "no such directory"),
    ("deny {0}/none P1", "no such directory"),
    ("undo {0}/none P1", "no such directory"),
    # nobody answers
    ("pending {0}/dead", "no answer from http://127.0.0.1:9"),
    ("watch {0}/dead", "no answer from"),
    ("do {0}/dead pause", "no answer from"),
    ("status http://127.0.0.1:9", "set AUTOPILOT_TOKEN"),
    ("status http://example.com", "AUTOPILOT_TOKEN"),
    # no such name or value
    ("demo --scenario nope", "no such scenario; known: lr-too-high"),
    ("demo --agent gpt", "no such agent; known: rules, observe"),
    ("run --agent gpt -- true", "no such agent"),
    ("watch {0}/dead --agent gpt", "no such agent"),
    ("do {0}/dead fly", "no such intervention; known: scale_lr"),
    ("do {0}/dead scale_lr", "factor: Field required"),
    ("do {0}/dead scale_lr factor=much", "(got 'much')"),
    ("do {0}/dead scale_lr factor=-1", "(got -1)"),
    ("do {0}/dead scale_lr factor=NaN", "factor"),
    ("do {0}/dead scale_lr factor=1 speed=2", "takes factor, groups"),
    ("do {0}/dead scale_lr factor", "expected name=value"),
    ("do {0}/dead set_lr value=fast", "value"),
    ("do {0}/dead pause x=1", "takes no values"),
    # policies
    ("policy check {0}/none", "No such file"),
    ("policy check {0}", "Is a directory"),
    ("policy check {0}/unknown-key.toml", "autonomie: no such key"),
    ("policy check {0}/wrong-value.toml", "approval.ttl: expected a duration"),
    ("policy init {0}/file", "exists already"),
    ("policy init {0}/file/below", "cannot be written"),
    ("run --policy {0}/unknown-key.toml -- true", "autonomie"),
    # places that cannot be written, programs that cannot be started
    ("run --run-dir {0}/file/below -- true", "cannot be written to"),
    ("run --run-dir /proc/run -- true", "cannot be written to"),
    ("run --run-dir {0}/dead -- true", "holds a run already"),
    ("run --run-dir {0}/new -- {0}/none", "cannot be started"),
    ("demo --smoke --folder {0}/file/below", "cannot be written"),
    ("demo --smoke --folder {0}", "is not empty"),
    # how a command is used
    ("fly", "No such command 'fly'"),
    ("status", "Missing argument 'RUN'"),
    ("run", "Missing argument"),
    ("approve {0}/dead", "Missing argument 'ID'"),
    ("status {0}/dead --verbose", "No such option: --verbose"),
    ("demo --seed one", "--seed"),
    ("demo --seed -1", "--seed"),
    ("policy nope", "No such command 'nope'"),
    ("do {0}/dead pause --wait long", "--wait"),
]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those that SQLite keeps beside a journal that is read."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p): p.read_bytes() for p in files if not p.name.endswith(("-shm", "-wal"))}


def check_all(places: Path, cases: list[tuple[str, str]]) -> None:
    before = contents(places)
    for words, said in cases:
        done = autopilot(*words.format(places).split())
        shown = f"autopilot {words}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == 2, shown
        assert done.stdout == "", shown
        assert done.stderr.startswith("autopilot: "), shown
        assert done.stderr.count("\n") == 1, shown
        assert said in done.stderr, shown
    assert contents(places) == before


SHARES = 6


@pytest.mark.parametrize("share", range(SHARES))
def test_bad_input_is_one_clear_line(
    places: Path, share: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    check_all(places, CASES[share::SHARES])
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_bare_command_shows_what_there_is(tmp_path: Path) -> None:
    for words in ((), ("policy",)):
        done = autopilot(*words)
        assert done.returncode == 2
        assert "Usage: autopilot" in done.stdout + done.stderr


def test_version_and_help() -> None:
    assert autopilot("--version").stdout.startswith("autopilot ")
    for words in ((), ("run",), ("do",), ("policy", "check")):
        done = autopilot(*words, "-h")
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_policy_is_written_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    assert autopilot("policy", "init", path).returncode == 0
    done = autopilot("policy", "check", path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["policy"]["autonomy"] == "act"
    rule = "what ends or halts a run needs a person"
    assert found["verdicts"]["stop"] == [{"decision": "ask", "rule": rule, "case": "always"}]
    assert "a valid policy" in " ".join(autopilot("policy", "check", path).stdout.split())


def test_a_reader_that_leaves_early_is_no_error(places: Path) -> None:
    command = [*AUTOPILOT, "log", str(places / "dead"), "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert b"Traceback" not in said


FULL = Path("/dev/full")


def printed_to_a_full_disk(*words: object) -> "subprocess.CompletedProcess[str]":
    if not FULL.exists():
        pytest.skip("no device that is always full")
    command = [*AUTOPILOT, *map(str, words)]
    with FULL.open("wb") as full:
        return subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )


def test_a_full_disk_under_what_is_printed_is_one_clear_line(places: Path) -> None:
    done = printed_to_a_full_disk("log", places / "dead", "--json")
    assert done.returncode == 2
    said = "autopilot: standard output cannot be written: No space left on device\n"
    assert done.stderr == said


def test_an_exit_code_is_passed_on_also_where_nothing_can_be_printed(tmp_path: Path) -> None:
    done = printed_to_a_full_disk("run", "--run-dir", tmp_path / "run", "--", "sh", "-c", "exit 5")
    assert (done.returncode, done.stderr) == (5, "")

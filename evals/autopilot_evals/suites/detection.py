"""How well the run's own detectors find what happened in recorded runs, beside other rules.

What is scored is what flies: :class:`~autopilot.control.observation.Observation`, the detectors and
the triage of a live run, row by row. It has two lines.

- ``autopilot``: an alarm is raised when an episode begins, and when it shows a kind it did not
  show before (a spike becomes a divergence, a loss becomes NaN). The episode may still be
  ``watching``: people are told, and nobody acts. A blip that passes by itself counts as a false
  alarm here.
- ``autopilot, to act``: an alarm is raised when an episode opens and is not benign, or an open one
  turns into another kind: what wakes an agent. Sudden spikes that come back within their ten rows
  are meant not to be found here.

An alarm counts at the row that raised it; the onset that it is dated back to buys nothing.

An agent has a line of its own: its first proposal to act on an episode counts as its alarm.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from autopilot import detectors
from autopilot.control.observation import Observation
from autopilot.recording import Fork
from autopilot.schema import Episode, Row, Usage
from autopilot_evals import baselines
from autopilot_evals.baselines import RULES, AlarmCollector
from autopilot_evals.baselines.reference import ALWAYS, NEVER, RANDOM, always_alarms, random_alarms
from autopilot_evals.corpus import LabelledRun
from autopilot_evals.scoring.detection import KindLine, Line, RunScore, kind_lines, score_line
from autopilot_evals.scoring.matching import Alarm, Found, match
from autopilot_evals.scoring.usage import AgentCard, total
from autopilot_evals.suites.answers import RunAnswers, recording_digest
from autopilot_evals.suites.engines import Engine
from autopilot_evals.suites.results import Origin, Results, digest_of

OURS = "autopilot"
ACTING = "autopilot, to act"
TARGET_RECALL = 0.85
TARGET_PER_1000 = 0.1

Part = Literal["all", "development", "held_out"]


@dataclass(frozen=True)
class RunAlarms:
    """What every rule raised over one run.

    Attributes:
        steps: The step of every row.
        alarms: By the name of the rule.
    """

    run: str
    steps: tuple[int, ...]
    alarms: dict[str, tuple[Alarm, ...]]


@dataclass(frozen=True)
class AgentLines:
    """What one agent said to the corpus.

    Attributes:
        lines: By part of the corpus: its first proposal to act on each episode, as an alarm.
        proposals: How often it proposed anything.
        silences: How often it had nothing to propose, by the kind of no proposal.
        asked: Questions to its models.
        spent: What asking its models took; None where it has none.
    """

    card: AgentCard
    lines: dict[Part, Line]
    proposals: int
    silences: dict[str, int]
    asked: int
    spent: Usage | None


@dataclass(frozen=True)
class DetectionReport:
    """Tables of a detection suite.

    Attributes:
        lines: By part of the corpus, one line a rule, ours first.
        kinds: Ours by the kind of event, over the whole corpus.
        missed: Events that had to be found and were not.
        cried: False alarms of ours.
        agents: What each agent said.
    """

    lines: dict[Part, tuple[Line, ...]]
    kinds: tuple[KindLine, ...]
    missed: tuple[tuple[str, Found], ...]
    cried: tuple[tuple[str, Alarm], ...]
    agents: tuple[AgentLines, ...]


class OwnAlarms:
    """The alarms of the run's own detectors and triage.

    Args:
        forks: Branches of the run, as its recording tells them.

    Attributes:
        raised: By episodes that began or showed a new kind.
        acting: By episodes on which an agent is asked to act.

    >>> ours = OwnAlarms()
    >>> for step, loss in enumerate((2.0, float("nan"))):
    ...     ours.read(Row(step, {"loss": loss}))
    >>> ours.raised == ours.acting == [Alarm(row=1, step=1, kind="non_finite")]
    True
    """

    def __init__(self, forks: Iterable[Fork] = ()) -> None:
        self.raised: list[Alarm] = []
        self.acting: list[Alarm] = []
        self._observation = Observation()
        self._forks = {fork.name: fork for fork in forks}
        self._row = -1
        self._kinds: dict[str, set[str]] = {}
        self._open: dict[str, str] = {}

    def read(self, row: Row) -> None:
        """Show the detectors a row."""
        self._row += 1
        fork = self._forks.get(row.branch) if row.branch != self._observation.branch else None
        if fork is not None:
            self._observation.start_branch(fork.name, fork.parent, fork.fork_step)
        sighting = self._observation.read(row)
        if sighting is None:
            return
        for finding in sighting.findings:
            if finding.episode is not None and finding.tier != "watch":
                self._hear(finding.episode, finding.kind, row.step)
        for episode in sighting.episodes:
            self._consider(episode, row.step)

    def _hear(self, episode: str, kind: str, step: int) -> None:
        kinds = self._kinds.setdefault(episode, set())
        if kind not in kinds:
            kinds.add(kind)
            self.raised.append(Alarm(self._row, step, kind))

    def _consider(self, episode: Episode, step: int) -> None:
        called = episode.status == "open" and (episode.alarm or episode.invariant_broken)
        if not called or episode.diagnosis == "benign":
            self._open.pop(episode.id, None)
        elif self._open.get(episode.id) != episode.kind:
            self._open[episode.id] = episode.kind
            self.acting.append(Alarm(self._row, step, episode.kind))


def read_alarms(run: LabelledRun) -> RunAlarms:
    """One pass over a recording, through our detectors and every rule of others at once."""
    recorded = run.open()
    ours = OwnAlarms(recorded.forks)
    others = {name: AlarmCollector(make().update) for name, make in RULES.items()}
    steps = []
    for row in recorded.rows():
        steps.append(row.step)
        ours.read(row)
        for other in others.values():
            other.read(row)
    alarms = {OURS: tuple(ours.raised), ACTING: tuple(ours.acting)}
    alarms |= {name: tuple(other.alarms) for name, other in others.items()}
    return RunAlarms(run.name, tuple(steps), alarms)


def read_all(corpus: Sequence[LabelledRun], results: Results, engine: Engine) -> list[RunAlarms]:
    """``read_alarms`` of every run, in order.

    What ``results`` holds from before is not read again, unless the recording or one of the rules
    has changed since.
    """
    rules = _rules_digest()
    keys = {f"detection:{run.name}:{recording_digest(run)}:{rules}": run for run in corpus}
    left = {key: run for key, run in keys.items() if results.find(key) is None}
    for key, read in engine.each(read_alarms, left):
        results.add(key, {"steps": read.steps, "alarms": _plain(read)}, Origin())
    return [_revived(run.name, results.find(key)) for key, run in keys.items()]


def _plain(read: RunAlarms) -> dict[str, list[list[object]]]:
    return {
        rule: [[alarm.row, alarm.step, alarm.kind] for alarm in alarms]
        for rule, alarms in read.alarms.items()
    }


def _revived(run: str, known: Any) -> RunAlarms:
    alarms = {rule: tuple(Alarm(*one) for one in ones) for rule, ones in known["alarms"].items()}
    return RunAlarms(run, tuple(known["steps"]), alarms)


def _rules_digest() -> str:
    """Of the code that raises alarms: results of other code are not ours."""
    core, rules = Path(detectors.__file__).parent, Path(baselines.__file__).parent
    return digest_of(
        [
            *sorted(core.glob("*.py")),
            *sorted(rules.glob("*.py")),
            *(core.parent / name for name in ("triage.py", "diagnosis.py")),
            Path(__file__),
        ]
    )


def report(
    corpus: Sequence[LabelledRun],
    read: Sequence[RunAlarms],
    *,
    seeds: int,
    agents: Sequence[tuple[AgentCard, Sequence[RunAnswers]]] = (),
) -> DetectionReport:
    """Score what was raised, and what agents said.

    Args:
        corpus: The labelled runs.
        read: What was raised over each of them, in the same order.
        seeds: Times that random alarms are drawn.
        agents: Each with what it said to every run, in the same order.
    """
    pairs = list(zip(corpus, read, strict=True))
    ours = [_score(run, seen, seen.alarms[OURS]) for run, seen in pairs]
    return DetectionReport(
        lines={part: _lines(chosen, seeds) for part, chosen in _parts(pairs).items()},
        kinds=tuple(kind_lines(OURS, ours)),
        missed=tuple(
            (score.run, one) for score in ours for one in score.matching.found if one.alarm is None
        ),
        cried=tuple((score.run, alarm) for score in ours for alarm in score.matching.false),
        agents=tuple(_agent_lines(card, answers, pairs) for card, answers in agents),
    )


_Pair = tuple[LabelledRun, RunAlarms]


def _parts(pairs: Sequence[_Pair]) -> dict[Part, list[_Pair]]:
    """The parts of a corpus that hold anything."""
    parts: dict[Part, list[_Pair]] = {
        "all": list(pairs),
        "development": [pair for pair in pairs if pair[0].split == "development"],
        "held_out": [pair for pair in pairs if pair[0].split == "held_out"],
    }
    return {part: chosen for part, chosen in parts.items() if chosen}


def _agent_lines(
    card: AgentCard, answers: Sequence[RunAnswers], pairs: Sequence[_Pair]
) -> AgentLines:
    said = {one.run: one for one in answers}
    consultations = [asked for one in answers for asked in one.consultations]
    silences: Counter[str] = Counter()
    for one in answers:
        silences.update(one.silences)
    return AgentLines(
        card=card,
        lines={
            part: score_line(
                card.name, [_score(run, seen, said[run.name].alarms()) for run, seen in chosen]
            )
            for part, chosen in _parts(pairs).items()
        },
        proposals=sum(len(one.said) for one in answers),
        silences=dict(sorted(silences.items())),
        asked=len(consultations),
        spent=total(one.usage for one in consultations),
    )


def _score(run: LabelledRun, seen: RunAlarms, alarms: Sequence[Alarm]) -> RunScore:
    return RunScore(run.name, match(seen.steps, run.labels.episodes, alarms))


def _lines(pairs: Sequence[_Pair], seeds: int) -> tuple[Line, ...]:
    rows = sum(len(seen.steps) for _, seen in pairs)
    rate = sum(len(seen.alarms[OURS]) for _, seen in pairs) / rows if rows else 0.0
    drawn = [
        _score(run, seen, random_alarms(seen.steps, rate, f"{seed}:{run.name}"))
        for seed in range(seeds)
        for run, seen in pairs
    ]
    return (
        *(
            score_line(name, [_score(run, seen, seen.alarms[name]) for run, seen in pairs])
            for name in (OURS, ACTING, *RULES)
        ),
        score_line(RANDOM, drawn, repeats=seeds),
        score_line(ALWAYS, [_score(run, seen, always_alarms(seen.steps)) for run, seen in pairs]),
        score_line(NEVER, [_score(run, seen, ()) for run, seen in pairs]),
    )


def verdict(line: Line) -> bool:
    """Whether a rule reaches the target: enough found, and next to no false alarm."""
    return line.recall >= TARGET_RECALL and line.per_1000_steps <= TARGET_PER_1000


def is_ahead(lines: Sequence[Line]) -> bool:
    """Whether no rule of others finds as much as the first line without more false alarms."""
    ours = lines[0]
    return all(
        line.recall < ours.recall or line.per_1000_rows > ours.per_1000_rows
        for line in lines
        if line.rule not in (OURS, ACTING)
    )


def as_json(found: DetectionReport) -> dict[str, object]:
    """The report as plain values."""
    whole = found.lines["all"][0]
    return {
        "suite": "detection",
        "target": {
            "recall": TARGET_RECALL,
            "false_alarms_per_1000_healthy_steps": TARGET_PER_1000,
            "reached": verdict(whole),
            "ahead_of_every_rule": is_ahead(found.lines["all"]),
        },
        "lines": {part: [asdict(line) for line in lines] for part, lines in found.lines.items()},
        "kinds": [asdict(line) for line in found.kinds],
        "missed": [
            {"run": run, "kind": one.event.kind, "onset": one.event.onset, "note": one.event.note}
            for run, one in found.missed
        ],
        "false_alarms": [
            {"run": run, "step": alarm.step, "kind": alarm.kind} for run, alarm in found.cried
        ],
        "agents": [
            {
                **asdict(one.card),
                "lines": {part: asdict(line) for part, line in one.lines.items()},
                "proposals": one.proposals,
                "no_proposals": one.silences,
                "asked": one.asked,
                "spent": None if one.spent is None else one.spent.model_dump(),
            }
            for one in found.agents
        ],
    }

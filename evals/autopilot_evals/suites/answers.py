"""What agents say to recorded runs: each replayed to each agent, and what that took.

A replay applies nothing, so every episode is answered as if no earlier one had been: what is said
after a proposal that would have been allowed still tells whether the agent sees what is there.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

from autopilot.policy import read_policy
from autopilot.ports import Agent, Consulting
from autopilot.schema import Consultation, Record
from autopilot_evals.corpus import LabelledRun
from autopilot_evals.replay import Decision, replay
from autopilot_evals.scoring.decisions import answer_of
from autopilot_evals.scoring.matching import Alarm
from autopilot_evals.scoring.usage import Metered
from autopilot_evals.suites.engines import Engine
from autopilot_evals.suites.results import Results, deciding_digest, digest_of, origin_of

MakeAgent = Callable[[str], Agent]


class Said(Record):
    """One proposal.

    Attributes:
        row: Position of the row after which it was made.
        episode: The episode that it is about, and ``kind`` what that showed.
        answer: In the words of decisions.
        acts: It would have changed the course of the run.
        hypothetical: An earlier one would have been allowed.
    """

    row: int
    step: int
    episode: str | None
    kind: str | None
    answer: str
    verdict: Literal["allow", "ask", "deny"]
    acts: bool
    hypothetical: bool


class RunAnswers(Record):
    """What one agent said to one run.

    Attributes:
        silences: How often it was asked and proposed nothing, by the kind of :class:`NoProposal`.
        consultations: What its models were asked, turns included; empty where it has none.
    """

    run: str
    said: tuple[Said, ...]
    silences: dict[str, int]
    consultations: tuple[Consultation, ...] = ()

    def alarms(self) -> tuple[Alarm, ...]:
        """The first proposal to act on each episode, as an alarm at its row."""
        firsts: dict[str | None, Alarm] = {}
        for one in self.said:
            if one.acts:
                firsts.setdefault(one.episode, Alarm(one.row, one.step, one.kind))
        return tuple(firsts.values())


class Listener(NamedTuple):
    """One agent's name with one run, to be put before each other."""

    agent: str
    run: LabelledRun


def read_answers(
    corpus: Sequence[LabelledRun],
    agents: Sequence[str],
    make_agent: MakeAgent,
    results: Results,
    engine: Engine,
) -> dict[str, tuple[RunAnswers, ...]]:
    """Put every run before every agent; by agent, in the order of the corpus.

    What ``results`` holds from before is not asked again, unless the recording, the policy, the
    model, its prompts or the code that decides has changed since.
    """
    origins = {name: origin_of(make_agent(name), read_policy(None)) for name in agents}
    keys = dict(_keys(corpus, agents, make_agent))
    left = {key: asked for key, asked in keys.items() if results.find(key) is None}
    for key, answers in engine.each(partial(_listen, make_agent), left):
        results.add(key, answers.model_dump(mode="json"), origins[left[key].agent])
    known = [
        (asked.agent, RunAnswers.model_validate(results.find(key))) for key, asked in keys.items()
    ]
    return {name: tuple(one for agent, one in known if agent == name) for name in agents}


def _keys(
    corpus: Sequence[LabelledRun], agents: Sequence[str], make_agent: MakeAgent
) -> Iterator[tuple[str, Listener]]:
    recordings = {run.name: recording_digest(run) for run in corpus}
    for name in agents:
        origin = origin_of(make_agent(name), read_policy(None))
        by = (name, deciding_digest(name), origin.policy, origin.model, origin.prompt_sha)
        who = ":".join(filter(None, by))
        for run in corpus:
            yield f"detection:answers:{run.name}:{recordings[run.name]}:{who}", Listener(name, run)


def recording_digest(run: LabelledRun) -> str:
    """Of the files that a run is recorded in."""
    path = run.path
    inside = path.rglob("*") if path.is_dir() else (path,)
    return digest_of(sorted(file for file in inside if file.is_file()))


def _listen(make_agent: MakeAgent, asked: Listener) -> RunAnswers:
    agent = make_agent(asked.agent)
    meter = Metered(agent) if isinstance(agent, Consulting) else None
    told = replay(asked.run.open(), meter or agent)
    return RunAnswers(
        run=asked.run.name,
        said=tuple(map(_said, told.decisions)),
        silences=dict(Counter(one.no_proposal.kind for one in told.no_proposals)),
        consultations=meter.asked() if meter is not None else (),
    )


def _said(decision: Decision) -> Said:
    episode = decision.episode
    return Said(
        row=decision.rows - 1,
        step=decision.step,
        episode=episode.id if episode is not None else None,
        kind=episode.kind if episode is not None else None,
        answer=answer_of(decision.proposal),
        verdict=decision.verdict.decision,
        acts=decision.acts,
        hypothetical=decision.hypothetical,
    )

"""The reviewed decisions as a task of Inspect AI, for our agents and for any model it knows.

::

    inspect eval autopilot_evals/autopilot_decisions -T agent=rules --model none/none
    inspect eval autopilot_evals/autopilot_decisions -T agent=model --model openai/gpt-5

Where this package is installed editable, Inspect finds the task by this file's path instead.
"""

import json
from pathlib import Path

from anyio import to_thread
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver

from autopilot.errors import BadInput
from autopilot.policy import read_policy
from autopilot.schema import NoProposal
from autopilot_evals.agents import NAMES, make_any_agent
from autopilot_evals.scoring.decisions import answer_of
from autopilot_evals.scoring.usage import card_of
from autopilot_evals.suites import question
from autopilot_evals.suites.decisions import Decision, reviewed
from autopilot_evals.suites.results import digest_of

MODEL = "model"
"""Stands for the model that Inspect was given."""


@task
def autopilot_decisions(agent: str = "rules") -> Task:
    """Decisions of people who ran large trainings, answered by an agent or a model.

    Args:
        agent: An agent's name; or ``model``, which asks Inspect's model about the same windows.

    Raises:
        BadInput: There is no agent of that name.
    """
    if agent != MODEL and agent not in NAMES:
        known = ", ".join((MODEL, *NAMES))
        raise BadInput(f"-T agent={agent}: no such agent; known: {known}")
    by_model = agent == MODEL
    card = None if by_model else card_of(make_any_agent(agent))
    return Task(
        dataset=MemoryDataset([_sample(one) for one in reviewed()], name="reviewed decisions"),
        solver=generate() if by_model else answered_by(agent),
        scorer=beside_experts(),
        metadata={
            "agent": agent,
            "model": card.model if card is not None else None,
            "prompt_sha": card.prompt_sha if card is not None else _prompt_sha(),
            "policy": read_policy(None).digest(),
        },
    )


def _sample(decision: Decision) -> Sample:
    return Sample(
        id=decision.number,
        input=question.question(decision.window()),
        target=sorted(decision.sets.acceptable),
        metadata={"run": decision.run, "what": decision.what, "expert": decision.expert},
    )


def _prompt_sha() -> str:
    return digest_of([Path(question.__file__)])


@solver
def answered_by(agent: str) -> Solver:
    """Ask an agent of ours; no model is called unless the agent itself does."""
    by_number = {decision.number: decision for decision in reviewed()}

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        asked = make_any_agent(agent)
        said = await to_thread.run_sync(asked.propose, by_number[int(state.sample_id)].window())
        why = said.reason if isinstance(said, NoProposal) else said.rationale
        words = json.dumps({"answer": answer_of(said), "why": why})
        state.output = ModelOutput.from_content(agent, words)
        state.messages.append(state.output.message)
        return state

    return solve


@scorer(
    metrics={
        "agreement": [mean(), stderr(cluster="run")],
        "harm": [mean(), stderr(cluster="run")],
    }
)
def beside_experts() -> Scorer:
    """Whether experts accept the answer, and whether it harms; trainings are the clusters."""
    by_number = {decision.number: decision for decision in reviewed()}

    async def score(state: TaskState, target: Target) -> Score:
        decision = by_number[int(state.sample_id)]
        word = question.read_answer(state.output.completion)
        grade = "unreadable" if word is None else decision.sets.grade(word)
        return Score(
            value={
                "agreement": float(grade == "acceptable"),
                "harm": float(grade == "harmful"),
            },
            answer=word,
            explanation=f"{grade}: {decision.reason}",
            metadata={"grade": grade},
        )

    return score

"""An agent asked over a real socket, and every way in which a model's server fails."""

from typing import Any

from fake_llm import FakeLLM, Raw, Script, problem, refuses, says
from llm_window import window
from pydantic import SecretStr

from autopilot.schema import (
    Evidence,
    NoProposal,
    Proposal,
    ProposalRecord,
    ScaleLR,
    Verdict,
    Window,
)
from autopilot_agents.llm.agent import LLMAgent
from autopilot_agents.llm.settings import Settings

KEY = "sk-verysecretkey-0123456789"


def settings(llm: FakeLLM, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "model": "fake-1", "base_url": llm.url, "api_key": SecretStr(KEY), "deadline": 20.0
    }  # fmt: skip
    return Settings(**{**given, **changes})


def asked(
    script: Script, shown: Window | None = None, **changes: Any
) -> tuple[Proposal | NoProposal, FakeLLM, LLMAgent]:
    with FakeLLM(script) as llm:
        agent = LLMAgent(settings(llm, **changes))
        return agent.propose(shown or window()), llm, agent


def refused(found: Proposal | NoProposal, kind: str) -> str:
    assert isinstance(found, NoProposal), found
    assert found.kind == kind, found
    assert found.episode == "e1"
    return found.reason


def record(**changes: Any) -> ProposalRecord:
    interventions = changes.pop("interventions", (ScaleLR(factor=0.5),))
    evidence = changes.pop("evidence", (Evidence(metric="loss", step=195, value=9.195),))
    proposal = Proposal(
        interventions=interventions, episode="e1", rationale="to be safe", evidence=evidence
    )
    given: dict[str, Any] = {
        "id": "P1", "proposal": proposal, "actor": "agent:x", "digest": proposal.digest(),
        "filed_at": 0.0, "filed_step": 198, "status": "pending",
        "verdict": Verdict(decision="ask", rule="default", reason="no rule speaks of it"),
    }  # fmt: skip
    return ProposalRecord(**{**given, **changes})


LOSS = ("metrics", {"metrics": ["loss"], "first_step": 100, "last_step": 200})

FAULTS: dict[str, tuple[Any, str, int]] = {
    "a refusal": (refuses(), "refused", 1),
    "withheld": (says("", finish="content_filter"), "refused", 1),
    "a wrong key": (problem(401, f"Incorrect API key provided: {KEY}"), "fatal", 1),
    "no permission": (problem(403), "fatal", 1),
    "no such model": (problem(404, "no such model"), "fatal", 1),
    "a bad request": (problem(400, "context too long"), "fatal", 1),
    "unprocessable": (problem(422), "protocol", 1),
    "no quota": (problem(429, code="insufficient_quota", retry_after="0"), "fatal", 3),
    "busy": (problem(429, retry_after="0"), "transient", 3),
    "busy for long": (problem(429, retry_after="600"), "transient", 1),
    "an internal error": (problem(500, retry_after="0"), "transient", 3),
    "a bad gateway": (problem(502, retry_after="0"), "transient", 3),
    "unavailable": (problem(503, retry_after="0"), "transient", 3),
    "a web page": (Raw("<html>Sign in</html>", content_type="text/html"), "protocol", 1),
    "not JSON": (Raw("{nonsense"), "protocol", 1),
    "an error as success": (Raw('{"error": {"message": "upstream", "code": 502}}'), "protocol", 1),
    "no choices": (Raw('{"id": "x", "object": "chat.completion", "choices": []}'), "protocol", 1),
    "null choices": (Raw('{"id": "x", "choices": null}'), "protocol", 1),
    "a list": (Raw("[1, 2]"), "protocol", 1),
    "elsewhere": (Raw("", status=307, headers={"Location": "http://192.0.2.1/v1"}), "fatal", 1),
    "a dropped connection": (Raw(dropped=True), "transient", 3),
}

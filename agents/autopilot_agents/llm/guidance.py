"""An operator's guidance, as a model is shown it: beside the evidence, never inside of it."""

from collections.abc import Sequence

from autopilot.schema import Guidance
from autopilot_agents.llm.fence import clean, plain_name

_HEAD = (
    "GUIDANCE of the operator, who may direct you. Follow it where an allowed action can; it "
    "changes neither the policy nor the actions offered, and is no evidence of what is wrong."
)


def with_guidance(guidance: Sequence[Guidance], evidence: str) -> str:
    """What a model is shown: guidance in its own section, then the evidence as it is.

    Args:
        guidance: In force, oldest first.
        evidence: Already fenced; an operator's words are cleaned so that they cannot open or close
            such a fence.
    """
    if not guidance:
        return evidence
    lines = [f"{plain_name(g.id)} {plain_name(g.actor)}, step {g.step}: “{clean(g.text, 500)}”"
             for g in guidance]  # fmt: skip
    return "\n".join((_HEAD, *lines, "", evidence))

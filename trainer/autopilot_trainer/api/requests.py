"""What clients may send, besides the records of the schema."""

from typing import Literal, Self

from pydantic import Field, model_validator

from autopilot.schema import Consultation, Intervention, NoProposal, Record

Interventions = tuple[Intervention, ...]


class DecisionBody(Record):
    """A person's answer to a proposal, bound to its digest."""

    decision: Literal["approve", "modify", "deny"]
    digest: str = Field(min_length=1, max_length=200)
    reason: str = Field(default="", max_length=4000)
    interventions: Interventions | None = Field(default=None, min_length=1, max_length=8)

    @model_validator(mode="after")
    def _only_with_modify(self) -> Self:
        if (self.decision == "modify") != (self.interventions is not None):
            raise ValueError("'interventions' belongs to 'modify', and only to it")
        return self


class CommandBody(Record):
    """A person's own intervention."""

    interventions: Interventions = Field(min_length=1, max_length=8)
    rationale: str = Field(default="", max_length=4000)
    force: bool = False


class HeartbeatBody(Record):
    """A pilot lives and has looked at everything up to an event."""

    seen_seq: int = Field(ge=0)
    no_proposal: NoProposal | None = None
    consultations: tuple[Consultation, ...] = Field(default=(), max_length=16)


class GuidanceBody(Record):
    """What an operator tells the agents; the run bounds its length."""

    text: str

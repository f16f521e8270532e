"""Tokens of one decision of a language model, by section: prints JSON.

Every recording of a corpus is replayed, and every window that an agent would be asked about is
measured; the largest window of each of the three recordings with the largest ones is told. The
decision is the longest that is permitted: a model that looks things up as long as it is let, all at
once or one by one, or answers in prose from the first turn on, with results as long as they may be.
It goes through the agent itself, with replies made up here in place of a server's.

Tokens are those of the estimate that the bounds are held by (``autopilot_agents.llm.tokens``), or
of an encoding of tiktoken, whose vocabulary must be at hand or reachable (TIKTOKEN_CACHE_DIR).

Run: ``python benchmarks/llm_tokens.py [--corpus PATH] [--encoding o200k_base]``
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autopilot.errors import AutopilotError
from autopilot.policy import read_policy
from autopilot.schema import NoProposal, Window
from autopilot.schema.consultations import LookedUp, ModelReply, ToolCall
from autopilot_agents.llm.agent import LLMAgent
from autopilot_agents.llm.fence import fence
from autopilot_agents.llm.settings import Settings
from autopilot_agents.llm.tape import AnsweringTape
from autopilot_agents.llm.tokens import bound_tokens
from autopilot_agents.llm.view import window_sections, window_text
from autopilot_evals.corpus import own_corpus, read_corpus
from autopilot_evals.replay import replay

Count = Callable[[str], int]
POLICY = read_policy(None)
LARGEST = 3
_LOOKUP = '{"metrics": ["loss"], "first_step": 0, "last_step": 999999}'


@dataclass
class Keeps:
    """Proposes nothing, and keeps the largest window that it was shown."""

    name = "keeps"
    largest: Window | None = None
    tokens: int = 0
    windows: int = 0

    def propose(self, window: Window) -> NoProposal:
        self.windows += 1
        tokens = bound_tokens(window_text(window, POLICY))
        if tokens > self.tokens:
            self.largest, self.tokens = window, tokens
        return NoProposal(kind="cannot_tell", reason=f"window {self.windows}")


@dataclass
class LongWinded(AnsweringTape):
    """A model that never comes to an answer.

    Args:
        at_once: Look-ups that it asks for in a turn; none is prose.
    """

    at_once: int = 0
    requests: list[dict[str, str]] = field(default_factory=list)

    def ask(self, parts: Mapping[str, str]) -> None:
        super().ask(parts)
        self.requests.append(dict(parts))

    def next_reply(self) -> ModelReply:
        lookups = '"metrics"' in self.requests[-1]["tools"]
        calls = tuple(
            ToolCall(id=f"call_{i}", name="metrics", arguments=_LOOKUP)
            for i in range(self.at_once if lookups else 0)
        )
        return ModelReply(content="" if calls else "I would rather tell a story.", calls=calls)

    def recall(self, name: str, arguments: str) -> LookedUp:
        return LookedUp(name=name, arguments=arguments, text="\n".join(["123,4.567,8.9"] * 400))


def decision(window: Window, at_once: int) -> LongWinded:
    """Every request of the longest decision about a window."""
    tape = LongWinded(at_once=at_once)
    terms = Settings(model="m", base_url="http://127.0.0.1:9/v1", price_in=0, price_out=0)
    LLMAgent(terms, policy=POLICY, played=tape).propose(window)
    return tape


def text_of(request: Mapping[str, str]) -> str:
    """A request as it is counted: line breaks as they are sent to a model."""
    return "\n".join(request.values()).replace("\\n", "\n")


def sections(window: Window, first: Mapping[str, str], count: Count) -> dict[str, int]:
    """Tokens of the first request by section."""
    found = {"system prompt": count(first["system"])}
    kinds: dict[str, list[str]] = {}
    for tool in json.loads(first["tools"]):
        kind = tool["name"] if tool["name"] in ("propose", "wait") else "look-ups"
        kinds.setdefault(kind, []).append(json.dumps(tool, separators=(",", ":")))
    found |= {f"tools: {kind}": count("\n".join(tools)) for kind, tools in kinds.items()}
    shown = window_sections(window, POLICY)
    found |= {name: count(section) for name, section in shown.items()}
    found["fence"] = count(fence("\n\n".join(shown.values()))) - count("\n\n".join(shown.values()))
    found["framing"] = count(text_of(first)) - sum(found.values())
    return found


def measured(recording: str, window: Window, count: Count) -> dict[str, object]:
    """What is told of one window."""
    taped = [decision(window, at_once) for at_once in (0, 1, 5)]
    longest = max(taped, key=lambda tape: sum(count(text_of(one)) for one in tape.requests))
    each = [count(text_of(one)) for one in longest.requests]
    return {
        "recording": recording,
        "step": window.run.step,
        "sections": sections(window, longest.requests[0], count),
        "first_request": each[0],
        "longest_decision": {"requests": each, "lookups": len(longest.looked_up), "all": sum(each)},
    }


def largest_windows(corpus: Path) -> tuple[list[tuple[str, Window]], dict[str, int]]:
    """The largest window of each recording, the three largest of them, and what was looked at."""
    kept: list[tuple[int, str, Window]] = []
    looked = {"recordings": 0, "windows": 0}
    for labelled in read_corpus(corpus):
        agent = Keeps()
        replay(labelled.open(), agent, POLICY)
        looked["recordings"] += 1
        looked["windows"] += agent.windows
        if agent.largest is not None:
            kept.append((agent.tokens, labelled.name, agent.largest))
    kept.sort(key=lambda one: one[0], reverse=True)
    return [(name, window) for _, name, window in kept[:LARGEST]], looked


def counted_by(encoding: str | None) -> Count:
    if encoding is None:
        return bound_tokens
    import tiktoken

    known = tiktoken.get_encoding(encoding)
    return lambda text: len(known.encode(text, disallowed_special=()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=own_corpus())
    parser.add_argument("--encoding", help="of tiktoken, as o200k_base; else the estimate")
    arguments = parser.parse_args()
    try:
        windows, looked = largest_windows(arguments.corpus)
    except AutopilotError as error:
        sys.exit(f"{error}")
    count = counted_by(arguments.encoding)
    told = [measured(name, window, count) for name, window in windows]
    result = {"tokens_by": arguments.encoding or "estimate", **looked, "largest": told}
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()

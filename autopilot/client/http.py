"""The client itself."""

import json
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import TypeAdapter
from pydantic_core import to_json
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from autopilot.client.address import endpoint
from autopilot.client.answers import read_as, refusal, why
from autopilot.client.trust import trusted
from autopilot.errors import BadInput, NotARun, Unreachable
from autopilot.schema import (
    CheckpointInfo,
    Consultation,
    Episode,
    Event,
    Finding,
    Guidance,
    Intervention,
    NoProposal,
    Number,
    Proposal,
    ProposalRecord,
    Row,
    RunInfo,
)

_T = TypeVar("_T")

_infos = TypeAdapter(RunInfo)
_events = TypeAdapter(list[Event])
_episodes = TypeAdapter(list[Episode])
_findings = TypeAdapter(list[Finding])
_finding = TypeAdapter(Finding)
_checkpoints = TypeAdapter(list[CheckpointInfo])
_records = TypeAdapter(list[ProposalRecord])
_record = TypeAdapter(ProposalRecord)
_guidance = TypeAdapter(Guidance)
_numbers = TypeAdapter(dict[str, Number])
_curves = TypeAdapter(dict[str, list[tuple[int, Number]]])


class HttpRun:
    """A live run behind its control API.

    Connection faults are tried again a few times; what changes the run carries an idempotency key,
    so that a repetition changes nothing more. Refusals come back as the errors they were raised as.

    Args:
        url: Where the control API listens.
        token: Of the role to act in.
        name: What the journal shall call this client.
        attempts: How often a request is sent before the run counts as unreachable.
        timeout: Seconds to wait for an answer.
        transport: Instead of the network.
        folder: The run's directory, where it was found by that.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        name: str = "unnamed",
        attempts: int = 4,
        timeout: float = 10.0,
        transport: httpx2.BaseTransport | None = None,
        folder: Path | None = None,
    ) -> None:
        base, socket = endpoint(url)
        self.url = url.rstrip("/")
        self.folder = folder
        self._attempts = attempts
        self._timeout = timeout
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise BadInput("the token is not one: it holds spaces, line ends or other signs")
        self._http = httpx2.Client(
            base_url=base,
            headers={
                "Authorization": f"Bearer {token}",
                "X-Autopilot-Name": re.sub(r"[^A-Za-z0-9_.@+-]", "", name)[:40] or "unnamed",
            },
            timeout=timeout,
            transport=httpx2.HTTPTransport(uds=socket) if socket else transport,
            verify=trusted(),
            trust_env=False,  # a proxy from the environment has no business on loopback
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def info(self) -> RunInfo:
        return self._get("/v1/run", _infos)

    def rows(self, *, last: int = 512, branch: str | None = None) -> list[Row]:
        """The last rows of a branch and its ancestors (None: the branch in force), in order."""
        found = self._json("GET", "/v1/rows", params=_given(last=last, branch=branch))
        return [Row(**{**row, "values": read_as(_numbers, row["values"])}) for row in found]

    def series(
        self, names: Sequence[str], *, branch: str | None = None, points: int = 512
    ) -> dict[str, list[tuple[int, float]]]:
        """Curves in at most so many points each, extremes kept."""
        params = _given(names=list(names), branch=branch, points=points)
        return read_as(_curves, self._json("GET", "/v1/metrics", params=params)["series"])

    def events(self, after: int, *, wait: float = 0.0) -> list[Event]:
        """Journal events after that sequence number; waits up to ``wait`` seconds for one."""
        params = _given(after=after, wait=min(wait, 60.0))
        return self._get("/v1/journal", _events, params, timeout=self._timeout + wait)

    def episodes(self) -> list[Episode]:
        """Episodes that are not closed."""
        return self._get("/v1/episodes", _episodes)

    def closed(self) -> list[Episode]:
        """Episodes that are over."""
        found = self._get("/v1/episodes", _episodes, {"closed": "true"})
        return [episode for episode in found if episode.status == "closed"]

    def findings(self, episode: str | None = None) -> list[Finding]:
        return self._get("/v1/findings", _findings, _given(episode=episode))

    def checkpoints(self) -> list[CheckpointInfo]:
        return self._get("/v1/checkpoints", _checkpoints)

    def policy_text(self) -> str:
        return self._request("GET", "/v1/policy").text

    def proposals(self, status: str | None = None) -> list[ProposalRecord]:
        return self._get("/v1/proposals", _records, _given(status=status))

    def proposal(self, proposal_id: str) -> ProposalRecord:
        return self._get(f"/v1/proposals/{_part(proposal_id)}", _record)

    def propose(self, proposal: Proposal, *, key: str) -> ProposalRecord:
        """File a proposal; the same key again gives the same answer."""
        return self._post("/v1/proposals", _record, proposal, key=key)

    def decide(
        self,
        proposal_id: str,
        decision: Literal["approve", "modify", "deny"],
        *,
        digest: str,
        reason: str = "",
        interventions: tuple[Intervention, ...] | None = None,
    ) -> ProposalRecord:
        """A person's answer to a proposal that waits for one; bound to its digest."""
        body = {
            "decision": decision,
            "digest": digest,
            "reason": reason,
            "interventions": interventions,
        }
        return self._post(f"/v1/proposals/{_part(proposal_id)}/decision", _record, body)

    def command(
        self,
        interventions: tuple[Intervention, ...],
        *,
        key: str | None = None,
        rationale: str = "",
        force: bool = False,
    ) -> ProposalRecord:
        """A person's own intervention."""
        body = {"interventions": interventions, "rationale": rationale, "force": force}
        return self._post("/v1/commands", _record, body, key=key or secrets.token_hex(16))

    def revert(self, proposal_id: str) -> ProposalRecord:
        """Undo what is in force."""
        return self._post(f"/v1/commands/{_part(proposal_id)}/revert", _record)

    def confirm(self, proposal_id: str) -> ProposalRecord:
        """Keep what is in force."""
        return self._post(f"/v1/commands/{_part(proposal_id)}/confirm", _record)

    def claim(self, finding: Finding) -> Finding:
        """Journal what an outside detector found; it counts as a claim."""
        unset = {"id", "episode", "claimed_by"}
        return self._post("/v1/findings", _finding, finding.model_dump(exclude=unset))

    def tell(self, text: str) -> Guidance:
        """Give whoever pilots an operator's guidance; the same words again change nothing."""
        return self._post("/v1/guidance", _guidance, {"text": text})

    def withdraw(self, guidance_id: str) -> Guidance:
        """Take guidance back."""
        return self._post(f"/v1/guidance/{_part(guidance_id)}/withdraw", _guidance)

    def heartbeat(
        self,
        seen_seq: int,
        no_proposal: NoProposal | None = None,
        consultations: Sequence[Consultation] = (),
    ) -> None:
        """Say that everything up to that event was looked at, and what models were asked."""
        body = {
            "seen_seq": seen_seq,
            "no_proposal": no_proposal,
            "consultations": list(consultations),
        }
        self._request("POST", "/v1/heartbeat", body)

    def reset_breaker(self) -> None:
        """Let proposals be judged by the rules again after failed canaries."""
        self._request("POST", "/v1/breaker/reset")

    def _get(
        self,
        path: str,
        answer: TypeAdapter[_T],
        params: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> _T:
        return read_as(answer, self._json("GET", path, params=params, timeout=timeout))

    def _post(
        self, path: str, answer: TypeAdapter[_T], body: Any = None, *, key: str | None = None
    ) -> _T:
        return read_as(answer, self._json("POST", path, body, key=key))

    def _json(self, method: str, path: str, body: Any = None, **how: Any) -> Any:
        response = self._request(method, path, body, **how)
        try:
            return json.loads(response.content)
        except ValueError as error:
            raise NotARun(f"{self.url} answers, but not as a run does") from error

    def _request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: dict[str, Any] | None = None,
        key: str | None = None,
        timeout: float | None = None,
    ) -> httpx2.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = to_json(body, inf_nan_mode="strings")
        # What may have arrived is sent again only where that changes nothing.
        again = httpx2.TransportError if key or method == "GET" else httpx2.ConnectError
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential(multiplier=0.1, max=2.0) + wait_random(0.0, 0.1),
            retry=retry_if_exception_type(again),
            reraise=True,
        )
        try:
            response = retrying(
                self._http.request,
                method,
                path,
                content=content,
                params=params,
                headers=headers,
                timeout=timeout or self._timeout,
            )
        except httpx2.HTTPError as error:
            raise Unreachable(f"no answer from {self.url}: {why(error)}") from error
        except (UnicodeError, ValueError, httpx2.InvalidURL) as error:
            raise BadInput(f"cannot send this to {self.url}: {error}") from error
        if not response.is_success:
            raise refusal(response, self.url)
        return response


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _part(name: str) -> str:
    return quote(name, safe="")

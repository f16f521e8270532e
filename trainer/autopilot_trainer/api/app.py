"""The routes. What they may do is decided by the gate before them and the plane behind them."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic_core import to_json
from starlette.types import ASGIApp

from autopilot import __version__
from autopilot.errors import BadInput, Forbidden
from autopilot.schema import (
    CheckpointInfo,
    Episode,
    Event,
    Finding,
    Guidance,
    Proposal,
    ProposalRecord,
    ProposalStatus,
    Row,
    RunInfo,
)
from autopilot_trainer.api import problems
from autopilot_trainer.api.document import describe
from autopilot_trainer.api.exposition import exposition
from autopilot_trainer.api.gate import CALLER, Gate
from autopilot_trainer.api.plane import Plane
from autopilot_trainer.api.requests import CommandBody, DecisionBody, GuidanceBody, HeartbeatBody
from autopilot_trainer.api.tail import Tail
from autopilot_trainer.auth import RANKS, Caller, Role, Tokens

MOST = 2**63 - 1
"""The largest number that a journal can count to."""
_STILL_HERE = 15.0
_LONGEST_WAIT = 60.0
_PAGE = 100
_HELPING = 64 * 1024
"""Bytes that a stream hands out at a time: what a client that does not read holds up, in memory."""


def needs(role: Role) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: the caller, who has at least that role."""

    async def check(request: Request) -> Caller:
        found: Caller = request.scope[CALLER]
        if RANKS[found.role] < RANKS[role]:
            raise Forbidden(f"this needs the {role}'s token; the {found.role}'s was given")
        return found

    return check


Viewer = Annotated[Caller, Depends(needs("viewer"))]
Agent = Annotated[Caller, Depends(needs("agent"))]
Operator = Annotated[Caller, Depends(needs("operator"))]
Key = Annotated[str, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
Id = Annotated[str, Path(min_length=1, max_length=200)]
After = Annotated[int, Query(ge=0, le=MOST)]
Branch = Annotated[str | None, Query(max_length=200)]


def answer(value: Any, status: int = 200) -> Response:
    """Records as JSON; what is not finite travels as a string."""
    content = to_json(value, inf_nan_mode="strings")
    return Response(content, status, media_type="application/json")


def build_app(plane: Plane, tokens: Tokens, host: str | None = None) -> FastAPI:
    """The control API of a run.

    Args:
        plane: The run's control plane.
        tokens: One for each role; only ``/healthz`` is open.
        host: Another name than loopback's that clients reach the run by.
    """
    app = FastAPI(
        title="Autopilot control API",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    tail = Tail(plane)
    app.state.tail = tail
    app.state.fault = plane.fault
    app.include_router(_run_routes(plane))
    app.include_router(_journal_routes(plane, tail))
    app.include_router(_proposal_routes(plane))
    app.include_router(_agent_routes(plane))
    app.include_router(_guidance_routes(plane))
    app.include_router(_open_routes(app, plane))
    problems.install(app)
    app.add_middleware(_gate(tokens, plane, host))
    return app


def _gate(tokens: Tokens, plane: Plane, host: str | None) -> Callable[[ASGIApp], Gate]:
    return lambda app: Gate(app, tokens, plane.fault, host)


def _run_routes(plane: Plane) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/run", response_model=RunInfo)
    def run(_: Viewer) -> Response:
        return answer(plane.info())

    @router.get("/metrics")
    def metrics(
        _: Viewer,
        names: Annotated[list[str] | None, Query()] = None,
        from_step: Annotated[int | None, Query(ge=0, le=MOST)] = None,
        branch: Branch = None,
        points: Annotated[int | None, Query(ge=4, le=10_000)] = None,
        last: Annotated[int, Query(ge=1, le=10_000)] = 512,
    ) -> Response:
        wanted = [name for given in names or () for name in given.split(",") if name]
        if points is None:
            rows = plane.rows(last=last, branch=branch, names=wanted or None, from_step=from_step)
            return answer({"rows": _rows(rows)})
        if not wanted:
            raise BadInput("names: a series is drawn of named metrics, none were given")
        found = plane.series(wanted, branch, points)
        first = from_step or 0
        return answer({"series": {n: [p for p in s if p[0] >= first] for n, s in found.items()}})

    @router.get("/rows")
    def rows(
        _: Viewer, last: Annotated[int, Query(ge=1, le=10_000)] = 512, branch: Branch = None
    ) -> Response:
        return answer(_rows(plane.rows(last=last, branch=branch)))

    @router.get("/checkpoints", response_model=list[CheckpointInfo])
    def checkpoints(_: Viewer) -> Response:
        return answer(plane.checkpoints())

    @router.get("/policy", response_class=PlainTextResponse)
    def policy(_: Viewer) -> Response:
        return PlainTextResponse(plane.policy_text())

    @router.get("/episodes", response_model=list[Episode])
    def episodes(_: Viewer, closed: bool = False) -> Response:
        return answer(plane.episodes(closed=closed))

    @router.get("/findings", response_model=list[Finding])
    def findings(
        _: Viewer, episode: Annotated[str | None, Query(max_length=200)] = None
    ) -> Response:
        return answer(plane.findings(episode))

    return router


def _rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [row._asdict() for row in rows]


def _journal_routes(plane: Plane, tail: Tail) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/journal", response_model=list[Event])
    async def journal(
        _: Viewer,
        after: After = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
        wait: Annotated[float, Query(ge=0, le=_LONGEST_WAIT)] = 0.0,
    ) -> Response:
        deadline = time.monotonic() + wait
        while True:
            events = await run_in_threadpool(plane.events, after, limit=limit)
            left = deadline - time.monotonic()
            if events or left <= 0 or tail.closed:
                return answer(events)
            await tail.wait(after, left)

    @router.get("/events")
    async def events(
        _: Viewer,
        after: After = 0,
        last_event_id: Annotated[int | None, Header(ge=0, le=MOST)] = None,
    ) -> Response:
        start = after if last_event_id is None else last_event_id
        return StreamingResponse(
            _stream(plane, tail, start),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return router


async def _stream(plane: Plane, tail: Tail, after: int) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n\n"
    while not tail.closed:
        events = await run_in_threadpool(plane.events, after, limit=_PAGE)
        if events:
            after = events[-1].seq
            helping = bytearray()
            for event in events:
                helping += _server_sent(event)
                if len(helping) >= _HELPING:
                    yield bytes(helping)
                    helping.clear()
            yield bytes(helping)
            continue
        begun = time.monotonic()
        await tail.wait(after, _STILL_HERE)
        if time.monotonic() - begun >= _STILL_HERE:
            yield b": still here\n\n"


def _server_sent(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.seq,
        event.kind.encode(),
        event.model_dump_json().encode(),
    )


def _proposal_routes(plane: Plane) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/proposals", response_model=ProposalRecord, status_code=201)
    def propose(who: Agent, proposal: Proposal, key: Key) -> Response:
        return answer(plane.propose(proposal, actor=who.actor, key=key), 201)

    @router.get("/proposals", response_model=list[ProposalRecord])
    def proposals(_: Viewer, status: ProposalStatus | None = None) -> Response:
        return answer(plane.proposals(status))

    @router.get("/proposals/{id}", response_model=ProposalRecord)
    def proposal(_: Viewer, id: Id) -> Response:
        return answer(plane.proposal(id))

    @router.post("/proposals/{id}/decision", response_model=ProposalRecord)
    def decide(who: Operator, id: Id, body: DecisionBody) -> Response:
        record = plane.decide(
            id,
            body.decision,
            actor=who.actor,
            digest=body.digest,
            reason=body.reason,
            interventions=body.interventions,
        )
        return answer(record)

    @router.post("/commands", response_model=ProposalRecord, status_code=201)
    def command(who: Operator, body: CommandBody, key: Key) -> Response:
        record = plane.command(
            body.interventions,
            actor=who.actor,
            key=key,
            rationale=body.rationale,
            force=body.force,
        )
        return answer(record, 201)

    @router.post("/commands/{id}/revert", response_model=ProposalRecord)
    def revert(who: Agent, id: Id) -> Response:
        return answer(plane.revert(id, actor=who.actor, role=who.role))

    @router.post("/commands/{id}/confirm", response_model=ProposalRecord)
    def confirm(who: Operator, id: Id) -> Response:
        return answer(plane.confirm(id, actor=who.actor))

    return router


def _agent_routes(plane: Plane) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/findings", response_model=Finding, status_code=201)
    def claim(who: Agent, finding: Finding) -> Response:
        for field in ("id", "episode", "claimed_by"):
            if getattr(finding, field) is not None:
                raise BadInput(f"{field}: the run fills this in, it cannot be sent")
        return answer(plane.claim(finding, actor=who.actor), 201)

    @router.post("/heartbeat", status_code=204)
    def heartbeat(who: Agent, body: HeartbeatBody) -> Response:
        plane.heartbeat(
            actor=who.actor,
            seen_seq=body.seen_seq,
            no_proposal=body.no_proposal,
            consultations=body.consultations,
        )
        return Response(status_code=204)

    @router.post("/breaker/reset", status_code=204)
    def reset_breaker(who: Operator) -> Response:
        plane.reset_breaker(actor=who.actor)
        return Response(status_code=204)

    return router


def _guidance_routes(plane: Plane) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.get("/guidance", response_model=list[Guidance])
    def guidance(_: Viewer) -> Response:
        return answer(plane.info().guidance)

    @router.post("/guidance", response_model=Guidance, status_code=201)
    def tell(who: Operator, body: GuidanceBody) -> Response:
        return answer(plane.tell(body.text, actor=who.actor), 201)

    @router.post("/guidance/{id}/withdraw", response_model=Guidance)
    def withdraw(who: Operator, id: Id) -> Response:
        return answer(plane.withdraw(id, actor=who.actor))

    return router


def _open_routes(app: FastAPI, plane: Plane) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    def health() -> Response:
        return answer({"status": "ok"})

    @router.get("/metrics", response_class=PlainTextResponse)
    def prometheus(_: Viewer) -> Response:
        text = exposition(plane.info(), time.time())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/v1/openapi.json", include_in_schema=False)
    def openapi(_: Viewer) -> Response:
        return answer(describe(app))

    return router

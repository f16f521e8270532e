"""Records in words: the same wording in the log, the prompt, the demo and the report."""

import math
import re
from collections.abc import Iterable, Sequence

from autopilot.schema import Consultation, Event, Guidance, Intervention, ProposalRecord, Receipt

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_BARS = "▁▂▃▄▅▆▇█"


def clean(text: str, most: int = 2000) -> str:
    """Text from a run, without control characters that could steer a terminal, and cut."""
    text = _CONTROL.sub("�", text)
    return text if len(text) <= most else text[: most - 1] + "…"


def number(value: object) -> str:
    """A figure with four digits; anything else as it is, if it is anything.

    >>> number(0.123456), number("web"), number(""), number(None)
    ('0.1235', 'web', "''", 'none')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "none" if value is None else clean(str(value), 200) or "''"
    if isinstance(value, int):
        return str(value)
    return f"{value:.4g}"


def intervention_words(intervention: Intervention) -> str:
    """One intervention, as ``kind name=value``."""
    fields = intervention.model_dump(exclude={"kind"})
    parts = [f"{k}={number(v)}" for k, v in fields.items() if v is not None and v != {}]
    if intervention.kind == "rollback" and not fields["skip_batches"]:
        parts = [part for part in parts if not part.startswith("skip_batches")]
    if intervention.kind == "set_grad_clip" and fields["max_norm"] is None:
        parts = ["max_norm=none"]
    return " ".join([intervention.kind, *parts])


def interventions_words(interventions: Iterable[Intervention]) -> str:
    """Several interventions in order."""
    return ", then ".join(intervention_words(i) for i in interventions)


def change_words(receipt: Receipt) -> list[str]:
    """Old and new value of everything a receipt names."""
    return [f"{c.field}: {number(c.old)} → {number(c.new)}" for c in receipt.changes]


def proof_words(receipt: Receipt) -> str:
    """How far a receipt is proven."""
    if receipt.proven is None:
        return "applied, not yet read back"
    if not receipt.proven:
        wrong = next((read for read in receipt.read_back if not read.ok), None)
        if wrong is None:
            return "applied, never read back"
        return f"NOT in force: {wrong.field} read back {number(wrong.value)}"
    if not receipt.read_back:
        return "applied"
    last = receipt.read_back[-1]
    steps = sorted({read.step for read in receipt.read_back})
    return f"read back at steps {', '.join(map(str, steps))}: {last.field} = {number(last.value)}"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """A series as bars; ``×`` where a value is not finite."""
    if not values:
        return ""
    size = len(values) / width if len(values) > width else 1
    shown = [values[min(int(i * size), len(values) - 1)] for i in range(int(len(values) / size))]
    finite = [v for v in shown if math.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    span = (high - low) or 1.0
    return "".join(
        _BARS[min(int((v - low) / span * len(_BARS)), len(_BARS) - 1)] if math.isfinite(v) else "×"
        for v in shown
    )


def event_words(event: Event) -> tuple[str, str] | None:
    """One journal event as (headline, detail); None for what a story leaves out."""
    body, record = event.body, None
    if "record" in body:
        record = ProposalRecord.model_validate(body["record"])
    match event.kind:
        case "run_started":
            return "run started", clean(str(body.get("name", "")))
        case "run_ended":
            return f"run {body.get('status', 'ended')}", clean(str(body.get("reason", "")))
        case "branch":
            return (
                f"branch {body['name']}",
                f"leaves {body['parent']} after step {body['fork_step']}",
            )
        case "finding":
            found = body["finding"]
            claim = f" (claimed by {found['claimed_by']})" if found.get("claimed_by") else ""
            return f"finding {found['kind']}{claim}", f"[{found['tier']}] {clean(found['message'])}"
        case "episode":
            seen = body["episode"]
            headline = f"episode {seen['id']} {seen['status']}: {seen['kind']}, {seen['diagnosis']}"
            # The reason is told when it is new: not again when the treatment works or it is over.
            waits = seen["status"] == "watching" and seen["diagnosis"] == "unknown"
            told = seen["status"] == "open" or waits or seen["diagnosis"] == "benign"
            return headline, clean(seen["reason"]) if told else ""
        case "proposal" | "approval" | "applied" | "rejected" | "receipt" | "canary":
            assert record is not None
            return _record_words(event, record)
        case "no_proposal":
            said = body["no_proposal"]
            return f"no proposal ({said['kind']})", clean(said["reason"])
        case "guidance":
            return _guidance_words(Guidance.model_validate(body["guidance"]))
        case "consultation":
            return _consultation_words(Consultation.model_validate(body["consultation"]))
        case "status":
            if record is not None:
                return f"{record.id} {record.status}", clean(record.reason)
            return f"run {body['status']}", clean(str(body.get("reason", "")))
        case "reflex":
            norm = number(body.get("grad_norm"))
            return f"reflex {event.actor.removeprefix('reflex:')}", f"gradient norm {norm}"
        case "checkpoint":
            return f"checkpoint {body['checkpoint']['id']}", f"{body['checkpoint']['bytes']} bytes"
        case "evaluation":
            values = ", ".join(f"{k} {number(v)}" for k, v in body["values"].items())
            return "evaluation", values
        case "note" | "fault":
            return event.kind, clean(str(body.get("text", "")))
        case "breaker":
            state = "open: proposals ask from now on" if body["open"] else "closed"
            return f"breaker {state}", clean(str(body.get("reason", "")))
        case "heartbeat":
            return "pilot attached", clean(str(body.get("pilot", "")))
        case "heartbeat_lost":
            return "pilot silent", clean(str(body.get("pilot", "")))
        case "rows_sealed" | "capabilities":
            return None


def _guidance_words(said: Guidance) -> tuple[str, str]:
    if said.withdrawn_by is not None:
        return f"guidance {said.id} withdrawn by {said.withdrawn_by}", ""
    return f"guidance {said.id} by {said.actor}", f"“{clean(said.text)}”"


def _consultation_words(asked: Consultation) -> tuple[str, str]:
    usage = asked.usage
    price = "price unknown" if usage.price_usd is None else f"${usage.price_usd:.4f}"
    tokens = f"{usage.input_tokens} tokens in, {usage.output_tokens} out"
    about = f" {asked.proposal}" if asked.proposal else ""
    headline = f"{clean(asked.model, 80)} asked to {asked.purpose}{about}: {asked.outcome}"
    text = f" — {clean(asked.text)}" if asked.text else ""
    return headline, f"{usage.seconds:.1f} s, {tokens}, {price}{text}"


def _record_words(event: Event, record: ProposalRecord) -> tuple[str, str]:
    what = interventions_words(record.proposal.interventions)
    receipt, verdict = record.receipt, record.verdict
    match event.kind:
        case "proposal":
            decided = {"allow": "allowed", "ask": "waits for a person", "deny": "denied"}
            why = f"{decided[verdict.decision]}: {clean(verdict.reason)}"
            rationale = (
                f" — {clean(record.proposal.rationale)}" if record.proposal.rationale else ""
            )
            return f"{record.id} proposed by {record.actor}: {what}", why + rationale
        case "approval":
            assert record.approval is not None
            decided = {"approve": "approved", "modify": "modified and approved", "deny": "denied"}
            word = decided.get(record.approval.decision, record.approval.decision)
            return f"{record.id} {word} by {record.approval.actor}", clean(record.approval.reason)
        case "applied":
            assert receipt is not None
            return f"{record.id} applied after step {receipt.step}", "; ".join(
                change_words(receipt)
            )
        case "receipt":
            assert receipt is not None
            return f"{record.id} receipt", proof_words(receipt)
        case "canary":
            result = record.canary_result
            assert result is not None
            figures = f"{result.metric} {number(result.value)}, bound {number(result.bound)}"
            return f"{record.id} canary {result.result}", f"{figures}; {result.reason}"
        case _:
            return f"{record.id} {record.status}", clean(record.reason)

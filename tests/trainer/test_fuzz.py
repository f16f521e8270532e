"""The OpenAPI document, fuzzed against a training that is under way."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from torch.optim import AdamW
from trainer.live import Live, live
from trainer.loops import make_batches, make_model, train_bare

from autopilot.journal import Journal
from autopilot.policy import Policy
from autopilot_trainer.auth import RANKS, Role

NOTHING = Policy(autonomy="observe", default="deny")
KNOWN = st.sampled_from(["P1", "P2", "P9", "G1", None])
"""Ids that the run may have given, or whatever the fuzzer thinks of."""


@pytest.fixture(autouse=True)
def _no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate limit would answer most of it; it has its own tests."""
    for limit in ("REQUESTS", "CHANGES"):
        monkeypatch.setattr(f"autopilot_trainer.api.rates.{limit}", (1e9, 1e9))


class Fuzz:
    """Sends what the document allows, and what it does not, with one role's token."""

    def __init__(self, training: Live, role: Role) -> None:
        self.counts: Counter[int] = Counter()
        self.wrong: list[str] = []
        self._training = training
        self._token = getattr(training.tokens, role)
        self._seed = 1000 * RANKS[role]

    def run(self, requested: Sequence[st.SearchStrategy[Case]], each: int) -> None:
        """So many requests of every sort."""
        with requests.Session() as session:
            session.trust_env = False
            for cases in requested:
                with contextlib.suppress(Unsatisfiable):  # nothing about it can be invalid
                    self._seed += 1
                    self._send(session, cases, each)

    def _send(self, session: requests.Session, cases: st.SearchStrategy[Case], each: int) -> None:
        @seed(self._seed)
        @settings(
            max_examples=each,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(cases, KNOWN)
        def send(case: Case, known: str | None) -> None:
            if known is not None and "id" in (case.path_parameters or {}):
                case.path_parameters["id"] = known
            if "wait" in (case.query or {}):
                case.query["wait"] = 0  # a long poll is no error, only slow
            if isinstance(case.body, dict) and case.body.get("force") is True:
                case.body["force"] = False  # forced, the limits do not hold, as they should not
            request = case.as_transport_kwargs(base_url=self._training.url)
            request["headers"]["Authorization"] = f"Bearer {self._token}"
            with session.request(**request, timeout=30, stream=True) as answer:
                self._check(case, answer)

        send()

    def _check(self, case: Case, answer: requests.Response) -> None:
        status = answer.status_code
        self.counts[status] += 1
        if status >= 500:
            self.wrong.append(f"{status}: {case.as_curl_command()}")
        elif status >= 400:
            is_problem = answer.headers["content-type"] == "application/problem+json"
            if not is_problem or answer.json()["status"] != status:
                self.wrong.append(f"no problem document: {case.as_curl_command()}")


BOUNDED = pytest.param(2, id="bounded")


def at_length(each: int) -> Any:
    return pytest.param(each, id="at length", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])


def documented(training: Live) -> list[st.SearchStrategy[Case]]:
    """The valid and the invalid requests of every operation; making them takes longest."""
    with training.client("viewer") as http:
        schema = schemathesis.openapi.from_dict(http.get("/v1/openapi.json").json())
    return [
        found.ok().as_strategy(generation_mode=mode)
        for found in schema.get_all_operations()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    ]


def fuzz(
    training: Live, role: Role, requested: Sequence[st.SearchStrategy[Case]], each: int
) -> Counter[int]:
    """Fuzz, and look at what came back."""
    fuzzing = Fuzz(training, role)
    fuzzing.run(requested, each)
    print(f"{role}: {fuzzing.counts.total()} requests, {dict(sorted(fuzzing.counts.items()))}")
    assert fuzzing.wrong == []
    assert fuzzing.counts.total() > 30 * each
    with training.client("viewer") as http:
        assert http.get("/v1/run").json()["faults"] == []
    return fuzzing.counts


@pytest.mark.parametrize("each", [BOUNDED, at_length(115)])
def test_fuzzing_without_rights_neither_breaks_the_api_nor_changes_a_bit_of_the_training(
    tmp_path: Path, each: int
) -> None:
    with live(tmp_path, policy=NOTHING) as training:
        requested = documented(training)
        assert fuzz(training, "viewer", requested, each)[403] > 0
        assert fuzz(training, "agent", requested, each)[201] > 0
        training.await_steps(10)
        applied = training.session._training.commands
    assert applied == 0
    model = make_model(dropout=0.1)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    steps = len(training.losses)
    assert training.losses == train_bare(model, optimizer, make_batches(), steps=steps)


@pytest.mark.parametrize("each", [BOUNDED, at_length(80)])
def test_fuzzing_with_every_right_breaks_neither_the_api_nor_the_limits(
    tmp_path: Path, each: int
) -> None:
    with live(tmp_path) as training:
        fuzz(training, "operator", documented(training), each)
        with training.client("operator") as http:
            capabilities = http.get("/v1/run").json()["capabilities"]
        settings = {name: found["value"] for name, found in capabilities["settings"].items()}
    limits = Policy().limits
    low, high = limits.lr.total_factor
    assert low <= settings["lr_factor_min"] <= settings["lr_factor_max"] <= high
    assert settings["grad_clip"] is None or settings["grad_clip"] >= limits.grad_clip.min
    with Journal.read(tmp_path / "run" / "journal.sqlite") as journal:
        journal.verify()
        ends = [event.body for event in journal.events() if event.kind == "run_ended"]
    assert [end["status"] for end in ends] == ["ended"]


def test_a_number_that_no_journal_can_count_to_is_bad_input_and_no_fault(tmp_path: Path) -> None:
    """The shrunk counter-example of a long fuzzing."""
    cited = {"metric": "loss", "step": 2**63, "value": 1.0}
    proposal = {"interventions": [{"kind": "note", "text": "x"}], "evidence": [cited]}
    with live(tmp_path) as training, training.client("agent", **{"Idempotency-Key": "k"}) as http:
        answers = [
            http.post("/v1/proposals", json=proposal),
            http.get("/v1/journal", params={"after": 2**63}),
            http.get("/v1/metrics", params={"from_step": 2**63}),
            http.get("/v1/events", headers={"Last-Event-ID": str(2**63)}),
        ]
        assert [answer.status_code for answer in answers] == [422] * 4
        assert http.get("/v1/run").json()["faults"] == []

"""The OpenAPI document, fuzzed against a training that is under way."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from trainer.live import Live, live
from trainer.loops import train_bare

from autopilot.policy import Policy
from autopilot_trainer.api import build_app
from autopilot_trainer.auth import Role

NOTHING = Policy(autonomy="observe", default="deny")
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


def fuzz(training: Live, role: Role, each: int, seed_free: bool = False) -> Counter[str]:
    counts: Counter[str] = Counter()
    with training.client("viewer") as http:
        document = http.get("/v1/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    with requests.Session() as session:
        session.trust_env = False
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in MODES:

                @settings(
                    max_examples=each, deadline=None, database=None, derandomize=True,
                    suppress_health_check=list(HealthCheck), phases=[Phase.generate],
                )
                @given(case=operation.as_strategy(generation_mode=mode))
                def send(case: Case) -> None:
                    if case.path == "/v1/journal" and "wait" in (case.query or {}):
                        case.query["wait"] = 0
                    kw = case.as_transport_kwargs(base_url=training.url)
                    kw["headers"]["Authorization"] = "Bearer " + getattr(training.tokens, role)
                    response = session.request(**kw, timeout=30, stream=True)
                    if mode is GenerationMode.POSITIVE and response.status_code in(400,422): print(operation.label, response.text[:300], str(kw)[:500])
                    response.close()
                    counts[f"{response.status_code} {operation.label}"] += 1
                    if response.status_code >= 500: print(case.as_curl_command()[:600])
                with contextlib.suppress(Unsatisfiable):
                    send()
    return counts


def test_it(tmp_path, monkeypatch):
    monkeypatch.setattr("autopilot_trainer.api.rates.REQUESTS", (1e9, 1e9))
    monkeypatch.setattr("autopilot_trainer.api.rates.CHANGES", (1e9, 1e9))
    with live(tmp_path) as training:
        b=time.time()
        c = fuzz(training, "operator", 10)
        print(time.time()-b, sum(c.values()))
        for k,v in sorted(c.items()): print(k,v)
        print(training.session._faults, training.session._training.plane.info().faults)

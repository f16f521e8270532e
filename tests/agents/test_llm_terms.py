"""Settings, prices and the breaker: on which terms a model is asked."""

import sys
from typing import Any

import pytest
from fake_llm import only_loopback
from pydantic import SecretStr

from autopilot.errors import BadInput
from autopilot_agents.llm.agent import LLMAgent
from autopilot_agents.llm.breaker import COOL_DOWN, Breaker
from autopilot_agents.llm.prices import Tokens, is_free, price
from autopilot_agents.llm.settings import Settings, read_settings

__all__ = ["only_loopback"]

KEY = "sk-verysecretkey-0123456789"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"AUTOPILOT_LLM_{name.upper()}", raising=False)


def test_the_environment_is_read_and_what_is_given_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTOPILOT_LLM_MODEL", "m-env")
    monkeypatch.setenv("AUTOPILOT_LLM_BASE_URL", "http://127.0.0.1:8000/v1/")
    monkeypatch.setenv("AUTOPILOT_LLM_DEADLINE", "12.5")
    monkeypatch.setenv("AUTOPILOT_LLM_API_KEY", "")
    found = read_settings(model=None)
    assert (found.model, found.url, found.deadline) == ("m-env", "http://127.0.0.1:8000/v1", 12.5)
    assert found.api_key is None, "an empty variable is none"
    assert read_settings(model="m-given").model == "m-given"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no language model is named: set AUTOPILOT_LLM_MODEL"),
        ({"model": "m", "deadline": "soon"}, "AUTOPILOT_LLM_DEADLINE"),
        ({"model": "m", "deadline": -1}, "AUTOPILOT_LLM_DEADLINE"),
        ({"model": "m", "base_url": "localhost:8000"}, "AUTOPILOT_LLM_BASE_URL"),
        ({"model": "m", "base_url": f"https://u:{KEY}@h.example/v1"}, "must not carry a key"),
        ({"model": "m", "base_url": f"https://h.example/v1?key={KEY}"}, "must not carry a key"),
        ({"model": "m", "base_url": "http://h.example/v1", "api_key": KEY}, "use https"),
        ({"model": "m", "price_in": 1.0}, "state both"),
    ],
)
def test_a_wrong_setting_is_one_clear_line_without_any_key(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words) as raised:
        read_settings(**given)
    assert "\n" not in str(raised.value)
    assert KEY not in str(raised.value)


def test_a_key_shows_in_no_form_of_the_settings() -> None:
    found = Settings(model="m", api_key=SecretStr(KEY))
    assert KEY not in f"{found} {found!r} {found.model_dump()} {found.model_dump_json()}"


def test_openais_variable_is_for_openais_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for url, sent in (
        (None, KEY),
        ("https://api.openai.com/v1", KEY),
        ("https://eu.api.openai.com/v1", KEY),
        ("https://api.openai.com.evil.example/v1", "none"),
        ("https://openrouter.ai/api/v1", "none"),
        ("http://127.0.0.1:8000/v1", "none"),
    ):
        key = Settings(model="m", base_url=url).key()
        assert key is not None
        assert key.get_secret_value() == sent, url


def test_a_missing_key_is_told_before_anything_is_asked() -> None:
    with pytest.raises(BadInput, match=r"no key for api\.openai\.com: set AUTOPILOT_LLM_API_KEY"):
        LLMAgent(Settings(model="gpt-5"))


@pytest.mark.parametrize(
    ("model", "url", "vendor", "name", "host"),
    [
        ("gpt-5", None, None, "gpt-5", "api.openai.com"),
        ("openai:gpt-5", None, None, "gpt-5", "api.openai.com"),
        ("ft:gpt-4o:me::1", None, None, "ft:gpt-4o:me::1", "api.openai.com"),
        ("anthropic:claude-x", None, "anthropic", "claude-x", "anthropic"),
        ("llama3.1:8b", "http://localhost:11434/v1", None, "llama3.1:8b", "localhost"),
        ("openai:odd", "http://localhost:1/v1", None, "openai:odd", "localhost"),
    ],
)
def test_a_colon_means_a_vendor_only_where_no_server_is_named(
    model: str, url: str | None, vendor: str | None, name: str, host: str
) -> None:
    found = Settings(model=model, base_url=url)
    assert (found.vendor, found.model_name, found.host) == (vendor, name, host)


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://10.1.2.3:8000/v1", True),
        ("http://192.168.0.9/v1", True),
        ("http://vllm:8000/v1", True),
        ("http://gpu7.local/v1", True),
        ("https://api.openai.com/v1", False),
        ("https://8.8.8.8/v1", False),
        ("https://localhost.evil.example/v1", False),
    ],
)
def test_an_own_server_costs_nothing(url: str, own: bool) -> None:
    found = Settings(model="house-7b", base_url=url)
    assert found.own_server is own
    assert price(Tokens(read=10, written=10), found) == (0.0 if own else None)
    assert is_free(found) is own


def test_a_known_model_has_the_price_of_the_table_and_cached_tokens_cost_less() -> None:
    found = Settings(model="gpt-4o")
    full = price(Tokens(read=1_000_000, written=0), found)
    cached = price(Tokens(read=1_000_000, cached=500_000, written=0), found)
    assert full is not None
    assert cached is not None
    assert 0 < cached < full < 100
    assert not is_free(found)
    assert price(Tokens(), Settings(model="anthropic:claude-sonnet-4-5")) == 0.0


def test_a_stated_price_goes_before_any_table() -> None:
    found = Settings(model="gpt-4o", price_in=1.0, price_out=10.0)
    assert price(Tokens(read=1_000_000, cached=500_000, written=100_000), found) == 2.0
    assert is_free(Settings(model="gpt-4o", price_in=0, price_out=0))


def test_prices_are_looked_up_without_loading_them_first() -> None:
    import subprocess

    code = "import sys, autopilot_agents.llm.agent; print('genai_prices' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- the breaker ------------------------------------------------------------------------------


def after(*kinds: Any, now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for kind in kinds:
        breaker = breaker.after(kind, "w", now=now)
    return breaker


@pytest.mark.parametrize(
    ("kinds", "closed"),
    [
        ((), True),
        (("transient", "transient"), True),
        (("transient", "protocol", "transient"), False),
        (("transient", "transient", None, "transient"), True),
        (("transient", "transient", "invalid", "transient"), True),
        (("fatal",), False),
        (("invalid", "refused", "budget", "fault", "waiting"), True),
    ],
)
def test_what_opens_the_breaker(kinds: tuple[Any, ...], closed: bool) -> None:
    assert after(*kinds).lets_through(1.0) is closed


def test_half_open_one_question_decides() -> None:
    opened = after("fatal")
    assert not opened.lets_through(COOL_DOWN - 1)
    assert opened.lets_through(COOL_DOWN)
    again = opened.after("transient", "w", now=COOL_DOWN)
    assert not again.lets_through(COOL_DOWN + 1)
    assert opened.after(None, "", now=COOL_DOWN) == Breaker()

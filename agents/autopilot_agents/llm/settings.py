"""Which model is asked, where, with which key, and how long it may take.

Everything comes from the environment as ``AUTOPILOT_LLM_*``; ``docs/llm.md`` lists it.
"""

import ipaddress
import os
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    DirectoryPath,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from autopilot.errors import BadInput

OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "none"
"""What a server of one's own is sent, which wants some key or other."""

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """The model and the terms on which it is asked.

    Attributes:
        model: As the server calls it; ``provider:model`` for another vendor than OpenAI.
        base_url: Of an OpenAI-compatible server; None is OpenAI's own, or the vendor's.
        api_key: None takes ``OPENAI_API_KEY``, for OpenAI's own server only.
        timeout: Seconds for one request.
        deadline: Seconds for everything that one answer takes, repeats and look-ups included.
        max_lookups: Look-ups before an answer.
        max_output: Tokens that one turn may take, reasoning included.
        past: A folder of earlier runs to look up; None takes the one that a live run lies in.
        price_in: Dollars for a million tokens read; with ``price_out`` it overrides the table.
        price_out: Dollars for a million tokens written.
    """

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_LLM_", frozen=True, extra="ignore", hide_input_in_errors=True,
        env_ignore_empty=True,
    )  # fmt: skip

    model: str = Field(min_length=1, max_length=200)
    base_url: str | None = Field(default=None, max_length=500)
    api_key: SecretStr | None = None
    timeout: Seconds = 30.0
    deadline: Seconds = 90.0
    max_lookups: int = Field(default=5, ge=0, le=20)
    max_output: int = Field(default=4096, ge=64, le=200_000)
    past: DirectoryPath | None = None
    price_in: Dollars | None = None
    price_out: Dollars | None = None

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an address such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("an address must not carry a key; set AUTOPILOT_LLM_API_KEY instead")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("AUTOPILOT_LLM_PRICE_IN and _PRICE_OUT: state both, or neither")
        plain = urlsplit(self.url).scheme == "http"
        if plain and self.api_key is not None and not self.own_server:
            raise ValueError(f"base_url: a key is not sent to {self.host} in clear; use https")
        return self

    @property
    def vendor(self) -> str | None:
        """The provider before the colon, where the vendor's own interface is spoken."""
        if self.base_url is not None or ":" not in self.model:
            return None  # a colon in the name of a model on a server is part of its name
        provider = self.model.partition(":")[0]
        return None if provider in ("openai", "ft") else provider

    @property
    def model_name(self) -> str:
        """The model without its provider."""
        if self.base_url is None and (self.vendor or self.model.startswith("openai:")):
            return self.model.partition(":")[2]
        return self.model

    @property
    def url(self) -> str:
        """Where an OpenAI-compatible server is asked."""
        return self.base_url or OPENAI_URL

    @property
    def host(self) -> str:
        """Where it is asked, without port, path or key."""
        return self.vendor or urlsplit(self.url).hostname or ""

    @property
    def own_server(self) -> bool:
        """The address lies on this machine or in a private network."""
        return self.vendor is None and _is_private(self.host)

    def key(self) -> SecretStr | None:
        """The key to send; None leaves a vendor's library to its own variable.

        Raises:
            BadInput: OpenAI's own server needs one, and none is set.
        """
        if self.api_key is not None:
            return self.api_key
        if self.vendor is not None:
            return None
        if self.host == "api.openai.com" or self.host.endswith(".api.openai.com"):
            found = os.environ.get("OPENAI_API_KEY", "").strip()
            if not found:
                raise BadInput(
                    f"no key for {self.host}: set AUTOPILOT_LLM_API_KEY (or OPENAI_API_KEY), or "
                    "AUTOPILOT_LLM_BASE_URL for a server of your own"
                )
            return SecretStr(found)
        return SecretStr(NO_KEY)


def read_settings(**given: Any) -> Settings:
    """The settings of the environment, with what is given besides (None: not given).

    Raises:
        BadInput: No model is named, or a value is not what was expected. Never shows a value.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            raise BadInput(f"language model: {message}") from None
        name = str(problem["loc"][0])
        if name == "model" and problem["type"] == "missing":
            raise BadInput(
                "no language model is named: set AUTOPILOT_LLM_MODEL, and AUTOPILOT_LLM_BASE_URL "
                "for a server of your own (docs/llm.md)"
            ) from None
        raise BadInput(f"AUTOPILOT_LLM_{name.upper()}: {message}") from None


def _is_private(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        known = host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
        return known or "." not in host
    return address.is_loopback or address.is_private or address.is_link_local

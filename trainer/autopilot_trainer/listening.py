"""Where the control API listens: loopback, unless somebody names an address and a certificate."""

import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from autopilot.errors import BadInput
from autopilot_trainer.surroundings import port_from_environment

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Listening:
    """An address for the control API.

    Attributes:
        host: Name or address by which clients reach it; beyond loopback only with a certificate.
        port: 0 takes any free one.
        certificate: PEM file with the chain that is shown to clients.
        key: PEM file with its private key, not encrypted.
    """

    host: str = _LOOPBACK
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise BadInput("AUTOPILOT_TLS_CERT and AUTOPILOT_TLS_KEY: give both, or neither")
        if self.host in ("0.0.0.0", "::"):  # noqa: S104 - it is refused
            raise BadInput(
                f"the control API cannot listen on {self.host}: name the one address that others "
                "reach this machine by"
            )
        if self.certificate is None and not self.is_loopback:
            raise BadInput(
                f"the control API cannot listen on {self.host}: loopback only without TLS; set "
                "AUTOPILOT_TLS_CERT and AUTOPILOT_TLS_KEY"
            )

    @property
    def is_loopback(self) -> bool:
        """Only this machine reaches it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def context(self) -> ssl.SSLContext | None:
        """What speaks TLS; None where plain HTTP is spoken.

        Raises:
            BadInput: The files cannot be read, or do not belong together.
        """
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password=_nobody_to_ask)
        except OSError as error:  # also what ssl raises
            why = error.strerror if error.filename or not error.args else error.args[-1]
            raise BadInput(
                f"the control API cannot use {self.certificate} with {self.key}: {why}"
            ) from error
        return context


def listening_from_environment(port: int | None = None) -> Listening:
    """Where the environment wants the control API: ``AUTOPILOT_HOST``, ``_PORT``, ``_TLS_…``.

    Args:
        port: Comes before ``AUTOPILOT_PORT``.

    Raises:
        BadInput: A value is none, or they do not go together.
    """
    certificate, key = (os.environ.get(f"AUTOPILOT_TLS_{part}") for part in ("CERT", "KEY"))
    chosen = Listening(
        host=os.environ.get("AUTOPILOT_HOST") or _LOOPBACK,
        port=port_from_environment() if port is None else port,
        certificate=Path(certificate) if certificate else None,
        key=Path(key) if key else None,
    )
    chosen.context()  # what is wrong with the files is said before anything is trained
    return chosen


def _nobody_to_ask() -> str:
    raise BadInput("AUTOPILOT_TLS_KEY: the key is encrypted, and a training cannot ask for words")

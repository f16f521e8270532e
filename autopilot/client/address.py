"""Where a control API may be, so that a token is only sent there."""

import ipaddress
from urllib.parse import urlsplit

from autopilot.errors import BadInput


def endpoint(url: str) -> tuple[str, str | None]:
    """Base URL and, for ``http+unix://``, the path of the socket; plain http only on loopback."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise BadInput(f"{url}: not a URL") from error
    if parts.scheme == "http+unix" and parts.path:
        return "http://localhost", parts.path
    if parts.scheme not in ("http", "https") or not host:
        raise BadInput(f"{url}: not a URL of a control API")
    if parts.scheme == "http" and not _is_loopback(host):
        raise BadInput(f"{url}: a token goes over plain http to this machine only; use https")
    return url.rstrip("/"), None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

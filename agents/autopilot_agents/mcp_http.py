"""The MCP server over streamable HTTP: on loopback, for whoever has the token it made."""

import hmac
import secrets
import socket
from collections.abc import Callable

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings

from autopilot.errors import BadInput
from autopilot_agents.mcp_run import ServedRun
from autopilot_agents.mcp_server import build_server

_HOST = "127.0.0.1"
_PATH = "/mcp"
_BODY_LIMIT = 256 * 1024
_GRACE = 3
"""Seconds that requests under way have to end when the server is told to."""


class OneToken:
    """Knows one token, made for this process and told once."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        """Who has the token, without telling by its time how far a wrong one is right."""
        if not hmac.compare_digest(token.encode(), self._token):
            return None
        return AccessToken(token=token, client_id="mcp", scopes=[])


def serve_http(run: ServedRun, port: int, announce: Callable[[str, str], None]) -> None:
    """Serve until the process is told to end.

    Args:
        run: What to serve.
        port: Where on loopback; 0 is any free one.
        announce: Is told the address and the token, once, before the first request is taken.

    Raises:
        BadInput: The port is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((_HOST, port))
        except OSError as error:
            raise BadInput(f"--port {port}: {error.strerror}; 0 takes any free one") from error
        taken = place.getsockname()[1]
        token = secrets.token_urlsafe(32)
        url = f"http://{_HOST}:{taken}{_PATH}"
        names = [f"{host}:{taken}" for host in (_HOST, "localhost")]
        app = build_server(run, verifier=OneToken(token), url=url).streamable_http_app(
            streamable_http_path=_PATH,
            json_response=True,
            stateless_http=True,
            max_request_body_size=_BODY_LIMIT,
            transport_security=TransportSecuritySettings(
                enable_dns_rebinding_protection=True,
                allowed_hosts=names,
                allowed_origins=[f"http://{name}" for name in names],
            ),
        )
        config = uvicorn.Config(
            app, log_level="error", server_header=False, timeout_graceful_shutdown=_GRACE
        )
        place.listen()  # before it is told: whoever comes at once waits and is not refused
        announce(url, token)
        uvicorn.Server(config).run(sockets=[place])

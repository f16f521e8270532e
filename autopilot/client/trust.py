"""Whose certificates a client believes."""

import os
import ssl

from autopilot.errors import BadInput


def trusted() -> ssl.SSLContext | bool:
    """This machine's authorities, and the certificate or authority in ``AUTOPILOT_TLS_CERT``.

    Raises:
        BadInput: That file holds none.
    """
    path = os.environ.get("AUTOPILOT_TLS_CERT")
    if not path:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(path)
    except OSError as error:  # also what ssl raises
        why = error.strerror or "no certificate in PEM form"
        raise BadInput(f"AUTOPILOT_TLS_CERT={path}: {why}") from error
    return context

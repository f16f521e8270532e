"""What happened to a run while nobody watched: one report, told as Markdown, HTML, text or JSON.

:func:`make_report` is pure. It turns what :func:`read_account` read of a run into a
:class:`Report`; :func:`tell` puts that into words once, as a :class:`Document`, which every form
of output renders.
"""

from autopilot.report.account import Account
from autopilot.report.document import Document
from autopilot.report.making import make_report
from autopilot.report.model import Report
from autopilot.report.reading import read_account
from autopilot.report.telling import tell

__all__ = ["Account", "Document", "Report", "make_report", "read_account", "tell"]

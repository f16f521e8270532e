"""Every error that Autopilot raises on purpose.

::

    AutopilotError                 one clear line; the command line prints it and exits with 2
    ├── BadInput                   a file, an argument or a value is not what was expected
    │   ├── BadPolicy              a policy file does not say what a policy may say
    │   ├── NotARun                a directory or URL is not a run
    │   └── JournalError           a journal cannot be opened, is newer, or was altered
    │       └── JournalBusy        another process writes it
    ├── Unreachable                the run's control API did not answer
    └── Refused                    the control plane said no; nothing was changed
        ├── Forbidden              the actor's role does not reach this far
        ├── NotFound               no such proposal, command or checkpoint
        ├── Unsupported            this run does not offer that intervention
        ├── OutOfBounds            the value lies outside the bounds this run publishes
        └── StaleProposal          the run moved past what the proposal was made against
"""


class AutopilotError(Exception):
    """Base of all deliberate errors; its text is one line that a user can act on."""


class BadInput(AutopilotError):
    """Something the user gave is not what was expected."""


class BadPolicy(BadInput):
    """A policy file does not say what a policy may say."""


class NotARun(BadInput):
    """A directory or URL does not name a run."""


class JournalError(BadInput):
    """A journal cannot be opened, was written by a newer version, or was altered."""


class JournalBusy(JournalError):
    """Another process writes the journal: its run is live."""


class Unreachable(AutopilotError):
    """The run's control API did not answer."""


class Refused(AutopilotError):
    """The control plane declined; nothing was changed."""


class Forbidden(Refused):
    """The actor's role does not reach this far."""


class NotFound(Refused):
    """No such proposal, command or checkpoint."""


class Unsupported(Refused):
    """This run does not offer that intervention."""


class OutOfBounds(Refused):
    """The value lies outside the bounds that this run publishes."""


class StaleProposal(Refused):
    """The run moved past what the proposal was made against.

    Attributes:
        changed: What changed since, as a phrase a person or a model can act on.
    """

    def __init__(self, message: str, changed: str) -> None:
        super().__init__(message)
        self.changed = changed

"""The tokens that the requests of one question may take together."""

from dataclasses import dataclass

_LEAST, _USEFUL = 100, 500
"""Tokens of results: from here on a look-up is worth a request; so many go before a repair."""
_CALLS, _NOTE, _FRAME = 120, 150, 20
"""Tokens that are added: by a turn that calls look-ups, by a repair, around each result."""


@dataclass
class Allowance:
    """Counts every request before it is made, and says what there is still room for.

    The conversation so far is sent with every request, so that each look-up is paid for again by
    all that follow it. The first request is always made.

    Args:
        most: Tokens of all requests together.

    Attributes:
        spent: Of the requests so far, by the estimate.
        scale: Tokens that the server counts for one of the estimate; never below 1.
    """

    most: int
    spent: int = 0
    scale: float = 1.0
    _base: int = 0
    _told: int = 0

    def measure(self, read: int) -> None:
        """The server counted so many tokens for the requests so far."""
        if self.spent:
            self.scale = max(1.0, read / self.spent)

    def begin(self, size: int, base: int) -> None:
        """A request is made.

        Args:
            size: Its tokens.
            base: Those of the same without look-ups on offer.
        """
        self.spent += size
        self._base, self._told = base, 0

    def fits(self, size: int) -> bool:
        """Whether a request of so many tokens can be made besides."""
        return not self.spent or self.scale * (self.spent + size) <= self.most

    def fits_lookups(self, size: int, base: int) -> bool:
        """Whether a request may offer look-ups, and leave room for an answer after them."""
        return self.fits(size + base + _CALLS + _LEAST)

    def room(self) -> int:
        """Tokens that the next look-up's result may have; none below what is worth it.

        An answer must fit in after it. Beyond what is useful at least, so must a repair of it.
        """
        left = self.most / self.scale - self.spent
        base = self._base + self._told + _CALLS + _FRAME
        repaired = (left - _NOTE) / 2 - base
        room = max(repaired, min(left - base, _USEFUL - self._told))
        return int(room) if room >= _LEAST else 0

    def tell(self, tokens: int) -> None:
        """A result of so many tokens goes into the next request."""
        self._told += tokens + _FRAME

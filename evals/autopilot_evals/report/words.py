"""Figures as a report writes them, and the line under every report."""

from math import isfinite

import autopilot
from autopilot.policy import read_policy
from autopilot_evals.report.markup import Html, tag


def share(value: float | None, digits: int = 2) -> str:
    """A figure with so many digits; a dash where there is none.

    >>> share(0.456), share(float("nan"))
    ('0.46', '-')
    """
    return "-" if value is None or not isfinite(value) else f"{value:.{digits}f}"


def interval(bounds: tuple[float, float] | None, digits: int = 2) -> str:
    """An interval; a dash where it is unbounded.

    >>> interval((0.1, 0.55)), interval((-0.2, 0.1))
    ('0.10 to 0.55', '−0.20 to 0.10')
    """
    if bounds is None or not all(isfinite(bound) for bound in bounds):
        return "-"
    return " to ".join(f"{bound:.{digits}f}".replace("-", "−") for bound in bounds)


def signed(value: float, digits: int = 2) -> str:
    """A difference, always with its sign.

    >>> signed(0.1), signed(-0.05), signed(-0.0)
    ('+0.10', '−0.05', '+0.00')
    """
    if not isfinite(value):
        return "-"
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def tone(good: bool, words: str) -> Html:
    """Words in the colour of good or bad news."""
    return tag("span", words, class_="good" if good else "bad")


def footer() -> Html:
    """What made the figures."""
    policy = read_policy(None).digest()
    return tag("footer", f"training-autopilot {autopilot.__version__}, policy {policy}")

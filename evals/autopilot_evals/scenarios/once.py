"""Faults that strike once: going back over the same step does not bring them back."""

from collections.abc import Callable


def once(at: int, strike: Callable[[], None], *, lasts: int = 1) -> Callable[[int], None]:
    """Return what a loop calls before each step: it strikes at one, and at those right after it.

    Args:
        at: The step.
        strike: What happens.
        lasts: Steps in a row in which it does.
    """
    left = lasts

    def before_step(step: int) -> None:
        nonlocal left
        if step >= at and left:
            left -= 1
            strike()

    return before_step

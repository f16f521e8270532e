"""Agents that keep a score honest: each follows one habit whatever it is shown."""

import random

from autopilot.schema import (
    Intervention,
    NoProposal,
    Proposal,
    RewarmLR,
    Rollback,
    ScaleLR,
    SetGradClip,
    Stop,
    Window,
)

_MENU: tuple[tuple[Intervention, ...], ...] = (
    (Rollback(checkpoint="last_good"),),
    (Rollback(checkpoint="last_good", skip_batches=100),),
    (Rollback(checkpoint="last_good"), ScaleLR(factor=0.5), RewarmLR(steps=20)),
    (ScaleLR(factor=0.5),),
    (SetGradClip(max_norm=0.5),),
    (Stop(),),
)


class NeverAct:
    """Does nothing, ever."""

    name = "never acts"

    def propose(self, window: Window) -> Proposal | NoProposal:
        return NoProposal(kind="waiting", reason="by habit")


class AlwaysAsk:
    """Hands everything to a person."""

    name = "always asks"

    def propose(self, window: Window) -> Proposal | NoProposal:
        return NoProposal(kind="cannot_tell", reason="by habit")


class AlwaysGoBack:
    """Goes back to the last good state at every window."""

    name = "always goes back"

    def propose(self, window: Window) -> Proposal | NoProposal:
        return proposal(window, _MENU[0])


class AlwaysHalve:
    """Halves the learning rate at every window: the folklore."""

    name = "always halves the rate"

    def propose(self, window: Window) -> Proposal | NoProposal:
        return proposal(window, (ScaleLR(factor=0.5),))


class ActsAtRandom:
    """Draws from a menu of six remedies and doing nothing.

    Args:
        seed: The same seed draws the same answers in the same order.
    """

    name = "acts at random"

    def __init__(self, seed: int | str) -> None:
        self._draw = random.Random(seed)  # noqa: S311

    def propose(self, window: Window) -> Proposal | NoProposal:
        chosen = self._draw.choice((None, *_MENU))
        if chosen is None:
            return NoProposal(kind="waiting", reason="by chance")
        return proposal(window, chosen)


def proposal(
    window: Window, interventions: tuple[Intervention, ...], why: str = "by habit"
) -> Proposal:
    """A proposal on what a window shows, where the reason is the rule and not a finding."""
    episode = window.episode
    return Proposal(
        interventions=interventions,
        episode=episode.id if episode is not None else None,
        rationale=why,
        not_after_step=window.run.step + 1000,
        state_version=window.run.state_version,
    )

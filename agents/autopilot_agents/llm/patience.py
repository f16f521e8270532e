"""A model that chose to wait is not asked again at every look, but when it said, or on news."""

from dataclasses import dataclass, field

from autopilot.schema import NoProposal, Window


@dataclass(frozen=True)
class _Waiting:
    news: tuple[object, ...]
    until_step: int
    answer: NoProposal


@dataclass
class Patience:
    """What was answered lately, by episode. It saves money; nothing depends on it."""

    _waiting: dict[str, _Waiting] = field(default_factory=dict)

    def still(self, window: Window) -> NoProposal | None:
        """The answer that still stands; None where it is time to ask."""
        episode = window.episode
        kept = self._waiting.get(episode.id) if episode is not None else None
        if kept is None or kept.news != _news(window) or window.run.step >= kept.until_step:
            return None
        return kept.answer

    def keep(self, window: Window, answer: NoProposal, steps: int) -> None:
        """Let an answer stand for so many steps, unless something new is found."""
        if window.episode is not None:
            until = window.run.step + steps
            self._waiting[window.episode.id] = _Waiting(_news(window), until, answer)


def _news(window: Window) -> tuple[object, ...]:
    """What would be news of an episode."""
    episode = window.episode
    assert episode is not None, "only asked of episodes"
    tried = tuple((r.id, r.status) for r in window.history if r.proposal.episode == episode.id)
    told = tuple(said.id for said in window.run.guidance)
    found = (episode.kind, episode.diagnosis, episode.status, len(episode.findings))
    return (*found, window.run.branch, window.run.state_version, tried, told)

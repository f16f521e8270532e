"""Single runs of a sandbox, agent beside agent: what each saved, and whether it went well."""

from collections.abc import Sequence

from autopilot_evals.forks import ALONE, PILOTED, Outcome
from autopilot_evals.forks.scores import ScenarioScore
from autopilot_evals.scoring.paired import Pair
from autopilot_evals.suites.sandbox import TARGET_GAIN


class Trials:
    """What came of every run of some scenarios.

    Args:
        scores: The scenarios, as scored for any agent: what is sick and what its best move saves
            is the same for all.
        outcomes: Of every arm and seed of them.
    """

    def __init__(self, scores: Sequence[ScenarioScore], outcomes: Sequence[Outcome]) -> None:
        self._sick = [one for one in scores if one.gain is not None]
        self._healthy = [one for one in scores if one.gain is None]
        self._flown: dict[tuple[str, str], dict[int, Outcome]] = {}
        for outcome in outcomes:
            arms = self._flown.setdefault((outcome.scenario, outcome.arm), {})
            arms[outcome.seed] = outcome

    def gains(self, first: str, second: str) -> list[Pair]:
        """What two agents save in each sick run, as a share of what the best move saves on average.

        Shares are held between -1 and 1, so that one run that blows up is not all that counts.
        """
        return [
            Pair(one.scenario, _held(mine), _held(theirs))
            for one in self._sick
            for mine, theirs in zip(
                self._shares(one, first), self._shares(one, second), strict=True
            )
        ]

    def left_alone(self, first: str, second: str) -> list[Pair]:
        """Whether two agents leave each healthy run alone: 1 if so, else 0."""
        return [
            Pair(one.scenario, float(mine), float(theirs))
            for one in self._healthy
            for mine, theirs in zip(
                self._untouched(one, first), self._untouched(one, second), strict=True
            )
        ]

    def successes(self, agent: str) -> dict[str, tuple[bool, ...]]:
        """By scenario, whether each run went well: saved, or left alone where nothing was wrong."""
        sick = {
            one.scenario: tuple(share >= TARGET_GAIN for share in self._shares(one, agent))
            for one in self._sick
        }
        return sick | {one.scenario: self._untouched(one, agent) for one in self._healthy}

    def _shares(self, score: ScenarioScore, agent: str) -> tuple[float, ...]:
        alone = self._flown[score.scenario, ALONE]
        return tuple(
            (alone[seed].val_loss - outcome.val_loss) / score.oracle.gain
            for seed, outcome in sorted(self._flown[score.scenario, PILOTED + agent].items())
        )

    def _untouched(self, score: ScenarioScore, agent: str) -> tuple[bool, ...]:
        flown = self._flown[score.scenario, PILOTED + agent]
        return tuple(not flown[seed].applied for seed in sorted(flown))


def _held(share: float) -> float:
    return max(-1.0, min(1.0, share))

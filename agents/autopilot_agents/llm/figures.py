"""Which figures a model was shown, so that those it cites can be held against them."""

import math
import re
from dataclasses import dataclass, field
from itertools import islice

from autopilot.schema import Evidence, Window
from autopilot_agents.llm.fence import plain_name

_NUMBER = r"[-+]?(?:(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?|inf(?:inity)?|nan)"
_CITED = re.compile(rf"([A-Za-z_][\w./:%+-]*)@(\d+)\s*=\s*({_NUMBER})", re.IGNORECASE)
_PLAIN = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?![\w])")
_COUNTED = 100
_TOLERANCE = 1e-3
"""Relative; a model may leave off digits, not change them."""


@dataclass(frozen=True)
class Citation:
    """A figure as a model wrote it: ``metric@step=value``."""

    metric: str
    step: int
    value: float

    def __str__(self) -> str:
        return f"{self.metric}@{self.step}={self.value:g}"


def citations(text: str) -> list[Citation]:
    """Every figure cited in a text.

    >>> [str(c) for c in citations("rose from loss@190=2.31 to loss@195=9.0.")]
    ['loss@190=2.31', 'loss@195=9']
    """
    return [
        Citation(name, int(step), float(value))
        for name, step, value in _CITED.findall(text)
        if len(step) < 16
    ]


def strange_numbers(text: str, shown: str) -> list[str]:
    """Numbers in a text that stand nowhere in what was shown, nor round from anything there.

    Whole numbers below 100 are let be: people count in them.

    >>> strange_numbers("rose to 9.2 in 12 steps, 4.5 times", "loss 9.195, 2.03")
    ['4.5']
    """
    known = [float(n.replace(",", "")) for n in _PLAIN.findall(shown)]
    return [n for n in _PLAIN.findall(_CITED.sub("", text)) if not _stands(n, known)]


def _stands(number: str, known: list[float]) -> bool:
    value, decimals = float(number.replace(",", "")), len(number.partition(".")[2])
    if decimals == 0 and value < _COUNTED:
        return True
    return any(abs(value - other) <= 0.5001 * 10**-decimals for other in known)


@dataclass
class Figures:
    """The figures that were shown: single steps of the branch in force, as recorded."""

    _values: dict[tuple[str, int], float] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def add(self, metric: str, step: int, value: float) -> None:
        """Enter a figure under the name by which it is shown."""
        self._values.setdefault((plain_name(metric), step), value)
        self._names.setdefault(plain_name(metric), metric)

    def __len__(self) -> int:
        return len(self._values)

    def since(self, count: int) -> tuple[Evidence, ...]:
        """The figures that were entered after the first so many."""
        new = islice(self._values.items(), count, None)
        return tuple(Evidence(metric=self._names[n], step=s, value=v) for (n, s), v in new)

    def recorded(self, metric: str, step: int) -> float | None:
        """The figure that was shown under that name at that step."""
        return self._values.get((metric, step))

    def find(self, cited: Citation) -> Evidence | None:
        """The recorded figure that is meant; None where there is none, or it is another."""
        recorded = self.recorded(cited.metric, cited.step)
        if recorded is None or not _agree(cited.value, recorded):
            return None
        return Evidence(metric=self._names[cited.metric], step=cited.step, value=recorded)

    def unknown(self, text: str) -> list[Citation]:
        """The figures a text cites that were not shown."""
        return [cited for cited in citations(text) if self.find(cited) is None]

    def problem(self, cited: Citation) -> str:
        """Why a citation does not hold, so that it can be put right."""
        recorded = self.recorded(cited.metric, cited.step)
        if recorded is not None:
            return f"{cited}: {cited.metric}@{cited.step} is {recorded:.5g}"
        steps = sorted(step for name, step in self._values if name == cited.metric)
        if not steps:
            return f"{cited}: no such figure was shown"
        near = sorted(steps, key=lambda step: abs(step - cited.step))[:3]
        return f"{cited}: not shown; {cited.metric} was shown at {', '.join(map(str, near))}"


def _agree(cited: float, recorded: float) -> bool:
    if math.isnan(cited) or math.isnan(recorded):
        return math.isnan(cited) and math.isnan(recorded)
    return math.isclose(cited, recorded, rel_tol=_TOLERANCE, abs_tol=1e-12)


def figures_of(window: Window) -> Figures:
    """The figures that a window shows and the journal can confirm.

    Medians over several steps are none, nor is what an outside detector claims, nor a finding of
    a branch that was left.
    """
    figures = Figures()
    for row in window.table:
        if row.first_step == row.last_step:
            for metric, value in row.values.items():
                figures.add(metric, row.last_step, value)
    for finding in window.findings:
        if finding.branch == window.run.branch and finding.claimed_by is None:
            for cited in finding.evidence:
                figures.add(cited.metric, cited.step, cited.value)
    return figures

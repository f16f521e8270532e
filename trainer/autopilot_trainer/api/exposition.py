"""The state of a run in the text format of Prometheus."""

import math
import re

from autopilot.schema import RunInfo


def exposition(info: RunInfo, now: float) -> str:
    """Gauges of the run and of its last metric values."""
    labels = f'{{run="{_escaped(info.name)}"}}'
    gauges: list[tuple[str, str, float]] = [
        ("step", "Last step taken.", info.step),
        ("running", "1 while the run trains.", float(info.status == "running")),
        ("journal_seq", "Sequence number of the newest journal event.", info.seq),
        ("state_version", "Version of the run's state.", info.state_version),
        ("breaker_open", "1 while failed canaries hold the pilot back.", float(info.breaker_open)),
        ("faults", "Faults of the machinery around the run.", len(info.faults)),
    ]
    if info.pilot is not None:
        age = max(now - info.pilot.last_pass, 0.0)
        gauges.append(("pilot_age_seconds", "Seconds since the pilot's last pass.", age))
    lines: list[str] = []
    for name, description, value in gauges:
        lines += [
            f"# HELP autopilot_{name} {description}",
            f"# TYPE autopilot_{name} gauge",
            f"autopilot_{name}{labels} {_number(value)}",
        ]
    lines += [
        "# HELP autopilot_no_proposals_total Answers of agents without a proposal, by kind.",
        "# TYPE autopilot_no_proposals_total counter",
    ]
    for kind, count in sorted(info.no_proposals.items()):
        both = f'{{run="{_escaped(info.name)}",kind="{_escaped(kind)}"}}'
        lines.append(f"autopilot_no_proposals_total{both} {count}")
    lines += [
        "# HELP autopilot_metric Last value of a metric that the run reports.",
        "# TYPE autopilot_metric gauge",
    ]
    for metric, value in sorted(info.last_values.items()):
        both = f'{{run="{_escaped(info.name)}",metric="{_escaped(metric)}"}}'
        lines.append(f"autopilot_metric{both} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r'[\\"]', r"\\\g<0>", text.encode("utf-8", "replace").decode()).replace(
        "\n", r"\n"
    )


def _number(value: float) -> str:
    """A number as Prometheus reads it.

    >>> _number(float("nan")), _number(float("-inf")), _number(3), _number(0.1)
    ('NaN', '-Inf', '3', '0.1')
    """
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"

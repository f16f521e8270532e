"""What every detector must do, whatever it looks for."""

import json
import math
from collections.abc import Callable

import pytest
from detectors.streams import changed, healthy, run, shape, sick

from autopilot.detectors import default_detectors
from autopilot.ports import Detector
from autopilot.schema import Row
from autopilot.schema.metrics import LOSS, VAL_LOSS

NAMES = [detector.name for detector in default_detectors()]


@pytest.fixture(params=range(len(NAMES)), ids=NAMES)
def make(request: pytest.FixtureRequest) -> Callable[[], Detector]:
    return lambda: default_detectors()[request.param]


def loud(make: Callable[[], Detector], rows: list[Row]) -> list[tuple[str, str, int]]:
    """Findings that reach beyond the journal."""
    return [found for found in shape(run(make(), rows)) if found[1] != "watch"]


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("seed", range(8))
def test_silent_on_a_calm_run(make: Callable[[], Detector], seed: int) -> None:
    assert loud(make, list(healthy(seed, 1500))) == []


@pytest.mark.parametrize("stride", [1, 5, 10])
def test_silent_at_any_logging_interval(make: Callable[[], Detector], stride: int) -> None:
    assert loud(make, list(healthy(3, 3000))[::stride]) == []


def test_silent_across_gaps_in_steps(make: Callable[[], Detector]) -> None:
    rows = [row for row in healthy(4, 1200) if row.step % 100 < 60]
    assert loud(make, rows) == []


def test_silent_when_steps_go_backwards_without_a_change(make: Callable[[], Detector]) -> None:
    rows = list(healthy(5, 400)) + list(healthy(6, 400, first=350))
    rows = [row for row in rows if row.step < 700]
    detector = make()
    assert [f for f in run(detector, rows[:400]) if f.tier != "watch"] == []
    detector.reset()
    assert [f for f in run(detector, rows[400:]) if f.tier != "watch"] == []


def test_silent_on_rows_without_its_metrics(make: Callable[[], Detector]) -> None:
    assert run(make(), [Row(step, {"something": 1.0}) for step in range(100)]) == []
    assert run(make(), [Row(step, {}) for step in range(100)]) == []


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_silent_on_a_constant_loss(make: Callable[[], Detector], value: float) -> None:
    assert run(make(), [Row(s, {"loss": value, "lr": 1e-3}) for s in range(500)]) == []


def test_non_finite_rows_do_not_blind_it(make: Callable[[], Detector]) -> None:
    plain = sick()
    nan_at = {50, 120, 121}
    holed = [
        row._replace(values=dict.fromkeys(row.values, math.nan)) if row.step in nan_at else row
        for row in plain
    ]
    found = [f for f in shape(run(make(), holed)) if f[0] != "non_finite"]
    expected = [f for f in shape(run(make(), plain)) if f[0] != "non_finite"]
    assert {kind for kind, tier, _ in expected if tier != "watch"} <= {kind for kind, _, _ in found}


@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_the_unit_of_the_loss_does_not_matter(make: Callable[[], Detector], factor: float) -> None:
    def scaled(row: Row) -> Row:
        values = row.values
        both = {name: values[name] * factor for name in (LOSS, VAL_LOSS) if name in values}
        return changed(row, **both)

    assert shape(run(make(), map(scaled, sick()))) == shape(run(make(), sick()))


def test_the_unit_of_a_loss_below_zero_does_not_matter(make: Callable[[], Detector]) -> None:
    rows = [changed(row, loss=row.values[LOSS] - 3.0) for row in sick()]
    scaled = [changed(row, loss=1000.0 * row.values[LOSS]) for row in rows]
    assert shape(run(make(), rows)) == shape(run(make(), scaled))


@pytest.mark.parametrize("cut", [10, 203, 455, 505, 810])
def test_state_survives_a_round_trip(make: Callable[[], Detector], cut: int) -> None:
    rows = sick()
    whole = make()
    run(whole, rows[:cut])
    state = json.loads(json.dumps(whole.state_dict(), allow_nan=False))
    revived = make()
    revived.load_state_dict(state)
    assert run(revived, rows[cut:]) == run(whole, rows[cut:])
    assert revived.state_dict() == whole.state_dict()


def test_one_sickness_is_not_one_finding_a_row(make: Callable[[], Detector]) -> None:
    assert len(run(make(), sick())) <= 12


def test_every_finding_cites_figures_of_the_rows(make: Callable[[], Detector]) -> None:
    rows = {row.step: row for row in sick()}
    for finding in run(make(), rows.values()):
        assert finding.evidence
        for evidence in finding.evidence:
            assert repr(rows[evidence.step].values[evidence.metric]) == repr(evidence.value)

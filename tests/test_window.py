"""What an agent is shown: robust figures, and a table dense at its end."""

import itertools
import json
import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilot.schema import Row
from autopilot.window import summarise, tail_dense

values = st.floats(allow_nan=True, allow_infinity=True, width=32)


def rows(count: int) -> list[Row]:
    return [Row(step, {"loss": 5 - step / count, "lr": 0.1}) for step in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 5, 12, 13, 16, 17, 100, 512, 10_000])
def test_the_table_is_dense_at_its_end_and_leaves_no_step_out(count: int) -> None:
    table = tail_dense(rows(count), ["loss", "lr"])
    singles = [row for row in table if row.first_step == row.last_step]
    assert [row.last_step for row in singles[-12:]] == list(range(max(1, count - 11), count + 1))
    assert table[0].first_step == 1
    for earlier, later in itertools.pairwise(table):
        assert later.first_step == earlier.last_step + 1
    sizes = [row.last_step - row.first_step + 1 for row in table[1:]]
    assert sizes == sorted(sizes, reverse=True)


def test_the_table_stays_small_whatever_the_length() -> None:
    table = tail_dense(rows(10_000), ["loss", "lr"])
    assert len(table) <= 12 + math.ceil(math.log2(10_000 / 4)) + 1
    assert len(json.dumps([row.model_dump() for row in table])) < 4000


def test_a_bucket_shows_medians_and_no_spike() -> None:
    found = rows(40)
    found[20] = Row(21, {"loss": 1e9, "lr": 0.1})
    table = tail_dense(found, ["loss", "lr"])
    assert all(row.values["loss"] < 10 for row in table if row.first_step != row.last_step)


def test_a_bucket_of_nothing_but_nan_says_so() -> None:
    found = [Row(step, {"loss": math.nan if step < 30 else 1.0}) for step in range(1, 41)]
    table = tail_dense(found, ["loss"])
    assert math.isnan(table[0].values["loss"])
    assert table[-1].values["loss"] == 1.0


def test_a_metric_that_was_not_reported_is_left_out_and_not_invented() -> None:
    table = tail_dense([Row(1, {"loss": 1.0}), Row(2, {})], ["loss", "grad_norm"])
    assert [row.values for row in table] == [{"loss": 1.0}, {}]


def test_an_empty_run_has_an_empty_table() -> None:
    assert tail_dense([], ["loss"]) == ()
    empty = summarise("loss", [])
    assert (empty.count, empty.slope_per_100) == (0, 0.0)
    assert math.isnan(empty.median)


@given(st.lists(values, max_size=60))
def test_what_is_not_finite_is_counted_and_never_averaged(found: list[float]) -> None:
    seen = summarise("loss", [Row(i, {"loss": value}) for i, value in enumerate(found)])
    finite = [value for value in found if math.isfinite(value)]
    assert seen.count == len(found)
    assert seen.non_finite == len(found) - len(finite)
    if finite:
        assert seen.median == median(finite)
        assert (seen.minimum, seen.maximum) == (min(finite), max(finite))
        assert math.isfinite(seen.slope_per_100)
    tail_dense([Row(i, {"loss": value}) for i, value in enumerate(found)], ["loss"])


def test_the_slope_is_that_of_the_course_and_not_of_its_spikes() -> None:
    found = [Row(step, {"loss": 10 - 0.02 * step}) for step in range(200)]
    for spiked in (150, 170, 190):
        found[spiked] = Row(spiked, {"loss": 1e6})
    assert summarise("loss", found).slope_per_100 == pytest.approx(-2.0, rel=0.05)

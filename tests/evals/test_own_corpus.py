"""The corpus that comes along: real recordings of the sandbox, labelled by rule."""

import math
from itertools import pairwise
from pathlib import Path

import pytest

from autopilot.schema import Row
from autopilot_evals.corpus import LabelledRun, own_corpus, read_corpus
from autopilot_evals.importers import open_recording
from autopilot_evals.labels import read_labels
from autopilot_evals.recorder.__main__ import SEED
from autopilot_evals.recorder.labelling import label
from autopilot_evals.recorder.recording import record
from autopilot_evals.recorder.training import Trained, train
from autopilot_evals.scenarios import SCENARIOS
from autopilot_evals.suites.detection import read_all, report
from autopilot_evals.suites.engines import Processes
from autopilot_evals.suites.results import Results

RUNS = read_corpus(own_corpus())


def test_every_scenario_is_in_it_sick_and_sound() -> None:
    assert {run.name.removesuffix(".csv") for run in RUNS} == set(SCENARIOS)
    assert len(RUNS) >= 24
    hurt = [run for run in RUNS if any(event.loss_affecting for event in run.labels.episodes)]
    calm = [run for run in RUNS if not any(e.loss_affecting for e in run.labels.episodes)]
    assert len(hurt) >= 6
    assert len(calm) >= 11


@pytest.mark.parametrize("run", RUNS, ids=[run.name for run in RUNS])
def test_a_recording_reads_as_it_was_and_its_labels_lie_within(run: LabelledRun) -> None:
    recorded = run.open()
    rows = list(recorded.rows())
    scenario = SCENARIOS[run.name.removesuffix(".csv")]
    trained = [row for row in rows if "loss" in row.values]
    assert [row.step for row in trained] == list(range(1, scenario.steps + 1))
    assert any("val_loss" in row.values for row in rows)
    assert recorded.remarks[0] == "written by `autopilot export`: rows are as they were"
    assert len(recorded.remarks) == 2
    assert run.split == scenario.split
    assert all(1 <= e.onset <= e.end <= scenario.steps for e in run.labels.episodes)
    if scenario.family == "benign":
        assert not any(event.loss_affecting for event in run.labels.episodes)


def test_recording_a_scenario_again_gives_the_same_run(tmp_path: Path) -> None:
    name = "healthy-digits"
    again = record(tmp_path, SEED, name)
    kept = own_corpus() / f"{name}.csv"
    ours, theirs = list(open_recording(again).rows()), list(open_recording(kept).rows())
    assert [row.step for row in ours] == [row.step for row in theirs]
    # Another processor or version of torch may add up in another order, and that grows with steps.
    for mine, other in zip(ours[:50], theirs[:50], strict=True):
        assert mine.values["loss"] == pytest.approx(other.values["loss"], rel=1e-2)
    assert read_labels(again.with_name(f"{name}.labels.json")) == read_labels(
        kept.with_name(f"{name}.labels.json")
    )


def test_detection_over_it_finds_what_it_is_known_to_find() -> None:
    found = report(RUNS, read_all(RUNS, Results(None), Processes(1)), seeds=1)
    ours = found.lines["all"][0]
    # A detector that sees more or less shows here; which is better is for people to say.
    assert not found.missed
    sound = {run.name for run in RUNS if SCENARIOS[run.name[:-4]].family == "benign"}
    assert {run for run, _ in found.cried} & sound == {"eval-mismatch.csv"}
    assert ours.recall >= 0.85
    assert all(ours.recall > other.recall for other in found.lines["all"][2:9])


# --- the rules of labelling --------------------------------------------------------------------


def trained(name: str, losses: list[float], *, plan: list[float] | None = None) -> Trained:
    """A training whose losses are given, under the setup of a real scenario."""
    setup = SCENARIOS[name].build(SEED, "sick", SCENARIOS[name].steps)
    plan = plan or [0.01] * len(losses)
    rows = tuple(
        Row(step, {"loss": loss, "lr_planned": lr})
        for step, (loss, lr) in enumerate(zip(losses, plan, strict=True), start=1)
    )
    return Trained(setup, rows)


def falling(steps: int = 500) -> list[float]:
    return [2.0 + 2.0 * 0.99**step for step in range(steps)]


def labelled(name: str, losses: list[float], **more: list[float]) -> list[tuple[str, int, int]]:
    scenario = SCENARIOS[name]
    labels = label(scenario, trained(name, losses, **more), trained(name, falling()))
    return [(event.kind, event.onset, event.end) for event in labels.episodes]


def kinds(name: str, losses: list[float], **more: list[float]) -> list[tuple[str, int, int]]:
    """What must or may be found besides the span of the fault itself."""
    return [event for event in labelled(name, losses, **more) if event[0] != "plateau"]


def test_of_a_fault_that_does_not_show_only_the_span_is_labelled() -> None:
    fault = trained("bit-flip", falling()).setup.fault_step
    assert labelled("bit-flip", falling()) == [("plateau", fault, 500)]


def test_what_a_fault_spans_surrounds_what_it_did_and_overlaps_nothing() -> None:
    losses = [x * (1.5 if 300 <= s < 340 else 1) for s, x in enumerate(falling(), 1)]
    events = labelled("bit-flip", losses)
    assert [kind for kind, _, _ in events] == ["plateau", "spike", "plateau"]
    assert all(a[2] + 1 == b[1] for a, b in pairwise(events))
    assert events[-1][2] == 500


def test_a_loss_that_rises_and_stays_is_a_divergence_from_where_it_rose() -> None:
    ((kind, onset, end),) = kinds(
        "bit-flip", [x * (1.5 if s >= 300 else 1) for s, x in enumerate(falling(), 1)]
    )
    assert (kind, end) == ("divergence", 500)
    assert abs(onset - 300) <= 13


def test_a_loss_that_rises_and_comes_back_is_a_spike() -> None:
    losses = [x * (1.5 if 300 <= s < 340 else 1) for s, x in enumerate(falling(), 1)]
    ((kind, onset, end),) = kinds("bit-flip", losses)
    assert kind == "spike"
    assert abs(onset - 300) <= 13
    assert abs(end - 340) <= 13


def test_a_few_bad_rows_are_no_event_of_a_sick_run() -> None:
    losses = [x * (5 if s in (300, 301, 302) else 1) for s, x in enumerate(falling(), 1)]
    assert kinds("bit-flip", losses) == []


def test_a_loss_that_stays_above_the_references_without_rising_is_a_plateau() -> None:
    assert labelled("lr-too-low", [max(x, 2.6) for x in falling()]) == [("plateau", 1, 500)]


def test_near_zero_a_multiple_is_no_rise() -> None:
    losses = [x - 1.999 for x in falling()]
    losses = [x * (3 if s >= 450 else 1) for s, x in enumerate(losses, 1)]
    assert kinds("bit-flip", losses) == []


def test_of_a_bad_source_the_whole_run_is_labelled_as_bad_data() -> None:
    assert labelled("noisy-shard", falling(800)) == [("spike", 1, 800)]


def test_a_loss_that_is_no_number_is_named_so() -> None:
    losses = falling()
    losses[399:] = [math.nan] * 101
    assert kinds("exploding-gradients", losses) == [("nan", 400, 500)]


def test_rises_before_the_fault_are_not_of_the_fault() -> None:
    fault = trained("bit-flip", falling()).setup.fault_step
    assert fault is not None
    losses = [x * (1.5 if s < fault - 60 and s > 60 else 1) for s, x in enumerate(falling(), 1)]
    assert kinds("bit-flip", losses) == []


def test_of_a_sound_run_only_what_it_was_made_to_meet_is_labelled() -> None:
    losses = [x * (2 if s == 250 else 1) for s, x in enumerate(falling(), 1)]
    assert labelled("healthy", losses) == []
    (blip,) = labelled("benign-blip", falling())
    assert blip[0] == "spike"
    assert blip[2] == blip[1] + 1
    assert len(labelled("outliers", falling())) == 10
    plan = [0.01 * (1 - (s % 200) / 250) for s in range(500)]
    assert labelled("healthy", falling(), plan=plan) == [
        ("lr_change", 201, 201),
        ("lr_change", 401, 401),
    ]


def test_to_come_back_from_easy_data_is_no_rise() -> None:
    sound = [4.0 - 3.0 * step / 500 for step in range(1, 501)]
    course = ((0.5 if 300 <= s < 400 else 1.12 if s >= 400 else 1) for s in range(1, 501))
    losses = [x * factor for x, factor in zip(sound, course, strict=True)]
    events = label(
        SCENARIOS["bit-flip"], trained("bit-flip", losses), trained("bit-flip", sound)
    ).episodes
    assert [event.kind for event in events] == ["plateau"]


def test_a_rise_that_the_reference_makes_too_is_not_of_the_fault() -> None:
    shifted = [x + (2 if s >= 300 else 0) for s, x in enumerate(falling(), 1)]
    slower = [x * (1.2 if s >= 320 else 1) for s, x in enumerate(shifted, 1)]
    sick, sound = trained("bit-flip", slower), trained("bit-flip", shifted)
    events = label(SCENARIOS["bit-flip"], sick, sound).episodes
    assert [event.kind for event in events] == ["plateau"]


def test_a_label_says_how_sure_it_is_and_where_each_answer_of_the_menu_stands() -> None:
    scenario = SCENARIOS["bit-flip"]
    for factor, confidence in ((1.15, "medium"), (1.5, "high")):
        losses = [x * (factor if s >= 300 else 1) for s, x in enumerate(falling(), 1)]
        sick, sound = trained("bit-flip", losses), trained("bit-flip", falling())
        events = label(scenario, sick, sound).episodes
        (event,) = [event for event in events if event.kind == "divergence"]
        assert event.confidence == confidence
        assert event.neutral == ("reset_optimizer_state",)
        assert event.harmful == scenario.harmful


def test_training_a_sick_arm_and_its_reference_differ_only_by_the_fault() -> None:
    scenario = SCENARIOS["bit-flip"]
    sick, sound = (train(scenario, SEED, arm) for arm in ("sick", "reference"))
    fault = sick.setup.fault_step
    assert fault is not None
    before = [
        [row.values for row in arm.rows if row.step < fault and "loss" in row.values]
        for arm in (sick, sound)
    ]
    assert before[0] == before[1]
    assert sick.rows[-1] != sound.rows[-1]

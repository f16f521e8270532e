"""Importers on files that the real libraries wrote."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopilot.errors import BadInput
from autopilot.recording import Fork, RecordedRun
from autopilot_evals.importers import guess_format, open_recording

ENOUGH = [0, 1, 2, 3]


def values(recorded: RecordedRun, metric: str) -> dict[int, float]:
    return {row.step: row.values[metric] for row in recorded.rows() if metric in row.values}


def single(number: float) -> float:
    """A number as TensorBoard's default scalars keep it: in single precision."""
    return float(np.float32(number))


@pytest.fixture
def events(tmp_path: Path) -> Any:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return lambda name="tb", **options: SummaryWriter(str(tmp_path / name), **options)


def test_tensorboard_scalars_of_every_kind_become_rows(events: Any, tmp_path: Path) -> None:
    import torch

    with events() as writer:
        for step in ENOUGH:
            writer.add_scalar("train/loss", 1 / (step + 1), step, walltime=100.0 + step)
            writer.add_scalar("lr", 0.1, step, walltime=100.5 + step)
        writer.add_scalar("eval/loss", math.nan, 3, new_style=True)
        writer.add_scalar("exact", 0.1, 3, new_style=True, double_precision=True)
        writer.add_histogram("weights", torch.arange(4.0), 3)
        writer.add_text("note", "hello", 3)
    recorded = open_recording(tmp_path / "tb")
    assert guess_format(tmp_path / "tb") == "tensorboard"
    assert values(recorded, "loss") == {step: single(1 / (step + 1)) for step in ENOUGH}
    assert [row.time for row in recorded.rows()] == [100.0, 101.0, 102.0, 103.0]
    assert math.isnan(values(recorded, "val_loss")[3])
    assert values(recorded, "exact") == {3: 0.1}
    left_out = [remark for remark in recorded.remarks if "not a scalar" in remark]
    assert [remark.split(":")[0] for remark in left_out] == ["weights", "note/text_summary"]


def test_tensorboard_keeps_every_one_of_many_scalars(events: Any, tmp_path: Path) -> None:
    with events() as writer:
        for step in range(12_000):
            writer.add_scalar("loss", step, step)
    assert values(open_recording(tmp_path / "tb"), "loss") == {s: float(s) for s in range(12_000)}


def test_a_run_resumed_into_its_tensorboard_directory_is_a_branch(
    events: Any, tmp_path: Path
) -> None:
    for part, steps in enumerate((range(10), range(5, 12))):
        with events(filename_suffix=f".{part}") as writer:
            for step in steps:
                writer.add_scalar("lr", 0.1, step)
                writer.add_scalar("loss", step + 100 * part, step)
    recorded = open_recording(tmp_path / "tb")
    assert recorded.forks == (Fork("resume-1", "main", 4),)
    found = [(row.branch, row.step, row.values) for row in recorded.rows()]
    assert found[9:11] == [
        ("main", 9, {"lr": single(0.1), "loss": 9.0}),
        ("resume-1", 5, {"lr": single(0.1), "loss": 105.0}),
    ]
    assert len(found) == 17


def test_tensorboard_directories_beside_each_other_are_read_side_by_side(
    events: Any, tmp_path: Path
) -> None:
    with events("tb/train") as train, events("tb/validation") as validation:
        for step in ENOUGH:
            train.add_scalar("loss", step, step, walltime=10.0 * step)
            validation.add_scalar("loss", step + 50, step, walltime=10.0 * step + 5)
    recorded = open_recording(tmp_path / "tb")
    assert values(recorded, "loss") == {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0}
    assert values(recorded, "val_loss") == {0: 50.0, 1: 51.0, 2: 52.0, 3: 53.0}
    assert recorded.forks == ()


def test_a_tensorboard_file_cut_off_by_a_crash_is_read_to_its_last_whole_record(
    events: Any, tmp_path: Path
) -> None:
    with events() as writer:
        for step in ENOUGH:
            writer.add_scalar("loss", step, step)
    (file,) = (tmp_path / "tb").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    recorded = open_recording(file)
    assert values(recorded, "loss") == {0: 0.0, 1: 1.0, 2: 2.0}
    assert any("bytes after the last whole record" in remark for remark in recorded.remarks)


def test_trainer_state_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    history = [
        {"loss": 2.5, "grad_norm": math.nan, "learning_rate": 1e-4, "epoch": 0.1, "step": 10},
        {"eval_loss": 2.25, "eval_runtime": 3.0, "epoch": 0.1, "step": 10},
        {"loss": 2.0, "grad_norm": 1.5, "learning_rate": 5e-5, "epoch": 0.2, "step": 20},
        {"train_runtime": 9.5, "train_loss": 2.25, "total_flos": 1e15, "epoch": 0.2, "step": 20},
    ]
    state = transformers.TrainerState(log_history=history, max_steps=20, global_step=20)
    (tmp_path / "checkpoint-20").mkdir()
    state.save_to_json(str(tmp_path / "checkpoint-20" / "trainer_state.json"))
    recorded = open_recording(tmp_path / "checkpoint-20")
    assert recorded.steps == 20
    assert values(recorded, "loss") == {10: 2.5, 20: 2.0}
    assert values(recorded, "val_loss") == {10: 2.25}
    assert values(recorded, "lr") == {10: 1e-4, 20: 5e-5}
    assert values(recorded, "train_loss") == {20: 2.25}
    assert math.isnan(values(recorded, "grad_norm")[10])
    assert [row.step for row in recorded.rows()] == [10, 20]
    file = tmp_path / "checkpoint-20" / "trainer_state.json"
    assert open_recording(file).run_id == recorded.run_id


@pytest.mark.filterwarnings("ignore")  # of the library's own making
def test_metrics_of_lightnings_csv_logger(tmp_path: Path) -> None:
    pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(str(tmp_path), name="", version="version_0")
    for step in (49, 99):
        logger.log_metrics({"train_loss_step": 1 / step, "epoch": 0}, step=step)
        logger.log_metrics({"lr-AdamW": 0.1}, step=step)
    logger.log_metrics({"val_loss": math.inf, "train_loss_epoch": 0.5, "epoch": 0}, step=99)
    logger.save()
    recorded = open_recording(tmp_path / "version_0")
    assert guess_format(tmp_path / "version_0") == "lightning"
    assert values(recorded, "loss") == {49: 1 / 49, 99: 1 / 99}
    assert values(recorded, "lr") == {49: 0.1, 99: 0.1}
    assert values(recorded, "val_loss") == {99: math.inf}
    assert values(recorded, "train_loss_epoch") == {99: 0.5}
    assert len(list(recorded.rows())) == 2


@pytest.fixture
def mlruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield mlflow
    mlflow.end_run()


@pytest.mark.filterwarnings("ignore")  # of the library's own making
def test_metrics_of_an_mlflow_file_store(mlruns: Any, tmp_path: Path) -> None:
    with mlruns.start_run() as run:
        for step in ENOUGH:
            mlruns.log_metrics({"train/loss": 1 / (step + 1), "lr": 0.1}, step=step)
        mlruns.log_metric("val_loss", math.nan, step=3)
        for step in (2, 3):
            mlruns.log_metrics({"train/loss": 9.0, "lr": 0.1}, step=step)
    recorded = open_recording(tmp_path / "mlruns")
    assert recorded.forks == (Fork("resume-1", "main", 1),)
    found = [(row.branch, row.step, row.values.get("loss")) for row in recorded.rows()]
    assert found == [
        *(("main", step, 1 / (step + 1)) for step in ENOUGH),
        ("resume-1", 2, 9.0),
        ("resume-1", 3, 9.0),
    ]
    assert all(row.time > 1e9 for row in recorded.rows())
    where = tmp_path / "mlruns" / run.info.experiment_id / run.info.run_id
    assert open_recording(where).run_id == recorded.run_id
    with mlruns.start_run():
        mlruns.log_metric("loss", 1.0, step=1)
    with pytest.raises(BadInput, match="several runs"):
        open_recording(tmp_path / "mlruns")


@pytest.fixture
def offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory that wandb wrote without a network."""
    pytest.importorskip("wandb.sdk.internal.datastore")
    import wandb

    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    with wandb.init(mode="offline", project="p", dir=str(tmp_path)) as run:
        for step in ENOUGH:
            run.log({"train": {"loss": 1 / (step + 1)}, "phase": "main"}, step=10 * step)
        run.log({"train": {"loss": math.nan}, "eval/loss": math.inf}, step=40)
    (found,) = (tmp_path / "wandb").glob("offline-run-*")
    return found


@pytest.mark.filterwarnings("ignore")  # of the library's own making
def test_an_offline_run_of_wandb(offline_run: Path) -> None:
    recorded = open_recording(offline_run)
    loss = values(recorded, "loss")
    assert [loss[10 * step] for step in ENOUGH] == [1 / (step + 1) for step in ENOUGH]
    assert math.isnan(loss[40])
    assert values(recorded, "val_loss") == {40: math.inf}
    assert all(row.time > 1e9 for row in recorded.rows())
    assert any("phase: not a number, left out (4" in remark for remark in recorded.remarks)
    (file,) = offline_run.glob("*.wandb")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert any("after a broken record" in remark for remark in open_recording(file).remarks)


def test_a_chart_exported_from_wandb(tmp_path: Path) -> None:
    file = tmp_path / "wandb_export.csv"
    file.write_text(
        '"Step","sunny-sky-1 - _step","sunny-sky-1 - _step__MIN","sunny-sky-1 - train/loss",'
        '"sunny-sky-1 - train/loss__MIN","sunny-sky-1 - train/loss__MAX"\n'
        '"0","0","0","2.5","2.5","2.5"\n"10","10","10","NaN","NaN","NaN"\n'
    )
    recorded = open_recording(file)
    assert list(values(recorded, "loss")) == [0, 10]
    assert math.isnan(values(recorded, "loss")[10])
    assert any("__MIN and __MAX columns: left out (6" in remark for remark in recorded.remarks)


def test_a_history_downloaded_from_wandb(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"  # pandas writes run.history() with an index column
    file.write_text(
        ",_step,_runtime,_timestamp,train/global_step,train/loss\n"
        "0,0,1.5,1700000000.5,100,2.5\n1,1,2.5,1700000001.5,200,\n"
    )
    recorded = open_recording(file)
    assert values(recorded, "loss") == {100: 2.5}
    assert [row.time for row in recorded.rows()] == [1700000000.5, 1700000001.5]
    assert [row.step for row in open_recording(file, step="_step").rows()] == [0, 1]


@pytest.mark.parametrize(
    ("file", "content", "package"),
    [
        ("run.wandb", b":W&B\xe1\xbe\x00", "wandb"),
        ("events.out.tfevents.1.h.1.0", b"", "tensorboard"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(
    tmp_path: Path, file: str, content: bytes, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(BadInput, match=rf"pip install '[a-z-]*\[?{package}"):
        open_recording(tmp_path / file)

"""Which names other programs give to the metrics that detectors know.

Names are compared without case, and with ``/``, ``-``, ``.``, spaces and brackets as ``_``:
``train/loss``, ``Train Loss`` and ``train_loss`` are one. Where several columns of a recording fit
one metric, the one whose name stands first in :data:`ALIASES` is taken and the others keep their
own names. A metric's own name always comes first.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from autopilot.errors import BadInput
from autopilot.schema import metrics

MILLI: Final = 0.001
KNOWN: Final = frozenset(
    value for name, value in vars(metrics).items() if name.isupper() and isinstance(value, str)
)
"""Every metric with a meaning."""

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    metrics.LOSS: (
        "train_loss", "training_loss", "loss_train", "loss_training", "lm_loss", "train_lm_loss",
        "lm_loss_training", "train_loss_step", "loss_step", "batch_loss", "train_batch_loss",
        "train_ce_loss", "ce_loss", "train_cross_entropy_loss", "train_loss_epoch",
    ),
    metrics.VAL_LOSS: (
        "valid_loss", "validation_loss", "eval_loss", "loss_val", "loss_valid", "loss_validation",
        "loss_eval", "lm_loss_validation", "val_lm_loss", "dev_loss", "heldout_loss",
        "held_out_loss", "val_loss_epoch", "validation_ctc_loss", "val_ctc_loss",
    ),
    metrics.ACCURACY: (
        "val_acc", "valid_accuracy", "valid_acc", "validation_accuracy", "validation_acc",
        "eval_accuracy", "eval_acc", "accuracy_val", "acc_val", "accuracy_validation",
        "eval_mean_reward", "eval_reward", "rollout_ep_rew_mean", "ep_rew_mean",
        "charts_episodic_return", "episodic_return", "episode_reward_mean", "episode_reward",
        "mean_reward", "reward_mean", "reward", "train_reward",
    ),
    metrics.GRAD_NORM: (
        "gradient_norm", "train_grad_norm", "train_gradient_norm", "total_grad_norm",
        "grad_norm_total", "global_grad_norm", "optim_total_grad_norm", "grad_2_0_norm_total",
        "gnorm", "norm",
    ),
    metrics.LR: (
        "learning_rate", "train_lr", "train_learning_rate", "lr_group0", "lr_group_0", "lr_pg1",
        "optim_learning_rate_group0",
    ),
    metrics.PARAM_NORM: ("params_norm", "parameter_norm", "optim_total_param_norm"),
    metrics.LOSS_SCALE: ("train_loss_scale", "grad_scale", "amp_scale"),
    metrics.TOKENS_PER_SECOND: (
        "tokens_per_sec", "tok_per_s", "tok_s", "tokens_s", "throughput_tokens_per_sec",
    ),
    metrics.STEP_TIME: (
        "step_time_s", "step_time_ms", "iteration_time", "iteration_time_s", "iteration_time_ms",
        "iter_time", "time_per_iteration", "seconds_per_step", "elapsed_time_per_iteration",
        "elapsed_time_per_iteration_ms", "time_s", "ms", "time",
    ),
    metrics.DATA_WAIT: ("data_time", "data_loading_time", "dataloading_time", "data"),
}  # fmt: skip
"""Other names of each metric, the one that is taken first coming first."""

FACTORS: Final[Mapping[str, float]] = {
    "step_time_ms": MILLI, "iteration_time_ms": MILLI, "ms": MILLI,
    "elapsed_time_per_iteration": MILLI, "elapsed_time_per_iteration_ms": MILLI,
}  # fmt: skip
"""What values under an alias are multiplied by, where their unit is not the metric's."""

_OPTIMIZER_LR: Final = re.compile(
    r"lr_[a-z0-9]*(adam|sgd|adagrad|adadelta|rmsprop|lion|muon|adafactor|lamb|lars)[a-z0-9]*(_pg1)?"
)
"""Lightning's LearningRateMonitor: ``lr-AdamW``, ``lr-AdamW/pg1``."""

_HELD_OUT: Final = ("val", "valid", "validation", "eval", "evaluation", "test", "dev", "heldout")
_BOOKKEEPING: Final = re.compile(
    r"_?(epoch|epochs|percentage|progress|runtime|timestamp|wall_time|created_at|date|datetime)"
    r"|.*(duration|elapsed|submission_time|total_steps|global_step|trainer_global_step)"
    r"|(total|time|consumed|num)_.*|.*_(seen|timesteps|runtime)"
)


def plain(name: str) -> str:
    """How names are compared.

    >>> plain("Train/Loss"), plain("elapsed time per iteration (ms)"), plain("lr-AdamW/pg1")
    ('train_loss', 'elapsed_time_per_iteration_ms', 'lr_adamw_pg1')
    """
    return re.sub(r"[\s/\-.:()\[\]]+", "_", name.strip().casefold()).rstrip("_")


_RANKED: Final[Mapping[str, tuple[str, int]]] = {
    **{alias: (to, rank) for to, names in ALIASES.items() for rank, alias in enumerate(names, 2)},
    **{name: (name, 1) for name in KNOWN},
}


def known_metric(column: str) -> tuple[str, int] | None:
    """The metric that a column's name stands for, and its rank among such names; 0 is the first."""
    if column in KNOWN:
        return column, 0
    name = plain(column)
    if _OPTIMIZER_LR.fullmatch(name):
        return metrics.LR, len(ALIASES[metrics.LR]) + 2
    return _RANKED.get(name)


def is_held_out(column: str) -> bool:
    """Whether a column is of an evaluation: rows of those may be written late."""
    metric = known_metric(column)
    if metric is not None:
        return metric[0] in (metrics.VAL_LOSS, metrics.ACCURACY)
    return plain(column).split("_")[0] in _HELD_OUT


def is_bookkeeping(column: str) -> bool:
    """Whether a column counts or times the run itself: rows of every kind carry it."""
    return _BOOKKEEPING.fullmatch(plain(column)) is not None


@dataclass(frozen=True)
class Naming:
    """What each column of a recording is called in its rows.

    Attributes:
        columns: Name and factor by column.
        remarks: What was taken for what, a line each kind.
    """

    columns: Mapping[str, tuple[str, float]]
    remarks: tuple[str, ...]


def name_columns(
    columns: Iterable[str],
    given: Mapping[str, str] | None = None,
    own: Iterable[str] = (),
) -> Naming:
    """Decide what each numeric column is called.

    Args:
        columns: Names as the file has them, in its order.
        given: Names chosen by the user, a known metric or the column's own name by column; they
            come before the table.
        own: Columns that keep their own name.

    Raises:
        BadInput: ``given`` names no column, no metric, or one metric twice.

    >>> name_columns(["epoch", "train_loss", "ms", "loss"]).columns["ms"]
    ('step_time', 0.001)
    """
    present = list(columns)
    chosen = {name: name for name in own if name in present} | _checked(dict(given or {}), present)
    taken = {to: column for column, to in chosen.items() if to in KNOWN}
    ranked = [
        (*fitting, at, column)
        for at, column in enumerate(present)
        if column not in chosen and (fitting := known_metric(column)) is not None
    ]
    rivals: dict[str, str] = {}
    for metric, _, _, column in sorted(ranked, key=lambda found: found[1:3]):
        if taken.setdefault(metric, column) != column:
            rivals[column] = metric
    found = {column: (to, _factor(column, to)) for to, column in taken.items()}
    for column in present:
        beside = f"recorded/{column}" if column in taken else column
        found.setdefault(column, (beside, 1.0))
    return Naming({column: found[column] for column in present}, _told(found, rivals))


def _checked(given: dict[str, str], present: list[str]) -> dict[str, str]:
    for column, to in given.items():
        if column not in present:
            raise BadInput(
                f"names: no numeric column {column!r} to call {to!r}; there are {listed(present)}"
            )
        if to not in KNOWN and to != column:
            raise BadInput(
                f"names: {to!r} for {column!r} is not a known metric; use one of "
                f"{', '.join(sorted(KNOWN))}, or {column!r} itself to keep its own name"
            )
        twice = [other for other, also in given.items() if also == to and other != column]
        if twice:
            raise BadInput(f"names: both {column!r} and {twice[0]!r} are to be {to!r}; choose one")
    return given


def _factor(column: str, metric: str) -> float:
    known = known_metric(column)
    return FACTORS.get(plain(column), 1.0) if known and known[0] == metric else 1.0


def _told(found: Mapping[str, tuple[str, float]], rivals: Mapping[str, str]) -> tuple[str, ...]:
    told = []
    taken = [
        f"{column} as {to}" + (f" (times {factor:g})" if factor != 1.0 else "")
        for column, (to, factor) in found.items()
        if to in KNOWN and to != column
    ]
    if taken:
        told.append(f"taken: {', '.join(taken)}")
    beside = [f"{name} (also a {metric})" for name, metric in rivals.items()]
    if beside:
        told.append(f"kept under their own names beside the one taken: {', '.join(beside)}")
    moved = [f"{column} as {to}" for column, (to, _) in found.items() if to.startswith("recorded/")]
    if moved:
        told.append(f"moved aside for a name given to another column: {', '.join(moved)}")
    unknown = [c for c, (to, _) in found.items() if to not in KNOWN and c not in rivals]
    if unknown:
        told.append(f"kept under their own names, unknown to detectors: {listed(unknown)}")
    return tuple(told)


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message: the first of them, and how many more there are."""
    given = list(names)
    more = f" and {len(given) - most} more" if len(given) > most else ""
    return ", ".join(given[:most]) + more

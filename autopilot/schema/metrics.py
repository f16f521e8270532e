"""The names of the metrics that detectors and agents know, with their units.

A loop may report any other metric under any other name; these are the ones with a meaning.
"""

from typing import Final

LOSS: Final = "loss"
"""Training loss of one step, raw, before any averaging or scaling."""
VAL_LOSS: Final = "val_loss"
"""Held-out loss, from the registered evaluation or reported by the loop."""
ACCURACY: Final = "val_accuracy"
"""Held-out accuracy or reward; higher is better."""
GRAD_NORM: Final = "grad_norm"
"""Global 2-norm of the gradients of one step, unscaled, before clipping."""
LR: Final = "lr"
"""Learning rate of the first parameter group in force at the step."""
LR_PLANNED: Final = "lr_planned"
"""What the declared plan says for the step, times what interventions put in force; without a
declared plan, what the scheduler says, times the same."""
UPDATE_RATIO: Final = "update_ratio"
"""Norm of the parameters' change at the step over their norm before it. At the first step of a run
it is exactly proportional to the learning rate; later ones saturate where that is too high."""
SECOND_MOMENT_STALENESS: Final = "second_moment_staleness"
"""Largest over tensors of sqrt(sum g² / sum v) of Adam's second moment v: far above its own past
when gradients outgrew their estimate."""
EPS_SHARE: Final = "eps_share"
"""Share of parameters whose Adam epsilon exceeds sqrt(v): they are hardly updated at all."""
WEIGHT_DECAY_RATE: Final = "weight_decay_rate"
"""Share of the weights that decay takes away at a step, whatever the gradient: learning rate times
decay, mean over all weights. Reported with the update ratio, from a thousandth on."""
PARAM_NORM: Final = "param_norm"
"""Global 2-norm of the trained parameters before the step's update."""
CLIPPED: Final = "clipped"
"""1 where the session clipped the gradients of the step, else 0."""
UPDATE_SKIPPED: Final = "update_skipped"
"""1 where no parameter was updated at the step (overflow, reflex), else 0."""
LOSS_SCALE: Final = "loss_scale"
"""Loss scale of mixed-precision training."""
BATCH_DIGEST: Final = "batch_digest"
"""CRC-32 of the step's batch, exact in a float."""
LABEL_ENTROPY: Final = "label_entropy"
"""Entropy of the labels or next tokens, in nats: the cross entropy of a model that knows nothing
but how frequent each is. Reported once, after the first fifty batches."""
STEP_TIME: Final = "step_time"
"""Seconds from one step boundary to the next, without time held or paused."""
DATA_WAIT: Final = "data_wait"
"""Seconds that the step waited for its batch."""
TOKENS_PER_SECOND: Final = "tokens_per_second"
"""Tokens trained on a second, where the loop reports tokens."""
MAX_ATTENTION_LOGIT: Final = "max_attention_logit"
"""Largest attention logit before the softmax."""
DEAD_FRACTION: Final = "dead_fraction"
"""Share of rectified units that were zero for every input of a batch."""
HOST_MEMORY: Final = "host_memory_bytes"
"""Resident memory of the process."""
DEVICE_MEMORY: Final = "device_memory_bytes"
"""Memory allocated on the accelerator."""

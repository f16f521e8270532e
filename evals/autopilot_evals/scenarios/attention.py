"""A loop that reports its largest attention logit, as people who train transformers at scale do."""

from dataclasses import replace

from torch import Tensor

from autopilot.schema.metrics import MAX_ATTENTION_LOGIT
from autopilot_evals.scenarios.base import Batch, Setup
from autopilot_evals.scenarios.gpt import GPT

EVERY = 10


def with_attention_logits(setup: Setup) -> Setup:
    """Report the largest attention logit of every tenth step; ``setup.model`` is a GPT."""
    model = setup.model
    assert isinstance(model, GPT), "only its blocks can say"
    seen = 0

    def loss(batch: Batch) -> Tensor:
        nonlocal seen
        model.watch_logits(seen % EVERY == 0)
        seen += 1
        return setup.loss(batch)

    def metrics() -> dict[str, float]:
        largest = model.largest_logit()
        reported = setup.metrics()
        return reported if largest is None else reported | {MAX_ATTENTION_LOGIT: largest}

    return replace(setup, loss=loss, metrics=metrics)

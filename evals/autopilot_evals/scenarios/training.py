"""The plain training that every scenario starts from: a character model, AdamW, a schedule."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from autopilot_evals.scenarios.base import Batch, Schedule, Setup
from autopilot_evals.scenarios.gpt import GPT
from autopilot_evals.scenarios.text import CONTEXT, TextBatches, corpus, generator

TUNED_LR = 0.004
"""Best constant learning rate of the small GPT here, from a sweep by factors of two."""
PEAK_LR = 0.006
"""Best peak of a cosine schedule here."""
WARMUP = 60


def small_gpt(seed: int) -> GPT:
    """Return a GPT of 33,000 to 67,000 parameters; width and weights follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(len(corpus().symbols), CONTEXT, width=(32, 40, 48)[seed % 3])


def constant(lr: float) -> Schedule:
    """Return the same learning rate at every step."""
    return lambda step: lr


def warmup_cosine(steps: int, peak: float = PEAK_LR, warmup: int = WARMUP) -> Schedule:
    """Rise linearly over the warm-up, then fall by a half cosine to a twentieth of the peak."""

    def lr(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))

    return lr


def broken_from(plan: Schedule, step: int, factor: float) -> Schedule:
    """Follow the plan up to the step, and a multiple of it from there on."""
    return lambda s: plan(s) * (factor if s >= step else 1.0)


def follow(optimizer: Optimizer, schedule: Schedule) -> LambdaLR:
    """Return a scheduler that sets exactly this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = 1.0
        group["initial_lr"] = 1.0
    return LambdaLR(optimizer, schedule)


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean loss over all symbols, or images, of a batch."""
    return F.cross_entropy(model(batch.inputs).flatten(0, -2), batch.targets.flatten())


def backward(loss: Tensor) -> None:
    """Fill the gradients."""
    loss.backward()  # type: ignore[no-untyped-call]


def train(
    seed: int,
    steps: int,
    schedule: Schedule,
    *,
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    batches: Sequence[Batch] | None = None,
    held_out: Batch | None = None,
    lr_plan: Schedule | None = None,
    fault_step: int | None = None,
) -> Setup:
    """Put a training together; what a scenario does not give is as in a healthy run."""
    model = model or small_gpt(seed)
    optimizer = optimizer or AdamW(
        model.parameters(), lr=1.0, betas=betas, eps=eps, weight_decay=weight_decay
    )
    scheduler = follow(optimizer, schedule)
    unseen = held_out or corpus().held_out

    @torch.no_grad()
    def evaluate() -> float:
        return float(cross_entropy(model, unseen))

    def update() -> None:
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

    return Setup(
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        schedule=schedule,
        batches=batches or TextBatches(seed, room(steps)),
        loss=lambda batch: cross_entropy(model, batch),
        evaluate=evaluate,
        steps=steps,
        evaluate_every=max(steps // 10, 1),
        backward=backward,
        update=update,
        lr_plan=lr_plan,
        worst_loss=math.log(len(corpus().symbols)),
        fault_step=fault_step,
    )


def sized(seed: int, steps: int) -> Sequence[Batch]:
    """Return batches of the text whose size follows from the seed too."""
    return TextBatches(seed, room(steps), size=choose(seed, "size", (12, 16, 20)))


def draw(seed: int, what: str, low: float, high: float) -> float:
    """Return a number between the two that follows from the seed alone."""
    return low + (high - low) * float(torch.rand((), generator=generator(seed, what)))


def room(steps: int) -> int:
    """Return how many batches a run of so many steps is given, skipping included."""
    return 4 * steps + 1000


def choose(seed: int, what: str, options: Sequence[int]) -> int:
    """Return one of the options that follows from the seed alone."""
    return options[int(draw(seed, what, 0, len(options)))]

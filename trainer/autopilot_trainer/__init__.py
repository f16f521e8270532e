"""The training side: puts a PyTorch loop under the autopilot's control."""

from autopilot_trainer.session import Session

__all__ = ["Session"]

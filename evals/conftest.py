"""What doctests are collected from: modules that need an extra, where it is installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("inspect_ai") else ["autopilot_evals/inspect_tasks.py"]

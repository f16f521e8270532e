"""What can be evaluated: one module a suite, each from its inputs to a report."""

"""One fault each."""

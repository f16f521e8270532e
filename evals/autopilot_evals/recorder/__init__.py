"""Makes the project's own corpus: scenarios trained without a pilot, recorded and labelled."""

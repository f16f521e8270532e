"""Nothing wrong, though it may look so."""

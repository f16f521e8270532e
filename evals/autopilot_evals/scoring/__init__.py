"""How what detectors and agents did is held against what happened."""

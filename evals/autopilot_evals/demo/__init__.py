"""The demonstration: one training three times over, left alone, piloted, and as it should be."""

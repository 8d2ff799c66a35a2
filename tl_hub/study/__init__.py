"""Studies: which technique, and how much data, by many ordinary runs on the same rows."""

COSTS = {
    "seconds": "seconds of training",
    "memory": "peak memory, MiB",
    "size": "size as published, MB",
    "parameters": "trained parameters",
}
"""What a technique may cost -> how an axis calls it."""

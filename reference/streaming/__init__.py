"""The oracle on models larger than memory: weights are made or read when they are used, and then freed."""

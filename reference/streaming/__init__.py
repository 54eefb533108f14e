"""The oracle on models that no memory holds: weights are made, or read, as they are used, and let go."""

"""The suite's own MLX decoder as a port under test."""

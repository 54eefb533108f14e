"""The released mlx-lm as a port under test."""

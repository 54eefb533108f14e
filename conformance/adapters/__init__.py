"""Adapters: the only way in which the judge reaches an implementation."""

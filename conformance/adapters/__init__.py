"""Adapters: the judge reaches an implementation through them alone."""

"""transformers as a port under test."""

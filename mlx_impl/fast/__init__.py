"""The fast path: the same forward pass in fewer and larger operations."""

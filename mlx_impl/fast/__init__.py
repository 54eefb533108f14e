"""The fast path, which computes the same forward pass in fewer and larger operations."""

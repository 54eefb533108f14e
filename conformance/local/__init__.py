"""Local judgement: every tap is computed from the port's own parents of it, and compared with the port's tap."""

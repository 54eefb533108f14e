"""The truth: configurations, weights by rule, the float64 oracle, the PyTorch cross-check and the exporter."""

"""The float64 oracle: Gemma 4's text decoder in plain NumPy, one file per module, every step a tap.

Shape letters: B batch, L query length, S key length, D hidden, H query heads, K key/value heads, E head dim,
P per-layer width, N layers, F feed-forward width, V vocabulary, X experts.
"""

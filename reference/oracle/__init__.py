"""The float64 oracle: Gemma 4's text decoder in plain NumPy, one file per module, every step a tap.

`Decoder` holds the steps from ids to logits, in order. `Ops` gathers the functions of the modules, which it calls.
`Oracle` names the classes that make an answer, of which a known mistake replaces one.

Shape letters: B batch, L query length, S key length, D hidden, H query heads, K key/value heads, E head dim,
P per-layer width, N layers, F feed-forward width, V vocabulary, X experts.
"""

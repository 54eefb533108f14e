"""PyTorch/transformers as the second derivation: its own Gemma 4 decoder, built from given weights, taps captured.

Importing this package needs the extra `reference` (torch and transformers).
"""

from reference.transformers_model.model import TransformersModel

__all__ = ["TransformersModel"]

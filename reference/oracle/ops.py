"""Every function of the forward pass under its plain name, in one arithmetic."""

from __future__ import annotations

from reference.oracle.attention import Attention
from reference.oracle.embedding import Embedding
from reference.oracle.logits import Logits
from reference.oracle.moe import MoE
from reference.oracle.ple import PLE
from reference.oracle.rope import RoPE


class Ops(Embedding, PLE, RoPE, Attention, MoE, Logits):
    """The functions of the forward pass: `Ops(F64).rms_norm(x, weight, eps)`.

    They call each other through this class, so that a subclass with one function wrong is the whole oracle with one
    mistake. PLE and MoE bring the norm and the MLP with them.
    """

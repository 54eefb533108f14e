"""Gemma 4's chat format in plain Python: prompts equal, byte for byte, to what the published templates give.

What the format cannot express is refused in one line, in the place of a prompt that has lost it: roles that it does
not know, content that is neither a string nor a list of parts, parts of unknown type, a tool's answer without a call,
values that are not JSON or nest too deep, a lone surrogate. (Keys of a message that no template reads may hold
anything, and so may keys of a part but its type and text.) What a template renders, however oddly, is rendered so: a
schema's type that is a list, a description that is null, an object without properties.
"""

from mlx_impl.chat.prompt.output import CONTROL_TOKENS, POLICIES, OnControlTokens
from mlx_impl.chat.prompt.render import render
from mlx_impl.chat.prompt.template import TEMPLATES, Template

__all__ = ["CONTROL_TOKENS", "POLICIES", "TEMPLATES", "OnControlTokens", "Template", "render"]

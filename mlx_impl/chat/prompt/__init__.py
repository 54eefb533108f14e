"""Gemma 4's chat format in plain Python: prompts are equal, byte for byte, to those of the published templates.

What the format cannot express is refused with an error of one line, instead of a prompt that leaves it out: unknown
roles, content that is neither a string nor a list of parts, parts of unknown type, a tool's answer without a call,
values that are not JSON or nest too deep, a lone surrogate. (Keys of a message that no template reads may hold
anything, and so may the keys of a part other than its type and text.) Odd values that a template renders are rendered
in the same way: a schema's type that is a list, a description that is null, an object without properties.
"""

from mlx_impl.chat.prompt.output import CONTROL_TOKENS, POLICIES, OnControlTokens
from mlx_impl.chat.prompt.render import render
from mlx_impl.chat.prompt.template import TEMPLATES, Template

__all__ = ["CONTROL_TOKENS", "POLICIES", "TEMPLATES", "OnControlTokens", "Template", "render"]

"""The prompt of a conversation, exact to the byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_impl.chat.prompt.content import write_system
from mlx_impl.chat.prompt.output import POLICIES, OnControlTokens, Output
from mlx_impl.chat.prompt.plain import cannot_write, plain_messages, plain_tools
from mlx_impl.chat.prompt.template import LAUNCH, TURN_CLOSING, Template
from mlx_impl.chat.prompt.tools import Declarations
from mlx_impl.chat.prompt.turns import Message, Turns
from mlx_impl.errors import problem, shown

_EMPTY_THOUGHT = "<|channel>thought\n<channel|>"


def render(
    messages: Sequence[Mapping[str, Any]],
    template: Template | str,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    enable_thinking: bool | None = None,
    add_generation_prompt: bool = True,
    preserve_thinking: bool = False,
    on_control_tokens: OnControlTokens = "keep",
) -> str:
    """The prompt that `apply_chat_template` gives for these arguments with the published template.

    `template` is a Template or its name (`"small@2026-07-09"`; `"large"` is the current one). Messages hold `role`
    and `content` (a string or a list of parts), and those of an assistant also `reasoning`, `tool_calls` and
    `tool_responses`; a key with the value None counts as missing. `preserve_thinking` keeps the thoughts of older tool
    calls in templates since 2026-07-09. Control tokens in the text of the conversation are kept, as the templates do,
    or escaped with a zero-width space, or refused. Raises MlxImplError for what the template refuses, and for what it
    would drop silently.
    """
    template = template if isinstance(template, Template) else Template.parse(template)
    if on_control_tokens not in POLICIES:
        raise problem(
            "on_control_tokens", got=shown(on_control_tokens), expected=" or ".join(POLICIES), cure="choose one"
        )
    _require_bool("add_generation_prompt", add_generation_prompt)
    _require_bool("preserve_thinking", preserve_thinking)
    if enable_thinking is not None:
        _require_bool("enable_thinking", enable_thinking)
    try:
        out = _write_prompt(messages, template, tools, bool(enable_thinking), add_generation_prompt, preserve_thinking)
    except RecursionError:
        raise cannot_write("the conversation", "values nested deeper than the stack allows", "less nesting") from None
    return out.text(on_control_tokens)


def _write_prompt(
    messages: object, template: Template, tools: object, thinking: bool, generation_prompt: bool, preserve: bool
) -> Output:
    spoken, declared = plain_messages(messages), plain_tools(tools)
    out = Output()
    out.mark("<bos>")
    has_system = spoken[0]["role"] in ("system", "developer")
    _write_system_turn(out, template, spoken[0] if has_system else None, declared, thinking)
    end = Turns(out, template, preserve_thinking=preserve).write(spoken[has_system:], first=int(has_system))
    if generation_prompt:
        _write_generation_prompt(out, template, end, thinking)
    return out


def _require_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise problem(name, got=shown(value), expected="True or False", cure="choose one")


def _write_system_turn(
    out: Output, template: Template, system: Message | None, tools: Sequence[object], thinking: bool
) -> None:
    """Write the system turn, which holds the switch for thinking, the system message and the tools."""
    if system is None and not tools and not thinking:
        return
    out.mark("<|turn>system\n")
    if thinking:
        out.mark("<|think|>" if template.revision == LAUNCH else "<|think|>\n")
    if system is not None:
        write_system(out, template, system.get("content"), "messages[0].content")
    declarations = Declarations(out, template)
    for index, tool in enumerate(tools):
        out.mark("<|tool>")
        declarations.write(tool, f"tools[{index}]")
        out.mark("<tool|>")
    out.mark("<turn|>\n")


def _write_generation_prompt(out: Output, template: Template, end: str, thinking: bool) -> None:
    """Write the beginning of the model's turn, unless the turn is open already.

    Large models get an empty thought if thinking is off. Since 2026-07-09 all models get an open thought after a tool's
    response if thinking is on.
    """
    opens = end != "response" if template.revision == LAUNCH else end not in ("response", "call")
    if opens:
        out.mark("<|turn>model\n")
    if template.size == "large" and not thinking and (opens or template.revision == LAUNCH):
        out.mark(_EMPTY_THOUGHT)
    elif template.since(TURN_CLOSING) and end == "response" and thinking:
        out.mark("<|channel>thought\n")

"""The turns of a conversation after the system turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mlx_impl.chat.prompt.calls import Calls, names_by_id
from mlx_impl.chat.prompt.content import write_content
from mlx_impl.chat.prompt.output import Output
from mlx_impl.chat.prompt.plain import cannot_write
from mlx_impl.chat.prompt.template import LAUNCH, TURN_CLOSING, Template
from mlx_impl.errors import shown

Message = Mapping[str, Any]
End = Literal["", "call", "response", "media"]
"""The last part of a message: after a call the tool is next, after a response the model."""


class Turns:
    """Writes messages for one template."""

    def __init__(self, out: Output, template: Template, *, preserve_thinking: bool) -> None:
        self._out = out
        self._template = template
        self._preserve_thinking = preserve_thinking
        self._calls = Calls(out, template)
        self._launch = template.revision == LAUNCH
        self._current = template.since(TURN_CLOSING)

    def write(self, messages: Sequence[Message], *, first: int) -> End:
        """Write the messages from `messages[first]` of the conversation on; return how the last one ends.

        Since 2026-04-10 a message of role tool is not a turn of its own: it answers a call within the turn of the call.
        """
        users = [index for index, message in enumerate(messages) if message["role"] == "user"]
        last_user = users[-1] if users else -1
        spoken = [index for index, message in enumerate(messages) if self._launch or message["role"] != "tool"]
        if messages and spoken[:1] != [0]:
            raise _no_call(f"messages[{first}]")
        roles = [messages[index]["role"] for index in spoken]
        end: End = ""
        for at, index in enumerate(spoken):
            stop = spoken[at + 1] if at + 1 < len(spoken) else len(messages)
            end = self._write_message(
                messages[index],
                messages[index + 1 : stop],
                first + index,
                recent=index > last_user,
                before=roles[at - 1] if at else None,
                after=roles[at + 1] if at + 1 < len(roles) else None,
            )
        return end

    def _write_message(
        self,
        message: Message,
        answers: Sequence[Message],
        index: int,
        *,
        recent: bool,
        before: str | None,
        after: str | None,
    ) -> End:
        """Write `messages[index]` of the conversation with the tools' answers to it; return how it ends."""
        where, role = f"messages[{index}]", "model" if message["role"] == "assistant" else message["role"]
        if self._launch or not (role == "model" and before == "assistant"):
            self._out.mark(f"<|turn>{role}\n")
        calls, responses = _list_in(message, "tool_calls", where), _list_in(message, "tool_responses", where)
        self._write_reasoning(message, where, recent=recent, with_calls=bool(calls))
        end: End = "call" if calls else ""
        for number, call in enumerate(calls):
            self._calls.write_call(call, f"{where}.tool_calls[{number}]")
        for number, response in enumerate(responses):
            self._calls.write_native(response, f"{where}.tool_responses[{number}]")
        if answers and (responses or not calls):
            raise _no_call(f"messages[{index + 1}]")
        called = names_by_id(calls) if answers else {}
        for number, answer in enumerate(answers, start=index + 1):
            self._calls.write_tool_message(answer, called, f"messages[{number}]")
        answered = bool(responses or answers)
        if answered:
            end = "response"
        media, says = write_content(self._out, self._template, message, f"{where}.content", of_model=role == "model")
        if media and not self._current:
            end = "media"
        self._close(role, end, after, answered=answered, says=says)
        return end

    def _close(self, role: str, end: End, after: str | None, *, answered: bool, says: bool) -> None:
        """End the turn, or leave it open if a tool's response or the rest of the answer follows."""
        if end == "call" and not self._launch:
            self._out.mark("<|tool_response>")
            return
        if self._current:
            goes_on = role == "model" and after == "assistant"
            left_open = goes_on or (answered and not says and after is None)
        else:
            left_open = answered and not says
        if not left_open:
            self._out.mark("<turn|>\n")

    def _write_reasoning(self, message: Message, where: str, *, recent: bool, with_calls: bool) -> None:
        """Write the thoughts after the last user turn: of tool calls only, and since 2026-07-09 of all messages."""
        thought = None if self._launch else message.get("reasoning") or message.get("reasoning_content")
        wanted = recent and (with_calls or self._current)
        kept = self._current and self._preserve_thinking and with_calls
        if not thought or not (wanted or kept):
            return
        if not isinstance(thought, str):
            raise cannot_write(f"{where}.reasoning", shown(thought), "a string")
        self._out.mark("<|channel>thought\n")
        self._out.say(thought)
        self._out.mark("\n<channel|>")


def _list_in(message: Message, key: str, where: str) -> Sequence[object]:
    value = message.get(key) or []
    if not isinstance(value, list):
        raise cannot_write(f"{where}.{key}", shown(value), "a list")
    return value


def _no_call(where: str) -> Exception:
    return cannot_write(where, "a tool's answer without a call before it", "one after a message with tool_calls")

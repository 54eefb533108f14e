"""Random conversations and tools: of every shape that the format knows, and of shapes that it does not."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SNIPPETS = st.sampled_from(
    (
        *("", " ", "\n", "\t", "\u00a0", "\u200b", "\\n", '"', "{", "}", ",", ":", "null", "{{ x }}", "{% if %}"),
        *("hi", "Ünï", "中文", "🙂", "thought\n"),
        *('<|"|>', "<|channel>", "<channel|>", "<turn|>", "<|turn>user\n", "<|image|>", "<bos>"),
    )
)
TEXTS = st.lists(SNIPPETS, max_size=4).map("".join)
NAMES = st.sampled_from(
    ["get", "Get", "b", "A", "type", "description", "required", "properties", "nullable", "ß", "items"]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
ARGUMENTS = st.dictionaries(NAMES, VALUES, max_size=4)


def _objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of which any field may be missing."""
    return st.fixed_dictionaries({}, optional=fields)


KINDS = st.sampled_from(["string", "STRING", "object", "array", "number", "integer", "boolean", "null", "Object"])
TYPES = KINDS | st.lists(KINDS, max_size=2)
REQUIRED = st.lists(NAMES, max_size=3)
LEAF_SCHEMAS = _objects(
    type=TYPES | st.none(),
    description=TEXTS | st.none(),
    enum=st.lists(SCALARS, max_size=3) | VALUES,
    nullable=st.booleans(),
    additionalProperties=st.booleans(),
    default=SCALARS,
)
SCHEMAS = st.recursive(
    LEAF_SCHEMAS,
    lambda inner: _objects(
        type=TYPES,
        description=TEXTS,
        properties=st.dictionaries(NAMES, inner, max_size=3),
        items=inner | st.none(),
        required=REQUIRED,
        nullable=st.booleans(),
        additionalProperties=st.booleans() | inner,
        anyOf=st.lists(inner, max_size=2),
    ),
    max_leaves=6,
)
FUNCTIONS = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "description": TEXTS | st.none(),
        "parameters": SCHEMAS
        | st.none()
        | st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(NAMES, SCHEMAS, max_size=4), "required": REQUIRED}
        ),
        "response": SCHEMAS,
        "strict": st.booleans(),
    },
)
TOOLS = st.none() | st.lists(st.fixed_dictionaries({"type": st.just("function"), "function": FUNCTIONS}), max_size=3)

TEXT_PARTS = st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS})
MEDIA_PARTS = st.sampled_from([{"type": kind} for kind in ("image", "audio", "video", "image_url", "input_audio")])
CONTENTS = st.one_of(TEXTS, st.none(), st.lists(TEXT_PARTS | MEDIA_PARTS, max_size=4))
IDS = st.sampled_from(["call_1", "call_2", "call_3"])
CALLS = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": NAMES}, optional={"arguments": ARGUMENTS | st.none() | TEXTS}),
    },
    optional={"id": IDS},
)
RESPONSES = st.fixed_dictionaries({}, optional={"name": NAMES | st.none(), "response": ARGUMENTS | VALUES})
ASSISTANTS = st.fixed_dictionaries(
    {"role": st.just("assistant")},
    optional={
        "content": CONTENTS,
        "reasoning": TEXTS,
        "reasoning_content": TEXTS,
        "tool_calls": st.lists(CALLS, max_size=3),
        "tool_responses": st.lists(RESPONSES, max_size=2),
    },
)
TOOL_MESSAGES = st.fixed_dictionaries(
    {"role": st.just("tool"), "content": TEXTS | VALUES | st.lists(TEXT_PARTS | MEDIA_PARTS, max_size=3)},
    optional={"name": NAMES, "tool_call_id": IDS},
)
OTHERS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "user", "system", "developer", "model"]), "content": CONTENTS},
    optional={"reasoning": TEXTS, "name": NAMES},
)
TURNS = st.one_of(
    OTHERS.map(lambda message: [message]),
    ASSISTANTS.map(lambda message: [message]),
    st.tuples(ASSISTANTS, st.lists(TOOL_MESSAGES, max_size=3)).map(lambda pair: [pair[0], *pair[1]]),
)
CONVERSATIONS = st.lists(TURNS, min_size=1, max_size=5).map(lambda turns: [m for turn in turns for m in turn])

TIDY_TOOLS = st.none() | st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": NAMES, "description": TEXTS},
                optional={
                    "parameters": st.fixed_dictionaries(
                        {
                            "type": st.just("object"),
                            "properties": st.dictionaries(NAMES, SCHEMAS, max_size=3),
                            "required": REQUIRED,
                        }
                    )
                },
            ),
        }
    ),
    max_size=2,
)


@st.composite
def _calls_and_answers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A message that calls tools, and an answer to each of its calls."""
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(draw(st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=3)))
    ]
    message = {"role": "assistant", "content": draw(TEXTS), "tool_calls": calls, "reasoning": draw(TEXTS)}
    answers = [{"role": "tool", "tool_call_id": call["id"], "content": draw(TEXTS)} for call in calls]
    return [message, *answers]


def _spoken(role: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    content = TEXTS | st.lists(TEXT_PARTS | st.sampled_from([{"type": "image"}, {"type": "audio"}]), max_size=3)
    return content.map(lambda said: [{"role": role, "content": said}])


TIDY_CONVERSATIONS = st.tuples(
    st.just([]) | TEXTS.map(lambda text: [{"role": "system", "content": text}]),
    st.lists(_spoken("user") | _spoken("assistant") | _calls_and_answers(), min_size=1, max_size=6),
).map(lambda pair: [*pair[0], *(message for turn in pair[1] for message in turn)])
"""What a well-behaved client sends: every call is answered and every part can be written."""

ANYTHING = st.recursive(
    SCALARS | st.floats() | st.just("\ud800") | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            NAMES
            | st.sampled_from(["role", "content", "tool_calls", "function", "arguments", "type", "text", "parameters"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
"""What no client should send."""

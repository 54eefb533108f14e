"""Commands on prompts: write one, and make those of the fixtures again."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from conformance.adapters.base import PromptAdapter, PromptRequest, Refused, Skip
from conformance.adapters.registry import AdapterUnavailable, BadOption, broken, create
from conformance.cli.app import (
    BAD_INPUT,
    CONFORMS,
    DIFFERS,
    FixturesDir,
    app,
    complain,
    needs_reference,
    out,
    progress_bar,
    stop,
)
from conformance.fetch import cache
from gemma4_contract import FixtureError, Fixtures
from gemma4_contract.files import sha256
from gemma4_contract.prompts import TEMPLATE_NAME, THINKING, Conversation, PublishedFile, Texts, write_prompts

_SHAPE = "a list of messages, or an object with messages and perhaps tools"


@app.command()
def prompt(
    conversation: Annotated[
        str, typer.Argument(help="JSON file, or - for standard input.", metavar="CONVERSATION.json")
    ],
    template: Annotated[str, typer.Option(help="Size class and revision, such as small@2026-07-09.")] = "small",
    thinking: Annotated[Literal["on", "off"] | None, typer.Option(help="Left to the template when not given.")] = None,
    generation_prompt: Annotated[
        bool,
        typer.Option("--generation-prompt/--no-generation-prompt", help="Open the model's turn.", show_default=False),
    ] = True,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json (default: the one that was fetched).", metavar="FILE")
    ] = None,
    impl: Annotated[str, typer.Option(help="The implementation that writes it.", metavar="NAME")] = "mlx_impl",
) -> None:
    """Print the prompt of a conversation as {"text": ..., "ids": [...]}.

    ids is null where no tokenizer is at hand: `gemma4-conformance fetch tokenizer`.
    """
    adapter = create(impl)
    if not isinstance(adapter, PromptAdapter):
        raise BadOption(f"--impl: got {impl}, expected an implementation that writes prompts")
    spoken = _read(conversation)
    template = _full_name(template)
    request = PromptRequest(
        messages=spoken["messages"],
        tools=spoken.get("tools"),
        template=template,
        enable_thinking=THINKING[thinking or "unset"],
        add_generation_prompt=generation_prompt,
        preserve_thinking=spoken.get("preserve_thinking", False),
    )
    path = tokenizer or cache.tokenizer_path()
    if path.is_dir():
        path /= "tokenizer.json"
    if tokenizer and not path.is_file():
        raise FixtureError(tokenizer, got="no file", expected="a tokenizer.json", cure="name one with --tokenizer")
    try:
        text = adapter.prompt(request)
        ids = adapter.encode(text, path) if path.is_file() else None
    except Refused as error:
        stop(f"{conversation}: {error}", BAD_INPUT)
    except Skip as error:
        raise AdapterUnavailable(f"--impl {impl}: {error}") from None
    except Exception as error:  # foreign code: whatever it raises, the command ends with one line
        raise broken(impl, error) from None
    if ids is None:
        complain("ids are null: no tokenizer was fetched (gemma4-conformance fetch tokenizer) or named (--tokenizer)")
    typer.echo(json.dumps({"text": text, "ids": ids}, ensure_ascii=False))


@app.command()
def export_prompts(
    check: Annotated[bool, typer.Option("--check", help="Change nothing: say what would change.")] = False,
    template: Annotated[
        list[str] | None,
        typer.Option(help="Add a revision, or take a file instead of the fetched one.", metavar="NAME=FILE"),
    ] = None,
    fixtures_dir: FixturesDir = None,
) -> None:
    """Make the prompts of the fixtures again with the published templates and tokenizer, and print what changed.

    A new conversation is a file in prompts/chat/ without renders. Needs the extra `reference`, and
    `gemma4-conformance fetch tokenizer` and `fetch templates`.
    """
    fixtures = Fixtures(fixtures_dir)
    prompts = fixtures.prompts
    facts = prompts.facts()
    templates = {name: _template(name) for name in facts.templates} | dict(map(_named, template or ()))
    tokenizer = cache.tokenizer_path()
    if not tokenizer.is_file():
        raise AdapterUnavailable("export-prompts needs the published tokenizer; gemma4-conformance fetch tokenizer")
    made: dict[str, Conversation | Texts] = {}
    with needs_reference("export-prompts"), progress_bar(quiet=False) as progress:
        from reference.chat import goldens
        from reference.chat.real import RealChat, versions

        chat = RealChat(tokenizer)
        for done, prompt_id in enumerate(prompts.ids):
            progress(done, len(prompts.ids), prompt_id)
            stored = prompts.document(prompt_id)
            if isinstance(stored, Texts):
                made[prompt_id] = goldens.encode_all(stored, chat)
            else:
                made[prompt_id] = goldens.render_all(stored, chat, templates)
        new_facts = facts.model_copy(
            update={
                "templates": {name: _published(text.encode()) for name, text in templates.items()},
                "tokenizer": _published(tokenizer.read_bytes()),
                "special_tokens": chat.special_tokens(),
                "versions": versions(),
            }
        )
    changed = [line for prompt_id, value in made.items() for line in _changes(fixtures, prompt_id, value)]
    if not template and new_facts != facts:
        changed.append("prompts/facts.json: other facts")
    added = [name for name in templates if name not in facts.templates]
    for line in changed if not added else _steps(made, added, list(templates)):
        typer.echo(line)
    if not check:
        for prompt_id, value in made.items():
            write_prompts(prompts.path(prompt_id), value)
        write_prompts(prompts.root / "facts.json", new_facts)
        fixtures.write_sums()
    out.print(f"{len(made)} files of prompts, {len(changed)} changes", highlight=False)
    raise typer.Exit(DIFFERS if check and changed else CONFORMS)


def _read(name: str) -> dict[str, Any]:
    """The conversation of a file or of standard input."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        value = json.loads(text)
    except OSError as error:
        raise FixtureError(
            name, got=error.strerror or "an error", expected="a JSON file", cure="mend the path"
        ) from None
    except (ValueError, RecursionError) as error:  # of the decoder, and of UTF-8
        raise FixtureError(name, got=f"no JSON ({error})", expected=_SHAPE, cure="mend the file") from None
    if isinstance(value, list):
        return {"messages": value}
    if not isinstance(value, dict) or "messages" not in value:
        raise FixtureError(name, got=f"a JSON {type(value).__name__}", expected=_SHAPE, cure="mend the file")
    return value


def _full_name(template: str) -> str:
    """`small` is the current template of its size class."""
    known = list(Fixtures().prompts.facts().templates)
    if template in known:
        return template
    revisions = [name for name in known if name.split("@")[0] == template]
    if not revisions:
        raise BadOption(f"--template: got {template!r}, expected small, large or one of {', '.join(known)}")
    return max(revisions)


def _named(option: str) -> tuple[str, str]:
    """`NAME=FILE` as the name of a template and its text."""
    name, _, file = option.partition("=")
    if not re.fullmatch(TEMPLATE_NAME, name):
        raise BadOption(f"--template: got {option!r}, expected NAME=FILE with a name such as small@2026-07-09")
    try:
        return name, Path(file).read_bytes().decode()
    except OSError as error:
        raise BadOption(f"--template: got {option!r} ({error.strerror}), expected NAME=FILE") from None
    except UnicodeDecodeError:
        raise BadOption(f"--template: got {option!r}, which is no UTF-8, expected a chat_template.jinja") from None


def _template(name: str) -> str:
    path = cache.template_path(name)
    if not path.is_file():
        raise AdapterUnavailable(f"export-prompts needs the template {name}; gemma4-conformance fetch templates")
    return path.read_bytes().decode()


def _published(data: bytes) -> PublishedFile:
    return PublishedFile(sha256=sha256(data), bytes=len(data))


def _changes(fixtures: Fixtures, prompt_id: str, value: Conversation | Texts) -> list[str]:
    from reference.chat import goldens

    if isinstance(value, Texts):
        return [] if value == fixtures.prompts.texts(prompt_id) else [f"{prompt_id}: other ids"]
    return goldens.changes(fixtures.prompts.conversation(prompt_id), value)


def _steps(made: dict[str, Conversation | Texts], added: list[str], templates: list[str]) -> list[str]:
    """The changes of each added template from the one before it in its size class."""
    from reference.chat import goldens

    lines = []
    for name in added:
        earlier = [other for other in templates if other.split("@")[0] == name.split("@")[0] and other < name]
        lines.append(f"{name} against {max(earlier, default='nothing')}:")
        for value in made.values():
            if isinstance(value, Conversation) and earlier:
                lines += [f"  {line}" for line in goldens.steps(value, name, max(earlier))]
    return lines

"""`python -m mlx_impl`: a checkpoint answers a prompt, or holds a conversation.

Exit codes: 0 answered, 1 stdout was closed, 2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mlx_impl.chat.prompt import Template
from mlx_impl.chat.tokenizer import Tokenizer
from mlx_impl.checkpoint.load import load, load_config
from mlx_impl.cli.frame import INTERRUPTED, errors_as_exit_codes, interruptible, next_line, relax_encodings
from mlx_impl.cli.session import Session, chat_prompt, raw_prompt, template_of
from mlx_impl.cli.show import JsonShow, Show, Speech, TextShow
from mlx_impl.errors import problem
from mlx_impl.fast.decoder import FusedDecoder
from mlx_impl.generation.prompt_cache import StoredModel
from mlx_impl.generation.sampling import Sampling, published_sampling
from mlx_impl.generation.stop_ids import stop_ids

app = typer.Typer(
    help="Text generation with Gemma 4.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

Model = Annotated[Path, typer.Option(help="Folder with config.json, safetensors, tokenizer.json.", metavar="DIR")]
MaxTokens = Annotated[int, typer.Option(help="Largest length of an answer.", min=1)]
Temperature = Annotated[float | None, typer.Option(help="0 takes the most probable token.", show_default=False)]
TopK = Annotated[int | None, typer.Option(help="Keep the k most probable tokens; 0 keeps all.", show_default=False)]
TopP = Annotated[
    float | None, typer.Option(help="Keep the most probable tokens, up to this share.", show_default=False)
]
MinP = Annotated[
    float | None, typer.Option(help="Keep tokens at least this part as probable as the best.", show_default=False)
]
Penalty = Annotated[float | None, typer.Option(help="Divides the logits of tokens that occurred.", show_default=False)]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text.", show_default=False)]
Thinking = Annotated[bool, typer.Option("--thinking/--no-thinking", help="Let the model think first.")]
System = Annotated[str | None, typer.Option(help="Text of the system turn.", metavar="TEXT")]
TemplateName = Annotated[
    str | None,
    typer.Option(
        "--template", help="Template such as small@2026-07-09 (default: the current one of the model's size)."
    ),
]
Dtype = Annotated[Literal["bfloat16", "float16", "float32"], typer.Option(help="Dtype of weights and activations.")]
CacheFile = Annotated[
    Path | None,
    typer.Option("--prompt-cache", help="Start with the caches in this file, and save them there.", metavar="FILE"),
]
PrefillStep = Annotated[int, typer.Option(help="Tokens of the prompt that are fed at a time.", min=1)]
Ple = Annotated[
    Literal["resident", "mapped"], typer.Option(help="Keep the per-layer embeddings in memory, or in their file.")
]
Plain = Annotated[bool, typer.Option("--plain", help="Run the readable decoder instead of the fast one.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, one object on each line.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The options of both commands, checked."""

    sampling: Sampling
    stop_ids: tuple[int, ...]
    max_tokens: int
    prefill_step: int
    template: Template
    tokenizer: Tokenizer
    show: Show


@app.command()
def generate(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="Text of the user, or - for standard input.")],
    max_tokens: MaxTokens = 512,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    thinking: Thinking = False,
    system: System = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text: only <bos> is added, no chat template.")
    ] = False,
    template: TemplateName = None,
    dtype: Dtype = "bfloat16",
    ple: Ple = "resident",
    plain: Plain = False,
    prompt_cache: CacheFile = None,
    prefill_step: PrefillStep = 512,
    as_json: Json = False,
) -> None:
    """Answer one prompt. Options that are not given are those of the checkpoint's generation_config.json."""
    with errors_as_exit_codes():
        asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        asked |= {"repetition_penalty": repetition_penalty, "seed": seed}
        setup = _setup(model, asked, max_tokens, prefill_step, template, as_json)
        text = sys.stdin.read() if prompt == "-" else prompt
        if raw:
            if thinking or system is not None or template is not None:
                got, cure = "--thinking, --system or --template with it", "these need a conversation"
                raise problem("--raw", got=got, expected="neither", cure=cure)
            ids, shared = raw_prompt(text, setup.tokenizer)
        else:
            messages = [*_system(system), {"role": "user", "content": text}]
            ids, shared = chat_prompt(messages, setup.template, thinking, setup.tokenizer)
        session = _session(model, lambda: _decoder(model, dtype, ple, plain), prompt_cache, setup)
        with interruptible() as cancelled:
            _answer(session, setup, ids, [] if prompt_cache is None else [shared], cancelled, raw=raw)
            if cancelled():
                raise typer.Exit(INTERRUPTED)
        session.save(ids, shared)


@app.command()
def chat(
    model: Model,
    max_tokens: MaxTokens = 2048,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    thinking: Thinking = False,
    system: System = None,
    template: TemplateName = None,
    dtype: Dtype = "bfloat16",
    ple: Ple = "resident",
    plain: Plain = False,
    prompt_cache: CacheFile = None,
    prefill_step: PrefillStep = 512,
    as_json: Json = False,
) -> None:
    """Hold a conversation: every line that you enter is answered, until the input ends (ctrl-D).

    ctrl-C ends an answer; between two answers it ends the conversation.
    """
    with errors_as_exit_codes():
        asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        asked |= {"repetition_penalty": repetition_penalty, "seed": seed}
        setup = _setup(model, asked, max_tokens, prefill_step, template, as_json)
        messages: list[dict[str, Any]] = _system(system)
        session = _session(model, lambda: _decoder(model, dtype, ple, plain), prompt_cache, setup)
        ids, shared = list[int](), 0
        while (line := next_line()) is not None:
            messages.append({"role": "user", "content": line})
            ids, shared = chat_prompt(messages, setup.template, thinking, setup.tokenizer)
            with interruptible() as cancelled:
                # The template drops old thoughts, so the next prompt differs from this one where the answer begins.
                speech = _answer(session, setup, ids, [shared, len(ids) - 1], cancelled, raw=False)
            messages.append({"role": "assistant", "content": speech.parts["content"]})
        session.save(ids, shared)


@app.command()
def sidecar(
    model: Annotated[Path, typer.Argument(help="Folder of the checkpoint.", metavar="DIR")],
    out: Annotated[Path, typer.Argument(help="Folder to make, with links to the checkpoint's files.", metavar="OUT")],
) -> None:
    """Make a folder that mlx-lm's commands run with this decoder: `mlx_lm.server --model OUT --trust-remote-code`."""
    with errors_as_exit_codes():
        try:
            from mlx_impl.sidecar import link
        except ModuleNotFoundError as error:
            cure = "pip install 'gemma4-conformance[mlx-lm]'"
            raise problem(str(error.name), got="not installed", expected="mlx-lm", cure=cure) from None
        link(model, out)


def main() -> None:
    """Run the command."""
    relax_encodings()
    app(prog_name="python -m mlx_impl")


def _setup(
    model: Path, asked: dict[str, Any], max_tokens: int, prefill_step: int, template: str | None, as_json: bool
) -> Setup:
    """Check the options. All mistakes in them are found before the weights are read."""
    config = load_config(model)
    given = {name: value for name, value in asked.items() if value is not None}
    sampling = replace(published_sampling(model), **given)
    if sampling.temperature > 0 and sampling.seed is None:
        sampling = replace(sampling, seed=secrets.randbits(32))
    return Setup(
        sampling=sampling,
        stop_ids=stop_ids(model),
        max_tokens=max_tokens,
        prefill_step=prefill_step,
        template=template_of(config, template),
        tokenizer=Tokenizer.load(model),
        show=JsonShow() if as_json else TextShow(),
    )


def _session(model: Path, make: Callable[[], StoredModel[Any]], cache_file: Path | None, setup: Setup) -> Session:
    if cache_file is not None and not cache_file.absolute().parent.is_dir():
        cure = "make the folder first"
        raise problem(str(cache_file), got="a file in no folder", expected="a place to write to", cure=cure)
    Speech(setup.tokenizer, raw=False)  # raises now, before the weights are read
    start = time.perf_counter()
    session = Session(make(), cache_file)
    setup.show.loaded(str(model), time.perf_counter() - start)
    return session


def _decoder(model: Path, dtype: str, ple: Literal["resident", "mapped"], plain: bool) -> StoredModel[Any]:
    decoder = load(model, dtype, ple)
    return decoder if plain else FusedDecoder(decoder)


def _answer(
    session: Session, setup: Setup, ids: list[int], places: list[int], cancelled: Callable[[], bool], *, raw: bool
) -> Speech:
    speech, show = Speech(setup.tokenizer, raw=raw), setup.show
    with show.progress() as progress:
        tokens = session.answer(
            ids,
            places,
            sampling=setup.sampling,
            max_tokens=setup.max_tokens,
            stop_ids=setup.stop_ids,
            prefill_step=setup.prefill_step,
            progress=progress,
            cancelled=cancelled,
        )
        first = next(tokens, None)
    if first is not None:
        show.say(speech.add(first))
    for token in tokens:
        show.say(speech.add(token))
    show.say(speech.finish())
    assert session.figures is not None
    show.end(speech, session.figures, setup.sampling.seed if setup.sampling.temperature > 0 else None)
    return speech


def _system(text: str | None) -> list[dict[str, Any]]:
    return [] if text is None else [{"role": "system", "content": text}]

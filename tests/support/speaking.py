"""A miniature with a tokenizer of its vocabulary: a checkpoint that the command can run, whatever it says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from mlx_impl.chat.prompt import CONTROL_TOKENS
from mlx_impl.chat.tokenizer import Tokenizer
from mlx_impl.checkpoint.load import load
from mlx_impl.generation.generate import stream
from tests.support.generated import MODELS, ROOT

VOCAB = 320
GREEDY = ("--temperature", "0", "--dtype", "float32")
USER = [{"role": "user", "content": "hi there"}]
FIGURES = {
    *("prompt_tokens", "reused_tokens", "first_token_seconds", "prompt_tokens_per_second", "generated_tokens"),
    *("decode_seconds", "tokens_per_second", "active_memory", "peak_memory", "load_seconds", "finish", "seed", "model"),
}
WORDS = ["▁", "\n", "th", "the", "▁the", "er", "in", "an", "re", "ing", "▁a"]
TOKENS = [*CONTROL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *"abcdefghijklmnopqrstuvwxyz", *WORDS]
TOKENS += [f"q{n}" for n in range(VOCAB - len(TOKENS))]
MERGES = [
    ("t", "h"),
    ("th", "e"),
    ("▁", "the"),
    ("e", "r"),
    ("i", "n"),
    ("a", "n"),
    ("r", "e"),
    ("in", "g"),
    ("▁", "a"),
]


def tokenizer() -> tokenizers.Tokenizer:
    """A tokenizer of the same kind as Gemma 4's, with a token for each row of a miniature's embedding."""
    vocabulary = {token: token_id for token_id, token in enumerate(TOKENS)}
    model = models.BPE(vocab=vocabulary, merges=MERGES, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    built = tokenizers.Tokenizer(model)
    built.normalizer = normalizers.Replace(" ", "▁")
    built.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    built.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    built.add_special_tokens([tokenizers.AddedToken(t, normalized=False, special=True) for t in CONTROL_TOKENS])
    return built


def checkpoint(folder: Path, name: str = "e2b-mini", generation: dict[str, Any] | None = None) -> Path:
    """A folder with a miniature, that tokenizer and a generation_config.json."""
    folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(MODELS / name / file, folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    config = {"eos_token_id": [1, TOKENS.index("<turn|>")]} | (generation or {})
    (folder / "generation_config.json").write_text(json.dumps(config))
    return folder


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """`python -m mlx_impl` as a process, whose streams are pipes."""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-m", "mlx_impl", *arguments]
    return subprocess.Popen(command, text=True, encoding="utf-8", env=environment, **{**streams, **options})


def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    process = start(*arguments)
    out, err = process.communicate(stdin, timeout=120)
    return process.returncode, out, err


def asked(*arguments: str, stdin: str = "") -> dict[str, Any]:
    """The one answer of `generate --json`."""
    code, out, err = run("generate", *arguments, "--json", stdin=stdin)
    assert (code, err) == (0, "")
    (answer,) = answers(out)
    return answer


def answers(out: str) -> list[dict[str, Any]]:
    """The object of each answer, having made sure that those of its tokens came before it."""
    found, tokens = [], []
    for line in out.splitlines():
        value = json.loads(line)
        if "id" in value:
            tokens.append(value)
            continue
        assert [token["id"] for token in tokens] == value["ids"]
        assert value["text"].startswith("".join(token["text"] for token in tokens))
        assert value.keys() >= FIGURES
        found.append(value)
        tokens = []
    assert not tokens
    return found


def greedy(model: Path, prompt: str, count: int) -> list[int]:
    """What follows a rendered prompt."""
    ids = Tokenizer.load(model).encode(prompt)
    return [token.id for token in stream(load(model), ids, max_tokens=count, stop_ids=[319])]

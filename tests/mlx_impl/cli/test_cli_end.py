"""The command interrupted: it ends with what was reached, and leaves no broken file; what it can go on with."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mlx_impl.chat.prompt import render
from mlx_impl.chat.tokenizer import Tokenizer
from mlx_impl.checkpoint.load import load
from mlx_impl.cli.session import Session
from mlx_impl.fast.decoder import FusedDecoder
from mlx_impl.generation.generate import stream
from mlx_impl.generation.sampling import Sampling
from tests.support.speaking import GREEDY, USER, answers, asked, checkpoint, greedy, start


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with PLE, so of the small templates; it never stops by itself."""
    return checkpoint(tmp_path_factory.mktemp("speaking") / "model", generation={"eos_token_id": [319]})


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Tokenizer:
    return Tokenizer.load(model)


@pytest.mark.slow
def test_ctrl_c_ends_the_text_and_leaves_the_file_as_it_was(model: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "cache"
    asked("--model", str(model), "a", "--max-tokens", "1", *GREEDY, "--prompt-cache", str(file))
    before = file.read_bytes()
    process = start(
        "generate", "--model", str(model), "hi there", "--max-tokens", "1000000", *GREEDY, "--prompt-cache", str(file)
    )
    assert process.stdout is not None
    begin = process.stdout.read(5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    ids = greedy(model, render(USER, "small"), 300)
    reached = [tokenizer.decode(ids[:count]) + "\n" for count in range(1, 300)]
    assert begin + out in reached or len(begin + out) > len(reached[-1])
    assert out.endswith("\n")
    assert ", interrupted" in err
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == ["cache"]
    assert file.read_bytes() == before


def test_ctrl_c_in_a_conversation_ends_the_answer_alone(model: Path) -> None:
    process = start("chat", "--model", str(model), "--max-tokens", "1000000", *GREEDY, "--json")
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdin.write("hi there\n")
    process.stdin.flush()
    begin = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)  # which closes stdin, and so ends the conversation
    assert (process.returncode, err) == (0, "")
    (answer,) = answers(begin + out)
    assert answer["finish"] == "cancelled"


def test_a_closed_pipe_is_quiet(model: Path) -> None:
    for form in ((), ("--json",)):
        process = start("generate", "--model", str(model), "hi there", "--max-tokens", "1000000", *GREEDY, *form)
        assert process.stdout is not None
        assert process.stderr is not None
        with process:
            process.stdout.read(5)
            process.stdout.close()
            err = process.stderr.read()
        assert process.returncode == 1
        assert all(line.startswith(f"{model}: loaded") for line in err.splitlines()), err


def test_a_prompt_that_is_cancelled_is_gone_on_with(model: Path) -> None:
    session, ids = Session(FusedDecoder(load(model)), None), list(range(30, 60))
    fed: list[int] = []
    options: Any = {"max_tokens": 5, "stop_ids": (), "prefill_step": 4, "progress": lambda done, _: fed.append(done)}
    stopped = session.answer(ids, [20], sampling=Sampling(), cancelled=lambda: fed[-1] >= 12, **options)
    assert list(stopped) == []
    assert session.figures is not None
    assert (session.figures.finish, session.figures.generated_tokens) == ("cancelled", 0)
    again = [token.id for token in session.answer(ids, [20], sampling=Sampling(), cancelled=lambda: False, **options)]
    assert session.figures.reused_tokens == 12
    assert fed[-1] == 18
    assert again == [token.id for token in stream(load(model), ids, max_tokens=5)]


def test_what_cannot_be_gone_back_to_is_not_saved(model: Path, tmp_path: Path) -> None:
    ids, file = list(range(30, 60)), tmp_path / "cache"
    options: Any = {"max_tokens": 5, "stop_ids": (), "prefill_step": 9, "progress": lambda *_: None}
    options |= {"sampling": Sampling(), "cancelled": lambda: False}
    session = Session(FusedDecoder(load(model)), file)
    list(session.answer(ids, [], **options))
    session.save(ids, 12)
    session.save(ids, 0)
    assert os.listdir(tmp_path) == []
    list(session.answer([7, *ids], [12], **options))
    session.save([7, *ids], 12)
    again = Session(FusedDecoder(load(model)), file)
    list(again.answer([7, *ids[:11], 8], [], **options))
    assert again.figures is not None
    assert again.figures.reused_tokens == 12

"""`gemma4-conformance fetch`: what it prints, its exit codes, and one line for whatever a user can cause."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import huggingface_hub
import pytest

from conformance.fetch import cache, download, published, tokenizer
from tests.support.commands import Call, call_command
from tests.support.fetch_fakes import TEMPLATES, VECTORS, Server, serving, sources
from tests.support.runs import one_line, run

SDIST, WHEEL = published.LLAMA_CPP.file, published.TRL.file

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Call:
    """Exit code, stdout and stderr of the command, in this process."""

    return functools.partial(call_command, capsys, monkeypatch, "fetch")


def test_fetch_tokenizer_says_where_it_lies(call: Call, server: Server) -> None:
    code, out, err = call("tokenizer")
    assert code == 0
    assert out.splitlines() == [
        f"tokenizer.json: {cache.tokenizer_path()} (made from {SDIST})",
        *(f"{name}: {cache.vectors_dir() / name} ({SDIST})" for name in VECTORS),
        *(f"{name}: {cache.template_path(name)} ({SDIST})" for name in ("large@2026-04-02", "large@2026-04-10")),
    ]
    kept = cache.downloads_dir() / SDIST
    assert one_line(err) == f"kept for the next fetch, delete it when you like: {kept} (0.0 MB)"
    asked = len(server.requests)
    code, out, err = call("tokenizer")
    assert (code, err, len(server.requests)) == (0, "", asked)
    assert out.splitlines()[0] == f"tokenizer.json: {cache.tokenizer_path()} (already there)"
    cache.tokenizer_path().write_bytes(b"damaged")
    _, out, _ = call("tokenizer")
    said = f"(made from {SDIST}, instead of a damaged one)"
    assert out.splitlines()[0] == f"tokenizer.json: {cache.tokenizer_path()} {said}"


def test_fetch_templates(call: Call) -> None:
    code, out, err = call("templates")
    assert code == 0
    assert [line.partition(" (")[0] for line in out.splitlines()] == [
        f"{name}: {cache.template_path(name)}" for name in published.TEMPLATES
    ]
    assert [line.partition(": ")[2] for line in err.splitlines()] == [
        f"{cache.downloads_dir() / name} (0.0 MB)" for name in (WHEEL, SDIST)
    ]


def test_fetch_templates_by_name_each_once(call: Call) -> None:
    code, out, _ = call("templates", "small@2026-07-09", "small@2026-04-02", "small@2026-07-09")
    assert code == 0
    assert [line.partition(": ")[0] for line in out.splitlines()] == ["small@2026-07-09", "small@2026-04-02"]


def test_json_for_machines(call: Call) -> None:
    code, out, err = call("tokenizer", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["files"][0] == {
        "name": "tokenizer.json",
        "path": str(cache.tokenizer_path()),
        "sha256": tokenizer.TOKENIZER.sha256,
        "source": f"made from {SDIST}",
    }
    assert said["packages"] == [str(cache.downloads_dir() / SDIST)]
    _, out, _ = call("templates", "large@2026-04-02", "--json")
    said = json.loads(out)
    assert [(file["name"], file["source"]) for file in said["files"]] == [("large@2026-04-02", "already there")]
    assert said["packages"] == []


def test_from_a_checkpoint(call: Call, server: Server, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.build(sources()))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES["large@2026-07-09"])
    code, out, err = call("tokenizer", "--from", str(tmp_path))
    said = f"tokenizer.json: {cache.tokenizer_path()} ({tmp_path / 'tokenizer.json'})\n"
    assert (code, out, err) == (0, said, "")
    code, out, err = call("templates", "--from", str(tmp_path))
    path = cache.template_path("large@2026-07-09")
    said = f"large@2026-07-09: {path} ({tmp_path / 'chat_template.jinja'})\n"
    assert (code, out, err) == (0, said, "")
    assert server.requests == []


def test_from_the_hub(call: Call, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    holds = {
        ("google/gemma-4-E2B-it", "tokenizer.json"): tokenizer.build(sources()),
        ("google/gemma-4-E2B-it", "chat_template.jinja"): TEMPLATES["small@2026-07-09"].encode(),
        ("google/gemma-4-31B-it", "chat_template.jinja"): TEMPLATES["large@2026-07-09"].encode(),
    }

    def hub_download(repository: str, name: str) -> str:
        (tmp_path / "file").write_bytes(holds[repository, name])
        return str(tmp_path / "file")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub_download)
    _, out, _ = call("tokenizer", "--from", "hub")
    assert out == f"tokenizer.json: {cache.tokenizer_path()} (google/gemma-4-E2B-it)\n"
    _, out, _ = call("templates", "--from", "hub")
    assert [line.partition(":")[0] for line in out.splitlines()] == ["small@2026-07-09", "large@2026-07-09"]
    assert server.requests == []


# what can go wrong


@pytest.mark.parametrize("command", ["tokenizer", "templates"])
def test_an_unreachable_index_is_an_environment_fault(call: Call, command: str) -> None:
    with serving() as other:
        gone = other.url
    code, out, err = call(command, "--index-url", f"{gone}/simple")
    assert (code, out) == (3, "")
    assert one_line(err).startswith(f"{gone}/simple/")
    assert one_line(err).endswith("; name another index (--index-url URL) or a file that you have (--from PATH)")


def test_a_hub_that_fails_is_an_environment_fault(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    code, out, err = call("templates", "--from", "hub")
    assert (code, out) == (3, "")
    assert one_line(err).startswith("google/gemma-4-31B-it/chat_template.jinja: RuntimeError; take --from index")


@pytest.mark.parametrize("command", ["tokenizer", "templates"])
def test_another_file_is_bad_input(call: Call, tmp_path: Path, command: str) -> None:
    name = {"tokenizer": "tokenizer.json", "templates": "chat_template.jinja"}[command]
    (tmp_path / name).write_bytes(b"other")
    code, out, err = call(command, "--from", str(tmp_path))
    assert (code, out) == (2, "")
    assert one_line(err).startswith(f"{tmp_path / name}: got sha256 ")
    code, out, err = call(command, "--from", str(tmp_path / "nowhere"))
    assert (code, out) == (2, "")
    expected = f"{tmp_path / 'nowhere'}: got No such file or directory, expected {name}, or a checkpoint's folder"
    assert one_line(err).startswith(expected)


def test_an_unknown_name_is_bad_input(call: Call) -> None:
    code, out, err = call("templates", "medium@2026-07-09")
    assert (code, out) == (2, "")
    assert one_line(err) == f"NAME: got 'medium@2026-07-09', expected one of {', '.join(published.TEMPLATES)}"


def test_what_is_no_url_is_bad_input(call: Call) -> None:
    code, out, err = call("tokenizer", "--index-url", "pypi.org/simple")
    assert (code, out) == (2, "")
    expected = "--index-url: got 'pypi.org/simple', expected a URL such as https://pypi.org/simple"
    assert one_line(err) == expected


def test_a_cache_that_cannot_be_written_is_bad_input(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEMMA4_CACHE", str(tmp_path / "file"))
    code, out, err = call("tokenizer")
    assert (code, out) == (2, "")
    assert one_line(err).endswith("/downloads: Not a directory; choose a place that can be written")


def test_an_interrupt_leaves_the_part_for_the_next_call(
    call: Call, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_CHUNK", 64)
    chunks = iter([64, 64])
    read = download.as_fetch_error

    def interrupted(url: str) -> object:
        if url.endswith(SDIST) and next(chunks, None) is None:
            raise KeyboardInterrupt
        return read(url)

    monkeypatch.setattr(download, "as_fetch_error", interrupted)
    code, _, _ = call("tokenizer")
    assert code != 0
    part = cache.downloads_dir() / f"{SDIST}.part"
    assert part.stat().st_size == 64
    assert [path.name for path in cache.root().iterdir()] == ["downloads"]
    monkeypatch.setattr(download, "as_fetch_error", read)
    code, _, _ = call("tokenizer")
    assert code == 0
    assert server.requests[-1][1]["Range"] == "bytes=64-"
    assert not part.exists()


@pytest.mark.parametrize(
    ("program", "strange"),
    [
        ("conformance.cli", ("tokenizers", "huggingface_hub", "transformers")),
        ("conformance.fetch.cache", ("tokenizers", "huggingface_hub", "transformers", "urllib.request", "typer")),
    ],
)
def test_an_import_brings_nothing_heavy(program: str, strange: tuple[str, ...]) -> None:
    done = run([sys.executable, "-c", f"import {program}, sys; print(*(sys.modules.keys() & {set(strange)!r}))"])
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr

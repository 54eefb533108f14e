"""A server on this machine, and small packages instead of the published ones."""

from __future__ import annotations

import importlib
import io
import json
import pkgutil
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gguf
import pytest

from conformance import fetch
from conformance.cli import fetch as command
from conformance.fetch import cache, large_templates, published, tokenizer
from conformance.fetch.llama_cpp import Sources
from conformance.fetch.published import Package, Published
from gemma4_contract.files import sha256


def facts(data: bytes) -> Published:
    return Published(sha256=sha256(data), size=len(data))


@dataclass(kw_only=True)
class Server:
    """Answers GET; `requests` tells what it was asked for, with which headers, and how many bytes it sent."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    breaks_after: int | None = None
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, dict(handler.headers)))
        if to := self.redirects.get(handler.path):
            handler.send_response(302)
            handler.send_header("Location", to)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        data = self.files.get(handler.path)
        if data is None:
            handler.send_error(404)
            return
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1]) if self.ranges else 0
        if start >= len(data):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Type", self.types.get(handler.path, "application/octet-stream"))
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        body = data[start:][: self.breaks_after]
        self.sent.append(len(body))
        handler.wfile.write(body)

    def add_page(self, project: str, *entries: Mapping[str, Any], root: str = "/simple") -> None:
        """The page of a project on the index."""
        path = f"{root}/{project}/"
        self.files[path] = json.dumps({"meta": {"api-version": "1.0"}, "files": entries}).encode()
        self.types[path] = "application/vnd.pypi.simple.v1+json"

    def add_package(self, package: Package, data: bytes) -> None:
        """A project with two files, one of which is the package's; its URL is relative, as PEP 691 allows."""
        entry = {"filename": package.file, "url": f"../../files/{package.file}", "hashes": {"sha256": sha256(data)}}
        self.add_page(
            package.project, {"filename": "other-1.whl", "url": "http://nowhere.invalid/", "hashes": {}}, entry
        )
        self.files[f"/files/{package.file}"] = data


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs in a thread until the end of the block."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.respond(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server.url = f"http://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "a", "b", "ab", "▁", "▁a", "<0x21>"]
MERGES = [("a", "b"), ("▁", "a")]
SPECIAL_IDS = (0, 1, 2, 3)
VECTORS = {"ggml-vocab-gemma-4.gguf.inp": b"ab\n", "ggml-vocab-gemma-4.gguf.out": b" 6\n"}

_THEN = "2026-04-10"
_MORE = "if off | default(false)\n  say\nfi\n"
TEMPLATES = {
    "small@2026-04-02": "first\n",
    f"small@{_THEN}": "old top\nturn\nfoot",
    "small@2026-04-28": "top\nturn\nmiddle\nturn\nfoot",
    "small@2026-05-22": "new top\nturn\nfoot",
    "small@2026-07-09": "last top\nturn\nfoot",
    "large@2026-04-02": "first large",
    f"large@{_THEN}": f"old top\nturn\n{_MORE}foot\n",
    "large@2026-04-28": f"top\nturn\nmiddle\nturn\n{_MORE}foot",
    "large@2026-06-03": f"new top\nturn\n{_MORE}foot",
    "large@2026-07-09": "last\n top\nturn\nif off\n  say\nfi\nfoot",
}
"""Texts of our own in the places of the published ones; the fake empty line stands at byte 4."""


def sources() -> Sources:
    templates = {name: TEMPLATES[name].encode() for name in ("large@2026-04-02", "large@2026-04-10")}
    return Sources(tokens=TOKENS, merges=MERGES, templates=templates, vectors=VECTORS)


def _vocabulary() -> bytes:
    """A GGUF file without tensors."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocabulary.gguf"
        writer = gguf.GGUFWriter(file, "gemma4")
        writer.add_token_list(TOKENS)
        writer.add_token_types([1] * len(TOKENS))
        writer.add_token_merges([" ".join(merge) for merge in MERGES])
        writer.add_bos_token_id(2)
        writer.add_chat_template(TEMPLATES["large@2026-04-02"])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        return file.read_bytes()


def sdist() -> bytes:
    """A source distribution with the members that count, and one that does not."""
    members = {
        "llama_cpp_python-0.3.36/README.md": b"read me",
        published.GGUF_MEMBER: _vocabulary(),
        published.LARGE_MEMBER: TEMPLATES["large@2026-04-10"].encode(),
        **{f"{published.GGUF_MEMBER.rpartition('/')[0]}/{name}": data for name, data in VECTORS.items()},
    }
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def wheel() -> bytes:
    """A wheel with the small templates, the first without its final newline."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, member in published.SMALL_MEMBERS.items():
            archive.writestr(member, TEMPLATES[name].removesuffix("\n"))
    return file.getvalue()


def publish(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Let the small packages be what was published, and lie on the server, which is the index."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setattr(tokenizer, "SPECIAL_IDS", SPECIAL_IDS)
    monkeypatch.setattr(large_templates, "_EMPTY_LINE_AT", 4)
    everywhere(monkeypatch, "TOKENIZER", facts(tokenizer.build(sources())))
    everywhere(monkeypatch, "TEMPLATES", {name: facts(text.encode()) for name, text in TEMPLATES.items()})
    everywhere(monkeypatch, "VECTORS", {name: facts(data) for name, data in VECTORS.items()})
    for name, data in (("LLAMA_CPP", sdist()), ("TRL", wheel())):
        real = getattr(published, name)
        package = Package(project=real.project, file=real.file, published=facts(data))
        everywhere(monkeypatch, name, package)
        server.add_package(package, data)


def everywhere(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Another value for a published fact, in every module that knows it."""
    submodules = pkgutil.iter_modules(fetch.__path__, f"{fetch.__name__}.")
    known = [command, *(importlib.import_module(found.name) for found in submodules)]
    assert sum(hasattr(module, name) for module in known) > 1, name
    for module in known:
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)


def kept(name: str) -> Path | None:
    """Where a template lies in the cache, if it is the published one."""
    return cache.verified(cache.template_path(name), published.TEMPLATES[name])


def kept_tokenizer() -> Path | None:
    """Where the tokenizer lies in the cache, if it is the published one."""
    return cache.verified(cache.tokenizer_path(), published.TOKENIZER)


def kept_vectors() -> tuple[Path, ...] | None:
    """Where llama.cpp's texts and ids lie in the cache, if they are the published ones."""
    found = [cache.verified(cache.vectors_dir() / name, facts) for name, facts in sorted(published.VECTORS.items())]
    return tuple(path for path in found if path) if all(found) else None

"""Downloads that continue after an interruption, and that are kept only if they are what was published."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance.fetch.errors import FetchError
from conformance.fetch.published import Published
from gemma4_contract.progress import Progress

CURE = "name another index (--index-url URL) or a file that you have (--from PATH)"
_TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 18
_PARTIAL, _NOT_SATISFIABLE = 206, 416


def download(
    url: str, target: Path, published: Published, progress: Progress, headers: Mapping[str, str] | None = None
) -> None:
    """Download `url` to `target`. Until it is complete it is `target.part`, with which the next download continues.

    FetchError if the server cannot be reached, or sends something else, which is not kept.
    """
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    if have > published.size:
        have = 0
    if have < published.size:
        _append_rest(url, part, have, published.size, progress, headers or {})
    with part.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != published.sha256:
        part.unlink()
        raise FetchError(
            f"{url}: got a file with sha256 {got}, expected {published.sha256}; it was removed, run again or {CURE}"
        )
    os.replace(part, target)


def _append_rest(url: str, part: Path, have: int, size: int, progress: Progress, headers: Mapping[str, str]) -> None:
    """Append the rest of the file to the part; write all of it if the server cannot continue from there."""
    with open_url(url, headers, start=have) as response:
        continues = response.status == _PARTIAL and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        done = have if continues else 0
        with part.open("ab" if continues else "wb") as file:
            while done <= size:  # one byte too many shows that it is another file
                progress(done, size, part.stem)
                with as_fetch_error(url):
                    chunk = response.read(_CHUNK)
                if not chunk:
                    break
                file.write(chunk)
                done += len(chunk)
    if done < size:
        raise FetchError(f"{url}: got {done:,} bytes, expected {size:,}; run again to continue")


@contextmanager
def open_url(url: str, headers: Mapping[str, str], *, start: int = 0) -> Iterator[Any]:
    """The response to a request for the bytes from `start` on, or for all bytes if the server has none there.

    FetchError if there is no response.
    """
    with as_fetch_error(url):
        try:
            response = _request(url, {**headers, "Range": f"bytes={start}-"} if start else headers)
        except urllib.error.HTTPError as error:
            if error.code != _NOT_SATISFIABLE:
                raise
            error.close()
            response = _request(url, headers)
    with response:
        yield response


def _request(url: str, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(url)
    for name, value in headers.items():
        # A password is for this server only; other headers are also sent to the servers that it redirects to.
        add = request.add_unredirected_header if name == "Authorization" else request.add_header
        add(name, value)
    return urllib.request.urlopen(request, timeout=_TIMEOUT)


@contextmanager
def as_fetch_error(url: str) -> Iterator[None]:
    """Turn every error of a connection into a FetchError."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"{url}: got HTTP {error.code} {error.reason}, expected a file; {CURE}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not a URL
        raise FetchError(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}; {CURE}") from None

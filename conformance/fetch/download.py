"""A download that goes on where it was broken off, and that is kept only when it is what was published."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance.fetch.errors import FetchError
from conformance.fetch.published import Published

Progress = Callable[[int, int, str], None]
"""Told what is done, of how much, and of what."""

CURE = "name another index (--index-url URL) or a file that you have (--from PATH)"
_TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 18
_PARTIAL, _NOT_SATISFIABLE = 206, 416


def download(
    url: str, target: Path, published: Published, progress: Progress, headers: Mapping[str, str] | None = None
) -> None:
    """Bring `url` to `target` by way of `target.part`, which an interrupted download leaves to the next.

    FetchError where the server cannot be reached, or sends something else; then nothing of it is kept.
    """
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    if have > published.size:
        have = 0
    if have < published.size:
        _fill(url, part, have, published.size, progress, headers or {})
    with part.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != published.sha256:
        part.unlink()
        raise FetchError(
            f"{url}: got a file with sha256 {got}, expected {published.sha256}; removed it, run again or {CURE}"
        )
    os.replace(part, target)


def _fill(url: str, part: Path, have: int, size: int, progress: Progress, headers: Mapping[str, str]) -> None:
    """Append what the part lacks, or all of it where the server does not go on from there."""
    with opened(url, headers, start=have) as response:
        goes_on = response.status == _PARTIAL and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if goes_on else 0
        with part.open("ab" if goes_on else "wb") as file:
            while done <= size:  # one byte too many is enough to know that it is another file
                progress(done, size, part.stem)
                with one_line(url):
                    chunk = response.read(_CHUNK)
                if not chunk:
                    break
                file.write(chunk)
                done += len(chunk)
    if done < size:
        raise FetchError(f"{url}: got {done:,} bytes, expected {size:,}; run again, it goes on from there")


@contextmanager
def opened(url: str, headers: Mapping[str, str], *, start: int = 0) -> Iterator[Any]:
    """The response to a request for what follows byte `start`, or for all where the server has nothing there.

    FetchError where there is no response.
    """
    with one_line(url):
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
        # A password is for this server only; what else is asked for goes to where it sends us.
        add = request.add_unredirected_header if name == "Authorization" else request.add_header
        add(name, value)
    return urllib.request.urlopen(request, timeout=_TIMEOUT)


@contextmanager
def one_line(url: str) -> Iterator[None]:
    """What goes wrong between here and the server, as a FetchError."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"{url}: got HTTP {error.code} {error.reason}, expected a file; {CURE}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no URL
        raise FetchError(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}; {CURE}") from None

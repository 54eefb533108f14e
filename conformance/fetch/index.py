"""A package index: the URL of a project's file, and the file itself, which is downloaded once."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from conformance.fetch import cache
from conformance.fetch.download import CURE, as_fetch_error, download, open_url
from conformance.fetch.errors import FetchError
from conformance.fetch.published import DEFAULT_INDEX, Package
from gemma4_contract.progress import Progress

_JSON = "application/vnd.pypi.simple.v1+json"  # PEP 691


class Index:
    """The index at a URL (default: PIP_INDEX_URL, or else pypi.org), and the list of its files that were used."""

    def __init__(self, url: str | None, progress: Progress) -> None:
        parts = urlsplit(url or os.environ.get("PIP_INDEX_URL") or DEFAULT_INDEX)
        self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        self._password: Mapping[str, str] = {}
        if parts.username:
            both = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._password = {"Authorization": f"Basic {base64.b64encode(both.encode()).decode()}"}
        self._progress = progress
        self.used: list[Path] = []

    def file(self, package: Package) -> Path:
        """The verified file of a package, from the cache if it is there.

        FetchError if the index cannot be reached, has no such file, or has another file of the same name.
        """
        path = cache.downloads_dir() / package.file
        if not cache.verified(path, package.published):
            url = self._locate(package)
            download(url, path, package.published, self._progress, self._headers_for(url))
        if path not in self.used:
            self.used.append(path)
        size = package.published.size
        self._progress(size, size, f"unpacking {package.file}")
        return path

    def _locate(self, package: Package) -> str:
        """The URL of a file, from the JSON API."""
        page = f"{self.url}/{package.project}/"
        with open_url(page, {"Accept": _JSON, **self._password}) as response, as_fetch_error(page):
            base, text = str(response.geturl()), response.read()
        url, declared = _entry(page, text, package.file)
        expected = package.published.sha256
        if declared not in (None, expected):
            raise FetchError(f"{page}: got {package.file} with sha256 {declared}, expected {expected}; {CURE}")
        return urljoin(base, url)

    def _headers_for(self, url: str) -> Mapping[str, str]:
        return self._password if urlsplit(url).netloc == urlsplit(self.url).netloc else {}


def _entry(page: str, text: bytes, file: str) -> tuple[str, str | None]:
    """The URL of a file on the page of its project, and its digest, if the page gives one."""
    try:
        files = {
            entry["filename"]: (str(entry["url"]), entry.get("hashes", {}).get("sha256"))
            for entry in json.loads(text)["files"]
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FetchError(f"{page}: got no {_JSON}, expected an index that knows PEP 691; {CURE}") from None
    if file not in files:
        raise FetchError(f"{page}: got {len(files)} files, expected {file} among them; {CURE}")
    return files[file]

"""The package index: where it is, what it says of a file, and whom it is told a password."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from conformance.fetch import cache, download
from conformance.fetch.errors import FetchError
from conformance.fetch.index import Index
from conformance.fetch.published import DEFAULT_INDEX, Package
from tests.support.fetch_fakes import Server, facts, serving

DATA = bytes(range(100)) * 3
PACKAGE = Package(project="some-project", file="some_project-1.tar.gz", published=facts(DATA))
_NO_HASHES = b'{"files": [{"filename": "x", "url": "x", "hashes": null}]}'

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that holds DATA."""
    with serving() as running:
        running.files["/file"] = DATA
        yield running


def silent(*_: object) -> None:
    pass


def test_which_index(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Index(None, silent).url == DEFAULT_INDEX == "https://pypi.org/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/simple/")
    assert Index(None, silent).url == "https://example.org/simple"
    assert Index("https://example.com/root", silent).url == "https://example.com/root"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_package_is_downloaded_once(server: Server, slash: str) -> None:
    server.add_package(PACKAGE, DATA)
    index = Index(f"{server.url}/simple{slash}", silent)
    for _ in range(2):
        path = index.file(PACKAGE)
        assert path == cache.downloads_dir() / PACKAGE.file
        assert path.read_bytes() == DATA
    assert server.paths == ["/simple/some-project/", f"/files/{PACKAGE.file}"]
    assert server.requests[0][1]["Accept"] == "application/vnd.pypi.simple.v1+json"
    assert index.used == [path]


def test_a_damaged_package_is_downloaded_again(server: Server) -> None:
    server.add_package(PACKAGE, DATA)
    path = cache.downloads_dir() / PACKAGE.file
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA[:-1] + b"x")
    Index(f"{server.url}/simple", silent).file(PACKAGE)
    assert path.read_bytes() == DATA


def index_refuses(url: str) -> str:
    with pytest.raises(FetchError) as caught:
        Index(url, silent).file(PACKAGE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_index_without_the_file(server: Server) -> None:
    server.add_page("some-project", {"filename": "some_project-2.tar.gz", "url": "x", "hashes": {}})
    page = f"{server.url}/simple/some-project/"
    expected = f"{page}: got 1 files, expected {PACKAGE.file} among them; {download.CURE}"
    assert index_refuses(f"{server.url}/simple") == expected


def test_an_index_without_the_project(server: Server) -> None:
    page = f"{server.url}/simple/some-project/"
    assert index_refuses(f"{server.url}/simple") == f"{page}: got HTTP 404 Not Found, expected a file; {download.CURE}"


@pytest.mark.parametrize(
    "text",
    [b"<html></html>", b"\xff", b"[]", b"{}", b'{"files": [{}]}', b'{"files": [1]}', b'{"files": null}', _NO_HASHES],
)
def test_an_index_that_speaks_no_json(server: Server, text: bytes) -> None:
    server.files["/simple/some-project/"] = text
    message = index_refuses(f"{server.url}/simple")
    assert ": got no application/vnd.pypi.simple.v1+json, expected an index that knows PEP 691; " in message


def test_an_index_with_another_file_of_that_name(server: Server) -> None:
    """What the index itself says of it is enough: nothing is downloaded."""
    server.add_package(PACKAGE, b"another")
    message = index_refuses(f"{server.url}/simple")
    assert f": got {PACKAGE.file} with sha256 {facts(b'another').sha256}, expected {facts(DATA).sha256}; " in message
    assert server.paths == ["/simple/some-project/"]


def test_an_index_that_tells_no_digest(server: Server) -> None:
    server.add_page("some-project", {"filename": PACKAGE.file, "url": f"{server.url}/file", "hashes": {}})
    assert Index(f"{server.url}/simple", silent).file(PACKAGE).read_bytes() == DATA


@pytest.mark.usefixtures("server")
def test_an_index_that_cannot_be_reached() -> None:
    with serving() as other:
        gone = other.url
    message = index_refuses(f"{gone}/simple")
    assert message.startswith(f"{gone}/simple/some-project/: ")
    assert message.endswith("; name another index (--index-url URL) or a file that you have (--from PATH)")
    assert not cache.downloads_dir().exists()


def test_a_password_is_told_to_its_server_alone(server: Server) -> None:
    expected = f"Basic {base64.b64encode(b'me:se/cret').decode()}"
    with serving() as other:
        other.files["/file"] = DATA
        server.add_page("some-project", {"filename": PACKAGE.file, "url": f"{other.url}/file"})
        Index(f"{server.url}/simple".replace("//", "//me:se%2Fcret@"), silent).file(PACKAGE)
        assert [headers.get("Authorization") for _, headers in server.requests] == [expected]
        assert [headers.get("Authorization") for _, headers in other.requests] == [None]


def test_a_password_is_not_told_to_where_its_server_sends_us(server: Server) -> None:
    with serving() as other:
        other.add_package(PACKAGE, DATA)
        server.redirects["/simple/some-project/"] = f"{other.url}/simple/some-project/"
        Index(f"{server.url}/simple".replace("//", "//me:secret@"), silent).file(PACKAGE)
        assert ["Authorization" in headers for _, headers in server.requests] == [True]
        assert ["Authorization" in headers for _, headers in other.requests] == [False, False]
        assert other.requests[0][1]["Accept"] == "application/vnd.pypi.simple.v1+json"


def test_a_password_goes_with_the_file_too_and_into_no_message(server: Server) -> None:
    server.add_page("some-project", {"filename": PACKAGE.file, "url": "/nowhere"})
    message = index_refuses(f"{server.url}/simple".replace("//", "//me:secret@"))
    assert message.startswith(f"{server.url}/nowhere: got HTTP 404")
    assert "secret" not in message
    assert ["Authorization" in headers for _, headers in server.requests] == [True, True]

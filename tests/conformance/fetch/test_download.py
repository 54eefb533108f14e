"""Downloads: they go on where they were broken off, keep nothing that is wrong, and say in one line what failed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.fetch import download
from conformance.fetch.errors import FetchError
from tests.support.fetch_fakes import Server, facts, serving

DATA = bytes(range(100)) * 3

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that holds DATA, and chunks of 64 bytes."""
    monkeypatch.setattr(download, "_CHUNK", 64)
    with serving() as running:
        running.files["/file"] = DATA
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "file"


@pytest.fixture
def part(target: Path) -> Path:
    target.parent.mkdir()
    return target.with_name("file.part")


def silent(*_: object) -> None:
    pass


def fetch(server: Server, target: Path) -> None:
    download.download(f"{server.url}/file", target, facts(DATA), silent)


def refused(server: Server, target: Path) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(server, target)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def asked_ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]


def test_a_file_arrives(server: Server, target: Path) -> None:
    told: list[tuple[int, int, str]] = []
    download.download(f"{server.url}/file", target, facts(DATA), lambda *state: told.append(state))
    assert target.read_bytes() == DATA
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    assert told == [(done, 300, "file") for done in (0, 64, 128, 192, 256, 300)]
    assert asked_ranges(server) == [None]


def test_a_part_is_completed(server: Server, target: Path, part: Path) -> None:
    part.write_bytes(DATA[:200])
    fetch(server, target)
    assert target.read_bytes() == DATA
    assert asked_ranges(server) == ["bytes=200-"]
    assert server.sent == [100]


def test_a_server_without_ranges_sends_all_again(server: Server, target: Path, part: Path) -> None:
    server.ranges = False
    part.write_bytes(DATA[:200])
    fetch(server, target)
    assert target.read_bytes() == DATA
    assert asked_ranges(server) == ["bytes=200-"]
    assert server.sent == [300]


def test_a_part_that_is_too_long_is_begun_again(server: Server, target: Path, part: Path) -> None:
    part.write_bytes(DATA + b"x")
    fetch(server, target)
    assert target.read_bytes() == DATA
    assert asked_ranges(server) == [None]


def test_a_whole_part_needs_no_server(server: Server, target: Path, part: Path) -> None:
    part.write_bytes(DATA)
    fetch(server, target)
    assert target.read_bytes() == DATA
    assert server.requests == []


def test_a_part_beyond_the_end_of_what_the_server_has(server: Server, target: Path, part: Path) -> None:
    """416: all is asked for again, and is too short."""
    server.files["/file"] = DATA[:10]
    part.write_bytes(DATA[:20])
    assert refused(server, target).endswith("/file: got 10 bytes, expected 300; run again to continue")
    assert asked_ranges(server) == ["bytes=20-", None]
    assert part.read_bytes() == DATA[:10]


@pytest.mark.parametrize("wrong", [DATA[::-1], DATA + b"x", DATA + DATA], ids=["other", "longer", "much longer"])
def test_another_file_is_not_kept(server: Server, target: Path, part: Path, wrong: bytes) -> None:
    server.files["/file"] = wrong
    target.write_bytes(b"what was there")
    message = refused(server, target)
    assert message.startswith(f"{server.url}/file: got a file with sha256 ")
    assert f"expected {facts(DATA).sha256}; it was removed, run again or name another index" in message
    assert not part.exists()
    assert target.read_bytes() == b"what was there"


def test_a_damaged_part_is_not_kept(server: Server, target: Path, part: Path) -> None:
    part.write_bytes(b"x" * 200)
    assert "; it was removed, run again or " in refused(server, target)
    assert not part.exists()
    fetch(server, target)
    assert target.read_bytes() == DATA


def test_a_broken_connection_leaves_the_part(server: Server, target: Path, part: Path) -> None:
    server.breaks_after = 170
    assert refused(server, target).endswith(": got 170 bytes, expected 300; run again to continue")
    assert part.read_bytes() == DATA[:170]
    assert not target.exists()
    server.breaks_after = None
    fetch(server, target)
    assert target.read_bytes() == DATA
    assert asked_ranges(server) == [None, "bytes=170-"]


def test_an_interrupt_leaves_the_part(server: Server, target: Path, part: Path) -> None:
    def interrupt(*state: object) -> None:
        if state[0] == 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.download(f"{server.url}/file", target, facts(DATA), interrupt)
    assert part.read_bytes() == DATA[:128]
    assert not target.exists()
    fetch(server, target)
    assert target.read_bytes() == DATA
    assert asked_ranges(server) == [None, "bytes=128-"]


def test_a_server_without_end_is_left(server: Server, target: Path) -> None:
    server.files["/file"] = DATA * 100
    told: list[object] = []
    with pytest.raises(FetchError):
        download.download(f"{server.url}/file", target, facts(DATA), lambda *state: told.append(state[0]))
    assert told == [0, 64, 128, 192, 256]


def test_a_part_is_completed_where_the_server_sends_us(server: Server, target: Path, part: Path) -> None:
    server.redirects["/moved"] = "/file"
    part.write_bytes(DATA[:200])
    download.download(f"{server.url}/moved", target, facts(DATA), silent)
    assert target.read_bytes() == DATA
    assert asked_ranges(server) == ["bytes=200-"] * 2


def test_no_such_file(server: Server, target: Path) -> None:
    del server.files["/file"]
    assert refused(server, target) == f"{server.url}/file: got HTTP 404 Not Found, expected a file; {download.CURE}"
    assert list(target.parent.iterdir()) == []

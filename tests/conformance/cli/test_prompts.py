"""`gemma4-conformance prompt` and `export-prompts` as their users run them."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from gemma4_contract import Fixtures
from gemma4_contract.prompts import Conversation, Prompts, write_prompts
from mlx_impl.chat.prompt import render
from tests.support.commands import Call, Captured, call_command

USER = [{"role": "user", "content": "Hi é"}]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command in this process."""
    monkeypatch.delenv("GEMMA4_FIXTURES", raising=False)

    def called(*arguments: str, stdin: str = "") -> Captured:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        return call_command(capsys, monkeypatch, *arguments)

    return called


@pytest.fixture
def nothing_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEMMA4_CACHE", str(tmp_path / "nothing"))


@pytest.mark.usefixtures("nothing_fetched")
def test_without_a_tokenizer_the_text_is_printed_and_ids_are_null(call: Call) -> None:
    code, out, err = call("prompt", "--template", "small@2026-07-09", "-", stdin=json.dumps(USER))
    assert (code, json.loads(out)) == (0, {"text": render(USER, "small@2026-07-09"), "ids": None})
    assert "é" in out
    assert err == (
        "ids are null: no tokenizer was fetched (gemma4-conformance fetch tokenizer) or named (--tokenizer)\n"
    )


@pytest.mark.usefixtures("nothing_fetched")
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ((), {}),
        (("--thinking", "on"), {"enable_thinking": True}),
        (("--thinking", "off"), {"enable_thinking": False}),
        (("--no-generation-prompt",), {"add_generation_prompt": False}),
    ],
)
def test_the_options_reach_the_builder(call: Call, options: tuple[str, ...], arguments: dict[str, bool]) -> None:
    _, out, _ = call("prompt", "--template", "large", *options, "-", stdin=json.dumps({"messages": USER}))
    assert json.loads(out)["text"] == render(USER, "large@2026-07-09", **arguments)  # type: ignore[arg-type]


def test_a_file_of_the_fixtures_gives_its_golden(call: Call, tokenizer_file: Path) -> None:
    golden = Fixtures().prompts.conversation("prompt/chat/tools-one").render("small@2026-07-09", None, True).prompt
    path = Fixtures().prompts.path("prompt/chat/tools-one")
    code, out, err = call("prompt", "--template", "small", "--tokenizer", str(tokenizer_file), str(path))
    assert golden is not None
    assert (code, json.loads(out), err) == (0, {"text": golden.text, "ids": golden.ids}, "")


@pytest.mark.usefixtures("nothing_fetched")
@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        ("", "-: got no JSON (Expecting value: line 1 column 1 (char 0)), expected a list of messages, or an object"),
        ("7", "-: got a JSON int, expected a list of messages, or an object with messages and perhaps tools; "),
        ("{}", "-: got a JSON dict, expected a list of messages"),
        ("[" * 100_000, "-: got no JSON ("),
        ("[]", "-: messages: got []; expected a list of at least one message"),
        ('[{"role": "user", "content": "\\ud800"}]', "-: messages[0].content: got the lone surrogate '\\ud800'"),
        ('{"messages": [{"role": "user"}], "tools": {"a": 1}}', "-: tools: got {'a': 1}; expected a list"),
    ],
)
def test_a_bad_conversation_is_one_line_and_2(call: Call, stdin: str, said: str) -> None:
    code, out, err = call("prompt", "-", stdin=stdin)
    assert (code, out) == (2, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


@pytest.mark.usefixtures("nothing_fetched")
def test_other_bad_input_is_one_line(call: Call, tmp_path: Path) -> None:
    code, _, err = call("prompt", str(tmp_path / "none.json"))
    assert (code, err) == (
        2,
        f"{tmp_path}/none.json: got No such file or directory, expected a JSON file; mend the path\n",
    )
    code, _, err = call("prompt", "--template", "tiny", "-", stdin=json.dumps(USER))
    assert (code, err[:54]) == (2, "--template: got 'tiny', expected small, large or one o")
    code, _, err = call("prompt", "--impl", "oracle", "-", stdin=json.dumps(USER))
    assert (code, err) == (2, "--impl: got oracle, expected an implementation that writes prompts\n")
    code, _, err = call("prompt", "--tokenizer", str(tmp_path / "no.json"), "-", stdin=json.dumps(USER))
    assert (code, err) == (
        2,
        f"{tmp_path}/no.json: got no file, expected a tokenizer.json; name one with --tokenizer\n",
    )
    (tmp_path / "no.json").write_text("{}")
    code, _, err = call("prompt", "--tokenizer", str(tmp_path / "no.json"), "-", stdin=json.dumps(USER))
    assert (code, err.count("\n")) == (3, 1)
    assert f"{tmp_path}/no.json" in err


@pytest.mark.usefixtures("nothing_fetched")
def test_an_export_without_what_it_needs_says_what_to_fetch(call: Call) -> None:
    code, _, err = call("export-prompts", "--check")
    assert code == 3
    assert err == ("export-prompts needs the template small@2026-04-02; gemma4-conformance fetch templates\n")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A fixtures folder with two conversations and one file of texts."""
    root = tmp_path / "fixtures"
    (root / "cases").mkdir(parents=True)
    for name in ("chat/user-plain", "chat/parts-image", "text/digits", "facts"):
        source = Fixtures().prompts.root / f"{name}.json"
        (root / "prompts" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / "prompts" / f"{name}.json")
    Fixtures(root).write_sums()
    return root


@pytest.mark.usefixtures("tokenizer_file", "real_templates")
class TestExport:
    @pytest.mark.slow
    def test_nothing_changes_when_nothing_did(self, call: Call, few: Path) -> None:
        before = {path: path.read_bytes() for path in few.rglob("*") if path.is_file()}
        assert call("export-prompts", "--check", "--fixtures-dir", str(few)) == (
            0,
            "3 files of prompts, 0 changes\n",
            "",
        )
        assert call("export-prompts", "--fixtures-dir", str(few))[0] == 0
        assert {path: path.read_bytes() for path in few.rglob("*") if path.is_file()} == before

    @pytest.mark.slow
    def test_a_new_conversation_is_filled_in(self, call: Call, few: Path) -> None:
        new = Conversation(id="prompt/chat/new", purpose="New.", messages=USER, renders=[])
        write_prompts(few / "prompts" / "chat" / "new.json", new)
        code, out, _ = call("export-prompts", "--check", "--fixtures-dir", str(few))
        assert code == 1
        assert "prompt/chat/new small@2026-04-02: 6 of 6 prompts, first new" in out
        assert call("export-prompts", "--fixtures-dir", str(few))[0] == 0
        made = Prompts(few).conversation("prompt/chat/new").render("small@2026-07-09", None, True).prompt
        assert made is not None
        assert made.text == render(USER, "small")
        assert not [fault for fault in Fixtures(few).verify() if "prompts" in str(fault)]

    def test_a_new_revision_is_added_and_what_it_changed_is_printed(
        self, call: Call, few: Path, real_templates: dict[str, str], tmp_path: Path
    ) -> None:
        template = tmp_path / "chat_template.jinja"
        template.write_text(real_templates["small@2026-07-09"].replace("'<|image|>'", "'<picture>'"), encoding="utf-8")
        code, out, _ = call("export-prompts", "--fixtures-dir", str(few), "--template", f"small@2027-01-01={template}")
        assert code == 0
        assert out.startswith("small@2027-01-01 against small@2026-07-09:\n  prompt/chat/parts-image: ")
        assert "\\n<picture>What is in" in out
        assert "user-plain" not in out
        added = Prompts(few)
        assert "small@2027-01-01" in added.facts().templates
        assert added.conversation("prompt/chat/parts-image").render("small@2027-01-01", None, True).prompt is not None

    @pytest.mark.parametrize("option", ["small@2027-01-01=/no/such/file", "small@2027-01-01"])
    def test_a_template_that_is_no_file_is_one_line(self, call: Call, few: Path, option: str) -> None:
        code, _, err = call("export-prompts", "--fixtures-dir", str(few), "--template", option)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(f"--template: got {option!r} (")

    def test_a_template_without_a_date_is_refused(self, call: Call, few: Path, tmp_path: Path) -> None:
        (tmp_path / "x.jinja").write_text("x")
        code, _, err = call("export-prompts", "--fixtures-dir", str(few), "--template", f"tiny={tmp_path}/x.jinja")
        assert (code, err.count("\n")) == (2, 1)

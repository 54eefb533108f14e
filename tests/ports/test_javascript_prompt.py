"""The prompt builder of the JavaScript port: every golden, and what JavaScript does in another way than Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gemma4_contract import Fixtures
from tests.support import ROOT

PROMPT = ROOT / "ports" / "javascript" / "prompt"
NODE = shutil.which("node")
NEWEST = 20
"""The first version of Node that has String.isWellFormed."""


def node(*arguments: str) -> subprocess.CompletedProcess[str]:
    if NODE is None:
        pytest.skip("node is not installed")
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < NEWEST:
        pytest.skip(f"node {version.strip()} is too old: {NEWEST} or later")
    return subprocess.run([NODE, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_every_prompt_of_the_fixtures_is_equal() -> None:
    done = node(str(PROMPT / "check.mjs"), str(Fixtures().prompts.root))
    chats = [prompt_id for prompt_id in Fixtures().prompts.ids if prompt_id.startswith("prompt/chat/")]
    count = sum(len(Fixtures().prompts.conversation(prompt_id).settings()) for prompt_id in chats)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} of {count} prompts are equal" in done.stdout


def test_the_traps_of_javascript() -> None:
    done = node("--test", str(PROMPT / "traps.test.mjs"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " fail 0\n" in done.stdout


def test_a_damaged_golden_is_seen(tmp_path: Path) -> None:
    shutil.copytree(Fixtures().prompts.root / "chat", tmp_path / "chat")
    path = tmp_path / "chat" / "user-plain.json"
    path.write_text(path.read_text(encoding="utf-8").replace("capital of France", "capital of Spain"), encoding="utf-8")
    done = node(str(PROMPT / "check.mjs"), str(tmp_path))
    assert done.returncode == 1

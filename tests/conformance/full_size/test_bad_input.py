"""The commands on models at full size refuse in one line what they cannot do."""

from __future__ import annotations

import pytest

from tests.support.installed import FIXTURES
from tests.support.runs import run_command


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["export", "--model", "e3b-full"], "model: got e3b-full, expected one of e2b-full, e4b-full"),
        (["export", "--by", "both"], "--by: got both without a model, expected it with --model or --checkpoint"),
        (["export", "--checkpoint", str(FIXTURES.root / "models" / "e2b-mini")], "--checkpoint, --goldens: got one"),
        (
            ["export", "--checkpoint", "none", "--goldens", "g"],
            "none: got no config.json in it, expected the folder",
        ),
        (
            ["export", "--checkpoint", "none", "--goldens", "g", "--model", "e2b-full"],
            "--checkpoint, --model: got both",
        ),
        (["floors", "--first-only"], "--first-only: got it without a model, expected it with --model or --checkpoint"),
        (["materialize", "e2b-mini"], "model: got e2b-mini, expected one of"),
        (
            ["materialize", "e2b-full", "--quantize", "4", "--dtype", "f32"],
            "--dtype: got f32 with --quantize",
        ),
        (["materialize", "e2b-full", "--quantize", "7"], "--quantize: got 7, expected one of 2, 3, 4"),
        (["materialize", "e2b-full", str(FIXTURES.root / "models" / "e2b-mini")], "config.json: got another"),
        (["run", "--levels", "L0,L5"], "--levels: got L0,L5, expected L5 alone"),
        (["run", "--levels", "L0-L5"], "--levels: got L0-L5, expected L5 alone"),
    ],
)
def test_bad_input_is_one_line(command: list[str], said: str) -> None:
    ended = run_command(*command)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1

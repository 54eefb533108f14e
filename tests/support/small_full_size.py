"""Two miniatures that take the part of models at full size, and the commands on them."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from conformance.cli import app
from reference.family import FAMILY
from reference.models import MODELS, Model

NAMES = {"tiny-full": "e2b-mini", "experts-full": "26b-a4b-mini"}
TINY = {
    name: Model(
        id=name,
        member=FAMILY[MODELS[mini].member.id],
        purpose="A miniature instead of a model at full size.",
        overrides=MODELS[mini].overrides,
        nested=True,
    )
    for name, mini in NAMES.items()
}
run = CliRunner().invoke
OWNER = "forward/tiny-full/text-l89/no-cache"


def exported(checkpoint: Path, goldens: Path, *profiles: str) -> list[str]:
    """Goldens and floors of a checkpoint, and the options that name both."""
    named = ["--checkpoint", str(checkpoint), "--goldens", str(goldens)]
    for command in (["export"], *(["floors", "--profile", profile] for profile in profiles)):
        ended = run(app, [*command, *named])
        assert ended.exit_code == 0, ended.output
    return named

"""The whole export: into a staging folder first, then swapped in, so that an interrupted run changes nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gemma4_contract import Fixtures, ModelCard, Policy
from gemma4_contract.documents import read_model, write_model
from gemma4_contract.progress import Progress
from gemma4_contract.schema import write_schemas
from reference.cases import Draft, all_drafts
from reference.export.acceptance import acceptance, check_acceptance
from reference.export.checkpoint import model_weights, write_checkpoint
from reference.export.derive import single_threaded
from reference.export.mistakes import write_mistakes
from reference.export.writer import Writer
from reference.layouts import LAYOUTS, Layout
from reference.models import MODELS, Model

GENERATED = ("models", "cases", "schema", "mistakes")
"""Folders that an export replaces; floors are measured, not exported."""


def export(root: Path, progress: Progress) -> None:
    """Make the fixtures under `root` again."""
    with staged(root, progress) as staging:
        _swap(staging, root)


def _swap(staging: Path, root: Path) -> None:
    """Replace the stored folders by the staged ones: all of them, or none if interrupted."""
    aside = {name: staging / f"{name}.old" for name in GENERATED if (root / name).exists()}
    try:
        for name, old in aside.items():
            os.rename(root / name, old)
        for name in GENERATED:
            os.rename(staging / name, root / name)
        Fixtures(root).write_sums()
    except BaseException:
        for name, old in aside.items():
            if old.exists():
                if (root / name).exists():
                    os.rename(root / name, staging / f"{name}.unfinished")
                os.rename(old, root / name)
        raise


@contextmanager
def staged(root: Path, progress: Progress) -> Iterator[Path]:
    """A freshly made copy of everything that an export generates, in a folder beside `root` that is removed later."""
    policy = read_model(root / "floors" / "policy.json", Policy)
    staging = Path(tempfile.mkdtemp(prefix=".fixtures-", dir=root.parent))
    try:
        with single_threaded():
            _generate(staging, policy, progress)
        yield staging
    finally:
        shutil.rmtree(staging)


def _generate(root: Path, policy: Policy, progress: Progress) -> None:
    drafts = sorted(all_drafts(), key=_owners_first)
    models: list[Model | Layout] = [*MODELS.values(), *LAYOUTS.values()]
    total = len(models) + len(drafts)
    for done, model in enumerate(models):
        progress(done, total, model.id)
        _write_model(root / "models" / model.id, model, policy)
    writer = Writer(root, policy)
    for done, draft in enumerate(drafts, start=len(models)):
        progress(done, total, draft.id)
        writer.write(draft)
    write_schemas(root)
    write_mistakes(root)
    progress(total, total, "done")


def _owners_first(draft: Draft) -> tuple[str, bool, str]:
    """Cases of one golden together, its owner before those that point to it."""
    return draft.owner, draft.pointer is not None, draft.id


def _write_model(directory: Path, model: Model | Layout, policy: Policy) -> None:
    own, shards = (model.weights_of, model.shards) if isinstance(model, Layout) else (model, 1)
    built = model_weights(own)
    figures = acceptance(own, built)
    check_acceptance(own, figures, policy)
    stored = model.laid_out(built)
    write_checkpoint(directory, model.config_json, stored, shards)
    card = ModelCard(
        id=model.id,
        member=own.member.repository,
        purpose=model.purpose,
        overrides=dict(model.overrides),
        weights_of=None if own is model else own.id,
        tensors=len(stored),
        parameters=sum(value.size for value in stored.values()),
        redundant_shared_kv=model.redundant_shared_kv,
        acceptance={name: float(f"{figure:.2g}") for name, figure in figures.items()},
    )
    write_model(directory / "model.json", card)

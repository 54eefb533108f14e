"""The drafts of a small export, and writers of some of them."""

from functools import cache
from pathlib import Path

from gemma4_contract import Fixtures
from gemma4_contract.files import sha256
from gemma4_contract.tensors import Array
from reference.cases import Draft, all_drafts
from reference.export import writer

Taps = dict[str, Array]
MODEL, LAYOUT = "trap-softcap", "layout-per-layer-config"
GOLDEN = f"forward/{MODEL}/uniform-l19/no-cache"
PADDED = f"forward/{MODEL}/uniform-l19/padded"
NORM, RING, ROUNDED = "module/rms-norm/weighted", "module/attention-core/ring", "module/embedding/rounded-scale-bf16"
FEW = ("module/rms-norm/", "module/softcap/", "module/embedding/rounded", "module/ple-index/", "module/mlp/")


@cache
def drafts() -> dict[str, Draft]:
    return {draft.id: draft for draft in all_drafts()}


def few() -> list[Draft]:
    """The forward cases of one trap and of one layout of it, and a few modules."""
    return [draft for draft in drafts().values() if draft.model in (MODEL, LAYOUT) or draft.id.startswith(FEW)]


BY_HAND = ("floors", "profiles")
"""What no export makes."""


def quiet(done: int, total: int, what: str) -> None:
    assert 0 <= done <= total
    assert what


def snapshot(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256(path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def write(tmp_path: Path, *case_ids: str) -> None:
    made = writer.Writer(tmp_path, Fixtures().policy)
    for case_id in case_ids:
        made.write(drafts()[case_id])

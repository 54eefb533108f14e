"""The second derivation of a golden at full size: transformers, streamed, on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Sequence

from gemma4_contract.checkpoint import text_part
from gemma4_contract.profiles import installed_profiles
from gemma4_contract.progress import Progress
from gemma4_contract.tensors import Array
from reference import full_size
from reference.oracle.arithmetic import PROFILES
from reference.streaming.source import Source
from reference.streaming.stored_taps import StoredTap, StoredTapRecorder, stored_counts
from reference.transformers_model import streaming


def transformers_taps(
    source: Source,
    ids: Array,
    profile: str,
    progress: Progress,
    vocabulary: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
) -> dict[str, StoredTap]:
    """The stored parts of the taps of a transformers pass in a profile's dtype; in f64 its float32 is lifted."""
    rows = full_size.stored_rows(source) if rows is None else rows
    recorder = StoredTapRecorder(config=source.config, length=ids.shape[1], rows=rows, vocabulary=vocabulary)
    streaming.run(
        text_part(source.config_json),
        source.weights(PROFILES[profile].dtype),
        ids,
        rows,
        dtype=installed_profiles()[profile].dtype,
        wanted=stored_counts(source.config),
        take=recorder,
        progress=progress,
    )
    return {name: recorder.taps[name] for name in stored_counts(source.config)}

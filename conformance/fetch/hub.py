"""A file of a repository on the model hub."""

from __future__ import annotations

from pathlib import Path

from conformance.fetch.errors import FetchError


def hub_file(repository: str, name: str) -> bytes:
    """The present content of a file of a repository; the file is kept in the hub's own cache.

    FetchError if the hub cannot be reached or demands a login.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repository, name)).read_bytes()
    except Exception as error:  # the client's errors have no class in common
        said = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise FetchError(f"{repository}/{name}: {said}; take --from index, or --from PATH") from None

"""The errors of an export; each message is one line."""


class ExportError(Exception):
    """A model, golden or floor is not acceptable."""

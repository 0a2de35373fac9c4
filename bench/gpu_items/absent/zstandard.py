"""Stands in for zstandard where it is not installed: everything works but .zst files."""


class ZstdError(Exception):
    """Raised by nothing here."""

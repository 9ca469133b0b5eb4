"""Refusing what a newer Nightscribe has written: this one might take it for something else."""

from __future__ import annotations

from collections.abc import Mapping

from stt_engine.errors import DestinationRefused
from tasks.schema import SCHEMA_VERSION


def refuse_newer(uri: str, what: str, found: int, known: int) -> None:
    """Raises DestinationRefused when `found` is a later version than the one that this code knows."""
    if found > known:
        raise DestinationRefused(
            f"{uri} was written by a newer Nightscribe ({what} {found}, this one knows {known}); "
            "upgrade this installation, then run again"
        )


def refuse_newer_part(uri: str, metadata: Mapping[bytes, bytes] | None) -> None:
    """For a part by the metadata of its file. Raises ValueError where a version stands there that is no number."""
    refuse_newer(uri, "schema version", int((metadata or {}).get(b"nightscribe.schema_version", b"0")), SCHEMA_VERSION)

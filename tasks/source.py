"""SOURCE, the only room that reads audio from storage: `tasks.listing` finds the files, `tasks.fetch` brings one."""

from __future__ import annotations

from tasks.fetch import FetchedAudio, confirm_unchanged, fetch
from tasks.listing import check_source, list_audio

__all__ = ["FetchedAudio", "check_source", "confirm_unchanged", "fetch", "list_audio"]

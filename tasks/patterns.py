"""Which keys are audio: glob patterns, read the way people type them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from stt_engine.suffixes import AUDIO_SUFFIXES


class KeyPatterns:
    """True for the keys that one of several globs matches; without globs, for common audio suffixes.

    `*` and `?` stay inside one folder, `**` crosses folders, `[a-z]` and `[!a-z]` are sets. A pattern without `/` looks
    at the file's name in any folder, as in .gitignore. Letters match in either case, and Korean in either Unicode form
    (a name from macOS is decomposed, NFD; the one typed on the command line composed, NFC).
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        sources = [_regex(pattern) for pattern in patterns] or [rf"(?:.*/)?[^/]*\.(?:{'|'.join(AUDIO_SUFFIXES)})"]
        self._regex = re.compile("|".join(f"(?:{source})" for source in sources), re.IGNORECASE | re.DOTALL)

    def __call__(self, key: str) -> bool:
        return self._regex.fullmatch(unicodedata.normalize("NFC", key)) is not None


def hidden(key: str) -> bool:
    """True when the file or a folder above it (below SOURCE) starts with a dot."""
    return any(part.startswith(".") for part in key.split("/"))


def _regex(pattern: str) -> str:
    glob = unicodedata.normalize("NFC", pattern).lstrip("/").removeprefix("./")
    source = "" if "/" in glob else "(?:.*/)?"
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at):
            source, at = source + "(?:.*/)?", at + 3
        elif glob.startswith("**", at):
            source, at = source + ".*", at + 2
        elif glob[at] == "*":
            source, at = source + "[^/]*", at + 1
        elif glob[at] == "?":
            source, at = source + "[^/]", at + 1
        elif glob[at] == "[" and (end := glob.find("]", at + 2)) > 0:
            body = glob[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            source, at = source + "[" + ("^" + body[1:] if body[0] == "!" else body) + "]", end + 1
        else:
            source, at = source + re.escape(glob[at]), at + 1
    return source

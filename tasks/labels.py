"""Columns out of keys: the named groups of a pattern become the `labels` map of a row."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from stt_engine.errors import UsageError


@dataclass(frozen=True)
class LabelPattern:
    """A regular expression with named groups, searched for in the key below SOURCE."""

    pattern: str

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise UsageError(f"--key-pattern {self.pattern!r} is not a regular expression: {error}") from error
        if not groups:
            raise UsageError(
                f"--key-pattern {self.pattern!r} names no group: write (?P<agent>[^/]+)/(?P<call_id>[^/]+)"
            )

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def of(self, key: str) -> dict[str, str]:
        """The named groups that took part in the first match; empty where the pattern is not found."""
        match = self._compiled.search(key)
        return {name: text for name, text in match.groupdict().items() if text is not None} if match else {}

"""Which files of SOURCE a run wants: patterns, dates, order, and the patience to let a recorder finish writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from stt_engine.types import Seconds
from tasks.listing import list_audio
from tasks.types import AudioFile


class Discovery:
    """The wanted files, once, lazily; the counts are right when the iteration has ended.

    A limit is not applied here but by `tasks.plan.make_plan`, to what is left to do: the second run with the same
    limit is to take up the next files, not to find the first ones done.
    """

    def __init__(
        self,
        source: str,
        *,
        patterns: Sequence[str],
        modified_since: datetime | None,
        modified_before: datetime | None,
        newest_first: bool,
        settle_s: Seconds,
        exclude: str | None,
        now: datetime,
    ) -> None:
        self._source, self._patterns, self._exclude = source, patterns, exclude
        self._since, self._before = _utc(modified_since), _utc(modified_before)
        self._newest_first = newest_first
        self._settled_before = now - timedelta(seconds=settle_s) if settle_s > 0 else None
        self.listed = 0
        """Audio files under the patterns."""
        self.deferred = 0
        """Of those within the dates, how many are too young and left for the next run."""

    def __iter__(self) -> Iterator[AudioFile]:
        found = self._wanted()
        if not self._newest_first:
            return found
        # The one filter that must see everything first. Ties in the listing's order, so that runs agree.
        return iter(sorted(found, key=lambda file: file.modified_at, reverse=True))

    def _wanted(self) -> Iterator[AudioFile]:
        self.listed = self.deferred = 0
        for file in list_audio(self._source, self._patterns, exclude=self._exclude):
            self.listed += 1
            if self._since is not None and file.modified_at < self._since:
                continue
            if self._before is not None and file.modified_at >= self._before:
                continue
            if self._settled_before is not None and file.modified_at > self._settled_before:
                self.deferred += 1
                continue
            yield file


def discover(
    source: str,
    *,
    patterns: Sequence[str] = (),
    modified_since: datetime | None = None,
    modified_before: datetime | None = None,
    newest_first: bool = False,
    settle_s: Seconds = 0.0,
    exclude: str | None = None,
    now: datetime | None = None,
) -> Discovery:
    """What to transcribe from SOURCE. `modified_since` is included, `modified_before` is not; naive times are UTC.

    `exclude` is DEST, whose own objects are no source. Iterating raises what `tasks.listing.list_audio` raises.
    """
    return Discovery(
        source,
        patterns=patterns,
        modified_since=modified_since,
        modified_before=modified_before,
        newest_first=newest_first,
        settle_s=settle_s,
        exclude=exclude,
        now=now or datetime.now(UTC),
    )


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)

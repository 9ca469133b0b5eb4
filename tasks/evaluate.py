"""How right the transcripts in the tables are, by language, against texts of people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from stt_engine.errors import UsageError
from tasks.current_rows import current_tables
from tasks.error_rates import SPACED_FREELY, Compared, Edits, compare, normalised, summed
from tasks.live_parts import LiveParts, with_live_parts
from tasks.parts import require_tables
from tasks.references import Reference, read_references
from tasks.storage import open_store

UNKNOWN = "unknown"
"""The language where neither the reference says one nor speech was found."""


@dataclass(frozen=True, slots=True)
class FileScore:
    uri: str
    language: str
    reference: str
    """As it was compared."""
    heard: str
    compared: Compared

    @property
    def leading(self) -> Edits:
        """What tells most in this language: characters where spaces are free, else words."""
        return self.compared.characters if self.language in SPACED_FREELY else self.compared.words


@dataclass(frozen=True, slots=True)
class LanguageScore:
    language: str
    files: int
    words: Edits
    characters: Edits


@dataclass(frozen=True, slots=True)
class Evaluation:
    languages: tuple[LanguageScore, ...]
    worst: tuple[FileScore, ...]
    failed: tuple[str, ...]
    """Addresses of recordings that failed for good: they are in no rate."""
    missing: tuple[str, ...]
    """Names in the reference that no recording in the tables has."""


@dataclass(frozen=True, slots=True)
class _Heard:
    text: str | None
    language: str | None


def evaluate_tables(
    dest: str, reference: Path, *, worst: int = 10, report: Callable[[int], None] = lambda rows: None
) -> Evaluation:
    """Compares the current row of each recording that the reference knows.

    Raises UsageError for a reference that cannot be used, that names a recording which several could be, or none;
    DestinationRefused where no tables are, StorageUnavailable, AccessDenied.
    """
    references = read_references(reference)
    store = open_store(dest)
    require_tables(store)

    def read(live: LiveParts) -> dict[str, _Heard]:
        wanted = pa.array({found.name.rpartition("/")[2] for found in references}, pa.string())
        heard: dict[str, _Heard] = {}
        for rows, table in current_tables(store, live, ("source_uri", "status", "text", "language")):
            last_names = pc.replace_substring_regex(table["source_uri"], pattern=r"(?s)^.*/", replacement="")
            for row in table.filter(pc.is_in(last_names, value_set=wanted)).to_pylist():
                text = row["text"] if row["status"] == "landed" else None
                heard[row["source_uri"]] = _Heard(text, row["language"])
            report(rows)
        return heard

    heard = with_live_parts(store, read)
    matched, missing = _matched(references, tuple(heard), reference)
    if not matched:
        raise UsageError(
            f"--reference {reference}: none of its {len(references)} recordings is in {store.uri}; names are compared "
            f"with source_uri, whole or its end from a / on (the first is {references[0].name})"
        )
    scores = [_score(uri, found, heard[uri]) for uri, found in matched.items()]
    compared = [score for score in scores if score is not None]
    failed = tuple(uri for uri in matched if heard[uri].text is None)
    by_badness = sorted(compared, key=lambda score: (-score.leading.rate, -score.leading.errors, score.uri))
    wrong = [score for score in by_badness if score.leading.errors]
    return Evaluation(_by_language(compared), tuple(wrong[:worst]), failed, missing)


def _matched(
    references: Sequence[Reference], uris: Sequence[str], path: Path
) -> tuple[Mapping[str, Reference], tuple[str, ...]]:
    """Address -> its reference; and the names that have none."""
    by_last_name: defaultdict[str, list[str]] = defaultdict(list)
    for uri in uris:
        by_last_name[uri.rpartition("/")[2]].append(uri)
    matched: dict[str, Reference] = {}
    missing = []
    for found in references:
        candidates = by_last_name[found.name.rpartition("/")[2]]
        same = [uri for uri in candidates if uri == found.name]
        alike = same or [uri for uri in candidates if uri.endswith("/" + found.name.lstrip("/"))]
        if not alike:
            missing.append(found.name)
        elif len(alike) > 1 or alike[0] in matched:
            rest = f"{alike[0]} and {alike[1]}" if len(alike) > 1 else f"{alike[0]}, which another line names too"
            raise UsageError(
                f"--reference {path}: {found.name} may be {rest}; give the whole address, as in source_uri"
            )
        else:
            matched[alike[0]] = found
    return matched, tuple(missing)


def _score(uri: str, reference: Reference, heard: _Heard) -> FileScore | None:
    """None where there is no transcript."""
    if heard.text is None:
        return None
    language = reference.language or heard.language or ""
    truth, said = (normalised(text, language) for text in (reference.text, heard.text))
    return FileScore(uri, language or UNKNOWN, truth, said, compare(reference.text, heard.text, language))


def _by_language(scores: Sequence[FileScore]) -> tuple[LanguageScore, ...]:
    groups: defaultdict[str, list[FileScore]] = defaultdict(list)
    for score in scores:
        groups[score.language].append(score)
    return tuple(
        LanguageScore(
            language,
            len(group),
            summed(score.compared.words for score in group),
            summed(score.compared.characters for score in group),
        )
        for language, group in sorted(groups.items())
    )

"""Patterns, read the way people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.patterns import KeyPatterns


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("*.wav", "a.wav", True), ("*.wav", "deep/down/a.WAV", True), ("/*.wav", "a.wav", True),
        ("calls/*.wav", "calls/a.wav", True), ("calls/*.wav", "calls/x/a.wav", False),
        ("calls/**/*.wav", "calls/a.wav", True), ("calls/**/*.wav", "calls/x/y/a.wav", True),
        ("calls/**", "calls/x/y", True), ("calls/**", "callsx/y", False), ("**/a?.wav", "x/ab.wav", True),
        ("a?.wav", "a/.wav", False), ("[a-c].wav", "B.wav", True), ("[!a-c].wav", "b.wav", False),
        ("[!a-c].wav", "d.wav", True), ("a[.wav", "a[.wav", True), ("a+(1).wav", "a+(1).wav", True),
        ("a.wav", "axwav", False), ("*", "a/b", True), ("한*/*.mp3", "한국/x.MP3", True),
    ],
)  # fmt: skip
def test_patterns(pattern: str, key: str, matches: bool) -> None:
    assert KeyPatterns([pattern])(key) is matches


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_pattern_is_a_bad_regex(pattern: str, key: str) -> None:
    assert KeyPatterns([pattern])(key) in (True, False)


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="*?[]"), min_size=1))
def test_a_name_without_signs_matches_itself(name: str) -> None:
    pattern = KeyPatterns([name])
    if not name.startswith(("/", "./")):
        assert pattern(name)

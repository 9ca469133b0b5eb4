"""Phrases that Whisper writes over silence, music and noise: its training subtitles ended with them.

They are flagged, never removed: a caller may really say "thank you". Add to the list here and nowhere else. Collected
from public issue threads about Whisper's hallucinations; compared without case, punctuation and spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

INVENTED_PHRASES: Mapping[str, tuple[str, ...]] = {
    "en": (
        "Thank you.",
        "Thanks for watching!",
        "Thank you for watching.",
        "Thank you so much for watching!",
        "Thanks for watching, and I'll see you next time.",
        "Please subscribe to my channel.",
        "Please subscribe.",
        "Like and subscribe.",
        "Don't forget to like and subscribe.",
        "See you in the next video.",
        "I'll see you in the next video.",
        "Bye.",
        "Bye bye.",
        "You",
        "Subtitles by the Amara.org community",
        "Transcription by CastingWords",
        "Transcribed by https://otter.ai",
    ),
    "ko": (
        "감사합니다.",
        "시청해주셔서 감사합니다.",
        "시청해 주셔서 감사합니다.",
        "지금까지 시청해주셔서 감사합니다.",
        "끝까지 시청해주셔서 감사합니다.",
        "구독과 좋아요 부탁드립니다.",
        "구독과 좋아요, 알림 설정 부탁드립니다.",
        "구독 좋아요 부탁드려요.",
        "다음 영상에서 만나요.",
        "다음 시간에 만나요.",
        "오늘도 시청해주셔서 감사합니다.",
        "한글자막 by 한효정",
        "자막 제공 및 광고는",
        "MBC 뉴스 이덕영입니다.",
        "MBC 뉴스 김재경입니다.",
    ),
}


def _folded(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", text).casefold())


_FOLDED = frozenset(_folded(phrase) for phrases in INVENTED_PHRASES.values() for phrase in phrases)


def is_invented_phrase(text: str) -> bool:
    """Whether the whole of `text` is one of the phrases, in any language: silence is often heard as another one."""
    return _folded(text) in _FOLDED

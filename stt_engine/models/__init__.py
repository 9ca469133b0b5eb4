"""Where models come from: a name or a directory in, a complete local directory out.

    resolve("fixture")              built in, unpacked once into the cache
    resolve("large-v3-turbo")       fetched once from the Hub, then offline
    resolve("some-org/some-repo")   likewise
    resolve("/models/ours")         Hugging Face format, a CTranslate2 directory, or OpenAI's .pt

What a backend then reads: Hugging Face format serves all three (`ct2_dir` converts it for faster-whisper, once);
a CTranslate2 directory serves faster-whisper, a `.pt` openai-whisper.
"""

from __future__ import annotations

from stt_engine.models.bundled import FIXTURE
from stt_engine.models.cache import cache_root
from stt_engine.models.conversion import convert, ct2_dir
from stt_engine.models.fetching import Progress, fetch
from stt_engine.models.fingerprints import fingerprint
from stt_engine.models.installation import InstalledModel, installed
from stt_engine.models.layout import Form, ModelLayout, check_serves, read_layout
from stt_engine.models.resolution import resolve

__all__ = [
    "FIXTURE",
    "Form",
    "InstalledModel",
    "ModelLayout",
    "Progress",
    "cache_root",
    "check_serves",
    "convert",
    "ct2_dir",
    "fetch",
    "fingerprint",
    "installed",
    "read_layout",
    "resolve",
]

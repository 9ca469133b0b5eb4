"""Speech to text with Whisper: decoding, voice activity, chunks, device batches, three backends, one class.

Knows nothing of Prefect, of object storage or of tables.
"""

from stt_engine.engine import WhisperSTT
from stt_engine.errors import NightscribeError, RetryableError, TerminalError
from stt_engine.types import Segment, TranscribeOptions, Transcript, Word

__version__ = "0.1.0"

__all__ = [
    "NightscribeError",
    "RetryableError",
    "Segment",
    "TerminalError",
    "TranscribeOptions",
    "Transcript",
    "WhisperSTT",
    "Word",
    "__version__",
]

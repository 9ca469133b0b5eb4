"""espeak-ng, a speech synthesiser, called through ctypes (its shared library, `speak_lib.h`)."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

LIBRARY = "libespeak-ng.so.1"
AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARS_UTF8 = 1
RATE, VOLUME, PITCH, PITCH_RANGE = 1, 2, 3, 4

Samples = npt.NDArray[np.float32]
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def missing_library() -> str | None:
    """Why nothing can be synthesised here; None when it can."""
    return None if find_library("espeak-ng") else f"no speech to synthesise here: {LIBRARY} missing (apt: espeak-ng)"


class Espeak:
    """One synthesiser; the library allows one a process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        rate_hz = self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, None, 0)
        if rate_hz != 22_050:
            raise RuntimeError(f"espeak-ng speaks at {rate_hz} Hz, not 22,050")
        self._heard: list[npt.NDArray[np.int16]] = []
        self._callback = _Callback(self._hear)  # kept: the library holds a bare pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def _hear(self, wave: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
        if wave and count > 0:
            self._heard.append(np.ctypeslib.as_array(wave, (count,)).copy())
        return 0

    def say(self, text: str, voice: str, *, words_per_minute: int, pitch: int, pitch_range: int) -> Samples:
        """float32 (n_samples,) in [-1, 1] at 16 kHz; pitch and its range are 0 to 99, 50 is usual."""
        self._heard = []
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        settings = {RATE: words_per_minute, VOLUME: 100, PITCH: pitch, PITCH_RANGE: pitch_range}
        for parameter, value in settings.items():
            self._library.espeak_SetParameter(parameter, value, 0)
        spoken = text.encode()
        size = ctypes.c_size_t(len(spoken) + 1)
        self._library.espeak_Synth(spoken, size, 0, 1, 0, CHARS_UTF8, None, None)
        wave = np.concatenate(self._heard).astype(np.float32) / 32_768
        return np.asarray(resample_poly(wave, 320, 441), dtype=np.float32)

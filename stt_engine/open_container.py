"""Opening: which container, which of its streams is the sound, which decoder reads it; and why not, in our errors."""

from __future__ import annotations

import av
import av.container
import av.error

from stt_engine.audio_reader import AudioReader
from stt_engine.errors import CorruptAudio, NoAudioStream, NotAudio

_MAGIC_OF_SOUND = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3", b"#!AMR", b"caff", b"FORM", b".snd")
"""First bytes of containers that hold sound: a file that begins so and will not open is damaged, not something else."""

_PICTURE_CODECS = frozenset(
    {"mjpeg", "png", "apng", "gif", "bmp", "webp", "tiff", "jpeg2000", "jpegls", "jpegxl", "psd", "svg", "ansi"}
)
"""Still pictures, and text that FFmpeg would draw as one (`ansi`)."""

_BETTER_DECODERS = {"amr_nb": "libopencore_amrnb", "amr_wb": "libopencore_amrwb"}
"""FFmpeg's own AMR decoders refuse the comfort noise that telephones send in pauses (SID and empty frames)."""

_RAW_FORMATS = {"alaw": "alaw", "al": "alaw", "ulaw": "mulaw", "ul": "mulaw", "mulaw": "mulaw"}
"""Samples without a header, by suffix: nothing in them says so, and FFmpeg's guess is another codec. One channel at
8 kHz, as telephony has them."""


def open_container(reader: AudioReader) -> tuple[av.container.InputContainer, av.AudioStream]:
    """The container and its sound, the stream that FFmpeg thinks best where there are several.

    Raises NotAudio, NoAudioStream, CorruptAudio; what PyAV raises beside InvalidDataError is the caller's to map.
    """
    container = _opened(reader)
    try:
        sound = container.streams.best("audio")
        if sound is None and container.streams.audio:
            sound = container.streams.audio[0]
        if not isinstance(sound, av.AudioStream):
            raise _without_sound(container, reader.label)
        if sound.codec_context is None:
            raise NotAudio(f"{reader.label}: the codec of its sound is unknown; convert it to FLAC, WAV or Opus")
    except BaseException:
        container.close()
        raise
    sound.codec_context.thread_count = 1  # files are spread over processes, not one file over threads
    return container, sound


def _opened(reader: AudioReader) -> av.container.InputContainer:
    options = {"protocol_whitelist": "none"}  # no nested file, no address: see stt_engine.audio_reader
    head = reader.peek_at(0, 12)
    sounds_like_it = head.startswith(_MAGIC_OF_SOUND) or head[4:8] == b"ftyp"
    raw = None if sounds_like_it else _RAW_FORMATS.get(reader.name.rpartition(".")[2])
    try:
        if raw is not None:
            telephone = {"sample_rate": "8000", "ch_layout": "mono"}
            return av.open(reader, "r", format=raw, options=options | telephone, metadata_errors="ignore")
        return av.open(reader, "r", options=options, metadata_errors="ignore")
    except (av.error.InvalidDataError, av.error.PermissionError, IndexError) as error:
        if reader.failure is not None:
            raise
        if not sounds_like_it:
            raise NotAudio(f"{reader.label}: is no audio or video that opens; check what it really is") from error
    try:
        # looking less far ahead opens a file whose damage lies within the 5 MB that FFmpeg would read first
        reader.seek(0)
        return av.open(
            reader, "r", options=options | {"probesize": "65536", "analyzeduration": "0"}, metadata_errors="ignore"
        )
    except av.error.InvalidDataError as error:
        raise CorruptAudio(
            f"{reader.label}: begins like a recording but cannot be opened; it is cut short or damaged "
            "(an MP4 without its index at the end, for one): upload it again"
        ) from error


def _without_sound(container: av.container.InputContainer, label: str) -> NotAudio | NoAudioStream:
    codecs = {stream.codec_context.name for stream in container.streams.video}
    if not codecs or codecs <= _PICTURE_CODECS or container.format.name.endswith("_pipe"):
        return NotAudio(f"{label}: is a picture or a text, not audio; check what it really is")
    return NoAudioStream(f"{label}: is a video without sound; there is nothing to transcribe")


def decoder_for(stream: av.AudioStream) -> av.AudioCodecContext:
    """The stream's own decoder, or a better one for the same codec where this build has it."""
    better = _BETTER_DECODERS.get(stream.codec_context.codec.canonical_name)
    if better is None or better not in av.codecs_available:
        return stream.codec_context
    decoder = av.CodecContext.create(better, "r")
    assert isinstance(decoder, av.AudioCodecContext)  # both names are audio decoders
    decoder.sample_rate = stream.codec_context.sample_rate
    decoder.layout = "mono"  # AMR has no other
    return decoder

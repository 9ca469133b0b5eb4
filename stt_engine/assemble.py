"""From chunks to a file: the only place where chunk time becomes file time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stt_engine.quality import covered_seconds
from stt_engine.types import AudioInfo, ChunkTranscript, Region, Seconds, Segment, Timestamps, Transcript


def in_file_time(chunk_transcript: ChunkTranscript) -> list[Segment]:
    """The chunk's segments, shifted from chunk time to file time, on the chunk's channel."""
    start_s = chunk_transcript.chunk.start_s
    return [replace(s.shifted(start_s), channel=chunk_transcript.chunk.channel) for s in chunk_transcript.segments]


def assemble(
    chunk_transcripts: Sequence[ChunkTranscript],
    *,
    info: AudioInfo,
    speech_s: Seconds,
    backend: str,
    model: str,
    language: str | None = None,
    timestamps: Timestamps = "segment",
) -> Transcript:
    """One file's transcript out of those of its chunks, in any order.

    Segments are sorted by start; those of channels kept apart interleave. The text of a mixed-down file is its segments
    joined; with channels apart it is told turn by turn, in the order in which they were spoken.

    Args:
        language: what the user asked for, if anything; recorded also for files without speech.
        timestamps: "none" leaves one segment for each chunk; what is covered is measured before.
    """
    ordered = sorted(chunk_transcripts, key=lambda c: (c.chunk.start_sample, c.chunk.channel or 0))
    segments = [segment for c in ordered for segment in in_file_time(c)]
    segments.sort(key=lambda s: (s.start_s, s.end_s, s.channel or 0))
    kept = [merged(own) for c in ordered if (own := in_file_time(c))] if timestamps == "none" else segments
    warnings = list(info.warnings)
    left = sum("uncovered_speech" in c.flags for c in ordered)
    if left:
        warnings.append(f"speech without text in {left} of {len(ordered)} chunks: compare speech_s with covered_s")
    heard = max(ordered, key=lambda c: c.language_probability, default=None)
    return Transcript(
        text=" ".join(text for s in segments if (text := s.text.strip())),
        language=heard.language if heard else language,
        language_probability=heard.language_probability if heard else None,
        duration_s=info.duration_s,
        speech_s=speech_s,
        covered_s=_covered_s(ordered, segments),
        segments=tuple(kept),
        backend=backend,
        model=model,
        warnings=tuple(warnings),
    )


def merged(segments: Sequence[Segment]) -> Segment:
    """One segment, without words, over those of a chunk; its log probability is their mean, weighted by seconds."""
    weights_s = [max(s.end_s - s.start_s, 0.01) for s in segments]
    likely = sum(weight_s * s.avg_logprob for weight_s, s in zip(weights_s, segments, strict=True))
    return Segment(
        text="".join(s.text for s in segments),
        start_s=segments[0].start_s,
        end_s=max(s.end_s for s in segments),
        channel=segments[0].channel,
        avg_logprob=likely / sum(weights_s),
        no_speech_prob=max(s.no_speech_prob for s in segments),
        compression_ratio=max(s.compression_ratio for s in segments),
        temperature=max(s.temperature for s in segments),
        flags=tuple(sorted({flag for s in segments for flag in s.flags})),
        tokens=tuple(token for s in segments for token in s.tokens),
    )


def _covered_s(ordered: Sequence[ChunkTranscript], segments: Sequence[Segment]) -> Seconds:
    total_s = 0.0
    for channel in {c.chunk.channel for c in ordered}:
        regions: list[Region] = [r for c in ordered if c.chunk.channel == channel for r in c.chunk.regions]
        spans = [
            span
            for s in segments
            if s.channel == channel
            for span in ([(w.start_s, w.end_s) for w in s.words] or [(s.start_s, s.end_s)])
        ]
        total_s += covered_seconds(regions, spans)
    return total_s
